"""What waits in the host's memory: where it is in each phase, and that it comes back as it was."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.engines.teachers.teachers import open_teachers
from vold.model.memory import plan
from vold.model.place import Lane, Phase, Place, Shelf, host_memory, one_copy
from vold.run.recipe import load_recipe, recipe_from
from vold.training.distill import distill

HERE = torch.device("cpu")
"""As a device it is the host once more: a move is a copy into other memory, and tells itself by its address."""
PHASES = get_args(Phase)
PAPER = Path(__file__).parents[2] / "recipes" / "qwen2_5_vl-3b.yaml"


Models = tuple[torch.optim.Optimizer, torch.nn.Module]


def models() -> Models:
    """An optimizer that has made a step, and a teacher of two vectors."""
    weight = torch.nn.Parameter(torch.arange(3.0))
    optimizer = torch.optim.AdamW([weight])
    step(optimizer)
    return optimizer, torch.nn.BatchNorm1d(2)


def step(optimizer: torch.optim.Optimizer) -> None:
    (weight,) = optimizer.param_groups[0]["params"]
    weight.sum().backward()
    optimizer.step()


def place(optimizer: torch.optim.Optimizer, teacher: torch.nn.Module, *, late: bool = False) -> Place:
    """As the stage opens it: first its turns, then its teachers."""
    made = Place(HERE, optimizer)
    made.take_turns()
    made.invite([teacher], torch.nn.Linear(1, 1), late=late)
    return made


def vectors(optimizer: torch.optim.Optimizer, teacher: torch.nn.Module) -> tuple[list[torch.Tensor], ...]:
    """What travels: all but single numbers, such as the count of steps."""
    moments = [v for state in optimizer.state.values() for v in state.values() if v.numel() > 1]
    return moments, list(teacher.parameters())


def test_an_optimizer_goes_with_the_stage_that_had_it() -> None:
    """Its state is gone at once, and not when garbage is next collected."""
    gc.disable()
    try:
        optimizer, teacher = models()
        opened = place(optimizer, teacher)
        opened.enter("update")
        gone = weakref.ref(optimizer)
        del optimizer, opened
        assert gone() is None
    finally:
        gc.enable()


def addresses(optimizer: torch.optim.Optimizer, teacher: torch.nn.Module) -> list[list[int]]:
    return [[t.data_ptr() for t in part] for part in vectors(optimizer, teacher)]


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
        ("save", True, False, False),
    ],
)
def test_a_phase_brings_what_it_needs(phase: Phase, late: bool, moments: bool, teacher: bool) -> None:
    optimizer, module = models()
    kept = [t.data for part in vectors(optimizer, module) for t in part]
    there = place(optimizer, module, late=late)
    first = addresses(optimizer, module)
    there.enter("sample")
    away = addresses(optimizer, module)
    assert list(map(moved, first, away)) == [False, True]  # the moments were away already, to let the teacher in
    there.enter(phase)
    assert tuple(map(moved, away, addresses(optimizer, module))) == (moments, teacher)
    assert kept  # the memory of the first addresses stays taken, so that no copy can land there


def test_nothing_moves_until_turns_are_taken() -> None:
    optimizer, module = models()
    there = Place(HERE, optimizer)
    there.invite([module], torch.nn.Linear(1, 1), late=False)
    before = addresses(optimizer, module)
    for phase in PHASES:
        there.enter(phase)
        there.leave()
    assert addresses(optimizer, module) == before


def test_copies_in_the_hosts_memory_are_made_once_and_what_has_not_changed_is_not_copied_back() -> None:
    """Bytes that are copied in each phase of two steps: 2 moments of 3 numbers, and a teacher of 2 vectors of 2."""
    optimizer, module = models()
    there = place(optimizer, module)
    away, moments, teacher = set[tuple[int, ...]](), 2 * 3 * 4, 2 * 2 * 4
    for number in range(2):
        found = {}
        for phase in PHASES:
            with Copies() as copies:
                there.enter(phase)
                if phase == "update":
                    step(optimizer)
                there.leave()
            found[phase] = copies.moved
            if phase in ("sample", "save"):
                away.add(tuple(a for part in addresses(optimizer, module) for a in part))
        # The first time it leaves a teacher is copied, and nobody changes it afterwards.
        first = teacher if number == 0 else 0
        assert found == {"sample": first, "teacher": teacher, "update": 2 * moments, "save": 0}
    assert len(away) == 1
    again: tuple[Phase, ...] = ("update", "sample", "update")
    for phase in again:  # no optimizer step: the copy is as good as before
        with Copies() as copies:
            there.enter(phase)
            there.leave()
        assert copies.moved == (moments if phase == "update" else 0)


class Copies(TorchDispatchMode):
    """Sums the bytes of `copy_`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default:
            self.moved += args[0].nbytes
        return func(*args, **(kwargs or {}))


