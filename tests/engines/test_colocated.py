"""vLLM in the training process: what a recipe may say of it, its turns on a GPU, and whole runs where vLLM is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from engine_backends import saved, text_model
from served import metrics, raw_recipe
from vold.engines.samplers.colocated import ColocatedVllm, ColocatedWeights
from vold.engines.samplers.student import open_sampler
from vold.errors import ConfigError
from vold.model.parallel import Processes
from vold.run.recipe import Recipe, recipe_from
from vold.training.distill import distill

VLLM = importlib.util.find_spec("vllm") is not None
"""test_vllm_colocated.py starts this file in an environment that has it."""


def colocated(home: Path, **more: Any) -> Recipe:
    raw = raw_recipe(home, optimizer={"lr": 1e-2, "warmup_steps": 1}, mismatch={"limit": 1e-6, "action": "stop"})
    raw["distill"]["engine"] = {"colocate": True, **more}
    return recipe_from(raw, where="test")


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"colocate": True, "sleep": True}, "without what is said of servers"),
        ({"colocate": True, "transfer": "ipc"}, "without what is said of servers"),
        ({"colocate": True, "urls": ["http://localhost:8002/v1"], "model": "m"}, "without what is said of servers"),
        ({"urls": ["http://localhost:8002/v1"], "model": "m", "memory": 0.5}, "of vLLM in this process"),
        ({"urls": ["http://localhost:8002/v1"], "model": "m", "context": 512}, "of vLLM in this process"),
        ({"urls": ["http://localhost:8002/v1"]}, "needs `model`"),
        ({"colocate": False}, "or colocate: true"),
    ],
)
def test_a_recipe_says_either_where_servers_are_or_that_there_are_none(
    engine: dict[str, Any], words: str, tmp_path: Path
) -> None:
    raw = raw_recipe(tmp_path)
    raw["distill"]["engine"] = engine
    with pytest.raises(ConfigError, match=words) as caught:
        recipe_from(raw, where="test")
    assert "distill.engine" in str(caught.value)


def test_several_processes_are_refused(tmp_path: Path) -> None:
    recipe = colocated(tmp_path)
    assert recipe.distill is not None
    with pytest.raises(ConfigError, match="one training process only"):
        open_sampler(recipe.distill, text_model(3), tmp_path, Processes(0, 2))


@pytest.mark.skipif(VLLM, reason="vLLM is here")
def test_an_environment_without_vllm_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in the environment that vold is in") as caught:
        distill(colocated(tmp_path))
    assert "engine.colocate" in str(caught.value)


class Recorder:
    """Stands for vLLM on a GPU: what it is told, in order."""

    def __init__(self) -> None:
        self.told = list[str]()

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: self.told.append(" ".join([name, *map(str, args), *map(str, more.values())]))

    def collective_rpc(self, method: str, kwargs: dict[str, Any] | None = None) -> None:
        self.told.append(method + (f" {len(list(kwargs['weights_iterator']))}" if kwargs else ""))


def test_on_a_gpu_it_has_room_for_weights_then_the_weights_then_room_for_keys_and_values_and_sleeps() -> None:
    policy, engine = text_model(3), object.__new__(ColocatedVllm)
    told = Recorder()
    engine.llm, engine.sleeps, engine._awake = told, True, False
    engine.dtype = policy.model.dtype
    weights = ColocatedWeights(engine, policy)
    for step in (1, 2):
        weights.changed(step)
        with engine.awake(weights.bring_to_woken), engine.awake(weights.bring_to_woken):
            weights.bring()
            assert weights.in_place()
    parameters = len(list(policy.model.parameters()))
    assert told.told == 2 * [
        "wake_up ['weights']", f"reload_weights {parameters}", "vold_repack", "reset_prefix_cache",
        "wake_up ['kv_cache']", "sleep 2",
    ]  # fmt: skip


if VLLM:  # one engine a process

    def test_three_steps_of_adapters_on_a_model_with_a_tied_head_with_vllm_in_the_training_process(
        tmp_path: Path,
    ) -> None:
        raw = raw_recipe(
            tmp_path, optimizer={"lr": 1e-2, "warmup_steps": 1}, mismatch={"limit": 1e-6, "action": "stop"}
        )
        raw["distill"]["engine"] = {"colocate": True, "memory": 0.15, "context": 128}
        student = str(saved(text_model(3, tied=True), tmp_path / "tied"))
        raw["student"] |= {"path": student, "lora": {"rank": 4, "alpha": 64}}
        raw["distill"]["init"] = student
        distill(recipe_from(raw, where="test"))
        assert len(metrics(tmp_path)) == 3
        assert all(r["mismatch"] < 1e-4 for r in metrics(tmp_path))
