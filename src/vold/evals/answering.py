"""Answer the questions of a set with a model in this process or behind an endpoint, and store every answer.

An answer that a judge has to mark is stored before it is marked: a judge that fails costs no answer.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from vold.engines.grade import answer_text
from vold.engines.http import as_they_come
from vold.engines.samplers.inprocess import InProcessSampler
from vold.evals.questions import thumbnail
from vold.graders import outcome
from vold.graders.outcome import NOT_ANSWERED
from vold.run.answers import Answer, Unmarked, refuse_doubled
from vold.run.console import Bar
from vold.run.files import append_jsonl, as_record, bad_row, cut_rows, read_jsonl, write_rows
from vold.types import Grade, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vold.engines.chat_api import EndpointSampler
    from vold.engines.deadline import Stop
    from vold.evals.questions import Question, QuestionSet
    from vold.model.chat import Chat
    from vold.model.policy import Policy
    from vold.run.recipe import Eval
    from vold.types import Finish, Sampler


def is_complete(file: Path, found: QuestionSet, samples: int) -> bool:
    """Whether every answer of a set is stored; if so, the file is in order.

    Raises:
        CheckpointError: as `stored`.
    """
    rows = stored(file, found, samples)
    if len(rows) < len(found.questions) * samples:
        return False
    _in_order(file, found, rows)
    return True


def stored(file: Path, found: QuestionSet, samples: int) -> list[Answer | Unmarked]:
    """The answers of a file, those that wait for a judge among them.

    Raises:
        CheckpointError: a row is damaged, answers another question than the set asks, or one that is answered already.
    """
    rows: list[Answer | Unmarked] = []
    for n, row in enumerate(read_jsonl(file), 1):
        rows.append(as_record(file, n, row, Answer) if "score" in row else as_record(file, n, row, Unmarked))
    refuse_doubled(rows, file)
    asked = {q.id for q in found.questions}
    for n, answer in enumerate(rows, 1):
        if answer.id not in asked or answer.sample >= samples:
            raise bad_row(file, n, f"item {answer.id!r}, sample {answer.sample}, which the set does not ask")
    return rows


def _in_order(file: Path, found: QuestionSet, rows: Sequence[Answer | Unmarked]) -> None:
    place = {q.id: i for i, q in enumerate(found.questions)}
    ordered = sorted(rows, key=lambda r: (place[r.id], r.sample))
    write_rows(file, ordered)


def mark(found: QuestionSet, file: Path, samples: int, *, label: str, threads: int) -> None:
    """Mark the stored answers that are not marked yet, `threads` at a time.

    Raises:
        SamplerError: the judge fails. Every answer stays, and so does what the judge has said so far.
    """
    rows = stored(file, found, samples)
    pending = [(i, row) for i, row in enumerate(rows) if isinstance(row, Unmarked)]
    if not pending:
        return
    questions = {q.id: q for q in found.questions}
    calls = [partial(_marked_by_judge, questions[row.id], row) for _, row in pending]
    bar = Bar(f"{label}: marking", len(rows), len(rows) - len(pending))
    with bar, contextlib.closing(as_they_come(calls, threads)) as marked:
        for place, row in marked:
            rows[pending[place][0]] = row
            bar.advance(1)
    write_rows(file, rows)


def _marked_by_judge(question: Question, row: Unmarked, stop: Stop) -> Answer:
    return _marked(question, row)


def answer_in_process(
    policy: Policy,
    found: QuestionSet,
    config: Eval,
    file: Path,
    *,
    label: str,
    in_turns: Callable[[Sampler, Chat], Sampler],
    seed_of: Callable[[int], int],
) -> None:
    """Answer in order, append each batch to `file`, continue after the last whole batch found there.

    `seed_of` gives the seed of the batch that starts at an index. A question that leaves no room for an answer in the
    model's context is stored as truncated, with a note.
    """
    n, size = config.samples, config.batch_size
    done = _answered(file, found, n) // (size * n) * size
    cut_rows(file, done * n)
    sampler = in_turns(InProcessSampler(policy, size), policy.chat)
    with Bar(label, len(found.questions), done) as bar, _pixels(policy, found.pixels):
        for start in range(done, len(found.questions), size):
            part = found.questions[start : start + size]
            params = SamplingParams(config.sampling.max_new_tokens, config.sampling.temperature, seed_of(start))
            answers = _answers(policy, sampler, found, part, params, n)
            append_jsonl(file, [_ready(found, question, row) for question, row in answers])
            bar.advance(len(part))


def _answered(file: Path, found: QuestionSet, samples: int) -> int:
    """How many answers are stored, all in the order in which they are made.

    Raises:
        CheckpointError: a row is not the answer whose turn it is.
    """
    rows = stored(file, found, samples)
    for n, row in enumerate(rows):
        expected = found.questions[n // samples].id, n % samples
        if (row.id, row.sample) != expected:
            got = f"item {row.id!r}, sample {row.sample} where item {expected[0]!r}, sample {expected[1]} stands"
            raise bad_row(file, n + 1, got)
    return len(rows)


def _answers(
    policy: Policy, sampler: Sampler, found: QuestionSet, part: Sequence[Question], params: SamplingParams, n: int
) -> list[tuple[Question, Unmarked]]:
    """`n` answers to each question of a batch, question after question."""
    context = policy.context
    prompts = [policy.chat.prompt(q.messages) for q in part]
    fit = [i for i, p in enumerate(prompts) if len(p.ids) + params.max_new_tokens <= context]
    answers = dict(zip(fit, sampler.generate([prompts[i] for i in fit], params, n), strict=True))
    out = []
    for i, question in enumerate(part):
        images = _images(found, question)
        for sample in range(n):
            if i in answers:
                made = answers[i][sample]
                own = None if all(made.action_mask) else answer_text(policy.chat, made)
                text = policy.chat.text(made.ids)
                row = _row(question, sample, images, text, made.finish, len(made.ids), answer=own)
            else:
                length = len(prompts[i].ids)
                error = f"truncated: the prompt has {length} tokens, the context {context}; it was not asked"
                row = _row(question, sample, images, "", "length", 0, error=error)
            out.append((question, row))
    return out


def answer_by_endpoint(
    endpoint: EndpointSampler, found: QuestionSet, config: Eval, file: Path, *, label: str, seed: int
) -> None:
    """Ask for every answer not yet in `file`; each is stored as it comes, and the file is put in order at the end."""
    rows = stored(file, found, config.samples)
    cut_rows(file, len(rows))
    have = {(r.id, r.sample) for r in rows}
    n = config.samples
    wanted = [(q, s) for q in found.questions for s in range(n) if (q.id, s) not in have]
    params = SamplingParams(config.sampling.max_new_tokens, config.sampling.temperature, seed)
    with Bar(label, len(found.questions) * n, len(rows)) as bar:
        replies = endpoint.answer([q.messages for q, _ in wanted], params, [s for _, s in wanted], pixels=found.pixels)
        for reply in replies:
            question, sample = wanted[reply.index]
            error = f"{NOT_ANSWERED}: {reply.error}" if reply.error else None
            images = _images(found, question)
            row = _row(question, sample, images, reply.text, reply.finish, reply.tokens, error=error)
            append_jsonl(file, [_ready(found, question, row)])
            bar.advance(1)
    _in_order(file, found, stored(file, found, n))


def _images(found: QuestionSet, question: Question) -> tuple[str, ...]:
    """Pictures to store with an answer: those of a task set; a benchmark's are read again when the page is made."""
    return () if found.items else tuple(thumbnail(i) for m in question.messages for i in m.images)


