"""Which card holds a run, and which keys of the recipe would make it fit a smaller one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vold.errors import ConfigError
from vold.run.recipe import recipe_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vold.model.phases import PhaseMemory
    from vold.run.recipe import Recipe

    Planned = Callable[[Recipe], Sequence[PhaseMemory]]

GIB = 2**30
CARDS = {
    "16 GB": 14.6, "24 GB": 22.0, "32 GB": 31.3, "40 GB": 39.4, "48 GB": 44.4, "80 GB": 79.1, "96 GB": 93.0,
    "141 GB": 139.8, "180 GB": 178.0, "288 GB": 267.0,
}  # fmt: skip
"""GiB that a program finds on a card that is sold as so many GB: the least of several makes, as with ECC."""
LORA = {"rank": 64, "alpha": 128}
"""The adapters of `recipes/qwen2_5_vl-3b-lora.yaml`."""
LEAST_BUDGET = 1024
SIZES = ("traces.batch_size", "sft.token_budget", "distill.batch_size", "distill.token_budget", "eval.batch_size")
"""Keys that change how much is done side by side, and no result."""
PARTS = tuple(2**n for n in range(1, 11))

Change = dict[str, Any]
"""Keys of a recipe, and other values for them."""


def highest(phases: Sequence[PhaseMemory]) -> PhaseMemory:
    """The phase that needs most."""
    return max(phases, key=lambda p: p.total)


def smallest_card(needed: int) -> str | None:
    """The smallest of `CARDS` with so many bytes; None where none has."""
    return next((name for name, gib in CARDS.items() if needed <= gib * GIB), None)


def smaller_card(name: str | None) -> str | None:
    """The next smaller one; of None the largest there is."""
    names = [None, *CARDS]
    return names[(names.index(name) or len(names)) - 1]


def cures(recipe: Recipe, planned: Planned, room: int) -> Change | None:
    """Keys with which the plan of a recipe fits `room` bytes, none of them to spare; None where all are not enough.

    Each is tried on the plan: one that does not bring it nearer is not taken. They come in the order of what they
    cost: nothing but time first, and another method last.
    """

    def over(change: Change) -> int | None:
        try:
            return sum(max(0, p.total - room) for p in planned(changed(recipe, change)))
        except ConfigError:  # the two do not go together
            return None

    taken: list[Change] = []
    above = over({})
    for change in _changes(recipe):
        if not above:
            break
        more = [*(c for c in taken if c.keys() != change.keys()), change]
        less = over(_joined(more))
        if less is not None and less < above:
            taken, above = more, less
    if above != 0:
        return None
    for change in list(taken):
        rest = [c for c in taken if c is not change]
        taken = rest if over(_joined(rest)) == 0 else taken
    return _joined(taken)


def in_words(change: Change) -> str:
    """Keys as they are written on the command line."""
    return " ".join(f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in change.items())


def changed(recipe: Recipe, change: Change) -> Recipe:
    """The recipe with other values of some keys, however deep they lie.

    Raises:
        ConfigError: they do not fit the rest of it.
    """
    if not change:
        return recipe
    raw = recipe.model_dump(mode="json")
    for key, value in change.items():
        *parents, last = key.split(".")
        section = raw
        for name in parents:
            section = section[name]
        section[last] = value
    return recipe_from(raw, where="a plan")


def _joined(changes: Sequence[Change]) -> Change:
    return {key: value for change in changes for key, value in change.items()}


def _value(recipe: Recipe, key: str) -> Any:
    stage, name = key.split(".")
    return getattr(getattr(recipe, stage), name, None)


def _changes(recipe: Recipe) -> Iterator[Change]:
    """What could be changed, with what it costs least first."""
    if recipe.distill is not None and not recipe.run.offload:
        yield {"run.offload": True}
    if recipe.learner.activation_checkpointing is not True:
        yield {"student.activation_checkpointing": True}
    yield from _smaller(recipe)
    for name in ("student", "teacher"):
        if getattr(getattr(recipe, name), "dtype", "bfloat16") != "bfloat16":
            yield {f"{name}.dtype": "bfloat16"}
    if stages := [name for name in ("sft", "distill") if getattr(recipe, name) is not None]:
        yield {f"{name}.optimizer.moments": "8bit" for name in stages}
    yield from _quantised_teachers(recipe)
    lora: Change = {} if recipe.learner.lora is not None else {"student.lora": LORA}
    if lora and recipe.learner.teacher_tokens == "add":  # which adapters can not train
        lora |= {"student.teacher_tokens": "refuse", "teacher.tokenizer": "align"}
    if lora:
        yield lora
    if recipe.learner.quantize != "nf4":
        yield {**lora, "student.quantize": "nf4"}


def _smaller(recipe: Recipe) -> Iterator[Change]:
    """Less side by side."""
    sizes = [(key, value) for key in SIZES if (value := _value(recipe, key)) is not None]
    for part in PARTS:
        for key, value in sizes:
            if value // part >= (LEAST_BUDGET if key.endswith("token_budget") else 1):
                yield {key: value // part}


def _quantised_teachers(recipe: Recipe) -> Iterator[Change]:
    """The teachers of this process in 8 and in 4 bits."""
    teacher = recipe.teacher
    if teacher is None:
        return
    named = {"teacher": teacher, **{f"teacher.routes.{name}": one for name, one in teacher.routes.items()}}
    for kind in ("int8", "nf4"):
        held = {key: one for key, one in named.items() if one.server is None and one.quantize not in (kind, "nf4")}
        if held:
            yield {f"{key}.quantize": kind for key in held}
