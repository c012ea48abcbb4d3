"""The rollouts of a step on disk: one file, whole or absent, that is read without a model.

It holds the arrays of all rollouts one after the other, and a table of the rest. The text of a token is not in it:
`tokenizer.json`, written once beside the steps, spells ids when somebody looks at them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vold.errors import DataError
from vold.run.files import write_bytes, write_text
from vold.run.records import JsonObject
from vold.types import Completion, Grade, Rollout, TokenScores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vold.types import Task

TOKENIZER = "tokenizer.json"
VALUES = "values/"
"""What stands before the names of `Rollout.token_values`, which are written as JSON."""
CREDIT = ("advantage", "live_weight", "teacher_weight")


@dataclass(frozen=True)
class RolloutTask:
    """What a group of rollouts answers, as it is shown: `images` are data URIs, `text` is the same problem for who
    cannot see, and `shows` what the pictures show, where a world knows it; see `vold.types.Task`."""

    prompt: str
    reference: str
    tags: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    text: str = ""
    shows: str = ""

    def stored(self) -> JsonObject:
        """What of it is written: empty fields are not."""
        return {name: value for name, value in asdict(self).items() if value or name in ("prompt", "reference")}


def text_view(task: Task) -> str | None:
    """The same problem for who cannot see; None of a task without pictures, or without such a text."""
    pictures = any(m.images for m in task.messages)
    return task.teacher_messages[-1].text if pictures and task.teacher_messages else None


@dataclass(frozen=True)
class StoredRollout:
    """A rollout as it was stored: of the teacher's scores it has those of the sampled tokens."""

    rollout: Rollout
    question: RolloutTask
    tokenizer: Path

    def texts(self) -> list[str]:
        """The text of every token by itself. Where the tokenizer is gone, its id in angle brackets."""
        _, texts, place = self.spelled()
        return [texts[i] for i in place.tolist()]

    def spelled(self) -> tuple[NDArray[np.int32], list[str], NDArray[np.intp]]:
        """The ids that occur, in order, with their texts, and for every token which of them it is."""
        ids, place = np.unique(self.rollout.completion.ids, return_inverse=True)
        spell = _speller(self.tokenizer, self.tokenizer.stat().st_mtime_ns if self.tokenizer.is_file() else 0)
        return ids, [spell(i) for i in ids.tolist()], place

    def row(self) -> JsonObject:
        """The same as plain numbers and texts, for pages. A log-prob that is no number is None."""
        r = self.rollout
        return {
            "task_id": r.task_id,
            "group": r.group,
            "prompt": self.question.prompt,
            "reference": self.question.reference,
            "tokens": self.texts(),
            "ids": r.completion.ids.tolist(),
            "finish": r.completion.finish,
            **asdict(r.grade),
            "logp": _plain(r.completion.logps),
            "teacher_logp": None if r.teacher is None else _plain(r.teacher.logp),
            "advantage": [] if r.advantage is None else _plain(r.advantage),
            "source": r.source,
            "token_values": {name: _plain(values) for name, values in r.token_values.items()},
            "rollout_values": {name: v if math.isfinite(v) else None for name, v in r.rollout_values.items()},
        }


def stored_steps(run_dir: Path) -> dict[int, Path]:
    """Files of a run's stored rollouts by step, in order."""
    return rollout_files(run_dir / "distill" / "rollouts")


def stored_step(run_dir: Path, step: int) -> Path:
    """The file of one step.

    Raises:
        DataError: the rollouts of this step are not stored.
    """
    stored = stored_steps(run_dir)
    if step not in stored:
        raise DataError(
            "the rollouts of this step are not stored",
            where=str(run_dir / "distill" / "rollouts"),
            got=f"step {step}",
            fix=f"one of {', '.join(map(str, stored))}" if stored else "run `vold distill` first",
        )
    return stored[step]


