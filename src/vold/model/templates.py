"""Chat templates: programs of a model's publisher, in Jinja's sandbox, whose faults are said in words."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from transformers import PreTrainedTokenizerBase

SECONDS = 5.0
"""A conversation is written in less than a thousandth of this."""
ASKED = "What is 2 + 3?"
COPY = "copy chat_template.jinja from the model it was made from"


def rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Any], picture: str = "", pictures: int = 0) -> str:
    """A conversation and the beginning of the model's turn, as the tokenizer's chat template writes them.

    Args:
        tokenizer: it is its own.
        turns: what is said.
        picture: the token that stands for a picture.
        pictures: how many of them the conversation has.

    Raises:
        DataError: the template fails, does not come to an end, or leaves out a picture.
    """
    where = str(tokenizer.name_or_path)
    fails = "this chat template cannot write a picture" if pictures else "this chat template fails"
    try:
        with _at_most(SECONDS):
            text = str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program
        said = (str(error).splitlines() or [""])[0][:200]
        got = f"{type(error).__name__}: {said}"
        raise DataError(fails, where=where, got=got, fix=f"mend chat_template.jinja, or {COPY}") from error
    if picture and text.count(picture) != pictures:
        got = f"{text.count(picture)} of {picture} for {pictures} picture(s) in {text[:200]!r}"
        raise DataError(fails, where=where, got=got, fix=COPY)
    return text


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Try a tokenizer's chat template on a question.

    Raises:
        DataError: there is none, it fails, or it leaves out the question.
    """
    where = str(tokenizer.name_or_path)
    if not tokenizer.chat_template:
        raise DataError(
            "this tokenizer has no chat template",
            where=where,
            fix="save a chat_template.jinja beside tokenizer.json, or use an instruction-tuned model",
        )
    text = rendered(tokenizer, [{"role": "user", "content": ASKED}])
    if ASKED not in text:
        got = f"{text[:200]!r}"
        raise DataError("this chat template leaves out what the user asks", where=where, got=got, fix=COPY)


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` inside the block after so long. Other threads than the main one cannot be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
