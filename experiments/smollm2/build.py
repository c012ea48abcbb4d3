"""Make student and teacher of the offline experiment: `python -m experiments.smollm2.build`.

* `student`: the joined model of 157M parameters. Its connector is solved for, so that a picture stands for the words of
  what it shows; then connector and language model learn to read several pictures among other words, and to answer at
  once. It has seen no worked solution.
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
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.smollm2 import join, lessons, packages, scenes
from experiments.smollm2.join import text_model
from experiments.smollm2.lessons import looked_at, reading_rows, worked_rows
from experiments.smollm2.packages import COLOURS, SHAPES
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
    """Training steps of `batch` rows each: of the student's connector and language model (`reading`), of the teacher
    (`solutions`)."""

    reading: int
    solutions: int
    batch: int


SMALL = Sizes(reading=100, solutions=96, batch=8)
FULL = Sizes(reading=600, solutions=400, batch=16)
AT_ONCE = 64
"""Pictures that the tower looks at in one pass."""
STRETCH = 6.0
"""How much further apart what pictures stand for is than the words: a picture never stands for one look alone."""
RIDGE = 1000.0
"""Of the connector's weights, beside 16 tokens of each picture."""


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


@torch.no_grad()
def solve_connector(policy: Policy) -> None:
    """Bring every token of a picture as near as can be to the sum of the embeddings of its look's words.

    Ridge regression over all pictures of the train part: the weight W of least sum |W x - y|^2 + RIDGE |W|^2, where x
    [1536] is what the tower gives for one token and y [576] what its picture's words sum up to, `STRETCH` times as far
    from their mean. It takes a minute; to learn as much by next-token training takes some hundred steps.
    """
    model, tokenizer = policy.model.model, policy.chat.tokenizer
    embeddings: torch.Tensor = model.text_model.embed_tokens.weight.float()

    def summed(words: str) -> torch.Tensor:
        return embeddings[tokenizer(f" {words}", add_special_tokens=False).input_ids].sum(0)

    mean = torch.stack([summed(" ".join(look)) for look in product(COLOURS, SHAPES)]).mean(0)
    projection = model.connector.modality_projection.proj.weight
    products = torch.zeros(projection.shape[1], projection.shape[1], device=projection.device)
    wanted = torch.zeros_like(projection.T, dtype=torch.float32)
    for words, pictures in looked_at(AT_ONCE):
        prompts = [policy.chat.prompt([message]) for message in pictures]
        pixels = torch.cat([p.vision["pixel_values"] for p in prompts]).flatten(0, 1).to(projection)
        patches = model.vision_model(pixel_values=pixels).last_hidden_state
        x = model.connector.pixel_shuffle(patches, model.connector.scale_factor).flatten(0, 1).float()
        products += x.T @ x
        wanted += x.sum(0)[:, None] * (mean + STRETCH * (summed(words) - mean))
    products.diagonal().add_(RIDGE)
    projection.copy_(torch.linalg.solve(products, wanted).T)


def student(work: Path, sizes: Sizes, device: str) -> Policy:
    """Join the packages' models, solve for the connector, then train it and the language model."""
    raw = work / "joined"
    if not raw.is_dir():
        model, processor = join.join()
        with new_directory(raw) as d:
            model.save_pretrained(d)
            processor.save_pretrained(d)
    policy = Policy.load(str(raw), dtype=precision(device), device=device)
    solve_connector(policy)
    policy.model.model.vision_model.requires_grad_(False)
    train(policy, reading_rows, work / "reading", steps=sizes.reading, batch=sizes.batch, lr=3e-4)
    return policy


def teacher(work: Path, sizes: Sizes, device: str) -> Policy:
    """Train SmolLM2 on worked solutions."""
    raw = work / "language"
    if not raw.is_dir():
        model, tokenizer = text_model()
        with new_directory(raw) as d:
            model.save_pretrained(d)
            tokenizer.save_pretrained(d)
    policy = Policy.load(str(raw), dtype=precision(device), device=device)
    train(policy, worked_rows, work / "solutions", steps=sizes.solutions, batch=sizes.batch, lr=2e-4)
    return policy


MAKERS = {"student": student, "teacher": teacher}


def precision(device: str) -> str:
    """In which both models are trained: bfloat16 on a GPU and on a processor that multiplies it itself. Any other takes
    several times as long for it as for float32."""
    able = torch.cpu.get_capabilities()
    return "bfloat16" if device == "cuda" or able.get("amx_bf16") or able.get("avx512_bf16") else "float32"


def made(name: str, sizes: Sizes, cache: Path = CACHE, device: str = "cpu") -> Path:
    """The directory of a model, which is trained if the cache lacks it."""
    files = [Path(__file__), *(Path(str(part.__file__)) for part in PARTS)]
    said = [f"{asdict(sizes)} {device} {precision(device)}", *(file.read_text() for file in files)]
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
    parser.add_argument("--keys", action="store_true", help="make nothing: print what a recipe needs for this device")
    args = parser.parse_args(argv)
    if args.keys:
        print(*(f"{model}.dtype={precision(args.device)}" for model in MAKERS))
        return
    if unknown := set(args.models) - MAKERS.keys():
        parser.error(f"{sorted(unknown)}: the models are {', '.join(MAKERS)}")
    for name in args.models or MAKERS:
        with new_directory(args.out / name) as directory:
            place(name, FULL if args.full else SMALL, directory, args.cache, args.device)
        print(f"wrote {args.out / name}", flush=True)


if __name__ == "__main__":
    main()
