"""Where teacher and rollouts of a recipe run: in this process, or on servers.

The stages ask for a `Teacher` and a `Sampler` and never learn which kind they got.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig

from vold.engines.mismatch import Mismatch
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.server import ServerSampler, ServerWeights
from vold.engines.teachers.aligned import AlignedTeacher, Aligner
from vold.engines.teachers.cached import CachedTeacher
from vold.engines.teachers.health import check_alive, probe_of, remember
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.routed import RoutedTeacher
from vold.engines.teachers.server import ServerTeacher
from vold.engines.vllm import VllmClient
from vold.errors import ConfigError, DataError, SamplerError, TeacherError
from vold.model.batching import collate
from vold.model.chat import Chat
from vold.model.loading import check_teacher, load_model, resolve
from vold.model.parallel import ALONE, Processes
from vold.model.tokenizers import banned_ids
from vold.types import SamplingParams, ScoreRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.model.policy import Policy
    from vold.run.model_sections import TextTeacher
    from vold.run.recipe import Distill, PromptBalance, Recipe, Sampling
    from vold.types import Completion, Prompt, Sampler, Task, Teacher


@dataclass(frozen=True)
class Voice:
    """One teacher: how it is written to, its weights (`policy`) or its servers (`client`), and what turns the student's
    responses into its own ids where these differ (`aligner`)."""

    spec: TextTeacher
    chat: Chat
    policy: Policy | None
    client: VllmClient | None
    aligner: Aligner | None

    def sampler(self, rows: int) -> Sampler:
        """A sampler of the teacher's own answers, `rows` side by side where it runs in this process."""
        if self.policy is not None:
            return InProcessSampler(self.policy, rows)
        assert self.client is not None
        config = AutoConfig.from_pretrained(resolve(self.spec.path))
        banned = banned_ids(config, self.chat.tokenizer)
        return ServerSampler(self.client, end_id=self.chat.end_id, banned=banned)

    def describe(self) -> str:
        """What it is and where it runs."""
        if self.policy is not None:
            size = sum(p.numel() for p in self.policy.model.parameters())
            return f"{type(self.policy.model).__name__}, {size:,} parameters"
        assert self.client is not None
        return f"{self.client.model} on {', '.join(self.client.urls)}"

    def context(self) -> int:
        """Tokens that prompt and response may have together; 0 where a server does not say."""
        if self.policy is not None:
            return int(self.policy.model.config.get_text_config().max_position_embeddings)
        assert self.client is not None
        return self.client.context()


