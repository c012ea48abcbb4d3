"""Bytes that a process receives in an update, and while it scores with a divided teacher, counted at every collective
operation, beside the arithmetic of `vold.model.pace`: `python benchmarks/exchanged.py`.

The models are the demo's, in float32 on a CPU, over processes on pretended nodes of this machine. A micro-batch is one
row; of eight, one has a picture where the table says so.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from nodes import fork
from torch.utils._python_dispatch import TorchDispatchMode

from vold.data.worlds.digits import DigitTasks
from vold.engines.teachers.divided import load_divided
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.model.families import part_of
from vold.model.pace import Sizes, exchanged, gathered
from vold.model.parallel import ALONE, Processes, processes
from vold.model.policy import Policy
from vold.model.sharding import whole
from vold.run.recipe import Exchange, Optimizer, Sft, Within, recipe_from
from vold.run.shipped import resolve
from vold.training.learner import Learner
from vold.training.optim import build_optimizer
from vold.training.sft import accumulate
from vold.training.traces import Trace
from vold.types import ScoreRequest

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 8
WEIGHTS, GRADIENTS, BETWEEN, SAMPLES = "_allgather_base_", "_reduce_scatter_base_", "allreduce_", "before rollouts"
KINDS = {WEIGHTS: "weights", GRADIENTS: "gradients", BETWEEN: "between nodes", SAMPLES: "before rollouts"}
"""What was counted, and its column."""


@dataclass(frozen=True)
class Case:
    """An update. `pictures`: rows that have one."""

    exchange: Exchange = "micro_batch"
    shard: Within = "node"
    lora: bool = False
    pictures: int = 0


TEXT, SEES = Case(), Case(pictures=1)
CASES = {
    (1, 2): (TEXT, SEES),
    (2, 2): (
        TEXT, SEES, Case("step"), Case("step", pictures=1), Case(shard="world"), Case(lora=True),
        Case("step", lora=True, pictures=1),
    ),
    (2, 1): (TEXT,),
}  # fmt: skip
"""By nodes, and processes on each."""
WITHIN: tuple[Within, ...] = ("node", "world")
"""Over which processes a teacher is divided."""


class Traffic(TorchDispatchMode):
    """Counts the bytes that this process receives, by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.received, self.elsewhere = Counter[str](), 0
        """By operation; and how much of gathered weights from other nodes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = func._schema.name.removeprefix("c10d::")
        if kind in (WEIGHTS, GRADIENTS):
            out, mine, group = args[:3]
            self._count(kind, group, abs(out.nbytes - mine.nbytes))
            self._count_elsewhere(group, mine.nbytes if kind == WEIGHTS else 0)
        elif kind == BETWEEN:
            tensors, group = args[:2]
            self._count(kind, group, sum(t.nbytes for t in tensors))
        return func(*args, **(kwargs or {}))

    def _count(self, kind: str, boxed: Any, size: int) -> None:
        group = dist.ProcessGroup.unbox(boxed)
        ring = 2 * (group.size() - 1) / group.size() if kind == BETWEEN else 1
        self.received[kind] += size * ring

    def _count_elsewhere(self, boxed: Any, size: int) -> None:
        each, here = processes().node, processes().rank // processes().node
        members = dist.get_process_group_ranks(dist.ProcessGroup.unbox(boxed))
        self.elsewhere += size * sum(rank // each != here for rank in members)


@functools.cache
def student() -> Policy:
    """The demo's, of which every case takes a copy; read before processes are forked, by none of them again."""
    return Policy.load(resolve("demo:student"), freeze=("vision", "projector"))


def learner_of(case: Case, group: Processes) -> Learner[Sft]:
    """The demo's student, divided."""
    policy = copy.deepcopy(student())
    if case.lora:
        policy.add_lora(rank=4, alpha=8, seed=1)
    policy.model.train()
    group.shard(policy, case.exchange, case.shard)
    config = Sft(steps=1, batch_size=ROWS, token_budget=1, optimizer=Optimizer(lr=1e-3))
    return Learner(config, policy, build_optimizer(policy, config.optimizer), group)


def rows(case: Case) -> list[Trace]:
    """Traces, the first ones of problems in pictures."""
    forms = ["image"] * case.pictures + ["text"] * (ROWS - case.pictures)
    tasks = [DigitTasks("train", form, ROWS, 1)[i] for i, form in enumerate(forms)]
    return [Trace(task, (20 + i, 21, 22), (1, 1, 1), f"line {i}") for i, task in enumerate(tasks)]


