"""The README and docs/ against the code: commands, recipes, names, links, and the parts that are written from code.

`PYTHONPATH=tests/helpers python tests/test_docs.py` writes those parts again.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shlex
import sys
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # where this file runs as a script

import compatibility
import footnotes
import gallery
import gpu_docs
import metric_docs
import own_code
from faults.__main__ import KINDS
from package import FILES, LAYERS
from vold.cli import VERBS
from vold.data.benchmarks.registry import benchmarks
from vold.data.hf_datasets import PublishedSet
from vold.data.sources.jsonl import Row
from vold.demo.study_file import Study
from vold.graders import get_grader, grader_names
from vold.objective import PRESETS, Objective
from vold.objective.axes import axes
from vold.run import recipe as config
from vold.run.mistakes import field_at, models_in
from vold.run.recipe import Recipe, load_recipe
from vold.run.task_sections import TaskSpec, task_kinds, task_source

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "recipes" / "demo.yaml"
PAGES = {p.relative_to(ROOT).as_posix(): p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
pages = pytest.mark.parametrize("page", PAGES)


# -- parts written from code ------------------------------------------------------------------------------------------


def presets_table() -> str:
    """Every preset and what each term is made of."""
    names = [n for n in Objective.model_fields if n not in ("method", "reading")]
    lines = [f"| `method` | {' | '.join(f'`{n}`' for n in names)} |", "|---" * (len(names) + 1) + "|"]
    for method, preset in PRESETS.items():
        parts = preset.terms
        cells = [_cell(parts[n]) if n in parts else "-" for n in names]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(part: object) -> str:
    return "<br>".join(f"{k} {_value(v)}" for k, v in part.items()) if isinstance(part, dict) else str(part)


def axes_table() -> str:
    """Every method along the axes of the algebra."""
    columns = {method: axes(Objective.model_validate({"method": method})) for method in PRESETS}
    rows = [f"| | {' | '.join(f'`{m}`' for m in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for axis in next(iter(columns.values())):
        rows.append(f"| {axis} | {' | '.join(c[axis] for c in columns.values())} |")
    return "\n".join(rows)


def readings_table() -> str:
    """Sources, how faithful each preset is, and its other readings."""
    rows = ["| `method` | source | fidelity | other readings |", "|---|---|---|---|"]
    for method, preset in PRESETS.items():
        fidelity = preset.fidelity + (f": {preset.missing}" if preset.missing else "")
        readings = "<br>".join(f"`{name}`: {reading.about}" for name, reading in preset.variants.items()) or "-"
        rows.append(f"| `{method}` | {preset.source} | {fidelity} | {readings} |")
    return "\n".join(rows)


def layers_picture() -> str:
    """The layers, the ones that import above the ones that are imported."""
    lines = []
    for entries in reversed(LAYERS):
        there = [e for e in entries if e.removesuffix(".*") in FILES]
        names = [e.removeprefix("vold.") if e != "vold" else "(package)" for e in there]
        lines.append("  ".join(names))
    return "```text\n" + "\n".join(lines) + "\n```"


def keys_tables() -> str:
    """The recipe and every section in it, a table each, with all places where it can stand."""
    out = []
    for model, (place, *others) in places().items():
        out += [f"### `{place}`", ""] if place else []
        out += [f"The same keys in {', '.join(f'`{other}`' for other in others)}.", ""] if others else []
        out += ["| key | type | default | meaning |", "|---|---|---|---|"]
        taken = config.align_defaults(model.model_fields, {}) if model is config.Align else {}
        for key, info in own_fields(model).items():
            default = _default(info) if not info.is_required() else "that of `distill`" if key in taken else "required"
            text = " ".join((info.description or "").split()).replace("|", "\\|")
            out.append(f"| `{key}` | {_type(info.annotation)} | {default} | {text} |")
        out.append("")
    return "\n".join(out).rstrip()


@cache
def places() -> dict[type[BaseModel], list[str]]:
    """The sections that a recipe can have, each before those inside itself, with the places of each."""
    found: dict[type[BaseModel], list[str]] = {}

    def walk(model: type[BaseModel], place: str) -> None:
        if place not in found.setdefault(model, []):
            found[model].append(place)
            for inner, below in _inside(model, place):
                walk(inner, below)

    walk(Recipe, "")
    return found


def _inside(model: type[BaseModel], place: str) -> Iterator[tuple[type[BaseModel], str]]:
    """Sections inside a section. A task set's are its sources: published ones share a table, and have one for their own
    keys."""
    for key, info in own_fields(model).items():
        name = f"{key}.NAME" if typing.get_origin(info.annotation) is dict else key
        for inner in models_in(info.annotation):
            yield inner, f"{place.partition(',')[0]}.{name}".lstrip(".")
    if model is TaskSpec:
        sources = {f"{place}, kind: {kind}": task_source(kind) for kind in task_kinds()}
        published = [at for at, source in sources.items() if issubclass(source, PublishedSet)]
        yield from ((source, at) for at, source in sources.items() if at not in published)
        yield from ((PublishedSet, at) for at in (f"{place}, a published set", *published))
        yield from ((sources[at], at) for at in published if own_fields(sources[at]))


def own_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a section; of a task source those that others do not have as well."""
    base = PublishedSet if issubclass(model, PublishedSet) and model is not PublishedSet else TaskSpec
    shared = base.model_fields if issubclass(model, base) and model is not base else {}
    return {key: info for key, info in model.model_fields.items() if key not in shared}


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"({', '.join(f'{k} {_value(v)}' for k, v in value.items())})"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _default(info: Any) -> str:
    if info.default is PydanticUndefined and not info.default_factory:
        return "-"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "`method: vold`" if isinstance(value, Objective) else "its defaults"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (types.UnionType, typing.Union):
        found = [_type(a) for a in arguments]
        return " or ".join(dict.fromkeys("null" if f == "NoneType" else f for f in found))
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[1])}, by name"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[section](#{slug(places()[annotation][0])})"
    name = str(annotation.__name__)
    return {"Path": "path", "str": "text", "int": "integer", "float": "number"}.get(name, name)


