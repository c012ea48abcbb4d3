"""Rows of stored answers."""

from __future__ import annotations

from typing import Any

from vold.run.answers import Answer


def row(name: str, score: float, sample: int = 0, **more: Any) -> Answer:
    known = {
        "outcome": "right" if score else "wrong",
        "extracted": str(score),
        "note": "",
        "tokens": 10,
        "cluster": name,
    }
    return Answer(id=name, sample=sample, score=float(score), **{**known, **more})


def composite(name: str, parts: str, whole: int, sample: int = 0) -> list[Answer]:
    """Answers to the steps, as digits, and to the composite problem."""
    keys = [f"{len(parts)}steps_{i}" for i in (*range(1, len(parts) + 1), "multi")]
    scores = [*map(int, parts), whole]
    return [
        row(f"{name}/{key}", s, sample, cluster=name, tags={"composite": name, "key": key})
        for key, s in zip(keys, scores, strict=True)
    ]
