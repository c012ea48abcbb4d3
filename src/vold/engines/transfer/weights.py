"""Keeps rollout servers at the student's weights, by version."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import weakref
from typing import TYPE_CHECKING, NamedTuple, Protocol

from vold.engines.transfer import segment
from vold.engines.transfer.adapters import Adapters
from vold.engines.transfer.carriers import Carrier, FileCarrier, IpcCarrier, NcclCarrier, SharedMemoryCarrier
from vold.engines.transfer.changed import KINDS, RPC, ChangedWeights
from vold.engines.transfer.source import Source
from vold.engines.vllm import CACHES
from vold.errors import ConfigError, SamplerError, VoldError
from vold.model.parallel import ALONE, Processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vold.engines.vllm import VllmClient
    from vold.model.policy import Policy
    from vold.run.model_sections import Transfer
    from vold.run.records import JsonObject


class Way(Protocol):
    """How weights get to servers."""

    def push(self, *, first: bool, fresh: bool) -> None:
        """Make every server hold the student's weights; unless `fresh`, those that were pushed the last time. All
        processes call it; the `first` sends."""
        ...

    def forget(self) -> None:
        """Servers have lost their weights in sleep."""
        ...


class ServerWeights:
    """Keeps servers at a policy's weights.

    Servers carry a version. One that was restarted has lost it and gets them again. They must run with
    `VLLM_SERVER_DEV_MODE=1`.

    Args:
        client: the servers.
        policy: the model that learns.
        directory: where weights are put for servers to read; removed again afterwards.
        group: the processes that train the policy. Of several, all call `changed`, and the first sends at once.
        transfer: how weights go.
        kept: the policy changes while servers sample. They get its weights at once in `changed`, and one that is
            restarted meanwhile gets those of then again: a copy of what is trained stays on the host.
    """

    def __init__(
        self,
        client: VllmClient,
        policy: Policy,
        directory: Path,
        group: Processes = ALONE,
        transfer: Transfer = "files",
        *,
        kept: bool = False,
    ) -> None:
        self.client, self.policy, self.directory, self.group, self.kept = client, policy, directory, group, kept
        self.transfer: Transfer = transfer
        # Servers outlive runs: versions of an earlier one must not pass for those of this one.
        self._run = group.gather(secrets.token_hex(4))[0]
        self.version = f"{self._run}/0"
        self.pictures = False
        """Whether the servers are shown any."""
        self._woken, self._fresh = 0, True
        self._way: Way | None = None

    @property
    def model(self) -> str:
        """The name under which servers sample from the student."""
        return self._way.name if isinstance(self._way, Adapters) else self.client.model

    def changed(self, step: int) -> None:
        """Say that the policy's weights are now those of `step`.

        Raises:
            SamplerError: as `bring`, where several processes train or weights are kept.
        """
        version = f"{self._run}/{step}"
        if version == self.version and not self._fresh:
            return
        self.version, self._fresh = version, True
        if self.group.world > 1 or self.kept:
            self._send()
            name = self.group.gather(self.model)[0]  # and none asks before the first has sent
            if isinstance(self._way, Adapters):
                self._way.name = name

    def bring(self) -> None:
        """Make every server hold the policy's weights.

        Raises:
            SamplerError: a server does not answer within its patience, or does not take the weights.
            ConfigError: a server was not started for this way.
        """
        if self.in_place():
            return
        if self.group.world > 1:
            raise SamplerError(
                "a server has lost the student's weights in the middle of a step",
                fix="start the run again: it goes on from its last checkpoint and sends them",
            )
        self._send()

    def bring_to_woken(self) -> None:
        """As `bring`, for servers that still say the version of weights that they lost in sleep."""
        self._woken += 1
        self.version += f"/{self._woken}"
        self._opened().forget()
        self.bring()

    def in_place(self) -> bool:
        """Whether every server says that it holds the present version."""
        replies = self.client.each("/weight_info", get=True, root=True)
        return all(r is not None and r.value.get("weight_version") == self.version for r in replies)

    def _send(self) -> None:
        way = self._opened()
        try:
            if self.group.first:
                # First: a server that starts again while weights come to it, or later, says another version.
                self.client.each("/update_weight_version", {"new_version": self.version}, root=True)
            way.push(first=self.group.first, fresh=self._fresh or not self.kept)
            if self.group.first:
                # What earlier weights have made of prompts, and of pictures.
                for route in CACHES[: 1 + (self.pictures and self.policy.is_vlm)]:
                    self.client.each(route, root=True)
        except Exception:
            if self.group.first:
                with contextlib.suppress(VoldError):
                    self.client.each("/update_weight_version", {"new_version": "none"}, root=True, must=False)
            raise
        self._fresh = False

    def _opened(self) -> Way:
        if self._way is None:
            asked = servers_of(self.client) if self.group.first else []
            self._way = self._open(self.group.gather(asked)[0])
        return self._way

    def _open(self, servers: list[Started]) -> Way:
        """The way that the recipe names, as far as all servers go along."""
        if not all(s.ours for s in servers):
            if self.transfer != "files":
                raise ConfigError(
                    "a rollout server was not started for this way of sending weights",
                    where="engine.transfer",
                    got=f"{self.transfer}, a server without --worker-extension-cls",
                    fix="docs/engines.md has the arguments, or drop the key: files go to every vLLM server",
                )
            return WholeModel(self.client, self.policy, self.directory, kept=self.kept)
        lora = self.policy.adapters is not None and all(
            s.rank >= self.policy.adapters.peft_config["default"].r for s in servers
        )
        changed = ChangedWeights(self.client, Source(self.policy, plain=lora, kept=self.kept), self._carrier())
        if not lora:
            return changed
        files = self.directory if self.transfer == "files" else segment.SHARED
        return Adapters(self.client, self.policy, changed, files, KINDS[servers[0].dtype])

    def _carrier(self) -> Carrier:
        if self.transfer == "files":
            return FileCarrier(self.client, self.directory)
        if self.transfer == "shared_memory":
            return SharedMemoryCarrier(self.client)
        if self.policy.model.device.type != "cuda":
            raise ConfigError(
                "weights go this way from a GPU only",
                where="engine.transfer",
                got=f"{self.transfer}, and the student is on {self.policy.model.device}",
                fix="set engine.transfer=shared_memory, or files",
            )
        return NcclCarrier(self.client) if self.transfer == "nccl" else IpcCarrier(self.client)


class WholeModel:
    """The whole model as a directory, which any vLLM server reads with its own `reload_weights`. It is removed when it
    has been read; a `kept` one stays until the next push that is fresh."""

    def __init__(self, client: VllmClient, policy: Policy, directory: Path, *, kept: bool = False) -> None:
        self.client, self.policy, self.directory, self.kept = client, policy, directory, kept
        self._here = directory
        self._remove: Callable[[], object] = lambda: None

    def forget(self) -> None:
        """A whole model has nothing to remember."""

    def push(self, *, first: bool, fresh: bool) -> None:
        """As `Way.push`."""
        try:
            if fresh:
                self._save(first=first)
            if first:
                body = {"method": "reload_weights", "kwargs": {"weights_path": str(self._here)}}
                self.client.each(RPC, body, root=True)
        finally:
            if not self.kept:
                self._remove()

    def _save(self, *, first: bool) -> None:
        self._remove()
        self._here = self.directory.resolve() / segment.unguessable()
        if first:
            self.directory.mkdir(parents=True, exist_ok=True)
            segment.sweep(self.directory)
            self._here.mkdir()
            self._remove = weakref.finalize(self, shutil.rmtree, self._here, ignore_errors=True)
        self.policy.save(self._here)


class Started(NamedTuple):
    """How a server was started.

    Attributes:
        ours: it runs `vold.engines.transfer.vllm_worker`.
        rank: of the widest adapter that it takes while it runs; 0 if it takes none.
        dtype: precision of its adapters.
    """

    ours: bool
    rank: int = 0
    dtype: str = ""


def servers_of(client: VllmClient) -> list[Started]:
    """How every server was started. One that does not say is taken for a plain one.

    Raises:
        VoldError: one does not answer.
    """
    try:
        replies = client.each("/server_info?config_format=json", get=True, root=True)
    except VoldError as error:
        if not error.got.startswith("status 404"):
            raise
        return [Started(ours=False)] * len(client.urls)
    return [_started(r.value) for r in replies if r is not None]


def _started(said: JsonObject) -> Started:
    config = _object(said, "vllm_config")
    ours = _object(config, "weight_transfer_config").get("backend") == "vold"
    lora, may = _object(config, "lora_config"), _object(said, "vllm_env").get("VLLM_ALLOW_RUNTIME_LORA_UPDATING")
    rank, dtype = lora.get("max_lora_rank"), str(lora.get("lora_dtype")).removeprefix("torch.")
    takes = dtype in KINDS and may is True
    return Started(ours, rank if takes and isinstance(rank, int) else 0, dtype)


def _object(said: JsonObject, key: str) -> JsonObject:
    found = said.get(key)
    return found if isinstance(found, dict) else {}
