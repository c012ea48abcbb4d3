"""Samples of what the models wrote: rollouts of stage 2 token by token, and evaluated problems with their pictures."""

from __future__ import annotations

import base64
import re
import struct
from typing import TYPE_CHECKING, Any

from vold.report.reading import Row, at, decimal, number, rows
from vold.report.values import coloured, rollout_values

if TYPE_CHECKING:
    from pathlib import Path

ROLLOUTS = 3
"""Passed, and as many failed, rollouts shown of the first and of the last stored step."""
TOKENS = 600
"""Tokens shown of a rollout; the rest is counted."""
PROBLEMS = 24
"""Evaluated problems shown of each task set."""
CHARACTERS = 2000
"""Characters shown of a prompt or of a response to an evaluated problem; the rest is counted."""
IMAGE_CHARACTERS = 400_000
"""Longest data URI that is embedded; with the other limits a page of two sets stays below 25 MB, and mostly 1 MB."""
GAP_LIMIT = 3.0
"""Teacher gap, in nats, at which a token's colour is at its strongest."""
SMALL_IMAGE = 64
"""Pictures lower than this many pixels are enlarged, pixel by pixel, to half as much again."""


def stored_steps(run_dir: Path) -> dict[int, Path]:
    """Files of stored rollouts by step, in order."""
    files = (run_dir / "distill" / "rollouts").glob("step-*.jsonl")
    return dict(sorted((int(m.group(1)), f) for f in files if (m := re.fullmatch(r"step-(\d+)\.jsonl", f.name))))


def gaps_of(row: Row) -> list[float | None]:
    """Student minus teacher log-prob (nats) of every token; None where there is no score."""
    student, teacher = row.get("logp") or [], row.get("teacher_logp") or []
    pairs = [(number(a), number(b)) for a, b in zip(student, teacher, strict=False)]
    found: list[float | None] = [None if a is None or b is None else a - b for a, b in pairs]
    return found + [None] * (len(row.get("tokens") or []) - len(found))


def mean_gap(found: list[Row]) -> float | None:
    """Mean teacher gap over the scored tokens of some rollouts; None if there are none."""
    values = [g for r in found for g in gaps_of(r) if g is not None]
    return sum(values) / len(values) if values else None


def right(row: Row) -> bool:
    """Whether a rollout or an answer has the full score."""
    return (number(row.get("score")) or 0.0) >= 1.0


def pick_rollouts(found: list[Row], count: int) -> list[Row]:
    """`count` failed and `count` passed rollouts: different problems first, and those the teacher has read."""
    chosen = []
    for passed in (False, True):
        part = [r for r in found if right(r) == passed]
        part.sort(key=lambda r: not r.get("teacher_logp"))
        new: dict[Any, Row] = {}
        for r in part:
            new.setdefault(r.get("task_id"), r)
        repeated = [r for r in part if r is not new[r.get("task_id")]]
        chosen += [*new.values(), *repeated][:count]
    return [show_rollout(r) for r in chosen]


def show_rollout(row: Row) -> Row:
    """A stored rollout with what its tokens look like: text, gap, strength of colour, words about it."""
    tokens, ids, advantages = (row.get(k) or [] for k in ("tokens", "ids", "advantage"))
    gaps, student, teacher = gaps_of(row), row.get("logp") or [], row.get("teacher_logp") or []
    shown = []
    for t, text in enumerate(tokens[:TOKENS]):
        gap = gaps[t]
        words = [f"id {ids[t] if t < len(ids) else '?'}", f"student {decimal(_get(student, t), sign=True)}"]
        if teacher:
            words += [f"teacher {decimal(_get(teacher, t), sign=True)}", f"gap {decimal(gap, sign=True)} nats"]
        words += [f"advantage {decimal(_get(advantages, t), sign=True)}"] if advantages else []
        strength = 0.0 if gap is None else min(1.0, abs(gap) / GAP_LIMIT)
        shown.append(
            {
                "text": clean(text).replace("\n", "↵\n").replace("\t", "⇥") or "·",
                "gap": gap,
                "side": "plain" if gap is None else "over" if gap > 0 else "under",
                "strength": f"{strength:.2f}",
                "words": "  ".join(words),
            }
        )
    known = [g for g in gaps if g is not None]
    return {
        **{k: row.get(k) and clean(row[k]) for k in ("task_id", "reference", "extracted", "finish", "note")},
        "prompt": cut(row.get("prompt")),
        "passed": right(row),
        "reward": decimal(row.get("score"), 2),
        "tokens": shown,
        "more": max(0, len(tokens) - TOKENS),
        "spaced": not any(re.search(r"\s", str(t)) for t in tokens),
        "mean_gap": decimal(sum(known) / len(known), 2, sign=True) if known else None,
        "length": len(tokens),
        "source": "teacher" if row.get("source") == "teacher" else "student",
        "figures": rollout_values(row),
        "values": coloured(row, [str(t["text"]) for t in shown]),
    }


