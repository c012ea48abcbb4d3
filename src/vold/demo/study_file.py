"""What a study file says: arms, alone or once for every point of a grid, the tasks they are judged on, and claims."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationError, model_validator

from vold.errors import ConfigError
from vold.evals.claims import Claim
from vold.evals.sequential import Looks
from vold.evals.study_results import COLUMNS, UnitResult
from vold.run.mistakes import Written, mistakes_in, readable
from vold.run.names import Name, close_to, no_twins
from vold.run.recipe import AnyTaskSpec, Section
from vold.run.yaml_text import sections_in, text_of

TAKEN = ("models",)
"""Names that stand for something else in a study: `{models}` in a value."""
CONTROL = "-opsa"
"""What is put behind the name of an arm for that of its control."""
OBJECTIVE = "distill.objective"
BEFORE = {"kl": "kl", "top1": "top1_agreement", "passing": "pass_rate", "failing": "failed_groups"}
"""Measures of an arm of `align`, and the figures that they are: nats per token the first, shares the others."""
READINGS = ("read", "reasoned")
"""What is measured besides of a set of pictures: SET.read and SET.reasoned."""
Settings: TypeAlias = dict[str, Any]
"""Keys of a recipe, with dots, and their values."""


class Arm(Section):
    """One way to train."""

    stage: Literal["align", "sft", "distill"] | None = None
    """The stage this arm runs; `align` compares it with its teacher and trains nothing; none for a model that is
    evaluated as it is."""
    after: str | None = None
    """The arm whose result of the same seed this arm starts from; the recipe's student if absent."""
    at: Annotated[int, Field(ge=0)] | None = None
    """The step of `after` whose model this arm starts from, one that its stage keeps (`eval.keep_every`); its last if
    absent."""
    over: tuple[str, ...] = ()
    """Axes: there is one such arm for every point of them, and `{AXIS}` in `at` and `set` becomes the value."""
    set: Settings = Field(default_factory=dict)
    """Recipe keys of this arm."""
    rates: tuple[float, ...] = ()
    """Learning rates to choose from on the selection tasks."""
    family: str | None = None
    """The arm in the file that this one is a copy of. Written by `over`, as `cell` and `level` are."""
    cell: dict[str, str] = Field(default_factory=dict)
    """Where it stands: a value for each of its axes."""
    level: Settings = Field(default_factory=dict)
    """Recipe keys of these values."""

    @property
    def trains(self) -> bool:
        """Whether there is a learning rate to choose."""
        return self.stage in ("sft", "distill")


