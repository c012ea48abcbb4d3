"""Evaluation: accuracy of models on task sets, with standard errors and paired comparisons."""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.config import Recipe
from vold.errors import ConfigError, DataError
from vold.graders import get_grader, outcome
from vold.models import load_student, resolve, seed_of, stage_models
from vold.progress import Bar
from vold.rundir import append_jsonl, keep_rows, open_stage, read_jsonl, write_json
from vold.samplers.inprocess import InProcessSampler
from vold.stats import mean_stderr, paired_difference
from vold.tasks import open_tasks
from vold.types import SamplingParams, Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from vold.config import Eval
    from vold.policy import Policy


def evaluate(recipe: Recipe) -> dict[str, Any]:
    """Evaluate every model of `vold.models.stage_models` on every task set; returns and stores the results.

    Answers are stored batch by batch. A killed evaluation goes on where it stopped; a model whose weights have
    changed is evaluated afresh.

    Raises:
        ConfigError, DataError, CheckpointError: see `vold.errors`.
    """
    config = recipe.eval
    if config is None:
        raise ConfigError("this recipe has no `eval` section", where="eval")
    directory = open_stage(recipe, "eval")
    tasks = {name: open_tasks(spec) for name, spec in config.tasks.items()}
    for name, found in tasks.items():
        if len(found) < 2:
            raise DataError("one problem has no standard error", where=f"eval.tasks.{name}", fix="give two or more")
    models = stage_models(recipe)
    for name, path in models.items():
        target = directory / name
        stamp = {"path": path, "weights": weights_hash(path)}
        stamp_file = target / "model.json"
        if read_jsonl(stamp_file) != [stamp]:
            for old in target.glob("*.jsonl"):
                old.unlink()
            stamp_file.unlink(missing_ok=True)
            append_jsonl(stamp_file, [stamp])
        policy: Policy | None = None
        for set_name, set_tasks in tasks.items():
            file = target / f"{set_name}.jsonl"
            if len(read_jsonl(file)) < len(set_tasks):
                policy = policy or load_student(recipe, path)
                answer_tasks(policy, set_tasks, config, file, label=f"eval {name} {set_name}", seed=recipe.run.seed)
    results = summarise(directory, models, list(tasks))
    write_json(directory / "results.json", results)
    return results


def answer_tasks(policy: Policy, tasks: list[Task], config: Eval, file: Path, *, label: str, seed: int) -> None:
    """Answer tasks in order, append each batch to `file`, continue after the last whole batch found there."""
    rows = read_jsonl(file)
    done = len(rows) // config.batch_size * config.batch_size
    keep_rows(file, rows[:done])
    sampler = InProcessSampler(policy, config.batch_size)
    with Bar(label, len(tasks), done) as bar:
        for start in range(done, len(tasks), config.batch_size):
            part = tasks[start : start + config.batch_size]
            params = SamplingParams(
                max_new_tokens=config.sampling.max_new_tokens,
                temperature=config.sampling.temperature,
                seed=seed_of(seed, "eval", start),
            )
            completions = sampler.generate([policy.chat.prompt(t.messages) for t in part], params)
            new = []
            for task, (completion,) in zip(part, completions, strict=True):
                text = policy.chat.text(completion.ids)
                grade = get_grader(task.grader)(text, task.reference, finish=completion.finish)
                new.append(
                    {
                        "id": task.id,
                        "prompt": task.messages[-1].text,
                        "images": [data_uri(i) for m in task.messages for i in m.images],
                        "response": text,
                        "extracted": grade.extracted,
                        "reference": task.reference,
                        "score": grade.score,
                        "note": grade.note,
                        "outcome": outcome(grade, completion.finish),
                        "tokens": len(completion.ids),
                        "tags": dict(task.tags),
                    }
                )
            append_jsonl(file, new)
            bar.advance(len(part))


def summarise(directory: Path, models: dict[str, str], sets: list[str]) -> dict[str, Any]:
    """Accuracy of each model on each set, and the paired difference of each model to each one before it.

    Accuracy is the mean score with standard error sd / sqrt(n). A difference is taken problem by problem, so that
    what makes a problem hard for both cancels.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    stages: dict[str, dict[str, Any]] = {}
    for name in models:
        scores[name], stages[name] = {}, {}
        for set_name in sets:
            rows = read_jsonl(directory / name / f"{set_name}.jsonl")
            scores[name][set_name] = values = [float(r["score"]) for r in rows]
            mean, stderr = mean_stderr(values)
            stages[name][set_name] = {
                "accuracy": mean,
                "stderr": stderr,
                "n": len(values),
                "outcomes": dict(Counter(r["outcome"] for r in rows)),
                "mean_tokens": sum(r["tokens"] for r in rows) / len(rows),
                "by_kind": _by_tag(rows, "kind"),
            }
    names = list(models)
    comparisons = []
    for i, later in enumerate(names):
        for earlier in names[:i]:
            for set_name in sets:
                d = paired_difference(scores[later][set_name], scores[earlier][set_name])
                comparisons.append(
                    {
                        "set": set_name,
                        "model": later,
                        "against": earlier,
                        "difference": d.difference,
                        "stderr": d.stderr,
                        "low": d.low,
                        "high": d.high,
                        "p_value": d.p_value,
                    }
                )
    return {"stages": stages, "comparisons": comparisons}


def _by_tag(rows: list[dict[str, Any]], tag: str) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for row in rows:
        if tag in row["tags"]:
            groups.setdefault(row["tags"][tag], []).append(row["score"])
    return {k: sum(v) / len(v) for k, v in sorted(groups.items())}


def weights_hash(path: str) -> str:
    """A hash of a local model's weight files; the name itself for a hub model."""
    local = Path(resolve(path))
    if not local.is_dir():
        return path
    digest = hashlib.sha256()
    for file in sorted(local.glob("*.safetensors")):
        with file.open("rb") as f:
            digest.update(hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()


def data_uri(image: Image) -> str:
    """The picture as a PNG that a page can hold."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
