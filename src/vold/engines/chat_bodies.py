"""Chat requests as JSON: pictures scaled and encoded once for all draws of an answer, a little before their turn."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from vold.data.files.images import png_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from vold.run.records import JsonObject
    from vold.types import Message

    Limits = tuple[int, int] | None
    """Least and most pixels of a picture; None leaves it as it is."""

FACTOR = 28
"""Qwen2.5-VL scales the sides of a picture to multiples of this many pixels."""
AHEAD = 32
"""Prompts that are written before a request asks for them: their pictures wait for a place on a server, and not the
place for them."""


class Written:
    """The messages of many requests as JSON. Safe to use from several threads.

    Requests that follow each other and share one tuple of messages share what is written. It is held from a little
    before the first of them is sent until the last is answered.

    Args:
        prompts: the messages of every request, in the order in which they are sent.
        pixels: the limits of a request's pictures.
    """

    def __init__(self, prompts: Sequence[tuple[Message, ...]], pixels: Sequence[Limits]) -> None:
        self._own: list[int] = []  # of each request, the place of its messages in `_distinct`
        self._distinct: list[tuple[tuple[Message, ...], Limits]] = []
        for messages, limits in zip(prompts, pixels, strict=True):
            last = self._distinct[-1] if self._distinct else None
            if last is None or last[0] is not messages or last[1] != limits:
                self._distinct.append((messages, limits))
            self._own.append(len(self._distinct) - 1)
        self._left, self._begun, self._held = Counter(self._own), 0, dict[int, Future[bytes]]()
        self._lock = threading.Lock()
        # zlib and Pillow let other threads work meanwhile.
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pictures")

    def take(self, request: int) -> bytes:
        """The messages of a request.

        Raises:
            DataError: another number of `<image>` markers than pictures.
        """
        own = self._own[request]
        with self._lock:
            for place in range(self._begun, min(own + 1 + AHEAD, len(self._distinct))):
                self._held[place] = self._pool.submit(written, *self._distinct[place])
                self._begun = place + 1
            future = self._held[own]
        return future.result()

    def drop(self, request: int) -> None:
        """Say that a request needs its messages no more."""
        own = self._own[request]
        with self._lock:
            self._left[own] -= 1
            if not self._left[own]:
                del self._held[own]

    def close(self) -> None:
        """Write nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def written(messages: tuple[Message, ...], pixels: Limits = None) -> bytes:
    """The beginning of a request, an object in JSON, with these messages. Raises as `content`."""
    turns = [{"role": m.role, "content": content(m, pixels)} for m in messages]
    return json.dumps({"messages": turns}).encode()[:-1]


def content(message: Message, pixels: Limits = None) -> str | list[JsonObject]:
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


def _data_uri(image: Image, pixels: Limits) -> str:
    if pixels is not None:
        from PIL import Image as pil

        size = fitted_size(image.width, image.height, pixels)
        image = image.resize(size, pil.Resampling.BICUBIC) if size != image.size else image
    return png_uri(image)
