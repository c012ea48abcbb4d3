"""Code of the user's own: how a name is found, what is wrong with one that is not, and what a run keeps of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import own_code
import tiny
from package import SOURCE
from vold.data.benchmarks.registry import benchmarks, get_benchmark
from vold.errors import ConfigError
from vold.report.trackers.tracking import TrackedStage, Tracking
from vold.run.directory import open_stage
from vold.run.doors import named_in
from vold.run.recipe import load_recipe
from vold.types import named

MODULE = """
import door_helper

class Door:
    def __init__(self, stage):
        self.stage = stage
    def open(self):
        return door_helper.word

def two(a, b):
    return a

number = 3
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "door_module.py").write_text(MODULE)
    (tmp_path / "door_helper.py").write_text("word = 'open'\n")
    with own_code.forgotten(tmp_path):
        named.look_in(tmp_path)
        yield tmp_path


def test_a_module_beside_the_recipe_is_found_and_made(home: Path) -> None:
    door = named.made("door_module:Door", {"stage": "sft"}, ("open",))
    assert (door.stage, door.open()) == ("sft", "open")


@pytest.mark.parametrize(
    ("name", "got", "fix"),
    [
        ("door_nowhere:f", "there is no such module", "door_nowhere.py beside the recipe"),
        ("door_module.part:f", "there is no such module", "beside the recipe"),
        ("door_module:Dor", "door_module:Dor", "did you mean 'Door'?"),
        ("door_module:zzz", "door_module:zzz", "it has door_helper, Door, two, number"),
        ("door_broken:f", "ZeroDivisionError", "mend the module"),
        ("door_needs:f", "ModuleNotFoundError: No module named 'door_absent'", "mend the module"),
    ],
)
def test_what_cannot_be_loaded_says_why(home: Path, name: str, got: str, fix: str) -> None:
    (home / "door_broken.py").write_text("1 / 0\n")
    (home / "door_needs.py").write_text("import door_absent\n")
    with pytest.raises(ConfigError) as caught:
        named.load(name)
    assert caught.value.where == name
    assert got in caught.value.got and fix in caught.value.fix


