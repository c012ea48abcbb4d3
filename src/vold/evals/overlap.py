"""Before stage 2: do student and teacher overlap enough for the teacher's opinion to mean anything?

The student answers text prompts; the teacher reads the answers. A student that never writes what the teacher writes
gets a teacher term that only pushes it away from everything it does, which is how distillation without a cold start,
or after a cold start on another teacher's traces, fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vold.data.sources import open_tasks
from vold.engines.grade import grade
from vold.engines.launch.serving import serving
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.teachers.ask import request_of
from vold.engines.teachers.inprocess import InProcessBackend
from vold.engines.teachers.student import StudentBackend
from vold.engines.teachers.teachers import Teachers, open_teachers
from vold.errors import ConfigError, DataError
from vold.model.batching import collate
from vold.model.loading import load_student, stage_models
from vold.model.memory import ALIGN_TOKENS, align_rows
from vold.run.console import Bar
from vold.run.directory import open_stage, works_in_run
from vold.run.files import write_json
from vold.run.order import seed_of
from vold.run.readiness import READY
from vold.run.summaries import Overlap
from vold.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vold.model.policy import Policy
    from vold.run.recipe import Align, Recipe, Sampling
    from vold.types import Ids

NAMES = ("logp", "entropy", "argmax")
UNKNOWN = -1
"""Stands for the likeliest token of a teacher that has other tokens than the student."""
UNIFORM = 0.95
"""Share of the highest entropy from which on a model is taken to know nothing: those with weights at random have 0.999,
a trained one of 100 tokens 0.3."""
READY_KL, READY_TOP1 = 1.0, 0.8
LOST_KL, LOST_TOP1 = 3.0, 0.5
MOST_TRUNCATED = 0.5
"""Thresholds of the verdict, in nats per token, shares of tokens and of rollouts. Rules of thumb set on the demo world:
`make demo` prints the figures before and after its cold start."""


@works_in_run("align")
def align(recipe: Recipe) -> Overlap:
    """Compare the student (its latest stage before distillation) with the teacher; returns and stores the figures.

    Raises:
        ConfigError, DataError, VocabularyMismatch, CheckpointError, TeacherError: see `vold.errors`.
    """
    recipe = recipe.with_align()
    config = recipe.align
    if config is None:
        raise no_align()
    directory = open_stage(recipe, "align")
    with serving(recipe, "align") as served:
        found = _compared(served, config, directory)
    write_json(directory / f"{'after' if 'sft' in stage_models(recipe) else 'before'}-sft.json", found)
    write_json(directory / "align.json", found)
    return found


def _compared(recipe: Recipe, config: Align, directory: Path) -> Overlap:
    """Student and teacher on the student's rollouts."""
    path = stage_models(recipe).get("sft", recipe.learner.path)
    student = load_student(recipe, path)
    teachers = open_teachers(recipe, student)
    pairs = [
        (t, prompt)
        for t in open_tasks(recipe.tasks, config.tasks)[: config.limit]
        if (prompt := teachers.prompt(t)) is not None
    ]
    tasks, teacher_prompts = [t for t, _ in pairs], [prompt for _, prompt in pairs]
    prompts = [student.chat.prompt(t.messages) for t in tasks]
    params = config.sampling.params(seed_of(recipe.run.seed, "align"))
    with Bar("align", 2) as bar:
        completions = InProcessSampler(student, align_rows(recipe)).generate(prompts, params, config.rollouts)
        bar.advance()
        passed = [grade(t, student.chat, c).score == 1.0 for t, cs in zip(tasks, completions, strict=True) for c in cs]
        responses = [c.ids for cs in completions for c in cs]
        repeat = [i for i in range(len(tasks)) for _ in range(config.rollouts)]
        ours = token_values(student, [prompts[i] for i in repeat], responses, config.sampling.temperature)
        theirs = _opinions(teachers, [teacher_prompts[i] for i in repeat], responses, config.sampling, directory)
        bar.advance()
    failed = torch.cat([torch.full((len(r),), not ok) for r, ok in zip(responses, passed, strict=True)])
    cut = [c.finish != "stop" for cs in completions for c in cs]
    teacher = recipe.teacher.path if recipe.teacher else ""
    most = math.log(student.rows - len(student.banned))
    groups = [passed[i : i + config.rollouts] for i in range(0, len(passed), config.rollouts)]
    failed_groups = sum(not any(group) for group in groups) / len(groups)
    habits = Habits(sum(passed) / len(passed), sum(cut) / len(cut), most, failed_groups)
    return _overlap(path, teacher, ours, theirs, failed, habits)


