"""Stages of recipes on the pretended CUDA device and on the CPU, in one process (`pretended_cuda.run`).

What a function here returns has, by the name of a run, what `both` describes.
"""

from __future__ import annotations

import contextlib
import hashlib
import pkgutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

import families
import tiny
from engine_backends import text_model
from killed import weights_of
from package import ROOT
from pretended_cuda.device import Counts, counting
from served import on, raw_recipe
from tried import every_time, once
from vllm_server import VllmServer
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.evals.evaluate import evaluate
from vold.evals.overlap import align
from vold.evals.preflight import check
from vold.objective import Objective
from vold.objective.preset import Preset
from vold.objective.presets import PRESETS
from vold.run.console import console
from vold.run.files import read_jsonl
from vold.run.recipe import Recipe, load_recipe, recipe_from
from vold.training.balance import balance
from vold.training.distill import distill
from vold.training.learner import Learner
from vold.training.optim import apply_update
from vold.training.sft import sft
from vold.training.step import update
from vold.training.streams import flatten
from vold.training.traces import make_traces

STAGES: dict[str, Callable[[Recipe], Any]] = {
    "traces": make_traces,
    "align": align,
    "balance": balance,
    "sft": sft,
    "distill": distill,
    "eval": evaluate,
}
Make = Callable[[Path, str], Recipe]
"""From a folder and a device to a recipe that works there."""


@contextlib.contextmanager
def updates() -> Iterator[list[dict[str, Any]]]:
    """What the updates inside were: micro-batches, the host's waits by line, matrix products and attention."""
    found: list[dict[str, Any]] = []
    backward = Learner.backward
    micro_batches = 0

    def counted(*args: Any) -> None:
        nonlocal micro_batches
        micro_batches += 1
        backward(*args)

    def watched(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            before = micro_batches
            with counting() as counts:
                result = work(*args)
            made = {"micro_batches": micro_batches - before, "waits": counts.waits, "totals": counts.totals()}
            products = sum(counts.names[f"aten.{name}.default"] for name in ("mm", "addmm", "bmm"))
            found.append({**made, "products": products, "attention": counts.attention})
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "backward", counted)
        for work in ("vold.training.distill.update", "vold.training.sft.accumulate"):
            patch.setattr(work, watched(pkgutil.resolve_name(work)))
        yield found


@contextlib.contextmanager
def apart(counts: Counts) -> Iterator[None]:
    """The attention of a certificate's small inputs does not count: the plain way is tried with Transformers' own."""

    def tried(*args: Any, **kwargs: Any) -> Any:
        before = dict(counts.attention)
        made = once(*args, **kwargs)
        counts.attention.clear()
        counts.attention.update(before)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vold.model.certified.certify", tried)
        yield


def rows(recipe: Recipe, stage: str) -> list[dict[str, float]]:
    """The numbers of a stage's metrics, without its seconds; none where it has no log."""
    log = recipe.run.dir / stage / "metrics.jsonl"
    found = read_jsonl(log) if log.exists() else []
    return [{k: v for k, v in row.items() if isinstance(v, (int, float)) and "seconds" not in k} for row in found]


def both(make: Make, stages: Iterable[str]) -> dict[str, Any]:
    """Run stages on either device: `cpu` and `cuda` rows of metrics by stage, and of the card by stage its `waits`,
    `attention`, `totals`, and `updates`."""
    out: dict[str, Any] = {"cpu": {}, "cuda": {}, "counts": {}, "updates": {}}
    for device in ("cpu", "cuda"):
        with tempfile.TemporaryDirectory() as folder:
            recipe = make(Path(folder), device)
            for stage in stages:
                with _disable_current_modes() if device == "cpu" else contextlib.nullcontext():
                    with counting() as counts, apart(counts), updates() as found:
                        STAGES[stage](recipe)
                    out[device][stage] = rows(recipe, stage)
                if device == "cuda":
                    out["counts"][stage] = summary(counts)
                    out["updates"][stage] = found
    return out


def summary(counts: Counts) -> dict[str, Any]:
    return {"waits": counts.waits, "attention": counts.attention, "totals": counts.totals()}


