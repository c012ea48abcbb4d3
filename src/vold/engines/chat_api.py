"""Ask a server that speaks the OpenAI chat protocol, such as `vllm serve`."""

from __future__ import annotations

import base64
import io
import itertools
import math
import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vold.engines.http import (
    BUSY,
    CONNECT_SECONDS,
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    TIMEOUT_SECONDS,
    retry_after,
    words,
)
from vold.errors import ConfigError, SamplerError
from vold.types import Message, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image

    from vold.run.model_sections import Endpoint
    from vold.types import Finish

ATTEMPTS = 6
REFUSES_ALL = (401, 403, 404)
"""Wrong key, no permission, wrong address or model: the next request would fare no better."""

FACTOR = 28
"""Qwen2.5-VL scales the sides of a picture to multiples of this many pixels."""


@dataclass(frozen=True)
class EndpointReply:
    """The answer to request `index`. `error` holds the server's words where it refused this one request."""

    index: int
    text: str
    finish: Finish
    tokens: int
    error: str = ""


class EndpointSampler:
    """Sends chat requests to one or several servers, several at a time.

    Args:
        urls: base addresses that end in `/v1`; request i goes to the i-th in turn, a retry to the next.
        model: the name the server gives the model.
        key: bearer token; empty for none. It is held in memory only.
        concurrency: requests under way at a time.
        first_wait: seconds before the first retry; each further wait is twice as long, up to `LONGEST_WAIT_SECONDS`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        *,
        key: str = "",
        concurrency: int = 32,
        first_wait: float = FIRST_WAIT_SECONDS,
    ) -> None:
        import httpx

        self.urls, self.model, self.concurrency = [u.rstrip("/") for u in urls], model, concurrency
        self.first_wait = first_wait
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=concurrency),
        )
        self._turn = itertools.count()
        self._proven: set[bool] = set()  # kinds of request (with a picture or not) that this server has answered
        self._lock = threading.Lock()

    @classmethod
    def from_config(cls, config: Endpoint) -> EndpointSampler:
        """Build from a recipe's section.

        Raises:
            ConfigError: the environment variable of `key_env` is not set.
        """
        key = os.environ.get(config.key_env, "") if config.key_env else ""
        if config.key_env and not key:
            raise ConfigError(
                "this environment variable is not set", where="key_env", got=config.key_env, fix="export it, or drop it"
            )
        return cls(config.urls, config.model, key=key, concurrency=config.concurrency)

    def answer(
        self,
        prompts: Sequence[tuple[Message, ...]],
        params: SamplingParams,
        samples: Sequence[int],
        *,
        pixels: tuple[int, int] | None = None,
    ) -> Iterator[EndpointReply]:
        """Yield one reply a prompt as it comes, not in order. `samples[i]` numbers the draw and moves its seed.

        `pixels` are the least and most pixels of a picture: it is scaled to them before it is sent, so that the limits
        of a protocol hold on any server. A request that is refused on its own account (a picture too large, a prompt
        too long) yields a reply with `error`.

        Raises:
            SamplerError: no server answers after `ATTEMPTS` tries, or it refuses every request. No new request is
                sent then, and what is under way and still arrives is yielded before the error is raised.
        """
        jobs = iter(enumerate(zip(prompts, samples, strict=True)))
        results: queue.SimpleQueue[EndpointReply | Exception | None] = queue.SimpleQueue()
        # A consumer that is slow to store replies must not let paid-for ones pile up in memory.
        room, stop, lock = threading.Semaphore(2 * self.concurrency), threading.Event(), threading.Lock()

        def work() -> None:
            while room.acquire() and not stop.is_set():
                with lock:
                    job = next(jobs, None)
                if job is None:
                    break
                index, (messages, sample) = job
                try:
                    results.put(self._one(index, messages, params, sample, pixels, stop))
                except Exception as error:  # handed to the consumer's thread
                    results.put(error)
                    stop.set()
            results.put(None)

        # Daemons: an interrupted evaluation must not wait for answers that nobody will store.
        workers = min(self.concurrency, len(prompts))
        for _ in range(workers):
            threading.Thread(target=work, daemon=True).start()
        failure: Exception | None = None
        try:
            while workers:
                result = results.get()
                if result is None:
                    workers -= 1
                elif isinstance(result, Exception):
                    failure = failure or result
                    room.release(self.concurrency)
                else:
                    yield result
                    room.release()
        finally:
            stop.set()
            room.release(self.concurrency)
        if failure is not None:
            raise failure

    def chat(self, messages: tuple[Message, ...], params: SamplingParams) -> EndpointReply:
        """One reply. Raises as `answer`."""
        return self._one(next(self._turn), messages, params, 0, None, threading.Event())

    def _one(
        self,
        index: int,
        messages: tuple[Message, ...],
        params: SamplingParams,
        sample: int,
        pixels: tuple[int, int] | None,
        stop: threading.Event,
    ) -> EndpointReply:
        body = {
            "model": self.model,
            "messages": [{"role": m.role, "content": content(m, pixels)} for m in messages],
            "max_tokens": params.max_new_tokens,
            "temperature": params.temperature,
            "seed": (params.seed + 1_000_003 * sample) % 2**31,
        }
        with_picture = any(m.images for m in messages)
        reply = self._send(index, body, stop)
        if not reply.error:
            self._proven.add(with_picture)
            return reply
        with self._lock:
            if with_picture not in self._proven:
                self._prove(params, with_picture, reply, stop)
        return reply

    def _prove(self, params: SamplingParams, with_picture: bool, refused: EndpointReply, stop: threading.Event) -> None:
        """After a refusal with nothing answered yet: does the server refuse this request, or all of its kind?"""
        images: tuple[Image, ...] = ()
        if with_picture:
            from PIL import Image as pil

            images = (pil.new("RGB", (4 * FACTOR, 4 * FACTOR), "white"),)
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content(Message("user", "Reply with the letter A.", images))}],
            "max_tokens": params.max_new_tokens,
            "temperature": params.temperature,
            "seed": 0,
        }
        if self._send(refused.index, body, stop).error:
            raise SamplerError(
                "the server refuses every request" + (" with a picture" if with_picture else ""),
                where=", ".join(self.urls),
                got=refused.error,
                fix="does the model's context hold max_new_tokens and a prompt, and does it see pictures?",
            )
        self._proven.add(with_picture)

    def _send(self, index: int, body: dict[str, Any], stop: threading.Event) -> EndpointReply:
        import httpx

        problem, wait = "", self.first_wait
        for attempt in range(ATTEMPTS):
            url, asked = self.urls[(index + attempt) % len(self.urls)], 0.0
            try:
                response = self.client.post(f"{url}/chat/completions", json=body)
            except httpx.HTTPError as error:
                problem = f"{url}: {type(error).__name__}: {error}"
            else:
                status, said = response.status_code, words(response)
                if status == 200:
                    reply = _reply(index, response)
                    if reply is not None:
                        return reply
                    problem = f"{url}: no whole chat completion: {said}"
                elif status in REFUSES_ALL:
                    raise SamplerError(
                        "the server refuses every request",
                        where=url,
                        got=f"status {status}: {said}",
                        fix="check the address (it ends in /v1), the model's name and the key",
                    )
                elif 400 <= status < 500 and status not in BUSY:
                    return EndpointReply(index, "", "stop", 0, f"status {status}: {said}")
                else:
                    problem, asked = f"{url}: status {status}: {said}", retry_after(response)
            if attempt == ATTEMPTS - 1 or stop.wait(min(max(wait, asked), LONGEST_WAIT_SECONDS)):
                break
            wait *= 2
        raise SamplerError(
            "no server answers",
            where=", ".join(self.urls),
            got=f"{attempt + 1} tries, the last: {problem}",
            fix="start the server again and repeat the command: it goes on with what is missing",
        )


def content(message: Message, pixels: tuple[int, int] | None = None) -> str | list[dict[str, Any]]:
    """A turn as the protocol wants it: text, or a list of texts and of pictures as data URIs.

    Raises:
        DataError: another number of `<image>` markers than pictures.
    """
    if not message.images:
        return message.text
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _data_uri(part, pixels)}}
        for part in message.parts()
    ]


def fitted_size(width: int, height: int, pixels: tuple[int, int]) -> tuple[int, int]:
    """The size Qwen2.5-VL gives a picture under these limits of its area: multiples of 28, the shape nearly kept.

    Example:
        >>> fitted_size(100, 100, (1280 * 28 * 28, 16384 * 28 * 28))
        (1008, 1008)
    """
    least, most = pixels
    size = tuple(max(FACTOR, round(side / FACTOR) * FACTOR) for side in (width, height))
    area = width * height
    if math.prod(size) > most:
        scale = math.sqrt(area / most)
        size = tuple(max(FACTOR, math.floor(side / scale / FACTOR) * FACTOR) for side in (width, height))
    elif math.prod(size) < least:
        scale = math.sqrt(least / area)
        size = tuple(math.ceil(side * scale / FACTOR) * FACTOR for side in (width, height))
    return size[0], size[1]


def _data_uri(image: Image, pixels: tuple[int, int] | None) -> str:
    if pixels is not None:
        from PIL import Image as pil

        size = fitted_size(image.width, image.height, pixels)
        image = image.resize(size, pil.Resampling.BICUBIC) if size != image.size else image
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _reply(index: int, response: Any) -> EndpointReply | None:
    """Read a completion; thinking that the server has split off is put back in front. None if it is not whole."""
    try:
        choice = (data := response.json())["choices"][0]
        message = choice["message"]
        text, thought = message.get("content") or "", message.get("reasoning_content") or message.get("reasoning")
        tokens = int((data.get("usage") or {}).get("completion_tokens") or 0)
        reason = choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    if not isinstance(text, str) or reason in ("abort", "error"):  # what a server says that is being stopped
        return None
    finish: Finish = "length" if reason == "length" else "stop"
    if thought:
        # Cut off while thinking, the block stays open, as it would in the model's own text.
        text = f"<think>{thought}</think>{text}" if text or finish == "stop" else f"<think>{thought}"
    return EndpointReply(index, text, finish, tokens)
