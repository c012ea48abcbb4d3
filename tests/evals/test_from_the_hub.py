"""One recipe asks every benchmark, all of them fetched from a hub on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from chat_server import ChatServer, completion
from hub_listings import LISTINGS, write
from hub_server import HubServer
from vold.data.benchmarks.registry import benchmarks
from vold.run.files import read_jsonl
from vold.types.named import is_named

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
MINI, PAPER = ROOT / "recipes" / "eval-mini.yaml", ROOT / "recipes" / "paper-eval.yaml"

# In a process of its own: a hub client reads HF_ENDPOINT where it is imported.
CHILD = """
import os, signal, sys
from pathlib import Path
from faults.frame import in_a_child
from killed import after
from vold.evals.evaluate import evaluate
from vold.run.recipe import load_recipe
recipe, killed, whole = sys.argv[1:]
first = load_recipe(recipe, [f"run.dir={killed}"])
answers = Path(killed, "eval", "base")

def killed_halfway():
    def kill():
        if len(list(answers.glob("*.jsonl"))) >= 11:
            os.kill(os.getpid(), signal.SIGKILL)
    os.fsync = after(kill, os.fsync)
    evaluate(first)
    return 0

assert in_a_child(killed_halfway, seconds=600).code == -signal.SIGKILL
print("answers before the kill:", sum(f.read_bytes().count(b"\\n") for f in answers.glob("*.jsonl")))
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
    raw["eval"] |= {"samples": 1, "benchmarks": {name: {} for name in benchmarks() if not is_named(name)}}
    raw["eval"]["sampling"]["max_new_tokens"] = 8
    recipe = tmp_path / "hub.yaml"
    recipe.write_text(yaml.safe_dump(raw))
    killed, whole = tmp_path / "killed" / "run", tmp_path / "whole" / "run"
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
    assert repos == {b.name: f"hub:{b.repo}" for b in benchmarks().values() if not is_named(b.name)}
    for name, about in results["sets"].items():
        benchmark, asked = benchmarks()[name], about["n_items"]
        assert len(read_jsonl(whole / "eval" / "base" / f"{name}.jsonl")) == asked > 1
        assert about["protocol"]["revision"] == HubServer.commit(benchmark.repo)
        assert about["official_n"] == benchmark.size[about["split"]] == asked + sum(about["left_out"].values())
        assert about["differs"][0].startswith(f"{asked} of {about['official_n']:,} items") and not about["published"]
    before = re.search(r"answers before the kill: (\d+)", ended.stdout)
    assert before and 0 < int(before[1]) < sum(about["n_items"] for about in results["sets"].values())
    stored = [
        {f.relative_to(run): f.read_text().replace(str(run), "RUN") for f in (run / "eval").rglob("*") if f.is_file()}
        for run in (killed, whole)
    ]
    assert len(results["sets"]) == 22 and stored[0] == stored[1]
    assert {Path("eval/results.json"), Path("eval/results.html"), Path("eval/base/mathverse.jsonl")} <= stored[0].keys()


def test_the_papers_test_of_a_served_model_is_one_command_and_costs_each_question_to_the_judge_once(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`vold check` has nothing against it; a second model that answers the same asks the judge nothing."""
    root = tmp_path_factory.mktemp("hub")
    names = yaml.safe_load(PAPER.read_text())["eval"]["benchmarks"]
    for listing in LISTINGS:
        if listing.repo in {benchmarks()[name].repo for name in names}:
            write(listing, root)
    said = "I think that it could be the second of them."
    with (
        HubServer(root) as hub,
        ChatServer(lambda _: completion(said)) as model,
        ChatServer(lambda _: completion("B")) as judge,
    ):
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        own |= {"OPENAI_API_KEY": "k", "HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_CACHE", "HF_TOKEN")} | own
        asked = []
        for verb, name in (("check", "one"), ("eval", "one"), ("eval", "two")):
            words = [f"run.dir={tmp_path / name}", f'eval.judge.urls=["{judge.url}"]']
            words += [f'eval.endpoint={{urls: ["{model.url}"], model: {name}}}']
            command = [sys.executable, "-m", "vold.cli", verb, str(PAPER), *words]
            ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr[-2000:]
            doubts = [line for line in ended.stdout.splitlines() if line.startswith("warn")]
            assert all("eval.benchmarks." in line for line in doubts)  # these files have a few items of each
            asked.append(len(judge.bodies))
    assert asked[0] == 1 < asked[1] == asked[2]
    assert {h["authorization"] for h in judge.headers} == {"Bearer k"}
    results = [json.loads((tmp_path / name / "eval" / "results.json").read_text()) for name in ("one", "two")]
    assert results[0]["sets"].keys() == names.keys()
    assert results[0]["stages"]["one"] == results[1]["stages"]["two"]
    assert all(figures["judge_agreement"] is not None for figures in results[0]["stages"]["one"].values())
