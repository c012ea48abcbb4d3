"""`vold init`: a recipe for a user's own models and data, written from what these say of themselves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from vold.data.hf_layouts import BOXED
from vold.data.sources.jsonl import JsonlTasks
from vold.errors import ConfigError, DataError, UngradableReference
from vold.graders import check_reference
from vold.model.cards import GIB, changed, cures, highest
from vold.model.chat import Chat
from vold.model.families import family_of
from vold.model.memory import device_memory, inprocess_teachers, plan
from vold.model.reading import read_config
from vold.model.tokenizers import Pairing, pair_tokenizers
from vold.run.files import write_text
from vold.run.precision import settled
from vold.run.recipe import recipe_from
from vold.run.schema import recipe_schema
from vold.run.shipped import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vold.model.phases import PhaseMemory
    from vold.run.recipe import Recipe
    from vold.types import Task

LOOKED_AT = 256
"""Rows of the data that its grader is chosen by and its longest prompt is sought in."""
LONGEST = 8192
"""Tokens of a response, as far as the context goes; the paper's."""
EPOCHS = 2
"""How often the cold start sees each trace, about."""
FEW = 100
"""Problems below which it is said that they are few."""
HEAD = """\
# yaml-language-server: $schema={schema}
# Written by `vold init` from the configs of both models and the first rows of the data. Every key is explained in
# docs/reference.md, and by an editor that reads the line above.
#   vold check {file}
#   vold run {file}
"""
SCHEMA = "recipe.schema.json"
"""What the recipe's first line names: the keys of a recipe, for editors. It is written beside the recipe."""


@dataclass(frozen=True)
class Line:
    """A key of a section, its value, and why it has that value."""

    key: str
    value: Any
    why: str = ""

    @property
    def text(self) -> str:
        """As YAML, on a line."""
        dumped = yaml.safe_dump([self.value], default_flow_style=True, width=10**6, sort_keys=False)
        comment = f"  # {self.why}" if self.why else ""
        return f"  {self.key}: {dumped.strip()[1:-1]}{comment}"


Sections: TypeAlias = "dict[str, list[Line]]"


