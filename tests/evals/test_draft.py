"""`vold init`: recipes written from models and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import Qwen3Config

import tiny
from vold.cli import main
from vold.data.hf_layouts import BOXED
from vold.data.worlds.call_tokens import build_tokenizer
from vold.data.worlds.digits import DigitTasks
from vold.errors import ConfigError, DataError
from vold.evals.draft import Draft, write_draft
from vold.model.cards import highest
from vold.model.memory import plan
from vold.run.recipe import load_recipe
from vold.run.schema import recipe_schema

TEXTS, SEEN = DigitTasks("train", "text", 40, 1), DigitTasks("test", "image", 2, 1)
SUMS = [{"prompt": TEXTS[i].messages[0].text, "reference": TEXTS[i].reference} for i in range(40)]


def data(home: Path, rows: list[dict[str, Any]] = SUMS, name: str = "train") -> Path:
    file = home / f"{name}.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def drafted(home: Path, *, rows: list[dict[str, Any]] = SUMS, test: Path | None = None, **models: str) -> str:
    named = {"student": "demo:student", "teacher": "demo:teacher"} | models
    write_draft(Draft("mine", data=data(home, rows), test=test, **named), home / "mine.yaml")
    return (home / "mine.yaml").read_text()


def words(home: Path, *more: str) -> list[str]:
    file, out = data(home), home / "mine.yaml"
    return ["init", str(out), "--student", "demo:student", "--teacher", "demo:teacher", "--data", str(file), *more]


def test_what_is_written_goes_through_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = [SEEN[0], SEEN[1]]
    rows = [{"prompt": t.messages[0].text, "reference": t.reference, "images": [f"{t.id}.png"]} for t in seen]
    for task in seen:
        task.messages[0].images[0].save(tmp_path / f"{task.id}.png")
    test = data(tmp_path, rows, "seen")
    assert main(words(tmp_path, "--test", str(test))) == 0
    out = str(tmp_path / "mine.yaml")
    assert f"next: vold check {out}" in capsys.readouterr().out
    few = ["traces.sampling.max_new_tokens=48", "distill.sampling.max_new_tokens=8", "eval.sampling.max_new_tokens=4"]
    few += ["sft.steps=2", "distill.steps=1", "distill.prompts_per_step=2", f"run.dir={tmp_path}/run"]
    assert main(["run", out, *few]) == 0
    assert (tmp_path / "run/report.html").exists()
    assert len((tmp_path / "run/eval/vold/test.jsonl").read_text().splitlines()) == 2


def test_it_is_commented_and_names_the_schema_beside_it(tmp_path: Path) -> None:
    first, *rest = drafted(tmp_path).splitlines()
    assert first == "# yaml-language-server: $schema=recipe.schema.json"
    assert json.loads((tmp_path / "recipe.schema.json").read_text()) == recipe_schema()
    assert any("  # the longest prompt seen has " in line for line in rest)
    recipe = load_recipe(tmp_path / "mine.yaml")
    # 256 tokens of context; the demo's tokenizer reads a digit, a sign and a blank each as one token.
    longest = recipe.distill.sampling.max_new_tokens if recipe.distill else 0
    assert 200 < longest < 256
    assert recipe.stages == ["traces", "sft", "align", "distill"]


def test_nothing_that_is_there_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("run: {dir: precious}\n")
    assert main(words(tmp_path)) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "run: {dir: precious}\n"


@pytest.mark.parametrize(
    ("references", "grader"),
    [
        (["A", "C", "B"], "choice"),
        (["3", "1/2", r"\sqrt{2}"], "math"),
        (["yes", "no", "yes"], "exact"),
        (["Paris", "A", "blue"], "exact"),
    ],
)
def test_the_grader_is_chosen_by_the_references(tmp_path: Path, references: list[str], grader: str) -> None:
    rows = [{"prompt": "1 = ?", "reference": r} for r in references]
    made = yaml.safe_load(drafted(tmp_path, rows=rows))
    assert made["tasks"]["train"]["grader"] == grader


def test_prompts_that_ask_for_no_box_are_given_a_request_for_one(tmp_path: Path) -> None:
    """By tokenizers that have its words: the demo world's reads them as unknown."""
    rows = [{"question": "1 + 2 ?", "answer": 3}]
    assert "instruction" not in yaml.safe_load(drafted(tmp_path, rows=rows))["tasks"]["train"]
    draft = Draft("mine", "demo:student", "demo:teacher", data(tmp_path, rows))
    draft.chats[0].tokenizer.unk_token = None
    assert draft.sets["train"].instruction == BOXED
    assert draft.sets["train"][0].messages[0].text == f"1 + 2 ?\n\n{BOXED}"
    asked = Draft("mine", "demo:student", "demo:teacher", data(tmp_path, [{**rows[0], "question": "1 ? \\boxed{}"}]))
    asked.chats[0].tokenizer.unk_token = None
    assert asked.sets["train"].instruction is None


