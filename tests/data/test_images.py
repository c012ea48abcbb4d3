"""Pictures are shown as a viewer shows them, whatever they were stored as, and what is no whole picture is refused."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vold.data.files.images import FORMATS, MAX_BYTES, decoded, png_bytes, png_uri, read_file, to_image
from vold.errors import DataError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixel(raw: bytes) -> tuple[int, ...]:
    """The first pixel of the picture as it is shown."""
    shown = decoded(raw)
    assert shown.mode == "RGB"
    found = shown.getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


def grey(values: Any, kind: Any) -> Image.Image:
    return Image.fromarray(np.asarray(values, kind))


# A white of 65535 makes 255; 40000 / 65535 x 255 = 155.6. A plain cut to 8 bit makes all of it white.
@pytest.mark.parametrize(("value", "shown"), [(0, 0), (257, 1), (40000, 156), (65535, 255)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bit_is_scaled(value: int, shown: int, kind: str) -> None:
    assert pixel(stored(grey([[value, 65535]], np.uint16), kind)) == (shown,) * 3


def test_colours_of_16_bit_keep_their_upper_half() -> None:
    assert pixel(png(1, 1, b"\0" + struct.pack(">HHH", 0x9C40, 0x8000, 0x00FF), depth=16, colour=2)) == (0x9C, 0x80, 0)


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    """A PNG that holds these rows, each after its filter's number, and says that it has `height` of them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


@pytest.mark.parametrize(
    ("values", "kind", "shown"),
    [
        ([[0.5, 1.0]], np.float32, 128),  # parts of 1
        ([[100.0, 200.0]], np.float32, 100),  # parts of 255
        ([[32768.0, 65535.0]], np.float32, 128),  # parts of 65535
        ([[-1.0, 1.0, 0.0]], np.float32, 0),  # from the least to the largest
        ([[0.0, -2.0, 2.0]], np.float32, 128),
        ([[float("nan"), 1.0]], np.float32, 0),
        ([[7.0, 7.0]], np.float32, 7),
        ([[100, 255]], np.int32, 100),
        ([[32768, 65535]], np.int32, 128),
        ([[1_000_000, 0]], np.int32, 255),
        ([[-5, 5]], np.int32, 0),
    ],
)
def test_grey_without_an_agreed_white(values: Any, kind: Any, shown: int) -> None:
    assert pixel(stored(grey(values, kind), "TIFF")) == (shown,) * 3


def test_what_is_transparent_is_seen_on_white() -> None:
    rgba = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert pixel(stored(rgba, "PNG")) == (255, 255, 255)
    assert pixel(stored(half, "PNG")) == (127, 127, 127)
    assert pixel(stored(Image.new("LA", (2, 2), (0, 0)), "PNG")) == (255, 255, 255)
    assert pixel(stored(rgba, "WEBP", lossless=True, exact=True)) == (255, 255, 255)


def test_palettes_and_bits() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putdata([1, 0])
    assert pixel(stored(palette, "PNG")) == GREEN
    assert pixel(stored(palette, "PNG", transparency=1)) == (255, 255, 255)
    assert pixel(stored(palette, "GIF")) == GREEN
    assert pixel(stored(Image.new("1", (2, 1), 1), "PNG")) == (255, 255, 255)
    assert pixel(stored(Image.new("L", (2, 1), 9), "PNG", transparency=9)) == (255, 255, 255)
    assert pixel(stored(Image.new("RGB", (2, 1), RED), "PNG", transparency=RED)) == (255, 255, 255)


