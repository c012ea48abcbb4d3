"""Adapters as adapters: a server that knows LoRA is sent the student's A and B, and nothing of the weights below."""

from __future__ import annotations

import contextlib
import json
import shutil
import weakref
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from vold.engines.deadline import Stop
from vold.engines.transfer import segment
from vold.engines.transfer.changed import TRIES, asked
from vold.engines.transfer.checksum import checksum
from vold.errors import SamplerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peft import LoraConfig

    from vold.engines.transfer.changed import ChangedWeights
    from vold.engines.vllm import VllmClient
    from vold.model.policy import Policy


class Adapters:
    """Sends the weights below as `ChangedWeights` does, which moves them at most once, and the adapters at every push.

    Args:
        client: the servers; each has room for an adapter, and takes one while it runs.
        policy: the student.
        base: sends what is below the adapters.
        directory: which run and servers see.
        dtype: precision of a server's adapters.
    """

    def __init__(
        self, client: VllmClient, policy: Policy, base: ChangedWeights, directory: Path, dtype: torch.dtype
    ) -> None:
        self.client, self.policy, self.base, self.directory, self.dtype = client, policy, base, directory, dtype
        self.name = ""
        """What a request calls the student with its present adapters."""
        self._remove: Callable[[], object] = lambda: None

    def forget(self) -> None:
        """As `ChangedWeights.forget`."""
        self.base.forget()

    def push(self, *, first: bool, fresh: bool = True) -> None:
        """As `ChangedWeights.push`."""
        self.base.push(first=first, fresh=fresh)
        if not first:
            return
        tensors = self.tensors()
        expected = {n: checksum(t) for n, t in tensors.items()}
        self.directory.mkdir(parents=True, exist_ok=True)
        segment.sweep(self.directory)
        for _ in range(TRIES):
            if all(said == expected for said in self._sent(tensors)):
                return
        raise SamplerError(
            f"the {self.client.server} does not take the student's adapters",
            where=", ".join(self.client.urls),
            got=f"other checksums than those of what was sent, {TRIES} times",
            fix="leave --enable-lora out where the server is started: adapters are then sent as part of the weights",
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """The adapters under PEFT's names. B is multiplied by alpha / rank: a server has nothing to scale."""
        scale = self._config.lora_alpha / self._config.r
        out = {}
        for name, matrix in self.base.source.adapters():
            value = matrix * scale if ".lora_B." in name else matrix
            out[name.replace(".default.", ".")] = value.to("cpu", self.dtype).contiguous()
        return out

    def _sent(self, tensors: dict[str, torch.Tensor]) -> list[dict[str, str]]:
        """The checksums of what every worker has loaded.

        Every push has a name of its own: a name that vLLM is told to load anew it loads anew for every request. The
        files stay until the next push, for vLLM reads them again where it has dropped an adapter to make room.
        """
        rank = self._config.r
        about = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none"}
        about["target_modules"] = sorted({n.partition(".lora_")[0].rpartition(".")[2] for n in tensors})
        before, remove_before = self.name, self._remove
        here = self.directory.resolve() / segment.unguessable()
        here.mkdir(mode=0o700)
        self._remove = weakref.finalize(self, shutil.rmtree, here, ignore_errors=True)
        save_file(tensors, here / "adapter_model.safetensors")
        (here / "adapter_config.json").write_text(json.dumps(about))
        self.client.each("/load_lora_adapter", {"lora_name": here.name, "lora_path": str(here)})
        self.name = here.name
        for base in self.client.urls if before else ():
            with contextlib.suppress(SamplerError):  # one that was restarted has never heard of it
                self.client.send_once(base, "/unload_lora_adapter", {"lora_name": before}, Stop())
        remove_before()
        return [one for _, results in asked(self.client, "vold_adapter", path=str(here)) for one in results]

    @property
    def _config(self) -> LoraConfig:
        found: LoraConfig = self.policy.adapters.peft_config["default"]
        return found
