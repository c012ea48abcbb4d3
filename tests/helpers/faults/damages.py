"""Ways in which a file or folder is damaged. Each changes what lies at a path."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]
Named = tuple[str, Damage]

DEEP = 100_000
"""Brackets in a row."""
WRONG: dict[type, tuple[object, ...]] = {
    str: (None, 3, ["x"], True, {"a": 1}),
    int: (None, "3", 1.5, True, -1, [1], 10**30),
    float: ("0.5", True, [1.0], {"a": 1}, float("nan"), float("inf"), 10**400),
    list: (None, "x", 3, {"a": 1}, [None], [["x"]]),
    dict: (None, "x", 3, ["a"]),
    type(None): (3, ["x"], True, {"a": 1}),
}
"""Values of other types than the one that stands in a file."""
NARROW = {
    "score": (1.5, -0.1, 2, None),
    "loss": (None,),
    "mean_tokens": (None,),
    "outcome": ("perhaps", ""),
    "finish": ("never", ""),
    "response_ids": ([-1], [2**31], [True], [1.5], ["1"]),
    "action_mask": ([2], [-1], [True], []),
}
"""Values of the right type that a row of this key can never have."""


def sums_of(file: Path) -> Path:
    """The sums of a list."""
    return file.with_name(f".{file.name}.sums")


def of_any_file() -> Iterator[Named]:
    """What can happen to whatever file."""
    yield "deleted", Path.unlink
    yield "emptied", lambda f: _write(f, b"")
    for share in (0.1, 0.5, 0.9):
        yield f"cut at {share:.0%}", partial(cut, share=share)
    yield "a folder instead", folder_instead
    yield "a loop of links instead", _loop_instead
    yield "a pipe instead", _pipe_instead
    yield "no text", lambda f: _write(f, b"\xff\xfe\x00" + f.read_bytes())
    yield "zeros", lambda f: _write(f, bytes(f.stat().st_size))
    yield "brackets without end", lambda f: _write(f, b"[" * DEEP + b"\n")


def of_json() -> Iterator[Named]:
    """What can happen to a small file with an object."""
    yield from of_any_file()
    for text in ("null", "[]", "3", '"text"', "true", '{"a": NaN}'):
        yield f"{text} instead", partial(_write, content=f"{text}\n".encode())
    yield "its keys without values", lambda f: _write(f, json.dumps(dict.fromkeys(json.loads(f.read_text()))).encode())
    yield "far too big", lambda f: os.truncate(f, 1 << 28)


def of_values(file: Path, *, each: int = 2) -> Iterator[Named]:
    """Every field of a small file in turn: gone, or of some other types."""
    for place, (key, value) in enumerate(json.loads(file.read_text()).items()):
        yield f"no {key}", partial(_without, key=key)
        wrong = WRONG[type(value)]
        for other in _some(wrong, each, place):
            yield f"{key}: {_short(other)}", partial(_with, key=key, value=other)


def of_lines(file: Path) -> Iterator[Named]:
    """What can happen to the lines of a list."""
    count = len(_lines(file))
    yield from of_any_file()
    for n in (0, count // 2, count - 1):
        yield f"line {n + 1} garbled", partial(_line, number=n, change=lambda line: b'{"x' + line[3:] + b"~")
        yield f"line {n + 1} cut short", partial(_line, number=n, change=lambda line: line[:-9])
        yield f"line {n + 1} doubled", partial(_line, number=n, change=lambda line: line + b"\n" + line)
        yield f"line {n + 1} removed", partial(_line, number=n, change=None)
        yield f"line {n + 1} blank", partial(_line, number=n, change=lambda line: b"")
    for n in (0, count // 2):
        yield f"lines {n + 1} and {n + 2} swapped", partial(_swap, number=n)
        yield f"lines {n + 1} and {n + 2} joined", partial(_join, number=n)
    for text in ("null", "[1]", "3", '"x"', "{}"):
        yield f"line 2 is {text}", partial(_line, number=1, change=partial(_say, text=text))
    yield "line 2 nested too deeply", partial(_line, number=1, change=lambda line: b"[" * DEEP)
    yield "line 2 no text", partial(_line, number=1, change=lambda line: line[:5] + b"\xff" + line[5:])
    yield "a strange row at the end", lambda f: _write(f, f.read_bytes() + b'{"x": 1}\n')
    yield "a torn line at the end", lambda f: _write(f, f.read_bytes() + f.read_bytes()[:20])
    yield "sums deleted", lambda f: sums_of(f).unlink()
    yield "sums emptied", lambda f: _write(sums_of(f), b"")
    yield "sums cut within a row", lambda f: os.truncate(sums_of(f), 40)
    yield "sums cut at a row", lambda f: os.truncate(sums_of(f), 60)
    yield "sums garbled", lambda f: _write(sums_of(f), b"x" * sums_of(f).stat().st_size)
    yield "sums of another row", lambda f: _write(sums_of(f), _turned(sums_of(f).read_bytes(), 20))
    yield "sums are a folder", lambda f: folder_instead(sums_of(f))


def of_fields(file: Path, number: int, *, each: int = 2) -> Iterator[Named]:
    """Every field of a row in turn: another value of its type; and, in a list without sums, values it cannot have."""
    row = json.loads(file.read_text().splitlines()[number])
    for place, (key, value) in enumerate(row.items()):
        yield f"line {number + 1}: another {key}", partial(_row, number=number, key=key, value=_other(value))
        yield f"line {number + 1}: no {key}", partial(_row, number=number, key=key, value=...)
        wrong = WRONG[type(value)] if key != "extracted" else (3, ["x"], True)
        for other in (*_some(wrong, each, place), *NARROW.get(key, ())):
            name = f"line {number + 1} without sums: {key} {_short(other)}"
            yield name, partial(_row, number=number, key=key, value=other, sums=False)


def of_a_folder(files: tuple[str, ...]) -> Iterator[Named]:
    """What can happen to a folder with a manifest; `files` are some of its own."""
    for name in (*files, "manifest.json"):
        yield f"{name} deleted", partial(_within, name=name, damage=Path.unlink)
        yield f"{name} emptied", partial(_within, name=name, damage=partial(_write, content=b""))
        yield f"{name} a folder", partial(_within, name=name, damage=folder_instead)
        for place in (3, 9, 40, -2):
            yield f"{name}, bit turned at byte {place}", partial(_within, name=name, damage=partial(turn, place=place))
    for text in ("{}", "[]", "null", '{"state.json": 3}'):
        said = partial(_write, content=text.encode())
        yield f"manifest.json is {text}", partial(_within, name="manifest.json", damage=said)
    yield "a strange file beside", lambda d: _write(d / "adapter_config.json", b"{}")
    yield "a note beside", lambda d: _write(d / "notes.md", b"mine\n")
    yield "a file instead", _file_instead
    yield "emptied", _emptied


def of_tensors(name: str) -> Iterator[Named]:
    """What can be wrong with a safetensors file whose hash the manifest says: it was written so."""
    for place in (1, 7, 9, 12, 100):
        turned = partial(_turned, place=place)
        yield f"{name} written with another byte {place}", partial(_written, name=name, change=turned)
    yield f"{name} written half", partial(_written, name=name, change=lambda b: b[: len(b) // 2])
    yield f"{name} written empty", partial(_written, name=name, change=lambda b: b"")
    yield f"{name} written as text", partial(_written, name=name, change=lambda b: b"no tensors\n" * 9)


def _within(folder: Path, name: str, damage: Damage) -> None:
    damage(folder / name)


def _say(_: bytes, text: str) -> bytes:
    return text.encode()


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def cut(file: Path, share: float) -> None:
    """Leave a share of a file's bytes."""
    os.truncate(file, int(file.stat().st_size * share))


