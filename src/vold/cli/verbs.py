"""The verbs of the command line, each a function whose docstring is its help; see `vold.run.command`. Nothing heavy is
imported before a verb runs."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from vold.cli.endings import go_on, next_after, wrote
from vold.errors import ConfigError
from vold.run.command import VERBS as VERBS
from vold.run.command import parser_of, verb

if TYPE_CHECKING:
    import argparse

    from vold.run.recipe import Recipe


def _recipe(args: argparse.Namespace) -> Recipe:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from vold.run.recipe import load_recipe

    recipe = load_recipe(args.recipe, args.keys)
    import torch  # after the recipe: a mistake in it is said before a second goes into loading this

    torch.set_num_threads(recipe.run.threads)
    return recipe


@verb("FILE", keys="", student="MODEL", teacher="MODEL", data="FILE", test="[FILE]")
def _init(args: argparse.Namespace) -> None:
    """A recipe for your own models and data, with comments.

    vold init mine.yaml --student Qwen/Qwen2.5-VL-3B-Instruct --teacher Qwen/Qwen3-8B --data train.jsonl
    A model is a directory, a hub id or demo:NAME. A data file has one JSON object a line: prompt, reference, and if any
    images, paths beside the file. With --test FILE the models are evaluated on its problems. Sizes are such that the
    device of this machine holds the run.
    """
    from vold.evals.draft import Draft, write_draft
    from vold.run.console import console, print_next

    file, test = Path(args.file), None if args.test is None else Path(args.test)
    for line in write_draft(Draft(file.stem, args.student, args.teacher, Path(args.data), test), file):
        console.print(f"  {line}")
    wrote(file)
    print_next("check", args.file)


@verb("RECIPE")
def _check(args: argparse.Namespace) -> None:
    """Look for everything that would stop the run, before it starts.

    Loads the models and the data, asks the servers once, plans memory and disk, and prints a line for each; `warn`
    lines are to be thought over. Nothing is written.
    """
    recipe = _recipe(args)
    from vold.engines.http import asking_once
    from vold.evals.preflight import check

    with asking_once():
        check(recipe)
    next_after(args, recipe)


@verb("RECIPE")
def _run(args: argparse.Namespace) -> None:
    """Every stage of a recipe in order, from `check` to `eval` and the report.

    A run that was stopped goes on where it stopped.
    """
    recipe = _recipe(args)
    from vold.demo.pipeline import run_stages

    run_stages(recipe)


@verb("RECIPE")
def _traces(args: argparse.Namespace) -> None:
    """The teacher answers text prompts.

    Writes RUN/traces: traces.jsonl, one row an answer, and what became of those that were left out.
    """
    recipe = _recipe(args)
    from vold.training.traces import make_traces

    wrote(make_traces(recipe))
    next_after(args, recipe)


@verb("RECIPE")
def _sft(args: argparse.Namespace) -> None:
    """Cold start: fine-tune the student on those traces.

    Writes RUN/sft: final, the model as Transformers saves it, metrics.jsonl, and the last state to go on from. Several
    GPUs: torchrun --nproc-per-node N -m vold.cli sft RECIPE
    """
    recipe = _recipe(args)
    from vold.training.sft import sft

    wrote(sft(recipe), "the model is in")
    next_after(args, recipe)


@verb("RECIPE")
def _align(args: argparse.Namespace) -> None:
    """Do student and teacher overlap enough for stage 2?

    Compares them token by token on rollouts of the student; writes RUN/align/align.json with a verdict.
    """
    recipe = _recipe(args)
    from vold.demo.pipeline import compare_models

    next_after(args, recipe, *compare_models(recipe))


@verb("RECIPE")
def _balance(args: argparse.Namespace) -> None:
    """Repeat or drop problems by how often the student solves them.

    Writes RUN/balance: a label for each problem, and a set of problems that `distill.tasks` can name.
    """
    recipe = _recipe(args)
    from vold.report.tables import print_balance
    from vold.training.balance import balance

    file, summary = balance(recipe)
    print_balance(summary)
    wrote(file)
    next_after(args, recipe)


@verb("RECIPE")
def _distill(args: argparse.Namespace) -> None:
    """Stage 2: GRPO with the teacher term on text prompts.

    Writes RUN/distill: final, metrics.jsonl, rollouts, and the last state to go on from. Several GPUs: as for sft.
    """
    recipe = _recipe(args)
    from vold.training.distill import distill

    wrote(distill(recipe), "the model is in")
    next_after(args, recipe)


@verb("RECIPE")
def _eval(args: argparse.Namespace) -> None:
    """Accuracy of every stage on every task set, with paired comparisons.

    Writes RUN/eval: every answer, results.json and the page results.html.
    """
    recipe = _recipe(args)
    from vold.evals.evaluate import evaluate
    from vold.report.tables import print_results

    print_results(evaluate(recipe), recipe.run.dir / "eval", recipe.method)
    next_after(args, recipe)


@verb("RECIPE", slurm="", out="[FILE]")
def _cluster(args: argparse.Namespace) -> None:
    """A job for a cluster that runs a recipe on the machines of its `cluster` section.

    vold cluster --slurm RECIPE --out run.sbatch     writes what `sbatch run.sbatch` takes; without --out, prints it
    With Ray running on the machines, `vold run RECIPE` needs no job.
    """
    from vold.engines.launch.slurm import batch_script
    from vold.run.console import console

    if not args.slurm:
        parser_of("cluster").error("say for which scheduler: --slurm")
    script = batch_script(_recipe(args), args.recipe, args.keys)
    if args.out is None:
        console.file.write(script)
    else:
        from vold.run.files import write_text

        write_text(Path(args.out), script)
        wrote(args.out)
        console.print(f"next: {shlex.join(['sbatch', args.out])}")


@verb("A", "B", keys="RUN ... force=true", recipe="[FILE]")
def _compare(args: argparse.Namespace) -> None:
    """Runs side by side: two evaluations item by item, and of runs a page with their curves and recipes too.

    vold compare runs/a runs/b runs/c     each of the others against the first; writes runs/a/compare.html
    A and B are runs, or the folder of one model in RUN/eval. Answers that were asked or marked differently are refused;
    with force=true they are compared too, and it is said in what their protocols differ. Derived scores of a benchmark
    of your own are code: --recipe names a recipe of yours that has it.
    """
    from vold.evals.compare import compare_all
    from vold.run.console import print_next

    others = [args.b, *(key for key in args.keys if key != "force=true")]
    page = compare_all(args.a, others, force="force=true" in args.keys, recipe=args.recipe)
    if page is not None:
        wrote(page)
        print_next("show", args.a, "--serve")


@verb("RUN", "NEW", **{"from": "STAGE"})
def _branch(args: argparse.Namespace) -> None:
    """A new run that shares the stages of RUN up to this one, and goes on from there.

    vold branch runs/a --from sft runs/b distill.rollouts=8
    """
    from vold.run.branch import branch
    from vold.run.recipe import load_recipe

    stage = getattr(args, "from")
    wrote(file := branch(Path(args.run), stage, Path(args.new), args.keys))
    recipe = load_recipe(file)
    go_on(recipe.after(stage), recipe, str(file))


@verb("RUN", serve="", port="[N]")
def _show(args: argparse.Namespace) -> None:
    """A run in the terminal, and its report.html; with --serve a live page of it.

    vold show runs/a --serve     the report as a page that follows the run, with every stored rollout
    vold show runs --serve       the same of every run in a folder
    vold show runs/a step=40 limit=3     in the terminal, with three failed and three passed rollouts of step 40
    Only this machine reaches the page, at the address that is printed. --port takes one port and not any that is free,
    to be forwarded: ssh -L N:127.0.0.1:N MACHINE
    """
    from vold.report.show import serve, show

    if args.serve:
        serve(args.run, args.keys, args.port)
    elif args.port is not None:
        parser_of("show").error("--port goes with --serve")
    else:
        show(args.run, args.keys)


@verb("[FOLDER]", keys="")
def _list(args: argparse.Namespace) -> None:
    """The runs of a folder: state, step and what each has come to.

    Of the folder runs, if none is given. A run is running, stopped (the same command goes on from there), failed (its
    last start ended in an error) or finished.
    """
    from vold.report.listing import list_runs
    from vold.run.console import print_next

    folder = args.folder or "runs"
    list_runs(Path(folder))
    print_next("show", folder, "--serve")


@verb("RUN", "REPO", keys="public=true")
def _push(args: argparse.Namespace) -> None:
    """A run's model on the hub, with a model card written from the run.

    REPO is OWNER/NAME; it is made if it is not there, private without public=true. The card says what was trained on
    what, the results with their intervals, and what was not shown.
    """
    from vold.report.push import push
    from vold.run.view import Run

    if args.keys not in ([], ["public=true"]):
        got = shlex.join([args.run, args.repo, *args.keys])
        raise ConfigError("push takes a run and a repository", got=got, fix="vold push RUN OWNER/NAME [public=true]")
    from vold.run.console import print_next

    wrote(push(Run(args.run), args.repo, public=bool(args.keys)))
    print_next("eval", "paper-eval", f"student.path={args.repo}", f"run.dir=runs/eval-{args.repo.rpartition('/')[2]}")


@verb()
def _demo(args: argparse.Namespace) -> None:
    """All of it on the demo world, on a CPU, nothing to download.

    GRPO runs beside VOLD from the same cold start, and the last lines say what happened. Writes runs/demo, or run.dir:
    report.html, summary.json, example.svg, a run in grpo/, and everything that the stages write.
    """
    from vold.demo.pipeline import demo

    demo(args.keys)


@verb("STUDY", keys="", plan="", difference="[POINTS]")
def _study(args: argparse.Namespace) -> None:
    """Arms x seeds with a verdict on each claim; see docs/study.md.

    It runs as its file says: edit the file to change a key.
    With --plan nothing runs: it says how many units there are, the hours left, the difference that each claim can show
    and, with --difference POINTS, how many seeds that difference needs.
    """
    from vold.demo.plan import plan_study
    from vold.demo.study import run_study

    if args.difference is not None and not args.plan:
        parser_of("study").error("--difference goes with --plan")
    if args.plan:
        plan_study(args.study, args.difference)
    else:
        run_study(args.study)


@verb("[METHOD]", expand="")
def _methods(args: argparse.Namespace) -> None:
    """The published methods, and what one of them expands to.

    vold methods vold --expand     prints the recipe keys that the method stands for
    vold methods vold reading=NAME     as another reading of the paper has it; `vold methods vold` lists them
    """
    from vold.report.methods import methods, print_expansion

    if not args.expand:
        methods(args.method, args.keys)
    elif args.method is None:
        parser_of("methods").error("--expand goes with a method")
    else:
        print_expansion(args.method, args.keys)


@verb(keys="")
def _schema(args: argparse.Namespace) -> None:
    """The JSON schema of a recipe, for editors.

    vold schema > recipe.schema.json, and in the recipe's first line
    # yaml-language-server: $schema=recipe.schema.json
    """
    import json

    from vold.run.console import console
    from vold.run.schema import recipe_schema

    console.file.write(json.dumps(recipe_schema(), indent=2) + "\n")


@verb("SHELL", keys="")
def _completion(args: argparse.Namespace) -> None:
    """What bash, zsh or fish completes behind vold; the first line of what is printed says where it goes."""
    from vold.run.completion import completion
    from vold.run.console import console

    console.file.write(completion(args.shell))
