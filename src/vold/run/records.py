"""Frozen dataclasses as JSON and back: the one way results, rows of metrics and summaries are stored.

A field is a key of its own name, in the order of the class. A field whose default is None is left out where it is None;
one without a default is written as null.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar, cast

from vold.errors import DataError

T = TypeVar("T")

JsonObject: TypeAlias = dict[str, Any]
"""An object as `json` reads or writes it."""


def flat(prefix: str = "") -> dict[str, str]:
    """Metadata of a field whose mapping stands in the file key by key, each with this prefix, beside the other
    fields."""
    return {"flat": prefix}


def to_json(value: object) -> Any:
    """A dataclass, or a mapping or sequence of them, as `json.dumps` takes it.

    Example:
        >>> from vold.run.metrics import SftRow
        >>> to_json(SftRow(step=0, loss=2.5, grad_norm=1.0, lr=0.1, tokens=8, seconds=0.5))["loss"]
        2.5
    """
    if value is None or isinstance(value, str | int | float):  # first: nearly all that is stored are numbers
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out: dict[str, Any] = {}
        for f in dataclasses.fields(value):
            found = getattr(value, f.name)
            if "flat" in f.metadata:
                out |= {f.metadata["flat"] + key: value for key, value in to_json(found).items()}
            elif found is not None or f.default is not None:
                out[f.name] = to_json(found)
        return out
    if isinstance(value, Mapping):
        return {key: to_json(found) for key, found in value.items()}
    if isinstance(value, Sequence):
        return [to_json(found) for found in value]
    return value


def from_json(kind: type[T], value: object, *, where: str = "") -> T:
    """The dataclass that `to_json` has written. Keys that it does not know are left out.

    Raises:
        DataError: it is no object, a field without a default is missing, or a value is of another type; `where` is
            named.

    Example:
        >>> from vold.run.results import Interval
        >>> from_json(Interval, {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}).n
        8
    """
    try:
        found: T = reader(kind)(value)
    except Unlike as error:
        raise DataError(
            "this file is cut short or of another version", where=where, got=f"{kind.__name__}: {error}"
        ) from None
    return found


class Unlike(Exception):
    """A value does not have the shape of a class."""


Reader = Callable[[object], Any]


class Within(NamedTuple):
    """Bounds of a number, both inside."""

    low: float
    high: float


Share = Annotated[float, Within(0, 1)]
Count = Annotated[int, Within(0, 2**53)]
TokenId = Annotated[int, Within(0, 2**31 - 1)]
Bit = Annotated[int, Within(0, 1)]

FINITE = Within(-1e308, 1e308)
SCALARS: tuple[type, ...] = (str, bool, int, float)


def reader(kind: Any) -> Reader:
    """What turns JSON into a value of this type.

    It raises `Unlike` for another shape or type: true is no number, a number no text, and no number is infinite. What
    the annotations of a class cannot say its `__post_init__` may refuse with a ValueError.
    """
    return _reader(kind)


@cache
def _reader(kind: Any) -> Reader:
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(cast("type[object]", kind))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _union_reader([a for a in arguments if a is not type(None)], empty=type(None) in arguments)
    if origin in (collections.abc.Mapping, dict):
        item = reader(arguments[1])
        return lambda value: {key: _inside(key, item, found) for key, found in _of(dict, value).items()}
    if origin is tuple:
        return _tuple_reader(arguments[0])
    if origin is Literal:
        return lambda value: _checked(value, type(value) is str and value in arguments, " or ".join(arguments))
    if origin is Annotated or kind in SCALARS:
        return _scalar_reader(kind)
    if kind in (dict, list):
        return lambda value: _of(kind, value)
    return lambda value: value


def _scalar_reader(kind: Any) -> Reader:
    base, bounds = (kind, FINITE) if kind in SCALARS else typing.get_args(kind)
    if base in (str, bool):
        return lambda value: _checked(value, type(value) is base, f"a {base.__name__}")
    taken = (int,) if base is int else (int, float)
    low, high = bounds
    words = "whole number" if base is int else "number"
    wanted = f"a {words}" if bounds is FINITE else f"a {words} from {low} to {high}"
    return lambda value: _checked(value, type(value) in taken and low <= value <= high, wanted)


def _tuple_reader(kind: Any) -> Reader:
    item = reader(kind)
    whole = typing.get_origin(kind) is Annotated and typing.get_args(kind)[0] is int
    low, high = typing.get_args(kind)[1] if whole else FINITE

    def read(value: object) -> object:
        found = _of(list, value)
        # Token ids are nearly all that is stored: checked in one go.
        if whole and {*map(type, found)} == {int} and low <= min(found) and max(found) <= high:
            return tuple(found)
        return tuple(_inside(str(i), item, one) for i, one in enumerate(found))

    return read


def _dataclass_reader(kind: type[object]) -> Reader:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = dataclasses.fields(cast("Any", kind))
    readers = {f.name: reader(hints[f.name]) for f in fields}
    spread = {f.name: f.metadata["flat"] for f in fields if "flat" in f.metadata}
    needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING and f.name not in spread]

    def read(value: object) -> object:
        row = _of(dict, value)
        if missing := [name for name in needed if name not in row]:
            raise Unlike(f"no {', '.join(missing)}")
        found = {name: _inside(name, of_field, row[name]) for name, of_field in readers.items() if name in row}
        for name, prefix in spread.items():
            theirs = {k.removeprefix(prefix): v for k, v in row.items() if k not in readers and k.startswith(prefix)}
            found[name] = readers[name](theirs)
        try:
            return kind(**found)
        except ValueError as error:
            raise Unlike(str(error)) from None

    return read


def _inside(name: str, read: Reader, value: object) -> Any:
    """A part of a value; what is wrong with it is said with its name."""
    try:
        return read(value)
    except Unlike as error:
        raise Unlike(f"{name}: {error}") from None


def _union_reader(kinds: Sequence[Any], *, empty: bool) -> Reader:
    """The first of the types that the value has the shape of, or None where it may be `empty`."""
    readers = [reader(kind) for kind in kinds]

    def read(value: object) -> object:
        if value is None and empty:
            return None
        for one in readers[:-1]:
            try:
                return one(value)
            except Unlike:
                continue
        return readers[-1](value)

    return read


def _of(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise Unlike(f"a {type(value).__name__} where a {kind.__name__} stands")
    return value


def _checked(value: object, right: bool, wanted: str) -> object:
    if not right:
        raise Unlike(f"{repr(value)[:40]} where {wanted} stands")
    return value
