"""The command line: `vold VERB RECIPE.yaml key.path=value`. Its verbs are in `vold.cli.verbs`."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from typing import TYPE_CHECKING

from vold.cli.verbs import VERBS as VERBS
from vold.errors import ConfigError, clean
from vold.run.command import parsed
from vold.run.failures import in_words
from vold.run.stopping import Stop

if TYPE_CHECKING:
    import argparse

FAULT = (
    "this is a fault of the program, not of the recipe: please report it with the lines above. "
    "What is stored is whole; the same command goes on from it"
)


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit status 0: done; 2: the user can mend it; 1: a fault of this program, with its traceback;
    128 + n: stopped by signal n, 130 for Ctrl-C."""
    with Stop("vold") as stop:
        shown = False
        try:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):  # None where it is closed
                    stream.reconfigure(errors="backslashreplace")
            args = parsed(sys.argv[1:] if argv is None else argv)
            shown = args.traceback
            return _call(args, stop)
        except SystemExit:
            raise
        except BaseException as error:
            return _say(error, stop, shown=shown)


def _call(args: argparse.Namespace, stop: Stop) -> int:
    others = os.environ.get("WORLD_SIZE", "1")
    if not others.isascii() or not others.isdecimal():
        raise ConfigError("this is no number of processes", where="environment: WORLD_SIZE", got=others, fix="unset it")
    stop.name = f"vold {args.verb}" + (f" [process {os.environ.get('RANK')}]" if others != "1" else "")
    if others != "1" and args.verb not in ("sft", "distill"):
        raise ConfigError(f"`vold {args.verb}` runs in one process", fix="start it without torchrun")
    VERBS[args.verb].run(args)
    from vold.run.console import lost

    if said := lost():
        raise said
    return 0


def _say(error: BaseException, stop: Stop, *, shown: bool) -> int:
    """Print why a verb ended; returns the exit status."""
    # Libraries turn an interrupt into errors of theirs.
    stopped = isinstance(error, KeyboardInterrupt) or stop.signal is not None
    told = None if stopped else in_words(error)
    words, status = f"{stop.name}: {told}", 2
    if stopped:
        words, status = f"\n{stop.name}: stopped; the same command goes on from here", stop.status
    elif told is None:
        words, status, shown = f"{stop.name}: {FAULT}", 1, True
    if shown:
        words = clean("".join(traceback.format_exception(error))) + words
    with contextlib.suppress(OSError):
        print(words, file=sys.stderr, flush=True)
    return status
