"""Untrained models of a few thousand parameters and recipes that run in seconds, for tests that need the real thing."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vold.data.sources import Tasks, open_tasks
from vold.data.worlds.call_tokens import build_tokenizer
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.routed import RoutedTeacher
from vold.model.chat import Chat
from vold.model.policy import Policy
from vold.run.directory import open_stage
from vold.run.recipe import AnyTaskSpec, Recipe, TaskSpec, recipe_from
from vold.training.prompted import Prompted, Step
from vold.types import Prompt, ScoreRequest, Task, TokenScores


def student(seed: int = 0, tokenizer: Any = None, rows: int | None = None) -> Policy:
    """Of the demo world's tokenizer unless another is given, with three padded rows, as published checkpoints have."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer() if tokenizer is None else tokenizer
    ids = tokenizer.get_vocab()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": rows or len(ids) + 3,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [0, 1],
            "out_hidden_size": 16,
            "in_channels": 3,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024)
    return Policy(Qwen2_5_VLForConditionalGeneration(config), Chat(tokenizer, images))


def teacher(
    seed: int = 1, tokenizer: Any = None, rows: int | None = None, *, positions: int = 128, rope: Any = None
) -> Policy:
    """Of the demo world's tokenizer, without padded rows, unless others are given."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer() if tokenizer is None else tokenizer
    config = Qwen3Config(
        vocab_size=rows or len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=positions,
        rope_parameters=rope,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Policy(Qwen3ForCausalLM(config), Chat(tokenizer))


class RecordingTeacher:
    """A real teacher that remembers what it was asked."""

    def __init__(self) -> None:
        self.inner = InProcessTeacher(teacher(), temperature=1.0, token_budget=512)
        self.asked: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        self.asked += requests
        return self.inner.score(requests)


TASKS: dict[str, dict[str, Any]] = {
    "train": {"kind": "digits", "split": "train", "form": "text", "size": 12, "seed": 1},
    "image": {"kind": "digits", "split": "test", "form": "image", "size": 10, "seed": 3},
    "text": {"kind": "digits", "split": "test", "form": "text", "size": 10, "seed": 3},
}
"""Task sets of the recipe below; its stages but the evaluation use `train`."""


def opened(
    spec: TaskSpec | dict[str, Any], *, references: bool = True, others: dict[str, dict[str, Any]] | None = None
) -> Tasks:
    """The tasks of one set; `others` stand beside it in the recipe."""
    sets = TypeAdapter(dict[str, AnyTaskSpec]).validate_python({"set": spec, **(others or {})})
    return open_tasks(sets, "set", references=references)


NO_TEACHER = RoutedTeacher({})
"""Answers nothing, for updates that must not ask."""


def step(
    prompts: Sequence[Prompt],
    *,
    number: int = 0,
    seed: int = 3,
    tasks: Sequence[Task] | None = None,
    teacher_prompts: Sequence[Prompt | None] | None = None,
) -> Step:
    """A step of stage 2 over these prompts; the teacher's are the student's unless others are given."""
    tasks = tasks or [Task(f"t{i}", (), "", "exact") for i in range(len(prompts))]
    theirs = prompts if teacher_prompts is None else teacher_prompts
    return Step(number, seed, [Prompted(*parts) for parts in zip(tasks, prompts, theirs, strict=True)])


@functools.cache
def _saved(name: str) -> tuple[dict[str, bytes], torch.Tensor]:
    """The files of a model, and PyTorch's random numbers after it was made."""
    with tempfile.TemporaryDirectory() as folder:
        {"student": student, "teacher": teacher}[name]().save(Path(folder))
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}, torch.get_rng_state()


def recipe_dict(home: Path) -> dict[str, Any]:
    """A whole recipe over tiny models saved below `home`; every stage takes a second or two."""
    for name in ("student", "teacher"):
        if not (home / name).is_dir():
            files, state = _saved(name)
            (home / name).mkdir(parents=True)
            for file, content in files.items():
                (home / name / file).write_bytes(content)
            torch.set_rng_state(state)
    sampling = {"max_new_tokens": 12, "temperature": 1.0}
    return {
        "run": {"dir": str(home / "run"), "seed": 5, "threads": 1},
        "student": {"path": str(home / "student")},
        "teacher": {"path": str(home / "teacher")},
        "tasks": dict(TASKS),
        "traces": {"tasks": "train", "sampling": {"max_new_tokens": 24}, "batch_size": 4},
        "sft": {"steps": 6, "batch_size": 4, "optimizer": {"lr": 1e-3, "warmup_steps": 2}, "checkpoint_every": 2},
        "align": {"tasks": "train", "sampling": sampling, "rollouts": 2},
        "distill": {
            "tasks": "train",
            "objective": {"method": "vold", "teacher_loss": {"coefficient": 1.0}},
            "prompts_per_step": 2,
            "rollouts": 3,
            "steps": 6,
            "sampling": sampling,
            "optimizer": {"lr": 1e-3, "warmup_steps": 2},
            "checkpoint_every": 2,
            "keep_rollouts_every": 2,
        },
        "eval": {
            "tasks": ["image", "text"],
            "sampling": {"max_new_tokens": 12, "temperature": 0},
            "batch_size": 4,
        },
    }


def recipe(home: Path, **sections: dict[str, Any]) -> Recipe:
    """`recipe_dict` validated, with sections merged one level deep."""
    raw = recipe_dict(home)
    for name, values in sections.items():
        raw[name] = {**(raw.get(name) or {}), **values}
    return recipe_from(raw, where="test recipe")


def begun(recipe: Recipe, stage: str) -> Path:
    """The directory of a stage that has been started and has made something."""
    directory = open_stage(recipe, stage)
    made = {"traces": "traces.jsonl", "balance": "labels.jsonl", "align": "align.json", "eval": "base/image.jsonl"}
    file = directory / made.get(stage, "metrics.jsonl")
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}\n")
    return directory


def write_traces(home: Path, made: Recipe) -> None:
    """Stored traces as `vold traces` leaves them, every answer whole (an untrained teacher rarely ends one)."""
    from vold.data.sources.digits import Spec as DigitsSpec
    from vold.data.worlds.digits import DigitTasks, problems, solution
    from vold.run.files import append_jsonl

    assert made.traces is not None
    spec = made.tasks[made.traces.tasks]
    assert isinstance(spec, DigitsSpec)
    tasks = DigitTasks(spec.split, spec.form, spec.size, spec.seed)
    chat = teacher().chat
    rows = []
    for i, p in enumerate(problems(spec.split, spec.size, spec.seed)):
        text = solution(p, "a")
        ids = [*chat.tokens(text), chat.end_id]
        rows.append(
            {
                "task_id": tasks[i].id,
                "response": text,
                "response_ids": ids,
                "action_mask": [1] * len(ids),
                "finish": "stop",
                "score": 1.0,
                "extracted": str(p.answer),
                "note": "equal",
            }
        )
    append_jsonl(home / "run" / "traces" / "traces.jsonl", rows)
