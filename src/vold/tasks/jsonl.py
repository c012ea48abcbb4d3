"""Tasks from a file with one JSON object a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, ValidationError

from vold.errors import DataError
from vold.types import Message, Task

if TYPE_CHECKING:
    from pathlib import Path


class Row(BaseModel):
    """One line: `prompt`, `reference`, and optionally `id`, `grader`, `images`, `teacher_prompt`, `tags`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    reference: str | int | float
    id: str | None = None
    grader: Literal["exact", "choice", "math"] | None = None
    images: tuple[str, ...] = ()
    teacher_prompt: str | None = None
    tags: dict[str, str] = {}


class JsonlTasks:
    """Reads every row at once; images are opened when a task is asked for.

    Args:
        path: the file. Image paths in it are relative to its directory.
        grader: for rows that name none.
        limit: read only the first so many rows.

    Raises:
        DataError: no such file, or a row that is not usable, naming the line.
    """

    def __init__(self, path: Path, *, grader: str, limit: int | None = None) -> None:
        self.path, self.grader = path, grader
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError("cannot read this data file", where=str(path), got=str(error)) from error
        numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip()][:limit]
        self.rows = [(n, self._row(n, line)) for n, line in numbered]

    def _row(self, number: int, line: str) -> Row:
        where = f"{self.path}: line {number}"
        try:
            row = Row.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise DataError(
                f"this row cannot be used: {first['msg']}",
                where=f"{where}{f', key {key}' if key else ''}",
                got=line if len(line) < 120 else line[:117] + "...",
                fix="a row needs at least `prompt` and `reference`",
            ) from None
        if not str(row.reference).strip():
            raise DataError("this row has an empty reference", where=where, fix="give the answer or drop the row")
        return row

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Task:
        number, row = self.rows[index]
        images = tuple(self._image(number, name) for name in row.images)
        teacher = row.teacher_prompt if row.teacher_prompt is not None else None if images else row.prompt
        return Task(
            id=row.id or f"{self.path.stem}-{number}",
            messages=(Message("user", row.prompt, images),),
            reference=str(row.reference),
            grader=row.grader or self.grader,
            teacher_messages=None if teacher is None else (Message("user", teacher),),
            tags=dict[str, Any](row.tags),
        )

    def _image(self, number: int, name: str) -> Image.Image:
        file = self.path.parent / name
        try:
            with Image.open(file) as image:
                return image.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise DataError("cannot open this image", where=f"{self.path}: line {number}", got=str(error)) from error
