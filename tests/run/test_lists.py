"""Lists go on by content: which line is wrong is said, and only what a kill leaves is dropped."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from vold.errors import CheckpointError
from vold.run.files import (
    append_jsonl,
    cut_rows,
    lists_in,
    read_json,
    read_jsonl,
    read_records,
    remove_rows,
    sums_of,
    write_rows,
)
from vold.run.records import Bit, Count, Share, TokenId

ROWS = [{"a": n} for n in range(5)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    append_jsonl(tmp_path / "rows.jsonl", ROWS[:2])
    append_jsonl(tmp_path / "rows.jsonl", ROWS[2:])
    return tmp_path / "rows.jsonl"


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def put(file: Path, found: list[str]) -> None:
    file.write_text("".join(line + "\n" for line in found))


def refused(file: Path, line: int, got: str, *, whole: bool = False) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_jsonl(file, whole=whole)
    assert (caught.value.where, f"line {line} and all after it" in caught.value.fix) == (f"{file}: line {line}", True)
    assert got in caught.value.got


@pytest.mark.parametrize(
    ("change", "line", "got"),
    [
        (lambda rows: [*rows[:2], '{"a": 7}', *rows[3:]], 3, "another row than was stored"),
        (lambda rows: [*rows[:2], rows[1], *rows[2:]], 3, "the row above once more"),
        (lambda rows: [*rows[:1], *rows[2:]], 2, "the row that was stored as line 3"),
        (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], 2, "the row that was stored as line 3"),
        (lambda rows: [*rows[:4], "{"], 5, "no JSON"),
        (lambda rows: [*rows[:4], ""], 5, "no JSON"),
        (lambda rows: [rows[0] + rows[1], *rows[2:]], 1, "no JSON: Extra data"),
        (lambda rows: ["[1]", *rows[1:]], 1, "a list where an object stands"),
        (lambda rows: ['{"a": NaN}', *rows[1:]], 1, "NaN is no number"),
        (lambda rows: ["[" * 100_000, *rows[1:]], 1, "nested too deeply"),
        (lambda rows: [*rows, "x"], 6, "no JSON"),
    ],
)
def test_a_wrong_line_is_named_and_said_to_be_what_it_is(file: Path, change: object, line: int, got: str) -> None:
    assert callable(change)
    put(file, change(lines(file)))
    refused(file, line, got)


def test_what_is_said_to_help_helps(file: Path) -> None:
    put(file, [*lines(file)[:2], "{", *lines(file)[3:]])
    refused(file, 3, "no JSON")
    put(file, lines(file)[:2])  # as the error says: line 3 and all after it
    assert read_jsonl(file) == ROWS[:2]
    cut_rows(file, 2)
    append_jsonl(file, ROWS[2:])
    assert read_jsonl(file, whole=True) == ROWS


def test_rows_that_are_gone_at_the_end_are_made_again_but_not_taken_for_the_whole(file: Path) -> None:
    put(file, lines(file)[:3])
    assert read_jsonl(file) == ROWS[:3]
    refused(file, 4, "the list ends here; 5 rows were stored", whole=True)
    file.unlink()
    assert read_jsonl(file) == []
    refused(file, 1, "5 rows were stored", whole=True)
    assert lists_in(file.parent) == [file]
    remove_rows(file)
    assert lists_in(file.parent) == []
    assert read_jsonl(file, whole=True) == []


@pytest.mark.parametrize("torn", ["{", '{"a": 5}', '{"a": 5'])
def test_a_line_without_its_end_is_dropped_and_written_over(file: Path, torn: str) -> None:
    with file.open("a") as f:
        f.write(torn)
    assert read_jsonl(file, whole=True) == ROWS
    append_jsonl(file, [{"a": 5}])
    assert read_jsonl(file, whole=True) == [*ROWS, {"a": 5}]


@pytest.mark.parametrize("left", [0, 30, 45])
def test_a_row_whose_sum_was_never_written_stays_and_gets_one(file: Path, left: int) -> None:
    sums = sums_of(file).read_bytes()
    assert len(sums) == 30 * len(ROWS)
    sums_of(file).write_bytes(sums[:left])
    assert read_jsonl(file, whole=True) == ROWS
    append_jsonl(file, [{"a": 5}])
    assert sums_of(file).read_bytes()[: len(sums)] == sums
    assert read_jsonl(file, whole=True) == [*ROWS, {"a": 5}]


def test_a_row_that_is_appended_while_a_list_is_read_does_not_make_it_end_early(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def then_append(self: Path) -> bytes:
        found = read(self)
        monkeypatch.setattr(Path, "read_bytes", read)
        append_jsonl(file, [{"a": 5}])
        return found

    monkeypatch.setattr(Path, "read_bytes", then_append)
    assert read_jsonl(file, whole=True) == [*ROWS, {"a": 5}]


def test_a_list_without_sums_is_taken_and_sums_that_are_none_are_refused(file: Path) -> None:
    put(file, ['{"a": 9}'])
    sums_of(file).write_text("x" * 60)
    with pytest.raises(CheckpointError, match="delete it: the rows are then taken as they are"):
        read_jsonl(file)
    sums_of(file).unlink()
    assert read_jsonl(file, whole=True) == [{"a": 9}]


def test_the_same_rows_are_the_same_bytes_however_they_were_written(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.jsonl"
    write_rows(other, ROWS)
    assert (other.read_bytes(), sums_of(other).read_bytes()) == (file.read_bytes(), sums_of(file).read_bytes())
    write_rows(other, ROWS[::-1])
    assert read_jsonl(other, whole=True) == ROWS[::-1]


@dataclass(frozen=True)
class Whole:
    name: str
    ids: tuple[TokenId, ...] = ()
    mask: tuple[Bit, ...] = ()
    step: Count = 0
    score: Share = 0.0
    loss: float = 0.0
    end: Literal["stop", "length"] = "stop"
    flag: bool = False
    note: str | None = None

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.mask):
            raise ValueError(f"{len(self.ids)} ids, {len(self.mask)} places")


@pytest.mark.parametrize(
    ("more", "got"),
    [
        ({"name": None}, "name: None where a str stands"),
        ({"name": 3}, "name: 3 where a str stands"),
        ({"ids": [1, -1], "mask": [1, 1]}, "ids: 1: -1 where a whole number from 0 to 2147483647 stands"),
        ({"ids": [2**31], "mask": [1]}, "ids: 0: 2147483648 where"),
        ({"ids": [True], "mask": [1]}, "ids: 0: True where"),
        ({"ids": [1.0], "mask": [1]}, "ids: 0: 1.0 where"),
        ({"ids": 3}, "ids: a int where a list stands"),
        ({"ids": [1], "mask": [2]}, "mask: 0: 2 where"),
        ({"ids": [1, 2], "mask": [1]}, "2 ids, 1 places"),
        ({"step": [1]}, "step: [1] where"),
        ({"step": "1"}, "step: '1' where"),
        ({"step": True}, "step: True where"),
        ({"step": 1.0}, "step: 1.0 where"),
        ({"score": 1.5}, "score: 1.5 where a number from 0 to 1 stands"),
        ({"score": None}, "score: None where"),
        ({"loss": "0.5"}, "loss: '0.5' where a number stands"),
        ({"loss": 10**400}, "loss: 1000"),
        ({"end": "never"}, "end: 'never' where stop or length stands"),
        ({"end": ["stop"]}, "end: ['stop'] where"),
        ({"flag": 1}, "flag: 1 where a bool stands"),
        ({"note": 3}, "note: 3 where a str stands"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_line(tmp_path: Path, more: dict[str, object], got: str) -> None:
    file = tmp_path / "rows.jsonl"
    good = {"name": "a", "ids": [5, 0], "mask": [1, 0], "score": 1, "note": "x", "loss": -3, "end": "length"}
    append_jsonl(file, [good, {"name": "b"} | more])
    with pytest.raises(CheckpointError) as caught:
        read_records(file, Whole)
    assert caught.value.where == f"{file}: line 2"
    assert caught.value.got.startswith(f"Whole: {got}")
    cut_rows(file, 1)
    assert read_records(file, Whole) == [Whole("a", (5, 0), (1, 0), 0, 1, -3, "length", False, "x")]


def test_an_infinite_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "a", "loss": 1e999}')
    with pytest.raises(CheckpointError, match="loss: inf where a number stands"):
        read_json(tmp_path / "a.json", Whole)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b'{"name": 3}', b'{"name": "a", "loss": NaN}', b"{}"],
)
def test_a_small_file_that_is_damaged_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "small.json"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_json(file, Whole, fix="do this")
    assert (caught.value.where, caught.value.fix) == (str(file), "do this")


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone")
    big = tmp_path / "big"
    big.touch()
    os.mkfifo(tmp_path / "pipe")
    os.truncate(big, 1 << 27)
    for name in ("folder", "loop", "nowhere", "pipe", "big"):
        with pytest.raises(CheckpointError, match=name):
            read_json(tmp_path / name, dict, absent={})
    assert read_json(tmp_path / "absent", dict, absent={"a": 1}) == {"a": 1}
    with pytest.raises(CheckpointError, match="not there"):
        read_json(tmp_path / "absent", dict)
