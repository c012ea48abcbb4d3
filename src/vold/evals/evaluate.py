"""Evaluation: accuracy of models on task sets and benchmarks, with standard errors and paired comparisons."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.data.files.images import thumbnail
from vold.engines.chat_api import EndpointSampler
from vold.engines.launch.serving import serving
from vold.engines.launch.wanted import JUDGE
from vold.engines.samplers.multi_turn import tool_turns
from vold.evals.answering import answer_by_endpoint, answer_in_process, in_order, stored
from vold.evals.compare import compare_answers, corrected, mmmu_pro
from vold.evals.derived import headlines, mmmu_pro_overall
from vold.evals.export import write_exports
from vold.evals.judging import Judging
from vold.evals.marking.reading import where_read
from vold.evals.metrics import summarise
from vold.evals.published import beside
from vold.evals.questions import QuestionSet, open_judge, open_sets
from vold.model.loading import load_certified, stage_models
from vold.model.place import give_back
from vold.report.answers import questions_shown
from vold.report.evaluation import write_results
from vold.report.trackers.tracking import track_results
from vold.run.answers import PROTOCOL, Answer, ModelStamp, Stamp, choose, key_of, outcome_of
from vold.run.comparison import Comparison
from vold.run.directory import open_stage, versions, works_in_run
from vold.run.files import read_json, read_records, remove_rows, write_json
from vold.run.mistakes import no_section
from vold.run.order import seed_of
from vold.run.recipe import Recipe
from vold.run.records import to_json
from vold.run.results import Results, RunInfo
from vold.run.shipped import resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from vold.evals.answering import ToJudge
    from vold.evals.marking.judge import Judge
    from vold.model.policy import Policy
    from vold.run.recipe import Eval
    from vold.run.stage_sections import TestedEndpoint

    Files = Sequence[tuple[QuestionSet, Path]]
    """The sets, and the lists of one model's answers to them."""
    Rows = Mapping[str, Mapping[str, list[dict[str, Any]]]]
    """Answers by model and set, as the page takes them."""


@works_in_run("eval")
def evaluate(recipe: Recipe) -> Results:
    """Evaluate every model of the run, or the endpoint's, on every set; returns and stores the results.

    Every answer is stored. A killed evaluation goes on where it stopped; a model whose weights have changed, or a set
    whose protocol has, is evaluated afresh. Writes `eval/results.json` and `eval/results.html`.

    Raises:
        ConfigError, DataError, CheckpointError, SamplerError: see `vold.errors`.
    """
    config = recipe.eval
    if config is None:
        raise no_section(recipe, "eval")
    tool = "none" if recipe.environment is None else recipe.environment.words()
    judge = open_judge(config, recipe.run.dir / "eval")
    sets = open_sets(config, recipe.tasks, judge, tool=tool)  # first: a mistake in them must not claim the directory
    directory = open_stage(recipe, "eval")
    at_an_address = config.endpoint is not None and config.endpoint.launch is None
    models = {config.endpoint.model: "endpoint"} if config.endpoint and at_an_address else stage_models(recipe)
    judging = Judging(_threads(config), config.samples)
    for name, path in models.items():
        target = directory / name
        _start_afresh_if(target / "model.json", ModelStamp(path, weights_hash(path)), target.glob("*.jsonl"))
        files = [(found, target / f"{found.name}.jsonl") for found in sets]
        for found, file in files:
            stamp = Stamp(found.hash, found.protocol)
            _start_afresh_if(target / f"{found.name}{PROTOCOL}", stamp, [file])
        label = f"eval {name}"
        if config.endpoint is not None:
            at = _endpoint(recipe, path)
            answer_by_endpoint(config, files, at, label=label, seed=recipe.run.seed, to_judge=judging.add)
        else:
            _answer_here(recipe, config, path, files, label=label, to_judge=judging.add)
    with _judge_started(recipe, judge, judging):
        judging.finish("eval")
    return _results(recipe, directory, models, sets)


@contextlib.contextmanager
def _endpoint(recipe: Recipe, path: str) -> Iterator[TestedEndpoint]:
    """The endpoint that is asked for this model's answers; its servers are started where the recipe says so."""
    with serving(recipe, "eval", path) as served:
        assert served.eval is not None and served.eval.endpoint is not None
        yield served.eval.endpoint


def _threads(config: Eval) -> int:
    """How many answers are marked side by side; 0 while the judge's servers are still to be started."""
    return config.judge.concurrency * len(config.judge.urls) if config.judge is not None else 0


@contextlib.contextmanager
def _judge_started(recipe: Recipe, judge: Judge | None, judging: Judging) -> Iterator[None]:
    """The judge's servers where the recipe starts them and an answer waits for its mark: after those of the models."""
    if judge is None or judging.threads or not judging.waits:
        yield
        return
    give_back(dead=True)  # what the last model has left
    with serving(recipe, JUDGE) as served:
        assert served.eval is not None and served.eval.judge is not None
        judge.endpoint = EndpointSampler(served.eval.judge)
        judging.begin(_threads(served.eval))
        yield


