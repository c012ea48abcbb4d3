"""Fields of frozen values that are read-only arrays."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Kind = TypeVar("Kind", bound="np.generic")


def frozen(values: ArrayLike, dtype: str) -> NDArray[Any]:
    """`values` as a read-only array; it shares the memory of an array of that type."""
    import numpy as np

    found = np.asarray(values, dtype).view()
    found.setflags(write=False)
    return found


class Array(Generic[Kind]):
    """A field that takes any sequence of numbers and is a read-only array of one type."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def __set_name__(self, owner: type, name: str) -> None:
        self.place = f"_{name}"

    def __get__(self, value: object, owner: type) -> NDArray[Kind]:
        if value is None:
            raise AttributeError(self.place)  # a dataclass looks for a default here
        return cast("NDArray[Kind]", vars(value)[self.place])

    def __set__(self, value: object, given: ArrayLike) -> None:
        vars(value)[self.place] = frozen(given, self.dtype)


class MaybeArray(Array[Kind]):
    """The same, None where it is not given."""

    def __get__(self, value: object, owner: type) -> NDArray[Kind] | None:  # type: ignore[override]
        return None if value is None else vars(value)[self.place]

    def __set__(self, value: object, given: ArrayLike | None) -> None:
        vars(value)[self.place] = None if given is None else frozen(given, self.dtype)


class Arrays:
    """Base of values that hold arrays: compared by content, a NaN being equal to a NaN."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        compared = (f.name for f in fields(self) if f.compare)  # type: ignore[arg-type]
        return type(other) is type(self) and all(_same(getattr(self, n), getattr(other, n)) for n in compared)

    def __setstate__(self, state: dict[str, Any]) -> None:
        for value in (*state.values(), *state.get("token_values", {}).values()):
            if hasattr(value, "setflags"):
                value.setflags(write=False)  # what is unpickled could be written to
        vars(self).update(state)


def _same(one: Any, other: Any) -> bool:
    if hasattr(one, "setflags") and hasattr(other, "setflags"):
        return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    return bool(one == other)
