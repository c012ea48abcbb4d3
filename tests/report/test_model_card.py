"""What a model card says of runs whose story is not the plain one. How it is pushed: test_push.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from vold.report.model_card import model_card
from vold.run.recipe import Recipe
from vold.run.view import Run
from vold.training.distill import distill
from vold.training.sft import sft

GRPO = {"method": "grpo"}


def card_of(recipe: Recipe) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The text before the recipe, the YAML for the hub, and the recipe."""
    card = model_card(Run(recipe.run.dir))
    said, _, shown = card.partition("## Recipe")
    return said, yaml.safe_load(card.split("---")[1]), yaml.safe_load(shown.split("```yaml\n")[1].split("```")[0])


def test_each_stage_stands_there_as_it_ran_whatever_later_ones_were_started_with(tmp_path: Path) -> None:
    cold = tiny.recipe(tmp_path, sft={"steps": 2}, traces={"keep": "correct"})
    tiny.write_traces(tmp_path, cold)
    sft(cold)
    other = tmp_path / "other"
    tiny.teacher(seed=7).save(other)
    later = tiny.recipe(tmp_path, run={"seed": 8}, teacher={"path": str(other)}, distill={"steps": 1})
    assert later.sft is not None and later.traces is not None
    assert (later.sft.steps, later.traces.keep) == (6, "all")
    distill(later)
    said, _, shown = card_of(later)
    assert "Cold start: 2 steps of 4 traces." in said and "Stage 2: `vold`, 1 step of 2 prompts x 3 rollouts." in said
    assert (shown["sft"]["steps"], shown["traces"]["keep"], shown["distill"]["steps"]) == (2, "correct", 1)
    assert "trained from `student`, taught by `teacher`, `other`." in said  # one wrote, the other scored
    card = model_card(Run(later.run.dir))
    assert "repeats it, but for what its first lines say." in card
    assert f"# sft ran with run.seed: {cold.run.seed} (see sft/recipe.yaml)" in card and "seed 8." in said


def test_a_stage_that_ended_early_has_the_steps_that_it_took(tmp_path: Path) -> None:
    """Untrained, it answers nothing right: two looks that are no better than the one before the first step."""
    watched = {"every": 1, "sets": ["text"], "size": 2, "patience": 2}
    recipe = tiny.recipe(tmp_path, sft={"steps": 6, "eval": watched, "optimizer": {"lr": 1e-9}})
    tiny.write_traces(tmp_path, recipe)
    sft(recipe)
    assert (recipe.run.dir / "sft" / "ended.json").exists()
    said, _, shown = card_of(recipe)
    assert "Cold start: 2 steps (6 planned) of 4 traces." in said and shown["sft"]["steps"] == 6


def test_a_student_that_reads_text_only_is_no_vision_language_model(tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    tiny.teacher(seed=4).save(blind)
    recipe = tiny.recipe(tmp_path, student={"path": str(blind), "freeze": []}, sft={"steps": 1})
    tiny.write_traces(tmp_path, recipe)
    sft(recipe)
    said, head, _ = card_of(recipe)
    assert "\nA language model, trained from `blind`, taught by `teacher`." in said and "ision" not in said
    assert head["pipeline_tag"] == "text-generation" and head["tags"] == ["vold"]


@pytest.mark.parametrize(
    ("objective", "taught", "tag"),
    [(GRPO, "", "grpo"), ({"method": "opd"}, ", taught by `teacher`", "opd")],
    ids=["outcome alone", "with a teacher"],
)
def test_another_model_to_start_from_is_named_and_nobody_elses_lessons_are(
    tmp_path: Path, objective: dict[str, str], taught: str, tag: str
) -> None:
    """The run has traces and plans a cold start; the model owes them nothing."""
    start = tmp_path / "first" / "distill" / "final"
    tiny.student(seed=2).save(start)
    raw = {"objective": objective, "init": str(start), "steps": 1}
    recipe = tiny.recipe(tmp_path, distill=raw)
    tiny.write_traces(tmp_path, recipe)
    distill(recipe)
    said, head, _ = card_of(recipe)
    assert f"\nA vision-language model, trained from `first/distill/final`{taught}.\n" in said
    assert "Cold start" not in said and "traces" not in said and "| train | problems of distill" in said
    assert head["tags"] == ["vold", tag] and "base_model" not in head


def test_a_cold_start_of_this_run_that_stage_2_is_told_to_start_from_counts(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, sft={"steps": 1}, traces={"answers": "data"})
    tiny.write_traces(tmp_path, recipe)
    sft(recipe)
    init = str(recipe.run.dir / "sft" / "final")
    distill(
        tiny.recipe(
            tmp_path,
            sft={"steps": 1},
            traces={"answers": "data"},
            distill={"init": init, "objective": GRPO, "steps": 1},
        )
    )
    said, _, _ = card_of(recipe)
    assert "\nA vision-language model, trained from `student`.\n" in said
    assert "Cold start: 1 step of 4 traces." in said and "the data's solutions, for the cold start" in said


def test_traces_that_are_mixed_into_stage_2_are_data_without_a_cold_start_too(tmp_path: Path) -> None:
    start = tmp_path / "start"
    tiny.student(seed=2).save(start)
    raw = {"objective": {"method": "gkd"}, "init": str(start), "steps": 1}
    recipe = tiny.recipe(tmp_path, distill=raw)
    tiny.write_traces(tmp_path, recipe)
    distill(recipe)
    said, _, _ = card_of(recipe)
    assert "the teacher's answers, for stage 2" in said and "Cold start" not in said
    assert "trained from `start`, taught by `teacher`." in said
