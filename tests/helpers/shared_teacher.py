"""What teachers say that two processes divide, beside whole ones. Prints one JSON object.

Arguments: a directory with the models of `tiny.recipe`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmark_scripts import load
from vold.engines.teachers.cached import CachedTeacher
from vold.engines.teachers.inprocess import InProcessTeacher, open_backend
from vold.engines.teachers.routed import RoutedTeacher
from vold.model.loading import load_model
from vold.model.parallel import Processes, processes
from vold.run.recipe import recipe_from
from vold.types import ScoreRequest, Teacher, TokenScores


def requests(count: int, first: int) -> list[ScoreRequest]:
    """Of different lengths, some with candidates and the teacher's own likeliest ids."""
    made = []
    for i in range(first, first + count):
        ids = np.arange(5 + i, 8 + 2 * i, dtype=np.int32) % 40
        candidates = np.stack([ids, (ids + 1) % 40], 1) if i % 2 else None
        made.append(ScoreRequest((3, 4 + i, 5), ids, candidates, top_k=i % 3))
    return made


def parts(scores: list[TokenScores]) -> list[list[Any]]:
    return [[None if v is None else v.tolist() for v in (s.logp, s.candidate_logp, s.top_logp)] for s in scores]


def compared(group: Processes, divided: Teacher, whole: Teacher, asked: list[ScoreRequest]) -> list[Any]:
    """What both say, of all processes."""
    return group.gather([parts(divided.score(asked)), parts(whole.score(asked))])


def main(home: Path) -> None:
    group = processes()
    recipe = recipe_from(yaml.safe_load((home / "recipe.yaml").read_text()), where="test")
    assert recipe.teacher is not None
    backend: Any = open_backend(recipe, recipe.teacher)
    spec = recipe.teacher
    whole = InProcessTeacher(load_model(recipe, spec.path, spec.dtype), temperature=0.7, token_budget=24)
    (probe,) = requests(1, 7)
    teacher = backend.scorer(probe, temperature=0.7, token_budget=24)
    model: Any = backend.modules[0]
    found: dict[str, Any] = {"probe": group.gather([parts([teacher.known]), parts(whole.score([probe]))])}
    for name, mine in {"uneven": (5, 1), "one has none": (4, 0), "nobody has any": (0, 0)}.items():
        found[name] = compared(group, teacher, whole, requests(mine[group.rank], 1 + 10 * group.rank))
    cached = CachedTeacher(teacher, home / f"cache-{group.rank}", "it")
    if group.first:  # the other one asks for all of its own, and the first for none
        CachedTeacher(whole, home / "cache-0", "it").score(requests(2, 1))
    found["cached"] = compared(group, cached, whole, requests(2, 1 + 10 * group.rank))
    routed = RoutedTeacher({"a": teacher, "b": teacher})
    asked = [replace(r, route="ab"[group.rank]) for r in requests(3, 1 + 10 * group.rank)]
    found["routed"] = compared(group, routed, whole, asked)
    both: tuple[Any, ...] = (teacher, whole)
    states = [t.distributions(requests(2, 1)).states if group.first else t.keep_step() for t in both]
    found["distributions"] = group.gather([None if s is None else s.tolist() for s in states])
    model.reshard()
    held = sum(p.to_local().numel() for p in model.parameters())
    found["held"] = group.gather([held, sum(p.numel() for p in whole.policy.model.parameters())])
    found["certificate"] = group.gather(backend.policy.certificate.found)
    if group.first:
        print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(load("nodes").fork(1, 2, lambda: main(Path(sys.argv[1]))))
