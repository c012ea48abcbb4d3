"""Answers that a page shows: which ones, and each question with the answers of all models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from vold.graders.extract import THINK_CLOSE, THINK_OPEN, after_thinking
from vold.report.charts import OUTCOMES
from vold.report.pictures import Picture, picture
from vold.report.text import DASH, SHORT, Cut, Json, clean, cut, link, listed, number, part, short, tidy

PROMPT, THINKING, RESPONSE = 6000, 8000, 6000
"""Characters shown of a prompt, of a thinking block and of the response after it."""
PAGE_PICTURES = 32_000_000
"""Bytes of pictures on a page, shared out evenly among the sets."""

Key = tuple[str, str]
Samples: TypeAlias = Mapping[str, Mapping[str, Sequence[Json]]]
"""Stored answers by model and set."""


@dataclass(frozen=True)
class Answer:
    """What one model said. `changes`: gained or lost against the first model, `gained:MODEL` against others before."""

    model: str
    outcome: str
    changes: tuple[str, ...]
    thinking: Cut
    thought: int
    closed: bool
    response: Cut
    extracted: str
    note: str
    tokens: float | None
    score: float | None


@dataclass(frozen=True)
class Card:
    """One question of a set, one sample of it, every model's answer, and the address of it all on the page."""

    set: str
    title: str
    id: str
    sample: str
    images: tuple[Picture, ...]
    prompt: Cut
    reference: str
    tags: tuple[str, ...]
    answers: tuple[Answer, ...]
    href: str


@dataclass(frozen=True)
class Shown:
    """The cards of a set and how many answers they hold; of how many questions and answers they are a choice."""

    set: str
    title: str
    cards: tuple[Card, ...]
    questions: int
    answers: int
    shown: int


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

    Args:
        outcomes: model -> key -> outcome.
        count: places.
        name: the set.
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
    stored = {clean(m): {clean(n): rows for n, rows in part(s).items()} for m, s in samples.items()}
    found: dict[str, dict[str, dict[Key, Json]]] = {}
    for name in titles:
        for model in models:
            by_key: dict[Key, Json] = {}
            for row in listed(stored.get(model, {}).get(name)):
                if isinstance(row, Mapping):
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
        card = _card(name, title, key, rows, baseline, room)
        room -= sum(len(p.uri) for p in card.images)
        cards.append(card)
    questions = len({k for found in answers.values() for k in found})
    shown = sum(len(c.answers) for c in cards)
    return Shown(name, title, tuple(cards), questions, sum(map(len, answers.values())), shown)


def _card(name: str, title: str, key: Key, rows: Mapping[str, Json], baseline: str, room: int) -> Card:
    def first(field: str) -> object:
        return next((r[field] for r in rows.values() if r.get(field) not in (None, "", [], {})), None)

    tags = tuple(" ".join(f"{k}: {v}".split())[:SHORT] for k, v in part(tidy(first("tags"))).items())
    question, sample = map(clean, key)
    return Card(
        set=name,
        title=title,
        id=question,
        sample=sample,
        images=tuple(_pictures(listed(first("images")), room)),
        prompt=cut(first("prompt"), PROMPT),
        reference=short(first("reference")),
        tags=tags,
        answers=tuple(answer_of(m, r, _changes(m, rows, baseline)) for m, r in rows.items()),
        href=link(set=name, id=question, sample=sample),
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


def _changes(model: str, rows: Mapping[str, Json], baseline: str) -> tuple[str, ...]:
    names = list(rows)
    right = {m: outcome_of(r) == "right" for m, r in rows.items()}
    changed = [m for m in names[: names.index(model)] if right[m] != right[model]]
    word = "gained" if right[model] else "lost"
    return tuple(word if m == baseline else f"{word}:{m}" for m in changed)


def answer_of(model: str, row: Json, changes: tuple[str, ...] = ()) -> Answer:
    """Return what the page shows of a stored answer."""
    thinking, closed, rest = split_thinking("" if row.get("response") is None else str(row["response"]))
    outcome, score = outcome_of(row), number(row.get("score"))
    return Answer(
        model=model,
        outcome=outcome,
        changes=changes,
        thinking=cut(thinking, THINKING),
        thought=len(thinking),
        closed=closed,
        response=cut(rest, RESPONSE),
        extracted=short(row.get("extracted")),
        note=short(row.get("note")) if row.get("note") else "",
        tokens=number(row.get("tokens")),
        score=score if score is not None and 0 < score < 1 else None,
    )


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
