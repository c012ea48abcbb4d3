"""Answer the questions of a set with a model in this process or behind an endpoint, and store every answer.

An answer that a judge has to mark is stored before it is marked: a judge that fails costs no answer.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from vold.engines.grade import answer_text
from vold.engines.samplers.inprocess import InProcessSampler
from vold.graders import outcome
from vold.run.console import Bar
from vold.run.files import append_jsonl, keep_rows, read_jsonl
from vold.types import Grade, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vold.engines.chat_api import EndpointSampler
    from vold.evals.questions import Question, QuestionSet
    from vold.model.chat import Chat
    from vold.model.policy import Policy
    from vold.run.recipe import Eval
    from vold.types import Finish, Prompt, Sampler


def is_complete(file: Path, questions: QuestionSet, samples: int) -> bool:
    """Whether every answer of a set is stored."""
    return len(read_jsonl(file)) >= len(questions.questions) * samples


def mark(found: QuestionSet, file: Path, *, label: str, threads: int) -> None:
    """Mark the stored answers that are not marked yet, `threads` at a time, and put the file in order.

    Raises:
        SamplerError: the judge fails. Every answer stays, and so does what the judge has said so far.
    """
    rows = read_jsonl(file)
    pending = [i for i, row in enumerate(rows) if "score" not in row]
    if not pending:
        return
    questions = {q.id: q for q in found.questions}
    with ThreadPoolExecutor(threads) as pool, Bar(f"{label}: marking", len(rows), len(rows) - len(pending)) as bar:
        marked = pool.map(lambda i: _marked(questions[rows[i]["id"]], rows[i]), pending)
        try:
            for i, row in zip(pending, marked, strict=True):
                rows[i] = row
                bar.advance(1)
        finally:
            pool.shutdown(cancel_futures=True)
    keep_rows(file, rows)


def answer_in_process(
    policy: Policy,
    found: QuestionSet,
    config: Eval,
    file: Path,
    *,
    label: str,
    in_turns: Callable[[Sampler, Chat], Sampler],
    seed_of: Callable[[int], int],
    images: Callable[[Question], list[str]],
) -> None:
    """Answer in order, append each batch to `file`, continue after the last whole batch found there.

    `seed_of` gives the seed of the batch that starts at an index. A question that leaves no room for an answer in the
    model's context is stored as truncated, with a note.
    """
    rows, n, size = read_jsonl(file), config.samples, config.batch_size
    done = len(rows) // (size * n) * size
    keep_rows(file, rows[: done * n])
    sampler = in_turns(InProcessSampler(policy, size), policy.chat)
    context = int(policy.model.config.get_text_config().max_position_embeddings)
    with Bar(label, len(found.questions), done) as bar, _pixels(policy, found.pixels):
        for start in range(done, len(found.questions), size):
            part = found.questions[start : start + size]
            params = SamplingParams(
                max_new_tokens=config.sampling.max_new_tokens,
                temperature=config.sampling.temperature,
                seed=seed_of(start),
            )
            prompts = [policy.chat.prompt(q.messages) for q in part]
            fit = [i for i, p in enumerate(prompts) if len(p.ids) + params.max_new_tokens <= context]
            answers = dict(zip(fit, sampler.generate([prompts[i] for i in fit], params, n), strict=True))
            new = []
            for i, question in enumerate(part):
                for sample in range(n):
                    if i in answers:
                        completion = answers[i][sample]
                        row = _row(
                            question,
                            sample,
                            policy.chat.text(completion.ids),
                            completion.finish,
                            len(completion.ids),
                            images,
                        )
                        if not all(completion.action_mask):
                            row["answer"] = answer_text(policy.chat, completion)
                        new.append(row)
                    else:
                        new.append(_unasked(question, sample, prompts[i], context, images))
            append_jsonl(file, [_ready(found, part[k // n], row) for k, row in enumerate(new)])
            bar.advance(len(part))


def answer_by_endpoint(
    endpoint: EndpointSampler,
    found: QuestionSet,
    config: Eval,
    file: Path,
    *,
    label: str,
    seed: int,
    images: Callable[[Question], list[str]],
) -> None:
    """Ask for every answer not yet in `file`; each is stored as it comes, and the file is put in order at the end."""
    rows = read_jsonl(file)
    keep_rows(file, rows)
    have = {(r["id"], r["sample"]) for r in rows}
    n = config.samples
    wanted = [(q, s) for q in found.questions for s in range(n) if (q.id, s) not in have]
    params = SamplingParams(config.sampling.max_new_tokens, config.sampling.temperature, seed)
    with Bar(label, len(found.questions) * n, len(rows)) as bar:
        replies = endpoint.answer([q.messages for q, _ in wanted], params, [s for _, s in wanted], pixels=found.pixels)
        for reply in replies:
            question, sample = wanted[reply.index]
            row = _row(question, sample, reply.text, reply.finish, reply.tokens, images)
            if reply.error:
                row["error"] = f"not answered: {reply.error}"
            append_jsonl(file, [_ready(found, question, row)])
            bar.advance(1)
    place = {q.id: i for i, q in enumerate(found.questions)}
    keep_rows(file, sorted(read_jsonl(file), key=lambda r: (place[r["id"]], r["sample"])))


def _row(
    question: Question, sample: int, text: str, finish: Finish, tokens: int, images: Callable[[Question], list[str]]
) -> dict[str, Any]:
    """An answer that is not marked yet."""
    return {
        "id": question.id,
        "sample": sample,
        "prompt": question.messages[-1].text,
        "images": images(question),
        "response": text,
        "finish": finish,
        "tokens": tokens,
    }


def _unasked(
    question: Question, sample: int, prompt: Prompt, context: int, images: Callable[[Question], list[str]]
) -> dict[str, Any]:
    row = _row(question, sample, "", "length", 0, images)
    row["error"] = f"truncated: the prompt has {len(prompt.ids)} tokens, the context {context}; it was not asked"
    return row


def _ready(found: QuestionSet, question: Question, row: dict[str, Any]) -> dict[str, Any]:
    """What to store: the marked answer, or the answer as it is where a judge is to mark it."""
    return row if found.protocol["judge"] is not None else _marked(question, row)


def _marked(question: Question, row: dict[str, Any]) -> dict[str, Any]:
    finish: Finish = row["finish"]
    error = row.get("error")
    # After a tool's answers only the last turn is marked: what a program prints is not the model's word.
    grade = question.grade(row.get("answer", row["response"]), finish) if error is None else Grade(0.0, None, error)
    return {
        "id": row["id"],
        "sample": row["sample"],
        "prompt": row["prompt"],
        "images": row["images"],
        "response": row["response"],
        "extracted": grade.extracted,
        "reference": question.reference,
        "score": grade.score,
        "note": grade.note,
        "outcome": outcome(grade, finish),
        "tokens": row["tokens"],
        "cluster": question.cluster,
        "tags": dict(question.tags),
    }


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
