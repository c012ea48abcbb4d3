"""Small files of exactly the layouts in which training sets are published, with the dirty rows they are known for."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import layouts
from layouts import parquet

if TYPE_CHECKING:
    from pathlib import Path


def picture(word: str) -> bytes:
    return layouts.picture(word, (60, 40))


def struct(word: str) -> dict[str, Any]:
    return {"bytes": picture(word), "path": f"{word}.png"}


def turns(asked: str | None, answered: str | None, *, who: str = "role", what: str = "content") -> list[dict[str, Any]]:
    names = ("user", "assistant")
    return [{who: name, what: text} for name, text in zip(names, (asked, answered), strict=True)]


R1 = "<think>\nTwo and two.\n</think>\n\nIt is \\boxed{4}."


def mixture_of_thoughts(home: Path) -> Path:
    """Two whole rows; one without an answer, one that ends with the question, one with a blank answer."""
    rows = [
        {"messages": turns("What is 2 + 2?", R1), "num_tokens": 12, "source": "open-r1/OpenR1-Math-220k"},
        {"messages": turns("Name a prime.", "<think>\n</think>\n\n7"), "num_tokens": 4, "source": "nvidia/x"},
        {"messages": turns("What is 2 + 3?", "  "), "num_tokens": 0, "source": "nvidia/x"},
        {"messages": turns("What is 2 + 4?", R1)[:1], "num_tokens": 0, "source": "nvidia/x"},
        {"messages": [], "num_tokens": 0, "source": "nvidia/x"},
    ]
    return parquet(home / "math" / "train-00000-of-00001.parquet", rows)


def orz(question: str, value: Any, **more: Any) -> list[dict[str, Any]]:
    return [
        {"from": "human", "value": question},
        {"from": "assistant", "ground_truth": {"value": value, "pass_at_n": 0.25} | more},
    ]


def orz57k(home: Path) -> Path:
    """A list of pairs. Golds with dollars, a box, as a number; an empty and a missing gold, a duplicate, no pair, and
    a gold that its grader cannot read."""
    rows: list[Any] = [
        orz("What is 3 + 5?", "8"),
        orz(r"Simplify $\frac{2}{4}$.", r"$\frac{1}{2}$"),
        orz("What is 7 - 2?", r"\boxed{5 }"),
        orz("What is 4 + 9?", 13),
        orz("What is   3 + 5 ?", "8"),
        orz("What is nothing?", ""),
        orz("What is lost?", None),
        [{"from": "human", "value": "Alone?"}],
        orz("Which of these?", "\\frac{"),
    ]
    file = home / "orz_math_57k_collected.json"
    file.write_text(json.dumps(rows, indent=1))
    return file


def deepmath(home: Path) -> Path:
    rows = [
        {
            "question": f"Evaluate the limit number {n}.",
            "final_answer": str(n),
            "difficulty": float(n),
            "topic": "Mathematics -> Calculus",
            "r1_solution_1": f"Solution {n}, first.",
            "r1_solution_2": f"Solution {n}, second.",
            "r1_solution_3": "",
        }
        for n in (4, 6, 8)
    ]
    return parquet(home / "data" / "train-00000-of-00001.parquet", rows)


def openthoughts(home: Path) -> Path:
    whole = "<|begin_of_thought|>\n\nHm.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n4.\n\n<|end_of_solution|>"
    rows = [
        {"system": "Your role is ...", "conversations": turns("2 + 2?", whole, who="from", what="value")},
        {"system": "Your role is ...", "conversations": turns("2 + 5?", whole[:40], who="from", what="value")},
    ]
    return parquet(home / "data" / "train-00000-of-00001.parquet", rows)


def openthoughts_metadata(home: Path) -> Path:
    plain = {"ground_truth_solution": "", "domain": "math", "source": "aops", "test_cases": None, "starter_code": None}
    rows = [
        {"problem": "2 + 2?", "deepseek_reasoning": "Hm.", "deepseek_solution": "4.", **plain},
        {"problem": "2 + 6?", "deepseek_reasoning": "Hm.", "deepseek_solution": None, **plain},
    ]
    return parquet(home / "metadata" / "train-00000-of-00001.parquet", rows)


def openthoughts3(home: Path) -> Path:
    said = turns("2 + 2?", R1, who="from", what="value")
    said[0]["from"], said[1]["from"] = "human", "gpt"
    rows = [{"difficulty": 7, "source": "s", "domain": "math", "conversations": said}]
    return parquet(home / "data" / "train-00000-of-00001.parquet", rows)


def geometry3k(home: Path) -> Path:
    """A marker and its picture; a picture too few; a picture that is none; an answer in degrees; choices by letter."""
    plain: dict[str, Any] = {"choices": None}
    rows = [
        {"images": [struct("a")], "problem": "<image>Find $x$.", "answer": "3", **plain},
        {"images": [struct("b")], "problem": "<image>Find $x$.", "answer": r"65^\circ", **plain},
        {"images": [struct("c")], "problem": "<image><image>Find y.", "answer": "3", **plain},
        {"images": [{"bytes": b"no picture", "path": None}], "problem": "<image>Find z.", "answer": "3", **plain},
        {"images": [struct("d")], "problem": "<image>Find w.", "answer": "B", "choices": ["1", "2", "3", "4"]},
    ]
    return parquet(home / "data" / "train-00000-of-00001.parquet", rows)


def mmk12(home: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"id": "m1", "question": "As shown, A. 1 B. 2", "answer": "B", "subject": "math", "image": struct("m")},
        {"id": "m1", "question": "How many?", "answer": "12", "subject": "physics", "image": struct("n")},
        {"id": "m3", "question": "What is A?", "answer": "A", "subject": "math", "image": None},
    ]
    return parquet(home / "data" / "train-00000-of-00001.parquet", rows)


def virl39k(home: Path) -> Path:
    """Paths into a zip beside the table, several pictures a row, one that is not there."""
    common: dict[str, Any] = {"category": "Geometry", "source": "s", "PassRate_32BTrained": 0.5}
    rows: list[dict[str, Any]] = [
        {"qid": "q1", "question": "<image>\n<image>\nWhich? (A) l (B) r", "answer": r"\boxed{B}", **common},
        {"qid": "q2", "question": "<image>\nHow long?", "answer": r"\boxed{12}", **common},
        {"qid": "q3", "question": "<image>\nGone?", "answer": r"\boxed{1}", **common},
    ]
    for row, names in zip(rows, (["images/1.png", "images/2.png"], ["images/3.png"], ["images/4.png"]), strict=True):
        row["image"] = names
    with zipfile.ZipFile(home / "images.zip", "w") as archive:
        for n in (1, 2, 3):
            archive.writestr(f"images/{n}.png", picture(str(n)))
    return parquet(home / "39Krelease.parquet", rows)
