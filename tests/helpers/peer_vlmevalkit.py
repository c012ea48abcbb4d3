"""VLMEvalKit's own prompts and verdicts, called in an environment of its own: `python peer_vlmevalkit.py CLONE`.

A call is a line of JSON on the standard input, its result a line on the standard output. Packages of VLMEvalKit whose
`__init__` imports all of its models and data sets are entered without it. Its judge is a stand-in that says what the
call says; where it draws an option at random, the result is the chance of a right draw.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

CLASSES = {
    "MMStar": "image_mcq.ImageMCQDataset",
    "MMMU_DEV_VAL": "image_mcq.MMMUDataset",
    "MMMU_Pro_10c_COT": "image_mcq.MMMUProDataset",
    "MMMU_Pro_V_COT": "image_mcq.MMMUProDataset",
    "WeMath_COT": "image_mcq.WeMath",
    "VisuLogic": "image_mcq.VisuLogic",
    "MathVista_MINI": "image_vqa.MathVista",
    "MathVision": "image_vqa.MathVision",
    "MathVerse_MINI": "image_vqa.MathVerse",
    "MathVerse_MINI_Vision_Only_cot": "image_vqa.MathVerse",
    "LogicVista": "image_vqa.LogicVista",
    "OlympiadBench": "image_vqa.OlympiadBench",
    "DynaMath": "dynamath.Dynamath",
    "EMMA_COT": "emma.EMMADataset",
    "MME": "image_yorn.ImageYORNDataset",
    "HallusionBench": "image_yorn.ImageYORNDataset",
}


def enter(root: Path) -> None:
    """Make the packages that are entered without their `__init__`."""
    for name in ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.utils"):
        module = types.ModuleType(name)
        module.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = module
    vars(sys.modules["vlmeval.dataset.utils"]).update(DEBUG_MESSAGE="", build_judge=None)


def utils(name: str) -> Any:
    return importlib.import_module(f"vlmeval.dataset.utils.{name}")


class Judge:
    """Says `extract`, or `agree` where it is asked whether two answers are consistent; keeps what it was asked."""

    def __init__(self, extract: str, agree: str) -> None:
        self.extract, self.agree = extract, agree
        self.asked: list[str] = []

    def generate(self, prompt: str, **_: Any) -> str:
        self.asked.append(prompt)
        return self.agree if "Judement" in prompt else self.extract


class Drawn(Exception):
    """An option was to be drawn from so many."""


class Draws:
    """In place of the module `random`."""

    def choice(self, options: list[str]) -> str:
        raise Drawn(len(options))


def ask(dataset: str, line: dict[str, Any], pictures: int) -> str:
    """What a model is asked, `<image>` for a picture."""
    module, _, cls = CLASSES[dataset].partition(".")
    made = object.__new__(getattr(importlib.import_module(f"vlmeval.dataset.{module}"), cls))
    vars(made).update(dataset_name=dataset, meta_only=True, dump_image=lambda _: ["a"] * pictures)
    parts = made.build_prompt(row({**line, "image_path": ["a"] * pictures}))
    return "".join("<image>" if part["type"] == "image" else part["value"] for part in parts)


def row(line: dict[str, Any]) -> Any:
    return importlib.import_module("pandas").Series(line, dtype=object)


def verdict(dataset: str, line: dict[str, Any], judge: Judge) -> float:
    """What it gives for `line["prediction"]`."""
    try:
        return float(VERDICTS[dataset](row(line), judge))
    except Drawn as drawn:
        return 1 / int(drawn.args[0])


def options(line: Any, judge: Judge, dataset: str = "MMStar") -> float:
    module = utils("multiple_choice")
    module.rd = Draws()
    if dataset.endswith("_COT") and dataset.startswith("MMMU"):
        mcq = importlib.import_module("vlmeval.dataset.image_mcq")
        line["prediction"] = object.__new__(mcq.MMMUProDataset).cot_postproc(line["prediction"])
    return float(module.eval_vanilla(judge, line, dataset)["hit"])


def yes_no(line: Any, judge: Judge) -> bool:
    module = utils("yorn")
    said = module.YOrN_Extraction(line["prediction"])
    said = module.YOrN_auxeval(judge, line) if said == "Unknown" else said
    return bool(said == line["answer"])


def mathvista(line: Any, judge: Judge) -> bool:
    module = utils("mathvista")
    return bool(module.post_check(row({**line, "res": module.MathVista_auxeval(judge, line)["res"]})))


def mathvision(line: Any, judge: Judge) -> bool:
    module = utils("mathv")
    return bool(module.post_check(row({**line, "res": module.MATH_V_auxeval(judge, line)["res"]})))


def mathverse(line: Any, judge: Judge) -> bool:
    module = utils("mathverse")
    extract = module.MathVerse_auxeval_extract(judge, line)["extract"]
    return bool(module.MathVerse_auxeval_score(judge, row({**line, "extract": extract}))["score"])


def dynamath(line: Any, judge: Judge) -> bool:
    return bool(importlib.import_module("vlmeval.dataset.dynamath").DynaMath_auxeval(judge, line)["correct"])


def emma(line: Any, judge: Judge) -> float:
    module = importlib.import_module("vlmeval.dataset.image_shortqa")
    utils("multiple_choice").rd = Draws()
    return float(module.Comprehensive_auxeval(judge, line)["hit"])


def olympiadbench(line: Any, judge: Judge) -> bool:
    module = utils("olympiadbench")
    found = module.extract_answer(False, line["prediction"], is_deepseek=False)
    return bool(module.MathJudger().judge(found, line["final_answer"]))


VERDICTS: dict[str, Any] = {
    "MMStar": options,
    "MMMU_DEV_VAL": options,
    "MMMU_Pro_10c_COT": lambda line, judge: options(line, judge, "MMMU_Pro_10c_COT"),
    "MMMU_Pro_V_COT": lambda line, judge: options(line, judge, "MMMU_Pro_V_COT"),
    "WeMath_COT": lambda line, judge: options(line, judge, "WeMath_COT"),
    "VisuLogic": lambda line, _: utils("visulogic").extract_answer(line["prediction"])[0] == line["answer"],
    "MathVista_MINI": mathvista,
    "MathVision": mathvision,
    "MathVerse_MINI": mathverse,
    "MathVerse_MINI_Vision_Only_cot": mathverse,
    "LogicVista": lambda line, judge: utils("logicvista").LogicVista_auxeval(judge, line)["hit"],
    "OlympiadBench": olympiadbench,
    "DynaMath": dynamath,
    "EMMA_COT": emma,
    "MME": yes_no,
    "HallusionBench": yes_no,
}


def call(wanted: dict[str, Any]) -> Any:
    """`ask`: a prompt. Else a verdict and what the judge was asked on the way."""
    if wanted["what"] == "ask":
        return ask(wanted["dataset"], wanted["line"], wanted["pictures"])
    judge = Judge(wanted["extract"], wanted["agree"])
    given = verdict(wanted["dataset"], wanted["line"], judge)
    return {"verdict": given, "asked": judge.asked}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # it prints on the way
    enter(Path(sys.argv[1]))
    for line in sys.stdin:
        try:
            result = call(json.loads(line))
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
