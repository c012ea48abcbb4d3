"""Values that no key of a recipe can take, made from the annotations of the recipe's own sections."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vold.data.sources.digits import Spec as Digits
from vold.data.sources.jsonl import Spec as Jsonl
from vold.data.sources.mixture import Spec as Mixture
from vold.run.recipe import Recipe

Keys = tuple[str, ...]
NONE = type(None)

NAN, INF = float("nan"), float("inf")
WRONG: dict[object, tuple[object, ...]] = {
    int: ("many", 1.5, True, NAN, [1], {"a": 1}),
    float: ("many", True, NAN, INF, -INF, [1.0]),
    bool: ("perhaps", 2, [True]),
    str: (["a"], {"a": "b"}, 3),
    Path: (["a"], {"a": "b"}, 3),
}
"""By type, what is of another."""
SECTIONS: tuple[object, ...] = ("a word", 3, ["a", "list"], {"no_such_key": 1})
"""What stands for no section."""


def bad_values(base: dict[str, Any]) -> Iterator[tuple[Keys, object, dict[str, Any]]]:
    """Each key of each section with each bad value: the key, the value, and the recipe that holds it.

    Args:
        base: a recipe that is right.
    """
    yield from _in_section(Recipe, (), base)
    sources: dict[str, type[BaseModel]] = {"digits": Digits, "jsonl": Jsonl, "mixture": Mixture}
    for name, spec in sources.items():
        section = {"kind": name, **_least(spec)}
        yield from _in_section(spec, ("tasks", "odd"), _with(base, ("tasks", "odd"), section))


def _in_section(section: type[BaseModel], above: Keys, base: dict[str, Any]) -> Iterator[tuple[Keys, object, Any]]:
    for name, info in section.model_fields.items():
        keys = (*above, name)
        if keys == ("tasks", "odd", "kind"):
            continue
        for value in _wrong_for(info):
            yield keys, value, _with(base, keys, value)
        for inner in _sections_of(info.annotation):
            at = (*keys, "odd") if _is_mapping(info.annotation) else keys
            if _at(base, at) is None:
                yield from _in_section(inner, at, _with(base, at, _least(inner)))
            else:
                yield from _in_section(inner, at, base)


def _wrong_for(info: FieldInfo) -> list[object]:
    kinds = list(_kinds(info.annotation))
    found: list[object] = []
    if any(k in (str, object) for k in kinds) and len([k for k in kinds if k is not NONE]) > 1:
        return [["a"]]  # a word may be any of several
    for kind in kinds:
        if isinstance(kind, tuple):
            found += ["no such choice", ["a"], *([] if float in kinds else [3.5])]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            found += SECTIONS
        elif get_origin(kind) is tuple:
            found += [3, {"a": 1}]
        elif get_origin(kind) is dict:
            found += ["a word", 3, ["a"]]
        else:
            found += WRONG.get(kind, ())
    found += _beyond(info)
    if int in kinds and float in kinds:
        found = [v for v in found if not isinstance(v, float) or v != v]
    if info.is_required():
        found.append(None)
    return found


def _beyond(info: FieldInfo) -> list[object]:
    """Numbers at the wrong side of a bound."""
    out: list[object] = []
    for bound in info.metadata:
        for name, step in (("gt", 0), ("ge", -1), ("lt", 0), ("le", 1)):
            limit = getattr(bound, name, None)
            if isinstance(limit, int | float):
                out.append(limit + step)
    return out


def _kinds(annotation: Any) -> Iterator[Any]:
    """What a value may be: types, containers, and a tuple of the words of a choice."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _kinds(inner)
    elif origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin is Literal:
        yield get_args(annotation)
    else:
        yield annotation


def _sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    for kind in _kinds(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ != "TaskSpec":
            yield kind
        elif get_origin(kind) is dict:
            yield from _sections_of(get_args(kind)[1])


def _is_mapping(annotation: Any) -> bool:
    return any(get_origin(kind) is dict for kind in _kinds(annotation))


def _least(section: type[BaseModel]) -> dict[str, Any]:
    """A section with what it cannot be without."""
    return {n: _plain(n, i) for n, i in section.model_fields.items() if i.is_required() and n != "kind"}


PLAIN = {"urls": ["http://127.0.0.1:9/v1"], "tasks": "train", "sources": {"a": "train"}, "against": {}}
"""Values of keys that not every value of their type will do for."""


def _plain(name: str, info: FieldInfo) -> Any:
    kind = next(_kinds(info.annotation))
    if name in PLAIN:
        return PLAIN[name]
    if isinstance(kind, tuple):
        return kind[0]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _least(kind)
    return {int: 8, float: 1.0, bool: False}.get(kind, "x")


def _with(base: dict[str, Any], keys: Keys, value: object) -> dict[str, Any]:
    out = copy.deepcopy(base)
    node = out
    for key in keys[:-1]:
        node[key] = node.get(key) or {}
        node = node[key]
    node[keys[-1]] = value
    return out


def _at(raw: Any, keys: Keys) -> Any:
    for key in keys:
        raw = raw.get(key) if isinstance(raw, dict) else None
    return raw
