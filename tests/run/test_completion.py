"""Words that shells complete, in real shells as far as they are here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vold.cli import VERBS
from vold.errors import ConfigError
from vold.objective import PRESETS
from vold.run.completion import completion, keys_of
from vold.run.recipe import Recipe, load_recipe
from vold.run.shipped import shipped_recipes

ASK = r"""
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
compopt() { :; }  # a builtin that answers only while readline asks
_vold
printf '%s\n' "${COMPREPLY[@]}"
"""


def typed(line: str, script: Path) -> list[str]:
    """What bash offers for the last word of a line; behind a `=` what goes on from there, as readline puts it in."""
    done = subprocess.run(["bash", "-c", ASK, "bash", script, line], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "vold.bash"
    file.write_text(completion("bash"))
    return file


def test_bash_completes_verbs_recipes_keys_and_values(
    bash: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").touch()
    Path("mine.txt").touch()
    Path("runs").mkdir()
    assert typed("vold ", bash) == list(VERBS)
    assert typed("vold sc", bash) == ["schema"]
    assert typed("vold run m", bash) == ["mine.yaml", "mopd-mini"]
    assert {"demo", "runs/"} <= set(typed("vold run ", bash))
    assert typed("vold sft demo sft.optimizer.s", bash) == ["sft.optimizer.schedule="]
    assert typed("vold sft demo sft.optimizer.schedule=", bash) == ["cosine", "constant"]
    assert typed("vold distill mine.yaml run.seed=2 distill.objective.method=gr", bash) == ["grpo"]
    assert typed("vold demo student.activation_checkpointing=", bash) == ["true", "false", "selective"]
    assert typed("vold completion ", bash) == ["bash", "zsh", "fish"]
    assert typed("vold show r", bash) == ["runs"]
    assert typed("vold show runs --", bash) == ["--help", "--serve", "--port"]
    assert typed("vold branch runs/a --f", bash) == ["--from"]
    assert typed("vold sft demo --", bash) == ["--help"]


def test_what_is_completed_is_taken() -> None:
    words = keys_of(Recipe)
    assert all(re.fullmatch(r"[a-z0-9_.]+", key) for key in words)  # a word of every shell, without quotes
    assert {"teacher.path", "distill.objective.teacher_loss.top_k.k", "eval.judge.key_env"} <= set(words)
    assert not [key for key in words if key.startswith(("tasks.", "teacher.routes"))]
    for key in ("run.device", "student.dtype", "traces.keep", "distill.optimizer.schedule", "distill.objective.method"):
        for value in set(words[key]) - {"cuda", "null"}:
            preset = PRESETS.get(value) if key == "distill.objective.method" else None
            base = ["teacher.base={path: demo:teacher}"] if preset and "teacher.base" in preset.teacher else []
            load_recipe(shipped_recipes()["demo"], [f"{key}={value}", *base])


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_script_is_one_that_its_shell_can_read(shell: str, tmp_path: Path) -> None:
    script = completion(shell)
    assert "@" not in script and all(f" {verb}" in script or f":{verb}" in script for verb in VERBS)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "script"
    file.write_text(script)
    subprocess.run([shell, "-n", file], check=True)


def test_fish_completes_a_value(tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    file = tmp_path / "vold.fish"
    file.write_text(completion("fish"))
    ask = f"source {file}; complete -C 'vold sft demo sft.optimizer.schedule=c'"
    done = subprocess.run(["fish", "--no-config", "-c", ask], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == ["sft.optimizer.schedule=constant", "sft.optimizer.schedule=cosine"]


def test_a_shell_that_is_not_known_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'bash'"):
        completion("Bash")
