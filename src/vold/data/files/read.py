"""Rows of a data set from wherever they lie: parquet, TSV, JSON, JSONL, a folder, a zip, or the hub.

Rows are plain dictionaries, read one after the other: parquet by batches, JSON lines by
lines, a JSON array by elements. Nothing is unpacked to disk, unpickled or run.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from vold.data.files.hub import chosen_copy, files_below, missing_shards, not_all_here
from vold.data.files.images import read_file
from vold.errors import DataError, VoldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vold.data.files.hub import Layout

FORMATS = (".parquet", ".tsv", ".jsonl", ".json")
Cells: TypeAlias = dict[str, Any]
"""A row by column. A value is what the format says: text, a number, a picture, or lists and objects of these."""
Members: TypeAlias = dict[str, zipfile.ZipInfo]

AGAIN = "mend the file, or download it again"
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError)
"""What reading a zip can raise: encrypted members are RuntimeErrors, unknown packing one of its subclasses."""
_BLANKS = re.compile(r"[ \t\r\n]*")
MAX_MEMBER = 2_000_000_000
"""Bytes of one member of a zip, unpacked."""
CHUNK = 1 << 20
"""Characters of a JSON array read at a time."""


@dataclass(frozen=True)
class Row:
    """One row: where it is (for messages), its columns, and how to read a file that it names."""

    where: str
    values: Cells
    open_path: Callable[[str], bytes]


def read_rows(path: str | Path, *, split: str | None = None, layouts: Sequence[Layout] = ()) -> Iterator[Row]:
    """Yield the rows of a file, of every data file in a folder, or of every data file in a zip, in the order of names.

    In a folder or a zip, the files of one layout are read: it may hold other configs and splits, and the same rows
    twice. Where no layout has a file there, those whose name holds `split`; without such a name, all.

    Raises:
        DataError: nothing there, a format that is not known, a file that is cut short, or a shard that is missing.
    """
    source = Path(path)
    if not source.exists():
        raise DataError(
            "there is no such data", where=str(source), fix="check the path, or leave it out to use the hub"
        )
    if source.suffix == ".zip":
        yield from _zip_rows(source, split, layouts)
        return
    files = [source]
    if source.is_dir():
        names = [n for n in files_below(source) if n.endswith(FORMATS)]
        files = [source / n for n in _published_or_split(str(source), names, split, layouts)]
    if not files:
        raise DataError("no data file here", where=str(source), fix=f"known formats: {', '.join(FORMATS)}, .zip")
    for file in files:
        yield from _file_rows(file, _opener(file.parent))


def _published_or_split(where: str, names: list[str], split: str | None, layouts: Sequence[Layout]) -> list[str]:
    """The files of a layout; else those that are called as the split, else those in whose name it is a word, or is at
    all (`test` is not `testmini`, nor `testmini` `testmini_text_only`); else all."""
    published = chosen_copy(names, layouts)
    if lost := missing_shards(published):
        raise not_all_here(where, lost)
    if published or not split:
        return published or names
    word = re.compile(rf"(?<![A-Za-z]){re.escape(split)}(?![A-Za-z_])")
    stems = {name: PurePosixPath(name).stem for name in names}
    for held in ([n for n in names if stems[n] == split], [n for n in names if word.search(stems[n])]):
        if held:
            return held
    return [n for n in names if split in stems[n]] or names


def _file_rows(file: Path, open_path: Callable[[str], bytes]) -> Iterator[Row]:
    if file.suffix == ".parquet":
        yield from _numbered(str(file), _parquet(str(file), file), open_path)
        return
    try:
        with file.open(encoding="utf-8-sig", newline="" if file.suffix == ".tsv" else None) as text:
            yield from _text_rows(str(file), file.suffix, text, open_path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read this data file", where=str(file), got=str(error), fix=AGAIN) from None


def _text_rows(where: str, suffix: str, text: IO[str], open_path: Callable[[str], bytes]) -> Iterator[Row]:
    readers = {".tsv": _tsv, ".jsonl": _jsonl, ".json": _json}
    if suffix not in readers:
        raise DataError("unknown data format", where=where, fix=f"known: {', '.join(FORMATS)}, .zip")
    yield from _numbered(where, readers[suffix](where, text), open_path)


def _numbered(where: str, rows: Iterator[Cells], open_path: Callable[[str], bytes]) -> Iterator[Row]:
    for number, values in enumerate(rows, 1):
        yield Row(f"{where}: row {number}", values, open_path)


def _parquet(where: str, source: Any) -> Iterator[Cells]:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        file = pq.ParquetFile(source)
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        got = str(error)[:200]
        raise DataError("this parquet file is corrupt or cut short", where=where, got=got, fix=AGAIN) from None


def _tsv(where: str, text: IO[str]) -> Iterator[Cells]:
    """A VLMEvalKit table. An `image` cell that holds another row's index stands for that row's picture."""
    csv.field_size_limit(1 << 30)  # a cell holds whole pictures as base64
    try:
        reader = csv.DictReader(text, delimiter="\t")
        names = reader.fieldnames or ()
        if len(set(names)) < len(names):
            raise csv.Error("a column is there twice")
        rows = list(reader)
    except csv.Error as error:
        raise DataError("this is not a valid table", where=where, got=str(error), fix=AGAIN) from None
    by_index = {r.get("index"): r for r in rows}
    for row in rows:
        if None in row or any(v is None for v in row.values()):
            got = str(row.get("index"))
            raise DataError("a row has another number of cells than the header", where=where, got=got, fix=AGAIN)
        picture = row.get("image")
        if picture is not None and len(picture) <= 64 and picture in by_index:
            row["image"] = by_index[picture]["image"]
        yield {k: (v if v != "" else None) for k, v in row.items()}


def _jsonl(where: str, text: IO[str]) -> Iterator[Cells]:
    for number, line in enumerate(text, 1):
        if line.strip():
            yield _object(f"{where}: line {number}", _parsed(f"{where}: line {number}", line))


def _json(where: str, text: IO[str]) -> Iterator[Cells]:
    """An array of objects, or an object of objects: then the key becomes the column `_key`.

    An element that is itself an array, as in Open-Reasoner-Zero's files, becomes the column `_items`.
    """
    start = text.read(CHUNK)
    if start.lstrip().startswith("["):
        for number, element in enumerate(_elements(where, start.lstrip()[1:], text), 1):
            yield _object(f"{where}: row {number}", {"_items": element} if isinstance(element, list) else element)
        return
    value = _parsed(where, start + text.read())
    if not isinstance(value, dict):
        raise DataError(
            "a JSON data file is an array or an object of rows", where=where, got=type(value).__name__, fix=AGAIN
        )
    for key, row in value.items():
        yield {"_key": key, **_object(f"{where}: {key}", row)}


def _elements(where: str, buffer: str, text: IO[str]) -> Iterator[Any]:
    """The elements of a JSON array of which `buffer` is the beginning, after its bracket; never the whole in memory."""
    decoder, at, wanted, first = json.JSONDecoder(object_pairs_hook=each_once), 0, CHUNK, True
    while True:
        try:
            at = _blank(buffer, at)
            if buffer[at : at + 1] == "]":
                if buffer[at + 1 :].strip() or text.read().strip():
                    raise _no_json(where, "text after the end of the array")
                return
            if not first and buffer[at : at + 1] not in ("", ","):
                raise _no_json(where, f"no comma before {buffer[at : at + 40]!r}")
            value, end = decoder.raw_decode(buffer, at if first else _blank(buffer, at + 1))
            if end == len(buffer):
                raise ValueError("the array does not end")  # or a number may go on in the next piece
        except DataError:
            raise
        except (ValueError, RecursionError) as error:
            more = "" if isinstance(error, (_Twice, RecursionError)) else text.read(wanted)
            if not more:
                raise _no_json(where, error) from None
            buffer, at, wanted = buffer[at:] + more, 0, wanted * 2
            continue
        yield value
        at, wanted, first = end, CHUNK, False


def _blank(text: str, at: int) -> int:
    """The first place from `at` on that is no blank."""
    found = _BLANKS.match(text, at)
    return found.end() if found else at


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise _no_json(where, error) from None


def _no_json(where: str, got: object) -> DataError:
    return DataError("this is not valid JSON", where=where, got=str(got)[:200], fix=AGAIN)


class _Twice(ValueError):
    """A key is there twice in an object."""


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no key may hide another's value.

    Raises:
        ValueError: a key is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(f"the key {max(keys, key=keys.count)!r} is there twice")
    return found


def _object(where: str, value: Any) -> Cells:
    if not isinstance(value, dict):
        raise DataError("a row is a JSON object", where=where, got=type(value).__name__, fix=AGAIN)
    return value


def _zip_rows(source: Path, split: str | None, layouts: Sequence[Layout]) -> Iterator[Row]:
    try:
        with zipfile.ZipFile(source) as archive:
            members = {i.filename: i for i in archive.infolist() if not i.is_dir()}
            names = sorted(n for n in members if n.endswith(FORMATS) and "__MACOSX" not in PurePosixPath(n).parts)
            chosen = _published_or_split(str(source), names, split, layouts)
            if not chosen:
                raise DataError(
                    "no data file in this zip", where=str(source), got=", ".join(list(members)[:5]), fix=AGAIN
                )
            for name in map(PurePosixPath, chosen):
                where, opener = f"{source}: {name}", _zip_opener(archive, members, name.parent)
                raw = _member(archive, members, str(name))
                if name.suffix == ".parquet":
                    yield from _numbered(where, _parquet(where, io.BytesIO(raw)), opener)
                else:
                    yield from _text_rows(where, name.suffix, io.StringIO(raw.decode("utf-8-sig")), opener)
    except VoldError:
        raise
    except ZIP_ERRORS as error:
        raise _bad_zip(str(source), error) from None


def _zip_opener(archive: zipfile.ZipFile, members: Members, base: PurePosixPath) -> Callable[[str], bytes]:
    def open_path(name: str) -> bytes:
        for candidate in (str(base / name), name):
            if candidate in members:
                return _member(archive, members, candidate)
        raise DataError("the zip has no such picture", got=name)

    return open_path


def _member(archive: zipfile.ZipFile, members: Members, name: str) -> bytes:
    if members[name].file_size > MAX_MEMBER:
        raise DataError("a member of this zip is too large", got=f"{name}: {members[name].file_size:,} bytes")
    try:
        return archive.read(name)
    except ZIP_ERRORS as error:
        raise _bad_zip(f"{archive.filename}: {name}", error) from None


def _bad_zip(where: str, error: Exception) -> DataError:
    got = f"{type(error).__name__}: {error}"[:200]
    return DataError("this zip is corrupt, encrypted or not text", where=where, got=got, fix=AGAIN)


def _opener(base: Path) -> Callable[[str], bytes]:
    """Reads pictures below `base`; those that are not there, out of the zips in `base`, as ViRL39K is published."""
    root = base.resolve()
    archives: dict[Path, tuple[zipfile.ZipFile, Members]] = {}

    def open_path(name: str) -> bytes:
        try:
            file = (root / name).resolve()
            if not file.is_relative_to(root):
                raise DataError("a picture's path leads out of the data's folder", got=name)
            if not file.exists():
                for archive, members in _archives(root, archives):
                    if name in members:
                        return _member(archive, members, name)
        except DataError:
            raise
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise DataError("cannot open this picture", got=f"{name!r}: {error}") from None
        return read_file(file)

    return open_path


def _archives(
    root: Path, opened: dict[Path, tuple[zipfile.ZipFile, Members]]
) -> Iterator[tuple[zipfile.ZipFile, Members]]:
    for path in sorted(root.glob("*.zip")):
        if path not in opened:
            archive = zipfile.ZipFile(path)
            opened[path] = archive, {i.filename: i for i in archive.infolist()}
        yield opened[path]
