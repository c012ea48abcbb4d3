"""Scores on disk, so that no token is scored twice: a run that goes on after a kill repeats steps it has paid for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vold.engines.teachers.health import check_scores
from vold.errors import TeacherError
from vold.run.rollouts import digest
from vold.types import TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.types import ScoreRequest, Teacher

STORED = ("logp", "candidate_logp", "top_ids", "top_logp")
"""What of an answer is kept."""


class CachedTeacher:
    """Looks scores up before it asks another teacher.

    One safetensors file a request, named by the hash of what was asked of whom. Files are whole or absent; one that
    cannot be read, or holds what no teacher says, is asked for again and replaced. Several runs may share a directory.

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
        found = [_load(f, r) for f, r in zip(files, requests, strict=True)]
        missing = [i for i, scores in enumerate(found) if scores is None]
        self.hits += len(requests) - len(missing)
        self.misses += len(missing)
        for i, scores in zip(missing, self.inner.score([requests[i] for i in missing]), strict=True):
            _store(files[i], scores)
            found[i] = scores
        return [scores for scores in found if scores is not None]

    def _file(self, request: ScoreRequest) -> Path:
        asked = [json.dumps([self.identity, request.prompt_ids, request.top_k]).encode()]
        asked += [save({"response_ids": request.response_ids})]
        if request.candidate_ids is not None:
            asked += [save({"candidate_ids": request.candidate_ids})]
        if request.vision:
            asked += [save({k: v.numpy() for k, v in request.vision.items()})]
        name = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in asked)).hexdigest()
        return self.directory / name[:2] / f"{name}.safetensors"


def _store(file: Path, scores: TokenScores) -> None:
    values = {name: v for name in STORED if (v := getattr(scores, name)) is not None}
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not flushed to disk: a file that a power cut empties is unreadable, and then asked for again.
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(save(values, {"sha256": digest(values, file.name)}))
    temporary.replace(file)


def _load(file: Path, request: ScoreRequest) -> TokenScores | None:
    """The stored scores; None where there are none, or none that can be used."""
    if not file.is_file():
        return None
    # The last is of a type of numbers that NumPy does not have.
    with contextlib.suppress(OSError, SafetensorError, ValueError, TypeError, TeacherError, AttributeError):
        with safe_open(file, framework="numpy") as stored:
            names = stored.keys()
            arrays = {name: stored.get_tensor(name) for name in names}
            expected = (stored.metadata() or {}).get("sha256")
        if expected in (None, digest(arrays, file.name)):
            scores = TokenScores(**arrays)
            check_scores(request, scores, where=str(file))
            return scores
    return None
