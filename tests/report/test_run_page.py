"""The report page: content, escaping, and runs that are only half there."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from made_run import HOSTILE, RECIPE, answer, make_run
from vold.errors import DataError
from vold.evals.questions import thumbnail
from vold.report import write_report
from vold.report.line_charts import Series, line_chart, thin
from vold.report.reading import DASH, MINUS
from vold.report.run_page import STAGES, context
from vold.report.run_samples import (
    CHARACTERS,
    PROBLEMS,
    ROLLOUTS,
    TOKENS,
    clean,
    gaps_of,
    mean_gap,
    picture,
    show_rollout,
)
from vold.report.values import coloured, in_words, rollout_values
from vold.run.files import append_jsonl, write_text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that no test changes."""
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(made, tmp_path / "tiny")


class _Page(HTMLParser):
    """Counts tags and collects attributes, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag]


def page_of(run_dir: Path) -> tuple[str, _Page]:
    """The written page as text and as tags."""
    html = write_report(run_dir).read_text(encoding="utf-8")
    return html, _Page(html)


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
    html, _ = page_of(made)
    results = json.loads((made / "eval" / "results.json").read_text())
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html)
    for model in ("base", "vold"):
        s = results["stages"][model]["image"]
        start = next(i for i, c in enumerate(cells) if c == model)
        assert cells[start + 1 : start + 4] == [f"{100 * s['accuracy']:.1f}", f"{100 * s['stderr']:.1f}", str(s["n"])]
    (c,) = results["comparisons"]
    assert f"{100 * c['difference']:+.1f}" in cells
    assert f"{100 * c['low']:+.1f} to {100 * c['high']:+.1f}".replace("-", MINUS) in cells
    assert f"{100 * results['stages']['base']['image']['outcomes']['unparsed'] / 8:.1f}" in cells
    by_kind = results["stages"]["vold"]["image"]["by_kind"]
    assert f'<tr><td>span</td><td class="n">25.0</td><td class="n">{100 * by_kind["span"]:.1f}</td></tr>' in html
    assert "<b>ready</b>. Alike." in html


def test_text_of_models_is_escaped(run: Path) -> None:
    file = run / "distill" / "rollouts" / "step-000003.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row |= {"prompt": HOSTILE, "extracted": HOSTILE, "note": HOSTILE, "task_id": HOSTILE, "tokens": [HOSTILE] * 4}
    write_text(file, "".join(json.dumps(r) + "\n" for r in rows))
    write_text(run / "recipe.yaml", RECIPE.replace("demo:teacher", "<script>y</script>"))
    html, page = page_of(run)
    assert html.count("<script") == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert HOSTILE in unescape(html)
    assert HOSTILE not in html


def test_page_needs_nothing_from_outside(made: Path) -> None:
    html, page = page_of(made)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", html)
    assert not re.search(r"@import|url\(", html)
    assert {t for t, _ in page.tags} & {"link", "iframe", "object", "embed"} == set()
    assert all((a["src"] or "").startswith("data:image/png;base64,") for a in page.named("img"))
    assert all((a["href"] or "").startswith("#") for a in page.named("a"))
    policy = page.named("meta")[1]["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "'sha256-" in policy


def test_small_pictures_are_embedded_and_enlarged(made: Path) -> None:
    _, page = page_of(made)
    images = page.named("img")
    assert len(images) == 8
    assert {a["class"] for a in images} == {"pixelated"}
    assert (images[0]["width"], images[0]["height"]) == ("288", "96")


def test_pictures_that_are_no_pictures_are_left_out() -> None:
    for uri in (None, "https://example.org/x.png", "data:text/html;base64,AAAA", 'data:image/png;base64,A" onload="x'):
        assert picture(uri)["uri"] is None
    assert picture("data:image/png;base64," + "A" * 500_000)["uri"] is None
    assert picture("data:image/png;base64,AAAA") == {
        "uri": "data:image/png;base64,AAAA",
        "width": None,
        "pixelated": False,
    }
    large = picture(thumbnail(Image.new("RGB", (300, 200))))
    assert (large["width"], large["height"], large["pixelated"]) == (300, 200, False)


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
    steps = context(made)["steps"]
    assert [s["step"] for s in steps] == [0, 3]
    for step in steps:
        assert [r["passed"] for r in step["rollouts"]] == [False] * ROLLOUTS + [True] * ROLLOUTS
        assert len({r["task_id"] for r in step["rollouts"][:2]}) == 2


def test_gap_by_hand() -> None:
    row = {"tokens": ["a", "b", "c"], "logp": [-1.0, -2.0, -0.5], "teacher_logp": [-1.5, -1.0, float("nan")]}
    assert gaps_of(row) == [0.5, -1.0, None]
    assert mean_gap([row, {"tokens": ["a"], "logp": [-1.0], "teacher_logp": None}]) == -0.25
    assert [t["side"] for t in show_rollout(row)["tokens"]] == ["over", "under", "plain"]


def test_values_a_token_was_credited_with_are_coloured_and_named(run: Path) -> None:
    file = run / "distill" / "rollouts" / "step-000003.jsonl"
    stored = [json.loads(line) for line in file.read_text().splitlines()]
    for row in stored:
        row["token_values"] = {"step_weight": [1.0, 1.0] + [0.5] * (len(row["tokens"]) - 3) + [0.0]}
        row["rollout_values"] = {"shift": -0.25, "cut": 3.0}
    file.write_text("".join(json.dumps(row) + "\n" for row in stored))
    html, page = page_of(run)
    cells = [a for a in page.named("span") if a.get("class") == "value"]
    assert {(a["title"], a["style"]) for a in cells} == {
        ("step_weight 1.000", "--g:1.00"), ("step_weight 0.500", "--g:0.50"), ("step_weight 0.000", "--g:0.00"),
    }  # fmt: skip
    assert f"shift {MINUS}0.250" in html and "cut 3" in html
    assert "1.00 x 2, 0.50 x 1, 0.00 x 1" in html  # the failed rollouts have four tokens


def test_values_in_words_and_odd_ones() -> None:
    assert in_words([1.0, 1.0, None, 0.5]) == f"1.00 x 2, {DASH} x 1, 0.50 x 1"
    assert in_words([float(i) for i in range(20)]) == "0.00 to 19.00"
    odd = {"token_values": {"a": [None, "x"], "b": 3, "c": [2.0, 2.0], "d": [0.0]}, "rollout_values": [1]}
    assert [v["name"] for v in coloured(odd, ["t", "u"])] == ["c", "d"]
    assert [[t["strength"] for t in v["tokens"]] for v in coloured(odd, ["t", "u"])] == [["1.00", "1.00"], ["0.00"]]
    assert rollout_values(odd) == []
    assert coloured({}, ["t"]) == [] and coloured({"token_values": None}, ["t"]) == []


def test_curves_are_drawn_and_labelled(made: Path) -> None:
    html, page = page_of(made)
    titles = re.findall(r"<figcaption><b>([^<]*)</b>", html)
    assert titles[:3] == ["Loss", "Gradient norm", "Reward"]
    assert {"Teacher gap", "Entropy", "Groups of one outcome", "Tokens"} <= set(titles)
    tokens = next(a for a in page.named("figure") if "read by the teacher" in (a["data-lines"] or ""))
    lines = {line["label"]: line["points"] for line in json.loads(tokens["data-lines"] or "")}
    assert lines["in rollouts"][0] == [0, 48]
    assert lines["read by the teacher"][0] == [0, 16]


def test_thinning_keeps_extremes_and_ends() -> None:
    line = [(float(i), 100.0 if i == 5001 else float(i % 7)) for i in range(10_001)]
    thinned = thin(line, 400)
    assert len(thinned) <= 401
    assert (5001.0, 100.0) in thinned
    assert thinned[-1] == line[-1]
    assert thinned == sorted(thinned)


def test_charts_of_odd_data() -> None:
    assert line_chart("t", "u", [Series("empty", [])]) is None
    for pts in ([(0.0, 0.0)], [(3.0, -2.0)], [(0.0, 1.0), (1.0, 1.0)], [(0.0, -1e9), (1.0, 1e9)]):
        drawn = line_chart("t", "u", [Series("<b>", pts)])
        assert drawn is not None
        assert "nan" not in drawn
        assert "<b>t</b>" in drawn
        assert 'label": "<b>' not in drawn


def test_a_torn_line_is_left_out(run: Path) -> None:
    for file in (
        "distill/metrics.jsonl",
        "sft/metrics.jsonl",
        "eval/vold/image.jsonl",
        "distill/rollouts/step-000003.jsonl",
    ):
        path = run / file
        path.write_text(path.read_text() + '{"step": 99, "rew')
    html, _ = page_of(run)
    assert "4 of 4 steps" in html
    assert "8 of 8 problems" in html


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


@pytest.mark.parametrize(
    "junk", ["", "{", "[1, 2]\n", "null\n", '{"stages": {"base": 3}, "comparisons": [1]}\n', "\x00\ufffd\n"]
)
def test_junk_in_any_file_is_survived(run: Path, junk: str) -> None:
    for file in run.rglob("*"):
        if file.is_file():
            file.write_text(junk)
    page_of(run)


def test_rows_without_their_keys_are_survived(run: Path) -> None:
    for file in run.rglob("*.jsonl"):
        append_jsonl(file, [{}, {"id": 1, "step": None, "tokens": ["a"], "images": 3, "tags": 2, "score": "x"}])
    html, _ = page_of(run)
    assert "vold" in html


def test_no_run_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run here"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="no such directory"):
        write_report(tmp_path / "absent")


def test_page_is_bounded(run: Path) -> None:
    long = {"tokens": ["word "] * 5000, "ids": [1] * 5000, "logp": [-0.1] * 5000, "teacher_logp": None, "score": 1.0}
    append_jsonl(run / "distill" / "rollouts" / "step-000009.jsonl", [long | {"task_id": str(i)} for i in range(50)])
    rows = [answer(i, True) | {"id": f"q{i}", "response": "x" * 50_000} for i in range(200)]
    append_jsonl(run / "eval" / "vold" / "image.jsonl", rows)
    found = context(run)
    last = found["steps"][-1]
    assert len(last["rollouts"]) == ROLLOUTS
    assert {(len(r["tokens"]), r["more"]) for r in last["rollouts"]} == {(TOKENS, 5000 - TOKENS)}
    (images,) = found["problems"]
    assert (len(images["cards"]), images["of"]) == (PROBLEMS, 208)
    assert max(len(a["response"]) for c in images["cards"] for a in c["answers"]) < CHARACTERS + 50
    assert write_report(run).stat().st_size < 2_000_000


def test_problems_cover_every_pattern(made: Path) -> None:
    (images,) = context(made)["problems"]
    assert images["models"] == ["base", "vold"]
    patterns = {tuple(a["right"] for a in c["answers"]) for c in images["cards"]}
    assert patterns == {(True, True), (False, True), (False, False)}
    html, page = page_of(made)
    assert {a["data-right"] for a in page.named("article") if "data-right" in a} == {
        "base=1;vold=1;",
        "base=0;vold=1;",
        "base=0;vold=0;",
    }
    assert "<option>span</option><option>sum</option>" in html


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert clean("a\x1b[31mb\x9b2Jc\td\n") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}2Jc\td\n"
