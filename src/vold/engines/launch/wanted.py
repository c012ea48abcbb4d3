"""Which servers a stage needs, and where they run."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vold.engines.launch.spec import Keys, Role, Wanted
from vold.engines.transfer.starting import CANDIDATES, PICTURES, server_arguments
from vold.errors import CheckpointError, ConfigError
from vold.model.families import family_of
from vold.model.loading import stage_models
from vold.model.reading import read_config
from vold.run.model_sections import RolloutServer, groups_of
from vold.run.precision import precision
from vold.run.shipped import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.run.model_sections import Launch, Launchable, Server
    from vold.run.recipe import Recipe
    from vold.run.teacher_sections import ScoringModel, TextTeacher

ROLES: dict[str, Role] = {"teacher": "teacher", "eval": "tested"}
JUDGE = "judge"
"""In the place of a stage's name: when an evaluation has all answers, and a judge marks them."""
MAX_LOGPROBS = 20
"""vLLM's own `--max-logprobs`."""


def servers_of(recipe: Recipe, stage: str, path: str | None = None) -> list[Wanted]:
    """The servers that a stage starts.

    Args:
        recipe: says where.
        stage: its name, or `JUDGE`.
        path: of an evaluation, the model that is tested; the first of them by default.

    Raises:
        ConfigError: there is no vLLM to start.
    """
    return [
        one
        for keys, section, (model, dtype) in sections(recipe, stage, path)
        if section.launch is not None
        for one in _servers(recipe, keys, section, section.launch, model, dtype)
    ]


def sections(recipe: Recipe, stage: str, path: str | None = None) -> Iterator[tuple[Keys, Launchable, tuple[str, str]]]:
    """Sections of servers that a stage uses: keys, section, model and its precision. Args: `servers_of`."""
    e, d, b, final = recipe.eval, recipe.distill, recipe.balance, str(recipe.run.dir / "sft" / "final")
    s = recipe.student
    dtype = precision(recipe, s.path, s.dtype) if s is not None else "auto"
    checked = stage == "align" and recipe.align is not None and recipe.align.self_check
    if _uses_teacher(recipe, stage):
        for keys, one in _teachers(recipe, stage).items():
            if one.server is not None:
                section = _while_answering(recipe, one.server) if (len(keys), stage) == (1, "traces") else one.server
                model = stage_models(recipe).get("sft", recipe.learner.path) if checked else one.path
                yield (*keys, "server"), section, (model, precision(recipe, one.path, one.dtype))
    if d is not None and d.engine is not None and (stage == "distill" or checked):
        yield ("distill", "engine"), d.engine, (d.init or final, dtype)
    if b is not None and b.engine is not None and stage == "balance":
        yield ("balance", "engine"), b.engine, (b.init or final, dtype)
    if e is not None and e.endpoint is not None and e.endpoint.launch is not None and stage == "eval":
        yield ("eval", "endpoint"), e.endpoint, (path or next(iter(stage_models(recipe).values())), dtype)
    if e is not None and e.judge is not None and stage == JUDGE:
        yield ("eval", "judge"), e.judge, (e.judge.model, "auto")


def _teachers(recipe: Recipe, stage: str) -> dict[Keys, ScoringModel]:
    """All that a stage asks, by where they stand in the recipe."""
    if recipe.teacher is None:
        return {}
    found: dict[Keys, TextTeacher] = {("teacher",): recipe.teacher}
    found |= {("teacher", "routes", n): t for n, t in recipe.teacher.routes.items()}
    asked = [one for one in recipe.scoring_models if stage == "distill"]
    bases: dict[Keys, ScoringModel] = {
        (*keys, "base"): one for keys, t in found.items() for one in asked if one is t.base
    }
    return {**found, **bases}


def _uses_teacher(recipe: Recipe, stage: str) -> bool:
    if stage == "traces":
        return recipe.traces is not None and recipe.traces.answers == "teacher"
    if stage == "distill":
        return recipe.distill is not None and recipe.distill.objective.uses_teacher
    return stage == "align"


