"""All teachers of a recipe: each task has one, by its route."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vold.engines.samplers.multi_turn import tool_turns
from vold.engines.shown import digests
from vold.engines.teachers.aligned import AlignedTeacher, Aligner
from vold.engines.teachers.backend import open_backend
from vold.engines.teachers.cached import CachedTeacher
from vold.engines.teachers.health import check_alive, check_room, probe_of, probe_of_prompt, remember
from vold.engines.teachers.routed import RoutedTeacher
from vold.engines.teachers.student import StudentBackend
from vold.engines.teachers.told import refuse_unseeing, shown
from vold.errors import ConfigError, DataError
from vold.model.loading import check_teacher, stage_models
from vold.model.parallel import ALONE, Processes
from vold.model.place import one_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import torch

    from vold.engines.teachers.backend import TeacherBackend
    from vold.model.chat import Chat
    from vold.model.policy import Policy
    from vold.run.recipe import Recipe, Sampling
    from vold.run.teacher_sections import ScoringModel, TextTeacher
    from vold.types import Completion, Prompt, Sampler, SamplingParams, ScoreRequest, Task, Teacher

    Turns = Callable[[Sampler, Chat], Sampler]


@dataclass(frozen=True)
class TeacherHandle:
    """One teacher of a recipe: its section, where it runs, and what turns the student's responses into its own ids;
    `aligner` is None where student and teacher share a tokenizer. `told` is the section that says what it is shown."""

    spec: ScoringModel
    backend: TeacherBackend
    aligner: Aligner | None
    told: TextTeacher

    @property
    def launched(self) -> bool:
        """Whether its servers are still to be started."""
        return self.spec.server is not None and not self.spec.server.urls

    @property
    def tells(self) -> bool:
        """Whether it is shown more than the student."""
        return (self.told.system, self.told.hint) != (None, None)

    def own_ids(self, ids: Sequence[int]) -> Sequence[int]:
        """Ids of the student in the teacher's own tokens."""
        return ids if self.aligner is None else self.aligner.align(ids).ids


