"""Servers for the stages of a run: started when a stage comes to need them, shared by stages that need the same, ended
with the last one.

A stage works inside `serving`, which gives it its recipe with addresses beside `launch`. Everything behind that asks
servers at an address, whoever started them. What a client has to know of our own, such as their key, it finds by the
address (`vold.engines.launch.started`).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

import httpx

from vold.engines.launch.devices import check_devices, own_gpus
from vold.engines.launch.server import LaunchedServer, end_left_behind
from vold.engines.launch.started import STARTED, Started
from vold.engines.launch.wanted import servers_of
from vold.errors import SamplerError, TeacherError
from vold.model.parallel import processes
from vold.run.console import console
from vold.run.recipe import ORDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vold.engines.launch.wanted import Keys, Wanted
    from vold.run.recipe import Recipe

FOLDER = "servers"
"""Of a stage's directory: logs and records of the servers that it has started."""
SOONEST, LATEST = 10.0, 120.0
"""Seconds between two lines on what is waited for: each twice as far from the last as that from the one before."""


class Servers:
    """The servers that this process has started. All have one key, which is made for them."""

    def __init__(self) -> None:
        self.running: dict[Wanted, LaunchedServer] = {}
        self._key = secrets.token_urlsafe(32)

    def enter(self, recipe: Recipe, stage: str, path: str | None) -> dict[Keys, list[Wanted]]:
        """Make a stage's servers run, and no others but those that a later stage needs and nothing is in the way of.

        Returns them by their section. Raises as `serving`.
        """
        servers = servers_of(recipe, stage, path)
        check_devices(recipe, stage, servers)
        behind = [name for name in recipe.stages if name in ORDER[ORDER.index(stage) + 1 :]]
        later = {one for name in behind for one in servers_of(recipe, name)}
        busy = {gpu for one in servers for gpu in one.devices}.union(own_gpus(recipe, stage))
        kept = {one for one in later if one.sleep or busy.isdisjoint(one.devices)}.union(servers)
        self.end([one for one in self.running if one not in kept])
        mine = {server.record for server in self.running.values()}
        for record in sorted({*recipe.run.dir.glob(f"*/{FOLDER}/*.json")} - mine):
            if end_left_behind(record):
                console.print(f"ended a server that an earlier start had left behind: {record.stem}")
        self.have(servers, recipe.run.dir / stage / FOLDER)
        return {keys: [one for one in servers if one.keys == keys] for keys in dict.fromkeys(s.keys for s in servers)}

    def have(self, servers: Sequence[Wanted], directory: Path) -> None:
        """These servers, started where they are not there, all of them answering.

        Those that share GPUs start one after the other, and each goes to sleep before the next.

        Raises:
            TeacherError, SamplerError: one has ended, or does not answer in time.
        """
        missing = [one for one in servers if one not in self.running or self.running[one].failure]
        in_turns = any(one.sleep for one in servers)
        for group in [[one] for one in missing] if in_turns else [missing]:
            for one in group:
                self.end([one])
                self.running[one] = LaunchedServer(one, directory, self._key)
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

    def _wait(self, server: LaunchedServer) -> None:
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
        STARTED[server.url] = Started(server.key, server.turn, lambda: _error_of(server) if server.failure else None)
        console.print(f"server {server.spec.name}: answers after {time.monotonic() - server.began:.0f} s")


def _error_of(server: LaunchedServer) -> TeacherError | SamplerError:
    kind = TeacherError if server.spec.role == "teacher" else SamplerError
    return kind(
        f"the server {server.spec.name} {server.failure}",
        where=str(server.log),
        got=f"{server.spec}",
        fix=f"mend {server.spec.key}.launch, or what the log says, and repeat the command: it goes on from here",
    )


def _put_to_sleep(server: LaunchedServer) -> None:
    level = 2 if server.spec.role == "rollouts" else 1  # these get their weights anew when they wake
    with httpx.Client(trust_env=False, timeout=None) as client:
        headers = {"Authorization": f"Bearer {server.key}"}
        client.post(f"{server.url.removesuffix('/v1')}/sleep?level={level}", headers=headers).raise_for_status()
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
        servers.end(list(servers.running))


@contextlib.contextmanager
def serving(recipe: Recipe, stage: str, path: str | None = None) -> Iterator[Recipe]:
    """The servers of a stage; of several processes that train together the first starts them, and all are told.

    Args:
        recipe: the run's; the block gets it with addresses where it says `launch`.
        stage: its name.
        path: of an evaluation, the model that is tested.

    Raises:
        ConfigError: there is no vLLM, or no such GPU, or two programs are given one.
        TeacherError, SamplerError: a server has ended at its start, or does not answer in time.
    """
    group = processes()
    with keeping() as servers:
        told: list[tuple[Keys, list[str], str, str]] = []
        if group.first:
            for keys, found in servers.enter(recipe, stage, path).items():
                urls = [servers.running[one].url for one in found]
                told.append((keys, urls, found[0].served, servers.running[found[0]].key))
        for keys, urls, served, key in group.gather(told)[0]:
            recipe = _with(recipe, keys, {"urls": tuple(urls), "model": served})
            for url in urls:
                STARTED.setdefault(url, Started(key))
        yield recipe


def _with(section: Any, keys: Sequence[str], update: Mapping[str, object]) -> Any:
    """A section with other values in a section below it."""
    if not keys:
        return section.model_copy(update=update)
    if isinstance(section, dict):
        return {**section, keys[0]: _with(section[keys[0]], keys[1:], update)}
    return section.model_copy(update={keys[0]: _with(getattr(section, keys[0]), keys[1:], update)})