def rollout_files(directory: Path) -> dict[int, Path]:
    """The same of the folder that holds them."""
    files = [f for f in directory.glob("step-*.safetensors") if re.fullmatch(r"step-\d+", f.stem)]
    return dict(sorted((int(f.stem.removeprefix("step-")), f) for f in files))


def store_rollouts(
    directory: Path, step: int, rollouts: Sequence[Rollout], questions: Mapping[int, RolloutTask]
) -> Path:
    """Write the rollouts of a step. Returns the file.

    Args:
        directory: of the steps; see `store_tokenizer`.
        step: its number.
        rollouts: with whole token values.
        questions: of every group.
    """
    file = directory / f"step-{step:06d}.safetensors"
    write_bytes(file, packed(rollouts, questions))
    return file


def packed(rollouts: Sequence[Rollout], questions: Mapping[int, RolloutTask], *, tables: bool = False) -> bytes:
    """The content of a file of rollouts; with `tables` candidates and supports are in it."""
    columns: dict[str, list[NDArray[Any]]] = {}
    table = []
    for r in rollouts:
        arrays = _arrays(r)
        wide = _tables(r) if tables else {}
        zero = [name for name, values in arrays.items() if values.dtype == np.float32 and not values.any()]
        for name, values in (arrays | wide).items():
            if name not in zero:
                columns.setdefault(name, []).append(values.ravel())
        table.append(
            {
                "task_id": r.task_id,
                "group": r.group,
                "prompt_ids": r.prompt_ids,
                "finish": r.completion.finish,
                "grade": {k: v for k, v in asdict(r.grade).items() if k != "scores" or v},
                "source": r.source,
                "rollout_values": dict(r.rollout_values),
                "length": len(r.completion.ids),
                "arrays": [name for name in arrays if name not in zero],
                "zero": zero,
            }
            | ({} if r.version is None else {"version": r.version})
            | ({"tags": dict(r.tags)} if r.tags else {})
            | ({"widths": {name: values.shape[1] for name, values in wide.items()}} if wide else {})
        )
    asked = {str(group): question.stored() for group, question in questions.items()}
    flat = {name: np.concatenate(values) for name, values in columns.items()}
    about = {"table": table, "questions": asked}
    # One entry: safetensors writes several in an order that differs from process to process.
    return save(flat, {"rollouts": json.dumps(about | {"sha256": digest(flat, about)})})


def store_tokenizer(directory: Path, written: Callable[[], str]) -> None:
    """Write the tokenizer that spells the rollouts in a folder, once. `written` gives its tokenizer.json."""
    if not (directory / TOKENIZER).is_file():
        write_text(directory / TOKENIZER, written())


def digest(arrays: Mapping[str, NDArray[Any]], about: object) -> str:
    """Of arrays by name, and of what is said about them: safetensors does not notice a changed value."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, values in sorted(arrays.items()):
        found.update(json.dumps([name, values.dtype.name, values.shape]).encode())
        found.update(values.tobytes())
    return found.hexdigest()


def load_rollouts(file: Path) -> list[StoredRollout]:
    """The stored rollouts of a step; nothing but the file is read.

    Raises:
        DataError: it is absent, cut short, changed or something else.
    """
    with _opened(file) as stored:
        about = json.loads(stored.metadata()["rollouts"])
        names = stored.keys()
        flat = {name: stored.get_tensor(name) for name in names}
        expected = about.pop("sha256", None)
        if expected is not None and digest(flat, about) != expected:
            raise ValueError("values have changed since they were stored")
        read = dict.fromkeys(flat, 0)
        return [_stored(row, flat, read, about["questions"], file.with_name(TOKENIZER)) for row in about["table"]]


def load_rollout(file: Path, place: int) -> StoredRollout:
    """One of the stored rollouts of a step, by its place. No others are read, so the file's digest is not compared.

    Raises:
        DataError: as `load_rollouts`, or there are not so many.
    """
    with _opened(file) as stored:
        about = _about(file, file.stat().st_mtime_ns)
        names = stored.keys()
        flat = {name: stored.get_slice(name) for name in names}
        read = dict.fromkeys(flat, 0)
        for row in about["table"][:place]:
            for name in (*row["arrays"], *row.get("widths", {})):
                read[name] += row["length"] * row.get("widths", {}).get(name, 1)
        return _stored(about["table"][place], flat, read, about["questions"], file.with_name(TOKENIZER))


@lru_cache(maxsize=4)
def _about(file: Path, changed: int) -> JsonObject:
    """What a file says of its rollouts: of a large one it takes a while to read, and pages ask for one at a time."""
    with safe_open(file, framework="numpy") as stored:
        found: JsonObject = json.loads(stored.metadata()["rollouts"])
    return found


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A file of rollouts; whatever is wrong with it becomes one error."""
    try:
        if not file.is_file():  # a pipe would be waited for
            raise FileNotFoundError("no file")
        with safe_open(file, framework="numpy") as stored:
            yield stored
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"[:200]
        fix = "put it back from a copy, or delete it: no step needs it"
        raise DataError("these are no stored rollouts", where=str(file), got=got, fix=fix) from error