def benchmarks_table() -> str:
    """The rows of the last `make bench`."""
    found = json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_text())
    out = ["| measurement | ratio | ours | peer | unit | spread of the ratio |", "|---|---|---|---|---|---|"]
    for r in found["rows"]:
        if r["ratio"] is not None:
            low, high = r["spread"]
            out.append(
                f"| {r['name']} | {r['ratio']:g} | {r['ours']:g} | {r['peer']:g} | {r['unit']} | {low:g} to {high:g} |"
            )
    machine = found["machine"]
    sizes = "full" if found["settings"]["full"] else "small"
    packages = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return "\n".join(
        [
            *out,
            "",
            f"{machine['processor']}, {machine['threads']} threads, float32, {sizes} sizes; {packages}.",
        ]
    )


def faults_table() -> str:
    """The last `make faults` of each kind."""
    found = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())
    rows = ["| fault | injected | survived | clear | lost |", "|---|---|---|---|---|"]
    columns = ("injected", "survived", "clear", "lost")
    for kind, row in found["kinds"].items():
        rows.append(f"| {KINDS[kind]} | {' | '.join(f'{row[c]:,}' for c in columns)} |")
    total = [sum(row[c] for row in found["kinds"].values()) for c in columns]
    rows.append(f"| all | {' | '.join(f'{n:,}' for n in total)} |")
    machine = found["on"]
    assert list(found["kinds"]) == list(KINDS), "some kind has not been run"
    minutes = found["seconds"] / 60
    return "\n".join([*rows, "", f"{minutes:.0f} minutes for all on {machine['cores']} cores, {machine['system']}."])


