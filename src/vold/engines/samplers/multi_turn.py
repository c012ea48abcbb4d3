"""Rollouts of several turns: the model writes, a tool answers, the model goes on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vold.engines.tools.environment import Turn, observed, open_environment
from vold.model.support import joined
from vold.types import Completion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from vold.engines.tools.environment import Environment
    from vold.model.chat import Chat
    from vold.run.recipe import Recipe
    from vold.types import Finish, Ids, Prompt, Sampler, SamplingParams

NEXT_TURN_SEED = 7_919
"""How far apart the seeds of successive turns are."""


@dataclass
class _Row:
    prompt: Prompt
    turns: list[Completion] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)
    """Turns that the environment has answered, with its answers."""
    state: dict[str, Any] = field(default_factory=dict)

    def add(self, completion: Completion, room: int) -> None:
        """Append a turn, cut to the room that is left."""
        c = completion
        best, kept = (None if ids is None else ids[:room] for ids in (c.candidate_ids, c.support_ids))
        finish: Finish = c.finish if len(c.ids) <= room else "length"
        self.turns.append(Completion(c.ids[:room], c.logps[:room], c.action_mask[:room], finish, best, kept))

    def observe(self, ids: Sequence[int], params: SamplingParams) -> None:
        """Append what a tool said: no action, log-prob 0."""
        n = len(ids)
        best = np.zeros((n, params.candidates)) if params.candidates else None
        kept = np.full((n, 1), -1) if params.kept else None
        self.turns.append(Completion(ids, np.zeros(n), np.zeros(n), "stop", best, kept))

    def whole(self) -> Completion:
        """All turns as one completion."""
        best = [t.candidate_ids for t in self.turns if t.candidate_ids is not None]
        kept = [t.support_ids for t in self.turns if t.support_ids is not None]
        return Completion(
            np.concatenate([t.ids for t in self.turns]),
            np.concatenate([t.logps for t in self.turns]),
            np.concatenate([t.action_mask for t in self.turns]),
            self.turns[-1].finish,
            np.concatenate(best) if best else None,
            joined(kept) if kept else None,
        )


class TurnSampler:
    """A sampler that lets an environment answer, and the model go on, until it asks for nothing more.

    A completion then holds all turns: the model's tokens with action mask 1, the environment's with 0 and log-prob 0.
    `max_new_tokens` is the budget of both together. A rollout ends with a turn that asks for nothing, with its
    `max_turns`-th turn, or, as "length", where the budget ends or leaves no room for what the tool said.

    Args:
        sampler: samples single turns.
        chat: the chat template of the model that is sampled from.
        environment: answers.
        max_turns: turns of the model in one rollout.
        name: what messages call the environment.
    """

    def __init__(
        self, sampler: Sampler, chat: Chat, environment: Environment, max_turns: int, name: str = "environment"
    ) -> None:
        self.sampler, self.chat, self.environment, self.max_turns = sampler, chat, environment, max_turns
        self.name = name

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams, n: int = 1) -> list[list[Completion]]:
        """`n` completions of each prompt. Raises as the sampler of single turns, and DataError as `Chat.after_turn`."""
        return self.stream(prompts, params, n, lambda place, completions: None)

    def stream(
        self, prompts: Sequence[Prompt], params: SamplingParams, n: int, whole: Callable[[int, list[Completion]], None]
    ) -> list[list[Completion]]:
        """As `generate`. `whole` hears of a prompt's completions after the turn with which the last of them ends."""
        rows = [_Row(p) for p in prompts for _ in range(n)]
        first = [c for group in self.sampler.generate(prompts, params, n) for c in group]
        for row, completion in zip(rows, first, strict=True):
            row.add(completion, params.max_new_tokens)
        spoke, turn, made = rows, 1, dict[int, list[Completion]]()

        def tell(speaking: Sequence[_Row]) -> None:
            busy = {id(row) for row in speaking}
            for place in range(len(prompts)):
                group = rows[place * n : (place + 1) * n]
                if place not in made and not any(id(row) in busy for row in group):
                    made[place] = [row.whole() for row in group]
                    whole(place, made[place])

        while turn < self.max_turns and (spoke := self._answered(spoke, params)):
            tell(spoke)
            sofar = [row.whole().ids for row in spoke]
            left = [params.max_new_tokens - len(ids) for ids in sofar]
            again = dataclasses.replace(
                params, max_new_tokens=max(left), seed=(params.seed + turn * NEXT_TURN_SEED) % 2**63
            )
            asked = [row.prompt.then(ids.tolist()) for row, ids in zip(spoke, sofar, strict=True)]
            for row, room, (completion,) in zip(spoke, left, self.sampler.generate(asked, again), strict=True):
                row.add(completion, room)
            turn += 1
        tell([])
        return [made[place] for place in range(len(prompts))]

    def _answered(self, spoke: Sequence[_Row], params: SamplingParams) -> list[_Row]:
        """Those of the rows that ended a turn with a call, with the answer appended and room to go on."""
        whole = [row for row in spoke if row.turns[-1].finish == "stop"]
        turns = [self._turn(row) for row in whole]
        out = []
        for row, turn, said in zip(whole, turns, observed(self.name, self.environment, turns), strict=True):
            if said is None:
                continue
            row.said.append((str(turn), said))
            ids = self.chat.after_turn(said)
            if sum(len(t.ids) for t in row.turns) + len(ids) >= params.max_new_tokens:
                row.turns[-1] = dataclasses.replace(row.turns[-1], finish="length")
                continue
            row.observe(ids, params)
            out.append(row)
        return out

    def _turn(self, row: _Row) -> Turn:
        """The last turn of a rollout as an environment sees it."""
        text, ids = self.chat.text(row.turns[-1].ids), row.prompt.ids
        return Turn(text, task=row.prompt.task, before=[*row.said], state=row.state, prompt=lambda: self.chat.text(ids))


def last_turn(ids: ArrayLike, action_mask: ArrayLike) -> Ids:
    """The model's ids after the last token that a tool put there: what an answer is read from.

    Example:
        >>> last_turn([5, 6, 7, 8], [1, 0, 1, 1])
        array([7, 8], dtype=int32)
    """
    said = np.flatnonzero(~np.asarray(action_mask, bool))
    return np.asarray(ids, np.int32)[said[-1] + 1 if len(said) else 0 :]


def tool_turns(recipe: Recipe) -> Callable[[Sampler, Chat], Sampler]:
    """What makes a sampler of single turns, and its chat, into one of whole rollouts: itself where there is no tool.

    Raises:
        ConfigError: as `open_environment`.
    """
    spec = recipe.environment
    if spec is None:
        return lambda sampler, chat: sampler
    environment = open_environment(spec)
    return lambda sampler, chat: TurnSampler(sampler, chat, environment, spec.max_turns, spec.kind)
