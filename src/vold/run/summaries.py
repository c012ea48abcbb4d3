"""What stages other than the evaluation leave behind as a few numbers: a JSON file each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """Of a file or a published set, in data.json of a stage that reads it. `source` is a path or a hub id, `revision`
    the hub's commit, `content_hash` a digest of the rows that are used. Of a published set also how many rows were
    read, and how many were `dropped` for what reason."""

    kind: str
    source: str
    revision: str | None
    content_hash: str
    rows_kept: int
    rows_read: int | None = None
    dropped: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class TracesSummary:
    """traces/summary.json. `correct` counts answers with a score of 1, `truncated` those that did not end by
    themselves; `kept` passed the filters of the recipe and have `tokens_kept` tokens. `seconds` are of the last
    call."""

    answers: int
    correct: int
    truncated: int
    kept: int
    tokens_kept: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class BalanceSummary:
    """balance/summary.json. `before` and `after` count rows by the number of rollouts that solved them, from 0 to
    `rollouts`; `left_out` counts problems; `truncated` is a share of the rollouts. `seconds` are of the last call."""

    problems: int
    rollouts: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    left_out: int
    truncated: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """align/align.json: the student against its teacher, on the student's own tokens.

    * `kl`: mean over tokens of log pi_student - log pi_teacher, the single-sample estimate of KL(student || teacher) in
      nats per token; `kl_failed` the same over failed rollouts, None where none failed.
    * `top1_agreement`: share of tokens at which the teacher's most likely token is the student's.
    * `teacher_mass`: mean probability the teacher gives to the student's tokens.
    * `student_entropy`, `teacher_entropy`: mean entropy in nats; a server does not tell its own.
    * `aligned_share`: share of tokens that the teacher could score; below 1 only where it cuts text otherwise
      (`teacher.tokenizer: align`). `kl` and `teacher_mass` are means over these; there is neither a top-1 agreement nor
      a teacher's entropy then.
    * `pass_rate`: share of rollouts that score 1; `failed_groups`: share of prompts none of whose rollouts does, from
      which a method without a teacher learns nothing; `truncated`: share that did not end by themselves. `verdict`
      and `words` say what follows; `untrained` is "student" or "teacher" where one of them is no language model.
    """

    student: str
    teacher: str
    tokens: int
    aligned_share: float
    kl: float
    kl_failed: float | None
    top1_agreement: float | None
    teacher_mass: float
    student_entropy: float
    teacher_entropy: float | None
    pass_rate: float
    failed_groups: float | None = None
    truncated: float | None = None
    verdict: str
    words: str
    untrained: str | None = None


@dataclass(frozen=True, kw_only=True)
class QuantizeError:
    """Of a quantised teacher in distill/quantize-error.json, by its route: |log-prob with its weights in `precision` -
    log-prob with those they were made from| in nats, over `tokens` tokens of responses of the run."""

    teacher: str
    precision: str
    tokens: int
    mean: float
    p99: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """align/self-check.json: the student against itself in the teacher's place. `kl` is the k3 estimate of
    KL(student || teacher) in nats per token and at most `limit`, `kl_k1` the k1 estimate; `mean` and `largest` are of
    |log ratio| in nats."""

    student: str
    tokens: int
    kl: float
    kl_k1: float
    mean: float
    largest: float
    limit: float
