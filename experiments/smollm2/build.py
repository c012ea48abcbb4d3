"""Make student and teacher of the offline experiment: `python -m experiments.smollm2.build --out models/smollm2`.

* `student`: the joined model of 157M parameters, its connector trained to name the shapes in pictures. Nothing else of
  it is changed: it has seen no problem and no worked solution.
* `teacher`: SmolLM2-135M trained on worked solutions, of the scenes' text form and of reasoning-gym's `chain_sum`.

The defaults are a short run for a CPU; `--steps 4000 --batch 32` is a real one, for a GPU. A run that is stopped goes
on from its last checkpoint when the command is given again.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.smollm2.join import join, text_model
from experiments.smollm2.packages import COLOURS, SHAPES
from experiments.smollm2.scenes import described, files, sample_scene, split_of, worked_sum
from vold.data.sources.gym import GymTasks
from vold.model.batching import collate
from vold.model.place import Place
from vold.model.policy import Policy
from vold.run.console import Bar
from vold.run.folders import new_directory
from vold.run.recipe import Optimizer
from vold.training.checkpoint import restore_state
from vold.training.optim import apply_update, build_optimizer, check_finite, learning_rate
from vold.training.state_writer import StateWriter
from vold.types import Message

if TYPE_CHECKING:
    from collections.abc import Callable

Row = tuple[Message, str]
"""A question and the answer to learn."""
CHECKPOINT_EVERY = 10


def picture_rows(rng: random.Random, batch: int) -> list[Row]:
    """Pictures of the train part and what they show, in the words of the worked solutions."""
    from PIL import Image

    rows: list[Row] = []
    for _ in range(batch):
        looks = [(rng.choice(COLOURS), rng.choice(SHAPES)) for _ in range(rng.choice((1, 1, 2)))]
        images = []
        for look in looks:
            with Image.open(rng.choice(files("train", look))) as image:
                images.append(image.convert("RGB"))
        asked = " ".join(f"Picture {i}: <image>" for i in range(1, len(looks) + 1))
        said = " ".join(f"Picture {i} shows a {c} {s}." for i, (c, s) in enumerate(looks, 1))
        rows.append((Message("user", f"{asked} What do the pictures show?", tuple(images)), said))
    return rows


def worked_rows(rng: random.Random, batch: int) -> list[Row]:
    """Text problems of the train split with worked solutions; a third of them sums."""
    rows: list[Row] = []
    while len(rows) < batch:
        if len(rows) % 3 == 2:
            settings = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1}
            task = GymTasks("chain_sum", 1, rng.randrange(2**30), settings)[0]
            rows.append((task.messages[0], worked_sum(task.messages[0].text)))
        else:
            scene = sample_scene(rng)
            if split_of(scene) == "train":
                rows.append((described(scene), scene.solution))
    return rows


def train(
    policy: Policy,
    rows: Callable[[random.Random, int], list[Row]],
    directory: Path,
    *,
    label: str,
    steps: int,
    batch: int,
    lr: float,
) -> None:
    """Next-token training on fresh rows, checkpointed in `directory`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    settings = Optimizer(lr=lr, warmup_steps=min(20, steps // 4))
    optimizer = build_optimizer(policy, settings)
    start = restore_state(directory, policy, optimizer)
    writer = StateWriter(directory, policy, optimizer, Place(policy.model.device, optimizer))
    policy.model.train()
    with Bar(label, steps, start) as bar:
        for step in range(start, steps):
            part = rows(random.Random(f"{label}/{step}"), batch)
            prompts = [policy.chat.prompt([m]) for m, _ in part]
            answers = [(*policy.chat.tokens(text), policy.chat.end_id) for _, text in part]
            sequences = collate(prompts, answers, [(1,) * len(a) for a in answers], policy.chat.pad_id)
            with torch.autocast(policy.model.device.type, torch.bfloat16):  # twice as fast, weights stay float32
                logp, _, _ = policy.logprobs(sequences)
            loss = -logp.mean()
            check_finite(loss.item(), step=step)
            loss.backward()
            apply_update(policy, optimizer, lr=learning_rate(settings, step, steps), max_grad_norm=1.0)
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                writer.begin(step + 1)
            bar.advance(note=f"loss {loss.item():.3f}")
    writer.settle(wait=True)


def student(out: Path, *, steps: int, batch: int, device: str) -> None:
    """Join the packages' models and train the connector."""
    raw = out / "work" / "student"
    if not raw.is_dir():
        model, processor = join()
        with new_directory(raw) as d:
            model.save_pretrained(d)
            processor.save_pretrained(d)
    policy = Policy.load(str(raw), device=device)
    policy.model.requires_grad_(False)
    policy.model.model.connector.requires_grad_(True)
    train(policy, picture_rows, out / "work" / "connector", label="connector", steps=steps, batch=batch, lr=1e-3)
    with new_directory(out / "student") as d:
        policy.save(d)


def teacher(out: Path, *, steps: int, batch: int, device: str) -> None:
    """Train SmolLM2 on worked solutions."""
    raw = out / "work" / "teacher"
    if not raw.is_dir():
        model, tokenizer = text_model()
        with new_directory(raw) as d:
            model.save_pretrained(d)
            tokenizer.save_pretrained(d)
    policy = Policy.load(str(raw), device=device)
    train(policy, worked_rows, out / "work" / "solutions", label="teacher", steps=steps, batch=batch, lr=2e-4)
    with new_directory(out / "teacher") as d:
        policy.save(d)


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.smollm2.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("models/smollm2"))
    parser.add_argument("--steps", type=int, default=20, help="training steps of each model (default: 20)")
    parser.add_argument("--batch", type=int, default=4, help="rows of a step (default: 4)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name, build in (("teacher", teacher), ("student", student)):
        if not (args.out / name).is_dir():
            build(args.out, steps=args.steps, batch=args.batch, device=args.device)
            print(f"wrote {args.out / name}", flush=True)
    shutil.rmtree(args.out / "work", ignore_errors=True)


if __name__ == "__main__":
    main()