class Teachers:
    """All teachers of a recipe, each by its route; "" is the one that takes every task no route is made for."""

    def __init__(self, recipe: Recipe, student: Policy) -> None:
        """Load them, or find their servers.

        Raises:
            ConfigError: the recipe names no teacher.
            VocabularyMismatch: one reads the student's ids differently.
            TeacherError: a server does not answer, or holds another model.
        """
        spec = recipe.teacher
        if spec is None:
            raise ConfigError(
                "this verb needs a teacher", where="teacher", fix="add `teacher: {path: ...}` to the recipe"
            )
        self._in_turns = turns_of(recipe)
        self.route_by = spec.route_by
        self._routes: dict[tuple[int, ...], str] = {}
        self.voices = {
            route: _voice(recipe, s, student, where=f"teacher.routes.{route}.path" if route else "teacher.path")
            for route, s in {"": spec, **spec.routes}.items()
        }

    @property
    def models(self) -> list[torch.nn.Module]:
        """Those in this process."""
        return [v.policy.model for v in self.voices.values() if v.policy is not None]

    @property
    def elsewhere(self) -> bool:
        """Whether all of them are on servers that stay awake, so that asking takes nothing from this process."""
        return all(v.client is not None and not v.client.sleep for v in self.voices.values())

    def route(self, task: Task) -> str:
        """The name of the teacher that a task is for."""
        tag = task.tags.get(self.route_by, "")
        return tag if tag in self.voices else ""

    def voice(self, task: Task) -> Voice:
        """The teacher that a task is for."""
        return self.voices[self.route(task)]

    def ask(self, task: Task) -> Prompt | None:
        """What the task's teacher is asked, in its own chat template. A teacher that sees is shown what the student is;
        any other gets the task's text view, and None stands for a task without one.

        Raises:
            DataError: the same question is already put to another teacher.
            ConfigError: a teacher on a server is to see pictures.
        """
        route = self.route(task)
        voice = self.voices[route]
        messages = task.messages if voice.chat.processor is not None else task.teacher_messages
        if not messages:
            return None
        prompt = voice.chat.prompt(messages)
        if prompt.vision and voice.policy is None:
            raise ConfigError(
                "a teacher on a server scores text only",
                where=f"teacher {route}".strip(),
                got=f"task {task.id} with pictures",
                fix="load it into this process: drop its `server`",
            )
        ids = prompt.ids
        before = self._routes.setdefault(ids, route)
        if before != route:
            raise DataError(
                "two tasks put the same question to different teachers",
                where=f"task {task.id}",
                got=f"{self.route_by} {before!r} and {route!r}",
                fix=f"give tasks with one prompt one value of the tag {self.route_by!r}",
            )
        return prompt

    def route_of(self, ask: tuple[int, ...]) -> str:
        """The name of the teacher that a question of `ask` is for."""
        return self._routes.get(ask, "")

    def answer(self, tasks: Sequence[Task], params: SamplingParams) -> list[Completion]:
        """One answer of each task's own teacher, in task order.

        Raises:
            SamplerError: a teacher failed.
        """
        found: dict[int, Completion] = {}
        for route, voice in self.voices.items():
            mine = [i for i, t in enumerate(tasks) if self.route(t) == route]
            if mine:
                prompts = [prompt for i in mine if (prompt := self.ask(tasks[i])) is not None]
                made = self._in_turns(voice.sampler(len(mine)), voice.chat).generate(prompts, params)
                found.update(zip(mine, (c for (c,) in made), strict=True))
        return [found[i] for i in range(len(tasks))]

    def probe(self, ids: Sequence[int]) -> dict[str, float]:
        """Mean log-prob (nats) of the probe made of these ids of the student, by route.

        Raises:
            TeacherError: a teacher is dead, or without weights.
        """
        means = {}
        for route, voice in self.voices.items():
            request = probe_of(ids if voice.aligner is None else voice.aligner.align(ids).ids)
            scores = _engine(voice, request, temperature=1.0, token_budget=8192).score([request])[0]
            check_alive(scores, where=voice.describe())
            means[route] = sum(scores.logp) / len(scores.logp)
        return means

    def scorer(self, sampling: Sampling, token_budget: int, asks: Sequence[Prompt | None], directory: Path) -> Teacher:
        """Something that scores requests of every teacher; a request's prompt says which one it is for.

        Args:
            sampling: that of the responses; teacher and student are compared at its temperature.
            token_budget: padded tokens per forward pass in this process.
            asks: the questions there will be. The first of each teacher also tells whether it is alive and the same.
            directory: keeps what teachers on servers have answered to it, across restarts of the run.

        Raises:
            ConfigError: a question and its response do not fit into the context of a server.
            TeacherError: a teacher is dead, without weights, or not the one this run or cache began with.
        """
        made: dict[str, Teacher] = {}
        for route, voice in self.voices.items():
            mine = [a.ids for a in asks if a is not None and self.route_of(a.ids) == route]
            if not mine:
                continue
            if voice.client is not None:
                _check_room(voice, max(map(len, mine)), sampling.max_new_tokens)
            made[route] = _scorer(voice, sampling.temperature, token_budget, probe_of(mine[0]), directory)
        return next(iter(made.values())) if len(made) == 1 else RoutedTeacher(made, self.route_of)


def _check_room(voice: Voice, prompt: int, response: int) -> None:
    # vLLM scores a prompt only with room for one more token.
    needed, context = prompt + response + 1, voice.context()
    if context and needed > context:
        raise ConfigError(
            "prompt and response do not fit into the context of the teacher's server",
            where="max_new_tokens",
            got=f"{prompt} + {response} tokens and one to spare, --max-model-len {context}",
            fix=f"start it with --max-model-len {needed} or more, or lower max_new_tokens",
        )


def _voice(recipe: Recipe, spec: TextTeacher, student: Policy, *, where: str) -> Voice:
    policy = load_model(recipe, spec.path, spec.dtype) if spec.server is None else None
    chat = policy.chat if policy is not None else Chat.load(resolve(spec.path))
    aligner = None
    if spec.tokenizer == "align":
        aligner = Aligner(student.chat.tokenizer, chat.tokenizer, where=f"{where}: {spec.path}")
    else:
        check_teacher(student.chat, chat, where=f"{where}: {spec.path}")
    client = None
    if spec.server is not None:
        client = VllmClient(spec.server, role="teacher", error=TeacherError)
    return Voice(spec, chat, policy, client, aligner)


def _engine(
    voice: Voice, probe: ScoreRequest, *, temperature: float, token_budget: int
) -> InProcessTeacher | ServerTeacher:
    if voice.policy is not None:
        return InProcessTeacher(voice.policy, temperature=temperature, token_budget=token_budget)
    assert voice.client is not None
    return ServerTeacher(voice.client, probe)


