"""Places of pictures in the text of published data, in their several spellings.

Data numbers its pictures (`<image 1>`, `<image1>`, `<IMAGE_2>`) or does not (`<image>`, `< image >`). Numbered ones are
brought to the form `<image 1>`; in a `vold.types.Message` a place is always `IMAGE_MARKER`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.types import IMAGE_MARKER

if TYPE_CHECKING:
    from collections.abc import Callable

_ANY = re.compile(r"<\s*image\s*_?\s*(\d{0,2})\s*>", re.IGNORECASE)
_NUMBERED = re.compile(r"<image (\d+)>")


def numbered(text: str) -> str:
    """Every spelling of a numbered marker as `<image 1>`.

    Example:
        >>> numbered("see <image1> and < IMAGE_2 >")
        'see <image 1> and <image 2>'
    """
    return _ANY.sub(lambda m: f"<image {int(m[1])}>" if m[1] else m[0], text)


def plain(text: str, marker: str = IMAGE_MARKER) -> str:
    """Every spelling, numbered or not, as `marker`.

    Example:
        >>> plain("see <image1> and < IMAGE >")
        'see <image> and <image>'
    """
    return _ANY.sub(lambda _: marker, text)


def replace_numbered(text: str, spell: Callable[[int, str], str]) -> str:
    """`spell(number, marker)` in place of each marker of the form that `numbered` gives.

    Example:
        >>> replace_numbered("<image 1> <image>", lambda number, marker: f"[{number}]")
        '[1] <image>'
    """
    return _NUMBERED.sub(lambda m: spell(int(m[1]), m[0]), text)
