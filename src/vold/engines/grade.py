"""From a sampled completion to its grade: the one place where token ids become the text that a grader reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.engines.samplers.multi_turn import last_turn
from vold.graders import get_grader
from vold.graders.rewards import Weighted

if TYPE_CHECKING:
    from vold.model.chat import Chat
    from vold.types import Completion, Finish, Grade, Task


def answer_text(chat: Chat, completion: Completion) -> str:
    """What is graded: the model's last turn. What a tool printed before it is not the model's word."""
    return chat.text(last_turn(completion.ids, completion.action_mask))


def grade(task: Task, chat: Chat, completion: Completion) -> Grade:
    """Grade a completion whose ids are `chat`'s against the task's reference.

    Raises:
        ConfigError: there is no grader of the task's name.
    """
    return grade_text(task, answer_text(chat, completion), completion.finish)


def grade_text(task: Task, text: str, finish: Finish = "stop") -> Grade:
    """Grade a text as it stands. Raises as `grade`."""
    grader = get_grader(task.grader)
    if isinstance(grader, Weighted):
        return grader(text, task.reference, finish=finish, tags=task.tags)
    return grader(text, task.reference, finish=finish)
