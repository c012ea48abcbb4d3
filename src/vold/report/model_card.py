"""The model card of a run: what was trained on what, with which result, and what was not shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from vold import __version__
from vold.errors import DataError, clean
from vold.model.families import family_of
from vold.model.reading import may_be_on_the_hub, read_config
from vold.report.text import markdown_table
from vold.run.answers import ModelStamp
from vold.run.as_run import RECIPE, notes_of, stage_recipes
from vold.run.files import read_json
from vold.run.folders import sha256_of, verify_directory, weights_digest
from vold.run.shipped import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        DataError, CheckpointError: as `trained_model`; or what the run keeps beside the model is damaged.
    """
    stage, final = trained_model(run)
    began, ran = _past(run, stage)
    sees = bool(family_of(read_config(str(final))).tower)
    results = run.results if was_evaluated(run, stage, final) else None
    repeats = "repeats it" + ", but for what its first lines say" * bool(notes_of(run.path))
    kept = (run.path / RECIPE).read_text()
    parts = [
        _front_matter(began, ran, sees),
        f"# {run.path.resolve().name}",
        f"A {'vision-' * sees}language model, trained from {_named(began)}{_teachers(ran)}.\n{_training(run, ran)}",
        "## Data\n\n" + markdown_table(("set", "what it is", "sha256"), _data(run, ran)),
        "## Results\n\n" + _results(results, MODELS[stage]),
        "## Not shown\n\n" + "\n".join(f"- {line}" for line in _not_shown(results, MODELS[stage])),
        f"## Recipe\n\n`vold run recipe.yaml` (vold {__version__}) {repeats}.\n\n```yaml\n{kept}```",
    ]
    return for_others(clean("\n\n".join(parts) + "\n"))


def was_evaluated(run: Run, stage: str, final: Path) -> bool:
    """Whether the results of this model are there, and are of these weights: it may have been trained on since."""
    stamp = run.path / "eval" / MODELS[stage] / "model.json"
    if not stamp.is_file() or not (run.path / "eval" / "results.json").is_file():
        return False
    return read_json(stamp, ModelStamp).weights == weights_digest(final) and MODELS[stage] in run.results.stages


def _past(run: Run, stage: str) -> tuple[str, dict[str, Recipe]]:
    """What a stage's model began as, and the stages that made it, each with the recipe it ran with: the run's one
    recipe may not have all of them."""
    own, merged = stage_recipes(run.path), run.recipe
    last = own.get(stage, merged)
    own.setdefault("traces", own.get("sft", merged))  # traces made elsewhere: the cold start says what it read
    d = last.distill if stage == "distill" else None
    init = d.init if d is not None else None
    cold = init is None or Path(resolve(init)).resolve() == (run.path / "sft" / "final").resolve()
    mixed = d is not None and d.objective.mix is not None
    parts = {"traces": cold or mixed, "sft": cold, "distill": d is not None}
    began = last.learner.path if init is None or cold else init
    return began, {name: own.get(name, merged) for name, is_there in parts.items() if is_there}


def _front_matter(began: str, ran: Mapping[str, Recipe], sees: bool) -> str:
    method = ran["distill"].method if "distill" in ran else None
    head = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text" if sees else "text-generation",
        "tags": list(dict.fromkeys(["vold", method or "vold"])),
        **({"base_model": began} if may_be_on_the_hub(began) and not Path(began).exists() else {}),
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _teachers(ran: Mapping[str, Recipe]) -> str:
    """Those whose answers or log-probs were learnt from."""
    asked = [recipe for name, recipe in ran.items() if _asks_teacher(recipe, name)]
    names = dict.fromkeys(_named(one.path) for recipe in asked for one in recipe.text_teachers)
    return f", taught by {', '.join(names)}" if names else ""


def _asks_teacher(recipe: Recipe, stage: str) -> bool:
    if stage == "traces":
        return recipe.traces is not None and recipe.traces.answers == "teacher"
    return stage == "distill" and recipe.distill is not None and recipe.distill.objective.uses_teacher


def _training(run: Run, ran: Mapping[str, Recipe]) -> str:
    last = list(ran.values())[-1]
    frozen = ", ".join(last.learner.freeze) or "nothing"
    how = "adapters" if last.learner.lora is not None else "weights"
    lines = [f"Its {how} were trained, {frozen} frozen; seed {last.run.seed}."]
    if "sft" in ran and (sft := ran["sft"].sft) is not None:
        lines.append(f"Cold start: {_steps(len(run.metrics('sft')), sft.steps)} of {sft.batch_size} traces.")
    if "distill" in ran and (d := ran["distill"].distill) is not None:
        size = f"{_steps(len(run.metrics('distill')), d.steps)} of {d.prompts_per_step} prompts x {d.rollouts} rollouts"
        method = f"`{d.objective.method}`" if d.objective.method is not None else "an objective of its own"
        lines.append(f"Stage 2: {method}, {size}.")
    return "\n".join(lines)


def _steps(done: int, planned: int) -> str:
    """A stage may end early, as nothing gets better."""
    return f"{done:,} step{'s' * (done != 1)}" + f" ({planned:,} planned)" * (done < planned)


def _named(model: str) -> str:
    """A model of the hub by its id, one of this machine by the name of its directory, and a run's by run and stage."""
    path = Path(model)
    return f"`{'/'.join(path.parts[-3 if path.name == 'final' else -1 :]) if path.exists() else model}`"


def _data(run: Run, ran: Mapping[str, Recipe]) -> Iterator[tuple[str, str, str]]:
    """What the model was trained on; a hash of what lies in the run or on this machine."""
    traces = run.path / "traces" / "traces.jsonl"
    if "traces" in ran and traces.is_file():
        whose = "the teacher's answers" if _asks_teacher(ran["traces"], "traces") else "the data's solutions"
        yield "traces", f"{whose}, for {'the cold start' if 'sft' in ran else 'stage 2'}", sha256_of(traces)
    for name, recipe in ran.items():
        if (section := recipe.stages_with_tasks.get(name)) is not None:
            spec = recipe.tasks[section.tasks]
            path = getattr(spec, "path", None)
            file = Path(path) if path else None
            keys = spec.model_dump(mode="json", exclude_defaults=True)
            said = ", ".join(f"{key} {_named(value) if key == 'path' else value}" for key, value in keys.items())
            yield section.tasks, f"problems of {name}: {said}", sha256_of(file) if file and file.is_file() else ""


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
