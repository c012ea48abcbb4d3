"""The memory plan: known sizes of published models, a plan by hand, and measured peaks of tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

import tiny
from families import STUDENTS, grown
from gpu_docs import AS_MEASURED, H100, REPORTS, planned
from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.model import packing
from vold.model.batching import collate
from vold.model.footprint import footprint
from vold.model.memory import ASLEEP, CONTEXT, PROMPT_TOKENS, inprocess_teachers, plan
from vold.model.phases import PhaseMemory, phase_text, planned_and_measured
from vold.model.place import Peak, Phase
from vold.model.policy import DTYPES, Policy
from vold.model.recompute import checkpoint_layers
from vold.model.shapes import AliveBytes
from vold.run.model_sections import Lora, Student
from vold.run.recipe import Optimizer, load_recipe, recipe_from
from vold.training.optim import apply_update, build_optimizer
from vold.types import Prompt

GIB = 2**30
ROOT = Path(__file__).parents[2]
PAPER = ROOT / "recipes" / "qwen2_5_vl-3b.yaml"
TRAINED = 3_085_938_688
"""Weights of the student's language model."""


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
    assert list(phases) == ["traces", "sft", "align", "rollouts", "teacher scoring", "update", "eval"]
    trained = TRAINED
    update = phases["update"].parts
    assert update["weights"] == 2 * 3_754_622_976
    assert update["teacher"] == 2 * 8_190_735_360
    assert update["gradients"] == 4 * trained
    assert update["optimizer"] == 12 * trained  # two moments and a float32 copy
    # The highest moment is at the head: states that layers keep, a GPU's 2^28 logits twice, and the float32
    # sum of the tied embedding's gradient.
    kept = footprint(QWEN2_5_VL_3B, "bfloat16", recipe.student).kept
    assert update["activations"] == 8192 * (kept + 2 * 2048 * 2)
    assert update["head"] == 2 * 4 * 2**28 + 151936 * 2048 * 4
    assert update["allocator"] == sum(v for k, v in update.items() if k not in ("allocator", "context")) // 32
    assert update["context"] == CONTEXT
    assert "teacher" not in phases["sft"].parts
    rollouts = phases["rollouts"].parts
    assert rollouts["cache"] == 20 * (PROMPT_TOKENS + 512) * 36 * 2 * 2 * 128 * 2
    assert "gradients" not in rollouts
    # Alignment: both models stay, and the student answers 128 times side by side, or fewer as stage 2 says.
    align = phases["align"].parts
    assert (align["weights"], align["teacher"]) == (2 * 3_754_622_976, 2 * 8_190_735_360)
    assert align["cache"] == 128 * (PROMPT_TOKENS + 12) * 36 * 2 * 2 * 128 * 2
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
    # In each micro-batch: the root (embedding, tower, norm), two layers in bfloat16, the embedding's float32 gradient.
    layer = 2 * 2048 * 2048 + 2 * 2048 * 256 + 2048 + 2 * 256 + 3 * 2048 * 11008 + 2 * 2048
    groups = 2 * (3_754_622_976 - 36 * layer + 2 * layer) + 4 * 151936 * 2048
    assert halves["update"].parts["gathered groups"] == groups
    assert halves["update"].parts["weights"] == 2 * (3_754_622_976 - trained) // 2  # the rest is the optimizer's copy
    assert halves["rollouts"].parts["whole weights"] == 2 * 3_754_622_976
    assert made["update"].parts["whole weights and gradients"] == 2 * 3_754_622_976 + 4 * trained
    assert "gathered groups" not in made["update"].parts
    assert made["rollouts"].parts == halves["rollouts"].parts
    assert {p.name: p for p in plan(once, QWEN2_5_VL_3B, QWEN3_8B)} == phases


@pytest.mark.parametrize(("shard", "parts"), [("node", 2), ("world", 4)])
def test_a_student_is_divided_within_a_node_or_over_all(shard: str, parts: int, tmp_path: Path) -> None:
    """Two processes on each of two nodes; rollouts are shared out over all four."""
    recipe = tiny.recipe(tmp_path, run={"shard": shard}, student={"dtype": "bfloat16"}, distill={"prompts_per_step": 4})
    alone, found = (
        {p.name: p.parts for p in plan(recipe, QWEN2_5_VL_3B, QWEN3_8B, devices=devices, node=node)}
        for devices, node in ((1, None), (4, 2))
    )
    assert found["update"]["optimizer"] == 12 * TRAINED // parts
    assert found["rollouts"]["cache"] == alone["rollouts"]["cache"] // 4


