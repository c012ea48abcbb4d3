"""What of a certificate is tried only where it is wanted: adapters, layers that are computed again, saving."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vold.model.families import inside_blocks, linear_layers
from vold.model.lora import add_adapters, is_adapter
from vold.model.recompute import checkpoint_layers, keep_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vold.model.chat import Chat
    from vold.model.policy import Policy
    from vold.model.recompute import Kept
    from vold.types import Prompt

    States = Callable[[], torch.Tensor]

KEPT: tuple[Kept, ...] = (True, "selective")
SMALL = 2**20
"""Elements of a parameter whose gradient is cheap: norms, biases, routers. Those of the first block need all others."""
FACTOR = 0.1
"""What the second factor of every adapter is set to."""


def adapters_missing(policy: Policy, states: States) -> str:
    """Why adapters cannot be trained on a model; empty where they can. `states` are those of some text."""
    if not linear_layers(policy.model.base_model, policy.family):
        return "there is no linear layer in the blocks of its language model"
    before = states()
    with _adapted(policy):
        changed = not torch.equal(states(), before)
    if not changed and before.any():  # where all is zero nothing changes: an empty model, not one without places
        return "they change nothing"
    return "" if torch.equal(states(), before) else "without them the model is not what it was"


@contextlib.contextmanager
def _adapted(policy: Policy) -> Iterator[None]:
    """With adapters that do not start at zero; they are taken off again."""
    trained = {n: p.requires_grad for n, p in policy.model.named_parameters()}
    view = add_adapters(policy.model, policy.family, rank=1, alpha=1, seed=0)
    try:
        for name, parameter in view.named_parameters():
            if is_adapter(name) and ".lora_B." in name:
                parameter.data.fill_(FACTOR)
        yield
    finally:
        view.unload()
        for name, parameter in policy.model.named_parameters():
            parameter.requires_grad_(trained[name])


def gradients_differ(policy: Policy, states: States) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Gradients of the blocks' small parameters, with layers that are computed again and as they are kept, for each of
    `KEPT`. `states` are those of some rows."""
    model, inside = policy.model, re.compile(inside_blocks(policy.family))
    blocks = [p for n, p in model.base_model.named_parameters() if inside.match(n) and p.requires_grad]
    wanted = [p for p in blocks if p.numel() <= SMALL]
    if not wanted:
        raise ValueError("no small parameter of its blocks is trained")
    model.train()
    try:
        plain = _gradients(wanted, states)
        for kept in KEPT:
            checkpoint_layers(model, kept)
            try:
                yield _gradients(wanted, states), plain
            finally:
                keep_layers(model)
    finally:
        model.eval()


def _gradients(wanted: Sequence[torch.nn.Parameter], states: States) -> torch.Tensor:
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = torch.autograd.grad(states().square().sum(), list(wanted), allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, found, strict=True)]
    return torch.cat([g.flatten().float() for g in filled])


def reads_back(policy: Policy, write: Callable[[Chat], Sequence[Prompt]]) -> str:
    """Why a saved model is not what is read again, weight for weight and prompt for prompt; empty where it is.

    Args:
        policy: the model.
        write: some prompts of a chat's.
    """
    size = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    with tempfile.TemporaryDirectory() as place:
        if (free := shutil.disk_usage(place).free) < 2 * size:
            return f"not tried: {free:,} bytes are left in {place}, {2 * size:,} are wanted"
        policy.save(Path(place))
        again = type(policy).load(place, dtype=str(policy.model.dtype).removeprefix("torch."))
        ours, theirs = policy.model.state_dict(), again.model.state_dict()
        if ours.keys() != theirs.keys():
            return f"other weights: {sorted(ours.keys() ^ theirs.keys())[:2]}"
        if wrong := next((n for n, t in ours.items() if not torch.equal(t.cpu(), theirs[n])), ""):
            return f"another weight: {wrong}"
        before, after = write(policy.chat), write(again.chat)
        return "" if all(map(_same, before, after)) else "it writes or shows a prompt in another way"


def _same(one: Prompt, other: Prompt) -> bool:
    seen = one.vision.keys() == other.vision.keys()
    return one.ids == other.ids and seen and all(torch.equal(t, other.vision[n]) for n, t in one.vision.items())
