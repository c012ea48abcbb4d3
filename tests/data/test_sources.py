"""The folder of task sources: every module is one, and one more module is one more kind."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import tiny
import vold.data.sources
from package import ROOT, SOURCE
from vold.data.sources import Source
from vold.errors import ConfigError, DataError, UngradableReference
from vold.run import task_sections
from vold.run.directory import open_stage
from vold.run.recipe import dump_recipe, load_recipe, recipe_from
from vold.run.task_sections import task_kinds, task_source

ECHO = '''
"""`kind: echo`: words to say again."""

from pydantic import Field

from vold.data.sources import Source, Tasks
from vold.types import Message, Task


class Spec(Source):
    """Words to say again."""

    words: tuple[str, ...] = Field(min_length=1)
    """What to say."""
    grader: str = "exact"
    """How it is marked."""

    def open(self, parts, *, references):
        """A problem a word."""
        said = [Message("user", f"say {w}") for w in self.words]
        return Tasks([Task(w, (m,), w, self.grader, (m,)) for w, m in zip(self.words, said)], "echo")
'''


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source added as one file of the folder."""
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "echo.py").write_text(ECHO)
    monkeypatch.setattr(vold.data.sources, "__path__", [*vold.data.sources.__path__, str(tmp_path / "sources")])
    monkeypatch.setattr(task_sections, "task_kinds", task_kinds.__wrapped__)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "vold.data.sources.echo", raising=False)


@pytest.mark.parametrize("kind", task_kinds())
def test_every_module_of_the_folder_is_a_source(kind: str) -> None:
    found = task_source(kind)
    assert issubclass(found, Source)
    assert not getattr(found, "__abstractmethods__", None)
    assert all(info.description for name, info in found.model_fields.items())


def test_no_source_is_loaded_that_the_recipe_does_not_use() -> None:
    code = f"""
import sys
from vold.run.recipe import load_recipe
load_recipe({str(ROOT / "recipes" / "demo.yaml")!r})
print(*(m for m in sys.modules if m.startswith("vold.data.sources.")))
"""
    path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["vold.data.sources.digits"]


@pytest.mark.usefixtures("echo")
def test_a_new_file_is_a_new_kind(tmp_path: Path) -> None:
    raw = tiny.recipe_dict(tmp_path)
    raw["tasks"]["more"] = {"kind": "echo", "words": ["a", "b"]}
    raw["distill"]["tasks"] = "more"
    recipe = recipe_from(raw, where="test recipe")
    assert [t.reference for t in tiny.opened(recipe.tasks["more"])] == ["a", "b"]
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "r.yaml") == recipe
    assert yaml.safe_load((tmp_path / "r.yaml").read_text())["tasks"]["more"]["grader"] == "exact"
    tiny.begun(recipe, "distill")
    raw["tasks"]["more"]["words"] = ["a"]
    with pytest.raises(ConfigError, match=r"distill\.tasks\.words"):
        open_stage(recipe_from(raw, where="test recipe"), "distill")


def test_a_source_outside_the_package_is_named_with_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tasks.py").write_text(ECHO.replace("class Spec", "class Echo"))
    monkeypatch.syspath_prepend(str(tmp_path))
    raw = tiny.recipe_dict(tmp_path)
    raw["tasks"]["more"] = {"kind": "my_tasks:Echo", "words": ["a", "b"]}
    recipe = recipe_from(raw, where="test recipe")
    assert [t.reference for t in tiny.opened(recipe.tasks["more"])] == ["a", "b"]
    (file := tmp_path / "elsewhere" / "r.yaml").parent.mkdir()
    file.write_text(dump_recipe(recipe))
    assert load_recipe(file) == recipe


