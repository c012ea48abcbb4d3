"""Bad inputs of every kind: keys, overrides, verbs, data, models, places. All are refused in words that name them."""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from faults.bad_files import BadFile, bad_recipes, bad_rows, bad_tables
from faults.bad_models import Edit, bad_models, copied
from faults.bad_values import bad_values
from faults.frame import Fault, Outcome, judged, vold_in
from faults.runs import Runs, runs

SECONDS = 40.0
"""More than any refusal may take."""


@dataclass(frozen=True)
class Bad:
    """A bad input.

    Attributes:
        name: what is bad.
        argv: the command. `RECIPE` stands for the recipe of a run that nothing is wrong with.
        prepare: makes its files in the working directory.
        before: called in the process that runs the command.
        says: words that the refusal must hold.
        taken: it looks bad, but has to be taken.
    """

    name: str
    argv: Sequence[str]
    prepare: Callable[[Path], None] | None = None
    before: Callable[[], None] | None = None
    says: tuple[str, ...] = ()
    taken: bool = False


def faults() -> list[Fault]:
    """All bad inputs."""
    made = runs()
    base = yaml.safe_load(Path(made.recipe).read_text())
    every = [*_keys(base), *_overrides(), *_commands(), *_recipes(made), *_data(), *_models(made), *_places()]
    return [Fault("refusal", bad.name, partial(_given, made, bad)) for bad in every]


def _given(made: Runs, bad: Bad, home: Path) -> Outcome:
    if bad.prepare is not None:
        bad.prepare(home)
    argv = [made.recipe if one == "RECIPE" else one for one in bad.argv]
    ended = vold_in(argv, home, bad.before, SECONDS)
    outcome = judged(ended, lambda: bad.taken)
    missing = [word for word in bad.says if word not in ended.said]
    if outcome.verdict != "lost" and missing:
        return Outcome("lost", f"it does not say {missing[0]!r}: {ended.said.strip()[-300:]}")
    if outcome.verdict == "clear" and bad.taken:
        return Outcome("lost", f"it is refused: {outcome.note}")
    return outcome


def _keys(base: dict[str, Any]) -> Iterator[Bad]:
    for keys, value, raw in bad_values(base):
        text = yaml.safe_dump(raw)
        yield Bad(
            f"{'.'.join(keys)}: {value!r}",
            ["check", "r.yaml"],
            lambda home, text=text: _write(home / "r.yaml", text),  # type: ignore[misc]
            says=(keys[-1],),
        )


def _overrides() -> Iterator[Bad]:
    for item in (
        "run", "=3", "=", "run.dir", ".=1", "..=1", "run..dir=x", ".run=1", "run.=1", "run=3", "run=", "run=[]",
        "run.dir.x=1", "sft.steps.x=1", "sft.stepz=3", "Sft.steps=3", "sft .steps=3", "sft.steps=[", "sft.steps={",
        "sft.steps='", "sft.steps=", "sft.steps=3 steps", "sft.steps=0x", "sft.steps=1,000", "sft.steps=1.0.0",
        "sft.steps=!!python/name:os.system", "sft.steps=&a [*a]", "sft.steps=" + "[" * 20_000,
        "sft.steps=" + "9" * 5000,
        "sft.steps=2026-99-99", "sft.steps=\ud800", "sft.steps=\x1b[2J", "sft.optimizer.lr=.nan", "sft.optimizer.lr=0",
        "distill.objective.method=nope", "distill.objective.method=[/b]", "distill.objective.method=[a]",
        "distill.objective.method=", "distill.objective.reading=nope", "distill.objective=vold", "distill.tasks=nope",
        "distill.tasks=[train]", "distill.tasks.size=3", "distill.tasks={kind: digits}", "eval.tasks=nope",
        "eval.tasks=[nope]", "eval.tasks=[image, image]", "eval.tasks=[]", "eval.models={'../x': demo:student}",
        "eval.models={'': demo:student}", "eval.models={a: 3}", "eval.models={a: models/none}", "teacher=",
        "teacher.path=", "teacher.path=models/none", "teacher.path=/nowhere", "teacher.path=~/nowhere",
        "teacher.path=demo:nobody", "teacher.path=.", "teacher.path=r\0", "student.path=", "student.path=models/none",
        "student.path=none", "student.path=a/b/c", "student.path=./none", "student.path=~nobody/none",
        "student.path=[/b]/[red]", "student.path=\x1b[31m", "student.path=" + "n" * 5000, "student.path=http://a/b",
        "student.path=-x/--y", "student.path=a b/c d", "student.path=demo:", "student.path=demo:teacher/../student",
        "student.freeze=[eyes]", "student.freeze=vision", "student.lora={rank: 0}", "student.lora=16",
        "tasks.x={}", "tasks.x=", "tasks.x=3", "tasks.x={kind: nope}", "tasks.x={kind: [a]}",
        "tasks.x={kind: os:system}",
        "tasks.x={kind: 'no_such_module:Thing'}", "tasks.x={kind: jsonl}", "tasks.x={kind: mixture, sources: {a: x}}",
        "tasks.x={kind: mixture, sources: {a: nope}}", "tasks.x={kind: mixture, sources: {}}",
        "tasks.x={kind: digits, split: nope, form: text, size: 3}", "teacher.server={urls: [], model: m}",
        "teacher.server={urls: ['http://[::1/v1'], model: m}", "teacher.server={urls: [ftp://a/v1], model: m}",
        "teacher.server={urls: [''], model: m}", "teacher.server={urls: ['http://'], model: m}",
        "teacher.server={urls: ['http://a b/v1'], model: m, patience: 0}",
        "teacher.server={urls: [localhost], model: m}",
        "teacher.server={urls: ['http://127.0.0.1:99999/v1'], model: m, patience: 0}",
        "distill.sampling.max_new_tokens=100000", "distill.sampling.temperature=0", "distill.init=models/none",
        "distill.objective.teacher_loss.mask=no_module:f", "distill.objective.teacher_loss.mask=os:system",
        "distill.objective.teacher_loss.estimator=k9", "run.device=tpu", "run.device=cuda:0", "run.threads=0",
        "eval.benchmarks={nope: {}}", "eval.benchmarks={math500: {path: /nowhere}}",
        "eval.benchmarks={math500: {path: .}}", "eval.benchmarks={math500: {path: '~nobody/x'}}",
    ):  # fmt: skip
        yield Bad(f"override {item[:60]!r}", ["check", "RECIPE", item])


