"""Problems over two to four pictures of coloured shapes, in a text form and an image form.

Every kind of shape, or every colour, is worth some points; a rule in words may double some points, another leave a
picture out. What are the shapes worth together, or how far apart are the best and the worst? The text form says what
each picture shows; the image form shows it. The two differ in nothing else. Asked what one of the pictures shows, a
model says how well it reads. Pictures are easy-vqa's: those of its train part in `train`, those of its test part
shared out between `select` and `test`.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from experiments.smollm2.packages import COLOURS, SHAPES, pictures
from vold.data.sources import Source, Tasks
from vold.data.sources.gym import INSTRUCTION
from vold.errors import DataError
from vold.types import Message, Task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL import Image

Split = Literal["train", "select", "test"]
Form = Literal["text", "image"]
Asked = Literal["points", "look"]
Look = tuple[str, str]
"""Colour and shape."""
_SEED: dict[Split, int] = {"train": 0, "select": 1, "test": 2}
SELECT_SHARE = 4
"""Of easy-vqa's test part, one picture in so many of every look belongs to `select`."""


@dataclass(frozen=True)
class Scene:
    """Looks in order, what is worth how much, and what is asked.

    Attributes:
        looks: one a picture.
        points: by shape, or of one colour; a colour that is not named is worth 1.
        doubled: a colour, or a shape, that counts double; empty for none.
        left_out: the number of a picture that does not count, from 1; 0 for none.
        apart: asks for the best less the worst, not for the sum.

    Example:
        >>> Scene((("red", "circle"), ("blue", "circle")), {"circle": 4, "rectangle": 1, "triangle": 2}).answer
        8
    """

    looks: tuple[Look, ...]
    points: Mapping[str, int] = field(hash=False)
    doubled: str = ""
    left_out: int = 0
    apart: bool = False

    @property
    def worths(self) -> dict[int, tuple[int, int]]:
        """By the number of each picture that counts: the points of its look, and what they count for."""
        by_shape = set(self.points) <= set(SHAPES)
        out: dict[int, tuple[int, int]] = {}
        for number, (colour, shape) in enumerate(self.looks, 1):
            points = self.points.get(shape if by_shape else colour, 1)
            if number != self.left_out:
                out[number] = points, points * (2 if self.doubled in (colour, shape) else 1)
        return out

    @property
    def answer(self) -> int:
        """The reference answer."""
        counted = [n for _, n in self.worths.values()]
        return max(counted) - min(counted) if self.apart else sum(counted)

    @property
    def question(self) -> str:
        """The question as both forms ask it."""
        if set(self.points) <= set(SHAPES):
            rules = ["In points, " + ", ".join(f"a {name} is worth {n}" for name, n in self.points.items())]
        else:
            ((colour, n),) = self.points.items()
            rules = [f"In points, a {colour} shape is worth {n}, any other shape 1"]
        if self.doubled:
            rules.append(f"A {self.doubled}{' shape' if self.doubled in COLOURS else ''} counts double")
        if self.left_out:
            rules.append(f"Picture {self.left_out} does not count")
        asked = (
            "How many points are the best and the worst apart?"
            if self.apart
            else "How many points are the shapes worth together?"
        )
        return f"{'. '.join(rules)}. {asked} {INSTRUCTION}"

    @property
    def shows(self) -> str:
        """What the pictures show, in the words of a solution."""
        return "show " + " and ".join(f"a {colour} {shape}" for colour, shape in self.looks)

    @property
    def solution(self) -> str:
        """A worked solution, what a teacher is trained on: first what is seen, then what it is worth, then the sum."""
        steps = [f"The pictures {self.shows}."]
        worths = self.worths
        for number in range(1, len(self.looks) + 1):
            points, counts = worths.get(number, (0, 0))
            doubled = f", doubled {counts}" if counts != points else ""
            steps.append(
                f"Picture {number}: {points}{doubled}." if number in worths else f"Picture {number}: left out."
            )
        total, *rest = (n for _, n in worths.values())
        if self.apart:
            most, least = max(total, *rest), min(total, *rest)
            steps.append(f"The most is {most}, the least {least}. {most} - {least} = {most - least}.")
        for n in () if self.apart else rest:
            steps.append(f"{total} + {n} = {total + n}.")
            total += n
        return " ".join(steps) + rf" The answer is \boxed{{{self.answer}}}."


def sample_scene(rng: random.Random) -> Scene:
    """A scene of two to four pictures."""
    looks = tuple((rng.choice(COLOURS), rng.choice(SHAPES)) for _ in range(rng.randint(2, 4)))
    # Mostly what is there, or the rules of most scenes would say nothing about it.
    colour, shape = rng.choice(looks) if rng.random() < 0.75 else (rng.choice(COLOURS), rng.choice(SHAPES))
    if rng.random() < 0.6:
        points, doubled = {s: rng.randint(1, 9) for s in SHAPES}, colour
    else:
        points, doubled = {colour: rng.randint(2, 9)}, shape
    return Scene(
        looks,
        points,
        doubled=doubled if rng.random() < 0.5 else "",
        left_out=rng.randint(1, len(looks)) if len(looks) > 2 and rng.random() < 0.4 else 0,
        apart=rng.random() < 0.3,
    )


