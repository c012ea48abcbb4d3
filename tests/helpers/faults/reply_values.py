"""What can be wrong in the JSON of a reply: fields with values of every type and size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from faults.lying import Lie
from faults.reply_wholes import WHOLE, Path, left_out, put

JUNK: dict[str, Any] = {
    "null": None, "true": True, "false": False, "a string": "x", "a number as a string": "-1.0", "an empty string": "",
    "a list": [1], "an empty list": [], "an object": {"a": 1}, "an empty object": {}, "NaN": math.nan,
    "infinity": math.inf, "minus infinity": -math.inf, "1e308": 1e308, "-1e308": -1e308, "10^40": 10**40,
    "-10^40": -(10**40), "5": 5, "0.5": 0.5, "-3": -3,
}  # fmt: skip
"""Values of every type of JSON, and the numbers that Python's JSON has beside it."""

VALUES = 3
"""Of these for each field."""

FIELDS: dict[str, tuple[tuple[Path, tuple[str, ...]], ...]] = {
    "score": (
        (("choices",), ()),
        (("choices", 0), ()),
        (("choices", 0, "index"), ()),
        (("choices", 0, "prompt_logprobs"), ()),
        (("choices", 0, "prompt_logprobs", -2), ()),
        (("choices", 0, "prompt_logprobs", -2, "*"), ()),
        (("choices", 0, "prompt_logprobs", -2, "*", "logprob"), ("-3", "false")),
        (("choices", 0, "prompt_token_ids"), ("null",)),
        (("choices", 0, "prompt_token_ids", 2), ()),
    ),
    "sample": (
        (("choices",), ()),
        (("choices", 0), ()),
        (("choices", 0, "index"), ()),
        (("choices", 0, "token_ids"), ()),
        (("choices", 0, "token_ids", 1), ("5",)),
        (("choices", 0, "logprobs"), ()),
        (("choices", 0, "logprobs", "token_logprobs"), ()),
        (("choices", 0, "logprobs", "token_logprobs", 1), ("-3", "false")),
        (("choices", 0, "finish_reason"), ("null",)),
        (("choices", 0, "prompt_token_ids"), ("null",)),
        (("choices", 0, "prompt_token_ids", 1), ()),
    ),
    "candidates": ((("prompt_token_id_logprobs",), ()),),
    "chat": (
        (("choices",), ()),
        (("choices", 0), ()),
        (("choices", 0, "message"), ()),
        (("choices", 0, "message", "content"), ("a string", "a number as a string", "an empty string", "null")),
        (("usage",), ("left out", "null")),
        (("usage", "completion_tokens"), ("left out", "5", "null")),
    ),
    "judge": ((("choices", 0, "message", "content"), ("a string", "a number as a string", "an empty string", "null")),),
    "/v1/models": ((("data",), ()), (("data", 0), ()), (("data", 0, "id"), ()), (("data", 0, "max_model_len"), ("5",))),
    "/weight_info": ((("weight_version",), ()),),
    "likeliest": (
        (("choices", 0, "prompt_logprobs", -2, "*", "logprob"), ("-3", "false")),
        (("choices", 0, "prompt_logprobs", -2, "*", "rank"), ("5",)),
    ),
    "tops": (
        (("choices", 0, "logprobs", "top_logprobs"), ()),
        (("choices", 0, "logprobs", "top_logprobs", 1), ()),
        (("choices", 0, "logprobs", "top_logprobs", 1, "*"), ("-3", "false")),
    ),
}
"""The fields of each kind of reply, with the values that no client can tell from right ones."""


def values(scene: str, about: str) -> Iterator[Lie]:
    """Each field of a kind of reply left out, and with some of the values, others for each field; then whole replies.

    It is the second such reply that is wrong where there are several: the first is that of the probe.
    """
    first = 1 if about.startswith("/") or about == "candidates" else 2
    kind = "likeliest" if scene == "likeliest" else "tops" if (scene, about) == ("candidates", "sample") else about
    unused = "log-prob" if scene == "traces" else "nothing"
    turn = itertools.cycle(JUNK)
    for path, fine in FIELDS.get(kind, ()):
        if unused == "log-prob" and "token_logprobs" in path:
            continue
        where = ".".join(map(str, path))
        if "left out" not in fine:
            yield Lie(f"no {where}", about, left_out(path), first=first)
        for name in itertools.islice((n for n in turn if n not in fine), VALUES):
            yield Lie(f"{where} is {name}", about, put(path, JUNK[name]), first=first)
    for name, change in WHOLE.get(kind, {}).items():
        if unused not in name:
            yield Lie(name, about, change, first=first, lasting=name.startswith("always"))
