"""Prediction files of VLMEvalKit and tasks of lmms-eval: what goes out comes back, however hostile the text."""

from __future__ import annotations

import base64
import csv
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from openpyxl import Workbook, load_workbook  # type: ignore[import-untyped, unused-ignore]
from PIL import Image

import layouts
from chat_server import ChatServer, completion
from vold.data.benchmarks.item import Item
from vold.errors import DataError
from vold.evals.bridges.cli import main
from vold.evals.bridges.lmms import TEMPLATES, read_lmms_samples, write_lmms_task
from vold.evals.bridges.vlmevalkit import Prediction, mark, read_vlmevalkit, write_vlmevalkit
from vold.evals.metrics import summarise
from vold.evals.prompting import build_messages
from vold.types import SamplingParams

HOSTILE = {
    "formula": "=cmd|' /C calc'!A0",
    "sum": "=1+1",
    "link": "https://example.org/" + "a" * 3000 + " so \\boxed{B}",
    "tabs": "a\tb\tc\n\nd\n",
    "quotes": 'he said "\\boxed{B}" and ""left""',
    "blanks": "   \\boxed{B}   ",
    "number": "0012",
    "date": "1/2",
    "truth": "TRUE",
    "missing": "NA",
    "error": "#DIV/0!",
    "plus": "+1",
    "at": "@SUM(1)",
    "escape": "_x000D_ \\n \\t",
    "emoji": "\U0001f600 \u202eabc\u202c 答案",
    "comma": "a,b;c",
    "empty": "",
    "html": "<script>alert(1)</script>&amp;",
    "long": "x" * 30_000 + "\\boxed{B}",
}


def item(name: str, answer: str = "B", **more: Any) -> Item:
    known: dict[str, Any] = {"question": f"Question {name}?", "options": ("one", "two", "three"), "images": ()}
    known |= {"form": "choice", "cluster": name, "tags": {"level": "1"}} | more
    return Item(benchmark="mathvision", id=name, answer=answer, **known)


ITEMS = [item(name) for name in HOSTILE]
ROWS = [{"id": name, "sample": 0, "response": text} for name, text in HOSTILE.items()]


