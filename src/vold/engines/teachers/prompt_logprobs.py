"""What a vLLM server says of given tokens, read whole or not at all."""

from __future__ import annotations

import base64
import io
import tokenize
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from vold.engines.replies import LOWEST, MOST_IDS, ids_named, wrong_ids, wrong_logps
from vold.errors import AlignmentError
from vold.types import TokenScores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from vold.engines.replies import VllmReply
    from vold.types import ScoreRequest, Values


def ids_of(request: ScoreRequest) -> list[int]:
    """Prompt and response, as they are sent."""
    return [*request.prompt_ids, *request.response_ids.tolist()]


def read_scores(request: ScoreRequest, reply: VllmReply, rows: int) -> TokenScores:
    """The scores of a response's tokens, and the likeliest tokens where the request asks for them.

    Args:
        request: what was asked.
        reply: to a completion with `prompt_logprobs`.
        rows: ids the teacher has; all others are below.

    Raises:
        AlignmentError: the server has scored other tokens than it was sent.
        TeacherError: it leaves something out, or has something else in its place.
    """
    ids = ids_of(request)
    (choice,) = reply.choices(1)
    reply.echoes(choice, ids, error=AlignmentError)
    found = choice.get("prompt_logprobs")
    if not isinstance(found, list) or len(found) != len(ids):
        got = f"{len(found)} scores for {len(ids)} tokens" if isinstance(found, list) else f"{found!r}"
        reply.fail("the teacher's scores do not line up with the tokens sent", got=got, error=AlignmentError)
    part = found[len(request.prompt_ids) :]
    names = list(map(str, request.response_ids.tolist()))
    for name, row in zip(names, part, strict=True):
        if not isinstance(row, dict) or name not in row:
            reply.fail(
                "the teacher's server has scored other tokens than it was sent",
                got=f"no score of id {name}, but of {', '.join(list(row)[:4]) if isinstance(row, dict) else repr(row)}",
                error=AlignmentError,
            )
    logp = _values(reply, [row[name] for name, row in zip(names, part, strict=True)], "logprob")
    if wrong := wrong_logps(logp):
        reply.fail("this teacher returns numbers that are no log-probs", got=wrong)
    top_ids, top_logp = None, None
    if request.top_k:
        top_ids, top_logp = _top(reply, part, request.top_k, rows) if part else np.empty((2, 0, request.top_k))
    return TokenScores(log_probs(logp), top_ids=top_ids, top_logp=top_logp)


def _values(reply: VllmReply, entries: list[Any], name: str) -> list[Any]:
    try:
        return [entry[name] for entry in entries]
    except (KeyError, TypeError):
        reply.fail(f"the teacher's server leaves out the {name} of a token", fix="use vLLM 0.20 or newer")


def _top(reply: VllmReply, part: list[dict[str, Any]], k: int, rows: int) -> tuple[ArrayLike, ArrayLike]:
    """[response, k] ids and log-probs of the ranks 1 to k; the token that was sent comes with them, whatever its
    rank."""
    names, entries = list(chain.from_iterable(part)), list(chain.from_iterable(map(dict.values, part)))
    ids, ranks, logps = ids_named(names), _values(reply, entries, "rank"), _values(reply, entries, "logprob")
    if wrong := wrong_ids(ids, rows) or wrong_logps(logps) or wrong_ids(ranks, MOST_IDS):
        reply.fail("the teacher's likeliest tokens, or their ranks, are none", got=wrong)
    row = np.repeat(np.arange(len(part)), list(map(len, part)))
    rank, token, value = np.array(ranks, np.int64), np.array(ids), log_probs(logps)
    order = np.argsort(row * MOST_IDS + rank, kind="stable")
    place = np.arange(len(row)) - np.searchsorted(row, row)  # within the row, by rank
    best = order[place < k]
    if len(best) != k * len(part) or (rank[best].reshape(-1, k) != np.arange(1, k + 1)).any():
        reply.fail("the teacher's server leaves out some of its likeliest tokens", got=f"other ranks than 1 to {k}")
    return token[best].reshape(-1, k), value[best].reshape(-1, k)


def read_candidates(request: ScoreRequest, reply: VllmReply) -> Values:
    """[response, k] log-probs of the request's candidates; vLLM sends them as a base64-encoded `.npy` file.

    Raises:
        TeacherError, AlignmentError: as `read_scores`.
    """
    assert request.candidate_ids is not None
    text = reply.value.get("prompt_token_id_logprobs")
    try:
        values = np.lib.format.read_array(io.BytesIO(base64.b64decode(text or "")), allow_pickle=False)
    except (ValueError, TypeError, LookupError, ArithmeticError, EOFError, MemoryError, RecursionError, SyntaxError,
            tokenize.TokenError) as error:  # fmt: skip
        reply.fail("the teacher's server sends no scores of candidates", got=f"{error}: {str(reply.value)[:200]}")
    if values.shape != request.candidate_ids.shape or values.dtype.kind != "f":
        reply.fail(
            "the teacher's scores of candidates do not line up with the response",
            got=f"an array of {values.dtype} {values.shape}",
            error=AlignmentError,
        )
    return log_probs(values)


def log_probs(values: ArrayLike) -> Values:
    """As float32, with minus infinity where vLLM writes its stand-in."""
    found = np.asarray(values, np.float32)
    return np.where(found <= LOWEST, np.float32(-np.inf), found)
