"""Runs side by side: what the page holds, and the list of runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from browser import evaluate
from made_run import RECIPE, make_run
from pages import Page
from vold.cli import main
from vold.errors import ConfigError
from vold.evals.compare import compare_all
from vold.report.listing import list_runs
from vold.run.files import write_text
from vold.run.lock import owning


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs that were not evaluated: `a`, `b` with another seed, and `deep/c` of another reward."""
    home = tmp_path_factory.mktemp("runs")
    make_run(home / "a")
    shutil.rmtree(home / "a" / "eval")
    shutil.copytree(home / "a", home / "b")
    shutil.copytree(home / "a", home / "deep" / "c")
    write_text(home / "b" / "recipe.yaml", RECIPE.replace("seed: 7", "seed: 8"))
    rows = [{"step": s, "reward": 0.125 * s} for s in range(4)]
    file = home / "deep" / "c" / "distill" / "metrics.jsonl"
    file.unlink()
    (file.parent / ".metrics.jsonl.sums").unlink()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


def test_curves_lie_over_each_other_and_recipes_differ_in_what_they_do(runs: Path) -> None:
    page = compare_all(str(runs / "a"), [str(runs / "b"), str(runs / "deep" / "c")])
    assert page == runs / "a" / "compare.html"
    found = Page(page.read_text())
    rewards = next(a for a in found.named("figure") if (a.get("data-lines") or "").count('"label"') == 3)
    lines = {line["label"]: line["points"] for line in json.loads(rewards["data-lines"] or "")}
    assert [*lines] == ["a", "b", "deep/c"]
    assert lines["a"] == [[s, 0.5] for s in range(4)]
    assert lines["deep/c"] == [[0, 0], [1, 0.125], [2, 0.25], [3, 0.375]]
    assert [row for row in found.rows if row and row[0].startswith("run.")] == [["run.seed", "7", "8", "7"]]
    assert page.read_text().count("Not evaluated: ") == 2


def test_evaluations_while_stages_trained_lie_over_each_other(runs: Path, tmp_path: Path) -> None:
    """Run `a` was evaluated on two sets, `b` on one of them."""
    home = Path(shutil.copytree(runs, tmp_path / "runs"))
    found = {"pictures": True, "n": 64, "stderr": 0.06, "truncated": 0.0, "tokens": 20.0}
    for run, sets in (("a", ("image", "text")), ("b", ("image",))):
        rows = [{"step": s, "set": name, "accuracy": 0.25 + s / 8, **found} for s in (0, 2) for name in sets]
        write_text(home / run / "distill/evals.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    assert compare_all(str(home / "a"), [str(home / "b")]) == home / "a" / "compare.html"
    html = (home / "a" / "compare.html").read_text()
    charts = [json.loads(a["data-lines"] or "") for a in Page(html).named("figure")]
    assert "Accuracy while it trains: image" in html
    assert [[line["label"] for line in lines] for lines in charts[:2]] == [["a", "b"], ["a"]]
    assert charts[0][0]["points"] == [[0, 0.25], [2, 0.5]]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_six_runs_are_six_lines_and_keys_that_can_be_told_apart(runs: Path, tmp_path: Path, dark: bool) -> None:
    names = [str(shutil.copytree(runs / "a", tmp_path / name)) for name in "abcdef"]
    page = compare_all(names[0], names[1:])
    assert page is not None
    chart = "document.querySelector('.chart')"
    look = "(e, ...keys) => keys.map(key => getComputedStyle(...e)[key]).join(' ')"
    steps = [
        f"[...{chart}.querySelectorAll('polyline')].map(e => ({look})([e], 'stroke', 'strokeDasharray'))",
        f"[...{chart}.querySelectorAll('.key')].map(e => ({look})([e, '::before'], 'color', 'backgroundImage'))",
    ]
    ((lines, keys),) = evaluate(page, steps, dark=dark)
    for found in (lines, keys):
        assert len(found) == len({*found}) == 6
        assert [look.endswith(" none") for look in found] == [True] * 4 + [False] * 2
    assert [line.partition(")")[0] for line in lines] == [key.partition(")")[0] for key in keys]


def test_three_runs_from_the_command_line_and_no_page_of_one(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(runs / "a"), str(runs / "b"), str(runs / "deep" / "c")]
    assert main(["compare", *names]) == 0
    last = [f"wrote {runs / 'a' / 'compare.html'}", f"next: vold show {names[0]} --serve"]
    assert capsys.readouterr().out.splitlines()[-2:] == last
    assert main(["compare", names[0], names[0]]) == 0
    assert "wrote" not in capsys.readouterr().out
    assert main(["compare", *names, str(runs)]) == 2
    assert main(["compare", names[0], names[1], "force=maybe"]) == 2


def test_the_list_of_runs(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = runs / "b" / "distill" / "final"
    model.rename(tmp_path / "final")
    with owning(runs / "b", "distill"):
        found = {r.name: (r.state, r.step, r.headline) for r in list_runs(runs)}
    with pytest.raises(ConfigError), owning(runs / "b", "distill"):
        raise ConfigError("no room", fix="make some")
    assert {r.name: (r.state, r.headline) for r in list_runs(runs)}["b"] == ("failed", "distill: no room")
    capsys.readouterr()
    assert main(["show", str(runs / "b")]) == 0
    assert "failed  distill: no room" in capsys.readouterr().out
    (tmp_path / "final").rename(model)
    with owning(runs / "b", "distill"):
        # All is done, and this process would only write the report.
        assert {r.name: r.state for r in list_runs(runs)}["b"] == "finished"
    assert found == {
        "a": ("finished", "distill: 4 of 4 steps, last reward 0.500", "Reward 0.50 at first, 0.50 at last of 4 steps."),
        "b": ("running", "distill: 4 of 4 steps, last reward 0.500", "Reward 0.50 at first, 0.50 at last of 4 steps."),
        "deep/c": ("finished", "distill: 4 of 4 steps, last reward 0.375",
                   "Reward 0.00 at first, 0.38 at last of 4 steps."),
    }  # fmt: skip
    capsys.readouterr()
    assert main(["list", str(runs)]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in table] == [
        ["run", "state"], ["a", "finished"], ["b", "finished"], ["deep/c", "finished"],
    ]  # fmt: skip
    assert last == f"next: vold show {runs} --serve"
    assert main(["list", str(tmp_path)]) == 2
    assert main(["list", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err
