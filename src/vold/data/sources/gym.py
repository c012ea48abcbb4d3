"""`kind: gym`: problems that the package reasoning-gym generates, endless, in text, with checkable answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from vold.data.sources import MOST, Source, Tasks
from vold.errors import ConfigError, DataError
from vold.types import Message, Task

if TYPE_CHECKING:
    from collections.abc import Mapping


INSTRUCTION = r"Work step by step and put the final answer in \boxed{}."


class Spec(Source):
    """Problems that the package reasoning-gym generates."""

    name: str
    """The generator, such as `chain_sum`."""
    size: int = Field(gt=0, le=MOST)
    """How many problems."""
    seed: int = 0
    """Which problems."""
    config: dict[str, int | float | str | bool] = Field(default_factory=dict)
    """The generator's own settings."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The problems; all have references."""
        return Tasks(GymTasks(self.name, self.size, self.seed, self.config), f"gym/{self.name}")


class GymTasks:
    """`size` problems of one of reasoning-gym's generators; the same seed gives the same problems.

    Args:
        name: the generator, such as `chain_sum`.
        size: how many problems.
        seed: which problems.
        config: the generator's own settings.

    Raises:
        ConfigError: the package is not installed, or it refuses the name or the settings.
    """

    def __init__(self, name: str, size: int, seed: int, config: Mapping[str, int | float | str | bool]) -> None:
        try:
            import reasoning_gym
        except ImportError as error:
            raise ConfigError(
                "the package reasoning-gym is not here",
                where="tasks",
                got=str(error),
                fix="pip install 'vold[smollm2]'",
            ) from error
        try:
            self.rows = reasoning_gym.create_dataset(name, size=size, seed=seed, **config)
        except (ValueError, TypeError, AssertionError) as error:
            raise ConfigError("reasoning-gym refuses this", where=f"tasks: {name}", got=str(error)) from error
        self.name, self.size, self.seed = name, size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Task:
        row = self.rows[index]
        if not isinstance(row["answer"], str):
            raise DataError("this generator gives no answer in words", where=f"{self.name}: problem {index}")
        asked = (Message("user", f"{row['question']} {INSTRUCTION}"),)
        return Task(
            id=f"{self.name}-{self.seed}-{index}",
            messages=asked,
            reference=row["answer"],
            grader="math",
            teacher_messages=asked,
            tags={"kind": self.name},
        )
