"""What rows of people's own files are called elsewhere, in the words of `kind: jsonl`.

Its keys are `prompt`, `reference`, `response` and `images`. A row may call them by the names below, and question and
solution may be a conversation (`messages`), as trainers take it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vold.data.files.read import Cells
from vold.errors import DataError
from vold.types import IMAGE_MARKER

USUAL = {
    "question": "prompt", "problem": "prompt", "answer": "reference", "ground_truth": "reference", "image": "images",
}  # fmt: skip
"""Other names of keys."""


def renamed(raw: Any) -> Any:
    """A row with the keys of `kind: jsonl`. A key that is there under both names stays, as an unknown one.

    Raises:
        DataError: a conversation of more than a question and its answer.

    Example:
        >>> renamed({"question": "2 + 3?", "answer": 5, "image": "a.png"})
        {'prompt': '2 + 3?', 'reference': 5, 'images': ('a.png',)}
    """
    if not isinstance(raw, Mapping):
        return raw
    given = dict(raw)
    if "messages" in given and "prompt" not in given:
        given |= _conversation(given.pop("messages"))
    out: Cells = {}
    for key, value in given.items():
        name = USUAL.get(key, key)
        name = key if name in out or (name != key and name in given) else name
        out[name] = value
    if isinstance(found := out.get("images"), str | list):
        out["images"] = (found,) if isinstance(found, str) else tuple(found)
    return out


def _conversation(turns: Any) -> dict[str, str]:
    """Prompt, and response if there is one, of a question with perhaps an answer."""
    roles = [turn.get("role") for turn in turns if isinstance(turn, Mapping)] if isinstance(turns, list) else []
    if roles not in (["user"], ["user", "assistant"]) or len(roles) != len(turns):
        raise DataError(
            "a row is one question, and perhaps its solution",
            got=", ".join(map(str, roles)),
            fix="keep one `user` turn, with a system text in front of it, and at most one `assistant` turn",
        )
    texts = [_text(turn.get("content")) for turn in turns]
    return dict(zip(("prompt", "response"), texts, strict=False))


def _text(content: Any) -> str:
    """Of a turn; a picture among its parts becomes a marker."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise DataError("a turn has no text", fix="give `content` as text, or as a list of parts")
    return "".join(IMAGE_MARKER if part.get("type") == "image" else str(part.get("text", "")) for part in parts)
