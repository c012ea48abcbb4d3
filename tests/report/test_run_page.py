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
from stored import Row, change_rows, store_rows
from vold.errors import DataError, VoldError
from vold.report import write_report
from vold.report.answers import RESPONSE
from vold.report.charts import OUTCOMES
from vold.report.rollouts import ROLLOUTS, TOKENS
from vold.report.run_page import QUESTIONS, STAGES, content
from vold.report.text import MINUS
from vold.run.files import append_jsonl, read_jsonl, write_text


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
    assert {a["class"] for a in images} == {"pixelated"}
    assert (images[0]["width"], images[0]["height"]) == ("288", "96")


def test_tokens_carry_the_teacher_gap(made: Path) -> None:
    _, page = page_of(made)
    scored = [a for a in page.named("span") if a.get("class") == "over"]
    assert scored
    assert all(a["style"] == "--g:0.17" for a in scored)  # a gap of 0.5 of at most 3 nats
    title = scored[0]["title"] or ""
    for part in ("id 0", "student -0.250", "teacher -0.750", "gap +0.500 nats", "advantage -0.750"):
        assert part in title.replace(MINUS, "-")
    plain = [a for a in page.named("span") if "title" in a and "class" not in a]
    assert plain
    assert all("gap" not in (a["title"] or "") for a in plain)


def test_first_and_last_stored_step_with_both_outcomes(made: Path) -> None:
    steps: Any = content(made)["steps"]
    assert list(steps) == [0, 3]
    for rollouts in steps.values():
        assert [r.passed for r in rollouts] == [False] * ROLLOUTS + [True] * ROLLOUTS
        assert len({r.row["task_id"] for r in rollouts[:2]}) == 2


def test_values_a_token_was_credited_with_are_coloured_and_named(run: Path) -> None:
    def weighed(row: Row) -> Row:
        weights = [1.0, 1.0] + [0.5] * (len(row["tokens"]) - 3) + [0.0]
        return row | {"token_values": {"step_weight": weights}, "rollout_values": {"shift": -0.25, "cut": 3.0}}

    file = run / "distill" / "rollouts" / "step-000003.safetensors"
    change_rows(file, lambda rows: [weighed(r) for r in rows])
    html, page = page_of(run)
    cells = [a for a in page.named("span") if a.get("class") == "value"]
    assert {(a["title"], a["style"]) for a in cells} == {
        ("step_weight 1.000", "--g:1.00"), ("step_weight 0.500", "--g:0.50"), ("step_weight 0.000", "--g:0.00"),
    }  # fmt: skip
    assert f"shift {MINUS}0.250" in html and "cut 3" in html
    assert "1.00 x 2, 0.50 x 1, 0.00 x 1" in html  # the failed rollouts have four tokens


def test_curves_are_drawn_and_labelled(made: Path) -> None:
    html, page = page_of(made)
    titles = re.findall(r"<figcaption><b>([^<]*)</b>", html)
    start = titles.index("Loss")
    assert titles[start : start + 3] == ["Loss", "Gradient norm", "Reward"]
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


@pytest.mark.parametrize("stage", STAGES)
def test_missing_stages_are_a_note(run: Path, stage: str) -> None:
    shutil.rmtree(run / stage)
    html, _ = page_of(run)
    assert f"run <code>vold {stage}</code>" in html or stage == "traces"
    assert re.search(rf"<td>{stage}</td><td class=\"soft\">not run</td>", html)


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
    long = {"tokens": ["word "] * 5000, "logp": [-0.1] * 5000, "score": 1.0}
    store_rows(run / "distill" / "rollouts", 9, [long | {"task_id": str(i)} for i in range(50)])
    rows = [answer(i, True) | {"id": f"q{i}", "response": "x" * 50_000} for i in range(200)]
    append_jsonl(run / "eval" / "vold" / "image.jsonl", rows)
    found: Any = content(run)
    last = found["steps"][9]
    assert len(last) == ROLLOUTS
    assert {(len(r.tokens), r.length) for r in last} == {(TOKENS, 5000)}
    (images,) = found["evaluation"].samples
    assert (len(images.cards), images.questions) == (QUESTIONS, 208)
    assert max(len(a.response.head + a.response.tail) for c in images.cards for a in c.answers) == RESPONSE
    html, _ = page_of(run)
    assert len(html) < 2_000_000
    assert html.count(f"{5000 - TOKENS:,} more tokens") == ROLLOUTS
    assert f"[ {50_000 - RESPONSE:,} characters are left out here ]" in html


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
