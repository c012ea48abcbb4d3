"""The memory plan: known sizes of published models, a plan by hand, and measured peaks of tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from families import STUDENTS
from peak import PeakMemory
from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.model.batching import collate
from vold.model.memory import PROMPT_TOKENS, PhaseMemory, footprint, phase_text, plan
from vold.model.policy import DTYPES, Policy
from vold.run.model_sections import Lora, Student
from vold.run.recipe import Optimizer
from vold.training.optim import apply_update, build_optimizer
from vold.types import Prompt

GIB = 2**30


def test_published_models_have_their_published_sizes() -> None:
    """Qwen2.5-VL-3B has 3.75 billion parameters and Qwen3-8B 8.19 billion.

    By hand, Qwen3-8B: a layer is 4096 (32 + 2 x 8) 128 + 32 x 128 x 4096 for attention, 3 x 4096 x 12288, norms of
    2 x 4096 + 2 x 128; 36 of them, two embeddings of 151936 x 4096 and a last norm.
    """
    layer = 4096 * 48 * 128 + 32 * 128 * 4096 + 3 * 4096 * 12288 + 2 * 4096 + 2 * 128
    teacher = footprint(QWEN3_8B, "bfloat16")
    assert teacher.parameters == 36 * layer + 2 * 151936 * 4096 + 4096 == 8_190_735_360
    assert teacher.weights == 2 * teacher.parameters
    assert teacher.cached == 36 * 2 * 8 * 128 * 2
    assert (teacher.trained, teacher.kept) == (0, 0)
    student = footprint(QWEN2_5_VL_3B, "bfloat16", Student(path="s", dtype="bfloat16"))
    assert student.parameters == 3_754_622_976
    # Language model alone: q and o, k and v of 2 heads of 128, biases of q, k, v, the three of the MLP, two norms.
    layer = 2 * 2048 * 2048 + 2 * 2048 * 256 + 2048 + 2 * 256 + 3 * 2048 * 11008 + 2 * 2048
    assert student.trained == 36 * layer + 151936 * 2048 + 2048
    assert student.trained_low == student.trained


def test_adapters_of_a_published_model_are_counted() -> None:
    """Rank 32 on q, k, v, o, gate, up, down: 32 times the sum of inputs and outputs, in each of 36 layers."""
    spec = Student(path="s", dtype="bfloat16", lora=Lora(rank=32))
    made = footprint(QWEN2_5_VL_3B, "bfloat16", spec)
    ends = 2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11008)
    assert made.trained == 36 * 32 * ends
    assert made.trained_low == 0
    assert made.weights == 2 * 3_754_622_976 + 4 * made.trained


def test_the_plan_of_the_papers_models_worked_out_by_hand(tmp_path: Path) -> None:
    recipe = tiny.recipe(
        tmp_path,
        student={"path": "s", "dtype": "bfloat16", "activation_checkpointing": True},
        teacher={"path": "t", "dtype": "bfloat16"},
        distill={"prompts_per_step": 4, "rollouts": 5, "token_budget": 8192, "sampling": {"max_new_tokens": 512}},
    )
    phases = {p.name: p for p in plan(recipe, QWEN2_5_VL_3B, QWEN3_8B)}
    assert list(phases) == ["traces", "sft", "rollouts", "teacher scoring", "update", "eval"]
    trained = 3_085_938_688
    update = phases["update"].parts
    assert update["weights"] == 2 * 3_754_622_976
    assert update["teacher"] == 2 * 8_190_735_360
    assert update["gradients"] == 4 * trained
    assert update["optimizer"] == 12 * trained  # two moments and a float32 copy
    # A GPU's 2^28 logits twice, and the gradient of the tied embedding in float32 and once more in bfloat16.
    assert update["head"] == 2 * 4 * 2**28 + 151936 * 2048 * 6
    assert "teacher" not in phases["sft"].parts
    rollouts = phases["rollouts"].parts
    assert rollouts["cache"] == 20 * (PROMPT_TOKENS + 512) * 36 * 2 * 2 * 128 * 2
    assert "gradients" not in rollouts
    # Four prompts side by side and 24 tokens of an answer: keys and values of 36 layers with 8 heads of 128.
    assert phases["traces"].parts["cache"] == 4 * (PROMPT_TOKENS + 24) * 36 * 2 * 8 * 128 * 2
    assert phases["traces"].parts["teacher"] == update["teacher"]
    assert phases["eval"].parts["cache"] == 4 * (PROMPT_TOKENS + 12) * 36 * 2 * 2 * 128 * 2
    assert "optimizer" not in phases["eval"].parts
    halves = {p.name: p for p in plan(recipe, QWEN2_5_VL_3B, QWEN3_8B, devices=2)}
    assert halves["update"].parts["optimizer"] == 6 * trained
    assert halves["update"].parts["teacher"] == update["teacher"]
    assert halves["rollouts"].parts["cache"] == rollouts["cache"] // 2
    # Exchanged once a step, an update holds the whole model and a float32 gradient of each weight beside its half.
    once = recipe.model_copy(update={"run": recipe.run.model_copy(update={"exchange": "step"})})
    made = {p.name: p for p in plan(once, QWEN2_5_VL_3B, QWEN3_8B, devices=2)}
    assert made["update"].total - halves["update"].total == 2 * 3_754_622_976 + 4 * trained
    assert made["rollouts"].parts == halves["rollouts"].parts
    assert {p.name: p for p in plan(once, QWEN2_5_VL_3B, QWEN3_8B)} == phases


def test_a_plan_without_a_teacher_in_the_process_leaves_it_out(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, distill={"objective": {"method": "grpo"}})
    names = [p.name for p in plan(recipe, tiny.student().model.config, tiny.teacher().model.config)]
    assert names == ["traces", "sft", "rollouts", "update", "eval"]
    assert [p.name for p in plan(tiny.recipe(tmp_path), tiny.student().model.config, None)] == names[1:]


def test_phases_that_hold_no_model_are_left_out(tmp_path: Path) -> None:
    recipe = tiny.recipe(
        tmp_path, traces={"answers": "data"}, eval={"endpoint": {"urls": ["http://localhost:1/v1"], "model": "m"}}
    )
    names = [p.name for p in plan(recipe, tiny.student().model.config, tiny.teacher().model.config)]
    assert names == ["sft", "rollouts", "teacher scoring", "update"]


def grown(name: str) -> Any:
    """The config of a tiny student, wide and deep enough for its activations to count."""
    config = STUDENTS[name]().model.config
    text = config.get_text_config()
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 64, 192, 4
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 4, 2, 16
    if getattr(text, "layer_types", None):
        text.layer_types = ["full_attention"] * 4
    if "mrope_section" in (text.rope_parameters or {}):
        text.rope_parameters["mrope_section"] = [4, 2, 2]
    if hasattr(getattr(config, "vision_config", None), "out_hidden_size"):
        config.vision_config.out_hidden_size = 64
    return config


WAYS = [("qwen2_5_vl", d, c, lora) for d in DTYPES for c in (False, True) for lora in (None, Lora(rank=2, alpha=4))]
OTHERS: list[tuple[str, str, bool, Lora | None]] = [
    (name, "bfloat16", False, None) for name in STUDENTS if name != "qwen2_5_vl"
]


@pytest.mark.parametrize(("name", "dtype", "checkpointing", "lora"), WAYS + OTHERS)
def test_the_planned_peak_of_an_update_is_the_measured_one(
    name: str, dtype: str, checkpointing: bool, lora: Lora | None
) -> None:
    config = grown(name)
    policy = Policy(type(STUDENTS[name]().model)(config).to(DTYPES[dtype]), STUDENTS[name]().chat)
    frozen = ("vision", "projector") if policy.is_vlm else ()
    spec = Student(path="s", dtype=dtype, freeze=frozen, lora=lora, activation_checkpointing=checkpointing)
    policy.freeze(frozen)  # type: ignore[arg-type]
    if lora is not None:
        policy.add_lora(rank=lora.rank, alpha=lora.alpha, seed=0)
    if checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    policy.model.train()
    optimizer = build_optimizer(policy, Optimizer(lr=1e-3))
    rows, length = 4, 256
    batch = collate([Prompt((1, 2, 3, i)) for i in range(rows)], [(5,) * 252] * rows, [(1,) * 252] * rows, 0)

    def step() -> None:
        logp, _, _ = policy.logprobs(batch)
        (-logp.mean()).backward()
        apply_update(policy, optimizer, lr=1e-3, max_grad_norm=1.0)

    step()  # the first one makes the optimizer's state
    states = [v for state in optimizer.state.values() for v in state.values()]
    with PeakMemory([*policy.model.parameters(), *states]) as measured:
        step()
    made = footprint(config, dtype, spec)
    assert made.parameters == sum(p.numel() for p in policy.model.parameters())
    assert made.trained == sum(p.numel() for _, p in policy.trainable())
    logits = 2 * 4 * rows * length * config.get_text_config().vocab_size
    held = made.weights + 12 * made.trained + 4 * made.trained_low
    planned = held + rows * length * made.kept + made.head + logits
    assert 0.85 < planned / measured.peak < 1.15


def test_the_meter_sees_what_lives_at_the_same_time() -> None:
    start = torch.zeros(100)
    with PeakMemory([start]) as measured:
        a = start + 1  # 400 bytes beside 400
        del a
        b = start * 2
        c = b.view(10, 10) + b[:10]  # views are nothing new
    assert measured.peak == 1200
    assert c.shape == (10, 10)


def test_a_phase_in_words() -> None:
    phase = PhaseMemory("update", {"weights": 3 * GIB, "head": GIB // 2, "cache": 1000})
    assert phase_text(phase) == "3.50 GiB (weights 3.00, head 0.50)"
