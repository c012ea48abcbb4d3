"""What units of a study are made of besides their settings, and what is run again where that has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from studies import study_dict
from vold.demo import origin
from vold.demo.origin import MADE_OF, differing, keep_made_of, place_for, sources_of, tell_commits
from vold.demo.plan import plan_study
from vold.demo.study import Running, run_study
from vold.demo.study_file import load_study
from vold.demo.units import Job, Unit, keep_units
from vold.evals.study_results import Measure, UnitResult
from vold.run.files import write_json

ROW = {"prompt": "1 + 1", "reference": "2"}


@pytest.fixture(autouse=True)
def a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process keeps what it has read of code; and modules are beside the study."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    origin._digest_of_modules.cache_clear()


def write_rows(file: Path, count: int) -> None:
    file.write_text("".join(json.dumps(ROW | {"id": str(i)}) + "\n" for i in range(count)))
    os.utime(file, ns=(count, count))  # as if time had passed


def study(home: Path) -> Path:
    """An arm trained on the rows of a file, with a measure of the study's own."""
    write_rows(home / "rows.jsonl", 4)
    (home / "own_measure.py").write_text("def steps(stage):\n    return {'value': 1.0}\n")
    raw: dict[str, Any] = study_dict(home)
    raw["set"] = {"tasks.train": {"kind": "jsonl", "path": str(home / "rows.jsonl")}}
    raw |= {"measures": {"steps": "own_measure:steps"}, "claims": {}}
    raw["arms"] = {"a": {"stage": "distill", "rates": [1e-3]}}
    (home / "study.yaml").write_text(yaml.safe_dump(raw))
    return home / "study.yaml"


ONE = Unit("a", 1e-3, 1, "test")


def job_of(file: Path) -> tuple[Running, Job]:
    running = Running(file, load_study(file))
    running.chosen["a"] = 1e-3
    return running, running.job(ONE)


def list_unit(file: Path, *, with_origin: bool = True) -> None:
    """As a study that has run this unit has it beside its file."""
    _, job = job_of(file)
    found = UnitResult(seed=1, rate=1e-3, measures={"image": Measure(accuracy=0.5)}, seconds=1.0)
    found = replace(found, origin=job.origin if with_origin else None)
    keep_units(file.parent / "units.jsonl", {(job.trained, job.judged): found})


CHANGES: dict[str, Callable[[Path], object]] = {
    "data of distill.tasks.path": lambda home: write_rows(home / "rows.jsonl", 5),
    "source of own_measure:steps": lambda home: (home / "own_measure.py").write_text("steps = None\n"),
}


@pytest.mark.parametrize("why", CHANGES)
def test_a_stored_unit_of_other_data_or_code_is_not_taken_and_told(
    why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_unit(file := study(tmp_path))
    before = job_of(file)[1]
    CHANGES[why](tmp_path)
    origin._digest_of_modules.cache_clear()
    running, after = job_of(file)
    assert (before.done, after.done) == (True, False)
    assert (after.trained, after.judged) == (before.trained, before.judged)
    running.tell_changed()
    told = " ".join(capsys.readouterr().out.split())
    assert told.endswith(f"a, seeds 1: results that are stored are not used, as they are of another {why}")


@pytest.mark.parametrize("why", CHANGES)
def test_a_stored_unit_that_says_nothing_of_it_is_taken(why: str, tmp_path: Path) -> None:
    list_unit(file := study(tmp_path), with_origin=False)
    CHANGES[why](tmp_path)
    origin._digest_of_modules.cache_clear()
    running, job = job_of(file)
    assert job.done and not running.changed


def test_a_clone_without_the_data_takes_what_is_stored(tmp_path: Path) -> None:
    list_unit(file := study(tmp_path))
    (tmp_path / "rows.jsonl").unlink()
    assert job_of(file)[1].done


def test_a_child_of_an_arm_on_other_data_is_another_one(tmp_path: Path) -> None:
    raw = yaml.safe_load(study(tmp_path).read_text())
    raw["arms"]["b"] = {"stage": "distill", "rates": [1e-3], "after": "a", "set": {"distill.tasks": "image"}}
    raw["set"]["tasks.image"] = {"kind": "digits", "split": "test", "size": 4}
    (file := tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))

    def made() -> dict[str, str]:
        running, _ = job_of(file)
        running.chosen["b"] = 1e-3
        return dict(running.job(replace(ONE, arm="b")).origin.trained)

    before = made()
    write_rows(tmp_path / "rows.jsonl", 5)
    assert differing(before, made()) == ["start: data of distill.tasks.path"]


