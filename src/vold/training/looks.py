"""Evaluation while a stage trains: the curve of the student on sets that it does not learn from.

An evaluation comes between two steps, and is a function of the weights: a run that was killed and goes on from its last
state asks again what came after it, and gets the same answers. So the best model, and the step at which a stage ends
because nothing gets better, are part of the exact resume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.multi_turn import tool_turns
from vold.evals.answering import answers_now
from vold.evals.compare import compare_answers
from vold.evals.metrics import summarise
from vold.evals.watched import watched
from vold.run.answers import Answer
from vold.run.console import console
from vold.run.files import read_records, write_rows
from vold.run.looks import ANSWERS, EVALS, MODELS, EvalRow, best_step, none_better, read_evals
from vold.run.order import seed_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.engines.samplers.student import StudentSampler
    from vold.evals.questions import QuestionSet
    from vold.run.stage_sections import WhileTraining
    from vold.training.learner import Config
    from vold.training.stage import Training
    from vold.types import Sampler


class Looks:
    """The evaluations of a stage.

    Args:
        run: the stage.
        section: what is evaluated, and when.

    Raises:
        ConfigError, DataError: see `vold.evals.watched.watched`.

    Attributes:
        engine: gives the sampler the student's weights.
        sampler: answers.
        rows: what was found so far; the same on all processes.
    """

    def __init__(self, run: Training[Config], section: WhileTraining) -> None:
        self.run, self.section, self.stage = run, section, run.stage
        self.directory = run.stage.directory
        self.asked = watched(run.stage.recipe, "sft" if self.directory.name == "sft" else "distill", section)
        self.group = run.stage.group
        self.engine: StudentSampler = InProcessSampler(run.policy, self.asked.batch_size, self.group)
        self.sampler: Sampler = tool_turns(run.stage.recipe)(self.engine, run.policy.chat)
        self.rows: list[EvalRow] = self.group.gather(self._begun() if self.group.first else [])[0]

    def ends_before(self, step: int) -> bool:
        """Evaluate the weights with so many steps behind them, if it is time and it was not done yet; whether the stage
        ends here, as nothing gets better.

        Raises:
            SamplerError: the sampler failed.
        """
        due = step % self.section.every == 0 or step == self.stage.config.steps
        if due and not any(row.step == step for row in self.rows):
            with self.run.phase("sample"), self.engine.holding(step, pictures=any(map(_sees, self.asked.sets))):
                found = {one.name: self._answers(one) for one in self.asked.sets}
            new = [self._row(one, step, found[one.name]) for one in self.asked.sets]
            self._keep(step, [*self.rows, *new])
            self.rows += new
            if self.group.first:
                write_rows(self.directory / EVALS, self.rows)
                self.run.show_looks(new)
                console.print(f"after {step} steps: {', '.join(map(in_words, new))}", markup=False)
        patience = self.section.patience
        return patience is not None and none_better(self.rows, self.section.sets[0]) >= patience

    def _begun(self) -> list[EvalRow]:
        """Evaluations of the steps that this start goes on from. Those behind it are made again, and so is one that
        lacks a set."""
        whole = [row for row in read_evals(self.directory) if row.step <= self.run.done]
        names = {step: [row.set for row in whole if row.step == step] for step in {row.step for row in whole}}
        return [row for row in whole if names[row.step] == [*self.section.sets]]

    def _answers(self, found: QuestionSet) -> list[Answer]:
        """The answers to a set, of which each process gives its share."""
        mine = self.group.share(len(found.questions))
        seed = seed_of(self.stage.recipe.run.seed, "eval", 0)
        params = self.asked.sampling.params(seed, first_row=mine.start)
        made = answers_now(self.run.policy, self.sampler, found, found.questions[mine.start : mine.stop], params)
        return [answer for part in self.group.gather(made) for answer in part]

    def _row(self, found: QuestionSet, step: int, answers: Sequence[Answer]) -> EvalRow:
        """Its figures. The first process stores the answers, and compares them with those of step 0."""
        figures = summarise(answers, benchmark=found.benchmark)
        beside: dict[str, float] = {}
        if self.group.first:
            write_rows(self._file(step, found.name), answers)
            first = self._file(0, found.name)
            if step and first.is_file():
                paired = compare_answers(found.name, answers, read_records(first, Answer, whole=True))
                beside = {"difference": paired.difference, "low": paired.low, "high": paired.high}
        return EvalRow(
            step=step, set=found.name, pictures=_sees(found), n=figures.n, accuracy=figures.accuracy,
            stderr=figures.stderr, truncated=figures.outcomes.get("truncated", 0) / len(answers),
            tokens=figures.mean_tokens, **self.group.gather(beside)[0],
        )  # fmt: skip

    def _file(self, step: int, name: str) -> Path:
        return self.directory / ANSWERS / f"step-{step:06d}" / f"{name}.jsonl"

    def _keep(self, step: int, rows: Sequence[EvalRow]) -> None:
        """Write the model, where it is the best so far or its turn has come. Before its row: a row says that all of an
        evaluation is there."""
        models, every = self.directory / MODELS, self.section.keep_every
        if best_step(rows, self.section.sets[0]) == step:
            self.run.save_to(models / "best")
        if every is not None and step // self.section.every % every == 0:
            self.run.save_to(models / f"step-{step:06d}")


def in_words(row: EvalRow) -> str:
    """A row as the terminal shows it.

    Example:
        >>> more = {"stderr": 0.1, "truncated": 0.0, "tokens": 9, "difference": 0.125, "low": -0.02, "high": 0.27}
        >>> in_words(EvalRow(step=9, set="image", pictures=True, n=64, accuracy=0.5, **more))
        'image 50.0% (+12.5 [-2.0, +27.0] against step 0)'
    """
    said = f"{row.set} {100 * row.accuracy:.1f}%"
    if row.difference is None or row.low is None or row.high is None:
        return said
    return f"{said} ({100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}] against step 0)"


def _sees(found: QuestionSet) -> bool:
    return any(message.images for question in found.questions for message in question.messages)
