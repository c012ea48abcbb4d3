"""The models that a study makes for itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from vold.demo.origin import keep_made_of, place_for, sources_of
from vold.objective.custom import load_function
from vold.run.console import console
from vold.run.folders import new_directory


def place_of_models(models: Mapping[str, str], work: Path) -> Path:
    """The directory of a study's own models: another one where they are made by other functions."""
    name = hashlib.sha256(json.dumps(dict(models), sort_keys=True).encode()).hexdigest()[:8]
    return place_for(work / "models" / name, sources_of(models.values()))


def build_models(models: Mapping[str, str], place: Path) -> None:
    """Make the study's own models that are not there yet, each with its function."""
    keep_made_of(place, sources_of(models.values()), begun=place.exists())
    for name, function in models.items():
        home = place / name
        if not home.is_dir():
            console.print(f"making the model {name}")
            torch.set_num_threads(1)
            with new_directory(home) as directory:
                load_function(function)(directory)
