"""The table of docs/models.md: what `vold check` certifies of tiny models of published architectures.

`PYTHONPATH=src:tests/helpers python tests/helpers/model_docs.py` writes it again; rows of models whose pictures
Transformers prepares with torchvision alone stay as they are where that is not installed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import tiny
import tiny_models
from vold.evals.preflight import check
from vold.model.policy import Policy
from vold.model.trial import BLIND, PLAIN, WAYS
from vold.run.recipe import recipe_from

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
STUDENTS = {
    "qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL", "qwen3_vl_moe": "Qwen3-VL, mixture of experts",
    "qwen3_5": "Qwen3.5, hybrid attention", "gemma3": "Gemma 3", "internvl": "InternVL",
    "llava_onevision": "LLaVA-OneVision", "llava_next": "LLaVA-NeXT", "idefics3": "Idefics3", "smolvlm": "SmolVLM",
    "glm4v": "GLM-4V", "gemma4": "Gemma 4", "mistral3": "Mistral Small 3.1 (Pixtral)", "llama4": "Llama 4",
}  # fmt: skip
"""Image-text models, by `model_type`."""
TEACHERS = {
    "qwen3": "Qwen3", "llama": "Llama 3", "mistral": "Mistral", "gemma2": "Gemma 2", "gemma3_text": "Gemma 3, text",
    "gpt_oss": "GPT-OSS, mixture of experts",
}  # fmt: skip
"""Models of text alone. Any of `STUDENTS` teaches as well."""
WANT_TORCHVISION = ("gemma4", "mistral3", "llama4")
CELLS = {"passed": "yes", "not applicable": "-"}


def made(kind: str) -> Policy:
    """The tiny model of a kind."""
    return tiny_models.tiny_model(kind) if kind in STUDENTS else tiny_models.tiny_reader(kind)


def checked(kind: str, home: Path, policy: Policy | None = None) -> list[str]:
    """What `vold check` says of a recipe whose student is of a kind."""
    (policy or made(kind)).save(home / "student")
    raw = tiny.recipe_dict(home)
    raw = {name: raw[name] for name in ("run", "student", "tasks", "distill")}
    raw["distill"] |= {"objective": {"method": "grpo"}, "tasks": "image" if kind in STUDENTS else "train"}
    raw["student"]["freeze"] = ["vision"] if kind in STUDENTS else []
    raw["tasks"] = {name: {**these, "size": 2} for name, these in raw["tasks"].items()}
    return check(recipe_from(raw, where=kind))


def outcomes(lines: Sequence[str]) -> dict[str, str]:
    """By test, what a check printed of it."""
    said = (line.removeprefix("warn: ") for line in lines)
    found = (re.fullmatch(r"certificate: (.*?): (passed|not applicable|failed, .*)", line) for line in said)
    return {m[1]: m[2] for m in found if m}


def heading() -> str:
    names = ["model", *WAYS, "as Transformers", "text leaves the tower alone"]
    return f"| {' | '.join(names)} |\n{'|---' * len(names)}|"


def row(kind: str, found: dict[str, str]) -> str:
    """One model's line."""
    ways = [*WAYS.values(), (PLAIN,), (BLIND,)]
    cells = [CELLS.get(_worst([found[t] for t in tests]), "no") for tests in ways]
    return f"| {(STUDENTS | TEACHERS)[kind]} (`{kind}`) | {' | '.join(cells)} |"


def _worst(said: Sequence[str]) -> str:
    return next((one for one in said if one not in CELLS), said[0])


def write() -> None:
    """Write the table into its page."""
    before = PAGE.read_text()
    lines = [heading()]
    for kind in STUDENTS | TEACHERS:
        if kind in WANT_TORCHVISION and find_spec("torchvision") is None:
            lines += [line for line in before.splitlines() if f"(`{kind}`)" in line]
            continue
        with tempfile.TemporaryDirectory() as home:
            lines.append(row(kind, outcomes(checked(kind, Path(home)))))
    head, _, rest = before.partition(MARKS[0])
    PAGE.write_text(f"{head}{MARKS[0]}\n\n" + "\n".join(lines) + f"\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


MARKS = tuple(f"<!-- {edge}: certificates, written by tests/helpers/model_docs.py -->" for edge in ("begin", "end"))

if __name__ == "__main__":
    write()