class Teachers:
    """Teachers, each with the tasks of its route; there may be none.

    Args:
        by_route: each by its route; "" is the one that takes every task no route is made for.
        route_by: the tag of a task that names its route.
        turns: makes a sampler of single turns into one of whole rollouts.
        blind: they are shown no pictures.

    Attributes:
        contrast: those that score a second time what these have scored; None where the objective asks for none.
    """

    def __init__(
        self, by_route: Mapping[str, TeacherHandle], route_by: str, turns: Turns, *, blind: bool = False
    ) -> None:
        self.by_route, self._route_by, self._turns, self._blind = dict(by_route), route_by, turns, blind
        self.contrast: Teachers | None = None

    @property
    def modules(self) -> list[torch.nn.Module]:
        """The models of those in this process, each once."""
        mine = [module for handle in self.by_route.values() for module in handle.backend.modules]
        return [*dict.fromkeys([*mine, *(self.contrast.modules if self.contrast is not None else [])])]

    @property
    def concurrent(self) -> bool:
        """Whether all of them can score while the student samples."""
        return bool(self.by_route) and all(handle.backend.concurrent for handle in self.by_route.values())

    def route(self, task: Task) -> str:
        """The name of the teacher that a task is for."""
        tag = task.tags.get(self._route_by, "")
        return tag if tag in self.by_route else ""

    def of(self, task: Task) -> TeacherHandle:
        """The teacher that a task is for."""
        return self.by_route[self.route(task)]

    def prompt(self, task: Task) -> Prompt | None:
        """The teacher prompt of a task, in the teacher's own chat template. A teacher that sees is shown what the
        student is; any other gets the task's text view; both what the recipe tells them alone. None where there is no
        such view, nothing to tell, or no teacher.
        """
        if not self.by_route:
            return None
        route = self.route(task)
        backend, told = self.by_route[route].backend, self.by_route[route].told
        messages = task.messages if backend.chat.processor is not None else task.teacher_messages
        messages = shown(messages, task, told.system, told.hint, blind=self._blind)
        if not messages:
            return None
        return replace(backend.chat.prompt(messages, task.id), route=route)

    def sample(self, tasks: Sequence[Task], params: SamplingParams) -> list[Completion]:
        """One answer of each task's own teacher, in task order.

        Raises:
            SamplerError: a teacher failed.
            DataError: a task has nothing that a teacher can be shown.
        """
        found: dict[int, Completion] = {}
        for route, handle in self.by_route.items():
            mine = [i for i, t in enumerate(tasks) if self.route(t) == route]
            if mine:
                prompts = [self._told(tasks[i]) for i in mine]
                sampler = self._turns(handle.backend.sampler(len(mine)), handle.backend.chat)
                made = sampler.generate(prompts, params)
                found.update(zip(mine, (c for (c,) in made), strict=True))
        return [found[i] for i in range(len(tasks))]

    def _told(self, task: Task) -> Prompt:
        if (prompt := self.prompt(task)) is None:
            raise DataError(
                "the teacher cannot be asked about this task",
                where=f"task {task.id}",
                got="no text view, or not what teacher.hint names",
                fix="leave it out, or write another teacher.hint",
            )
        return prompt

    def probe(self, ids: Sequence[int]) -> dict[str, float]:
        """Mean log-prob (nats) of the probe made of these ids of the student, by route; without those whose servers are
        still to be started.

        Raises:
            TeacherError: a teacher is dead, or without weights.
        """
        means = {}
        for route, handle in self.by_route.items():
            if handle.launched:
                continue
            request = probe_of(handle.own_ids(ids))
            scores = handle.backend.scorer(request, temperature=1.0, token_budget=8192).known
            check_alive(scores, where=handle.backend.describe())
            means[route] = float(scores.logp.mean())
        return means

    def probe_shown(self, tasks: Sequence[Task]) -> dict[str, float]:
        """As `probe`, of the text after the pictures of the first of these tasks that has any, by the route of each
        teacher on servers that is shown them.

        Raises:
            TeacherError: it is dead or without weights, or its server has not seen the pictures.
        """
        means: dict[str, float] = {}
        for task in tasks:
            route, handle = self.route(task), self.of(task)
            if route in means or handle.launched or not handle.backend.on_servers:
                continue
            prompt = self.prompt(task)
            if prompt is not None and prompt.pictures is not None:
                scorer = handle.backend.scorer(probe_of_prompt(prompt), temperature=1.0, token_budget=8192)
                check_alive(scorer.known, where=handle.backend.describe())
                means[route] = float(scorer.known.logp.mean())
        return means

    def scorer(
        self,
        sampling: Sampling,
        token_budget: int,
        prompts: Iterable[Prompt | None],
        directory: Path,
        group: Processes = ALONE,
    ) -> Teacher:
        """Something that scores requests of every teacher; a request's prompt says which one it is for.

        Args:
            sampling: that of the responses; teacher and student are compared at its temperature.
            token_budget: padded tokens per forward pass in this process.
            prompts: the teacher prompts there will be. Of one teacher in this process only the first is made; else all
                are, as they have to fit into a server's context, and each is for one teacher alone. The first of each
                teacher also tells whether it is alive and the same.
            directory: keeps what teachers on servers have answered to it, across restarts of the run.
            group: the processes that train, all of which must call this.

        Raises:
            ConfigError: a prompt and its response do not fit into the context of a server.
            TeacherError: a teacher is dead, without weights, or not the one this run or cache began with.
        """
        whole = len(self.by_route) > 1 or any(handle.backend.on_servers for handle in self.by_route.values())
        seen: dict[str, tuple[Prompt, int]] = {}  # the first, and the length of the longest
        for prompt in filter(None, prompts if self.by_route else ()):
            first, longest = seen.get(prompt.route, (prompt, 0))
            seen[prompt.route] = first, max(longest, len(prompt.ids))
            if not whole:
                break
        made: dict[str, Teacher] = {}
        for route, (first, longest) in seen.items():
            handle = self.by_route[route]
            if handle.backend.on_servers:
                check_room(handle.backend.context(), longest, sampling.max_new_tokens)
            made[route] = _scorer(handle, sampling.temperature, token_budget, probe_of_prompt(first), directory, group)
        return next(iter(made.values())) if len(made) == 1 else RoutedTeacher(made)


def no_teachers() -> Teachers:
    """None at all, for an objective that uses none: no task has a teacher prompt, and nothing can be scored."""
    return Teachers({}, "", lambda sampler, chat: sampler)


