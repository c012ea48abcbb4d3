"""Files of a run: whole or absent whatever moment the process dies at, and checked when they are read.

A list (JSON lines) grows by whole rows. Beside LIST lies `.LIST.sums`: for every row where it ends and a digest of it,
written after the row. So a row that was changed, doubled, lost or moved later is told from one that was never
finished: rows after the last sum, and a last line without its end, are what a kill leaves.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any, TypeVar

from vold.errors import CheckpointError
from vold.run.lock import confirm
from vold.run.records import Unlike, reader, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

T = TypeVar("T")

SMALL = 1 << 26
"""Bytes of the largest file that is read in one piece, lists and weights aside."""
MEND = "delete line {line} and all after it, and repeat the `vold` command that wrote this file; it goes on from there"
_SUM = re.compile(rb"\d{12} [0-9a-f]{16}\n")
_SUM_BYTES = 30


def make_directory(path: Path) -> None:
    """Make a directory, and those it lies in, so that they outlast a power cut."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync(made.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to disk where its file system can."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def temporary_of(path: Path) -> Path:
    """Where `path` is written before it is put in place."""
    return path.with_name(f".{path.name}.tmp")


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step.

    Raises:
        ConfigError: it is in a run directory that another process has taken over; so in all that writes there.
    """
    confirm(path)
    make_directory(path.parent)
    temporary = temporary_of(path)
    with temporary.open("wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    confirm(path)
    temporary.replace(path)
    sync(path.parent)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file in one step. Dataclasses are written as `vold.run.records` says."""
    write_text(path, json.dumps(to_json(value), indent=2, allow_nan=False) + "\n")


def read_json(
    path: Path, kind: type[T], *, absent: T | None = None, fix: str = "delete it and repeat the command that writes it"
) -> T:
    """A small JSON file of ours.

    Args:
        path: the file.
        kind: a dataclass, or `dict` for an object as it is.
        absent: what is returned where there is no such file.
        fix: what to do about a file that cannot be used.

    Raises:
        CheckpointError: there is none, it cannot be read, is cut short, garbled, nested too deeply or far too big, or
            a value is missing or of another type.
    """
    content = read_bytes(path, limit=SMALL, fix=fix)
    if content is None and absent is not None:
        return absent
    if content is None:
        raise CheckpointError("this file is not there", where=str(path), fix="run the verb that writes it")
    try:
        value = _parsed(content)
    except ValueError as error:
        raise CheckpointError("this file is not whole JSON", where=str(path), got=str(error), fix=fix) from None
    try:
        found: T = reader(kind)(value)
    except Unlike as error:
        what = "this file is damaged or of another version"
        raise CheckpointError(what, where=str(path), got=f"{kind.__name__}: {error}", fix=fix) from None
    return found


def read_bytes(path: Path, *, limit: int | None = None, fix: str = "") -> bytes | None:
    """What a file of ours holds; None where there is none.

    Raises:
        CheckpointError: it is no file, may not be read, or is bigger than `limit` bytes.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError("something else is where a file of ours belongs", where=str(path), fix=f"move {path}")
        if limit is not None and found.st_size > limit:
            got = f"{found.st_size:,} bytes, more than {limit:,}"
            raise CheckpointError("this file is far too big", where=str(path), got=got, fix=fix)
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            return None
        got, fix = error.strerror or str(error), "mend its permissions or its place, or move it away"
        raise CheckpointError("this file cannot be read", where=str(path), got=got, fix=fix) from error


_DECODER = json.JSONDecoder(parse_constant=lambda name: _refuse(f"{name} is no number of JSON"))


def _refuse(why: str) -> Any:
    raise ValueError(why)


def _parsed(content: bytes) -> object:
    """Raises ValueError, whatever is wrong with it."""
    try:
        return _DECODER.decode(content.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Write rows in one step to a file that nobody goes on with."""
    write_bytes(path, b"".join(map(_line, rows)))


