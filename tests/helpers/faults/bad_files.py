"""Files that no run can use: rows, data sets, recipes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from faults.damages import DEEP

GOOD = {"prompt": "digits 3 5 . sum ?", "reference": "8", "id": "first"}


@dataclass(frozen=True)
class BadFile:
    """A file of a name and content, and words that a message about it must hold; none where it has to be taken."""

    name: str
    content: bytes
    says: tuple[str, ...]
    ending: str = ".jsonl"
    taken: bool = False


def bad_rows() -> Iterator[BadFile]:
    """Files of JSON lines whose second line (or what else is said) is wrong."""
    first = json.dumps(GOOD).encode()
    row = {**GOOD, "id": "second"}
    for name, line in {**_texts(row), **_keys(row), **_values(row)}.items():
        raw = line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass")
        yield BadFile(f"line of {name}", first + b"\n" + raw + b"\n", ("line 2",))
    for reference, grader in (("\\frac{1}{", "math"), ("banana", "choice")):
        raw = json.dumps({**row, "reference": reference, "grader": grader}).encode()
        yield BadFile(f"{reference} for the grader {grader}", first + b"\n" + raw, ("second",))
    both = (b"\r" + json.dumps(row).encode()).join([first, b""])
    yield BadFile("ends of lines that are CR alone", both, ("line",))
    yield BadFile("no rows", b"", ("not a single task",))
    yield BadFile("blank lines alone", b"\n \n\t\n", ("not a single task",))
    yield BadFile("a mark of byte order alone", b"\xef\xbb\xbf", ("not a single task",))
    yield BadFile("UTF-16", "\n".join([json.dumps(GOOD)] * 2).encode("utf-16"), ("line 1",))
    yield BadFile("a zip under this name", _zip({"a.jsonl": first}), ("line 1",))
    yield BadFile("NUL characters", b"\0" * 4096, ("line 1",))
    yield BadFile("the same id twice", b"\n".join([first, json.dumps(row).encode(), first]), ("line 1", "line 3"))
    unnamed = json.dumps({k: v for k, v in GOOD.items() if k != "id"}).encode()
    taken = json.dumps({**GOOD, "id": "rows-2"}).encode()
    yield BadFile("an id that a row without one gets", b"\n".join([taken, unnamed]), ("line 1", "line 2"))
    more = json.dumps(row).encode()
    for name, raw in {
        "a mark of byte order": b"\xef\xbb\xbf" + first + b"\n" + more,
        "CRLF": b"\r\n".join([first, more, b""]),
        "blank lines between": b"\n\n".join([first, b"  ", more]),
        "no end of the last line": b"\n".join([first, more]),
    }.items():
        yield BadFile(name, raw, ("2 tasks",), taken=True)


def _texts(row: dict[str, Any]) -> dict[str, str | bytes]:
    whole = json.dumps(row)
    return {
        "no JSON": "not json",
        "half an object": whole[: len(whole) // 2],
        "an open string": whole[:-3],
        "two objects": f"{whole} {whole}",
        "a trailing comma": whole[:-1] + ",}",
        "single quotes": whole.replace('"', "'"),
        "Python's None": whole[:-1] + ', "response": None}',
        "a comment": f"{whole} // said",
        "a list": json.dumps([row]),
        "a number": "3",
        "a word": '"word"',
        "null": "null",
        "true": "true",
        "NaN": "NaN",
        "bytes that are no UTF-8": whole.encode().replace(b"sum", b"s\xffm"),
        "latin-1": whole.encode().replace(b"sum", b"s\xe9m"),
        "half a surrogate pair, escaped": whole.replace("sum", "\\ud800"),
        "half a surrogate pair, raw": whole.encode().replace(b"sum", b"\xed\xa0\x80"),
        "deep lists": "[" * DEEP,
        "deep lists in a key": whole[:-1] + ', "tags": ' + "[" * DEEP + "]" * DEEP + "}",
        "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
        "a raw control character": whole.replace("sum", "\x01"),
        "markup": "[red]not json[/b]",
        "escape codes": "\x1b[2J\x1b]0;title\x07",
        "a key twice": whole[:-1] + ', "reference": "9"}',
        "a tag twice": whole[:-1] + ', "tags": {"a": "1", "a": "2"}}',
    }


def _keys(row: dict[str, Any]) -> dict[str, str]:
    found = {f"no {key}": {k: v for k, v in row.items() if k != key} for key in ("prompt", "reference")}
    for key in ("refrence", "Prompt", "", "\x1b[31m", "[/b]", "image"):
        found[f"an unknown key {key!r}"] = {**row, key: "8"}
    return {name: json.dumps(value) for name, value in found.items()}


def _values(row: dict[str, Any]) -> dict[str, str]:
    found: dict[str, Any] = {}
    wrong: dict[str, tuple[Any, ...]] = {
        "prompt": (None, 3, True, [], {}, ["a"], "", " \n"),
        "reference": (None, True, False, float("nan"), float("inf"), -float("inf"), [], {}, [8], "", " ", "\t\n"),
        "id": (3, True, [], {}, ""),
        "grader": (3, "exakt", [], "", "[/red]", "os:system"),
        "images": ("a.png", 3, [3], {}, ["nowhere.png"], ["/etc/passwd"], ["."], ["a\0b.png"], ["n" * 5000]),
        "teacher_prompt": (3, [], {}, True),
        "response": (3, [], {}, True),
        "tags": (3, "a", [], {"a": 1}, {"a": None}, {"a": []}),
    }
    for key, values in wrong.items():
        for value in values:
            found[f"{key} {json.dumps(value)[:30]}"] = {**row, key: value}
    return {name: json.dumps(value) for name, value in found.items()} | {
        "a reference too large for a number": json.dumps(row).replace('"8"', "1" + "0" * 400 + ".5"),
        "a reference of 1e999": json.dumps(row).replace('"8"', "1e999"),
    }


def bad_tables() -> Iterator[BadFile]:
    """Files of published sets that cannot be read, by their ending."""
    columns = {"id": ["0"], "problem": ["What is 2 + 3?"], "answer": ["5"]}
    good = _parquet(columns)
    rows = b'[{"problem": "What is 2 + 3?", "answer": "5"}]'
    for name, raw in {
        "empty": b"",
        "text": b"problem,answer\n",
        "cut short": good[: len(good) // 2],
        "without its end": good[:-8],
        "other bytes in the middle": good[:20] + bytes(255 - b for b in good[20:60]) + good[60:],
        "other bytes at its end": good[:-40] + bytes(255 - b for b in good[-40:-8]) + good[-8:],
        "a zip": _zip({"a": b"b"}),
        "other columns": _parquet({"x": [1]}),
        "no rows": _parquet({"problem": pa.array([], pa.string()), "answer": pa.array([], pa.string())}),
        "numbers for text": _parquet({"problem": [1], "answer": [[2]]}),
        "null": _parquet({"problem": pa.array([None], pa.string()), "answer": pa.array([None], pa.string())}),
    }.items():
        yield BadFile(f"parquet: {name}", raw, ("table",), ".parquet")
    for name, raw in {
        "empty": b"",
        "no JSON": b"problem",
        "a number": b"3",
        "an open list": rows[:-1],
        "a comma too many": rows[:-1] + b",]",
        "no comma": rows[:-1] + rows[1:],
        "text after its end": rows + b"x",
        "deep lists": b"[" * DEEP,
        "deep objects": b'{"a":' * DEEP,
        "deep lists in a row": b'[{"problem":' + b"[" * DEEP + b"]" * DEEP + b"}]",
        "rows that are numbers": b"[1, 2]",
        "no UTF-8": rows.replace(b"What", b"\xff\xfe"),
        "NUL characters": b"\0" * 100,
        "a key twice": b'[{"problem": "What is 2 + 3?", "problem": "What is 3 + 3?", "answer": "5"}]',
    }.items():
        yield BadFile(f"json: {name}", raw, ("table",), ".json")
    for name, raw in {
        "empty": b"",
        "no JSON": b"problem\n",
        "deep lists": b"[" * DEEP + b"\n",
        "no UTF-8": b"\xff\xfe\n",
        "a list": b"[1]\n",
        "a key twice": b'{"problem": "a", "problem": "b", "answer": "5"}\n',
    }.items():
        yield BadFile(f"jsonl: {name}", raw, ("table",))
    for name, raw in {
        "empty": b"",
        "a header alone": b"problem\tanswer\n",
        "a cell too many": b"problem\tanswer\na\t5\tx\n",
        "a cell too few": b"problem\tanswer\na\n",
        "no UTF-8": b"problem\tanswer\n\xff\t5\n",
        "NUL characters": b"problem\tanswer\na\0\t5\n",
        "a column twice": b"problem\tproblem\tanswer\na\tb\t5\n",
        "an open quote": b'problem\tanswer\n"a\t5\n',
    }.items():
        yield BadFile(f"tsv: {name}", raw, ("table",), ".tsv")
    packed = _zip({"a.json": rows})
    for name, raw in {
        "empty": b"",
        "no zip": b"PK\x03\x04 garbage",
        "no files": _zip({}),
        "no data": _zip({"read.me": b"x"}),
        "cut short": packed[: len(packed) // 2],
        "other bytes in the middle": packed[:40] + bytes(255 - b for b in packed[40:60]) + packed[60:],
        "a member that is no JSON": _zip({"a.json": b"x"}),
        "a member that is no UTF-8": _zip({"a.jsonl": b"\xff"}),
        "a member that is no parquet": _zip({"a.parquet": b"PAR1"}),
        "a folder for a member": _zip({"a.json/": b""}),
        "a member that is encrypted": _encrypted(packed),
        "a kind of packing that is not known": _packed_as(packed, 97),
    }.items():
        yield BadFile(f"zip: {name}", raw, ("table",), ".zip")
    for ending in (".csv", "", ".txt", ".xlsx", ".gz"):
        yield BadFile(f"an ending {ending!r}", b"problem,answer\n", ("table",), ending)


def bad_recipes(good: str) -> Iterator[BadFile]:
    """Recipe files that are no recipe. `good` is the text of one."""
    laughs = "a: &a [x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for name, text in {
        "empty": "",
        "blank": " \n\n",
        "a comment": "# nothing\n",
        "a word": "word",
        "a number": "3",
        "a list": "- run\n",
        "an open bracket": "run: [",
        "an open quote": 'run: "',
        "a tab": "run:\n\tdir: x\n",
        "a tag": "run: !!python/object/apply:os.system [ls]\n",
        "an unknown tag": "run: !thing 3\n",
        "an unknown alias": "run: *x\n",
        "an alias of itself": "run: &a [*a]\n",
        "laughter": laughs + good,
        "deep lists": "[" * DEEP,
        "deep sections": "".join(" " * i + "a:\n" for i in range(3000)),
        "no keys but lists": "? [a, b]\n: c\n",
        "a key that is null": "~: x\n" + good,
        "a key that is a number": "3: x\n" + good,
        "a key that is a date": "2026-11-28: x\n" + good,
        "two documents": good + "---\n" + good,
        "a section twice": good + "sft:\n  steps: 1\n  batch_size: 2\n  optimizer: {lr: 1.0e-3}\n",
        "a key twice": good.replace("  seed: 5\n", "  seed: 5\n  seed: 6\n"),
        "an impossible date": good.replace("seed: 5", "seed: 2026-13-45"),
        "a huge number": good.replace("seed: 5", "seed: " + "9" * 5000),
        "markup": "[/red]: [b]",
        "JSON that is cut": '{"run": {"dir":',
    }.items():
        yield BadFile(name, text.encode(), ("r.yaml",), ".yaml")
    raw = good.encode()
    for name, content in {
        "no UTF-8": raw + b"# \xff\n",
        "NUL characters": raw + b"\0",
        "control characters": raw + b"x: \x1b[31m\n",
        "UTF-16 without a mark": good.encode("utf-16-le"),
        "a zip": _zip({"a": b"b"}),
    }.items():
        yield BadFile(name, content, ("r.yaml",), ".yaml")
    for name, content in {"a mark of byte order": b"\xef\xbb\xbf" + raw, "CRLF": raw.replace(b"\n", b"\r\n")}.items():
        yield BadFile(name, content, ("student",), ".yaml", taken=True)


def _parquet(columns: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def _encrypted(packed: bytes) -> bytes:
    """The flag alone: nobody gets as far as the password."""
    raw = bytearray(packed)
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)


def _packed_as(packed: bytes, method: int) -> bytes:
    raw = bytearray(packed)
    raw[8] = method
    raw[raw.index(b"PK\x01\x02") + 10] = method
    return bytes(raw)
