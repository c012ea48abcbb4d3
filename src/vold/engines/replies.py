"""What a server may say, one place for each kind of value: types, lengths, signs and ranges.

JSON has types, and a list that passes here holds numbers of one kind: true is no 1, 5.0 is no id, NaN is no log-prob.
Where a value can be wrong and look right (a log-prob of another model or temperature), `vold.engines.mismatch` and
`vold.engines.teachers.health` compare it with what is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.errors import VoldError
    from vold.run.records import JsonObject

LOWEST = -9999.0
"""What vLLM writes for minus infinity, which JSON does not have. Nothing is below it."""
MOST_IDS = 2**31
"""Ids are int32."""
FIX = "docs/engines.md says what a server has to answer; mend it, and repeat the command: it goes on from here"
ROUNDING = 1e-3
"""A log-prob may be above 0 by this much, and chances above 1 in sum by ten times as much."""


def is_count(value: object) -> bool:
    """Whether it is a whole number from 0 on, of a size that a computer counts to.

    Example:
        >>> is_count(3), is_count(True), is_count(3.0), is_count(10**30)
        (True, False, False, False)
    """
    return type(value) is int and 0 <= value < 2**53


def ids_named(names: list[str]) -> list[int]:
    """The ids that are an object's keys, each spelled in one way; [-1] where a key is none.

    Example:
        >>> ids_named(["17", "0"]), ids_named(["17", "017"]), ids_named(["17", " the"])
        ([17, 0], [-1], [-1])
    """
    digits = "".join(names)
    try:
        found = list(map(int, names)) if digits.isascii() and digits.isdigit() else []
    except ValueError:  # an empty one, or one of thousands of digits
        return [-1]
    return found if list(map(str, found)) == names else [-1]


def wrong_ids(value: object, rows: int) -> str:
    """Why this is no list of ids below `rows`; "" if it is one."""
    if not isinstance(value, list):
        return f"{type(value).__name__} in place of a list of ids"
    if not {int}.issuperset(map(type, value)):
        return f"ids that are no whole numbers: {_first(v for v in value if type(v) is not int)}"
    if value and not 0 <= min(value) <= max(value) < rows:
        return f"ids outside 0 to {rows - 1:,}: {_first(v for v in value if not 0 <= v < rows)}"
    return ""


def wrong_logps(value: object, *, lowest: float = LOWEST) -> str:
    """Why this is no list of log-probs from `lowest` to 0; "" if it is one."""
    if not isinstance(value, list):
        return f"{type(value).__name__} in place of a list of log-probs"
    if not {float, int}.issuperset(map(type, value)):
        return f"log-probs that are no numbers: {_first(v for v in value if type(v) not in (float, int))}"
    if not all(lowest <= v <= ROUNDING for v in value):  # NaN is in no range
        return f"numbers that are no log-probs: {_first(v for v in value if not lowest <= v <= ROUNDING)}"
    return ""


def _first(values: Any) -> str:
    return ", ".join(repr(v)[:30] for _, v in zip(range(4), values, strict=False))


def is_no_reply(said: object) -> bool:
    """Whether a body says that it is no reply: an error under a status that says otherwise, as some gateways send, or
    that the server was stopped in the middle of an answer."""
    if not isinstance(said, dict):
        return False
    choices = said.get("choices")
    stopped = isinstance(choices, list) and any(
        isinstance(c, dict) and c.get("finish_reason") in ("abort", "error") for c in choices
    )
    return stopped or bool(said.get("error"))


def about(task: str, where: str) -> str:
    """Where something went wrong, with the task that it was about.

    Example:
        >>> about("sum-1", "http://localhost:8001/v1"), about("", "http://localhost:8001/v1")
        ('task sum-1, http://localhost:8001/v1', 'http://localhost:8001/v1')
    """
    return f"task {task}, {where}" if task else where


@dataclass(frozen=True)
class VllmReply:
    """A JSON object from a server, and whose it is.

    Attributes:
        value: the object.
        url: the server.
        server: what the server is to the run.
        error: raised where the reply cannot be used.
        task: id of the task that it was asked about, if that is known.
    """

    value: JsonObject
    url: str
    server: str
    error: type[VoldError]
    task: str = ""

    def fail(self, what: str, *, got: str = "", fix: str = FIX, error: type[VoldError] | None = None) -> NoReturn:
        """Raise `error`, that of the client by default, which names the server and the task."""
        raise (error or self.error)(what, where=about(self.task, self.url), got=got[:300], fix=fix)

    def choices(self, count: int) -> list[JsonObject]:
        """As many answers as were asked for, in the order of their numbers.

        Raises:
            VoldError: there are others.
        """
        found = self.value.get("choices")
        if not isinstance(found, list) or not all(isinstance(c, dict) for c in found):
            self.fail(f"the {self.server}'s reply has no answers", got=str(self.value), fix="use vLLM 0.20 or newer")
        places = [c.get("index", place) for place, c in enumerate(found)]
        if not all(map(is_count, places)) or sorted(places) != list(range(count)):
            self.fail(
                f"the {self.server} returned another number of responses",
                got=f"numbers {places} where {count} were due",
            )
        return [found[places.index(place)] for place in range(count)]

    def comes_once(self, heard: set[str]) -> None:
        """Compare the reply's number, if it says one, with those of all replies before, and put it with them.

        Raises:
            VoldError: it has come before: an answer stands twice, and another is lost.
        """
        name = self.value.get("id") or self.value.get("request_id")
        if not isinstance(name, str):
            return
        if name in heard:
            self.fail(
                f"the {self.server} has answered two requests with one reply",
                got=f"reply {name} twice",
                fix="send requests to vLLM itself, not through a gateway that keeps replies or repeats them",
            )
        heard.add(name)

    def echoes(self, choice: JsonObject, ids: Sequence[int], *, error: type[VoldError] | None = None) -> None:
        """Compare the ids that an answer says it was made for, if it does, with those that were sent.

        Raises:
            VoldError: of class `error`: they differ.
        """
        echoed = choice.get("prompt_token_ids")
        if echoed is None:
            return
        if not isinstance(echoed, list):
            self.fail(f"the {self.server} names no prompt", got=str(echoed), error=error)
        if echoed != list(ids):
            ends = min(len(ids), len(echoed))
            first = next((i for i, (a, b) in enumerate(zip(ids, echoed, strict=False)) if a != b), ends)
            self.fail(
                f"the {self.server} has answered another prompt than it was sent",
                got=f"{len(echoed)} ids for {len(ids)}, the first that differs is number {first}",
                fix="send requests to vLLM itself, not through a gateway that rewrites prompts",
                error=error,
            )

    def context(self, model: str) -> int:
        """Tokens that this model may have in prompt and response, from a list of models; 0 where it does not say.

        Raises:
            VoldError: the server holds another model, or says no number.
        """
        rows = self.value.get("data")
        rows = [r for r in rows if isinstance(r, dict)] if isinstance(rows, list) else []
        row = next((r for r in rows if r.get("id") == model), None)
        if row is None:
            self.fail(
                f"this {self.server} holds another model",
                got=", ".join(str(r.get("id")) for r in rows),
                fix=f"start it with --served-model-name {model}, or name its model in the recipe",
            )
        length = row.get("max_model_len")
        if length is not None and not is_count(length):
            self.fail(f"this {self.server} says no number of tokens", got=f"max_model_len {length!r}")
        return int(length or 0)


def plain(text: str) -> str:
    """Text that can be written to a file: half a surrogate pair, which JSON can hold, becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text
