"""The small recipes from start to end, shortened, with what each method leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from killed import in_a_process_killed_at, weights_of
from stored import stored_rows
from vold.evals.evaluate import evaluate
from vold.evals.preflight import check
from vold.report.show import show
from vold.run.recipe import Recipe, load_recipe
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = (
    "tasks.cold_start.size=24", "sft.steps=2", "sft.batch_size=8", "tasks.train.size=20", "distill.prompts_per_step=2",
    "distill.steps=3", "distill.checkpoint_every=1", "distill.keep_rollouts_every=1",
)  # fmt: skip
SETS = {"sod-mini": ("calls",)}
"""Task sets of evaluation, where they are not the demo's."""


def sets(name: str) -> tuple[str, ...]:
    return SETS.get(name, ("image", "text"))


def short(name: str, run: Path, *more: str) -> Recipe:
    small = [f"tasks.{one}.size=4" for one in sets(name)]
    return load_recipe(RECIPES / f"{name}.yaml", [*SHORT, *small, f"run.dir={run}", *more])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "token_values", "rollout_values"),
    [
        ("uni_opd-mini", set(), {"teacher_mask", "balance", "return", "shift"}),
        ("prefix_teach-mini", {"candidate_margin", "prefix"}, {"teacher_mask", "cut", "cut_gain", "segments"}),
        ("gkd-mini", set(), {"loss_mask"}),
        ("mopd-mini", set(), {"teacher_mask"}),
        ("sod-mini", {"step_weight"}, {"teacher_mask", "reward"}),
    ],
)
def test_a_small_recipe_runs_to_its_end_and_goes_on_when_killed(
    name: str, token_values: set[str], rollout_values: set[str], tmp_path: Path
) -> None:
    recipe = short(name, tmp_path / "run")
    check(recipe)
    make_traces(recipe)
    sft(recipe)
    broken = short(name, tmp_path / "broken", f"distill.init={tmp_path}/run/sft/final")
    make_traces(broken)
    distill(recipe)
    assert not in_a_process_killed_at(25, lambda: distill(broken)), "the kill came after the end"
    assert in_a_process_killed_at(10**9, lambda: distill(broken))
    assert weights_of(tmp_path / "broken" / "distill") == weights_of(tmp_path / "run" / "distill")
    rows = stored_rows(tmp_path / "run" / "distill" / "rollouts" / "step-000000.safetensors")
    assert {k for r in rows for k in r["token_values"]} == token_values | {"entropy"}
    assert {k for r in rows for k in r["rollout_values"]} == rollout_values
    assert evaluate(recipe).stages["vold"].keys() == set(sets(name))
    assert show(tmp_path / "run").is_file()
