"""What Python does with the rollouts of a step: `python benchmarks/python_stages.py [--tiny] [METHOD ...]`.

260 rollouts of 8,192 tokens with 16 candidates each: five responses to 52 prompts, no model. Of every stage the seconds
of CPU time (one thread) and the MiB that were allocated at its peak, by tracemalloc, in a second call.

* `values`: tensors of a sampler to rollouts
* `gather`, `scores`: rollouts, and what the teacher says of them, to bytes and back, as between processes
* `ask`: who the teacher is asked about, and the requests; `cut`: into micro-batches
* `credit`: advantages and weights; `describe`: the row of the log; `counts`: the denominators
* `flatten`: the streams of all micro-batches; `collate`: their padded grids
* `store`: one file; `load`: and back
"""

from __future__ import annotations

import argparse
import dataclasses
import pickle
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from vold.engines.teachers.ask import _requests
from vold.model.batching import collate, packed_micro_batches
from vold.objective import Objective, credit, token_counts
from vold.run.rollouts import RolloutTask, load_rollouts, store_rollouts
from vold.training.rollout_log import describe
from vold.training.streams import flatten, has_signal
from vold.types import Completion, Grade, Prompt, Rollout, TokenScores

T = TypeVar("T")
METHODS = ("vold", "sod", "uni_opd", "prefix_teach", "mopd", "minillm")
GROUP, PROMPT, TOKEN_BUDGET = 5, 150, 16_384
SENTENCE = (*[" word"] * 15, ". ")


@dataclass(frozen=True)
class Size:
    """How much there is."""

    rollouts: int = 260
    length: int = 8192
    candidates: int = 16


@dataclass(frozen=True)
class Row:
    """What a stage costs."""

    method: str
    stage: str
    seconds: float
    mib: float


class Stages:
    """Measures stages one after the other."""

    def __init__(self, method: str) -> None:
        self.method, self.rows = method, list[Row]()

    def run(self, stage: str, work: Callable[[], T]) -> T:
        """What `work` gives, called once for time and once for memory."""
        began = time.process_time()
        work()
        seconds = time.process_time() - began
        tracemalloc.start()
        found = work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self.rows.append(Row(self.method, stage, seconds, peak / 2**20))
        return found


class Sampled:
    """What a sampler has on its device: responses to prompts in groups, and their likeliest ids."""

    def __init__(self, size: Size, candidates: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def ids(*shape: int) -> torch.Tensor:
            return torch.randint(1000, 150_000, shape, generator=generator)

        self.size, self.shape = size, (size.rollouts, size.length)
        self.prompts = [Prompt(tuple(ids(PROMPT).tolist())) for _ in range(size.rollouts // GROUP)]
        self.ids, self.logps = ids(*self.shape), -torch.rand(self.shape, generator=generator)
        self.best = ids(*self.shape, candidates)
        self.theirs = -torch.rand(self.shape, generator=generator)
        self.theirs_of_best = -torch.rand((*self.shape, candidates), generator=generator)
        self.mask = np.ones(self.shape, bool)
        self.mask[::10, size.length // 3 : size.length // 3 + 20] = False  # every tenth response calls a tool once

    def rollouts(self) -> list[Rollout]:
        """Graded, of which a fifth is right."""
        ids, logps, best = self.ids.int().numpy(), self.logps.numpy(), self.best.int().numpy()
        wanted = best.shape[-1] > 0
        made = [
            Completion(ids[i], logps[i], self.mask[i], "stop" if i % 3 else "length", best[i] if wanted else None)
            for i in range(self.size.rollouts)
        ]
        return [_graded(i, c, self.prompts[i // GROUP]) for i, c in enumerate(made)]

    def scored(self, rollouts: list[Rollout], asked: list[int]) -> list[Rollout]:
        """With what a teacher has said about some of them."""
        out, best = list(rollouts), self.theirs_of_best.numpy()
        for i in asked:
            scores = TokenScores(self.theirs[i].numpy(), best[i] if best.shape[-1] else None)
            out[i] = dataclasses.replace(out[i], teacher=scores)
        return out


def _graded(i: int, completion: Completion, prompt: Prompt) -> Rollout:
    grade = Grade(float(i % GROUP == 0), "8", "equal")
    return Rollout(f"task-{i // GROUP}", i // GROUP, prompt.ids, completion, grade)


def measure(method: str, size: Size) -> list[Row]:
    """All stages of a step under a method's objective."""
    objective, stages = Objective.model_validate({"method": method}), Stages(method)
    if objective.needs.candidates:
        objective = _with_candidates(objective, size.candidates)
    sampled = Sampled(size, objective.needs.candidates)
    rollouts, prompts = stages.run("values", sampled.rollouts), sampled.prompts
    asked = stages.run("ask", lambda: _requests(rollouts, prompts, objective))
    rollouts = stages.run("gather", lambda: pickle.loads(pickle.dumps(rollouts)))
    rollouts = sampled.scored(rollouts, [i for i, _ in asked])
    scores = {i: rollouts[i].teacher for i, _ in asked}
    stages.run("scores", lambda: pickle.loads(pickle.dumps(scores)))
    texts = [SENTENCE[i % len(SENTENCE)] for i in range(size.length)]
    done = stages.run(
        "credit",
        lambda: credit(objective, rollouts, 0, max_new_tokens=size.length, token_texts=lambda ids: texts[: len(ids)]),
    )
    stages.run("describe", lambda: describe(done))
    stages.run("counts", lambda: token_counts(objective, done, max_new_tokens=size.length))
    _micro_batches(stages, [r for r in done if has_signal(r, objective)], prompts)
    questions = {g: RolloutTask("what is it?", "8") for g in range(len(prompts))}
    with tempfile.TemporaryDirectory() as folder:
        file = stages.run("store", lambda: store_rollouts(Path(folder), 0, done, questions))
        stages.run("load", lambda: load_rollouts(file))
    return stages.rows


def _with_candidates(objective: Objective, k: int) -> Objective:
    advantage = objective.teacher_advantage
    assert advantage is not None and advantage.prefix is not None
    prefix = advantage.prefix.model_copy(update={"top_k": k})
    return objective.model_copy(update={"teacher_advantage": advantage.model_copy(update={"prefix": prefix})})


def _micro_batches(stages: Stages, live: list[Rollout], prompts: list[Prompt]) -> None:
    device, shown = torch.device("cpu"), [prompts[r.group] for r in live]
    lengths = [len(r.completion.ids) for r in live]
    cuts = stages.run("cut", lambda: packed_micro_batches(shown, lengths, TOKEN_BUDGET))

    def grids() -> None:
        for cut in cuts:
            here = [live[i].completion for i in cut]
            collate([shown[i] for i in cut], [c.ids for c in here], [c.action_mask for c in here], 0)

    stages.run("flatten", lambda: [flatten([live[i] for i in cut], device) for cut in cuts])
    stages.run("collate", grids)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--tiny", action="store_true", help="a few short rollouts, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = Size(10, 64, 4) if options.tiny else Size()
    print(f"{size.rollouts} rollouts of {size.length} tokens, {size.candidates} candidates where they are needed")
    for method in options.methods:
        rows = measure(method, size)
        for row in rows:
            print(f"{row.method:14}{row.stage:10}{row.seconds:8.3f} s {row.mib:8.1f} MiB")
        print(
            f"{method:14}{'total':10}{sum(r.seconds for r in rows):8.3f} s {max(r.mib for r in rows):8.1f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