def graders_table() -> str:
    """Every grader by its name in recipes and data files, in the words of its class."""
    rows = ["| grader | what it does |", "|---|---|"]
    for name in grader_names():
        said = " ".join((inspect.getdoc(type(get_grader(name))) or "").partition("\n\n")[0].split())
        rows.append(f"| `{name}` | {said} |")
    return "\n".join(rows)


def known_benchmarks_table() -> str:
    """Every benchmark, its published splits and where its data lies."""
    rows = ["| name | benchmark | rows, by split | hub data set |", "|---|---|---|---|"]
    for b in benchmarks().values():
        splits = ", ".join(f"`{split}` {size:,}" for split, size in b.size.items())
        rows.append(f"| `{b.name}` | {b.title} | {splits} | `{b.repo}` |")
    return "\n".join(rows)


def differences_table() -> str:
    """Every benchmark whose prompt under `vlmevalkit` may differ from VLMEvalKit's, and in what."""
    rows = ["| benchmark | what differs, or could not be compared |", "|---|---|"]
    for b in benchmarks().values():
        prompt = b.prompts.get("vlmevalkit")
        rows += [f"| `{b.name}` | {prompt.differs} |"] if prompt is not None and prompt.differs else []
    return "\n".join(rows)


def peers_tables() -> str:
    """How often other scorers mark as ours do, and where they do not, who is right and why."""
    found = json.loads((ROOT / "benchmarks" / "results" / "peers.json").read_text())
    rows = ["| scorer | answers | marked the same | ours right | theirs right |", "|---|---|---|---|---|"]
    for peer, row in found.items():
        shares = [f"{row[k] / row['answers']:.1%}" for k in ("same", "right_here", "right_there")]
        rows.append(f"| {peer} | {row['answers']:,} | {' | '.join(shares)} |")
    rows += ["", "| who errs | class of answers | how many, of whom | such as (gold) | why |", "|---|---|---|---|---|"]
    classes: dict[tuple[str, str], dict[str, Any]] = {}
    for peer, row in found.items():
        for what, groups in row["differ"].items():
            for group, one in groups.items():
                classes.setdefault((what, group), {})[peer] = one
    for (what, group), held in sorted(classes.items(), reverse=True):
        shown = next(iter(held.values()))
        example, gold = (re.sub(r"[`|\s]+", " ", shown[k]).strip() for k in ("example", "gold"))
        counts = ", ".join(f"{peer} {one['answers']}" for peer, one in held.items())
        rows.append(f"| {what} | {group} | {counts} | `{example[-60:]}` (`{gold}`) | {shown['why']} |")
    return "\n".join(rows)


def claims_table() -> str:
    """What VOLD gains on images, of the study on the demo world."""
    found = json.loads((ROOT / "studies" / "miniature" / "results.json").read_text())["claims"]
    rows = ["| claim | points [95% interval] | verdict |", "|---|---|---|"]
    for name in ("vold-beats-base", "vold-beats-sft", "vold-beats-grpo"):
        difference, low, high = (100 * found[name]["figures"][k] for k in ("difference", "low", "high"))
        rows.append(
            f"| {found[name]['claim']} | **{difference:+.1f}** [{low:+.1f}, {high:+.1f}] | {found[name]['verdict']} |"
        )
    return "\n".join(rows)


def demo_story() -> str:
    """What the demo says at its end; benchmarks/results/demo.json is a run's summary.json."""
    told = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text())["story"]
    return "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(told, 1))


def demo_line() -> str:
    """Its accuracies on images, which nothing trains on."""
    found = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text())["stages"]
    base, start, grpo, vold = (f"{100 * found[m]['image']['accuracy']:.1f}%" for m in ("base", "sft", "grpo", "vold"))
    return f"One seed, on images: base {base}, cold start {start}, then VOLD **{vold}**, or GRPO in its place {grpo}."


