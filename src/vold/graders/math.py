r"""Mathematical equality of the boxed answer and the reference, decided by Math-Verify in a process that can be killed.

Model text can make a computer algebra system run for ever (`9^{9^9}`, `(10!)!`), so it never runs in this process:
a worker does the work, and when it overruns its wall-clock limit it is killed and replaced. No signal is used, so
grading works from any thread, from asyncio (it blocks: use `asyncio.to_thread`) and in forked or spawned processes.
"""

from __future__ import annotations

import collections
import re
from typing import TYPE_CHECKING

from vold.graders.extract import extract_boxed, squeeze
from vold.graders.mathematics.client import WorkerClient
from vold.graders.outcome import CRASH, DIFFERENT, EQUAL, TIME_OUT, UNREADABLE
from vold.graders.registry import grader
from vold.types import Grade

if TYPE_CHECKING:
    from vold.types import Finish

TIME_LIMIT_SECONDS = 3.0
"""Wall-clock limit for one answer. Typical answers take 2 to 20 ms."""

MEMORY_LIMIT_BYTES = 2 * 2**30
"""Address-space limit of the worker (`resource.RLIMIT_AS`); an idle worker uses about 100 MB."""

MAX_ANSWER_CHARS = 2000
"""Longer answers and references are not parsed. The longest reference of MATH-500 has fewer than 100 characters."""

MAX_NESTING = 25
"""Deeper bracket nesting is not parsed: parsing time grows fast with depth (300 parentheses take 5 s)."""

MAX_DIGITS = 1000
"""A longer run of digits is not parsed."""

CACHED_VERDICTS = 4096

_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_LONG_NUMBER = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")


@grader("math")
class MathGrader:
    r"""Marks a response right when Math-Verify finds its boxed answer equal to the reference.

    `mathematics.notation` says which notations are folded and which pairs are refused before Math-Verify is asked,
    `mathematics.equal` what is left as it is. An answer over the time or memory limit scores 0 with the note
    "grader time-out" or "grader crash". All threads share one worker, started at the first answer that needs it;
    pickling and forking give the copy a worker of its own.

    Args:
        time_limit: seconds of wall clock per answer.
        memory_limit: bytes of address space of the worker.

    Example:
        >>> MathGrader()(r"half: \boxed{\frac{1}{2}}", "0.5").score
        1.0
    """

    def __init__(self, *, time_limit: float = TIME_LIMIT_SECONDS, memory_limit: int = MEMORY_LIMIT_BYTES) -> None:
        self.time_limit, self.memory_limit = time_limit, memory_limit
        self._client = WorkerClient(time_limit, memory_limit)
        self._verdicts: collections.OrderedDict[tuple[str, str], str] = collections.OrderedDict()

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`."""
        answer, note = extract_boxed(response, finish)
        if answer is None:
            return Grade(0.0, None, note)
        note = self._compare(squeeze_if_short(reference), squeeze_if_short(answer))
        return Grade(float(note == EQUAL), answer, note)

    def __reduce__(self) -> tuple[object, ...]:
        """Copy the limits only: a worker belongs to one process."""
        return _rebuild, (self.time_limit, self.memory_limit)

    def close(self) -> None:
        """End the worker. The next answer starts a new one."""
        self._client.close()

    def _compare(self, reference: str, answer: str) -> str:
        if _INTEGER.match(reference) and _INTEGER.match(answer) and max(len(reference), len(answer)) <= MAX_DIGITS:
            return EQUAL if int(reference) == int(answer) else DIFFERENT
        for text, whose in ((reference, " reference"), (answer, "")):
            problem = _too_big(text)
            if problem:
                return f"{UNREADABLE}{whose}: {problem}"
        key = (reference, answer)
        known = self._verdicts.get(key)
        if known is not None:
            return known
        note = self._client.compare(reference, answer)
        if not note.startswith((TIME_OUT, CRASH)):  # these depend on how busy the machine is
            self._verdicts[key] = note
            while len(self._verdicts) > CACHED_VERDICTS:
                self._forget_oldest()
        return note

    def _forget_oldest(self) -> None:
        try:
            self._verdicts.popitem(last=False)
        except KeyError:  # another thread was first
            return


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
