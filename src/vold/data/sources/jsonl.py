"""`kind: jsonl`: tasks from a file with one JSON object a line. Rows are read when they are asked for."""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from vold.data.files.images import decoded, read_file
from vold.data.sources import Source, Tasks
from vold.errors import DataError, VoldError
from vold.graders import known_grader
from vold.run.folders import verify_directory
from vold.run.summaries import DataCard
from vold.types import Message, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

GraderName = Annotated[str, AfterValidator(known_grader)]


BALANCED = ("balance", "set")
"""Where a run keeps the set that `vold balance` has made."""


class Spec(Source):
    """Problems from a file with one JSON object a line: `prompt`, `reference`, and optionally `images` and others."""

    path: Path
    """The file. Image paths inside it are relative to its directory."""
    grader: GraderName = "math"
    """The grader of rows that name none."""
    limit: int | None = Field(None, gt=0)
    """Read only so many rows; all of them if absent."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The rows. Raises CheckpointError: they are a set of `vold balance` and damaged."""
        if self.path.parent.parts[-2:] == BALANCED:
            verify_directory(self.path.parent)
        rows = JsonlTasks(self.path, grader=self.grader, limit=self.limit, references=references)
        card = DataCard(
            kind=self.kind,
            source=str(self.path),
            revision=None,
            content_hash=rows.content_hash,
            rows_kept=len(rows),
        )
        return Tasks(rows, str(self.path), {self.kind: card})


class Row(BaseModel):
    """One line: `prompt`, `reference`, and, if wanted, the other keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    reference: str | int | float
    id: str | None = None
    grader: GraderName | None = None
    images: tuple[str, ...] = ()
    teacher_prompt: str | None = None
    response: str | None = None
    tags: dict[str, str] = {}


class JsonlTasks:
    """Checks every row once and remembers only where it stands; a row and its images are read when asked for.

    `content_hash` is over the rows; images count by their names alone.

    Args:
        path: the file. Image paths in it are relative to its directory.
        grader: for rows that name none.
        limit: only the first so many rows.
        references: whether every row must have an answer.

    Raises:
        DataError: no such file, or a row that is not usable, naming the line.
    """

    def __init__(self, path: Path, *, grader: str, limit: int | None = None, references: bool = True) -> None:
        self.path, self.grader, self.references = path, grader, references
        self._starts, self._numbers = array("Q"), array("Q")
        at = 0
        digest = hashlib.sha256()
        try:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if limit is not None and len(self._starts) >= limit:
                        break
                    if line.strip():
                        self._row(number, line)
                        self._starts.append(at)
                        self._numbers.append(number)
                        digest.update(line.strip() + b"\n")
                    at += len(line)
        except OSError as error:
            raise DataError("cannot read this data file", where=str(path), got=str(error)) from error
        self.content_hash = digest.hexdigest()

    def _row(self, number: int, raw: bytes) -> Row:
        where = f"{self.path}: line {number}"
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError("cannot read this data file", where=where, got=str(error)) from None
        try:
            row = Row.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            cause: object = first.get("ctx", {}).get("error")
            raise DataError(
                f"this row cannot be used: {cause.what if isinstance(cause, VoldError) else first['msg']}",
                where=f"{where}{f', key {key}' if key else ''}",
                got=line if len(line) < 120 else line[:117] + "...",
                fix=cause.fix if isinstance(cause, VoldError) else "a row needs at least `prompt` and `reference`",
            ) from None
        if self.references and not str(row.reference).strip():
            raise DataError("this row has an empty reference", where=where, fix="give the answer or drop the row")
        return row

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Task:
        number = self._numbers[index]
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            row = self._row(number, file.readline())
        images = tuple(self._image(number, name) for name in row.images)
        teacher = row.teacher_prompt if row.teacher_prompt is not None else None if images else row.prompt
        return Task(
            id=row.id or f"{self.path.stem}-{number}",
            messages=(Message("user", row.prompt, images),),
            reference=str(row.reference),
            grader=row.grader or self.grader,
            teacher_messages=None if teacher is None else (Message("user", teacher),),
            tags=row.tags,
            response=row.response,
        )

    def _image(self, number: int, name: str) -> Image:
        try:
            return decoded(read_file(self.path.parent / name))
        except DataError as error:
            where = f"{self.path}: line {number}, picture {name!r}"
            raise DataError(error.what, where=where, got=error.got, fix=error.fix) from None