SHORT = (
    "tasks.cold_start.size=8", "sft.steps=1", "sft.batch_size=4", "tasks.train.size=12", "distill.prompts_per_step=2",
    "distill.rollouts=3", "distill.steps=1",
)  # fmt: skip
ROUTED = (
    "distill.init=demo:student", "teacher.routes.image.path=demo:student", "distill.prompts_per_step=4",
    "distill.rollouts=3", "distill.steps=1", "tasks.train_text.size=12", "tasks.train_image.size=12",
)  # fmt: skip
RECIPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "demo": (
        ("traces", "sft", "align", "distill", "eval"),
        (*SHORT, "tasks.image.size=3", "tasks.text.size=2", "tasks.overlap.size=2", "align.rollouts=1"),
    ),
    "sod-mini": (("traces", "sft", "distill", "eval"), (*SHORT, "tasks.calls.size=2")),
    "gkd-mini": (("traces", "distill"), (*SHORT, "distill.init=demo:student")),
    "mopd-mini": (("distill",), (*SHORT, "distill.init=demo:student")),
    "uni_opd-mini": (("distill",), (*SHORT, "distill.init=demo:student")),
    "prefix_teach-mini": (("distill",), (*SHORT, "distill.init=demo:student")),
    "cross_modal-mini": (("distill",), ROUTED),
}
"""By the name of a small recipe: its stages, and what makes them short."""


def small(names: list[str]) -> dict[str, Any]:
    """Small recipes as they are shipped, shortened."""
    console.quiet = True
    found = {}
    for name in names:
        stages, words = RECIPES[name]

        def made(home: Path, device: str, name: str = name, words: tuple[str, ...] = words) -> Recipe:
            there = [f"run.dir={home}/run", f"run.device={device}"]
            return load_recipe(ROOT / "recipes" / f"{name}.yaml", [*words, *there])

        found[name] = both(made, stages)
    return found


def tried(home: Path, device: str, changes: dict[str, dict[str, Any]]) -> Recipe:
    """Stage 2 of tiny models, one step from the untrained student."""
    raw = tiny.recipe_dict(home)
    raw["run"]["device"] = device
    raw["distill"] |= {"init": str(home / "student"), "steps": 1}
    for name, values in changes.items():
        raw[name] = {**raw[name], **values}
    return recipe_from(raw, where="test recipe")


def presets() -> dict[str, Any]:
    """Every published method that stage 2 can follow; those that learn from grades alone have graded answers to."""
    console.quiet = True
    found = {}
    for method, preset in PRESETS.items():
        objective = {"method": method} | ({"mix": None} if "mix" in preset.terms else {})
        words = [*SHORT, "distill.init=demo:student", "distill.prompts_per_step=4"]

        def taught(home: Path, device: str, objective: dict[str, Any] = objective, preset: Preset = preset) -> Recipe:
            models: dict[str, dict[str, Any]] = {
                "teacher.base": {"base": {"path": str(home / "student")}},
                "teacher.path": {"path": str(home / "student")},
            }
            wanted = {k: v for name in preset.teacher for k, v in models.get(name, {}).items()}
            return tried(home, device, {"distill": {"objective": objective}, "teacher": wanted})

        def graded(home: Path, device: str, method: str = method, words: list[str] = words) -> Recipe:
            there = [f"run.dir={home}/run", f"run.device={device}", f"distill.objective={{method: {method}}}"]
            return load_recipe(ROOT / "recipes" / "demo.yaml", [*words, *there])

        if method != "sft":  # likelihood of given tokens: the cold start, which has no rollouts
            by_grades = not Objective.model_validate(objective).uses_teacher or "mask" in preset.terms.get(
                "outcome", {}
            )
            found[method] = both(graded if by_grades else taught, ["distill"])
    return found


CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "bfloat16": {"student": {"dtype": "bfloat16"}, "teacher": {"dtype": "bfloat16"}},
    "checkpointing": {"student": {"activation_checkpointing": True}},
    "selective": {"student": {"activation_checkpointing": "selective"}},
    "selective, bfloat16": {"student": {"activation_checkpointing": "selective", "dtype": "bfloat16"}},
    "lora": {"student": {"lora": {"rank": 2, "alpha": 4}}},
    "offload": {"run": {"offload": True}},
    "pictures": {"student": {"freeze": []}, "distill": {"tasks": "image"}},
    "pictures, bfloat16": {"student": {"freeze": [], "dtype": "bfloat16"}, "distill": {"tasks": "image"}},
    "Qwen3-VL, bfloat16": {"student": {"freeze": [], "dtype": "bfloat16"}, "distill": {"tasks": "image"}},
    "micro-batches": {"distill": {"token_budget": 16}},
}


def features() -> dict[str, Any]:
    """What a recipe can ask for beside its objective, one step each; and a run on servers, checked first."""
    console.quiet = True
    found = {}
    for name, changes in CHANGES.items():

        def made(home: Path, device: str, changes: dict[str, dict[str, Any]] = changes, name: str = name) -> Recipe:
            if name.startswith("Qwen3-VL"):
                families.qwen3_vl().save(home / "student")
            return tried(home, device, changes)

        found[name] = both(made, ["distill"])
    return found