def no_align() -> ConfigError:
    """For a recipe with nothing to compare on."""
    fix = "add `align: {tasks: NAME, sampling: {max_new_tokens: ...}}`, or a `distill` section to take them from"
    return ConfigError("this recipe has no `align` section", where="align", fix=fix)


@dataclass(frozen=True)
class Habits:
    """How a student's rollouts end, beside what it shares with its teacher: shares that pass and that are cut, the
    entropy (nats) of a token where all are as likely, and the share of prompts of which no rollout passes."""

    pass_rate: float
    truncated: float
    most_entropy: float
    failed_groups: float | None = None


def _overlap(
    student: str,
    teacher: str,
    ours: Mapping[str, torch.Tensor],
    theirs: Mapping[str, torch.Tensor],
    failed: torch.Tensor,
    habits: Habits,
) -> Overlap:
    """The figures of all tokens; `failed` says which are of rollouts that failed."""
    known = ~theirs["logp"].isnan()
    if not bool(known.any()):
        raise DataError("none of the student's tokens aligns with a token of the teacher's", where="align")
    failed = failed & known
    gap = ours["logp"] - theirs["logp"]
    kl = _mean(gap[known])
    same = None if bool((theirs["argmax"] == UNKNOWN).any()) else _mean(ours["argmax"] == theirs["argmax"])
    entropies = {"student": _mean(ours["entropy"])}
    if not bool(theirs["entropy"].isnan().any()):
        entropies["teacher"] = _mean(theirs["entropy"])
    heading, words = verdict(kl, same)
    if (untrained := no_model(habits, entropies)) is not None:
        even = f"entropy {entropies[untrained]:.2f} nats, and {habits.most_entropy:.2f} where every token is as likely"
        heading = "not aligned"
        words = f"The {untrained} is no language model ({even}): are these its trained weights? If not, mend its path."
    elif heading == READY and (doubt := unfinished(habits)):
        heading, words = "doubtful", f"{words} But {doubt}"
    return Overlap(
        student=student,
        teacher=teacher,
        tokens=len(gap),
        aligned_share=_mean(known),
        kl=kl,
        kl_failed=_mean(gap[failed]) if bool(failed.any()) else None,
        top1_agreement=same,
        teacher_mass=_mean(theirs["logp"][known].exp()),
        student_entropy=entropies["student"],
        teacher_entropy=entropies.get("teacher"),
        pass_rate=habits.pass_rate,
        failed_groups=habits.failed_groups,
        truncated=habits.truncated,
        verdict=heading,
        words=words,
        untrained=untrained,
    )


def no_model(habits: Habits, entropies: Mapping[str, float]) -> str | None:
    """Which of the two is no language model, whatever it shares with the other: two without knowledge agree well.

    Example:
        >>> no_model(Habits(0.0, 1.0, 11.9), {"student": 11.9, "teacher": 1.2})
        'student'
    """
    return next((who for who, entropy in entropies.items() if entropy >= UNIFORM * habits.most_entropy), None)


def unfinished(habits: Habits) -> str:
    """What speaks against stage 2 although student and teacher write alike; empty where nothing does.

    Example:
        >>> unfinished(Habits(0.4, 0.1, 4.6)), unfinished(Habits(0.0, 0.9, 4.6))[:13]
        ('', '90% of the re')
    """
    if habits.truncated > MOST_TRUNCATED:
        return (
            f"{habits.truncated:.0%} of the responses are cut: raise max_new_tokens, or fine-tune until the student "
            "ends what it writes."
        )
    if habits.pass_rate == 0:
        return "no response is right: there is no outcome to learn from. Take easier problems, or fine-tune for longer."
    return ""


