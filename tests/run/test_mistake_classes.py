"""Mistakes of every class that newcomers make, each with all that it is answered with, word by word: mistakes.txt.

A block of that file is a test: its name behind `#`; what is there, a line each; the command behind `$`; all that it
says. It ends with exit status 2. Beside the files of the block there are `r.yaml`, a recipe, and its models `student`
(it sees) and `teacher`.

    + FILE TEXT         a file with this text, in which \\n ends a line
    = DIRECTORY MODEL   a copy of a model
    - FILE              is not there
    ~ FILE KEY JSON     a key of a JSON file has this value
    % NAME VALUE        an environment variable
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

import tiny
from vold.cli import main

BLOCKS = re.findall(r"^# (.+)\n((?:.+\n)+)", Path(__file__).with_name("mistakes.txt").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipe and models."""
    home = tmp_path_factory.mktemp("made")
    raw = tiny.recipe_dict(home)
    raw |= {"run": {"dir": "run", "seed": 5}, "student": {"path": "student"}, "teacher": {"path": "teacher"}}
    (home / "r.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(raw)), sort_keys=False))
    return home


def prepare(made: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Do what a line of a block says, in the working directory."""
    kind, name, rest = (*line.split(" ", 2), "")[:3]
    place = Path(name)
    if kind == "+":
        place.write_text(rest.encode().decode("unicode_escape"))
    elif kind == "=":
        shutil.copytree(made / rest, place)
    elif kind == "-":
        place.unlink()
    elif kind == "~":
        key, value = rest.split(" ", 1)
        place.write_text(json.dumps(json.loads(place.read_text()) | {key: json.loads(value)}))
    else:
        monkeypatch.setenv(name, rest)


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_it_is_answered_word_by_word(
    block: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(made / "r.yaml", tmp_path / "r.yaml")
    for name in ("student", "teacher"):
        (tmp_path / name).symlink_to(made / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    there, command, said = re.fullmatch(r"((?:.+\n)*?)\$ vold (.+)\n((?:.+\n)*)", block).groups()  # type: ignore[union-attr]
    for line in there.splitlines():
        prepare(made, monkeypatch, line)
    try:
        status: object = main(shlex.split(command))
    except SystemExit as ended:
        status = ended.code
    err = capsys.readouterr().err.replace(str(tmp_path), "HOME")
    assert re.sub(r" +\n", "\n", err) == said
    assert status == 2
