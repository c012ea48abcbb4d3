"""Models are read by one process of a node, and are the same in all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import loaded
import read_once
import tiny
from vold.run.folders import new_directory

pytestmark = pytest.mark.processes


def test_one_process_of_a_node_reads_a_model_and_all_have_its_weights(tmp_path: Path) -> None:
    """The others see directories without any, and open no file of them."""
    raw = tiny.recipe_dict(tmp_path / "made")
    raw["student"]["dtype"] = "bfloat16"
    for name in ("student", "teacher"):
        with new_directory(tmp_path / "whole" / name) as directory:
            shutil.copytree(raw[name]["path"], directory, dirs_exist_ok=True)
        bare = shutil.copytree(tmp_path / "whole" / name, tmp_path / "bare" / name)
        (bare / "model.safetensors").unlink()
        raw[name]["path"] = f"./{name}"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(raw))
    done = loaded.run(read_once.__file__, str(tmp_path))
    assert done.returncode == 0, done.stderr
    worlds = [json.loads(line) for line in done.stdout.splitlines()]
    ((alone,), two, nodes) = worlds
    assert alone["opened"].keys() == {"student", "teacher"}
    assert min(alone["opened"].values()) > 0
    weights = {key: value for key, value in alone.items() if key != "opened"}
    assert alone["teacher, never divided"] == alone["teacher, always divided"]
    for world, readers in ((two, {0}), (nodes, {0, 2})):
        for rank, process in enumerate(world):
            opened = process.pop("opened")
            assert opened == (alone["opened"] if rank in readers else {}), rank
            assert process == weights, rank