def _arrays(r: Rollout) -> dict[str, NDArray[Any]]:
    arrays = {"ids": r.completion.ids, "logps": r.completion.logps, "action_mask": r.completion.action_mask}
    optional = {"teacher_logp": None if r.teacher is None else r.teacher.logp}
    optional |= {name: getattr(r, name) for name in CREDIT}
    optional |= {VALUES + json.dumps(name): values for name, values in r.token_values.items()}
    return arrays | {name: values for name, values in optional.items() if values is not None}


def _tables(r: Rollout) -> dict[str, NDArray[Any]]:
    c = r.completion
    found = {"candidate_ids": c.candidate_ids, "support_ids": c.support_ids}
    return {name: values for name, values in found.items() if values is not None}


def _stored(
    row: JsonObject, flat: dict[str, NDArray[Any]], read: dict[str, int], asked: JsonObject, tokenizer: Path
) -> StoredRollout:
    """The next row; `read` counts what earlier rows have used of every array."""
    n = row["length"]
    arrays: JsonObject = {name: np.zeros(n, np.float32) for name in row["zero"]}
    widths = row.get("widths", {})
    for name in (*row["arrays"], *widths):
        size = n * widths.get(name, 1)
        arrays[name] = flat[name][read[name] : read[name] + size]
        read[name] += size
    tables = {name: arrays[name].reshape(n, width) for name, width in widths.items()}
    teacher = TokenScores(arrays["teacher_logp"]) if "teacher_logp" in arrays else None
    values = {json.loads(name[len(VALUES) :]): v for name, v in arrays.items() if name.startswith(VALUES)}
    rollout = Rollout(
        row["task_id"],
        row["group"],
        tuple(row["prompt_ids"]),
        Completion(arrays["ids"], arrays["logps"], arrays["action_mask"], row["finish"], **tables),
        Grade(**row["grade"]),
        teacher,
        source=row["source"],
        token_values=values,
        rollout_values=row["rollout_values"],
        version=row.get("version"),
        tags=row.get("tags", {}),
        **{name: arrays.get(name) for name in CREDIT},
    )
    return StoredRollout(rollout, _question(asked[str(row["group"])]), tokenizer)


def _question(row: JsonObject) -> RolloutTask:
    return RolloutTask(**{**row, "images": tuple(row.get("images", ()))})


def _plain(values: NDArray[np.float32]) -> list[float | None]:
    """As JSON can hold them: minus infinity as a very small number, None where there is none."""
    return [max(v, -1e9) if v < math.inf else None for v in values.tolist()]


@lru_cache(maxsize=4)
def _speller(file: Path, changed: int) -> Callable[[int], str]:
    if not changed:
        return lambda token: f"<{token}>"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return cache(lambda token: str(tokenizer.decode([token], skip_special_tokens=False)))
