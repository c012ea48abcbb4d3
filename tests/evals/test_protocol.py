from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from vold.evals.protocol import Protocol, differences, protocol_hash

BASE = Protocol(
    name="vlmevalkit",
    benchmark="mathvision",
    split="test",
    prompt_version="0123456789abcdef",
    scoring_version="1",
    max_new_tokens=8192,
    temperature=0.0,
    samples=1,
    pixels=(1003520, 12845056),
    judge="gpt-4o-mini (0123456789ab)",
    revision="a1b2",
    content_hash="cd" * 32,
)
OTHER: dict[str, Any] = {
    "name": "rule",
    "benchmark": "mathvista",
    "split": "testmini",
    "prompt_version": "fedcba9876543210",
    "scoring_version": "2",
    "max_new_tokens": 2048,
    "temperature": 0.6,
    "samples": 8,
    "pixels": None,
    "judge": None,
    "content_hash": "ef" * 32,
    "thinking": "kept",
    "golds": "all kept",
    "tool": "python",
}
WORDS = {
    "name": "protocol: vlmevalkit and rule",
    "benchmark": "benchmark: mathvision and mathvista",
    "split": "split: test and testmini",
    "prompt_version": "prompt text: 0123456789abcdef and fedcba9876543210",
    "scoring_version": "parser version: 1 and 2",
    "max_new_tokens": "token budget: 8192 and 2048",
    "temperature": "temperature: 0.0 and 0.6",
    "samples": "answers to each problem: 1 and 8",
    "pixels": "limits of a picture's area: [1003520, 12845056] and None",
    "judge": "judge: gpt-4o-mini (0123456789ab) and None",
    "content_hash": f"questions, pictures or golds: {'cd' * 32} and {'ef' * 32}",
}


def test_every_field_is_tried() -> None:
    assert {f.name for f in fields(Protocol)} == {*OTHER, "revision"}


@pytest.mark.parametrize("name", OTHER)
def test_each_field_changes_the_hash_and_is_named(name: str) -> None:
    other = replace(BASE, **{name: OTHER[name]})
    assert protocol_hash(other) != protocol_hash(BASE)
    (found,) = differences(asdict(BASE), asdict(other))
    assert found == WORDS.get(name, found)
    assert str(OTHER[name]) in found


def test_the_revision_decides_nothing() -> None:
    """The same questions from a file and from the hub are comparable: the content hash stands for the data."""
    other = replace(BASE, revision=None)
    assert protocol_hash(other) == protocol_hash(BASE)
    assert differences(asdict(BASE), asdict(other)) == []


def test_several_differences_are_all_named() -> None:
    other = replace(BASE, temperature=1.0, samples=4)
    assert differences(asdict(BASE), asdict(other)) == ["temperature: 0.0 and 1.0", "answers to each problem: 1 and 4"]


def test_a_field_that_only_one_has_is_a_difference() -> None:
    old = asdict(BASE)
    del old["golds"]
    assert len(differences(old, asdict(BASE))) == len(differences(asdict(BASE), old)) == 1


def test_a_stored_protocol_equals_the_same_one_afresh() -> None:
    stored = json.loads(json.dumps(asdict(BASE)))
    assert stored == asdict(BASE)
    assert protocol_hash(Protocol(**stored)) == protocol_hash(BASE)


def test_the_hash_is_sixteen_hex_digits_and_stays_the_same() -> None:
    """Worked out with sha256sum over the canonical JSON; a change makes every stored evaluation incomparable."""
    plain = replace(BASE, thinking="t", golds="g")
    assert protocol_hash(plain) == "6ed4996a410122fe"
