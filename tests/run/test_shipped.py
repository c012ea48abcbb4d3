"""Recipes of the package by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from vold.errors import ConfigError
from vold.run.shipped import find_recipe, shipped_recipes


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_directory_of_a_recipes_name_is_not_the_recipe(here: Path) -> None:
    """As a run leaves one."""
    (here / "demo").mkdir()
    assert find_recipe("demo") == shipped_recipes()["demo"]


def test_a_file_of_a_recipes_name_is_the_recipe(here: Path) -> None:
    (here / "demo").write_text("run: {dir: here}\n")
    assert find_recipe("demo") == Path("demo")


def test_a_directory_of_another_name_is_no_recipe(here: Path) -> None:
    (here / "demi").mkdir()
    with pytest.raises(ConfigError, match="no recipe of this name") as caught:
        find_recipe("demi")
    assert caught.value.fix == "did you mean demo?"
