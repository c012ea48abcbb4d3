"""What an evaluation asks: problems of a task set or of a benchmark, each with its own way of being marked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from vold.data.benchmarks.registry import get_benchmark, load
from vold.data.sources import open_tasks
from vold.engines.chat_api import EndpointSampler
from vold.engines.grade import grade_text
from vold.errors import DataError
from vold.evals.marking.as_vlmevalkit import as_vlmevalkit
from vold.evals.marking.golds import GOLDS_RULES, handle_golds
from vold.evals.marking.llm_judge import Judge, score_vlmevalkit
from vold.evals.marking.rules import SCORING_VERSION, score
from vold.evals.prompting import build_messages, image_limits, prompt_version
from vold.evals.protocol import Protocol, protocol_hash
from vold.evals.published import differs, left_out
from vold.run.results import BenchmarkInfo, SetInfo
from vold.run.rollouts import text_view

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vold.data.benchmarks.item import Item
    from vold.run.recipe import BenchmarkSection, Eval, TaskSpec
    from vold.types import Finish, Grade, Message, Task


@dataclass(frozen=True)
class Question:
    """One problem: what is asked, and `grade(response, finish)`, which marks an answer to it. Where a judge does,
    `by_rule(response, finish)` is the mark of a rule alone, and `as_vlmevalkit(response, grade)` VLMEvalKit's own
    verdict on an answer that was marked. Of a picture `text` is the same problem for who cannot see, and `shows` what
    is there to be read (`vold.types.Task.shows`)."""

    id: str
    messages: tuple[Message, ...]
    reference: str
    grade: Callable[[str, Finish], Grade]
    cluster: str
    tags: Mapping[str, str] = field(default_factory=dict)
    by_rule: Callable[[str, Finish], Grade] | None = None
    as_vlmevalkit: Callable[[str, Grade], float] | None = None
    text: str | None = None
    shows: str = ""


@dataclass(frozen=True)
class QuestionSet:
    """All problems of a set and everything that decides their scores.

    `protocol` is what two evaluations must share to be comparable, `hash` its digest. `pixels` are the limits of a
    picture's area (None: the image processor's own). `about` goes into the results as it is.
    """

    name: str
    benchmark: str
    questions: tuple[Question, ...]
    protocol: Mapping[str, Any]
    hash: str
    pixels: tuple[int, int] | None
    about: SetInfo
    items: tuple[Item, ...] = ()
    """The benchmark's items as read; none for a task set."""
    said: Callable[[str, str], str | None] | None = None
    """What the judge has replied to a prompt and a system prompt; None where none marks this set."""


def open_judge(config: Eval, directory: Path) -> Judge | None:
    """The judge of a recipe's `eval` section, if it has one; replies are kept below `directory`."""
    if config.judge is None:
        return None
    cache = config.judge.cache
    return Judge(EndpointSampler(config.judge), cache or directory / "judge", shared=cache is not None)


def open_sets(
    config: Eval, sets: Mapping[str, TaskSpec], judge: Judge | None = None, *, tool: str = "none"
) -> list[QuestionSet]:
    """Open every task set and benchmark of a recipe's `eval` section; `sets` are the recipe's task sets, and `judge`
    marks what a protocol leaves to one. `tool` says what the model may call, and within which limits.

    Raises:
        DataError, ConfigError: data that cannot be read, an unknown benchmark, or a set of fewer than two problems.
    """
    opened = [_task_set(name, open_tasks(sets, name), config, tool) for name in config.tasks]
    opened += [_benchmark(name, spec, config, judge, tool) for name, spec in config.benchmarks.items()]
    for found in opened:
        if len({q.cluster for q in found.questions}) < 2:
            raise DataError(
                "one problem has no standard error",
                where=f"eval: {found.name}",
                got=f"{len(found.questions)} that can be asked and marked",
                fix="give two or more that do not share a source",
            )
    return opened


