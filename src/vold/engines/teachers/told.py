"""What a teacher is shown and the student is not: a system message, a hint, or no pictures."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from vold.errors import ConfigError
from vold.types import IMAGE_MARKER, Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.model.chat import Chat
    from vold.types import Task


def shown(
    messages: Sequence[Message] | None, task: Task, system: str | None, hint: str | None, *, blind: bool = False
) -> tuple[Message, ...] | None:
    """The messages that a teacher is shown; None where there are none, or the task lacks what the hint names.

    Args:
        messages: the task's own for this teacher.
        task: gives `{reference}` and `{solution}`.
        system: takes the place of the task's system messages.
        hint: is put behind the last message, a paragraph of its own.
        blind: pictures and their places are left out.

    Example:
        >>> task = Task("sum-1", (Message("user", "3 + 5 ?"),), reference="8", grader="exact")
        >>> [m.text for m in shown(task.messages, task, "Be brief.", "The answer is {reference}.")]
        ['Be brief.', '3 + 5 ?\\n\\nThe answer is 8.']
    """
    if not messages:
        return None
    made = [_without_pictures(m) if blind else m for m in messages]
    if system is not None:
        made = [Message("system", system), *(m for m in made if m.role != "system")]
    if hint is not None:
        known = {"{reference}": task.reference, "{solution}": task.response or ""}
        if any(name in hint and not text for name, text in known.items()):
            return None
        for name, text in known.items():
            hint = hint.replace(name, text)
        made[-1] = dataclasses.replace(made[-1], text=f"{made[-1].text}\n\n{hint}")
    return tuple(made)


def refuse_unseeing(chats: Mapping[str, Chat]) -> None:
    """Refuse teachers that cannot say what a picture changes.

    Args:
        chats: of each, by where it stands in the recipe.

    Raises:
        ConfigError: one takes no pictures.
    """
    for where, chat in chats.items():
        if chat.processor is None:
            raise ConfigError(
                "this teacher is never shown a picture, so it cannot say what one changes",
                where=f"{where}.path",
                got="a model of text alone",
                fix="name a teacher that sees, or leave out distill.objective.contrast",
            )


def _without_pictures(message: Message) -> Message:
    return dataclasses.replace(message, text=message.text.replace(IMAGE_MARKER, ""), images=())
