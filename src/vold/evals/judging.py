"""Answers that wait for a judge are marked while others are still being made."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from vold.evals.answering import in_order, marked, stored
from vold.run.answers import Unmarked
from vold.run.console import Bar, console

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vold.evals.questions import Question, QuestionSet
    from vold.run.answers import Answer


class Judging:
    """Marks stored answers on up to `threads` threads of its own. Their lists change when `finish` has them all: a
    judge that fails costs no answer, nor does a kill."""

    def __init__(self, threads: int, samples: int) -> None:
        self.threads, self.samples = threads, samples
        self._waiting: deque[tuple[Path, Question, Unmarked]] = deque()
        self._sets: dict[Path, QuestionSet] = {}
        self._marked: dict[Path, dict[tuple[str, int], Answer]] = {}
        self._at_work = self._done = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def add(self, found: QuestionSet, file: Path, rows: Iterable[Answer | Unmarked]) -> None:
        """Take those of the rows of a list that are not marked."""
        unmarked = [row for row in rows if isinstance(row, Unmarked)]
        if not unmarked:
            return
        questions = {q.id: q for q in found.questions}
        with self._changed:
            self._sets[file] = found
            self._waiting += [(file, questions[row.id], row) for row in unmarked]
        self.begin(self.threads)

    @property
    def waits(self) -> bool:
        """Whether there are answers that no thread has taken."""
        return bool(self._waiting)

    def begin(self, threads: int) -> None:
        """Mark what waits on up to so many threads."""
        with self._changed:
            self.threads = threads
            more = min(threads - self._at_work, len(self._waiting))
            self._at_work += more
        for _ in range(more):
            # Daemons: an interrupted run must not wait for a judge.
            threading.Thread(target=self._work, daemon=True).start()

    def finish(self, label: str) -> None:
        """Wait for the last mark, and put the marked answers in the place of the others.

        Raises:
            SamplerError: the judge fails. Every answer stays, and so does what the judge has said so far.
        """
        with self._changed:
            total = self._done + len(self._waiting) + self._at_work
        with Bar(f"{label}: marking", total) as bar, self._changed:
            while self._at_work:
                bar.advance(self._done - bar.done)
                self._changed.wait()
            bar.advance(self._done - bar.done)
        if self._error is not None:
            raise self._error
        for file, found in self._sets.items():
            done = self._marked[file]
            rows = stored(file, found, self.samples)
            in_order(file, found, [done[r.id, r.sample] if isinstance(r, Unmarked) else r for r in rows])

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting or self._error is not None:
                    self._at_work -= 1
                    self._changed.notify_all()
                    return
                file, question, row = self._waiting.popleft()
            try:
                answer = marked(question, row)
            except BaseException as error:  # raised again by `finish`
                with self._changed:
                    first, self._error = self._error is None, self._error or error
                if first:
                    console.print(f"{error}\nanswers are asked for all the same, and none is lost", markup=False)
            else:
                with self._changed:
                    self._marked.setdefault(file, {})[row.id, row.sample] = answer
                    self._done += 1
                    self._changed.notify_all()
