"""Keys and values of rows that generate, each row in a slot of its own, written in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import nn


CLEAN = 64
"""Places that are zeroed at a time."""


class Slots:
    """A cache of `count` rows of at most `capacity` tokens, and the attention of one further token of each.

    Nothing is joined or repeated: a pass writes the keys and values of its tokens where `point` says, and attention
    reads what it needs of the memory that holds them. Heads that share keys are handed over as several queries of one
    head, which every kernel of `scaled_dot_product_attention` takes.
    """

    def __init__(self, count: int, capacity: int, device: torch.device) -> None:
        self.count, self.capacity, self.device = count, capacity, device
        self.visible = self.clean = 0
        """Places of every slot that attention reads, and those that hold numbers; the rest is memory as it was."""
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.arange = torch.arange(max(count, capacity), device=device)
        self.rows = self.places = self.arange[:0]
        self.masks: dict[int | None, torch.Tensor] = {}

    def see(self, visible: int) -> None:
        """Let attention read so many places of every slot, no more."""
        self.visible = visible
        if visible > self.clean:  # what stood there by chance could be no number, even times 0
            before, self.clean = self.clean, -(-visible // CLEAN) * CLEAN
            for kept in self.kept.values():
                for tensor in kept:
                    tensor[:, :, before : self.clean] = 0

    def point(self, rows: torch.Tensor, places: torch.Tensor) -> None:
        """Say where the next pass writes: slot and place of each of its tokens, both [tokens]."""
        self.rows, self.places = rows, places
        self.masks.clear()

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep `keys` and `values` [tokens, heads, width] of a layer. Returns what is visible of both, [count, heads,
        visible, width]."""
        if layer not in self.kept:
            size = (self.count, keys.shape[1], self.capacity)
            self.kept[layer] = keys.new_empty((*size, keys.shape[2])), values.new_empty((*size, values.shape[2]))
            for tensor in self.kept[layer]:
                tensor[:, :, : self.clean] = 0
        for kept, new in zip(self.kept[layer], (keys, values), strict=True):
            kept[self.rows, :, self.places] = new
        mine, theirs = self.kept[layer]
        return mine[:, :, : self.visible], theirs[:, :, : self.visible]

    def mask(self, like: torch.Tensor, window: int | None = None) -> torch.Tensor:
        """[rows, 1, 1, visible] what is added to the scores of the tokens pointed at, in the type of `like`."""
        if window not in self.masks:
            place, last = self.arange[: self.visible], self.places[:, None]
            hidden = place > last if window is None else (place > last) | (place <= last - window)
            empty = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            self.masks[window] = empty.masked_fill_(hidden, float("-inf"))[:, None, None]
        return self.masks[window]

    def attend(
        self, module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Attention of one token of each of the first rows.

        Args:
            module: the layer, which knows its place.
            query: [rows, heads, 1, width]; `key` and `value` likewise, perhaps with fewer heads.
            key: see `query`.
            value: see `query`.
            kwargs: what Transformers hands to every attention function.

        Returns:
            [rows, 1, heads, width].
        """
        rows, heads, _, width = query.shape
        index: Any = module.layer_idx
        keys, values = self.write(index, key[:, :, 0], value[:, :, 0])
        attended = scaled_dot_product_attention(
            query.reshape(rows, keys.shape[1], -1, width),
            keys[:rows],
            values[:rows],
            attn_mask=self.mask(query, kwargs.get("sliding_window")),
            scale=kwargs.get("scaling"),
        )
        return attended.reshape(rows, 1, heads, -1)

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy whole slots; both are slot numbers [moved] that have none in common."""
        for kept in self.kept.values():
            for tensor in kept:
                tensor[target, :, : self.visible] = tensor[source, :, : self.visible]