@dataclass(frozen=True)
class Draft:
    """What a recipe is written from.

    Args:
        name: of the run's directory, below `runs`.
        student: a model directory, hub id or `demo:NAME`.
        teacher: as `student`.
        data: a file with a text problem and its reference a line.
        test: a file of the same kind, to evaluate on, with pictures if the student sees.
    """

    name: str
    student: str
    teacher: str
    data: Path
    test: Path | None = None

    @cached_property
    def chats(self) -> tuple[Chat, Chat]:
        """Tokenizers and templates of student and teacher."""
        return Chat.load(resolve(self.student)), Chat.load(resolve(self.teacher))

    @cached_property
    def configs(self) -> dict[str, Any]:
        """Configs of both models by their paths."""
        return {path: read_config(resolve(path)) for path in (self.student, self.teacher)}

    @cached_property
    def pairing(self) -> Pairing:
        """Both tokenizers side by side."""
        ours, theirs = self.chats
        return pair_tokenizers(ours.tokenizer, theirs.tokenizer, self.configs[self.student], self.configs[self.teacher])

    @cached_property
    def sets(self) -> dict[str, JsonlTasks]:
        """The data by the name of its task set, asked for a box where it does not ask itself and the student's
        tokenizer has the words.

        Raises:
            DataError: a file cannot be read, or is empty.
        """
        chat, out = self.chats[0], {}
        for name, file in (("train", self.data), ("test", self.test)):
            if file is not None:
                out[name] = rows = JsonlTasks(file, grader="exact")
                if not len(rows):
                    raise DataError(
                        "there is not a single task here", where=str(file), fix="add rows, or check the path"
                    )
                asks = any("boxed" in task.messages[0].text for task in _first(rows))
                if not asks and chat.tokenizer.unk_token_id not in chat.tokens(BOXED):
                    rows.instruction = BOXED
        return out

    @property
    def rows(self) -> JsonlTasks:
        """The problems to learn from."""
        return self.sets["train"]

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest of the first prompts of every set, as the student is asked."""
        chat = self.chats[0]
        return max(len(chat.prompt(task.messages).ids) for rows in self.sets.values() for task in _first(rows))

    @cached_property
    def room(self) -> int:
        """Tokens of a response for which both contexts have room behind the longest prompt.

        Raises:
            ConfigError: there is none.
        """
        length = min(int(c.get_text_config().max_position_embeddings) for c in self.configs.values())
        if (left := length - self.longest) < 1:
            raise ConfigError(
                "the prompts leave no token for an answer",
                where=" and ".join(str(rows.path) for rows in self.sets.values()),
                got=f"a prompt of {self.longest:,} tokens in a context of {length:,}",
                fix="leave out prompts as long as this, or take models of a longer context",
            )
        return min(LONGEST, left)

    def sections(self) -> Sections:
        """Keys of each section of the recipe."""
        n = len(self.rows)
        batch, prompts = min(256, max(8, n // 16)), min(52, max(4, n // 16))
        steps = -(-EPOCHS * n // batch)
        sampling = {"max_new_tokens": self.room, "temperature": 1.0}
        budget = min(16384, 2 * (self.longest + self.room))
        found = {
            "run": [Line("dir", f"runs/{self.name}"), Line("seed", 1)],
            "student": list(self._student()),
            "teacher": list(self._teacher()),
            "tasks": list(self._tasks()),
            "traces": [
                *self._answers(),
                Line("sampling", sampling, f"the longest prompt seen has {self.longest:,} tokens"),
                Line("max_tokens", self.room, "longer answers are left out"),
                Line("keep", "correct", "`all` keeps answers that are wrong too, as the paper does"),
                Line("batch_size", min(128, n)),
            ],
            "sft": [
                Line("steps", steps, f"{EPOCHS} epochs, if all answers are right"),
                Line("batch_size", batch),
                Line("optimizer", {"lr": 5e-5, "warmup_steps": steps // 10}, "lr of the paper, for 3B"),
                Line("token_budget", budget, "tokens of a micro-batch: memory alone"),
                Line("checkpoint_every", max(1, steps // 10)),
            ],
            "distill": [
                Line("tasks", "train"),
                Line("objective", {"method": "vold"}, "`vold methods` lists the others"),
                Line("prompts_per_step", prompts),
                Line("rollouts", 5, "of each prompt: the paper's K"),
                Line("steps", 60),
                Line("sampling", sampling),
                Line("optimizer", {"lr": 6e-6, "warmup_steps": 5}, "lr of the paper, for 3B"),
                Line("token_budget", budget),
                Line("checkpoint_every", 10),
            ],
        }
        if self.test is not None:
            found["eval"] = [
                Line("tasks", ["test"], "of the base model, the cold start, and the result"),
                Line("sampling", {**sampling, "temperature": 0}),
            ]
        return found

    def _answers(self) -> Iterator[Line]:
        solved = all(task.response for task in _first(self.rows))
        yield Line("tasks", "train", "" if solved else "the teacher answers each of its prompts")
        if solved:
            yield Line("answers", "data", "the solution of each row; `teacher` has the teacher write them")

    def _student(self) -> Iterator[Line]:
        yield Line("path", self.student, self.configs[self.student].model_type)
        if family_of(self.configs[self.student]).tower:
            yield Line("freeze", ["vision", "projector"], "no stage changes what sees")
        else:
            yield Line("freeze", [], "a text-only model")
        if self.adds:
            token, number, pieces = next((e for e in self.pairing.extra if e[0] == "<think>"), self.pairing.extra[0])
            yield Line("teacher_tokens", "add", f"{token!r} is id {number} of the teacher's and {pieces} tokens here")

    def _teacher(self) -> Iterator[Line]:
        yield Line("path", self.teacher, self.configs[self.teacher].model_type)
        if self.aligns:
            different, extra = len(self.pairing.different), len(self.pairing.extra)
            said = f"{different:,} tokens of the student's have other ids there" if different else ""
            said = said or f"the teacher has {extra:,} further tokens, and the student no rows for them"
            yield Line("tokenizer", "align", said)

    @property
    def adds(self) -> bool:
        """Whether the student can be given the teacher's further tokens under their ids."""
        first, rows = len(self.chats[0].tokenizer), self.pairing.rows[0]
        ids = [i for _, i, _ in self.pairing.extra]
        return (
            bool(ids) and not self.pairing.different and ids == list(range(first, first + len(ids))) and ids[-1] < rows
        )

    @property
    def aligns(self) -> bool:
        """Whether the teacher has to cut text in its own way."""
        return bool(self.pairing.different) or (bool(self.pairing.extra) and not self.adds)

    def _tasks(self) -> Iterator[Line]:
        for name, rows in self.sets.items():
            grader, why = grader_of(rows)
            keys = {"kind": "jsonl", "path": str(rows.path), "grader": grader}
            if rows.instruction is not None:
                keys["instruction"], why = rows.instruction, f"{why}, in the box that the instruction asks for"
            yield Line(name, keys, f"{len(rows):,} rows; {why}")


