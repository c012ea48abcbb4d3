"""The command line: `vold VERB RECIPE.yaml key.path=value`. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from vold import __version__
from vold.errors import ConfigError, clean
from vold.run.failures import in_words
from vold.run.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.run.recipe import Recipe

DESCRIPTION = """\
Move reasoning from a text-only teacher LLM into a vision-language student.

  vold check RECIPE      look for everything that would stop the run, before it starts
  vold traces RECIPE     the teacher answers text prompts
  vold sft RECIPE        cold start: fine-tune the student on those traces
  vold align RECIPE      do student and teacher overlap enough for stage 2?
  vold balance RECIPE    repeat or drop problems by how often the student solves them
  vold distill RECIPE    stage 2: GRPO with the teacher term on text prompts
  vold eval RECIPE       accuracy of every stage on every task set, with paired comparisons
  vold compare A B       two evaluations item by item; refused where they asked or marked differently
  vold branch RUN --from STAGE NEW   a new run that shares the stages of RUN up to this one, and goes on from there
  vold show RUN          a run in the terminal, and its report.html
  vold demo              all of it on the demo world, on a CPU, nothing to download
  vold study STUDY       arms x seeds with a verdict on each claim
  vold methods [METHOD]  the published methods, and what one of them expands to

Any key of a recipe can be overridden: vold sft recipes/demo.yaml sft.steps=50 run.dir=runs/short
Every verb goes on where it stopped when it is started again with the same recipe.
"""
OF_RUNS = ("show", "compare", "branch")
"""Verbs that take a run directory."""
FAULT = (
    "this is a fault of the program, not of the recipe: please report it with the lines above. "
    "What is stored is whole; the same command goes on from it"
)


class _Parser(argparse.ArgumentParser):
    """What is typed is text in its messages too."""

    def error(self, message: str) -> NoReturn:
        super().error(clean(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vold", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser.add_argument("verb", choices=sorted(VERBS), metavar="VERB", help=", ".join(VERBS))
    parser.add_argument(
        "target", nargs="?", help="a recipe; a run directory for `show`, `compare` and `branch`; a study file; a method"
    )
    parser.add_argument("--from", dest="stage", metavar="STAGE", help="with `branch RUN`: the last stage it shares")
    parser.add_argument("--expand", action="store_true", help="with `methods METHOD`: the recipe keys it stands for")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="recipe keys to override")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit status 0: done; 2: the user can mend it; 1: a fault of this program, with its traceback;
    128 + n: stopped by signal n, 130 for Ctrl-C."""
    with Stop("vold") as stop:
        shown = False
        try:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):  # None where it is closed
                    stream.reconfigure(errors="backslashreplace")
            args = _parser().parse_intermixed_args(argv)
            shown = args.traceback
            return _run(args, stop)
        except SystemExit:
            raise
        except BaseException as error:
            return _say(error, stop, shown=shown)


def _run(args: argparse.Namespace, stop: Stop) -> int:
    if args.verb == "demo":
        target, overrides = "", [args.target, *args.overrides] if args.target else args.overrides
    elif args.target is None and args.verb != "methods":
        _parser().error(f"`vold {args.verb}` needs a {'run directory' if args.verb in OF_RUNS else 'file'}")
    else:
        target, overrides = args.target or "", args.overrides
    if args.expand and (args.verb != "methods" or args.target is None):
        _parser().error("--expand goes with `vold methods METHOD`")
    others = os.environ.get("WORLD_SIZE", "1")
    if not others.isascii() or not others.isdecimal():
        raise ConfigError("this is no number of processes", where="environment: WORLD_SIZE", got=others, fix="unset it")
    stop.name = f"vold {args.verb}" + (f" [process {os.environ.get('RANK')}]" if others != "1" else "")
    if others != "1" and args.verb not in ("sft", "distill"):
        raise ConfigError(f"`vold {args.verb}` runs in one process", fix="start it without torchrun")
    if args.expand:
        _expand(target, overrides)
    else:
        VERBS[args.verb](target, overrides + ([f"--from={args.stage}"] if args.stage else []))
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


