"""Sampling inside the training process.

Transformers' own continuous batching (`generate_batch`) is not used. Its random numbers are those of the process, so
that a row depends on which others are there and a run that was killed goes on with other responses; it tells the
log-prob of the sampled token alone, not the candidates; it takes no pictures; without the packages of FlashAttention
it masks every row against the cache of all rows. On a CPU it took as long as `generate`.

Models that are certified for it (`vold.model.certificate`) sample in `vold.engines.samplers.refilled`, all others in
`vold.engines.samplers.padded`: what a recurrent layer or a convolution remembers does not lie in slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vold.engines.samplers.cpu_weights import reordered_weights
from vold.engines.samplers.draw import Draw
from vold.engines.samplers.padded import padded
from vold.engines.samplers.refilled import refilled
from vold.errors import ConfigError
from vold.model.parallel import ALONE, Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from vold.model.policy import Policy
    from vold.types import Completion, Prompt, SamplingParams


class InProcessSampler:
    """Samples from a `Policy` in this process. The prompt of a group passes through the model once.

    Every token of every row has its own random number, drawn in the order of rows from the seed: what a row becomes
    depends on the seed and its place in the call, not on when other rows finish.

    Args:
        policy: the model; it is read, never changed.
        batch_size: rows that generate side by side.
        group: the processes that divide the model's weights.
    """

    def __init__(self, policy: Policy, batch_size: int = 128, group: Processes = ALONE) -> None:
        self.policy, self.batch_size, self.group = policy, batch_size, group

    def holding(self, step: int, *, pictures: bool = True) -> AbstractContextManager[None]:
        """Inside, this process has all of the model's weights that its prompts need, whatever the step."""
        return self.group.gathered(self.policy, pictures=pictures)

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams, n: int = 1) -> list[list[Completion]]:
        """`n` completions of each prompt.

        Raises:
            SamplerError: the model produced a distribution that is not finite.
            ConfigError: the model's certificate does not allow it.
        """
        return self.stream(prompts, params, n, lambda place, completions: None)

    def stream(
        self, prompts: Sequence[Prompt], params: SamplingParams, n: int, whole: Callable[[int, list[Completion]], None]
    ) -> list[list[Completion]]:
        """As `generate`, and `whole` hears of each prompt when its last row has ended."""
        if self.policy.mute:
            raise ConfigError(
                "this model cannot be sampled from in this process",
                where=str(self.policy.model.config.name_or_path),
                got=self.policy.mute,
                fix="sample from a server: `distill.engine`, or `eval.endpoint`",
            )
        if not prompts:
            return []
        generator = torch.Generator().manual_seed(params.seed)

        def uniforms(rows: int) -> torch.Tensor:
            return torch.rand((rows, params.max_new_tokens), generator=generator, dtype=torch.float64)

        uniforms(params.first_row)
        made: list[dict[int, Completion]] = [{} for _ in prompts]
        sample = refilled if self.policy.packs and self.policy.refills else padded
        side_by_side = self.batch_size if sample is refilled or self.policy.pads else 1
        was_training = self.policy.model.training
        self.policy.model.eval()
        with reordered_weights(self.policy):
            draw = Draw(self.policy, params)
            for row, completion in sample(self.policy, draw, prompts, n, side_by_side, uniforms):
                group = made[row // n]
                group[row % n] = completion
                if len(group) == n:
                    whole(row // n, [group[i] for i in range(n)])
        self.policy.model.train(was_training)
        return [[group[i] for i in range(n)] for group in made]
