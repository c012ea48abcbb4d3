"""Rows of the published layouts become items: the dirt handled, the unusable counted, the container of no matter."""

from __future__ import annotations

import base64
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import layouts
import vold.data.benchmarks
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.registry import benchmarks, load
from vold.data.files.cells import clean_gold
from vold.data.files.images import MAX_PIXELS
from vold.data.files.markers import numbered
from vold.errors import ConfigError, DataError
from vold.evals.marking.rules import score
from vold.evals.prompting import build_messages
from vold.evals.published import matching


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return layouts.write_all(tmp_path_factory.mktemp("layouts"))


def items(files: dict[str, Path], name: str) -> dict[str, Item]:
    split = "testmini" if name == "mathvision" else None
    return {i.id: i for i in load(name, path=files[name], split=split).items}


def test_mmmu_pro_maps_markers_by_number_and_keeps_twelve_options(files: dict[str, Path]) -> None:
    found = items(files, "mmmu_pro_standard10")
    first = found["test_Physics_1"]
    assert len(first.options) == 12
    assert (first.answer, first.form, first.cluster) == ("B", "choice", "test_Physics_1")
    assert dict(first.tags) == {"subject": "Physics", "difficulty": "Medium"}
    assert first.options[11] == "item 11"
    two = found["test_Physics_2"]
    expected = [Image.open(io.BytesIO(layouts.picture(w))).convert("RGB").tobytes() for w in ("one", "two")]
    assert [i.tobytes() for i in two.images] == expected
    assert found["test_Physics_3"].options == ("<image 1>", "<image 2>", "it's neither")
    assert found["test_History_4"].options == ("all of it",)
    past = found["test_History_5"]
    assert (past.answer, past.form, past.options) == ("C", "choice", ("x", "y"))  # for the protocol to leave out or not


def test_the_vision_setting_has_no_question_but_a_picture(files: dict[str, Path]) -> None:
    item = items(files, "mmmu_pro_vision")["test_Art_1"]
    assert (item.question, item.options, item.answer, len(item.images)) == ("", ("p", "q", "r"), "B", 1)


def test_mathvision_golds_are_cleaned_and_letters_in_the_picture_are_no_options(files: dict[str, Path]) -> None:
    found = items(files, "mathvision")
    assert {k: v.answer for k, v in found.items()} == {
        "1": "11", "2": "D", "3": "C", "2830": r"\frac{36}{13}", "59": "C", "6": "7", "7": "69", "8": "7", "1843": "C",
    }  # fmt: skip
    assert found["2"].options == ()
    assert found["3"].options == ("10", "12", "15", "20", "25")
    assert (found["59"].form, found["2"].form, found["8"].form) == ("math", "choice", "math")
    assert found["7"].question == "Angle? <image 1> and <image 2>"


def test_mathvista_in_the_form_of_its_repository(files: dict[str, Path]) -> None:
    found = items(files, "mathvista")
    assert found["1"].answer == "B"
    assert (found["3"].form, found["3"].precision, found["3"].unit) == ("float", 1, "cm")
    assert found["4"].precision == 2
    assert (found["225"].form, found["225"].answer) == ("list", "[2005, 2009]")
    assert found["587"].answer == "A"  # options 1 and 3 read the same
    assert (found["7"].answer, found["7"].form) == ("c", "text")  # none of its choices
    assert found["2"].query == "Hint: Please answer the question.\nQuestion: How many bars?"
    assert found["2"].images[0].size == (84, 56)


def test_logicvista_has_several_letters_one_number_and_one_empty_row(files: dict[str, Path]) -> None:
    loaded = load("logicvista", path=files["logicvista"])
    assert {i.id: (i.answer, i.form) for i in loaded.items} == {
        "v1_0": ("A", "letters"),
        "v1_1": ("A, C", "letters"),
        "v1_2": ("G", "letters"),
        "v1_3": ("3", "text"),
        "v1_5": ("B", "letters"),
    }
    assert [b.why for b in loaded.bad] == ["the question or its answer is empty"]
    assert {i.tags["skill"] for i in loaded.items} == {"inductive", "deductive", "spatial", "numerical"}


def test_open_questions_of_mmmu_keep_every_accepted_answer(files: dict[str, Path]) -> None:
    found = items(files, "mmmu")
    assert found["validation_Math_3"].answer.split("\n") == ["Paris", "the capital of France"]
    assert found["validation_Math_1"].tags["subject"] == "Math"


