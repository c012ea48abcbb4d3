"""A training stage of a run: its directory, its student, and what happens between two steps. `sft` and `distill` are
loops over `Training.steps`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal

from vold.engines.launch.serving import serving
from vold.model.loading import load_student
from vold.model.memory import inprocess_teachers, plan
from vold.model.parallel import Processes, processes
from vold.model.phases import planned_and_measured
from vold.model.place import Place
from vold.model.reading import read_config
from vold.model.together import refuse_together
from vold.report.trackers.tracking import track_stage
from vold.run.console import Bar, console
from vold.run.directory import end_early, is_finished, open_stage
from vold.run.folders import drop, drop_older, latest_checkpoint, state_of, sweep, verify_directory
from vold.run.mistakes import no_section
from vold.run.shipped import resolve
from vold.training.checkpoint import restore_state
from vold.training.learner import Config, Learner
from vold.training.looks import Looks
from vold.training.metrics_file import MetricsFile
from vold.training.optim import build_optimizer
from vold.training.state_writer import StateWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from vold.model.place import Phase
    from vold.model.policy import Policy
    from vold.run.looks import EvalRow
    from vold.run.metrics import DistillRow, SftRow
    from vold.run.recipe import Recipe


@dataclass(frozen=True)
class Stage(Generic[Config]):
    """The place of a training stage.

    Attributes:
        recipe: the run's.
        config: the stage's section of it.
        directory: what the stage has written so far.
        group: the processes that train.
    """

    recipe: Recipe
    config: Config
    directory: Path
    group: Processes

    @property
    def final(self) -> Path:
        """Where the trained model is put."""
        return self.directory / "final"

    @property
    def finished(self) -> bool:
        """Whether it is there already, with as many steps as the recipe wants.

        Raises:
            CheckpointError: it is, and it is damaged.
        """
        if finished := is_finished(self.directory, self.config.steps):
            verify_directory(self.final)
        return finished


def enter_stage(recipe: Recipe, name: Literal["sft", "distill"], config: Config | None) -> Stage[Config]:
    """Open the directory of a stage; of several processes the first one does, while the others wait.

    Raises:
        ConfigError: the recipe has no such section, or one that several processes can not do, or the directory holds
            the stage of a different recipe.
    """
    if config is None:
        raise no_section(recipe, name)
    group = processes(recipe.run.timeout_minutes)
    refuse_together(recipe, group.world, name)
    directory = recipe.run.dir / name
    if group.first:
        open_stage(recipe, name)
        sweep(directory)
    group.wait()
    return Stage(recipe, config, directory, group)


@contextlib.contextmanager
def with_servers(stage: Stage[Config]) -> Iterator[Stage[Config]]:
    """A stage whose recipe has the addresses of the servers that were started for it; see `serving`."""
    with stage.group.guarding(), serving(stage.recipe, stage.directory.name) as recipe:
        yield dataclasses.replace(stage, recipe=recipe, config=getattr(recipe, stage.directory.name))


class Training(Generic[Config]):
    """A stage at work: use it as a context manager around a loop over `steps`.

    Everything a step needs depends on seed, step and weights, so a killed run goes on from its last checkpoint to the
    same weights.

    Args:
        stage: its place.
        model: what the student starts from; the recipe's own by default.

    Raises:
        CheckpointError: the model, or the stage's newest state, is missing or corrupt.

    Attributes:
        stage: its place.
        began_with: the model that the student starts from; None: the recipe's own.
        learner: the student, its optimizer, and how they are updated.
        place: the memory of the device.
        seconds: how long each phase of the present step has taken so far.
        looks: evaluations between steps, where the recipe has some.
        beside: what else belongs to the state after so many steps, as files; nothing by default.
    """

    def __init__(self, stage: Stage[Config], model: str | None = None) -> None:
        stage.group.enter("load")
        policy = load_student(stage.recipe, model, train=True, group=stage.group)
        stage.group.shard(policy, stage.recipe.run.exchange, stage.recipe.run.shard)
        optimizer = build_optimizer(policy, stage.config.optimizer)
        self.stage, self.began_with = stage, model
        self.learner = Learner(stage.config, policy, optimizer, stage.group)
        self.seconds: dict[Phase, float] = {}
        self.beside: Callable[[int], Mapping[str, bytes]] = lambda step: {}
        self.place = Place(policy.model.device, optimizer)
        self._start = restore_state(stage.directory, policy, optimizer)
        if stage.group.first and (newest := latest_checkpoint(stage.directory)):  # killed before it was alone
            drop_older(stage.directory, newest)
        self._writer = StateWriter(stage.directory, policy, optimizer, self.place, stage.group)
        self.done = self._start
        self._note = ""
        self._metrics: MetricsFile | None = None
        self.looks = Looks(self, stage.config.eval) if stage.config.eval is not None else None
        if stage.group.first:
            self._metrics = MetricsFile(stage.directory, self._start)
            looks = self.looks.rows if self.looks is not None else ()
            self._tracking = track_stage(stage.recipe, stage.directory.name, self._metrics.rows, looks)

    @property
    def policy(self) -> Policy:
        """The student."""
        return self.learner.policy

    @property
    def began_from(self) -> Path:
        """The state that this start has begun from; nothing is there if from none."""
        return state_of(self.stage.directory, self._start)

    def __enter__(self) -> Training[Config]:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Save the state where a run stops before its end, whatever stopped it: a server that stays away, a signal, a
        full disk or memory.

        Only weights of a whole step are saved, and what keeps them from being saved is not said: the first error is.
        Where several processes train nothing is saved: the others may not have stopped, and the last checkpoint has to
        do.
        """
        if self._metrics is not None:
            self._tracking.close()
        if value is None:
            return
        if self.stage.group.world > 1:
            self._writer.leave()
            return
        with contextlib.suppress(Exception):
            self._writer.settle(wait=True)
        whole = self.learner.updated < self.done
        if whole and self.done and not state_of(self.stage.directory, self.done).exists():
            with contextlib.suppress(Exception):
                self._save_state(self.done)
                self._writer.settle(wait=True)

    def steps(self) -> Iterator[int]:
        """The steps that are left. Between two of them the state is saved when it is due, and written meanwhile."""
        config = self.stage.config
        if self._start < config.steps and self.stage.group.first and self.stage.final.is_dir():
            drop(self.stage.final)  # until the stage ends again, nothing is to take that for its result
        with Bar(self.stage.directory.name, config.steps, self._start) as bar:
            for step in range(self._start, config.steps):
                self.done = step
                if self._ends_before(step):
                    break
                self.seconds.clear()
                yield step
                self.done = step + 1
                if step == self._start and self.place.peaks and self.stage.group.first:
                    self._set_beside_the_plan()
                self._writer.settle(wait=False)
                if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                    self._save_state(step + 1)
                bar.advance(note=self._note)
            else:
                self._ends_before(config.steps)
            if self._metrics is not None:
                self._tracking.end()
            self._writer.settle(wait=True)

    def _ends_before(self, step: int) -> bool:
        """Evaluate, where that is due; whether the stage ends with so many steps behind it, and not with all."""
        if self.looks is None or not self.looks.ends_before(step) or step == self.stage.config.steps:
            return False
        if not state_of(self.stage.directory, step).exists():
            self._save_state(step)
        if self.stage.group.first:
            end_early(self.stage.directory, step)
        return True

    @contextlib.contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """A phase of a step: the device holds what it needs inside, and its time is kept in `seconds`."""
        began = time.monotonic()
        self.stage.group.enter(name, self.done)
        self.stage.group.wait()  # however long one of them was busy: what they do on tensors has a time-out
        self.place.enter(name)
        yield
        self.place.leave()
        self.seconds[name] = time.monotonic() - began

    def log(self, row: SftRow | DistillRow, note: str) -> None:
        """Write the metrics of a step and hand them to the trackers; `note` stands beside the progress bar."""
        self._note = note
        if self._metrics is not None:
            self._metrics.log(row)
            self._tracking.log(row)

    def show_rollouts(self, step: int, file: Path) -> None:
        """Hand the stored rollouts of a step to the trackers."""
        self._tracking.rollouts(step, file)

    def show_looks(self, rows: Sequence[EvalRow]) -> None:
        """Hand evaluations to the trackers, with the metrics of the step that comes next."""
        self._tracking.hold(rows)

    def save(self) -> Path:
        """Write the trained model as an ordinary model directory; returns it."""
        return self.save_to(self.stage.final)

    def save_to(self, path: Path) -> Path:
        """Write the model that there is now as an ordinary model directory; returns it."""
        self.stage.group.enter("save")
        self.place.enter("save")
        with self.stage.group.new_directory(path) as directory:
            self.policy.save(directory)
        return path

    def _set_beside_the_plan(self) -> None:
        """Say what the first step took of a GPU and what had been planned for it."""
        recipe = self.stage.recipe
        teachers = (read_config(resolve(t.path)) for t in inprocess_teachers(recipe))
        group = self.stage.group
        config, divided = self.policy.model.config, group.teachers_divided
        phases = plan(recipe, config, *teachers, devices=group.world, node=group.node, divided=divided)
        for line in planned_and_measured(phases, self.stage.directory.name, self.place.peaks):
            console.print(line)

    def _save_state(self, step: int) -> None:
        beside = self.beside(step)
        self.stage.group.enter("save", step - 1)
        self.place.enter("save")
        self._writer.begin(step, beside)
