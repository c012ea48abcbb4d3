"""Everything that decides a score besides the model, as one value with a hash.

Two evaluations are comparable when their protocols are equal: the same questions put and marked in the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vold.evals.marking.golds import GOLDS_RULE
from vold.evals.marking.rules import SCORING_VERSION

__all__ = ["SCORING_VERSION", "Protocol", "differences", "protocol_hash"]

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
    "golds": "rule for golds that do not grade themselves",
}


@dataclass(frozen=True)
class Protocol:
    """How a set was asked and marked. The seed is not part of it: another seed is another draw, not another test.

    `pixels` are the least and most pixels of a picture; None: the image processor's own limits. `revision` says where
    the data came from and decides nothing: two copies with the same content hash are the same questions.

    Example:
        >>> p = Protocol("rule", "mathvision", "test", "ab", "1", 8192, 0.0, 1, None, None, None, "cd")
        >>> len(protocol_hash(p))
        16
    """

    name: str
    benchmark: str
    split: str | None
    prompt_version: str
    scoring_version: str
    max_new_tokens: int
    temperature: float
    samples: int
    pixels: Sequence[int] | None
    judge: str | None
    revision: str | None
    content_hash: str
    thinking: str = "the answer is read after the last closed thinking block"
    golds: str = GOLDS_RULE
    tool: str = "none"

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
