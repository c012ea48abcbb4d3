"""The model card of a run: what was trained on what, with which result, and what was not shown."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from vold import __version__
from vold.errors import DataError, clean
from vold.report.text import markdown_table
from vold.run.answers import ModelStamp
from vold.run.as_run import RECIPE
from vold.run.files import read_json
from vold.run.folders import verify_directory, weights_digest
from vold.run.recipe import dump_recipe, load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.run.recipe import Recipe
    from vold.run.results import Results
    from vold.run.view import Run

MODELS = {"distill": "vold", "sft": "sft"}
"""Stages that end with a model, the last first, and what the evaluation calls it."""


def trained_model(run: Run) -> tuple[str, Path]:
    """The last stage of a run that has ended with a model, and the model's directory.

    Raises:
        DataError: no stage has.
        CheckpointError: the directory is damaged.
    """
    for stage in MODELS:
        if (final := run.path / stage / "final").is_dir():
            verify_directory(final)
            return stage, final
    raise DataError(
        "this run has no trained model yet", where=str(run.path), fix="run `vold sft` or `vold distill` to the end"
    )


def for_others(text: str) -> str:
    """A text as others may see it: this user's home directory is `~`."""
    return text.replace(f"{Path.home()}/", "~/")


def model_card(run: Run) -> str:
    """README.md of the run's model: YAML for the hub, then Markdown.

    Raises:
        DataError, CheckpointError: as `trained_model`.
    """
    stage, final = trained_model(run)
    recipe = load_recipe(run.path / stage / RECIPE)
    results = run.results if _was_evaluated(run, MODELS[stage], final) else None
    parts = [
        _front_matter(recipe),
        f"# {run.path.resolve().name}",
        _what_it_is(recipe, stage),
        "## Data\n\n" + markdown_table(("set", "what it is", "sha256"), _data(run, recipe, stage)),
        "## Results\n\n" + _results(results, MODELS[stage]),
        "## Not shown\n\n" + "\n".join(f"- {line}" for line in _not_shown(results, MODELS[stage])),
        f"## Recipe\n\n`vold run recipe.yaml` (vold {__version__}) repeats it.\n\n```yaml\n{dump_recipe(recipe)}```",
    ]
    return for_others(clean("\n\n".join(parts) + "\n"))


def _was_evaluated(run: Run, model: str, final: Path) -> bool:
    """Whether the results of this model are there, and are of these weights: it may have been trained on since."""
    stamp = run.path / "eval" / model / "model.json"
    if not stamp.is_file() or not (run.path / "eval" / "results.json").is_file():
        return False
    return read_json(stamp, ModelStamp).weights == weights_digest(final) and model in run.results.stages


def _front_matter(recipe: Recipe) -> str:
    base = recipe.learner.path
    of_hub = not Path(base).exists() and ":" not in base
    head = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["vold", "on-policy-distillation", "grpo"],
        **({"base_model": base} if of_hub else {}),
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _what_it_is(recipe: Recipe, stage: str) -> str:
    teachers = ", ".join(_named(t.path) for t in recipe.text_teachers) or "no teacher"
    lines = [
        f"A vision-language model that learnt to reason from text: {_named(recipe.learner.path)}, taught by {teachers}."
    ]
    frozen = ", ".join(recipe.learner.freeze) or "nothing"
    how = "adapters" if recipe.learner.lora is not None else "weights"
    lines.append(f"Its {how} were trained, {frozen} frozen; seed {recipe.run.seed}.")
    if recipe.sft is not None:
        lines.append(f"Cold start: {_steps(recipe.sft.steps)} of {recipe.sft.batch_size} traces.")
    if stage == "distill" and recipe.distill is not None:
        d = recipe.distill
        size = f"{_steps(d.steps)} of {d.prompts_per_step} prompts x {d.rollouts} rollouts"
        lines.append(f"Stage 2: `{d.objective.method}`, {size}.")
    return "\n".join(lines)


def _steps(number: int) -> str:
    return f"{number:,} step{'s' * (number != 1)}"


def _named(model: str) -> str:
    """A model of the hub by its id, one of this machine by the name of its directory."""
    return f"`{Path(model).name if Path(model).exists() else model}`"


def _data(run: Run, recipe: Recipe, stage: str) -> Iterator[tuple[str, str, str]]:
    """What the model was trained on; a hash of what lies in the run or on this machine."""
    traces = run.path / "traces" / "traces.jsonl"
    if traces.is_file():
        whose = "the data's solutions" if recipe.traces and recipe.traces.answers == "data" else "the teacher's answers"
        yield "traces", f"{whose}, for the cold start", _sha256(traces)
    used = [("traces", recipe.traces)] + ([("distill", recipe.distill)] if stage == "distill" else [])
    for name, section in used:
        if section is not None:
            spec = recipe.tasks[section.tasks]
            path = getattr(spec, "path", None)
            file = Path(path) if path else None
            keys = spec.model_dump(mode="json", exclude_defaults=True)
            said = ", ".join(f"{key} {_named(value) if key == 'path' else value}" for key, value in keys.items())
            yield section.tasks, f"problems of {name}: {said}", _sha256(file) if file and file.is_file() else ""


def _sha256(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _results(results: Results | None, model: str) -> str:
    if results is None:
        return "These weights were not evaluated."
    rows = []
    for name, found in results.stages[model].items():
        paired = [c for c in results.comparisons if (c.set, c.model, c.against) == (name, model, "base")]
        against = "".join(f"{100 * c.difference:+.1f} [{100 * c.low:+.1f}, {100 * c.high:+.1f}]" for c in paired)
        accuracy = f"{100 * found.accuracy:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
        rows.append((name, accuracy, against, str(found.n), str(found.k)))
    head = ("set", "accuracy, % [95%]", "points over the base student", "items", "samples")
    return markdown_table(head, rows)


def _not_shown(results: Results | None, model: str) -> Iterator[str]:
    """What a reader may not conclude."""
    yield "One run: how far another seed would differ is not in the intervals, which are over items."
    yield "Safety, languages and anything that the sets above do not ask."
    if results is None:
        yield "Any accuracy: it was not evaluated."
        return
    for c in results.comparisons:
        if (c.model, c.against) == (model, "base") and c.low <= 0 <= c.high:
            yield f"A difference from the base student on {c.set}: its 95% interval holds 0."
    for name, found in results.stages[model].items():
        if found.differs:
            yield f"The published test of {name}: {'; '.join(found.differs)}."
