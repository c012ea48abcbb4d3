"""A teacher with another tokenizer: its opinion of the student's tokens, as far as the two cut the text alike.

The student's response is spelled out as bytes and cut anew by the teacher's tokenizer. A student token whose bytes are
those of one teacher token, or of several in a row, has a log-prob under the teacher: theirs, added up. One that ends
inside a teacher token has none. It is NaN here, and a NaN takes no part in any loss. No log-prob is shared out between
tokens: how much of a teacher token's surprise belongs to which part of it is not known. A character that the teacher's
tokenizer would write otherwise (an accent that NFC joins with its letter) is spelled to it byte by byte, so that it
reads the very text, and has no log-prob either.

This is the chance of one way to spell the text, as it is for the student's own tokens; other ways are not added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from vold.engines.teachers.token_bytes import Spelling, Unsaid, shared_spans
from vold.errors import ConfigError, VocabularyMismatch
from vold.types import ScoreRequest, TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from vold.types import Flags, Ids, Teacher

NAN = float("nan")


@dataclass(frozen=True)
class Aligned:
    """A response in the teacher's ids, and for every student token the run of teacher tokens that spells it."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int] | None, ...]

    @cached_property
    def places(self) -> tuple[Flags, NDArray[np.int64], NDArray[np.int64]]:
        """[response] which of the student's tokens have a span, and where those begin and end."""
        spans = np.array([span for span in self.spans if span is not None], np.int64).reshape(-1, 2)
        return np.array([span is not None for span in self.spans], bool), spans[:, 0], spans[:, 1]


class Aligner:
    """Rewrites responses from the student's ids into the teacher's.

    The end of a response is the end token of each. Any other special token is the teacher's special token of the same
    name; where it has none, the teacher reads its name as plain text, and the student's token is left without a score.
    Where the student writes in pieces what is one token of the teacher's, `<think>` say, the teacher reads that token,
    and the pieces are left without a score. Tokens that never show in text (`special` in the tokenizer's file) are not
    made of pieces.

    Args:
        student: the student's tokenizer.
        teacher: the teacher's tokenizer.
        where: what to name in errors.

    Raises:
        VocabularyMismatch: one of the tokenizers does not spell bytes, or names no end token.
    """

    def __init__(self, student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, *, where: str) -> None:
        if student.eos_token_id is None or teacher.eos_token_id is None:
            raise VocabularyMismatch("a tokenizer names no end token", where=where, fix="set eos_token in both")
        self.ours, self.theirs = Spelling(student, where="student"), Spelling(teacher, where=where)
        named = {text: i for i, text in self.theirs.special.items()}
        self.special = {i: named.get(text) for i, text in self.ours.special.items()}
        self.special[int(student.eos_token_id)] = int(teacher.eos_token_id)
        visible = {i for i, t in teacher.added_tokens_decoder.items() if not t.special}
        self.names = {t.encode(): i for t, i in named.items() if i in visible and t not in self.ours.special.values()}
        self._single: dict[int, int | None] = {}

    def align(self, ids: Sequence[int]) -> Aligned:
        """A response in the teacher's ids, up to a byte that its tokenizer has no token for."""
        made: list[int] = []
        spans: list[tuple[int, int] | None] = []
        # Runs of ordinary tokens, and between them special tokens, each alone.
        for special, group in groupby(ids, key=lambda i: i if i in self.special else None):
            run = list(group)
            other = None if special is None else self.special[special]
            if other is not None:
                spans += [(len(made) + k, len(made) + k + 1) for k in range(len(run))]
                made += [other] * len(run)
                continue
            pieces = [
                self.ours.special[i].encode() if special is not None else self.ours.bytes_of(i) or b"" for i in run
            ]
            found = self.theirs.cut(b"".join(pieces), self.names if special is None else None)
            if found is None:
                break
            shared = shared_spans(pieces, [b for _, b in found]) if special is None else [None] * len(run)
            spans += [None if s is None else (len(made) + s[0], len(made) + s[1]) for s in shared]
            made += [i for i, _ in found]
        return Aligned(tuple(made), (*spans, *[None] * (len(ids) - len(spans))))

    def single(self, token_id: int) -> int | None:
        """The teacher's one token that spells the same bytes, None if there is none."""
        if token_id not in self._single:
            found = self.special.get(token_id)
            raw = None if token_id in self.special else self.ours.bytes_of(token_id)
            cut = self.theirs.cut(raw) if raw else None
            if cut is not None and len(cut) == 1 and not isinstance(cut[0][1], Unsaid):
                found = cut[0][0]
            self._single[token_id] = found
        return self._single[token_id]


