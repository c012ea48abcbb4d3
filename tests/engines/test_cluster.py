"""Several machines without Ray: what a recipe may say of them, and the batch file. test_ray_cluster.py has Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launched import FAKE, recipe_dict
from vold.engines.launch.cluster import Machines
from vold.engines.launch.devices import check_devices
from vold.engines.launch.serving import keeping, serving
from vold.engines.launch.slurm import batch_script
from vold.engines.launch.started import STARTED, Started, where_now
from vold.engines.launch.wanted import servers_of
from vold.errors import ConfigError
from vold.model.parallel import Processes
from vold.run.cluster_section import training_processes
from vold.run.recipe import Recipe, load_recipe, recipe_from


def made(home: Path, teacher: Any = ("cpu",), engine: Any = ("cpu",), **cluster: Any) -> Recipe:
    raw = recipe_dict(home)
    raw["teacher"]["server"]["launch"] |= {"devices": list(teacher)}
    raw["distill"]["engine"]["launch"] |= {"devices": list(engine)}
    raw["cluster"] = cluster
    return recipe_from(raw, where="test")


@pytest.mark.parametrize(
    ("teacher", "engine", "cluster", "processes"),
    [
        ([0, 1], [[2, 3], [4, 5]], {"nodes": 1, "gpus": 8}, 2),
        ([0, 1], [[2, 3], [4, 5]], {"nodes": 2, "gpus": 8}, 5),
        ([0, 1, 2], [3, 4], {"nodes": 2, "gpus": 8}, 5),  # 11 are left, and nodes have equally many
        ([0], [1], {"nodes": 2, "gpus": 8, "processes": 4}, 4),
        (["cpu"], ["cpu", "cpu"], {"nodes": 3, "gpus": 0}, 1),
    ],
)
def test_training_gets_the_gpus_that_servers_leave_equally_many_on_each_machine(
    teacher: Any, engine: Any, cluster: Any, processes: int, tmp_path: Path
) -> None:
    recipe = made(tmp_path, teacher, engine, **cluster)
    assert training_processes(recipe) == processes
    check_devices(recipe, "distill", servers_of(recipe, "distill"))


@pytest.mark.parametrize(
    ("teacher", "engine", "cluster", "words"),
    [
        ([0], [1], {"nodes": 2, "gpus": 1}, "2 for servers.*and none|none of 2 is left"),
        ([0, 1], [2], {"nodes": 2, "gpus": 4, "processes": 3}, "3 for servers, up to 1 for one, and 6"),
        ([[0, 1, 2, 3]], [4], {"nodes": 8, "gpus": 2, "processes": 1}, "up to 4 for one"),
        ([0], [1], {"nodes": 4, "gpus": 2, "processes": 3}, "and 12 for `distill`"),
    ],
)
def test_machines_with_too_few_gpus_are_refused_before_anything_starts(
    teacher: Any, engine: Any, cluster: Any, words: str, tmp_path: Path
) -> None:
    recipe = made(tmp_path, teacher, engine, **cluster)
    with pytest.raises(ConfigError, match=words):
        check_devices(recipe, "distill", servers_of(recipe, "distill"))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"sleep": True}, "do not take turns"),
        ({"transfer": "ipc"}, "within one machine"),
        ({"transfer": "shared_memory"}, "within one machine"),
    ],
)
def test_what_goes_on_one_machine_only_is_refused(section: dict[str, Any], words: str, tmp_path: Path) -> None:
    raw = recipe_dict(tmp_path)
    raw["distill"]["engine"] |= section
    recipe_from(raw, where="test")
    raw["cluster"] = {"nodes": 2, "gpus": 8}
    with pytest.raises(ConfigError, match=words):
        recipe_from(raw, where="test")


def test_the_papers_run_on_eight_gpus_fits_on_one_machine_of_a_cluster() -> None:
    pythons = [f"{one}.launch.python={FAKE}" for one in ("teacher.server", "distill.engine", "eval.endpoint")]
    recipe = load_recipe("recipes/qwen2_5_vl-3b-8gpu.yaml", ["cluster={nodes: 1, gpus: 8}", *pythons])
    assert training_processes(recipe) == 4
    for stage in recipe.stages:
        check_devices(recipe, stage, servers_of(recipe, stage))


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    recipe = made(tmp_path, nodes=2, gpus=0)
    with keeping() as servers, pytest.raises(ConfigError, match=r"vold\[cluster\]"):
        servers.enter(recipe, "traces", None)


def test_why_a_place_could_not_be_made_is_the_end_of_its_traceback() -> None:
    made = "The actor died because of an error raised in its creation task, ray::Place.__init__() (pid=7)\n"
    made += "  File \"place.py\", line 55\nFileNotFoundError: [Errno 2] No such file or directory: '/data/run'"
    assert Machines.reason(RuntimeError(made)) == "FileNotFoundError: [Errno 2] No such file or directory: '/data/run'"
    assert Machines.reason(TimeoutError("no answer within 5 s\nmore")) == "no answer within 5 s"


def test_several_machines_that_train_without_a_cluster_are_told_before_a_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vold.engines.launch.serving.processes", lambda: Processes(rank=1, world=4, node=2))
    recipe = recipe_from(recipe_dict(tmp_path), where="test")
    with serving(recipe, "sft"):  # needs none
        assert not STARTED
    with pytest.raises(ConfigError, match="others that train with it do not reach them"), serving(recipe, "distill"):
        pytest.fail("it goes on")


def test_a_server_that_has_moved_is_asked_at_its_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    new: list[str] = [""]
    monkeypatch.setitem(STARTED, "http://10.0.0.1:5/v1", Started("key", now=lambda: new[0]))
    assert where_now("http://10.0.0.1:5") == "http://10.0.0.1:5"
    new[0] = "http://10.0.0.2:6/v1"
    assert where_now("http://10.0.0.1:5") == "http://10.0.0.2:6"
    assert where_now("http://10.0.0.1:5/v1") == "http://10.0.0.2:6/v1"
    assert where_now("http://10.0.0.9:5/v1") == "http://10.0.0.9:5/v1"


def test_the_batch_file_asks_for_the_machines_and_is_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = made(tmp_path, [0], [1], nodes=3, gpus=4)
    script = batch_script(recipe, "my recipe.yaml", ["sft.steps=5", "teacher.path=a b"])
    lines = script.splitlines()
    for line in ("--nodes=3", "--gpus-per-node=4", "--ntasks-per-node=1", "--time=24:00:00", "--job-name=vold-run"):
        assert f"#SBATCH {line}" in lines
    # sbatch reads no further than the first line that is no comment.
    assert max(i for i, line in enumerate(lines) if line.startswith("#SBATCH")) < lines.index("set -euo pipefail")
    assert "run 'my recipe.yaml' sft.steps=5 'teacher.path=a b'" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    assert "gpus-per-node" not in batch_script(made(tmp_path, nodes=2, gpus=0), "r.yaml", [])
    raw = recipe_dict(tmp_path)
    with pytest.raises(ConfigError, match="for one machine"):
        batch_script(recipe_from(raw, where="test"), "r.yaml", [])
