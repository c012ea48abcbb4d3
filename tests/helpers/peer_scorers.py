"""Other scorers, called in an environment of their own: `python peer_scorers.py FOLDER`, as peer_vlmevalkit.py is.

A call names a scorer and has a question's gold, options and the answer's text; its result is whether it is right. What
only draws pictures, downloads or counts is left out of the scorers' imports.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(sys.argv[1])


class Undecided(Exception):
    """It draws an option at random, or gives up."""


class Draws:
    """In place of the module `random`."""

    def choice(self, options: list[str]) -> str:
        raise Undecided


def module(name: str, **attributes: Any) -> types.ModuleType:
    """An empty module of that name."""
    made = types.ModuleType(name)
    vars(made).update(attributes)
    sys.modules[name] = made
    return made


@cache
def load(path: str, name: str) -> Any:
    """A file of a peer as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@cache
def math_v_module() -> Any:
    module("fire")
    module("latex2sympy2", latex2sympy=importlib.import_module("latex2sympy2_extended").latex2sympy)
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/data")
        Path(folder, "data", "test.jsonl").write_text("")
        os.chdir(folder)
        load("MATH-V/evaluation/utils.py", "utils")
        found = load("MATH-V/evaluation/evaluate.py", "math_v")
        os.chdir(here)
    return found


def math_v(call: dict[str, Any]) -> bool:
    found = math_v_module()
    found.id_raw = {"1": {"answer": call["gold"], "options": call["options"] or list("ABCDE") * call["choice"]}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "answers.jsonl")
        file.write_text(json.dumps({"id": "1", "response": call["text"]}) + "\n")
        found.evaluate(str(file))
        return bool(json.loads(file.read_text())["correct"])


def mmmu_pro(call: dict[str, Any]) -> bool:
    found = load("MMMU/mmmu-pro/evaluate.py", "mmmu_pro")
    found.random = Draws()
    line = {"id": "1", "options": repr(call["options"]), "answer": call["gold"], "response": call["text"]}
    return bool(found.mmmu_process_results(line)["if_right"])


def mathvista(call: dict[str, Any]) -> bool:
    """Of what its judge extracts: all that it says is right or wrong."""
    module("cv2"), module("word2number", w2n=None), module("datasets", load_dataset=None)
    load("MathVista/utilities.py", "utilities")
    found = load("MathVista/evaluation/calculate_score.py", "calculate_score")
    kind = "multi_choice" if call["choice"] else "free_form"
    said = found.normalize_extracted_answer(call["says"], call["options"], kind, call["form"], call["precision"])
    gold = call["options"]["ABCDEFGHIJKL".index(call["gold"])] if call["choice"] else call["gold"]
    return bool(found.safe_equal(said, gold))


def lm_eval() -> Path:
    """Where it is installed: its tasks are not to be imported, as they bring everything along."""
    found = importlib.util.find_spec("lm_eval")
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def gsm8k(call: dict[str, Any]) -> bool:
    """`flexible-extract`: the last number."""
    task = (lm_eval() / "tasks" / "gsm8k" / "gsm8k.yaml").read_text()
    (pattern,) = re.findall(r"group_select: -1\s+regex_pattern: (.+)", task) or re.findall(
        r"regex_pattern: (.+)\s+group_select: -1", task
    )
    extracted = importlib.import_module("lm_eval.filters.extraction").RegexFilter(pattern.strip("'\""), group_select=-1)
    said = extracted.apply([[call["text"]]], [{}])
    first = next(iter(next(iter(said))))
    return bool(re.sub(r",|\$|\.$", "", first) == call["gold"].replace(",", ""))


def hendrycks(call: dict[str, Any]) -> bool:
    module("datasets", Dataset=None)
    found = load(str(lm_eval() / "tasks" / "hendrycks_math" / "utils.py"), "hendrycks_math")
    boxed = found.last_boxed_only_string(call["text"])
    if boxed and not boxed.startswith("\\boxed{"):
        raise Undecided  # it stops at a box of another kind
    said = found.remove_boxed(boxed) if boxed else call["text"]
    return bool(found.is_equiv(said, call["gold"]))


def math_verify(call: dict[str, Any]) -> bool:
    found = importlib.import_module("math_verify")
    return bool(found.verify(found.parse(f"${call['gold']}$"), found.parse(call["text"])))


def lmms_mmstar(call: dict[str, Any]) -> bool:
    found = load("lmms-eval/lmms_eval/tasks/_task_utils/mcq_extract.py", "mcq_extract")
    return bool(found.extract_mcq_answer(call["text"], choices=["A", "B", "C", "D"]) == call["gold"])


def lmms_mmmu_pro(call: dict[str, Any]) -> bool:
    found = load("lmms-eval/lmms_eval/tasks/_task_utils/mmmu_mcq_utils.py", "mmmu_mcq_utils")
    found.random = Draws()
    texts, letters = found.get_multi_choice_info(call["options"])
    return bool(found.parse_mmmu_multi_choice_response(call["text"], letters, texts) == call["gold"])


SCORERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "MATH-V": math_v,
    "MMMU-Pro": mmmu_pro,
    "MathVista": mathvista,
    "lm-eval gsm8k": gsm8k,
    "lm-eval hendrycks_math": hendrycks,
    "Math-Verify": math_verify,
    "lmms-eval mmstar": lmms_mmstar,
    "lmms-eval mmmu_pro": lmms_mmmu_pro,
}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        wanted = json.loads(line)
        try:
            result: Any = SCORERS[wanted["scorer"]](wanted)
        except Undecided:
            result = False
        except Exception as error:
            result = {"error": f"{wanted['scorer']}: {type(error).__name__}: {error}"}
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