def test_the_plan_of_the_published_pair_is_at_most_8_percent_above_what_cards_were_measured_at() -> None:
    """Figures of commit 399992d, but for the last the same memory as today. `held` is what tensors take and the
    allocator loses; CUDA's context is beside what PyTorch tells of its peak."""
    plans = planned("run.offload=true")
    for phase in ("sft", "update", "teacher scoring", "eval"):
        found = H100["step"]["memory"][phase]
        for figure in (found["allocated"], found.get("reserved", found["allocated"])):
            assert figure <= plans[phase] <= 1.08 * figure, phase
    for phase in ("update", "teacher scoring"):
        found = REPORTS["gpu-h200"]["measurements"]["step"]["memory"][phase]
        assert found["allocated"] <= plans[phase] <= 1.08 * found["allocated"], phase


def test_merging_adapters_one_by_one_is_planned_and_was_dear_all_at_once() -> None:
    """That version held the float32 products of 36 layers, and the sums in bfloat16."""
    lora = ["student.lora={rank: 64, alpha: 128}", "student.teacher_tokens=refuse"]
    recipe = load_recipe(PAPER, [*AS_MEASURED, *lora])
    (now,) = [p for p in plan(recipe, QWEN2_5_VL_3B, QWEN3_8B) if p.name == "weights written"]
    assert now.parts["merging"] == 10 * 2048 * 11008
    adapted = 36 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008)
    before = (now.held + (6 * adapted - now.parts["merging"]) * 33 / 32) / GIB
    figure = H100["step"]["memory"]["lora, weights written"]["allocated"]
    assert figure <= before <= 1.08 * figure
    assert now.held / GIB < figure - 14


def test_bytes_that_move_in_a_step() -> None:
    """The optimizer's state comes and goes with the update, and the teacher comes with its own phase."""
    for more, moved in ([], {}), (["run.offload=true"], {"teacher scoring": 2 * 8_190_735_360, "update": 24 * TRAINED}):
        phases = plan(load_recipe(PAPER, [*AS_MEASURED, *more]), QWEN2_5_VL_3B, QWEN3_8B)
        assert {p.name: p.moved for p in phases if p.moved} == moved


def test_teachers_of_routes_are_counted_and_those_that_are_the_students_own_weights_are_not(tmp_path: Path) -> None:
    raw = tiny.recipe_dict(tmp_path)
    raw["teacher"]["routes"] = {"a": dict(raw["teacher"]), "b": {"path": "other"}, "c": {"path": "s"}}
    raw["student"]["lora"], raw["distill"]["init"] = {"rank": 2}, "s"
    recipe = recipe_from(raw, where="test")
    teacher, student = tiny.teacher().model.config, tiny.student().model.config
    assert [t.path for t in inprocess_teachers(recipe)] == [raw["teacher"]["path"], "other", "s"]
    (update,) = [p for p in plan(recipe, student, teacher, teacher, student) if p.name == "update"]
    assert update.parts["teacher"] == 2 * footprint(teacher, "float32").weights


def test_a_server_that_sleeps_shares_the_device() -> None:
    recipe = load_recipe(PAPER.with_name("qwen2_5_vl-3b-lora.yaml"))
    phases = {p.name: p for p in plan(recipe, QWEN2_5_VL_3B)}
    assert phases["update"].parts["servers asleep"] == 2 * ASLEEP
    awake = phases["rollouts, on a server"].parts
    assert awake["servers asleep"] == ASLEEP
    assert awake["server"] > 2 * 3_754_622_976 + 8 * (512 + 8192) * 36 * 2 * 2 * 128 * 2
    assert phases["update"].held == phases["update"].total - 2 * ASLEEP - CONTEXT


def test_a_row_longer_than_the_budget_has_a_micro_batch_of_its_own() -> None:
    phases = [plan(load_recipe(PAPER, [f"distill.token_budget={n}"]), QWEN2_5_VL_3B) for n in (64, 512 + 8192, 8705)]
    first, second, third = ({p.name: p.total for p in found}["update"] for found in phases)
    assert first == second < third


def test_a_plan_without_a_teacher_in_the_process_leaves_it_out(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, distill={"objective": {"method": "grpo"}})
    names = [p.name for p in plan(recipe, tiny.student().model.config, tiny.teacher().model.config)]
    assert names == ["traces", "sft", "align", "rollouts", "update", "eval"]
    assert [p.name for p in plan(tiny.recipe(tmp_path), tiny.student().model.config, None)] == names[1:]


def test_phases_that_hold_no_model_are_left_out(tmp_path: Path) -> None:
    recipe = tiny.recipe(
        tmp_path, traces={"answers": "data"}, eval={"endpoint": {"urls": ["http://localhost:1/v1"], "model": "m"}}
    )
    names = [p.name for p in plan(recipe, tiny.student().model.config, tiny.teacher().model.config)]
    assert names == ["sft", "align", "rollouts", "teacher scoring", "update"]


