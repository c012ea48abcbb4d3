"""What is refused of a study before anything is trained, though its turn comes late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from studies import study_dict
from vold.demo.plan import plan_study
from vold.demo.study import run_study
from vold.demo.study_file import load_study
from vold.errors import ConfigError

LATE: dict[str, Any] = {"stage": "distill", "after": "direct", "rates": [1e-3, 1e-2]}
"""An arm that comes when the one before it is swept."""


def stored(home: Path, **change: Any) -> Path:
    (file := home / "study.yaml").write_text(yaml.safe_dump({**study_dict(home), **change}))
    return file


def with_late(home: Path, late: dict[str, Any]) -> Path:
    arms = {"direct": {"stage": "distill", "rates": [1e-3, 1e-2]}, "late": LATE | late}
    return stored(home, arms=arms, claims={})


@pytest.mark.parametrize("begin", [run_study, plan_study])
@pytest.mark.parametrize(
    ("late", "key"),
    [
        ({"set": {"distill.stepz": 2}}, "distill.stepz"),
        ({"set": {"distill.objective.teacher_loss.coeficient": 1.0}}, "distill.objective.teacher_loss.coeficient"),
        ({"set": {"distill.steps": "two"}}, "distill.steps"),
        ({"stage": "align", "rates": [], "set": {"align": None}}, "align"),
    ],
    ids=["key", "key of a key", "type", "stage"],
)
def test_a_mistake_in_an_arm_that_comes_late_is_told_at_once(
    begin: Any, late: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = with_late(tmp_path, late)
    with pytest.raises(ConfigError) as caught:
        begin(str(file))
    assert caught.value.where == f"{file}: arms.late: {key}"
    assert not list(tmp_path.rglob("cells/*"))


@pytest.mark.parametrize(
    ("measure", "meant"),
    [
        ("image.reda", "'image.read'"),
        ("image.read/sum", "'image.read'"),
        ("imagee", "'image'"),
        ("image/", "'image'"),
        ("reward/sum", "'reward'"),
        ("kl.read", None),
    ],
)
@pytest.mark.parametrize("where", ["claims.c.measure", "columns"])
def test_a_measure_that_no_unit_has_is_refused(measure: str, meant: str | None, where: str, tmp_path: Path) -> None:
    claim = {"claim": "x", "better": "grpo", "worse": "base", "measure": measure, "rule": "gain"}
    change = {"columns": {measure: "x"}, "claims": {}} if where == "columns" else {"claims": {"c": claim}}
    with pytest.raises(ConfigError, match="no such measure") as caught:
        load_study(stored(tmp_path, **change))
    assert where in str(caught.value)
    assert meant is None or caught.value.fix == f"did you mean {meant}?"


@pytest.mark.parametrize(
    "measure", ["image", "image.read", "image.reasoned", "image/sum", "reward", "kl", "own", "own/a"]
)
def test_a_measure_that_units_may_have_is_taken(measure: str, tmp_path: Path) -> None:
    study = load_study(stored(tmp_path, columns={measure: "x"}, measures={"own": "my_module:function"}, claims={}))
    assert list(study.columns) == [measure]


def test_columns_that_a_file_does_not_name_need_no_set(tmp_path: Path) -> None:
    """Those of every study: one of them is `text`, which this study does not ask."""
    assert "text" in load_study(stored(tmp_path)).columns


@pytest.mark.parametrize("where", ["claims.c.measure", "columns"])
def test_a_kind_of_problem_that_is_not_asked_is_refused(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claim = {"claim": "x", "better": "grpo", "worse": "base", "measure": "image/summ", "rule": "gain"}
    change = {"columns": {"image/summ": "x"}, "claims": {}} if where == "columns" else {"claims": {"c": claim}}
    tasks = {"image": {"kind": "digits", "split": "test", "form": "image", "size": 40}}
    file = stored(tmp_path, test_tasks=tasks, **change)
    with pytest.raises(ConfigError, match="no such kind of problem in image") as caught:
        run_study(str(file))
    assert (caught.value.where, caught.value.fix) == (f"{file}: {where}", "did you mean 'sum'?")