WRITTEN = (
    ("README.md", "three claims", claims_table),
    ("README.md", "the demo in a line", demo_line),
    ("docs/quickstart.md", "story of the demo", demo_story),
    ("docs/recipes.md", "graders", graders_table),
    ("docs/evaluation.md", "known benchmarks", known_benchmarks_table),
    ("docs/evaluation.md", "differences from VLMEvalKit", differences_table),
    ("docs/bridges.md", "peers", peers_tables),
    ("docs/method.md", "presets", presets_table),
    ("docs/method.md", "axes", axes_table),
    ("docs/method.md", "readings", readings_table),
    ("docs/architecture.md", "layers", layers_picture),
    ("docs/performance.md", "benchmarks", benchmarks_table),
    ("docs/reliability.md", "faults", faults_table),
    ("docs/reference.md", "recipe keys", keys_tables),
    ("docs/metrics.md", "metrics", metric_docs.page),
    ("docs/compatibility.md", "compatibility", compatibility.table),
    ("docs/gpu.md", "gpu figures", gpu_docs.figures),
    ("docs/gpu.md", "gpu memory", gpu_docs.memory),
    ("docs/gallery.md", "gallery", gallery.page),
)


def marks(name: str) -> tuple[str, str]:
    return tuple(f"<!-- {edge}: {name}, written by tests/test_docs.py -->" for edge in ("begin", "end"))  # type: ignore[return-value]


@pytest.mark.parametrize(("page", "name", "make"), WRITTEN, ids=lambda v: v if isinstance(v, str) else "")
def test_parts_written_from_code_are_up_to_date(page: str, name: str, make: Callable[[], str]) -> None:
    begin, end = marks(name)
    assert f"{begin}\n\n{make()}\n\n{end}" in PAGES[page].read_text(), (
        "run: PYTHONPATH=tests/helpers python tests/test_docs.py"
    )


# -- reading Markdown -------------------------------------------------------------------------------------------------

FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1``` *$", re.DOTALL | re.MULTILINE)


@cache
def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    return [(m[2].strip(), m[3]) for m in FENCE.finditer(PAGES[page].read_text())]


@cache
def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", PAGES[page].read_text())


@cache
def code(page: str) -> list[str]:
    """Every code span and every line of a fenced block."""
    spans = re.findall(r"`([^`\n]+)`", prose(page))
    return [*spans, *(line.split("  #")[0].strip() for _, text in blocks(page) for line in text.splitlines())]


def yaml_blocks() -> list[Any]:
    found = [(page, i, text) for page in PAGES for i, (language, text) in enumerate(blocks(page)) if language == "yaml"]
    return [pytest.param(text, id=f"{page}-{i}") for page, i, text in found]


def laid_on(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on `base`. A section that names another `kind` replaces the old one."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = laid_on(out[key], value) if both and "kind" not in value else value
    return out


# -- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", yaml_blocks())
def test_every_yaml_block_is_a_recipe_part_of_one_or_a_study(text: str, tmp_path: Path) -> None:
    raw = yaml.safe_load(text)
    if "arms" in raw:
        Study.model_validate(raw)
        return
    whole = {"run", "student"} <= set(raw)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw if whole else laid_on(yaml.safe_load(DEMO.read_text()), raw)))
    own_code.write_page(tmp_path)
    with own_code.forgotten(tmp_path):
        load_recipe(file)


@pytest.mark.parametrize("page", [p for p in PAGES if any(language == "json" for language, _ in blocks(p))])
def test_every_row_of_data_in_the_docs_is_a_row(page: str) -> None:
    for language, text in blocks(page):
        if language == "json":
            for line in text.splitlines():
                Row.model_validate_json(line)


@pages
def test_every_command_exists_and_its_overrides_are_keys(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+)(?:\s[a-z ]*)?:(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in code(page):
        if m := re.match(r"make ([a-z]+)\b", line):
            assert m[1] in targets, line
        if m := re.match(r"(?:\.venv/bin/)?vold ([a-z]+)\b(.*)", line):
            assert m[1] in VERBS, line
            words = shlex.split(m[2])
            if words and words[0].endswith(".yaml") and m[1] not in ("study", "show") and (ROOT / words[0]).exists():
                load_recipe(ROOT / words[0], words[1:])
        if m := re.match(r"make demo ARGS='(.*)'", line):
            load_recipe(DEMO, m[1].split())


def test_every_verb_is_in_the_reference() -> None:
    said = {m[1] for line in code("docs/reference.md") if (m := re.match(r"vold ([a-z]+)\b", line))}
    assert said == set(VERBS)


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].read_text().splitlines()) <= 140


