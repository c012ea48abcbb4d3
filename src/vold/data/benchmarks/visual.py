"""Adapters of the image benchmarks: a row of the published layout to an `Item`.

An adapter raises `DataError` for a row that cannot be asked or marked, and `MissingColumn` for a wrong layout.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vold.data.benchmarks.columns import (
    LETTERS,
    cell,
    letter_answer,
    numbered_pictures,
    pictures,
    tags,
    text_cell,
)
from vold.data.benchmarks.item import Item
from vold.data.files.cells import clean_gold, listed
from vold.data.files.markers import numbered
from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.data.files.read import Row


def _options(row: Row, name: str) -> tuple[str, ...]:
    found = tuple(numbered(o) for o in listed(cell(row, name)))
    if not 0 < len(found) <= len(LETTERS):
        raise DataError("no options, or more than have letters", got=str(len(found)))
    return found


def mmmu_pro(name: str, row: Row) -> Item:
    """MMMU-Pro, standard settings: pictures in columns, markers in question and options, 1 to 12 options."""
    options = _options(row, "options")
    identity = text_cell(row, "id")
    return Item(
        name,
        identity,
        numbered(text_cell(row, "question")),
        options,
        numbered_pictures(row),
        letter_answer(row, options, "answer"),
        "choice",
        cluster=identity,
        tags=tags(row, subject="subject", difficulty="topic_difficulty"),
    )


def mmmu_pro_vision(name: str, row: Row) -> Item:
    """MMMU-Pro, vision setting: question and options stand in the picture."""
    options = _options(row, "options")
    identity = text_cell(row, "id")
    images = pictures(row, "image")
    if not images:
        raise DataError("the question is in the picture, and there is none")
    answer = letter_answer(row, options, "answer")
    return Item(
        name, identity, "", options, images, answer, "choice", cluster=identity, tags=tags(row, subject="subject")
    )


def mmmu(name: str, row: Row) -> Item:
    """MMMU: choices, and open questions whose gold may be a list of accepted answers."""
    identity = text_cell(row, "id")
    question, images = numbered(text_cell(row, "question")), numbered_pictures(row)
    form: Any
    options: tuple[str, ...]
    if cell(row, "question_type") == "open":
        gold = text_cell(row, "answer").strip()
        accepted = listed(gold) if gold.startswith("[") else [gold]
        if not any(a.strip() for a in accepted):
            raise DataError("the gold answer is empty")
        answer, form, options = "\n".join(a.strip() for a in accepted), "text", ()
    else:
        options = _options(row, "options")
        answer, form = letter_answer(row, options, "answer"), "choice"
    found = tags(row, subfield="subfield", difficulty="topic_difficulty")
    subject = re.sub(r"^(?:validation|dev|test)_|_\d+$", "", identity)
    return Item(
        name, identity, question, options, images, answer, form, cluster=identity, tags={"subject": subject, **found}
    )


def mathvision(name: str, row: Row) -> Item:
    """MATH-Vision. Options that are only A to E stand in the picture. One merged picture serves all markers."""
    identity = text_cell(row, "id")
    options = tuple(numbered(o) for o in listed(cell(row, "options")))
    gold = clean_gold(text_cell(row, "answer"))
    if not gold:
        raise DataError("the gold answer is empty")
    in_picture = options == tuple(LETTERS[: len(options)])
    choice = bool(options) and len(gold) == 1 and gold in LETTERS[: len(options)]
    if options and not choice:
        raise DataError("the gold answer is no option", got=f"{gold!r} of {len(options)} options")
    return Item(
        name,
        identity,
        numbered(text_cell(row, "question")),
        () if in_picture else options,
        pictures(row, "decoded_image" if "decoded_image" in row.values else "image"),
        gold,
        "choice" if choice else "math",
        cluster=identity,
        tags=tags(row, subject="subject", level="level"),
    )


def mathvista(name: str, row: Row) -> Item:
    """MathVista. The gold of a choice is an option's text; duplicates take the first letter."""
    identity = text_cell(row, "pid", "_key")
    options = tuple(listed(cell(row, "choices")))
    gold = text_cell(row, "answer").strip()
    metadata: Any = row.values.get("metadata") or {}
    if not gold:
        raise DataError("there is no gold answer", got="the split `test` has none; use testmini")
    form: Any = text_cell(row, "answer_type")
    if cell(row, "question_type") == "multi_choice":
        if gold not in options:
            raise DataError("the gold answer is no option", got=gold[:80])
        gold, form = LETTERS[options.index(gold)], "choice"
    elif form not in ("integer", "float", "list"):
        form = "text"
    precision = row.values.get("precision")
    found = {k: str(metadata[k]) for k in ("task", "category", "source", "context", "grade") if metadata.get(k)}
    return Item(
        name,
        identity,
        text_cell(row, "question"),
        options,
        pictures(row, "decoded_image" if "decoded_image" in row.values else "image"),
        gold,
        form,
        cluster=identity,
        precision=None if precision in (None, "") else int(float(str(precision))),
        unit=str(row.values["unit"]) if row.values.get("unit") else None,
        query=str(row.values["query"]) if row.values.get("query") else None,
        tags=found,
    )