class AlignedTeacher:
    """Scores the student's tokens with a teacher that cuts text otherwise.

    Scores of tokens that do not align are NaN. A candidate that is not one token of the teacher's has minus infinity,
    which leaves it out of every comparison, as one that only the student can emit.

    Args:
        teacher: scores the teacher's own ids.
        aligner: rewrites responses.
    """

    def __init__(self, teacher: Teacher, aligner: Aligner) -> None:
        self.teacher, self.aligner = teacher, aligner

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """Log-probs of every response token, in request order.

        Raises:
            ConfigError: the teacher's own likeliest tokens are asked for; they need not be tokens of the student's.
            TeacherError: the teacher failed.
        """
        if any(r.top_k for r in requests):
            raise ConfigError(
                "the likeliest tokens of a teacher with another tokenizer need not be tokens of the student's",
                where="teacher.tokenizer: align",
                fix="use a term over sampled tokens or over the student's candidates, or a teacher that shares ids",
            )
        aligned = [self.aligner.align(r.response_ids.tolist()) for r in requests]
        theirs = [self._singles(r, a) for r, a in zip(requests, aligned, strict=True)]
        asked = [
            replace(r, response_ids=a.ids, candidate_ids=_candidates(a, t))
            for r, a, t in zip(requests, aligned, theirs, strict=True)
        ]
        scores = self.teacher.score(asked)
        return [_back(r, a, t, s) for r, a, t, s in zip(requests, aligned, theirs, scores, strict=True)]

    def _singles(self, request: ScoreRequest, aligned: Aligned) -> Ids | None:
        """The teacher's one token for each candidate of the aligned places, -1 where there is none."""
        if request.candidate_ids is None:
            return None
        ids = request.candidate_ids[aligned.places[0]]
        known, place = np.unique(ids, return_inverse=True)
        found = [self.aligner.single(i) for i in known.tolist()]
        return np.array([-1 if one is None else one for one in found], np.int32)[place].reshape(ids.shape)


def _candidates(aligned: Aligned, theirs: Ids | None) -> Ids | None:
    """The student's candidates as teacher tokens, at the places where a student token begins."""
    if theirs is None:
        return None
    ids = np.array(aligned.ids, np.int32)
    out = np.repeat(ids[:, None], theirs.shape[-1], axis=1)
    _, first, _ = aligned.places
    out[first] = np.where(theirs < 0, out[first], theirs)
    return out


def _back(request: ScoreRequest, aligned: Aligned, theirs: Ids | None, scores: TokenScores) -> TokenScores:
    """Scores of the teacher's tokens as those of the student's."""
    scored, first, last = aligned.places
    logp = np.full(len(request.response_ids), NAN)
    values = np.append(scores.logp, 0.0)  # the end of the last span must be a place too
    logp[scored] = np.add.reduceat(values, np.stack([first, last], 1).ravel())[::2]
    candidates = None
    if theirs is not None and scores.candidate_logp is not None:
        candidates = np.full((len(logp), theirs.shape[-1]), NAN)
        candidates[scored] = np.where(theirs < 0, -np.inf, scores.candidate_logp[first])
    return TokenScores(logp, candidates, aligned=scored)


def aligned_share(scores: Sequence[TokenScores]) -> float:
    """The share of tokens that a teacher has scored, of those it was asked about; 1 where none was asked about.

    Example:
        >>> aligned_share([TokenScores((-1.0, NAN, -2.0), aligned=(True, False, True)), TokenScores((-0.5,))])
        0.75
    """
    tokens = sum(len(s.logp) for s in scores)
    return 1 - sum(int((~s.aligned).sum()) for s in scores if s.aligned is not None) / max(1, tokens)
