"""What can be typed behind `vold`: verbs, each with its arguments and its help."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from vold import __version__
from vold.errors import clean

Run: TypeAlias = Callable[[argparse.Namespace], None]

DESCRIPTION = """\
Move reasoning from a text-only teacher LLM into a vision-language student.

{verbs}

A RECIPE is a file, or the name of one that comes with the package. Any key of it can be overridden:
  vold sft recipes/demo.yaml sft.steps=50 run.dir=runs/short
Every verb goes on where it stopped when it is started again with the same recipe. `vold VERB --help` says more.
"""


@dataclass(frozen=True)
class Verb:
    """A verb of the command line. The docstring of what it runs is its help.

    Args:
        run: is given what was typed: each of `takes` in small letters, `keys`, and `options` by name.
        takes: its arguments, in brackets where they may be left out.
        keys: what may follow them.
        options: its own, with the name of their value, in brackets where they may be left out; a flag has none.
    """

    run: Run
    takes: tuple[str, ...]
    keys: str
    options: dict[str, str]

    @property
    def help(self) -> str:
        """What it does, in a line, and more below that."""
        return inspect.cleandoc(self.run.__doc__ or "")


VERBS: dict[str, Verb] = {}
"""In the order of the help."""


def verb(*takes: str, keys: str = "key.path=value", **options: str) -> Callable[[Run], Run]:
    """Make a function a verb of its name; see `Verb`."""

    def register(run: Run) -> Run:
        VERBS[run.__name__.strip("_")] = Verb(run, takes, keys, options)
        return run

    return register


class _Parser(argparse.ArgumentParser):
    """What is typed is text in its messages too."""

    def __init__(self, prog: str, description: str, usage: str | None = None) -> None:
        super().__init__(prog, usage, description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--traceback", action="store_true", help="show where an error came from")
        self.options = ["--help", "--traceback"]

    def error(self, message: str) -> NoReturn:
        unknown, _, words = message.partition(": ")
        word = words.split(" ")[0]
        if unknown == "unrecognized arguments" and "=" in word:
            if word.startswith("-"):
                message += f"; keys of the recipe are given without dashes: {word.lstrip('-')}"
            else:
                message = f"`{self.prog}` takes no keys: {words}; `{self.prog} --help` says what it reads"
        elif unknown == "unrecognized arguments" and (close := _close_to(word, self.options)):
            message += f"; did you mean {close}?"
        super().error(clean(message))


def parsed(argv: list[str]) -> argparse.Namespace:
    """What was typed. Options before the verb are those of all verbs.

    Raises:
        SystemExit: help was asked for (0), or it is no command (2).
    """
    at = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
    typed = {name: " ".join([name, *verb.takes]) for name, verb in VERBS.items()}
    width = max(map(len, typed.values()))
    lines = [f"  vold {typed[name]:{width}}  {verb.help.partition(chr(10))[0]}" for name, verb in VERBS.items()]
    top = _Parser("vold", DESCRIPTION.format(verbs="\n".join(lines)), "vold [-h] [--version] [--traceback] VERB ...")
    top.add_argument("--version", action="version", version=__version__)
    shown = top.parse_args(argv[:at]).traceback
    if argv[at : at + 1] == ["help"] and argv[at + 1 :]:
        argv = [*argv[:at], *argv[at + 1 :], "--help"]
    if argv[at:] == ["help"]:
        top.error("no verb 'help'; vold --help lists the verbs, vold VERB --help explains one")
    if at == len(argv):
        top.error(f"give a verb: {', '.join(VERBS)}")
    if argv[at] not in VERBS:
        close = _close_to(argv[at], VERBS)
        top.error(f"no verb {argv[at]!r}; " + (f"did you mean {close!r}?" if close else f"known: {', '.join(VERBS)}"))
    args = parser_of(argv[at]).parse_intermixed_args(argv[at + 1 :])
    args.verb, args.traceback = argv[at], args.traceback or shown
    return args


def _close_to(word: str, known: Iterable[str]) -> str | None:
    from vold.run.names import close_to  # pydantic comes with it, which no other way to the help needs

    return close_to(word, known)


def parser_of(name: str) -> argparse.ArgumentParser:
    """What reads the words behind a verb."""
    verb = VERBS[name]
    parser = _Parser(f"vold {name}", verb.help)
    parser.options += [f"--{option}" for option in verb.options]
    for one in verb.takes:
        bare = one.strip("[]")
        parser.add_argument(bare.lower(), metavar=bare, nargs="?" if bare != one else None)
    if verb.keys:
        parser.add_argument("keys", nargs="*", default=[], metavar=verb.keys)
    for option, value in verb.options.items():
        if value:
            bare = value.strip("[]")
            parser.add_argument(f"--{option}", metavar=bare, required=bare == value)
        else:
            parser.add_argument(f"--{option}", action="store_true")
    return parser
