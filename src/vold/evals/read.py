"""Rows of a benchmark from wherever they lie: parquet, TSV, JSON, JSONL, a folder, a zip, or the hub.

Rows are plain dictionaries. Nothing is unpacked to disk, unpickled or run.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMATS = (".parquet", ".tsv", ".jsonl", ".json")
AnyPath = TypeVar("AnyPath", Path, PurePosixPath)

MAX_MEMBER = 2_000_000_000
"""Bytes of one member of a zip, unpacked."""


@dataclass(frozen=True)
class Row:
    """One row: where it is (for messages), its columns, and how to read a file that it names."""

    where: str
    values: dict[str, Any]
    open_path: Callable[[str], bytes]


def read_rows(path: str | Path, *, split: str | None = None) -> Iterator[Row]:
    """Yield the rows of a file, of every data file in a folder, or of every data file in a zip, in the order of names.

    In a folder or zip with files of several splits, only those whose name holds `split` are read.

    Raises:
        DataError: nothing there, a format that is not known, or a file that is cut short.
    """
    source = Path(path)
    if not source.exists():
        raise DataError(
            "there is no such data", where=str(source), fix="check the path, or leave it out to use the hub"
        )
    if source.suffix == ".zip":
        yield from _zip_rows(source, split)
        return
    files = (
        _of_split(sorted(f for f in source.rglob("*") if f.suffix in FORMATS), split) if source.is_dir() else [source]
    )
    if not files:
        raise DataError("no data file here", where=str(source), fix=f"known formats: {', '.join(FORMATS)}, .zip")
    for file in files:
        yield from _file_rows(file, _opener(file.parent))


def _file_rows(file: Path, open_path: Callable[[str], bytes]) -> Iterator[Row]:
    if file.suffix == ".parquet":
        yield from _numbered(str(file), _parquet(str(file), file), open_path)
        return
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read this data file", where=str(file), got=str(error)) from None
    yield from _text_rows(str(file), file.suffix, text, open_path)


def _text_rows(where: str, suffix: str, text: str, open_path: Callable[[str], bytes]) -> Iterator[Row]:
    readers = {".tsv": _tsv, ".jsonl": _jsonl, ".json": _json}
    if suffix not in readers:
        raise DataError("unknown data format", where=where, fix=f"known: {', '.join(FORMATS)}, .zip")
    yield from _numbered(where, readers[suffix](where, text), open_path)


def _numbered(where: str, rows: Iterator[dict[str, Any]], open_path: Callable[[str], bytes]) -> Iterator[Row]:
    for number, values in enumerate(rows, 1):
        yield Row(f"{where}: row {number}", values, open_path)


def _parquet(where: str, source: Any) -> Iterator[dict[str, Any]]:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        file = pq.ParquetFile(source)
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError("this parquet file is corrupt or cut short", where=where, got=str(error)[:200]) from None


def _tsv(where: str, text: str) -> Iterator[dict[str, Any]]:
    """A VLMEvalKit table. An `image` cell that holds another row's index stands for that row's picture."""
    csv.field_size_limit(1 << 30)  # a cell holds whole pictures as base64
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    by_index = {r.get("index"): r for r in rows}
    for row in rows:
        if None in row or any(v is None for v in row.values()):
            raise DataError("a row has another number of cells than the header", where=where, got=str(row.get("index")))
        shared = by_index.get(row.get("image"))
        if shared is not None and len(row["image"]) <= 64:
            row["image"] = shared["image"]
        yield {k: (v if v != "" else None) for k, v in row.items()}


def _jsonl(where: str, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _object(f"{where}: line {number}", _parsed(f"{where}: line {number}", line))


def _json(where: str, text: str) -> Iterator[dict[str, Any]]:
    """An array of objects, or an object of objects: then the key becomes the column `_key`."""
    value = _parsed(where, text)
    if isinstance(value, dict):
        value = [{"_key": k, **_object(f"{where}: {k}", v)} for k, v in value.items()]
    if not isinstance(value, list):
        raise DataError("a JSON data file is an array or an object of rows", where=where, got=type(value).__name__)
    for number, row in enumerate(value, 1):
        yield _object(f"{where}: row {number}", row)


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("this is not valid JSON", where=where, got=str(error)[:200]) from None


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError("a row is a JSON object", where=where, got=type(value).__name__)
    return value


def _zip_rows(source: Path, split: str | None) -> Iterator[Row]:
    try:
        with zipfile.ZipFile(source) as archive:
            members = {i.filename: i for i in archive.infolist() if not i.is_dir()}
            names = [PurePosixPath(n) for n in members if PurePosixPath(n).suffix in FORMATS]
            chosen = _of_split(sorted(n for n in names if "__MACOSX" not in n.parts), split)
            if not chosen:
                raise DataError("no data file in this zip", where=str(source), got=", ".join(list(members)[:5]))
            for name in chosen:
                where, opener = f"{source}: {name}", _zip_opener(archive, members, name.parent)
                raw = _member(archive, members, str(name))
                if name.suffix == ".parquet":
                    yield from _numbered(where, _parquet(where, io.BytesIO(raw)), opener)
                else:
                    yield from _text_rows(where, name.suffix, raw.decode("utf-8"), opener)
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, RuntimeError) as error:
        raise DataError("this zip is corrupt, encrypted or not text", where=str(source), got=str(error)[:200]) from None


def _zip_opener(archive: zipfile.ZipFile, members: dict[str, Any], base: PurePosixPath) -> Callable[[str], bytes]:
    def open_path(name: str) -> bytes:
        for candidate in (str(base / name), name):
            if candidate in members:
                return _member(archive, members, candidate)
        raise DataError("the zip has no such picture", got=name)

    return open_path


def _member(archive: zipfile.ZipFile, members: dict[str, Any], name: str) -> bytes:
    if members[name].file_size > MAX_MEMBER:
        raise DataError("a member of this zip is too large", got=f"{name}: {members[name].file_size:,} bytes")
    return archive.read(name)


def _opener(base: Path) -> Callable[[str], bytes]:
    root = base.resolve()

    def open_path(name: str) -> bytes:
        file = (root / name).resolve()
        if not file.is_relative_to(root):
            raise DataError("a picture's path leads out of the data's folder", got=name)
        try:
            return file.read_bytes()
        except OSError as error:
            raise DataError("cannot open this picture", got=f"{name}: {error.strerror}") from None

    return open_path


def _of_split(files: list[AnyPath], split: str | None) -> list[AnyPath]:
    named = [f for f in files if split and split in f.name]
    return named or files


def hub_folder(repo: str, *, config: str | None, split: str, revision: str | None) -> tuple[Path, str]:
    """Download the parquet shards of one config and split; returns their folder and the commit they are of.

    Raises:
        DataError: the hub cannot be reached, or has no such data.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    folders = [f"{config}/" if config else "", "data/", f"{config}/data/" if config else ""]
    patterns = sorted({f"{folder}{split}-*.parquet" for folder in folders})
    try:
        commit = HfApi().dataset_info(repo, revision=revision).sha or ""
        local = snapshot_download(repo, repo_type="dataset", revision=commit or revision, allow_patterns=patterns)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            "the hub cannot be reached, or has no such data",
            where=f"hub dataset {repo}",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            fix="download it elsewhere and give its `path`, or set HF_TOKEN for a gated set",
        ) from None
    return Path(local), commit
