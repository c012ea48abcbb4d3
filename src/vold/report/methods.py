"""`vold methods`: the published methods, what each needs of its teacher, and what it expands to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError
from rich.table import Table
from rich.text import Text

from vold.errors import ConfigError
from vold.objective import PRESETS, Objective
from vold.run.console import console
from vold.run.overrides import override, readable

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Root(BaseModel):
    """Where an objective's keys stand when they are set on the command line."""

    objective: Objective


def methods(name: str | None = None, overrides: Sequence[str] = ()) -> None:
    """Print all methods, or one: its source, its readings and where it stands on each axis of the algebra.

    Args:
        name: a method; all of them if absent.
        overrides: `key.path=value` below `distill.objective`, `reading=NAME` among them.

    Raises:
        ConfigError: there is no such method, or a key or value of it is wrong.
    """
    if name is None:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("method", "what it does", "needs of the teacher", "readings"):
            table.add_column(column)
        for method, preset in PRESETS.items():
            needs = expand(method).needs.words
            table.add_row(*map(Text, (method, preset.about, needs, ", ".join(preset.readings) or "-")))
        console.print(table)
        usage = "vold methods METHOD [--expand] [reading=NAME] [key.path=value ...]"
        console.print(Text(f"\n{usage} says more of one; --expand prints the recipe keys it stands for"))
        return
    objective = expand(name, overrides)
    preset = PRESETS[name]
    missing = f": {preset.missing}" if preset.missing else ""
    for label, value in (
        ("method", f"{name}  {preset.about}"),
        ("source", preset.source),
        ("fidelity", preset.fidelity + missing),
        ("teacher", objective.needs.words),
        *((f"reading={reading}", r.about) for reading, r in preset.readings.items()),
    ):
        console.print(Text.assemble((f"{label:<22}", "dim"), value))
    console.print()
    for axis, value in knobs(objective).items():
        if value != "-":
            console.print(Text.assemble((f"{axis:<22}", "dim"), value))


def print_expansion(name: str, overrides: Sequence[str] = ()) -> None:
    """Print a method as the objective it stands for in a recipe.

    Raises:
        ConfigError: there is no such method, or a key or value of it is wrong.
    """
    tree = expand(name, overrides).model_dump(mode="json", exclude_none=True)
    console.out(yaml.safe_dump({"objective": tree}, sort_keys=False, allow_unicode=True).rstrip(), highlight=False)


def expand(name: str, overrides: Sequence[str] = ()) -> Objective:
    """A method with its overrides, as a recipe would resolve it.

    Raises:
        ConfigError: there is no such method, or a key or value of it is wrong.
    """
    if name not in PRESETS:
        raise ConfigError("there is no such method", where="command line", got=name, fix=f"one of {', '.join(PRESETS)}")
    raw: dict[str, Any] = {"method": name}
    for item in overrides:
        override(raw, item)
    try:
        return _Root.model_validate({"objective": raw}).objective
    except ValidationError as error:
        raise readable(error, "command line", _Root) from None


def knobs(objective: Objective) -> dict[str, str]:
    """Where an objective stands on each axis of the algebra, in a few words."""
    outcome, advantage, loss = objective.outcome, objective.teacher_advantage, objective.teacher_loss
    entries, coefficients, masks, weights = [], [], [], []
    if advantage is not None:
        entries.append("advantage" if advantage.against == "behaviour" else "advantage, at the update")
    if loss is not None:
        where = "" if not loss.over_vocabulary else ", full" if loss.top_k is None else f", top {loss.top_k.k}"
        entries.append(f"loss {loss.estimator}{where}")
    for slot in (advantage, loss):
        if slot is not None:
            falls = f" → {slot.final_coefficient:g}" if slot.anneal_per_step else ""
            coefficients.append(f"{slot.coefficient:g}{falls}")
            masks.append({"none": "1", "failed": "1 - r", "passed": "r"}.get(slot.mask, slot.mask))
            weights += [slot.weight] if slot.weight else []
    a = advantage
    if a is not None and a.balance is not None:
        masks.append(f"balance {a.balance.ratio:g}" if isinstance(a.balance.ratio, float) else "correct only")
    if a is not None and a.steps is not None:
        weights.append(f"min(d_1/d_k, {1 + a.steps.delta:g})")
    margin = a.margin if a is not None else None
    s = objective.surrogate
    clip = "-" if s is None else "none" if s.clip_low is None else f"{s.clip_low:g} / {s.clip_high:g}"
    gates = [f"drop at {a.gate:g} nats"] if a is not None and a.gate is not None else []
    gates += [f"ratio {s.band.low:g} to {s.band.high:g}"] if s is not None and s.band is not None else []
    future = a.future if a is not None else None
    credit = "" if future is None else f"discount {future.discount:g}"
    credit += ", from the next" if future is not None and future.from_next else ""
    credit += ", length-normalised" if future is not None and future.length_normalised else ""
    averages = [x.aggregate for x in (s, loss, objective.nll) if x is not None]
    return {
        "outcome advantage": "-" if outcome is None else f"{outcome.weight:g}, {outcome.normalise}",
        "teacher enters as": _said(entries),
        "coefficient": _said(coefficients),
        "M, rollout mask": _said(masks),
        "W, token weight": _said(weights),
        "P, prefix": f"t ≤ cut, K = {a.prefix.top_k}" if a is not None and a.prefix is not None else "-",
        "s, shift": f"{margin.form}, {margin.statistic}, {margin.direction}, {margin.delta:g}" if margin else "-",
        "token gate": _said(gates),
        "clip": clip + (" of the response's ratio" if s is not None and s.ratio == "sequence" else ""),
        "average": _said(averages),
        "rollouts": "student" if objective.mix is None else f"λ-mix {objective.mix.student_share:g}",
        "future credit": credit or "-",
        "needs of the teacher": objective.needs.words,
    }


def _said(values: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(values)) or "-"
