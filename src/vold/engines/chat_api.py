"""Ask a server that speaks the OpenAI chat protocol, such as `vllm serve`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from vold.engines.chat_bodies import FACTOR, Written, written
from vold.engines.deadline import Stop
from vold.engines.http import HttpClient, in_batches
from vold.engines.replies import is_count, plain
from vold.errors import SamplerError
from vold.types import Message, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vold.engines.chat_bodies import Limits
    from vold.run.model_sections import Endpoint
    from vold.types import Finish

ATTEMPTS = 6
"""Rounds over all servers before none is said to answer."""
REFUSES_ONE = (400, 413, 414, 422, 431)
"""A prompt too long, a picture too large. Any other refusal (wrong key, no permission, wrong address or model) would
meet the next request too."""


@dataclass(frozen=True)
class EndpointReply:
    """The answer to request `index`. `error` holds the server's words where it refused this one request, `stopped` what
    it says ended the text and is not in it."""

    index: int
    text: str
    finish: Finish
    tokens: int
    error: str = ""
    stopped: str = ""


class EndpointSampler(HttpClient[EndpointReply]):
    """Sends chat requests. Args and errors: `HttpClient`."""

    rounds = ATTEMPTS
    most_bytes = 16 << 20  # a few hundred times an answer of 8,192 tokens

    def __init__(self, config: Endpoint) -> None:
        super().__init__(config, error=SamplerError)
        self._proving = Lock()
        self._proven: set[bool] = set()  # kinds of request (with a picture or not) that this server has answered

    def answer(
        self,
        prompts: Sequence[tuple[Message, ...]],
        params: SamplingParams,
        samples: Sequence[int],
        *,
        pixels: Sequence[Limits] = (),
    ) -> Iterator[list[EndpointReply]]:
        """Yield one reply a prompt, in batches of those that have come meanwhile. `samples[i]` numbers the draw and
        moves its seed. Prompts that follow each other and are one tuple share their pictures.

        `pixels[i]` are the least and most pixels of a picture: it is scaled to them before it is sent, so that the
        limits of a protocol hold on any server. A request that is refused on its own account (a picture too large, a
        prompt too long) yields a reply with `error`.

        Raises:
            SamplerError: no server answers in `ATTEMPTS` rounds (those that vold starts: within `patience`), or it
                refuses every request. No new request is sent then, and what is under way and still arrives is yielded
                before the error is raised.
        """
        messages = Written(prompts, pixels or [None] * len(prompts))
        calls = [partial(self._numbered, i, sample, prompts[i], messages, params) for i, sample in enumerate(samples)]
        with contextlib.closing(messages), contextlib.closing(in_batches(calls, self.workers())) as batches:
            for batch in batches:
                yield [reply for _, reply in batch]

    def chat(self, messages: tuple[Message, ...], params: SamplingParams) -> EndpointReply:
        """One reply. Raises as `answer`."""
        return self._one(written(messages), _shows(messages), params, Stop())

    def _numbered(
        self,
        index: int,
        sample: int,
        prompt: tuple[Message, ...],
        messages: Written,
        params: SamplingParams,
        stop: Stop,
    ) -> EndpointReply:
        seeded = dataclasses.replace(params, seed=(params.seed + 1_000_003 * sample) % 2**31)
        reply = self._one(messages.take(index), _shows(prompt), seeded, stop)
        messages.drop(index)
        return dataclasses.replace(reply, index=index)

    def _one(self, messages: bytes, with_picture: bool, params: SamplingParams, stop: Stop) -> EndpointReply:
        reply = self._ask(messages, params, stop)
        if reply.error:  # does the server refuse this request, or all of its kind?
            with self._proving:
                if (
                    with_picture not in self._proven
                    and self._ask(written((_harmless(with_picture),)), params, stop).error
                ):
                    raise SamplerError(
                        "the server refuses every request" + (" with a picture" if with_picture else ""),
                        where=", ".join(self.urls),
                        got=reply.error,
                        fix="does the model's context hold max_new_tokens and a prompt, and does it see pictures?",
                    )
        self._proven.add(with_picture)
        return reply

    def _ask(self, messages: bytes, params: SamplingParams, stop: Stop) -> EndpointReply:
        settings = {
            "model": self.model,
            "max_tokens": params.max_new_tokens,
            "temperature": params.temperature,
            "seed": params.seed,
            **params.asked,
        }
        body = messages, b", " + json.dumps(settings).encode()[1:]
        reply = self.send(self.urls, "/chat/completions", body, stop)
        if reply.stopped in params.stop:  # a model's own text keeps it, and leaves open the thinking that it ends
            return dataclasses.replace(reply, text=reply.text.removesuffix("</think>") + reply.stopped, stopped="")
        return dataclasses.replace(reply, stopped="")

    def refuse(self, url: str, status: int, message: str) -> EndpointReply:
        """A reply with `error`, or an error where every request will be refused."""
        said = f"status {status}: {message}"
        if status in REFUSES_ONE:
            return EndpointReply(0, "", "stop", 0, said)
        fix = "check the address (it ends in /v1), the model's name and the key"
        raise SamplerError("the server refuses every request", where=url, got=said, fix=fix)

    def read(self, base: str, path: str, value: object) -> EndpointReply | None:
        """Read a completion; thinking that the server has split off is put back in front. None if it is not whole."""
        if not isinstance(value, dict):
            return None
        try:
            (choice,) = value["choices"]
            said, usage, reason = choice["message"], value.get("usage"), choice.get("finish_reason")
            text, thought = said.get("content"), said.get("reasoning_content", said.get("reasoning"))
            stopped = choice.get("stop_reason")
            tokens = None if usage is None else usage.get("completion_tokens")
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        texts_are_text = all(isinstance(t, str | None) for t in (text, thought, reason))
        says_nothing = "content" not in said and thought is None
        if says_nothing or not texts_are_text or not (tokens is None or is_count(tokens)):
            return None
        text = text or ""
        finish: Finish = "length" if reason == "length" else "stop"
        if thought:
            # Cut off while thinking, the block stays open, as it would in the model's own text.
            text = f"<think>{thought}</think>{text}" if text or finish == "stop" else f"<think>{thought}"
        return EndpointReply(0, plain(text), finish, tokens or 0, stopped=stopped if isinstance(stopped, str) else "")


def _shows(messages: tuple[Message, ...]) -> bool:
    return any(m.images for m in messages)


def _harmless(with_picture: bool) -> Message:
    from PIL import Image as pil

    images = (pil.new("RGB", (4 * FACTOR, 4 * FACTOR), "white"),) if with_picture else ()
    return Message("user", "Reply with the letter A.", images)
