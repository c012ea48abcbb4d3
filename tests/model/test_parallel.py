"""Several processes do what one does: loss, gradients, weights and rollouts; and states that either can go on from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import loaded
import tiny
import two_processes
from benchmark_scripts import HOME, load
from stored import stored_rows
from vold.engines.samplers.student import refuse_sleep
from vold.errors import ConfigError
from vold.model.parallel import Processes
from vold.model.policy import Policy
from vold.run.files import read_jsonl
from vold.run.recipe import recipe_from
from vold.run.shipped import resolve
from vold.training.distill import distill
from vold.training.sft import sft

pytestmark = pytest.mark.processes
WITHIN = {"loss": 1e-6, "grad_norm": 1e-6, "weights": 2e-6}
"""Largest differences allowed: float32 sums in another order, and six updates on top of each other."""


def recipe_file(home: Path, name: str, **sections: dict[str, Any]) -> Path:
    """A recipe in a run directory of its own, with the traces that `vold traces` would have left there."""
    raw = tiny.recipe_dict(home)
    raw["sft"]["token_budget"] = 256
    raw["distill"] |= {"token_budget": 128, "prompts_per_step": 3}
    for key, values in sections.items():
        raw[key] |= values
    if not (home / "run").is_dir():
        tiny.write_traces(home, recipe_from(raw, where="test"))
    raw["run"] = raw["run"] | {"dir": str(home / name)}
    shutil.copytree(home / "run" / "traces", home / name / "traces")
    file = home / f"{name}.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


def one(file: Path, *stages: Any) -> None:
    recipe = recipe_from(yaml.safe_load(file.read_text()), where=str(file))
    for stage in stages:
        stage(recipe)


PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SCRIPT = str(Path(two_processes.__file__))


def compare(first: Path, second: Path, stage: str) -> None:
    rows = [read_jsonl(run / stage / "metrics.jsonl") for run in (first, second)]
    assert len(rows[0]) == len(rows[1]) == 6
    for mine, theirs in zip(*rows, strict=True):
        for key in ("loss", "grad_norm"):
            assert theirs[key] == pytest.approx(mine[key], abs=WITHIN[key])
        for key in ("reward", "mean_tokens", "teacher_tokens", "trained_tokens"):
            assert theirs.get(key) == mine.get(key)
    finals = [run / stage / "final" for run in (first, second)]
    files = [sorted(str(f.relative_to(final)) for f in final.rglob("*.safetensors")) for final in finals]
    assert files[0] == files[1]  # the model, and adapters beside it
    for file in files[0]:
        weights = [load_file(final / file) for final in finals]
        assert weights[0].keys() == weights[1].keys()
        for name, value in weights[0].items():
            torch.testing.assert_close(weights[1][name], value, rtol=0, atol=WITHIN["weights"])


SETTINGS: dict[str, dict[str, Any]] = {
    "vold": {
        "run": {"shard_teacher": "always"},
        "distill": {
            "objective": {"method": "vold", "teacher_loss": {"coefficient": 1.0}},
            "eval": {"every": 3, "sets": ["image", "text"], "size": 3},
        },
    },
    "once": {
        "run": {"exchange": "step"},
        "distill": {"objective": {"method": "vold", "teacher_loss": {"coefficient": 1.0}}},
    },
    "lora": {"student": {"lora": {"rank": 2}}},
    # Compares whole vocabularies, of a teacher that is divided as well, and mixes its traces in.
    "gkd": {"run": {"shard_teacher": "always"}, "distill": {"objective": {"method": "gkd"}}},
    # Every process must come to the same groups, old log-probs and mini-batches.
    "knobs": {
        "distill": {
            "objective": {
                "method": "vold",
                "reference": {"coefficient": 0.1},
                "entropy": {"coefficient": 0.01},
                "surrogate": {"importance_cap": 2.0},
            },
            "updates": {"mini_batches": 2, "epochs": 2},
            "refill": 2,
            "sampling": {"max_new_tokens": 12, "top_p": 0.9},
        }
    },
    "bfloat16": {
        "student": {"dtype": "bfloat16", "activation_checkpointing": True},
        "sft": {"optimizer": {"lr": 1e-2}},
    },
}


STAGES: dict[str, dict[str, Any]] = {name: {"sft": sft, "distill": distill} for name in SETTINGS}
STAGES |= {"gkd": {"distill": distill}, "knobs": {"distill": distill}, "bfloat16": {"sft": sft}}
"""That are run; the others have settings of stage 2 alone, which goes on from `one-vold`."""
ON_NODES = ("vold", "once", "lora")
COMPILED = {"student": {"compile": True, "lora": {"rank": 2}}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `one-NAME` of one process and `two-NAME` of two, for each of `SETTINGS`; `nodes-NAME` of two on each of two
    nodes, for each of `ON_NODES`."""
    made = tmp_path_factory.mktemp("runs")
    jobs, on_nodes = ["1x2"], ["2x2"]
    for name, sections in SETTINGS.items():
        stages, files = STAGES[name], [recipe_file(made, f"{how}-{name}", **sections) for how in ("one", "two")]
        for file in files if "sft" not in stages else ():
            shutil.copytree(made / "one-vold" / "sft", file.with_suffix("") / "sft")
        one(files[0], *stages.values())
        jobs += [f"{stage}={files[1]}" for stage in stages]
        if name in ON_NODES:
            file = recipe_file(made, f"nodes-{name}", **sections)
            on_nodes += [f"{stage}={file}" for stage in stages]
    jobs.append(f"sft={recipe_file(made, 'two-compiled', **COMPILED)}")
    done = loaded.run(SCRIPT, *jobs, *on_nodes, seconds=600)
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize("name", ON_NODES)
def test_two_nodes_train_as_one_process_does(name: str, home: Path) -> None:
    """Two processes on each; a step has three prompts, so that one of them samples nothing."""
    for stage in ("sft", "distill"):
        compare(home / f"one-{name}", home / f"nodes-{name}", stage)
    assert watched(home / f"one-{name}") == watched(home / f"nodes-{name}")


