"""What a training process is told by the run that has placed it on a machine: where the servers of its stage are."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

PLACED = "VOLD_PLACED"
"""The environment variable that carries it. Only its user can read it, and it holds the servers' key."""


class Told(NamedTuple):
    """The servers of a section of the recipe.

    Attributes:
        keys: of the section, such as `teacher` and `server`.
        urls: their base addresses.
        served: the model's name there.
        key: that they ask of whoever asks them.
        files: for each of `urls` a file that says where that server is now; empty for one that stays.
    """

    keys: tuple[str, ...]
    urls: tuple[str, ...]
    served: str
    key: str
    files: tuple[str, ...]


def placed() -> bool:
    """Whether a run has placed this process. The run owns its directory, and has started the servers."""
    return PLACED in os.environ


def servers_told() -> list[Told]:
    """The servers that the run has started for this process."""
    return [
        Told(tuple(keys), tuple(urls), served, key, tuple(files))
        for keys, urls, served, key, files in json.loads(os.environ[PLACED])
    ]
