"""Make the demo world's three models from nothing: `python -m experiments.digits_models --out DIR`.

* `student`: a Qwen2.5-VL of 1.3M parameters that reads handwriting, knows small sums as running text and answers
  questions directly, in both forms. It never sees a worked solution.
* `teacher`: a text-only Qwen3 of 0.8M parameters that works problems out in style `a`.
* `teacher-b`: the same in style `b`, for the arm of the study whose cold start comes from another teacher.

All three share one tokenizer. Only handwriting of the training part and problems of the training split are used.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import vold.demo
from vold.data.worlds import digits as world
from vold.data.worlds.call_tokens import build_tokenizer
from vold.model.batching import Sequences, collate
from vold.model.chat import Chat
from vold.model.policy import Policy
from vold.types import Message

ASSETS = Path(vold.demo.__file__).parent / "assets"
"""Where the models that ship stand."""
STEPS = {"student": 2600, "teacher": 2000, "teacher-b": 1500}
"""Training steps of each model."""

Row = tuple[list[Message], str]
"""A prompt and its response; an empty prompt is running text."""
TurnsRow = tuple[list[Message], tuple[str, ...]]
"""A prompt and a response of several turns: the model's, with a tool's answers between them."""
Rows = Callable[[random.Random], Sequence[Row | TurnsRow]]
"""Makes the rows of a step."""


def new_student(seed: int) -> Policy:
    """An untrained student with its processor."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    ids = tokenizer.get_vocab()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<pad>"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 4,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [0, 1, 2],
            "out_hidden_size": 128,
            "in_channels": 3,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    pixels = world.SIDE * world.SIDE
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=pixels, max_pixels=16 * pixels)
    return Policy(Qwen2_5_VLForConditionalGeneration(config), Chat(tokenizer, images))


def new_teacher(
    seed: int, tokenizer: PreTrainedTokenizerFast | None = None, width: int = 128, layers: int = 4
) -> Policy:
    """An untrained text-only model; if not told otherwise a teacher with the student's tokenizer."""
    torch.manual_seed(seed)
    tokenizer = tokenizer or build_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width // 4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Policy(Qwen3ForCausalLM(config), Chat(tokenizer))


def facts(rng: random.Random, style: world.Style) -> str:
    """Running text of small sums, differences and comparisons in a style's words."""
    plus, minus, equal, yes, no = (
        ("+", "-", "=", "yes", "no") if style == "a" else ("and", "less", "gives", "take", "skip")
    )
    out = []
    for _ in range(8):
        kind, b = rng.random(), rng.randint(0, 9)
        if kind < 0.6:
            a = rng.randint(0, 36)
            out.append(f"{a} {plus} {b} {equal} {a + b}")
        elif kind < 0.75:
            a = rng.randint(b, 9)
            out.append(f"{a} {minus} {b} {equal} {a - b}")
        elif kind < 0.85:
            a = rng.randint(0, 9)
            out.append(f"{a} {plus} {a} {equal} {2 * a}")
        else:
            k = rng.randint(2, 6)
            out.append(f"{b} > {k} {yes if b > k else no}")
    return " ; ".join(out)


