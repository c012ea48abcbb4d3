"""A server that a stage needs, and how it is started. A machine that starts one loads no more than this."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vold.engines.transfer.starting import python_path, server_environment

if TYPE_CHECKING:
    from vold.run.model_sections import Lora

Keys = tuple[str, ...]
Role = Literal["teacher", "rollouts", "tested"]
OF_TORCHRUN = ("MASTER_", "TORCHELASTIC_", "GROUP_", "ROLE_", "LOCAL_")
NOT_FOR_SERVERS = ("RANK", "WORLD_SIZE", "VLLM_API_KEY", "VLLM_PORT")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A server that a stage needs. Two that are equal are one: nothing else decides what a server answers.

    Attributes:
        keys: of its section in the recipe, such as `teacher` and `server`.
        model: a directory or a hub id.
        served: the model's name there.
        devices: its GPUs; none on the processor.
        number: tells servers on the processor apart.
        sleep: it shares its GPUs, and sleeps while it is not its turn.
        taught: it runs a part of vold, and is sent what has changed (`vold.engines.transfer`).
        lora: the student's adapters, which such a server is sent as they are.
        sees: its model takes pictures, and its replies say which.
        options: of `vllm serve`, but for address and key.
        python: the interpreter.
        start_seconds: it must answer so long after its start.
        given: the GPUs that Ray has given it on its machine, in place of `devices`.
    """

    keys: Keys
    role: Role
    model: str
    served: str
    devices: tuple[int, ...]
    number: int
    sleep: bool
    taught: bool
    lora: Lora | None
    sees: bool
    options: tuple[str, ...]
    python: str
    start_seconds: float
    given: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """Its section as it is written."""
        return ".".join(self.keys)

    @property
    def name(self) -> str:
        """That of its log."""
        where = "gpu" + "-".join(map(str, self.devices)) if self.devices else f"cpu{self.number}"
        return re.sub(r"[^\w-]", "_", "-".join(k for k in self.keys if k not in ("routes", "server")) + f"-{where}")

    def __str__(self) -> str:
        on = "GPU " + "+".join(map(str, self.devices)) if self.devices else "the processor"
        return f"{self.model} on {on}{' in turns' if self.sleep else ''}"

    def command(self, host: str, port: int) -> list[str]:
        """What starts it. The module, not `vllm serve`, as builds for a CPU have no such command."""
        module = "vllm.entrypoints.openai.api_server"
        return [self.python, "-m", module, "--host", host, "--port", str(port), *self.options]

    def environment(self, key: str, directory: Path) -> dict[str, str]:
        """What it is started in: this process's own, without what is said to other programs.

        Args:
            key: that it asks of whoever asks it. Here, and not among its arguments, only its user can read it.
            directory: takes what it has to find.
        """
        dropped = () if self.python == sys.executable else ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        env = {
            name: value
            for name, value in os.environ.items()
            if name not in (*NOT_FOR_SERVERS, *dropped) and not name.startswith(OF_TORCHRUN)
        }
        env |= {
            "PYTHONUNBUFFERED": "1",
            "VLLM_API_KEY": key,
            "VLLM_SERVER_DEV_MODE": str(int(self.sleep or self.role == "rollouts")),
        }
        env |= python_path(directory) if self.sees else {}
        env |= server_environment(directory, self.lora) if self.taught else {}
        if self.devices:
            mine = ",".join(map(str, self.given or self.devices))
            return env | {"CUDA_VISIBLE_DEVICES": mine, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        # Several servers share the cores, and none takes the machine's whole memory for its cache. vLLM has a process
        # of its own for the model only to bind it to cores: without that one a start takes half as long.
        shared = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        bound = "VLLM_CPU_OMP_THREADS_BIND" in env
        return {"VLLM_CPU_KVCACHE_SPACE": "1"} | ({} if bound else shared) | env
