"""Padding, selection and micro-batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vold.model.batching import collate, evened, micro_batches
from vold.types import Prompt


def test_selected_positions_are_those_before_selected_tokens() -> None:
    batch = collate([Prompt((7, 8)), Prompt((9,))], [(1, 2, 3), (4,)], [(1, 0, 1), (1,)], pad_id=0)
    assert batch.input_ids.tolist() == [[7, 8, 1, 2, 3], [9, 4, 0, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch.select.nonzero().tolist() == [[0, 1], [0, 3], [1, 0]]
    assert batch.targets.tolist() == [1, 3, 4]
    assert batch.row.tolist() == [0, 0, 1]


def test_an_empty_response_selects_nothing() -> None:
    batch = collate([Prompt((7, 8)), Prompt((9,))], [(), (4,)], [(), (1,)], pad_id=0)
    assert batch.targets.tolist() == [4]


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 response tokens but a mask of 1"):
        collate([Prompt((7,))], [(1, 2)], [(1,)], pad_id=0)
    with pytest.raises(ValueError, match="at least one row"):
        collate([], [], [], pad_id=0)


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(1, 120))
def test_micro_batches_cover_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_batches(lengths, budget)
    assert sorted(i for g in groups for i in g) == list(range(len(lengths)))
    for g in groups:
        padded = len(g) * max(lengths[i] for i in g)
        assert padded <= budget or len(g) == 1


def test_micro_batches_are_even_where_several_processes_share_them() -> None:
    """Twelve rows of ten tokens and a budget of 90: nine and three. Two processes get six each, three four, five three
    or less; eight get one or two. One keeps the cut as it is."""

    def sizes(processes: int) -> list[int]:
        return sorted(len(g) for g in evened(lambda budget: micro_batches([10] * 12, budget), 90, processes))

    assert sizes(1) == [3, 9]
    assert sizes(2) == [6, 6]
    assert sizes(3) == [4, 4, 4]
    assert sizes(5) == [3, 3, 3, 3]
    assert sizes(8) == [2] * 6
    assert sizes(20) == [1] * 12


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(1, 120), st.integers(1, 5))
def test_even_micro_batches_are_no_more_rounds_and_no_larger(lengths: list[int], budget: int, processes: int) -> None:
    def rounds(groups: list[list[int]]) -> int:
        return -(-len(groups) // processes)

    def largest(groups: list[list[int]]) -> int:
        return max((len(g) * max(lengths[i] for i in g) for g in groups), default=0)

    plain = micro_batches(lengths, budget)
    even = evened(lambda b: micro_batches(lengths, b), budget, processes)
    assert sorted(i for g in even for i in g) == list(range(len(lengths)))
    assert rounds(even) <= rounds(plain)
    assert largest(even) <= largest(plain)


def test_vision_tensors_are_joined_in_row_order() -> None:
    a = Prompt((1,), {"pixel_values": torch.ones(2, 3), "image_grid_thw": torch.tensor([[1, 2, 1]])})
    b = Prompt((1,), {"pixel_values": torch.zeros(4, 3), "image_grid_thw": torch.tensor([[1, 2, 2]])})
    batch = collate([a, Prompt((1,)), b], [(1,)] * 3, [(1,)] * 3, pad_id=0)
    assert batch.vision["pixel_values"][:, 0].tolist() == [1, 1, 0, 0, 0, 0]
    assert batch.vision["image_grid_thw"].tolist() == [[1, 2, 1], [1, 2, 2]]
