"""What `vold eval` stores of a model: its answers (eval/MODEL/SET.jsonl), how they were made, and which are shown."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from vold.graders.outcome import Outcome
from vold.run.files import bad_row
from vold.run.metrics import SCORE
from vold.run.records import Count, Share, flat
from vold.types import Finish

if TYPE_CHECKING:
    from pathlib import Path

Key = tuple[str, str]
"""Item and sample."""
PROTOCOL = ".protocol.json"
"""Behind the name of a set: how a model's answers to it were made. Every folder of answers has such a file."""
NO_FILES = hashlib.sha256().hexdigest()
"""The digest of a directory without weight files, which says nothing of what is in it."""


@dataclass(frozen=True, kw_only=True)
class Unmarked:
    """An answer as it lies in eval/MODEL/SET.jsonl until a judge has marked it."""

    id: str
    """The item. Unit: name. Made by evals/answering.py:answer_in_process."""
    sample: Count
    """Which of the item's samples, from 0. Unit: count. Made by evals/answering.py:answer_in_process."""
    prompt: str
    """Text of the question as it was put. Unit: text. Made by evals/answering.py:answer_in_process."""
    images: tuple[str, ...]
    """Pictures of a task set's problem as data URIs; those of a benchmark are read again when the page is made. Unit:
    PNG. Made by evals/answering.py:answer_in_process."""
    response: str
    """All that the model wrote. Unit: text. Made by evals/answering.py:answer_in_process."""
    finish: Finish
    """Why it ended. Unit: stop or length. Made by evals/answering.py:answer_in_process."""
    tokens: Count
    """Length of the response. Unit: tokens. Made by evals/answering.py:answer_in_process."""
    error: str | None = None
    """Why there is no answer; absent where there is one. Unit: text. Made by evals/answering.py:answer_in_process."""
    answer: str | None = None
    """The last turn, which alone is marked; absent where there was no tool. Unit: text. Made by
    evals/answering.py:answer_in_process."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A marked answer: a row of eval/MODEL/SET.jsonl. No time stands in it: equal seeds give equal bytes."""

    id: str
    """The item. Unit: name. Made by evals/answering.py:marked."""
    sample: Count = 0
    """Which of the item's samples, from 0. Unit: count. Made by evals/answering.py:marked."""
    prompt: str = ""
    """Text of the question as it was put. Unit: text. Made by evals/answering.py:marked."""
    images: tuple[str, ...] = ()
    """Pictures of a task set's problem as data URIs; those of a benchmark are read again when the page is made. Unit:
    PNG. Made by evals/answering.py:marked."""
    response: str = ""
    """All that the model wrote. Unit: text. Made by evals/answering.py:marked."""
    extracted: str | None
    """The answer that was read in it; null for none. Unit: text. Made by evals/answering.py:marked."""
    reference: str = ""
    """The right answer. Unit: text. Made by evals/answering.py:marked."""
    score: Share
    """What the grader gave. Unit: 0 to 1. Made by evals/answering.py:marked."""
    scores: Mapping[str, Share] = field(default_factory=dict, metadata=flat(SCORE))
    """What the score is made of, by name; absent where it is one verdict. Unit: 0 to 1. Made by
    evals/answering.py:marked."""
    note: str
    """Why. Unit: text. Made by evals/answering.py:marked."""
    outcome: Outcome
    """right, wrong, unparsed, truncated or timed_out. Unit: word. Made by graders/outcome.py:outcome."""
    tokens: Count
    """Length of the response. Unit: tokens. Made by evals/answering.py:marked."""
    cluster: str = ""
    """Shared by items that are not independent of each other. Unit: name. Made by evals/answering.py:marked."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What to group results by. Unit: text. Made by evals/answering.py:marked."""
    by_rule: Outcome | None = None
    """What a rule alone makes of an answer that was given to a judge to mark: right, wrong, unparsed, truncated or
    timed_out; absent where none was. Unit: word. Made by evals/answering.py:marked."""
    as_vlmevalkit: Share | None = None
    """What VLMEvalKit would give for it, a chance where it draws an option at random; absent under other protocols.
    Unit: 0 to 1. Made by evals/marking/as_vlmevalkit.py:as_vlmevalkit."""
    text: str | None = None
    """The same problem for who cannot see; absent where there is no picture, or no such text. Unit: text. Made by
    run/rollouts.py:text_view."""
    read: bool | None = None
    """Whether the response says that it has read what the pictures show; absent where it does not say, or nobody knows.
    Unit: true or false. Made by graders/reading.py:read_right."""

    @property
    def source(self) -> str:
        """The item's cluster, or the item itself."""
        return self.cluster or self.id


