"""The student's own sampler: in this process, or on servers that get its weights."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from vold.engines.mismatch import Mismatch
from vold.engines.samplers.colocated import ColocatedVllm, ColocatedWeights
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.server import ServerSampler
from vold.engines.transfer.weights import ServerWeights
from vold.engines.vllm import VllmClient
from vold.errors import ConfigError, SamplerError
from vold.model.batching import collate
from vold.model.parallel import ALONE, Processes
from vold.model.support import narrowed, support_of
from vold.types import Sampler

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from vold.model.policy import Policy
    from vold.run.recipe import Distill, PromptBalance, Recipe
    from vold.types import Prompt


class StudentSampler(Sampler, Protocol):
    """A sampler that follows the student's weights."""

    def holding(self, step: int, *, pictures: bool = True) -> AbstractContextManager[None]:
        """Inside, it samples from the weights that the student has after `step` updates: those it has now. Without
        `pictures` no prompt has any."""
        ...


def open_sampler(
    config: Distill | PromptBalance, policy: Policy, directory: Path, group: Processes = ALONE, *, kept: bool = False
) -> StudentSampler:
    """The student's sampler of single turns. `kept`: see `ServerWeights`.

    Raises:
        SamplerError: a server does not answer, or holds another model.
        ConfigError: prompts and responses can not fit into its context.
    """
    if config.engine is None:
        return InProcessSampler(policy, config.rows, group)
    client: VllmClient | ColocatedVllm
    weights: ServerWeights | ColocatedWeights
    if config.engine.colocate:
        if group.world > 1:
            fix = "train in one process, or start servers"
            raise ConfigError(
                "vLLM is in one training process only", where="engine.colocate", got=f"{group.world} processes", fix=fix
            )
        client = ColocatedVllm(policy, directory / "colocated", config.engine)
        weights = ColocatedWeights(client, policy)
    else:
        client = VllmClient(config.engine, role="rollout", error=SamplerError)
        passing = config.engine.weights_dir or directory / "weights"
        weights = ServerWeights(client, policy, passing, group, config.engine.transfer, kept=kept)
    context = client.context()
    if context and config.sampling.max_new_tokens >= context:
        raise ConfigError(
            "responses do not fit into the context of the rollout server",
            where="sampling.max_new_tokens",
            got=f"{config.sampling.max_new_tokens} tokens, --max-model-len {context}",
        )
    banned = policy.banned.tolist()
    return ServerSampler(client, end_id=policy.chat.end_id, rows=policy.rows, banned=banned, weights=weights)


def check_rollouts(config: Distill, policy: Policy, prompt: Prompt, directory: Path) -> str:
    """Send the student's weights to the rollout servers, sample a few tokens, and compare their log-probs.

    Returns a line on how far sampler and trainer are apart. Nothing is left in `directory`, the run's own.

    Raises:
        SamplerError: a server failed.
        TrainingError: they are further apart than `config.mismatch.limit`, whatever its action.
    """
    asked = config.sampling.params(0, told=True)
    params = dataclasses.replace(asked, max_new_tokens=min(16, asked.max_new_tokens))
    there = next(p for p in (directory, *directory.resolve().parents) if p.is_dir())
    with tempfile.TemporaryDirectory(dir=there) as passing:
        (completions,) = open_sampler(config, policy, Path(passing)).generate([prompt], params, n=4)
    found = Mismatch()
    with torch.inference_mode():
        for c in completions:
            batch = collate([prompt], [c.ids], [c.action_mask], policy.chat.pad_id)
            kept = support_of([c], policy.model.device)
            read = policy.read(batch, temperature=params.temperature, candidates=kept)
            found.add((read if kept is None else narrowed(read)).logp, torch.tensor(c.logps))
    found.over(config.mismatch.limit, "stop", step=0)
    return f"KL(sampler || trainer) {found.kl:.1e} nats per token over {found.tokens} tokens"


def refuse_sleep(recipe: Recipe, group: Processes) -> None:
    """Refuse servers that one process would put to sleep while another still asks them.

    Raises:
        ConfigError: several processes train, and a server is to sleep.
    """
    servers = {"teacher.server.sleep": [t.server for t in recipe.scoring_models]}
    servers["distill.engine.sleep"] = [recipe.distill.engine] if recipe.distill is not None else []
    for where, found in servers.items():
        if group.world > 1 and any(s is not None and s.sleep for s in found):
            raise ConfigError(
                "servers can not sleep between the turns of several processes",
                where=where,
                got=f"{group.world} processes",
                fix="give them GPUs of their own and drop `sleep`, or train in one process",
            )
