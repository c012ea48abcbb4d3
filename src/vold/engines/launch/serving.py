"""Servers for the stages of a run: started when a stage comes to need them, shared by stages that need the same, ended
with the last one.

A stage works inside `serving`, which gives it its recipe with addresses beside `launch`. Everything behind that asks
servers at an address, whoever started them. What a client has to know of our own, such as their key, it finds by the
address (`vold.engines.launch.started`).
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from vold.engines.launch.cluster import Machines
from vold.engines.launch.devices import TRAINS, check_devices, own_gpus
from vold.engines.launch.placed_server import PlacedServer
from vold.engines.launch.server import LaunchedServer, end_left_behind
from vold.engines.launch.started import STARTED, Started
from vold.engines.launch.wanted import JUDGE, servers_of
from vold.errors import ConfigError, SamplerError, TeacherError
from vold.model.parallel import processes
from vold.model.place import give_back
from vold.run.console import console
from vold.run.placed import Told, placed, servers_told
from vold.run.recipe import ORDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vold.engines.launch.spec import Keys, Wanted
    from vold.errors import VoldError
    from vold.run.cluster_section import Cluster
    from vold.run.recipe import Recipe

FOLDER = "servers"
"""Of a stage's directory: logs and records of the servers that it has started."""
SOONEST, LATEST = 10.0, 120.0
"""Seconds between two lines on what is waited for: each twice as far from the last as that from the one before."""


class Servers:
    """The servers that this process has started. All have one key, which is made for them."""

    def __init__(self) -> None:
        self.running: dict[Wanted, LaunchedServer | PlacedServer] = {}
        self.machines: Machines | None = None
        """Where servers are placed, if not here."""
        self._key = secrets.token_urlsafe(32)

    def enter(self, recipe: Recipe, stage: str, path: str | None) -> dict[Keys, list[Wanted]]:
        """Make a stage's servers run, and no others but those that a later stage needs and nothing is in the way of.

        Returns them by their section. Raises as `serving`.
        """
        servers = servers_of(recipe, stage, path)
        check_devices(recipe, stage, servers)
        rest = ORDER[ORDER.index(stage) + 1 :] if stage != JUDGE else ()
        behind = [name for name in recipe.stages if name in rest]
        later = {one for name in behind for one in servers_of(recipe, name)}
        busy = {gpu for one in servers for gpu in one.devices}.union(own_gpus(recipe, stage))
        if recipe.cluster is not None:  # Ray knows what is in the way of what
            busy = set()
        kept = {one for one in later if one.sleep or busy.isdisjoint(one.devices)}.union(servers)
        self.end([one for one in self.running if one not in kept])
        if recipe.cluster is not None:
            self._reserve(recipe, recipe.cluster, stage)
        mine = {server.record for server in self.running.values()}
        for record in sorted({*recipe.run.dir.glob(f"*/{FOLDER}/*.json")} - mine):
            if end_left_behind(record):
                console.print(f"ended a server that an earlier start had left behind: {record.stem}")
        self.have(servers, recipe.run.dir / stage / FOLDER)
        return {keys: [one for one in servers if one.keys == keys] for keys in dict.fromkeys(s.keys for s in servers)}

    def _reserve(self, recipe: Recipe, cluster: Cluster, stage: str) -> None:
        """Room for the stage itself, before its servers take what is left."""
        self.machines = self.machines or Machines(cluster)
        if self.machines.reserve(recipe, stage, working=stage in TRAINS):
            return
        self.end(list(self.running))
        if not self.machines.reserve(recipe, stage, working=stage in TRAINS):
            raise ConfigError(
                f"Ray finds no room for `{stage}`",
                where="cluster",
                got=f"{cluster.nodes} machines with {cluster.gpus} GPUs wanted; `ray status` shows what is there",
                fix="see that each machine was started with its GPUs, and that no other job has them",
            )

    def told(self, recipe: Recipe, stage: str, path: str | None) -> list[Told]:
        """`enter`, and what others have to know of these servers."""
        return [
            Told(
                keys,
                tuple(self.running[one].url for one in found),
                found[0].served,
                self._key,
                tuple(str(self.running[one].file) for one in found),
            )
            for keys, found in self.enter(recipe, stage, path).items()
        ]

    def have(self, servers: Sequence[Wanted], directory: Path) -> None:
        """These servers, started where they are not there, all of them answering.

        Those that share GPUs start one after the other, and each goes to sleep before the next.

        Raises:
            TeacherError, SamplerError: one has ended, or does not answer in time.
        """
        missing = [one for one in servers if one not in self.running or self.running[one].failure]
        if missing:
            give_back(dead=True)  # a server asks at once for its share of the whole card
        in_turns = any(one.sleep for one in servers)
        for group in [[one] for one in missing] if in_turns else [missing]:
            for one in group:
                self.end([one])
                self.running[one] = (
                    LaunchedServer(one, directory, self._key)
                    if self.machines is None
                    else PlacedServer(one, directory, self._key, self.machines)
                )
            for one in group:
                self._wait(self.running[one])
                if one.sleep:
                    _put_to_sleep(self.running[one])

    def end(self, servers: Sequence[Wanted]) -> None:
        """End these, all at a time."""
        ending = [self.running[one] for one in servers if one in self.running]
        for one in ending:
            one.stop()
        for one in ending:
            one.wait()
            STARTED.pop(one.url, None)
        for spec in servers:
            self.running.pop(spec, None)

    def leave(self) -> None:
        """End all, and leave the machines."""
        self.end(list(self.running))
        if self.machines is not None:
            self.machines.end()

    def _wait(self, server: LaunchedServer | PlacedServer) -> None:
        """Until it answers."""
        said, pause = server.began, SOONEST
        console.print(f"server {server.spec.name}: starting {server.spec}; its log is {server.log}")
        while not server.ready.wait(0.1):
            if server.failure:
                raise _error_of(server)
            if time.monotonic() - said > pause:
                seconds = time.monotonic() - server.began
                console.print(f"server {server.spec.name}: waiting, {seconds:.0f} s  {server.last_line()[:200]}")
                said, pause = time.monotonic(), min(2 * pause, LATEST)

        def failure() -> VoldError | None:
            return _error_of(server) if server.failure else None

        STARTED[server.url] = Started(server.key, server.turn, failure, lambda: server.now)
        console.print(f"server {server.spec.name}: answers after {time.monotonic() - server.began:.0f} s")


