"""docs/metrics.md from the docstrings of the dataclasses that are stored: what a key is, its unit, where it is made."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from package import ROOT, SOURCE
from vold.evals.protocol import Protocol
from vold.run.answers import Answer, Unmarked
from vold.run.looks import EvalRow
from vold.run.metrics import DistillRow, SftRow
from vold.run.results import Results, SetInfo

FILES: dict[str, tuple[type[Any], ...]] = {
    "sft/metrics.jsonl": (SftRow,),
    "distill/metrics.jsonl": (DistillRow,),
    "sft/evals.jsonl": (EvalRow,),
    "distill/evals.jsonl": (EvalRow,),
    "eval/results.json": (Results,),
    "eval/MODEL/SET.jsonl": (Answer, Unmarked),
}
"""Every file that the page describes, with the classes of its rows."""

PATTERN = re.compile(r"(?P<what>.+?) Unit: (?P<unit>.+?)\. Made by (?P<made>[\w/]+\.py:[\w.]+)\.", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class StoredProtocol(Protocol):
    """A protocol with its digest beside it."""

    hash: str = ""
    """Digest of the others but `revision`. Unit: hex digits. Made by evals/protocol.py:protocol_hash."""


@dataclasses.dataclass(frozen=True)
class Key:
    """A stored key. `made` is `file:function` below src/vold; `optional` keys are left out where there is no value."""

    name: str
    kind: str
    what: str
    unit: str
    made: str
    optional: bool


@cache
def docstrings(cls: type[Any]) -> Mapping[str, str]:
    """Docstrings of the fields that a class writes itself."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            assert isinstance(after.value, ast.Constant)
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found


def keys(cls: type[Any]) -> list[Key]:
    """The keys of a class, in the order in which they are stored."""
    hints = typing.get_type_hints(cls)
    out = []
    for field in dataclasses.fields(cls):
        text = next(docs for c in cls.__mro__ if (docs := docstrings(c).get(field.name)))
        match = PATTERN.fullmatch(text)
        assert match, f"{cls.__name__}.{field.name}: write `What it is. Unit: nats. Made by file.py:function.`"
        optional = field.default is None or "flat" in field.metadata
        name = f"{field.metadata['flat']}*" if "flat" in field.metadata else field.name
        out.append(Key(name, _kind(hints[field.name]), match["what"], match["unit"], match["made"], optional))
    return out


def sections(cls: type[Any], path: str = "") -> Iterator[tuple[str, type[Any]]]:
    """A class and those inside it, each with its place: `a.NAME` for the values of a mapping, `a[]` for a list's."""
    yield path, cls
    for name, hint in typing.get_type_hints(cls).items():
        place = f"{path}.{name}" if path else name
        if cls is SetInfo and name == "protocol":
            yield place, StoredProtocol
        for inner, more in _inside(hint):
            yield from sections(inner, place + more)


def _inside(hint: Any) -> Iterator[tuple[type[Any], str]]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        yield typing.cast("type[Any]", hint), ""
    elif origin in (types.UnionType, typing.Union):
        whole = [a for a in arguments if a is not type(None)]
        yield from _inside(whole[-1])  # of several classes the last is what the others are kinds of
    elif origin is tuple:
        yield from ((inner, f"[]{more}") for inner, more in _inside(arguments[0]))
    elif arguments:
        yield from ((inner, f".*{more}") for inner, more in _inside(arguments[1]))


def _kind(hint: Any) -> str:
    arguments = [a for a in typing.get_args(hint) if a is not type(None)]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return _kind(arguments[-1])
    if typing.get_origin(hint) is typing.Literal or hint is str:
        return "text"
    if typing.get_origin(hint) in (tuple, Sequence):
        return "list"
    if dataclasses.is_dataclass(hint) or arguments:
        return "object"
    return {"float": "number", "int": "integer", "bool": "boolean"}[hint.__name__]


def page() -> str:
    """The tables of docs/metrics.md, a section a file."""
    out = []
    for file, classes in FILES.items():
        out += [f"## `{file}`", ""]
        done: set[type[Any]] = set()
        for cls in classes:
            for path, inner in sections(cls):
                if inner in done:
                    continue
                done.add(inner)
                heading = f"### `{path}`" if path else f"{(inner.__doc__ or '').splitlines()[0]}"
                out += [heading, "", "| key | type | what it is | unit | made in |", "|---|---|---|---|---|"]
                for k in keys(inner):
                    name = f"`{k.name}`" + (" (optional)" if k.optional else "")
                    what = k.what.replace("|", "\\|")
                    out.append(f"| {name} | {k.kind} | {what} | {k.unit} | `{k.made}` |")
                out.append("")
    return "\n".join(out).rstrip()


def functions(file: str) -> set[str]:
    """Functions and methods of a file below src/vold."""
    tree = ast.parse((SOURCE / "vold" / file).read_text())
    defined = ast.FunctionDef | ast.ClassDef
    names = {n.name for n in tree.body if isinstance(n, defined)}
    classes = [c for c in tree.body if isinstance(c, ast.ClassDef)]
    return names | {f"{c.name}.{n.name}" for c in classes for n in c.body if isinstance(n, ast.FunctionDef)}


def on_the_page() -> dict[str, dict[str, set[str]]]:
    """The keys of docs/metrics.md by file and place."""
    found: dict[str, dict[str, set[str]]] = {}
    file = place = ""
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if match := re.fullmatch(r"## `(.+)`", line):
            file, place = match[1], ""
        elif match := re.fullmatch(r"### `(.+)`", line):
            place = match[1]
        elif match := re.match(r"\| `(\w+)`", line):
            found.setdefault(file, {}).setdefault(place, set()).add(match[1])
    return found


def seen(value: object, known: dict[str, set[str]], place: str = "") -> dict[str, set[str]]:
    """Keys of a stored value by place, as the page names places: `*` for the keys of a mapping, `[]` for a list."""
    found: dict[str, set[str]] = {}
    if isinstance(value, list):
        inside = [(f"{place}[]", item) for item in value]
    elif isinstance(value, dict) and place in known:
        found[place] = set(value)
        inside = [(f"{place}.{key}".removeprefix("."), item) for key, item in value.items()]
    elif isinstance(value, dict):
        inside = [(f"{place}.*", item) for item in value.values()]
    else:
        return {}
    for where, item in inside:
        for at, names in seen(item, known, where).items():
            found[at] = found.get(at, set()) | names
    return found


def keys_of(rows: Iterable[object], known: dict[str, set[str]]) -> dict[str, set[str]]:
    """Keys of stored rows by place."""
    return {place: set().union(*(seen(r, known).get(place, set()) for r in rows)) for place in known}