def logicvista(name: str, row: Row) -> Item:
    """LogicVista: letters, some of them several; options mostly in the picture; one gold is a number."""
    identity = text_cell(row, "_key", "index", "id")
    gold, question = text_cell(row, "answer").strip(), text_cell(row, "question").strip()
    if not gold or not question:
        raise DataError("the question or its answer is empty")
    form: Any = "letters" if re.fullmatch(r"[A-La-l](?:\s*,\s*[A-La-l])*", gold) else "text"
    answer = ", ".join(sorted(re.findall(r"[A-L]", gold.upper()))) if form == "letters" else gold
    skills = listed(row.values.get("skill")) if str(row.values.get("skill", "")).startswith("[") else None
    skill = ", ".join(skills) if skills else text_cell(row, "skill")
    image_columns = ("image",) if "image" in row.values else ("imagename", "image_path")
    images = pictures(row, *image_columns)
    return Item(
        name, identity, question, (), images, answer, form, cluster=identity, tags={"skill": skill} if skill else {}
    )


def mathverse(name: str, row: Row) -> Item:
    """MathVerse: 788 problems in five versions. The question of a vision-only row stands in the picture."""
    identity = text_cell(row, "sample_index")
    version = text_cell(row, "problem_version")
    metadata: Any = row.values.get("metadata") or {}
    gold = clean_gold(text_cell(row, "answer"))
    choice = text_cell(row, "question_type") == "multi-choice"
    if choice:
        gold = letter_answer(row, (), "answer")
    if not gold:
        raise DataError("the gold answer is empty")
    found = {"version": version} | {k: str(metadata[k]) for k in ("subject", "subfield") if metadata.get(k)}
    return Item(
        name,
        identity,
        text_cell(row, "question"),
        (),
        pictures(row, "image"),
        gold,
        "choice" if choice else "math",
        cluster=text_cell(row, "problem_index"),
        query=str(row.values["query_cot"]) if row.values.get("query_cot") else None,
        for_judge=str(row.values["question_for_eval"]) if row.values.get("question_for_eval") else None,
        tags=found,
    )


def wemath(name: str, row: Row) -> Item:
    """We-Math: the steps of a composite problem and the problem itself, which share the column `ID`. Tags `key`
    ("2steps_1", "3steps_multi") and `composite` (that ID) are what the four-dimension score needs."""
    key, composite = text_cell(row, "key"), text_cell(row, "ID", "_key")
    options = tuple(re.sub(r"^\s*[A-L]\s*[.:)]\s*", "", o) for o in _semicolons(text_cell(row, "option")))
    found = tags(row, concept="knowledge concept")
    return Item(
        name,
        f"{composite}/{key}",
        text_cell(row, "question"),
        options,
        pictures(row, "image_path"),
        letter_answer(row, options, "answer"),
        "choice",
        cluster=composite,
        tags={"key": key, "composite": composite, **found},
    )


def _semicolons(text: str) -> Sequence[str]:
    """Options "A. ..;B. ..": split only where a letter follows, since texts hold semicolons themselves."""
    return [o for o in re.split(r"\s*;\s*(?=[A-L]\s*[.:)])", text.strip().strip(";")) if o]


def dynamath(name: str, row: Row) -> Item:
    """DynaMath: 501 seed questions in ten variants, each of which is a split: its number is in the file's name."""
    kind, seed = text_cell(row, "answer_type"), text_cell(row, "id")
    forms: Any = {"float": "float", "multiple choice": "choice", "text": "text"}
    if kind not in forms:
        raise DataError("unknown answer type", got=kind)
    gold = text_cell(row, "ground_truth").strip()
    if kind == "multiple choice":
        gold = letter_answer(row, (), "ground_truth")
    named = re.search(r"variant_?(\d+)", row.where)
    variant = named[1] if named else str(row.values.get("variant") or "1")
    return Item(
        name,
        f"{seed}/{variant}",
        text_cell(row, "question"),
        (),
        pictures(row, "decoded_image" if "decoded_image" in row.values else "image"),
        gold,
        forms[kind],
        cluster=seed,
        tags={"variant": variant} | tags(row, subject="subject", level="knowledge_level"),
    )


def mmstar(name: str, row: Row) -> Item:
    """MMStar: four options written into the question."""
    identity = text_cell(row, "index")
    return Item(
        name,
        identity,
        text_cell(row, "question"),
        (),
        pictures(row, "image"),
        letter_answer(row, (), "answer"),
        "choice",
        cluster=identity,
        tags=tags(row, category="category", skill="l2_category"),
    )
