"""The section `run` of a recipe."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vold.errors import ConfigError
from vold.run.names import close_to
from vold.run.section import Section
from vold.types.named import is_named, load_callable, look_in

if TYPE_CHECKING:
    from collections.abc import Iterator

Exchange = Literal["micro_batch", "step"]
"""When processes exchange weights and gradients; `Run.exchange` says what each costs."""
Within = Literal["node", "world"]
"""Over which processes a student is divided, see `Run.shard`."""
TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
"""Trackers that come with the package, each a file of `report/trackers` and an extra."""


def _tracker(value: str) -> str:
    if value in TRACKERS or is_named(value):
        return value
    close = close_to(value, TRACKERS)
    hint = f"did you mean {close!r}? " if close else ""
    fix = f"{hint}one of {', '.join(TRACKERS)}, or my_module:MyTracker"
    raise ConfigError("there is no such tracker", got=value, fix=fix)


TrackerName = Annotated[str, AfterValidator(_tracker)]
"""One of `TRACKERS`, or `my_module:MyTracker` (`vold.report.trackers.tracking.Tracker`)."""


class RunSection(Section):
    """Where a run lives and what makes it repeatable."""

    dir: Path
    """Directory of the run; created if absent, continued if present."""
    seed: int = 1
    """Seeds data order, rollouts and traces. Two runs of one recipe and seed give the same weights."""
    modules: Path | None = None
    """Where modules of your own that the recipe names (`my_module:function`) are looked for, behind PYTHONPATH. The
    directory of the recipe if absent."""
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads of PyTorch. Results repeat bit for bit only at the same number."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models live; `auto` takes a GPU if there is one."""
    offload: bool = False
    """In stage 2, keep the teacher and the optimizer's state in the host's memory while they have nothing to do."""
    exchange: Exchange = "micro_batch"
    """With several processes: when they exchange weights and gradients. `micro_batch`: layer by layer in each, so that
    a process holds its part and a layer or two. `step`: once an update; it then holds all weights and gradients."""
    shard: Within = "node"
    """With several nodes: over which processes a student is divided. `node`: a node's, so that every node has a copy,
    and gradients cross the network once a step. `world`: all, for one that a node does not hold; weights cross too."""
    shard_teacher: Literal["auto", "always", "never"] = "auto"
    """With several processes: whether they divide a teacher in their own memory, and gather it layer by layer to score.
    `auto`: where a whole one does not fit beside what else a device must hold. Those of a node do, or all where a node
    does not hold it."""
    timeout_minutes: float = Field(20.0, gt=0)
    """With several processes: when one without a sign of life is given up and all end. One that works is waited for."""
    report_to: tuple[TrackerName, ...] = ()
    """Trackers that get metrics, rollouts and results too: `tensorboard`, `trackio`, `wandb`, `mlflow`, each an extra
    (`pip install 'vold[trackio]'`), or one of your own, `my_module:MyTracker`."""

    @model_validator(mode="after")
    def _modules_are_found(self) -> RunSection:
        if self.modules is not None:
            look_in(self.modules)
        return self

    @contextlib.contextmanager
    def own_threads(self) -> Iterator[None]:
        """Compute with `threads`, and then with as many as before: who runs a stage may be a program of its own."""
        import torch  # `vold --help` waits for it otherwise

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def refuse_missing_trackers(self) -> None:
        """Raises:
        ConfigError: the package of a tracker is not installed, or one of the user's own cannot be loaded.
        """
        for name in self.report_to:
            if is_named(name):
                load_callable(name, "stage")
            elif find_spec(name) is None:
                raise ConfigError(
                    f"{name} is not installed",
                    where="run.report_to",
                    got=name,
                    fix=f"pip install 'vold[{name}]', or leave it out",
                )
