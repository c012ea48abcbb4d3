"""The student and what changes it: micro-batches of a step, gradients, the update. Both stages train through this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from vold.errors import TrainingError
from vold.model.batching import collate
from vold.model.parallel import ALONE, Processes, Round
from vold.training.optim import apply_update, check_finite, learning_rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from numpy.typing import ArrayLike

    from vold.model.batching import Sequences
    from vold.model.policy import Policy
    from vold.run.recipe import Distill, Sft
    from vold.types import Ids, Prompt

Config = TypeVar("Config", bound="Sft | Distill")


class MicroBatch(NamedTuple):
    """Some rows of a step that pass through the student together.

    Attributes:
        rows: their places in the step.
        batch: their tokens.
        turn: which micro-batch it is of this process's.
    """

    rows: list[int]
    batch: Sequences
    turn: Round


@dataclass
class Learner(Generic[Config]):
    """A student in training.

    Attributes:
        config: the stage's section of the recipe.
        policy: the student.
        optimizer: over its trainable parameters.
        group: the processes that train it.
        updated: the last step whose updates have begun: until the last has ended, the weights are of no step.
    """

    config: Config
    policy: Policy
    optimizer: torch.optim.Optimizer
    group: Processes = ALONE
    updated: int = -1

    def micro_batches(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[int] | Ids], action_masks: Sequence[ArrayLike]
    ) -> Iterator[MicroBatch]:
        """This process's micro-batches of a step, cut at `token_budget` tokens.

        Args:
            prompts: of every row; rows of one prompt share the object.
            responses: token ids of every row's response.
            action_masks: of the same; tokens with 1 are selected.
        """
        lengths = [len(ids) for ids in responses]
        cuts = self.policy.micro_batches(prompts, lengths, self.config.token_budget, self.group.world)
        costs = [sum(lengths[i] for i in cut) for cut in cuts]
        pictures = [any(prompts[i].vision for i in cut) for cut in cuts]
        turns = zip(self.group.rounds(costs), self.group.gathers(costs, pictures), strict=True)
        for turn, sees in turns:
            rows = cuts[turn.number]
            batch = collate(
                [prompts[i] for i in rows],
                [responses[i] for i in rows],
                [action_masks[i] for i in rows],
                self.policy.chat.pad_id,
            )
            if sees:
                self.group.gather_tower()
            yield MicroBatch(rows, batch, turn)

    def backward(self, loss: torch.Tensor, micro: MicroBatch) -> None:
        """Add the gradient of a micro-batch's loss to that of the step."""
        self.group.backward(self.policy, loss, micro.turn)

    def rate(self, step: int) -> float:
        """The learning rate of 0-based `step`."""
        return learning_rate(self.config.optimizer, step, self.config.steps)

    def apply_update(self, step: int, loss: float) -> float:
        """One optimizer step on the gradient that has been added up; returns its norm before clipping.

        Args:
            step: 0-based.
            loss: of the whole step, whose gradient it is.

        Raises:
            TrainingError: loss or gradient is not finite. The weights are left as they were, which after an earlier
                update of the same step is in the middle of it.
        """
        clip = self.config.optimizer.max_grad_norm
        before, self.updated = self.updated, step
        try:
            check_finite(loss, step=step)
            return apply_update(self.policy, self.optimizer, lr=self.rate(step), max_grad_norm=clip)
        except TrainingError:
            self.updated = before
            self.optimizer.zero_grad(set_to_none=True)
            raise
