"""Arms on a grid, claims about a region of it, looks, and several machines at one study."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from browser import evaluate
from studies import arm, begin_as_copies, ran, results, study_dict
from vold.demo.study import Running, run_study
from vold.demo.study_file import Study, load_study
from vold.demo.study_page import write_study_page
from vold.demo.units import in_hand, run_unit
from vold.errors import CheckpointError, ConfigError
from vold.evals.claims import Claim, decide, decide_all
from vold.evals.sequential import Looks
from vold.evals.study_results import ArmResult, Look, Measure, StudyResults
from vold.evals.study_tables import LOOKS, write_looks
from vold.report.text import DASH
from vold.run.files import read_json
from vold.run.lock import owning

OVER: dict[str, Any] = {"over": ["level", "steps"], "after": "direct", "at": "{steps}"}


def grid_dict(home: Path) -> dict[str, Any]:
    """Two levels, of which one asks other problems, and two steps of the run that both arms start from."""
    raw: dict[str, Any] = study_dict(home)
    raw["set"] |= {
        "distill.eval": {"every": 1, "keep_every": 1, "sets": ["train"], "size": 2, "sampling": {"max_new_tokens": 1}},
        "align": {"tasks": "train", "limit": 4, "sampling": {"max_new_tokens": 4}, "rollouts": 2},
    }
    raw["axes"] = {"level": {"low": {}, "high": {"tasks.image.rows": [5, 5]}}, "steps": [0, 1]}
    raw["arms"] = {
        "direct": {"stage": "distill", "over": ["level"], "rates": [1e-3]},
        "start": {"stage": "align", **OVER},
        "grpo": {"stage": "distill", **OVER, "rates": [1e-3], "set": {"distill.objective": {"method": "grpo"}}},
    }
    raw["claims"] = {}
    return raw


def stored(home: Path, raw: dict[str, Any]) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    (home / "study.yaml").write_text(yaml.safe_dump(raw))
    return home / "study.yaml"


def test_an_arm_over_axes_stands_at_every_point_behind_its_own_parent(tmp_path: Path) -> None:
    study = Study.model_validate(grid_dict(tmp_path))
    points = ["low-0", "low-1", "high-0", "high-1"]
    assert list(study.arms) == ["direct-low", "direct-high", *(f"{n}-{p}" for n in ("start", "grpo") for p in points)]
    one = study.arms["grpo-high-1"]
    assert (one.after, one.at, one.family, one.cell) == ("direct-high", 1, "grpo", {"level": "high", "steps": "1"})
    assert study.names() == ["direct", "start", "grpo"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {"a": {"over": ["depth"]}}}, "no such axis"),
        ({"arms": {"a": {"at": 1}}}, "`at` is a step of the arm"),
        (
            {"arms": {"a": {"stage": "distill", "rates": [1.0], "over": ["level"]}, "b": {"after": "a"}}},
            "no such arm above",
        ),
        (
            {
                "arms": {
                    "a": {"stage": "distill", "rates": [1.0], "over": ["level"]},
                    "b": {"over": ["steps"], "after": "a"},
                }
            },
            "all axes of the one it starts from",
        ),
        ({"arms": {"a": {"stage": "align", "rates": [1.0]}}}, "go together"),
        ({"looks": {"at": [3, 4]}}, "do not fit the seeds"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(stored(tmp_path, grid_dict(tmp_path) | change))


def test_a_claim_names_arms_and_axes_that_are_there(tmp_path: Path) -> None:
    whole = {"claim": "x", "better": "grpo", "worse": "start", "measure": "image", "rule": "gain"}
    wrong = {"depth": "no such axis", "stat/image": "did you mean 'start'", "start/top2": "no such measure"}
    wrong["steps"] = "no such value of the axis steps"  # which are 0 and 1
    for where, message in (({key: [0, 2] if key == "steps" else [0, 1]}, message) for key, message in wrong.items()):
        with pytest.raises(ConfigError, match=message):
            load_study(stored(tmp_path, grid_dict(tmp_path) | {"claims": {"c": whole | {"where": where}}}))
    with pytest.raises(ValueError, match="two ends"):
        Claim.model_validate(whole | {"where": {"start/image": [0.5]}})


@pytest.mark.slow
def test_children_begin_with_the_step_their_parent_has_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_as_copies(monkeypatch)
    monkeypatch.chdir(tmp_path)
    raw = grid_dict(tmp_path)
    raw["axes"] = {"steps": [0, 1]}
    raw["arms"] = {
        "direct": {"stage": "distill", "rates": [1e-3]},
        "start": {"stage": "align", "after": "direct", "at": "{steps}", "over": ["steps"]},
        "grpo": {"stage": "distill", "after": "direct", "at": 1, "rates": [1e-3]},
    }
    raw["claims"] = {"c": {"claim": "x", "better": "start", "measure": "image", "rule": "at least", "value": 0.5,
                           "where": {"start/passing": [0, 1], "steps": [1]}}}  # fmt: skip
    raw["measures"] = {"began": "test_grid:began_with"}
    file = stored(tmp_path / "studies" / "grid", raw)
    found = run_study(str(file))
    assert found.axes == {"steps": ("0", "1")}
    assert found.claims["c"].cells == ("1",)
    first = found.arms["start-0"]
    assert {"kl", "top1", "passing", "failing"} <= set(first.seeds[0].measures)
    assert (len(first.tuning or ()), len(first.seeds), found.arms["direct"].tuning) == (1, 2, None)
    assert first.seeds[0].measures["kl"] != found.arms["start-1"].seeds[0].measures["kl"]
    assert [u.measures["began"].value for u in found.arms["grpo"].seeds] == [1.0, 1.0]
    assert list(found.arms["grpo"].seeds[0].measures["reward"].curve or ()) == ["1", "2"]
    shutil.rmtree(tmp_path / "runs")  # as in a clone: the results are beside the study file
    assert run_study(str(file)).arms == found.arms
    assert not (tmp_path / "runs" / "studies" / "cells").exists()
    lines = (file.parent / "units.jsonl").read_text().splitlines()
    of_grpo = [line for line in lines if "began" in json.loads(line)["result"]]
    assert (len(lines), len(of_grpo)) == (12, 3)
    kept = [line for line in lines if line not in of_grpo]
    (file.parent / "units.jsonl").write_text("\n".join(kept) + "\n")
    again = run_study(str(file)).arms["grpo"].seeds  # trained again, from a parent that is trained again
    assert [u.measures for u in again] == [u.measures for u in found.arms["grpo"].seeds]
    raw["arms"]["grpo"]["at"] = 5
    with pytest.raises(CheckpointError, match="no model was kept at step 5"):
        run_study(str(stored(file.parent, raw)))


def began_with(stage: Path) -> dict[str, float] | None:
    """The step of the model that a stage has begun with, by the end of its path."""
    name = Path(yaml.safe_load((stage / "recipe.yaml").read_text())["distill"]["init"]).name
    return {"value": float(name[5:])} if name.startswith("step-") else None


def points(values: dict[str, list[float]], cell: str = "") -> dict[str, ArmResult]:
    """Arms of the families `a` and `b` at one point of the axis `steps`."""
    rows = {n: arm(v) for n, v in values.items()}
    return {f"{n}-{cell}": ArmResult(0.1, {}, a.seeds, family=n, cell={"steps": cell}) for n, a in rows.items()}


def start(cell: str, share: float) -> dict[str, ArmResult]:
    """What was there, with the seed of the sweep, before training."""
    tuned = (ran(9, failing=Measure(accuracy=share, by_kind={"sum": share})),)
    return {f"start-{cell}": ArmResult(None, {}, (), family="start", cell={"steps": cell}, tuning=tuned)}


GRID = (
    points({"a": [0.30, 0.50, 0.40], "b": [0.30, 0.50, 0.40]}, "0") | start("0", 0.9)
    | points({"a": [0.40, 0.61, 0.49], "b": [0.30, 0.50, 0.40]}, "30") | start("30", 0.5)
    | points({"a": [0.42, 0.59, 0.51], "b": [0.30, 0.50, 0.40]}, "60") | start("60", 0.2)
)  # fmt: skip


def of_region(rule: str = "gain", value: float | None = None, **where: Any) -> Claim:
    """A claim about `a` and `b`; `start_failing` in `where` is a measure of `start`."""
    there = {key.replace("_", "/"): value for key, value in where.items()}
    whole = {"claim": "x", "better": "a", "worse": "b", "measure": "image", "rule": rule, "value": value}
    return Claim.model_validate(whole | {"where": there})


@pytest.mark.parametrize(
    ("where", "cells", "difference"),
    [
        ({}, None, 0.2 / 3),
        ({"steps": [30]}, ("30",), 0.1),
        ({"start_failing": [0.1, 0.6]}, ("30", "60"), 0.1033333),
        ({"start_failing_sum": [0.1, 0.6]}, ("30", "60"), 0.1033333),
        ({"start_failing": [0.1, 0.6], "steps": [0, 60]}, ("60",), 0.1066667),
    ],
)
def test_a_claim_about_a_region_takes_the_mean_over_its_points(
    where: dict[str, Any], cells: tuple[str, ...] | None, difference: float
) -> None:
    out = decide(of_region(**where), GRID, [1, 2, 3])
    assert out.cells == cells
    assert out.figures.difference == pytest.approx(difference if where else (0 + 0.1 + 0.1066667) / 3)


def test_an_arm_without_the_axis_stands_beside_every_point_of_it() -> None:
    """Means at 30 steps: 0.5 of `a`, 0.3 of the arm that does not go over steps."""
    flat = {"b": arm([0.2, 0.3, 0.4])} | {name: a for name, a in GRID.items() if not name.startswith("b-")}
    out = decide(of_region(steps=[30]), flat, [1, 2, 3])
    assert out.cells == ("30",)
    assert out.figures.difference == pytest.approx(0.2)


def test_an_arm_without_axes_stands_in_a_region_that_a_measure_gives() -> None:
    """At 30 and 60 steps `a` has means of 0.5 and 0.5067, the arm that stands on no axis 0.3."""
    flat = {"b": arm([0.2, 0.3, 0.4])} | {name: a for name, a in GRID.items() if not name.startswith("b-")}
    out = decide(of_region(start_failing=[0.1, 0.6]), flat, [1, 2, 3])
    assert (out.cells, out.figures.seeds) == (("30", "60"), 3)
    assert out.figures.difference == pytest.approx((0.2 + 0.2066667) / 2)


def test_an_arm_on_one_of_two_axes_stands_in_a_region_where_one_of_its_points_does() -> None:
    """`b` goes over levels alone. Of the points that `start` has at a level of `b`, one at `low` is in the region."""
    shares = {("low", "0"): 0.9, ("low", "30"): 0.5, ("high", "0"): 0.9, ("high", "30"): 0.8}
    arms: dict[str, ArmResult] = {}
    for (level, steps), share in shares.items():
        cell = {"level": level, "steps": steps}
        tuned = (ran(9, failing=Measure(accuracy=share)),)
        arms[f"start-{level}-{steps}"] = ArmResult(None, {}, (), family="start", cell=cell, tuning=tuned)
        arms[f"a-{level}-{steps}"] = ArmResult(0.1, {}, arm([0.5, 0.6, 0.7]).seeds, family="a", cell=cell)
    for level, values in {"low": [0.3, 0.4, 0.5], "high": [0.0, 0.0, 0.0]}.items():
        arms[f"b-{level}"] = ArmResult(0.1, {}, arm(values).seeds, family="b", cell={"level": level})
    out = decide(of_region(start_failing=[0.1, 0.6]), arms, [1, 2, 3])
    assert out.cells == ("low-30",)
    assert out.figures.difference == pytest.approx(0.2)


@pytest.mark.parametrize(
    "where", [{"start_failing": [0.95, 1.0]}, {"start_top1": [0.0, 1.0]}], ids=["none", "no figure"]
)
def test_a_region_without_points_decides_nothing(where: dict[str, Any]) -> None:
    out = decide_all({"c": of_region(**where)}, GRID, [1, 2, 3])["c"]
    assert (out.verdict, out.figures.seeds, out.cells) == ("undecided", 0, ())


# Differences at 30 steps 0.10, 0.11, 0.09: mean 0.1, error 0.01 / sqrt(3), interval 0.1 +- 0.0248414.
@pytest.mark.parametrize(("value", "verdict"), [(0.075, "holds"), (0.076, "undecided"), (0.125, "does not hold")])
def test_more_than_compares_the_interval_of_a_difference_with_a_value(value: float, verdict: str) -> None:
    out = decide(of_region("more than", value, steps=[30]), GRID, [1, 2, 3])
    assert out.verdict == verdict
    assert out.figures.low == pytest.approx(0.1 - 0.0248414, abs=1e-6)


def test_the_page_shows_claims_regions_and_the_map(tmp_path: Path) -> None:
    claims = decide_all({"c": of_region(steps=[30, 60])}, GRID, [1, 2, 3])
    whole = vars(results(GRID)) | {"claims": claims, "axes": {"steps": ("0", "30", "60")}}
    whole |= {"looks": (Look(2, 0.01, {"c": "undecided"}, False), Look(3, 0.04, {"c": "holds"}, True))}
    page = write_study_page(tmp_path, StudyResults(**whole), [("a", "b", "image")]).read_text()
    assert "looked at with 2, 3, where all claims were decided or no seeds were left" in page
    assert "a - b on image, paired by seed: holds if the 95% interval lies above 0" in page
    assert "2 points: 30, 60" in page and "a minus b on image, points" in page
    # 0.10, 0.11 and 0.09 at 30 steps: +10.0 with the interval 7.5 to 12.5
    assert re.search(r'class="over"[^>]*>\+10\.0<small>\+7\.5 to \+12\.5', page)
    assert page.count("<polygon") == 2, "a band for each arm along the axis"


def test_what_is_not_there_is_one_dash_and_zeros_stand_in_line_on_a_narrow_page(tmp_path: Path) -> None:
    claim = {"better": "a", "worse": "b", "measure": "image", "rule": "gain"}
    arms = {"a": arm([0.5, 0.6, 0.55]), "b": arm([0.4, 0.41, 0.42]), "base": ArmResult(None, {}, (ran(1),))}
    claims = {name: Claim.model_validate(claim | {"claim": name}) for name in ("short", "a claim of more words")}
    whole = vars(results(arms, {"image": "image, %"})) | {"claims": decide_all(claims, arms, [1, 2, 3])}
    page = write_study_page(tmp_path, StudyResults(**whole), [])
    assert f'>base</span></td><td class="n">{DASH}</td><td class="n">{DASH}</td>' in page.read_text()
    zeros = "[...document.querySelectorAll('.strip .zero')].map(zero => zero.getBoundingClientRect().x)"
    ((found,),) = evaluate(page, [zeros], width=420)
    assert len(found) == 2 and found[0] == found[1]


def test_an_early_look_asks_for_more() -> None:
    """With three seeds p = 0.0033: enough at the end, not at the first of two looks, whose level is 0.0031. What is far
    from 0 is decided there, and stays so at the end."""
    arms = {"a": arm([0.40, 0.61, 0.49]), "b": arm([0.3, 0.5, 0.4])}
    one = Claim.model_validate({"claim": "x", "better": "a", "worse": "b", "measure": "image", "rule": "gain"})
    assert decide(one, arms, [1, 2, 3]).figures.p_value == pytest.approx(0.003317, abs=1e-6)
    assert decide(one, arms, [1, 2, 3], Looks(at=(3, 6))).verdict == "undecided"
    far = {"a": arm([0.600, 0.801, 0.699, 0.1, 0.9, 0.2]), "b": arm([0.3, 0.5, 0.4, 0.5, 0.5, 0.5])}
    early = decide(one, far, [1, 2, 3], Looks(at=(3, 6)))
    assert early.verdict == "holds"
    assert decide(one, far, [1, 2, 3, 4, 5, 6]).verdict == "undecided"
    assert decide(one, far, [1, 2, 3, 4, 5, 6], Looks(at=(3, 6))).figures.p_value == early.figures.p_value


def test_looks_are_told_in_the_protocol(tmp_path: Path) -> None:
    made: StudyResults = results({"a": arm([0.1, 0.2])})
    looks = (Look(3, 0.0031, {"c": "undecided"}, False), Look(6, 0.049, {"c": "holds"}, True))
    made = StudyResults(**{**vars(made), "looks": looks[:1]})
    assert write_looks(tmp_path, made) == []
    protocol = tmp_path / "protocol.md"
    protocol.write_text("# Protocol\n\n## History\n\nNothing yet.\n")
    assert write_looks(tmp_path, made) == [protocol]
    assert "| 3 | 0.0031 | 0 of 1 | went on |" in protocol.read_text()
    made = StudyResults(**{**vars(made), "looks": looks})
    assert write_looks(tmp_path, made) == [protocol] and write_looks(tmp_path, made) == []
    text = protocol.read_text()
    assert text.startswith("# Protocol\n\n## History\n\nNothing yet.\n")
    assert text.count("| 3 | 0.0031 |") == 1 and "| 6 | 0.049 | 1 of 1: c | the end |" in text


def test_a_protocol_whose_mark_is_gone_is_left_as_it_is(tmp_path: Path) -> None:
    made = replace(results({"a": arm([0.1, 0.2])}), looks=(Look(3, 0.0031, {"c": "holds"}, True),))
    text = f"# Protocol\n\n{LOOKS.format(edge='begin')}\n| 3 |\n\n## History\n\nMuch.\n"
    (tmp_path / "protocol.md").write_text(text)
    with pytest.raises(ConfigError, match="the mark at the end of the looks is gone"):
        write_looks(tmp_path, made)
    assert (tmp_path / "protocol.md").read_text() == text


def test_a_study_whose_protocol_cannot_be_written_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = stored(tmp_path / "one", study_dict(tmp_path) | {"seeds": [1, 2, 3, 4], "looks": {"at": [3, 4]}})
    (file.parent / "protocol.md").write_text(LOOKS.format(edge="begin"))
    with pytest.raises(ConfigError, match="the mark at the end"):
        run_study(str(file))
    assert not list(tmp_path.rglob("cells/*"))


@pytest.mark.slow
def test_a_study_ends_at_the_look_that_decides_its_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KL is far above -10 with three seeds; between its own values nothing is decided by the fourth."""
    begin_as_copies(monkeypatch)
    monkeypatch.chdir(tmp_path)
    raw = grid_dict(tmp_path) | {"seeds": [1, 2, 3, 4], "looks": {"at": [3, 4]}, "axes": {}}
    raw["arms"] = {"start": {"stage": "align"}}
    far = {"claim": "x", "better": "start", "measure": "kl", "rule": "at least", "value": -10.0}
    raw["claims"] = {"far": far}
    file = stored(tmp_path / "studies" / "looks", raw)
    found = run_study(str(file))
    assert [(look.seeds, look.ended) for look in found.looks or ()] == [(3, True)]
    assert (found.claims["far"].verdict, found.claims["far"].figures.seeds) == ("holds", 3)
    assert len(found.arms["start"].seeds) == 3
    middle = sorted(u.measures["kl"].value or 0.0 for u in found.arms["start"].seeds)[1]
    raw["claims"] = {"far": far, "near": far | {"value": middle}}
    found = run_study(str(stored(file.parent, raw)))
    assert [(look.seeds, look.ended) for look in found.looks or ()] == [(3, False), (4, True)]
    assert {key: v.verdict for key, v in found.claims.items()} == {"far": "holds", "near": "undecided"}