def open_teachers(recipe: Recipe, student: Policy, *, contrast: bool = False) -> Teachers:
    """Load the teachers of a recipe, or find their servers; with `contrast` those too that stage 2 asks again.

    Raises:
        ConfigError: the recipe names no teacher.
        VocabularyMismatch: one reads the student's ids differently.
        TeacherError: a server does not answer, or holds another model.
    """
    spec = recipe.teacher
    if spec is None:
        raise ConfigError("this verb needs a teacher", where="teacher", fix="add `teacher: {path: ...}` to the recipe")
    named = {"": spec, **spec.routes}
    handles: dict[str, TeacherHandle] = {}
    for route, one in named.items():
        found = [h for h in handles.values() if _same_model(h.spec, one)]
        handles[route] = _open(recipe, _placed(recipe, one), student, found, one, where=_key(route))
    turns = tool_turns(recipe)
    teachers = Teachers(handles, spec.route_by, turns)
    again = recipe.distill.objective.needs.contrast if recipe.distill is not None and contrast else None
    if again == "blind":
        refuse_unseeing({_key(route): handle.backend.chat for route, handle in handles.items()})
        teachers.contrast = Teachers(handles, spec.route_by, turns, blind=True)
    elif again == "base":
        bases: dict[str, TeacherHandle] = {}
        for route, one in named.items():
            assert one.base is not None  # see `vold.run.teacher_sections.teacher_mistakes`
            found = [h for h in (*handles.values(), *bases.values()) if _same_model(h.spec, one.base)]
            bases[route] = _open(recipe, one.base, student, found, one, where=f"{_key(route)}.base")
        teachers.contrast = Teachers(bases, spec.route_by, turns)
    return teachers


def _key(route: str) -> str:
    return f"teacher.routes.{route}" if route else "teacher"


def _placed(recipe: Recipe, spec: TextTeacher) -> TextTeacher:
    """A teacher with the model that is to be loaded for it: of a student that teaches as it began, what it began as."""
    if not spec.is_the_start or recipe.distill is None:
        return spec
    began = stage_models(recipe).get("sft", spec.path)
    return spec.model_copy(update={"path": recipe.distill.init or began, "dtype": recipe.learner.dtype})


def _same_model(a: ScoringModel, b: ScoringModel) -> bool:
    """Whether two teachers in this process are one set of weights."""
    return (a.server, b.server) == (None, None) and (a.place, a.path, a.weights_in) == (b.place, b.path, b.weights_in)


def _open(
    recipe: Recipe,
    spec: ScoringModel,
    student: Policy,
    found: Sequence[TeacherHandle],
    told: TextTeacher,
    *,
    where: str,
) -> TeacherHandle:
    """A teacher; one of `found` that has the same weights lends them."""
    if found:
        backend = found[0].backend
    elif spec.place == "student":
        backend = StudentBackend(student)
    else:
        backend = open_backend(recipe, spec)
    for module in backend.modules:
        one_copy(module, student.model)
    aligner = None
    if spec.tokenizer == "align":
        aligner = Aligner(student.chat.tokenizer, backend.chat.tokenizer, where=f"{where}.path: {spec.path}")
    else:
        check_teacher(student.chat, backend.chat, where=f"{where}.path: {spec.path}")
    return TeacherHandle(spec, backend, aligner, told)


def _scorer(
    handle: TeacherHandle,
    temperature: float,
    token_budget: int,
    probe: ScoreRequest,
    directory: Path,
    group: Processes,
) -> Teacher:
    spec, backend = handle.spec, handle.backend
    teacher = backend.scorer(probe, temperature=temperature, token_budget=token_budget)
    identity = f"{spec.path} | {backend.served_as} | temperature {temperature}"
    asked = " ".join([identity, str(tuple(map(int, probe.response_ids))), *digests(probe.pictures)])
    card = f"teacher-{hashlib.sha256(asked.encode()).hexdigest()[:12]}.json"
    keepers = [directory] if backend.on_servers else []
    keepers += [spec.cache] if spec.cache is not None else []
    if keepers:
        scores = teacher.known
        check_alive(scores, where=backend.describe())
        with group.first_goes_first():
            for keeper in keepers:
                remember(keeper / card, probe, scores, where=backend.describe())
    scorer = CachedTeacher(teacher, spec.cache, identity) if spec.cache is not None else teacher
    return AlignedTeacher(scorer, handle.aligner) if handle.aligner is not None else scorer