@pages
def test_every_dotted_name_imports(page: str) -> None:
    names = set(re.findall(r"`((?:vold|experiments)(?:\.\w+)+)`", prose(page))) | set(
        re.findall(r"^::: (\S+)", prose(page), re.MULTILINE)
    )
    for name in sorted(names):
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            try:
                thing: Any = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            break
        for part in parts[cut:]:
            assert hasattr(thing, part), f"{page}: {name}"
            thing = getattr(thing, part)


@cache
def functions_in(file: str) -> frozenset[str]:
    (found,) = (ROOT / "tests").rglob(file)
    tree = ast.parse(found.read_text())
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))


@pages
def test_every_test_named_exists(page: str) -> None:
    for file, name in re.findall(r"`(test_\w+\.py)::(\w+)`", prose(page)):
        assert name in functions_in(file), f"{page}: {file}::{name}"


@pages
def test_every_repository_path_named_exists(page: str) -> None:
    for name in re.findall(r"`((?:tests|src|experiments|recipes|studies|docs)/[\w./-]+)`", prose(page)):
        if not name.startswith("studies/") or not name.endswith((".json", ".md")):  # written by hand or by `vold study`
            assert (ROOT / name).exists(), f"{page}: {name}"


def test_every_key_of_every_section_has_its_row() -> None:
    """Keys that hold sections aside, the page has those of the list that is written by hand."""
    begin, end = marks("recipe keys")
    page = PAGES["docs/reference.md"].read_text().partition(begin)[2].partition(end)[0]
    rows: dict[str, set[str]] = defaultdict(set)
    for part in page.split("\n### "):
        head, _, table = part.partition("| key |")
        for place in re.findall(r"`([^`]+)`", head) or [""]:
            rows[place] |= set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    shown = {
        f"{place.partition(',')[0]}.{key}".replace(".NAME", "").lstrip(".") for place in rows for key in rows[place]
    }
    written = (ROOT / "tests" / "run" / "recipe_keys.txt").read_text().split()
    assert sorted(k for k in shown if not any(w.startswith(f"{k}.") for w in written)) == written
    for kind in task_kinds():
        own = rows[f"tasks.NAME, kind: {kind}"]
        assert own and own | rows["tasks.NAME"] == set(task_source(kind).model_fields), kind


def slug(heading: str) -> str:
    """What a heading's anchor is called, here and on GitHub."""
    plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return plain.replace(" ", "-")


@pages
def test_internal_links_resolve(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert file.exists(), f"{page}: {target}"
        if page.startswith("docs/"):
            assert file.is_relative_to(ROOT / "docs"), f"{page}: {target} is outside the documentation site"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", file.read_text()), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page}: {target}"


def test_every_page_is_in_the_site_and_in_its_overview() -> None:
    docs = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text().replace("!!python/name:", ""))
    assert sorted(name for entry in site["nav"] for name in _pages_of(entry)) == sorted(docs)
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", PAGES["docs/index.md"].read_text()))
    assert linked == docs - {"index.md"}


def _pages_of(entry: Any) -> list[str]:
    """The pages of an entry of the site's index, which may be a section."""
    if isinstance(entry, dict):
        return [page for inner in entry.values() for page in _pages_of(inner)]
    return [page for inner in entry for page in _pages_of(inner)] if isinstance(entry, list) else [entry]


