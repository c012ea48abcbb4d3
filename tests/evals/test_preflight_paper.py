"""The recipes of the paper's experiment: its numbers, the memory plan of its models, and a check with stand-ins."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import published
import tiny
from launched import gpus_are
from published_models import QWEN2_5_VL_3B, QWEN3_8B
from training_sets import mixture_of_thoughts, orz57k
from vold.cli import main
from vold.data.benchmarks.registry import benchmarks
from vold.engines.launch.wanted import servers_of
from vold.model.memory import plan
from vold.model.policy import Policy
from vold.run.files import read_jsonl
from vold.run.recipe import load_recipe
from vold.run.rollouts import load_rollouts, stored_steps
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

if TYPE_CHECKING:
    from vold.run.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER = RECIPES / "qwen2_5_vl-3b.yaml"
ONE_GPU = RECIPES / "qwen2_5_vl-3b-lora.yaml"
EIGHT_GPUS = RECIPES / "qwen2_5_vl-3b-8gpu.yaml"
LAUNCHED = ("teacher.server", "distill.engine", "eval.endpoint")


@pytest.fixture
def paper() -> Recipe:
    return load_recipe(PAPER)


def test_stage_one_has_the_papers_numbers(paper: Recipe) -> None:
    assert (paper.learner.path, paper.learner.lora) == ("Qwen/Qwen2.5-VL-3B-Instruct", None)
    assert "vision" in paper.learner.freeze
    assert paper.traces is not None and paper.sft is not None and paper.teacher is not None
    assert paper.teacher.path == "Qwen/Qwen3-8B"
    assert (paper.traces.max_tokens, paper.traces.keep, paper.traces.answers) == (8192, "all", "teacher")
    assert (paper.sft.steps, paper.sft.batch_size) == (4000, 256)
    o = paper.sft.optimizer
    assert (o.lr, o.weight_decay, o.warmup_steps, o.schedule) == (5e-5, 1e-2, 150, "cosine")


def test_stage_two_has_the_papers_numbers(paper: Recipe) -> None:
    d = paper.distill
    assert d is not None
    assert (d.steps, d.rollouts, d.sampling.max_new_tokens) == (60, 5, 8192)
    assert abs(d.prompts_per_step * d.rollouts - 256) < d.rollouts
    assert (d.optimizer.lr, d.optimizer.warmup_steps) == (6e-6, 5)
    objective = d.objective
    assert objective.surrogate is not None and objective.teacher_loss is not None and objective.outcome is not None
    assert (objective.surrogate.clip_low, objective.surrogate.clip_high) == (0.2, 0.3)
    teacher = objective.teacher_loss
    assert (teacher.estimator, teacher.mask, teacher.coefficient) == ("k2", "failed", 0.1)
    assert objective.teacher_advantage is None and objective.nll is None


def test_the_benchmarks_are_those_of_the_papers_first_table(paper: Recipe) -> None:
    assert paper.eval is not None
    table = "mmmu_pro_vision mmstar mathvision mathvista mathverse_vision_only dynamath wemath logicvista"
    assert sorted(paper.eval.benchmarks) == sorted(table.split())
    assert set(paper.eval.benchmarks) <= set(benchmarks())


def test_full_fine_tuning_fits_one_80_gb_gpu_and_a_teacher_beside_it_adds_its_weights(paper: Recipe) -> None:
    phases = {p.name: p.total for p in plan(paper, QWEN2_5_VL_3B, None)}
    assert list(phases) == ["sft", "align", "update"]
    assert phases["sft"] > 2 * 3_754_622_976 + 16 * 3_085_938_688
    assert max(phases.values()) < 0.85 * 80e9
    beside = load_recipe(PAPER, ["teacher.server=null"])
    (update,) = [p for p in plan(beside, QWEN2_5_VL_3B, QWEN3_8B) if p.name == "update"]
    assert update.parts["teacher"] == 2 * 8_190_735_360


def test_the_recipe_for_eight_gpus_differs_only_in_where_things_run(paper: Recipe) -> None:
    def elsewhere(recipe: Recipe) -> dict[str, Any]:
        launched = {"launch": {"devices"}}
        places = {"teacher": {"server": launched}, "distill": {"engine": launched}}
        return recipe.model_dump(exclude={"run": {"dir"}, **places})

    assert elsewhere(load_recipe(EIGHT_GPUS)) == elsewhere(paper)


@pytest.mark.parametrize(("file", "own"), [(PAPER, (0,)), (EIGHT_GPUS, (0, 1, 2, 3))])
def test_every_gpu_has_work_in_stage_two_and_none_is_given_twice(file: Path, own: tuple[int, ...]) -> None:
    recipe = load_recipe(file, [f"{one}.launch.python={sys.executable}" for one in LAUNCHED])
    used = {stage: [gpu for one in servers_of(recipe, stage) for gpu in one.devices] for stage in recipe.stages}
    assert sorted([*own, *used["distill"]]) == list(range(8))
    assert used["traces"] == used["eval"] == list(range(1, 8))
    assert used["sft"] == []


def test_adapters_leave_room_for_a_server_on_the_same_gpu() -> None:
    """The recipe starts each server with 0.7 of the GPU; the other sleeps."""
    recipe = load_recipe(ONE_GPU)
    assert recipe.teacher is not None and recipe.teacher.server is not None and recipe.distill is not None
    assert recipe.teacher.server.sleep and recipe.distill.engine is not None and recipe.distill.engine.sleep
    phases = {p.name: p for p in plan(recipe, QWEN2_5_VL_3B, None)}
    assert list(phases) == [
        "sft", "sft, model written", "align", "rollouts, on a server", "update", "weights written", "eval"
    ]  # fmt: skip
    assert max(p.total for p in phases.values()) < 0.31 * 80e9
    assert recipe.distill.objective == load_recipe(PAPER).distill.objective  # type: ignore[union-attr]


PUBLISHED = {
    "student": {
        "model_type": "qwen2_5_vl",
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "max_position_embeddings": 128000,
        "num_attention_heads": 16,
        "num_hidden_layers": 36,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    },
    "teacher": {
        "model_type": "qwen3",
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "max_position_embeddings": 40960,
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
        "vocab_size": 151936,
    },
}
"""config.json of the two models as published, with the language model's keys on the top level."""


