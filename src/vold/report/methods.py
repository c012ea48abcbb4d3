"""`vold methods`: the published methods, what each needs of its teacher, and what it expands to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ValidationError
from rich.text import Text

from vold.errors import ConfigError
from vold.objective import PRESETS, Objective
from vold.objective.axes import axes
from vold.report.tables import print_pairs, print_table
from vold.run.console import console
from vold.run.mistakes import Written, mistakes_in, readable
from vold.run.names import close_to
from vold.run.overrides import override

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Root(BaseModel):
    """Where an objective's keys stand when they are set on the command line."""

    objective: Objective


def methods(name: str | None = None, overrides: Sequence[str] = ()) -> None:
    """Print all methods, or one: its source, its readings and where it stands on each axis of the algebra.

    Args:
        name: a method; all of them if absent.
        overrides: `key.path=value` below `distill.objective`, `reading=NAME` among them.

    Raises:
        ConfigError: there is no such method, or a key or value of it is wrong.
    """
    if name is None:
        rows = [(m, p.about, expand(m).needs.words, ", ".join(p.variants) or "-") for m, p in PRESETS.items()]
        print_table(("method", "what it does", "needs of the teacher", "readings"), rows)
        usage = "vold methods METHOD [--expand] [reading=NAME] [key.path=value ...]"
        console.print(Text(f"\n{usage} says more of one; --expand prints the recipe keys it stands for"))
        return
    objective, preset = expand(name, overrides), PRESETS[name]
    about = {
        "method": f"{name}  {preset.about}",
        "source": preset.source,
        "fidelity": preset.fidelity + (f": {preset.missing}" if preset.missing else ""),
        "teacher": objective.needs.words,
        **preset.teacher,
        **{f"reading={reading}": r.about for reading, r in preset.variants.items()},
    }
    print_pairs(about.items(), 22)
    console.print()
    print_pairs([(axis, value) for axis, value in axes(objective).items() if value != "-"], 22)


def print_expansion(name: str, overrides: Sequence[str] = ()) -> None:
    """Print a method as the objective it stands for in a recipe.

    Raises:
        ConfigError: there is no such method, or a key or value of it is wrong.
    """
    tree = expand(name, overrides).model_dump(mode="json", exclude_none=True)
    console.out(yaml.safe_dump({"objective": tree}, sort_keys=False, allow_unicode=True).rstrip(), highlight=False)


def expand(name: str, overrides: Sequence[str] = ()) -> Objective:
    """A method with its overrides, as a recipe would resolve it.

    Raises:
        ConfigError: there is no such method, or a key or value of it is wrong.
    """
    if name not in PRESETS:
        close = f"did you mean {close!r}? " if (close := close_to(name, PRESETS)) else ""
        fix = f"{close}one of {', '.join(PRESETS)}"
        raise ConfigError("there is no such method", where="command line", got=name, fix=fix)
    raw = {"method": name}
    for item in overrides:
        override(raw, item)
    read = {"objective": raw}
    try:
        return _Root.model_validate(read).objective
    except ValidationError as error:
        raise readable(mistakes_in(error, read, _Root), Written("command line")) from None
