"""Where an objective stands on each axis of the algebra, in a few words: the table of methods in docs/method.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vold.objective.options import Future, Margin
    from vold.objective.spec import Objective
    from vold.objective.terms import Surrogate, TeacherAdvantage, TeacherLoss


def axes(objective: Objective) -> dict[str, str]:
    """Value by axis; a dash where the objective has nothing on it."""
    outcome, a, loss = objective.outcome, objective.teacher_advantage, objective.teacher_loss
    surrogate = objective.surrogate
    averaged = [term.aggregate for term in (surrogate, loss, objective.nll) if term is not None]
    return {
        "outcome advantage": "-" if outcome is None else f"{outcome.weight:g}, {outcome.normalise}",
        "teacher enters as": _said([*_advantage(a), *_loss(loss)]),
        "coefficient": _said(map(_coefficient, objective.teacher_terms)),
        "M, rollout mask": _said([*map(_mask, objective.teacher_terms), *_balance(a)]),
        "W, token weight": _said([*(term.weight or "" for term in objective.teacher_terms), *_steps(a)]),
        "P, prefix": _prefix(a),
        "s, shift": _shift(a.margin if a is not None else None),
        "token gate": _said(_gates(a, surrogate)),
        "clip": _clip(surrogate),
        "average": _said(averaged),
        "rollouts": "student" if objective.mix is None else f"λ-mix {objective.mix.student_share:g}",
        "future credit": _future(a.future if a is not None else None),
        "needs of the teacher": objective.needs.words,
    }


def _said(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, values))) or "-"


def _advantage(term: TeacherAdvantage | None) -> list[str]:
    if term is None:
        return []
    return ["advantage" if term.against == "behaviour" else "advantage, at the update"]


def _loss(term: TeacherLoss | None) -> list[str]:
    if term is None:
        return []
    where = "" if not term.over_vocabulary else ", full" if term.top_k is None else f", top {term.top_k.k}"
    return [f"loss {term.estimator}{where}"]


def _coefficient(term: TeacherAdvantage | TeacherLoss) -> str:
    falls = f" → {term.final_coefficient:g}" if term.anneal_per_step else ""
    return f"{term.coefficient:g}{falls}"


def _mask(term: TeacherAdvantage | TeacherLoss) -> str:
    return {"none": "1", "failed": "1 - r", "passed": "r"}.get(term.mask, term.mask)


def _balance(term: TeacherAdvantage | None) -> list[str]:
    if term is None or term.balance is None:
        return []
    return [f"balance {term.balance.ratio:g}" if isinstance(term.balance.ratio, float) else "correct only"]


def _steps(term: TeacherAdvantage | None) -> list[str]:
    return [] if term is None or term.steps is None else [f"min(d_1/d_k, {1 + term.steps.delta:g})"]


def _prefix(term: TeacherAdvantage | None) -> str:
    return "-" if term is None or term.prefix is None else f"t ≤ cut, K = {term.prefix.top_k}"


def _shift(margin: Margin | None) -> str:
    return "-" if margin is None else f"{margin.form}, {margin.statistic}, {margin.direction}, {margin.delta:g}"


def _gates(term: TeacherAdvantage | None, surrogate: Surrogate | None) -> list[str]:
    gates = [] if term is None or term.gate is None else [f"drop at {term.gate:g} nats"]
    if surrogate is not None and surrogate.band is not None:
        gates.append(f"ratio {surrogate.band.low:g} to {surrogate.band.high:g}")
    return gates


def _clip(surrogate: Surrogate | None) -> str:
    if surrogate is None:
        return "-"
    clip = "none" if surrogate.clip_low is None else f"{surrogate.clip_low:g} / {surrogate.clip_high:g}"
    clip += "" if surrogate.dual_clip is None else f", dual {surrogate.dual_clip:g}"
    return clip + (" of the response's ratio" if surrogate.ratio == "sequence" else "")


def _future(future: Future | None) -> str:
    if future is None:
        return "-"
    more = [", from the next"] * future.from_next + [", length-normalised"] * future.length_normalised
    return f"discount {future.discount:g}{''.join(more)}"
