"""Scores for other programs: rows of CSV, and tables as VLMEvalKit e8e78f05 writes them; values by hand."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest

from answers import composite, row
from vold.data.benchmarks.registry import benchmarks
from vold.evals.derived import headlines
from vold.evals.export import COLUMNS, plain, write_exports
from vold.evals.metrics import by_item, summarise
from vold.evals.score_files import file_of, table
from vold.run.results import Results, RunInfo, SetInfo

if TYPE_CHECKING:
    from pathlib import Path

    from vold.run.answers import Answer


def about(benchmark: str | None, split: str | None = None, protocol: str = "vlmevalkit") -> SetInfo:
    said = {"name": protocol, "hash": "ab12", "judge": "org/gpt-4o-mini (0123)" if protocol == "vlmevalkit" else None}
    known = benchmarks().get(benchmark or "")
    split = split or (known.split if known is not None else None)
    return SetInfo(
        benchmark=benchmark, title="T", split=split, n_items=1, bad_rows=(), bad_golds=(), protocol=said
    )  # fmt: skip


def export(home: Path, rows: dict[str, dict[str, list[Answer]]], sets: dict[str, SetInfo]) -> list[list[str]]:
    """What stands in results.csv."""
    stages = {
        m: {s: summarise(found, benchmark=sets[s].benchmark or s) for s, found in of.items()} for m, of in rows.items()
    }
    heads = headlines(stages, {s: i.benchmark or s for s, i in sets.items()}, None)
    write_exports(home, Results(RunInfo("r", {}, {}), sets, stages, (), heads), rows)
    return list(csv.reader((home / "results.csv").read_text().splitlines()))


def problems() -> list[Answer]:
    """Two of three composites are solved in full, and one step is right where the problem is wrong."""
    return [*composite("a", "11", 1), *composite("b", "111", 1), *composite("c", "10", 0)]


def test_every_score_is_a_row_the_headline_first(tmp_path: Path) -> None:
    header, *rows = export(tmp_path, {"base": {"wemath": problems()}}, {"wemath": about("wemath")})
    assert tuple(header) == COLUMNS
    assert rows[0][:5] == ["base", "wemath", "testmini", "score_strict", str(2 / 3)]
    assert rows[0][6:] == ["3", "ab12"]
    assert rows[1][3:5] == ["accuracy", str(8 / 10)]  # 7 steps, of which 6, and 3 problems, of which 2
    named = {r[3]: r for r in rows}
    assert len(named) == len(rows)
    assert {"wrong", "accuracy[key=2steps_multi]", "one_step"} <= set(named)
    # 1, 1 and 0 with the mean 2/3: sqrt((1/9 + 1/9 + 4/9) / 2 / 3)
    assert float(named["score_strict"][5]) == pytest.approx(1 / 3)


def test_values_are_those_of_results_json_to_the_last_digit(tmp_path: Path) -> None:
    answers = [row(str(i), s, tags={"level": str(i % 3)}) for i, s in enumerate((1, 0.1 + 0.2, 0, 1, 1, 0, 0))]
    rows = export(tmp_path, {"m": {"s": answers}}, {"s": about(None)})
    figures = summarise(answers, benchmark="s")
    (accuracy,) = (r for r in rows if r[3] == "accuracy")
    assert (accuracy[0], accuracy[1], accuracy[2]) == ("m", "s", "")
    assert (float(accuracy[4]), float(accuracy[5]), int(accuracy[6])) == (figures.accuracy, figures.stderr, 7)
    parts = {r[3]: float(r[4]) for r in rows if r[3].startswith("accuracy[")}
    assert parts == {f"accuracy[level={k}]": v.accuracy for k, v in figures.by["level"].items()}


def test_samples_of_an_item_have_rows_of_their_own(tmp_path: Path) -> None:
    answers = [row(str(i), s, sample=k) for i in range(2) for k, s in enumerate((1, 0, 0, i))]
    rows = {r[3]: r[4] for r in export(tmp_path, {"m": {"s": answers}}, {"s": about(None)})}
    assert (rows["pass@1"], rows["pass@4"]) == (str(3 / 8), "1.0")
    assert "maj@4" in rows


@pytest.mark.parametrize("text", ["=1+2", "+1", "-1", "@SUM(A1)", "  =1", "\uff1d1", "\t=1"])
def test_no_text_is_a_formula(text: str, tmp_path: Path) -> None:
    assert plain(text).startswith("'")
    answers = [row(str(i), 1, tags={text: text}) for i in range(2)]
    for cell in (c for r in export(tmp_path, {text: {"s": answers}}, {"s": about(None)}) for c in r):
        assert not cell.strip().startswith(("=", "+", "-", "@", "\uff1d"))


def test_ordinary_names_stay_as_they_are() -> None:
    assert plain('org/base-7B, "x"') == 'org/base-7B, "x"'


# VLMEvalKit's files


def told(name: str, answers: list[Answer], split: str = "") -> list[list[Any]]:
    known = benchmarks()[name]
    assert known.score_file is not None
    return [list(r) for r in table(known, known.score_file, split or known.split, by_item(answers))]


def tagged(*scores: float, **tags: str) -> list[Answer]:
    """An answer for each score; a tag's values are the letters of its text."""
    return [row(str(i), s, tags={t: v[i] for t, v in tags.items()}) for i, s in enumerate(scores)]


def test_options_have_a_column_for_each_part() -> None:
    answers = tagged(1, 0, 1, 1, category="xxyy", skill="pqpq")
    assert told("mmstar", answers) == [["split", "Overall", "p", "q", "x", "y"], ["none", 0.75, 1.0, 0.5, 0.5, 1.0]]
    assert told("mmmu", tagged(1, 0, subject="mm"))[1] == ["validation", 0.5, 0.5]


