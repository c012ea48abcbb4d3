"""Published training sets: layouts, dirty rows, filters, decontamination, memory, and what a run records of them."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

import layouts
import tiny
import training_sets
from vold.data.decontamination import Contamination
from vold.data.files import read
from vold.data.files.read import read_rows
from vold.data.hf_datasets import PublishedSet, prepare
from vold.data.hf_layouts import BOXED
from vold.data.sources.mixture import shares
from vold.errors import CheckpointError, DataError
from vold.run.summaries import DataCard
from vold.run.task_sections import AnyTaskSpec, task_kinds, task_source

if TYPE_CHECKING:
    from pathlib import Path

    from vold.data.sources import Tasks


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def spec(**keys: Any) -> Any:
    return TypeAdapter(AnyTaskSpec).validate_python(keys)


def opened(*, references: bool = True, others: dict[str, dict[str, Any]] | None = None, **keys: Any) -> Tasks:
    return tiny.opened(keys, references=references, others=others)


def card(tasks: Tasks) -> DataCard:
    (found,) = tasks.cards.values()
    return found


def prompts(tasks: Tasks) -> list[str]:
    return [t.messages[0].text for t in tasks]


PUBLISHED = [kind for kind in task_kinds() if issubclass(task_source(kind), PublishedSet)]


@pytest.mark.parametrize("kind", PUBLISHED)
def test_every_published_set_says_where_it_lies(kind: str) -> None:
    found = spec(kind=kind)
    assert len(found.repo.split("/")) == 2
    assert all(name.endswith((".parquet", ".json", ".zip")) for layout in found.files() for name in layout)


def test_mixture_of_thoughts_gives_prompts_and_solutions(tmp_path: Path) -> None:
    tasks = opened(kind="mixture_of_thoughts", path=training_sets.mixture_of_thoughts(tmp_path), references=False)
    assert prompts(tasks) == ["What is 2 + 2?", "Name a prime."]
    assert [t.response for t in tasks] == [training_sets.R1, "<think>\n</think>\n\n7"]
    assert tasks[0].tags == {"source": "open-r1/OpenR1-Math-220k"}
    assert card(tasks).dropped == {"unusable row": 3}
    with pytest.raises(DataError, match="no reference answers"):
        opened(kind="mixture_of_thoughts", path=tmp_path / "math")


def test_orz_pairs_are_read_and_their_golds_cleaned(tmp_path: Path) -> None:
    tasks = opened(kind="orz57k", path=training_sets.orz57k(tmp_path))
    assert [t.reference for t in tasks] == ["8", r"\frac{1}{2}", "5", "13"]
    assert prompts(tasks)[0] == f"What is 3 + 5?\n\n{BOXED}"
    assert tasks[0].teacher_messages == tasks[0].messages
    assert {t.grader for t in tasks} == {"math"}
    assert card(tasks).rows_read == 9
    assert card(tasks).dropped == {"duplicate": 1, "ungradable answer": 1, "unusable row": 3}


def test_what_was_left_out_is_listed_with_place_and_reason(tmp_path: Path) -> None:
    store = prepare(spec(kind="orz57k", path=training_sets.orz57k(tmp_path)))
    rows = [json.loads(line) for line in (store.directory / "dropped.jsonl").read_text().splitlines()]
    assert [(r["where"].split(": ")[-1], r["reason"]) for r in rows] == [
        ("row 5", "duplicate"),
        ("row 6", "unusable row"),
        ("row 7", "unusable row"),
        ("row 8", "unusable row"),
        ("row 9", "ungradable answer"),
    ]


def test_rows_that_changed_in_the_store_are_refused(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"kind": "orz57k", "path": training_sets.orz57k(tmp_path)}
    store = prepare(spec(**keys))
    whole = store.rows.read_text()
    store.rows.write_text(whole.replace("What is 3 + 5?", "What is 3 + 6?"))
    with pytest.raises(CheckpointError, match=rf"another hash\n.*delete {store.directory}"):
        opened(**keys)
    shutil.rmtree(store.directory)
    assert len(opened(**keys)) == len(whole.splitlines())


def test_deepmath_by_difficulty(tmp_path: Path) -> None:
    file = training_sets.deepmath(tmp_path)
    assert [t.reference for t in opened(kind="deepmath", path=file)] == ["4", "6", "8"]
    hard = opened(kind="deepmath", path=file, min_difficulty=6)
    assert [t.reference for t in hard] == ["6", "8"]
    assert hard[0].response == "Solution 6, first."
    assert hard[0].tags == {"difficulty": "6.0", "topic": "Mathematics -> Calculus"}
    assert card(hard).dropped == {"below min_difficulty": 1}


@pytest.mark.parametrize("make", [training_sets.openthoughts, training_sets.openthoughts_metadata])
def test_both_forms_of_openthoughts_give_one_trace(tmp_path: Path, make: Any) -> None:
    tasks = opened(kind="openthoughts", path=make(tmp_path), references=False)
    assert prompts(tasks)[0] == "2 + 2?"
    assert tasks[0].response == "<think>\nHm.\n</think>\n\n4."
    assert [m.role for m in tasks[0].messages] == ["user"]
    assert [t.response for t in tasks[1:]] == ([] if make is training_sets.openthoughts else [None])


def test_openthoughts3(tmp_path: Path) -> None:
    (task,) = opened(kind="openthoughts3", path=training_sets.openthoughts3(tmp_path), references=False)
    assert (task.messages[0].text, task.response) == ("2 + 2?", training_sets.R1)


def test_geometry3k_pictures_and_choices(tmp_path: Path) -> None:
    tasks = opened(kind="geometry3k", path=training_sets.geometry3k(tmp_path))
    assert [(t.reference, t.grader) for t in tasks] == [("3", "math"), ("65", "math"), ("B", "choice")]
    assert prompts(tasks)[0] == f"<image>Find $x$.\n\n{BOXED}"
    assert [len(t.messages[0].images) for t in tasks] == [1, 1, 1]
    assert tasks[0].messages[0].images[0].size == (60, 40)
    assert tasks[0].teacher_messages is None
    assert card(tasks).dropped == {"unusable row": 2}


def test_mmk12_letters_count_as_choices_only_where_there_are_options(tmp_path: Path) -> None:
    tasks = opened(kind="mmk12", path=training_sets.mmk12(tmp_path))
    assert [(t.reference, t.grader) for t in tasks] == [("B", "choice"), ("12", "math"), ("A", "math")]
    assert len({t.id for t in tasks}) == 3
    assert tasks[0].id == "m1"


def test_virl39k_pictures_come_out_of_the_zip_beside_the_table(tmp_path: Path) -> None:
    tasks = opened(kind="virl39k", path=training_sets.virl39k(tmp_path))
    assert [t.id for t in tasks] == ["q1", "q2"]
    assert [(t.reference, t.grader, len(t.messages[0].images)) for t in tasks] == [
        ("B", "choice", 2),
        ("12", "math", 1),
    ]
    assert card(tasks).dropped == {"unusable row": 1}


def test_containers_give_the_same_content_hash(tmp_path: Path) -> None:
    file = training_sets.deepmath(tmp_path)
    rows = [row.values for row in read_rows(file)]
    lines, array = tmp_path / "rows.jsonl", tmp_path / "rows.json"
    lines.write_text("".join(json.dumps(r) + "\n" for r in rows))
    array.write_text(json.dumps(rows))
    hashes = {card(opened(kind="deepmath", path=p)).content_hash for p in (file, file.parent, lines, array)}
    assert len(hashes) == 1
    rows[0]["final_answer"] = "5"
    lines.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert card(opened(kind="deepmath", path=lines)).content_hash not in hashes


def test_the_wrong_file_is_named_at_its_first_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'question'"):
        opened(kind="deepmath", path=training_sets.mixture_of_thoughts(tmp_path))
    assert list((tmp_path / "cache" / "vold" / "tasks").iterdir()) == []


@pytest.mark.parametrize("text", ["[]", '[[{"from": "human", "value": "q"}]]'])
def test_a_set_without_a_usable_row_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match="not a single row"):
        opened(kind="orz57k", path=tmp_path / "x.json")


@pytest.mark.parametrize("text", ["[1", "[{}", '[{"a": 1} {"a": 2}]', '[{"a": 1},]', "[{}] x", "[3]", "7", "[[1], 2"])
def test_a_damaged_array_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError):
        list(read_rows(tmp_path / "x.json"))


def test_an_array_longer_than_a_piece_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"n": n, "text": '[{,\\"' * (n % 7)} for n in range(50)]
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=2))
    for size in (1, 2, 13, 100, 10**6):
        monkeypatch.setattr(read, "CHUNK", size)
        assert [r.values for r in read_rows(tmp_path / "x.json")] == rows


def test_prompts_over_the_limit_are_left_out(tmp_path: Path) -> None:
    """The demo tokenizer reads digits and blanks-separated words: the lengths are counted with it here."""
    from vold.data.worlds.call_tokens import build_tokenizer

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    rows = [training_sets.orz("digits " + "3 " * n, str(n)) for n in (2, 5, 9)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    lengths = [len(tokenizer("digits " + " ".join("3" * n)).input_ids) for n in (2, 5, 9)]
    assert lengths[1] < lengths[2]
    tasks = opened(
        kind="orz57k",
        path=tmp_path / "x.json",
        instruction="",
        max_prompt_tokens=lengths[1],
        tokenizer=str(tmp_path / "tokenizer"),
    )
    assert [t.reference for t in tasks] == ["2", "5"]
    assert card(tasks).dropped == {"prompt too long": 1}


# -- decontamination --------------------------------------------------------------------------------------------------


def index(ngram: int = 5) -> Contamination:
    made = Contamination(ngram)
    made.add("bench", "short", ["What is 3 + 5?"])
    made.add("bench", "long", ["A farmer has seven red hens and sells two of them on Monday."])
    return made


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("what is $3 + 5$ ?", "short"),  # the same words
        ("What is 3 + 6?", None),
        ("Yesterday a farmer has seven red hens, no more.", "long"),  # "a farmer has seven red": five words
        ("A farmer has seven blue hens and buys two of these on Sunday.", None),  # runs of four at most
        ("\uff21 FARMER has \uff17 red hens and sells two", "long"),  # "red hens and sells two"; full-width folded
        ("", None),
    ],
)
def test_runs_of_words_and_whole_texts_are_found(text: str, item: str | None) -> None:
    match = index().find(text)
    assert (match.item if match else None) == item


def test_a_few_words_do_not_identify_a_problem_with_a_picture() -> None:
    made = index()
    assert made.find("What is 3 + 5?", [b"digest"]) is None
    assert made.find("a farmer has seven red hens", [b"digest"]) is not None


def test_what_an_evaluation_set_asks_is_left_out_by_words_and_by_picture(tmp_path: Path) -> None:
    bench = layouts.parquet(
        tmp_path / "eval.parquet",
        [{"problem": "What is 3 + 5?", "answer": "8", "subject": "s", "level": 1, "unique_id": "u1", "solution": ""}],
    )
    against = {"against": {"math500": {"path": bench}}}
    tasks = opened(kind="orz57k", path=training_sets.orz57k(tmp_path), decontaminate=against)
    assert [t.reference for t in tasks] == [r"\frac{1}{2}", "5", "13"]
    assert (card(tasks).dropped or {})["contaminated"] == 1
    vision = layouts.parquet(
        tmp_path / "vision.parquet",
        [
            {
                "id": "9",
                "question": "<image1> An other question",
                "options": [],
                "image": "images/9.jpg",
                "decoded_image": training_sets.struct("a"),
                "answer": "3",
                "solution": "",
                "level": 1,
                "subject": "s",
            }
        ],
    )
    geometry = training_sets.geometry3k(tmp_path / "geo")
    left = opened(kind="geometry3k", path=geometry, decontaminate={"against": {"mathvision": {"path": vision}}})
    assert [t.reference for t in left] == ["65", "B"]


# -- memory and the store ---------------------------------------------------------------------------------------------


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    """A file of 24 MB, as an array and as lines: preparing it and reading it at random takes under a third of it."""
    pad = "x" * 8000
    rows = [training_sets.orz(f"{n} {pad}", str(n)) for n in range(3000)]
    array, lines = tmp_path / "orz.json", tmp_path / "rows.jsonl"
    array.write_text(json.dumps(rows))
    lines.write_text("".join(json.dumps({"prompt": f"{n} {pad}", "reference": str(n)}) + "\n" for n in range(3000)))
    del rows
    plain = {"kind": "jsonl", "path": lines, "grader": "exact"}
    sets: list[dict[str, Any]] = [{"kind": "orz57k", "path": array}, plain]
    for keys in sets:
        tracemalloc.start()
        try:
            tasks = opened(**keys)
            assert [tasks[i].reference for i in (2999, 0, 1500)] == ["2999", "0", "1500"]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(tasks) == 3000
        assert peak < array.stat().st_size / 3


def test_a_store_is_made_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    file = training_sets.orz57k(tmp_path)
    first = prepare(spec(kind="orz57k", path=file))
    stamp = (first.directory / "card.json").stat().st_mtime_ns
    again = prepare(spec(kind="orz57k", path=file))
    assert (again.directory, (again.directory / "card.json").stat().st_mtime_ns) == (first.directory, stamp)
    file.write_text(json.dumps([training_sets.orz("New?", "1")]))
    assert prepare(spec(kind="orz57k", path=file)).card.rows_kept == 1


def test_the_hub_is_asked_and_its_absence_reported() -> None:
    with pytest.raises(DataError, match="hub dataset zwhe99/DeepMath-103K"):
        opened(kind="deepmath")


# -- several sets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "size", "counts"),
    [
        ({"a": 1, "b": 1}, None, {"a": 4, "b": 4}),
        ({"a": 1, "b": 2}, None, {"a": 2, "b": 4}),
        ({"a": 2, "b": 1}, 10, {"a": 7, "b": 3}),
    ],
)
def test_shares_follow_the_weights(weights: dict[str, float], size: int | None, counts: dict[str, int]) -> None:
    assert shares({"a": 10, "b": 4}, weights, size) == counts


def test_a_mixture_takes_its_shares_and_repeats_what_is_short(tmp_path: Path) -> None:
    orz, deep = training_sets.orz57k(tmp_path), training_sets.deepmath(tmp_path)
    others = {"orz57k": {"kind": "orz57k", "path": orz}, "deepmath": {"kind": "deepmath", "path": deep}}
    sources = {"orz": "orz57k", "deep": "deepmath"}
    everything = opened(kind="mixture", sources=sources, others=others)
    assert [t.tags["set"] for t in everything] == ["orz"] * 4 + ["deep"] * 3
    assert set(everything.cards) == {"orz", "deep"}
    mixed = opened(kind="mixture", sources=sources, weights={"orz": 2, "deep": 7}, size=9, others=others)
    assert [t.tags["set"] for t in mixed].count("deep") == 7
    deep_references = sorted(t.reference for t in mixed if t.tags["set"] == "deep")
    assert [deep_references.count(r) for r in ("4", "6", "8")] in ([3, 2, 2], [2, 3, 2], [2, 2, 3])
    assert len({t.id for t in mixed}) == 9
    again = opened(kind="mixture", sources=sources, weights={"orz": 2, "deep": 7}, size=9, others=others)
    assert [t.id for t in mixed] == [t.id for t in again]
