"""Ask a server that speaks the OpenAI chat protocol, such as `vllm serve`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from vold.data.files.images import png_uri
from vold.engines.deadline import Stop
from vold.engines.http import HttpClient, JsonObject, as_they_come
from vold.engines.replies import is_count, plain
from vold.errors import SamplerError
from vold.types import Message, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image

    from vold.run.model_sections import Endpoint
    from vold.types import Finish

ATTEMPTS = 6
"""Rounds over all servers before none is said to answer."""
REFUSES_ONE = (400, 413, 414, 422, 431)
"""A prompt too long, a picture too large. Any other refusal (wrong key, no permission, wrong address or model) would
meet the next request too."""

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


class EndpointSampler(HttpClient[EndpointReply]):
    """Sends chat requests: request i goes to the i-th server in turn. Args and errors: `HttpClient`."""

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
        pixels: tuple[int, int] | None = None,
    ) -> Iterator[EndpointReply]:
        """Yield one reply a prompt as it comes, not in order. `samples[i]` numbers the draw and moves its seed.

        `pixels` are the least and most pixels of a picture: it is scaled to them before it is sent, so that the limits
        of a protocol hold on any server. A request that is refused on its own account (a picture too large, a prompt
        too long) yields a reply with `error`.

        Raises:
            SamplerError: no server answers in `ATTEMPTS` rounds, or it refuses every request. No new request is
                sent then, and what is under way and still arrives is yielded before the error is raised.
        """
        calls = [
            partial(self._one, index, messages, params, sample, pixels)
            for index, (messages, sample) in enumerate(zip(prompts, samples, strict=True))
        ]
        with contextlib.closing(as_they_come(calls, self.concurrency)) as replies:
            for _, reply in replies:
                yield reply

    def chat(self, messages: tuple[Message, ...], params: SamplingParams) -> EndpointReply:
        """One reply. Raises as `answer`."""
        return self._one(next(self._turn), messages, params, 0, None, Stop())

    def _one(
        self,
        index: int,
        messages: tuple[Message, ...],
        params: SamplingParams,
        sample: int,
        pixels: tuple[int, int] | None,
        stop: Stop,
    ) -> EndpointReply:
        with_picture = any(m.images for m in messages)
        seed = (params.seed + 1_000_003 * sample) % 2**31
        reply = self._ask(index, messages, params, seed, pixels, stop)
        if reply.error:  # does the server refuse this request, or all of its kind?
            with self._proving:
                if (
                    with_picture not in self._proven
                    and self._ask(index, (_harmless(with_picture),), params, 0, None, stop).error
                ):
                    raise SamplerError(
                        "the server refuses every request" + (" with a picture" if with_picture else ""),
                        where=", ".join(self.urls),
                        got=reply.error,
                        fix="does the model's context hold max_new_tokens and a prompt, and does it see pictures?",
                    )
        self._proven.add(with_picture)
        return reply

    def _ask(
        self,
        index: int,
        messages: tuple[Message, ...],
        params: SamplingParams,
        seed: int,
        pixels: tuple[int, int] | None,
        stop: Stop,
    ) -> EndpointReply:
        body = {
            "model": self.model,
            "messages": [{"role": m.role, "content": content(m, pixels)} for m in messages],
            "max_tokens": params.max_new_tokens,
            "temperature": params.temperature,
            "seed": seed,
        }
        return dataclasses.replace(self.send(self.urls, "/chat/completions", body, stop, turn=index), index=index)

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
        return EndpointReply(0, plain(text), finish, tokens or 0)


def _harmless(with_picture: bool) -> Message:
    from PIL import Image as pil

    images = (pil.new("RGB", (4 * FACTOR, 4 * FACTOR), "white"),) if with_picture else ()
    return Message("user", "Reply with the letter A.", images)


def content(message: Message, pixels: tuple[int, int] | None = None) -> str | list[JsonObject]:
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
    return png_uri(image)
