"""Talk to vLLM servers that all hold the same model.

A run that trains for days outlives its servers. A server that does not answer is reported once and waited for up to
`patience` seconds; only then does the caller get an error, and until then nothing is lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from vold.engines.deadline import Stop
from vold.engines.http import Failed, HttpClient, as_they_come
from vold.engines.launch.started import started_at
from vold.engines.places import Groups
from vold.engines.replies import VllmReply, about
from vold.errors import VoldError
from vold.model.parallel import processes
from vold.model.place import give_back
from vold.run.console import console
from vold.run.records import JsonObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vold.run.model_sections import Server


WORDS = ("/load_lora_adapter", "/unload_lora_adapter")
"""Routes whose reply is a sentence, which says nothing beside the status."""
CACHES = ("/reset_prefix_cache?reset_running_requests=true", "/reset_encoder_cache")
"""Routes that drop keys and values, also those of requests that were cut off a moment ago, and what the vision tower
has made of pictures."""
SILENT = ("/wake_up", "/sleep", "/collective_rpc", "/update_weight_version", "/reset_encoder_cache", *WORDS)
"""Routes whose reply may be empty."""


class VllmClient(HttpClient[VllmReply]):
    """Servers that all hold the same model. Args and errors: `HttpClient`."""

    words = WORDS

    def __init__(
        self,
        config: Server,
        *,
        role: str,
        error: type[VoldError],
        report: Callable[[str], None] = lambda words: console.print(words),
    ) -> None:
        each = max(1, config.concurrency // processes().world)  # all processes of a stage ask the same servers
        super().__init__(config.model_copy(update={"concurrency": each}), role=role, error=error, report=report)
        self.patience, self.sleep = config.patience, config.sleep
        self._awake = False

    def post(
        self,
        path: str,
        bodies: Sequence[JsonObject],
        *,
        root: bool = False,
        own: Sequence[Sequence[JsonObject]] = (),
        tasks: Sequence[str] = (),
        on_reply: Callable[[int, VllmReply], None] = lambda place, reply: None,
    ) -> list[VllmReply]:
        """POST each body to some server, several at a time; replies in the order of the requests.

        Args:
            path: below `/v1`, or below the servers' root where `root` is set.
            bodies: JSON to send; the model's name is added.
            root: see `path`.
            own: for each body, what is added to it for each of the requests that it makes: those go to one server, each
                as it has room. By default one, as it stands.
            tasks: ids of the tasks that the bodies are about, for messages.
            on_reply: called in this thread with the number of a request and its reply, in the order of the replies.

        Raises:
            VoldError: of the class `error`. A request was refused for good, or no server answered within `patience`.
        """
        bases = self._bases(root)
        own = own or [({},)] * len(bodies)
        groups = Groups(self.places, [{"model": self.model, **body} for body in bodies], own)
        call = partial(self._ask, groups, tasks or [""] * len(bodies), bases, path)
        found: dict[int, VllmReply] = {}
        with contextlib.closing(as_they_come([call] * sum(map(len, own)), self.workers())) as replies:
            for _, (number, reply) in replies:
                found[number] = reply
                on_reply(number, reply)
        return [found[i] for i in range(len(found))]

    def _ask(
        self, groups: Groups, tasks: Sequence[str], bases: Sequence[str], path: str, stop: Stop
    ) -> tuple[int, VllmReply]:
        """The number of the next request, and its reply."""
        base, group, number, body = groups.take(self.in_turn(bases), stop)
        task = tasks[group]
        try:
            return number, dataclasses.replace(self.send(bases, path, body, stop, taken=base), task=task)
        except VoldError as error:
            if not task or not error.got.startswith("status "):
                raise
            raise type(error)(error.what, where=about(task, error.where), got=error.got, fix=error.fix) from None

    def each(
        self, path: str, body: JsonObject | None = None, *, get: bool = False, root: bool = False, must: bool = True
    ) -> list[VllmReply | None]:
        """POST the same body to every server, or GET from every one; replies in the order of `urls`.

        Args:
            path: below `/v1`, or below the server's root where `root` is set.
            body: JSON to send.
            get: GET instead.
            root: see `path`.
            must: wait for each server. Otherwise one that does not answer at once is reported and gives None.

        Raises:
            VoldError: as `post`.
        """

        def ask(base: str, stop: Stop) -> VllmReply | None:
            if must:
                return self.send([base], path, body, stop, get=get)
            found = self.send_once(base, path, body, stop, get=get, seconds=max(self.patience, self.shortest))
            if isinstance(found, Failed):
                self.report(f"{self.server} {base} does not answer; going on with the others")
            return None if isinstance(found, Failed) else found

        found = dict(as_they_come([partial(ask, base) for base in self._bases(root)], len(self.urls)))
        return [found[i] for i in range(len(self.urls))]

    @contextlib.contextmanager
    def awake(self, bring: Callable[[], None] | None = None) -> Iterator[None]:
        """Wake the servers, and put them to sleep again after the block. Nothing is done without `sleep`, or where an
        outer block has woken them.

        Args:
            bring: gives them weights, where their own are of no use after sleep. Then nothing is kept of these while
                they sleep, and keys and values get their memory after the weights have come: both at once may not fit
                beside what brings them.
        """
        if not self.sleep or self._awake:
            yield
            return
        for one in started_at(self.urls):
            one.turn.set()
        give_back()
        if bring is None:
            self.each("/wake_up", root=True)
        else:
            self.each("/wake_up?tags=weights", root=True)
            bring()
            give_back()  # what the weights were made with
            self.each("/wake_up?tags=kv_cache", root=True)
        self._awake = True
        try:
            yield
        finally:
            self._awake = False
        self.each(f"/sleep?level={1 if bring is None else 2}", root=True)
        for one in started_at(self.urls):
            one.turn.clear()

    def context(self) -> int:
        """Tokens that prompt and response may have together: the least of all servers; 0 where one does not say.

        Raises:
            VoldError: a server does not know the model; otherwise as `post`.
        """
        return min(reply.context(self.model) for reply in self.each("/models", get=True) if reply is not None)

    def _bases(self, root: bool) -> list[str]:
        return [u.removesuffix("/v1") for u in self.urls] if root else self.urls

    def read(self, base: str, path: str, value: object) -> VllmReply | None:
        """The body's object, {} where it may be empty."""
        if value is None and path.partition("?")[0] in SILENT:
            value = {}
        return VllmReply(value, base, self.server, self.error) if isinstance(value, dict) else None

    def refuse(self, url: str, status: int, message: str) -> VllmReply:
        """An error: other requests would fare no better."""
        raise self.error(
            f"the {self.server} refuses a request",
            where=url,
            got=f"status {status}: {message}",
            fix="docs/engines.md says how to start a server, and with which options",
        )
