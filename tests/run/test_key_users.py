"""Every recipe key has a user: a recipe, a study, a published method, a test or a page that a person wrote."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from package import ROOT
from vold.objective import PRESETS

KEYS = Path(__file__).with_name("recipe_keys.txt").read_text().split()
NAMED = ("tasks", "benchmarks", "routes", "against")
"""Sections that hold others by a name of the recipe's own."""


def leaves(value: object, at: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted keys of a nested mapping; in a study's `set` a key has dots itself."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, (*at, *str(key).split(".")))
    else:
        yield ".".join(at)


def pattern(key: str) -> re.Pattern[str]:
    """A recipe key with any names in it, and what stands below it."""
    parts = [f"{re.escape(p)}\\.[^.]+" if p in NAMED else re.escape(p) for p in key.split(".")]
    return re.compile("(?:.*\\.)?" + "\\.".join(parts) + "(?:\\..*)?")


def written() -> Iterator[str]:
    """Keys that recipes, studies, the published methods and YAML on the pages set."""
    for file in ROOT.glob("recipes/*.yaml"):
        yield from leaves(yaml.safe_load(file.read_text()))
    for file in ROOT.glob("studies/*/study.yaml"):
        raw = yaml.safe_load(file.read_text())
        for one in (raw, *raw["arms"].values()):
            yield from leaves(one.get("set", {}))
    for preset in PRESETS.values():
        yield from leaves({"distill": {"objective": dict(preset.terms)}})
        for reading in preset.variants.values():
            yield from leaves({"distill": {"objective": dict(reading.terms)}})


def pages() -> str:
    """What people wrote: the pages without their generated parts."""
    files = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    return re.sub(r"<!-- begin: .*?<!-- end: ", "", "\n".join(f.read_text() for f in files), flags=re.DOTALL)


def named_in_python() -> set[str]:
    """Keys of dictionaries, keywords of calls and overrides in tests, experiments and benchmarks."""
    out: set[str] = set()
    for file in (f for folder in ("tests", "experiments", "benchmarks") for f in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword):
                out.add(node.arg or "")
            elif isinstance(node, ast.Dict):
                out |= {str(k.value) for k in node.keys if isinstance(k, ast.Constant)}
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                out.add(str(node.slice.value))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                out |= set(re.findall(r"\b([\w.]+)=", node.value))
    return {part for name in out for part in name.split(".")}


def test_every_key_has_a_user() -> None:
    set_somewhere, spoken, python = list(written()), pages(), named_in_python()
    unused = []
    for key in KEYS:
        leaf = key.rpartition(".")[2]
        said = re.search(rf"`[^`\n]*\b{leaf}\b[^`\n]*`|^\s*{leaf}:|[{{,]\s*{leaf}:", spoken, re.MULTILINE)
        if not (said or leaf in python or any(pattern(key).fullmatch(found) for found in set_somewhere)):
            unused.append(key)
    assert unused == [], "a key that nobody uses is to go"
