"""Everything that decides a score besides the model, as one value with a hash.

Two evaluations are comparable when their protocols are equal: the same questions put and marked in the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vold.evals.marking.golds import GOLDS_RULES

_WORDS = {
    "name": "protocol",
    "prompt_version": "prompt text",
    "scoring_version": "parser version",
    "max_new_tokens": "token budget",
    "samples": "answers to each problem",
    "pixels": "limits of a picture's area",
    "judge": "judge",
    "revision": "data revision",
    "content_hash": "questions, pictures or golds",
    "thinking": "treatment of thinking blocks",
    "tool": "tool and its limits",
    "golds": "rule for golds that cannot be marked",
}


@dataclass(frozen=True)
class Protocol:
    """How a set was asked and marked. The seed is not part of it: another seed is another draw, not another test.

    Example:
        >>> p = Protocol("rule", "mathvision", "test", "ab", "1", 8192, 0.0, 1, None, None, None, "cd")
        >>> len(protocol_hash(p))
        16
    """

    name: str
    """How it was put and marked: `tasks` for a task set, `rule` or `vlmevalkit` for a benchmark. Unit: name. Made by
    evals/questions.py:open_sets."""
    benchmark: str
    """The benchmark or task set. Unit: name. Made by evals/questions.py:open_sets."""
    split: str | None
    """The benchmark's split; null for a task set. Unit: name. Made by evals/questions.py:open_sets."""
    prompt_version: str
    """Digest of the prompt's text. Unit: hex digits. Made by evals/questions.py:open_sets."""
    scoring_version: str
    """Version of what reads and marks answers. Unit: text. Made by evals/questions.py:open_sets."""
    max_new_tokens: int
    """Longest answer. Unit: tokens. Made by evals/questions.py:open_sets."""
    temperature: float
    """Of sampling; 0 is greedy. Unit: none. Made by evals/questions.py:open_sets."""
    samples: int
    """Answers to each problem. Unit: count. Made by evals/questions.py:open_sets."""
    pixels: Sequence[int] | None
    """Least and most of a picture; null for the image processor's own limits. Unit: pixels. Made by
    evals/questions.py:open_sets."""
    judge: str | None
    """The model that extracts answers, and how it is asked; null for none. Unit: text. Made by
    evals/questions.py:open_sets."""
    revision: str | None
    """Where the data came from. It decides nothing: equal content hashes are equal questions. Unit: text. Made by
    evals/questions.py:open_sets."""
    content_hash: str
    """Digest of questions, pictures and golds. Unit: hex digits. Made by evals/questions.py:open_sets."""
    thinking: str = "the answer is read after the last closed thinking block"
    """How thinking blocks are treated. Unit: text. Made by evals/questions.py:open_sets."""
    golds: str = GOLDS_RULES["rule"]
    """The rule for golds that cannot be marked. Unit: text. Made by evals/questions.py:open_sets."""
    tool: str = "none"
    """What the model may call, and within which limits. Unit: text. Made by evals/questions.py:open_sets."""

    def __post_init__(self) -> None:
        if self.pixels is not None:  # as JSON has it, or a stored protocol would differ from the same one afresh
            object.__setattr__(self, "pixels", list(self.pixels))


def protocol_hash(protocol: Protocol) -> str:
    """The first 16 hex digits of a SHA-256 over every field but the revision: the content hash stands for the data."""
    fields = asdict(protocol)
    fields.pop("revision")
    if fields["tool"] == "none":  # as in results from before there were tools
        del fields["tool"]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What two stored protocols differ in, in words, leaving out the revision.

    Example:
        >>> differences({"temperature": 0.0}, {"temperature": 1.0})
        ['temperature: 0.0 and 1.0']
    """
    keys = [k for k in dict.fromkeys([*a, *b]) if k != "revision"]
    return [f"{_WORDS.get(k, k.replace('_', ' '))}: {a.get(k)} and {b.get(k)}" for k in keys if a.get(k) != b.get(k)]
