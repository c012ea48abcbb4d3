"""The error tree: what each error is, that it survives a process border, and what its message says."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import unicodedata

import pytest

from vold import errors
from vold.errors import (
    AlignmentError,
    CheckpointError,
    ConfigError,
    DataError,
    Diverged,
    InUse,
    SamplerError,
    TeacherError,
    TrainingError,
    UngradableReference,
    VocabularyMismatch,
    VoldError,
    clean,
)

PARENTS: dict[type[VoldError], tuple[type[Exception], ...]] = {
    VoldError: (Exception,),
    ConfigError: (VoldError, ValueError),
    InUse: (ConfigError,),
    DataError: (VoldError, ValueError),
    UngradableReference: (DataError,),
    VocabularyMismatch: (VoldError, ValueError),
    TeacherError: (VoldError, RuntimeError),
    AlignmentError: (TeacherError,),
    SamplerError: (VoldError, RuntimeError),
    CheckpointError: (VoldError, RuntimeError),
    TrainingError: (VoldError, RuntimeError),
    Diverged: (TrainingError,),
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
        match = re.match(r"([│ ├└─]*)(\w+Error|InUse|Diverged|Ungradable\w+|\w+Mismatch)(?: \((\w+)\))?(?:  |$)", line)
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


def test_no_control_character_is_shown() -> None:
    kept = "\t\n"
    controls = [chr(i) for i in (*range(0x20), *range(0x7F, 0xA0)) if chr(i) not in kept]
    for one in (*controls, "\ud800", "\udfff", "\uffff", "\ufdd0"):
        assert clean(f"a{one}b") == "a\N{REPLACEMENT CHARACTER}b"
    assert clean("a\x1b[31mb\x9b2Jc\td\n") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}2Jc\td\n"


def test_what_is_not_seen_but_changes_what_is_becomes_visible() -> None:
    """Every character of Unicode's class Cf that no letter is written with, and the two separators of lines."""
    shown = {*map(chr, (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2)), "\U000110bd", "\U000110cd"}
    shown |= set(map(chr, (*range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4))))  # hieroglyphs and shorthand
    unseen = [chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) in ("Cf", "Zl", "Zp")]
    assert len(unseen) > 100
    for one in set(unseen) - shown:
        assert clean(f"a{one}b") == f"a[U+{ord(one):04X}]b"


def test_text_that_is_only_text_stays() -> None:
    text = "\u05d0 \u0645 \N{GRINNING FACE} \u2764\ufe0f e\u0301 \u3042 [red]no markup[/b] :smile: \\n\n\t"
    assert clean(text) == text


def test_what_a_message_quotes_cannot_look_like_another_of_its_parts() -> None:
    told = str(ConfigError("wrong", got="a\n  fix:   pay\x1b[2J", fix="mend it"))
    assert told.splitlines() == [
        "wrong",
        "  got:   a",
        "           fix:   pay\N{REPLACEMENT CHARACTER}[2J",
        "  fix:   mend it",
    ]
