"""Training processes of a stage on the machines of a cluster: `torchrun` on each, started and watched by Ray."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vold.engines.launch.cluster import LOOK_SECONDS
from vold.engines.launch.placed_server import END_SECONDS
from vold.engines.launch.server import rotate
from vold.engines.launch.started import given_up
from vold.errors import TrainingError
from vold.run.cluster_section import training_processes
from vold.run.console import console
from vold.run.placed import PLACED
from vold.run.recipe import dump_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.engines.launch.cluster import Machines
    from vold.engines.launch.place import Where
    from vold.run.placed import Told
    from vold.run.recipe import Recipe

AGAIN = "repeat the command: it goes on from the last state"


class TrainingProcesses:
    """The processes of one training stage, in the room that was set aside for it.

    Args:
        machines: those of the run.
        recipe: the run's.
        stage: its name.
        directory: for a log of each machine.
        told: the servers of the stage.
    """

    def __init__(self, machines: Machines, recipe: Recipe, stage: str, directory: Path, told: Sequence[Told]) -> None:
        self.machines, self.recipe, self.stage, self.told = machines, recipe, stage, told
        self.directory = directory.resolve()
        self.each, self.gpus = training_processes(recipe), machines.section.gpus
        self.places: list[Any] = []
        self.where: list[Where] = []
        self._shown = 0

    def run(self) -> None:
        """Until all have ended.

        Raises:
            TrainingError: one has failed, or a machine is lost; all others are ended.
            TeacherError, SamplerError: no server of a kind is left that would be started again.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "recipe.yaml").write_text(dump_recipe(self.recipe))
        try:
            working = self._start()
            while working:
                ended, _ = self.machines.ray.wait(list(working), timeout=LOOK_SECONDS)
                self._show()
                for one in ended:
                    self._settle(one, working.pop(one))
                for section in self.told:
                    if (gone := given_up(section.urls)) is not None:
                        raise gone
        finally:
            self.machines.stop(self.places, END_SECONDS)
            self._show()

    def _start(self) -> dict[Any, int]:
        """The calls of all machines, each with the machine's number."""
        gpus, cpus = (self.each, 0) if self.gpus else (0, self.each)
        for bundle in range(self.machines.section.nodes):
            self.places.append(self.machines.place(gpus=gpus, cpus=cpus, bundle=bundle))
        lost = f"`{self.stage}` has lost a machine before it began"
        self.where = self._answer([place.where.remote() for place in self.places], lost, self.directory)
        address = self.machines.address_of(self.where[0].node)
        port = self._answer(self.places[0].port.remote(), lost, self.directory)
        variables = {PLACED: json.dumps(self.told)}
        working = {}
        for number, place in enumerate(self.places):
            log = self._log(number)
            rotate(log)
            words = [
                "-m", "torch.distributed.run", f"--nnodes={len(self.places)}", f"--node-rank={number}",
                f"--nproc-per-node={self.each}", f"--master-addr={address}", f"--master-port={port}",
                "-m", "vold.cli", self.stage, str(self.directory / "recipe.yaml"),
            ]  # fmt: skip
            working[place.train.remote(words, variables, log)] = number
            console.print(f"{self.stage} on {self.machines.name_of(self.where[number])}: its log is {log}")
        return working

    def _settle(self, call: Any, number: int) -> None:
        """How a machine's processes ended."""
        name = self.machines.name_of(self.where[number])
        why = self._answer(call, f"`{self.stage}` has lost the processes on {name}", self._log(number))
        if why:
            raise TrainingError(
                f"the processes of `{self.stage}` on {name} {why}",
                where=str(self._log(number)),
                fix=f"mend that; {AGAIN}",
            )

    def _answer(self, call: Any, lost: str, where: Path) -> Any:
        """What machines say to a call; where one is gone, an error that begins with `lost`."""
        try:
            return self.machines.ray.get(call)
        except self.machines.ray.exceptions.RayError as error:
            got, fix = self.machines.reason(error), f"see to that machine, or take another; {AGAIN}"
            raise TrainingError(lost, where=str(where), got=got, fix=fix) from None

    def _log(self, number: int) -> Path:
        return self.directory / f"{self.stage}-{number}.log"

    def _show(self) -> None:
        """What the first process has said since the last look."""
        try:
            with self._log(0).open("rb") as f:
                f.seek(self._shown)
                said = f.read()
        except FileNotFoundError:
            return
        whole = said[: said.rfind(b"\n") + 1]
        self._shown += len(whole)
        if whole:
            console.print(whole.decode(errors="replace").rstrip("\n"), markup=False)
