"""Stored rollouts as the terminal shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stored import store_rows
from vold.report.rollouts import FIRST, LAST, ShownRollout, gaps_of, in_words, show_rollout
from vold.report.text import DASH
from vold.run.rollouts import load_rollouts


def shown(folder: Path, row: dict[str, object]) -> ShownRollout:
    (stored,) = load_rollouts(store_rows(folder, 0, [row]))
    return show_rollout(stored)


def test_gap_by_hand(tmp_path: Path) -> None:
    row = {"tokens": ["a", "b", "c"], "logp": [-1.0, -2.0, -0.5], "teacher_logp": [-1.5, -1.0, float("nan")]}
    found = shown(tmp_path, row)
    gaps = gaps_of(found.stored.rollout)
    assert gaps is not None and gaps[:2].tolist() == [0.5, -1.0]
    assert [gap for _, gap in found.tokens] == [0.5, -1.0, None]
    assert found.mean_gap == -0.25
    alone = shown(tmp_path, {"tokens": ["a"], "logp": [-1.0]})
    assert alone.mean_gap is None and gaps_of(alone.stored.rollout) is None


def test_a_token_that_nobody_would_take_does_not_drown_the_others(tmp_path: Path) -> None:
    found = shown(tmp_path, {"tokens": ["a", "b"], "logp": [-1.0, -1.0], "teacher_logp": [float("-inf"), -2.0]})
    assert [gap for _, gap in found.tokens] == [99.0, 1.0]


def test_the_end_of_a_long_rollout_is_seen(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(1000)]
    found = shown(tmp_path, {"tokens": words, "logp": [-1.0] * 1000})
    texts = [text for text, _ in found.tokens]
    assert texts == words[:FIRST] + words[1000 - LAST :]
    assert (found.left_out, found.length) == (1000 - FIRST - LAST, 1000)


def test_values_in_words_and_odd_ones(tmp_path: Path) -> None:
    assert in_words([1.0, 1.0, None, 0.5]) == f"1.00 x 2, {DASH} x 1, 0.50 x 1"
    assert in_words([float(i) for i in range(20)]) == "0.00 to 19.00"
    odd = {
        "token_values": {"a": [float("nan")] * 2, "c_d": [2.0, 2.0]},
        "rollout_values": {"x": float("nan"), "cut": 12.0},
    }
    found = shown(tmp_path, {"tokens": ["t", "u"], "logp": [-1, -1], **odd})
    assert dict(found.values) == {"c d": "2.00 x 2"}
    assert found.figures == ["cut 12"]


@pytest.mark.parametrize("text", ["\x1b[31m", "\u202e"])
def test_texts_are_clean(tmp_path: Path, text: str) -> None:
    assert text not in "".join(t for t, _ in shown(tmp_path, {"tokens": [text, "b"], "logp": [-1, -1]}).tokens)
