"""The demo world: answers, splits, pictures."""

from __future__ import annotations

import random

import numpy as np
import pytest

from vold.data.worlds import digits as world
from vold.data.worlds.call_tokens import build_tokenizer


@pytest.mark.parametrize(
    ("kind", "digits", "k", "answer"),
    [
        ("sum", (3, 5, 7), 4, 15),
        ("span", (3, 9, 7), 4, 6),
        ("count", (4, 5, 7), 4, 2),
        ("sumabove", (4, 5, 7), 4, 12),
        ("weigh", (4, 9, 7), 4, 22),
        ("sumabove", (0, 1, 2), 6, 0),
    ],
)
def test_answers_are_what_the_question_asks(kind: str, digits: tuple[int, ...], k: int, answer: int) -> None:
    assert world.Problem(kind, digits, k).answer == answer


def test_a_solution_ends_in_its_answer_and_every_step_is_true() -> None:
    rng = random.Random(0)
    for _ in range(500):
        p = world.sample_problem(rng)
        for style in ("a", "b"):
            text = world.solution(p, style)
            assert text.endswith(f"</think> \\boxed{{ {p.answer} }}")
            body = text.replace(" and ", " + ").replace(" less ", " - ").replace(" gives ", " = ")
            words = body.split()
            for i, word in enumerate(words):
                if word == "=":
                    a, op, b, c = words[i - 3], words[i - 2], words[i - 1], words[i + 1]
                    assert int(c) == (int(a) + int(b) if op == "+" else int(a) - int(b))


def test_every_word_of_the_world_is_one_known_token() -> None:
    tokenizer = build_tokenizer()
    rng = random.Random(1)
    for _ in range(300):
        p = world.sample_problem(rng)
        for text in (world.text_message(p).text, world.solution(p, "a"), world.solution(p, "b"), ". read ?"):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert len(ids) == len(text.split())


def test_the_handwriting_is_the_published_set() -> None:
    """Its documentation gives the count of each digit; the first image is printed in scikit-learn's."""
    with np.load(world.HANDWRITING, allow_pickle=False) as data:
        images, labels = data["images"], data["labels"]
    assert images.shape == (1797, 8, 8) and (images.min(), images.max()) == (0, 16)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert labels[:10].tolist() == list(range(10))
    assert images[0].tolist() == [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
        [0, 4, 12, 0, 0, 8, 8, 0],
        [0, 5, 8, 0, 0, 9, 8, 0],
        [0, 4, 11, 0, 1, 12, 7, 0],
        [0, 2, 14, 5, 10, 12, 0, 0],
        [0, 0, 6, 13, 10, 0, 0, 0],
    ]


def test_splits_share_no_row_of_digits() -> None:
    rows = {s: {p.digits for p in world.problems(s, 400, 7)} for s in ("train", "select", "test")}
    assert not rows["train"] & rows["select"]
    assert not rows["train"] & rows["test"]
    assert not rows["select"] & rows["test"]


def test_handwriting_parts_share_no_image_and_hold_every_image_once() -> None:
    bank = world.handwriting()
    counts = {part: sum(len(images) for images in digits) for part, digits in bank.items()}
    assert counts == {"train": 1797 - 500, "select": 150, "test": 350}
    seen = [im.tobytes() for digits in bank.values() for images in digits for im in images]
    held_out = {im.tobytes() for part in ("select", "test") for images in bank[part] for im in images}
    train = {im.tobytes() for images in bank["train"] for im in images}
    assert len(seen) == 1797
    assert not train & held_out


def test_the_two_forms_of_a_task_are_the_same_problem() -> None:
    text, image = (world.DigitTasks("test", form, 20, 3) for form in ("text", "image"))
    for i in range(20):
        assert text[i].reference == image[i].reference
        assert text[i].id == image[i].id
        (picture,) = image[i].messages[0].images
        digits = text.problems[i].digits
        assert picture.size == (8 * len(digits), 8)
        assert str(digits[0]) not in image[i].messages[0].text.replace("above", "").split()[:1]
        bank = world.handwriting()["test"]
        for j, digit in enumerate(digits):
            tile = np.asarray(picture)[:, 8 * j : 8 * j + 8, 0]
            assert any((tile == known).all() for known in bank[digit])


def test_a_problem_set_is_a_function_of_split_size_and_seed() -> None:
    assert world.problems("test", 30, 1) == world.problems("test", 30, 1)
    assert world.problems("test", 30, 1) != world.problems("test", 30, 2)
    assert world.problems("test", 30, 1)[:10] == world.problems("test", 10, 1)
