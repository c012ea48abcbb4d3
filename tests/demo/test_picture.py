"""The demo's picture: drawn from what a run has stored, and the one in the documentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from stored import store_rows
from vold.data.files.images import thumbnail
from vold.data.worlds.digits import DigitTasks
from vold.demo.picture import Example, draw_example, find_example, picture
from vold.demo.pipeline import RECIPE
from vold.report.text import MINUS
from vold.run.recipe import dump_recipe, load_recipe
from vold.run.view import Run

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
EXAMPLE = Example(
    seen="digits <image> . sum ?", image=Image.new("RGB", (24, 8)), read="digits 3 5 9 . sum ?",
    tokens=[("a<b", 0.0), ("9", 1.5), ("14", 20.0), ("c", -0.75)], answer="14", reference="17",
)  # fmt: skip


def marks(svg: str) -> list[tuple[str, str, float]]:
    """Every token, what its colour says, and how strongly."""
    found = []
    for one in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        rect, text = one.find(f"{SVG}rect"), one.find(f"{SVG}text")
        assert rect is not None and text is not None
        found.append((text.text or "", rect.get("class", ""), float(rect.get("fill-opacity", "nan"))))
    return found


def test_every_token_has_the_colour_of_its_gap() -> None:
    assert marks(picture(EXAMPLE)) == [
        ("a<b", "under", 0.0), ("9", "over", 0.5), ("14", "over", 1.0), ("c", "under", 0.25),
    ]  # fmt: skip
    swapped = replace(EXAMPLE, tokens=[(t, -g) for t, g in EXAMPLE.tokens])
    assert [kind for _, kind, share in marks(picture(swapped)) if share] == ["under", "under", "over"]


def test_it_holds_the_problem_in_both_forms_and_stays_within_its_frame() -> None:
    wide = replace(EXAMPLE, image=Image.new("RGB", (32, 8)), tokens=[("word", 0.1)] * 40)
    svg = picture(wide)
    root = ElementTree.fromstring(svg)
    (image,) = root.iter(f"{SVG}image")
    assert image.get("href") == thumbnail(wide.image)
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert {"sum ?", "digits 3 5 9 ."} <= set(texts) and texts.count("word") == 40
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    card = float(next(root.iter(f"{SVG}rect")).get("width", "0"))
    assert float(image.get("width", "0")) <= card
    for one in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(one.get(key, "0")) for key in ("x", "y", "width", "height"))
        assert x >= 0 and x + w <= width and y >= 0 and y + h <= height
    assert "script" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def rollout(index: int, words: str, gaps: list[float], **more: Any) -> dict[str, Any]:
    task = DigitTasks("train", "text", index + 1, 2)[index]
    logp = [-0.5] * len(gaps)
    return {
        "task_id": task.id, "prompt": task.messages[0].text, "reference": task.reference, "tokens": words.split(),
        "logp": logp, "teacher_logp": [a - g for a, g in zip(logp, gaps, strict=True)], "extracted": "3", **more,
    }  # fmt: skip


def a_run(home: Path, rows: list[dict[str, Any]], *overrides: str) -> Run:
    (home / "distill" / "rollouts").mkdir(parents=True)
    (home / "recipe.yaml").write_text(dump_recipe(load_recipe(RECIPE, [f"run.dir={home}", *overrides])))
    store_rows(home / "distill" / "rollouts", 50, rows)
    return Run(home)


def test_the_failed_rollout_with_its_gap_in_one_place_is_shown_with_its_problem(tmp_path: Path) -> None:
    spread = rollout(3, "x y z", [9.0, 9.0, 9.0])
    there = rollout(5, "x 3 end", [0.0, 8.0, 0.0])
    passed = rollout(6, "x 4 end", [0.0, 30.0, 0.0], score=1.0)
    cut = rollout(7, "x 5 end", [0.0, 30.0, 0.0], finish="length")
    run = a_run(tmp_path, [spread, there, passed, cut])
    found = find_example(run)
    assert found is not None
    seen = DigitTasks("train", "image", 6, 2)[5].messages[0]
    assert (found.read, found.seen, found.answer) == (there["prompt"], seen.text, "3")
    assert found.image.tobytes() == seen.images[0].tobytes()
    assert [t for t, _ in found.tokens] == ["x", "3", "end"]
    assert [round(g, 3) for _, g in found.tokens] == [0.0, 8.0, 0.0]
    file = draw_example(tmp_path)
    assert file == tmp_path / "example.svg" and marks(file.read_text())[1] == ("3", "over", 1.0)


@pytest.mark.parametrize(
    ("row", "overrides"),
    [
        (rollout(5, "x 3 end", [0.0, 8.0, 0.0], score=1.0), ()),
        (rollout(5, "x 3 end", [0.0, 1.0, 0.0]), ()),
        (rollout(5, "x 3 end", [0.0, 8.0, 0.0]), ("tasks.train.form=image",)),
    ],
    ids=["passed", "the teacher agreed", "trained on pictures"],
)
def test_nothing_is_drawn_where_nothing_shows_it(
    row: dict[str, Any], overrides: tuple[str, ...], tmp_path: Path
) -> None:
    a_run(tmp_path, [row], *overrides)
    assert draw_example(tmp_path) is None and not (tmp_path / "example.svg").exists()


def test_the_picture_of_the_documentation_is_one_of_these() -> None:
    """Its colours are those of the gaps it names, and its problem is one of the demo's, in both forms."""
    svg = (ROOT / "docs" / "assets" / "example.svg").read_text()
    root = ElementTree.fromstring(svg)
    titles = [one.findtext(f"{SVG}title", "") for one in root.iter(f"{SVG}g")]
    gaps = [float(title.rpartition(": ")[2].split()[0].replace(MINUS, "-")) for title in titles]
    texts = [one.text or "" for one in root.iter(f"{SVG}text")]
    written = next(t for t in texts if t.startswith("digits "))
    question, answered = texts[texts.index(written) + 1], next(t for t in texts if "Answer" in t)
    tasks = DigitTasks("train", "text", 20000, 2)
    (image,) = root.iter(f"{SVG}image")
    asked = (written, question)
    places = [i for i, p in enumerate(tasks.problems) if (f"digits {p.digit_words} .", p.question) == asked]
    twins = [DigitTasks("train", "image", i + 1, 2)[i].messages[0].images[0] for i in places]
    assert image.get("href", "") in [thumbnail(twin) for twin in twins]
    assert answered.endswith(f"right {tasks[places[0]].reference}.")
    for (_, kind, share), gap in zip(marks(svg), gaps, strict=True):
        assert share == pytest.approx(min(1.0, abs(gap) / 3), abs=0.01) and (kind == "over" or gap <= 0)
    assert len(svg) < 10_000
