"""Prompts into a cache, and one further token of each row from there: what sampling does but for the draw."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from vold.model.batching import collate
from vold.model.chat import stack_vision
from vold.model.packing import NO_MASK, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.model.policy import Policy
    from vold.model.slots import Slots
    from vold.types import Prompt


def read_prompts(
    policy: Policy, cache: Slots, prompts: Sequence[Prompt], rows: Sequence[int], first: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pass each prompt once, packed, and keep its keys and values in `rows[i]` slots, the first of which is `first`.

    The slots must be seen (`Slots.see`) up to the longest prompt.

    Returns:
        The state that ends each row's prompt [rows, width] on the device, its tokens, and the position of what follows,
        both [rows] int64 on the host.
    """
    device = policy.model.device
    batch = collate(prompts, [()] * len(prompts), [()] * len(prompts), policy.chat.pad_id)
    packed = pack(batch, device)
    beside = policy.beside(batch.input_ids, batch.attention_mask, batch.vision)
    for name in ("position_ids", *policy.family.kinds):
        beside[name] = beside[name].flatten(-2)[..., None, packed.index]
    positions = beside["position_ids"]
    ends, each = torch.tensor(packed.pieces).cumsum(0), torch.tensor(rows)
    lengths = torch.tensor(batch.prompt_lengths).repeat_interleave(each)
    ends = ends[[pieces[0] for pieces in packed.rows]].repeat_interleave(each)  # where each row's prompt ends
    slots = torch.arange(first, first + len(lengths)).repeat_interleave(lengths)
    places = torch.cat([torch.arange(n) for n in lengths.tolist()])
    cache.point(*(t.to(device, non_blocking=True) for t in (slots, places)))
    source = ((ends - lengths).repeat_interleave(lengths) + places).to(device, non_blocking=True)
    sent = policy.sent({"input_ids": batch.input_ids.flatten()[packed.index][None], **beside})
    kept = replace(packed, slots=cache, source=source)
    output = policy.hidden(**sent, attention_mask=NO_MASK, use_cache=False, packed=kept)
    states = output.last_hidden_state[0].index_select(0, (ends - 1).to(device, non_blocking=True))
    # a prompt ends in text, where all position axes agree
    after = positions.reshape(-1, positions.shape[-1])[0, ends - 1] + 1
    return states, lengths, after


def next_states(
    policy: Policy, cache: Slots, ids: torch.Tensor, places: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """States [rows, width] of one further token of the first rows.

    Args:
        policy: the model.
        cache: their keys and values.
        ids: [rows, 1] int64.
        places: [rows] int64, where each token goes in its slot.
        positions: [rows] int64.
    """
    cache.point(cache.arange[: len(ids)], places)
    flat = positions[:, None]
    marks = dict.fromkeys(policy.family.kinds, torch.zeros_like(ids))
    output = policy.hidden(
        ids,
        attention_mask=cache.mask(torch.empty(0, dtype=policy.model.dtype, device=ids.device)),
        position_ids=flat.expand(3, -1, -1) if policy.family.rotates_by_grid else flat,
        use_cache=False,
        packed=cache,
        **marks,
    )
    states: torch.Tensor = output.last_hidden_state[:, 0]
    return states


class Cached:
    """Rows of one batch, padded on the left, with the cache that Transformers gives the model.

    Args:
        policy: the model.
        prompts: read at once.

    Attributes:
        last: [rows, width], the state of each row's last token.
    """

    def __init__(self, policy: Policy, prompts: Sequence[Prompt]) -> None:
        self.policy = policy
        ids, mask = _left_pad(prompts, policy.chat.pad_id)
        beside = policy.beside(ids, mask, stack_vision(prompts))
        self.mask = mask.to(policy.model.device)
        self.cache: Any = None  # of the model's own kind: it makes one in the first pass
        takes = inspect.signature(policy.model.base_model.forward).parameters
        self.word = "cache" if "cache" in takes else "past_key_values"  # its name before Transformers 5.24
        self.last = self._pass(ids.to(policy.model.device), policy.sent(beside))
        own = ("position_ids", *policy.family.kinds)
        self.beside = {n: v.to(policy.model.device)[..., -1:] for n, v in beside.items() if n in own}

    def step(self, ids: torch.Tensor) -> None:
        """Pass one further token of each row, [rows] int64."""
        # a prompt ends in text, where all position axes agree
        self.beside = {n: v + 1 if n == "position_ids" else torch.zeros_like(v) for n, v in self.beside.items()}
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
        self.last = self._pass(ids[:, None], self.beside)

    def take(self, rows: torch.Tensor) -> None:
        """Go on with these rows, [rows] int64 on the device; one may be taken more than once."""
        for layer in self.cache.layers:
            recurrent = hasattr(layer, "recurrent_states")
            (layer.reorder_cache if recurrent else layer.batch_select_indices)(rows)
        self.last, self.mask = self.last[rows], self.mask[rows]
        self.beside = {n: v[..., rows, :] for n, v in self.beside.items()}

    def _pass(self, ids: torch.Tensor, beside: dict[str, torch.Tensor]) -> torch.Tensor:
        given = {"attention_mask": self.mask, self.word: self.cache, "use_cache": True, **beside}
        output = self.policy.hidden(ids, **given)
        self.cache = output[self.word]
        last: torch.Tensor = output.last_hidden_state[:, -1]
        return last


def _left_pad(prompts: Sequence[Prompt], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(p.ids) for p in prompts)
    ids = torch.tensor([[pad_id] * (width - len(p.ids)) + list(p.ids) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts])
    return ids, mask