RECIPE = load_recipe(
    ROOT / "recipes" / "demo.yaml",
    ["run.device=cpu", "traces.max_tokens=64", "sft.token_budget=1024", "distill=null", "eval=null", "align=null"],
)
"""On a CPU nothing is added for a GPU's allocator and context."""


KEPT: tuple[bool | Literal["selective"], ...] = (False, "selective", True)
WAYS = [("qwen2_5_vl", d, c, lora) for d in DTYPES for c in KEPT for lora in (None, Lora(rank=2, alpha=4))]
OTHERS: list[tuple[str, str, bool | Literal["selective"], Lora | None]] = [
    (name, "bfloat16", False, None) for name in STUDENTS if name != "qwen2_5_vl"
]


@pytest.mark.parametrize(("name", "dtype", "checkpointing", "lora"), WAYS + OTHERS)
def test_the_planned_peak_of_an_update_is_the_measured_one(
    name: str,
    dtype: str,
    checkpointing: bool | Literal["selective"],
    lora: Lora | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "SHORT", 0)  # a plan is of a GPU, where 16 bits attend in 16 bits
    config = grown(name)
    policy = Policy(type(STUDENTS[name]().model)(config).to(DTYPES[dtype]), STUDENTS[name]().chat)
    frozen = ("vision", "projector") if policy.is_vlm else ()
    spec = Student(path="s", dtype=dtype, freeze=frozen, lora=lora, activation_checkpointing=checkpointing)
    policy.freeze(frozen)  # type: ignore[arg-type]
    if lora is not None:
        policy.add_lora(rank=lora.rank, alpha=lora.alpha, seed=0)
    if checkpointing:
        checkpoint_layers(policy.model, checkpointing, lora)
    policy.model.train()
    optimizer = build_optimizer(policy, Optimizer(lr=1e-3))
    rows = 4
    batch = collate([Prompt((1, 2, 3, i)) for i in range(rows)], [(5,) * 252] * rows, [(1,) * 252] * rows, 0)

    def step() -> None:
        for _ in range(2):  # in the first micro-batch of a step gradients come only as activations go
            logp, _, _ = policy.logprobs(batch)
            (-logp.mean()).backward()
        apply_update(policy, optimizer, lr=1e-3, max_grad_norm=1.0)

    step()  # the first one makes the optimizer's state
    states = [v for state in optimizer.state.values() for v in state.values()]
    with AliveBytes([*policy.model.parameters(), *states]) as measured:
        step()
    made = footprint(config, dtype, spec)
    assert made.parameters == sum(p.numel() for p in policy.model.parameters())
    assert made.trained == sum(p.numel() for _, p in policy.trainable())
    recipe = RECIPE.model_copy(update={"student": spec})
    (sft,) = (p for p in plan(recipe, config) if p.name == "sft")
    made_plan = sft.total - sft.parts["copies that are written"]  # nothing is saved here
    # A GPU's plan has 1/32 more, for what its allocator loses between tensors.
    assert 0.98 < made_plan / measured.peak < 1.11


def test_selective_checkpointing_is_planned_at_half_of_what_all_activations_take() -> None:
    ways = (False, "selective", True)
    specs = [Student(path="s", dtype="bfloat16", activation_checkpointing=way) for way in ways]
    kept = [footprint(QWEN2_5_VL_3B, "bfloat16", spec).kept / 1e6 for spec in specs]
    assert kept == pytest.approx([4.8, 2.4, 0.2], abs=0.05)


def test_the_meter_sees_what_lives_at_the_same_time() -> None:
    start = torch.zeros(100)
    with AliveBytes([start]) as measured:
        a = start + 1  # 400 bytes beside 400
        del a
        b = start * 2
        c = b.view(10, 10) + b[:10]  # views are nothing new
    assert measured.peak == 1200
    assert c.shape == (10, 10)