def verdict(kl: float, top1: float | None) -> tuple[str, str]:
    """A heading and a sentence for a KL (nats per token) and a top-1 agreement (share of tokens; None if unknown).

    Example:
        >>> verdict(0.1, 0.95)[0], verdict(9.0, 0.1)[0]
        ('ready', 'not aligned')
    """
    figures = f"KL {kl:.2f} nats per token"
    if top1 is None:
        top1 = 1.0  # the KL alone decides
    else:
        figures += f", the same likeliest token at {top1:.0%} of the student's tokens"
    if kl <= READY_KL and top1 >= READY_TOP1:
        return READY, f"Student and teacher write alike ({figures}): distillation has something to correct."
    if kl >= LOST_KL or top1 <= LOST_TOP1:
        return "not aligned", (
            f"Student and teacher write differently ({figures}): the teacher term would push the student away from "
            "all it does. Fine-tune on this teacher's own traces first (`vold traces`, `vold sft`), or for longer."
        )
    return "doubtful", f"Student and teacher overlap in part ({figures}): more cold-start steps are likely to pay."


def _mean(values: torch.Tensor) -> float:
    return float(values.double().clamp(min=-1e3, max=1e3).mean())


def _opinions(
    teachers: Teachers,
    teacher_prompts: Sequence[Prompt],
    responses: Sequence[Ids],
    sampling: Sampling,
    directory: Path,
) -> dict[str, torch.Tensor]:
    """As `token_values`, from each question's own teacher; the entropy is NaN where that is a server. From one with
    another tokenizer, log-probs are NaN on tokens that do not align, and likeliest tokens are `UNKNOWN`."""
    rows: dict[int, tuple[torch.Tensor, ...]] = {}
    for route, handle in teachers.by_route.items():
        mine = [i for i, a in enumerate(teacher_prompts) if a.route == route]
        aligned, backend = handle.aligner is not None, handle.backend
        if isinstance(backend, InProcessBackend | StudentBackend) and mine and not aligned:
            prompts = [teacher_prompts[i] for i in mine]
            values = token_values(backend.policy, prompts, [responses[i] for i in mine], sampling.temperature)
            pieces = zip(*(v.split([len(responses[i]) for i in mine]) for v in values.values()), strict=True)
            rows.update(zip(mine, pieces, strict=True))
        elif mine:
            scorer = teachers.scorer(sampling, ALIGN_TOKENS, [teacher_prompts[i] for i in mine], directory)
            top_k = 0 if aligned else 1
            requests = [request_of(teacher_prompts[i], responses[i], top_k=top_k) for i in mine]
            for i, scores in zip(mine, scorer.score(requests), strict=True):
                logp = torch.tensor(scores.logp)
                best = None if scores.top_ids is None else torch.tensor(scores.top_ids[:, 0], dtype=torch.int64)
                argmax = torch.full((len(logp),), UNKNOWN) if best is None else best
                rows[i] = (logp, torch.full_like(logp, float("nan")), argmax)
    return {name: torch.cat([rows[i][k] for i in range(len(teacher_prompts))]) for k, name in enumerate(NAMES)}


def token_values(
    policy: Policy, prompts: Sequence[Prompt], responses: Sequence[Ids], temperature: float
) -> dict[str, torch.Tensor]:
    """Log-prob, entropy and most likely token at every response token, rows in the given order."""
    pieces: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
    with torch.inference_mode():
        for group in policy.micro_batches(prompts, [len(r) for r in responses], ALIGN_TOKENS):
            part = [responses[i] for i in group]
            batch = collate([prompts[i] for i in group], part, [(1,) * len(r) for r in part], policy.chat.pad_id)
            values = [v.cpu() for v in policy.logprobs(batch, temperature=temperature)]
            for i, *row in zip(group, *(v.split([len(r) for r in part]) for v in values), strict=True):
                pieces[i] = (row[0], row[1], row[2])
    return {name: torch.cat([pieces[i][k] for i in range(len(responses))]) for k, name in enumerate(NAMES)}
