"""Dataclasses as JSON and back: key order, what is left out, and files of another version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vold.errors import CheckpointError, DataError
from vold.run.files import append_jsonl, cut_rows, read_records, write_json
from vold.run.metrics import DistillRow, PhaseSeconds, RolloutMetrics, SftRow, UpdateMetrics
from vold.run.records import flat, from_json, to_json
from vold.run.results import BenchmarkInfo, SetInfo


@dataclass(frozen=True)
class Leaf:
    value: float
    why: str | None


@dataclass(frozen=True)
class Tree:
    name: str
    leaves: Mapping[str, Leaf]
    row: tuple[Leaf, ...] = ()
    either: int | None = None
    count: int = field(default=3)


def test_a_none_is_left_out_only_where_it_is_the_default() -> None:
    tree = Tree("t", {"a": Leaf(0.5, None)}, (Leaf(1.0, "x"),))
    stored = (
        '{"name": "t", "leaves": {"a": {"value": 0.5, "why": null}}, "row": [{"value": 1.0, "why": "x"}], "count": 3}'
    )
    assert json.dumps(to_json(tree)) == stored
    assert from_json(Tree, json.loads(stored)) == tree


def test_keys_that_are_not_known_are_left_out_and_defaults_are_filled_in() -> None:
    assert from_json(Tree, {"name": "t", "leaves": {}, "newer": 1}) == Tree("t", {})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"leaves": {}}, "Tree: no name"),
        ([], "Tree: a list where a dict stands"),
        ({"name": "t", "leaves": []}, "Tree: leaves: a list where a dict stands"),
        ({"name": "t", "leaves": {"a": {"value": 1}}}, "Tree: leaves: a: no why"),
        ({"name": "t", "leaves": {}, "row": "text"}, "Tree: row: a str where a list stands"),
    ],
)
def test_what_has_another_shape_is_refused_with_its_place(value: object, words: str) -> None:
    with pytest.raises(DataError) as error:
        from_json(Tree, value, where="the file")
    assert (error.value.where, error.value.got) == ("the file", words)


@dataclass(frozen=True)
class Row:
    seed: int
    measures: Mapping[str, Leaf] = field(metadata=flat())
    seconds: float


def test_a_flat_mapping_stands_beside_the_other_keys() -> None:
    row = Row(1, {"a": Leaf(0.5, "x"), "b": Leaf(1.0, None)}, 2.0)
    stored = '{"seed": 1, "a": {"value": 0.5, "why": "x"}, "b": {"value": 1.0, "why": null}, "seconds": 2.0}'
    assert json.dumps(to_json(row)) == stored
    assert from_json(Row, json.loads(stored)) == row
    assert from_json(Row, {"seed": 1, "seconds": 2.0}) == Row(1, {}, 2.0)


SET: dict[str, object] = {"benchmark": None, "title": "t", "split": None, "n_items": 2}
SET |= {"left_out": {}, "bad_rows": [], "bad_golds": [], "protocol": {}, "differs": []}


@pytest.mark.parametrize(
    ("more", "kind"),
    [({}, SetInfo), ({"source": "a.jsonl", "limit": None, "official_n": 2}, BenchmarkInfo)],
    ids=["tasks", "benchmark"],
)
def test_of_several_classes_the_one_whose_keys_are_there_is_read(more: dict[str, object], kind: type[SetInfo]) -> None:
    head = dict(list(SET.items())[:3])
    stored = {**head, **more, **SET, "published": []}
    (found,) = from_json(Both, {"sets": {"s": stored}}).sets.values()
    assert type(found) is kind
    assert json.dumps(to_json(found)) == json.dumps(stored)


@dataclass(frozen=True)
class Both:
    sets: Mapping[str, BenchmarkInfo | SetInfo]


def test_a_row_of_distill_is_flat_and_holds_no_value_that_a_step_does_not_have() -> None:
    update = UpdateMetrics(step=3, loss=0.5, grad_norm=0.0, lr=0.1, trained_tokens=0)
    rollouts = RolloutMetrics(
        reward=0.5,
        share_wrong=0.5,
        share_unparsed=0.0,
        share_truncated=0.0,
        share_timed_out=0.0,
        groups_all_pass=0.0,
        groups_all_fail=0.0,
        mean_tokens=4.0,
        rollout_tokens=8,
        teacher_tokens=0,
        mean_teacher_mask=0.5,
    )
    row = DistillRow.of(update, rollouts, PhaseSeconds(seconds_sample=1.0, seconds_teacher=2.0, seconds_update=3.0))
    stored = to_json(row)
    assert list(stored)[:5] == ["step", "loss", "grad_norm", "lr", "updates"]
    assert list(stored)[-4:] == ["mean_teacher_mask", "seconds_sample", "seconds_teacher", "seconds_update"]
    assert not {"entropy", "mismatch", "mean_cut"} & set(stored)
    assert from_json(DistillRow, stored) == row


def test_rows_are_files(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = [SftRow(step=s, loss=2.0 - s, grad_norm=1.0, lr=0.1, tokens=8, seconds=0.5) for s in range(3)]
    append_jsonl(file, rows)
    assert read_records(file, SftRow) == rows
    cut_rows(file, 2)
    assert read_records(file, SftRow) == rows[:2]
    write_json(tmp_path / "one.json", rows[0])
    assert json.loads((tmp_path / "one.json").read_text()) == to_json(rows[0])
    append_jsonl(file, [{"step": 2}])
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: line 3\n.*SftRow: no loss, grad_norm"):
        read_records(file, SftRow)
