"""A published training set made ready once: read row by row, freed of what cannot be used, and kept as JSON lines.

The store lies in the user's cache directory and is found again by what decides its content: the set's settings, the
commit or the files, and `VERSION`. It holds `rows.jsonl` in the format of `kind: jsonl`, `images/` by content,
`dropped.jsonl` with every row left out and why, and `card.json`. A store is whole or absent.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from vold.data.benchmarks.columns import MissingColumn
from vold.data.decontamination import Contamination, Decontaminate, normalised_words, pixels
from vold.data.files.hub import hub_files
from vold.data.files.images import to_image
from vold.data.files.read import read_rows
from vold.data.hf_layouts import BOXED
from vold.data.sources import Source, Tasks
from vold.data.sources.jsonl import JsonlTasks
from vold.data.sources.jsonl import Row as JsonlRow
from vold.errors import CheckpointError, ConfigError, DataError, UngradableReference
from vold.graders import check_reference
from vold.run.console import console
from vold.run.files import read_json, write_json
from vold.run.summaries import DataCard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vold.data.files.hub import Layout
    from vold.data.files.read import Row
    from vold.data.hf_layouts import Example

VERSION = 2
"""Raise it when the same files would give other rows: stores made before are then made again."""
_PLAIN = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?|[A-L]")


class PublishedSet(Source):
    """A published training set in its own layout. What cannot be used is left out, counted and listed."""

    repo: ClassVar[str]
    path: Path | None = None
    """A parquet, JSON, JSONL or zip file or a folder of them; the hub if absent."""
    revision: str | None = None
    """Hub revision. Give the whole commit: data that changed under a run is refused."""
    instruction: str | None = None
    """Text after each problem. If absent, problems with a reference are followed by a request for a box."""
    max_prompt_tokens: int | None = Field(None, gt=0)
    """Longer prompts are left out. Needs `tokenizer`."""
    tokenizer: str | None = None
    """Model directory or hub id whose tokenizer counts them."""
    decontaminate: Decontaminate | None = None
    """Leave out what evaluation sets ask too."""
    limit: int | None = Field(None, gt=0)
    """Stop after so many usable problems; all of them if absent."""

    @model_validator(mode="after")
    def _counted_by_a_tokenizer(self) -> PublishedSet:
        if (self.max_prompt_tokens is None) != (self.tokenizer is None):
            raise ConfigError("`max_prompt_tokens` and `tokenizer` go together", fix="give both, or neither")
        return self

    def files(self) -> list[Layout]:
        """The ways in which its files lie in its repository, `repo` on the hub."""
        return [("data/train-*.parquet",)]

    @abstractmethod
    def read(self, row: Row) -> Example:
        """What problem a row holds.

        Raises:
            DataError: none that can be used.
        """

    def unwanted(self, example: Example) -> tuple[str, str] | None:
        """The reason why a filter of the set's own leaves a problem out, in general and of this one."""
        return None

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The usable rows; every reference was graded when they were stored.

        Raises:
            CheckpointError: they are not the ones that were stored.
        """
        store = prepare(self)
        rows = JsonlTasks(store.rows, grader="math", references=False)
        if rows.content_hash != store.card.content_hash:
            fix = f"delete {store.directory} and repeat the command: the set is read again"
            what = "the prepared rows of this set have changed"
            raise CheckpointError(what, where=str(store.rows), got=f"{len(rows)} rows with another hash", fix=fix)
        return Tasks(rows, self.kind, {self.kind: store.card}, graded=True)


@dataclass(frozen=True)
class Store:
    """A prepared set: its directory, and `card`, which says what it was made of and what was left out."""

    directory: Path
    card: DataCard

    @property
    def rows(self) -> Path:
        """The usable rows."""
        return self.directory / "rows.jsonl"


class _Drop(Exception):
    """A row to leave out."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason, self.why = reason, why


def cache_directory() -> Path:
    """`vold/tasks` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "vold" / "tasks"


def prepare(spec: PublishedSet) -> Store:
    """The prepared set of a recipe; made now where it is not there yet.

    Raises:
        DataError: nothing there, another layout, or not a single usable row.
        ConfigError: a benchmark to compare with that is not known.
    """
    source, revision, shown = spec.path, None, str(spec.path)
    if source is None:
        source, revision = hub_files(spec.repo, spec.files(), revision=spec.revision)
        shown = f"hub:{spec.repo}"
    identity = [VERSION, spec.model_dump(mode="json", exclude={"revision"}), revision or _files(source)]
    if spec.decontaminate is not None:
        identity.append([_files(s.path) for s in spec.decontaminate.against.values() if s.path is not None])
    directory = cache_directory() / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
    if not (directory / "card.json").exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".making-"))
        try:
            card = _Maker(spec, temporary).make(source, shown, revision)
            write_json(temporary / "card.json", card)
            if not directory.exists():  # another process may have been faster
                temporary.replace(directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Store(directory, read_json(directory / "card.json", DataCard))


def _files(source: Path) -> list[list[Any]]:
    """Names, sizes and times of a source's files; [] for what is not there, which reading it reports."""
    files = sorted(f for f in source.rglob("*") if f.is_file()) if source.is_dir() else [source]
    return [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.exists()]


