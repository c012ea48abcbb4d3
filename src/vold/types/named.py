"""Code of the user's own that a recipe names as `module:attribute`: how it is found, loaded and told apart.

There is one way for rewards, task sources, environments, benchmarks, trackers, masks and weights. The module is looked
for where Python looks (installed, PYTHONPATH), and then in the directory of the recipe (`run.modules`). Two modules of
one name are refused, and so is one that is found only because of the directory in which the command was typed: another
command, or a worker of this one, would not find it. Whatever a recipe names runs with all rights of the user; a data
file, a model and a server name nothing (`vold.graders.registry.known_grader`).
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import inspect
import os
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""What a name of the user's own code in a recipe looks like."""

_beside: list[str] = []
"""The directory of the recipe, once one was read."""


def is_named(name: str) -> bool:
    """Whether this names code of the user's own, and nothing of the package.

    Example:
        >>> is_named("my_module:late_tokens"), is_named("failed")
        (True, False)
    """
    return NAME.fullmatch(name) is not None


def look_in(directory: str | Path) -> None:
    """Look for modules in this directory too, behind all others; no longer in that of the recipe read before."""
    here = os.path.abspath(directory)
    for before in [d for d in _beside if d != here]:
        _beside.remove(before)
        if before in sys.path:
            sys.path.remove(before)
    if here not in _beside and here not in sys.path[1:]:
        sys.path.append(here)
        _beside.append(here)
        importlib.invalidate_caches()


def load(name: str) -> Any:
    """What `module:attribute` names.

    Raises:
        ConfigError: no such module, or several; one that raises when it is imported, or is found by accident; or it has
            no such attribute.
    """
    module_name, _, attribute = name.partition(":")
    top = module_name.partition(".")[0]
    _refuse_accident(top, name)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module raises
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        raise ConfigError(
            f"the module {module_name} cannot be imported",
            where=name,
            got="there is no such module" if missing else f"{type(error).__name__}: {error}",
            fix=f"put {top}.py beside the recipe, or into run.modules or PYTHONPATH" if missing else "mend the module",
        ) from error
    _refuse_another(top, name)
    if not hasattr(module, attribute):
        known = [n for n in vars(module) if not n.startswith("_")]
        close = difflib.get_close_matches(attribute, known, n=1, cutoff=0.5)
        raise ConfigError(
            f"the module {module_name} has nothing of that name",
            where=name,
            got=name,
            fix=f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known[:20]) or 'nothing'}",
        )
    return getattr(module, attribute)


def load_callable(name: str, *arguments: str, options: Collection[str] = ()) -> Any:
    """What `module:attribute` names, if it can be called with these positional arguments, and options by name.

    Raises:
        ConfigError: as `load`; or it is not callable, or takes others.
    """
    found = load(name)
    if not callable(found):
        fix = f"name a function or class: {_as_written(name, arguments, options)}"
        raise ConfigError(f"{name} cannot be called", where=name, got=type(found).__name__, fix=fix)
    refuse_signature(name, found, arguments, options)
    return found


def refuse_signature(name: str, found: Any, arguments: Sequence[str], options: Collection[str] = ()) -> None:
    """Raises:
    ConfigError: it cannot be called with these positional arguments, and options by name.
    """
    try:
        signature = inspect.signature(found)
    except ValueError:  # built-in functions have none
        return
    try:
        signature.bind(*arguments, **dict.fromkeys(options))
    except TypeError as error:
        raise ConfigError(
            f"{name} takes other arguments",
            where=name,
            got=f"{name.partition(':')[2]}{signature}" + (f" with {', '.join(options)}" if options else ""),
            fix=_as_written(name, arguments, options),
        ) from error


def _as_written(name: str, arguments: Sequence[str], options: Collection[str]) -> str:
    return f"def {name.partition(':')[2]}({', '.join([*arguments, *(['*', *options] if options else [])])}): ..."


def made(name: str, arguments: Mapping[str, object], methods: tuple[str, ...]) -> Any:
    """What the class or function of this name makes of these arguments, in order: an object with these methods.

    Raises:
        ConfigError: as `load_callable`; or it raises, or what it makes lacks a method.
    """
    make = load_callable(name, *arguments)
    try:
        found = make(*arguments.values())
    except ConfigError:
        raise
    except Exception as error:  # whatever a class of the user's raises
        got = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{name} raises when it is made", where=name, got=got, fix="mend it") from error
    if lacks := [m for m in methods if not callable(getattr(found, m, None))]:
        raise ConfigError(
            f"{name} lacks {' and '.join(f'`{m}`' for m in lacks)}",
            where=name,
            got=type(found).__name__,
            fix="see docs/extending.md for what it needs",
        )
    return found


def _refuse_accident(top: str, name: str) -> None:
    """Refuse a module that only the working directory gives, which `python -m` puts first."""
    here, started = os.getcwd(), getattr(sys.modules.get("__main__"), "__file__", None)
    by_command = started is None or os.path.dirname(os.path.abspath(started)) != here
    others = {os.path.abspath(p or ".") for p in sys.path[1:]}
    first = os.path.abspath(sys.path[0] or ".") if sys.path else ""
    if first != here or here in others or not by_command:
        return
    if PathFinder.find_spec(top, [here]) is not None and PathFinder.find_spec(top, sorted(others)) is None:
        raise ConfigError(
            f"{top}.py is found only because of the directory in which the command was typed",
            where=name,
            got=here,
            fix=f"put {top}.py beside the recipe, or set run.modules or PYTHONPATH to its directory",
        )


def _refuse_another(top: str, name: str) -> None:
    """Refuse a module that is loaded from elsewhere than the recipe's directory, which has one of that name."""
    loaded = getattr(sys.modules[top], "__file__", None)
    for directory in _beside if loaded else ():
        spec = PathFinder.find_spec(top, [directory])
        if spec is not None and spec.origin and not os.path.samefile(spec.origin, str(loaded)):
            raise ConfigError(
                f"there are two modules of the name {top}",
                where=name,
                got=f"{loaded} and {spec.origin}",
                fix="rename the one beside the recipe",
            )


def source_digest(name: str) -> str:
    """A digest of the source that `module:attribute` comes from: its module, and what that imports or names from the
    same directory; of an installed package, all of it.

    Raises:
        ConfigError: as `load`.
    """
    load(name)
    top = name.partition(":")[0].partition(".")[0]
    spec = PathFinder.find_spec(top) or sys.modules[top].__spec__
    if spec is None or spec.origin is None:
        return ""
    return _digest(Path(spec.origin), top)


def _digest(origin: Path, top: str) -> str:
    package = origin.name == "__init__.py"
    root = origin.parents[1] if package else origin.parent
    digest = hashlib.sha256()
    for file in sorted(_reached(root, top, origin)):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _reached(root: Path, top: str, origin: Path) -> set[Path]:
    installed = {"site-packages", "dist-packages"} & set(root.parts)
    found, wanted, seen = set[Path](), [top], set[str]()
    while wanted:
        one = wanted.pop()
        seen.add(one)
        files = [root / f"{one}.py", *(root / one).rglob("*.py")] if one != top or origin.suffix == ".py" else [origin]
        new = {f for f in files if f.is_file()} - found
        found |= new
        for file in new if not installed and origin.suffix == ".py" else ():
            wanted += {*_mentioned(file)} - seen
    return found


def _mentioned(file: Path) -> Iterator[str]:
    """Modules that a file imports, or names as `module:attribute`; by their first names."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (a.name.partition(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (n.partition(":")[0].partition(".")[0] for n in NAME.findall(node.value))
