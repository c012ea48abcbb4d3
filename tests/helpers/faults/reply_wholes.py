"""Replies that are wrong as a whole, and how a body is changed."""

from __future__ import annotations

import base64
import copy
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from faults.lying import Change

Path = tuple[str | int, ...]
"""Keys and places from a body's root to a field; `*` is the first key of an object."""


def _at(body: Any, path: Path) -> tuple[Any, Any]:
    """The container of a field and its key there."""
    for key in path[:-1]:
        body = body[next(iter(body)) if key == "*" else key]
    return body, next(iter(body)) if path[-1] == "*" else path[-1]


def put(path: Path, value: Any) -> Change:
    """A field with another value."""

    def change(body: Any) -> Any:
        place, key = _at(body, path)
        place[key] = value
        return body

    return change


def left_out(path: Path) -> Change:
    """A body without a field."""

    def change(body: Any) -> Any:
        place, key = _at(body, path)
        del place[key]
        return body

    return change


def _logprobs(how: Callable[[float], float]) -> Change:
    """Every log-prob of a scored text changed."""

    def change(body: Any) -> Any:
        for row in body["choices"][0]["prompt_logprobs"][1:]:
            for entry in row.values():
                entry["logprob"] = how(entry["logprob"])
        return body

    return change


def _sampled(how: Callable[[list[Any]], list[Any]], name: str = "logprobs", only: int | None = None) -> Change:
    """A list of every sampled answer changed, or of one of them: its log-probs, or its ids."""

    def change(body: Any) -> Any:
        for i, choice in enumerate(body["choices"]):
            if only is None or i == only:
                place, key = (choice["logprobs"], "token_logprobs") if name == "logprobs" else (choice, name)
                place[key] = how(place[key])
        return body

    return change


def _top_lists(how: Callable[[list[Any]], list[Any]]) -> Change:
    def change(body: Any) -> Any:
        for choice in body["choices"]:
            choice["logprobs"]["top_logprobs"] = how(choice["logprobs"]["top_logprobs"])
        return body

    return change


def _tops(how: Callable[[dict[str, float]], dict[str, Any]]) -> Change:
    return _top_lists(lambda tops: [how(top) for top in tops])


def _each(how: Callable[[float], float]) -> Change:
    return _sampled(lambda logps: [how(v) for v in logps])


def _choices(how: Callable[[list[Any]], list[Any]]) -> Change:
    return lambda body: {**body, "choices": how(body["choices"])}


def _ends_early(body: Any) -> Any:
    """The end token in the middle: id 2 in the tokenizer of these models."""
    for choice in body["choices"]:
        choice["token_ids"][0] = END
    return body


END = 2


def _longer(body: Any) -> Any:
    for choice in body["choices"]:
        if choice["finish_reason"] == "length":
            choice["token_ids"] += [5]
            choice["logprobs"]["token_logprobs"] += [-1.0]
    return body


