from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from prompt_cases import BLUE, CASES, GREEN, RED, item
from vold.data.benchmarks.columns import split_options
from vold.data.benchmarks.item import Form, Item, ProtocolName
from vold.data.benchmarks.registry import benchmarks
from vold.engines.chat_bodies import content
from vold.errors import ConfigError
from vold.evals.prompting import build_messages, image_limits, prompt_version

if TYPE_CHECKING:
    from vold.types import Message

EXPECTED = Path(__file__).parent / "prompts_expected"
BOTH: list[tuple[ProtocolName, str]] = [
    (p, name) for p in get_args(ProtocolName) for name, (_, protocols) in CASES.items() if p in protocols.split()
]


def ask(of: Item, protocol: ProtocolName = "rule") -> Message:
    (message,) = build_messages(of, protocol)
    assert message.role == "user"
    return message


@pytest.mark.parametrize(("protocol", "name"), BOTH)
def test_prompt_is_byte_for_byte_as_expected(protocol: ProtocolName, name: str) -> None:
    expected = (EXPECTED / protocol / f"{name}.txt").read_bytes().decode()
    assert ask(CASES[name][0], protocol).text == expected


@pytest.mark.parametrize(("protocol", "name"), BOTH)
def test_every_picture_has_one_place(protocol: ProtocolName, name: str) -> None:
    message = ask(CASES[name][0], protocol)
    assert message.text.count("<image>") == len(message.images)


def test_every_expected_prompt_is_compared() -> None:
    files = {(f.parent.name, f.stem) for f in EXPECTED.glob("*/*.txt") if f.parent.name != "judge"}
    assert files == set(BOTH)


@pytest.mark.parametrize("benchmark", benchmarks())
def test_rule_has_a_prompt_for_every_benchmark(benchmark: str) -> None:
    assert image_limits(benchmark, "rule") is None
    assert len(prompt_version(benchmark, "rule")) == 16


def test_vlmevalkit_has_its_picture_limits() -> None:
    assert image_limits("mathvision", "vlmevalkit") == (1280 * 28 * 28, 16384 * 28 * 28)


@pytest.mark.parametrize("benchmark", ["math500", "gsm8k", "aime2024", "aime2025", "mmmu_pro_standard4", "geometry3k"])
def test_what_vlmevalkit_does_not_have_is_refused(benchmark: str) -> None:
    with pytest.raises(ConfigError, match=f"no prompt for this benchmark(.|\n)*{benchmark}(.|\n)*protocol: rule"):
        build_messages(item(benchmark, "What?"), "vlmevalkit")


def test_an_item_of_a_kind_without_a_prompt_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dynamath: 7(.|\n)*a list"):
        build_messages(item("dynamath", "What?", form="list"), "rule")
    with pytest.raises(ConfigError, match="wemath: 7"):
        build_messages(item("wemath", "Without options?"), "vlmevalkit")


def test_every_prompt_asks_something_of_known_forms() -> None:
    for name, benchmark in benchmarks().items():
        assert set(benchmark.prompts) <= set(get_args(ProtocolName)), name
        for prompt in benchmark.prompts.values():
            assert prompt.with_options or prompt.without_options or prompt.query, name
            assert set(prompt.instruction) <= set(get_args(Form)), name
            assert prompt.pictures in ("", "first", "last", "mentioned"), name


def test_a_prompts_version_is_a_digest_of_what_is_set() -> None:
    """And those that stored results hold are the same still."""
    content = json.dumps(["1", {"without_options": "{question}"}]).encode()
    assert prompt_version("logicvista", "vlmevalkit") == hashlib.sha256(content).hexdigest()[:16]
    assert prompt_version("mmmu_pro_standard10", "rule") == "1275143d8fef8ab8"
    assert prompt_version("dynamath", "vlmevalkit") == "041813030f4c4407"


# ---- pictures


def test_pictures_follow_their_mentions_not_their_columns() -> None:
    assert ask(CASES["mmmu_pro_standard10"][0]).images == (GREEN, BLUE, RED)


def test_a_second_mention_stays_in_words() -> None:
    assert "C. none of <image 2>" in ask(CASES["mmmu_pro_standard10"][0]).text


def test_vlmevalkit_shows_a_picture_at_every_mention() -> None:
    assert ask(CASES["mmmu_pro_standard10"][0], "vlmevalkit").images == (GREEN, BLUE, RED, GREEN)


def test_35_mentions_of_one_picture_show_it_once() -> None:
    message = ask(item("mmmu_pro_standard10", "<image 1>" * 35, "yes"))
    assert message.images == (RED,)
    assert message.text.startswith("<image>" + "<image 1>" * 34)