def test_a_phase_in_words() -> None:
    phase = PhaseMemory("update", {"weights": 3 * GIB, "head": GIB // 2, "cache": 1000})
    assert phase_text(phase) == "3.50 GiB (weights 3.00, head 0.50)"


def test_the_plan_beside_what_a_first_step_took() -> None:
    phases = [PhaseMemory("rollouts", {"cache": 3 * GIB, "context": GIB}), PhaseMemory("update", {"weights": 2 * GIB})]
    peaks: dict[Phase, Peak] = {
        "sample": Peak(2 * GIB, 5 * GIB // 2), "teacher": Peak(1, 1), "update": Peak(GIB, 3 * GIB), "save": Peak(1, 1)
    }  # fmt: skip
    assert planned_and_measured(phases, "distill", peaks) == [
        "memory of rollouts: planned 3.00 GiB, at its peak 2.00, kept 2.50",
        "memory of update: planned 2.00 GiB, at its peak 1.00, kept 3.00: more than planned",
    ]
    # A quantised teacher is compared in the same phase with what it was made from; the larger plan is that of both.
    phases = [PhaseMemory("teacher scoring", {"teacher": GIB}), PhaseMemory("teacher compared", {"teacher": 3 * GIB})]
    assert planned_and_measured(phases, "distill", {"teacher": Peak(2 * GIB, 2 * GIB)}) == [
        "memory of teacher compared: planned 3.00 GiB, at its peak 2.00, kept 2.00"
    ]
    assert planned_and_measured([PhaseMemory("sft", {"weights": GIB})], "sft", peaks) == [
        "memory of sft: planned 1.00 GiB, at its peak 1.00, kept 3.00: more than planned"
    ]


@pytest.mark.parametrize("name", ["qwen3", "qwen2_5_vl"])
def test_a_model_of_one_layer_is_planned_like_those_of_more(name: str) -> None:
    """Its config names the kind of one layer, and the plan asks for two of them as well."""
    config, found = STUDENTS[name]().model.config, []
    for layers in (1, 2, 3):
        one = type(config).from_dict(config.to_dict())
        text = one.get_text_config()
        text.num_hidden_layers, text.layer_types = layers, ["full_attention"] * layers
        found.append(footprint(one, "float32", Student(path="s", freeze=())))
    for field in ("parameters", "kept", "cached"):
        first, second, third = (getattr(f, field) for f in found)
        assert second - first == third - second > 0, field


def test_balancing_samples_from_the_student_alone(tmp_path: Path) -> None:
    section = {"tasks": "train", "rollouts": 4, "batch_size": 3, "sampling": {"max_new_tokens": 100}}
    recipe = recipe_from(tiny.recipe_dict(tmp_path) | {"balance": section}, where="test")
    (phase,) = [p for p in plan(recipe, QWEN2_5_VL_3B, QWEN3_8B) if p.name == "balance"]
    assert phase.parts["weights"] == 4 * 3_754_622_976
    assert phase.parts["cache"] == 12 * (PROMPT_TOKENS + 100) * 36 * 2 * 2 * 128 * 4
    assert "teacher" not in phase.parts


@pytest.mark.parametrize(("kind", "bits"), [("nf4", 4.127), ("int8", 8.007)])
def test_a_quantised_pair_by_hand(kind: Literal["nf4", "int8"], bits: float) -> None:
    """NF4 has 4 bits a weight, 8 for each 64, 32 for each 256 x 64, and two tables a layer; int8 has 8, and 32 for each
    output. Embeddings, norms and the tower stay."""
    overrides = ["teacher.server=null", "distill.engine=null", "run.offload=true", f"teacher.quantize={kind}"]
    overrides += ["student.quantize=nf4", "student.lora={rank: 64, alpha: 128}", "student.teacher_tokens=refuse"]
    if kind == "int8":
        overrides += ["run.offload=false"]
    phases = {p.name: p for p in plan(load_recipe(PAPER, overrides), QWEN2_5_VL_3B, QWEN3_8B)}
    linear = 36 * (4096 * 48 * 128 + 32 * 128 * 4096 + 3 * 4096 * 12288)
    teacher = phases["teacher scoring"].parts["teacher"]
    assert teacher == pytest.approx(2 * (8_190_735_360 - linear) + bits / 8 * linear, rel=0.001)
    adapted = 36 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008)
    adapters = 36 * 64 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11008))
    student = phases["update"].parts["weights"]
    assert student == pytest.approx(2 * (3_754_622_976 - adapted) + 4.127 / 8 * adapted + 4 * adapters, rel=0.001)
    assert phases["update"].parts["optimizer"] == 8 * adapters
    # Once, a layer of what the teacher was made from is on the device, with what is no layer.
    layer = 4096 * 48 * 128 + 32 * 128 * 4096 + 3 * 4096 * 12288 + 2 * 4096 + 2 * 128
    compared = phases["teacher compared"].parts
    assert compared["teacher, not quantised"] == 2 * (2 * 151936 * 4096 + 4096 + layer)
    assert compared["teacher"] == teacher
    # Where it does not learn the student is not quantised, and has no adapters.
    assert phases["align"].parts["weights"] == 2 * 3_754_622_976
    assert phases["align"].parts["teacher"] == teacher