def described(scene: Scene, question: str | None = None) -> Message:
    """The text form, of another question if one is given."""
    said = " ".join(f"Picture {i}: a {colour} {shape}." for i, (colour, shape) in enumerate(scene.looks, 1))
    return Message("user", f"{said} {question or scene.question}")


def shown(scene: Scene, split: Split, rng: random.Random, question: str | None = None) -> Message:
    """The image form, with pictures of the split; of another question if one is given.

    Raises:
        ConfigError: the package of pictures is missing.
    """
    images = tuple(picture(rng.choice(files(split, look))) for look in scene.looks)
    said = " ".join(f"Picture {i}: <image>" for i in range(1, len(images) + 1))
    return Message("user", f"{said} {question or scene.question}", images)


def picture(file: Path) -> Image.Image:
    """The picture in a file."""
    from PIL import Image

    with Image.open(file) as image:
        return image.convert("RGB")


def files(split: Split, look: Look) -> tuple[Path, ...]:
    """Pictures of a look in a split."""
    if split == "train":
        return pictures("train")[look]
    found = pictures("test")[look]
    return found[::SELECT_SHARE] if split == "select" else tuple(f for i, f in enumerate(found) if i % SELECT_SHARE)


class Scenes(Source):
    """`kind: experiments.smollm2.scenes:Scenes` of a recipe: its keys."""

    split: Split
    """Splits share no problem and no picture."""
    form: Form = "text"
    """Pictures described, or shown."""
    ask: Asked = "points"
    """What the shapes are worth, or what one of the pictures shows."""
    size: int = Field(gt=0)
    """How many problems."""
    seed: int = 0
    """Which problems."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The problems; all have references."""
        return Tasks(SceneTasks(self.split, self.form, self.ask, self.size, self.seed), f"scenes/{self.split}")


class SceneTasks:
    """`size` different problems of a split, in one form; the same seed gives the same problems and pictures in either
    form, whatever is asked about them.

    Splits share no picture and no problem: a problem belongs to the split that its text decides.
    """

    def __init__(self, split: Split, form: Form, ask: Asked, size: int, seed: int) -> None:
        self.split, self.form, self.ask = split, form, ask
        rng = random.Random(f"scenes/{_SEED[split]}/{seed}")
        scenes: dict[str, Scene] = {}
        while len(scenes) < size:
            scene = sample_scene(rng)
            if split_of(scene) == split:
                scenes.setdefault(described(scene).text, scene)
        self.scenes = tuple(scenes.values())
        self.picked = [rng.random() for _ in self.scenes]

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Task:
        scene = self.scenes[index]
        number = index % len(scene.looks) + 1 if self.ask == "look" else 0
        question = f"What does picture {number} show?" if number else scene.question
        text = described(scene, question)
        asked = text if self.form == "text" else shown(scene, self.split, random.Random(self.picked[index]), question)
        kind = "apart" if scene.apart else "together"
        return Task(
            id=f"{self.split}-{index}",
            messages=(asked,),
            reference=" ".join(scene.looks[number - 1]) if number else str(scene.answer),
            grader="experiments.smollm2.scenes:named" if number else "math",
            teacher_messages=(text,),
            tags={"kind": kind, "pictures": str(len(scene.looks)), "rules": str(rules_of(scene))},
            shows=scene.shows if self.form == "image" and not number else "",
        )


def named(response: str, reference: str) -> float:
    """1 if the colours and shapes that a response names are those of one look, else 0: the grader of `ask: look`.

    Example:
        >>> named("A red circle.", "red circle"), named("A red circle and a blue circle.", "red circle")
        (1.0, 0.0)
    """
    words = re.findall("[a-z]+", response.lower())
    return float({w for w in words if w in COLOURS or w in SHAPES} == set(reference.split()))


def rules_of(scene: Scene) -> int:
    """How many rules there are beside the points."""
    return bool(scene.doubled) + bool(scene.left_out)


def split_of(scene: Scene) -> Split:
    """Which split a problem belongs to: of ten, one to `select` and two to `test`."""
    part = random.Random(described(scene).text).randrange(10)
    return "select" if part == 0 else "test" if part < 3 else "train"


def worked_sum(question: str) -> str:
    """A worked solution of one of reasoning-gym's `chain_sum` problems, such as `4 + 3 - 2`.

    Raises:
        DataError: there is no chain of whole numbers in the question.
    """
    found = re.search(r"-?\d+(?: [+-] \d+)+", question)
    if found is None:
        raise DataError("there is no chain of sums here", got=question[:100])
    total, *rest = found[0].split(" ")
    out, value = [], int(total)
    for sign, number in zip(rest[::2], rest[1::2], strict=True):
        after = value + int(number) if sign == "+" else value - int(number)
        out.append(f"{value} {sign} {number} = {after}.")
        value = after
    return " ".join(out) + rf" The answer is \boxed{{{value}}}."
