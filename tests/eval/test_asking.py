"""Prompts byte for byte, pictures in their places, and protocols that differ wherever a score could."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from PIL import Image

from vold.errors import ConfigError
from vold.evals.benchmarks import BENCHMARKS
from vold.evals.prompting import build_messages, image_limits, prompt_version
from vold.evals.protocol import Protocol, differences, protocol_hash
from vold.evals.types import Item

BOX = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice question, '
    'only one letter is allowed in the "\\boxed{}".'
)
LETTER = (
    "The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes) where LETTER "
    "is one of options. Think step by step before answering."
)
COLOURS = ("red", "green", "blue")


def item(
    benchmark: str, question: str = "How many?", options: tuple[str, ...] = (), pictures: int = 1, **more: Any
) -> Item:
    images = tuple(Image.new("RGB", (8, 8), c) for c in COLOURS[:pictures])
    return Item(benchmark, "1", question, options, images, "A", "choice", cluster="1", **more)


@pytest.mark.parametrize(
    ("made", "protocol", "text"),
    [
        (item("mathvision", "How many?"), "rule", f"{BOX}\nHow many?"),
        (item("mathvision", "How many?", ("3", "4")), "rule", f"{BOX}\nHow many?\n(A) 3\n(B) 4"),
        (item("mmmu_pro_standard10", "Q", ("x", "y")), "rule", f"Q\nA. x\nB. y\nAnswer the preceding multiple choice question. {LETTER}"),
        (item("mmmu_pro_vision", "", ("x", "y")), "rule", f"Write out the multiple-choice question in the image and then solve it. {LETTER}"),
        (item("mmmu_pro_standard10", "Q", ("x", "y")), "vlmevalkit", f"Question: Q\nOptions:\nA. x\nB. y\nAnswer the following multiple-choice question. {LETTER}"),
        (item("mathvista", "Q", query="Hint: h\nQuestion: Q"), "vlmevalkit", "Hint: h\nQuestion: Q"),
        (item("math500", "1/2?", pictures=0), "rule", "1/2?\nPlease reason step by step, and put your final answer within \\boxed{}."),
        (item("mathvision", "{options} {query}", ("a",)), "rule", f"{BOX}\n{{options}} {{query}}\n(A) a"),
    ],
)  # fmt: skip
def test_prompts_byte_for_byte(made: Item, protocol: Any, text: str) -> None:
    (message,) = build_messages(made, protocol)
    assert message.text == text
    assert message.role == "user"
    assert message.images == made.images


def colours(made: Item) -> tuple[str, list[str]]:
    (message,) = build_messages(made, "rule")
    names = {(255, 0, 0): "red", (0, 128, 0): "green", (0, 0, 255): "blue"}
    return message.text.removeprefix(BOX).strip(), [names[i.getpixel((0, 0))] for i in message.images]  # type: ignore[index]


def test_markers_take_their_own_picture_in_order_of_mention() -> None:
    assert colours(item("mathvision", "<image 2> then <image 1>", pictures=2)) == (
        "<image> then <image>",
        ["green", "red"],
    )


def test_a_second_mention_stays_in_words() -> None:
    text, shown = colours(item("mathvision", "<image 1> and <image 1>", pictures=1))
    assert (text, shown) == ("<image> and <image 1>", ["red"])


def test_pictures_in_options_are_placed_too() -> None:
    text, shown = colours(item("mathvision", "Which?", ("<image 2>", "<image 1>"), pictures=2))
    assert text == "Which?\n(A) <image>\n(B) <image>"
    assert shown == ["green", "red"]


def test_a_picture_never_mentioned_comes_first() -> None:
    (message,) = build_messages(item("mathvision", "See <image 2>", pictures=3), "rule")
    assert message.text.startswith("<image><image>")
    assert [i.getpixel((0, 0)) for i in message.images] == [(255, 0, 0), (0, 0, 255), (0, 128, 0)]


def test_more_mentions_than_pictures_leave_the_words() -> None:
    assert colours(item("mathvision", "<image 1> and <image 2>")) == ("<image 1> and <image 2>", ["red"])


def test_a_literal_marker_in_data_is_no_place_for_a_picture() -> None:
    (message,) = build_messages(item("mathvision", "the tag <image> means"), "rule")
    assert message.text.count("<image>") == 0
    assert len(message.images) == 1


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_asked(name: str) -> None:
    build_messages(item(name), "rule")
    assert len(prompt_version(name, "rule")) == 16
    assert image_limits(name, "rule") is None


def test_vlmevalkit_sets_picture_limits_and_has_no_text_benchmarks() -> None:
    assert image_limits("mathvista", "vlmevalkit") == (1280 * 28 * 28, 16384 * 28 * 28)
    with pytest.raises(ConfigError, match="no prompt for this benchmark"):
        build_messages(item("gsm8k", pictures=0), "vlmevalkit")


BASE = Protocol("rule", "mathvision", "test", "ab", "1", 8192, 0.0, 1, None, None, "r1", "cd")
CHANGES: dict[str, Any] = {
    "name": "vlmevalkit", "benchmark": "mathvista", "split": "testmini", "prompt_version": "x", "scoring_version": "2",
    "max_new_tokens": 2048, "temperature": 1.0, "samples": 4, "pixels": (1, 2), "judge": "j", "content_hash": "y",
    "thinking": "t", "golds": "g",
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_changes_the_hash_and_is_named(field: str) -> None:
    other = dataclasses.replace(BASE, **{field: CHANGES[field]})
    assert protocol_hash(other) != protocol_hash(BASE)
    (difference,) = differences(dataclasses.asdict(BASE), dataclasses.asdict(other))
    assert str(CHANGES[field]) in difference


def test_every_field_is_tried_above() -> None:
    assert {f.name for f in dataclasses.fields(Protocol)} == {*CHANGES, "revision"}


def test_the_revision_is_recorded_but_the_content_decides() -> None:
    other = dataclasses.replace(BASE, revision="r2")
    assert protocol_hash(other) == protocol_hash(BASE)
    assert differences(dataclasses.asdict(BASE), dataclasses.asdict(other)) == []
