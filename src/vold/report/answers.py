"""Answers that a page shows: which ones, and each question with the answers of all models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeAlias

from vold.graders.extract import THINK_CLOSE, THINK_OPEN, after_thinking
from vold.report.charts import OUTCOMES
from vold.report.pictures import Picture, picture
from vold.report.text import DASH, SHORT, Cut, Json, clean, cut, listed, number, part, several, short

PROMPT, THINKING, RESPONSE = 6000, 8000, 6000
"""Characters shown of a prompt, of a thinking block and of the response after it."""
PAGE_PICTURES = 32_000_000
"""Bytes of pictures on a page, shared out evenly among the sets."""

Key = tuple[str, str]
Samples: TypeAlias = Mapping[str, Mapping[str, Sequence[Json]]]
"""Stored answers by model and set."""


@dataclass(frozen=True)
class Answer:
    """A stored answer of one model, its response in two parts: the thinking, `thought` characters, and the rest.

    `changes`: gained or lost against the first model, `gained:MODEL` against others before.
    """

    model: str
    row: Json
    outcome: str
    changes: tuple[str, ...]
    thinking: Cut
    thought: int
    closed: bool
    response: Cut


@dataclass(frozen=True)
class Card:
    """One question of a set, one sample of it, and every model's answer."""

    id: str
    sample: str
    images: tuple[Picture, ...]
    prompt: Cut
    reference: str
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


def outcome_of(row: Json) -> str:
    """Return the stored outcome of an answer; older rows have only a score, and "unknown" stands for neither."""
    known = row.get("outcome")
    if known in OUTCOMES:
        return str(known)
    score = number(row.get("score"))
    return "unknown" if score is None else "right" if score >= 1 else "wrong"


def key_of(row: Json) -> Key:
    """Return what the answers of all models to the same question, sample by sample, share."""
    return str(row.get("id", DASH)), str(row.get("sample") or 0)


def choose(outcomes: Mapping[str, Mapping[Key, str]], count: int, name: str) -> list[Key]:
    """Return up to `count` keys in the order of the data, always the same ones.

    All keys are ranked by a hash of the set's `name` and the key itself. First come the best ranked ones of every
    outcome of every model, rarest first, for up to half of the places; then the best ranked of all. So every outcome
    that occurs is seen if there is room, and what is shown does not depend on how anyone would like it.
    `outcomes` are by model and key.
    """
    everything = list(dict.fromkeys(k for found in outcomes.values() for k in found))
    ranked = sorted(
        everything, key=lambda k: hashlib.sha256("\0".join((name, *k)).encode("utf-8", "surrogatepass")).digest()
    )
    piles: dict[tuple[str, str], list[Key]] = {}
    for key in ranked:
        for model, found in outcomes.items():
            if key in found:
                piles.setdefault((model, found[key]), []).append(key)
    rarest = sorted(piles.values(), key=len)
    turns = max(1, count // (2 * max(1, len(rarest))))
    first = [pile[turn] for turn in range(turns) for pile in rarest if turn < len(pile)]
    chosen = set(list(dict.fromkeys([*first, *ranked]))[:count])
    return [key for key in everything if key in chosen]


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

    return Card(
        id=key[0],
        sample=key[1],
        images=tuple(_pictures(listed(first("images")), room)),
        prompt=cut(first("prompt"), PROMPT),
        reference=short(first("reference")),
        tags=tuple(" ".join(clean(f"{k}: {v}").split())[:SHORT] for k, v in part(first("tags")).items()),
        answers=tuple(_answer(m, rows, baseline) for m in rows),
    )


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
    shown = cut(thinking, THINKING), len(thinking), closed, cut(rest, RESPONSE)
    return Answer(model, row, outcomes[model], changes, *shown)


def split_thinking(response: str) -> tuple[str, bool, str]:
    """Return the thinking block of a response, whether it was closed, and what comes after it.

    The block ends where the graders say it does, at the last closing tag. Some chat templates open it in the prompt.

    Example:
        >>> split_thinking("<think>1 + 1</think>2")
        ('1 + 1', True, '2')
    """
    rest = after_thinking(response)
    if rest == response:
        return "", True, response
    block = response if rest is None else response[: len(response) - len(rest) - len(THINK_CLOSE)]
    return block.strip().removeprefix(THINK_OPEN).strip(), rest is not None, (rest or "").strip()
