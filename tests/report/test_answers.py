"""Which answers a page shows, and what of them."""

from __future__ import annotations

import hashlib

from vold.graders.extract import split_thinking
from vold.report.answers import sample_sets
from vold.run.answers import choose, outcome_of


def test_choice_is_the_hash_order_by_hand() -> None:
    keys = [(str(i), "0") for i in range(50)]
    ranked = sorted(keys, key=lambda k: hashlib.sha256(f"s\0{k[0]}\0{k[1]}".encode()).hexdigest())
    rare = ranked[-1]
    found = {"m": {k: "wrong" if k == rare else "right" for k in keys}}
    assert choose(found, 4, "s") == sorted([*ranked[:3], rare], key=keys.index)
    assert choose(found, 0, "s") == []
    assert choose(found, 99, "s") == keys
    assert choose({}, 9, "s") == []


def test_older_rows_without_an_outcome() -> None:
    assert [outcome_of(r) for r in ({"score": 1.0}, {"score": 0.0}, {}, {"outcome": "odd", "score": 1})] == [
        "right",
        "wrong",
        "unknown",
        "right",
    ]


def test_thinking_is_folded_where_the_graders_end_it() -> None:
    assert split_thinking("<think>a</think>b<think>c</think> d") == ("a</think>b<think>c", True, "d")
    assert split_thinking("opened in the prompt</think>d") == ("opened in the prompt", True, "d")
    assert split_thinking("<think>never closed") == ("never closed", False, "")
    assert split_thinking("no block") == ("", True, "no block")
    assert split_thinking("") == ("", True, "")


def test_changes_are_told_against_every_model_before() -> None:
    right = {"a": "base vold", "b": "sft", "c": "vold", "d": ""}
    rows = {
        m: {"s": [{"id": i, "score": float(m in by.split())} for i, by in right.items()]}
        for m in ("base", "sft", "vold")
    }
    (shown,) = sample_sets(rows, list(rows), {"s": "S"}, 9)
    found = {c.id: [a.changes for a in c.answers] for c in shown.cards}
    assert found == {
        "a": [(), ("lost",), ("gained:sft",)],
        "b": [(), ("gained",), ("lost:sft",)],
        "c": [(), (), ("gained", "gained:sft")],
        "d": [(), (), ()],
    }
