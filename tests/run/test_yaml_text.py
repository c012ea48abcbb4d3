"""YAML as a user may write it: read as PyYAML's safe loader reads it, or refused with the line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vold.cli import main
from vold.demo.study_file import load_study
from vold.errors import ConfigError
from vold.run.recipe import load_recipe
from vold.run.yaml_text import LONGEST, parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]

# Each line holds the one above nine times, so the last stands for 9 to the ninth, 387,420,489 values.
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture(params=[True, False], ids=["libyaml", "no libyaml"], autouse=True)
def _with_libyaml(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "__with_libyaml__", request.param and yaml.__with_libyaml__)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' is there twice: first on line 1"),
        (
            "a:\n  b:\n    - c: 1\n      d: 2\n      c: 3\n",
            "line 5, column 7: the key 'c' is there twice",
        ),
        ("{a: {b: 1, b: 1}}", "line 1, column 12: the key 'b' is there twice: first on line 1"),
        ("a: 1\n'a': 2\n", "line 2, column 1: the key 'a' is there twice: first on line 1"),
        ("yes: 1\ntrue: 2\n", "line 2, column 1: the key True is there twice: first on line 1"),
        ("x: &x {b: 1}\na:\n  <<: *x\n  <<: *x\n", "line 4, column 3: the key '<<' is there twice: first on line 3"),
        ("a:\n  <<: {b: 1, b: 2}\n", "line 2, column 14: the key 'b' is there twice: first on line 2"),
        ("!!set {a, a}", "line 1, column 11: the key 'a' is there twice: first on line 1"),
        (BOMB, "line 6, column 4: aliases that stand for more than 100,000 values"),
        ("a:\n  - &a [*a]\n", "line 2, column 5: an alias inside of what it stands for"),
        ("a: &a {b: *a}\n", "line 1, column 4: an alias inside of what it stands for"),
        ("[" * 65 + "]" * 65, "line 1, column 64: more than 64 lists and mappings inside each other"),
        ("{" * 5000, "line 1, column 64: more than 64 lists and mappings inside each other"),
        ("- " * 5000 + "a", "line 1, column 127: more than 64"),
        ("a: *b", "line 1, column 4: found undefined alias 'b'"),
        ("a: 1\n---\na: 2\n", "line 2, column 1: expected a single document"),
        ("a: 'b", "line 1, column 6"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a: \x00", "unacceptable character"),
        ("a: \x1b[31m", "unacceptable character"),
        ("a: !!python/object/apply:os.system [ls]", "line 1, column 4: could not determine a constructor"),
        ("a: 2024-13-01", "line 1, column 4: month must be in 1..12"),
        ("a: !!timestamp b", "line 1, column 4: no value of tag:yaml.org,2002:timestamp"),
        ("a: " + "9" * 5000, "line 1, column 4: Exceeds the limit"),
        ("? [a, b]\n: 1\n", "line 1, column 3: a key that is no word"),
        ("2024-01-01: 1\n", "line 1, column 1: a key that is no word"),
    ],
)
def test_what_is_refused_names_the_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, what="no YAML", where="here")
    assert (caught.value.what, caught.value.where) == ("no YAML", "here")
    assert said in caught.value.got


def test_a_key_may_repeat_one_that_is_merged_in() -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y\n  <<: *x\n  a: 3\nz: {<<: [*x, *y], c: 4}\nagain: *y\n"
    found = parse_yaml(text)
    assert found == {
        "x": {"a": 1, "b": 2}, "y": {"a": 3, "b": 2}, "z": {"a": 1, "b": 2, "c": 4}, "again": {"a": 3, "b": 2},
    }  # fmt: skip
    assert found == yaml.safe_load(text)


@pytest.mark.parametrize("file", sorted(ROOT.glob("recipes/*.yaml")) + sorted(ROOT.glob("studies/*/*.yaml")))
def test_files_of_the_tree_are_read_as_ever(file: Path) -> None:
    assert read_yaml(file, "recipe") == yaml.safe_load(file.read_text())


@pytest.mark.parametrize(
    ("content", "what", "got"),
    [
        (b"a: \xff\n", "not valid YAML", "a byte that is not UTF-8 on line 1"),
        ("a: 1\n".encode("utf-16"), "not valid YAML", "a byte that is not UTF-8 on line 1"),
        (b"a: 1\n" + b"#" * LONGEST, "this is no", f"a file of more than {LONGEST:,} bytes"),
        (b"", "mapping of sections", "an empty file"),
        (b"- a\n", "mapping of sections", "list"),
        (b"a: 1\na: 2\n", "not valid YAML", "first on line 1"),
    ],
)
def test_recipes_and_studies_have_one_reader(content: bytes, what: str, got: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    for read in (load_recipe, load_study):
        with pytest.raises(ConfigError, match=what) as caught:
            read(file)
        assert got in caught.value.got
        assert str(file) in caught.value.where


@pytest.mark.parametrize("name", ["nul\0.yaml", "nowhere.yaml", ".", "file.yaml/more", "x" * 300])
def test_a_name_that_is_no_file_is_refused_in_words(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("a: 1\n")
    for read in (load_recipe, load_study):
        with pytest.raises(ConfigError, match="cannot read this"):
            read(tmp_path / name)


def test_a_value_on_the_command_line_says_a_key_once(capsys: pytest.CaptureFixture[str]) -> None:
    demo = str(ROOT / "recipes" / "demo.yaml")
    assert main(["check", demo, "sft={steps: 1, optimizer: {lr: 1.0}, steps: 2}"]) == 2
    said = capsys.readouterr().err
    assert "where: command line: sft" in said
    assert "the key 'steps' is there twice" in said