@pytest.mark.parametrize("suffix", [".tsv", ".json", ".xlsx"])
def test_every_text_comes_back_as_it_was(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"out/model_MathVision{suffix}"
    assert write_vlmevalkit(ROWS, ITEMS, file) == len(HOSTILE)
    assert read_vlmevalkit(file, ITEMS) == [Prediction(name, text) for name, text in HOSTILE.items()]


@pytest.mark.parametrize("suffix", [".tsv", ".json"])
@pytest.mark.parametrize("text", ["a\r\nb\rc", "y" * 200_000 + "\\boxed{B}", "\x07\x1b[31m"])
def test_texts_that_a_spreadsheet_cannot_hold(tmp_path: Path, suffix: str, text: str) -> None:
    file, items = tmp_path / f"p{suffix}", [item("a")]
    write_vlmevalkit([{"id": "a", "response": text}], items, file)
    assert read_vlmevalkit(file, items) == [Prediction("a", text)]


def test_halves_of_a_character_and_nul_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "p.tsv"
    write_vlmevalkit([{"id": "a", "response": "a\ud800b\x00c"}], [item("a")], file)
    assert read_vlmevalkit(file, [item("a")])[0].response == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(
    ("text", "got"),
    [("z" * 32_768, "32,768 characters"), ("\U0001f600" * 16_384, "32,768 characters"), ("a\x07", "control character")],
)
def test_a_spreadsheet_that_would_lose_text_is_not_written(tmp_path: Path, text: str, got: str) -> None:
    file = tmp_path / "p.xlsx"
    with pytest.raises(DataError, match=r"PRED_FORMAT=tsv") as raised:
        write_vlmevalkit([{"id": "a", "response": text}], [item("a")], file)
    assert got in str(raised.value) and "column 'prediction'" in str(raised.value)
    assert not file.exists()


def test_the_longest_text_of_a_spreadsheet_is_written_and_read_as_maybe_cut(tmp_path: Path) -> None:
    write_vlmevalkit([{"id": "a", "response": "z" * 32_767}], [item("a")], tmp_path / "p.xlsx")
    assert read_vlmevalkit(tmp_path / "p.xlsx", [item("a")]) == [Prediction("a", "z" * 32_767, cut=True)]


def test_no_cell_of_a_spreadsheet_is_a_formula_or_a_link(tmp_path: Path) -> None:
    write_vlmevalkit(ROWS, ITEMS, tmp_path / "p.xlsx")
    sheet = load_workbook(tmp_path / "p.xlsx").worksheets[0]
    for row in sheet.iter_rows():
        for cell in row:
            assert cell.data_type in ("s", "n") and cell.hyperlink is None
    column = {c.value: i for i, c in enumerate(sheet[1])}["prediction"]
    assert [row[column].data_type for row in sheet.iter_rows(min_row=2)][:2] == ["s", "s"]


def test_line_ends_in_a_spreadsheet_become_one_kind(tmp_path: Path) -> None:
    write_vlmevalkit([{"id": "a", "response": "a\r\nb\rc"}], [item("a")], tmp_path / "p.xlsx")
    assert read_vlmevalkit(tmp_path / "p.xlsx", [item("a")])[0].response == "a\nb\nc"


def test_columns(tmp_path: Path) -> None:
    items = [item("a", tags={"level": "3", "subject": "angles"}), item("b", "7", options=(), form="math", tags={})]
    rows = [{"id": "b", "response": "so 7"}, {"id": "a", "response": "B"}]
    write_vlmevalkit(rows, items, tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text()) == [
        {"index": 1, "id": "a", "question": "Question a?", "A": "one", "B": "two", "C": "three", "answer": "B",
         "level": "3", "subject": "angles", "prediction": "B"},
        {"index": 2, "id": "b", "question": "Question b?", "A": "", "B": "", "C": "", "answer": "7",
         "level": "", "subject": "", "prediction": "so 7"},
    ]  # fmt: skip


def test_one_of_several_samples_is_written(tmp_path: Path) -> None:
    rows = [{"id": "a", "sample": s, "response": f"r{s}"} for s in range(3)]
    write_vlmevalkit(rows, [item("a")], tmp_path / "p.tsv", sample=2)
    assert read_vlmevalkit(tmp_path / "p.tsv", [item("a")]) == [Prediction("a", "r2")]
    with pytest.raises(DataError, match="no answers to write"):
        write_vlmevalkit(rows, [item("a")], tmp_path / "p.tsv", sample=3)


def table(file: Path, *records: dict[str, str]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(records[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(records)
    return file


def test_a_table_of_theirs_gives_index_order_and_columns(tmp_path: Path) -> None:
    """Their order is b, a, c; their index is 100, 101, 102; c is not among our items."""
    shared = {"image": "QUFB", "answer": "B", "category": "x"}
    records = [{"index": str(100 + i), "id": n, "question": f"<image1> question  {n}?"} for i, n in enumerate("bac")]
    theirs = table(tmp_path / "MathVision.tsv", *[r | shared for r in records])
    items = [item("a"), item("b")]
    rows = [{"id": "a", "response": "ra"}, {"id": "b", "response": "rb"}]
    assert write_vlmevalkit(rows, items, tmp_path / "p.json", table=theirs) == 2
    written = {"answer": "B", "category": "x"}
    assert json.loads((tmp_path / "p.json").read_text()) == [
        {"index": 100, "id": "b", "question": "<image1> question  b?", **written, "prediction": "rb"},
        {"index": 101, "id": "a", "question": "<image1> question  a?", **written, "prediction": "ra"},
    ]
    assert read_vlmevalkit(tmp_path / "p.json", items) == [Prediction("b", "rb"), Prediction("a", "ra")]


def test_the_same_numbers_for_other_questions_are_refused(tmp_path: Path) -> None:
    """An index that counts from 1 looks like an id that counts from 1."""
    file = table(
        tmp_path / "p.tsv",
        *[{"index": str(i), "question": f"Of another set {i}", "prediction": "B"} for i in (1, 2, 3)],
    )
    with pytest.raises(DataError, match="other questions under the same ids"):
        read_vlmevalkit(file, [item(str(i)) for i in (1, 2, 3)])


def test_files_of_another_benchmark_are_refused(tmp_path: Path) -> None:
    file = table(tmp_path / "p.tsv", {"index": "1", "id": "zzz", "prediction": "B"})
    with pytest.raises(DataError, match="no column of this file holds the items' ids"):
        read_vlmevalkit(file, [item("a")])
    with pytest.raises(DataError, match="no prediction file"):
        read_vlmevalkit(table(tmp_path / "q.tsv", {"index": "1", "question": "x"}), [item("a")])


@pytest.mark.parametrize("name", ["p.csv", "p.pkl", "p"])
def test_unknown_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"use \.tsv, \.json or \.xlsx"):
        write_vlmevalkit(ROWS, ITEMS, tmp_path / name)
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match=r"use \.tsv, \.json or \.xlsx"):
        read_vlmevalkit(tmp_path / name, ITEMS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.xlsx", b"PK\x03\x04 not a zip"),
        ("p.tsv", b"\xff\xfe\x00"),
        ("q.tsv", b"index\tprediction\n1\n"),
        ("p.json", b"[{"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_vlmevalkit(tmp_path / name, ITEMS)


def test_empty_cells_of_pandas_are_empty_answers(tmp_path: Path) -> None:
    book = Workbook()
    assert book.active is not None
    for line in (["index", "id", "prediction"], [0, "a", None], [1, "b", 7.0]):
        book.active.append(line)
    book.save(tmp_path / "p.xlsx")
    (tmp_path / "p.json").write_text('[{"id": "a", "prediction": NaN}, {"id": "b", "prediction": 7.0}]')
    for name in ("p.xlsx", "p.json"):
        found = read_vlmevalkit(tmp_path / name, [item("a"), item("b")])
        assert found == [Prediction("a", ""), Prediction("b", "7")]


def test_marking_predictions() -> None:
    """Right, wrong, unreadable, and one whose end a spreadsheet has cut off: 1 of 4."""
    items = [item(n) for n in "abcd"]
    found = mark(
        [
            Prediction("a", "so \\boxed{B}"),
            Prediction("b", "so \\boxed{C}"),
            Prediction("c", "I do not know"),
            Prediction("d", "and so on and", cut=True),
        ],
        items,
    )
    out = summarise(found, benchmark="mathvision")
    assert out.accuracy == 0.25
    assert out.outcomes == {"right": 1, "wrong": 1, "unparsed": 1, "truncated": 1}


# -- lmms-eval --------------------------------------------------------------------------------------------------------


def load_utils(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("copied_utils", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Loader(yaml.SafeLoader):
    """Reads `!function utils.name` as lmms-eval does, but as text."""


Loader.add_constructor("!function", lambda loader, node: str(node.value))


def task(tmp_path: Path, temperature: float = 0.0) -> tuple[dict[str, Any], Any, list[dict[str, Any]], list[Item]]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    red, blue = Image.new("RGB", (30, 20), (255, 0, 0)), Image.new("RGB", (10, 40), (0, 0, 255))
    items = [
        item("a", question="Is <image 2> in <image 1>?", images=(red, blue)),
        item("b", "7", question="How many?", options=(), form="math", images=(blue,)),
        item("c"),
    ]
    file = write_lmms_task(items, "rule", SamplingParams(8192, temperature), tmp_path / "task")
    config = yaml.load(file.read_text(), Loader)
    return (
        config,
        load_utils(tmp_path / "task/utils.py"),
        pq.read_table(tmp_path / "task/questions.parquet").to_pylist(),
        items,
    )


def test_the_lmms_task_is_whole(tmp_path: Path) -> None:
    config, utils, docs, _ = task(tmp_path)
    assert config["dataset_path"] == "parquet"
    assert config["dataset_kwargs"]["data_files"] == {"test": str(tmp_path.resolve() / "task/questions.parquet")}
    assert config["generation_kwargs"] == {
        "max_new_tokens": 8192,
        "temperature": 0.0,
        "do_sample": False,
        "until": ["<|im_end|>"],
    }
    for key in ("doc_to_visual", "doc_to_text", "doc_to_messages", "process_results"):
        module, _, name = config[key].partition(".")
        assert module == "utils" and callable(getattr(utils, name))
    assert [d["id"] for d in docs] == ["a", "b", "c"]
    (metric,) = config["metric_list"]
    assert set(utils.process_results(docs[0], ["B"])) == {metric["metric"]}
    assert config["doc_to_target"] == "id" and {"id", "answer"} <= docs[0].keys()


def test_a_sampled_lmms_task_samples(tmp_path: Path) -> None:
    config, *_ = task(tmp_path, 0.7)
    assert config["generation_kwargs"]["temperature"] == 0.7 and config["generation_kwargs"]["do_sample"] is True


def test_lmms_asks_what_vold_asks(tmp_path: Path) -> None:
    _, utils, docs, items = task(tmp_path)
    (turn,) = utils.doc_to_messages(docs[0])
    (message,) = build_messages(items[0], "rule")
    assert "".join(p.get("text", "<image>") for p in turn["content"]) == message.text
    shown = [p["url"].getpixel((0, 0)) for p in turn["content"] if p["type"] == "image"]
    assert shown == [image.getpixel((0, 0)) for image in message.images] and len(set(shown)) == 2
    (turn,) = utils.doc_to_messages(docs[1])
    assert [p["type"] for p in turn["content"]] == ["image", "text"]
    assert utils.doc_to_text(docs[2]) == build_messages(items[2], "rule")[0].text
    assert utils.doc_to_visual(docs[2]) == []


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("so \\boxed{B}", 1.0),
        ("\\boxed{A} no, \\boxed{(b)}", 1.0),
        ("Answer: C\nAnswer: B", 1.0),
        ("<think>\\boxed{A}</think>\\boxed{B}", 1.0),
        ("\\boxed{\\text{B}}", 0.0),
        ("\\boxed{B", 0.0),
        ("", 0.0),
    ],
)
def test_the_quick_look_of_the_lmms_task(answer: str, same: float) -> None:
    assert load_utils(TEMPLATES / "utils.py").process_results({"answer": "B"}, [answer]) == {"same_text": same}


def logged(file: Path, *samples: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(s) + "\n" for s in samples))
    return file


def test_samples_of_lmms_are_read_unfiltered(tmp_path: Path) -> None:
    """It strips thinking from `filtered_resps`, leaves `resps` out where that changed nothing, and flattens lists."""
    counts = [{"input_tokens": 5, "output_tokens": 7, "reasoning_tokens": 0}]
    file = logged(
        tmp_path / "x_samples_vold_local.jsonl",
        {"target": "a", "resps": "<think>x</think>\\boxed{B}", "filtered_resps": "\\boxed{B}", "token_counts": counts},
        {"target": "b", "filtered_resps": [["line\u2028break \\boxed{C}"]]},
    )
    assert read_lmms_samples(file, [item("a"), item("b")]) == [
        Prediction("a", "<think>x</think>\\boxed{B}", tokens=7),
        Prediction("b", "line\u2028break \\boxed{C}"),
    ]


def test_requests_that_lmms_gave_up_are_no_answers(tmp_path: Path) -> None:
    failed = {"target": "a", "resps": "[LMMS_EVAL_REQUEST_FAILED after 5 retries] timeout"}
    with pytest.raises(DataError, match="1 of 1"):
        read_lmms_samples(logged(tmp_path / "s.jsonl", failed), [item("a")])


@pytest.mark.parametrize("sample", [{"resps": "x"}, {"target": "a"}, {"target": "a", "resps": [[3]]}, []])
def test_other_samples_are_refused(tmp_path: Path, sample: Any) -> None:
    with pytest.raises(DataError, match="no sample of the task"):
        read_lmms_samples(logged(tmp_path / "s.jsonl", sample), [item("a")])
    with pytest.raises(DataError, match="not in the benchmark"):
        read_lmms_samples(logged(tmp_path / "s.jsonl", {"target": "q", "resps": "x"}), [item("a")])
    with pytest.raises(DataError, match="cannot read this log"):
        read_lmms_samples(tmp_path / "none.jsonl", [item("a")])


def test_pictures_go_out_whole(tmp_path: Path) -> None:
    _, utils, docs, _ = task(tmp_path)
    raw = docs[1]["images"][0]["bytes"]
    assert Image.open(io.BytesIO(raw)).format == "PNG"
    assert utils.doc_to_visual(docs[1])[0].size == (10, 40)


# -- the command line -------------------------------------------------------------------------------------------------


def math500(folder: Path) -> list[str]:
    """Three written problems with the gold answers 0, 1, 2; returns the arguments that name them."""
    rows = [
        {"unique_id": f"p{i}", "problem": f"Sum {i}?", "answer": str(i), "subject": "s", "level": 1} for i in range(3)
    ]
    (folder / "math500.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return ["--benchmark", "math500", "--data", str(folder / "math500.jsonl")]


@pytest.mark.parametrize("suffix", ["tsv", "json", "xlsx"])
def test_export_then_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    """p0 right, p1 wrong, p2 not answered: 1 of 2."""
    data = math500(tmp_path)
    answers = [{"id": "p0", "sample": 0, "response": "\\boxed{0}"}, {"id": "p1", "sample": 0, "response": "\\boxed{7}"}]
    stored, file = logged(tmp_path / "set.jsonl", *answers), str(tmp_path / f"out.{suffix}")
    assert main(["export", str(stored), file, *data]) == 0
    assert "wrote 2 answers" in capsys.readouterr().out
    assert main(["mark", file, *data]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["accuracy"], out["n"], out["not_answered"], out["mean_tokens"]) == (0.5, 2, 1, None)


def test_a_task_written_and_its_samples_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = math500(tmp_path)
    assert main(["lmms", str(tmp_path / "task"), "--max-new-tokens", "512", *data]) == 0
    assert "max_new_tokens: 512" in (tmp_path / "task/vold_local.yaml").read_text()
    capsys.readouterr()
    count = [{"output_tokens": 6}]
    samples = [{"target": f"p{i}", "resps": "\\boxed{2}", "token_counts": count} for i in range(3)]
    assert main(["mark", str(logged(tmp_path / "s.jsonl", *samples)), *data]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["accuracy"], out["not_answered"], out["mean_tokens"]) == (pytest.approx(1 / 3), 0, 6.0)


def test_a_mistake_is_said_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mark", str(tmp_path / "none.tsv"), *math500(tmp_path)]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert main(["mark", "x.tsv", "--benchmark", "math5000"]) == 2
    assert "did you mean 'math500'" in capsys.readouterr().err


def star(folder: Path, *responses: str) -> list[str]:
    """MMStar's table and VLMEvalKit's predictions for it; the gold is B."""
    shared = {
        "A": "left",
        "B": "right",
        "C": "above",
        "D": "below",
        "answer": "B",
        "category": "math",
        "l2_category": "x",
    }
    records = [{"index": str(n), "question": f"Which {n}?", **shared} for n in range(len(responses))]
    picture = {"image": base64.b64encode(layouts.picture("1")).decode()}
    data = table(folder / "MMStar.tsv", *[r | picture for r in records])
    answers = zip(records, responses, strict=True)
    file = table(folder / "model_MMStar.tsv", *[r | {"prediction": text} for r, text in answers])
    return ["mark", str(file), "--benchmark", "mmstar", "--data", str(data)]


def test_their_answers_are_marked_by_the_protocol_that_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers to a prompt that asks for no box: two need no judge, one does, and is not asked about it again."""
    command = star(tmp_path, "B", "It must be A.", "That which is not left, as far as I can see from it")
    with ChatServer(lambda _: completion("B")) as server:
        for _ in range(2):
            assert main([*command, "--judge", "judge", "--judge-url", server.url]) == 0
            out = json.loads(capsys.readouterr().out)
            assert (out["protocol"], out["accuracy"], out["n"]) == ("vlmevalkit", pytest.approx(2 / 3), 3)
            assert out["as_vlmevalkit"]["accuracy"] == pytest.approx(2 / 3)
            assert len(server.bodies) == 1


def test_their_answers_without_a_judge_are_refused_and_so_is_the_wrong_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = star(tmp_path, "I think so.", "As you like it.", r"\boxed{B}")
    assert main(command) == 2
    assert "--protocol rule" in capsys.readouterr().err
    assert main([*command, "--protocol", "rule"]) == 2
    assert "2 of 3 unparsed" in capsys.readouterr().err
    assert main([*command, "--protocol", "rule", "--judge", "judge"]) == 2
    assert "has no judge" in capsys.readouterr().err
    with ChatServer(lambda _: completion("hm?")) as server:
        assert main([*command, "--judge", "judge", "--judge-url", server.url]) == 2
    assert "2 of 3 unparsed" in capsys.readouterr().err
    command = star(tmp_path, "I do not know.", r"\boxed{A}", r"\boxed{B}")
    assert main([*command, "--protocol", "rule"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(1 / 3)