def _scorer(voice: Voice, temperature: float, token_budget: int, probe: ScoreRequest, directory: Path) -> Teacher:
    spec, teacher = voice.spec, _engine(voice, probe, temperature=temperature, token_budget=token_budget)
    where = voice.describe()
    served = f"server {voice.client.model}" if voice.client is not None else spec.dtype
    identity = f"{spec.path} | {served} | temperature {temperature}"
    card = f"teacher-{hashlib.sha256(f'{identity} {probe.response_ids}'.encode()).hexdigest()[:12]}.json"
    keepers = [directory] if isinstance(teacher, ServerTeacher) else []
    keepers += [spec.cache] if spec.cache is not None else []
    if keepers:
        scores = teacher.known if isinstance(teacher, ServerTeacher) else teacher.score([probe])[0]
        check_alive(scores, where=where)
        for keeper in keepers:
            remember(keeper / card, probe, scores, where=where)
    scorer = CachedTeacher(teacher, spec.cache, identity) if spec.cache is not None else teacher
    return AlignedTeacher(scorer, voice.aligner) if voice.aligner is not None else scorer


def turns_of(recipe: Recipe) -> Callable[[Sampler, Chat], Sampler]:
    """What makes a sampler of single turns, and its chat, into one of whole rollouts: itself where there is no tool.

    Raises:
        ConfigError: this machine cannot shut a program in.
    """
    spec = recipe.environment
    if spec is None:
        return lambda sampler, chat: sampler
    from vold.engines.samplers.multi_turn import TurnSampler
    from vold.engines.tools.interpreter import Limits
    from vold.engines.tools.python import PythonTool

    tool = PythonTool(spec.calls, Limits(seconds=spec.seconds, memory_mb=spec.memory_mb, output=spec.output))
    return lambda sampler, chat: TurnSampler(sampler, chat, tool, spec.max_turns)


def refuse_sleep(recipe: Recipe, group: Processes) -> None:
    """Refuse servers that one process would put to sleep while another still asks them.

    Raises:
        ConfigError: several processes train, and a server is to sleep.
    """
    teachers = [recipe.teacher, *recipe.teacher.routes.values()] if recipe.teacher is not None else []
    servers = {"teacher.server.sleep": [t.server for t in teachers]}
    servers["distill.engine.sleep"] = [recipe.distill.engine] if recipe.distill is not None else []
    for where, found in servers.items():
        if group.world > 1 and any(s is not None and s.sleep for s in found):
            raise ConfigError(
                "servers can not sleep between the turns of several processes",
                where=where,
                got=f"{group.world} processes",
                fix="give them GPUs of their own and drop `sleep`, or train in one process",
            )


def open_sampler(
    config: Distill | PromptBalance, policy: Policy, directory: Path, group: Processes = ALONE
) -> tuple[Sampler, Callable[[int], None]]:
    """The student's sampler, and a function to call with the step whose weights the policy now has.

    Raises:
        SamplerError: a server does not answer, or holds another model.
        ConfigError: prompts and responses can not fit into its context.
    """
    if config.engine is None:
        return InProcessSampler(policy, config.rows), lambda step: None
    client = VllmClient(config.engine, role="rollout", error=SamplerError)
    context = client.context()
    if context and config.sampling.max_new_tokens >= context:
        raise ConfigError(
            "responses do not fit into the context of the rollout server",
            where="sampling.max_new_tokens",
            got=f"{config.sampling.max_new_tokens} tokens, --max-model-len {context}",
        )
    weights = ServerWeights(client, policy, config.engine.weights_dir or directory / "weights", group)
    sampler = ServerSampler(client, end_id=policy.chat.end_id, banned=policy.banned.tolist(), weights=weights)
    return sampler, weights.changed


def check_rollouts(config: Distill, policy: Policy, prompt: Prompt, directory: Path) -> str:
    """Send the student's weights to the rollout servers, sample a few tokens, and compare their log-probs.

    Returns a line on how far sampler and trainer are apart. Nothing is left in `directory`, the run's own.

    Raises:
        SamplerError: a server failed.
        TrainingError: they are further apart than `config.mismatch.limit`, whatever its action.
    """
    params = SamplingParams(min(16, config.sampling.max_new_tokens), config.sampling.temperature, seed=0)
    there = next(p for p in (directory, *directory.resolve().parents) if p.is_dir())
    with tempfile.TemporaryDirectory(dir=there) as passing:
        sampler, _ = open_sampler(config, policy, Path(passing))
        (completions,) = sampler.generate([prompt], params, n=4)
    found = Mismatch()
    with torch.inference_mode():
        for c in completions:
            batch = collate([prompt], [c.ids], [c.action_mask], policy.chat.pad_id)
            logp, _, _ = policy.logprobs(batch, temperature=params.temperature)
            found.add(logp, torch.tensor(c.logps))
    found.over(config.mismatch.limit, "stop", step=0)
    return f"KL(sampler || trainer) {found.kl:.1e} nats per token over {found.tokens} tokens"