def _commands() -> Iterator[Bad]:
    for argv in (
        [], ["distil", "RECIPE"], ["Check", "RECIPE"], ["[/b]"], ["\x1b[31m"], ["check"], ["traces"], ["sft"],
        ["align"], ["balance"], ["distill"], ["eval"], ["compare"], ["show"], ["study"], ["check", "--nope", "RECIPE"],
        ["check", "RECIPE", "--sft.steps=3"], ["check", "RECIPE", "--expand"], ["check", "nowhere.yaml"],
        ["check", ""], ["check", "."], ["check", "/dev/null"], ["check", "n" * 5000], ["check", "a\0b"],
        ["check", "\ud800.yaml"], ["check", "[/b].yaml"], ["check", "\x1b]0;t\x07.yaml"], ["check", "RECIPE", "RECIPE"],
        ["sft", "RECIPE"], ["distill", "RECIPE"], ["balance", "RECIPE"], ["show", "nowhere"], ["show", "."],
        ["show", "RECIPE"], ["show", "/dev/null"], ["show", ".", "step=1"], ["show", "RECIPE", "step=x"],
        ["show", "RECIPE", "step=-1"], ["show", "RECIPE", "limit=1.5"], ["show", "RECIPE", "limit=" + "9" * 5000],
        ["show", "a\0b"], ["show", "n" * 5000], ["show", "nowhere[/b]"], ["compare", "."], ["compare", ".", "."],
        ["compare", "nowhere", "nowhere2"], ["compare", ".", ".", "."], ["compare", ".", ".", "force=maybe"],
        ["compare", "a\0b", "c"], ["study", "nowhere.yaml"], ["study", "RECIPE"], ["study", "."],
        ["study", "/dev/null"], ["study", "a\0b"], ["methods", "nope"], ["methods", "[/b]"], ["methods", "vold", "x"],
        ["methods", "vold", "x=1"],
        ["methods", "vold", "reading=nope"], ["methods", "--expand"], ["methods", "sod", "teacher_loss=["],
        ["methods", "vold", "objective.method=grpo"], ["demo", "x"], ["demo", "x=1"], ["demo", "run.dir="],
        ["demo", "sft.steps=many"], ["--traceback"], ["--version=3"],
    ):  # fmt: skip
        yield Bad(f"command {' '.join(argv)[:60]!r}", argv)


def _recipes(made: Runs) -> Iterator[Bad]:
    for bad in bad_recipes(Path(made.recipe).read_text()):
        yield from _with_file(bad, "r", f"recipe: {bad.name}", ["check", "r.yaml"])
    yield Bad("recipe: study of the same mistakes", ["study", "s.yaml"], lambda h: _write(h / "s.yaml", "arms: [a]"))


