"""Small files of exactly the layouts in which the benchmarks are published, with the dirty rows they are known for.

`python tests/helpers/layouts.py DIRECTORY` writes them all; `recipes/eval-mini.yaml` evaluates on them.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from PIL import Image, ImageDraw

Rows = list[dict[str, Any]]
"""Rows of a table, by column."""


def picture(text: str, size: tuple[int, int] = (84, 56)) -> bytes:
    """A PNG with a word on it."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((4, 4), text, fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def struct(text: str) -> dict[str, Any]:
    """A picture as the hub stores it."""
    return {"bytes": picture(text), "path": None}


def parquet(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def mmmu_pro(options: int) -> list[dict[str, Any]]:
    """Options as a Python list in text; 12, 4 and 1 of them; markers out of order, in options, and repeated."""
    many = [f"item {n}" for n in range(12)][:options]
    blank: dict[str, Any] = {f"image_{n}": None for n in range(1, 8)}
    shared = {"explanation": "", "img_type": "['Diagrams']", "topic_difficulty": "Medium", "subject": "Physics"}
    return [
        {"id": "test_Physics_1", "question": "Which is in <image 1>?", "options": str(many), "answer": "B", **shared, **blank, "image_1": struct("one")},
        {"id": "test_Physics_2", "question": "Compare <image 2> with <image 1>, and <image 2> again.", "options": str(many[:4]), "answer": "D", **shared, **blank, "image_1": struct("one"), "image_2": struct("two")},
        {"id": "test_Physics_3", "question": "Which picture?", "options": "['<image 1>', '<image 2>', \"it's neither\"]", "answer": "C", **shared, **blank, "image_1": struct("a"), "image_2": struct("b")},
        {"id": "test_History_4", "question": "Only <image 1>", "options": "['all of it']", "answer": "A", **{**shared, "subject": "History"}, **blank, "image_1": struct("h")},
        {"id": "test_History_5", "question": "A letter past the options <image 1>", "options": "['x', 'y']", "answer": "C", **{**shared, "subject": "History"}, **blank, "image_1": struct("h")},
    ]  # fmt: skip


def mmmu_pro_vision() -> list[dict[str, Any]]:
    """No question column. The author's copy stores the options as a real list."""
    return [
        {"id": f"test_Art_{n}", "image": struct(f"q{n}"), "options": str(["p", "q", "r"]), "answer": "ABC"[n % 3], "subject": "Art"}
        for n in range(4)
    ]  # fmt: skip


def mathvision() -> list[dict[str, Any]]:
    """Form feeds in golds, letters as variables, options that are only A to E, dollars, boxes, blanks, degrees."""
    letters = ["A", "B", "C", "D", "E"]
    rows = [
        ("1", "How many? <image1>", [], "11 ", "counting"),
        ("2", "Which? <image1>", letters, "D", "counting"),
        ("3", "Sum? <image1>", ["10", "12", "15", "20", "25"], "C", "arithmetic"),
        ("2830", "Ratio? <image1>", [], "\x0crac{36}{13}", "arithmetic"),
        ("59", "Which variable? <image1>", [], "C", "algebra"),
        ("6", "Value? <image1>", [], "$\\boxed{7}$", "algebra"),
        ("7", "Angle? <image1> and <image2>", [], "69{degrees}", "metric geometry - angle"),
        ("8", "Broken gold <image1>", letters, "7", "algebra"),
        ("1843", "Twice the same <image1>", ["1", "2", "2", "3", "4"], "C", "algebra"),
    ]
    return [
        {"id": i, "question": q, "options": o, "image": f"images/{i}.png", "decoded_image": struct(i), "answer": a, "solution": None, "level": 3, "subject": s}
        for i, q, o, a, s in rows
    ]  # fmt: skip


def mathvista() -> list[dict[str, Any]]:
    """Choices, integers, floats with precision, a list, a unit, duplicate choices, a prompt in each row."""
    metadata = {"split": "testmini", "language": "english", "img_width": 84, "img_height": 56, "source": "FigureQA", "category": "math-targeted-vqa", "task": "geometry problem solving", "context": "geometry diagram", "grade": "high school", "skills": ["geometry reasoning"]}  # fmt: skip
    rows: list[tuple[str, str, list[str] | None, str | None, float | None, str, str, str]] = [
        ("1", "Which is larger?", ["red", "blue"], None, None, "blue", "multi_choice", "text"),
        ("2", "How many bars?", None, None, None, "14", "free_form", "integer"),
        ("3", "How long?", None, "cm", 1.0, "1.2", "free_form", "float"),
        ("4", "What share?", None, None, 2.0, "0.25", "free_form", "float"),
        ("225", "Which years?", None, None, None, "[2005, 2009]", "free_form", "list"),
        ("587", "Which twin?", ["4", "5", "4"], None, None, "4", "multi_choice", "text"),
        ("7", "No such choice", ["a", "b"], None, None, "c", "multi_choice", "text"),
    ]
    return [
        {"pid": p, "question": q, "image": f"images/{p}.png", "decoded_image": struct(p), "choices": c, "unit": u, "precision": n, "answer": a, "question_type": t, "answer_type": f, "metadata": metadata, "query": f"Hint: Please answer the question.\nQuestion: {q}"}
        for p, q, c, u, n, a, t, f in rows
    ]  # fmt: skip


def logicvista() -> dict[str, dict[str, Any]]:
    """The repository's dataset.json: several letters, a letter past F, a number, and one row with nothing in it."""
    rows = [
        ("A", "inductive"),
        ("A, C", "deductive"),
        ("G", "spatial"),
        ("3", "numerical"),
        ("", "mechanical"),
        ("b", "spatial"),
    ]
    return {
        f"v1_{n}": {"imagename": f"images/{n}.png", "question": f"Which follows in figure {n}?" if gold else "", "answer": gold, "reasoning": "", "skill": [skill], "broad_capability": ["ocr"], "specific_capability": ["diagram"]}
        for n, (gold, skill) in enumerate(rows)
    }  # fmt: skip


def mme() -> Rows:
    """Two questions to a picture, two pictures in each of the fourteen subtasks."""
    subtasks = ["OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene", "code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"]  # fmt: skip
    return [
        {"question_id": f"{subtask}/{n:04}.png", "image": struct(f"{subtask} {n}"), "question": f"Is it {word}? Please answer yes or no.", "answer": answer, "category": subtask}
        for subtask in subtasks
        for n in (1, 2)
        for word, answer in (("so", "Yes"), ("otherwise", "No"))
    ]  # fmt: skip


def hallusionbench() -> Rows:
    """Two sets: one with two questions on two figures, one with one question on one; golds are 0 and 1."""
    places = [("VD", "illusion", "0", "0", "0", "1"), ("VD", "illusion", "0", "0", "1", "0"), ("VD", "illusion", "0", "1", "0", "0"), ("VD", "illusion", "0", "1", "1", "1"), ("VS", "chart", "0", "1", "0", "1")]  # fmt: skip
    return [
        {"category": c, "subcategory": s, "visual_input": "1", "set_id": i, "figure_id": f, "sample_note": "line", "question_id": q, "question": f"Is {q} true of {f}?", "gt_answer_details": "It is.", "gt_answer": a, "filename": f"./{c}/{s}/{i}_{f}.png", "image": struct(f"{s}{i}{f}")}
        for c, s, i, f, q, a in places
    ]  # fmt: skip


def geometry3k() -> Rows:
    """Lists of pictures, a marker before each problem, answers in LaTeX."""
    golds = ["3", "2 \\sqrt { 221 }", "x = 4"]
    return [{"images": [struct(g)], "problem": f"<image>Find $x{n}$.", "answer": g} for n, g in enumerate(golds)]


def emma() -> Rows:
    """Choices with pictures in options, an open question, a context."""
    blank: dict[str, Any] = {f"image_{n}": None for n in range(1, 6)}
    shared = {"solution": "", "task": "2D", "category": "Transformation", "source": "Newly annotated", **blank}
    return [
        {"pid": "math_1", "question": "Which completes <image_1>?", "options": ["<image_2>", "<image_3>"], "answer": "B", "type": "Multiple Choice", "context": "", "subject": "Math", **shared, "image_1": struct("a"), "image_2": struct("b"), "image_3": struct("c")},
        {"pid": "physics_2", "question": "How large is the force? <image_1>", "options": [], "answer": "12", "type": "Open-ended", "context": "A block rests.", "subject": "Physics", **shared, "image_1": struct("p")},
        {"pid": "chem_3", "question": "Which molecule is <image_1>?", "options": ["CO", "HCN", "CH4"], "answer": "C", "type": "Multiple Choice", "context": None, "subject": "Chemistry", **shared, "image_1": struct("m")},
        {"pid": "coding_4", "question": "Which code draws <image_1>?", "options": ["plot(x)", "bar(x)"], "answer": "A", "type": "Multiple Choice", "context": None, "subject": "Coding", **shared, "image_1": struct("v")},
    ]  # fmt: skip


def visulogic() -> Rows:
    """Paths into images.zip."""
    return [
        {"id": f"{n:05}", "image_path": f"images/{n:05}.png", "question": "Which comes next?", "label": "ABCD"[n], "tag": "Spatial Reasoning"}
        for n in range(3)
    ]  # fmt: skip


def visulogic_pictures() -> bytes:
    """The zip beside VisuLogic's rows."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for row in visulogic():
            archive.writestr(zipfile.ZipInfo(row["image_path"]), picture(row["id"]))
    return buffer.getvalue()


def olympiadbench() -> Rows:
    """One answer with a unit, several answers, a tuple."""
    shared: dict[str, Any] = {"solution": ["So."], "context": None, "modality": "Multimodal", "difficulty": "Competition", "error": None, "question_type": "Open-ended", "subfield": "Geometry", "subject": "Math", "language": "English", **{f"image_{n}": None for n in range(1, 10)}}  # fmt: skip
    rows = [
        (1, ["$\\frac{1}{2}$"], False, None, "Numerical"),
        (2, ["$3,5$"], True, "cm", "Numerical"),
        (3, ["$(2,7)$"], False, None, "Tuple"),
    ]
    return [
        {"id": i, "question": f"Find C{i} in <image_1>.", "final_answer": a, "is_multiple_answer": m, "unit": u, "answer_type": t, **shared, "image_1": struct(f"o{i}")}
        for i, a, m, u, t in rows
    ]  # fmt: skip


def logicvista_rows() -> Rows:
    """The hub's table: the same rows with an id and an embedded picture."""
    rows = logicvista()
    return [
        {"id": key, "image": struct(key), "question": row["question"], "answer": row["answer"], "skill": row["skill"]}
        for key, row in rows.items()
    ]


def mmmu() -> list[dict[str, Any]]:
    """Choices and open questions, one of them with several accepted answers."""
    blank: dict[str, Any] = {f"image_{n}": None for n in range(1, 8)}
    shared = {"explanation": "", "img_type": "['Tables']", "topic_difficulty": "Easy", "subfield": "Accounting"}
    return [
        {"id": "validation_Math_1", "question": "Pick <image 1>", "options": "['one', 'two', 'three']", "answer": "B", "question_type": "multiple-choice", **shared, **blank, "image_1": struct("m")},
        {"id": "validation_Math_2", "question": "How much? <image 1>", "options": "[]", "answer": "24.25", "question_type": "open", **shared, **blank, "image_1": struct("m")},
        {"id": "validation_Math_3", "question": "Which city? <image 1>", "options": "[]", "answer": "['Paris', 'the capital of France']", "question_type": "open", **shared, **blank, "image_1": struct("m")},
    ]  # fmt: skip


def mathverse() -> list[dict[str, Any]]:
    """Two problems in five versions; the vision-only question stands in the picture."""
    versions = ["Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only"]
    rows = []
    for problem, (gold, kind) in enumerate(
        [("B", "multi-choice"), ("$\\frac{1}{2}$", "free-form"), ("118掳T", "free-form")]
    ):
        for n, version in enumerate(versions):
            text = "" if version == "Vision Only" else f"Find x in figure {problem}."
            rows.append({"sample_index": str(5 * problem + n), "problem_index": str(problem), "problem_version": version, "question": text, "question_for_eval": f"Find x in figure {problem}.", "image": struct(f"v{problem}"), "answer": gold, "question_type": kind, "metadata": {"subject": "Plane Geometry", "subfield": "Angle", "source": "geo", "split": "testmini"}, "query_wo": f"Please directly answer the question. {text}", "query_cot": f"Please first conduct reasoning. {text}"})  # fmt: skip
    return rows


def wemath() -> list[dict[str, Any]]:
    """Composite problems with two and three steps; options in one cell, one of them with a semicolon inside."""
    rows: list[dict[str, Any]] = []
    for number, steps in ((1, 2), (2, 2), (1, 3)):
        for part in [*map(str, range(1, steps + 1)), "multi"]:
            key = f"{steps}steps_{part}"
            rows.append({"ID": f"{steps}steps_{number}", "split": "testmini", "knowledge concept": "Area of Circles", "question": f"Step {part} of {number}?", "option": "A. 1; B. 2 cm; or so; C. 3; E. No correct answer".replace("E.", "D."), "answer": "A", "image_path": struct(key), "key": key, "question number": len(rows) + 1, "knowledge concept description": ""})  # fmt: skip
    return rows


def dynamath(variant: int) -> list[dict[str, Any]]:
    """Three seed questions of one variant."""
    rows = [("1", "float", "1.414"), ("2", "multiple choice", "B"), ("3", "text", "even")]
    return [
        {"id": i, "question": f"Variant {variant} of {i}?", "image": f"images/{i}.png", "decoded_image": struct(f"{i}.{variant}"), "ground_truth": a, "answer_type": t, "subject": "algebra", "knowledge_level": "high school"}
        for i, t, a in rows
    ]  # fmt: skip


def mmstar() -> list[dict[str, Any]]:
    return [
        {"index": n, "question": "Which? Options: A: red, B: blue, C: green, D: none", "image": struct(str(n)), "answer": "ABCD"[n], "category": "math", "l2_category": "geometry", "meta_info": {"source": "MMMU"}}
        for n in range(4)
    ]  # fmt: skip


def written() -> dict[str, Rows]:
    """The text benchmarks, by name."""
    return {
        "math500": [{"problem": f"What is {n} / 2?", "solution": "", "answer": f"\\frac{{{n}}}{{2}}", "subject": "Algebra", "level": 1, "unique_id": f"test/algebra/{n}.json"} for n in (1, 3, 5)],
        "gsm8k": [{"question": f"{n} bags of 1,000 nuts?", "answer": f"Bags hold <<{n}*1000={n}000>>nuts.\n#### {n},000"} for n in (1, 2)] + [{"question": "?", "answer": "no mark"}],
        "aime2024": [{"ID": "2024-I-1", "Problem": "Find m + n.", "Solution": "", "Answer": "033"}, {"ID": "2024-I-2", "Problem": "Find n.", "Solution": "", "Answer": "204"}],
        "aime2025": [{"problem": "Find b.", "answer": "70", "id": "0"}, {"problem": "Find c.", "answer": "1000", "id": "1"}, {"problem": "Find d.", "answer": "5", "id": "2"}],
    }  # fmt: skip


def write_all(directory: Path) -> dict[str, Path]:
    """Write a file, folder or zip for every benchmark; returns their paths by the benchmark's name."""
    d = directory
    paths = {
        "mmmu_pro_standard10": parquet(d / "mmmu_pro_standard10" / "test-00000-of-00001.parquet", mmmu_pro(12)),
        "mmmu_pro_standard4": parquet(d / "mmmu_pro_standard4" / "test-00000-of-00001.parquet", mmmu_pro(4)),
        "mmmu_pro_vision": parquet(d / "mmmu_pro_vision" / "test-00000-of-00001.parquet", mmmu_pro_vision()),
        "mathvision": parquet(d / "mathvision" / "testmini-00000-of-00001.parquet", mathvision()),
        "mathvista": _mathvista_zip(d / "mathvista.zip"),
        "logicvista": _logicvista(d / "logicvista"),
        "mmmu": parquet(d / "mmmu" / "validation-00000-of-00001.parquet", mmmu()),
        "mathverse": parquet(d / "mathverse" / "testmini-00000-of-00001.parquet", mathverse()),
        "wemath": parquet(d / "wemath" / "testmini-00000-of-00001.parquet", wemath()),
        "mmstar": mmstar_tsv(d / "MMStar.tsv"),
    }
    paths["mathverse_vision_only"] = paths["mathverse"]
    paths["mme"] = parquet(d / "mme" / "test-00000-of-00001.parquet", mme())
    paths["hallusionbench"] = parquet(d / "hallusionbench" / "image-00000-of-00001.parquet", hallusionbench())
    paths["geometry3k"] = parquet(d / "geometry3k" / "test-00000-of-00001.parquet", geometry3k())
    paths["emma_mini"] = parquet(d / "emma_mini" / "test-00000-of-00001.parquet", emma())
    paths["olympiadbench_mm_maths"] = parquet(d / "olympiadbench" / "OE_MM_maths_en_COMP.parquet", olympiadbench())
    paths["visulogic"] = d / "visulogic"
    paths["visulogic"].mkdir(exist_ok=True)
    (paths["visulogic"] / "images.zip").write_bytes(visulogic_pictures())
    (paths["visulogic"] / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in visulogic()))
    for variant in (1, 2):
        parquet(d / "dynamath" / f"sample_variant{variant}-00000-of-00001.parquet", dynamath(variant))
    paths["dynamath"] = d / "dynamath"
    for name, rows in written().items():
        paths[name] = d / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return paths