def test_what_comes_back_is_the_same_numbers_in_the_same_tensors() -> None:
    optimizer, module = models()
    before = [t for part in vectors(optimizer, module) for t in part]
    values = [t.detach().clone() for t in before]
    there = place(optimizer, module)
    for phase in PHASES * 2:
        there.enter(phase)
        there.leave()
    after = [t for part in vectors(optimizer, module) for t in part]
    assert list(map(id, after)) == list(map(id, before))
    assert all(map(torch.equal, after, values))


def test_tensors_share_blocks_of_host_memory_and_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vold.model.place.BLOCK", 256)
    like = [torch.arange(n, dtype=kind) for n in (20, 3, 100, 7) for kind in (torch.float32, torch.bfloat16)]
    rooms = host_memory(like, pinned=False)
    for room, tensor in zip(rooms, like, strict=True):
        room.copy_(tensor)
    assert all(map(torch.equal, rooms, like))
    blocks = {room.untyped_storage().data_ptr(): room.untyped_storage().nbytes() for room in rooms}
    assert len(blocks) < len(like)
    assert sum(blocks.values()) < sum(t.nbytes + 64 for t in like) + 256 * len(blocks)


def test_weights_that_two_models_have_in_common_are_there_once(tmp_path: Path) -> None:
    """A student with adapters and a teacher that is what it started from; what travels leaves them to the student."""
    student, teacher = tiny.student(), tiny.student()
    with torch.no_grad():
        teacher.model.get_input_embeddings().weight[0] += 1.0
    student.freeze(("vision", "projector"))
    student.add_lora(rank=2, alpha=4, seed=1)
    expected = {n: p.detach().clone() for n, p in teacher.model.named_parameters()}
    one_copy(teacher.model, student.model)
    assert all(torch.equal(p, expected[n]) for n, p in teacher.model.named_parameters())
    ours = {id(p) for p in student.model.parameters()}
    apart = [n for n, p in teacher.model.named_parameters() if id(p) not in ours]
    assert apart == ["model.language_model.embed_tokens.weight"]
    optimizer = torch.optim.AdamW([p for _, p in student.trainable()])
    there = Place(HERE, optimizer)
    there.take_turns()
    before = {n: p.data_ptr() for n, p in teacher.model.named_parameters()}
    there.invite([teacher.model], student.model, late=False)
    there.enter("sample")
    assert [n for n, p in teacher.model.named_parameters() if p.data_ptr() != before[n]] == apart


def test_teachers_of_one_path_are_loaded_once(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path)
    assert recipe.teacher is not None
    path = recipe.teacher.path
    raw = recipe.model_dump(mode="json")
    raw["teacher"]["routes"] = {"same": {"path": path}, "other": {"path": str(tmp_path / "student")}}
    teachers = open_teachers(recipe_from(raw, where="test"), tiny.student())
    assert teachers.by_route["same"].backend is teachers.by_route[""].backend
    assert len(teachers.modules) == 2