def _while_answering(recipe: Recipe, server: Server) -> Server:
    """A teacher's section while it answers prompts."""
    more = recipe.traces.devices if recipe.traces is not None else None
    if more is None or server.launch is None:
        return server
    return server.model_copy(update={"launch": server.launch.model_copy(update={"devices": more})})


def _servers(
    recipe: Recipe, keys: Keys, section: Launchable, launch: Launch, model: str, dtype: str
) -> Iterator[Wanted]:
    role: Role = ROLES.get(keys[0], "rollouts")
    path = resolve(model)
    path = str(Path(path).resolve()) if Path(path).is_dir() else path
    served = section.model or ("student" if role == "rollouts" else model)
    sleep, python = getattr(section, "sleep", False), _python(launch, ".".join(keys))
    taught = isinstance(section, RolloutServer) and section.transfer != "files"
    lora = recipe.student.lora if taught and recipe.student is not None else None
    sees = role != "tested" and _sees(path if role == "teacher" else resolve(recipe.learner.path))
    for number, group in enumerate(groups_of(launch.devices)):
        options = ["--model", path, "--served-model-name", served, "--dtype", dtype, "--generation-config", "vllm"]
        options += ["--tensor-parallel-size", str(len(group))] * (len(group) > 1)
        options += ["--enable-sleep-mode"] * sleep + ["--disable-uvicorn-access-log"]
        own = _options_of(role, recipe)
        options += [*own, *(one for one in (PICTURES if sees else ()) if one not in own)]
        options += [*(server_arguments(lora) if taught else ()), *launch.args]
        yield Wanted(
            keys=keys, role=role, model=model, served=served, devices=group, number=0 if group else number, sleep=sleep,
            taught=taught, lora=lora, sees=sees, options=tuple(options), python=python,
            start_seconds=launch.start_seconds,
        )  # fmt: skip


def _sees(path: str) -> bool:
    """Whether a model takes pictures. One that is not there yet is none; starting its server says so."""
    with contextlib.suppress(CheckpointError):
        return bool(family_of(read_config(path)).tower)
    return False


def _options_of(role: Role, recipe: Recipe) -> list[str]:
    if role == "tested":
        return []
    distill, most, options = recipe.distill, 0, list[str]()
    if role == "rollouts":
        options += ["--logprobs-mode", "processed_logprobs"]
        most = distill.sampling.params(told=True).kept if distill is not None else 0
    else:
        options += ["--no-enable-prefix-caching"]
    if distill is not None:
        needs = distill.objective.needs
        most = max(most, needs.candidates, needs.top_k if role == "teacher" else 0)
        options += [CANDIDATES] * (role == "teacher" and needs.candidates > 0)
    return options + ["--max-logprobs", str(most)] * (most > MAX_LOGPROBS)


def _python(launch: Launch, key: str) -> str:
    """The interpreter that has vLLM."""
    if launch.python is not None:
        # Not resolved: an interpreter knows its environment by the link that it is called by.
        if os.access(launch.python, os.X_OK) and launch.python.is_file():
            return os.path.abspath(launch.python)
        got, fix = (
            str(launch.python),
            "name an interpreter that has vLLM, such as DIR/bin/python of a virtual environment",
        )
        raise ConfigError("there is no such program", where=f"{key}.launch.python", got=got, fix=fix)
    if importlib.util.find_spec("vllm") is not None:
        return sys.executable
    beside = Path(shutil.which("vllm") or "").parent / "python"
    if shutil.which("vllm") and os.access(beside, os.X_OK):
        return str(beside)
    raise ConfigError(
        "there is no vLLM to start servers with",
        where=f"{key}.launch",
        fix="install it in an environment of its own (it pins packages) and name that one's interpreter: launch.python",
    )