def _answer_here(recipe: Recipe, config: Eval, path: str, files: Files, *, label: str, to_judge: ToJudge) -> None:
    """Answer what is missing with a model in this process, loaded if anything is, set after set."""
    policy: Policy | None = None
    in_turns = tool_turns(recipe)
    for found, file in files:
        rows = stored(file, found, config.samples)
        if len(rows) == len(found.questions) * config.samples:
            in_order(file, found, rows)
        else:
            policy = policy or load_certified(recipe, path, recipe.learner.dtype)
            answer_in_process(
                policy,
                found,
                config,
                file,
                label=f"{label} {found.name}",
                in_turns=in_turns,
                seed_of=lambda start: seed_of(recipe.run.seed, "eval", start),
            )
            rows = stored(file, found, config.samples)
        to_judge(found, file, rows)


def _start_afresh_if(stamp_file: Path, stamp: Stamp | ModelStamp, stale: Iterable[Path]) -> None:
    """Remove stored answers that were made under another stamp, or by other weights.

    Raises:
        CheckpointError: there are answers, and their stamp is gone or damaged.
    """
    stale = list(stale)
    fix = f"put it back from a copy, or delete {stamp_file.parent} and repeat `vold eval`: its answers are made again"
    if stamp_file.exists() or any(old.exists() for old in stale):
        before = read_json(stamp_file, type(stamp), fix=fix)
        if to_json(before) == to_json(stamp):
            return
        if isinstance(before, ModelStamp) and isinstance(stamp, ModelStamp) and stamp.is_of(before):
            stale = []
    for old in stale:
        remove_rows(old)
    write_json(stamp_file, stamp)


def _results(recipe: Recipe, directory: Path, models: dict[str, str], sets: list[QuestionSet]) -> Results:
    """Summarise and compare what is stored, and write the JSON document and the page."""
    files = {m: {s.name: directory / m / f"{s.name}.jsonl" for s in sets} for m in models}
    rows = {m: {s: read_records(file, Answer, whole=True) for s, file in of.items()} for m, of in files.items()}
    stages = {
        m: {s.name: summarise(rows[m][s.name], benchmark=s.benchmark, differs=s.about.differs) for s in sets}
        for m in models
    }
    benchmarks = {s.name: s.benchmark for s in sets}
    overall = mmmu_pro_overall(stages, benchmarks)
    results = Results(
        run=RunInfo(recipe.run.dir.resolve().name, models, versions()),
        sets={
            s.name: replace(s.about, published=beside(s.about, [by_set[s.name] for by_set in stages.values()]))
            for s in sets
        },
        stages=stages,
        comparisons=tuple(corrected(list(_comparisons(sets, rows)))),
        headlines=headlines(stages, benchmarks, overall),
        mmmu_pro_overall=overall,
    )
    write_json(directory / "results.json", results)
    write_exports(directory, results, rows)
    shown: Rows = to_json(rows)
    per_set = questions_shown(len(sets), len(models))
    for found in sets:
        _add_for_the_page(found, shown, per_set)
    write_results(directory / "results.html", results, shown, per_set=per_set)
    track_results(recipe, results)
    return results


def _comparisons(
    sets: Sequence[QuestionSet], rows: Mapping[str, Mapping[str, Sequence[Answer]]]
) -> Iterator[Comparison]:
    """Every model against every earlier one, set by set, MMMU-Pro's two settings together as well."""
    of = {s.name: s.benchmark for s in sets}
    answers: dict[str, dict[str, Sequence[Answer]]] = {m: dict(by_set) for m, by_set in rows.items()}
    for by_set in answers.values():
        if overall := mmmu_pro({of[name]: found for name, found in by_set.items()}):
            by_set.setdefault("mmmu_pro", overall)
    for earlier, later in _pairs(list(rows)):
        for name in answers[later]:
            c = compare_answers(name, answers[later][name], answers[earlier][name], benchmark=of.get(name, ""))
            yield Comparison(
                set=name,
                model=later,
                against=earlier,
                difference=c.difference,
                stderr=c.stderr,
                low=c.low,
                high=c.high,
                p_value=c.p_value,
                mcnemar_p=c.mcnemar_p,
                min_detectable=c.detectable,
                derived=c.derived,
                headline=c.headline,
            )


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(earlier, later) for i, later in enumerate(names) for earlier in names[:i]]


def _add_for_the_page(found: QuestionSet, rows: Rows, per_set: int) -> None:
    """Give the answers that the page will show their pictures, and say where each was read."""
    if not found.items:
        return
    outcomes = {m: {key_of(r): outcome_of(r) for r in by_set[found.name]} for m, by_set in rows.items()}
    shown = {key[0] for key in choose(outcomes, per_set, found.name)}
    items = {i.id: i for i in found.items if i.id in shown}
    pictures = {name: [thumbnail(p) for p in item.images] for name, item in items.items()}
    for by_set in rows.values():
        for row in by_set[found.name]:
            row["images"] = pictures.get(row["id"], [])
            if row["id"] in items and row["outcome"] != "truncated":
                row["place"], row["read"] = where_read(items[row["id"]], row["response"], found.said)


def weights_hash(path: str) -> str:
    """A hash of a local model's weight files; the name itself for a hub model or an endpoint."""
    local = Path(resolve(path))
    if not local.is_dir():
        return path
    digest = hashlib.sha256()
    for file in sorted(local.glob("*.safetensors")):
        with file.open("rb") as f:
            digest.update(hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()
