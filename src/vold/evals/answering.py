"""Answer the questions of a set with a model in this process or behind an endpoint, and store every answer.

An answer that a judge has to mark is stored before it is marked: a judge that fails costs no answer.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from vold.data.files.images import thumbnail
from vold.engines.chat_api import EndpointSampler
from vold.engines.grade import answer_text
from vold.engines.samplers.inprocess import InProcessSampler
from vold.graders import outcome
from vold.graders.outcome import NOT_ANSWERED
from vold.graders.reading import read_right
from vold.run.answers import Answer, Unmarked, refuse_doubled
from vold.run.console import Bar
from vold.run.files import append_jsonl, as_record, bad_row, cut_rows, read_jsonl, write_rows
from vold.types import Grade, SamplingParams, StreamingSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vold.evals.questions import Question, QuestionSet
    from vold.model.chat import Chat
    from vold.model.policy import Policy
    from vold.run.recipe import Endpoint, Eval
    from vold.types import Completion, Finish, Sampler

    Row: TypeAlias = Answer | Unmarked
    ToJudge: TypeAlias = Callable[[QuestionSet, Path, Sequence[Row]], None]
    """Takes stored answers of a list, of which some may wait for a judge."""

BATCHES = 4
"""So many batches of questions are handed to the sampler in this process at once, and stored together: rows that end
make room for the next, so that a long answer holds up others at the end only."""


class _Wanted(NamedTuple):
    """An answer that is asked for: of which set, and the list it goes to."""

    found: QuestionSet
    file: Path
    question: Question
    sample: int


def stored(file: Path, found: QuestionSet, samples: int) -> list[Row]:
    """The answers of a file, those that wait for a judge among them.

    Raises:
        CheckpointError: a row is damaged, answers another question than the set asks, or one that is answered already.
    """
    rows: list[Row] = []
    for n, row in enumerate(read_jsonl(file), 1):
        rows.append(as_record(file, n, row, Answer) if "score" in row else as_record(file, n, row, Unmarked))
    refuse_doubled(rows, file)
    asked = {q.id for q in found.questions}
    for n, answer in enumerate(rows, 1):
        if answer.id not in asked or answer.sample >= samples:
            raise bad_row(file, n, f"item {answer.id!r}, sample {answer.sample}, which the set does not ask")
    return rows


def in_order(file: Path, found: QuestionSet, rows: Sequence[Row]) -> None:
    """Replace a list by these rows, in the order of the questions."""
    place = {q.id: i for i, q in enumerate(found.questions)}
    ordered = sorted(rows, key=lambda r: (place[r.id], r.sample))
    write_rows(file, ordered)


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
    """Answer in order, append so many questions at a time to `file`, continue after the last of them found there.

    `seed_of` gives the seed of those that start at an index. A question that leaves no room for an answer in the
    model's context is stored as truncated, with a note.
    """
    n, size = config.samples, config.batch_size * BATCHES
    done = _answered(file, found, n) // (size * n) * size
    cut_rows(file, done * n)
    sampler = in_turns(InProcessSampler(policy, config.batch_size), policy.chat)
    with Bar(label, len(found.questions), done) as bar, _pixels(policy, found.pixels):
        for start in range(done, len(found.questions), size):
            part = found.questions[start : start + size]
            params = config.sampling.params(seed_of(start))
            answers = _answers(policy, sampler, found, part, params, n, bar.advance)
            append_jsonl(file, [_ready(found, question, row) for question, row in answers])


def answers_now(
    policy: Policy, sampler: Sampler, found: QuestionSet, part: Sequence[Question], params: SamplingParams
) -> list[Answer]:
    """An answer to each question of a part of a set, marked by rule; nothing is stored.

    Raises:
        SamplerError: the sampler failed.
    """
    with _pixels(policy, found.pixels):
        made = _answers(policy, sampler, found, part, params, 1, lambda count: None) if part else []
    return [marked(question, row) for question, row in made]


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
    policy: Policy,
    sampler: Sampler,
    found: QuestionSet,
    part: Sequence[Question],
    params: SamplingParams,
    n: int,
    advance: Callable[[int], None],
) -> list[tuple[Question, Unmarked]]:
    """`n` answers to each question of a part, question after question; `advance` hears when one has all its own."""
    context = policy.context
    prompts = [policy.chat.prompt(q.messages, q.id) for q in part]
    fit = [i for i, p in enumerate(prompts) if len(p.ids) + params.max_new_tokens <= context]
    asked, heard = [prompts[i] for i in fit], 0

    def whole(place: int, completions: list[Completion]) -> None:
        nonlocal heard
        heard += 1
        advance(1)

    if isinstance(sampler, StreamingSampler):
        made = sampler.stream(asked, params, n, whole)
    else:
        made = sampler.generate(asked, params, n)
    advance(len(part) - heard)
    answers = dict(zip(fit, made, strict=True))
    out = []
    for i, question in enumerate(part):
        images = _images(found, question)
        for sample in range(n):
            if i in answers:
                one = answers[i][sample]
                own = None if all(one.action_mask) else answer_text(policy.chat, one)
                text = policy.chat.text(one.ids)
                row = _row(question, sample, images, text, one.finish, len(one.ids), answer=own)
            else:
                length = len(prompts[i].ids)
                error = f"truncated: the prompt has {length} tokens, the context {context}; it was not asked"
                row = _row(question, sample, images, "", "length", 0, error=error)
            out.append((question, row))
    return out


def answer_by_endpoint(
    config: Eval,
    files: Sequence[tuple[QuestionSet, Path]],
    at: AbstractContextManager[Endpoint],
    *,
    label: str,
    seed: int,
    to_judge: ToJudge,
) -> None:
    """Ask the endpoint for every answer that is not yet in the lists of its sets: one queue over all of them, so that
    its servers are full until the last answers. Each is stored as it comes, and lists are put in order at the end. `at`
    gives the endpoint, and is entered if anything is missing."""
    wanted: list[_Wanted] = []
    lists: dict[Path, list[Row]] = {}
    for found, file in files:
        rows = lists[file] = stored(file, found, config.samples)
        cut_rows(file, len(rows))
        to_judge(found, file, rows)
        have = {(r.id, r.sample) for r in rows}
        every = (_Wanted(found, file, q, sample) for q in found.questions for sample in range(config.samples))
        wanted += [one for one in every if (one.question.id, one.sample) not in have]
    done = sum(map(len, lists.values()))
    with at if wanted else contextlib.nullcontext() as endpoint, Bar(label, done + len(wanted), done) as bar:
        for batch in _replies(endpoint, config, wanted, seed) if endpoint is not None else ():
            came: defaultdict[Path, list[Row]] = defaultdict(list)
            for one, row in batch:
                came[one.file].append(_ready(one.found, one.question, row))
            for found, file in files:
                if rows := came[file]:
                    append_jsonl(file, rows)
                    lists[file] += rows
                    to_judge(found, file, rows)
            bar.advance(len(batch))
    for found, file in files:
        in_order(file, found, lists[file])


def _replies(
    endpoint: Endpoint, config: Eval, wanted: Sequence[_Wanted], seed: int
) -> Iterator[list[tuple[_Wanted, Unmarked]]]:
    """The endpoint's answers, those at a time that have come meanwhile."""
    params = config.sampling.params(seed)
    replies = EndpointSampler(endpoint).answer(
        [one.question.messages for one in wanted],
        params,
        [one.sample for one in wanted],
        pixels=[one.found.pixels for one in wanted],
    )
    images: dict[tuple[Path, str], tuple[str, ...]] = {}
    for batch in replies:
        rows = []
        for reply in batch:
            one = wanted[reply.index]
            key = one.file, one.question.id
            if key not in images:
                images[key] = _images(one.found, one.question)
            error = f"{NOT_ANSWERED}: {reply.error}" if reply.error else None
            row = _row(one.question, one.sample, images[key], reply.text, reply.finish, reply.tokens, error=error)
            rows.append((one, row))
        yield rows


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


