"""What a recipe's mistakes are called: whose they are, all of them at once, and what to write instead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from vold.demo.study_file import load_study
from vold.errors import ConfigError
from vold.run.names import close_to, file_name, path_name
from vold.run.recipe import load_recipe, recipe_from

DEMO = Path(__file__).parents[2] / "recipes" / "demo.yaml"


def refused(*overrides: str, file: Path = DEMO) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_recipe(file, overrides)
    assert "pydantic" not in str(caught.value)
    return caught.value


def place_of(text: str, file: Path = DEMO) -> str:
    """The line and column at which a text stands."""
    ((number, line),) = ((n, line) for n, line in enumerate(file.read_text().splitlines(), 1) if text in line)
    return f"{number}:{line.index(text) + 1}"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    file = tmp_path / "r.yaml"
    assert DEMO.read_text().count(old) == 1
    file.write_text(DEMO.read_text().replace(old, new))
    return file


CHOICES = {
    "distill.objective.method=void": "vold",
    "student.dtype=bf16": "bfloat16",
    "student.dtype=FLOAT32": "float32",
    "run.device=gpu": "cuda",
    "run.device=cuda:0": "cuda",
    "traces.keep=Correct": "correct",
    "student.freeze=[visoin]": "vision",
    "distill.optimizer.schedule=cosin": "cosine",
    "run.exchange=steps": "step",
    "tasks.image.form=images": "image",
    "tasks.image.kind=digit": "digits",
    "tasks.image.split=tests": "test",
    "teacher.tokenizer=aligned": "align",
    "distill.objective.teacher_loss.mask=fail": "failed",
    "distill.objective.surrogate.aggregate=token-mean": "token_mean",
    "tasks.extra={kind: jsonl, path: x, grader: maths}": "math",
    "eval.benchmarks={a: {protocol: vlmeval}}": "vlmevalkit",
    "environment={calls: herms}": "hermes",
}


@pytest.mark.parametrize("override", CHOICES)
def test_a_value_that_is_no_choice_is_answered_with_the_nearest(override: str) -> None:
    assert f"did you mean {CHOICES[override]!r}?" in refused(override).fix


def test_without_a_near_choice_all_are_named() -> None:
    error = refused("traces.keep=nonsense")
    assert (error.got, error.fix) == ("'nonsense'", "one of all, correct; the default is all")


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("sft.steps=1e3", "should be a whole number", "write 1000, or another whole number"),
        ("sft.steps=2.5", "should be a whole number", "write 2, or another whole number"),
        ("sft.steps=abc", "should be a whole number", "give it a whole number above 0"),
        ("sft.steps=-1", "should be greater than 0", "give it a whole number above 0"),
        ("run.seed=1.5", "should be a whole number", "write 1, or another whole number"),
        ("eval.sampling.temperature=-1", "should be greater than or equal to 0", "give it a number from 0, at most 10"),
        ("distill.sampling.temperature=warm", "should be a number", "give it a number from 0"),
        ("run.dir=", "this key has no value", "give it a path"),
        ("student.path=", "this key has no value", "give it text"),
        ("student.path=7", "should be text", "put it in quotes: '7'"),
        ("student.freeze=vision", "should be a list", "write [vision]"),
        ("eval.tasks=image", "should be a list", "write [image]"),
        ("sft=5", "should be a section of keys", "give it a section of keys"),
        ("run.offload=maybe", "should be true or false", "give it true or false; the default is False"),
        ("eval.benchmarks={a: {limit: 0}}", "should be greater than 0", "give it a whole number above 0"),
        ("distill.sampling.stop=[]", "should hold at least 1", "add to it"),
    ],
)
def test_a_value_of_another_kind_is_answered_with_what_to_write(override: str, what: str, fix: str) -> None:
    error = refused(override)
    assert error.what == what
    assert error.fix.startswith(fix)
    assert error.where.startswith(f"command line: {override.partition('=')[0]}")


@pytest.mark.parametrize("key", ["run.dir", "teacher.cache", "tasks.x={kind: jsonl, path: ''}"])
def test_no_path_is_empty(key: str) -> None:
    override = key if "=" in key else f"{key}=''"
    assert refused(override).what == "this path is empty"
    assert refused(override.replace("''", "'  '")).what == "this path is empty"


def test_what_could_be_of_two_kinds_is_told_once() -> None:
    error = refused("balance={tasks: train, sampling: {max_new_tokens: 9}, some_correct: x}")
    assert (error.what, error.where) == ("there is no such choice", "command line: balance.some_correct")
    assert error.fix.startswith("one of flat or a number")


def test_a_mistake_of_the_file_has_its_line_and_column(tmp_path: Path) -> None:
    file = changed(tmp_path, "  batch_size: 32\n", "  batch_sizee: 32\n")
    error = refused("run.dir=elsewhere", file=file)
    assert error.where == f"{file}:{place_of('batch_sizee', file)}: sft.batch_sizee"
    file = changed(tmp_path, "tasks: overlap", "tasks: overlp")
    assert refused(file=file).where == f"{file}:{place_of('tasks: overlp', file)}: align.tasks"


def test_a_recipe_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    file = changed(tmp_path, "  steps: 250", "  steps: -250")
    here, there = os.pipe()
    assert os.write(there, file.read_bytes()) == file.stat().st_size
    os.close(there)
    try:
        error = refused("sft.batch_size=0", file=Path(f"/dev/fd/{here}"))
    finally:
        os.close(here)
    assert f"where: /dev/fd/{here}:{place_of('steps: -250', file)}: " in error.got
    assert "command line: sft.batch_size" in error.got


def test_a_mistake_of_the_command_line_is_not_the_files(tmp_path: Path) -> None:
    assert refused("sft.stesp=5").where == "command line: sft.stesp"
    assert refused("teacher=null").where == "command line: teacher"
    # The set is dropped on the command line, and the section that names it stands in the file.
    sets = "tasks={image: {kind: digits, split: test, size: 3}}"
    assert refused(sets, "traces=null", "align=null", "distill=null").where == (
        f"command line: {sets} traces=null align=null distill=null"
    )
    # Both are wrong: each is told its own.
    file = changed(tmp_path, "keep: all", "keep: most")
    said = refused("sft.stesp=5", file=file).got
    assert f"where: {file}:{place_of('keep: most', file)}: traces.keep" in said
    assert "where: command line: sft.stesp" in said


def test_all_mistakes_are_told_at_once() -> None:
    wrong = ("sft.stepz=1", "sft.optimizer.lrr=1", "distill.rollout=4", "student.dtype=bf16", "tasks.image.splitt=test")
    error = refused(*wrong)
    assert error.what == "5 mistakes"
    for item in wrong:
        assert f"where: command line: {item.partition('=')[0]}\n" in error.got + "\n"
    assert error.got.count("fix:   did you mean") == 5


def test_all_mistakes_between_sections_are_told_at_once() -> None:
    error = refused("traces.tasks=a1", "distill.tasks=b2", "teacher=null", "distill.sampling.temperature=0")
    assert error.what == "4 mistakes"
    for place in ("traces.tasks", "distill.tasks", "teacher", "distill.sampling.temperature"):
        assert f"where: command line: {place}" in error.got


def test_names_that_no_task_set_has_are_told_with_the_values_that_are_wrong() -> None:
    error = refused("distill.tasks=trian", "eval.tasks=[text, imag]", "distill.steps=ten")
    assert error.what == "3 mistakes"
    assert "got:   trian\n       fix:   did you mean 'train'?" in error.got
    assert "got:   imag\n       fix:   did you mean 'image'?" in error.got
    assert "where: command line: distill.steps" in error.got


NUMBERS = (
    "sft.optimizer.lr", "sft.optimizer.weight_decay", "sft.optimizer.max_grad_norm", "distill.sampling.temperature",
    "distill.mismatch.limit", "environment.seconds", "distill.objective.teacher_loss.coefficient",
)  # fmt: skip


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "true"])
def test_no_number_is_infinite_or_true(key: str, value: str) -> None:
    assert "number" in refused(f"{key}={value}").what


@pytest.mark.parametrize(
    "override",
    [
        "run.threads=100000", "run.threads=true", "environment.seconds=1e300", "environment.memory_mb=100000000000",
        "tasks.train.size=100000000000", "tasks.x={kind: calls, split: train, size: 100000000000}",
        "tasks.x={kind: gym, name: chain_sum, size: 100000000000}", "student.lora={rank: 100000}",
        "distill.sampling.temperature=1.0e+9", "sft.optimizer.lr=1.0e+300", "sft.steps=true",
        "tasks.x={kind: mixture, sources: {a: image}, weights: {a: true}}", "distill.rollouts=false",
    ],
)  # fmt: skip
def test_sizes_have_bounds(override: str) -> None:
    assert refused(override).fix


def test_a_temperature_that_only_looks_greedy_is_refused() -> None:
    assert "0 for greedy" in refused("eval.sampling.temperature=1.0e-9").fix
    load_recipe(DEMO, ["eval.sampling.temperature=0"])


def test_a_number_that_yaml_reads_as_text_is_a_number() -> None:
    """YAML 1.1 wants a dot before an exponent; a study puts its seed between quotes."""
    recipe = load_recipe(DEMO, ["sft.optimizer.lr=3e-4", "run.seed='7'"])
    assert recipe.sft is not None
    assert (recipe.sft.optimizer.lr, recipe.run.seed) == (3e-4, 7)


@pytest.mark.parametrize(
    "url", ["http://[::1/v1", "localhost:8000/v1", "ftp://host/v1", "http://", "", "http://host:port/v1", "host", "http:///v1"]
)  # fmt: skip
def test_an_address_is_one(url: str) -> None:
    error = refused(f"teacher.server={{urls: ['{url}'], model: m}}")
    assert "no address" in error.what
    assert "http://HOST:PORT/v1" in error.fix


@pytest.mark.parametrize("url", ["http://localhost:8001/v1", "https://api.example.org/v1", "http://[::1]:8000/v1"])
def test_an_address_is_taken(url: str) -> None:
    load_recipe(DEMO, [f"teacher.server={{urls: ['{url}'], model: m}}"])


OUTSIDE = (
    "../out", "../../out", "/abs", "a/b", "a\\b", "..", ".", "", "results.json", "a.JSONL", "settings.json", ".hidden",
    "-x", "a b", "a\nb", "a\x00b", "\x1b[31m", "caf\u00e9", "a" * 101, "x.tmp", "[red]", "~", "$HOME", "C:\\x",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("place", ["tasks", "models", "benchmarks"])
def test_names_that_become_files_stay_in_the_run_directory(name: str, place: str, tmp_path: Path) -> None:
    raw: dict[str, Any] = tiny.recipe_dict(tmp_path)
    if place == "tasks":
        raw["tasks"][name] = dict(raw["tasks"]["train"])
        raw["eval"]["tasks"] = ["image", name]
    else:
        raw["eval"][place] = {name: "demo:student" if place == "models" else {}}
    with pytest.raises(ConfigError) as caught:
        recipe_from(raw, where="test recipe")
    assert "becomes a file" in str(caught.value)
    assert "fix:" in str(caught.value)


@pytest.mark.parametrize("name", ["image", "mmmu_pro.v1-10", "A", "7", "a" * 100])
def test_plain_names_are_taken(name: str) -> None:
    assert file_name(name) == name


def test_a_model_of_a_server_may_have_an_owner() -> None:
    assert [path_name(n) for n in ("Qwen/Qwen3-8B", "llama3:8b")] == ["Qwen/Qwen3-8B", "llama3:8b"]
    for name in ("../x", "a/../b", "/a", "a//b", "a/results.json"):
        error = refused(f"eval.endpoint={{urls: ['http://h/v1'], model: '{name}'}}")
        assert error.where == "command line: eval.endpoint.model"


@pytest.mark.parametrize("places", ["tasks", "eval.models", "eval.benchmarks"])
def test_names_that_differ_in_capitals_alone_are_refused(places: str) -> None:
    one = {
        "tasks": "{kind: digits, split: test, size: 3}",
        "eval.models": "demo:student",
        "eval.benchmarks": "{limit: 2}",
    }
    error = refused(f"{places}.More={one[places]}", f"{places}.moRE={one[places]}")
    assert "capitals" in error.what
    assert error.got == "'More' and 'moRE'"


def test_the_advice_for_a_name_is_itself_a_name() -> None:
    for name in OUTSIDE:
        with pytest.raises(ConfigError) as caught:
            file_name(name)
        file_name(caught.value.fix.split("'")[1])


def test_a_near_word_is_found_whatever_its_capitals() -> None:
    assert close_to("DISTILL", ["sft", "distill"]) == "distill"
    assert close_to("zzz", ["sft", "distill"]) is None


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "what", "got"),
    [
        ("", "mapping of sections", "an empty file"),
        ("- a\n", "mapping of sections", "a list"),
        ("run: {dir: [\n", "not valid YAML", "expected"),
        ("a: b: c\n", "not valid YAML", "mapping values are not allowed here"),
        ("when: 2024-99-99\n", "not valid YAML", "month must be in 1..12"),
        ("a: " + "[" * 3000, "not valid YAML", ""),
        ("a: !!python/object:os.system {}\n", "not valid YAML", "could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_where_and_what_to_do(text: str, what: str, got: str, tmp_path: Path) -> None:
    error = refused(file=write(tmp_path, text))
    assert what in error.what
    assert got in error.got
    assert error.fix


def test_the_place_of_a_slip_in_yaml_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, "run:\n  dir: x\n  seed: 1: 2\n")
    error = refused(file=file)
    assert error.where == str(file)
    assert error.got.startswith("line 3, column 10")


def test_a_recipe_that_is_not_there_is_answered_with_a_near_one(tmp_path: Path) -> None:
    assert refused(file=DEMO.with_name("dmeo.yaml")).fix == f"did you mean {DEMO}?"
    assert refused(file=tmp_path / "nothing.yaml").fix == "give the path of a YAML file"


def test_a_recipe_in_place_of_a_study_is_told_so() -> None:
    with pytest.raises(ConfigError, match="no study"):
        load_study(DEMO)


@pytest.mark.parametrize("name", ["../x", "a/b", "models", "clock.json", ""])
def test_names_of_a_study_become_files_too(name: str, tmp_path: Path) -> None:
    raw = yaml.safe_load((DEMO.parents[1] / "studies" / "miniature" / "study.yaml").read_text())
    raw["arms"][name] = dict(next(iter(raw["arms"].values())))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    with pytest.raises(ConfigError, match=r"own files|becomes a file"):
        load_study(tmp_path / "study.yaml")


def test_a_value_that_yaml_cannot_make_is_the_command_lines() -> None:
    for text in ("2024-99-99", "[" * 3000, "{"):
        assert refused(f"run.seed={text}").where == "command line: run.seed"