@pytest.mark.usefixtures("echo")
def test_what_a_new_kind_gives_is_checked_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(UngradableReference, match="echo: task banana"):
        tiny.opened({"kind": "echo", "words": ["banana"], "grader": "choice"})
    raw = tiny.recipe_dict(tmp_path)
    raw["tasks"]["more"] = {"kind": "echo", "wrods": ["a"]}
    with pytest.raises(ConfigError) as caught:
        recipe_from(raw, where="test recipe")
    said = str(caught.value)
    assert "tasks.more" in said
    assert "words" in said


@pytest.mark.parametrize(
    ("spec", "what", "where", "fix"),
    [
        (
            {"kind": "digit"},
            "unknown kind of task set",
            "tasks.x.kind",
            "did you mean 'digits'?",
        ),
        ({"split": "train"}, "unknown kind of task set", "tasks.x", "choose one of calls"),
        ("train", "a task set is a mapping", "tasks.x", "{kind: ..., ...}"),
        ({"kind": "__init__"}, "unknown kind of task set", "tasks.x.kind", "choose one of"),
        ({"kind": ["digits"]}, "unknown kind of task set", "tasks.x.kind", "choose one of"),
        ({"kind": "json:dumps"}, "this is no task source", "tasks.x.kind", "vold.data.sources.Source"),
        ({"kind": "json:nothing"}, "the module json has nothing of that name", "tasks.x", "it has"),
        ({"kind": "no_such_module:Echo"}, "cannot be imported", "tasks.x", "PYTHONPATH"),
        ({"kind": "digits", "split": "train"}, "field required", "tasks.x.size", ""),
        ({"kind": "digits", "split": "train", "size": 0}, "greater than 0", "tasks.x.size", ""),
        (
            {"kind": "orz57k", "decontaminate": {"against": {"a": {"pth": "x"}}}},
            "unknown key 'pth'",
            "tasks.x.decontaminate.against.a.pth",
            "did you mean 'path'?",
        ),
        (
            {"kind": "orz57k", "min_difficulty": 3},
            "unknown key 'min_difficulty'",
            "tasks.x.min_difficulty",
            "known keys",
        ),
        ({"kind": "orz57k", "tokenizer": "x"}, "go together", "tasks.x", ""),
        ({"kind": "mixture", "sources": {"a": "train"}, "size": 3}, "`size` needs `weights`", "tasks.x", ""),
    ],
)
def test_a_mistake_in_a_set_is_named_with_its_place_and_cure(
    spec: object, what: str, where: str, fix: str, tmp_path: Path
) -> None:
    raw = tiny.recipe_dict(tmp_path)
    raw["tasks"]["x"] = spec
    with pytest.raises(ConfigError) as caught:
        recipe_from(raw, where="test recipe")
    assert what in caught.value.what
    assert caught.value.where == f"test recipe: {where}"
    assert fix in caught.value.fix
    assert "pydantic" not in str(caught.value)


def test_a_row_with_a_video_is_refused_in_words(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "<video> how many?", "reference": "3", "videos": ["clip.mp4"]}\n')
    with pytest.raises(DataError, match="no model is shown videos here"):
        tiny.opened({"kind": "jsonl", "path": str(rows), "grader": "exact"})


def test_rows_that_are_refused_are_told_together(tmp_path: Path) -> None:
    good, odd = '{"prompt": "a", "reference": "b"}\n', '{"prompt": "a", "reference": "b", "colour": "red"}\n'
    rows = tmp_path / "rows.jsonl"
    spec = {"kind": "jsonl", "path": str(rows), "grader": "exact"}
    rows.write_text(good + odd + good + '{"prompt": "a", "reference": " "}\n' + good)
    with pytest.raises(DataError) as caught:
        tiny.opened(spec)
    assert caught.value.where == f"{rows}: line 2, key colour"
    assert caught.value.got == f"{odd.strip()}\nand line 4: this row has an empty reference"
    rows.write_text(odd * 30)
    with pytest.raises(DataError) as caught:
        tiny.opened(spec)
    assert caught.value.got.count("and line") == 4
    assert caught.value.got.endswith("line 5: this row cannot be used: unknown key\nand others")