def append_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Append rows, dataclasses or dictionaries, to a list and flush them to disk.

    Raises:
        CheckpointError: what is there already is damaged.
    """
    lines = [_line(row) for row in rows]
    size = _size(path)
    if _summed_size(sums_of(path)) != size:
        cut_rows(path, len(read_jsonl(path)))
        size = _size(path)
    _append(path, b"".join(lines))
    _append(sums_of(path), _sums(lines, size))


def read_jsonl(path: Path, *, whole: bool = False, mend: str = MEND) -> list[dict[str, Any]]:
    """All whole rows of a list of ours; [] if it does not exist. A torn last line is left out.

    Args:
        path: the list.
        whole: refuse a list that has lost rows at its end; whoever goes on with a list makes these again.
        mend: what to do about a damaged row; `{line}` is its number.

    Raises:
        CheckpointError: a line is garbled, or is not the one that was stored there. It is named.
    """
    # The sums first: a row that is appended meanwhile is then one without a sum, and no sum is without its row.
    sums = read_bytes(sums_of(path)) or b""
    lines = (read_bytes(path) or b"").split(b"\n")[:-1]
    rows = []
    for n, line in enumerate(lines, 1):
        try:
            row = _parsed(line)
        except ValueError as error:
            raise bad_row(path, n, f"no JSON: {error}", mend=mend) from None
        if not isinstance(row, dict):
            raise bad_row(path, n, f"a {type(row).__name__} where an object stands", mend=mend)
        rows.append(row)
    _compare_with_sums(path, lines, sums, whole=whole, mend=mend)
    return rows


def read_records(path: Path, kind: type[T], *, whole: bool = False, mend: str = MEND) -> list[T]:
    """All whole rows of a list of ours as dataclasses; see `read_jsonl`.

    Raises:
        CheckpointError: as there, or a row lacks a value or holds one of another type.
    """
    return [
        as_record(path, n, row, kind, mend=mend) for n, row in enumerate(read_jsonl(path, whole=whole, mend=mend), 1)
    ]


def as_record(path: Path, line: int, row: object, kind: type[T], *, mend: str = MEND) -> T:
    """One row of a list as a dataclass.

    Raises:
        CheckpointError: it lacks a value or holds one of another type.
    """
    try:
        found: T = reader(kind)(row)
    except Unlike as error:
        raise bad_row(path, line, f"{kind.__name__}: {error}", mend=mend) from None
    return found


def bad_row(path: Path, line: int, got: str, *, mend: str = MEND) -> CheckpointError:
    """The error for one row of a list."""
    fix = mend.replace("{line}", str(line))
    return CheckpointError("a row of this file is damaged", where=f"{path}: line {line}", got=got, fix=fix)


def cut_rows(path: Path, count: int) -> None:
    """Cut a list back to its first `count` rows, and a torn line or row without a sum off."""
    content = read_bytes(path) or b""
    lines = [line + b"\n" for line in content.split(b"\n")[:-1][:count]]
    kept = b"".join(lines)
    # The sums first: rows without one are what a kill may leave, sums without a row are not.
    _write_sums(path, lines)
    if content != kept:
        write_bytes(path, kept)


def write_rows(path: Path, rows: Iterable[object]) -> None:
    """Replace a list in one step; nothing is done where it holds just these rows."""
    lines = [_line(row) for row in rows]
    content = b"".join(lines)
    if read_bytes(path) != content:
        sums_of(path).unlink(missing_ok=True)
        write_bytes(path, content)
    _write_sums(path, lines)


def remove_rows(path: Path) -> None:
    """Remove a list, if there is one."""
    path.unlink(missing_ok=True)
    sums_of(path).unlink(missing_ok=True)


def lists_in(folder: Path) -> list[Path]:
    """The lists in a folder, those included of which nothing but the sums is left."""
    gone = (f.with_name(f.name[1:].removesuffix(".sums")) for f in folder.glob(".*.jsonl.sums"))
    return sorted({*folder.glob("*.jsonl"), *gone})


def sums_of(path: Path) -> Path:
    """Where the digests of a list's rows stand."""
    return path.with_name(f".{path.name}.sums")


def _line(row: object) -> bytes:
    return json.dumps(to_json(row), allow_nan=False).encode() + b"\n"


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()


def _sums(lines: Sequence[bytes], start: int) -> bytes:
    """Lines of a file of sums, of rows with their line ends that begin at byte `start`."""
    out = []
    for line in lines:
        start += len(line)
        out.append(b"%012d %s\n" % (start, _digest(line[:-1])))
    return b"".join(out)


def _write_sums(path: Path, lines: Sequence[bytes]) -> None:
    """Write the sums of a list of just these rows, where they do not stand there yet."""
    sums = _sums(lines, 0)
    if read_bytes(sums_of(path)) not in (sums, sums or None):
        write_bytes(sums_of(path), sums)


def _compare_with_sums(path: Path, lines: Sequence[bytes], sums: bytes, *, whole: bool, mend: str) -> None:
    sums = sums[: len(sums) // _SUM_BYTES * _SUM_BYTES]
    known = [sums[i : i + _SUM_BYTES] for i in range(0, len(sums), _SUM_BYTES)]
    if not all(map(_SUM.fullmatch, known)):
        where, fix = str(sums_of(path)), "delete it: the rows are then taken as they are"
        raise CheckpointError("this file is damaged", where=where, got="no digests of rows", fix=fix)
    digests = [one[13:-1] for one in known]
    for n, (line, digest) in enumerate(zip(lines, digests, strict=False)):
        if _digest(line) != digest:
            raise bad_row(path, n + 1, _what_is_wrong(digests, n, _digest(line)), mend=mend)
    if whole and len(digests) > len(lines):
        got = f"the list ends here; {len(digests)} rows were stored"
        raise bad_row(path, len(lines) + 1, got, mend=mend)


def _what_is_wrong(digests: Sequence[bytes], place: int, found: bytes) -> str:
    if found not in digests:
        return "another row than was stored"
    there = digests.index(found)
    return "the row above once more" if there == place - 1 else f"the row that was stored as line {there + 1}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _summed_size(sums: Path) -> int:
    """Bytes of a list up to its last sum; -1 where its sums are torn."""
    size = _size(sums)
    if not size:
        return 0
    with sums.open("rb") as f:
        f.seek(max(0, size - _SUM_BYTES))
        last = f.read()
    return int(last[:12]) if size % _SUM_BYTES == 0 and _SUM.fullmatch(last) else -1


def _append(path: Path, content: bytes) -> None:
    confirm(path)
    new = not path.exists()
    if new:
        make_directory(path.parent)
    with path.open("ab") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    if new:
        sync(path.parent)
