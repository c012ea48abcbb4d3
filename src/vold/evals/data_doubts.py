"""What stops no run and is likely not meant, as far as data and models tell: the warnings of `vold check`."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING

from vold.data.decontamination import pixels
from vold.data.hf_layouts import BOXED
from vold.data.sources.jsonl import Row
from vold.data.sources.jsonl import Spec as Jsonl
from vold.evals.overlap import UNIFORM
from vold.evals.subject import PROMPTS, Finding
from vold.graders.registry import is_plain
from vold.run.files import read_json
from vold.run.summaries import TracesSummary
from vold.types import IMAGE_MARKER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import torch

    from vold.evals.subject import Subject, TaskSet
    from vold.model.policy import Policy
    from vold.types import Message

PASSES = 50
"""Passes over the traces after which they are known by heart."""
ROWS = 100_000
"""So many rows of a file are compared with each other."""
COMPARED = 20_000
"""So many problems of training are compared with as many of an evaluation."""


def data_doubts(subject: Subject) -> Iterator[Finding]:
    """Every doubt about the data of a recipe, and about how its models read them."""
    for doubt in DOUBTS:
        for what, how in doubt(subject):
            yield Finding(what, how, warns=True)


def uniform(what: str, policy: Policy, entropy: torch.Tensor) -> Iterator[Finding]:
    """A doubt about a model whose entropy (nats, of every token of a text) is that of no knowledge at all."""
    mean, most = float(entropy.mean()), math.log(policy.rows - len(policy.banned))
    if mean >= UNIFORM * most:
        even = f"its entropy on a prompt is {mean:.2f} nats, and {most:.2f} where every token is as likely"
        yield Finding(what, f"{even}: no language model; are these its trained weights?", warns=True)


def _batches(subject: Subject) -> Iterator[tuple[str, str]]:
    r, sets = subject.recipe, {these.key: these for these in subject.task_sets}
    if r.sft is not None and r.traces is not None:
        traces = _kept(subject) or len(sets["traces.tasks"].tasks)
        passes = r.sft.steps * r.sft.batch_size / traces
        if r.sft.batch_size > traces:
            yield "sft.batch_size", f"{r.sft.batch_size} and {traces} traces: some come twice in a step"
        elif passes > PASSES:
            yield "sft.steps", f"{passes:.0f} passes over {traces} traces: they will be known by heart"
    if r.distill is not None and r.distill.prompts_per_step > (problems := len(sets["distill.tasks"].tasks)):
        each = f"{r.distill.prompts_per_step} and {problems} problems: some come twice in a step"
        yield "distill.prompts_per_step", each


def _kept(subject: Subject) -> int:
    """Traces that this run has, 0 where they are not made yet."""
    file = subject.recipe.run.dir / "traces" / "summary.json"
    return read_json(file, TracesSummary).kept if file.is_file() else 0


def _traces(subject: Subject) -> Iterator[tuple[str, str]]:
    """Filters that leave nothing."""
    t = subject.recipe.traces
    if t is None:
        return
    tasks = next(these.tasks for these in subject.task_sets if these.key == "traces.tasks")[:PROMPTS]
    if t.keep == "correct" and not any(task.reference for task in tasks):
        yield "traces.keep", f"correct, and none of the first {len(tasks)} problems has a reference: nothing is kept"
    if t.answers == "data":
        lengths = [len(subject.student.chat.tokens(task.response)) + 1 for task in tasks if task.response is not None]
        if lengths and min(lengths) > t.max_tokens:
            short = f"{t.max_tokens}: the shortest of the first {len(lengths)} solutions has {min(lengths)} tokens"
            yield "traces.max_tokens", f"{short}; nothing is kept"


def _unknown_words(subject: Subject) -> Iterator[tuple[str, str]]:
    """Prompts that a tokenizer writes with its sign for what it does not know."""
    for these in subject.task_sets if subject.recipe.uses_student else ():
        yield from _unknown(these, "student", subject.student.chat.tokenizer, (p.ids for p in these.prompts))
    for route, handle in subject.teachers.by_route.items():
        chat = handle.backend.chat
        for these in (t for t in subject.task_sets if t.trained and handle.aligner is not None):
            asked = (chat.prompt(t.teacher_messages).ids for t in these.tasks[:PROMPTS] if t.teacher_messages)
            yield from _unknown(these, f"teacher {route}".strip(), chat.tokenizer, asked)


def _unknown(
    these: TaskSet, who: str, tokenizer: object, prompts: Iterable[Sequence[int]]
) -> Iterator[tuple[str, str]]:
    sign, unknown = getattr(tokenizer, "unk_token", None), getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return
    found = [unknown in ids for ids in prompts]
    if any(found):
        told = f"{sum(found)} of the first {len(found)} prompts hold words that the {who}'s tokenizer does not know"
        yield these.key, f"{told}: it reads {sign}"


def _twice(subject: Subject) -> Iterator[tuple[str, str]]:
    """Rows of a training file that ask what another asks. Generated problems may repeat, and so may copies, which are
    numbered `#2`."""
    sets = subject.recipe.tasks
    named = {part for t in subject.task_sets if t.trained for part in (t.name, *sets[t.name].parts.values())}
    for name in sorted(named):
        spec = sets[name]
        if isinstance(spec, Jsonl):
            asked = {
                (row.id.partition("#")[0] if row.id else number, f"{row.prompt}{row.images}")
                for number, row in enumerate(_rows(spec.path, min(spec.limit or ROWS, ROWS)))
            }
            same = len(asked) - len({prompt for _, prompt in asked})
            if same:
                yield f"tasks.{name}", f"{same} row{'s' * (same > 1)} ask{'s' * (same == 1)} what another asks"


def _rows(file: Path, most: int) -> Iterator[Row]:
    """Rows of a file that was read as tasks before, so that each of its lines is known to be one."""
    with file.open(encoding="utf-8-sig", newline="\n") as lines:
        yield from itertools.islice((Row.model_validate_json(line) for line in lines if line.strip()), most)


def _box(subject: Subject) -> Iterator[tuple[str, str]]:
    """Sets of the user's own rows whose prompts do not ask for what graders read, where the student has the words."""
    chat = subject.student.chat if subject.recipe.uses_student else None
    if chat is None or getattr(chat.tokenizer, "unk_token_id", None) in chat.tokens(BOXED):
        return
    for name, these in {these.name: these for these in subject.task_sets}.items():
        first = these.tasks[:PROMPTS] if isinstance(subject.recipe.tasks[name], Jsonl) else []
        if first and not any(not is_plain(task.grader) or "boxed" in task.messages[-1].text for task in first):
            told = f"none of the first {len(first)} prompts asks for the \\boxed{{}} that their graders read"
            yield f"tasks.{name}", f"{told}; tasks.{name}.instruction='{BOXED}' adds it"


