"""Questions as messages, by the prompt that each protocol has for a benchmark.

Pictures: `<image n>` in a question or an option becomes the picture of column n, at its first mention; a second
mention stays in words (under `vlmevalkit` the picture is shown again). A mention without a picture stays in words.
Pictures that are never mentioned come first, except where the benchmark's own code leaves them out. Which of this holds
for a benchmark is said in its file: see `vold.data.benchmarks.benchmark.PromptForm`.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import PIXELS
from vold.data.benchmarks.registry import get_benchmark
from vold.data.files.markers import replace_numbered
from vold.errors import ConfigError
from vold.graders.choice import LETTERS
from vold.types import IMAGE_MARKER, Message

if TYPE_CHECKING:
    from vold.data.benchmarks.benchmark import PromptForm
    from vold.data.benchmarks.item import Item, ProtocolName

ASSEMBLY_VERSION = "1"
"""Part of every prompt version. Change it with any change to how the pieces and pictures are put together."""

_HOLE = re.compile(r"\{(question|options|query|instruction)\}")


def build_messages(item: Item, protocol: ProtocolName) -> tuple[Message, ...]:
    """What the model is asked: one user turn with its pictures in place.

    Raises:
        ConfigError: the protocol has no prompt for this benchmark, or none for an item of this kind.
    """
    prompt = prompt_of(item.benchmark, protocol)
    key = "query" if item.query and prompt.query else "with_options" if item.options else "without_options"
    template: str = getattr(prompt, key)
    if not template or (prompt.instruction and item.form not in prompt.instruction):
        raise ConfigError(
            f"the {protocol} protocol has no prompt for such an item",
            where=f"{item.benchmark}: {item.id}",
            got=f"an item {key.replace('_', ' ')}, its answer a {item.form}",
            fix="is this the right benchmark for the data?",
        )
    lines = [
        prompt.option.format(letter=letter, text=text) for letter, text in zip(LETTERS, item.options, strict=False)
    ]
    parts = {
        "question": item.question,
        "options": "\n".join(lines),
        "query": item.query or "",
        "instruction": prompt.instruction.get(item.form, ""),
    }
    return (_with_pictures(_HOLE.sub(lambda m: parts[m[1]], template), item, prompt),)


def image_limits(benchmark: str, protocol: ProtocolName) -> tuple[int, int] | None:
    """Least and most pixels of a picture under this protocol; None leaves it to the image processor."""
    prompt_of(benchmark, protocol)
    return PIXELS.get(protocol)


def prompt_version(benchmark: str, protocol: ProtocolName) -> str:
    """A digest of the prompt's text and of the rules that put it together: part of the protocol hash."""
    content = [ASSEMBLY_VERSION, prompt_of(benchmark, protocol).content()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _with_pictures(text: str, item: Item, prompt: PromptForm) -> Message:
    if not item.images:
        return Message("user", text)
    # A literal "<image>" in the data is no place for a picture; the model sees it in words.
    text = text.replace(IMAGE_MARKER, "<image >")
    if prompt.pictures in ("first", "last"):
        spelling, shown_apart = prompt.marker or "<image {number}>", IMAGE_MARKER * len(item.images)
        text = replace_numbered(text, lambda number, _: spelling.format(number=number))
        whole = shown_apart + text if prompt.pictures == "first" else text + shown_apart
        return Message("user", whole, item.images)
    shown: list[int] = []

    def place(number: int, marker: str) -> str:
        if not 0 < number <= len(item.images) or (number in shown and not prompt.again):
            return marker
        shown.append(number)
        return IMAGE_MARKER

    text = replace_numbered(text, place)
    never = [n for n in range(1, len(item.images) + 1) if n not in shown]
    if shown and prompt.pictures == "mentioned":
        never = []
    pictures = tuple(item.images[n - 1] for n in [*never, *shown])
    return Message("user", IMAGE_MARKER * len(never) + text, pictures)


def prompt_of(benchmark: str, protocol: ProtocolName) -> PromptForm:
    """How a protocol asks a benchmark.

    Raises:
        ConfigError: it has no prompt for it.
    """
    found = get_benchmark(benchmark).prompts.get(protocol)
    if found is None:
        raise ConfigError(
            f"the {protocol} protocol has no prompt for this benchmark",
            where="eval.benchmarks",
            got=benchmark,
            fix="use protocol: rule",
        )
    return found
