"""Where a recipe may name code of the user's own (`vold.types.named`), and what of it a stage keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vold.types.named import NAME, source_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vold.run.settings import Settings

KEYS = frozenset({"kind", "grader", "name", "mask", "weight", "estimator", "function", "report_to"})
"""Last parts of the keys that may name it; elsewhere, as in `student.path`, a colon means something else."""
FREE = frozenset({"settings", "config"})
"""Keys whose values mean something to others alone."""
SOURCE_OF = "source of "
"""Keys of settings.json that name code of the user's own and hold a digest of its source."""


def named_in(value: object, key: str = "") -> Iterator[str]:
    """Names of the user's own code in a recipe as it is written, or in flat settings."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not FREE & {*str(name).split(".")}:
                yield from named_in(inner, str(name).rpartition(".")[2])
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from named_in(inner, key)
    elif isinstance(value, str) and key in KEYS:
        yield from (name for name in NAME.findall(value) if not name.startswith("vold."))


def beside(raw: dict[str, Any], recipe: Path) -> None:
    """Write down that modules are looked for beside the recipe, where some that it names are there and it does not say
    where they are: its copy in the run directory then finds them too."""
    run, home = raw.get("run"), recipe.absolute().parent
    if isinstance(run, dict) and run.get("modules") is None:
        firsts = {name.partition(":")[0].partition(".")[0] for name in named_in(raw)}
        if any((home / f"{first}.py").is_file() or (home / first).is_dir() for first in firsts):
            run["modules"] = str(home)


def sources(settings: Settings) -> Settings:
    """A digest of the source of everything that the settings of a stage name.

    Raises:
        ConfigError: it cannot be loaded.
    """
    return {SOURCE_OF + name: source_digest(name) for name in sorted(set(named_in(settings)))}
