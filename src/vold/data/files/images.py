"""Pictures as data sets store them: a struct of bytes and path, bytes, base64, a data URI, a path, a list of these."""

from __future__ import annotations

import ast
import base64
import binascii
import io
import warnings
from typing import TYPE_CHECKING, Any

from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

MAX_PIXELS = 64_000_000
"""A larger picture is refused: it is a mistake or an attack, and would be scaled down anyway."""


def to_image(value: Any, open_path: Callable[[str], bytes]) -> Image:
    """Decode one stored picture to RGB. `open_path` reads a path relative to the data.

    Raises:
        DataError: it cannot be decoded, is cut short or is larger than `MAX_PIXELS`.
    """
    from PIL import Image as pil

    if isinstance(value, pil.Image):
        return value.convert("RGB")
    raw = image_bytes(value, open_path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pil.DecompressionBombWarning)
            with pil.open(io.BytesIO(raw)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError("this picture is too large", got=f"{image.width} x {image.height} pixels")
                return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("this picture cannot be decoded", got=str(error)[:200]) from None


def png_bytes(image: Image) -> bytes:
    """A picture as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def png_uri(image: Image) -> str:
    """A picture as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def image_values(value: Any) -> list[Any]:
    """The stored pictures of a cell as a list: none, one, a list, or a list written as text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [value]
    if isinstance(value, (list, tuple)):
        return [v for v in value if v is not None]
    return [value]


def image_bytes(value: Any, open_path: Callable[[str], bytes]) -> bytes:
    """The encoded picture of a cell, as it was stored.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, dict):
        if value.get("bytes"):
            return bytes(value["bytes"])
        value = value.get("path")
    if not isinstance(value, str) or not value:
        raise DataError("there is no picture where one is named", got=repr(value)[:100])
    if value.startswith("data:image/"):
        value = value.partition(",")[2]
        return _base64(value)
    # A path is short and has a dot near its end; base64 text of any picture is longer than any path.
    if len(value) < 300 and "." in value[-6:]:
        return open_path(value)
    return _base64(value)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise DataError("this picture is neither base64 nor a path", got=text[:60]) from None