def _recipe(target: str, overrides: list[str]) -> Recipe:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from vold.run.recipe import load_recipe

    recipe = load_recipe(target, overrides)
    import torch  # after the recipe: a mistake in it is said before a second goes into loading this

    torch.set_num_threads(recipe.run.threads)
    return recipe


def _check(target: str, overrides: list[str]) -> None:
    recipe = _recipe(target, overrides)
    from vold.evals.preflight import check

    check(recipe)


def _traces(target: str, overrides: list[str]) -> None:
    recipe = _recipe(target, overrides)
    from vold.training.traces import make_traces

    _wrote(make_traces(recipe))


def _sft(target: str, overrides: list[str]) -> None:
    recipe = _recipe(target, overrides)
    from vold.training.sft import sft

    _wrote(sft(recipe))


def _align(target: str, overrides: list[str]) -> None:
    recipe = _recipe(target, overrides)
    if recipe.align is not None and recipe.align.self_check:
        from vold.evals.engine_check import self_check
        from vold.report.tables import print_self_check

        print_self_check(self_check(recipe))
        return
    from vold.evals.overlap import align
    from vold.report.tables import print_alignment

    print_alignment(align(recipe))


def _balance(target: str, overrides: list[str]) -> None:
    recipe = _recipe(target, overrides)
    from vold.report.tables import print_balance
    from vold.training.balance import balance

    file, summary = balance(recipe)
    print_balance(summary)
    _wrote(file)


def _distill(target: str, overrides: list[str]) -> None:
    recipe = _recipe(target, overrides)
    from vold.training.distill import distill

    _wrote(distill(recipe))


def _eval(target: str, overrides: list[str]) -> None:
    recipe = _recipe(target, overrides)
    from vold.evals.evaluate import evaluate
    from vold.report.tables import print_results

    print_results(evaluate(recipe), recipe.run.dir / "eval")


def _compare(target: str, overrides: list[str]) -> None:
    from pathlib import Path

    from vold.evals.compare import compare_runs
    from vold.report.tables import print_comparison

    others = [o for o in overrides if "=" not in o or Path(o).exists()]
    flags = [o for o in overrides if o not in others]
    if len(others) != 1 or flags not in ([], ["force=true"]):
        raise ConfigError(
            "compare takes two runs", got=" ".join([target, *overrides]), fix="vold compare A B [force=true]"
        )
    found = compare_runs(Path(target), Path(others[0]), force=bool(flags))
    print_comparison(target, others[0], found)


def _branch(target: str, overrides: list[str]) -> None:
    from pathlib import Path

    from vold.run.branch import branch

    stages = [o.removeprefix("--from=") for o in overrides if o.startswith("--from=")]
    new, *keys = [o for o in overrides if not o.startswith("--from=")] or [""]
    if not new or len(stages) != 1:
        got = " ".join(["branch", target, *overrides])
        raise ConfigError(
            "a branch has a stage and a new directory", got=got, fix=f"vold branch {target} --from sft NEW"
        )
    _wrote(branch(Path(target), stages[0], Path(new), keys))


def _show(target: str, overrides: list[str]) -> None:
    from vold.report.show import show

    show(target, overrides)


def _methods(target: str, overrides: list[str]) -> None:
    from vold.report.methods import methods

    methods(target or None, overrides)


def _expand(target: str, overrides: list[str]) -> None:
    from vold.report.methods import print_expansion

    print_expansion(target, overrides)


def _demo(target: str, overrides: list[str]) -> None:
    from vold.demo.pipeline import demo

    demo(overrides)


def _study(target: str, overrides: list[str]) -> None:
    from vold.evals.study.study import run_study

    run_study(target, overrides)


def _wrote(path: object) -> None:
    from vold.run.console import console

    console.print(f"wrote {path}")


VERBS: dict[str, Callable[[str, list[str]], None]] = {
    "check": _check,
    "traces": _traces,
    "sft": _sft,
    "align": _align,
    "balance": _balance,
    "distill": _distill,
    "eval": _eval,
    "compare": _compare,
    "branch": _branch,
    "show": _show,
    "demo": _demo,
    "study": _study,
    "methods": _methods,
}

if __name__ == "__main__":
    sys.exit(main())
