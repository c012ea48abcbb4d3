"""Student and teacher compared, with the published Qwen3 tokenizer where it could be fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config

import published
import tiny
from vold.cli import main
from vold.data.worlds.call_tokens import build_tokenizer
from vold.errors import ConfigError, DataError, VocabularyMismatch
from vold.evals.evaluate import evaluate
from vold.evals.preflight import check
from vold.model.loading import load_student
from vold.model.policy import Policy
from vold.model.tokenizers import add_teacher_tokens, check_shared_ids, pair_tokenizers, pairing_lines
from vold.run.files import read_jsonl, write_rows
from vold.run.recipe import dump_recipe
from vold.training.sft import sft


@pytest.fixture(scope="module")
def qwen3() -> Any:
    return published.tokenizer("qwen3")


@pytest.fixture(scope="module")
def like_qwen2_5_vl(qwen3: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return published.like_qwen2_5_vl(qwen3, tmp_path_factory.mktemp("tokenizer"))


def config(rows: int) -> Qwen3Config:
    return Qwen3Config(vocab_size=rows)


def test_the_papers_pair_differs_in_four_tokens_and_in_nothing_else(like_qwen2_5_vl: Any, qwen3: Any) -> None:
    found = pair_tokenizers(like_qwen2_5_vl, qwen3, config(151936), config(151936))
    assert found.shared == 151665
    assert found.different == ()
    assert [(t, i) for t, i, _ in found.extra] == [
        ("<tool_response>", 151665),
        ("</tool_response>", 151666),
        ("<think>", 151667),
        ("</think>", 151668),
    ]
    assert all(pieces > 1 for _, _, pieces in found.extra)
    assert found.same_template
    said = dict(pairing_lines(found, 151665, 151669, added=False))
    assert said["embedding rows"] == "student 151,936 (271 without a token), teacher 151,936 (267 without a token)"
    assert "'<think>' is id 151667 there and 3 tokens here" in said["only the teacher has"]


def test_the_7b_students_padding_is_told_apart_from_tokens(like_qwen2_5_vl: Any, qwen3: Any) -> None:
    found = pair_tokenizers(like_qwen2_5_vl, qwen3, config(152064), config(151936))
    assert (
        "student 152,064 (399 without a token)"
        in dict(pairing_lines(found, 151665, 151669, added=False))["embedding rows"]
    )


def test_adding_the_teachers_tokens_gives_one_id_where_there_were_pieces(qwen3: Any, tmp_path: Path) -> None:
    student = published.like_qwen2_5_vl(qwen3, tmp_path)
    text = "<think>\n2 + 3 = 5\n</think>\n\n\\boxed{5}"
    assert student(text)["input_ids"] != qwen3(text)["input_ids"]
    added = add_teacher_tokens(student, qwen3, rows=151936)
    assert added == ["<tool_response>", "</tool_response>", "<think>", "</think>"]
    assert student(text)["input_ids"] == qwen3(text)["input_ids"]
    assert student.decode(qwen3(text)["input_ids"]) == text
    assert check_shared_ids(student, qwen3) == 151669
    assert add_teacher_tokens(student, qwen3, rows=151936) == []


def test_tokens_without_rows_or_out_of_order_are_not_added() -> None:
    student, teacher = build_tokenizer(), build_tokenizer()
    teacher.add_tokens(["<a>", "<b>"])
    with pytest.raises(VocabularyMismatch, match="no embedding rows") as caught:
        add_teacher_tokens(student, teacher, rows=len(student) + 1)
    assert "'<b>'" in str(caught.value)
    student.add_tokens(["<b>"])
    with pytest.raises(VocabularyMismatch, match="do not follow") as caught:
        add_teacher_tokens(student, teacher, rows=200)
    assert "'<a>'" in str(caught.value)


def home_with_a_teacher_that_knows_more(home: Path) -> Any:
    """A recipe whose teacher writes `<plan>`, a token that the student's tokenizer does not name."""
    made = tiny.recipe(home)
    policy = tiny.teacher()
    policy.chat.tokenizer.add_tokens(["<plan>"])
    policy.model.resize_token_embeddings(len(policy.chat.tokenizer), mean_resizing=False)
    policy.save(home / "teacher")
    tiny.write_traces(home, made)
    file = home / "run" / "traces" / "traces.jsonl"
    rows = read_jsonl(file)
    rows[0]["response_ids"].insert(0, len(policy.chat.tokenizer) - 1)
    rows[0]["action_mask"].insert(0, 1)
    write_rows(file, rows)
    return made


