"""Every image-text type of the installed Transformers: a tiny model of each that can be made, and its certificate.

`PYTHONPATH=src:tests/helpers python tests/helpers/model_sweep.py` writes docs/models.md; behind it, `TYPE ...` tries
these alone and writes nothing. More types can be tried where torchvision is installed.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import logging

import model_docs
import tiny_models
from vold.errors import VoldError
from vold.evals.certificates import certificate_of
from vold.model.certificate import REFUSED, certify, use
from vold.model.families import family_of, image_text_class
from vold.model.policy import Policy
from vold.model.processors import PROCESSORS
from vold.model.trial import ALSO

MEMORY, SECONDS = 6 * 2**30, 60.0
"""Bytes of address space, and of CPU time a type: where a size goes by a name that `tiny_models` does not know, a model
or its picture is no tiny one."""
TYPES = tuple(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
MARKS = tuple(f"<!-- {edge}: all types, written by tests/helpers/model_sweep.py -->" for edge in ("begin", "end"))
OUTCOMES = {
    "certified": "every test passes",
    "falls back": "it is used, without what failed",
    "refused": "in words, before anything runs",
    "not made": "the command makes no tiny model of it: nothing is known",
}


class TooLarge(BaseException):
    """It takes more than `SECONDS`; no test of a certificate may take this for its own failure."""


def stop(*_: object) -> None:
    raise TooLarge


@dataclass(frozen=True)
class Tried:
    """What became of a type: one of `OUTCOMES`, and why."""

    outcome: str
    why: str = ""


def tried(kind: str) -> Tried:
    """A tiny model of a type, and what it is certified for."""
    try:
        config = CONFIG_MAPPING[kind]()
        if image_text_class(config) is None:
            return Tried("not made", "it takes no picture")
        with contextlib.suppress(AssertionError):  # defaults of its config that fit no model
            family_of(config)
        if kind not in PROCESSORS:
            return Tried("not made", "Transformers names no processor for it")
    except VoldError as error:
        return Tried("refused", error.what)
    except Exception as error:
        return Tried("not made", _said(error))
    try:
        return certified(tiny_models.tiny_model(kind))
    except Exception as error:  # of a model's, a processor's or a tokenizer's own code, whatever it may be
        return Tried("not made", _said(error).removeprefix(f"ImportError: {kind}: "))


def certified(policy: Policy) -> Tried:
    """What the certificate of a model lets it do, as `vold check` has it."""
    try:
        policy.certificate = certify(policy, ALSO)
        use(policy, policy.certificate)
        made = certificate_of(policy)
    except VoldError as error:
        differs = error.got.startswith("differs")
        return (
            Tried("refused", _said(error)) if differs else Tried("not made", f"its own pass fails: {error.got[:120]}")
        )
    if why := next(filter(None, map(made.why_not, REFUSED)), ""):
        return Tried("refused", why)
    without = [f"{way} ({made.why_not(way)})" for way, _ in made.not_used()]
    return Tried("falls back", "; ".join(without)) if without else Tried("certified")


def _said(error: Exception) -> str:
    if isinstance(error, VoldError):
        return f"{error.what}: {error.got[:120]}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def table(found: dict[str, Tried]) -> str:
    """Counts, then the types that are not certified, those of one reason in one row."""
    rows = [f"| of {len(found)} types | | |", "|---|---|---|"]
    groups: dict[Tried, list[str]] = defaultdict(list)
    for kind, one in sorted(found.items()):
        groups[one].append(kind)
    for outcome, meaning in OUTCOMES.items():
        rows.append(f"| {outcome} | {sum(one.outcome == outcome for one in found.values())} | {meaning} |")
    rows += ["", "| outcome | types | why |", "|---|---|---|"]
    for outcome in OUTCOMES:
        for one, kinds in groups.items():
            if one.outcome == outcome:
                names = ", ".join(f"`{k}`" for k in kinds)
                rows.append(f"| {outcome} | {names} | {one.why.replace('|', chr(92) + '|') or '-'} |")
    return "\n".join(rows)


def sweep(kinds: Iterable[str]) -> dict[str, Tried]:
    """Try each, and say what became of it."""
    found = {}
    for kind in kinds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                found[kind] = tried(kind)
            except TooLarge:
                found[kind] = Tried("not made", "one of its sizes goes by a name that is not known here")
            signal.setitimer(signal.ITIMER_PROF, 0)
        print(f"{kind}: {found[kind].outcome}: {found[kind].why}", flush=True)
    return found


def write(found: dict[str, Tried]) -> None:
    head, _, rest = model_docs.PAGE.read_text().partition(MARKS[0])
    made = f"{MARKS[0]}\n\nTransformers {transformers.__version__}:\n\n{table(found)}\n\n{MARKS[1]}"
    model_docs.PAGE.write_text(f"{head}{made}{rest.partition(MARKS[1])[2]}")


if __name__ == "__main__":
    logging.set_verbosity_error()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, stop)
    outcomes = sweep(sys.argv[1:] or TYPES)
    if not sys.argv[1:]:
        write(outcomes)