@pytest.mark.parametrize(
    ("file", "card", "needs", "smaller"),
    [
        (
            PAPER,
            "80 GB; sft needs 61.",
            "on a card of 48 GB",
            "sft.optimizer.moments=8bit distill.optimizer.moments=8bit",
        ),
        (
            EIGHT_GPUS,
            "80 GB; sft needs 61.",
            "on a card of 48 GB",
            "sft.optimizer.moments=8bit distill.optimizer.moments=8bit",
        ),
        (ONE_GPU, "32 GB; rollouts, on a server needs 2", "on a card of 24 GB", "student.quantize=nf4"),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_the_plan_needs_two_config_files_and_no_weights(
    file: Path, card: str, needs: str, smaller: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Memory, the smallest card, keys for a smaller one, the seconds of a step, and servers with their GPUs."""
    gpus_are(monkeypatch, tmp_path, *range(8))
    for name, config in PUBLISHED.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    paths = [f"{name}.path={tmp_path / name}" for name in PUBLISHED]
    paths += [f"{one}.launch.python={sys.executable}" for one in LAUNCHED if file != ONE_GPU or one != LAUNCHED[-1]]
    assert main(["check", str(file), *paths]) == 2
    out, err = (" ".join(text.split()) for text in capsys.readouterr())
    assert f"smallest card {card}" in out
    assert needs in out and smaller in out.partition(needs)[2]
    # 8192 tokens, each of which reads 2 x 3.09e9 bytes at 0.6 of 3.35 TB/s.
    assert (
        "seconds a step on GPUs rollouts 25.2, update, products 142 by arithmetic; at the rates measured on an H200:"
        in out
    )
    assert "ok servers of distill teacher-gpu" in out
    assert "cannot be loaded" in err and str(tmp_path / "student") in err
    if file == PAPER:
        assert main(["check", str(file), *paths[:2], *(f"{one}=null" for one in LAUNCHED)]) == 2
        out = " ".join(capsys.readouterr().out.split())
        # GiB of 2 x 3,754,622,976 bytes, 4 and 12 x 3,085,938,688 (the language model), 2 x 8,190,735,360.
        assert "(weights 6.99, gradients 11.50, optimizer 34.49, teacher 15.26, activations" in out
        assert "rollouts 66.6, teacher 36.7, update, products 111" in out  # 8192 x 8.128 ms; 2 x 8.19e9 x .. at 505e12


def stand_ins(home: Path) -> list[str]:
    """Overrides that put tiny models and small files into the paper's recipe, and no server."""
    tiny.recipe(home)
    (home / "mixture").mkdir()
    traces, problems = mixture_of_thoughts(home / "mixture").parent.parent, orz57k(home)
    out = [f"student.path={home / 'student'}", f"teacher.path={home / 'teacher'}", f"run.dir={home / 'run'}"]
    out += ["teacher.server=null", "distill.engine=null", "eval=null", f"tasks.cold_start.path={traces}"]
    out += [f"tasks.{name}.path={problems}" for name in ("overlap", "train")]
    out.append("teacher.tokenizer=shared")  # the tiny tokenizer is no byte-level BPE
    return out + [f"{section}.sampling.max_new_tokens=8" for section in ("traces", "align", "distill")]


@pytest.mark.parametrize("file", [PAPER, ONE_GPU, EIGHT_GPUS], ids=lambda file: file.stem)
def test_check_reports_pair_and_memory_with_stand_ins(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["check", str(file), *stand_ins(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for phase in ("traces", "sft", "rollouts", "teacher scoring", "update"):
        assert f"memory of {phase}" in said
    for line in ("same ids", "embedding rows", "chat templates", "one prompt scored by all", "52 prompts x 5"):
        assert line in said
    assert ("adapters of rank 64 trained" in said) == (file == ONE_GPU)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with the published tokenizers and rows."""
    home, qwen3 = tmp_path_factory.mktemp("pair"), published.tokenizer("qwen3")
    tiny.student(tokenizer=published.like_qwen2_5_vl(qwen3, home), rows=152064).save(home / "student")
    tiny.teacher(tokenizer=qwen3, rows=151936).save(home / "teacher")
    return home


@pytest.mark.parametrize("file", [PAPER, ONE_GPU], ids=lambda file: file.stem)
def test_training_with_the_published_tokenizers_and_their_padded_rows(
    file: Path, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`<think>` is one new token of the student's, or its own three pieces. The solutions are those of the data."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = [f"{name}.path={pair / name}" for name in ("student", "teacher")]
    small += ["sft.steps=2", "sft.batch_size=2", "distill.steps=1", "distill.prompts_per_step=2", "distill.rollouts=2"]
    small += ["traces.answers=data", "teacher.tokenizer=" + ("shared" if file == PAPER else "align")]
    recipe = load_recipe(file, [*stand_ins(tmp_path), *small])
    make_traces(recipe)
    written = [r["response_ids"] for r in read_jsonl(tmp_path / "run" / "traces" / "traces.jsonl")]
    whole = file == PAPER
    assert all((ids[0] == 151667) == whole for ids in written)
    final = Policy.load(str(sft(recipe)))
    assert (final.rows, len(final.chat.tokenizer)) == (152064, 151669 if whole else 151665)
    assert (151667 in final.banned.tolist()) != whole
    distill(recipe)
    (row,) = read_jsonl(tmp_path / "run" / "distill" / "metrics.jsonl")
    assert row["teacher_tokens"] > 0
    (kept,) = stored_steps(tmp_path / "run").values()
    sampled = {i for stored in load_rollouts(kept) for i in stored.rollout.completion.ids.tolist()}
    assert sampled and not sampled & set(final.banned.tolist())
