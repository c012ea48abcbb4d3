"""What a unit of a study is made of besides its settings: code of the user's own, data files, precisions.

A digest of the settings finds a unit again (`vold.demo.units`). That alone would take for the same what was trained on
other rows of a file of the same name, or by another function of the same name. So each unit keeps digests of these too,
in the list beside the study file and where it lies, and is not taken where one of them is another one now. A unit that
says nothing of it is taken as it is, and so is what cannot be compared: a clone need not have the data of units that
are done.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from vold import __version__
from vold.evals.study_results import Origin
from vold.run.console import console
from vold.run.doors import SOURCE_OF, named_in
from vold.run.files import read_json, write_json
from vold.run.folders import sha256_of
from vold.run.precision import precision
from vold.run.shipped import resolve
from vold.types.named import is_named

if TYPE_CHECKING:
    from vold.demo.units import Unit
    from vold.run.recipe import Recipe

Made = Mapping[str, str]
"""Digests by what they are of."""
MADE_OF = "made_of.json"
"""Beside what was made: such digests. Absent where that was made before they were kept."""
UNKNOWN = Origin({}, {}, __version__, "unknown")
"""Of a unit that is not looked at yet."""
START = "start: "
"""Before what the arm is made of that a unit starts from."""


def made_of(recipe: Recipe, settings: Mapping[str, object], functions: Iterable[str] = ()) -> dict[str, str]:
    """Digests of what these flat settings and functions name, as far as it is there."""
    found = sources_of([*named_in(settings), *functions])
    files = {key: value for key, value in settings.items() if key.endswith(".path") and {".tasks.", ".benchmarks."}
             & {f".{part}." for part in key.split(".")}}  # fmt: skip
    found |= {f"data of {key}": _content(Path(str(path))) for key, path in files.items() if Path(str(path)).is_file()}
    return found | dict(_precisions(recipe, settings))


def sources_of(functions: Iterable[str]) -> dict[str, str]:
    """Digests of the source of functions of the user's own."""
    own = sorted({name for name in functions if is_named(name) and not name.startswith("vold.")})
    return {SOURCE_OF + name: digest for name in own if (digest := _source(name.partition(":")[0]))}


def _source(module: str) -> str:
    """A digest of a module and of those beside it that it imports, and no others: a study may be under way for days.
    Empty where it is not found."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None or not (spec.origin or "").endswith(".py"):
        return ""
    file = Path(str(spec.origin))
    return _digest_of_modules(file.parents[module.count(".") + (file.name == "__init__.py")], module)


@cache
def _digest_of_modules(root: Path, first: str) -> str:
    """Once: a process goes on with the code that it has loaded."""
    digest, wanted, seen = hashlib.sha256(), [first], set[str]()
    installed = {"site-packages", "dist-packages"} & {*root.parts}
    for one in wanted:  # which grows
        place = root.joinpath(*one.split("."))
        source = next((f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()), None)
        if source is None or one in seen:
            continue
        seen.add(one)
        digest.update(one.encode() + b"\0" + source.read_bytes() + b"\0")
        wanted += [] if installed else sorted(_imported(source))
    return digest.hexdigest()[:16]


def _imported(file: Path) -> Iterator[str]:
    """Names that may be those of modules."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (node.module, *(f"{node.module}.{a.name}" for a in node.names))


def _content(file: Path) -> str:
    state = file.stat()
    return _digest_of_file(file.absolute(), state.st_mtime_ns, state.st_size)


@cache
def _digest_of_file(file: Path, changed: int, size: int) -> str:
    """Once for each state of a file: every unit asks."""
    return sha256_of(file)[:16]


def _precisions(recipe: Recipe, settings: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """In which precision models are held whose `dtype` is auto; not of those that are still to be made."""
    for key in (key for key, value in settings.items() if key.endswith(".dtype") and value == "auto"):
        path = settings.get(f"{key.removesuffix('.dtype')}.path")
        if isinstance(path, str) and (Path(resolve(path)).is_dir() or not Path(path).is_absolute()):
            yield f"precision of {key.removesuffix('.dtype')}", precision(recipe, path, "auto")


def differing(before: Made, now: Made) -> list[str]:
    """What both name and is not the same in them."""
    return sorted(key for key in before.keys() & now.keys() if before[key] != now[key])


def place_for(base: Path, made: Made) -> Path:
    """Where something made of this lies: a directory, or one beside it where that holds what was made of something
    else."""
    if not changed_at(base, made):
        return base
    digest = hashlib.sha256(json.dumps(dict(made), sort_keys=True).encode()).hexdigest()
    return base.with_name(f"{base.name}-{digest[:8]}")


def changed_at(base: Path, made: Made) -> list[str]:
    """In what that which lies in a directory was made of something else."""
    return differing(read_json(base / MADE_OF, dict[str, str], absent={}), made)


def keep_made_of(place: Path, made: Made, *, begun: bool) -> None:
    """Write down what a directory is filled from. One that was `begun` without that stays as it is."""
    if made and not begun:
        write_json(place / MADE_OF, made)


def tell_changed(study: str, changed: Mapping[Unit, Sequence[str]]) -> None:
    """Say which units are run again although their settings are known, and why."""
    lines: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for unit, why in changed.items():
        lines.setdefault((unit.arm, tuple(why)), []).append(unit.seed)
    for (arm, reasons), seeds in lines.items():
        told = f"{study}: {arm}, seeds {', '.join(map(str, sorted({*seeds})))}"
        words = f"{told}: results that are stored are not used, as they are of another {'; another '.join(reasons)}"
        console.print(Text.assemble(("warn  ", "bold yellow"), words))


def tell_commits(commits: Sequence[str]) -> None:
    """Say where units of a study were run by several states of the code."""
    if len(commits) > 1:
        words = f"units of this study were run at {len(commits)} commits: {', '.join(c[:10] for c in commits)}"
        console.print(Text.assemble(("warn  ", "bold yellow"), words))


def commit_of(directory: Path) -> str:
    """HEAD of the repository that a directory is in."""
    done = subprocess.run(
        ["git", "-C", str(directory), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