def _data() -> Iterator[Bad]:
    for bad in bad_rows():
        source = "tasks.bad={kind: jsonl, path: rows.jsonl, grader: exact}"
        argv = ["check", "RECIPE", source, "distill.tasks=bad"]
        yield from _with_file(bad, "rows", f"row: {bad.name}", argv)
    for bad in bad_tables():
        path = f"table{bad.ending}"
        where = f"eval.benchmarks={{math500: {{path: {path}}}}}"
        yield from _with_file(bad, "table", f"benchmark: {bad.name}", ["check", "RECIPE", where])
        where = f"tasks.bad={{kind: deepmath, path: {path}}}"
        argv = ["check", "RECIPE", where, "distill.tasks=bad"]
        yield from _with_file(bad, "table", f"training set: {bad.name}", argv, partial(_env, XDG_CACHE_HOME="cache"))


def _with_file(
    bad: BadFile, stem: str, name: str, argv: Sequence[str], before: Callable[[], None] | None = None
) -> Iterator[Bad]:
    def prepare(home: Path) -> None:
        (home / f"{stem}{bad.ending}").write_bytes(bad.content)

    yield Bad(name, argv, prepare, before, bad.says, bad.taken)


def _models(made: Runs) -> Iterator[Bad]:
    student = made.home / "student"
    for name, edit in bad_models(student):

        def prepare(home: Path, edit: Edit = edit) -> None:
            copied(student, home / "model")
            edit(home / "model")

        says = () if name.startswith("tokenizer_config") else ("model",)  # without it tokens are missing, not the file
        yield Bad(f"student: {name}", ["check", "RECIPE", "student.path=model"], prepare, says=says)


def _places() -> Iterator[Bad]:
    sft = ["sft", "RECIPE"]
    for name, directory in {
        "below a file": "file/run",
        "a file": "file",
        "of a long name": "n" * 300,
        "of a long path": "/".join(["n" * 200] * 30),
        "with NUL": "a\0b",
        "in /proc": "/proc/run",
        "in /sys": "/sys/run",
        "a link to itself": "loop",
        "a link to nowhere": "dangling",
        "a device": "/dev/null",
        "nothing": "",
    }.items():
        for verb in ("traces", "eval", "align", "balance", "distill", "sft"):
            yield Bad(f"run.dir {name}: {verb}", [verb, "RECIPE", f"run.dir={json.dumps(directory)}"], _odd_places)
    short: dict[str, Callable[[], None]] = {
        "no room for a file": partial(_limit, resource.RLIMIT_FSIZE, 700),
        "few open files": partial(_limit, resource.RLIMIT_NOFILE, 12),
        "a working directory that is gone": _gone,
    }
    for name, before in short.items():
        for verb in ("traces", "eval", "align"):
            yield Bad(f"{name}: {verb}", [verb, "RECIPE"], before=before)
    yield Bad("a place of another user", ["traces", "RECIPE"], before=_not_mine)
    around: dict[str, Callable[[], None]] = {
        "no HOME": partial(_env, HOME=None, XDG_CACHE_HOME=None),
        "HOME that is a file": partial(_env, HOME="/dev/null"),
        "a terminal of ASCII": partial(_encoded, "ascii"),
        "a terminal of latin-1": partial(_encoded, "latin-1"),
        "no standard output": _closed,
        "a reader that has left": _left,
    }
    for name, before in around.items():
        for argv in (["check", "RECIPE"], ["methods"], ["traces", "RECIPE"]):
            yield Bad(f"{name}: {argv[0]}", argv, before=before, taken=True)
    yield Bad("standard output on a full disk", ["methods"], before=_full)
    for variable in ("WORLD_SIZE", "COLUMNS"):
        yield Bad(f"{variable}=many", sft, before=partial(_env, **{variable: "many"}))


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _odd_places(home: Path) -> None:
    (home / "file").write_text("")
    (home / "loop").symlink_to("loop")
    (home / "dangling").symlink_to("/proc/nowhere/at/all")


def _limit(what: int, limit: int) -> None:
    resource.setrlimit(what, (limit, limit))


def _gone() -> None:
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")


def _not_mine() -> None:
    """A working directory that this process may not write to."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    else:
        os.chmod(".", 0o555)


def _env(**variables: str | None) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _encoded(encoding: str) -> None:
    sys.stdout.reconfigure(encoding=encoding, errors="strict")  # type: ignore[union-attr]
    sys.stderr.reconfigure(encoding=encoding)  # type: ignore[union-attr]


def _closed() -> None:
    sys.stdout = None  # as Python does where descriptor 1 is closed


def _left() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    _printed_to(writing)


def _full() -> None:
    _printed_to(os.open("/dev/full", os.O_WRONLY))


def _printed_to(descriptor: int) -> None:
    os.dup2(descriptor, 1)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), line_buffering=True)
