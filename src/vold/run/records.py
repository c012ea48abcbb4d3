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
from typing import Any, TypeVar, cast

from vold.errors import DataError

T = TypeVar("T")

FLAT = {"flat": True}
"""Metadata of a field whose mapping stands in the file key by key, beside the other fields."""


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
            if f.metadata == FLAT:
                out |= to_json(found)
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
        DataError: it is no object, or a field without a default is missing; `where` is named.

    Example:
        >>> from vold.run.results import Interval
        >>> from_json(Interval, {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}).n
        8
    """
    try:
        found: T = _reader(cast("Any", kind))(value)
    except _Unlike as error:
        raise DataError(
            "this file is cut short or of another version", where=where, got=f"{kind.__name__}: {error}"
        ) from None
    return found


class _Unlike(Exception):
    """A value does not have the shape of a class."""


Reader = Callable[[object], Any]


@cache
def _reader(kind: Any) -> Reader:
    """What turns JSON into a value of this type."""
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(cast("type[object]", kind))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _union_reader([a for a in arguments if a is not type(None)])
    if origin is collections.abc.Mapping:
        item = _reader(arguments[1])
        return lambda value: {key: item(found) for key, found in _of(dict, value).items()}
    if origin is tuple:
        item = _reader(arguments[0])
        return lambda value: tuple(item(found) for found in _of(list, value))
    return lambda value: value


def _dataclass_reader(kind: type[object]) -> Reader:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(cast("Any", kind))
    readers = {f.name: _reader(hints[f.name]) for f in fields}
    flat = [f for f in fields if f.metadata == FLAT]
    needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING and f not in flat]

    def read(value: object) -> object:
        row = _of(dict, value)
        if missing := [name for name in needed if name not in row]:
            raise _Unlike(f"no {', '.join(missing)}")
        found = {name: reader(row[name]) for name, reader in readers.items() if name in row}
        for f in flat:
            found[f.name] = readers[f.name]({k: v for k, v in row.items() if k not in readers})
        return kind(**found)

    return read


def _union_reader(kinds: Sequence[Any]) -> Reader:
    """None, or the first of the types that the value has the shape of."""
    readers = [_reader(kind) for kind in kinds]

    def read(value: object) -> object:
        if value is None:
            return None
        for reader in readers[:-1]:
            try:
                return reader(value)
            except _Unlike:
                continue
        return readers[-1](value)

    return read


def _of(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise _Unlike(f"a {type(value).__name__} where a {kind.__name__} stands")
    return value