CLAIMED = """
import os, pathlib, sys
from vold.run.lock import RunLock
RunLock(pathlib.Path(sys.argv[1]), "study").acquire()
os._exit(9)
"""


def study_with_one_arm(home: Path) -> Path:
    raw = study_dict(home) | {"arms": {"base": {}}, "claims": {}}
    return stored(home / "studies" / "one", raw)


def test_what_another_has_in_hand_is_left_until_it_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = study_with_one_arm(tmp_path)
    running = Running(file, load_study(file))
    running.choose("base")
    job = running.job(running.tested("base", [1, 2])[0])
    inside, over = threading.Event(), threading.Event()

    def other() -> None:
        with owning(job.home, "study"):
            inside.set()
            over.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(60)
    try:
        assert in_hand(job) and not run_unit(job) and not job.done
    finally:
        over.set()
        thread.join()
    assert not in_hand(job)
    assert subprocess.run([sys.executable, "-c", CLAIMED, str(job.home)], check=False).returncode == 9
    assert in_hand(job) and run_unit(job) and job.done, "a dead one is followed"
    before = (job.judgement / "unit.json").stat().st_mtime_ns
    assert run_unit(job) and (job.judgement / "unit.json").stat().st_mtime_ns == before
    assert read_json(job.judgement / "unit.json", dict)["seed"] == 1
