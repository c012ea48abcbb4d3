"""Where a teacher runs: in this process, or on vLLM servers, behind one protocol.

A further place to run teachers is a class here and its choice in `open_backend`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from transformers import AutoConfig

from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.server import ServerSampler
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.server import ServerTeacher
from vold.engines.vllm import VllmClient
from vold.errors import TeacherError
from vold.model.chat import Chat
from vold.model.loading import load_model, resolve
from vold.model.tokenizers import banned_ids

if TYPE_CHECKING:
    import torch

    from vold.model.policy import Policy
    from vold.run.model_sections import TextTeacher
    from vold.run.recipe import Recipe
    from vold.types import Sampler, ScoreRequest, Teacher


class TeacherBackend(Protocol):
    """A frozen teacher, wherever it runs."""

    @property
    def chat(self) -> Chat:
        """Its tokenizer and chat template."""
        ...

    @property
    def modules(self) -> list[torch.nn.Module]:
        """Its models in this process, which can be moved between a device and the host; none on servers."""
        ...

    @property
    def on_servers(self) -> bool:
        """Whether it can be restarted, or exchanged, behind this process's back."""
        ...

    @property
    def concurrent(self) -> bool:
        """Whether it can score while the student samples, without taking anything from this process."""
        ...

    @property
    def served_as(self) -> str:
        """What decides its scores beside path and temperature: precision, or name on its servers. Part of the key of
        cached scores."""
        ...

    def sampler(self, rows: int) -> Sampler:
        """A sampler of its own answers, `rows` side by side where it runs in this process."""
        ...

    def scorer(self, probe: ScoreRequest, *, temperature: float, token_budget: int) -> Teacher:
        """What scores requests in its own ids.

        Args:
            probe: tells whether it is alive and the same (`vold.engines.teachers.health`).
            temperature: of the rollouts; teacher and student are compared at the same one.
            token_budget: padded tokens per forward pass in this process.
        """
        ...

    def context(self) -> int:
        """Tokens that prompt and response may have together; 0 where a server does not say."""
        ...

    def describe(self) -> str:
        """What it is and where it runs, in words."""
        ...


@dataclass(frozen=True)
class InProcessBackend:
    """A teacher in this process; `served_as` is its precision."""

    policy: Policy
    served_as: str

    on_servers = concurrent = False

    @property
    def chat(self) -> Chat:
        """See `TeacherBackend`."""
        return self.policy.chat

    @property
    def modules(self) -> list[torch.nn.Module]:
        """See `TeacherBackend`."""
        return [self.policy.model]

    def sampler(self, rows: int) -> Sampler:
        """See `TeacherBackend`."""
        return InProcessSampler(self.policy, rows)

    def scorer(self, probe: ScoreRequest, *, temperature: float, token_budget: int) -> InProcessTeacher:
        """See `TeacherBackend`; the probe has no use, as nothing can change this teacher."""
        return InProcessTeacher(self.policy, temperature=temperature, token_budget=token_budget)

    def context(self) -> int:
        """See `TeacherBackend`."""
        return int(self.policy.model.config.get_text_config().max_position_embeddings)

    def describe(self) -> str:
        """See `TeacherBackend`."""
        size = sum(p.numel() for p in self.policy.model.parameters())
        return f"{type(self.policy.model).__name__}, {size:,} parameters"


@dataclass(frozen=True)
class ServerBackend:
    """A teacher on vLLM servers that all hold it; `path` is the directory or hub id of its tokenizer and config."""

    path: str
    chat: Chat
    client: VllmClient

    on_servers = True

    @property
    def modules(self) -> list[torch.nn.Module]:
        """See `TeacherBackend`."""
        return []

    @property
    def concurrent(self) -> bool:
        """See `TeacherBackend`: servers that sleep share a device with the student."""
        return not self.client.sleep

    @property
    def served_as(self) -> str:
        """See `TeacherBackend`."""
        return f"server {self.client.model}"

    def sampler(self, rows: int) -> Sampler:
        """See `TeacherBackend`; servers decide themselves how many rows run side by side."""
        banned = banned_ids(AutoConfig.from_pretrained(self.path), self.chat.tokenizer)
        return ServerSampler(self.client, end_id=self.chat.end_id, banned=banned)

    def scorer(self, probe: ScoreRequest, *, temperature: float, token_budget: int) -> ServerTeacher:
        """See `TeacherBackend`; servers score at temperature 1 and cut their own batches."""
        return ServerTeacher(self.client, probe)

    def context(self) -> int:
        """See `TeacherBackend`."""
        return self.client.context()

    def describe(self) -> str:
        """See `TeacherBackend`."""
        return f"{self.client.model} on {', '.join(self.client.urls)}"


def open_backend(recipe: Recipe, spec: TextTeacher) -> TeacherBackend:
    """Load a teacher, or find its servers.

    Raises:
        CheckpointError: its directory is missing or not whole.
        TeacherError: a server does not answer, or holds another model.
    """
    if spec.server is None:
        return InProcessBackend(load_model(recipe, spec.path, spec.dtype), spec.dtype)
    path = resolve(spec.path)
    return ServerBackend(path, Chat.load(path), VllmClient(spec.server, role="teacher", error=TeacherError))
