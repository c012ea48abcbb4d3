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
    new = [one.partition("=")[0] for one in more]
    given = (one for one in args.keys if one.partition("=")[0] not in new)
    go_on(after or recipe.after(args.verb), recipe, args.recipe, *given, *more)


def go_on(after: str, recipe: Recipe, *words: str) -> None:
    """Print the command that comes next: a verb with these words, or with the run where there is nothing left to do."""
    from vold.run.console import print_next

    print_next(after, *([str(recipe.run.dir)] if after == "show" else words))
