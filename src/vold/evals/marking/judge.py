"""A judge model behind an endpoint, and what it has said so far."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import benchmarks
from vold.data.benchmarks.wording import MCQ
from vold.errors import SamplerError
from vold.graders.extract import THINK_OPEN, after_thinking
from vold.run.files import append_jsonl, bad_row, cut_rows, read_records
from vold.types import Message, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vold.engines.chat_api import EndpointSampler

JUDGE_VERSION = "4"
"""Part of the judge's identity. Change it with any change to what is sent to a judge and how its reply is read."""

PARAMS = SamplingParams(max_new_tokens=128, temperature=0.0)
"""VLMEvalKit's limit."""


class Unusable(Exception):
    """The judge's reply cannot be used; says why."""


@dataclass(frozen=True)
class _Reply:
    """A row of a judge's file: the digest of what it was asked, and its words."""

    key: str
    reply: str


class Judge:
    """A judge behind an endpoint. Its replies are kept by what it was asked (its model's name, the words, the
    sampling), whoever serves it and whatever becomes of the reply: another marking, another set, another protocol that
    asks the same costs no second call. Safe to call from several threads.

    Args:
        endpoint: the judge's server.
        directory: where replies are kept.
        shared: several processes may keep theirs there. Each writes a file of its own, and reads those of all.

    Raises:
        CheckpointError: a reply there is damaged.
    """

    def __init__(self, endpoint: EndpointSampler, directory: Path, *, shared: bool = False) -> None:
        self.endpoint = endpoint
        name = hashlib.sha256(endpoint.model.encode()).hexdigest()[:12]
        self.file = directory / (f"{name}-{secrets.token_hex(6)}.jsonl" if shared else f"{name}.jsonl")
        self.replies: dict[str, str] = {}
        for file in sorted(directory.glob(f"{name}*.jsonl")):
            self._read(file)
        self._asked: dict[str, Future[str]] = {}
        self._unsaved: list[_Reply] = []
        self._lock, self._writing = threading.Lock(), threading.Lock()

    def _read(self, file: Path) -> None:
        rows = read_records(file, _Reply)
        if file == self.file:
            cut_rows(file, len(rows))
        own: set[str] = set()
        for n, row in enumerate(rows, 1):
            if row.key in own:
                raise bad_row(file, n, "a second reply to one question")
            own.add(row.key)
            self.replies.setdefault(row.key, row.reply)

    @property
    def identity(self) -> str:
        """The judge's model and a digest of all it is asked with: part of the protocol hash."""
        asked = [JUDGE_VERSION, PARAMS.max_new_tokens, PARAMS.temperature, _texts()]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.endpoint.model} ({digest})"

    def said(self, prompt: str, system: str = "") -> str | None:
        """The judge's reply if it was asked before."""
        with self._lock:
            return self.replies.get(self._key(prompt, system))

    def _key(self, prompt: str, system: str) -> str:
        asked = [self.endpoint.model, system, prompt, PARAMS.max_new_tokens, PARAMS.temperature]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def ask(self, prompt: str, system: str = "") -> str:
        """The judge's reply, the one that is kept if it was asked before; who asks the same meanwhile waits for it.

        Raises:
            SamplerError: the judge cannot be reached, refuses every request, or does not get past its own thinking.
            Unusable: it refuses this one.
        """
        key = self._key(prompt, system)
        with self._lock:
            if key in self.replies:
                return self.replies[key]
            waiting = self._asked.get(key)
            ours = self._asked.setdefault(key, Future())
        if waiting is not None:
            return waiting.result()
        try:
            reply = self._reply(prompt, system)
            self._keep(key, reply)
            ours.set_result(reply)
        except BaseException as error:
            ours.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._asked[key]
        return reply

    def _reply(self, prompt: str, system: str) -> str:
        turns = (Message("system", system),) if system else ()
        try:
            reply = self.endpoint.chat((*turns, Message("user", prompt)), PARAMS)
        except SamplerError as error:
            fix = f"mend it and repeat the command: the judge's replies so far are in {self.file}"
            raise SamplerError(f"the judge: {error.what}", where=error.where, got=error.got, fix=fix) from error
        if reply.error:
            raise Unusable(f"it refused: {reply.error}")
        if reply.finish == "length" and after_thinking(reply.text) is None:
            raise SamplerError(
                f"the judge: {PARAMS.max_new_tokens} tokens were not enough for its thinking",
                where=", ".join(self.endpoint.urls),
                got=f"{THINK_OPEN}..: {self.endpoint.model}",
                fix="serve a judge that does not think, or with thinking switched off in its chat template",
            )
        return reply.text

    def _keep(self, key: str, reply: str) -> None:
        """Store a reply, together with those of other threads that wait for the disk."""
        with self._lock:
            self.replies[key] = reply
            self._unsaved.append(_Reply(key, reply))
        with self._writing:
            with self._lock:
                rows, self._unsaved = self._unsaved, []
            if rows:
                append_jsonl(self.file, rows)


def _texts() -> Mapping[str, object]:
    """Everything that any benchmark has a judge asked."""
    found = dict(MCQ.content())
    for benchmark in benchmarks().values():
        found |= benchmark.judging.content() if benchmark.judging is not None else {}
    return found
