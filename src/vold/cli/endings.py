"""The last lines of a verb: what came out, and which command comes next. The console is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from vold.run.recipe import Recipe


def wrote(path: object, said: str = "wrote") -> None:
    """Say where the result is."""
    from vold.run.console import console

    console.print(f"{said} {path}")


def next_after(args: argparse.Namespace, recipe: Recipe, after: str = "", more: Sequence[str] = ()) -> None:
    """Print the command that comes next: of the stage after the verb's or of verb `after`, with the recipe and the keys
    that were given. `more` are keys that take the place of those."""
    from vold.run.console import print_next

    new, after = [one.partition("=")[0] for one in more], after or recipe.after(args.verb)
    words = [args.recipe, *(one for one in args.keys if one.partition("=")[0] not in new), *more]
    print_next(after, *([str(recipe.run.dir)] if after == "show" else words))
