"""Answer the questions of a set with a model in this process or behind an endpoint, and store every answer."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vold.graders import outcome
from vold.progress import Bar
from vold.rundir import append_jsonl, keep_rows, read_jsonl
from vold.samplers.inprocess import InProcessSampler
from vold.types import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vold.config import Eval
    from vold.evals.endpoint import EndpointSampler
    from vold.evals.questions import Question, QuestionSet
    from vold.policy import Policy
    from vold.types import Finish, Prompt


def is_complete(file: Path, questions: QuestionSet, samples: int) -> bool:
    """Whether every answer of a set is stored."""
    return len(read_jsonl(file)) >= len(questions.questions) * samples


def answer_in_process(
    policy: Policy,
    found: QuestionSet,
    config: Eval,
    file: Path,
    *,
    label: str,
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
    sampler = InProcessSampler(policy, size)
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
                        text = policy.chat.text(completion.ids)
                        new.append(_row(question, sample, text, completion.finish, len(completion.ids), images))
                    else:
                        new.append(_unasked(question, sample, prompts[i], context, images))
            append_jsonl(file, new)
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
        for reply in endpoint.answer([q.messages for q, _ in wanted], params, [s for _, s in wanted]):
            question, sample = wanted[reply.index]
            row = _row(question, sample, reply.text, reply.finish, reply.tokens, images)
            if reply.error:
                row["note"], row["outcome"] = f"not answered: {reply.error}", "unparsed"
            append_jsonl(file, [row])
            bar.advance(1)
    place = {q.id: i for i, q in enumerate(found.questions)}
    keep_rows(file, sorted(read_jsonl(file), key=lambda r: (place[r["id"]], r["sample"])))


def _row(
    question: Question, sample: int, text: str, finish: Finish, tokens: int, images: Callable[[Question], list[str]]
) -> dict[str, Any]:
    grade = question.grade(text, finish)
    return {
        "id": question.id,
        "sample": sample,
        "prompt": question.messages[-1].text,
        "images": images(question),
        "response": text,
        "extracted": grade.extracted,
        "reference": question.reference,
        "score": grade.score,
        "note": grade.note,
        "outcome": outcome(grade, finish),
        "tokens": tokens,
        "cluster": question.cluster,
        "tags": dict(question.tags),
    }


def _unasked(
    question: Question, sample: int, prompt: Prompt, context: int, images: Callable[[Question], list[str]]
) -> dict[str, Any]:
    row = _row(question, sample, "", "length", 0, images)
    row["note"] = f"truncated: the prompt has {len(prompt.ids)} tokens, the context {context}; it was not asked"
    return row


@contextlib.contextmanager
def _pixels(policy: Policy, limits: tuple[int, int] | None) -> Iterator[None]:
    """Set the limits of a picture's area, in pixels, for the time of an evaluation."""
    if limits is None or policy.chat.processor is None:
        yield
        return
    images: Any = policy.chat.processor.image_processor
    before = images.size
    images.size = {"shortest_edge": limits[0], "longest_edge": limits[1]}
    try:
        yield
    finally:
        images.size = before
