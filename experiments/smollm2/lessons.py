"""What student and teacher of the offline experiment are trained on before it: questions and answers, made as needed.

The student learns to read: pictures stand wherever their words could, in the prompts' own form. It learns to answer at
once, some problems in words among those in pictures, and sees no worked solution.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from experiments.smollm2.packages import COLOURS, SHAPES, pictures
from experiments.smollm2.scenes import Scene, described, picture, sample_scene, shown, split_of, worked_sum
from vold.data.sources.gym import GymTasks
from vold.types import Message

if TYPE_CHECKING:
    from collections.abc import Iterator

Row = tuple[Message, str]
"""A question and the answer to learn."""
TEXT_SHARE = 0.25
"""Of the problems that are answered at once, so many describe their pictures."""


def train_scene(rng: random.Random) -> Scene:
    """A scene of the train split."""
    while split_of(scene := sample_scene(rng)) != "train":
        pass
    return scene


def asked(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """One of several questions about what the pictures show, and its answer. Half of them ask for all pictures: most is
    learnt from these, and it is what a solution begins with."""
    number = rng.randint(1, len(scene.looks))
    colour, shape = scene.looks[number - 1]
    counted, every = rng.choice(SHAPES), [s for _, s in scene.looks]
    hue, hues = rng.choice(COLOURS if rng.random() < 0.5 else [c for c, _ in scene.looks]), [c for c, _ in scene.looks]
    return rng.choices(
        [
            ("What do the pictures show?", f"The pictures {scene.shows}."),
            (f"{scene.question} First say what the pictures show.", f"The pictures {scene.shows}."),
            (f"What does picture {number} show?", f"A {colour} {shape}."),
            (f"{scene.question} What does picture {number} show?", f"A {colour} {shape}."),
            (f"Which colour has picture {number}?", f"{colour}."),
            (f"Which shape has picture {number}?", f"{shape}."),
            (f"How many pictures show a {counted}?", f"{every.count(counted)}."),
            (f"How many pictures show something {hue}?", f"{hues.count(hue)}."),
        ],
        (3, 3, 1, 1, 1, 1, 1, 1),
    )[0]


def looked_at(at_once: int) -> Iterator[tuple[str, list[Message]]]:
    """Every picture of the train part, at most so many at a time, with the words for what all of these show."""
    for look, found in pictures("train").items():
        for start in range(0, len(found), at_once):
            part = found[start : start + at_once]
            yield " ".join(look), [Message("user", "<image>", (picture(file),)) for file in part]


def reading_rows(rng: random.Random, batch: int) -> list[Row]:
    """What pictures of the train part show, asked in several ways; a quarter problems, which are answered at once."""
    rows: list[Row] = []
    while len(rows) < batch:
        scene = train_scene(rng)
        if len(rows) % 4 == 3:
            problem = described(scene) if rng.random() < TEXT_SHARE else shown(scene, "train", rng)
            rows.append((problem, rf"\boxed{{{scene.answer}}}"))
        else:
            question, answer = asked(scene, rng)
            rows.append((shown(scene, "train", rng, question), answer))
    return rows


def worked_rows(rng: random.Random, batch: int) -> list[Row]:
    """Text problems of the train split with worked solutions; a quarter of them sums."""
    rows: list[Row] = []
    while len(rows) < batch:
        if len(rows) % 4 == 3:
            settings = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1}
            task = GymTasks("chain_sum", 1, rng.randrange(2**30), settings)[0]
            rows.append((task.messages[0], worked_sum(task.messages[0].text)))
        else:
            scene = train_scene(rng)
            rows.append((described(scene), scene.solution))
    return rows