def test_the_keys_beside_other_trainers_options_are_keys() -> None:
    page = PAGES["docs/coming-from.md"].read_text()
    keys = set(re.findall(r"`((?:run|student|teacher|environment|distill)(?:\.\w+)+)`", page))
    assert len(keys) > 40
    assert [key for key in sorted(keys) if field_at(Recipe, tuple(key.split("."))) is None] == []


def test_formulas_of_the_method_are_set_as_formulas() -> None:
    """No Greek letter, index or sign of mathematics stands outside formulas, code and the tables that code writes."""
    text = re.sub(
        r"<!-- begin.*?<!-- end|\$\$.*?\$\$|`[^`\n]*`|\$[^$\n]*\$", "", prose("docs/method.md"), flags=re.DOTALL
    )
    found = re.findall(r".*(?:[\u0370-\u03ff\u2200-\u22ff‖½²∂\u2113]|\b[A-Za-z]_[A-Za-z0-9]\b).*", text)
    assert found == []
    assert prose("docs/method.md").count("$") % 2 == 0


def said_by_the_program() -> list[str]:
    """Every text in the source, with … for what is filled in."""
    return [
        "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in getattr(node, "values", [node]))
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def test_every_error_that_is_explained_is_one_that_the_program_gives() -> None:
    errors = re.findall(r"^### (.*)$", PAGES["docs/troubleshooting.md"].read_text(), re.MULTILINE)
    assert len(errors) > 30
    said = set(said_by_the_program())
    assert [error for error in errors if error not in said] == []


MACHINE = tuple(a + b for a, b in (("/wo", "rk/"), ("/tmp/", "w"), ("/ro", "ot/"), ("/ho", "me/"), ("/op", "t/")))
ROOTS = ("src", "experiments", "tests", "docs", "recipes", "studies", "benchmarks", "docker", ".ci", ".github")
TEXT = (".py", ".md", ".yaml", ".yml", ".cff", ".toml", ".txt", ".j2", ".json", ".jsonl", ".Dockerfile", "")


def tree_files() -> list[Path]:
    top = [p for p in ROOT.iterdir() if p.is_file() and p.name != ".git"]  # a file in a linked work tree
    below = [p for name in ROOTS for p in (ROOT / name).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return [p for p in (*top, *below) if p.suffix in TEXT and p.stat().st_size < 2**20]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = [f"{p.relative_to(ROOT)}: {m}" for p in tree_files() for m in MACHINE if m in p.read_text(errors="replace")]
    assert found == []


def test_the_texts_speak_of_runs_and_not_of_sittings() -> None:
    word = "ses" + "sion"
    texts = [p for p in tree_files() if p.suffix in (".md", ".yaml", ".yml", ".j2") or p.name == "Makefile"]
    texts += [p for p in tree_files() if p.relative_to(ROOT).parts[0] in ("src", "experiments")]
    assert [str(p.relative_to(ROOT)) for p in texts if word in p.read_text(errors="replace").lower()] == []


@pages
def test_names_of_tests_stand_in_footnotes(page: str) -> None:
    text = PAGES[page].read_text()
    assert footnotes.moved(text) == text, "run: PYTHONPATH=tests/helpers python tests/test_docs.py"
    body = FENCE.sub("", footnotes.NOTE.sub("", text))
    assert not re.findall(footnotes.TEST, body)
    defined = [number for number, _ in footnotes.NOTE.findall(text)]
    assert sorted(set(re.findall(r"\[\^(\d+)\]", body))) == sorted(defined)


def write_parts() -> None:
    """Write the parts made from code into their pages, and move names of tests into footnotes."""
    for page, name, make in WRITTEN:
        begin, end = marks(name)
        text = PAGES[page].read_text()
        head, _, rest = text.partition(begin)
        PAGES[page].write_text(f"{head}{begin}\n\n{make()}\n\n{end}{rest.partition(end)[2]}")
    for file in PAGES.values():
        file.write_text(footnotes.moved(file.read_text()))


if __name__ == "__main__":
    write_parts()