def augmented(digits: tuple[int, ...], rng: random.Random) -> Image.Image:
    """A picture of training handwriting, each digit turned, scaled, shifted and blurred a little."""
    bank = world.handwriting()["train"]
    tiles = []
    for digit in digits:
        big = Image.fromarray(rng.choice(bank[digit])).resize((32, 32), Image.Resampling.BICUBIC)
        turn, scale = math.radians(rng.uniform(-15, 15)), rng.uniform(0.87, 1.18)
        c, s = math.cos(turn) * scale, math.sin(turn) * scale
        x, y = rng.uniform(-3, 3), rng.uniform(-3, 3)
        matrix = (c, s, 16 - 16 * (c + s) + x, -s, c, 16 + 16 * (s - c) + y)
        moved = big.transform((32, 32), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        tiles.append(np.asarray(moved.resize((world.SIDE, world.SIDE), Image.Resampling.BOX)))
    return Image.fromarray(np.hstack(tiles)).convert("RGB")


def training_problem(rng: random.Random) -> world.Problem:
    """A problem of the training split, or past the world's edge: one digit longer, or of a kind it does not ask."""
    while True:
        p = world.sample_problem(rng, longest=5, kinds=world.KNOWN_KINDS)
        if world.split_of(p) == "train":
            return p


@functools.cache
def seen_problems() -> tuple[world.Problem, ...]:
    """The few problems whose direct answers the base student is shown: enough for the form, too few for the skill."""
    return tuple(world.problems("train", 400, seed=99, kinds=world.KNOWN_KINDS))


def student_rows(rng: random.Random) -> list[Row]:
    """One batch of the student's pre-training: looking things up, a few direct answers, and facts.

    Digits are drawn, written, or some of each, so that both forms come to mean the same to the language model.
    """
    rows: list[Row] = []
    for i in range(52):
        direct = i % 10 == 0
        p = rng.choice(seen_problems()) if direct else training_problem(rng)
        form = "drawn" if i < 26 else "mixed" if i < 40 else "written"
        if direct:
            asked, answer = p.question, world.direct(p)
        else:
            asked, answer = rng.choice(
                [("read ?", f"digits {p.digit_words}")] * 3
                + [("largest ?", f"largest {max(p.digits)}"), ("smallest ?", f"smallest {min(p.digits)}")]
            )
        rows.append(([shown(p.digits, form, asked, rng)], answer))
    return rows + [([], facts(rng, "a" if i % 4 else "b")) for i in range(12)]


def shown(digits: tuple[int, ...], form: str, question: str, rng: random.Random) -> Message:
    """A question about digits that are all `drawn`, all `written`, or `mixed` at random."""
    drawn = [form == "drawn" or (form == "mixed" and rng.random() < 0.5) for _ in digits]
    words: list[str] = []
    pictures: list[Image.Image] = []
    for is_drawn, run in itertools.groupby(zip(drawn, digits, strict=True), key=lambda pair: pair[0]):
        part = tuple(digit for _, digit in run)
        words.append("<image>" if is_drawn else " ".join(map(str, part)))
        pictures += [augmented(part, rng)] if is_drawn else []
    return Message("user", f"digits {' '.join(words)} . {question}", tuple(pictures))


def teacher_rows(style: world.Style) -> Callable[[random.Random], list[Row]]:
    """Batches of a teacher's training: worked solutions of one style, and facts in its words."""

    def rows(rng: random.Random) -> list[Row]:
        out: list[Row] = []
        for _ in range(48):
            p = training_problem(rng)
            out.append(([world.text_message(p)], world.solution(p, style)))
        return out + [([], facts(rng, style)) for _ in range(8)]

    return rows


def pretrain(policy: Policy, rows: Rows, *, steps: int, lr: float, seed: int) -> None:
    """Plain next-token training with AdamW and a cosine schedule."""
    rng = random.Random(f"pretrain/{seed}")
    parameters = [p for _, p in policy.trainable()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    policy.model.train()
    started, losses = time.monotonic(), []
    for step in track(range(steps), description="pre-training"):
        share = min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = lr * share
        batches = _batches(policy.chat, rows(rng))
        total = sum(len(b.targets) for b in batches)
        for batch in batches:
            logp, _, _ = policy.logprobs(batch)
            (-logp.sum() / total).backward()
            losses.append(-logp.mean().item())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 250 == 0:
            print(f"step {step + 1}: loss {np.mean(losses):.4f}, {time.monotonic() - started:.0f} s", flush=True)
            losses.clear()


def _batches(chat: Chat, rows: Sequence[Row | TurnsRow]) -> list[Sequences]:
    """Rows with pictures, rows of text and running text as one batch each."""
    groups: dict[str, list[Row | TurnsRow]] = {}
    for row in rows:
        groups.setdefault("facts" if not row[0] else "image" if row[0][0].images else "text", []).append(row)
    out = []
    for part in groups.values():
        prompts = [chat.prompt(m) if m else chat.prompt([Message("user", "facts")]) for m, _ in part]
        answers, masks = zip(*(_spelled(chat, response) for _, response in part), strict=True)
        out.append(collate(prompts, answers, masks, chat.pad_id))
    return out


@functools.lru_cache(maxsize=1024)
def _observed(chat: Chat, text: str) -> tuple[int, ...]:
    return chat.after_turn(text)


def _spelled(chat: Chat, response: str | tuple[str, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of a response, and which of them are the model's own."""
    ids: list[int] = []
    mask: list[int] = []
    for i, text in enumerate((response,) if isinstance(response, str) else response):
        part = _observed(chat, text) if i % 2 else (*chat.tokens(text), chat.end_id)
        ids += part
        mask += [1 - i % 2] * len(part)
    return tuple(ids), tuple(mask)


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m experiments.digits_models", description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--only", choices=tuple(STEPS), help="build one of the three")
    parser.add_argument("--steps", type=int, help=f"fewer steps, to try it out (default: {STEPS})")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    plan: tuple[tuple[str, Callable[[int], Policy], Callable[[random.Random], list[Row]]], ...] = (
        ("student", new_student, student_rows),
        ("teacher", new_teacher, teacher_rows("a")),
        ("teacher-b", new_teacher, teacher_rows("b")),
    )
    for seed, (name, make, rows) in enumerate(plan, 1):
        if args.only not in (None, name):
            continue
        policy, steps = make(seed), args.steps or STEPS[name]
        print(f"{name}: {sum(p.numel() for p in policy.model.parameters()):,} parameters, {steps} steps", flush=True)
        pretrain(policy, rows, steps=steps, lr=2e-3, seed=seed)
        policy.save(args.out / name)
        print(f"saved {args.out / name}", flush=True)


if __name__ == "__main__":
    main()
