"""Weights in 4 and 8 bits: what is quantised, how exact it is, what a run with them trains, keeps and refuses."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from families import STUDENTS, batch_of, grown, with_adapters
from killed import interrupted_at_update
from vold.data.worlds.digits import DigitTasks
from vold.engines.samplers.decoder import can_record
from vold.engines.teachers.quantize_error import QuantizeErrors
from vold.engines.teachers.teachers import open_teachers
from vold.engines.transfer.source import Source
from vold.errors import TrainingError
from vold.model.batching import collate
from vold.model.families import linear_layers
from vold.model.footprint import footprint
from vold.model.parallel import ALONE
from vold.model.policy import Policy
from vold.model.quantized import Quantized, quantized_layers, whole_weight
from vold.run.model_sections import Lora, Student
from vold.training.distill import distill
from vold.training.rollout_log import describe
from vold.training.sft import sft
from vold.types import Completion, Grade, Rollout

bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'vold[quant]'")
KINDS: tuple[Quantized, ...] = ("nf4", "int8")
each = pytest.mark.parametrize("kind", KINDS)
NF4 = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)  # fmt: skip
"""The sixteen numbers of QLoRA's appendix E."""


def saved(name: str, home: Path) -> Policy:
    policy = STUDENTS[name]()
    policy.save(home)
    return policy


@each
@pytest.mark.parametrize("name", STUDENTS)
def test_the_language_models_linear_layers_are_quantised_and_nothing_else(
    name: str, kind: Quantized, tmp_path: Path
) -> None:
    before = saved(name, tmp_path)
    policy = Policy.load(str(tmp_path), dtype="bfloat16", quantize=kind)
    prefix = "" if policy.model.base_model is policy.model else f"{policy.model.base_model_prefix}."
    assert {*quantized_layers(policy.model)} == {
        f"{prefix}{n}.weight" for n in linear_layers(before.model.base_model, before.family)
    }
    kinds = {n: p.dtype for n, p in policy.model.named_parameters()}
    small = torch.uint8 if kind == "nf4" else torch.int8
    assert {n for n, d in kinds.items() if d == small} == {*quantized_layers(policy.model)}
    assert {*kinds.values()} == {small, torch.bfloat16}
    assert sum(p.numel() for p in before.model.parameters()) == policy.model.num_parameters()


@pytest.mark.parametrize(("kind", "records"), [(None, True), ("nf4", True), ("int8", False)])
def test_steps_of_int8_weights_are_not_recorded_as_graphs(
    kind: Quantized | None, records: bool, tmp_path: Path
) -> None:
    """Their products ask for outliers, for which the host waits."""
    saved("qwen3", tmp_path)
    assert can_record(Policy.load(str(tmp_path), quantize=kind)) == records