def _get(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def clean(text: Any) -> str:
    """Text without control characters, which could command a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", str(text))


def cut(text: Any) -> str:
    """Text of a model or a data set, shortened to `CHARACTERS`."""
    text = "" if text is None else clean(text)
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} … ({len(text) - CHARACTERS:,} more characters)"


def problems(run_dir: Path, results: Row) -> list[Row]:
    """Up to `PROBLEMS` problems of each set with every model's answer, spread over kinds and patterns of right and
    wrong (so their shares say nothing about accuracy)."""
    folders = [f.name for f in sorted((run_dir / "eval").glob("*")) if f.is_dir() and not f.name.startswith(".")]
    first = ["base", "sft", "vold"]
    models = sorted(folders, key=lambda m: (first.index(m) if m in first else len(first), m))
    names = [*results["sets"], *sorted({f.stem for m in models for f in (run_dir / "eval" / m).glob("*.jsonl")})]
    out = []
    for name in dict.fromkeys(names):
        answers = {m: {r.get("id"): r for r in rows(run_dir / "eval" / m / f"{name}.jsonl")} for m in models}
        answers = {m: found for m, found in answers.items() if found}
        piles: dict[Any, list[Any]] = {}
        everything = dict.fromkeys(i for found in answers.values() for i in found)
        for i in everything:
            here = {m: found[i] for m, found in answers.items() if i in found}
            row = next(iter(here.values()))
            pattern = tuple((m, right(r)) for m, r in here.items())
            piles.setdefault((at(row, "tags", "kind"), pattern), []).append((i, here))
        order = sorted(piles.values(), key=len)
        chosen = [pile[k] for k in range(PROBLEMS) for pile in order if k < len(pile)][:PROBLEMS]
        place = {i: k for k, i in enumerate(everything)}
        cards = [_problem(i, here) for i, here in sorted(chosen, key=lambda c: place[c[0]])]
        kinds = sorted({c["kind"] for c in cards if c["kind"]})
        if cards:
            out.append({"set": name, "of": len(everything), "cards": cards, "kinds": kinds, "models": list(answers)})
    return out


def _problem(key: Any, here: dict[str, Row]) -> Row:
    row = next(iter(here.values()))
    images = row.get("images") if isinstance(row.get("images"), list) else []
    return {
        "id": key,
        "kind": str(at(row, "tags", "kind") or ""),
        "prompt": cut(row.get("prompt")),
        "reference": row.get("reference"),
        "images": [picture(uri) for uri in images or []],
        "answers": [
            {
                "model": m,
                "right": right(r),
                "response": cut(r.get("response")),
                **{k: r.get(k) for k in ("extracted", "outcome", "note", "tokens")},
            }
            for m, r in here.items()
        ],
    }


def picture(uri: Any) -> Row:
    """A stored picture with the size it is shown at, or the reason why it is left out."""
    if not isinstance(uri, str) or not re.match(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]*\Z", uri):
        return {"uri": None, "why": "this picture cannot be read"}
    if len(uri) > IMAGE_CHARACTERS:
        return {"uri": None, "why": f"a picture of {len(uri) * 3 // 4000:,} kB is left out"}
    code = uri.partition(",")[2][:32]
    head = base64.b64decode(code) if len(code) == 32 else b""
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        return {"uri": uri, "width": None, "pixelated": False}
    width, height = struct.unpack(">II", head[16:24])
    factor = max(1, 3 * SMALL_IMAGE // 2 // max(1, height)) if height < SMALL_IMAGE else 1
    factor = max(1, min(factor, 480 // max(1, width)))
    return {"uri": uri, "width": width * factor, "height": height * factor, "pixelated": factor > 1}
