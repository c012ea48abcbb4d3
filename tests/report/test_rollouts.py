"""Stored rollouts, token by token."""

from __future__ import annotations

from vold.report.rollouts import gaps_of, in_words, rollout_values, show_rollout, token_values
from vold.report.text import DASH


def test_gap_by_hand() -> None:
    row = {
        "tokens": ["a", "b", "c"],
        "ids": [1, 2, 3],
        "logp": [-1.0, -2.0, -0.5],
        "teacher_logp": [-1.5, -1.0, float("nan")],
    }
    assert gaps_of(row) == [0.5, -1.0, None]
    assert show_rollout(row).mean_gap == -0.25
    assert show_rollout({"tokens": ["a"], "logp": [-1.0], "teacher_logp": None}).mean_gap is None
    assert [t.side for t in show_rollout(row).tokens] == ["over", "under", "plain"]


def test_values_in_words_and_odd_ones() -> None:
    assert in_words([1.0, 1.0, None, 0.5]) == f"1.00 x 2, {DASH} x 1, 0.50 x 1"
    assert in_words([float(i) for i in range(20)]) == "0.00 to 19.00"
    odd = {"token_values": {"a": [None, "x"], "b": 3, "c": [2.0, 2.0], "d": [0.0]}, "rollout_values": [1]}
    assert [v.name for v in token_values(odd, ["t", "u"])] == ["c", "d"]
    assert [[t.strength for t in v.tokens] for v in token_values(odd, ["t", "u"])] == [[1.0, 1.0], [0.0]]
    assert rollout_values(odd) == []
    assert token_values({}, ["t"]) == [] and token_values({"token_values": None}, ["t"]) == []
