"""Sequences of ids to padded tensors, and the cut into micro-batches.

Everything the loss sees is flat: one entry per *selected* token, in row order. Padding and prompt tokens are left
out before any arithmetic, so nothing on them can reach a value or a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vold.model.chat import stack_vision
from vold.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Sequences:
    """A padded batch of prompt + response rows.

    Attributes:
        input_ids: [rows, length] int64, padded on the right.
        attention_mask: [rows, length] int64, 0 on padding.
        select: [rows, length] bool, true where the NEXT token is a selected response token.
        targets: [tokens] int64, those next tokens in row order.
        row: [tokens] int64, the row each selected token belongs to.
        prompt_lengths: tokens of each row's prompt.
        source: for each row the first row with the same prompt; a prompt with images is nobody else's.
        vision: the processor's image tensors, opaque to everything but the policy.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    select: torch.Tensor
    targets: torch.Tensor
    row: torch.Tensor
    prompt_lengths: tuple[int, ...]
    source: tuple[int, ...]
    vision: Mapping[str, torch.Tensor]


def collate(
    prompts: Sequence[Prompt], responses: Sequence[ArrayLike], masks: Sequence[ArrayLike], pad_id: int
) -> Sequences:
    """Join prompts and responses into one right-padded batch.

    Args:
        prompts: one per row.
        responses: response ids, one sequence per row.
        masks: 1 for each response token the loss selects, else 0; same lengths as `responses`.
        pad_id: id that fills rows up.

    Raises:
        ValueError: a mask whose length differs from its response, or no rows at all.
    """
    if not prompts:
        raise ValueError("collate needs at least one row")
    rows = len(prompts)
    said = [np.asarray(r, np.int64) for r in responses]
    width = max(len(p.ids) + len(r) for p, r in zip(prompts, said, strict=True))
    input_ids = torch.full((rows, width), pad_id, dtype=torch.int64)
    attention_mask = torch.zeros((rows, width), dtype=torch.int64)
    select = torch.zeros((rows, width), dtype=torch.bool)
    for i, (p, r, m) in enumerate(zip(prompts, said, masks, strict=True)):
        chosen = torch.tensor(np.asarray(m, bool))
        if len(r) != len(chosen):
            raise ValueError(f"row {i}: {len(r)} response tokens but a mask of {len(chosen)}")
        start, end = len(p.ids), len(p.ids) + len(r)
        input_ids[i, :start] = torch.tensor(p.ids, dtype=torch.int64)
        input_ids[i, start:end] = torch.tensor(r)
        attention_mask[i, :end] = 1
        if len(r):
            select[i, start - 1 : end - 1] = chosen
    shifted = torch.zeros_like(select)
    shifted[:, 1:] = select[:, :-1]
    return Sequences(
        input_ids=input_ids,
        attention_mask=attention_mask,
        select=select,
        targets=input_ids[shifted],
        row=select.nonzero()[:, 0],
        prompt_lengths=tuple(len(p.ids) for p in prompts),
        source=_sources(prompts),
        vision=stack_vision(prompts),
    )


def _sources(prompts: Sequence[Prompt]) -> tuple[int, ...]:
    first: dict[tuple[int, ...], int] = {}
    return tuple(i if p.vision else first.setdefault(p.ids, i) for i, p in enumerate(prompts))


def micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Cut rows into groups whose padded size (rows x longest) stays within a token budget.

    Rows are sorted by length first, so that little of a group is padding. A row longer than the budget gets a group
    of its own. Returns indices into `lengths`; every row appears exactly once.

    Example:
        >>> micro_batches([3, 9, 4], 8)
        [[0, 2], [1]]
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda j: lengths[j]):
        if groups and lengths[i] * (len(groups[-1]) + 1) <= token_budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def packed_micro_batches(
    prompts: Sequence[Prompt], response_lengths: Sequence[int], token_budget: int
) -> list[list[int]]:
    """Cut rows into groups whose tokens stay within a budget, a prompt that rows of a group share counted once.

    Groups are filled one by one, from rows that are kept side by side with those of the same prompt, longest first:
    what no longer fits waits for the next group. A row longer than the budget gets a group of its own. Returns
    ascending indices; every row appears exactly once.

    Example:
        >>> a, b = Prompt((1, 2)), Prompt((3, 4))
        >>> packed_micro_batches([a, a, b], [3, 2, 4], 8)
        [[0, 1], [2]]
    """
    source = _sources(prompts)
    waiting = sorted(range(len(prompts)), key=lambda i: (source[i], -response_lengths[i]))
    groups: list[list[int]] = []
    while waiting:
        group: list[int] = []
        left: list[int] = []
        tokens, paid = 0, set[int]()
        for i in waiting:
            size = response_lengths[i] + (0 if source[i] in paid else len(prompts[i].ids))
            if group and tokens + size > token_budget:
                left.append(i)
                continue
            group.append(i)
            tokens += size
            paid.add(source[i])
        groups.append(sorted(group))
        waiting = left
    return groups


def evened(cut: Callable[[int], list[list[int]]], token_budget: int, processes: int) -> list[list[int]]:
    """What `cut` makes of a token budget, for several processes that wait for each other at the end of a step.

    With so many micro-batches that some processes run one more than others, or none, a smaller budget makes them even:
    the smallest that needs no more micro-batches of the process that runs most, to a sixty-fourth of the budget. The
    gradient does not depend on it.

    Args:
        cut: from a token budget to micro-batches.
        token_budget: never exceeded.
        processes: how many there are.

    Example:
        >>> evened(lambda budget: micro_batches([4, 4, 4, 4, 4, 4], budget), 20, 2)
        [[0, 1, 2], [3, 4, 5]]
    """
    cuts = cut(token_budget)
    if processes == 1:
        return cuts
    most = -(-len(cuts) // processes) * processes
    low, high = 0, token_budget  # too small, and enough
    while high - low > max(1, token_budget // 64):
        middle = (low + high) // 2
        found = cut(middle)
        if len(found) <= most:
            cuts, high = found, middle
        else:
            low = middle
    return cuts