def test_what_cannot_be_called_or_made_says_why(home: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be called") as caught:
        named.load_callable("door_module:number", "x")
    assert caught.value.got == "int" and "def number(x)" in caught.value.fix
    with pytest.raises(ConfigError, match="other arguments") as caught:
        named.load_callable("door_module:two", "x")
    assert (caught.value.got, caught.value.fix) == ("two(a, b)", "def two(x): ...")
    with pytest.raises(ConfigError, match="lacks `close` and `shut`"):
        named.made("door_module:Door", {"stage": 1}, ("open", "close", "shut"))
    (home / "door_raises.py").write_text("def make(stage): raise ValueError(stage)\n")
    with pytest.raises(ConfigError, match="ValueError: 7"):
        named.made("door_raises:make", {"stage": 7}, ())


def test_two_modules_of_one_name_are_refused(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An installed module goes first, and one beside the recipe never stands in for it unseen."""
    (home / "colorsys.py").write_text("def mine(): ...\n")
    with pytest.raises(ConfigError, match="two modules of the name"):
        named.load("colorsys:rgb_to_hsv")
    other = tmp_path_factory.mktemp("other")
    (other / "door_module.py").write_text("def mine(): ...\n")
    named.load("door_module:two")
    named.look_in(other)
    assert str(home) not in sys.path
    with pytest.raises(ConfigError, match="two modules of the name"):
        named.load("door_module:mine")


FOUND = "import sys; from vold.types import named; named.load('door_module:two')"


@pytest.mark.parametrize(("path", "right"), [([], False), (["."], True)])
def test_a_module_found_only_by_the_working_directory_is_refused(home: Path, path: list[str], right: bool) -> None:
    """As `python -m vold.cli` would find it, and the `vold` command not."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCE), *(str(home / p) for p in path)])}
    done = subprocess.run([sys.executable, "-c", FOUND], cwd=home, env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == right, done.stderr
    assert right or "only because of the directory in which the command was typed" in done.stderr


def test_a_digest_is_of_a_module_and_of_what_it_reaches_beside_it(home: Path) -> None:
    (home / "door_other.py").write_text("reward = 'door_far:score'\n")
    (home / "door_far.py").write_text("def score(a, b): return 1\n")
    (home / "door_unused.py").write_text("")
    first = [named.source_digest(n) for n in ("door_module:Door", "door_other:reward")]
    assert named.source_digest("door_module:two") == first[0] != first[1]
    (home / "door_unused.py").write_text("x = 1\n")
    assert [named.source_digest(n) for n in ("door_module:Door", "door_other:reward")] == first
    (home / "door_helper.py").write_text("word = 'shut'\n")
    (home / "door_far.py").write_text("def score(a, b): return 0\n")
    assert not {named.source_digest(n) for n in ("door_module:Door", "door_other:reward")} & {*first}


def test_names_are_told_from_paths_and_from_code_of_the_package() -> None:
    raw = {
        "student": {"path": "demo:student"},
        "tasks": {"a": {"kind": "m:Source", "grader": "0.5 math + 0.5 r:f.part"}},
        "run": {"report_to": ["trackio", "t:Mine"]},
        "distill": {"objective": {"teacher_loss": {"weight": "vold.data.worlds.calls:before_failure"}}},
    }
    assert list(named_in(raw)) == ["m:Source", "r:f", "t:Mine"]


SOURCES = """
from vold.data.sources import Source, Tasks
from vold.data.worlds.digits import DigitTasks

class Mine(Source):
    size: int
    def open(self, parts, *, references):
        return Tasks(DigitTasks("train", "text", self.size, 1), "mine")
"""


def written(home: Path, **run: Any) -> Path:
    (home / "own_sources.py").write_text(SOURCES)
    raw = tiny.recipe_dict(home)
    raw["tasks"]["train"] = {"kind": "own_sources:Mine", "size": 4}
    raw["run"] |= run
    file = home / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


def test_the_copy_of_a_recipe_finds_the_modules_beside_the_recipe(home: Path) -> None:
    recipe = load_recipe(written(home))
    assert recipe.run.modules == home
    copied = tiny.begun(recipe, "traces") / "recipe.yaml"
    named.look_in("/")
    assert load_recipe(copied).tasks["train"].kind == "own_sources:Mine"


def test_a_recipe_that_names_no_module_stays_as_it_is(home: Path) -> None:
    file = home / "plain.yaml"
    file.write_text(yaml.safe_dump(tiny.recipe_dict(home)))
    assert load_recipe(file).run.modules is None


def test_a_stage_is_not_gone_on_with_when_its_source_has_changed(home: Path) -> None:
    recipe = load_recipe(written(home))
    tiny.begun(recipe, "traces")
    open_stage(recipe, "traces")
    (home / "own_sources.py").write_text(SOURCES.replace("text", "image"))
    with pytest.raises(ConfigError, match="source of own_sources:Mine is not the same") as caught:
        open_stage(recipe, "traces")
    assert "before" in caught.value.got and "another run.dir" in caught.value.fix


def test_a_stage_that_has_kept_no_digest_goes_on(home: Path) -> None:
    recipe = load_recipe(written(home))
    settings = tiny.begun(recipe, "traces") / "settings.json"
    kept = json.loads(settings.read_text())
    assert kept.pop("source of own_sources:Mine")
    settings.write_text(json.dumps(kept))
    open_stage(recipe, "traces")


TRACKER = """
class Lines:
    next_step = 0
    def __init__(self, stage):
        self.file = stage.run / f"{stage.stage}.txt"
    def log(self, step, values):
        with self.file.open("a") as file: file.write(f"{step} {values['loss']}\\n")
    def table(self, step, name, rows): ...
    def close(self):
        with self.file.open("a") as file: file.write("closed\\n")

class Half:
    next_step = 0
    def __init__(self, stage): ...
"""


def test_a_tracker_of_ones_own_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "own_tracker.py").write_text(TRACKER)
    about = TrackedStage(home, "sft", "id", "")
    tracking = Tracking(["own_tracker:Lines", "own_tracker:Half"], about)
    tracking.values(0, {"loss": 2.5})
    tracking.close()
    assert (home / "sft.txt").read_text() == "0 2.5\nclosed\n"
    assert "own_tracker:Half" in capsys.readouterr().out, "what is no tracker is given up in a line, as all are"


@pytest.mark.parametrize("name", ["own_tracker:Absent", "own_nowhere:Lines", "tensorbord"])
def test_a_tracker_that_cannot_be_loaded_stops_the_run_at_its_start(home: Path, name: str) -> None:
    (home / "own_tracker.py").write_text(TRACKER)
    file = written(home, report_to=[name])
    with pytest.raises(ConfigError):
        open_stage(load_recipe(file), "traces")


BENCHMARK = """
from vold.data.benchmarks.benchmark import Benchmark, PromptForm
from vold.data.benchmarks.item import Item

def item(name, row):
    v = row.values
    return Item(name, v["id"], v["question"], (), (), v["answer"], "integer", v["id"])

SUMS = Benchmark("sums", "Sums", "", {}, {"test": 3}, item, {"rule": PromptForm(without_options="{question}")})

def made():
    return SUMS

wrong = 3
"""


def test_a_benchmark_of_ones_own_is_one_beside_the_others(home: Path) -> None:
    (home / "own_benchmark.py").write_text(BENCHMARK)
    found = get_benchmark("own_benchmark:SUMS")
    assert (found.name, found.title) == ("own_benchmark:SUMS", "Sums")
    assert get_benchmark("own_benchmark:made").title == "Sums"
    assert benchmarks().get("own_benchmark:SUMS") is found
    assert benchmarks().get("own_benchmark:other") is None, "what is read from a file is looked up and never imported"
    with pytest.raises(ConfigError, match="this is no benchmark"):
        get_benchmark("own_benchmark:wrong")
