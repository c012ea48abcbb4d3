"""What a preset of the algebra is, and what several of them are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Terms = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A variant of a method, another reading of its paper: what it is, and what it changes."""

    about: str
    terms: Terms


@dataclass(frozen=True)
class Preset:
    """A published method.

    Attributes:
        source: where its formulas are from.
        about: one sentence on what it does.
        terms: loss terms and their options.
        fidelity: `as published`, or `in the style of` where something essential is not known to us or not built.
        missing: what is ours, or left out; empty if nothing is.
        variants: other readings by name.
        mini_batches: updates a batch of its published run, as `distill.updates` has them if the recipe does not say.
        teacher: what it takes of the recipe's `teacher` section, by key.
    """

    source: str
    about: str
    terms: Terms
    fidelity: Literal["as published", "in the style of"] = "as published"
    missing: str = ""
    variants: Mapping[str, Variant] = field(default_factory=dict)
    mini_batches: int = 1
    teacher: Mapping[str, str] = field(default_factory=dict)


def surrogate(low: float | None, high: float | None, aggregate: str = "token_mean", **more: Any) -> Terms:
    """The surrogate with these bounds of the ratio; None for none."""
    return {"surrogate": {"clip_low": low, "clip_high": high, "aggregate": aggregate} | more}


OUTCOME: Terms = {"outcome": {"weight": 1.0, "normalise": "std"}}
UNCLIPPED: Terms = surrogate(None, None)
"""Parts that several presets have."""


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Terms:
    """`over` laid on `base`, dictionary by dictionary; any other value, None included, replaces. Where `over` names
    another weight or mask, the options of the one in `base` go with it."""
    out = dict(base)
    for name in ("weight", "mask"):
        if name in over and over[name] != base.get(name):
            out.pop(f"{name}_options", None)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out
