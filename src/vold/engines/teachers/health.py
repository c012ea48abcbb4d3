"""Is this teacher alive, and is it still the same one? A few scores of a fixed text tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vold.errors import TeacherError
from vold.run.files import read_json, write_json
from vold.run.records import TokenId
from vold.types import ScoreRequest, TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROBE_TOKENS = 64
IMPOSSIBLE = -1e9
"""What stands in the file for minus infinity, which JSON has no word for."""
SAME_WITHIN_NATS = 0.1
"""Mean distance of the scores of one model that is asked twice. Batching moves bfloat16 scores by about 0.01 nats;
another checkpoint of the same family is several tenths away."""


def probe_of(text_ids: Sequence[int]) -> ScoreRequest:
    """The request that checks a teacher: the later tokens of a text of the run's own, after its first.

    Raises:
        TeacherError: the text has fewer than three tokens.
    """
    ids = tuple(text_ids[: PROBE_TOKENS + 1])
    if len(ids) < 3:
        raise TeacherError("this text is too short to check a teacher with", got=f"{len(ids)} tokens")
    return ScoreRequest(ids[:1], ids[1:])


def check_alive(scores: TokenScores, *, where: str) -> None:
    """Look for scores that no working language model gives.

    Raises:
        TeacherError: log-probs that are not numbers, are above 0, or are the same for every token (weights of zero
            make every token equally likely).
    """
    values = scores.logp
    if not bool((values <= 1e-3).all()):
        raise TeacherError("this teacher returns numbers that are no log-probs", where=where, got=str(values[:4]))
    if values.max() - values.min() < 1e-6:
        raise TeacherError(
            "this teacher gives every token the same log-prob, as a model without weights does",
            where=where,
            got=f"{values[0]:.4f} nats for each of {len(values)} tokens, {math.exp(-values[0]):.0f} equal choices",
            fix="load its weights: a server started with --load-format dummy, or asleep, has none",
        )


def check_same(scores: TokenScores, known: TokenScores, *, where: str) -> None:
    """Compare the probe's scores with what the teacher of this run gave at first.

    Raises:
        TeacherError: they are further apart than one model asked twice.
    """
    with np.errstate(invalid="ignore"):
        distance = np.where(scores.logp == known.logp, 0.0, np.abs(scores.logp - known.logp))
    apart = float(np.minimum(distance, 1e3).mean())
    if apart > SAME_WITHIN_NATS:
        raise TeacherError(
            "this is not the teacher the run began with",
            where=where,
            got=f"scores of the same {len(known.logp)} tokens are {apart:.2f} nats apart on average",
            fix="start the server with the model it had before, or use another run.dir",
        )


@dataclass(frozen=True)
class _Probed:
    """A file of this module: the probe, and what the teacher said of its ids after the first."""

    ids: tuple[TokenId, ...]
    logp: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.logp) + 1 != len(self.ids):
            raise ValueError(f"{len(self.logp)} log-probs of {len(self.ids)} ids")


def remember(file: Path, probe: ScoreRequest, scores: TokenScores, *, where: str) -> None:
    """Store the probe's scores at the first call; compare with the stored ones at every later.

    Raises:
        TeacherError: as `check_same`.
        CheckpointError: the stored scores are damaged.
    """
    now = _Probed(
        (*probe.prompt_ids, *probe.response_ids.tolist()), tuple(max(v, IMPOSSIBLE) for v in scores.logp.tolist())
    )
    known = read_json(file, _Probed) if file.exists() else None
    if known is not None and known.ids == now.ids:
        check_same(TokenScores(now.logp), TokenScores(known.logp), where=where)
    else:
        write_json(file, now)