class Study(Section):
    """A study file."""

    recipe: Path
    """The recipe all arms share, relative to the study file."""
    set: Settings = Field(default_factory=dict)
    """Recipe keys that hold for every arm; `{seed}` in a value becomes the seed."""
    workers: int = Field(2, ge=1, le=1024)
    """Units that run side by side on each machine, one CPU thread each."""
    seeds: tuple[int, ...] = Field(min_length=2)
    """Training seeds of the test."""
    select_seeds: tuple[int, ...] = Field(min_length=1)
    """Training seeds of the sweep; none of them is a test seed."""
    select_on: str
    """Task set whose accuracy chooses the rate."""
    select_tasks: dict[Name, AnyTaskSpec]
    """Selection tasks."""
    test_tasks: dict[Name, AnyTaskSpec]
    """Test tasks."""
    models: Annotated[dict[Name, str], AfterValidator(no_twins)] = Field(default_factory=dict)
    """Models made for this study: by name the `my_module:function` that saves one in the directory it is given. In a
    value of `set`, `{models}` becomes the directory that holds them."""
    measures: dict[str, str] = Field(default_factory=dict)
    """Figures read off the directory of a trained arm's stage: by name a `my_module:function` that returns a dictionary
    with `accuracy` for a share or `value` for any other number, and optionally `counts`, or None where it has none."""
    columns: dict[str, str] = Field(default_factory=lambda: dict(COLUMNS))
    """Measures shown in the table, with their headings."""
    axes: dict[Name, dict[Name, Settings]] = Field(default_factory=dict)
    """What arms may go over: by name a list of values, or the recipe keys of every value. These come last, behind those
    of the tasks."""
    arms: Annotated[dict[Name, Arm], AfterValidator(no_twins)]
    """Arms by name, parents before children."""
    controls: tuple[str, ...] = ()
    """Arms of stage 2 that get a twin, `NAME-opsa`, which differs in the method alone: OPSA, one fixed negative
    advantage and no teacher. What an arm gains over its twin is what its teacher and its verdicts are good for."""
    claims: dict[str, Claim]
    """Claims by id."""
    looks: Looks | None = None
    """When the claims are looked at before all seeds have run; absent: once, at the end."""

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, raw: Any) -> Any:
        """The arms that `controls` adds, behind the others, and those of every point of a grid in their order."""
        if not isinstance(raw, dict) or not isinstance(raw.get("arms"), dict):
            return raw
        names, arms, axes = raw.get("controls"), raw["arms"], raw.get("axes")
        if isinstance(names, list | tuple):
            arms = {**arms, **{f"{n}{CONTROL}": _twin(arms[n]) for n in names if n in arms}}
        if isinstance(axes, dict):
            axes = {name: {str(v): {} for v in of} if isinstance(of, list) else _texts(of) for name, of in axes.items()}
            raw = {**raw, "axes": axes}
        copies = {name: _copies(name, arm, arms, axes or {}) for name, arm in arms.items()}
        return {**raw, "arms": {name: arm for of in copies.values() for name, arm in of.items()}}

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        self._seeds_are_apart()
        if self.select_on not in self.select_tasks:
            raise no_such("selection task set", self.select_on, self.select_tasks, "select_on")
        self._arms_are_in_order()
        for name in self.controls:
            if (known := [a.stage for a in self.family(name).values()]) != ["distill"] * len(known) or not known:
                ours = [n for n in self.names("distill") if not n.endswith(CONTROL)]
                raise no_such("arm of stage 2", name, ours, "controls")
        for key, claim in self.claims.items():
            self._claim_is_of(claim, f"claims.{key}")
        for measure, where in self.asked():
            self._is_measured(measure, self.test_tasks, where)
        if self.looks is not None:
            self.looks.refuse_others(len(self.seeds))
        if taken := {*self.measures} & {*self.test_tasks, "reward", *(f.name for f in fields(UnitResult))}:
            what = f"a measure and a task set, or a key of results, share the name {min(taken)!r}"
            raise ConfigError(what, fix="rename the measure")
        return self

    def family(self, name: str) -> dict[str, Arm]:
        """The arm of this name, or its copies on the grid."""
        return {n: arm for n, arm in self.arms.items() if name in (n, arm.family)}

    def names(self, *stages: str) -> list[str]:
        """Arms as they stand in the file; of these stages, where any is given."""
        found = {arm.family or name: arm.stage for name, arm in self.arms.items()}
        return [name for name, stage in found.items() if not stages or stage in stages]

    @property
    def tuned(self) -> list[str]:
        """Arms that are not trained and looked at with the selection seeds: those that say where a claim is made."""
        asked = {key.partition("/")[0] for claim in self.claims.values() for key in claim.where if "/" in key}
        return [n for n, arm in self.arms.items() if not arm.trains and asked & {n, arm.family}]

    def is_trained(self, name: str) -> bool:
        """Whether an arm, or one that it comes from, is trained: its models differ by seed."""
        arm = self.arms[name]
        return arm.trains or (arm.after is not None and self.is_trained(arm.after))

    def _seeds_are_apart(self) -> None:
        for name, of in {"seeds": self.seeds, "select_seeds": self.select_seeds}.items():
            if len({*of}) < len(of):
                fix = "give each once: a run that counts twice shows more than it has"
                raise ConfigError("a seed is there twice", where=name, got=str(sorted(of)), fix=fix)
        if set(self.seeds) & set(self.select_seeds):
            raise ConfigError(
                "select_seeds and seeds overlap: choices would be made on the test",
                got=str(sorted(set(self.seeds) & set(self.select_seeds))),
                fix="give select_seeds numbers that seeds does not have",
            )

    def _claim_is_of(self, claim: Claim, where: str) -> None:
        for arm_name in (claim.better, claim.worse, *(k.partition("/")[0] for k in claim.where if "/" in k)):
            if arm_name is not None and not self.family(arm_name):
                raise no_such("arm", arm_name, self.names(), where)
        for axis in (key for key in claim.where if "/" not in key):
            if axis not in self.axes:
                raise no_such("axis", axis, self.axes, f"{where}.where")
            for value in map(str, claim.where[axis]):
                if value not in self.axes[axis]:
                    raise no_such(f"value of the axis {axis}", value, self.axes[axis], f"{where}.where.{axis}")
        for measure in (key.partition("/")[2] for key in claim.where if "/" in key):
            self._is_measured(measure, self.select_tasks, f"{where}.where")

    def asked(self) -> Iterator[tuple[str, str]]:
        """The measures that claims and the columns which the file names are about, and where they stand."""
        yield from ((claim.measure, f"claims.{key}.measure") for key, claim in self.claims.items())
        yield from ((measure, "columns") for measure in (self.columns if "columns" in self.model_fields_set else ()))

    def _is_measured(self, measure: str, sets: Mapping[str, object], where: str) -> None:
        """Refuse what no unit will have: behind a set stand READINGS or a kind of its problems, and nothing else."""
        known = [*sets, "reward", *BEFORE, *self.measures]
        read = [f"{name}.{reading}" for name in sets for reading in READINGS]
        name, _, kind = measure.partition("/")
        if measure not in known + read and not (kind and name in {*sets, *self.measures}):
            raise no_such("measure", measure, known + read, where)

    def _arms_are_in_order(self) -> None:
        seen: list[str] = []
        for name, arm in self.arms.items():
            if arm.after is not None and arm.after not in seen:
                raise no_such("arm above it", arm.after, seen, f"arms.{name}.after")
            if arm.trains != bool(arm.rates):
                fix = "give both `stage` and `rates`, or neither"
                raise ConfigError("a stage and its learning rates go together", where=f"arms.{name}", fix=fix)
            if arm.at is not None and (arm.after is None or not self.arms[arm.after].trains):
                fix = "name an arm that trains in `after`, or leave out `at`"
                raise ConfigError("`at` is a step of the arm that this one starts from", where=f"arms.{name}", fix=fix)
            if name in TAKEN:
                fix = "call it otherwise"
                raise ConfigError("the study keeps its own files under this name", where=f"arms.{name}", fix=fix)
            seen.append(name)
        for stage in ("sft", "distill"):
            swept = {len(a.rates) for a in self.arms.values() if a.stage == stage}
            if len(swept) > 1:
                fix = "give each the same number, lest one is chosen from more"
                raise ConfigError(
                    f"every arm of {stage} is swept over equally many rates", where="arms", got=str(swept), fix=fix
                )