def test_of_a_moving_picture_the_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in (RED, GREEN, BLUE)]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        assert pixel(stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)) == RED
    moved = Image.open(io.BytesIO(stored(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    moved.seek(2)
    assert to_image(moved, read_nothing).getpixel((0, 0)) == RED


def read_nothing(name: str) -> bytes:
    raise AssertionError(name)


# Where the first pixel of a viewer's picture lies in a stored one of three columns and two rows, by orientation.
CORNERS = {1: (0, 0), 2: (2, 0), 3: (2, 1), 4: (0, 1), 5: (0, 0), 6: (0, 1), 7: (2, 1), 8: (2, 0)}


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_a_turned_picture_is_turned_back(kind: str, orientation: int) -> None:
    cells = [RED, GREEN, BLUE, (255, 255, 0), (0, 255, 255), (255, 0, 255)]
    size = 16 if kind == "JPEG" else 1  # its colours are those of blocks
    image = Image.new("RGB", (3, 2))
    image.putdata(cells)
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    shown = decoded(stored(image.resize((3 * size, 2 * size), 0), kind, exif=exif, **options))
    assert shown.size == ((3 * size, 2 * size) if orientation < 5 else (2 * size, 3 * size))
    x, y = CORNERS[orientation]
    found: Any = shown.getpixel((size // 2, size // 2))
    assert np.abs(np.subtract(found, cells[3 * y + x])).max() <= 2


def test_cmyk_by_the_plain_formula() -> None:
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert pixel(stored(ink, "TIFF")) == (0, 255, 255)
    assert np.abs(np.subtract(pixel(stored(ink, "JPEG", quality=100)), (0, 255, 255))).max() <= 3
    assert pixel(stored(ink, "TIFF", icc_profile=b"no profile at all")) == (0, 255, 255)


def test_cmyk_by_its_own_profile() -> None:
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert pixel(stored(ink, "TIFF", icc_profile=all_is_grey())) == (119, 119, 119)  # L* 50 is 119 of 255 in sRGB


def all_is_grey() -> bytes:
    """A colour profile by which every mixture without black ink is a grey of L* 50: two points an ink, Lab of 8 bit."""
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0))
    table += struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536) + ramp * 4
    table += bytes((128, 128, 128, 0, 128, 128)) * 8 + ramp * 3
    table += bytes(-len(table) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"A2B0": table, b"wtpt": white}
    at, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        entries += name + struct.pack(">II", at + len(body), len(data))
        body += data
    rest = struct.pack(">I", len(tags)) + entries + body
    head = struct.pack(">I4sI4s4s4s", 128 + len(rest), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + rest


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}),
     ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("JPEG2000", {}), ("AVIF", {})],
)  # fmt: skip
def test_a_picture_that_is_cut_short_is_refused(kind: str, options: dict[str, Any]) -> None:
    raw = stored(NOISE, kind, **options)
    whole = decoded(raw).tobytes()
    for length in range(0, len(raw) - 1, max(1, len(raw) // 60)):
        try:
            shown = decoded(raw[:length])
        except DataError:
            continue
        assert shown.tobytes() == whole, f"{length} of {len(raw)} bytes"


@pytest.mark.parametrize("rows", [1, 10, 39])
def test_a_picture_whose_data_end_early_is_refused(rows: int) -> None:
    with pytest.raises(DataError, match="cannot be decoded"):
        decoded(png(40, 40, (b"\0" + bytes(40)) * rows))


@pytest.mark.parametrize("side", range(1, 10))
def test_an_interlaced_picture_is_whole_with_all_its_passes(side: int) -> None:
    """Of a side of 3 the seven passes have 1, 0, 0, 1, 2, 1 and 3 pixels a row in 1, 0, 0, 1, 1, 2 and 1 rows."""
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for x, y, across, down in steps:
        width, height = len(range(x, side, across)), len(range(y, side, down))
        rows += (b"\0" + bytes([9]) * width) * (height if width else 0)
    assert set(decoded(png(side, side, rows, interlaced=1)).tobytes()) == {9}
    if side > 1:
        with pytest.raises(DataError, match="cannot be decoded"):
            decoded(png(side, side, rows[:-1], interlaced=1))


@pytest.mark.parametrize(("colour", "depth", "width", "row"), [(0, 1, 9, 2), (0, 4, 3, 2), (2, 8, 2, 6), (6, 16, 1, 8)])
def test_rows_of_any_depth_are_counted(colour: int, depth: int, width: int, row: int) -> None:
    assert decoded(png(width, 2, bytes(2 * (1 + row)), depth, colour)).size == (width, 2)
    with pytest.raises(DataError, match="cannot be decoded"):
        decoded(png(width, 2, bytes(2 * (1 + row) - 1), depth, colour))


def test_bombs_and_what_holds_no_pixels_are_refused() -> None:
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for raw in (head + bytes(4), stored(Image.new("1", (9000, 9000)), "PNG"), script, b"", b"GIF89a", b"<svg/>"):
        with pytest.raises(DataError, match=r"too large|cannot be decoded"):
            decoded(raw)


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x18ftypmp42",
        b"\0\0\0\x14ftypqt  ",
        b"\x1aE\xdf\xa3\x9fB\x86\x81",
        b"RIFF\0\0\0\0AVI LIST",
        b"\0\0\x01\xba\x44\0\x04\0",
    ],
    ids=["MP4", "QuickTime", "Matroska", "AVI", "MPEG"],
)
def test_a_video_is_refused_in_words(head: bytes) -> None:
    with pytest.raises(DataError, match="no model is shown videos here"):
        decoded(head + bytes(100))


def test_only_ordinary_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    huge = tmp_path / "huge.png"
    with huge.open("wb") as f:
        f.truncate(MAX_BYTES + 1)
    bad = [
        tmp_path,
        tmp_path / "pipe.png",
        huge,
        tmp_path / "none.png",
        Path("a\0b.png"),
        Path("x" * 5000),
        Path("/dev/zero"),
    ]
    for path in bad:
        with pytest.raises(DataError, match=r"no ordinary file|too large|cannot open"):
            read_file(path)


def test_every_format_that_is_named_is_read() -> None:
    for name in (*FORMATS, "MPO"):  # MPO is a JPEG with more pictures behind the first
        assert decoded(stored(Image.new("RGB", (16, 16), RED), name)).size == (16, 16), name


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (64, 3), (300, 200)])
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_a_data_uri_holds_the_picture_to_the_last_pixel(size: tuple[int, int], mode: str) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    head, _, text = png_uri(image).partition(",")
    assert head == "data:image/png;base64"
    back = decoded(base64.b64decode(text))
    assert back.size == size
    assert back.tobytes() == image.convert("RGB").tobytes()


def test_a_data_uri_is_about_as_small_as_pillow_makes_it() -> None:
    """Something like a photograph, and a figure of lines: what is quicker to write must not be much more to send."""
    draw = np.random.default_rng(3)
    photo = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((400, 300))
    grain = np.asarray(photo).astype(int) + draw.integers(-4, 5, (300, 400, 3))
    figure = Image.new("RGB", (400, 300), "white")
    for n in range(20):
        figure.paste("black", (n * 17, n * 11, n * 17 + 60, n * 11 + 2))
    for image in (Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)), figure):
        assert len(png_uri(image)) < 1.5 * len(base64.b64encode(png_bytes(image)))