def test_there_is_room_behind_the_longest_prompt_of_the_test_too(tmp_path: Path) -> None:
    long = [{"prompt": "1 " * 100, "reference": "1"}]
    with_test = yaml.safe_load(drafted(tmp_path, rows=SUMS[:1], test=data(tmp_path, long, "test")))
    assert with_test["eval"]["sampling"]["max_new_tokens"] < 256 - 100


def test_rows_that_all_have_a_solution_are_what_the_cold_start_learns(tmp_path: Path) -> None:
    solved = [{**row, "response": f"It is {row['reference']}."} for row in SUMS]
    homes = [tmp_path / name for name in ("all", "but-one")]
    for home in homes:
        home.mkdir()
    found = [drafted(home, rows=rows) for home, rows in zip(homes, (solved, [SUMS[0], *solved[1:]]), strict=True)]
    assert [yaml.safe_load(text)["traces"].get("answers") for text in found] == ["data", None]


def test_a_row_that_cannot_be_used_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reference") as caught:
        drafted(tmp_path, rows=[*SUMS[:2], {"prompt": "x"}])
    assert "train.jsonl: line 3" in str(caught.value)
    assert not (tmp_path / "mine.yaml").exists()


def test_prompts_that_fill_the_context_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave no token"):
        drafted(tmp_path, rows=[{"prompt": "1 " * 400, "reference": "1"}])


def test_a_teacher_of_other_ids_is_aligned(tmp_path: Path) -> None:
    tiny.recipe(tmp_path)
    file = tmp_path / "teacher" / "tokenizer.json"
    raw = json.loads(file.read_text())
    ids = raw["model"]["vocab"]
    ids["yes"], ids["no"] = ids["no"], ids["yes"]
    file.write_text(json.dumps(raw))
    made = drafted(tmp_path, student=str(tmp_path / "student"), teacher=str(tmp_path / "teacher"))
    assert "  tokenizer: align  # 2 tokens of the student's have other ids there\n" in made
    assert "teacher_tokens" not in made


def test_a_teacher_that_knows_more_gives_its_tokens_as_far_as_there_are_rows(tmp_path: Path) -> None:
    """The tiny student has three rows without a token."""
    tiny.recipe(tmp_path)
    policy = tiny.teacher()
    for count in (1, 4):
        policy.chat.tokenizer.add_tokens([f"<plan{i}>" for i in range(count)])
        policy.model.resize_token_embeddings(len(policy.chat.tokenizer), mean_resizing=False)
        policy.save(tmp_path / f"teacher-{count}")
        (tmp_path / "mine.yaml").unlink(missing_ok=True)
        made = drafted(tmp_path, student=str(tmp_path / "student"), teacher=str(tmp_path / f"teacher-{count}"))
        first = len(policy.chat.tokenizer) - count
        assert (f"  teacher_tokens: add  # '<plan0>' is id {first} of the teacher's and " in made) is (count == 1)
        assert ("  tokenizer: align  # the teacher has 4 further tokens" in made) is (count == 4)


def test_a_small_card_gets_keys_that_make_it_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four layers of models as wide as the paper's, on a device that holds neither of them whole beside the other."""
    tokenizer = build_tokenizer()
    wide: dict[str, Any] = {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 4,
        "num_attention_heads": 16,
    }
    config = Qwen3Config(vocab_size=len(tokenizer), num_key_value_heads=2, **wide)
    for name in ("student", "teacher"):
        tokenizer.save_pretrained(tmp_path / name)
        config.save_pretrained(tmp_path / name)
    monkeypatch.setattr("vold.evals.draft.device_memory", lambda device: 8 * 2**30)
    made = drafted(tmp_path, student=str(tmp_path / "student"), teacher=str(tmp_path / "teacher"))
    assert made.count("# so that it fits the 8.0 GiB of this machine's device") >= 2
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert highest(plan(recipe, config, config)).total <= 8 * 2**30
