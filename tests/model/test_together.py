"""Keys that do not go together, and those that several processes cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from vold.errors import ConfigError
from vold.evals.preflight import check
from vold.model.together import Trained, refuse_together


@pytest.mark.parametrize(
    ("sections", "stages", "words"),
    [
        ({"run": {"offload": True}}, ("distill",), "only one process"),
        ({"student": {"lora": {"rank": 2}, "quantize": "nf4"}}, ("sft", "distill"), "trained in one process"),
        ({"sft": {"optimizer": {"lr": 1.0, "moments": "8bit"}}}, ("sft",), "whole tensors"),
        ({"distill": {"optimizer": {"lr": 1.0, "moments": "8bit"}}}, ("distill",), "whole tensors"),
    ],
)
def test_several_processes_may_not(
    sections: dict[str, Any], stages: tuple[Trained, ...], words: str, tmp_path: Path
) -> None:
    recipe = tiny.recipe(tmp_path, **sections)
    both: tuple[Trained, ...] = ("sft", "distill")
    refuse_together(recipe, 1, *both)
    for stage in stages:
        with pytest.raises(ConfigError, match=words):
            refuse_together(recipe, 2, stage)
    for stage in {*both} - {*stages}:
        refuse_together(recipe, 2, stage)


def test_weights_in_int8_do_not_travel(tmp_path: Path) -> None:
    """bitsandbytes keeps a second hold of them."""
    int8 = {"path": str(tmp_path / "teacher"), "quantize": "int8"}
    for teacher in ({"quantize": "int8"}, {"routes": {"a": int8}}):
        refuse_together(tiny.recipe(tmp_path, teacher=teacher), 1, "distill")
        recipe = tiny.recipe(tmp_path, teacher=teacher, run={"offload": True})
        refuse_together(recipe, 1, "sft")
        with pytest.raises(ConfigError, match="can not leave the device"):
            refuse_together(recipe, 1, "sft", "distill")
        with pytest.raises(ConfigError, match="can not leave the device"):
            check(recipe)
