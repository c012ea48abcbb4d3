"""What is printed is text, on any terminal and on none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vold.run.console import Bar, console, print_next

HOSTILE = "[red]m[/b] :smile: \x1b[31mx\x9b2J \x1b]8;;http://a\x07l\u202eq\u200b"
SHOWN = (
    "[red]m[/b] :smile: \N{REPLACEMENT CHARACTER}[31mx\N{REPLACEMENT CHARACTER}2J "
    "\N{REPLACEMENT CHARACTER}]8;;http://al[U+202E]q[U+200B]"
)


def test_markup_and_escape_codes_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.print(HOSTILE)
    # Of a bell rich itself leaves nothing.
    assert capsys.readouterr().out == SHOWN + "\n"


PRINTS = """
import sys
from vold.run.console import Bar, console, lost
for i in range(2000):
    console.print("40.1 \\u00b1 1.6 \\u2212 \\ud800")
with Bar("a [/b]", 10) as bar:
    bar.advance(10, "[red]")
print(lost(), file=sys.stderr)
"""


def printed(shell: str, **variables: str) -> subprocess.CompletedProcess[str]:
    argv = ["bash", "-c", shell, "bash", sys.executable, PRINTS]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **variables})


def test_a_reader_that_leaves_does_not_end_the_work() -> None:
    done = printed('"$1" -c "$2" | head -1')
    assert done.stdout.count("\n") == 1
    assert done.stderr == "None\n"


def test_an_output_that_is_closed_or_full_does_not_end_the_work() -> None:
    assert printed('"$1" -c "$2" >&-').stderr == "None\n"
    assert "could be written" in printed('"$1" -c "$2" >/dev/full').stderr


@pytest.mark.parametrize("found", [True, False])
def test_the_next_command_is_one_that_the_shell_finds(
    found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "vold"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if found else "")
    for started in (".venv/bin/vold", "/somewhere/vold/cli/__main__.py"):
        monkeypatch.setattr(sys, "argv", [started, "demo"])
        print_next("show", "runs/a b")
    first = "vold" if found else ".venv/bin/vold"
    assert capsys.readouterr().out == f"next: {first} show 'runs/a b'\nnext: vold show 'runs/a b'\n"


def test_a_bar_that_is_full_is_said_to_be_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("eval", 4) as bar:
        for units in (4, 0, 0):
            bar.advance(units)
    assert capsys.readouterr().out.count("eval: 4/4") == 1


def test_a_bar_over_nothing_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("marking", 0) as bar:
        bar.advance(0)
    assert capsys.readouterr().out == ""
