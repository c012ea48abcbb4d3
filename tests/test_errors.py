"""The error tree: what each error is, that it survives a process border, and what its message says."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from vold import errors
from vold.errors import (
    AlignmentError,
    CheckpointError,
    ConfigError,
    DataError,
    SamplerError,
    TeacherError,
    TrainingError,
    UngradableReference,
    VocabularyMismatch,
    VoldError,
)

PARENTS: dict[type[VoldError], tuple[type[Exception], ...]] = {
    VoldError: (Exception,),
    ConfigError: (VoldError, ValueError),
    DataError: (VoldError, ValueError),
    UngradableReference: (DataError,),
    VocabularyMismatch: (VoldError, ValueError),
    TeacherError: (VoldError, RuntimeError),
    AlignmentError: (TeacherError,),
    SamplerError: (VoldError, RuntimeError),
    CheckpointError: (VoldError, RuntimeError),
    TrainingError: (VoldError, RuntimeError),
}


def test_the_table_above_names_every_error() -> None:
    assert set(PARENTS) == {e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, Exception)}


@pytest.mark.parametrize("error", PARENTS)
def test_each_error_has_its_parents_and_is_its_standard_type(error: type[VoldError]) -> None:
    assert error.__bases__ == PARENTS[error]
    assert error is VoldError or issubclass(error, ValueError) != issubclass(error, RuntimeError)


def test_the_drawing_in_the_module_shows_the_same_tree() -> None:
    drawn: dict[str, tuple[str, ...]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│ ├└─]*)(\w+Error|Ungradable\w+|\w+Mismatch)(?: \((\w+)\))?(?:  |$)", line)
        if match:
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            drawn[match[2]] = tuple(n for n in (above[depth - 1] if depth else None, match[3]) if n)
    code = {e.__name__: tuple(p.__name__ for p in parents) for e, parents in PARENTS.items()}
    assert drawn == code | {"VoldError": ()}


def full(error: type[VoldError]) -> VoldError:
    return error("unknown key 'stpes'", where="demo.yaml: sft.stpes", got="100", fix="did you mean 'steps'?")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", PARENTS)
def test_errors_survive_pickling_with_every_part(error: type[VoldError], protocol: int) -> None:
    sent = full(error)
    got = pickle.loads(pickle.dumps(sent, protocol))
    assert type(got) is error
    assert (got.what, got.where, got.got, got.fix) == (sent.what, sent.where, sent.got, sent.fix)
    assert str(got) == str(sent)


@pytest.mark.parametrize("error", PARENTS)
def test_errors_can_be_copied(error: type[VoldError]) -> None:
    assert str(copy.copy(full(error))) == str(copy.deepcopy(full(error))) == str(full(error))


def test_the_message_says_what_where_got_and_fix() -> None:
    assert str(full(ConfigError)).splitlines() == [
        "unknown key 'stpes'",
        "  where: demo.yaml: sft.stpes",
        "  got:   100",
        "  fix:   did you mean 'steps'?",
    ]


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ({}, ["broken"]),
        ({"where": "a.jsonl:3"}, ["broken", "  where: a.jsonl:3"]),
        ({"got": "''"}, ["broken", "  got:   ''"]),
        ({"fix": "mend it"}, ["broken", "  fix:   mend it"]),
    ],
)
def test_parts_that_are_not_given_leave_no_line(parts: dict[str, str], lines: list[str]) -> None:
    assert str(VoldError("broken", **parts)).splitlines() == lines


def test_only_the_first_part_is_positional() -> None:
    with pytest.raises(TypeError):
        VoldError("broken", "a.jsonl:3")  # type: ignore[call-arg]
