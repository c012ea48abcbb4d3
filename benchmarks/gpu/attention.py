"""Attention of packed rows, as an update has it, against the same rows in a padded batch."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from benchmarks.gpu.clock import own_work, seconds, seconds_and_peak
from vold.data.worlds.call_tokens import build_tokenizer
from vold.model.batching import collate
from vold.model.chat import Chat
from vold.model.packing import pack, packed_attention
from vold.model.policy import Policy
from vold.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.gpu.pair import Given
    from vold.model.batching import Sequences

KINDS = ("bfloat16", "float32")


def attention(given: Given) -> dict[str, Any]:
    """One layer's attention, forward and backward, of 16 heads that share 2 of keys: seconds, GiB beside its inputs,
    and the kernels that took most of the time.

    Rows are of several lengths. What is timed is the function that Transformers calls in a layer, on what a layer
    hands it; bfloat16, which an update runs in, and float32. `apart`: how far packed rows in bfloat16 are from the same
    numbers in float64 on the host, row by row: output and gradients, some rows with a prompt in common, with a window
    and without; relative.
    """
    found: dict[str, Any] = {}
    for kind in KINDS:
        policy = one_layer(given, getattr(torch, kind))
        batch = uneven(given, policy)
        for name, layout in (("packed", packed), ("padded", padded)):
            call = layout(policy, batch)
            work = partial(there_and_back, call)
            _, peak = seconds_and_peak(given.device, work)
            _, kernels = own_work(given.device, work)
            spent = seconds(given.device, work)
            found[f"{name} {kind}"] = {"ms": spent * 1e3, "gib": peak, "kernels": [k[:120] for k in list(kernels)[:3]]}
    found["apart"] = max(apart(given, window) for window in (None, 64))
    found["packed_over_padded"] = found["packed bfloat16"]["ms"] / found["padded bfloat16"]["ms"]
    return found


def apart(given: Given, window: int | None) -> float:
    """See `attention`."""
    chance = random.Random(1)
    a, b, c = (Prompt(tuple(range(1, n + 1))) for n in (given.per(9, 90), given.per(4, 41), given.per(6, 160)))
    rows = [(1,) * chance.randint(0, given.per(12, 300)) for _ in range(6)]
    batch = collate([a, b, a, c, b, a], rows, [(1,) * len(r) for r in rows], 0)
    torch.manual_seed(0)
    count = len(pack(batch, torch.device("cpu")).index)
    numbers = [torch.randn(1, heads, count, given.per(8, 128)).bfloat16() for heads in (16, 2, 2, 16)]
    found = []
    for device, kind in ((given.device, torch.bfloat16), ("cpu", torch.float64)):
        query, key, value, upstream = (t.to(device, kind).requires_grad_() for t in numbers)
        packed = pack(batch, torch.device(device))
        out, _ = packed_attention(torch.nn.Module(), query, key, value, None, packed, sliding_window=window)
        gradients = torch.autograd.grad(out, (query, key, value), upstream.transpose(1, 2))
        found.append([t.detach().double().cpu() for t in (out, *gradients)])
    return max(float((x - y).norm() / y.norm()) for x, y in zip(*found, strict=True))


def one_layer(given: Given, dtype: torch.dtype) -> Policy:
    """A language model of the student's heads and next to nothing else."""
    tokenizer = build_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=given.per(32, 2048), intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=given.per(4, 16), num_key_value_heads=2, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.device(given.device):
        return Policy(AutoModelForCausalLM.from_config(config, dtype=dtype), Chat(tokenizer))


def uneven(given: Given, policy: Policy) -> Sequences:
    """Rows between a quarter of the longest and the longest, which has about half of all places of the batch full."""
    chance, longest = random.Random(0), given.per(12, 2048)
    lengths = [longest, *(chance.randint(longest // 4, longest) for _ in range(given.per(2, 7)))]
    rows = [[20] * (n - 2) for n in lengths]
    return collate([Prompt((20, 21 + i)) for i in range(len(rows))], rows, [[1] * len(r) for r in rows], 0)


def captured(name: str, run: Callable[[], object]) -> Callable[[], torch.Tensor]:
    """A call of the attention function of that name with what `run` handed it; its inputs ask for gradients."""
    function: Any = ALL_ATTENTION_FUNCTIONS[name]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def hear(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return function(*args, **kwargs)

    ALL_ATTENTION_FUNCTIONS[name] = hear
    try:
        with torch.no_grad():
            run()
    finally:
        ALL_ATTENTION_FUNCTIONS[name] = function
    (module, *inputs), kwargs = calls[0]
    tensors = [t.detach().requires_grad_(t.is_floating_point() and i < 3) for i, t in enumerate(inputs[:3])]
    return lambda: function(module, *tensors, *inputs[3:], **kwargs)[0]


def packed(policy: Policy, batch: Sequences) -> Callable[[], torch.Tensor]:
    """As `Policy.states` runs it."""
    return captured(policy.model.config._attn_implementation, lambda: policy.states(batch))


def padded(policy: Policy, batch: Sequences) -> Callable[[], torch.Tensor]:
    """As Transformers runs a padded batch."""
    policy.model.set_attn_implementation("sdpa")
    inputs = policy.sent({"input_ids": batch.input_ids, "attention_mask": batch.attention_mask})
    return captured("sdpa", lambda: policy.hidden(**inputs, use_cache=False))


def there_and_back(call: Callable[[], torch.Tensor]) -> None:
    """A forward and a backward pass."""
    call().sum().backward()
