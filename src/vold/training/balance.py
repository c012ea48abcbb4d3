"""Problems for stage 2 by difficulty: the student's pass rate over some rollouts, and a set balanced by it.

In the style of Uni-OPD's offline balancing: from 8 rollouts a problem it finds most problems always or never solved,
repeats the ones between until the histogram of pass rates is about flat, and drops none. How often it repeats them,
and whose rollouts it counts, is not published: here they are the student's, and copies are keys of the recipe.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vold.data.files.images import png_bytes
from vold.data.sources import open_tasks
from vold.engines.grade import grade
from vold.engines.launch.serving import serving
from vold.engines.samplers.multi_turn import tool_turns
from vold.engines.samplers.student import open_sampler
from vold.errors import DataError
from vold.model.loading import load_student, sft_result
from vold.run.directory import open_stage, record_data, works_in_run
from vold.run.files import bad_row, write_json, write_jsonl
from vold.run.folders import new_directory
from vold.run.mistakes import no_section
from vold.run.order import seed_of
from vold.run.records import Count
from vold.run.summaries import BalanceSummary
from vold.training.stored_rows import stored_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from vold.data.sources import Tasks
    from vold.model.policy import Policy
    from vold.run.recipe import PromptBalance, Recipe
    from vold.types import Message, Sampler, Task

LABELS = "labels.jsonl"
ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Label:
    """A row of balance/labels.jsonl: rollouts of a problem that solved it, that were cut short, and their length."""

    task_id: str
    correct: Count
    truncated: Count
    mean_tokens: float


@works_in_run("balance")
def balance(recipe: Recipe, *, student: Policy | None = None) -> tuple[Path, BalanceSummary]:
    """Label every problem of `balance.tasks` with the student's pass rate and write the balanced set.

    Labels are stored batch by batch; a killed run goes on after the last whole batch and gives the same ones. They
    stay when only the numbers of copies change: the set is then written again. Returns its file, for
    `kind: jsonl`, and the summary; `before` and `after` count rows by the number of rollouts that solved them, from 0.

    Raises:
        ConfigError, DataError, CheckpointError, SamplerError: see `vold.errors`.
    """
    config = recipe.balance
    if config is None:
        raise no_section(recipe, "balance")
    directory = open_stage(recipe, "balance")
    tasks = open_tasks(recipe.tasks, config.tasks)
    record_data(directory, "balance.tasks", tasks.cards)
    began = time.monotonic()
    labels = stored_rows(
        directory / LABELS, Label, tasks, config.batch_size, lambda: _labelling(recipe, config, directory, student)
    )
    _refuse_impossible(labels, config, directory / LABELS)
    correct = [row.correct for row in labels]
    repeats = copies(correct, config, seed_of(recipe.run.seed, "balance", "copies"))
    if not any(repeats):
        raise DataError(
            "nothing is left of the problems",
            where="balance",
            got=f"{len(tasks)} problems, 0 copies of each",
            fix="raise balance.all_correct, balance.all_incorrect or balance.some_correct",
        )
    with new_directory(directory / "set") as d:
        _write(d, tasks, labels, repeats)
    summary = BalanceSummary(
        problems=len(tasks),
        rollouts=config.rollouts,
        before=_histogram(correct, [1] * len(correct), config.rollouts),
        after=_histogram(correct, repeats, config.rollouts),
        left_out=repeats.count(0),
        truncated=sum(row.truncated for row in labels) / (len(tasks) * config.rollouts),
        seconds=round(time.monotonic() - began, 1),
    )
    write_json(directory / "summary.json", summary)
    return directory / "set" / ROWS, summary


def copies(correct: Sequence[int], config: PromptBalance, seed: int) -> list[int]:
    """How often each problem is to come.

    With n problems of a pass rate and a factor f, round(n · f) rows are shared among them as evenly as can be; which
    ones get a row more is random. `flat` takes f = T / n, at most `max_copies`, where T is the most rows of any pass
    rate: the largest n between the ends, or n · f of an end.

    Args:
        correct: rollouts that solved each problem, 0 to `config.rollouts`.
        config: the factors.
        seed: of the choice.
    """
    levels: dict[int, list[int]] = {}
    for i, solved in enumerate(correct):
        levels.setdefault(solved, []).append(i)
    ends = {0: config.all_incorrect, config.rollouts: config.all_correct}
    target = max(len(places) * ends.get(solved, 1.0) for solved, places in levels.items())
    out = [0] * len(correct)
    for solved, places in sorted(levels.items()):
        if solved in ends:
            rows = len(places) * ends[solved]
        elif config.some_correct == "flat":
            rows = min(target, len(places) * config.max_copies)
        else:
            rows = len(places) * config.some_correct
        each, more = divmod(int(rows + 0.5), len(places))
        lucky = set(random.Random(f"{seed}/{solved}").sample(places, more))
        for i in places:
            out[i] = each + (i in lucky)
    return out


@contextlib.contextmanager
def _labelling(
    recipe: Recipe, config: PromptBalance, directory: Path, student: Policy | None
) -> Iterator[Callable[[Sequence[Task], int], list[Label]]]:
    """Labels of some tasks, by the student that the recipe names."""
    model = config.init or sft_result(recipe, "balance")
    student = student or load_student(recipe, model)
    with serving(recipe, "balance") as recipe:
        assert recipe.balance is not None
        engine = open_sampler(recipe.balance, student, directory)
        sampler = tool_turns(recipe)(engine, student.chat)
        with engine.holding(0):
            yield lambda part, start: _label(part, config, student, sampler, seed_of(recipe.run.seed, "balance", start))


def _label(part: Sequence[Task], config: PromptBalance, student: Policy, sampler: Sampler, seed: int) -> list[Label]:
    prompts = [student.chat.prompt(t.messages, t.id) for t in part]
    answered = sampler.generate(prompts, config.sampling.params(seed), config.rollouts)

    return [
        Label(
            task_id=task.id,
            correct=sum(grade(task, student.chat, c).score == 1.0 for c in completions),
            truncated=sum(c.finish != "stop" for c in completions),
            mean_tokens=sum(len(c.ids) for c in completions) / len(completions),
        )
        for task, completions in zip(part, answered, strict=True)
    ]


def _refuse_impossible(labels: Sequence[Label], config: PromptBalance, file: Path) -> None:
    """Raises CheckpointError: a label counts more rollouts than there are."""
    for n, row in enumerate(labels, 1):
        if max(row.correct, row.truncated) > config.rollouts:
            raise bad_row(file, n, f"{max(row.correct, row.truncated)} of {config.rollouts} rollouts")


def _histogram(correct: Sequence[int], repeats: Sequence[int], rollouts: int) -> tuple[int, ...]:
    out = [0] * (rollouts + 1)
    for solved, times in zip(correct, repeats, strict=True):
        out[solved] += times
    return tuple(out)


def _write(directory: Path, tasks: Tasks, labels: Sequence[Label], repeats: Sequence[int]) -> None:
    """The set as `kind: jsonl` reads it, copies of a problem one after the other; their ids end in `#2`, `#3`."""
    (directory / "images").mkdir()
    rows = []
    for i, times in enumerate(repeats):
        if times:
            row = _stored(tasks[i], directory)
            row["tags"] |= {"correct": str(labels[i].correct)}
            rows += [row | {"id": name} for name in (row["id"], *(f"{row['id']}#{n}" for n in range(2, times + 1)))]
    write_jsonl(directory / ROWS, rows)


def _stored(task: Task, directory: Path) -> dict[str, Any]:
    """A row of `kind: jsonl`.

    Raises:
        DataError: the task has more than a question, which such a row cannot hold.
    """
    asked, teacher = _question(task.messages), _question(task.teacher_messages or ())
    if asked is None or (teacher is None and not asked.images):
        raise DataError("this problem is more than one question, so it cannot be stored", where=f"task {task.id}")
    row = {
        "id": task.id,
        "prompt": asked.text,
        "reference": task.reference,
        "grader": task.grader,
        "images": [_keep(directory, image) for image in asked.images],
        "tags": dict(task.tags),
    }
    row |= {"teacher_prompt": teacher.text} if teacher is not None else {}
    return row | ({"response": task.response} if task.response is not None else {})


def _question(messages: Sequence[Message]) -> Message | None:
    return messages[0] if len(messages) == 1 and messages[0].role == "user" else None


def _keep(directory: Path, image: Image) -> str:
    encoded = png_bytes(image)
    name = f"images/{hashlib.sha256(encoded).hexdigest()[:32]}.png"
    (directory / name).write_bytes(encoded)
    return name