def _row(
    question: Question,
    sample: int,
    images: tuple[str, ...],
    response: str,
    finish: Finish,
    tokens: int,
    **told: str | None,
) -> Unmarked:
    """An answer as it came; `told` are its `error` and `answer`."""
    prompt = question.messages[-1].text
    return Unmarked(
        id=question.id, sample=sample, prompt=prompt, images=images,
        response=response, finish=finish, tokens=tokens, **told,
    )  # fmt: skip


def _ready(found: QuestionSet, question: Question, row: Unmarked) -> Answer | Unmarked:
    """What to store: the marked answer, or the answer as it is where a judge is to mark it."""
    return row if found.protocol["judge"] is not None else _marked(question, row)


def _marked(question: Question, row: Unmarked) -> Answer:
    # After a tool's answers only the last turn is marked: what a program prints is not the model's word.
    said = row.response if row.answer is None else row.answer
    grade = question.grade(said, row.finish) if row.error is None else Grade(0.0, None, row.error)
    return Answer(
        id=row.id,
        sample=row.sample,
        prompt=row.prompt,
        images=row.images,
        response=row.response,
        extracted=grade.extracted,
        reference=question.reference,
        score=grade.score,
        note=grade.note,
        outcome=outcome(grade, row.finish),
        tokens=row.tokens,
        cluster=question.cluster,
        tags=question.tags,
        as_vlmevalkit=question.as_vlmevalkit and question.as_vlmevalkit(said, grade),
    )


@contextlib.contextmanager
def _pixels(policy: Policy, limits: tuple[int, int] | None) -> Iterator[None]:
    """Set the limits of a picture's area, in pixels, for the time of an evaluation."""
    if limits is None or policy.chat.family.pictures != "grid":  # tiles have one size
        yield
        return
    images: Any = policy.chat.processor.image_processor
    before = images.size
    images.size = {"shortest_edge": limits[0], "longest_edge": limits[1]}
    try:
        yield
    finally:
        images.size = before
