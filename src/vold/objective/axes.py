"""Where an objective stands on each axis of the algebra, in a few words: the table of methods in docs/method.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vold.objective.options import Future, Margin
    from vold.objective.spec import Objective
    from vold.objective.terms import OutcomeAdvantage, OwnLoss, Surrogate, TeacherAdvantage, TeacherLoss, TeacherTerm


def axes(objective: Objective) -> dict[str, str]:
    """Value by axis; a dash where the objective has nothing on it."""
    outcome, a, loss = objective.outcome, objective.teacher_advantage, objective.teacher_loss
    surrogate = objective.surrogate
    own = objective.own_loss
    averaged = [term.aggregate for term in (surrogate, loss, objective.nll, own) if term is not None]
    return {
        "outcome advantage": "-" if outcome is None else _outcome(outcome),
        "teacher enters as": _said([*_advantage(a, objective.needs.contrast), *_loss(loss), *_own(own)]),
        "coefficient": _said(map(_coefficient, objective.teacher_terms)),
        "M, rollout mask": _said([*map(_mask, objective.teacher_terms), *_balance(a)]),
        "W, token weight": _said([*(_function(term.weight) for term in (a, loss) if term is not None), *_steps(a)]),
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


def _outcome(term: OutcomeAdvantage) -> str:
    if term.constant is not None:
        return f"constant {term.constant * term.weight:g}"
    return f"{term.weight:g}, {term.normalise}" + ("" if term.mask is None else f", {_named(term.mask)}")


def _advantage(term: TeacherAdvantage | None, contrast: str | None) -> list[str]:
    if term is None:
        return []
    if term.against == "reference":
        shift = f"log π_T - log π_{contrast}"
        return [
            f"advantage {shift}" if term.extrapolation is None else f"advantage, λ {term.extrapolation:g} of {shift}"
        ]
    return ["advantage" if term.against == "behaviour" else "advantage, at the update"]


def _own(term: OwnLoss | None) -> list[str]:
    return [] if term is None or term.mask is None else [f"loss {_named(term.function)}"]


def _named(name: str) -> str:
    """A function without the package's own module."""
    return name.removeprefix("vold.objective.gates:")


def _function(name: str | None) -> str:
    return "" if name is None else _named(name)


def _loss(term: TeacherLoss | None) -> list[str]:
    if term is None:
        return []
    where = "" if not term.over_vocabulary else ", full" if term.top_k is None else f", top {term.top_k.k}"
    return [f"loss {_named(term.estimator)}{where}"]


def _coefficient(term: TeacherTerm) -> str:
    falls = f" → {term.final_coefficient:g}" if term.anneal_per_step else ""
    return f"{term.coefficient:g}{falls}"


def _mask(term: TeacherTerm) -> str:
    mask = term.mask or "none"
    return {"none": "1", "failed": "1 - r", "passed": "r"}.get(mask, _named(mask))


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