@dataclass(frozen=True)
class Stamp:
    """How a model's answers to a set were made: eval/MODEL/SET.protocol.json."""

    hash: str
    """Digest of the protocol. Unit: hex digits. Made by evals/protocol.py:protocol_hash."""
    protocol: Mapping[str, object]
    """Everything besides the model that decides a score. Unit: see Protocol. Made by evals/questions.py:open_sets."""


@dataclass(frozen=True)
class ModelStamp:
    """Whose answers a folder holds: eval/MODEL/model.json."""

    path: str
    """Where the model was read. Unit: path. Made by evals/evaluate.py:evaluate."""
    weights: str
    """Digest of its weight files; the path itself where there are none here. Unit: hex digits. Made by
    evals/evaluate.py:weights_hash."""

    def is_of(self, other: ModelStamp) -> bool:
        """Whether both are of the same weights, wherever these lie: a run may be moved, renamed or branched."""
        return self == other or (self.weights == other.weights and self.weights != NO_FILES)


def model_folders(run: Path) -> dict[str, Path]:
    """Folders of a run's answers by model. Others lie beside them, of a judge's replies and of exports, and the name of
    a model behind an endpoint may hold a slash."""
    folders = sorted({file.parent for file in (run / "eval").rglob(f"*{PROTOCOL}")})
    return {folder.relative_to(run / "eval").as_posix(): folder for folder in folders}


def refuse_doubled(rows: Iterable[Answer | Unmarked], file: Path) -> None:
    """Refuse a list that answers a question twice.

    Raises:
        CheckpointError: naming the second answer.
    """
    seen: set[tuple[str, int]] = set()
    for n, row in enumerate(rows, 1):
        if (row.id, row.sample) in seen:
            raise bad_row(file, n, f"another answer to item {row.id!r}, sample {row.sample}")
        seen.add((row.id, row.sample))


def outcome_of(row: Mapping[str, object]) -> str:
    """Return the stored outcome of an answer; older rows have only a score, and "unknown" stands for neither."""
    known, score = row.get("outcome"), row.get("score")
    if known in get_args(Outcome):
        return str(known)
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return "unknown"
    return "right" if score >= 1 else "wrong"


def key_of(row: Mapping[str, object]) -> Key:
    """Return what the answers of all models to the same question, sample by sample, share."""
    return str(row.get("id", "\N{EN DASH}")), str(row.get("sample") or 0)


def choose(outcomes: Mapping[str, Mapping[Key, str]], count: int, name: str) -> list[Key]:
    """Return up to `count` keys in the order of the data, always the same ones.

    All keys are ranked by a hash of the set's `name` and the key itself. First come the best ranked ones of every
    outcome of every model, rarest first, for up to half of the places; then the best ranked of all. So every outcome
    that occurs is seen if there is room, and what is shown does not depend on how anyone would like it.
    `outcomes` are by model and key.
    """
    everything = list(dict.fromkeys(k for found in outcomes.values() for k in found))
    ranked = sorted(
        everything, key=lambda k: hashlib.sha256("\0".join((name, *k)).encode("utf-8", "surrogatepass")).digest()
    )
    piles: dict[tuple[str, str], list[Key]] = {}
    for key in ranked:
        for model, found in outcomes.items():
            if key in found:
                piles.setdefault((model, found[key]), []).append(key)
    rarest = sorted(piles.values(), key=len)
    turns = max(1, count // (2 * max(1, len(rarest))))
    first = [pile[turn] for turn in range(turns) for pile in rarest if turn < len(pile)]
    chosen = set(list(dict.fromkeys([*first, *ranked]))[:count])
    return [key for key in everything if key in chosen]