@pytest.mark.parametrize("name", ["vold", "once", "lora", "gkd", "knobs"])
def test_two_processes_train_as_one_does(name: str, home: Path) -> None:
    runs = home / f"one-{name}", home / f"two-{name}"
    for stage in STAGES[name]:
        compare(*runs, stage)
    # No rollout was lost or doubled: both stored the same ones.
    files = [run / "distill" / "rollouts" / "step-000005.safetensors" for run in runs]
    rows = [stored_rows(f) for f in files]
    assert [r["ids"] for r in rows[0]] == [r["ids"] for r in rows[1]]
    for mine, theirs in zip(*rows, strict=True):  # nor what was read in each by whoever had it
        kept = [r["token_values"].get("entropy") for r in (mine, theirs)]
        assert kept[1] == pytest.approx(kept[0], rel=1e-4, abs=1e-5)
    assert any("entropy" in r["token_values"] for r in rows[0])


def watched(run: Path) -> dict[str, bytes]:
    """What evaluation while stage 2 trained has left: its rows and every answer."""
    stage = run / "distill"
    files = (*stage.glob("evals.jsonl"), *stage.glob("evals/*/*.jsonl"))
    return {str(f.relative_to(stage)): f.read_bytes() for f in files}


def test_two_processes_evaluate_while_they_train_as_one_does(home: Path) -> None:
    alone = watched(home / "one-vold")
    assert len(alone["evals.jsonl"].splitlines()) == 6  # two sets, after 0, 3 and 6 steps
    assert len(alone) == 7
    assert watched(home / "two-vold") == alone