def _first(rows: JsonlTasks) -> Iterator[Task]:
    return (rows[i] for i in range(min(LOOKED_AT, len(rows))))


def grader_of(rows: JsonlTasks) -> tuple[str, str]:
    """A grader that accepts the references of the first rows, and that in words: `choice` for letters, `math` where
    most hold a digit, and `exact` for words, or another of these where one of the references is not accepted.

    Raises:
        UngradableReference: no grader accepts them all.
    """
    references = [task.reference for task in _first(rows)]
    numbers = sum(any(c.isdigit() for c in r) for r in references) * 2 > len(references)
    graders = ("choice", "math", "exact") if numbers else ("choice", "exact", "math")
    for grader in graders:
        try:
            for reference in references:
                check_reference(grader, reference)
            return grader, f"`{grader}` reads the first {len(references)} references"
        except UngradableReference as error:
            refused = error
    raise refused


def write_draft(draft: Draft, file: Path) -> list[str]:
    """Write the recipe, and the schema of its keys beside it.

    Returns:
        What was found out, a line each.

    Raises:
        ConfigError: the file is there already, or the models leave no room for an answer.
        VoldError: a model or a data file cannot be read.
    """
    if file.exists():
        raise ConfigError("this file is there already", where=str(file), fix="give another name, or delete it")
    sections = draft.sections()
    recipe = recipe_from(_values(sections), where=str(file))
    room = device_memory(recipe.run.device)
    change, said = _to_fit(settled(recipe), draft.configs, room)
    for key, value in change.items():
        _set(sections, key, value, f"so that it fits the {room / GIB:.1f} GiB of this machine's device")
    recipe_from(_values(sections), where=str(file))
    write_text(file.with_name(SCHEMA), json.dumps(recipe_schema(), indent=2) + "\n")
    write_text(file, HEAD.format(schema=SCHEMA, file=file) + _text(sections))
    return [said, *_notes(draft)]


def _values(sections: Sections) -> dict[str, Any]:
    return {name: {line.key: line.value for line in lines} for name, lines in sections.items()}


def _text(sections: Sections) -> str:
    return "".join(f"\n{name}:\n" + "".join(f"{line.text}\n" for line in lines) for name, lines in sections.items())


def _set(sections: Sections, key: str, value: Any, why: str) -> None:
    """Give a key of a section, or one below it, a value, in its place or behind the others."""
    section, name, *inner = key.split(".")
    lines = sections[section]
    at = next((i for i, line in enumerate(lines) if line.key == name), len(lines))
    if inner:
        value = {**lines[at].value, inner[0]: value}
    lines[at : at + 1] = [Line(name, value, why)]


def _to_fit(recipe: Recipe, configs: Mapping[str, Any], room: int) -> tuple[Mapping[str, Any], str]:
    """Keys with which the recipe fits the device, and its plan in words."""

    def planned(of: Recipe) -> Sequence[PhaseMemory]:
        return plan(of, *(configs[m.path] for m in (of.learner, *inprocess_teachers(of))))

    change = cures(recipe, planned, room)
    most = highest(planned(changed(recipe, change or {})))
    said = f"{most.name} needs most memory, {most.total / GIB:.2f} of {room / GIB:.1f} GiB"
    if change is None:
        said += (
            ": no key of the recipe is enough; take smaller models, or a teacher on a server (teacher.server.launch)"
        )
    return change or {}, said


def _notes(draft: Draft) -> Iterator[str]:
    """What a recipe cannot say for itself."""
    if family_of(draft.configs[draft.student]).tower and draft.test is None:
        yield "nothing is evaluated: give --test FILE with pictures, or add `eval` with benchmarks (docs/evaluation.md)"
    if len(draft.rows) < FEW:
        yield f"{len(draft.rows)} problems are few: stage 2 meets each of them many times"