def final_weights(home: Path, offload: bool, **changes: Any) -> dict[str, torch.Tensor]:
    home.mkdir()
    recipe = tiny.recipe(home, run={"offload": offload}, distill={"init": str(home / "student"), "steps": 3, **changes})
    return load_file(distill(recipe) / "model.safetensors")


@pytest.mark.parametrize("method", ["vold", "minillm"])
def test_training_does_not_change_by_a_bit(method: str, tmp_path: Path) -> None:
    plain, moved = (final_weights(tmp_path / str(o), o, objective={"method": method}) for o in (False, True))
    assert plain.keys() == moved.keys()
    assert all(torch.equal(plain[name], moved[name]) for name in plain)


def test_the_plan_leaves_out_what_waits() -> None:
    """2 bytes x 8,190,735,360 of the teacher, 12 x 3,085,938,688 of the optimizer: two moments and a float32 copy."""
    here = ["teacher.server=null", "distill.engine=null"]
    with_all = {p.name: p for p in plan(load_recipe(PAPER, here), QWEN2_5_VL_3B, QWEN3_8B)}
    shared = {p.name: p for p in plan(load_recipe(PAPER, [*here, "run.offload=true"]), QWEN2_5_VL_3B, QWEN3_8B)}
    teacher, optimizer = 2 * 8_190_735_360, 12 * 3_085_938_688
    waiting = {"rollouts": teacher + optimizer, "teacher scoring": optimizer, "update": teacher, "sft": 0}
    for name, size in waiting.items():
        less = [sum(v for k, v in p[name].parts.items() if k != "allocator") for p in (with_all, shared)]
        assert less[0] - less[1] == size
        assert shared[name].total <= with_all[name].total
    late = [*here, "run.offload=true", "distill.objective={method: gkd}"]
    (update,) = [p for p in plan(load_recipe(PAPER, late), QWEN2_5_VL_3B, QWEN3_8B) if p.name == "update"]
    assert update.parts["teacher"] == teacher


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_memory_is_given_back() -> None:
    optimizer, _ = models()
    module = torch.nn.Linear(1024, 1024, device="cuda")
    there = Place(torch.device("cuda"), optimizer)
    there.take_turns()
    there.invite([module], torch.nn.Linear(1, 1), late=False)
    before = torch.cuda.memory_reserved()
    there.enter("sample")
    assert before - torch.cuda.memory_reserved() >= 4 * 1024 * 1024
    there.enter("teacher")
    assert module.weight.is_cuda


def test_what_waits_in_the_hosts_memory_is_lent_as_it_lies_there_and_not_overwritten_before_it_is_read() -> None:
    optimizer, module = models()
    there = place(optimizer, module)
    there.enter("save")
    (weight,) = optimizer.param_groups[0]["params"]
    state = {"weight": weight, **optimizer.state[weight]}
    before = {name: t.detach().clone() for name, t in state.items()}
    with Copies() as copies:
        lent = there.lend(state)
    assert copies.moved == 3 * 4 + 4  # the weights, and the count of steps, which does not travel
    assert lent["exp_avg"].data_ptr() == optimizer.state[weight]["exp_avg"].data_ptr()
    there.enter("update")
    step(optimizer)
    left = threading.Thread(target=there.leave)
    with there.reading():
        left.start()
        seen = {name: t.clone() for name, t in lent.items()}
    left.join()
    assert all(torch.equal(seen[name], value) for name, value in before.items())
    assert not torch.equal(lent["exp_avg"], before["exp_avg"])  # the copy of the step after


def test_copies_in_the_hosts_memory_are_asked_for_before_they_are_overwritten() -> None:
    asked: list[int] = []
    tensor = torch.arange(3.0)
    with Copies() as copies:
        shelf = Shelf(HERE, Lane(HERE), lambda: [tensor], lambda: asked.append(copies.moved))
        shelf.set_out()
    assert (asked, copies.moved) == ([0], 12)
