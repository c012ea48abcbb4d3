"""The paper's pair with random weights, or as much of it as a card holds, and the recipe that uses it."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.data.worlds.call_tokens import NUMBERS, SPECIAL, WORDS, build_tokenizer
from vold.model.chat import Chat
from vold.model.memory import plan
from vold.model.policy import Policy
from vold.run.recipe import load_recipe

if TYPE_CHECKING:
    from vold.run.recipe import Recipe

ROOT = Path(__file__).parents[2]
LADDER = (
    (36, 16384), (36, 8192), (24, 8192), (16, 8192), (12, 8192), (8, 4096), (4, 4096), (2, 1024),
)  # fmt: skip
"""Layers of both models, and tokens of a micro-batch: the first that the card holds is measured."""
PLACEHOLDERS = 271
"""Rows of the published embeddings that have no token."""
OPTIMIZER = "{lr: 1.0e-5, warmup_steps: 0, schedule: constant}"


@dataclass(frozen=True)
class Shape:
    """What is measured.

    Attributes:
        layers: of the language models; 36 are published.
        budget: tokens of a micro-batch.
        tiny: two layers of next to no width, to see that the measurements run.
    """

    layers: int
    budget: int
    tiny: bool = False

    @property
    def updates(self) -> tuple[tuple[int, int], ...]:
        """Rows, and tokens of each, of the updates that are timed."""
        return ((2, 16), (4, 8)) if self.tiny else ((2, self.budget // 2), (self.budget // 512, 512))

    def described(self) -> dict[str, Any]:
        """For the file of figures."""
        if self.tiny:
            return {"student": "tiny", "teacher": "tiny", "layers": self.layers, "token_budget": self.budget}
        names = {"student": "Qwen2.5-VL-3B", "teacher": "Qwen3-8B"}
        return {**names, "layers": self.layers, "token_budget": self.budget, "weights": "random"}


TINY = Shape(2, 64, tiny=True)


@dataclass(frozen=True)
class Given:
    """What a measurement is handed.

    Attributes:
        device: `cuda` or `cpu`.
        shape: of the models.
        scratch: a directory for models and runs.
    """

    device: str
    shape: Shape
    scratch: Path

    def per(self, tiny: int, full: int) -> int:
        """A size of a measurement."""
        return tiny if self.shape.tiny else full


def configs(shape: Shape) -> tuple[Any, Any]:
    """Those of student and teacher, without the ids of a tokenizer."""
    student, teacher = QWEN2_5_VL_3B.to_dict(), QWEN3_8B.to_dict()
    for text in (student["text_config"], teacher):
        text["num_hidden_layers"] = shape.layers
        text["layer_types"] = text["layer_types"][: shape.layers]
        if shape.tiny:
            text |= {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
            text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    if shape.tiny:
        student["text_config"]["rope_parameters"]["mrope_section"] = [2, 1, 1]
        small = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "fullatt_block_indexes": [0]}
        student["vision_config"] |= {**small, "out_hidden_size": 32}
    return type(QWEN2_5_VL_3B).from_dict(student), type(QWEN3_8B).from_dict(teacher)


def save_models(given: Given) -> dict[str, Any]:
    """Write student, teacher and problems where `recipe_of` finds them; how many parameters the models have."""
    ours, theirs = configs(given.shape)
    rows = theirs.vocab_size
    fill = rows - given.per(3, PLACEHOLDERS) - len((*SPECIAL, *WORDS, *NUMBERS)) - 2
    tokenizer = build_tokenizer([*WORDS, *NUMBERS, *(f"w{i}" for i in range(fill))])
    ids = tokenizer.get_vocab()
    for name in ("image", "video"):
        setattr(ours, f"{name}_token_id", ids[f"<|{name}_pad|>"])
    ours.vision_start_token_id, ours.vision_end_token_id = ids["<|vision_start|>"], ids["<|vision_end|>"]
    images = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, min_pixels=56 * 56, max_pixels=448 * 448)
    found = {}
    for name, config, seen in (("student", ours, images), ("teacher", theirs, None)):
        text = config.get_text_config()
        text.bos_token_id, text.eos_token_id, text.pad_token_id = None, tokenizer.eos_token_id, tokenizer.pad_token_id
        factory: Any = AutoModelForCausalLM if seen is None else AutoModelForImageTextToText
        torch.manual_seed(0)
        with torch.device(given.device):
            model: Any = factory.from_config(config, dtype=torch.bfloat16)
        found[name] = sum(p.numel() for p in model.parameters())
        Policy(model, Chat(tokenizer, seen)).save(given.scratch / name)
    chance = random.Random(0)
    words = [w for w in WORDS if w.isalpha()]
    problems = (" ".join(chance.choices(words, k=given.per(8, 120))) for _ in range(64))
    lines = [json.dumps({"prompt": text, "reference": str(i)}) for i, text in enumerate(problems)]
    (given.scratch / "problems.jsonl").write_text("\n".join(lines))
    return found


def recipe_of(given: Given, *words: str) -> Recipe:
    """recipes/qwen2_5_vl-3b.yaml on one device, with nothing on servers: 32 rollouts of 512 tokens a step."""
    models = {name: given.scratch / name for name in ("student", "teacher")}
    prompts, rollouts, tokens = (2, 2, 8) if given.shape.tiny else (8, 4, 512)
    return load_recipe(
        ROOT / "recipes" / "qwen2_5_vl-3b.yaml",
        [
            f"run={{dir: {given.scratch / 'run'}, device: {given.device}, offload: true}}",
            f"student.path={models['student']}", "student.teacher_tokens=refuse",
            f"teacher={{path: {models['teacher']}, dtype: bfloat16}}", "traces=null", "sft=null", "align=null",
            "eval=null", f"tasks={{problems: {{kind: jsonl, path: {given.scratch / 'problems.jsonl'}, grader: math}}}}",
            "distill.tasks=problems", f"distill.init={models['student']}", "distill.engine=null",
            f"distill.prompts_per_step={prompts}", f"distill.rollouts={rollouts}", "distill.steps=2",
            f"distill.sampling.max_new_tokens={tokens}", f"distill.token_budget={given.shape.budget}",
            f"distill.optimizer={OPTIMIZER}", *words,
        ],
    )  # fmt: skip


def shape_for(memory: int, host: int, scratch: Path) -> Shape:
    """The largest of `LADDER` that is planned to fit.

    Args:
        memory: bytes of the card.
        host: bytes of the host's memory for what waits there between phases.
        scratch: see `Given`.
    """
    for layers, budget in LADDER:
        shape = Shape(layers, budget)
        phases = plan(recipe_of(Given("cuda", shape, scratch)), *configs(shape))
        moved = {p.name: p.moved for p in phases}
        waiting = moved["teacher scoring"] + moved["update"] // 2  # the one comes, the other comes and goes
        if max(p.total for p in phases) <= memory and waiting <= host:
            break
    return shape


def host_memory() -> int:
    """Half of the host's memory: models are read into the rest of it."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
