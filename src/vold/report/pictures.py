"""Stored pictures as a page shows them: checked, small ones enlarged, large ones shrunk."""

from __future__ import annotations

import base64
import io
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_BYTES = 200_000
"""A picture of more bytes is made smaller."""
SHRUNK = ((1024, 85), (768, 80), (512, 60))
"""Longest side in pixels and JPEG quality to try in turn until a picture has at most `PICTURE_BYTES`."""
AREA = 50_000_000
"""Pictures of more pixels are not opened."""
SMALL = 64
"""Pictures lower than this many pixels are enlarged, pixel by pixel."""

_URI = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,([A-Za-z0-9+/]+={0,2})\Z")


@dataclass(frozen=True)
class Picture:
    """A data URI with the size it is shown at; without one, `note` says why."""

    uri: str = ""
    width: int = 0
    height: int = 0
    pixelated: bool = False
    note: str = ""


def picture(uri: object) -> Picture:
    """Return a stored data URI as the page shows it. More than `PICTURE_BYTES` are shrunk, which the note says."""
    from PIL import Image

    match = _URI.match(uri) if isinstance(uri, str) else None
    if match is None:
        return Picture(note="a picture cannot be read")
    try:
        data = base64.b64decode(match.group(1), validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > AREA:
                    return Picture(note=f"a picture of {width} by {height} pixels is left out")
                if len(data) > PICTURE_BYTES:
                    return _shrunk(image)
    except (OSError, ValueError, SyntaxError, EOFError, Warning, Image.DecompressionBombError):
        return Picture(note="a picture cannot be read")
    factor = max(1, min(3 * SMALL // 2 // max(1, height), 480 // max(1, width))) if height < SMALL else 1
    return Picture(match.group(), width * factor, height * factor, factor > 1)


def _shrunk(image: Image) -> Picture:
    from PIL import Image

    before = image.size
    flat = Image.new("RGB", before, "white")
    whole = image.convert("RGBA")
    flat.paste(whole, mask=whole)
    for side, quality in SHRUNK:
        flat.thumbnail((side, side))
        buffer = io.BytesIO()
        flat.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= PICTURE_BYTES:
            break
    width, height = flat.size
    note = f"shown as a JPEG of {width} by {height} pixels, stored at {before[0]} by {before[1]}"
    return Picture("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(), width, height, note=note)
