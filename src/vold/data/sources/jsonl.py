"""`kind: jsonl`: tasks from a file with one JSON object a line. Rows are read when they are asked for."""

from __future__ import annotations

import hashlib
import json
from array import array
from codecs import BOM_UTF8
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vold.data.files.images import decoded, read_file
from vold.data.files.read import each_once
from vold.data.files.rows import USUAL, renamed
from vold.data.sources import Source, Tasks
from vold.errors import DataError, VoldError
from vold.graders.registry import is_plain, known_grader
from vold.graders.rewards import any_grader
from vold.run.folders import verify_directory
from vold.run.names import close_to
from vold.run.summaries import DataCard
from vold.types import Message, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image


def _in_a_row(name: str) -> str:
    return known_grader(name) if is_plain(name) else name


GraderName = Annotated[str, AfterValidator(any_grader)]
Said = Annotated[str, Field(pattern=r"\S")]
"""Text with more than blanks in it."""
TOLD = 5
"""Rows that are refused, of which an error tells at most."""
BALANCED = ("balance", "set")
"""Where a run keeps the set that `vold balance` has made."""


class Spec(Source):
    """Problems from a file with one JSON object a line: `prompt`, `reference`, and optionally `images` and others."""

    path: Path
    """The file. Image paths inside it are relative to its directory."""
    grader: GraderName = "math"
    """The grader of rows that name none; also `my_module:function`, or a sum such as `0.8 math + 0.2 my_module:f`. Sets
    of other kinds bring their own."""
    instruction: Said | None = None
    """Text after each prompt, such as a request for the box that graders read."""
    limit: int | None = Field(None, gt=0)
    """Read only so many rows; all of them if absent."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The rows. Raises CheckpointError: they are a set of `vold balance` and damaged."""
        if self.path.parent.parts[-2:] == BALANCED:
            verify_directory(self.path.parent)
        rows = JsonlTasks(
            self.path, grader=self.grader, instruction=self.instruction, limit=self.limit, references=references
        )
        card = DataCard(
            kind=self.kind,
            source=str(self.path),
            revision=None,
            content_hash=rows.content_hash,
            rows_kept=len(rows),
        )
        return Tasks(rows, str(self.path), {self.kind: card})


