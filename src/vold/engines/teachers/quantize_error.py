"""How far a quantised teacher is from the weights it was made from, on responses of the run itself.

The weights it was made from are read once more, into the host's memory, and pass through the device a layer at a time,
so that a card holds the comparison which holds the quantised teacher. It is made once a run, and its figures are kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vold.engines.mismatch import beyond
from vold.engines.teachers.ask import request_of
from vold.engines.teachers.inprocess import InProcessBackend, InProcessTeacher
from vold.errors import TrainingError
from vold.model.loading import load_model
from vold.model.quantized import layer_by_layer
from vold.run.console import console
from vold.run.files import read_json, write_json
from vold.run.precision import precision
from vold.run.summaries import QuantizeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.engines.teachers.teachers import TeacherHandle, Teachers
    from vold.model.parallel import Processes
    from vold.run.metrics import RolloutMetrics
    from vold.run.recipe import Distill, Recipe
    from vold.types import Prompt, Rollout

FILE = "quantize-error.json"
ROLLOUTS = 64
"""Responses of a teacher that are compared; each makes all of its layers pass through the device, or shares that."""
STOP_ABOVE = 0.5
"""Nats per token, in the mean. Good 4-bit weights are some hundredths off; at half a nat, another model teaches."""


class QuantizeErrors:
    """The comparison of every quantised teacher of a run.

    Args:
        recipe: the run's.
        config: of its stage 2.
        directory: the stage's, which keeps the figures.
        teachers: of the recipe.
    """

    def __init__(self, recipe: Recipe, config: Distill, directory: Path, teachers: Teachers) -> None:
        self.recipe, self.config, self._file, self._teachers = recipe, config, directory / FILE, teachers
        self._found: dict[str, QuantizeError] = {}

    def noted(self, row: RolloutMetrics) -> RolloutMetrics:
        """A row with the figures of the teacher that is furthest off, where one is known."""
        most = max(self._found.values(), key=lambda e: e.mean, default=None)
        return row if most is None else replace(row, quantize_error=most.mean, quantize_error_p99=most.p99)

    def compare(self, rollouts: Sequence[Rollout], prompts: Sequence[Prompt | None], group: Processes) -> None:
        """Compare those teachers that have responses now and have not been compared; the first process does.

        Args:
            rollouts: of a step.
            prompts: its teacher prompts.
            group: the processes that train, all of which must call this.

        Raises:
            TrainingError: a teacher is further off than its recipe allows.
        """
        mine = {route: h for route, h in self._teachers.by_route.items() if h.spec.quantize is not None}
        if mine.keys() <= self._found.keys():
            return
        new: dict[str, QuantizeError] = {}
        if group.first:
            known = read_json(self._file, dict[str, QuantizeError], absent={})
            new = {route: found for route, found in known.items() if route not in self._found}
            for route in mine.keys() - known.keys():
                if (found := self._compared(route, mine[route], rollouts, prompts)) is not None:
                    new[route] = found
                    write_json(self._file, self._found | new)
        (new, *_) = group.gather(new)
        self._found |= new
        for route in new:
            self._gate(mine[route], new[route], group)

    def _compared(
        self, route: str, handle: TeacherHandle, rollouts: Sequence[Rollout], prompts: Sequence[Prompt | None]
    ) -> QuantizeError | None:
        asked = [(p, r) for r in rollouts if (p := prompts[r.group]) is not None and p.route == route]
        backend, spec = handle.backend, handle.spec
        assert isinstance(backend, InProcessBackend)
        requests = [
            request_of(p, np.array(handle.own_ids(r.completion.ids.tolist())))
            for p, r in asked[:: -(-len(asked) // ROLLOUTS) or 1]
        ]
        if not requests:
            return None
        cpu = self.recipe.model_copy(update={"run": self.recipe.run.model_copy(update={"device": "cpu"})})
        whole = load_model(cpu, spec.path, precision(self.recipe, spec.path, spec.dtype))
        layer_by_layer(whole.model, whole.family, backend.policy.model.device)
        whole.ban_placeholders()
        logps = []
        for policy in (backend.policy, whole):
            teacher = InProcessTeacher(
                policy, temperature=self.config.sampling.temperature, token_budget=self.config.token_budget
            )
            logps.append(np.concatenate([s.logp for s in teacher.score(requests)]).astype(np.float64))
        both = np.isfinite(logps).all(0)
        away = np.abs(logps[0] - logps[1])[both]
        if not len(away):
            return None
        return QuantizeError(
            teacher=spec.path,
            precision=backend.served_as,
            tokens=len(away),
            mean=float(away.mean()),
            p99=float(np.quantile(away, 0.99)),
            largest=float(away.max()),
        )

    def _gate(self, handle: TeacherHandle, found: QuantizeError, group: Processes) -> None:
        gate = handle.spec.quantize_error
        got = (
            f"{found.teacher} in {found.precision}: mean |log ratio| {found.mean:.2g} nats per token to the weights it "
            f"was made from, 99 % below {found.p99:.2g}, over {found.tokens} tokens"
        )
        verdict = beyond(found.mean, gate.limit, gate.action, STOP_ABOVE)
        if verdict == "stop":
            raise TrainingError(
                "the quantised teacher is not the model that it was made from",
                where="teacher.quantize_error",
                got=f"{got}; the limit is {gate.limit:.2g}",
                fix="set teacher.quantize=int8, or null, or, if it is meant to be that far off, raise `limit` or set "
                "`action: warn`",
            )
        if group.first:
            console.print(f"warning: {got}; the limit is {gate.limit:.2g}" if verdict else got, markup=False)