def _task_set(name: str, tasks: Sequence[Task], config: Eval, tool: str) -> QuestionSet:
    digest = hashlib.sha256()
    questions = []
    for task in tasks:
        digest.update(_task_bytes(task))
        questions.append(
            Question(
                task.id, task.messages, task.reference, _task_marker(task), task.id, task.tags,
                text=text_view(task), shows=task.shows,
            )
        )  # fmt: skip
    protocol = Protocol(
        name="tasks",
        benchmark=name,
        split=None,
        prompt_version="as given",
        pixels=None,
        judge=None,
        revision=None,
        content_hash=digest.hexdigest(),
        **_asked(config, tool),
    )
    plain, digested = asdict(protocol), protocol_hash(protocol)
    about = SetInfo(
        benchmark=None,
        title=name,
        split=None,
        n_items=len(tasks),
        bad_rows=(),
        bad_golds=(),
        protocol={**plain, "hash": digested},
    )
    return QuestionSet(name, name, tuple(questions), plain, digested, None, about)


def _asked(config: Eval, tool: str) -> dict[str, Any]:
    """What the protocols of all sets have in common."""
    return {
        "scoring_version": SCORING_VERSION,
        "max_new_tokens": config.sampling.max_new_tokens,
        "temperature": config.sampling.temperature,
        **config.sampling.params().asked,
        "samples": config.samples,
        "tool": tool,
    }


def _task_marker(task: Task) -> Callable[[str, Finish], Grade]:
    return lambda text, finish: grade_text(task, text, finish)


def _task_bytes(task: Task) -> bytes:
    pieces: list[Any] = [task.id, task.reference, task.grader]
    for message in task.messages:
        pieces += [message.role, message.text]
        pieces += [hashlib.sha256(image.tobytes()).hexdigest() for image in message.images]
    return json.dumps(pieces).encode()


def _benchmark(name: str, spec: BenchmarkSection, config: Eval, judge: Judge | None, tool: str) -> QuestionSet:
    benchmark = get_benchmark(spec.name or name)
    loaded = load(benchmark.name, path=spec.path, split=spec.split, revision=spec.revision, limit=spec.limit)
    items, bad_golds = handle_golds(loaded.items, spec.protocol)
    pixels = image_limits(benchmark.name, spec.protocol)
    protocol = Protocol(
        name=spec.protocol,
        benchmark=benchmark.name,
        split=loaded.split,
        prompt_version=prompt_version(benchmark.name, spec.protocol),
        pixels=pixels,
        judge=judge.identity if judge is not None and spec.protocol == "vlmevalkit" else None,
        revision=loaded.revision,
        content_hash=loaded.content_hash,
        golds=GOLDS_RULES[spec.protocol],
        **_asked(config, tool),
    )
    plain, digest = asdict(protocol), protocol_hash(protocol)
    official_n = benchmark.size[loaded.split]
    missing = left_out(official_n, loaded, spec.limit, len(bad_golds))
    about = BenchmarkInfo(
        benchmark=benchmark.name,
        title=benchmark.title,
        split=loaded.split,
        source=loaded.source,
        limit=spec.limit,
        official_n=official_n,
        n_items=len(items),
        left_out=missing,
        bad_rows=tuple(loaded.bad),
        bad_golds=tuple(bad_golds),
        protocol={**plain, "hash": digest},
        differs=differs(plain, len(items), missing),
    )
    questions = tuple(
        Question(
            i.id,
            build_messages(i, spec.protocol),
            i.answer,
            _marker(i, spec, judge),
            i.cluster,
            i.tags,
            *((None, None) if judge is None or spec.protocol == "rule" else (_by_rule(i), _peer_verdict(i, judge))),
        )
        for i in items
    )
    said = judge.said if judge is not None and spec.protocol == "vlmevalkit" else None
    return QuestionSet(name, benchmark.name, questions, plain, digest, pixels, about, tuple(items), said)


def _marker(item: Item, spec: BenchmarkSection, judge: Judge | None) -> Callable[[str, Finish], Grade]:
    if spec.protocol == "rule":
        return _by_rule(item)
    assert judge is not None  # the recipe was refused otherwise
    return lambda text, finish: score_vlmevalkit(item, text, judge, finish=finish)


def _by_rule(item: Item) -> Callable[[str, Finish], Grade]:
    return lambda text, finish: score(item, text, finish=finish)


def _peer_verdict(item: Item, judge: Judge) -> Callable[[str, Grade], float]:
    return lambda text, grade: as_vlmevalkit(item, text, grade, judge.said)