def test_nf4_is_the_nearest_of_sixteen_numbers_times_the_largest_of_64(tmp_path: Path) -> None:
    before = saved("qwen2_5_vl", tmp_path)
    policy = Policy.load(str(tmp_path), quantize="nf4")
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    exact = before.model.state_dict()[name]
    blocks = exact.reshape(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    codes = torch.tensor(NF4)
    nearest = codes[(blocks / scales)[..., None].sub(codes).abs().argmin(-1)] * scales
    # Scales are themselves rounded to 8 bits.
    got = whole_weight(quantized_layers(policy.model)[name], torch.float32)
    torch.testing.assert_close(got, nearest.reshape(exact.shape), rtol=0.05, atol=1e-6)


@each
def test_a_quantised_model_answers_nearly_as_before(kind: Quantized, tmp_path: Path) -> None:
    plain = saved("qwen2_5_vl", tmp_path)
    plain.model.eval()
    policy = Policy.load(str(tmp_path), quantize=kind)
    policy.model.eval()
    batch = batch_of(plain, "text")
    with torch.no_grad():
        away = (plain.logprobs(batch)[0] - policy.logprobs(batch)[0]).abs()
    assert 0 < float(away.max()) < 0.05


@each
@pytest.mark.parametrize("name", ["qwen2_5_vl", "idefics3", "qwen3"])
def test_adapters_on_quantised_weights_are_merged_into_whole_ones(name: str, kind: Quantized, tmp_path: Path) -> None:
    """By hand: W is what the quantised layer stands for, and the sum is W + (alpha / rank) B A."""
    saved(name, tmp_path / "base")
    policy = Policy.load(str(tmp_path / "base"), dtype="bfloat16", quantize=kind)
    policy.freeze(["vision", "projector"] if policy.is_vlm else [])
    with_adapters(policy)
    assert {p.dtype for n, p in policy.trainable()} == {torch.float32}
    policy.save(tmp_path / "tuned")
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert "quantization_config" not in config
    tuned = Policy.load(str(tmp_path / "tuned"), dtype="bfloat16")
    assert not quantized_layers(tuned.model)
    adapters = dict(policy.model.named_parameters())
    after = tuned.model.state_dict()
    for weight, layer in quantized_layers(policy.model).items():
        plain = weight.replace(".base_layer.", ".")
        a, b = (adapters[weight.replace("base_layer.weight", f"lora_{x}.default.weight")] for x in "AB")
        expected = whole_weight(layer, torch.bfloat16).float() + 4.0 * (b @ a)
        torch.testing.assert_close(after[plain], expected.bfloat16())
    with torch.no_grad():
        policy.model.eval(), tuned.model.eval()
        got, expected = (p.logprobs(batch_of(p, "text"))[0] for p in (tuned, policy))
    torch.testing.assert_close(got, expected, rtol=0.05, atol=0.1)


@each
@pytest.mark.parametrize("kept", [False, True])
def test_servers_that_take_adapters_get_whole_weights_below_them(kind: Quantized, kept: bool, tmp_path: Path) -> None:
    """W is what the quantised layer stands for, without the adapter."""
    saved("qwen3", tmp_path)
    policy = Policy.load(str(tmp_path), dtype="bfloat16", quantize=kind)
    with_adapters(policy)
    source = Source(policy, plain=True, kept=kept)
    source.refresh()
    sent = dict(source.tensors(None, torch.bfloat16))
    file = load_file(tmp_path / "model.safetensors")
    assert {n: t.shape for n, t in sent.items()} == {n: t.shape for n, t in file.items()}
    for weight, layer in quantized_layers(policy.model).items():
        expected = whole_weight(layer, torch.bfloat16)
        torch.testing.assert_close(sent[weight.replace(".base_layer.", ".")], expected, rtol=0, atol=0)


def test_a_run_on_quantised_weights_that_is_stopped_goes_on_to_the_same_weights(
    tmp_path: Path,
) -> None:
    recipes = []
    for home in (tmp_path / "whole", tmp_path / "broken"):
        student = {"lora": {"rank": 2}, "quantize": "nf4", "dtype": "bfloat16"}
        recipes.append(tiny.recipe(home, student=student, teacher={"quantize": "int8"}))
        tiny.write_traces(home, recipes[-1])
    for work in (sft, distill):
        finals = [work(recipes[0])]
        interrupted_at_update(4, partial(work, recipes[1]))
        finals.append(work(recipes[1]))
        first, second = ((final / "model.safetensors").read_bytes() for final in finals)
        assert first == second
    rows = [json.loads(line) for line in (finals[0].parent / "metrics.jsonl").read_text().splitlines()]
    kept = json.loads((finals[0].parent / "quantize-error.json").read_text())[""]
    assert kept["precision"] == "float32, int8"
    assert {(r["quantize_error"], r["quantize_error_p99"]) for r in rows} == {(kept["mean"], kept["p99"])}


@each
def test_the_error_of_a_quantised_teacher_is_what_two_passes_by_hand_give(kind: Quantized, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, teacher={"quantize": kind})
    assert recipe.distill is not None
    teachers = open_teachers(recipe, tiny.student())
    tasks = DigitTasks("train", "text", 3, 1)
    prompts = [teachers.prompt(tasks[i]) for i in range(3)]
    rollouts = [
        Rollout(f"t{i}", i, (1,), Completion((5 + i, 6, 7), (0.0,) * 3, (1,) * 3, "stop"), Grade(0.0, "", "wrong"))
        for i in range(3)
    ]
    errors = QuantizeErrors(recipe, recipe.distill, tmp_path, teachers)
    row = describe(rollouts)
    assert errors.noted(row) == row
    errors.compare(rollouts, prompts, ALONE)
    logps = []
    for policy in (Policy.load(str(tmp_path / "teacher"), quantize=k) for k in (kind, None)):
        policy.model.eval()
        batch = collate([p for p in prompts if p], [r.completion.ids for r in rollouts], [(1,) * 3] * 3, 0)
        with torch.no_grad():
            logps.append(policy.logprobs(batch)[0].double())
    away = (logps[0] - logps[1]).abs()
    found = errors.noted(row)
    assert found.quantize_error == pytest.approx(float(away.mean()), rel=1e-3)
    assert found.quantize_error_p99 == pytest.approx(float(away.quantile(0.99)), rel=1e-3)
    assert 0 < float(away.mean()) < 0.1


@each
def test_a_teacher_that_is_too_far_off_stops_the_run_and_stops_it_again(kind: Quantized, tmp_path: Path) -> None:
    gate = {"limit": 1e-9, "action": "stop"}
    more = {"distill": {"init": str(tmp_path / "student")}}
    recipe = tiny.recipe(tmp_path, teacher={"quantize": kind, "quantize_error": gate}, **more)
    for _ in range(2):
        with pytest.raises(TrainingError, match="not the model that it was made from"):
            distill(recipe)
    kept = tmp_path / "run" / "distill" / "quantize-error.json"
    before = kept.stat().st_mtime_ns
    for action in ("auto", "warn"):  # far below half a nat
        gate["action"] = action
        distill(tiny.recipe(tmp_path, teacher={"quantize": kind, "quantize_error": gate}, **more))
    assert kept.stat().st_mtime_ns == before


@each
def test_planned_bytes_of_quantised_weights_are_those_that_lie_there(kind: Quantized, tmp_path: Path) -> None:
    config = grown("qwen2_5_vl")
    Policy(type(STUDENTS["qwen2_5_vl"]().model)(config), STUDENTS["qwen2_5_vl"]().chat).save(tmp_path)
    policy = Policy.load(str(tmp_path), dtype="bfloat16", quantize=kind)
    lie = sum(p.nbytes for p in policy.model.parameters())
    for layer in quantized_layers(policy.model).values():
        if kind == "int8":
            lie += layer.state.SCB.nbytes if layer.weight.SCB is None else layer.weight.SCB.nbytes
        else:
            state = layer.weight.quant_state
            lie += sum(
                t.nbytes for t in (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
            )
    made = footprint(config, "bfloat16", quantize=kind)
    assert made.weights == pytest.approx(lie, rel=0.01)
    spec = Student(path="s", dtype="bfloat16", quantize=kind, lora=Lora(rank=2))
    trained = footprint(config, "bfloat16", spec)
    assert trained.weights == made.weights + 4 * trained.trained
    assert made.weights < 0.7 * footprint(config, "bfloat16").weights
