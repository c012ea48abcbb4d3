"""When a step is sampled: when its turn comes, or while the step before it updates (`distill.ahead`).

Rollouts that are sampled ahead come from weights that no state holds, so a state holds the rollouts: those of the step
that comes next. One that is saved waits for them. What a kill cuts off begins again with a state, from the same weights
and seeds.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.errors import SamplerError, TrainingError
from vold.model.lookout import joined
from vold.run.console import console
from vold.run.files import read_json
from vold.run.records import Count, to_json
from vold.run.rollouts import load_rollouts, packed
from vold.training.rollout import Sampled, StudentRollouts
from vold.training.rollout_log import questions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from vold.engines.teachers.ask import EarlyTeacher
    from vold.run.recipe import Distill
    from vold.training.problems import Problems
    from vold.training.prompted import Step
    from vold.training.scoring import Scoring
    from vold.training.stage import Training
    from vold.types import Rollout

ROLLOUTS, BESIDE = "rollouts.safetensors", "rollouts.json"
"""Of a state: the rollouts of the step that comes next, and what else is known of them."""


@dataclass(frozen=True)
class Beside:
    """What of `Sampled` is no rollout: how many of those stored, the last ones, were dropped; and silent groups."""

    dropped: Count
    silent: Count | None = None


def staleness(config: Distill, rollouts: Sequence[Rollout], step: Step) -> int:
    """Steps whose updates the weights lacked that sampled the oldest of these rollouts.

    Raises:
        TrainingError: more than `distill.ahead`.
    """
    found = _age(rollouts, step.number)
    if found > config.ahead:
        raise TrainingError(
            "these rollouts are older than the recipe allows",
            where=f"step {step.number}",
            got=f"{found} steps, distill.ahead is {config.ahead}",
            fix="start the run again: it samples them anew",
        )
    return found


def _age(rollouts: Sequence[Rollout], number: int) -> int:
    """Steps before step `number` that the oldest of these is from."""
    return max((number - r.version for r in rollouts if r.version is not None), default=0)


class Turn:
    """A step, and its rollouts when they are there.

    Attributes:
        step: its problems.
        early: the teacher, which hears of each group.
        left: nobody wants the rollouts any more.
    """

    def __init__(self, step: Step, early: EarlyTeacher) -> None:
        self.step, self.early, self.left = step, early, False
        self._found: Sampled | BaseException | None = None
        self._thread: threading.Thread | None = None

    def wait(self) -> Sampled:
        """The rollouts, when they are there.

        Raises:
            SamplerError: the sampler failed.
        """
        if self._thread is not None:
            joined(self._thread)
        if isinstance(self._found, BaseException):
            raise self._found
        assert self._found is not None
        return self._found

    @property
    def under_way(self) -> bool:
        """Whether they are still sampled."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, sample: Callable[[Step, Callable[[list[Rollout]], None]], Sampled]) -> None:
        """Sample in a thread of its own."""
        # A daemon: where the run fails nobody waits for it.
        self._thread = threading.Thread(target=self._work, args=(sample,), name="rollouts", daemon=True)
        self._thread.start()

    def now(self, sample: Callable[[Step, Callable[[list[Rollout]], None]], Sampled]) -> None:
        """Sample, and come back when all is there. Raises as `wait`."""
        with self.early:
            self._found = sample(self.step, self._whole)

    def _work(self, sample: Callable[[Step, Callable[[list[Rollout]], None]], Sampled]) -> None:
        try:
            self.now(sample)
        except BaseException as error:  # for whoever waits
            self._found = error

    def _whole(self, rollouts: list[Rollout]) -> None:
        if self.left:
            raise SamplerError("the run has ended")
        self.early.group(rollouts)


class Turns:
    """The steps of stage 2 with their rollouts. Use it as a context manager around the loop.

    With `distill.ahead`, servers get the weights that a step begins with and sample the next one, and what they say is
    taken up and graded by a thread, while this one trains.

    Args:
        run: the stage.
        problems: what its steps ask.
        teacher: hears of each group when it is whole.

    Raises:
        as `StudentRollouts`.
    """

    def __init__(self, run: Training[Distill], problems: Problems, teacher: Scoring) -> None:
        self.run, self.problems, self.teacher, self.student = run, problems, teacher, StudentRollouts(run)
        self.ahead = run.stage.config.ahead
        self._there: dict[int, Turn] = {}
        if self.ahead:
            run.beside = self._beside
            self._restore()
        elif run.looks is not None and (engine := run.stage.config.engine) is not None and not engine.colocate:
            # Servers have nothing to do between steps, and see pictures.
            run.looks.engine, run.looks.sampler = self.student.engine, self.student.sampler

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for number, turn in self._there.items():
            if number != self.run.done:
                turn.left = True
            elif turn.under_way:
                console.print(
                    f"the state after step {number - 1} needs the rollouts of the next one and waits for them; "
                    "interrupt again to go back to the last state"
                )

    def take(self, number: int) -> tuple[Step, Sampled, EarlyTeacher]:
        """A step, its rollouts, and the teacher that has heard of them. Those of the next one begin, where they are
        sampled ahead.

        Raises:
            SamplerError, TeacherError: sampler or teacher failed.
        """
        turn = self._there.get(number) or self._begin(number)
        if self.teacher.beside_sampling and turn.early.teacher is not None:
            turn.early.ask(turn.early.teacher)
        sampled = turn.wait()
        self._there = {number: turn}
        if self.ahead and number + 1 < self.run.stage.config.steps:
            self._there[number + 1] = self._begin(number + 1, self.ahead)
        return turn.step, sampled, turn.early

    def _begin(self, number: int, ahead: int = 0) -> Turn:
        step = self.problems.step(number, ahead)
        turn = Turn(step, self.teacher.early(step))
        with self.student.holding(step):
            if ahead or self.teacher.beside_sampling:
                turn.begin(self.student.sample)  # by servers that never sleep: they hold the weights after the block
            else:
                turn.now(self.student.sample)
        return turn

    def _beside(self, step: int) -> dict[str, bytes]:
        """What belongs to the state after so many steps; waits for it."""
        if step not in self._there:
            return {}
        turn = self._there[step]
        kept, dropped, silent = turn.wait()
        questions = questions_of(kept + dropped, [p.task for p in turn.step.prompted])
        return {
            ROLLOUTS: packed(kept + dropped, questions, tables=True),
            BESIDE: json.dumps(to_json(Beside(len(dropped), silent))).encode(),
        }

    def _restore(self) -> None:
        """Take up the rollouts of the state. Where it has none, or older ones than may be, the step is sampled anew."""
        number, file = self.run.done, self.run.began_from / ROLLOUTS
        if not file.is_file():
            return
        about, found = read_json(file.with_name(BESIDE), Beside), [s.rollout for s in load_rollouts(file)]
        age = _age(found, number)
        if age > self.ahead:
            return
        step = self.problems.step(number, age)
        kept = found[: len(found) - about.dropped]
        groups: dict[int, list[Rollout]] = {}
        for r in kept:
            groups.setdefault(r.group, []).append(r)
        group = self.run.stage.group

        def sample(step: Step, whole: Callable[[list[Rollout]], None]) -> Sampled:
            for one in [*groups.values()][group.rank :: group.world]:
                whole(one)
            return Sampled(kept, found[len(kept) :], about.silent)

        self._there[number] = turn = Turn(step, self.teacher.early(step))
        turn.now(sample)
