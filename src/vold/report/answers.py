"""Answers that a page shows: each question with its pictures, enlarged or shrunk, and the answers of all models."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, TypeAlias

from vold.errors import clean
from vold.graders.extract import split_thinking
from vold.report.readings import reading_of
from vold.report.text import SHORT, Json, Shortened, cut, listed, part, several
from vold.run.answers import Key, choose, key_of, outcome_of
from vold.types import IMAGE_MARKER

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPT, THINKING, RESPONSE = 6000, 8000, 6000
"""Characters shown of a prompt, of a thinking block and of the response after it."""
PER_SET, PAGE_ANSWERS = 60, 1500
"""Most questions of a set, and about as many answers, that a page shows."""
PAGE_PICTURES = 16_000_000
"""Bytes of pictures on a page, shared out evenly among the sets."""

PICTURE_BYTES = 200_000
"""A picture of more bytes is made smaller."""
SHRUNK = ((1024, 85), (768, 80), (512, 60))
"""Longest side in pixels and JPEG quality to try in turn until a picture has at most `PICTURE_BYTES`."""
AREA = 50_000_000
"""Pictures of more pixels are not opened."""
SMALL = 64
"""Pictures lower than this many pixels are enlarged. Browsers blend them, and small handwriting can be read."""
_URI = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,([A-Za-z0-9+/]+={0,2})\Z")

Samples: TypeAlias = Mapping[str, Mapping[str, Sequence[Json]]]
"""Stored answers by model and set."""


@dataclass(frozen=True)
class Picture:
    """A data URI with the size it is shown at; without one, `note` says why."""

    uri: str = ""
    width: int = 0
    height: int = 0
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """A stored answer of one model, its response in two parts: the thinking, `thought` characters, and the rest, of
    `length` characters.

    `changes`: gained or lost against the first model, `gained:MODEL` against others before. `reading`: see
    `vold.report.readings.reading_of`.
    """

    model: str
    row: Json
    outcome: str
    changes: tuple[str, ...]
    thinking: Shortened
    thought: int
    closed: bool
    response: Shortened
    length: int
    reading: str


@dataclass(frozen=True)
class Card:
    """One question of a set, one sample of it, and every model's answer. `text` is the same for who cannot see."""

    id: str
    sample: str
    images: tuple[Picture, ...]
    prompt: Shortened
    text: str
    tags: tuple[str, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Shown:
    """The cards of a set, and of how many questions and answers they are a choice."""

    set: str
    title: str
    cards: tuple[Card, ...]
    questions: int
    answers: int


def questions_shown(sets: int, models: int) -> int:
    """Return of how many questions of each set a page shows every model's answers.

    Example:
        >>> questions_shown(1, 3), questions_shown(22, 4)
        (60, 17)
    """
    return max(4, min(PER_SET, PAGE_ANSWERS // max(1, sets * models)))


def sample_sets(samples: Samples, models: Sequence[str], titles: Mapping[str, str], per_set: int) -> list[Shown]:
    """Return for each set of `titles` that has answers its cards, of up to `per_set` questions."""
    found: dict[str, dict[str, dict[Key, Json]]] = {}
    for name in titles:
        for model in models:
            by_key: dict[Key, Json] = {}
            for row in several(samples, model, name):
                by_key.setdefault(key_of(row), row)
            if by_key:
                found.setdefault(name, {})[model] = by_key
    room = PAGE_PICTURES // max(1, len(found))
    return [_shown(name, titles[name], answers, models[0], per_set, room) for name, answers in found.items()]


def _shown(
    name: str, title: str, answers: Mapping[str, Mapping[Key, Json]], baseline: str, per_set: int, room: int
) -> Shown:
    outcomes = {m: {k: outcome_of(r) for k, r in found.items()} for m, found in answers.items()}
    cards = []
    for key in choose(outcomes, per_set, name):
        rows = {m: found[key] for m, found in answers.items() if key in found}
        card = _card(key, rows, baseline, room)
        room -= sum(len(p.uri) for p in card.images)
        cards.append(card)
    questions = len({k for found in answers.values() for k in found})
    return Shown(name, title, tuple(cards), questions, sum(map(len, answers.values())))


def _card(key: Key, rows: Mapping[str, Json], baseline: str, room: int) -> Card:
    def first(field: str) -> object:
        return next((r[field] for r in rows.values() if r.get(field) not in (None, "", [], {})), None)

    images = listed(first("images"))
    return Card(
        id=key[0],
        sample=key[1],
        images=tuple(_pictures(images, room)),
        prompt=cut(with_numbers(first("prompt"), len(images)), PROMPT),
        text=cut(first("text"), PROMPT).head,
        tags=tuple(" ".join(clean(f"{k}: {v}").split())[:SHORT] for k, v in part(first("tags")).items()),
        answers=tuple(_answer(m, rows, baseline) for m in rows),
    )


def with_numbers(prompt: object, pictures: int) -> object:
    """A prompt that says which picture stands where; only that one does, where a picture stands in several places."""
    if not isinstance(prompt, str):
        return prompt
    first, *others = prompt.split(IMAGE_MARKER)
    one_each = len(others) == pictures
    return first + "".join(f"[picture{f' {n}' * one_each}]{text}" for n, text in enumerate(others, 1))


def _pictures(uris: Sequence[object], room: int) -> list[Picture]:
    out = []
    for uri in uris:
        shown = picture(uri)
        if len(shown.uri) > room:
            shown = Picture(note=f"a picture is left out: this page holds {PAGE_PICTURES // 1_000_000} MB")
        room -= len(shown.uri)
        out.append(shown)
    return out


def _answer(model: str, rows: Mapping[str, Json], baseline: str) -> Answer:
    row, outcomes = rows[model], {m: outcome_of(r) for m, r in rows.items()}
    right = outcomes[model] == "right"
    before = [m for m in takewhile(model.__ne__, rows) if (outcomes[m] == "right") != right]
    word = "gained" if right else "lost"
    changes = tuple(word if m == baseline else f"{word}:{m}" for m in before)
    thinking, closed, rest = split_thinking("" if row.get("response") is None else str(row["response"]))
    shown = cut(thinking, THINKING), len(thinking), closed, cut(rest, RESPONSE), len(rest)
    return Answer(model, row, outcomes[model], changes, *shown, reading_of(row))


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
    return Picture(match.group(), width * factor, height * factor)


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
