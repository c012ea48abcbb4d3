"""Files and folders that are whole or absent, whatever moment the process dies at."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vold.errors import CheckpointError, DataError
from vold.run.records import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

T = TypeVar("T")

MANIFEST = "manifest.json"


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    with temporary.open("wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file in one step. Dataclasses are written as `vold.run.records` says."""
    write_text(path, json.dumps(to_json(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path, kind: type[T]) -> T:
    """A JSON file of ours as a dataclass.

    Raises:
        DataError: there is none, it is cut short, or it lacks a field.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("this file is not there", where=str(path), fix="run the verb that writes it") from None
    except ValueError as error:
        raise DataError("this file is not whole JSON", where=str(path), got=str(error)) from None
    return from_json(kind, value, where=str(path))


def append_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Append rows, dataclasses or dictionaries, and flush them to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as f:
        f.writelines(_line(row) for row in rows)
        f.flush()
        os.fsync(f.fileno())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a file of ours; [] if it does not exist. A torn last line is left out."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def read_records(path: Path, kind: type[T]) -> list[T]:
    """All whole rows of a file of ours as dataclasses; [] if it does not exist.

    Raises:
        DataError: a row lacks a field.
    """
    return [from_json(kind, row, where=str(path)) for row in read_jsonl(path)]


def keep_rows(path: Path, rows: Sequence[Any]) -> None:
    """Cut a JSON-lines file back to these rows, in one step; nothing is done where it holds just them."""
    text = "".join(_line(row) for row in rows)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _line(row: object) -> str:
    return json.dumps(to_json(row), allow_nan=False) + "\n"


def temporary_of(path: Path) -> Path:
    """Where `path` is written before it is put in place."""
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes `path`, with a manifest of hashes, when the block ends well.

    An existing `path` is replaced.
    """
    temporary = temporary_of(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    files = sorted(f for f in temporary.rglob("*") if f.is_file())
    hashes = {f.relative_to(temporary).as_posix(): _sha256(f) for f in files}
    (temporary / MANIFEST).write_text(json.dumps(hashes, indent=2) + "\n")
    for f in (*files, temporary / MANIFEST):
        with f.open("rb") as handle:
            os.fsync(handle.fileno())
    if path.exists():
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        path.replace(old)
        temporary.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.replace(path)


def verify_directory(path: Path) -> None:
    """Compare a directory with its manifest. Directories without one (not written by us) pass.

    Raises:
        CheckpointError: a file is missing, cut short or changed.
    """
    manifest = path / MANIFEST
    if not manifest.exists():
        return
    try:
        hashes = json.loads(manifest.read_text())
    except ValueError as error:
        raise CheckpointError("this checkpoint's manifest is corrupt", where=str(manifest)) from error
    for name, expected in hashes.items():
        file = path / name
        if not file.exists() or _sha256(file) != expected:
            raise CheckpointError(
                "this checkpoint is corrupt",
                where=str(file),
                got="missing" if not file.exists() else f"{file.stat().st_size} bytes with another hash",
                fix=f"delete {path} to go on from an earlier checkpoint, or copy it again",
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest whole checkpoint of a stage, or None."""
    found = sorted(directory.glob("step-*"), key=lambda p: int(p.name.split("-")[1]))
    return found[-1] if found else None


def drop_older(directory: Path, newest: Path) -> None:
    """Remove every checkpoint but the newest."""
    for path in directory.glob("step-*"):
        if path != newest:
            shutil.rmtree(path)
