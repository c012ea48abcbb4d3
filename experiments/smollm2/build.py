"""Make student and teacher of the offline experiment: `python -m experiments.smollm2.build`.

* `student`: the joined model of 157M parameters. First its connector alone learns to name a picture, then connector and
  language model learn to read several among other words, and to answer at once. It has seen no worked solution.
* `teacher`: SmolLM2-135M trained on worked solutions, of the scenes' text form and of reasoning-gym's `chain_sum`.

The defaults are the sizes of `make smollm2`; `--full` has those of `studies/smollm2`. What is made is kept under a name
of its content (`--cache`): the sizes, and the programs that make it. A run that is stopped goes on from its last
checkpoint when the command is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.smollm2 import join, lessons, packages, scenes
from experiments.smollm2.join import text_model
from experiments.smollm2.lessons import look_rows, reading_rows, worked_rows
from vold.model.batching import collate
from vold.model.place import Place
from vold.model.policy import Policy
from vold.run.console import Bar
from vold.run.folders import new_directory
from vold.run.recipe import Optimizer
from vold.training.checkpoint import restore_state
from vold.training.optim import apply_update, build_optimizer, check_finite, learning_rate
from vold.training.state_writer import StateWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments.smollm2.lessons import Row

CACHE = Path("models/smollm2/made")
CHECKPOINT_EVERY = 25
PARTS = (join, lessons, packages, scenes)
"""What the models depend on beside this file."""


@dataclass(frozen=True)
class Sizes:
    """Training steps of `batch` rows each: of the connector alone (`looks`, of twice as many short rows), of connector
    and language model (`reading`), and of the teacher (`solutions`)."""

    looks: int
    reading: int
    solutions: int
    batch: int


SMALL = Sizes(looks=80, reading=50, solutions=48, batch=16)
FULL = Sizes(looks=300, reading=600, solutions=400, batch=16)


def train(
    policy: Policy,
    rows: Callable[[random.Random, int], list[Row]],
    directory: Path,
    *,
    steps: int,
    batch: int,
    lr: float,
) -> None:
    """Next-token training on fresh rows, checkpointed in `directory`, whose name says what is trained.

    Raises:
        TrainingError: a loss that is not finite.
    """
    settings = Optimizer(lr=lr, warmup_steps=min(20, steps // 4))
    optimizer = build_optimizer(policy, settings)
    start = restore_state(directory, policy, optimizer)
    writer = StateWriter(directory, policy, optimizer, Place(policy.model.device, optimizer))
    policy.model.train()
    with Bar(directory.name, steps, start) as bar:
        for step in range(start, steps):
            part = rows(random.Random(f"{directory.name}/{step}"), batch)
            prompts = [policy.chat.prompt([m]) for m, _ in part]
            answers = [(*policy.chat.tokens(text), policy.chat.end_id) for _, text in part]
            sequences = collate(prompts, answers, [(1,) * len(a) for a in answers], policy.chat.pad_id)
            logp, _, _ = policy.logprobs(sequences)
            loss = -logp.mean()
            check_finite(loss.item(), step=step)
            loss.backward()
            apply_update(policy, optimizer, lr=learning_rate(settings, step, steps), max_grad_norm=1.0)
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                writer.begin(step + 1)
            bar.advance(note=f"loss {loss.item():.3f}")
    writer.settle(wait=True)


def student(work: Path, sizes: Sizes, device: str) -> Policy:
    """Join the packages' models, train the connector, then connector and language model."""
    raw = work / "joined"
    if not raw.is_dir():
        model, processor = join.join()
        with new_directory(raw) as d:
            model.save_pretrained(d)
            processor.save_pretrained(d)
    policy = Policy.load(str(raw), dtype="bfloat16", device=device)
    policy.model.requires_grad_(False)
    policy.model.model.connector.requires_grad_(True)
    train(policy, look_rows, work / "looks", steps=sizes.looks, batch=2 * sizes.batch, lr=2e-3)
    policy.model.requires_grad_(True)
    policy.model.model.vision_model.requires_grad_(False)
    train(policy, reading_rows, work / "reading", steps=sizes.reading, batch=sizes.batch, lr=2e-4)
    return policy


def teacher(work: Path, sizes: Sizes, device: str) -> Policy:
    """Train SmolLM2 on worked solutions."""
    raw = work / "language"
    if not raw.is_dir():
        model, tokenizer = text_model()
        with new_directory(raw) as d:
            model.save_pretrained(d)
            tokenizer.save_pretrained(d)
    policy = Policy.load(str(raw), dtype="bfloat16", device=device)
    train(policy, worked_rows, work / "solutions", steps=sizes.solutions, batch=sizes.batch, lr=2e-4)
    return policy


MAKERS = {"student": student, "teacher": teacher}


def made(name: str, sizes: Sizes, cache: Path = CACHE, device: str = "cpu") -> Path:
    """The directory of a model, which is trained if the cache lacks it."""
    files = [Path(__file__), *(Path(str(part.__file__)) for part in PARTS)]
    said = [f"{asdict(sizes)} {device}", *(file.read_text() for file in files)]
    home = cache / f"{name}-{hashlib.sha256('|'.join(said).encode()).hexdigest()[:12]}"
    if not home.is_dir():
        work = home.with_name(f"{home.name}.work")
        policy = MAKERS[name](work, sizes, device)
        with new_directory(home) as d:
            policy.save(d)
        shutil.rmtree(work)
    return home


def place(name: str, sizes: Sizes, directory: Path, cache: Path = CACHE, device: str = "cpu") -> None:
    """Put a model into a directory that is there and empty; its files are those of the cache, not copies."""
    shutil.copytree(made(name, sizes, cache, device), directory, copy_function=os.link, dirs_exist_ok=True)


full_student = partial(place, "student", FULL)
"""`models` of `studies/smollm2`."""
full_teacher = partial(place, "teacher", FULL)


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.smollm2.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="student, teacher (default: both)")
    parser.add_argument("--full", action="store_true", help="hours on a CPU, minutes on a GPU")
    parser.add_argument("--out", type=Path, default=Path("models/smollm2"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    if unknown := set(args.models) - MAKERS.keys():
        parser.error(f"{sorted(unknown)}: the models are {', '.join(MAKERS)}")
    for name in args.models or MAKERS:
        with new_directory(args.out / name) as directory:
            place(name, FULL if args.full else SMALL, directory, args.cache, args.device)
        print(f"wrote {args.out / name}", flush=True)


if __name__ == "__main__":
    main()