def _array(how: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Change:
    """The scores of candidates changed, as a file of numpy's."""

    def change(body: Any) -> Any:
        values = np.load(io.BytesIO(base64.b64decode(body["prompt_token_id_logprobs"])))
        return _file(how(values))

    return change


def _file(values: np.ndarray[Any, Any]) -> Any:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return _bytes(buffer.getvalue())


def _bytes(raw: bytes) -> Any:
    return {"choices": [], "prompt_token_id_logprobs": base64.b64encode(raw).decode()}


def _header(text: str) -> bytes:
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


def _one(values: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    changed = values.copy()
    changed[0, 0] = value
    return changed


def _rows(how: Callable[[list[Any]], list[Any]]) -> Change:
    def change(body: Any) -> Any:
        choice = body["choices"][0]
        choice["prompt_logprobs"] = how(choice["prompt_logprobs"])
        return body

    return change


def _ranks(how: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    return _rows(lambda rows: [rows[0], *(how(row) for row in rows[1:])])


def _renamed(row: dict[str, Any], name: str) -> dict[str, Any]:
    """The likeliest token that was not sent under another name."""
    other = list(row)[-1]
    return {(name if key == other else key): entry for key, entry in row.items()}


WHOLE: dict[str, dict[str, Change]] = {
    "score": {
        "every log-prob is NaN": _logprobs(lambda v: math.nan),
        "every log-prob is positive": _logprobs(lambda v: -v),
        "every log-prob is 0": _logprobs(lambda v: 0.0),
        "every log-prob is -3": _logprobs(lambda v: -3.0),
        "probabilities in place of log-probs": _logprobs(math.exp),
        "per cent in place of log-probs": _logprobs(lambda v: 100 * math.exp(v)),
        "every log-prob is text": lambda body: json.loads(
            json.dumps(_logprobs(lambda v: v)(body))
            .replace('"logprob": ', '"logprob": "')
            .replace(', "rank"', '", "rank"')
        ),
        "every log-prob is below vLLM's lowest": _logprobs(lambda v: -1e5),
        "always another model": _logprobs(lambda v: v * 1.5),
        "always log2": _logprobs(lambda v: v / math.log(2)),
        "always another temperature": _logprobs(lambda v: v * 0.5),
        "rows one to the left": _rows(lambda rows: [*rows[1:], rows[0]]),
        "rows one to the right": _rows(lambda rows: [rows[-1], *rows[:-1]]),
        "a row too many": _rows(lambda rows: [*rows, rows[-1]]),
        "a row too few": _rows(lambda rows: rows[:-1]),
        "rows in another order": _rows(lambda rows: [rows[0], *rows[:0:-1]]),
        "no rows": _rows(lambda rows: []),
        "two answers": _choices(lambda c: [*c, *copy.deepcopy(c)]),
        "no answer": _choices(lambda c: []),
        "another prompt": lambda body: put(("choices", 0, "prompt_token_ids"), [1, 2, 3])(body),
        "a begin token in front": lambda body: _rows(lambda rows: [None, *rows])(body),
        "an error under status 200": lambda body: {"error": {"message": "engine dead", "code": 500}},
        "an aborted answer": put(("choices", 0, "finish_reason"), "abort"),
    },
    "likeliest": {
        "likeliest tokens left out": _ranks(lambda row: dict(list(row.items())[:1])),
        "one of the likeliest left out": _ranks(lambda row: dict(list(row.items())[:-1])),
        "ranks from 0": _ranks(lambda row: {k: e | {"rank": e["rank"] - 1} for k, e in row.items()}),
        "all ranks 1": _ranks(lambda row: {k: e | {"rank": 1} for k, e in row.items()}),
        "ranks the other way": _ranks(lambda row: {k: e | {"rank": max(1, 4 - e["rank"])} for k, e in row.items()}),
        "an id beyond the vocabulary": _ranks(lambda row: _renamed(row, "1000000")),
        "an id beyond int32": _ranks(lambda row: _renamed(row, "99999999999")),
        "an id of 5,000 digits": _ranks(lambda row: _renamed(row, "9" * 5000)),
        "a negative id": _ranks(lambda row: _renamed(row, "-5")),
        "an id in words": _ranks(lambda row: _renamed(row, "token_id:5")),
        "an id with a blank": _ranks(lambda row: _renamed(row, " 5")),
        "an id without a name": _ranks(lambda row: _renamed(row, "")),
        "an id in other digits": _ranks(lambda row: _renamed(row, "\u0665")),
        "every log-prob is 0": _logprobs(lambda v: 0.0),
        "every log-prob is half": _logprobs(lambda v: v / 20),
        "probabilities in place of log-probs": _logprobs(math.exp),
        "every log-prob is NaN": _logprobs(lambda v: math.nan),
        "the sent token is likelier than the likeliest": _ranks(
            lambda row: {
                k: e | ({"logprob": -0.0001} if i == 0 and e["rank"] > 3 else {})
                for i, (k, e) in enumerate(row.items())
            }
        ),
    },
    "sample": {
        "every log-prob is 0": _each(lambda v: 0.0),
        "every log-prob is -3": _each(lambda v: -3.0),
        "every log-prob is NaN": _each(lambda v: math.nan),
        "every log-prob is positive": _each(lambda v: -v),
        "probabilities in place of log-probs": _each(math.exp),
        "log-probs in base 2": _each(lambda v: v / math.log(2)),
        "log-probs in base 10": _each(lambda v: v / math.log(10)),
        "log-probs of temperature 2": _each(lambda v: v / 2),
        "log-probs of temperature 0.5": _each(lambda v: v * 2),
        "log-probs summed up": _sampled(lambda v: [sum(v[: i + 1]) for i in range(len(v))]),
        "log-probs one to the left": _sampled(lambda v: [*v[1:], v[0]]),
        "log-probs the other way": _sampled(lambda v: v[::-1]),
        "a log-prob of vLLM's lowest": _sampled(lambda v: [-9999.0, *v[1:]]),
        "a log-prob below vLLM's lowest": _sampled(lambda v: [-1e30, *v[1:]]),
        "a log-prob of -200": _sampled(lambda v: [-200.0, *v[1:]]),
        "a log-prob too few": _sampled(lambda v: v[:-1]),
        "a log-prob too many": _sampled(lambda v: [*v, -1.0]),
        "no log-probs": _sampled(lambda v: []),
        "log-probs of one answer are text": _sampled(lambda v: [str(x) for x in v], only=0),
        "other ids with the same log-probs": _sampled(
            lambda v: [20 + (i * 7) % 60 for i in v[:-1]] + v[-1:], "token_ids"
        ),
        "ids as floats": _sampled(lambda v: [float(i) for i in v], "token_ids"),
        "ids as text": _sampled(lambda v: [str(i) for i in v], "token_ids"),
        "ids as lists": _sampled(lambda v: [[i] for i in v], "token_ids"),
        "ids beyond the vocabulary": _sampled(lambda v: [1000, *v[1:]], "token_ids"),
        "ids beyond int32": _sampled(lambda v: [2**31, *v[1:]], "token_ids"),
        "ids beyond int64": _sampled(lambda v: [2**70, *v[1:]], "token_ids"),
        "negative ids": _sampled(lambda v: [-1, *v[1:]], "token_ids"),
        "no ids": _sampled(lambda v: [], "token_ids"),
        "the end token in the middle": _ends_early,
        "responses longer than the budget": _longer,
        "two answers too many": _choices(lambda c: [*c, *copy.deepcopy(c)]),
        "an answer too few": _choices(lambda c: c[:-1]),
        "no answer": _choices(lambda c: []),
        "an answer twice": _choices(lambda c: [c[0]] * len(c) if len(c) > 1 else [*c, *c]),
        "numbers from 1": _choices(lambda c: [x | {"index": x["index"] + 1} for x in c]),
        "cut short": lambda body: _sampled(lambda v: v[:1], "token_ids")(_sampled(lambda v: v[:1])(body)),
        "finish reason 'stop' without an end": _choices(lambda c: [x | {"finish_reason": "tool_calls"} for x in c]),
        "aborted answers": _choices(lambda c: [x | {"finish_reason": "abort"} for x in c]),
        "an error under status 200": lambda body: {"error": {"message": "engine dead", "code": 500}},
    },
    "candidates": {
        "a NaN": _array(lambda v: _one(v, math.nan)),
        "a number above 0": _array(lambda v: _one(v, 0.7)),
        "plus infinity": _array(lambda v: _one(v, math.inf)),
        "all 0": _array(lambda v: v * 0),
        "all -0.5": _array(lambda v: v * 0 - 0.5),
        "probabilities": _array(np.exp),
        "ten times as likely": _array(lambda v: v / 10),
        "another shape": _array(lambda v: v[:-1]),
        "turned round": _array(lambda v: v.T.copy()),
        "flat": _array(lambda v: v.ravel()),
        "a number alone": _array(lambda v: v[0, 0]),
        "whole numbers": _array(lambda v: v.astype(np.int64)),
        "booleans": _array(lambda v: v > -1),
        "complex numbers": _array(lambda v: v.astype(np.complex64)),
        "text": _array(lambda v: v.astype(str)),
        "objects": _array(lambda v: v.astype(object)),
        "no file of numpy's": lambda body: _bytes(b"hello"),
        "an empty file": lambda body: _bytes(b""),
        "a torn file": lambda body: _bytes(base64.b64decode(body["prompt_token_id_logprobs"])[:-4]),
        "a zip": lambda body: _bytes(b"PK\x03\x04" + bytes(40)),
        "a pickle": lambda body: _bytes(b"\x80\x04K\x01."),
        "a header of a terabyte": lambda body: _bytes(
            _header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }")
        ),
        "a header of brackets": lambda body: _bytes(_header("(" * 100)),
        "a header with a call": lambda body: _bytes(_header("{'descr': __import__('os').getcwd(), 'shape': ()}")),
    },
    "chat": {
        "two answers": _choices(lambda c: [*c, *copy.deepcopy(c)]),
        "content as parts": put(("choices", 0, "message", "content"), [{"type": "text", "text": "14"}]),
        "reasoning that is no text": put(("choices", 0, "message", "reasoning_content"), 5),
        "a finish reason that is no text": put(("choices", 0, "finish_reason"), 5),
        "an aborted answer": put(("choices", 0, "finish_reason"), "abort"),
        "an error under status 200": lambda body: {"error": {"message": "engine dead", "code": 500}},
        "an error in words under status 200": lambda body: {"error": "engine [/b] dead \x1b[31m"},
    },
    "tops": {
        "likeliest ids left out": _tops(lambda top: dict(list(top.items())[:2])),
        "likeliest ids in words": _tops(lambda top: {k.replace("token_id:", "the "): v for k, v in top.items()}),
        "likeliest ids beyond the vocabulary": _tops(lambda top: {k + "999": v for k, v in top.items()}),
        "likeliest ids beyond int64": _tops(lambda top: {k + "9" * 30: v for k, v in top.items()}),
        "likeliest ids of another token": _tops(lambda top: dict(list(top.items())[1:]) | {"token_id:9": -30.0}),
        "likeliest ids with chances above 1": _tops(lambda top: dict.fromkeys(top, -0.1)),
        "likeliest ids with probabilities": _tops(lambda top: {k: math.exp(v) for k, v in top.items()}),
        "likeliest ids with NaN": _tops(lambda top: dict.fromkeys(top, math.nan)),
        "likeliest ids of a token too few": _top_lists(lambda tops: tops[:-1]),
        "likeliest ids one to the left": _top_lists(lambda tops: [*tops[1:], tops[0]]),
    },
    "/weight_info": {"always another version": put(("weight_version",), "other/0")},
}
"""Whole replies that are wrong; those that begin with "always" stay so."""
