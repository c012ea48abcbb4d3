"""Questions as messages, by the prompt files of each protocol.

Pictures: `<image n>` in a question or option becomes the picture of column n, at its first mention. A second mention
stays in words. Pictures that are never mentioned come first. Where fewer pictures exist than are mentioned (MATH-Vision
merges them into one), all come first and the mentions stay.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from vold.errors import ConfigError
from vold.graders.choice import LETTERS
from vold.types import Message

if TYPE_CHECKING:
    from vold.evals.types import Item, ProtocolName

_HOLE = re.compile(r"\{(question|options|query)\}")
_MARKER = re.compile(r"<image (\d+)>")
_CHAT_MARKER = "<image>"


def build_messages(item: Item, protocol: ProtocolName) -> tuple[Message, ...]:
    """What the model is asked: one user turn with its pictures in place.

    Raises:
        ConfigError: the protocol has no prompt for this benchmark, or its prompt has no place for this item.
    """
    prompt = _prompt(item.benchmark, protocol)
    if prompt.get("query") and item.query:
        text = item.query
    else:
        key = "with_options" if item.options and "with_options" in prompt else "without_options"
        template = prompt.get(key, "{question}")
        lines = [
            prompt.get("options", "({letter}) {text}").replace("{letter}", letter).replace("{text}", option)
            for letter, option in zip(LETTERS, item.options, strict=False)
        ]
        parts = {"question": item.question, "options": "\n".join(lines), "query": item.query or ""}
        text = _HOLE.sub(lambda m: parts[m[1]], template)
    return (_with_pictures(text.strip("\n"), item),)


def image_limits(benchmark: str, protocol: ProtocolName) -> tuple[int, int] | None:
    """Least and most pixels of a picture under this protocol; None leaves it to the image processor."""
    _prompt(benchmark, protocol)
    found = _file(protocol).get("pixels")
    return None if found is None else (int(found[0]), int(found[1]))


def prompt_version(benchmark: str, protocol: ProtocolName) -> str:
    """A digest of the prompt's text: part of the protocol hash."""
    return hashlib.sha256(json.dumps(_prompt(benchmark, protocol), sort_keys=True).encode()).hexdigest()[:16]


def _with_pictures(text: str, item: Item) -> Message:
    # A literal "<image>" in the data is no place for a picture; the model sees it in words.
    text = text.replace(_CHAT_MARKER, "<image >") if item.images else text
    mentioned = [int(m[1]) for m in _MARKER.finditer(text)]
    if not item.images or not mentioned or max(mentioned) > len(item.images) or min(mentioned) < 1:
        return Message("user", text, item.images)
    order: list[int] = []

    def place(marker: re.Match[str]) -> str:
        number = int(marker[1])
        if number in order:
            return marker[0]
        order.append(number)
        return _CHAT_MARKER

    text = _MARKER.sub(place, text)
    never = [n for n in range(1, len(item.images) + 1) if n not in order]
    pictures = tuple(item.images[n - 1] for n in [*never, *order])
    return Message("user", _CHAT_MARKER * len(never) + text, pictures)


def _prompt(benchmark: str, protocol: ProtocolName) -> dict[str, Any]:
    content = _file(protocol)
    prompts = content.get("prompts", content)
    if benchmark not in prompts:
        raise ConfigError(
            f"the {protocol} protocol has no prompt for this benchmark",
            where="eval.benchmarks",
            got=benchmark,
            fix="use protocol: rule",
        )
    return dict(prompts[benchmark])


@functools.cache
def _file(protocol: ProtocolName) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "prompts" / f"{protocol}.yaml").read_text())
    return content
