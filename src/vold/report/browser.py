"""Stored rollouts as the page browses them: a row of each to list and to filter, and one whole with its streams.

A row has short keys: a run may have stored many. Streams are packed (`packed_values`), for a rollout of 8,192 tokens
has as many values of each. What a model wrote is cleaned here, for JSON hides from the page's own cleaning.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from vold.errors import clean
from vold.graders.outcome import outcome
from vold.graders.reading import read_right
from vold.report.answers import PROMPT, picture, with_numbers
from vold.report.rollouts import LOWEST, mean_gap, rollout_values
from vold.report.search import is_spaced
from vold.report.text import cut, short
from vold.run.records import JsonObject
from vold.run.rollouts import load_rollouts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vold.report.text import Shortened
    from vold.run.rollouts import StoredRollout
    from vold.types import Rollout

ROOM = 3_000_000
"""Bytes of rollouts that a saved page holds."""
STEPS = 8
"""Steps that these are taken from: the first, the last, and some between them."""
LEVELS = 65_534
"""Steps between the lowest and the highest value of a packed stream; one number more stands for no value."""
HEAD = 160
"""Characters of a prompt in a list."""


def step_rows(stored: Sequence[StoredRollout]) -> JsonObject:
    """The rollouts of a step, to list: `groups` by number, and a row each, in the order in which they are stored.

    A row: `i` its place among them, `g` group, `o` outcome, `s` score, `n` tokens, `d` mean gap in nats (null where the
    teacher has not read it), `a` answer, `t` whether the teacher wrote it, `r` whether it has read its pictures right
    (null: unknown).
    """
    groups, rows = {}, []
    for place, one in enumerate(stored):
        r, q = one.rollout, one.question
        if str(r.group) not in groups:
            tags = [" ".join(clean(f"{k}: {v}").split())[:HEAD] for k, v in q.tags.items()]
            head = " ".join(clean(with_numbers(q.prompt, len(q.images))).split())[:HEAD]
            groups[str(r.group)] = {"task": clean(r.task_id), "tags": tags, "prompt": head}
        gap = mean_gap(r)
        rows.append(
            {
                "i": place,
                "g": r.group,
                "o": outcome(r.grade, r.completion.finish),
                "s": round(r.grade.score, 4),
                "n": len(r.completion.ids),
                "d": None if gap is None else round(gap, 4),
                "a": short(r.grade.extracted),
                "t": r.source == "teacher",
                "r": read_right(q.shows, " ".join(one.texts())) if q.shows else None,
            }
        )
    return {"groups": groups, "rows": rows}


def whole(one: StoredRollout) -> JsonObject:
    """A rollout with its tokens: `t` says where in `texts` and `ids` each is, and `streams` hold values by name."""
    r, q = one.rollout, one.question
    ids, texts, place = one.spelled()
    if clean(together := "".join(texts)) != together:
        texts = [clean(text) for text in texts]
    return {
        "texts": texts,
        "ids": ids.tolist(),
        "t": _base64(place.astype("<u4")),
        "spaced": is_spaced(texts),
        "streams": {name: packed_values(values) for name, values in _streams(r).items()},
        "prompt": _parts(cut(with_numbers(q.prompt, len(q.images)), PROMPT)),
        "text": clean(q.text),
        "images": [vars(picture(uri)) for uri in q.images],
        "reference": short(q.reference),
        "note": short(r.grade.note),
        "finish": r.completion.finish,
        "figures": rollout_values(r),
    }


def _parts(text: Shortened) -> list[str]:
    return [text.head, text.left_out, text.tail]


def _streams(r: Rollout) -> dict[str, NDArray[Any]]:
    """Values of every token by the name that the page shows. `mask` is 1 where a token takes part in the loss."""
    c = r.completion
    given = {"advantage": r.advantage, "reward weight": r.live_weight, "teacher weight": r.teacher_weight}
    credit = {name: values for name, values in given.items() if values is not None}
    found = {"student": np.maximum(c.logps, LOWEST)}
    if r.teacher is not None:
        found["teacher"] = np.maximum(r.teacher.logp, LOWEST)
    if credit:
        found["mask"] = c.action_mask & np.any([values != 0 for values in credit.values()], axis=0)
    named = {clean(name).replace("_", " "): values for name, values in r.token_values.items()}
    return found | credit | {name: values for name, values in named.items() if name not in found}


def packed_values(values: NDArray[Any]) -> JsonObject | float | None:
    """A stream as the page takes it: one number where all are the same, else the lowest and the highest value and, as
    base64 of 16-bit numbers, where between them each lies. What is not finite is no value.

    Example:
        >>> packed_values(np.ones(3)), packed_values(np.asarray([0.0, 1.0]))
        (1.0, {'low': 0.0, 'high': 1.0, 'at': 'AAD+/w=='})
    """
    values = np.asarray(values, "float64")
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = float(known.min()), float(known.max())
    if low == high and len(known) == len(values):
        return low
    share = (values - low) / (high - low or 1.0)
    at = np.where(np.isfinite(values), np.round(np.nan_to_num(share) * LEVELS), LEVELS + 1)
    return {"low": low, "high": high, "at": _base64(at.astype("<u2"))}


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def saved(files: Mapping[int, Path]) -> JsonObject:
    """Rollouts for a page without a server: whole groups of up to `STEPS` steps, at most `ROOM` bytes of them.

    Groups whose rollouts end differently come first: they say most. `kept` of `all` rollouts of these steps are there,
    and of every step at least one.
    """
    names = list(files)
    last = len(names) - 1
    chosen = sorted({names[round(i * last / (STEPS - 1))] for i in range(STEPS)}) if names else []
    steps: JsonObject = {}
    values: JsonObject = {}
    kept = every = 0
    for step in chosen:
        stored = load_rollouts(files[step])
        listing, every = step_rows(stored), every + len(stored)
        room, rows = ROOM // len(chosen), listing["rows"]
        outcomes: dict[int, set[str]] = {}
        for row in rows:
            outcomes.setdefault(row["g"], set()).add(row["o"])
        there: list[int] = []
        for group in sorted(outcomes, key=lambda g: -len(outcomes[g])):
            places = [i for i, row in enumerate(rows) if row["g"] == group]
            for i in places:
                found = whole(stored[i])
                room -= len(json.dumps(found))
                if room >= 0 or not there:
                    there.append(i)
                    values[f"{step}.{i}"] = found
            if room < 0:
                break
        kept += len(there)
        steps[str(step)] = {**listing, "rows": [rows[i] for i in sorted(there)]}
    return {"steps": steps, "values": values, "kept": kept, "all": every, "stored": len(files), "room": ROOM}