def test_mathverse_versions_share_a_cluster_and_vision_only_is_a_set_of_its_own(files: dict[str, Path]) -> None:
    found = items(files, "mathverse")
    assert len(found) == 15
    assert {i.cluster for i in found.values()} == {"0", "1", "2"}
    assert found["5"].answer == r"\frac{1}{2}"
    only = items(files, "mathverse_vision_only")
    assert set(only) == {"4", "9", "14"}
    assert only["4"].question == ""


def test_wemath_options_split_only_at_letters_and_steps_are_tagged(files: dict[str, Path]) -> None:
    found = items(files, "wemath")
    item = found["3steps_1/3steps_multi"]
    assert len(found) == 10
    assert item.options == ("1", "2 cm; or so", "3", "No correct answer")
    assert (item.tags["key"], item.tags["composite"], item.cluster) == ("3steps_multi", "3steps_1", "3steps_1")


def test_dynamath_takes_the_variant_from_the_file(files: dict[str, Path]) -> None:
    found = items(files, "dynamath")
    assert set(found) == {f"{s}/{v}" for s in "123" for v in "12"}
    assert (found["1/2"].form, found["2/1"].form, found["3/1"].form) == ("float", "choice", "text")


def test_a_table_row_that_shares_a_picture_gets_it(files: dict[str, Path]) -> None:
    found = items(files, "mmstar")
    assert found["3"].images[0].tobytes() == found["0"].images[0].tobytes()
    assert found["1"].images[0].tobytes() != found["0"].images[0].tobytes()


def test_text_benchmarks(files: dict[str, Path]) -> None:
    assert items(files, "gsm8k")["2"].answer == "2000"
    assert items(files, "aime2024")["2024-I-1"].answer == "33"
    assert items(files, "math500")["test/algebra/3.json"].answer == r"\frac{3}{2}"


def test_the_container_does_not_matter(tmp_path: Path) -> None:
    """The same rows as parquet, JSON with a folder of pictures, that in a zip, and a table with base64 pictures."""
    rows = layouts.mathvista()
    parquet = layouts.parquet(tmp_path / "p" / "testmini.parquet", rows)
    folder = tmp_path / "folder"
    (folder / "images").mkdir(parents=True)
    plain = {r["pid"]: {k: v for k, v in r.items() if k != "decoded_image"} for r in rows}
    (folder / "testmini.json").write_text(json.dumps(plain))
    for pid in plain:
        (folder / "images" / f"{pid}.png").write_bytes(layouts.picture(pid))
    lines = folder / "rows.jsonl"
    embedded = [{**r, "decoded_image": base64.b64encode(r["decoded_image"]["bytes"]).decode()} for r in rows]
    lines.write_text("".join(json.dumps(r) + "\n" for r in embedded))
    archive = layouts._mathvista_zip(tmp_path / "m.zip")
    hashes = {load("mathvista", path=p).content_hash for p in (parquet, folder / "testmini.json", lines, archive)}
    assert len(hashes) == 1
    rows[0]["question"] += "!"
    changed = layouts.parquet(tmp_path / "q.parquet", rows)
    assert load("mathvista", path=changed).content_hash not in hashes


def one_row(tmp_path: Path, **changes: Any) -> Path:
    rows = [dict(layouts.mmstar()[n], image=base64.b64encode(layouts.picture("x")).decode()) for n in range(2)]
    rows[1] |= changes
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    return file


def large() -> str:
    buffer = io.BytesIO()
    Image.new("1", (9000, MAX_PIXELS // 9000 + 10)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("nowhere.png", "cannot open this picture"),
        ("../outside.png", "leads out of the data's folder"),
        ("!!!" * 200, "neither base64 nor a path"),
        (base64.b64encode(layouts.picture("x")[:60]).decode() * 9, "cannot be decoded"),
        (base64.b64encode(layouts.picture("x")[:-40]).decode(), "cannot be decoded"),
        (large(), "too large"),
    ],
)
def test_a_bad_picture_is_a_bad_row_and_not_fatal(tmp_path: Path, image: str, why: str) -> None:
    (tmp_path.parent / "outside.png").write_bytes(layouts.picture("secret"))
    loaded = load("mmstar", path=one_row(tmp_path, image=image))
    assert [i.id for i in loaded.items] == ["0"]
    assert [why in b.why for b in loaded.bad] == [True]
    assert "row 2" in loaded.bad[0].where


def test_the_same_id_twice_is_a_bad_row(tmp_path: Path) -> None:
    assert "already" in load("mmstar", path=one_row(tmp_path, index=0)).bad[0].why


