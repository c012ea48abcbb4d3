"""Recipes of models that can be served, and the log of the stage that used them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
from engine_backends import saved, text_model
from vllm_server import VllmServer
from vold.run.files import read_jsonl


def on(*servers: VllmServer, patience: float = 30.0, **more: Any) -> dict[str, Any]:
    return {"urls": [s.url for s in servers], "model": "tiny", "patience": patience, **more}


def raw_recipe(home: Path, **distill_changes: Any) -> dict[str, Any]:
    """A text student and teacher of `text_model`, so that any of them can be served."""
    raw = tiny.recipe_dict(home)
    student = saved(text_model(3), home / "text-student")
    raw["student"] = {"path": str(student), "freeze": []}
    raw["teacher"] = {"path": str(saved(text_model(1), home / "text-teacher"))}
    raw["distill"] |= {"init": str(student), "steps": 3, "checkpoint_every": 10, **distill_changes}
    raw["distill"]["sampling"] = {"max_new_tokens": 8, "temperature": 1.0}
    return raw


def metrics(home: Path) -> list[dict[str, Any]]:
    return read_jsonl(home / "run" / "distill" / "metrics.jsonl")