def test_two_processes_with_compiled_layers_and_adapters_train_as_a_plain_one_does(home: Path) -> None:
    runs = home / "one-lora", home / "two-compiled"
    losses = [[row["loss"] for row in read_jsonl(run / "sft" / "metrics.jsonl")] for run in runs]
    assert len(losses[1]) == 6
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_bytes_exchanged_are_those_of_the_arithmetic_and_of_the_page() -> None:
    """On nodes of one and two processes, for whole students and adapters, on text and with a picture in one of eight
    micro-batches: the tower is gathered in that one alone. The gradient is that of one process."""
    scaling = load("exchanged")
    done = loaded.run(str(HOME / "exchanged.py"), "--json")
    assert done.returncode == 0, done.stderr
    found, teacher = json.loads(done.stdout)
    assert len(found) == sum(map(len, scaling.CASES.values()))
    for row in found:
        assert {kind: row["counted"].get(kind, 0) for kind in scaling.KINDS} == row["arithmetic"]
        assert row["counted"].keys() <= row["arithmetic"].keys()
        assert row["norm"] == pytest.approx(row["norm of one process"], rel=1e-5)
    assert scaling.table(found) in PAGE.read_text()
    near, far = ([row for row in teacher if row["within"] == within] for within in ("node", "world"))
    assert [row["elsewhere"] for row in near] == [0] * 4
    assert [row["elsewhere"] / row["counted"] for row in far] == [2 / 3] * 4
    for row in teacher:
        assert row["counted"] == row["arithmetic"] > 0
    assert scaling.teacher_table(teacher) in PAGE.read_text()
    text, sees = found[:2]
    tower = Policy.load(resolve("demo:student")).model.model.visual
    whole = sum(p.numel() * 4 for p in tower.parameters())
    assert sees["counted"][scaling.WEIGHTS] - text["counted"][scaling.WEIGHTS] == whole / 2
    assert sees["counted"][scaling.SAMPLES] - text["counted"][scaling.SAMPLES] == whole / 2


def test_bfloat16_and_activation_checkpointing_on_two_processes(home: Path) -> None:
    """Sums round elsewhere, so a few weights end on a neighbouring number; most are the same."""
    runs = home / "one-bfloat16", home / "two-bfloat16"
    losses = [[row["loss"] for row in read_jsonl(run / "sft" / "metrics.jsonl")] for run in runs]
    assert losses[1] == pytest.approx(losses[0], abs=5e-3)
    assert losses[0][-1] < losses[0][0] - 0.2
    weights = [load_file(run / "sft" / "final" / "model.safetensors") for run in runs]
    assert weights[0].keys() == weights[1].keys()
    assert {t.dtype for w in weights for t in w.values()} == {torch.bfloat16}
    same = sum(int((weights[1][name] == value).sum()) for name, value in weights[0].items())
    assert same > 0.85 * sum(value.numel() for value in weights[0].values())


CHAINS = {"whole": ("2x2", "1x1", "1x2"), "from two": ("1x2", "2x2", "1x1"), "lora": ("1x1", "1x2", "2x2")}
"""Nodes and processes on each of a run that is killed twice, each time after a state."""


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, bool]]]:
    """Runs `whole-NAME` and `broken-NAME` of each of `CHAINS`, and what was left of the latter by each kill."""
    made, jobs = tmp_path_factory.mktemp("chains"), list[str]()
    for name, worlds in CHAINS.items():
        sections = SETTINGS["lora"] if name == "lora" else {}
        one(recipe_file(made, f"whole-{name}", **sections), sft)
        file = recipe_file(made, f"broken-{name}", **sections)
        for world, last in zip(worlds, ("@3", "@5", ""), strict=True):
            jobs += [world, f"sft={file}{last}"]
    done = loaded.run(SCRIPT, *jobs)
    assert done.returncode == 0, done.stderr
    left = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return made, left


@pytest.mark.parametrize("name", CHAINS)
def test_other_numbers_of_processes_go_on(name: str, chained: tuple[Path, list[dict[str, bool]]]) -> None:
    """Killed by a signal no program can catch; several processes leave a state in parts."""
    home, left = chained
    place = 2 * [*CHAINS].index(name)
    parts = [world != "1x1" for world in CHAINS[name]]
    assert left[place : place + 2] == [{"step-000002": parts[0]}, {"step-000004": parts[1]}]
    compare(home / f"whole-{name}", home / f"broken-{name}", "sft")


