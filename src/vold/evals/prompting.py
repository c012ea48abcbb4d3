"""Questions as messages, by the prompt files of each protocol.

Pictures: `<image n>` in a question or an option becomes the picture of column n, at its first mention; a second
mention stays in words (under `vlmevalkit` the picture is shown again). A mention without a picture stays in words.
Pictures that are never mentioned come first, except where the benchmark's own code leaves them out. Which of this holds
for a benchmark is said in its prompt file: see the head of `prompts/rule.yaml`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from vold.data.files.markers import replace_numbered
from vold.errors import ConfigError
from vold.graders.choice import LETTERS
from vold.types import IMAGE_MARKER, Message

if TYPE_CHECKING:
    from vold.data.benchmarks.item import Item, ProtocolName

ASSEMBLY_VERSION = "1"
"""Part of every prompt version. Change it with any change to how the pieces and pictures are put together."""

_HOLE = re.compile(r"\{(question|options|query|instruction)\}")
_OPTIONS_IN_TEXT = re.compile(r"\n\s*Options:\s*(?=A\s*:)")
_NEXT_OPTION = re.compile(r"(?:^|,\s*)([A-L])\s*:\s*")


def build_messages(item: Item, protocol: ProtocolName) -> tuple[Message, ...]:
    """What the model is asked: one user turn with its pictures in place.

    Raises:
        ConfigError: the protocol has no prompt for this benchmark, or none for an item of this kind.
    """
    prompt = _prompt(item.benchmark, protocol)
    question, options = item.question, item.options
    if prompt.get("split_options") and not options:
        question, options = split_options(question)
    key = "query" if item.query and "query" in prompt else "with_options" if options else "without_options"
    instructions = prompt.get("instruction", {})
    if key not in prompt or (instructions and item.form not in instructions):
        raise ConfigError(
            f"the {protocol} protocol has no prompt for such an item",
            where=f"{item.benchmark}: {item.id}",
            got=f"an item {key.replace('_', ' ')}, its answer a {item.form}",
            fix="is this the right benchmark for the data?",
        )
    option = prompt.get("option", "")
    lines = [option.format(letter=letter, text=text) for letter, text in zip(LETTERS, options, strict=False)]
    parts = {
        "question": question,
        "options": "\n".join(lines),
        "query": item.query or "",
        "instruction": instructions.get(item.form, ""),
    }
    return (_with_pictures(_HOLE.sub(lambda m: parts[m[1]], prompt[key]), item, prompt),)


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    r"""Take "Options: A: .., B: .." off the end of a question; a question without them is returned as it is.

    Example:
        >>> split_options("Which?\nOptions: A: red, or blue, B: green")
        ('Which?', ('red, or blue', 'green'))
    """
    start = _OPTIONS_IN_TEXT.search(question)
    if start is None:
        return question, ()
    # Labels count in the order of letters only: an option's text may hold ", D: " itself.
    tail = question[start.end() :]
    found: list[re.Match[str]] = []
    for label in _NEXT_OPTION.finditer(tail):
        if len(found) < len(LETTERS) and label[1] == LETTERS[len(found)]:
            found.append(label)
    ends = [m.start() for m in found[1:]] + [len(tail)]
    texts = tuple(tail[m.end() : end].strip() for m, end in zip(found, ends, strict=True))
    return question[: start.start()], texts


def image_limits(benchmark: str, protocol: ProtocolName) -> tuple[int, int] | None:
    """Least and most pixels of a picture under this protocol; None leaves it to the image processor."""
    _prompt(benchmark, protocol)
    found = _file(protocol).get("pixels")
    return None if found is None else (int(found[0]), int(found[1]))


def prompt_version(benchmark: str, protocol: ProtocolName) -> str:
    """A digest of the prompt's text and of the rules that put it together: part of the protocol hash."""
    content = [ASSEMBLY_VERSION, _prompt(benchmark, protocol)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _with_pictures(text: str, item: Item, prompt: dict[str, Any]) -> Message:
    if not item.images:
        return Message("user", text)
    # A literal "<image>" in the data is no place for a picture; the model sees it in words.
    text = text.replace(IMAGE_MARKER, "<image >")
    if prompt.get("pictures") == "first":
        spelling = prompt.get("marker", "<image {number}>")
        text = replace_numbered(text, lambda number, _: spelling.format(number=number))
        return Message("user", IMAGE_MARKER * len(item.images) + text, item.images)
    shown: list[int] = []

    def place(number: int, marker: str) -> str:
        if not 0 < number <= len(item.images) or (number in shown and not prompt.get("again")):
            return marker
        shown.append(number)
        return IMAGE_MARKER

    text = replace_numbered(text, place)
    never = [n for n in range(1, len(item.images) + 1) if n not in shown]
    if shown and prompt.get("pictures") == "mentioned":
        never = []
    pictures = tuple(item.images[n - 1] for n in [*never, *shown])
    return Message("user", IMAGE_MARKER * len(never) + text, pictures)


def _prompt(benchmark: str, protocol: ProtocolName) -> dict[str, Any]:
    prompts = _file(protocol)["prompts"]
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
    text = (Path(__file__).parent / "prompts" / f"{protocol}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content