def folder_instead(file: Path) -> None:
    """Put a folder where the file was."""
    file.unlink()
    file.mkdir()


def _file_instead(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _loop_instead(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def _pipe_instead(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _without(file: Path, key: str) -> None:
    _write(file, json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != key}).encode())


def _with(file: Path, key: str, value: object) -> None:
    _write(file, json.dumps(json.loads(file.read_text()) | {key: value}).encode())


def _lines(file: Path) -> list[bytes]:
    return file.read_bytes().split(b"\n")[:-1]


def _put(file: Path, lines: list[bytes]) -> None:
    _write(file, b"".join(line + b"\n" for line in lines))


def _line(file: Path, number: int, change: Callable[[bytes], bytes] | None) -> None:
    lines = _lines(file)
    lines[number : number + 1] = [] if change is None else [change(lines[number])]
    _put(file, lines)


def _swap(file: Path, number: int) -> None:
    lines = _lines(file)
    lines[number], lines[number + 1] = lines[number + 1], lines[number]
    _put(file, lines)


def _join(file: Path, number: int) -> None:
    lines = _lines(file)
    lines[number : number + 2] = [lines[number] + lines[number + 1]]
    _put(file, lines)


def _row(file: Path, number: int, key: str, value: object, *, sums: bool = True) -> None:
    lines = _lines(file)
    row: dict[str, Any] = json.loads(lines[number])
    if value is ...:
        del row[key]
    else:
        row[key] = value
    lines[number] = json.dumps(row).encode()
    _put(file, lines)
    if not sums:
        sums_of(file).unlink()


def _other(value: object) -> object:
    """Another value that a row may well have."""
    if isinstance(value, bool) or value is None:
        return "8"
    if isinstance(value, str):
        return value + "8"
    if isinstance(value, int | float):
        return 1 - value if value in (0, 1) else value + 1
    if isinstance(value, list):
        return value[:-1]
    return {"kind": "other"}


def turn(file: Path, place: int) -> None:
    """Turn a bit of a byte."""
    _write(file, _turned(file.read_bytes(), place))


def _turned(content: bytes, place: int) -> bytes:
    found = bytearray(content)
    found[place % len(found)] ^= 4
    return bytes(found)


def _written(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    content = change((folder / name).read_bytes())
    _write(folder / name, content)
    _with(folder / "manifest.json", name, hashlib.sha256(content).hexdigest())


def _some(values: tuple[object, ...], count: int, turn: int) -> list[object]:
    return [values[(turn * count + i) % len(values)] for i in range(min(count, len(values)))]


def _short(value: object) -> str:
    return json.dumps(value)[:24]
