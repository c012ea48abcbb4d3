"""Recipes that come with the package, by name: a wheel holds them in `vold/recipes`, a checkout in `recipes/`; and the
demo's models."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from vold.errors import ConfigError
from vold.run.names import close_to

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")
DEMO = ("student", "teacher", "teacher-b", "caller", "caller-teacher")


def shipped_recipes() -> dict[str, Path]:
    """Their files by name."""
    place = next((p for p in _PLACES if p.is_dir()), None)
    return {} if place is None else {file.stem: file for file in sorted(place.glob("*.yaml"))}


def find_recipe(given: str) -> Path:
    """The recipe that was meant: a file, or a name that stands for one of the package's.

    Raises:
        ConfigError: a name, and neither a file nor a recipe has it.
    """
    path = Path(given)
    if path.suffix or path.name != given or (path.exists() and not path.is_dir()):
        return path
    known = shipped_recipes()
    if given not in known:
        close = close_to(given, known)
        fix = f"did you mean {close}?" if close else f"give a file, or one of {', '.join(known)}"
        raise ConfigError("there is no recipe of this name", got=given, fix=fix)
    return known[given]


def resolve(path: str) -> str:
    """A loadable path: `demo:NAME` becomes the directory that ships with the package, `~` the home directory.

    Raises:
        ConfigError: there is no demo model of that name.
    """
    if not path.startswith("demo:"):
        return os.path.expanduser(path)
    name = path.removeprefix("demo:")
    if name not in DEMO:
        close = close_to(name, DEMO)
        fix = f"did you mean 'demo:{close}'?" if close else f"one of {', '.join('demo:' + n for n in DEMO)}"
        raise ConfigError("there is no such demo model", got=path, fix=fix)
    return str(resources.files("vold.demo") / "assets" / name)
