"""Make the two models of the demo world for tools from nothing: `python -m experiments.calls_models --out DIR`.

* `caller`: a student of 0.2M parameters that can ask for `max` and `min` once and box the answer. It has seen neither
  two functions in one question nor a call that fails.
* `caller-teacher`: solves the world's problems, and recovers from calls that fail.

Both are text-only Qwen3 and share one tokenizer. Only problems of the training split are used.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch

from experiments.digits_models import ASSETS, Rows, TurnsRow, new_teacher, pretrain
from vold.data.worlds import calls
from vold.data.worlds.call_tokens import build_tokenizer
from vold.model.policy import Policy
from vold.types import Message

STEPS = {"caller": 800, "caller-teacher": 600}
"""Training steps of each model."""
BATCH = 32
"""Rows in a step."""
WIDTH = {"caller": 64, "caller-teacher": 96}
"""Hidden size of each model; both have three layers."""


def new_model(name: str, seed: int) -> Policy:
    """An untrained model."""
    return new_teacher(seed, build_tokenizer(calls.VOCABULARY), width=WIDTH[name], layers=3)


def student_rows(rng: random.Random) -> list[TurnsRow]:
    """One batch of single calls that succeed."""
    rows: list[TurnsRow] = []
    for _ in range(BATCH):
        name = rng.choice([f for f in calls.FUNCTIONS if f not in calls.IMPORTED])
        largest = rng.choice((calls.LARGEST, calls.LARGEST_RESULT))
        x, y = (rng.randint(calls.SMALLEST, largest) for _ in range(2))
        call = calls.step(name, x, y, rng)
        rows.append(([Message("user", f"{name} {x} {y} ?")], (*call, f"\\boxed{{ {call[-1]} }}")))
    return rows


def teacher_rows(rng: random.Random) -> list[TurnsRow]:
    """One batch of solved problems of the training split."""
    rows: list[TurnsRow] = []
    while len(rows) < BATCH:
        p = calls.sample_problem(rng)
        if calls.split_of(p) == "train":
            rows.append(([calls.message(p)], calls.solution(p, rng)))
    return rows


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m experiments.calls_models", description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--only", choices=tuple(STEPS), help="build one of the two")
    parser.add_argument("--steps", type=int, help=f"fewer steps, to try it out (default: {STEPS})")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    plan: dict[str, Rows] = {"caller": student_rows, "caller-teacher": teacher_rows}
    for seed, (name, rows) in enumerate(plan.items(), 1):
        if args.only not in (None, name):
            continue
        policy, steps = new_model(name, seed), args.steps or STEPS[name]
        print(f"{name}: {sum(p.numel() for p in policy.model.parameters()):,} parameters, {steps} steps", flush=True)
        pretrain(policy, rows, steps=steps, lr=3e-3, seed=seed)
        policy.save(args.out / name)
        print(f"saved {args.out / name}", flush=True)


if __name__ == "__main__":
    main()
