r"""Mathematical equality of the boxed answer and the reference, decided in processes that can be killed.

The comparison is bounded by construction (`mathematics.values`), and all the same it never runs in this process:
workers do it, and one that overruns its limit of CPU time ends and is replaced. No signal is used here, so grading
works from any thread, from asyncio (it blocks: use `asyncio.to_thread`) and in forked or spawned processes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.graders.extract import extract_boxed, squeeze
from vold.graders.mathematics.client import WorkerPool
from vold.graders.outcome import DIFFERENT, EQUAL, UNREADABLE
from vold.graders.registry import grader
from vold.types import Grade

if TYPE_CHECKING:
    from vold.types import Finish

TIME_LIMIT_SECONDS = 3.0
"""Limit of CPU time for one answer. Typical answers take 1 ms. It does not hang on how busy the machine is."""

MEMORY_LIMIT_BYTES = 2**30
"""Address-space limit of a worker (`resource.RLIMIT_AS`)."""

MAX_ANSWER_CHARS = 2000
"""Longer answers and references are not parsed. The longest reference of MATH-500 has fewer than 100 characters."""

MAX_NESTING = 25
"""Deeper bracket nesting is not parsed."""

MAX_DIGITS = 1000
"""A longer run of digits is not parsed."""

_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_LONG_NUMBER = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")


@grader("math")
class MathGrader:
    r"""Marks a response right when its boxed answer and the reference are the same mathematical object.

    `mathematics.equal` says what counts as the same. An answer over the time or memory limit scores 0 with the note
    "grader time-out" or "grader crash". All threads share two workers, each started when it is first needed; pickling
    and forking give the copy workers of its own.

    Args:
        time_limit: seconds of CPU time per answer.
        memory_limit: bytes of address space of a worker.

    Example:
        >>> MathGrader()(r"half: \boxed{\frac{1}{2}}", "0.5").score
        1.0
    """

    def __init__(self, *, time_limit: float = TIME_LIMIT_SECONDS, memory_limit: int = MEMORY_LIMIT_BYTES) -> None:
        self.time_limit, self.memory_limit = time_limit, memory_limit
        self._pool = WorkerPool(time_limit, memory_limit)

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`."""
        answer, note = extract_boxed(response, finish)
        if answer is None:
            return Grade(0.0, None, note)
        note = self._compare(squeeze_if_short(reference), squeeze_if_short(answer))
        return Grade(float(note == EQUAL), answer, note)

    def __reduce__(self) -> tuple[object, ...]:
        """Copy the limits only: workers belong to one process."""
        return _rebuild, (self.time_limit, self.memory_limit)

    def close(self) -> None:
        """End the workers. The next answer starts a new one."""
        self._pool.close()

    def _compare(self, reference: str, answer: str) -> str:
        if _INTEGER.match(reference) and _INTEGER.match(answer) and max(len(reference), len(answer)) <= MAX_DIGITS:
            return EQUAL if int(reference) == int(answer) else DIFFERENT
        for text, whose in ((reference, " reference"), (answer, "")):
            problem = _too_big(text)
            if problem:
                return f"{UNREADABLE}{whose}: {problem}"
        return self._pool.compare(reference, answer)


def _rebuild(time_limit: float, memory_limit: int) -> MathGrader:
    return MathGrader(time_limit=time_limit, memory_limit=memory_limit)


def squeeze_if_short(text: str) -> str:
    """Strip blanks and fold Unicode; text over the cap is left alone, as it will not be parsed."""
    if len(text) > MAX_ANSWER_CHARS or "\f" in text or "\v" in text:
        return text
    return squeeze(text)


def _too_big(text: str) -> str:
    if len(text) > MAX_ANSWER_CHARS:
        return f"more than {MAX_ANSWER_CHARS} characters"
    if not text.strip():
        return "empty"
    if _LONG_NUMBER.search(text):
        return f"a number of more than {MAX_DIGITS} digits"
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return f"nested more than {MAX_NESTING} deep" if deepest > MAX_NESTING else ""
