"""One recipe asks every benchmark, all of them fetched from a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hub_listings import LISTINGS, write
from hub_server import HubServer
from vold.data.benchmarks.registry import benchmarks
from vold.run.files import read_jsonl

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
MINI = ROOT / "recipes" / "eval-mini.yaml"

# In a process of its own: a hub client reads HF_ENDPOINT where it is imported.
CHILD = """
import sys
from killed import in_a_process_killed_at
from vold.evals.evaluate import evaluate
from vold.run.recipe import load_recipe
recipe, killed, whole = sys.argv[1:]
first = load_recipe(recipe, [f"run.dir={killed}"])
assert not in_a_process_killed_at(20, lambda: evaluate(first))
evaluate(first)
evaluate(load_recipe(recipe, [f"run.dir={whole}"]))
"""


def test_every_benchmark_is_fetched_asked_killed_and_resumed_with_the_same_bytes(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("hub")
    for listing in LISTINGS:
        write(listing, root)
    raw = yaml.safe_load(MINI.read_text())
    raw["student"]["path"] = str(ROOT / raw["student"]["path"])
    raw["eval"] |= {"samples": 1, "benchmarks": {name: {} for name in benchmarks()}}
    raw["eval"]["sampling"]["max_new_tokens"] = 8
    recipe = tmp_path / "hub.yaml"
    recipe.write_text(yaml.safe_dump(raw))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with HubServer(root) as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        own["PYTHONPATH"] = os.pathsep.join(str(ROOT / place) for place in ("src", "tests/helpers", "."))
        env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_CACHE", "HF_TOKEN")} | own
        command = [sys.executable, "-c", CHILD, str(recipe), str(killed), str(whole)]
        ended = subprocess.run(
            command, env=env | {"NO_PROXY": "127.0.0.1"}, capture_output=True, text=True, check=False
        )
    assert ended.returncode == 0, ended.stderr[-2000:]
    results = json.loads((whole / "eval" / "results.json").read_text())
    repos = {name: about["source"] for name, about in results["sets"].items()}
    assert repos == {b.name: f"hub:{b.repo}" for b in benchmarks().values()}
    for name, about in results["sets"].items():
        assert len(read_jsonl(whole / "eval" / "base" / f"{name}.jsonl")) == about["n_items"] > 1
        assert about["protocol"]["revision"] == HubServer.commit(benchmarks()[name].repo)
    stored = [{f.name: f.read_bytes() for f in (run / "eval" / "base").iterdir()} for run in (killed, whole)]
    assert stored[0] == stored[1]
