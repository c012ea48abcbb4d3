"""Problems over two or three pictures of coloured shapes, in a text form and an image form.

Every kind of shape, or every colour, is worth some points; what are all the shapes worth together? The text form says
what each picture shows; the image form shows it. The two differ in nothing else. Pictures are easy-vqa's: those of its
train part in `train`, those of its test part shared out between `select` and `test`.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
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

Split = Literal["train", "select", "test"]
Form = Literal["text", "image"]
_SEED: dict[Split, int] = {"train": 0, "select": 1, "test": 2}
SELECT_SHARE = 4
"""Of easy-vqa's test part, one picture in so many of every look belongs to `select`."""


@dataclass(frozen=True)
class Scene:
    """Looks (colour, shape) in order, and what is worth how much: points by shape, or by colour.

    Example:
        >>> Scene((("red", "circle"), ("blue", "circle")), {"circle": 4, "rectangle": 1, "triangle": 2}).answer
        8
    """

    looks: tuple[tuple[str, str], ...]
    points: dict[str, int]

    @property
    def worths(self) -> tuple[int, ...]:
        """Points of each picture; a colour that is not named is worth 1."""
        by_shape = set(self.points) <= set(SHAPES)
        return tuple(self.points.get(shape if by_shape else colour, 1) for colour, shape in self.looks)

    @property
    def answer(self) -> int:
        """The reference answer."""
        return sum(self.worths)

    @property
    def question(self) -> str:
        """The question as both forms ask it."""
        if set(self.points) <= set(SHAPES):
            rules = ", ".join(f"a {name} is worth {n}" for name, n in self.points.items())
            return f"In points, {rules}. How many points are the shapes worth together? {INSTRUCTION}"
        ((colour, n),) = self.points.items()
        rule = f"a {colour} shape is worth {n}, any other shape 1"
        return f"In points, {rule}. How many points are the shapes worth together? {INSTRUCTION}"

    @property
    def solution(self) -> str:
        """A worked solution, what a teacher is trained on."""
        steps = [
            f"Picture {i} shows a {colour} {shape}: {n}."
            for i, ((colour, shape), n) in enumerate(zip(self.looks, self.worths, strict=True), 1)
        ]
        total, *rest = self.worths
        for n in rest:
            steps.append(f"{total} + {n} = {total + n}.")
            total += n
        return " ".join(steps) + rf" The answer is \boxed{{{total}}}."


def sample_scene(rng: random.Random) -> Scene:
    """A scene of two or three pictures."""
    looks = tuple((rng.choice(COLOURS), rng.choice(SHAPES)) for _ in range(rng.randint(2, 3)))
    if rng.random() < 0.6:
        return Scene(looks, {shape: rng.randint(1, 9) for shape in SHAPES})
    # Half the time a colour that is there, or most scenes would be worth nothing but ones.
    colour = rng.choice(looks)[0] if rng.random() < 0.75 else rng.choice(COLOURS)
    return Scene(looks, {colour: rng.randint(2, 9)})


def described(scene: Scene) -> Message:
    """The text form."""
    said = " ".join(f"Picture {i}: a {colour} {shape}." for i, (colour, shape) in enumerate(scene.looks, 1))
    return Message("user", f"{said} {scene.question}")


def shown(scene: Scene, split: Split, rng: random.Random) -> Message:
    """The image form, with pictures of the split.

    Raises:
        ConfigError: the package of pictures is missing.
    """
    from PIL import Image

    images = []
    for look in scene.looks:
        with Image.open(rng.choice(files(split, look))) as image:
            images.append(image.convert("RGB"))
    said = " ".join(f"Picture {i}: <image>" for i in range(1, len(images) + 1))
    return Message("user", f"{said} {scene.question}", tuple(images))


def files(split: Split, look: tuple[str, str]) -> tuple[Path, ...]:
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
    size: int = Field(gt=0)
    """How many problems."""
    seed: int = 0
    """Which problems."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The problems; all have references."""
        return Tasks(SceneTasks(self.split, self.form, self.size, self.seed), f"scenes/{self.split}")


class SceneTasks:
    """`size` different problems of a split, in one form; the same seed gives the same problems in either form.

    Splits share no picture and no problem: a problem belongs to the split that its text decides.
    """

    def __init__(self, split: Split, form: Form, size: int, seed: int) -> None:
        self.split, self.form = split, form
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
        scene, text = self.scenes[index], described(self.scenes[index])
        chosen = random.Random(self.picked[index])
        asked = text if self.form == "text" else shown(scene, self.split, chosen)
        kind = "shapes" if set(scene.points) <= set(SHAPES) else "colours"
        return Task(
            id=f"{self.split}-{index}",
            messages=(asked,),
            reference=str(scene.answer),
            grader="math",
            teacher_messages=(text,),
            tags={"kind": kind, "pictures": str(len(scene.looks))},
        )


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
