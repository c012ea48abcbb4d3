"""The update and the head on one GPU: `python benchmarks/gpu.py` prints a table and writes results/gpu.json.

`roofline/update_gpu/SHAPE` is an update of the language model in bfloat16 with float32 moments: forward and backward
pass, clipping, AdamW. Its useful FLOPs a second stand over the best bfloat16 product measured beside it. `head/...` is
what training reads off 151,936 ids, and its gradient, against dense PyTorch and, where TRL is installed, its fused
functions. Weights are random. With `--device cpu --shape tiny` it only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from run import HERE, row
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, Qwen2Config

from vold.model.batching import collate
from vold.model.lm_head.fused import Query
from vold.model.lm_head.logprobs import read_head
from vold.model.policy import Policy
from vold.run.recipe import Optimizer
from vold.training.optim import apply_update, build_optimizer
from vold.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.model.lm_head.fused import HeadOutput

MIB = 2**20


@dataclass(frozen=True)
class Shape:
    """A language model, and the products whose best rate is the peak, [side, side] each."""

    width: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int
    ids: int
    peak: tuple[int, ...]


SHAPES = {
    "qwen2_5_vl-3b": Shape(2048, 11008, 36, 16, 2, 151936, (4096, 8192, 16384)),
    "tiny": Shape(16, 32, 2, 2, 1, 128, (64,)),
}
"""The first is the language model of Qwen2.5-VL-3B: on text its blocks are those of a Qwen2."""


class _Pads:
    """What `Policy` wants of a chat where no text is read: a padding id, and no tokens beside the model's rows."""

    pad_id, tokenizer = 0, ()


def policy_of(shape: Shape, device: str) -> Policy:
    """Random weights in bfloat16."""
    config = Qwen2Config(
        vocab_size=shape.ids,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return Policy(model, _Pads())  # type: ignore[arg-type]


class Clock:
    """Seconds and MiB of work on a device."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def __call__(self, work: Callable[[], Any]) -> dict[str, float]:
        before = 0
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        began = time.perf_counter()
        work()
        if self.cuda:
            torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() if self.cuda else 0
        return {"seconds": time.perf_counter() - began, "mib": (peak - before) / MIB}


def alternate(sides: dict[str, Callable[[], Any]], clock: Clock, repetitions: int) -> dict[str, list[dict[str, float]]]:
    """The sides in turn, after two turns that are not counted."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for turn in range(repetitions + 2):
        for name, work in sides.items():
            spent = clock(work)
            if turn > 1:
                found[name].append(spent)
    return found


def roofline(shape: Shape, device: str, tokens: int, length: int, repetitions: int) -> tuple[list[float], list[float]]:
    """TFLOP/s of an update of `tokens` in rows of `length`, and of the best product, turn by turn."""
    clock = Clock(device)
    policy = policy_of(shape, device)
    policy.model.train()
    optimizer = build_optimizer(policy, Optimizer(lr=1e-12, schedule="constant", warmup_steps=0))
    rows = tokens // length
    batch = collate(
        [Prompt((7, 8 + i)) for i in range(rows)], [(9,) * (length - 2)] * rows, [(1,) * (length - 2)] * rows, 0
    )
    body = sum(p.numel() for n, p in policy.model.named_parameters() if p.ndim == 2 and "layers" in n)
    attention = 6 * length * shape.width * shape.layers  # causal: half of 12, a token
    flops = rows * (length * (6 * body + attention) + (length - 2) * 6 * shape.ids * shape.width)

    def update() -> None:
        policy.logprobs(batch, loss_of=summed)[0].sum().backward()
        apply_update(policy, optimizer, lr=1e-12, max_grad_norm=1.0)

    def product(side: int) -> Callable[[], torch.Tensor]:
        a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
        return lambda: a @ b

    sides = {"update": update} | {str(side): product(side) for side in shape.peak}
    found = alternate(sides, clock, repetitions)
    best = [
        max(2 * side**3 / found[str(side)][turn]["seconds"] for side in shape.peak) / 1e12
        for turn in range(repetitions)
    ]
    return [flops / spent["seconds"] / 1e12 for spent in found["update"]], best


def head(shape: Shape, device: str, tokens: int, repetitions: int) -> dict[str, list[dict[str, float]]]:
    """Log-prob with entropy, and the gradient, by side: `vold`, `dense`, and `trl` where it is there."""
    hidden = torch.randn(tokens, shape.width, device=device, dtype=torch.bfloat16, requires_grad=True)
    layer = torch.nn.Linear(shape.width, shape.ids, bias=False, device=device, dtype=torch.bfloat16)
    torch.nn.init.normal_(layer.weight, std=0.02)
    targets = torch.randint(0, shape.ids, (tokens,), device=device)
    nothing = torch.tensor([], dtype=torch.int64, device=device)

    def back(logp: torch.Tensor) -> None:
        logp.sum().backward()
        hidden.grad = layer.weight.grad = None

    def dense() -> None:
        logp = log_softmax(layer(hidden).float(), -1)
        with torch.no_grad():
            -(logp.exp() * logp).sum(-1)
        back(logp.gather(-1, targets[:, None])[:, 0])

    sides = {
        "vold": lambda: back(read_head(hidden, layer, Query(targets, banned=nothing, loss_of=summed)).logp),
        "dense": dense,
    }
    try:
        from trl.kernels.chunked_logprob import ChunkedLogProbFunction as Fused
    except ImportError:
        pass
    else:
        asked = ("log_probs", "entropy")
        sides["trl"] = lambda: back(Fused.apply(hidden, layer.weight, None, targets, 1.0, 32768, None, 1.0, asked)[0])
    return alternate(sides, Clock(device), repetitions)


def summed(_: slice, reading: HeadOutput) -> torch.Tensor:
    return reading.logp.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shape", choices=[*SHAPES], default="qwen2_5_vl-3b")
    parser.add_argument(
        "--tokens", type=int, default=4096, help="of an update: its activations are kept (default 4096)"
    )
    parser.add_argument("--length", type=int, default=1024, help="of a row (default 1024)")
    parser.add_argument("--head-tokens", type=int, default=8192, help="of the head (default 8192)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu.json")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU that PyTorch can use; --device cpu --shape tiny shows that the script runs")
    shape = SHAPES[asked.shape]
    rows: list[dict[str, Any]] = []
    sides = head(shape, asked.device, asked.head_tokens, asked.repetitions)
    for peer in [name for name in sides if name != "vold"]:
        for what, unit in (("seconds", "s"), ("mib", "MiB")) if asked.device == "cuda" else (("seconds", "s"),):
            name = f"head/{'time' if unit == 's' else 'memory'}_vs_{peer}/gpu"
            rows.append(row(name, [r[what] for r in sides["vold"]], [r[what] for r in sides[peer]], unit))
    achieved, peak = roofline(shape, asked.device, asked.tokens, asked.length, asked.repetitions)
    rows.append(row(f"roofline/update_gpu/{asked.shape}", achieved, peak, "TFLOP/s"))
    for r in rows:
        print(f"{r['name']:<40} {r['ratio']!s:>7}  {r['ours']!s:>10} {r['peer']!s:>10}  {r['unit']}")
    result = {
        "machine": {"device": torch.cuda.get_device_name() if asked.device == "cuda" else "cpu"},
        "versions": {p: v for p in ("torch", "triton", "transformers", "trl", "vold") if (v := version_of(p))},
        "settings": {k: v if isinstance(v, int) else str(v) for k, v in vars(asked).items() if k != "out"},
        "rows": rows,
    }
    asked.out.parent.mkdir(exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
