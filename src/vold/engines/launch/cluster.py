"""Machines that Ray has brought together, as a run uses them: places for its servers and for training processes.

Ray places and supervises, and nothing else: an actor of it (`vold.engines.launch.place.Place`) starts a program and
watches it. Requests to servers go over HTTP and tensors over NCCL or gloo, from machine to machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.engines.launch.place import OF_THE_MACHINE, Place
from vold.errors import ConfigError
from vold.run.cluster_section import training_processes
from vold.run.console import console
from vold.run.settings import TRAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.engines.launch.place import Where
    from vold.run.cluster_section import Cluster as ClusterSection
    from vold.run.recipe import Recipe

MACHINES_SECONDS = 600.0
"""Machines that are started together with the run come up within this."""
ROOM_SECONDS = 20.0
"""Ray knows within this whether there is room for processes: what has ended a moment ago may still be counted."""
LOOK_SECONDS = 0.2
"""Between two looks at what is waited for; a signal is seen after so long as well."""
OF_RAY = {"RAY_kill_child_processes_on_worker_exit": "0"}
"""Else Ray kills a keeper as well when the run is gone, and the keeper's server is left."""


class Machines:
    """The machines of a run; connects to the Ray that runs here.

    Args:
        section: how many there are to be.

    Raises:
        ConfigError: Ray is not installed, runs nowhere, or has too few machines.
    """

    def __init__(self, section: ClusterSection) -> None:
        self.section = section
        try:
            import ray
        except ImportError as error:
            fix = "pip install 'vold[cluster]', or leave out `cluster`"
            raise ConfigError("Ray is not installed", where="cluster", got=str(error), fix=fix) from None
        self.ray: Any = ray
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(address="auto", namespace="vold", log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                "no Ray runs here",
                where="cluster",
                got=str(error).partition("\n")[0],
                fix="start it: `ray start --head --include-dashboard=false` here, and on the other machines "
                "`ray start --address=HEAD:6379`; docs/scaling.md has the whole",
            ) from None
        for number, handler in handlers.items():  # Ray puts its own in their place
            with contextlib.suppress(ValueError):  # but where this is not the main thread
                signal.signal(number, handler)
        self.group: Any = None
        self._actor = ray.remote(Place)
        try:
            self._wait_for_all()
        except BaseException:
            self.end()
            raise

    def _wait_for_all(self) -> None:
        began, said = time.monotonic(), 0
        while (there := len(self._alive())) < self.section.nodes:
            if there != said:
                console.print(f"waiting for machines: {there} of {self.section.nodes} are there")
                said = there
            if time.monotonic() - began > MACHINES_SECONDS:
                raise ConfigError(
                    "Ray has fewer machines than the recipe",
                    where="cluster.nodes",
                    got=f"{there} of {self.section.nodes} after {MACHINES_SECONDS:g} s",
                    fix="`ray start --address=HEAD:6379` on the others, or set cluster.nodes lower",
                )
            time.sleep(LOOK_SECONDS)

    def _alive(self) -> list[Any]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def address_of(self, node: str) -> str:
        """The address that a machine has in Ray, by its id there; those that are lost have theirs still."""
        return str(next(one["NodeManagerAddress"] for one in self.ray.nodes() if one["NodeID"] == node))

    def name_of(self, where: Where) -> str:
        """A place in words."""
        name = next(str(one["NodeName"]) for one in self.ray.nodes() if one["NodeID"] == where.node)
        address = self.address_of(where.node)
        on = f", GPU {'+'.join(map(str, where.gpus))}" if where.gpus else ""
        return f"{name}{f' ({address})' * (name != address)}{on}"

    @staticmethod
    def reason(error: Exception) -> str:
        """Why Ray did not bring an answer, in a line: of a place that could not be made, the last of its traceback."""
        said = str(getattr(error, "cause", None) or error).strip()
        return said.rpartition("\n")[2] if "raised in its creation task" in said else said.partition("\n")[0]

    def reserve(self, recipe: Recipe, stage: str, *, working: bool) -> bool:
        """Set room aside for what a stage does itself, in place of what was set aside before.

        Training has equally many processes on each machine. Another stage works in this process, on one GPU of this
        machine.

        Args:
            recipe: the run's.
            stage: its name.
            working: it works on a GPU at all.

        Returns:
            Whether there is room.
        """
        self.give_back()
        gpus = self.section.gpus
        if stage in TRAINED:
            each = training_processes(recipe)
            bundles: list[dict[str, float]] = [{"GPU" if gpus else "CPU": each}] * self.section.nodes
        elif gpus and working:
            here = self.address_of(self.ray.get_runtime_context().get_node_id())
            bundles = [{"GPU": 1, f"node:{here}": 0.001}]
        else:
            return True
        self.group = self.ray.util.placement_group(bundles, strategy="STRICT_SPREAD")
        deadline = time.monotonic() + ROOM_SECONDS
        while not self.group.wait(LOOK_SECONDS):
            if time.monotonic() > deadline:
                self.give_back()
                return False
        if stage not in TRAINED:
            self._work_on_it()
        return True

    def _work_on_it(self) -> None:
        import torch

        place = self.place(bundle=0, gpus=1)
        (gpu,) = self.ray.get(place.where.remote()).gpus
        self.ray.kill(place)
        if torch.cuda.is_available():
            torch.cuda.set_device(gpu)

    def give_back(self) -> None:
        """What was set aside last."""
        if self.group is not None:
            self.ray.util.remove_placement_group(self.group)
            self.group = None

    def place(self, *, gpus: int, cpus: int = 0, bundle: int | None = None) -> Any:
        """A handle of a new place, wherever there is room, or in what was set aside.

        Args:
            gpus: that it is given.
            cpus: that it takes, by Ray's count.
            bundle: a part of what was set aside.
        """
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        spread: Any = "SPREAD"
        if bundle is not None:
            spread = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=bundle)
        options = {"num_gpus": gpus, "num_cpus": cpus, "scheduling_strategy": spread, "max_concurrency": 4}
        ours = {name: value for name, value in os.environ.items() if _comes_along(name)}
        return self._actor.options(**options, runtime_env={"env_vars": OF_RAY}).remote(ours, str(Path.cwd()))

    def wait(self, asked: Any, seconds: float, meanwhile: Callable[[], bool] = lambda: True) -> Any:
        """What an actor answers.

        Args:
            asked: the call.
            seconds: how long it may take.
            meanwhile: is asked again and again whether to go on.

        Raises:
            TimeoutError: it takes longer, or is not to go on.
            ray.exceptions.RayError: the actor, or its machine, is gone.
        """
        deadline = time.monotonic() + seconds
        while meanwhile() and time.monotonic() < deadline:
            if self.ray.wait([asked], timeout=LOOK_SECONDS)[0]:
                return self.ray.get(asked)
        raise TimeoutError(f"no answer within {seconds:g} s")

    def stop(self, places: Sequence[Any], seconds: float) -> None:
        """End places, all at a time, and what works there."""
        asked = [place.stop.remote() for place in places]
        with contextlib.suppress(Exception):
            self.ray.wait(asked, num_returns=len(asked), timeout=seconds)
        for place in places:
            self.ray.kill(place)

    def end(self) -> None:
        """Leave Ray, which goes on."""
        with contextlib.suppress(Exception):
            self.give_back()
        self.ray.shutdown()


def _comes_along(name: str) -> bool:
    return name not in OF_THE_MACHINE and not name.startswith(("RAY_", "SLURM_", "BASH_FUNC"))
