"""Scores on disk, so that no token is scored twice: a run that goes on after a kill repeats steps it has paid for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vold.types import TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.types import ScoreRequest, Teacher


class CachedTeacher:
    """Looks scores up before it asks another teacher.

    One safetensors file a request, named by the hash of what was asked of whom. Files are whole or absent; one that
    cannot be read is asked for again and replaced. Several runs may share a directory.

    Args:
        inner: the teacher to ask.
        directory: where scores are kept.
        identity: what makes the teacher another one: model, precision, temperature.
    """

    def __init__(self, inner: Teacher, directory: Path, identity: str) -> None:
        self.inner, self.directory, self.identity = inner, directory, identity
        self.hits = self.misses = 0

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """Log-probs of every response token, in request order. Raises what the inner teacher raises."""
        files = [self._file(r) for r in requests]
        found = [_load(f, len(r.response_ids)) for f, r in zip(files, requests, strict=True)]
        missing = [i for i, scores in enumerate(found) if scores is None]
        self.hits += len(requests) - len(missing)
        self.misses += len(missing)
        for i, scores in zip(missing, self.inner.score([requests[i] for i in missing]), strict=True):
            _store(files[i], scores)
            found[i] = scores
        return [scores for scores in found if scores is not None]

    def _file(self, request: ScoreRequest) -> Path:
        asked: list[Any] = [
            self.identity,
            request.prompt_ids,
            request.response_ids,
            request.candidate_ids,
            request.top_k,
        ]
        if request.vision:
            pictures = save({k: v.numpy() for k, v in request.vision.items()})
            asked.append(hashlib.sha256(pictures).hexdigest())
        name = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        return self.directory / name[:2] / f"{name}.safetensors"


def _store(file: Path, scores: TokenScores) -> None:
    arrays: dict[str, np.ndarray] = {"logp": np.array(scores.logp, dtype=np.float64)}
    if scores.candidate_logp is not None:
        arrays["candidate_width"] = np.array([len(row) for row in scores.candidate_logp], dtype=np.int64)
        arrays["candidate_logp"] = np.array([v for row in scores.candidate_logp for v in row], dtype=np.float64)
    if scores.top_ids is not None and scores.top_logp is not None:
        arrays["top_width"] = np.array([len(row) for row in scores.top_ids], dtype=np.int64)
        arrays["top_ids"] = np.array([i for row in scores.top_ids for i in row], dtype=np.int64)
        arrays["top_logp"] = np.array([v for row in scores.top_logp for v in row], dtype=np.float64)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not flushed to disk: a file that a power cut empties is unreadable, and then asked for again.
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(save(arrays))
    temporary.replace(file)


def _load(file: Path, tokens: int) -> TokenScores | None:
    """The stored scores; None where there are none, or none that can be used."""
    with contextlib.suppress(OSError, SafetensorError, KeyError, ValueError):
        arrays = load(file.read_bytes())
        if len(arrays["logp"]) != tokens:
            return None
        scores = TokenScores(tuple(arrays["logp"].tolist()))
        if "candidate_logp" not in arrays and "top_ids" not in arrays:
            return scores
        return TokenScores(
            scores.logp,
            _rows(arrays["candidate_logp"], arrays["candidate_width"]) if "candidate_logp" in arrays else None,
            _rows(arrays["top_ids"], arrays["top_width"]) if "top_ids" in arrays else None,
            _rows(arrays["top_logp"], arrays["top_width"]) if "top_ids" in arrays else None,
        )
    return None


def _rows(flat: np.ndarray, widths: np.ndarray) -> tuple[tuple[Any, ...], ...]:
    ends = widths.cumsum().tolist()
    values = flat.tolist()
    return tuple(tuple(values[end - width : end]) for end, width in zip(ends, widths.tolist(), strict=True))