def _error_of(server: LaunchedServer | PlacedServer, failure: str = "") -> TeacherError | SamplerError:
    kind = TeacherError if server.spec.role == "teacher" else SamplerError
    return kind(
        f"the server {server.spec.name} {failure or server.failure}",
        where=str(server.log),
        got=f"{server.spec}",
        fix=f"mend {server.spec.key}.launch, or what the log says, and repeat the command: it goes on from here",
    )


def _put_to_sleep(server: LaunchedServer | PlacedServer) -> None:
    level = 2 if server.spec.role == "rollouts" else 1  # these get their weights anew when they wake
    headers = {"Authorization": f"Bearer {server.key}"}
    try:
        with httpx.Client(trust_env=False, timeout=server.spec.start_seconds) as client:
            client.post(f"{server.url.removesuffix('/v1')}/sleep?level={level}", headers=headers).raise_for_status()
    except httpx.HTTPError as error:
        raise _error_of(server, f"does not go to sleep: {type(error).__name__}: {error}".partition("\n")[0]) from error
    server.turn.clear()


_kept: Servers | None = None


@contextlib.contextmanager
def keeping() -> Iterator[Servers]:
    """Around several stages: what one has started stays for the next. All is ended after the block."""
    global _kept
    if _kept is not None:
        yield _kept
        return
    _kept = servers = Servers()
    try:
        yield servers
    finally:
        _kept = None
        servers.leave()


@contextlib.contextmanager
def serving(recipe: Recipe, stage: str, path: str | None = None) -> Iterator[Recipe]:
    """The servers of a stage; of several processes that train together the first starts them, and all are told.

    Args:
        recipe: the run's; the block gets it with addresses where it says `launch`.
        stage: its name, or `JUDGE`.
        path: of an evaluation, the model that is tested.

    Raises:
        ConfigError: there is no vLLM, or no such GPU, or two programs are given one; or several machines train, and
            no `cluster` says so.
        TeacherError, SamplerError: a server has ended at its start, or does not answer in time.
    """
    group = processes()
    if group.world > group.node and not placed() and servers_of(recipe, stage, path):
        raise ConfigError(
            "vold starts servers on this machine, and others that train with it do not reach them",
            where="launch",
            got=f"{group.world} processes, {group.node} of them here",
            fix="name the machines in `cluster`, or start the servers by hand and give their `urls`",
        )
    with keeping() as servers:
        told: list[Told] = []
        if group.first:
            told = servers_told() if placed() else servers.told(recipe, stage, path)
        for keys, urls, served, key, files in group.gather(told)[0]:
            recipe = _with(recipe, keys, {"urls": urls, "model": served})
            for url, file in zip(urls, files, strict=True):
                STARTED.setdefault(url, Started(key, now=functools.partial(_read, file)))
        yield recipe


def _read(file: str) -> str:
    """What the run has written of where a server is now."""
    try:
        return Path(file).read_text()
    except OSError:
        return ""


def _with(section: Any, keys: Sequence[str], update: Mapping[str, object]) -> Any:
    """A section with other values in a section below it."""
    if not keys:
        return section.model_copy(update=update)
    if isinstance(section, dict):
        return {**section, keys[0]: _with(section[keys[0]], keys[1:], update)}
    return section.model_copy(update={keys[0]: _with(getattr(section, keys[0]), keys[1:], update)})