def served() -> dict[str, Any]:
    """`vold check` and a step with teacher and rollouts on servers: what the check says of them, and the step's row."""
    console.quiet = True
    with (
        tempfile.TemporaryDirectory() as folder,
        VllmServer(text_model(1)) as other,
        VllmServer(text_model(4)) as own,
    ):
        raw = raw_recipe(Path(folder), engine=on(own), steps=1)
        raw["run"]["device"] = "cuda"
        raw["teacher"]["server"] = on(other)
        del raw["eval"]  # with pictures, and this student reads text
        recipe = recipe_from(raw, where="test recipe")
        lines = check(recipe)
        distill(recipe)
        return {"lines": lines, "row": rows(recipe, "distill")[0]}


def balanced() -> dict[str, list[Any]]:
    """`vold balance` on either device: the labels of its problems."""
    console.quiet = True
    found = {}
    for device in ("cpu", "cuda"):
        with tempfile.TemporaryDirectory() as folder:
            raw = tiny.recipe_dict(Path(folder))
            raw["run"]["device"] = device
            raw["balance"] = {
                "tasks": "image",
                "init": "demo:student",
                "sampling": {"max_new_tokens": 12},
                "rollouts": 2,
            }
            raw["student"] = {"path": "demo:student"}
            balance(recipe_from(raw, where="test recipe"))
            found[device] = read_jsonl(Path(folder) / "run" / "balance" / "labels.jsonl")
    return found


def resumed() -> list[str]:
    """Digests of the weights after two steps: unbroken, and broken off within the second."""
    console.quiet = True
    digests = []
    for broken in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            recipe = tried(Path(folder), "cuda", {"distill": {"steps": 2, "checkpoint_every": 1}})
            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                if broken:
                    patch.setattr("vold.training.distill.update", stopped_at(1))
                distill(recipe)
            distill(recipe)
            digests.append(hashlib.sha256(weights_of(Path(folder) / "run" / "distill")).hexdigest())
    return digests


def stopped_at(number: int) -> Callable[..., Any]:
    def call(learner: Any, rollouts: Any, step: Any, teacher: Any) -> Any:
        if step.number == number:
            raise KeyboardInterrupt
        return update(learner, rollouts, step, teacher)

    return call


# ---- faults put into a step ---------------------------------------------------------------------------------------


def stay(*names: str) -> Callable[..., dict[str, torch.Tensor]]:
    """`Policy.sent` that forgets some inputs."""
    return lambda policy, inputs: {k: v if k in names else v.to(policy.model.device) for k, v in inputs.items()}


def left_on_the_host(teacher: InProcessTeacher, requests: Any) -> Any:
    for weight in teacher.policy.model.parameters():
        weight.data = weight.data.cpu()
    return SCORE(teacher, requests)


def state_left_on_the_host(policy: Any, optimizer: Any, **more: Any) -> float:
    for p in policy.model.parameters():
        if p.requires_grad:
            zeros = torch.zeros_like(p, device="cpu")
            optimizer.state[p] = {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
    return apply_update(policy, optimizer, **more)


SCORE = InProcessTeacher.score
FAULTS: dict[str, tuple[str, Any]] = {
    "streams stay on the host": (
        "vold.training.step.flatten", lambda rollouts, device: flatten(rollouts, torch.device("cpu"))),
    "ids stay on the host": ("vold.model.policy.Policy.sent", stay("input_ids")),
    "positions stay on the host": ("vold.model.policy.Policy.sent", stay("position_ids")),
    "places of states stay on the host": ("vold.model.policy.Policy.sent", stay("places")),
    "the sampler's log-probs stay on the host": (
        "vold.training.step.distance", lambda trainer, sampler, own: trainer.double() - sampler.cpu().double()),
    "scores are read on the card": ("vold.model.lm_head.fused.HeadOutput.on_host", lambda output: output),
    "the teacher stays away": ("vold.engines.teachers.inprocess.InProcessTeacher.score", left_on_the_host),
    "the optimizer's state stays away": ("vold.training.learner.apply_update", state_left_on_the_host),
}  # fmt: skip
"""What is replaced, and with what."""


def faults() -> dict[str, str]:
    """What a step says with each fault; "" where it went through."""
    console.quiet = True
    found = {}
    for name, (place, fault) in {"none": ("vold.training.step.flatten", flatten), **FAULTS}.items():
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            recipe = tried(Path(folder), "cuda", {})
            patch.setattr(place, fault)
            try:
                distill(recipe)
                found[name] = ""
            except (RuntimeError, TypeError) as said:
                found[name] = str(said)
    return found


def others() -> dict[str, Any]:
    """The last four, in one process, which tries a kind of model once."""
    every_time(False)
    return {"served": served(), "balanced": balanced(), "resumed": resumed(), "faults": faults()}
