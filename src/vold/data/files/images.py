"""Pictures as data sets store them: a struct of bytes and path, bytes, base64, a data URI, a path, a list of these."""

from __future__ import annotations

import ast
import base64
import binascii
import contextlib
import io
import stat
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL.Image import Image

MAX_PIXELS = 64_000_000
"""A larger picture is refused: it is a mistake or an attack, and would be scaled down anyway."""

MAX_BYTES = 256_000_000
"""A larger file is refused before it is read."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")
"""Formats that are read: those that hold pixels. Pillow would hand others, such as EPS, to other programs."""


STILL_BRANDS = (b"avif", b"avis", b"mif1", b"msf1", b"heic", b"heix")
"""Pictures that come in the container of MP4."""


def to_image(value: Any, open_path: Callable[[str], bytes]) -> Image:
    """One stored picture in RGB, as `as_shown` says. `open_path` reads a path relative to the data.

    Raises:
        DataError: it cannot be decoded, is cut short or is too large.
    """
    from PIL import Image as pil

    return as_shown(value) if isinstance(value, pil.Image) else decoded(image_bytes(value, open_path))


def _is_video(raw: bytes) -> bool:
    """By the first bytes of MP4 and QuickTime, Matroska and WebM, AVI, and MPEG."""
    boxed = raw[4:8] == b"ftyp" and raw[8:12] not in STILL_BRANDS
    return boxed or raw.startswith((b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba")) or (raw[:4] + raw[8:12]) == b"RIFFAVI "


def decoded(raw: bytes) -> Image:
    """An encoded picture in RGB, as `as_shown` says.

    Raises:
        DataError: it cannot be decoded, is cut short or is too large.
    """
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    if _is_video(raw):
        fix = "give its frames as pictures"
        raise DataError("this is a video, and no model is shown videos here", got=f"{len(raw):,} bytes", fix=fix)
    if len(raw) > MAX_BYTES:
        raise DataError("this picture is too large", got=f"{len(raw):,} bytes", fix=f"at most {MAX_BYTES:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs, which are refused below, and of odd but readable metadata
            with pil.open(io.BytesIO(raw), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    got = f"{image.width} x {image.height} pixels"
                    raise DataError("this picture is too large", got=got, fix=f"at most {MAX_PIXELS:,} pixels")
                if image.format == "PNG":
                    _check_rows(raw)
                return as_shown(image)
    except DataError:
        raise
    except Exception as error:  # a decoder that is given rubbish raises anything: struct.error, KeyError, EOFError
        got = "no such format" if isinstance(error, UnidentifiedImageError) else str(error)[:200]
        raise DataError("this picture cannot be decoded", got=got, fix=f"formats: {', '.join(FORMATS)}") from None


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of the passes of an interlaced PNG: first column and row, and the steps across and down."""


def _check_rows(raw: bytes) -> None:
    """See that a PNG holds all its rows: where its compressed data end early, Pillow leaves the rest black.

    Raises:
        ValueError: it does not.
    """
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBBxxB", raw, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    needed = 0
    for x, y, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = len(range(x, width, across)), len(range(y, height, down))
        needed += rows * (1 + -(-columns * bits // 8)) if columns else 0
    inflate, at, found = zlib.decompressobj(), 8, 0
    while found < needed and at + 8 <= len(raw):
        length, kind = struct.unpack_from(">I4s", raw, at)
        if kind == b"IDAT":
            found += len(inflate.decompress(raw[at + 8 : at + 8 + length], needed))
        at += 12 + length
    if found < needed:
        raise ValueError(f"{found} of {needed} bytes of pixels")


def read_file(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        DataError: there is none, it is no ordinary file, or it is larger than `MAX_BYTES`.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError("this picture is no ordinary file", where=str(path))
        if found.st_size > MAX_BYTES:
            got = f"{found.st_size:,} bytes"
            raise DataError("this picture is too large", where=str(path), got=got, fix=f"at most {MAX_BYTES:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("cannot open this picture", where=repr(str(path)), got=str(error)) from None


def as_shown(image: Image) -> Image:
    """A picture in RGB as a viewer shows it.

    Turned as its EXIF data say; the first frame of a moving one; on white where it is transparent; CMYK by its own
    colour profile; deep grey scaled to 8 bit. Grey of floating point or 32 bit has no agreed white: values from 0 to 1
    (floating point), 255 or 65535 are taken for parts of that, others are spread from their least to their largest.
    """
    from PIL import ImageOps

    image.seek(0)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _grey(image).convert("RGB")
    if image.mode == "CMYK":
        return _by_profile(image)
    if image.has_transparency_data:
        from PIL import Image as pil

        shown = image.convert("RGBA")
        return pil.alpha_composite(pil.new("RGBA", shown.size, "white"), shown).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image) -> Image:
    from PIL import Image as pil

    floating = image.mode.startswith("F")
    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, posinf=3e38, neginf=-3e38)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:
        ranges = (1.0, 255.0, 65535.0) if floating else (255.0, 65535.0)
        white = next((w for w in ranges if low >= 0 and high <= w), 0.0)
    if not white:
        values, white = values - low, high - low
    return pil.fromarray(np.rint(values / white * 255).astype(np.uint8))


def _by_profile(image: Image) -> Image:
    """CMYK as its colour profile says; by the plain formula where it has none, or a broken one."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source, screen = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            shown = ImageCms.profileToProfile(image, source, screen, outputMode="RGB")
            if shown is not None:
                return shown
    return image.convert("RGB")


def png_bytes(image: Image) -> bytes:
    """A picture as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def thumbnail(image: Image, limit: int = 512) -> str:
    """The picture as a PNG data URI, made smaller where a side is over `limit` pixels."""
    if max(image.size) > limit:
        image = image.copy()
        image.thumbnail((limit, limit))
    return png_uri(image)


def png_uri(image: Image) -> str:
    """A picture as a data URI, in RGB."""
    return "data:image/png;base64," + base64.b64encode(_quick_png(image)).decode()


def _quick_png(image: Image) -> bytes:
    """A picture as PNG, written many times faster than Pillow writes it and about as small.

    Pillow tries five filters on every row. Here each row is stored as its difference to the one above, and compressed
    by runs alone: a photograph of 1 megapixel takes 25 ms and not 270, a figure 8 ms and not 33. Layout: RFC 2083.
    """
    pixels = np.asarray(image.convert("RGB"))
    rows = pixels.reshape(len(pixels), -1)
    filtered = np.full((len(rows), 1 + rows.shape[1]), 2, np.uint8)
    filtered[:1, 1:] = rows[:1]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packing = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    packed = packing.compress(filtered.data) + packing.flush()
    head = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        for kind, data in chunks
    )


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