def test_what_lies_in_a_directory_is_not_mixed_with_what_is_made_of_something_else(tmp_path: Path) -> None:
    _, job = job_of(study(tmp_path))
    keep_made_of(job.home, job.origin.trained, begun=False)
    write_json(job.judgement / "unit.json", UnitResult(seed=1, rate=1e-3, measures={}, seconds=1.0))
    assert job_of(tmp_path / "study.yaml")[1].done
    write_rows(tmp_path / "rows.jsonl", 5)
    running, after = job_of(tmp_path / "study.yaml")
    assert not after.done and after.home.parent == job.home.parent and after.home.name.startswith(f"{job.trained}-")
    assert running.changed == {ONE: ["data of distill.tasks.path"]}


@pytest.mark.parametrize(
    ("before", "now", "keys"),
    [
        ({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, ["b"]),
        ({"a": "1"}, {"b": "2"}, []),  # what cannot be compared
        ({}, {"a": "1"}, []),
    ],
)
def test_places_differ_where_something_that_both_name_does(
    before: dict[str, str], now: dict[str, str], keys: list[str], tmp_path: Path
) -> None:
    write_json(tmp_path / "x" / MADE_OF, before)
    assert differing(before, now) == keys
    assert (place_for(tmp_path / "x", now) == tmp_path / "x") == (not keys)


def test_a_directory_that_was_begun_without_a_record_stays_so(tmp_path: Path) -> None:
    keep_made_of(tmp_path, {"a": "1"}, begun=True)
    assert not list(tmp_path.iterdir())


def test_source_is_that_of_a_module_and_of_what_it_imports_beside_it(tmp_path: Path) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    for name, text in {"__init__": "", "one": "from own_package import two\n", "two": "", "three": ""}.items():
        (package / f"{name}.py").write_text(text)

    def digest() -> dict[str, str]:
        origin._digest_of_modules.cache_clear()
        return sources_of(["own_package.one:make", "own_package.one:make", "nosuch:make", "vold.demo.study:run_study"])

    first = digest()
    assert list(first) == ["source of own_package.one:make"]
    (package / "three.py").write_text("x = 1\n")
    assert digest() == first
    (package / "two.py").write_text("x = 1\n")
    assert digest() != first


def test_units_of_several_commits_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    tell_commits(["a" * 40])
    assert capsys.readouterr().out == ""
    tell_commits(["a" * 40, "b" * 40])
    assert "run at 2 commits: aaaaaaaaaa, bbbbbbbbbb" in " ".join(capsys.readouterr().out.split())


def test_a_study_lists_what_its_units_were_made_of_and_asks_again_where_that_changed(tmp_path: Path) -> None:
    raw: dict[str, Any] = study_dict(tmp_path) | {"arms": {"base": {}}, "claims": {}}
    write_rows(tmp_path / "rows.jsonl", 4)
    raw["test_tasks"] = {"image": {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl")}}
    (home := tmp_path / "studies" / "one").mkdir(parents=True)
    (file := home / "study.yaml").write_text(yaml.safe_dump(raw))
    first = run_study(str(file))
    assert first.commits == (first.commit,) and "origin" not in (home / "results.json").read_text()
    (row,) = [json.loads(line) for line in (home / "units.jsonl").read_text().splitlines()]
    assert list(row["result"]["origin"]["judged"]) == ["data of eval.tasks.image.path", "precision of student"]
    write_rows(tmp_path / "rows.jsonl", 6)
    assert plan_study(str(file)).arms[0].done == 0
    assert [
        run_study(str(file)).arms["base"].seeds[0].measures["image"].n,
        first.arms["base"].seeds[0].measures["image"].n,
    ] == [6, 4]
    assert len((home / "units.jsonl").read_text().splitlines()) == 1
    assert plan_study(str(file)).arms[0].done == 1