def _twin(arm: Any) -> Any:
    """The same arm with the control's objective, in keys as they are written."""
    if not isinstance(arm, dict):
        return arm
    kept = {k: v for k, v in (arm.get("set") or {}).items() if f"{k}.".partition(f"{OBJECTIVE}.")[1] == ""}
    return {**arm, "set": {**kept, OBJECTIVE: {"method": "opsa"}}}


def _texts(of: Any) -> Any:
    return {str(value): keys for value, keys in of.items()} if isinstance(of, dict) else of


def _copies(name: str, arm: Any, arms: Mapping[str, Any], axes: Mapping[str, Any]) -> Settings:
    """An arm as it is written, or one of it for every point of its axes."""
    over = arm.get("over") if isinstance(arm, dict) else None
    if not over:
        return {name: arm}
    for axis in over:
        if not isinstance(axes.get(axis), dict):
            raise no_such("axis", str(axis), axes, f"arms.{name}.over")
    out = {}
    for values in itertools.product(*(axes[axis] for axis in over)):
        cell = dict(zip(over, values, strict=True))
        after = arm.get("after")
        one = {k: _filled(v, cell) if k in ("at", "set") else v for k, v in arm.items()}
        level = {key: value for axis in over for key, value in axes[axis][cell[axis]].items()}
        if after in arms:
            one["after"] = _copy_at(after, arms[after], cell, f"arms.{name}.after")
        out[_name_of(name, cell)] = {**one, "family": name, "cell": cell, "level": level}
    return out


def _copy_at(parent: str, arm: Any, cell: Mapping[str, str], where: str) -> str:
    """The copy of a parent that a child at this point starts from."""
    over = (arm.get("over") if isinstance(arm, dict) else None) or ()
    if missing := [axis for axis in over if axis not in cell]:
        fix = f"add {missing[0]} to `over` of this arm"
        raise ConfigError("an arm goes over all axes of the one it starts from", where=where, got=parent, fix=fix)
    return _name_of(parent, {axis: cell[axis] for axis in over})


def _name_of(name: str, cell: Mapping[str, str]) -> str:
    return "-".join((name, *cell.values()))


def _filled(value: Any, cell: Mapping[str, str]) -> Any:
    """A value of the file with the axes' values in it."""
    text = json.dumps(value)
    for axis, own in cell.items():
        text = text.replace(f'"{{{axis}}}"', own if own.isdecimal() else json.dumps(own)).replace(f"{{{axis}}}", own)
    return json.loads(text)


def load_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        ConfigError: no such file, or a key that is unknown, mistyped, inconsistent or there twice.
    """
    text = text_of(path, "study")
    raw = sections_in(text, path, "study")
    if not {"arms", "claims"} & raw.keys():
        got = f"keys {', '.join(map(str, raw))}"
        fix = "give a study file, which names a recipe, arms and claims; see docs/study.md"
        raise ConfigError("this is no study", where=str(path), got=got, fix=fix)
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise readable(mistakes_in(error, raw, Study), Written(str(path), text)) from None


def no_such(kind: str, name: str, known: Iterable[str], where: str) -> ConfigError:
    """For a name that is not known, with the one that was meant."""
    known = list(known)
    close = close_to(name, known)
    fix = f"did you mean {close!r}?" if close else f"one of {', '.join(known) or 'none'}"
    return ConfigError(f"there is no such {kind}", where=where, got=repr(name), fix=fix)
