"""Data sets of the hub as its cache holds them: one commit, several configs and splits, perhaps not complete."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import constants

import tiny
import training_sets
from layouts import parquet
from vold.data.benchmarks.registry import load
from vold.data.files.hub import chosen, missing_shards
from vold.data.files.read import read_rows
from vold.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from vold.data.sources import Tasks

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def snapshot(home: Path, repo: str) -> Path:
    folder = home / "hub" / f"datasets--{repo.replace('/', '--')}" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


def asked(name: str) -> dict[str, Any]:
    return {"messages": training_sets.turns(name, training_sets.R1), "num_tokens": 9, "source": "s"}


def shards(folder: Path, questions: list[str], *, of: int | None = None) -> None:
    count = of or len(questions)
    for k, question in enumerate(questions):
        parquet(folder / f"train-{k:05d}-of-{count:05d}.parquet", [asked(question)])


def opened(**keys: Any) -> Tasks:
    return tiny.opened({"kind": "mixture_of_thoughts"} | keys, references=False)


def questions(tasks: Tasks) -> list[str]:
    return [t.messages[0].text for t in tasks]


def test_a_commit_that_lies_here_is_read_offline_and_one_config_at_a_time(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "open-r1/Mixture-of-Thoughts")
    for config in ("all", "math", "code"):
        shards(folder / config, [f"First of {config}?", f"Second of {config}?"])
    for config in ("math", "code"):
        tasks = opened(config=config, revision=COMMIT)
        assert questions(tasks) == [f"First of {config}?", f"Second of {config}?"]
        (card,) = tasks.cards.values()
        assert (card.source, card.revision) == ("hub:open-r1/Mixture-of-Thoughts", COMMIT)
    assert questions(opened(revision=COMMIT)) == ["First of all?", "Second of all?"]


def test_a_copy_of_a_repository_is_read_one_config_at_a_time(tmp_path: Path) -> None:
    for config in ("all", "math"):
        shards(tmp_path / "copy" / config, [f"Of {config}?"])
    assert questions(opened(path=str(tmp_path / "copy"), config="math")) == ["Of math?"]
    assert questions(opened(path=str(tmp_path / "copy"))) == ["Of all?"]
    assert questions(opened(path=str(tmp_path / "copy" / "math"), config="math")) == ["Of math?"]


def test_half_a_download_is_not_taken_for_the_set(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "open-r1/Mixture-of-Thoughts")
    shards(folder / "math", ["One?", "Two?"], of=3)
    with pytest.raises(DataError, match="hub dataset open-r1/Mixture-of-Thoughts"):
        opened(config="math", revision=COMMIT)


def test_test_is_not_testmini(tmp_path: Path) -> None:
    for split in ("test", "testmini"):
        parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", [{"question": f"of {split}"}])
    for split in ("test", "testmini"):
        rows = read_rows(tmp_path, split=split, layouts=[(f"data/{split}-*.parquet",)])
        assert [r.values["question"] for r in rows] == [f"of {split}"]


@pytest.mark.parametrize(
    ("split", "names", "read"),
    [
        ("testmini", ["testmini.json", "testmini_text_only.json"], ["testmini.json"]),
        ("test", ["my-test.json", "my-testmini.json"], ["my-test.json"]),
        ("test", ["mytest.json", "train.json"], ["mytest.json"]),
        (
            "sample_variant",
            ["sample_variant1.json", "sample_variant2.json"],
            ["sample_variant1.json", "sample_variant2.json"],
        ),
        ("test", ["rows.json"], ["rows.json"]),
    ],
)
def test_without_published_names_the_splits_own_files_are_read(
    tmp_path: Path, split: str, names: list[str], read: list[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in names:
            content = json.dumps([{"name": name}])
            (tmp_path / "all").mkdir(exist_ok=True)
            (tmp_path / "all" / name).write_text(content)
            archive.writestr(f"all/{name}", content)
    for copy in (tmp_path / "all", tmp_path / "all.zip"):
        assert [r.values["name"] for r in read_rows(copy, split=split)] == read


def test_a_layout_is_taken_whole_or_not_at_all() -> None:
    layouts = [("*.parquet", "images.zip"), ("rows.json",)]
    assert chosen(["a.parquet", "b.parquet", "images.zip", "rows.json"], layouts) == [
        "a.parquet",
        "b.parquet",
        "images.zip",
    ]
    assert chosen(["a.parquet", "rows.json"], layouts) == ["rows.json"]
    assert chosen(["a.parquet"], layouts) == []


def test_what_is_missing_has_a_name() -> None:
    two_of_four = ["data/train-00000-of-00004-0a1b.parquet", "data/train-00002-of-00004-2c3d.parquet"]
    assert missing_shards(two_of_four) == ["data/train-00001-of-00004.parquet", "data/train-00003-of-00004.parquet"]
    assert missing_shards(["data/train-00000-of-00001.parquet", "rows.json"]) == []


def test_a_benchmark_of_the_hub_is_read_in_its_own_split(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "openai/gsm8k")
    for split, answer in (("test", "5"), ("train", "7")):
        rows = [{"question": f"Of {split}?", "answer": f"Well.\n#### {answer}"}]
        parquet(folder / "main" / f"{split}-00000-of-00001.parquet", rows)
        parquet(folder / "socratic" / f"{split}-00000-of-00001.parquet", rows)
    loaded = load("gsm8k", revision=COMMIT)
    assert [item.answer for item in loaded.items] == ["5"]
    assert (loaded.source, loaded.revision) == ("hub:openai/gsm8k", COMMIT)
