"""A task set that asks what a picture of the demo world shows, no more: `kind: "experiments.read_pictures:Spec"`.

The base student was shown this question in pre-training and answers it in words, without a box, so the set's accuracy
says nothing; what it is for is `SET.read`, the share of answers that name the digits rightly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import Field

from vold.data.sources import MOST, Source, Tasks
from vold.data.worlds.digits import DigitTasks, Split
from vold.types import Message, Task


class Spec(Source):
    """Pictures of the demo world, to be read."""

    split: Split
    """As of `kind: digits`."""
    size: int = Field(gt=0, le=MOST)
    """How many pictures."""
    seed: int = 0
    """Which pictures: those of `kind: digits` with the same split and seed."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The pictures, with the question `read ?`."""
        pictures = DigitTasks(self.split, "image", self.size, self.seed)
        asked = [_read(pictures[i]) for i in range(self.size)]
        return Tasks(asked, f"reading/{self.split}")


def _read(task: Task) -> Task:
    (message,) = task.messages
    question = Message(message.role, "digits <image> . read ?", message.images)
    told = Message(message.role, f"{task.shows} . read ?")
    return replace(task, messages=(question,), teacher_messages=(told,))