class _Maker:
    """One pass over the rows of a set; nothing is kept in memory but digests of what was seen."""

    def __init__(self, spec: PublishedSet, directory: Path) -> None:
        self.spec, self.directory = spec, directory
        self.seen: set[bytes] = set()
        self.ids: set[bytes] = set()
        self.known = Contamination.of(spec.decontaminate) if spec.decontaminate is not None else None
        self.count: Callable[[str], int] | None = _counter(spec.tokenizer) if spec.tokenizer else None

    def make(self, source: Path, shown: str, revision: str | None) -> DataCard:
        """Write the rows; returns the card, which names the source as it is `shown`."""
        reasons: Counter[str] = Counter()
        read = kept = 0
        first = ""
        digest = hashlib.sha256()
        (self.directory / "images").mkdir()
        with (
            (self.directory / "rows.jsonl").open("w", encoding="utf-8") as rows,
            (self.directory / "dropped.jsonl").open("w", encoding="utf-8") as dropped,
        ):
            for row in read_rows(source, split="train", layouts=self.spec.files()):
                if self.spec.limit is not None and kept >= self.spec.limit:
                    break
                read += 1
                if read % 20_000 == 0:
                    console.print(f"{self.spec.kind}: {kept:,} of {read:,} rows usable")
                try:
                    line = _line(self._row(row, self.spec.read(row)).model_dump(exclude_none=True))
                except _Drop as drop:
                    reason, why = drop.reason, drop.why
                except UngradableReference as error:
                    reason, why = "ungradable answer", f"{error.what}: {error.got}"
                except DataError as error:
                    if isinstance(error, MissingColumn) and not kept:
                        raise
                    reason, why = "unusable row", f"{error.what}{f': {error.got}' if error.got else ''}"
                else:
                    kept += 1
                    rows.write(line)
                    digest.update(line.encode())
                    continue
                first = first or f"{row.where}: {why}"
                reasons[reason] += 1
                _write(dropped, {"where": row.where, "reason": reason, "why": why})
        if not kept:
            raise DataError(
                "not a single row of this training set can be used",
                where=shown,
                got=first or "no rows",
                fix=f"is this {self.spec.kind}, and do the filters leave anything?",
            )
        return DataCard(
            kind=self.spec.kind,
            source=shown,
            revision=revision,
            content_hash=digest.hexdigest(),
            rows_kept=kept,
            rows_read=read,
            dropped=dict(sorted(reasons.items())),
        )

    def _row(self, row: Row, example: Example) -> JsonlRow:
        """The stored form of a problem.

        Raises:
            _Drop, DataError: it is to be left out.
        """
        spec = self.spec
        if (unwanted := spec.unwanted(example)) is not None:
            raise _Drop(*unwanted)
        shown = [pixels(to_image(raw, row.open_path)) for raw in example.images]
        same = hashlib.blake2b(
            "\0".join(normalised_words(example.problem)).encode() + b"".join(shown), digest_size=12
        ).digest()
        if same in self.seen:
            raise _Drop("duplicate", example.problem[:100])
        self.seen.add(same)
        match = self.known.find(example.problem, shown) if self.known is not None else None
        if match is not None:
            raise _Drop("contaminated", f"{match.benchmark} {match.item}: {match.by}")
        default = BOXED if example.reference else ""
        instruction = default if spec.instruction is None else spec.instruction
        prompt = f"{example.problem}\n\n{instruction}" if instruction else example.problem
        if self.count is not None and spec.max_prompt_tokens is not None:
            length = self.count(prompt)
            if length > spec.max_prompt_tokens:
                raise _Drop("prompt too long", f"{length} tokens")
        if example.reference and not _PLAIN.fullmatch(example.reference):
            check_reference(example.grader, example.reference)
        return JsonlRow(
            id=self._id(example, same),
            prompt=prompt,
            reference=example.reference,
            grader=example.grader,
            images=tuple(_keep(self.directory, raw) for raw in example.images),
            tags=dict(example.tags),
            response=example.response,
        )

    def _id(self, example: Example, same: bytes) -> str:
        """The set's own id; a digest of the problem where there is none, or another row has it already."""
        own = hashlib.blake2b(example.id.encode(), digest_size=12).digest()
        if not example.id or own in self.ids:
            return f"{self.spec.kind}-{same.hex()[:16]}"
        self.ids.add(own)
        return example.id


def _counter(tokenizer: str) -> Callable[[str], int]:
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(os.path.expanduser(tokenizer), trust_remote_code=False)
    except Exception as error:  # its files may hold anything
        got = f"{tokenizer}: {type(error).__name__}: {error}"[:300]
        raise DataError("cannot load this tokenizer", where="tokenizer", got=got, fix="check the path") from error
    return functools.partial(_length, loaded)


def _length(tokenizer: Any, prompt: str) -> int:
    return len(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def _keep(directory: Path, raw: bytes) -> str:
    name = f"images/{hashlib.sha256(raw).hexdigest()[:32]}"
    if not (directory / name).exists():
        (directory / name).write_bytes(raw)
    return name


def _line(row: Mapping[str, object]) -> str:
    return json.dumps(row, sort_keys=True) + "\n"


def _write(file: IO[str], row: Mapping[str, object]) -> None:
    file.write(_line(row))
