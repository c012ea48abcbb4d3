"""Is this teacher alive, and is it still the same one? A few scores of a fixed text tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from vold.engines.replies import FIX, ROUNDING
from vold.errors import AlignmentError, ConfigError, TeacherError
from vold.run.files import read_json, write_json
from vold.run.records import TokenId
from vold.types import ScoreRequest, TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.types import Prompt, Values

PROBE_TOKENS = 64
IMPOSSIBLE = -1e9
"""What stands in the file for minus infinity, which JSON has no word for."""
CONSTANT_TOKENS = 8
"""From so many tokens on, no working model gives all of them one log-prob."""
SAME = 1e-6
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


def probe_of_prompt(prompt: Prompt) -> ScoreRequest:
    """As `probe_of`, for a teacher that is shown such prompts: of one with pictures, the text after the last of them.
    So a server that cannot be shown any is found at the start.

    Raises:
        TeacherError: as `probe_of`.
    """
    if prompt.pictures is None:
        return probe_of(prompt.ids)
    ends = zip(reversed(prompt.ids), reversed(prompt.pictures.ids), strict=False)
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], ends)))
    after = same - 2  # a placeholder and the mark behind it are the same too
    text = probe_of(prompt.ids[-after - 1 :])
    shown = replace(prompt.pictures, ids=prompt.pictures.ids[:-after])
    return replace(text, prompt_ids=prompt.ids[:-after], vision=prompt.vision, pictures=shown)


def check_scores(request: ScoreRequest, scores: TokenScores, *, where: str) -> None:
    """Look for an answer that is none: of another shape than the request, or numbers that are no log-probs.

    Minus infinity is one: of an id that the teacher cannot emit.

    Raises:
        AlignmentError: another shape.
        TeacherError: a NaN, a number above 0, or an id below 0.
    """
    tokens = len(request.response_ids)
    top = (tokens, request.top_k) if request.top_k else None
    shapes = {"logp": (tokens,), "top_logp": top, "top_ids": top}
    if tokens:  # of an empty response candidates are not asked for
        shapes["candidate_logp"] = None if request.candidate_ids is None else request.candidate_ids.shape
    for name, shape in shapes.items():
        values = getattr(scores, name)
        if (found := None if values is None else values.shape) != shape:
            got = f"{name} of shape {found}, not {shape}"
            raise AlignmentError("the teacher's scores do not line up with the response", where=where, got=got, fix=FIX)
        if values is not None and values.dtype.kind == "f":
            _refuse_no_log_probs(name, values, where)
        if values is not None and values.dtype.kind == "i" and (values < 0).any():
            raise TeacherError(
                "this teacher names tokens that are none", where=where, got=f"{name} {values.min()}", fix=FIX
            )


def check_distribution(request: ScoreRequest, scores: TokenScores, *, where: str) -> None:
    """Look for numbers that may each be a log-prob, and together are none of a working model.

    Raises:
        TeacherError: several tokens of one position have chances above 1 in sum, the likeliest do not come first, a
            token has another log-prob among the candidates than alone, or all tokens of a response that is not short
            have the same.
    """
    if len(scores.logp) >= CONSTANT_TOKENS:
        _refuse_one_value(scores, where)
    ids, best = scores.top_ids, scores.top_logp
    chances, falling = np.zeros(len(scores.logp)), True
    if ids is not None and best is not None:
        known = (ids == request.response_ids[:, None]).any(-1)
        chances = np.exp(best).sum(-1) + np.where(known, 0, np.exp(scores.logp))
        falling = bool((best[:, 1:] <= best[:, :-1] + ROUNDING).all())
        falling = falling and bool((known | (scores.logp <= best[:, -1] + ROUNDING)).all())
    if request.candidate_ids is not None and scores.candidate_logp is not None:
        order = request.candidate_ids.argsort(-1)
        sorted_ids = np.take_along_axis(request.candidate_ids, order, -1)
        again = np.diff(sorted_ids, axis=-1, prepend=-1) == 0  # a candidate may be named twice
        each = np.where(again, 0, np.exp(np.take_along_axis(scores.candidate_logp, order, -1)))
        chances = np.maximum(chances, each.sum(-1))
        place = request.candidate_ids == request.response_ids[:, None]
        alone = np.broadcast_to(scores.logp[:, None], place.shape)[place]
        if _apart(scores.candidate_logp[place], alone) > 5 * SAME_WITHIN_NATS:  # in two passes, of few tokens
            raise TeacherError(
                "this teacher gives a token another log-prob among candidates than alone", where=where, fix=FIX
            )
    if not falling or (chances > 1 + 10 * ROUNDING).any():
        raise TeacherError(
            "what this teacher says of the tokens of one position is no distribution",
            where=where,
            got=f"chances of {chances.max():.3g} in sum" if falling else "log-probs that do not fall with the rank",
            fix=FIX,
        )


def check_alive(scores: TokenScores, *, where: str) -> None:
    """Look for scores that no working language model gives.

    Raises:
        TeacherError: log-probs that are not numbers, are above 0, or are the same for every token (weights of zero
            make every token equally likely).
    """
    _refuse_no_log_probs("logp", scores.logp, where)
    _refuse_one_value(scores, where)


def _refuse_no_log_probs(name: str, values: Values, where: str) -> None:
    if not (good := values <= ROUNDING).all():  # NaN is not
        got = f"{name} {', '.join(f'{v:g}' for v in values[~good][:4].tolist())}"
        raise TeacherError("this teacher returns numbers that are no log-probs", where=where, got=got, fix=FIX)


def _refuse_one_value(scores: TokenScores, where: str) -> None:
    value, last = float(scores.logp.max()), float(scores.logp.min())
    if -math.inf < last and value - last < SAME:
        choices = math.exp(min(-value, 700.0))
        raise TeacherError(
            "this teacher gives every token the same log-prob, as a model without weights does",
            where=where,
            got=f"{value:.4f} nats for each of {len(scores.logp)} tokens, {choices:.0f} equal choices",
            fix="load its weights: a server started with --load-format dummy, or asleep, has none",
        )


def check_same(scores: TokenScores, known: TokenScores, *, where: str) -> None:
    """Compare the probe's scores with what the teacher of this run gave at first.

    Raises:
        TeacherError: they are further apart than one model asked twice.
    """
    apart = _apart(scores.logp, known.logp)
    if apart > SAME_WITHIN_NATS:
        raise TeacherError(
            "this is not the teacher the run began with",
            where=where,
            got=f"scores of the same {len(known.logp)} tokens are {apart:.2f} nats apart on average",
            fix="start the server with the model it had before, or use another run.dir",
        )


def _apart(one: Values, other: Values) -> float:
    """Mean distance in nats; 0 of no tokens."""
    with np.errstate(invalid="ignore"):
        distance = np.where(one == other, 0.0, np.abs(one - other))
    return float(np.minimum(distance, 1e3).sum()) / max(1, distance.size)


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
        (probe.prompt_ids[-1], *probe.response_ids.tolist()), tuple(max(v, IMPOSSIBLE) for v in scores.logp.tolist())
    )
    known = read_json(file, _Probed, absent=now)
    if known is not now and known.ids == now.ids:
        check_same(TokenScores(now.logp), TokenScores(known.logp), where=where)
    else:
        write_json(file, now)


def check_room(context: int, prompt: int, response: int) -> None:
    """Refuse prompts that do not fit into a server's context (tokens; 0 is unknown) together with a response.

    Raises:
        ConfigError: saying what to start the server with.
    """
    needed = prompt + response + 1  # vLLM scores a prompt only with room for one more token
    if context and needed > context:
        raise ConfigError(
            "prompt and response do not fit into the context of the teacher's server",
            where="max_new_tokens",
            got=f"{prompt} + {response} tokens and one to spare, --max-model-len {context}",
            fix=f"start it with --max-model-len {needed} or more, or lower max_new_tokens",
        )
