"""The report page: content, escaping, and runs that are only half there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from made_run import RECIPE, answer, make_run
from pages import Page
from stored import store_rows
from vold.errors import DataError, VoldError
from vold.report import browser, write_report
from vold.report.answers import RESPONSE
from vold.report.charts import OUTCOMES
from vold.report.run_page import QUESTIONS, answers_of, content
from vold.report.text import MINUS
from vold.run.files import append_jsonl, read_jsonl, write_json, write_text
from vold.run.lock import owning


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that no test changes."""
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(made, tmp_path / "tiny")


def page_of(run_dir: Path) -> tuple[str, Page]:
    """The written page as text and as tags."""
    html = write_report(run_dir).read_text(encoding="utf-8")
    return html, Page(html)


def test_head_says_what_the_run_is(made: Path) -> None:
    html, _ = page_of(made)
    for label, value in (
        ("student", "demo:student"),
        ("teacher", "demo:teacher"),
        ("objective", "vold"),
        ("seed", "7"),
    ):
        assert f"<dt>{label}</dt><dd>{value}</dd>" in html
    assert "vold 0.1.0, torch 2.9" in html


def test_evaluations_while_a_stage_trained_are_a_curve_and_a_sentence(run: Path) -> None:
    found = {"pictures": True, "n": 64, "stderr": 0.06, "truncated": 0.0, "tokens": 20.0, "set": "image"}
    rows = [
        {"step": 0, "accuracy": 0.25, **found},
        {"step": 5, "accuracy": 0.5, "difference": 0.25, "low": 0.1, "high": 0.4, **found},
        {"step": 9, "accuracy": 0.375, "difference": 0.125, "low": -0.02, "high": 0.27, **found},
    ]
    write_text(run / "distill/evals.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    html, _ = page_of(run)
    interval = f"95% interval {MINUS}2.0 to +27.0"
    assert f"image after 9 steps: 37.5% (+12.5 points against step 0, {interval}); best after 5 steps." in html
    chart = html[html.index("Accuracy while it trains") :]
    # Steps 0 to 9 lie between 46 and 312, shares of 0 to 1 between 142 and 8.
    assert 'points="46.0,108.5 193.8,75.0 312.0,91.8"' in chart


def test_numbers_are_those_of_the_results(made: Path) -> None:
    html, page = page_of(made)
    results = json.loads((made / "eval" / "results.json").read_text())
    start = next(i for i, row in enumerate(page.rows) if row[:2] == ["score", "model"])
    for model, row in zip(("base", "vold"), page.rows[start + 2 :], strict=False):
        s = results["stages"][model]["image"]
        found = dict(zip(page.rows[start], row, strict=True))
        shown = [f"{100 * s['accuracy']:.1f}", f"{100 * s['stderr']:.1f}", str(s["n"]), f"{s['mean_tokens']:.0f}"]
        assert [found[k] for k in ("model", "%", "std. error", "questions", "mean tokens")] == [model, *shown]
        assert found["unparsed"] == f"{100 * s['outcomes']['unparsed'] / 8:.1f}"
        assert [model, *(f"{100 * s['outcomes'].get(o, 0) / 8:.1f}" for o in OUTCOMES)] in page.rows
    (c,) = results["comparisons"]
    interval = f"{100 * c['low']:+.1f} to {100 * c['high']:+.1f}".replace("-", MINUS)
    assert any(row[:2] == ["vold", f"{100 * c['difference']:+.1f}"] and interval in row for row in page.rows)
    (span,) = [row for row in page.rows if row[0] == "span"]
    parts = [results["stages"][m]["image"]["by_kind"]["span"] for m in ("base", "vold")]
    assert [cell.partition("±")[0] for cell in span] == ["span", "4", *(f"{100 * part:.1f}" for part in parts)]
    assert parts[0] == 0.25
    assert "<b>ready</b>. Alike." in html


def test_small_pictures_are_embedded_and_enlarged(made: Path) -> None:
    _, page = page_of(made)
    images = page.named("img")
    assert len(images) == 8
    assert (images[0]["width"], images[0]["height"]) == ("288", "96")


def test_curves_are_drawn_and_labelled(made: Path) -> None:
    html, page = page_of(made)
    titles = re.findall(r"<figcaption><b>([^<]*)</b>", html)
    start = titles.index("Loss")
    assert titles[:2] + titles[start : start + 2] == ["Reward", "Teacher gap", "Loss", "Gradient norm"]
    assert {"Teacher gap", "Entropy", "Groups of one outcome", "Tokens"} <= set(titles)
    tokens = next(a for a in page.named("figure") if "read by the teacher" in (a.get("data-lines") or ""))
    lines = {line["label"]: line["points"] for line in json.loads(tokens["data-lines"] or "")}
    assert lines["in rollouts"][0] == [0, 48]
    assert lines["read by the teacher"][0] == [0, 16]


def test_a_torn_line_is_left_out(run: Path) -> None:
    for file in (
        "distill/metrics.jsonl",
        "sft/metrics.jsonl",
        "eval/vold/image.jsonl",
    ):
        path = run / file
        path.write_text(path.read_text() + '{"step": 99, "rew')
    html, page = page_of(run)
    assert "4 of 4 steps" in html
    assert "All of them are here." in html
    assert len([a for a in page.named("section") if "data-outcome" in a]) == 16


@pytest.mark.parametrize("stage", ["traces", "sft", "align", "distill", "eval"])
def test_missing_stages_are_a_note(run: Path, stage: str) -> None:
    shutil.rmtree(run / stage)
    html, _ = page_of(run)
    assert f"run <code>vold {stage}</code>" in html or stage == "traces"
    assert re.search(rf"<td>{stage}</td><td class=\"soft\">not run</td>", html)


def test_what_a_run_at_work_will_still_do_is_no_note_to_run_it(run: Path) -> None:
    for stage in ("traces", "sft", "distill", "eval"):
        shutil.rmtree(run / stage)
    missing = [f"run <code>vold {stage}</code>" for stage in ("traces", "sft", "distill", "eval")]
    assert all(note in page_of(run)[0] for note in missing)
    write_text(run / "recipe.yaml", f"{RECIPE}traces: {{tasks: a}}\neval: {{sets: [a]}}\n")
    with owning(run, "traces"):
        html, _ = page_of(run)
    assert not any(note in html for note in missing)
    assert "No benchmark has been measured yet: <code>vold eval</code> comes last." in html


def test_solutions_of_the_data_are_no_answers_of_the_teacher(run: Path) -> None:
    counts = "were kept (70 tokens); 8 of the 9 are correct"
    assert f"7 of the teacher\N{RIGHT SINGLE QUOTATION MARK}s 9 answers {counts}, 1 were cut off." in page_of(run)[0]
    write_text(run / "recipe.yaml", f"{RECIPE}traces: {{answers: data}}\n")
    assert f"7 of the data\N{RIGHT SINGLE QUOTATION MARK}s own 9 solutions {counts}." in page_of(run)[0]


def test_balance_is_a_stage_where_a_run_has_it(run: Path) -> None:
    assert "<td>balance</td>" not in page_of(run)[0]
    write_json(run / "balance" / "summary.json", {"problems": 7, "after": [0, 2, 6, 1]})
    assert re.search(r"<td>balance</td><td>done</td><td[^>]*>9 rows of 7 problems</td>", page_of(run)[0])


def test_only_a_recipe_or_only_a_stage_is_enough(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "recipe.yaml", RECIPE)
    assert "not run" in page_of(tmp_path / "a")[0]
    append_jsonl(tmp_path / "b" / "sft" / "metrics.jsonl", [{"step": 0, "loss": 2.0}])
    assert "1 of ? steps, last loss 2.000" in page_of(tmp_path / "b")[0]


READ = (
    "recipe.yaml", "versions.json", "traces/summary.json", "align/align.json", "eval/results.json",
    "sft/metrics.jsonl", "distill/metrics.jsonl", "eval/vold/image.jsonl", "distill/rollouts/step-000003.safetensors",
)  # fmt: skip
JUNK = ("", "{", "[1, 2]\n", "null\n", '{"stages": {"base": 3}, "comparisons": [1]}\n', "\x00\ufffd\n", "[" * 99_999)


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize("name", READ)
def test_junk_in_a_file_is_an_error_that_names_it(run: Path, name: str, junk: str) -> None:
    (run / name).write_text(junk)
    if name.endswith((".json", ".yaml")) and junk.startswith('{"stages"'):  # of another version, perhaps
        page_of(run)
        return
    with pytest.raises(VoldError, match=re.escape(name)):
        page_of(run)


def test_rows_without_their_keys_are_survived(run: Path) -> None:
    odd = {"id": 1, "tokens": ["a"], "images": 3, "tags": 2, "score": "x"}
    for file in run.rglob("*.jsonl"):
        append_jsonl(file, [odd | {"step": len(read_jsonl(file))}])
    html, _ = page_of(run)
    assert "vold" in html


@pytest.mark.parametrize("name", ["sft/metrics.jsonl", "distill/metrics.jsonl", "eval/vold/image.jsonl"])
def test_a_row_that_is_of_no_step_and_no_question_is_refused(run: Path, name: str) -> None:
    append_jsonl(run / name, [{"x": 1}])
    line = len((run / name).read_text().splitlines())
    with pytest.raises(VoldError, match=re.escape(f"{name}: line {line}\n")):
        page_of(run)


def test_no_run_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run here"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="no such directory"):
        write_report(tmp_path / "absent")


def test_page_is_bounded(run: Path) -> None:
    rows = [answer(i, True) | {"id": f"q{i}", "response": "x" * 50_000} for i in range(200)]
    append_jsonl(run / "eval" / "vold" / "image.jsonl", rows)
    found: Any = content(run)
    (images,) = found["evaluation"].samples
    assert (len(images.cards), images.questions) == (QUESTIONS, 208)
    assert max(len(a.response.head + a.response.tail) for c in images.cards for a in c.answers) == RESPONSE
    html, _ = page_of(run)
    assert len(html) < 2_000_000
    assert f"[ {50_000 - RESPONSE:,} characters are left out here ]" in html


def test_only_so_many_bytes_of_rollouts_are_saved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "ROOM", 400_000)
    long = {"tokens": ["word "] * 5000, "logp": [-0.1 - i % 7 for i in range(5000)], "score": 1.0}
    for step in range(4, 24):
        rows = [long | {"task_id": str(i), "group": i // 4, "score": float(i == 9)} for i in range(16)]
        store_rows(run / "distill" / "rollouts", step, rows)
    small = len(page_of(run)[0])
    (data,) = re.findall(r'id="rollout-data">(.*?)</script>', page_of(run)[0])
    found = json.loads(data)
    assert list(found["steps"]) == ["0", "4", "7", "10", "14", "17", "20", "23"]  # first, last and some between
    assert small < 1_000_000 and len(data) < 600_000
    listed = {f"{step}.{row['i']}" for step, of in found["steps"].items() for row in of["rows"]}
    assert listed == set(found["values"])
    assert 8 in [row["i"] for row in found["steps"]["23"]["rows"]]  # of the group that does not end alike
    monkeypatch.setattr(browser, "ROOM", 40_000_000)
    html, _ = page_of(run)
    assert "This page holds 120 of the 120 rollouts of 8 of the 23 stored steps" in html


def test_questions_cover_every_pattern_and_can_be_chosen_by_it(made: Path) -> None:
    _, page = page_of(made)
    answers = [a for a in page.named("section") if "data-outcome" in a]
    found = zip(answers[::2], answers[1::2], strict=True)
    assert {(b["data-outcome"], v["data-outcome"], v["data-changes"]) for b, v in found} == {
        ("right", "right", ""),
        ("unparsed", "right", "gained"),
        ("unparsed", "unparsed", ""),
    }
    assert {(a["data-model"], b["data-model"]) for a, b in zip(answers[::2], answers[1::2], strict=True)} == {
        ("base", "vold")
    }
    values = [a["value"] for a in page.named("option")]
    assert {"base", "vold", "gained", "lost", "kind: span", "kind: sum"} <= set(values)


def test_a_judges_replies_and_exports_are_no_models(made: Path, run: Path) -> None:
    append_jsonl(run / "eval" / "judge" / "0123.jsonl", [{"key": "a", "reply": "36"}])
    (run / "eval" / "vlmevalkit").mkdir()
    before, after = content(made), content(run)
    assert after["gains"] == before["gains"] != []
    assert list(answers_of(run)) == ["base", "vold"]


def test_answers_of_a_model_whose_name_has_a_slash_are_shown(run: Path) -> None:
    (run / "eval" / "Qwen").mkdir()
    (run / "eval" / "base").rename(run / "eval" / "Qwen" / "VL")
    found = answers_of(run)
    assert list(found) == ["vold", "Qwen/VL"]
    assert [row["id"] for row in found["Qwen/VL"]["image"]] == [f"p{i}" for i in range(8)]