@pytest.mark.parametrize(
    ("name", "open_rows", "gold"),
    [
        ("math500", layouts.written()["math500"], {"answer": " "}),
        ("dynamath", layouts.dynamath(1)[:1], {"ground_truth": ""}),
        ("mathverse", layouts.mathverse()[5:6], {"answer": "$$"}),
        ("mmmu", layouts.mmmu()[2:], {"answer": "[' ', '']"}),
    ],
)
def test_an_empty_gold_answer_is_a_bad_row_whatever_the_benchmark(
    tmp_path: Path, name: str, open_rows: layouts.Rows, gold: dict[str, str]
) -> None:
    file = layouts.parquet(tmp_path / "rows.parquet", [*open_rows, open_rows[-1] | gold])
    assert [b.why for b in load(name, path=file).bad] == ["the gold answer is empty"]


def test_a_picture_in_a_zip_can_not_be_outside_it(tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(layouts.picture("secret"))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("d/rows.json", one_row(tmp_path, image="../../outside.png").read_text())
    assert "no such picture" in load("mmstar", path=tmp_path / "z.zip").bad[0].why


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("fault", ["garbled", "encrypted"])
def test_a_picture_that_a_zip_does_not_give_is_a_bad_row_and_not_fatal(
    tmp_path: Path, inside: bool, fault: str
) -> None:
    """Of a zip with the rows inside, and of one beside them."""
    rows = one_row(tmp_path, image="p.bmp")
    at = tmp_path / ("all.zip" if inside else "images.zip")
    with zipfile.ZipFile(at, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p.bmp", bytes(999))
        if inside:
            archive.write(rows, "rows.json")
    content = bytearray(at.read_bytes())
    if fault == "garbled":
        packed = 30 + len("p.bmp")  # after the member's own header
        content[packed : packed + 4] = b"\xff" * 4
    else:
        content[6] |= 1  # the flag, in the member's header and in the zip's table
        content[content.index(b"PK\x01\x02") + 8] |= 1
    at.write_bytes(content)
    loaded = load("mmstar", path=at if inside else rows)
    assert [i.id for i in loaded.items] == ["0"]
    assert ["corrupt, encrypted" in b.why for b in loaded.bad] == [True]


def test_files_that_can_not_be_read_are_errors_that_name_them(tmp_path: Path) -> None:
    contents: dict[str, bytes] = {
        "a.parquet": b"PAR1 cut short",
        "b.json": b"{",
        "c.jsonl": b"[1]\n",
        "d.zip": b"PK",
        "e.tsv": b"index\timage\n1\n",
        "f.xyz": b"",
        "g.json": b"\xff\xfe",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            load("mmstar", path=tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(DataError, match="no such data"):
        load("mmstar", path=tmp_path / "absent")


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    file = layouts.parquet(tmp_path / "x.parquet", [dict(layouts.mmstar()[0], answer="Z")])
    with pytest.raises(DataError, match="not a single row"):
        load("mmstar", path=file)


def test_limit_counts_rows(files: dict[str, Path]) -> None:
    assert len(load("mathverse", path=files["mathverse"], limit=4).items) == 4


def test_an_unknown_benchmark_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mmmu_pro_vision'"):
        load("MMMU-Pro-vison")


def test_a_benchmark_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside the others is all it takes: rows are read, asked, marked, and stand beside published figures."""
    (tmp_path / "sums.py").write_text(
        "from vold.data.benchmarks.benchmark import Benchmark, DataSource, PromptForm\n"
        "from vold.data.benchmarks.item import Item\n"
        "def sums(name, row):\n"
        "    values = row.values\n"
        "    return Item(name, values['id'], values['question'], (), (), values['gold'], 'float', cluster='1')\n"
        "SOURCE = DataSource('A paper', 'rule', 'as we do')\n"
        "BENCHMARKS = (\n"
        "    Benchmark('sums', 'Sums', 'some/sums', {}, {'test': 1}, sums,\n"
        "              {'rule': PromptForm(without_options='Now: {question}')}, tolerance=0.5,\n"
        "              published=SOURCE.figures('sums', 'test', {'A model': 50.0})),\n"
        ")\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "question": "1 + 1.4?", "gold": "2.4"}\n')
    monkeypatch.setattr(vold.data.benchmarks, "__path__", [*vold.data.benchmarks.__path__, str(tmp_path)])
    benchmarks.cache_clear()
    try:
        (item,) = load("sums", path=tmp_path / "rows.jsonl").items
        assert build_messages(item, "rule")[0].text == "Now: 1 + 1.4?"
        assert [score(item, rf"\boxed{{{x}}}").score for x in ("2.1", "3.1")] == [1.0, 0.0]
        assert [p.value for p in matching("sums", "test", "rule")] == [50.0]
    finally:
        benchmarks.cache_clear()
        sys.modules.pop("vold.data.benchmarks.sums", None)


def test_every_benchmark_names_its_hub_data_and_size() -> None:
    for benchmark in benchmarks().values():
        assert "/" in benchmark.repo
        assert all(size > 0 for size in benchmark.size.values())
    assert {b.name: tuple(b.size.items()) for b in benchmarks().values()} == {
        "aime2024": (("train", 30),),
        "aime2025": (("test", 30),),
        "dynamath": (("sample_variant", 501 * 10),),
        "emma_mini": (("test", 4 * 100),),
        "geometry3k": (("test", 601), ("validation", 300)),
        "gsm8k": (("test", 1319),),
        "hallusionbench": (("image", 951),),
        "logicvista": (("test", 448),),
        "math500": (("test", 500),),
        "mathverse": (("testmini", 788 * 5),),
        "mathverse_vision_only": (("testmini", 788),),
        "mathvision": (("test", 3040), ("testmini", 304)),
        "mathvista": (("testmini", 1000),),
        "mme": (("test", 2374),),
        "mmmu": (("validation", 900), ("dev", 150)),
        "mmmu_pro_standard10": (("test", 1730),),
        "mmmu_pro_standard4": (("test", 1730),),
        "mmmu_pro_vision": (("test", 1730),),
        "mmstar": (("val", 1500),),
        "olympiadbench_mm_maths": (("train", 150),),
        "visulogic": (("test", 1000),),
        "wemath": (("testmini", 1740),),
    }
    assert {b.name for b in benchmarks().values() if b.empty} == {"logicvista"}


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("\x0crac{36}{13}", r"\frac{36}{13}"),
        ("$5$", "5"),
        ("$\\boxed{7}$", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} or \boxed{2}", r"\boxed{1} or \boxed{2}"),
        (" 11 ", "11"),
        ("69{degrees}", "69"),
        (r"30^\circ", "30"),
        (r"30^{\circ}", "30"),
        ("1:2", "1:2"),
        ("45^2", "45^2"),
    ],
)
def test_golds_lose_their_dirt_and_nothing_else(dirty: str, clean: str) -> None:
    assert clean_gold(dirty) == clean


@pytest.mark.parametrize("spelling", ["<image1>", "<image 1>", "<image_1>", "< image 1 >", "<IMAGE1>"])
def test_markers_have_one_spelling(spelling: str) -> None:
    assert numbered(f"a {spelling} b") == "a <image 1> b"


VERSE = {"sample_index": "1", "problem_index": "1", "problem_version": "Vision Only", "question": ""}


@pytest.mark.parametrize(
    ("gold", "answer", "form"),
    [
        ("b", "B", "choice"),
        (" (D) ", "D", "choice"),
        ("090^\\circ T", "090^\\circ T", "math"),
        ("False", "False", "math"),
        ("AB", "AB", "math"),
    ],
)
def test_a_multiple_choice_whose_gold_is_no_letter_keeps_it_as_it_is_written(
    tmp_path: Path, gold: str, answer: str, form: str
) -> None:
    rows = [VERSE | {"image": layouts.struct("v"), "answer": gold, "question_type": "multi-choice"}]
    found = load("mathverse_vision_only", path=layouts.parquet(tmp_path / "testmini.parquet", rows)).items
    assert [(i.answer, i.form) for i in found] == [(answer, form)]


@pytest.mark.parametrize(
    ("options", "gold", "answer", "form"),
    [
        ("['left', 'right']", "right", "B", "choice"),  # spelt out
        ("['left', 'right', 'right']", "right", "right", "text"),  # which of the two is not said
        ("['left']", "B", "B", "choice"),
        ("['left', 'right']", "Both of them", "Both of them", "text"),
    ],
)
def test_the_gold_of_a_choice_need_be_none_of_its_options(
    tmp_path: Path, options: str, gold: str, answer: str, form: str
) -> None:
    rows = [layouts.mmmu_pro(4)[0], layouts.mmmu_pro(4)[1] | {"options": options, "answer": gold}]
    found = load("mmmu_pro_standard10", path=layouts.parquet(tmp_path / "test-0.parquet", rows)).items
    assert (found[1].answer, found[1].form) == (answer, form)


def test_an_empty_gold_is_a_row_that_cannot_be_marked_by_anybody(tmp_path: Path) -> None:
    rows = [layouts.mmmu_pro(4)[0] | {"answer": " ", "id": "empty"}, *layouts.mmmu_pro(4)[:4]]
    found = load("mmmu_pro_standard10", path=layouts.parquet(tmp_path / "test-0.parquet", rows))
    assert len(found.items) == 4 and [b.why for b in found.bad] == ["the gold answer is empty"]