def test_counts_have_a_row_for_each_part() -> None:
    found = told("mathvision", tagged(1, 0, 1, 0, subject="bbaa"))
    assert found[0] == ["Subject", "tot", "hit", "acc"]
    assert found[1:] == [["Overall", 4, "2", 50.0], ["a", 2, "1", 50.0], ["b", 2, "1", 50.0]]


@pytest.mark.parametrize(("name", "tag"), [("logicvista", "skill"), ("mathvista", "skills")])
def test_an_item_of_several_skills_counts_in_each(name: str, tag: str) -> None:
    skills = ("p, q", "q", "p", "p")
    found = told(name, [row(str(i), s, tags={tag: skills[i]}) for i, s in enumerate((1, 0, 0, 1))])
    assert found[1][:3] == ["Overall", 4, "2"]
    assert [r[:3] for r in found[2:]] == [["p", 3, "2"], ["q", 2, "1"]]


def test_versions_are_rows() -> None:
    found = told("mathverse", tagged(1, 0, 1, version="uuv", subject="abb", subfield="ccc"))
    assert found == [
        ["split", "Overall", "a", "b", "c"],
        ["u", 50.0, 100.0, 0.0, 50.0],
        ["v", 100.0, None, 100.0, 100.0],
    ]


def test_average_and_worst_case_are_settings() -> None:
    answers = [
        row(f"{seed}{v}", s, cluster=seed, tags={"subject": seed, "level": "l"})
        for seed, scores in {"a": (1, 1), "b": (1, 0)}.items()
        for v, s in enumerate(scores)
    ]
    assert told("dynamath", answers) == [
        ["Setting", "Overall", "Subject-a", "Subject-b", "Level-l"],
        ["Average", 0.75, 1.0, 0.5, 0.75],
        ["Worst Case", 0.5, 1.0, 0.0, 0.5],
    ]


def test_dimensions_are_percent_as_text() -> None:
    head, cells = told("wemath", problems())
    found = dict(zip(head, cells, strict=True))
    assert list(found)[:5] == [
        f"{k} (Strict)"
        for k in ("Score", "InsufficientKnowledge", "InadequateGeneralization", "CompleteMastery", "RoteMemorization")
    ]
    assert found["Score (Strict)"] == found["Score (Loose)"] == "66.67%"
    assert found["InsufficientKnowledge (Strict)"] == "33.33% (1)"
    assert found["RoteMemorization (Strict)"] == "0.00% (0)"
    assert (found["One-step(S1)"], found["Two-step(S2)"], found["Three-step(S3)"]) == ("85.71%", "50.00%", "100.00%")
    assert told("wemath", composite("c", "10", 0))[1][4] == "nan% (0)"  # none right: of nothing


def test_points_of_yes_no_questions() -> None:
    answers = [row(f"OCR/1/{s}", s, cluster="OCR/1", tags={"subtask": "OCR"}) for s in (0, 1)]
    assert told("mme", answers) == [["OCR"], [50.0]]  # half of both, and no picture with both right
    group = {"subset": "chart", "category": "VD", "figure": "1"}
    marks = {"a": 1, "b": 0}
    answers = [
        row(f"VD_chart_0_1_{q}", s, cluster="VD_chart_0", tags={**group, "question": q}) for q, s in marks.items()
    ]
    found = told("hallusionbench", answers)
    assert found[0] == ["split", "aAcc", "fAcc", "qAcc"]
    assert [r[0] for r in found[1:]] == ["Overall", "VD", "chart"]
    assert found[1][1:] == found[2][1:] == found[3][1:] == [50.0, 0.0, 50.0]


@pytest.mark.parametrize(
    ("benchmark", "split", "protocol", "name"),
    [
        ("mathvista", "testmini", "vlmevalkit", "org_m_MathVista_MINI_gpt-4o-mini_score.csv"),
        ("mathvision", "testmini", "vlmevalkit", "org_m_MathVision_MINI_gpt-4o-mini_score.csv"),
        ("mmstar", "val", "vlmevalkit", "org_m_MMStar_acc.csv"),
        ("mmstar", "val", "rule", "org_m_MMStar_rule_acc.csv"),
        ("mme", "test", "vlmevalkit", "org_m_MME_score.csv"),
    ],
)
def test_files_have_the_names_that_vlmevalkit_gives_them(benchmark: str, split: str, protocol: str, name: str) -> None:
    scores = benchmarks()[benchmark].score_file
    assert scores is not None and file_of(scores, "org/m", about(benchmark, split, protocol)) == name


def test_each_model_and_set_has_its_file_and_older_ones_go(tmp_path: Path) -> None:
    answers = tagged(1, 0, category="xx", skill="pp")
    other = about("mmstar", protocol="rule")
    sets = {"mmstar": about("mmstar"), "again": other, "words": about(None)}
    export(tmp_path, {m: dict.fromkeys(sets, answers) for m in ("a", "org/b")}, sets)
    home = tmp_path / "vlmevalkit"
    assert {f.relative_to(home).as_posix() for f in home.rglob("*.csv")} == {
        "a/a_MMStar_acc.csv",
        "org/b/org_b_MMStar_acc.csv",
        "again/a/a_MMStar_rule_acc.csv",
        "again/org/b/org_b_MMStar_rule_acc.csv",
    }
    with (home / "a/a_MMStar_acc.csv").open(newline="") as file:
        assert next(csv.DictReader(file)) == {"split": "none", "Overall": "0.5", "p": "0.5", "x": "0.5"}
    export(tmp_path, {"a": {"mmstar": answers}}, {"mmstar": about("mmstar")})
    assert [f.name for f in home.rglob("*.csv")] == ["a_MMStar_acc.csv"]
