"""A pass of a model without storage: attention and experts as the kernels have them that real passes use."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from vold.model.families import family_of
from vold.model.inputs import run_base

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

PROBE_TOKENS = 61
"""A prime, so that no weight has a side of it."""
ATTENTION = EXPERTS = "vold_memory"
"""The name under which Transformers finds what is below."""


def run(model: Any) -> torch.Tensor:
    """The last hidden states of a model without storage: what its layers keep and give, and nothing computed."""
    ids = torch.zeros((1, PROBE_TOKENS), dtype=torch.int64, device="meta")
    axes = (3,) if family_of(model.config).rotates_by_grid else ()
    positions = torch.zeros((*axes, 1, PROBE_TOKENS), dtype=torch.int64, device="meta")
    AttentionInterface.register(ATTENTION, _attention)
    model.set_attn_implementation(ATTENTION)
    ALL_EXPERTS_FUNCTIONS.register(EXPERTS, _experts)
    model.set_experts_implementation(EXPERTS)
    beside = {"position_ids": positions, **dict.fromkeys(family_of(model.config).kinds, ids)}
    output = run_base(model, input_ids=ids, attention_mask=None, use_cache=False, **beside)
    states: torch.Tensor = output.last_hidden_state
    return states


def _experts(module: Any, states: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What experts keep and give: each token through as many as it is sent to, whichever they are."""
    each = states.repeat_interleave(chosen.shape[-1], 0)
    ways = (module.gate_up_proj if module.has_gate else module.up_proj)[0], module.down_proj[0]
    up, down = ways if module.is_transposed else (way.T for way in ways)
    inner = (module._apply_gate if module.has_gate else module.act_fn)(each @ up)
    out: torch.Tensor = (inner @ down) * weights.reshape(-1, 1)
    return out.view(*chosen.shape, -1).sum(1)


class _Kernel(torch.autograd.Function):
    """What a fused attention kernel keeps and gives back: its three inputs and its output; their gradients."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors[:3])


def _attention(_module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
    """Row by row, as in `vold.model.packing`; two of them show what joining them takes."""
    kernel: Any = _Kernel.apply
    rows = zip(*(t.split(PROBE_TOKENS // 2 + 1, 2) for t in (query, key, value)), strict=True)
    return torch.cat([kernel(*row) for row in rows], 1), None


class AliveBytes(TorchDispatchMode):
    """Sums the storages that are alive: those it is told of, and those that operations make while it is active.

    Args:
        alive: what is there already.
        apart: shapes of tensors that are not counted.

    Attributes:
        now: bytes that are alive.
        peak: the most so far.
    """

    def __init__(self, alive: Sequence[torch.Tensor], *, apart: Collection[tuple[int, ...]] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._apart = apart
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in alive:
            self._see(tensor)

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:

            def gone(_: object) -> None:
                self.now -= size
                del self._known[key]

            self._known[key] = weakref.ref(storage, gone)
            self.now += size
            self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and tuple(leaf.shape) not in self._apart:
                self._see(leaf)
        return out