def test_an_error_of_one_process_ends_all_with_its_message(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, "own")
    rows = (tmp_path / "own" / "traces" / "traces.jsonl").read_text().splitlines()
    (tmp_path / "own" / "traces" / "traces.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    done = loaded.run(SCRIPT, "1x2", f"sft={file}")
    assert done.returncode == 1
    # Of the two that end the first speaks.
    assert re.search(r"vold sft \[process [01]\]: the teacher's traces are not all there", done.stderr)


def test_other_verbs_are_for_one_process(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, "own")
    done = subprocess.run([*TORCHRUN, "-m", "vold.cli", "check", file], capture_output=True, text=True, timeout=300)
    assert "`vold check` runs in one process" in done.stderr


# -- the division of work ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "world"), [(5, 2), (3, 4), (8, 8), (0, 2)])
def test_shares_are_consecutive_even_and_complete(count: int, world: int) -> None:
    shares = [list(Processes(rank, world).share(count)) for rank in range(world)]
    assert [i for s in shares for i in s] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_micro_batches_are_balanced_and_every_process_runs_equally_many() -> None:
    """Costs 9, 4, 3, 3 over two: 9 alone against 4 + 3 + 3. The first repeats the cheapest twice, for nothing."""
    rounds = [Processes(rank, 2).rounds([3, 9, 4, 3]) for rank in (0, 1)]
    assert rounds[0] == [(1, True, False), (3, False, False), (3, False, True)]
    assert rounds[1] == [(0, True, False), (2, True, False), (3, True, True)]
    assert Processes().rounds([3, 9]) == [(0, True, False), (1, True, True)]
    assert Processes(1, 2).rounds([]) == []
    assert Processes(1, 2).rounds([5]) == [(0, False, True)]


def test_a_process_repeats_nothing_where_weights_are_exchanged_once_a_step() -> None:
    """It must be there for the one exchange all the same."""
    first, second = Processes(0, 2), Processes(1, 2)
    first.exchange = second.exchange = "step"
    assert first.rounds([3, 9, 4, 3]) == [(1, True, True)]
    assert second.rounds([3, 9, 4, 3]) == [(0, True, False), (2, True, False), (3, True, True)]
    assert second.rounds([5]) == [(0, False, True)]
    assert second.rounds([]) == []


def test_the_frozen_tower_is_gathered_when_any_process_has_pictures() -> None:
    """Of 9, 4, 3, 3 the last has one: the second process runs it third, while the first repeats it for nothing."""
    costs, pictures = [3, 9, 4, 3], [False, False, False, True]
    for rank in (0, 1):
        group = Processes(rank, 2)
        assert group.gathers(costs, pictures) == [False, True, True]
        assert group.gathers(costs, [False] * 4) == [False] * 3
        group.exchange = "step"
        assert group.gathers(costs, pictures) == [True, False, False][: len(group.rounds(costs))]
    assert Processes().gathers([], []) == []


def test_nodes_of_different_size_hold_no_copies() -> None:
    class Uneven(Processes):
        def gather(self, value: Any) -> list[Any]:
            return [2, 2, 1]

    with pytest.raises(ConfigError, match=r"2 on one|1 on one, 2 on another"):
        Uneven(0, 3, 2).shard(tiny.student())


@pytest.mark.parametrize(("part", "where"), [("teacher", "teacher.server"), ("engine", "distill.engine")])
def test_servers_do_not_sleep_under_several_processes(part: str, where: str, tmp_path: Path) -> None:
    raw = tiny.recipe_dict(tmp_path)
    server = {"urls": ["http://127.0.0.1:1/v1"], "model": "m", "sleep": True}
    if part == "teacher":
        raw["teacher"]["server"] = server
    else:
        raw["distill"]["engine"] = server
    recipe = recipe_from(raw, where="test")
    refuse_sleep(recipe, Processes(0, 1))
    with pytest.raises(ConfigError, match=where):
        refuse_sleep(recipe, Processes(1, 2))
