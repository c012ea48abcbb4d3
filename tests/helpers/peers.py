"""Scorers of other programs, each called in the environment that `make test-peers` sets up for them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vold.data.benchmarks.item import Item
from vold.evals.marking.llm_judge import option_texts
from vold.evals.prompting import build_messages
from vold.types import IMAGE_MARKER

HELPERS = Path(__file__).parent
SOURCES = HELPERS.parents[1] / "build" / "peers"
PYTHON = os.environ.get("VOLD_PEERS_PYTHON", "")

DATASETS = {
    "mmstar": "MMStar",
    "mmmu": "MMMU_DEV_VAL",
    "mmmu_pro_standard10": "MMMU_Pro_10c_COT",
    "mmmu_pro_vision": "MMMU_Pro_V_COT",
    "wemath": "WeMath_COT",
    "visulogic": "VisuLogic",
    "mathvista": "MathVista_MINI",
    "mathvision": "MathVision",
    "mathverse": "MathVerse_MINI",
    "mathverse_vision_only": "MathVerse_MINI_Vision_Only_cot",
    "logicvista": "LogicVista",
    "olympiadbench_mm_maths": "OlympiadBench",
    "dynamath": "DynaMath",
    "emma_mini": "EMMA_COT",
    "mme": "MME",
    "hallusionbench": "HallusionBench",
}
"""VLMEvalKit's name of each benchmark that it has."""

_DYNAMATH = {"choice": "multiple choice", "float": "float", "text": "text"}


def call(script: str, source: str, calls: Sequence[dict[str, Any]]) -> list[Any]:
    """Run a script of this folder in the peers' environment; a result for each call."""
    lines = "".join(json.dumps(c) + "\n" for c in calls)
    command = [PYTHON, "-W", "ignore", str(HELPERS / script), str(SOURCES / source)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(calls), done.stderr[-2000:]
    failed = [r["error"] for r in results if isinstance(r, dict) and "error" in r]
    assert not failed, failed[:3]
    return results


def line(item: Item, text: str = "") -> dict[str, Any]:
    """An item and an answer as a line of VLMEvalKit's table of predictions."""
    options = option_texts(item) if item.options or item.form == "text" else {}
    found = {"index": 1, "question": item.question, "answer": item.answer, "GT": item.answer, "prediction": text}
    if item.benchmark in ("mme", "hallusionbench"):
        return found | {"answer": {"A": "Yes", "B": "No"}[item.answer]}
    if item.benchmark == "mathvista":
        kind = "multi_choice" if item.form == "choice" else "free_form"
        choices = {"choices": repr(list(item.options)), "question_type": kind, "answer_type": item.form}
        return found | choices | {"question": item.query or item.question, "answer_option": item.answer}
    if item.benchmark == "mathvision":
        found["question"] = build_messages(item, "vlmevalkit")[0].text.replace(IMAGE_MARKER, "")
        return found | {"choices": repr(list(item.options) or ["A", "B", "C", "D", "E"] * (item.form == "choice"))}
    if item.benchmark.startswith("mathverse"):
        return found | {"question_for_eval": item.for_judge or item.question, "query_cot": item.query}
    if item.benchmark == "dynamath":
        return found | {"answer_type": _DYNAMATH[item.form]}
    if item.benchmark == "olympiadbench_mm_maths":
        return found | {"final_answer": item.answer}
    if item.benchmark == "emma_mini":
        found |= {
            "question": item.for_judge or item.question,
            "type": "MCQ" if item.options else "Open",
            "context": None,
        }
        return found | (options if item.options else {})
    if item.benchmark == "mmmu_pro_vision":
        found["question"] = "placeholder"
    if item.form == "text":
        found["GT"] = "A"
    return found | options
