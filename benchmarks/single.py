"""Comparisons inside one process: the head, packing, the teacher's share, growth and the share of peak."""

from __future__ import annotations

import gc
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from shapes import GROUP
from sides import MIB, measured
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM

from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.teachers.ask import score_rollouts
from vold.model.batching import collate, packed_micro_batches
from vold.model.lm_head.fused import Query
from vold.model.lm_head.fused_divergence import FullDivergence
from vold.model.lm_head.logprobs import read_head
from vold.model.lm_head.teacher_logits import Against, Distributions
from vold.model.policy import Policy
from vold.run.recipe import Optimizer
from vold.training.optim import apply_update, build_optimizer
from vold.types import Prompt, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.model.batching import Sequences
    from vold.model.lm_head.fused import HeadOutput

NOTHING = torch.tensor([], dtype=torch.int64)
PROMPT = 32
"""Tokens of a prompt where its length does not matter."""
MEMORY_TURNS = 2
"""Turns of which memory is read, before those that are timed; the first is not counted."""
AT_LEAST = 8192
"""Tokens of passes that are timed together: one of a few thousand is over too soon."""


def alternate(sides: dict[str, Callable[[], Any]], repetitions: int, owned: float) -> dict[str, list[dict[str, float]]]:
    """Run the sides in turn, after one turn that is not counted."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for turn in range(repetitions + 1):
        for name, work in sides.items():
            gc.collect()
            result = measured(work, owned)
            if turn:
                found[name].append(result)
    return found


class Heads:
    """A student's and a teacher's head over one set of states, and the ways of reading them with a gradient."""

    def __init__(self, tokens: int, width: int, vocabulary: int) -> None:
        torch.manual_seed(0)
        self.hidden = torch.randn(tokens, width, requires_grad=True)
        self.layer, self.other = (torch.nn.Linear(width, vocabulary, bias=False) for _ in range(2))
        for head in (self.layer, self.other.requires_grad_(False)):
            torch.nn.init.normal_(head.weight, std=0.05)
        self.theirs, self.targets = torch.randn(tokens, width), torch.randint(0, vocabulary, (tokens,))
        self.some = torch.randint(0, vocabulary, (tokens, 64))
        self.weights = torch.randn(tokens)
        teacher = Distributions(self.theirs, self.other, NOTHING, 1.0)
        self.against = Against(teacher, torch.ones(tokens, dtype=torch.bool), FullDivergence("reverse_kl"))

    @property
    def own(self) -> float:
        """MiB of the gradients, which all sides make."""
        return (self.layer.weight.numel() + self.hidden.numel()) * 4 / MIB

    def back(self, values: torch.Tensor, weighed_by: torch.Tensor) -> None:
        """Backward from a weighted sum."""
        (values * weighed_by).sum().backward()
        self.hidden.grad = self.layer.weight.grad = None

    def logp(self) -> torch.Tensor:
        """Dense log-probs of the student."""
        return log_softmax(self.layer(self.hidden), -1)

    def ours(self, what: str, per_token: torch.Tensor, **asked: Any) -> None:
        """A weighted sum of what our head reads, and its gradient."""

        def loss_of(part: slice, found: HeadOutput) -> torch.Tensor:
            value: torch.Tensor = (getattr(found, what) * per_token[part]).sum()
            return value

        reading = read_head(self.hidden, self.layer, Query(self.targets, NOTHING, loss_of=loss_of, **asked))
        self.back(getattr(reading, what), per_token)

    def dense(self) -> None:
        """Log-prob with entropy in dense PyTorch."""
        logp = self.logp()
        with torch.no_grad():
            -(logp.exp() * logp).sum(-1)
        self.back(logp.gather(-1, self.targets[:, None])[:, 0], self.weights)

    def fused(self) -> None:
        """Log-prob with entropy by TRL."""
        from trl.kernels.chunked_logprob import ChunkedLogProbFunction

        asked = ("log_probs", "entropy")
        found = ChunkedLogProbFunction.apply(
            self.hidden, self.layer.weight, None, self.targets, 1.0, 32768, None, 1.0, asked
        )
        self.back(found[0], self.weights)

    def dense_kl(self) -> None:
        """Reverse KL in dense PyTorch."""
        mine, reference = self.logp(), log_softmax(self.other(self.theirs), -1)
        self.back((mine.exp() * (mine - reference)).sum(-1), self.weights)

    def fused_kl(self) -> None:
        """Reverse KL by TRL."""
        from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

        found = ChunkedDivergenceFunction.apply(
            self.hidden, self.layer.weight, None, self.theirs, self.other.weight, None, 1.0
        )
        self.back(found[0], self.weights)

    @torch.no_grad()
    def top(self) -> None:
        """The likeliest ids by our head."""
        read_head(self.hidden, self.layer, Query(self.targets, NOTHING, top_k=64))

    @torch.no_grad()
    def dense_top(self) -> None:
        """The likeliest ids in dense PyTorch."""
        logp = self.logp()
        logp.gather(-1, self.targets[:, None])
        -(logp.exp() * logp).sum(-1)
        logp.topk(64)


def head(tokens: int, repetitions: int, *, full: bool, width: int = 256, vocabulary: int = 151936) -> dict[str, Any]:
    """What is read off 151,936 ids, and its gradient, against dense PyTorch and TRL's fused functions.

    Log-prob with entropy, and reverse KL to a teacher; with `full` reverse KL against TRL too, the log-probs of 64
    given ids, and, without a gradient, the 64 likeliest ids. Losses are weighted sums.
    """
    h = Heads(tokens, width, vocabulary)
    sides: dict[str, dict[str, Callable[[], None]]] = {
        "logprob": {"vold": lambda: h.ours("logp", h.weights), "dense": h.dense, "trl": h.fused},
        "reverse_kl": {
            "vold": lambda: h.ours("divergence", h.weights, against=h.against),
            "dense": h.dense_kl,
        },
    }
    if full:
        sides["reverse_kl"]["trl"] = h.fused_kl
        each = h.weights[:, None]
        sides["candidates"] = {
            "vold": lambda: h.ours("candidates", each, candidates=h.some),
            "dense": lambda: h.back(h.logp().gather(-1, h.some), each),
        }
        sides["top_k"] = {"vold": h.top, "dense": h.dense_top}
    # what needs no gradient makes none
    return {n: alternate(s, repetitions, 0.0 if n == "top_k" else h.own) for n, s in sides.items()}


def head_memory(tokens: int, *, width: int = 32, vocabulary: int = 151936) -> dict[str, float]:
    """MiB beside the gradients that log-prob with entropy, and reverse KL, take with so many tokens."""
    hidden, theirs = torch.randn(tokens, width, requires_grad=True), torch.randn(tokens, width)
    layer = torch.nn.Linear(width, vocabulary, bias=False)
    targets = torch.zeros(tokens, dtype=torch.int64)
    teacher = Distributions(theirs, layer, NOTHING, 1.0)
    against = Against(teacher, torch.ones(tokens, dtype=torch.bool), FullDivergence("reverse_kl"))
    own = (layer.weight.numel() + hidden.numel()) * 4 / MIB

    def kl(_: slice, reading: HeadOutput) -> torch.Tensor:
        assert reading.divergence is not None
        return reading.divergence.sum()

    asked: dict[str, dict[str, Any]] = {
        "logprob": {"loss_of": summed},
        "reverse_kl": {"loss_of": kl, "against": against},
    }
    found = {}
    for what, more in asked.items():

        def work(more: dict[str, Any] = more) -> None:
            reading = read_head(hidden, layer, Query(targets, banned=NOTHING, **more))
            more["loss_of"](slice(None), reading).backward()
            hidden.grad = layer.weight.grad = None

        found[what] = measured(work, own)["mib"]
    return found


def head_error(*, tokens: int = 32, width: int = 64, vocabulary: int = 151936) -> dict[str, float]:
    """Largest errors against float64, in nats: of log-prob, entropy, the 8 likeliest log-probs and reverse KL; and of
    the gradients of states and weight for log-prob and for reverse KL, in shares of their largest entry."""
    torch.manual_seed(0)
    inputs = [torch.randn(tokens, width), torch.randn(vocabulary, width) * 0.05]
    theirs = [torch.randn(tokens, width), torch.randn(vocabulary, width) * 0.05]
    targets, out = torch.randint(0, vocabulary, (tokens,)), dict[str, float]()
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        # what is rounded on the way in is not the head's error
        leaves = [t.to(dtype).double().requires_grad_() for t in inputs]
        reference = [t.to(dtype).double() for t in theirs]
        logp, other = (log_softmax(states @ weight.t(), -1) for states, weight in (leaves, reference))
        exact = {
            "logp": logp.gather(-1, targets[:, None])[:, 0],
            "entropy": -(logp.exp() * logp).sum(-1),
            "top_logp": logp.topk(8).values,
            "divergence": (logp.exp() * (logp - other)).sum(-1),
        }
        mine, layer, head = inputs[0].to(dtype).requires_grad_(), *(_head(w, dtype) for w in (inputs[1], theirs[1]))
        teacher = Distributions(theirs[0].to(dtype), head, NOTHING, 1.0)
        against = Against(teacher, torch.ones(tokens, dtype=torch.bool), FullDivergence("reverse_kl"))
        got = read_head(mine, layer, Query(targets, banned=NOTHING, top_k=8, against=against))._asdict()
        for what, value in exact.items():
            out[f"{what} {name}"] = float((got[what].detach().double() - value.detach()).abs().max())
        for what in ("logp", "divergence"):
            right = torch.autograd.grad(exact[what].sum(), leaves, retain_graph=True)
            found = torch.autograd.grad(got[what].sum(), (mine, layer.weight), retain_graph=True)
            gaps = [(a.double() - b).abs().max() / b.abs().max() for a, b in zip(found, right, strict=True)]
            out[f"gradient of {what} {name}"] = float(max(gaps))
    return out


def _head(weight: torch.Tensor, dtype: torch.dtype) -> torch.nn.Linear:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=dtype)
    layer.weight.data.copy_(weight)
    return layer


def summed(_: slice, reading: HeadOutput) -> torch.Tensor:
    """The loss of a chunk where the loss is the sum of log-probs."""
    return reading.logp.sum()


def packing_efficiency() -> float:
    """Tokens over the room in the micro-batches, for 512 rollouts of 50 to 2,000 tokens under a budget of 16,384."""
    generator = torch.Generator().manual_seed(0)
    lengths = (torch.rand(512, generator=generator).pow(2) * 1950 + 50).long().tolist()
    prompts = [Prompt((i // 8,) * 120) for i in range(512)]
    groups = packed_micro_batches(prompts, lengths, 16384)
    tokens = sum(sum(lengths[i] for i in g) + 120 * len({prompts[i].ids for i in g}) for g in groups)
    return tokens / (16384 * len(groups))


def teacher_share(model: Path) -> tuple[float, float, float, float]:
    """Tokens scored, tokens whose score the objective uses, tokens sampled, and seconds; a quarter of the rollouts
    passed."""
    from shapes import stored_rollouts

    from vold.engines.teachers.inprocess import InProcessTeacher
    from vold.objective import credit
    from vold.run.recipe import Distill

    config = Distill.model_validate(
        {
            "tasks": "unused",
            "objective": {"method": "vold"},
            "sampling": {"max_new_tokens": 96},
            "optimizer": {"lr": 1e-6},
        }
    )
    prompts, rollouts = stored_rollouts(4, 96, size=49152)
    policy = Policy.load(str(model))
    teacher = InProcessTeacher(policy, temperature=1.0, token_budget=8192)
    began = time.perf_counter()
    rollouts = score_rollouts(rollouts, teacher, list(prompts), config.objective)
    seconds = time.perf_counter() - began
    scored = sum(len(r.teacher.logp) for r in rollouts if r.teacher is not None)
    rollouts = credit(config.objective, rollouts, 0, seed=1, max_new_tokens=96, token_texts=policy.chat.token_texts)
    used = sum(0 if r.teacher_weight is None else int((r.teacher_weight != 0).sum()) for r in rollouts)
    return float(scored), float(used), float(sum(len(r.completion.ids) for r in rollouts)), seconds


def growth(
    models: tuple[Path, Path], few: dict[str, int], many: dict[str, int], repetitions: int
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """A forward and backward pass of the first model and the sizes `few`, and of the second and `many`: seconds a token
    in each of the turns, and MiB a token beside weights and gradients in turns before; the first is not counted.

    Sizes are `tokens` that are packed in all, `rows` that share a prompt, and the length of a `response`.
    """
    sides = []
    for model, sizes in zip(models, (few, many), strict=True):
        policy, rows, response = Policy.load(str(model)), sizes["rows"], sizes["response"]
        groups = max(1, sizes["tokens"] // (PROMPT + rows * response))
        prompts = [Prompt((7,) * (PROMPT - 1) + (8 + g,)) for g in range(groups) for _ in range(rows)]
        batch = collate(prompts, [(9,) * response] * len(prompts), [(1,) * response] * len(prompts), 0)
        sides.append((policy, batch, groups * (PROMPT + rows * response)))

    def work(policy: Policy, batch: Sequences) -> None:
        policy.logprobs(batch, loss_of=summed)[0].sum().backward()
        policy.model.zero_grad(set_to_none=True)

    found: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    for turn in range(repetitions + MEMORY_TURNS):
        for (policy, batch, tokens), results in zip(sides, found, strict=True):
            if turn < MEMORY_TURNS:
                own = sum(p.numel() for _, p in policy.trainable()) * 4 / MIB
                results.append({"mib": measured(lambda: work(policy, batch), own)["mib"] / tokens})  # noqa: B023
                continue
            passes = max(1, AT_LEAST // tokens)
            began = time.perf_counter()
            for _ in range(passes):
                work(policy, batch)
            results.append({"seconds": (time.perf_counter() - began) / tokens / passes})
    few_found, many_found = found
    return few_found[1:], many_found[1:]


def rollouts(model: Path, rows: int, new: int, repetitions: int) -> dict[str, list[float]]:
    """Seconds a token of sampling: ours, with log-probs, and Transformers' `generate`, without.

    Groups of four responses of at most `new` tokens. Each side is told to stop at the end token.
    """
    policy = Policy.load(str(model))
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    chance = random.Random(0)
    size = plain.config.vocab_size
    prompts = [Prompt(tuple(chance.randrange(8, size) for _ in range(PROMPT))) for _ in range(rows // GROUP)]
    ids = torch.tensor([p.ids for p in prompts])

    def ours(seed: int) -> int:
        made = InProcessSampler(policy, rows).generate(prompts, SamplingParams(new, 1.0, seed), GROUP)
        return sum(len(c.ids) for group in made for c in group)

    def peer(seed: int) -> int:
        torch.manual_seed(seed)
        made = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=True, top_k=0, top_p=1.0,
            temperature=1.0, num_return_sequences=GROUP, eos_token_id=1, pad_token_id=0,
        )[:, PROMPT:]  # fmt: skip
        ended = (made == 1).cumsum(-1)
        return int(((ended == 0) | ((ended == 1) & (made == 1))).sum())

    found: dict[str, list[float]] = {"vold": [], "generate": []}
    for turn in range(repetitions + 1):
        for name, side in (("vold", ours), ("generate", peer)):
            began = time.perf_counter()
            tokens = side(turn)
            if turn:
                found[name].append((time.perf_counter() - began) / tokens)
    return found


def roofline(model: Path, tokens: int, repetitions: int) -> dict[str, list[float]]:
    """Useful matrix-product FLOPs of an update a second, over the best product measured.

    Six a weight and token (two forward, four backward), attention's own products included. The time is that of the
    whole update: forward and backward pass, clipping and AdamW.
    """
    policy = Policy.load(str(model))
    optimizer = build_optimizer(policy, Optimizer(lr=1e-12, schedule="constant", warmup_steps=0))
    config = policy.model.config.get_text_config()
    rows = tokens // 128
    batch = collate([Prompt((7, 8 + i)) for i in range(rows)], [(9,) * 126] * rows, [(1,) * 126] * rows, 0)
    body = sum(p.numel() for n, p in policy.model.model.named_parameters() if p.ndim == 2 and "layers" in n)
    head_weights = config.vocab_size * config.hidden_size
    attention = 6 * 2 * 128 * config.hidden_size * config.num_hidden_layers / 2  # causal: half of the square
    flops = rows * 128 * (6 * body + attention) + rows * 126 * 6 * head_weights
    shapes = [(1024, 576, 1536), (1024, 1536, 576), (1024, 576, 4096), (1024, 1024, 1024), (2048, 2048, 2048)]
    found: dict[str, list[float]] = {"peak": [], "achieved": []}
    for turn in range(repetitions + 1):
        peak = 0.0
        for m, k, n in shapes:
            a, b = torch.randn(m, k), torch.randn(k, n)
            for _ in range(4):
                began = time.perf_counter()
                a @ b
                peak = max(peak, 2 * m * k * n / (time.perf_counter() - began))
        began = time.perf_counter()
        policy.logprobs(batch, loss_of=summed)[0].sum().backward()
        apply_update(policy, optimizer, lr=1e-12, max_grad_norm=1.0)
        spent = time.perf_counter() - began
        if turn:
            found["peak"].append(peak / 1e9)
            found["achieved"].append(flops / spent / 1e9)
    return found