def test_pictures_never_mentioned_come_first() -> None:
    message = ask(item("mathvista", "Look at <image 2>.", "yes", images=3))
    assert message.images == (RED, BLUE, GREEN)
    assert message.text.startswith("<image><image>Look at <image>.\n(A) yes\n")


def test_mmmu_leaves_out_pictures_that_are_never_mentioned() -> None:
    """They are worked solutions; the official code does not show them either."""
    assert ask(item("mmmu", "Look at <image 2>.", "yes", images=3)).images == (GREEN,)


def test_mmmu_shows_all_pictures_where_none_is_mentioned() -> None:
    message = ask(item("mmmu", "Look.", "yes", images=2))
    assert (message.images, message.text.count("<image>")) == ((RED, GREEN), 2)


def test_a_mention_without_a_picture_stays_in_words() -> None:
    message = ask(item("mmmu", "See <image 1>, <image 2>, <image 0> and <image 12>.", "yes"))
    assert message.images == (RED,)
    assert message.text.startswith("See <image>, <image 2>, <image 0> and <image 12>.")


def test_mentions_without_any_picture_stay_in_words() -> None:
    message = ask(item("mmmu", "See <image 1>.", "yes", images=0))
    assert (message.images, message.text[:14]) == ((), "See <image 1>.")


@pytest.mark.parametrize("benchmark", ["mmmu", "mathvision", "mathvista"])
def test_a_literal_marker_in_the_data_is_no_place_for_a_picture(benchmark: str) -> None:
    of = item(benchmark, "Write <image> at <image 1>.", "<image>", "b", "c", "d", "e")
    message = ask(of)
    assert message.text.count("<image>") == len(message.images) == 1
    assert message.text.count("<image >") == 2
    parts = content(message)
    assert isinstance(parts, list)
    assert [p["type"] for p in parts].count("image_url") == 1


def test_a_literal_marker_without_pictures_is_plain_text() -> None:
    message = ask(item("math500", "The tag <image> means?", images=0, form="math"))
    assert "<image>" in message.text
    assert content(message) == message.text


def test_braces_of_the_data_are_not_filled_in() -> None:
    assert ask(CASES["mmmu_pro_standard4"][0]).text.startswith("Which {options} fit <image> at 100%?\nA. 50 %\nB. {qu")


# ---- options in the question's text


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which?\nOptions: A: red, B: green", ("Which?", ("red", "green"))),
        ("Which?\nOptions: A: 1, 2, B: B: 3, C: 4.", ("Which?", ("1, 2", "B: 3", "4."))),
        ("Which?\nOptions: A: x, D: y, B: z", ("Which?", ("x, D: y", "z"))),
        (
            "Hint: Pick one.\nQuestion: How much?\nChoices:\n(A) 40.7\n(B) 74",
            ("Hint: Pick one.\nQuestion: How much?", ("40.7", "74")),
        ),
        ("Which? Options: A: red, B: blue", ("Which?", ("red", "blue"))),
        ("Which?\nOPTIONS:\nA. one (B) two\nB. two\nC. 3, D. 4", ("Which?", ("one (B) two", "two", "3, D. 4"))),
        ("Which? Choices: (A) 3/11 (B) 8/11 (C) 6/11", ("Which?", ("3/11", "8/11", "6/11"))),
        ("Which?\n(A) 1\n(B) 2", ("Which?", ("1", "2"))),
        ("Which?\nA) 1\nB) 2\nC) ", ("Which?", ("1", "2", ""))),
        ("Choices: are made.\nOptions: A: 1; B: 2", ("Choices: are made.", ("1", "2"))),
        ("A. Smith and B. Jones met. Who left?", ("A. Smith and B. Jones met. Who left?", ())),
        ("Options: A: only one", ("Options: A: only one", ())),
        ("No options.", ("No options.", ())),
        ("Options: are none.", ("Options: are none.", ())),
    ],
)
def test_options_in_text(question: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert split_options(question) == expected


# ---- version


def test_the_version_is_of_the_prompt_text() -> None:
    assert prompt_version("mathvision", "vlmevalkit") != prompt_version("mathvision", "rule")
    assert prompt_version("gsm8k", "rule") == prompt_version("math500", "rule") != prompt_version("mmstar", "rule")


def test_the_item_is_not_changed() -> None:
    of = item("mathvision", "What is in <image 1>?", *"12345")
    copy: Any = replace(of)
    build_messages(of, "rule")
    assert of == copy
