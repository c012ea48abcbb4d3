"""`vold align`: what its verdict looks at, and what it compares on where a recipe does not say."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from vold.errors import ConfigError
from vold.evals.engine_check import self_check
from vold.evals.overlap import Habits, align, no_model, unfinished, verdict
from vold.run.recipe import Recipe, load_recipe, recipe_from

DEMO = Path(__file__).parents[2] / "recipes" / "demo.yaml"
HEALTHY = Habits(pass_rate=0.4, truncated=0.05, most_entropy=4.6)


def test_two_models_that_know_nothing_are_not_aligned_however_alike(tmp_path: Path) -> None:
    """Weights at random: both give every token the same chance, so that their KL is next to 0."""
    found = align(tiny.recipe(tmp_path))
    assert found.kl < 0.1
    assert found.verdict == "not aligned"
    assert found.untrained == "student" and "The student is no language model" in found.words
    assert found.truncated is not None and 0 <= found.truncated <= 1


@pytest.mark.parametrize(("student", "teacher", "told"), [(4.6, 1.0, "student"), (1.0, 4.5, "teacher")])
def test_entropy_tells_which_of_the_two_it_is(student: float, teacher: float, told: str) -> None:
    assert no_model(HEALTHY, {"student": student, "teacher": teacher}) == told


def test_a_server_that_tells_no_entropy_is_not_judged_by_it() -> None:
    assert no_model(HEALTHY, {"student": 1.3}) is None


@pytest.mark.parametrize(
    ("habits", "told"),
    [
        (Habits(0.4, 0.05, 4.6), ""),
        (Habits(0.4, 0.6, 4.6), "60% of the responses are cut"),
        (Habits(0.0, 0.1, 4.6), "no response is right"),
        (Habits(0.0, 1.0, 4.6), "100% of the responses are cut"),
    ],
)
def test_rollouts_that_do_not_end_or_never_pass_are_doubtful(habits: Habits, told: str) -> None:
    assert unfinished(habits).startswith(told)
    assert bool(unfinished(habits)) == bool(told)


def test_what_decided_before_decides_still() -> None:
    assert [verdict(*v)[0] for v in ((0.5, 0.9), (0.5, None), (2.0, 0.9), (0.5, 0.4), (3.0, 0.9))] == [
        "ready", "ready", "doubtful", "not aligned", "not aligned",
    ]  # fmt: skip


def demo(*overrides: str) -> Recipe:
    return load_recipe(DEMO, overrides)


def test_a_recipe_without_the_section_compares_on_the_problems_of_stage_2(tmp_path: Path) -> None:
    recipe = demo("align=null", f"run.dir={tmp_path}", "tasks.train.size=100")
    assert recipe.align is None
    made = recipe.with_align().align
    assert recipe.distill is not None and made is not None
    assert (made.tasks, made.limit, made.sampling) == ("train", 64, recipe.distill.sampling)
    assert align(recipe).tokens > 64 * 4  # 64 of the 100 problems, 4 responses each, none of them empty
    assert (tmp_path / "align" / "align.json").is_file()


def test_what_the_section_leaves_out_is_that_of_stage_2() -> None:
    filled = demo("align={rollouts: 2}").align
    assert filled is not None
    assert (filled.tasks, filled.limit, filled.rollouts, filled.sampling.max_new_tokens) == ("train", 64, 2, 40)
    own = demo("align={tasks: overlap}").align
    assert own is not None
    assert (own.tasks, own.limit, own.sampling.max_new_tokens) == ("overlap", None, 40)


def test_a_recipe_with_nothing_to_compare_on_is_told_what_to_add(tmp_path: Path) -> None:
    raw = tiny.recipe_dict(tmp_path)
    raw["align"] = raw["distill"] = None
    for verb in (align, self_check):
        with pytest.raises(ConfigError, match="no `align` section") as caught:
            verb(recipe_from(raw, where="test"))
        assert "add `align:" in caught.value.fix


def test_fewer_problems_are_compared_where_the_recipe_says_so(tmp_path: Path) -> None:
    more, fewer = (
        align(tiny.recipe(tmp_path, run={"dir": str(tmp_path / str(n))}, align={"limit": n})) for n in (8, 2)
    )
    assert fewer.tokens < more.tokens
