"""`vold show` on small runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from made_run import RECIPE, make_run
from stored import Row, change_rows, store_rows
from vold.errors import ConfigError, DataError
from vold.report.show import gap_style, show
from vold.run.console import console
from vold.run.files import append_jsonl, write_text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal wide enough for every table."""
    monkeypatch.setattr(console, "_width", 200)


def test_shows_stages_results_alignment_and_rollouts(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = show(made)
    text = capsys.readouterr().out
    assert page == made / "report.html"
    assert page.is_file()
    assert text.splitlines()[-2:] == [f"wrote {page}", f"next: vold show {made} --serve"]
    assert "4 of 4 steps, last reward 0.500" in text
    for words in (
        "25.0",
        "75.0",
        "+50.0",
        "ready: Alike.",
        "rollouts of step 3",
        "mean gap +0.50 nats",
        "widest gaps: ",
    ):
        assert words in text
    assert "<think> 1 + 2 = 3 </think> <|im_end|>" in text
    assert text.count("passed  reward") == 2
    assert text.count("failed  reward") == 2


def test_values_of_a_rollout_are_printed_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    file = run / "distill" / "rollouts" / "step-000003.safetensors"
    credit = {"rollout_values": {"cut": 2.0, "cut_gain": 1.5}}

    def cut(row: Row) -> Row:
        return row | credit | {"token_values": {"prefix": [1.0, 1.0] + [0.0] * (len(row["tokens"]) - 2)}}

    change_rows(file, lambda rows: [cut(r) for r in rows])
    show(run)
    text = capsys.readouterr().out
    assert text.count("cut 2, cut gain 1.500") == 4
    assert text.count("prefix: 1.00 x 2, 0.00 x 2") == 2  # the failed ones have four tokens
    assert text.count("prefix: 1.00 x 2, 0.00 x 6") == 2


@pytest.mark.parametrize("limit", ["x", "-1", "1.5", "", "9" * 5000])
def test_a_limit_that_is_no_number_of_rollouts_is_refused(limit: str, made: Path) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        show(made, [f"limit={limit}"])


def test_step_and_limit_from_python_and_from_the_command_line(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(made, step=0, limit=1)
    first = capsys.readouterr().out
    show(str(made), ["step=0", "limit=1"])
    assert capsys.readouterr().out == first
    assert "rollouts of step 0" in first
    assert first.count("failed  reward") == 1


def test_a_recipe_names_its_run(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.yaml"
    write_text(recipe, "run: {dir: nowhere}\nstudent: {path: 'demo:student'}\n")
    show(recipe, [f"run.dir={made}", "limit=1"])
    assert str(made) in capsys.readouterr().out
    with pytest.raises(DataError, match="no run here"):
        show(recipe, [f"run.dir={tmp_path / 'absent'}"])


def test_a_run_that_has_hardly_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append_jsonl(tmp_path / "sft" / "metrics.jsonl", [{"step": 0, "loss": 2.5}])
    show(tmp_path)
    text = capsys.readouterr().out
    assert "loss 2.500" in text
    assert "not run" in text
    assert text.splitlines()[-1] == f"next: vold show {tmp_path} --serve"
    write_text(tmp_path / "recipe.yaml", RECIPE.replace("runs/tiny", str(tmp_path)))
    show(tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == f"next: vold run {tmp_path / 'recipe.yaml'}"


@pytest.mark.parametrize(
    ("written", "override"), [("runs/old", " run.dir=runs/new"), ("runs/new", ""), ("./runs/../runs/new", "")]
)
def test_a_run_that_was_renamed_goes_on_where_it_is_now(
    written: str, override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    append_jsonl(Path("runs/new/sft/metrics.jsonl"), [{"step": 0, "loss": 2.5}])
    write_text(Path("runs/new/recipe.yaml"), RECIPE.replace("runs/tiny", written))
    show("runs/new")
    assert capsys.readouterr().out.splitlines()[-1] == f"next: vold run runs/new/recipe.yaml{override}"


def test_model_text_is_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"tokens": ["[bold]x[/nope]", "\x1b[31m"], "logp": [-1, -1], "prompt": "[/red]", "score": 0, "note": "[/]"}
    store_rows(tmp_path / "distill" / "rollouts", 1, [row])
    show(tmp_path)
    text = capsys.readouterr().out
    assert "[bold]x[/nope]" in text
    assert "[/red]" in text
    assert "\x1b[31m" not in text


def test_what_cannot_be_shown_says_so(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run here"):
        show(tmp_path)
    with pytest.raises(DataError, match="one of 0, 2, 3"):
        show(made, step=1)
    with pytest.raises(ConfigError, match="whole number"):
        show(made, ["limit=all"])
    with pytest.raises(ConfigError, match="no recipe overrides"):
        show(made, ["sft.steps=3"])


def test_colours_of_gaps() -> None:
    assert gap_style(None) == ""
    assert gap_style(3.0) == gap_style(1e9) == "black on #f08c32"
    assert gap_style(-3.0) == "black on #6ea5f5"
