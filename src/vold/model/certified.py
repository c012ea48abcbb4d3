"""Certificates of the models of a run: made once, kept in its directory, and used the same when it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import transformers

from vold.model import trial
from vold.model.certificate import Certificate, certify, use
from vold.model.parallel import ALONE
from vold.model.trial import ALSO, PLAIN, WAYS
from vold.run.console import console
from vold.run.directory import CERTIFICATES
from vold.run.files import read_json, write_json
from vold.run.lock import is_ours

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from vold.model.parallel import Processes
    from vold.model.policy import Policy


NOT_ALWAYS = ("pictures", "rollouts", *ALSO)
WHOLE = frozenset({PLAIN, *(test for way, tests in WAYS.items() if way not in NOT_ALWAYS for test in tests)})
"""Tests that any model has a part in."""


@dataclass(frozen=True)
class Stored:
    """What a run has found out, by model and test; see `Certificate.found`."""

    models: Mapping[str, Mapping[str, str]]


def certified(policy: Policy, run: Path | None, group: Processes = ALONE, also: Collection[str] = ()) -> Certificate:
    """Let a model that was just loaded do what it is certified for, and say in one line each what it is not used for.

    Args:
        policy: the model.
        run: a run directory, whose certificate of this model is used, or which is given one if this process is at work
            there; None to try it anew.
        group: the processes that train the model together, all of which must ask.
        also: see `certify`.

    Raises:
        CheckpointError: see `certify`; or the run's file cannot be read.
    """
    file = None if run is None or not run.is_dir() else run / CERTIFICATES
    stored = Stored({}) if file is None else read_json(file, Stored, absent=Stored({}))
    name = _identity(policy)
    known = dict(stored.models.get(name, {}))
    whole = known.keys() >= WHOLE | {test for way in also for test in WAYS[way]}
    mine = known if whole else certify(policy, also).found | known
    every = group.gather(mine)  # all of them must go the same way
    found = {test: next((one[test] for one in every if one[test]), "") for test in mine}
    if file is not None and group.first and not whole and is_ours(file):
        write_json(file, Stored({**stored.models, name: found}))
    made = Certificate(found)
    use(policy, made)
    if group.first and run is not None:
        for way, why in made.not_used():
            console.print(f"{policy.model.config.model_type}: {way} not used: {why}", markup=False)
    return made


def _identity(policy: Policy) -> str:
    """What decides how a model computes, but for its weights."""
    model = policy.model
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else str(model.device)
    said = [type(model).__name__, str(model.dtype), device, transformers.__version__, torch.__version__]
    config = {n: v for n, v in model.config.to_dict().items() if n not in ("_name_or_path", "transformers_version")}
    pictures = "" if policy.chat.processor is None else policy.chat.processor.to_json_string()
    tests = repr((WAYS, trial.NEAR))
    digest = hashlib.sha256("\n".join([*said, repr(config), pictures, tests]).encode()).hexdigest()[:16]
    return f"{model.config.model_type} {said[1].removeprefix('torch.')} {device} {digest}"
