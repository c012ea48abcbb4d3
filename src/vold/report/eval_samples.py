"""Answers that the page shows: which ones, how they are shortened, and their pictures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from vold.graders.extract import THINK_CLOSE, THINK_OPEN, after_thinking
from vold.report.bar_charts import OUTCOMES
from vold.report.text import DASH, clean, decimal, link, number, tidy

PROMPT, THINKING, RESPONSE, SHORT = 6000, 8000, 6000, 500
"""Characters shown of a prompt, a thinking block, the response after it, and any other text."""
PICTURE_BYTES = 200_000
"""A picture of more bytes is made smaller."""
SHRUNK = ((1024, 85), (768, 80), (512, 60))
"""Longest side in pixels and JPEG quality to try in turn until a picture has at most `PICTURE_BYTES`."""
AREA = 50_000_000
"""Pictures of more pixels are not opened."""
PAGE_PICTURES = 32_000_000
"""Bytes of pictures on a page, shared out evenly among the sets."""
SMALL = 64
"""Pictures lower than this many pixels are enlarged, pixel by pixel."""

Row = dict[str, Any]
Key = tuple[str, str]
_URI = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,([A-Za-z0-9+/]+={0,2})\Z")


def outcome_of(row: Mapping[str, Any]) -> str:
    """Return the stored outcome of an answer; older rows have only a score, and "unknown" stands for neither."""
    known = row.get("outcome")
    if known in OUTCOMES:
        return str(known)
    score = number(row.get("score"))
    return "unknown" if score is None else "right" if score >= 1 else "wrong"


def key_of(row: Mapping[str, Any]) -> Key:
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
    chosen: dict[Key, None] = {}
    for turn in range(max(1, count // (2 * max(1, len(rarest))))):
        for pile in rarest:
            if turn < len(pile) and len(chosen) < count:
                chosen.setdefault(pile[turn])
    for key in ranked:
        if len(chosen) < count:
            chosen.setdefault(key)
    return [key for key in everything if key in chosen]


def _rank(name: str, key: Key) -> bytes:
    return hashlib.sha256("\0".join((name, *key)).encode("utf-8", "surrogatepass")).digest()


def sample_sets(
    samples: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    models: Sequence[str],
    titles: Mapping[str, str],
    per_set: int,
) -> list[Row]:
    """Return for each set of `titles` that has answers: its name and title, cards of up to `per_set` questions with the
    answers of all models, and how many of how many questions and answers these are."""
    found: dict[str, dict[str, dict[Key, Mapping[str, Any]]]] = {}
    stored = {clean(str(m)): s for m, s in samples.items() if isinstance(s, Mapping)}
    by_name = {m: {clean(str(n)): rows for n, rows in s.items()} for m, s in stored.items()}
    for name in titles:
        for model in models:
            rows = by_name.get(model, {}).get(name)
            by_key: dict[Key, Mapping[str, Any]] = {}
            for row in rows if isinstance(rows, list | tuple) else ():
                if isinstance(row, Mapping):
                    by_key.setdefault(key_of(row), row)
            if by_key:
                found.setdefault(name, {})[model] = by_key
    return [_set(name, titles[name], answers, models[0], per_set, len(found)) for name, answers in found.items()]


def _set(
    name: str,
    title: str,
    answers: Mapping[str, Mapping[Key, Mapping[str, Any]]],
    baseline: str,
    per_set: int,
    sets: int,
) -> Row:
    outcomes = {m: {k: outcome_of(r) for k, r in found.items()} for m, found in answers.items()}
    chosen = choose(outcomes, per_set, name)
    left = PAGE_PICTURES // sets
    cards = []
    for key in chosen:
        card = _card(name, title, key, {m: found[key] for m, found in answers.items() if key in found}, baseline, left)
        left -= sum(len(p["uri"] or "") for p in card["images"])
        cards.append(card)
    return {
        "set": name,
        "title": title,
        "cards": cards,
        "questions": len({k for found in answers.values() for k in found}),
        "answers": sum(len(found) for found in answers.values()),
        "shown": sum(len(c["answers"]) for c in cards),
    }


def _card(
    name: str, title: str, key: Key, rows: Mapping[str, Mapping[str, Any]], baseline: str, picture_bytes: int
) -> Row:
    def first(field: str) -> Any:
        return next((r[field] for r in rows.values() if r.get(field) not in (None, "", [], {})), None)

    uris, tags = first("images"), tidy(first("tags"))
    pictures = []
    for uri in uris if isinstance(uris, list | tuple) else []:
        shown = picture(uri)
        if shown["uri"] and len(shown["uri"]) > picture_bytes:
            shown = {"uri": None, "note": f"a picture is left out: this page holds {PAGE_PICTURES // 1_000_000} MB"}
        picture_bytes -= len(shown["uri"] or "")
        pictures.append(shown)
    pairs = tags.items() if isinstance(tags, dict) else ()
    before = rows.get(baseline)
    question, sample = clean(key[0]), clean(key[1])
    return {
        "set": name,
        "title": title,
        "id": question,
        "sample": sample,
        "href": link(set=name, id=question, sample=sample),
        "images": pictures,
        "prompt": cut(first("prompt"), PROMPT),
        "reference": short(first("reference")),
        "tags": [" ".join(f"{k}: {v}".split())[:SHORT] for k, v in pairs],
        "answers": [_answer(m, r, before if m != baseline else None) for m, r in rows.items()],
    }


def _answer(model: str, row: Mapping[str, Any], before: Mapping[str, Any] | None) -> Row:
    thinking, closed, rest = split_thinking("" if row.get("response") is None else str(row["response"]))
    outcome, score = outcome_of(row), number(row.get("score"))
    was = None if before is None else outcome_of(before) == "right"
    return {
        "model": model,
        "outcome": outcome,
        "change": "" if was is None or was == (outcome == "right") else "lost" if was else "gained",
        "thinking": cut(thinking, THINKING),
        "thought": f"{len(thinking):,}",
        "closed": closed,
        "response": cut(rest, RESPONSE),
        "extracted": short(row.get("extracted")),
        "note": short(row.get("note")) if row.get("note") else "",
        "tokens": decimal(row.get("tokens"), 0, 1),
        "score": decimal(score, 2, 1) if score is not None and 0 < score < 1 else "",
    }


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


def cut(text: Any, limit: int) -> Row:
    """Return a text as `head`, `left_out` (a count of characters, as text, or "") and `tail`.

    The middle goes, because an answer stands at the end.
    """
    whole = clean("" if text is None else str(text))
    if len(whole) <= limit:
        return {"head": whole, "left_out": "", "tail": ""}
    tail = limit // 3
    return {"head": whole[: limit - tail], "left_out": f"{len(whole) - limit:,}", "tail": whole[-tail:]}


def short(value: Any) -> str:
    """Return a value of few words as text: a dash for none, cut where it is too long after all."""
    if value is None or value == "":
        return DASH
    text = clean(str(value))
    return text if len(text) <= SHORT else f"{text[:SHORT]} … ({len(text) - SHORT:,} more characters)"


def picture(uri: Any) -> Row:
    """Return a data URI as the page shows it, with its size and a note; `uri` None and the reason if it cannot be.

    More than `PICTURE_BYTES` are shrunk, which the note says.
    """
    from PIL import Image

    match = _URI.match(uri) if isinstance(uri, str) else None
    if match is None:
        return {"uri": None, "note": "a picture cannot be read"}
    try:
        data = base64.b64decode(match.group(1), validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > AREA:
                    return {"uri": None, "note": f"a picture of {width} by {height} pixels is left out"}
                if len(data) > PICTURE_BYTES:
                    return _shrunk(image)
    except (OSError, ValueError, SyntaxError, EOFError, Warning, Image.DecompressionBombError, binascii.Error):
        return {"uri": None, "note": "a picture cannot be read"}
    factor = 1
    if height < SMALL:
        factor = max(1, min(3 * SMALL // 2 // max(1, height), 480 // max(1, width)))
    return {"uri": uri, "width": width * factor, "height": height * factor, "pixelated": factor > 1, "note": ""}


def _shrunk(image: Any) -> Row:
    from PIL import Image

    before = image.size
    flat = Image.new("RGB", before, "white")
    whole = image.convert("RGBA")
    flat.paste(whole, mask=whole)
    data = b""
    for side, quality in SHRUNK:
        flat.thumbnail((side, side))
        buffer = io.BytesIO()
        flat.save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
        if len(data) <= PICTURE_BYTES:
            break
    size = " by ".join(map(str, flat.size))
    note = f"shown as a JPEG of {size} pixels, stored at {before[0]} by {before[1]}"
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return {"uri": uri, "width": flat.size[0], "height": flat.size[1], "pixelated": False, "note": note}