def test_traces_with_a_token_of_the_teacher_alone_stop_the_cold_start_or_are_learnt(tmp_path: Path) -> None:
    made = home_with_a_teacher_that_knows_more(tmp_path)
    with pytest.raises(DataError, match="never emit") as caught:
        sft(made)
    assert "student.teacher_tokens=add" in str(caught.value)
    adding = tiny.recipe(tmp_path, student={"teacher_tokens": "add"})
    before = tiny.student()
    new = len(before.chat.tokenizer)
    assert new in before.banned.tolist()
    assert new not in load_student(adding).banned.tolist()
    tuned = Policy.load(str(sft(adding)))
    assert tuned.chat.tokenizer.convert_tokens_to_ids("<plan>") == new
    assert new not in tuned.banned.tolist()
    rows = [p.model.get_input_embeddings().weight for p in (before, tuned)]
    assert not bool((rows[0][new] == rows[1][new]).all())


def test_evaluation_takes_models_as_they_are(tmp_path: Path) -> None:
    """The untrained student repeats the prompt's last token, and would rather say `<plan>` if it had that token."""
    home_with_a_teacher_that_knows_more(tmp_path)
    student = tiny.student()
    new = len(student.chat.tokenizer)
    embeddings = student.model.get_input_embeddings().weight
    with torch.no_grad():
        embeddings[new] = 2 * embeddings[student.chat.tokenizer.convert_tokens_to_ids("<|assistant|>")]
    student.save(tmp_path / "student")
    adding = tiny.recipe(
        tmp_path, student={"teacher_tokens": "add"}, eval={"models": {"base": str(tmp_path / "student")}}
    )
    evaluate(adding)
    answers = [r for f in (tmp_path / "run" / "eval").rglob("text.jsonl") for r in read_jsonl(f)]
    assert len(answers) == 10
    assert not any("<plan>" in r["response"] for r in answers)


def test_check_lays_the_pair_side_by_side(tmp_path: Path) -> None:
    home_with_a_teacher_that_knows_more(tmp_path)
    said = "\n".join(check(tiny.recipe(tmp_path)))
    names = len(build_tokenizer())
    assert f"same ids: {names} of the student's {names} tokens; the teacher has {names + 1}" in said
    assert f"embedding rows: student {names + 3} (3 without a token), teacher {names + 1} (0 without a token)" in said
    extra = f"only the teacher has: 1 tokens: '<plan>' is id {names} there and 1 tokens here"
    assert f"{extra}; a trace with one stops the cold start unless student.teacher_tokens=add" in said
    adding = "\n".join(check(tiny.recipe(tmp_path, student={"teacher_tokens": "add"})))
    assert f"{extra}; added to the student under these ids" in adding
    assert "chat templates write a conversation with: the same ids" in said
    # Both score the first prompt's tokens after its first one; worked out by a plain forward pass.
    (task, *_) = tiny.opened(tiny.TASKS["train"])
    means = []
    for policy in (tiny.student(), Policy.load(str(tmp_path / "teacher"))):
        ids = torch.tensor([policy.chat.prompt(task.messages).ids])
        logits = policy.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
        logits[..., policy.banned] = -torch.inf
        logp = logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])
        means.append(f"{logp.mean():.2f}")
    assert f"one prompt scored by all: student {means[0]}, teacher {means[1]} nats per token" in said


def test_check_exits_2_and_names_the_tokens_of_a_teacher_with_other_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(tiny.recipe(tmp_path)))
    file = tmp_path / "teacher" / "tokenizer.json"
    raw = json.loads(file.read_text())
    ids = raw["model"]["vocab"]
    yes, no = ids["yes"], ids["no"]
    ids["yes"], ids["no"] = no, yes
    file.write_text(json.dumps(raw))
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"'yes' is {yes} here and {no} there, 'no' is {no} here and {yes} there" in said
    assert "teacher.tokenizer=align" in said


def test_adapters_and_new_rows_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora"):
        tiny.recipe(tmp_path, student={"teacher_tokens": "add", "lora": {"rank": 2}})


def test_a_pair_with_other_ids_is_named_and_the_way_to_pair_it(qwen3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    other = published.tokenizer("deepseek")
    with pytest.raises(VocabularyMismatch, match="other ids") as caught:
        check_shared_ids(qwen3, other)
    assert "tokenizer=align" in str(caught.value)
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    monkeypatch.setattr(other, "chat_template", template)
    found = pair_tokenizers(qwen3, other, config(151936), config(128896))
    assert dict(pairing_lines(found, 151669, 128000, added=False))["other ids"].startswith(
        f"{len(found.different):,} tokens: "
    )
    assert found.shared + len(found.different) == 151669
    assert not found.same_template
