"""Cells of published data freed of their dirt: gold answers, lists written as text."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from vold.errors import DataError
from vold.graders.extract import balanced


def listed(value: Any) -> list[str]:
    """A list that may be written as text, in Python's or JSON's way; [] for nothing.

    Raises:
        DataError: text that is no list.
    """
    if value is None or value == "":
        return []
    if isinstance(value, str):
        for read in (ast.literal_eval, json.loads):
            try:
                parsed = read(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(parsed, (list, tuple)):
                return [str(v) for v in parsed]
        raise DataError("the options are not a list", got=value[:100])
    return [str(v) for v in value]


def clean_gold(text: str) -> str:
    r"""A gold answer without the dirt that data sets carry: lost backslashes, dollar signs, a box, blanks, `{degrees}`.

    Example:
        >>> clean_gold("\x0crac{36}{13}"), clean_gold("$\\boxed{11 }$"), clean_gold("69{degrees}")
        ('\\frac{36}{13}', '11', '69')
    """
    # "\frac" and "\text" written without escaping become a form feed or a tab and the rest of the word.
    text = text.replace("\x0crac", r"\frac").replace("\text{", r"\text{").replace("\times", r"\times")
    text = text.strip()
    for _ in range(3):
        if len(text) > 1 and text[0] == text[-1] == "$":
            text = text.strip("$").strip()
        boxed = re.fullmatch(r"\\boxed\{(.*)\}", text, re.DOTALL)
        text = boxed[1].strip() if boxed and balanced(boxed[1]) else text
    return re.sub(r"\s*(?:\{degrees\}|\\?\^\{?\\circ\}?|°)$", "", text).strip()