def _ready(found: QuestionSet, question: Question, row: Unmarked) -> Row:
    """What to store: the marked answer, or the answer as it is where a judge is to mark it."""
    return row if found.protocol["judge"] is not None else marked(question, row)


def marked(question: Question, row: Unmarked) -> Answer:
    """The answer with its mark, by rule or by a judge.

    Raises:
        SamplerError: the judge fails.
    """
    # After a tool's answers only the last turn is marked: what a program prints is not the model's word.
    said = row.response if row.answer is None else row.answer
    grade = question.grade(said, row.finish) if row.error is None else Grade(0.0, None, row.error)
    by_rule = question.by_rule(said, row.finish) if question.by_rule is not None and row.error is None else None
    return Answer(
        id=row.id,
        sample=row.sample,
        prompt=row.prompt,
        images=row.images,
        response=row.response,
        extracted=grade.extracted,
        reference=question.reference,
        score=grade.score,
        scores=grade.scores,
        note=grade.note,
        outcome=outcome(grade, row.finish),
        tokens=row.tokens,
        cluster=question.cluster,
        tags=question.tags,
        by_rule=None if by_rule is None else outcome(by_rule, row.finish),
        as_vlmevalkit=question.as_vlmevalkit and question.as_vlmevalkit(said, grade),
        text=question.text,
        read=read_right(question.shows, row.response),
    )


@contextlib.contextmanager
def _pixels(policy: Policy, limits: tuple[int, int] | None) -> Iterator[None]:
    """Set the limits of a picture's area, in pixels, for the time of an evaluation."""
    if limits is None or not policy.family.rotates_by_grid:  # tiles have one size
        yield
        return
    images: Any = policy.chat.processor.image_processor
    before = images.size
    images.size = {"shortest_edge": limits[0], "longest_edge": limits[1]}
    try:
        yield
    finally:
        images.size = before
