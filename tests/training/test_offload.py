"""What waits in the host's memory: where it is in each phase, and that it comes back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

import tiny
from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.errors import ConfigError
from vold.model.memory import plan
from vold.model.parallel import Processes
from vold.run.recipe import load_recipe
from vold.training.distill import distill
from vold.training.offload import Phase, TimeShare, refuse_offload

HERE = torch.device("cpu")
"""As a device it is the host once more: a move is a copy into other memory, and tells itself by its address."""
PHASES = get_args(Phase)
PAPER = Path(__file__).parents[2] / "recipes" / "qwen2_5_vl-3b.yaml"


def models() -> tuple[torch.optim.Optimizer, torch.nn.Module]:
    """An optimizer that has made a step, and a teacher with parameters and buffers."""
    weight = torch.nn.Parameter(torch.arange(3.0))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    return optimizer, torch.nn.BatchNorm1d(2)


def addresses(optimizer: torch.optim.Optimizer, teacher: torch.nn.Module) -> tuple[list[int], list[int]]:
    moments = [v.data_ptr() for state in optimizer.state.values() for v in state.values()]
    return moments, [t.data_ptr() for t in (*teacher.parameters(), *teacher.buffers())]


def moved(before: list[int], after: list[int]) -> bool:
    changed = {a != b for a, b in zip(before, after, strict=True)}
    (all_or_none,) = changed
    return all_or_none


@pytest.mark.parametrize(
    ("phase", "late", "moments", "teacher"),
    [
        ("sample", False, False, False),
        ("teacher", False, False, True),
        ("update", False, True, False),
        ("update", True, True, True),
    ],
)
def test_after_the_rollouts_a_phase_brings_what_it_needs(
    phase: Phase, late: bool, moments: bool, teacher: bool
) -> None:
    optimizer, module = models()
    share = TimeShare(True, optimizer, [module], HERE, late=late)
    kept = [*(v for state in optimizer.state.values() for v in state.values()), *(p.data for p in module.parameters())]
    first = addresses(optimizer, module)
    share.enter("sample")
    away = addresses(optimizer, module)
    assert all(map(moved, first, away))
    share.enter(phase)
    assert tuple(map(moved, away, addresses(optimizer, module))) == (moments, teacher)
    assert kept  # the memory of the first addresses stays taken, so that no copy can land there


def test_without_offload_nothing_moves() -> None:
    optimizer, module = models()
    share = TimeShare(False, optimizer, [module], HERE, late=False)
    before = addresses(optimizer, module)
    for phase in PHASES:
        share.enter(phase)
    assert addresses(optimizer, module) == before


def test_what_comes_back_is_the_same_numbers_in_the_same_parameters() -> None:
    optimizer, module = models()
    state = next(iter(optimizer.state.values()))
    first, parameters = dict(state), list(module.parameters())
    values = [p.detach().clone() for p in parameters]
    share = TimeShare(True, optimizer, [module], HERE, late=False)
    for phase in PHASES * 2:
        share.enter(phase)
    assert list(map(id, module.parameters())) == list(map(id, parameters))
    assert all(map(torch.equal, parameters, values))
    assert all(torch.equal(state[name], value) for name, value in first.items())


def final_weights(home: Path, offload: bool, **changes: Any) -> dict[str, torch.Tensor]:
    home.mkdir()
    recipe = tiny.recipe(home, run={"offload": offload}, distill={"init": str(home / "student"), "steps": 3, **changes})
    return load_file(distill(recipe) / "model.safetensors")


@pytest.mark.parametrize("method", ["vold", "minillm"])
def test_training_does_not_change_by_a_bit(method: str, tmp_path: Path) -> None:
    plain, moved = (final_weights(tmp_path / str(o), o, objective={"method": method}) for o in (False, True))
    assert plain.keys() == moved.keys()
    assert all(torch.equal(plain[name], moved[name]) for name in plain)


def test_several_processes_may_not_offload(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, run={"offload": True})
    refuse_offload(recipe, Processes(0, 1))
    with pytest.raises(ConfigError, match="only one process"):
        refuse_offload(recipe, Processes(1, 2))


def test_the_plan_leaves_out_what_waits() -> None:
    """2 bytes x 8,190,735,360 of the teacher, 12 x 3,085,938,688 of the optimizer: two moments and a float32 copy."""
    here = ["teacher.server=null", "distill.engine=null"]
    with_all = {p.name: p.total for p in plan(load_recipe(PAPER, here), QWEN2_5_VL_3B, QWEN3_8B)}
    shared = {p.name: p.total for p in plan(load_recipe(PAPER, [*here, "run.offload=true"]), QWEN2_5_VL_3B, QWEN3_8B)}
    teacher, optimizer = 2 * 8_190_735_360, 12 * 3_085_938_688
    assert with_all["rollouts"] - shared["rollouts"] == teacher + optimizer
    assert with_all["teacher scoring"] - shared["teacher scoring"] == optimizer
    assert with_all["update"] - shared["update"] == teacher
    assert with_all["sft"] == shared["sft"]
    late = [*here, "run.offload=true", "distill.objective={method: gkd}"]
    (update,) = [p for p in plan(load_recipe(PAPER, late), QWEN2_5_VL_3B, QWEN3_8B) if p.name == "update"]
    assert update.parts["teacher"] == teacher


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_memory_is_given_back(tmp_path: Path) -> None:
    optimizer, _ = models()
    module = torch.nn.Linear(1024, 1024, device="cuda")
    share = TimeShare(True, optimizer, [module], torch.device("cuda"), late=False)
    before = torch.cuda.memory_allocated()
    share.enter("sample")
    assert before - torch.cuda.memory_allocated() >= 4 * 1024 * 1024
    share.enter("teacher")
    assert module.weight.is_cuda
