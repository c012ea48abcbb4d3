"""Rows that generate side by side: those that end make room for the next ones."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import torch

from vold.engines.samplers.decoder import Decoder
from vold.engines.samplers.draw import logps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from vold.engines.samplers.draw import Draw
    from vold.model.policy import Policy
    from vold.types import Completion, Prompt

PROMPT_TOKENS = 16384
"""Tokens of the prompts that are read in one pass; a longer prompt is read alone."""
ROOM = 8
"""Prompts are read when one of so many slots is free: a pass over few tokens needs as many launches as over many."""


@torch.inference_mode()
def refilled(
    policy: Policy, draw: Draw, prompts: Sequence[Prompt], n: int, slots: int, uniforms: Callable[[int], torch.Tensor]
) -> Iterator[tuple[int, Completion]]:
    """Sample `n` rows of each prompt, at most `slots` side by side, for a policy that `packs`.

    Args:
        policy: the model.
        draw: what is drawn, and how.
        prompts: those whose rows start together are read in one pass, each once.
        n: see above.
        slots: see above.
        uniforms: gives the random numbers of so many further rows, [rows, max_new_tokens] float64.

    Yields:
        The number of a row, prompt by prompt, and its completion, in the order in which rows end.

    Raises:
        SamplerError: a distribution was not finite.
    """
    slots = min(slots, len(prompts) * n)
    decoder = Decoder(policy, draw, slots, max(len(p.ids) for p in prompts))
    waiting, room = deque((prompt, n) for prompt in prompts), max(1, slots // ROOM)
    host = _Host(slots, decoder.reach, draw)
    while waiting or decoder.live:
        while waiting and (not decoder.live or slots - decoder.live >= room):
            taken = _taken(waiting, slots - decoder.live)
            rows = [count for _, count in taken]
            decoder.read([prompt for prompt, _ in taken], rows, uniforms(sum(rows)))
            host.start([len(prompt.ids) for prompt, count in taken for _ in range(count)])
        steps = min(decoder.chunk, host.left())
        decoder.see(host.furthest() + steps)
        for step in range(steps):
            if step:
                decoder.forward()
            decoder.sample()
        ended = host.hear(decoder.look(steps))
        if ended:
            decoder.keep(*host.close())
        if decoder.live:
            decoder.forward()
        yield from ended


def _taken(waiting: deque[tuple[Prompt, int]], free: int) -> list[tuple[Prompt, int]]:
    """The first of the rows that wait, as many as there is room for and one pass takes, and one prompt at least."""
    out: list[tuple[Prompt, int]] = []
    tokens = 0
    while waiting and free:
        prompt, rows = waiting[0]
        tokens += len(prompt.ids)
        if out and tokens > PROMPT_TOKENS:
            break
        waiting.popleft()
        out.append((prompt, min(rows, free)))
        if rows > free:
            waiting.appendleft((prompt, rows - free))
        free -= out[-1][1]
    return out


class _Host:
    """The host's account of the slots: which row each holds, and what that row has said."""

    def __init__(self, slots: int, reach: int, draw: Draw) -> None:
        self.draw, self.limit = draw, draw.params.max_new_tokens
        self.row, self.made, self.length = np.zeros((3, slots), np.int64)
        self.page = np.arange(slots)  # where in `said` the row of a slot writes
        self.said = np.zeros((slots, reach, draw.told), np.int32)
        self.ended = np.zeros(0, np.bool_)
        self.started = self.live = 0

    def start(self, lengths: Sequence[int]) -> None:
        """Further rows, whose prompts have these lengths, in the slots after those that are live."""
        here = slice(self.live, self.live + len(lengths))
        self.row[here] = np.arange(self.started, self.started + len(lengths))
        self.made[here], self.length[here] = 0, lengths
        self.started, self.live = self.started + len(lengths), here.stop

    def hear(self, told: NDArray[np.int32]) -> list[tuple[int, Completion]]:
        """Take what the live rows said, [tokens, rows, told]; the rows that ended with it.

        Raises:
            SamplerError: a distribution was not finite.
        """
        steps, rows = told.shape[:2]
        logps_of(told)
        made = self.made[:rows]
        self.said[self.page[:rows, None], made[:, None] + np.arange(steps)] = told.swapaxes(0, 1)
        ends = told[..., 0] == self.draw.end_id
        length = made + np.where(ends.any(0), ends.argmax(0) + 1, self.limit + 1)
        made += steps
        for i in range(rows) if self.draw.params.stop else ():
            ids = self.said[self.page[i], : min(made[i], length[i] - 1), 0]
            stop = self.draw.stopped(ids, min(steps, len(ids)))
            length[i] = length[i] if stop is None else stop
        self.ended = (length <= self.limit) | (made >= self.limit)
        return [
            (int(self.row[i]), self.draw.completion(self.said[self.page[i], : length[i]][: self.limit], stop))
            for i in np.flatnonzero(self.ended)
            for stop in [bool(length[i] <= self.limit)]
        ]

    def close(self) -> tuple[list[int], list[int], int]:
        """Move the last live rows into the slots of those that ended: from where, where to, and how many are live."""
        live = int((~self.ended).sum())
        source, target = np.flatnonzero(~self.ended[live:]) + live, np.flatnonzero(self.ended[:live])
        for kept in (self.row, self.made, self.length):
            kept[target] = kept[source]
        self.page[target], self.page[source] = self.page[source], self.page[target]
        self.live = live
        return source.tolist(), target.tolist(), live

    def left(self) -> int:
        """Tokens until the last of the live rows must end."""
        return self.limit - int(self.made[: self.live].min())

    def furthest(self) -> int:
        """Tokens of the longest live row, with its prompt."""
        return int((self.length + self.made)[: self.live].max())
