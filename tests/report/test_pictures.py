"""Pictures as a page shows them."""

from __future__ import annotations

import base64
import io
import random
from typing import Any

import pytest
from PIL import Image

from pages import uri
from vold.data.files.images import thumbnail
from vold.report.answers import PICTURE_BYTES, picture


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_large_pictures_are_shrunk_to_a_stated_size(mode: str) -> None:
    noise = Image.frombytes(mode, (1500, 1000), random.Random(3).randbytes(1_500_000 * len(mode)))
    large = uri(noise)
    assert len(large) > PICTURE_BYTES * 4
    shown = picture(large)
    data = base64.b64decode(shown.uri.removeprefix("data:image/jpeg;base64,"))
    size = Image.open(io.BytesIO(data)).size
    assert len(data) <= PICTURE_BYTES
    assert size == (shown.width, shown.height)
    assert shown.note == f"shown as a JPEG of {size[0]} by {size[1]} pixels, stored at 1500 by 1000"
    assert size == (768, 512)  # noise at 1024 pixels is still too much


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        "https://example.org/x.png",
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        'data:image/png;base64,A" onload="x',
        "data:image/png;base64,AAAA",
        "data:image/png;base64,AAAAA",
        uri(Image.new("1", (20_000, 10_000))),
        uri(Image.new("1", (8_000, 8_000))),
    ],
)
def test_what_is_no_picture_is_a_note(bad: Any) -> None:
    shown = picture(bad)
    assert not shown.uri
    assert shown.note


def test_a_picture_of_a_common_size_stays_as_it_is() -> None:
    large = picture(thumbnail(Image.new("RGB", (300, 200))))
    assert (large.width, large.height, large.note) == (300, 200, "")
