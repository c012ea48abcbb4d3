r"""Functions of the lmms-eval task `vold_local`. Copied to where vold is not installed, so they need only Pillow.

`same_text` is the share of answers whose last `\boxed{}`, or last "Answer:", is the gold answer letter for letter: a
sign of life, below the accuracy. Marking is done by vold, from the samples that lmms-eval logs.
"""

from __future__ import annotations

import io
import re
from typing import Any, TypeAlias

IMAGE = "<image>"
Row: TypeAlias = dict[str, Any]


def doc_to_visual(doc: Row) -> list[Any]:
    """The question's pictures, for models that take them apart from the text."""
    from PIL import Image

    return [Image.open(io.BytesIO(picture["bytes"])).convert("RGB") for picture in doc["images"]]


def doc_to_text(doc: Row, lmms_eval_specific_kwargs: Any = None) -> str:
    """The question without the marks of its pictures' places."""
    return str(doc["prompt"]).replace(IMAGE, "")


def doc_to_messages(doc: Row, lmms_eval_specific_kwargs: Any = None) -> list[Row]:
    """The question as a chat, each picture in its place, or first where the text has no places."""
    pictures, pieces = doc_to_visual(doc), str(doc["prompt"]).split(IMAGE)
    if len(pieces) == 1:
        pieces = [""] * len(pictures) + pieces
    if len(pieces) != len(pictures) + 1:
        raise ValueError(f"question {doc['id']}: {len(pieces) - 1} places for {len(pictures)} pictures")
    content: list[Row] = []
    for i, piece in enumerate(pieces):
        if i:
            content.append({"type": "image", "url": pictures[i - 1]})
        if piece.strip():
            content.append({"type": "text", "text": piece})
    return [{"role": "user", "content": content}]


def process_results(doc: Row, results: list[str]) -> dict[str, float]:
    """Whether the answer is the gold answer letter for letter."""
    text = results[0].rpartition("</think>")[2]
    boxed = text.rpartition("\\boxed{")
    found = _closed(boxed[2]) if boxed[1] else (re.findall(r"Answer:\s*([^\n]*)", text) or [""])[-1]
    return {"same_text": float(_bare(found) == _bare(str(doc["answer"])))}


def _closed(text: str) -> str:
    depth = 1
    for i, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[:i]
    return ""


def _bare(text: str) -> str:
    return text.strip().strip("$*. ").strip("()").casefold()
