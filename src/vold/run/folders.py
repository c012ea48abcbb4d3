"""Folders of models, states and sets: whole or absent, each with a manifest of its files' hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from types import MappingProxyType
from typing import TYPE_CHECKING

from vold.errors import CheckpointError
from vold.run.files import make_directory, read_json, sync, temporary_of
from vold.run.lock import confirm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MANIFEST = "manifest.json"
STATE = re.compile(r"step-(\d+)")
"""Names of a training stage's states."""
HALF = (".*.old", ".*.tmp", ".*.gone")
"""Names of what is being replaced, written or removed."""


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes `path`, with a manifest of hashes, when the block ends well.

    An existing `path` is replaced.
    """
    temporary = begin_directory(path)
    yield temporary
    end_directory(path)


def begin_directory(path: Path) -> Path:
    """An empty temporary directory that `end_directory` makes `path` of; what was left of another is removed."""
    confirm(path)
    temporary = temporary_of(path)
    remove(temporary)
    make_directory(temporary)
    return temporary


def written(file: Path) -> str:
    """Flush a file of a temporary directory to disk; returns its hash, for `end_directory`."""
    sync(file)
    return sha256_of(file)


def end_directory(path: Path, hashes: Mapping[str, str] = MappingProxyType({})) -> None:
    """Put a temporary directory in place, with a manifest.

    Args:
        path: its name from now on. What stands there is replaced.
        hashes: of files that whoever wrote them has flushed and hashed (`written`), by name. The others are now.
    """
    temporary = temporary_of(path)
    names = _files(temporary)
    made = {name: hashes[name] if name in hashes else written(temporary / name) for name in names}
    manifest = temporary / MANIFEST
    manifest.write_text(json.dumps(made, indent=2) + "\n")
    for found in (manifest, *sorted(f for f in temporary.rglob("*") if f.is_dir()), temporary):
        sync(found)
    confirm(path)
    if path.exists():
        old = path.with_name(f".{path.name}.old")
        remove(old)
        path.replace(old)
        temporary.replace(path)
        remove(old)
    else:
        temporary.replace(path)
    sync(path.parent)


def verify_directory(path: Path) -> None:
    """Compare a directory with its manifest. Directories without one that are not ours, such as foreign models, pass.

    Raises:
        CheckpointError: a file is missing, cut short, changed or strange; or there is no manifest, and the directory is
            a state or a result of a stage.
    """
    if not (path / MANIFEST).exists():
        if STATE.fullmatch(path.name) or is_result(path):
            got = f"no {MANIFEST}" if path.is_dir() else "no directory"
            raise CheckpointError("this checkpoint is not whole", where=str(path), got=got, fix=_way_out(path))
        return
    hashes = read_json(path / MANIFEST, dict, fix=_way_out(path))
    for name in sorted({*hashes, *filter(_counts, _files(path))}):
        if got := _difference(path / name, hashes.get(name)):
            what = "this checkpoint is corrupt"
            raise CheckpointError(what, where=str(path / name), got=got, fix=_way_out(path))


def weights_digest(path: Path) -> str:
    """The digest of a saved model's weights by its manifest, as `eval/MODEL/model.json` keeps it; empty where there is
    none."""
    hashes = read_json(path / MANIFEST, dict, absent={}, fix=_way_out(path))
    weights = [bytes.fromhex(hashes[name]) for name in sorted(hashes) if name.endswith(".safetensors")]
    return hashlib.sha256(b"".join(weights)).hexdigest() if weights else ""


def is_result(path: Path) -> bool:
    """Whether this is the model that a training stage of a run has ended with."""
    return path.name == "final" and path.parent.name in ("sft", "distill") and (path.parent / "metrics.jsonl").exists()


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest state of a stage, or None."""
    found = [p for p in directory.glob("step-*") if STATE.fullmatch(p.name)]
    return max(found, key=step_of, default=None)


def state_of(directory: Path, step: int) -> Path:
    """Where a stage keeps its state with so many steps behind it."""
    return directory / f"step-{step:06d}"


def step_of(state: Path) -> int:
    """How many steps a state has behind it, by its name."""
    return int(state.name.removeprefix("step-"))


def drop_older(directory: Path, newest: Path) -> None:
    """Remove every state but the newest. What a kill leaves of one is no state any more."""
    for path in directory.glob("step-*"):
        if STATE.fullmatch(path.name) and path != newest:
            drop(path)


def drop(path: Path) -> None:
    """Remove a directory, which is whole or gone under its name whatever moment the process dies at."""
    gone = path.with_name(f".{path.name}.gone")
    remove(gone)
    path.replace(gone)
    remove(gone)


def sweep(directory: Path) -> None:
    """Remove what a killed process has left of files and folders that it was writing, replacing or removing."""
    for path in directory.glob(".*.old"):
        whole = path.with_name(path.name[1:].removesuffix(".old"))
        if not whole.exists():  # killed between the two renames of a replacement
            path.replace(whole)
    for pattern in HALF:
        for path in directory.glob(pattern):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files(path: Path) -> list[str]:
    """Files of a directory but its manifest."""
    found = (f.relative_to(path).as_posix() for f in path.rglob("*") if not f.is_dir())
    return sorted(name for name in found if name != MANIFEST)


def _counts(name: str) -> bool:
    """Whether a file matters that the manifest does not know: notes and hidden files may be added by anybody."""
    return not name.endswith(".md") and not any(part.startswith(".") for part in name.split("/"))


def _difference(file: Path, expected: object) -> str:
    """How a file differs from its hash; "" where it does not."""
    if expected is None:
        return f"a file that {MANIFEST} does not know"
    if not file.is_file():
        return "something else" if file.exists() else "missing"
    try:
        return "" if sha256_of(file) == expected else f"{file.stat().st_size} bytes with another hash"
    except OSError as error:
        return error.strerror or str(error)


def _way_out(path: Path) -> str:
    if STATE.fullmatch(path.name):
        return f"copy {path} again, or delete it: the stage then begins with its first step"
    if is_result(path):
        stage = path.parent.name
        return f"copy it again, or delete {path} and repeat `vold {stage}`, which saves it from its last state"
    if path.parts[-2:] == ("balance", "set"):
        return "copy it again, or repeat `vold balance`, which writes it again from its labels"
    return "copy it again, or make it again"


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes, in hex digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