def counted(case: Case, group: Processes) -> dict[str, Any]:
    """A row of the table, and the norm of the gradient."""
    learner = learner_of(case, group)
    traffic = Traffic()
    with traffic:
        accumulate(learner, rows(case))
    found = {kind: int(size) for kind, size in traffic.received.items()}
    sizes, nodes = sizes_of(learner.policy, case, group), group.world // group.node
    want = exchanged(sizes, group.world, nodes, ROWS // group.world)
    parts = group.node if case.shard == "node" else group.world
    arithmetic = zip(KINDS, (want.weights, want.gradients, want.between, gathered(sizes, parts)), strict=True)
    with (traffic := Traffic()), group.gathered(learner.policy, pictures=case.pictures > 0):
        found[SAMPLES] = int(sum(traffic.received.values()))
    return {
        "nodes": nodes, "each": group.node, **asdict(case), "counted": dict(found),
        "arithmetic": dict(arithmetic),
        "norm": norm(learner),
    }  # fmt: skip


def norm(learner: Learner[Sft]) -> float:
    """Of the gradient that has been added up."""
    gradients = [p.grad for _, p in learner.policy.trainable() if p.grad is not None]
    return float(whole(torch.nn.utils.get_total_norm(gradients)))


def scored(within: Within, group: Processes) -> list[dict[str, Any]]:
    """What each process receives of the demo's teacher while it scores: the first has two passes, the last none. What
    is outside the layers has been there since it was certified."""
    raw = {"run": {"dir": "unused", "device": "cpu"}, "student": {"path": "demo:student"}}
    policy = load_divided(recipe_from(raw, where="benchmark"), "demo:teacher", "float32", group, within)
    group.teachers_divided = within
    teacher = InProcessTeacher(policy, temperature=1.0, token_budget=1, group=group)
    asked = [ScoreRequest((3, 4), (5, 6 + i)) for i in range((2, 1, 1, 0)[group.rank])]
    with (traffic := Traffic()):
        teacher.score(asked)
    parts = group.node if within == "node" else group.world
    inside = sum(padded(p, parts) for p in policy.model.model.layers.parameters())
    passes = 2 if within == "world" or group.rank < group.node else 1
    want = gathered(Sizes(student=passes * inside, size=4), parts)
    counted = int(sum(traffic.received.values()))
    row = {"within": within, "rank": group.rank, "passes": passes, "counted": counted, "arithmetic": int(want)}
    return group.gather({**row, "elsewhere": traffic.elsewhere})


def padded(p: torch.nn.Parameter, parts: int) -> int:
    """How many numbers it has, with the rows that FSDP2 adds so that all processes have equally many."""
    return -(-p.shape[0] // parts) * parts * math.prod(p.shape[1:])


def sizes_of(policy: Policy, case: Case, group: Processes) -> Sizes:
    """Its weights, `padded`."""
    parts = group.node if case.shard == "node" else group.world
    count = Counter[str]()
    prefix = f"{policy.model.base_model_prefix}."
    for name, p in policy.model.named_parameters():
        inside = "layers" if ".layers." in name else "outside"
        part = "adapters" if ".lora_" in name else part_of(name.removeprefix(prefix), policy.family) or inside
        count[part] += padded(p, parts)
    return Sizes(
        student=count["layers"] + count["outside"], outside=count["outside"], adapters=count["adapters"],
        frozen=count["vision"] + count["projector"], size=4, once=int(case.exchange == "step"),
        across=int(case.shard == "world"), pictures=case.pictures * group.world / ROWS,
    )  # fmt: skip


def in_a_world(nodes: int, each: int, work: Callable[[Processes], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What the first of `each` processes on each of `nodes` nodes finds."""
    with tempfile.NamedTemporaryFile("w+") as file:

        def run() -> None:
            found = work(processes())
            if processes().first:
                Path(file.name).write_text(json.dumps(found))

        if fork(nodes, each, run):
            raise SystemExit("a process has failed")
        made: list[dict[str, Any]] = json.load(file)
        return made


def measure_teacher() -> list[dict[str, Any]]:
    """Two processes on each of two nodes: a teacher divided within each, and over both."""
    return in_a_world(2, 2, lambda group: [row for within in WITHIN for row in scored(within, group)])


def measure() -> list[dict[str, Any]]:
    """All rows; each with the norm that one process finds beside it."""
    found = []
    student()
    for (nodes, each), cases in CASES.items():
        found += in_a_world(nodes, each, lambda group, cases=cases: [counted(case, group) for case in cases])
    alone = dict[tuple[bool, int], float]()
    for row in found:
        key = row["lora"], row["pictures"]
        if key not in alone:
            case = Case(lora=key[0], pictures=key[1])
            learner = learner_of(case, ALONE)
            accumulate(learner, rows(case))
            alone[key] = norm(learner)
        row["norm of one process"] = alone[key]
    return found


def teacher_table(found: list[dict[str, Any]]) -> str:
    """As it stands in docs/scaling.md."""
    lines = ["| teacher divided | process | passes | received | from the other node |", "|---|---|---|---|---|"]
    for row in found:
        where = "within each node" if row["within"] == "node" else "over both nodes"
        lines.append(f"| {where} | {row['rank']} | {row['passes']} | {row['counted']:,} | {row['elsewhere']:,} |")
    return "\n".join(lines)


def table(found: list[dict[str, Any]]) -> str:
    """As it stands in docs/scaling.md."""
    heads = ["processes", "`exchange`", "`shard`", "student", "rows", *KINDS.values()]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in found:
        sizes = [f"{row['counted'].get(kind, 0):,}" for kind in KINDS]
        student, seen = "adapters" if row["lora"] else "whole", "one with a picture" if row["pictures"] else "text"
        where = f"{row['nodes']} x {row['each']}"
        lines.append("| " + " | ".join([where, row["exchange"], row["shard"], student, seen, *sizes]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print all that was found")
    args = parser.parse_args()
    made, teacher = measure(), measure_teacher()
    print(json.dumps([made, teacher]) if args.json else f"{table(made)}\n\n{teacher_table(teacher)}")
    assert all(r["counted"].get(k, 0) == v for r in made for k, v in r["arithmetic"].items()), "not the arithmetic's"
    assert all(r["counted"] == r["arithmetic"] for r in teacher), "not the arithmetic's"