class Row(BaseModel):
    """One line: `prompt`, `reference`, and, if wanted, the other keys; see `vold.data.files.rows` for other names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    prompt: Said
    reference: str | int | float
    id: Said | None = None
    grader: Annotated[str, AfterValidator(_in_a_row)] | None = None
    images: tuple[str, ...] = ()
    teacher_prompt: str | None = None
    response: str | None = None
    tags: dict[str, str] = {}

    _renamed = model_validator(mode="before")(renamed)


class JsonlTasks:
    """Checks every row once and remembers only where it stands; a row and its images are read when asked for.

    `content_hash` is over the rows; images count by their names alone.

    Args:
        path: the file. Image paths in it are relative to its directory.
        grader: for rows that name none.
        instruction: text after each prompt.
        limit: only the first so many rows.
        references: whether every row must have an answer.

    Raises:
        DataError: no such file, or rows that are not usable, naming their lines.
    """

    def __init__(
        self,
        path: Path,
        *,
        grader: str,
        instruction: str | None = None,
        limit: int | None = None,
        references: bool = True,
    ) -> None:
        self.path, self.grader, self.instruction, self.references = path, grader, instruction, references
        self._starts, self._numbers = array("Q"), array("Q")
        at = 0
        digest = hashlib.sha256()
        seen: dict[bytes, int] = {}
        refused: list[tuple[int, DataError]] = []
        try:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if (limit is not None and len(self._starts) >= limit) or len(refused) > TOLD:
                        break
                    text = line.removeprefix(BOM_UTF8).strip() if number == 1 else line.strip()
                    if text:
                        try:
                            self._once(self._row(number, text).id or self._own_id(number), number, seen)
                        except DataError as error:
                            refused.append((number, error))
                        self._starts.append(at)
                        self._numbers.append(number)
                        digest.update(text + b"\n")
                    at += len(line)
        except OSError as error:
            fix = "check the path"
            raise DataError("cannot read this data file", where=str(path), got=str(error), fix=fix) from error
        if refused:
            raise _together(refused)
        self.content_hash = digest.hexdigest()

    def _own_id(self, number: int) -> str:
        """The id of a row that names none."""
        return f"{self.path.stem}-{number}"

    def _once(self, name: str, number: int, seen: dict[bytes, int]) -> None:
        """Refuse an id that another row has: answers and scores are kept by it."""
        key = hashlib.blake2b(name.encode(), digest_size=12).digest()
        first = seen.setdefault(key, number)
        if first != number:
            raise DataError(
                "two rows have one id",
                where=f"{self.path}: line {first} and line {number}",
                got=name,
                fix="give each row an id of its own, or none",
            )

    def _row(self, number: int, raw: bytes) -> Row:
        where = f"{self.path}: line {number}"
        try:
            line = raw.decode("utf-8")
            row = Row.model_validate_json(line)
            json.loads(line, object_pairs_hook=each_once)  # of a key that is there twice, the last would win unseen
        except ValidationError as error:
            cause, key = _cause(error)
            raise DataError(
                f"this row cannot be used: {cause.what}",
                where=f"{where}{f', key {key}' if key else ''}",
                got=line if len(line) < 120 else line[:117] + "...",
                fix=cause.fix,
            ) from None
        except ValueError as error:
            fix = "mend the line: a row is one JSON object in UTF-8, each key once"
            if isinstance(error, UnicodeDecodeError):
                fix = f"write the file in UTF-8: iconv -f ENCODING -t UTF-8 {self.path.name}"
            raise DataError("cannot read this row", where=where, got=str(error)[:200], fix=fix) from None
        if row.grader is not None and not is_plain(row.grader) and row.grader != self.grader:
            fix = "name a grader of the package; one of your own is named as `grader` of the set, in the recipe"
            raise DataError("a data file cannot name code of your own", where=where, got=row.grader, fix=fix)
        if self.references and not str(row.reference).strip():
            raise DataError("this row has an empty reference", where=where, fix="give the answer or drop the row")
        return row

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Task:
        number = self._numbers[index]
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            row = self._row(number, file.readline().removeprefix(BOM_UTF8).strip())
        images = tuple(self._image(number, name) for name in row.images)
        teacher = row.teacher_prompt if row.teacher_prompt is not None else None if images else row.prompt
        teacher = None if teacher is None else self._asked(teacher)
        return Task(
            id=row.id or self._own_id(number),
            messages=(Message("user", self._asked(row.prompt), images),),
            reference=str(row.reference),
            grader=row.grader or self.grader,
            teacher_messages=None if teacher is None else (Message("user", teacher),),
            tags=row.tags,
            response=row.response,
        )

    def _asked(self, prompt: str) -> str:
        return f"{prompt}\n\n{self.instruction}" if self.instruction else prompt

    def _image(self, number: int, name: str) -> Image:
        try:
            return decoded(read_file(self.path.parent / name))
        except DataError as error:
            where = f"{self.path}: line {number}, picture {name!r}"
            fix = error.fix or "check the path, or leave the row out"
            raise DataError(error.what, where=where, got=error.got, fix=fix) from None


def _together(refused: list[tuple[int, DataError]]) -> DataError:
    """One error for all rows that are refused: the first one's, with the lines of the others below what it found."""
    (_, first), *others = refused
    said = [f"and line {number}: {error.what}" for number, error in others[: TOLD - 1]]
    said += ["and others"] * (len(others) >= TOLD)
    return DataError(first.what, where=first.where, got="\n".join(filter(None, [first.got, *said])), fix=first.fix)


def _cause(error: ValidationError) -> tuple[VoldError, str]:
    """What is wrong with a row, and its key: one that is not known first, which may be another's with a slip."""
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(map(str, first["loc"]))
    raised = first.get("ctx", {}).get("error")
    needed = "a row needs at least `prompt` and `reference`"
    if isinstance(raised, VoldError):
        return raised, key
    if key in ("video", "videos"):
        return VoldError("no model is shown videos here", fix="give frames as `images`, or drop the row"), key
    if key in USUAL:
        what = f"`{key}` is another name for `{USUAL[key]}`, which is there too"
        return VoldError(what, fix="keep one of the two"), key
    if first["type"] == "extra_forbidden":
        known, close = ", ".join(Row.model_fields), close_to(key, Row.model_fields)
        fix = f"leave it out, or put it under `tags`; the keys of a row are {known}"
        return VoldError("unknown key", fix=f"did you mean {close!r}? else {fix}" if close else fix), key
    if first["type"] in ("json_invalid", "model_type"):
        what = first["msg"].replace(" at line 1 column", ", column")  # of the row, which is one line
        return VoldError(what, fix="write one JSON object a line, with at least `prompt` and `reference`"), key
    return VoldError(first["msg"], fix=needed), key