def _odd_rows(subject: Subject) -> Iterator[tuple[str, str]]:
    """Rows with a place for a picture and none, and references in words that are to be compared as mathematics."""
    for name, these in {these.name: these for these in subject.task_sets}.items():
        first = these.tasks[:PROMPTS] if isinstance(subject.recipe.tasks[name], Jsonl) else []
        blind = [t for t in first if IMAGE_MARKER in t.messages[-1].text and not t.messages[-1].images]
        said = [t for t in first if t.grader == "math" and len(t.reference.split()) > 2 and t.reference.isascii()]
        said = [t for t in said if all(c.isalpha() or c in " .,'" for c in t.reference)]
        if blind:
            yield f"tasks.{name}", f"{blind[0].id}: {IMAGE_MARKER} in its prompt, and the row has no `images`"
        if said:
            words = f"{said[0].id}: its reference is words, {said[0].reference[:40]!r}"
            yield f"tasks.{name}", f"{words}: an answer has to say just these"


def _overlap(subject: Subject) -> Iterator[tuple[str, str]]:
    """Problems of training that the evaluation asks in the same words, and with the same pictures."""
    measured = [these for these in subject.task_sets if these.key.startswith("eval.tasks")]
    trained = [these for these in subject.task_sets if these.trained]
    seen = {these.key: _asked(these) for these in trained} if measured else {}
    for these in measured:
        asked = _asked(these)
        for key, learnt in seen.items():
            both = sum(n for question, n in asked.items() if question in learnt)
            if both:
                total = sum(asked.values())
                yield these.key, f"{both:,} of {total:,} problems are in {key} too: training sees what it is tested on"


def _asked(these: TaskSet) -> Counter[tuple[object, ...]]:
    tasks = itertools.islice(these.tasks, COMPARED)
    return Counter(tuple(_question(message) for message in task.messages) for task in tasks)


def _question(message: Message) -> tuple[object, ...]:
    return (" ".join(message.text.split()).casefold(), *(pixels(image) for image in message.images))


DOUBTS: tuple[Callable[[Subject], Iterator[tuple[str, str]]], ...] = (
    _batches, _traces, _unknown_words, _twice, _box, _odd_rows, _overlap,
)  # fmt: skip
"""In the order in which they are printed."""