def _mathvista_zip(file: Path) -> Path:
    """The repository's form: testmini.json by pid and a folder of pictures."""
    rows = {r["pid"]: {k: v for k, v in r.items() if k != "decoded_image"} for r in mathvista()}
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        entries = {"testmini.json": json.dumps(rows, indent=1).encode()}
        entries |= {f"images/{pid}.png": picture(pid) for pid in rows}
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # a fixed date: the same bytes each time
    return file


def _logicvista(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for n in range(6):
        (folder / "images" / f"{n}.png").write_bytes(picture(f"L{n}"))
    (folder / "dataset.json").write_text(json.dumps(logicvista(), indent=1), encoding="utf-8")
    return folder / "dataset.json"


def mmstar_tsv(file: Path) -> Path:
    """VLMEvalKit's table: base64 pictures, the last row sharing the picture of the first."""
    columns = ["index", "question", "answer", "category", "l2_category", "image"]
    lines = ["\t".join(columns)]
    for row in mmstar():
        cell = base64.b64encode(row["image"]["bytes"]).decode() if row["index"] < 3 else "0"
        lines.append("\t".join([*(str(row[c]) for c in columns[:-1]), cell]))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


if __name__ == "__main__":
    for name, path in sorted(write_all(Path(sys.argv[1])).items()):
        print(f"{name:24} {path}")
