r"""Rewards of the user's own, and sums of several: what a recipe's `grader` may be besides one name.

`grader: my_module:reward` names a function of a response and its reference, or a class of such objects. It returns a
score from 0 to 1, or several by name. `grader: 0.8 math + 0.2 my_module:shape` is the weighted mean of several;
`my_module:shape.boxes` is one of the scores of a function, and without a name it is their plain mean. Each score is a
column of its own in metrics.jsonl.

The function runs in a process that is killed when it takes too long, as the comparison of mathematics does. Whatever it
does about a model's response, the run goes on: a response that it cannot mark scores 0, with a note that says why.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import TYPE_CHECKING, NamedTuple

from vold.errors import ConfigError, UngradableReference
from vold.graders.extract import after_thinking, last_box
from vold.graders.mathematics.client import WorkerPool
from vold.graders.outcome import CRASH, TIME_OUT
from vold.graders.registry import get_grader, known_grader
from vold.graders.reward_worker import extras_of
from vold.types import Grade, named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.types import Finish

TIME_LIMIT_SECONDS = 10.0
"""Limit of CPU time for one response."""
PATIENCE_SECONDS = 60.0
"""Limit of wall-clock time for one response."""
MEMORY_LIMIT_BYTES = 2**33
"""Address space of a worker, beyond which it cannot grow once the module is loaded."""
LEAST = 0.5
"""What a right answer must earn: a reward that gives less marks every response too low to learn from."""
SHOWN = 200
"""Characters of an answer that stands in no box."""

_TERM = re.compile(
    r"(?:(?P<weight>\d+(?:\.\d*)?|\.\d+)\s+)?(?P<name>[A-Za-z_][\w.]*:[A-Za-z_]\w*|[A-Za-z_]\w*)(?:\.(?P<score>[\w.-]+))?"
)
_PLAIN: Mapping[str, str] = {}


class Term(NamedTuple):
    """One addend of a grader: its weight, a grader or reward, and which of its scores ("" for all)."""

    weight: float
    name: str
    score: str


def terms_of(grader: str) -> list[Term]:
    """What a recipe's `grader` is made of; nothing is loaded.

    Raises:
        ConfigError: it cannot be read, names a grader that is not known or the same score twice, or weighs one by 0.

    Example:
        >>> terms_of("0.8 math + 0.2 my_module:shape.boxes")
        [Term(weight=0.8, name='math', score=''), Term(weight=0.2, name='my_module:shape', score='boxes')]
    """
    found = []
    for part in grader.split("+"):
        match = _TERM.fullmatch(part.strip())
        own = match is not None and named.is_named(match["name"])
        if match is None or (match["score"] and not own):
            fix = "write a grader, my_module:function, or a sum such as `0.8 math + 0.2 my_module:function.score`"
            raise ConfigError("this is no grader", where="grader", got=repr(grader), fix=fix)
        weight = float(match["weight"] or 1)
        if weight <= 0:
            raise ConfigError("a grader has no weight", where="grader", got=grader, fix="weigh it above 0, or drop it")
        found.append(Term(weight, match["name"] if own else known_grader(match["name"]), match["score"] or ""))
    columns = [(column(term.name), term.score) for term in found]
    if len(set(columns)) < len(columns) or len({t.name for t in found}) > len({c for c, _ in columns}):
        fix = "name each once; two functions need two names, for their scores are columns by that name"
        raise ConfigError("two addends of a grader have one name", where="grader", got=grader, fix=fix)
    return found


def any_grader(grader: str) -> str:
    """The `grader` of a recipe as it is, if it can be read.

    Raises:
        ConfigError: as `terms_of`.
    """
    terms_of(grader)
    return grader


def column(name: str) -> str:
    """The name under which scores of a grader are logged.

    Example:
        >>> column("math"), column("my_module:shape")
        ('math', 'shape')
    """
    return name.rpartition(":")[2]


class Reward:
    """A reward of the user's own, in its worker.

    Args:
        name: `module:attribute`.
        time_limit: seconds of CPU time a response.
        patience: seconds of wall-clock time a response.

    Raises:
        ConfigError: it cannot be loaded, or does not take a response and a reference.
    """

    def __init__(
        self, name: str, *, time_limit: float = TIME_LIMIT_SECONDS, patience: float = PATIENCE_SECONDS
    ) -> None:
        self.name = name
        found = named.load(name)
        if not callable(found):
            fix = "name a function of a response and a reference, or a class of such objects"
            raise ConfigError(f"{name} is no reward", where=name, got=type(found).__name__, fix=fix)
        reward = named.made(name, {}, ("__call__",)) if inspect.isclass(found) else found
        named.refuse_signature(name, reward, ("response", "reference"), extras_of(reward))
        self.knows_an_answer = hasattr(reward, "right_answer")
        command = ("vold.graders.reward_worker", name)
        self._pool = WorkerPool(time_limit, MEMORY_LIMIT_BYTES, command, patience)

    def ask(
        self, response: str | None, reference: str, *, finish: Finish = "stop", tags: Mapping[str, str] = _PLAIN
    ) -> tuple[Mapping[str, float], str]:
        """Scores by column, and a note that says why there are none. Without a response the reward's own
        `right_answer` is marked."""
        reply = self._pool.ask({"response": response, "reference": reference, "finish": finish, "tags": dict(tags)})
        scores = reply.get("scores")
        return (scores, "") if isinstance(scores, dict) else ({}, str(reply.get("note")))

    def close(self) -> None:
        """End the workers. The next response starts a new one."""
        self._pool.close()

    def check(self, reference: str, scores: Sequence[str]) -> None:
        """See what a right answer earns: what `right_answer` of the reward gives, or the reference in a box.

        Raises:
            UngradableReference: less than `LEAST`, or the reward crashes, hangs or returns something else than scores.
        """
        shown = rf"\boxed{{{reference}}}"
        found, note = self.ask(None if self.knows_an_answer else shown, reference)
        shown = "its own right_answer" if self.knows_an_answer else repr(shown[:SHOWN])
        got, fix = f"{note.partition(': ')[2] or note}, for {shown}", "mend the function"
        if note:
            does = "hangs" if note.startswith(TIME_OUT) else "fails"
            raise UngradableReference(
                f"the reward {self.name} {does} on a right answer", where="reference", got=got, fix=fix
            )
        total = _mean(self.name, found, scores)
        if total is None:
            got, fix = f"{', '.join(found)}, for {shown}", "name one of these in `grader`"
            raise UngradableReference(
                f"the reward {self.name} has no score {', '.join(scores)}", where="reference", got=got, fix=fix
            )
        if total < LEAST:
            raise UngradableReference(
                f"the reward {self.name} gives a right answer a low mark",
                where="reference",
                got=f"{total:.3g} for {shown}",
                fix=f"a right answer earns {LEAST} or more; where it is no box, say how it is written: "
                "`right_answer` in docs/extending.md",
            )


class Weighted:
    """A grader that is a sum: rewards of the user's own, the package's graders, or both."""

    def __init__(self, grader: str) -> None:
        self.terms = terms_of(grader)
        self.rewards = {t.name: shared(t.name) for t in self.terms if named.is_named(t.name)}

    def __call__(
        self, response: str, reference: str, *, finish: Finish = "stop", tags: Mapping[str, str] = _PLAIN
    ) -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`. `tags` are the task's."""
        extracted = _answer(response)
        scores: dict[str, float] = {}
        for name in dict.fromkeys(t.name for t in self.terms):
            if name in self.rewards:
                found, note = self.rewards[name].ask(response, reference, finish=finish, tags=tags)
                if note:
                    return Grade(0.0, extracted, note)
                scores |= found
            else:
                grade = get_grader(name)(response, reference, finish=finish)
                scores[name], extracted = grade.score, grade.extracted
        total = weight = 0.0
        for term in self.terms:
            mean = _mean(term.name, scores, [term.score] if term.score else [])
            if mean is None:
                return Grade(0.0, extracted, f"{CRASH}: {term.name} has returned no score {term.score!r}")
            total, weight = total + term.weight * mean, weight + term.weight
        return Grade(min(1.0, total / weight), extracted, _in_words(scores), scores)

    def check(self, reference: str) -> None:
        """Try every reward on a right answer. Raises as `Reward.check`."""
        for name, reward in self.rewards.items():
            reward.check(reference, [t.score for t in self.terms if t.name == name and t.score])


@functools.cache
def shared(name: str) -> Reward:
    """The reward of that name, the same object each time, so that all callers share its workers. Raises as `Reward`."""
    return Reward(name)


@functools.cache
def weighted(grader: str) -> Weighted:
    """The grader that a recipe writes so. Raises as `terms_of` and `Reward`."""
    return Weighted(grader)


def _mean(name: str, scores: Mapping[str, float], wanted: Sequence[str]) -> float | None:
    """The mean of the wanted scores of a grader, of all of them if none is named; None where one is not there."""
    own = column(name)
    keys = [f"{own}.{w}" for w in wanted] or [k for k in scores if k == own or k.startswith(f"{own}.")]
    return sum(scores[k] for k in keys) / len(keys) if all(k in scores for k in keys) and keys else None


def _answer(response: str) -> str | None:
    """What is shown as the answer that was marked: the last box, or the text after the thinking."""
    said = after_thinking(response)
    if said is None:
        return None
    box = last_box(said)
    return said.strip()[:SHOWN] if box is None else box


def _in_words(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in scores.items())
