"""Rollouts of the next step while the present one updates: which weights sample them, and what a kill leaves."""

from __future__ import annotations

import copy
import itertools
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import killed_at_grade
import loaded
import tiny
import two_processes
from engine_backends import text_model
from killed import weights_of
from served import metrics, on, raw_recipe
from vllm_server import VllmServer
from vllm_weights import ServedWeights
from vold.engines.grade import grade
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.teachers.ask import EarlyTeacher
from vold.engines.teachers.teachers import open_teachers
from vold.errors import ConfigError, TrainingError
from vold.model.policy import Policy
from vold.objective import credit
from vold.run.folders import latest_checkpoint
from vold.run.recipe import Recipe, dump_recipe, recipe_from
from vold.training import learner
from vold.training.distill import distill
from vold.training.optim import apply_update
from vold.training.problems import Problems
from vold.training.scoring import Scoring
from vold.training.stage import Training, enter_stage
from vold.training.step import update
from vold.training.turns import staleness
from vold.types import Completion, Grade, Rollout, SamplingParams, Teacher

PATIENCE = 60.0
"""Seconds after which a test that waits for what never comes fails."""
STEPS, GROUPS, N = 4, 2, 3
FAST = {"lr": 1e-2, "warmup_steps": 1}
"""Updates that move log-probs by far more than rounding does."""


def made(home: Path, *servers: VllmServer, ahead: int = 1, **changes: Any) -> Recipe:
    raw = raw_recipe(home, steps=STEPS, prompts_per_step=GROUPS, rollouts=N, optimizer=FAST, keep_rollouts_every=1)
    raw["distill"] |= {"engine": on(*servers), "ahead": ahead, "mismatch": {"action": "warn"}, **changes}
    return recipe_from(raw, where="test")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run ahead that nothing has disturbed."""
    home = tmp_path_factory.mktemp("whole")
    with VllmServer(text_model(4)) as server:
        distill(made(home, server))
    return home


def sampled_one_by_one(weights: torch.nn.Module, run: Training[Any], step: Any) -> list[Rollout]:
    """Each row by itself, with a seed of its own, as a server is asked."""
    chat, out = run.policy.chat, list[Rollout]()
    sampler = InProcessSampler(Policy(weights, chat))
    for group, problem in enumerate(step.prompted):
        seeds = [(step.seed + group * N) % 2**62 + j for j in range(N)]
        each = [SamplingParams(max_new_tokens=8, temperature=1.0, seed=seed) for seed in seeds]
        completions = [sampler.generate([problem.prompt], params)[0][0] for params in each]
        ids = problem.prompt.ids
        out += [Rollout(problem.task.id, group, ids, c, grade(problem.task, chat, c)) for c in completions]
    return out


def plain_loop(recipe: Recipe) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Step t is sampled with the weights after t - 1 steps, then learnt from: final weights, and the share of tokens
    with an advantage whose ratio the clip cuts off at each step's update. No servers, no threads, nothing ahead."""
    assert recipe.distill is not None
    objective, shares = recipe.distill.objective, list[float]()
    assert objective.surrogate is not None
    low, high = objective.surrogate.clip_low, objective.surrogate.clip_high
    assert low is not None and high is not None
    with Training(enter_stage(recipe, "distill", recipe.distill), recipe.distill.init) as run:
        teachers = open_teachers(recipe, run.policy)
        problems = Problems(run, teachers)
        scoring = Scoring(run, teachers, problems)
        before = copy.deepcopy(run.policy.model)
        for number in range(STEPS):
            step = problems.step(number)
            rollouts = sampled_one_by_one(before, run, step)
            before = copy.deepcopy(run.policy.model)
            with scoring.early(step) as early:
                for group in range(GROUPS):
                    early.group(rollouts[group * N : (group + 1) * N])
            rollouts = scoring.score(rollouts, step, early)
            rollouts = credit(objective, rollouts, number, seed=step.seed, max_new_tokens=8)
            shares.append(clipped_share(rollouts, run.policy, low, high))
            update(run.learner, rollouts, step, scoring.teacher)
        return dict(run.policy.model.state_dict()), shares


def clipped_share(rollouts: list[Rollout], policy: Policy, low: float, high: float) -> float:
    """By one plain forward pass a rollout."""
    cut = tokens = 0
    for r in rollouts:
        if r.advantage is None:
            continue
        ids = torch.tensor([[*r.prompt_ids, *r.completion.ids.tolist()]])
        with torch.no_grad():
            logits = policy.model(input_ids=ids).logits[0, len(r.prompt_ids) - 1 : -1].float()
        logits[:, policy.banned] = -torch.inf
        logp = logits.log_softmax(-1).gather(1, ids[0, len(r.prompt_ids) :, None])[:, 0].numpy()
        ratio = np.exp(logp - r.completion.logps)
        on, up = r.advantage != 0, r.advantage > 0
        cut += int(np.where(up, ratio > 1 + high, ratio < 1 - low)[on].sum())
        tokens += int(on.sum())
    return cut / tokens if tokens else 0.0


def held_until_updated(server: VllmServer, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """From the second step on, what is to be sampled is held back until the step before has been learnt from: whoever
    samples after the update waits for ever. Returns whether each came in time."""
    updates, in_time, seeds = [threading.Event() for _ in range(STEPS)], list[bool](), list[int]()
    done = itertools.count()

    def update_and_tell(*args: Any, **kwargs: Any) -> float:
        norm = apply_update(*args, **kwargs)
        updates[next(done)].set()
        return norm

    def hold(path: str, body: dict[str, Any]) -> None:
        if path != "/v1/completions" or body["seed"] in seeds:
            return
        seeds.append(body["seed"])
        if step := (len(seeds) - 1) // (GROUPS * N):
            in_time.append(updates[step - 1].wait(PATIENCE))

    monkeypatch.setattr(learner, "apply_update", update_and_tell)
    server.hook = hold
    return in_time


CLIP = {"method": "opd", "surrogate": {"clip_low": 0.02, "clip_high": 0.02}}


def test_a_run_ahead_is_the_plain_loop_whose_sampler_is_one_step_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VllmServer(text_model(4)) as server:
        expected, shares = plain_loop(made(tmp_path / "plain", server, objective=CLIP))
        in_time = held_until_updated(server, monkeypatch)
        end = distill(made(tmp_path / "ahead", server, objective=CLIP))
    assert in_time == [True] * (STEPS - 1) * GROUPS * N
    found = load_file(end / "model.safetensors")
    # A product of one row is rounded by where its matrix lies; a step later or earlier is a hundred times as far off.
    assert all(torch.allclose(expected[name], tensor, atol=5e-5) for name, tensor in found.items())
    rows = metrics(tmp_path / "ahead")
    assert [r["staleness"] for r in rows] == [0, 1, 1, 1]
    assert rows[0]["mismatch"] < 1e-4 < 1e-3 < min(r["mismatch"] for r in rows[1:])
    assert [r["clip_fraction"] for r in rows] == pytest.approx(shares, abs=1e-9) and max(shares) > 0


def test_without_it_each_step_is_sampled_from_its_own_weights(whole: Path, tmp_path: Path) -> None:
    with VllmServer(text_model(4)) as server:
        distill(made(tmp_path, server, ahead=0))
    assert all(r["mismatch"] < 1e-4 and r["staleness"] == 0 for r in metrics(tmp_path))
    assert weights_of(tmp_path / "run/distill") != weights_of(whole / "run/distill")


def restarts(server: VllmServer) -> Callable[[str, dict[str, Any]], None]:
    """A hook, after which the server has its first weights again, in the middle of a step."""

    def restart(path: str, body: dict[str, Any]) -> None:
        if path == "/v1/completions" and next(asked) == 2 * GROUPS * N + 1:
            server.version = "default"
            if server.weights is not None:
                server.weights.restart()
            else:
                server.policy = text_model(4)

    asked = itertools.count()
    return restart


@pytest.mark.parametrize("way", ["whole model", "changed", "adapters"])
def test_a_server_that_restarts_after_the_update_gets_the_weights_before_it_again(
    way: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held until the update is done, the second request of the third step finds the server restarted."""

    def run(home: Path, disturb: Callable[[VllmServer], None]) -> bytes:
        weights = None if way == "whole model" else ServedWeights(text_model(4), rank=4 * (way == "adapters"))
        with VllmServer(text_model(4), weights=weights) as server:
            raw = made(home, server).model_dump(mode="json")
            raw["student"]["lora"] = {"rank": 4, "alpha": 64} if way == "adapters" else None
            disturb(server)
            distill(recipe_from(raw, where="test"))
            assert server.version.endswith("/2")
        return weights_of(home / "run/distill")

    def restarted(server: VllmServer) -> None:
        held_until_updated(server, monkeypatch)
        hold, restart = server.hook, restarts(server)
        server.hook = lambda path, body: hold(path, body) or restart(path, body)

    plain = way == "whole model"  # the others answer with other last bits
    expected = weights_of(whole / "run/distill") if plain else run(tmp_path / "whole", lambda server: None)
    assert run(tmp_path / "broken", restarted) == expected


VARIED: dict[str, Any] = {
    "checkpoint_every": 2,
    "refill": 1,
    "updates": {"mini_batches": 2},
    "objective": {"method": "grpo", "entropy": {"coefficient": 0.01}},
    "sampling": {"max_new_tokens": 8, "temperature": 1.0, "top_k": 5},
}


def rows_without_clock(home: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in metrics(home)]


def assert_same_run(home: Path, other: Path) -> None:
    assert weights_of(home / "run/distill") == weights_of(other / "run/distill")
    assert rows_without_clock(home) == rows_without_clock(other)
    for file in sorted((home / "run/distill/rollouts").glob("*.safetensors")):
        assert file.read_bytes() == (other / "run/distill/rollouts" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "kills"),
    [({"checkpoint_every": 1}, (14, 8, 2)), (VARIED, (2 * 18 + 2, 2, 8))],
    ids=["a state a step", "varied"],
)
def test_a_run_killed_with_rollouts_under_way_ends_as_if_it_had_not_been(
    changes: dict[str, Any], kills: tuple[int, ...], whole: Path, tmp_path: Path
) -> None:
    """Each step grades 6 rollouts, with refill twice as many: the first kill is in the third step or the fourth, the
    others soon after a start."""
    with VllmServer(text_model(4)) as server:
        if changes is VARIED:
            whole = tmp_path / "whole"
            distill(made(whole, server, **changes))
        broken = made(tmp_path / "broken", server, **changes)
        file = tmp_path / "broken.yaml"
        file.write_text(dump_recipe(broken))
        for count in kills:
            # Not a fork of this process: it would have the locks that the server's threads hold, and not the threads.
            ended = loaded.run(killed_at_grade.__file__, str(file), str(count))
            assert ended.returncode == -signal.SIGKILL, ended.stderr
        kept = latest_checkpoint(broken.run.dir / "distill")
        assert kept is not None and kept.name == "step-000002" and (kept / "rollouts.safetensors").is_file()
        distill(broken)
    assert_same_run(whole, tmp_path / "broken")


def interrupted_at(number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, with Ctrl-C in its place in one step."""

    def call(scoring: Scoring, rollouts: list[Rollout], step: Any, early: Any) -> Any:
        if step.number == number:
            raise KeyboardInterrupt
        return real(scoring, rollouts, step, early)

    return call


def test_a_run_that_is_interrupted_saves_what_is_under_way_with_its_state(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By Ctrl-C before a teacher is asked in the third step; then while it waits for the rollouts of the last one."""
    with VllmServer(text_model(4)) as server:
        recipe = made(tmp_path, server)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Scoring, "score", interrupted_at(2, Scoring.score))
            distill(recipe)
        kept = latest_checkpoint(recipe.run.dir / "distill")
        assert kept is not None and kept.name == "step-000002"
        released = threading.Event()

        def hold(path: str, body: dict[str, Any]) -> None:
            if path == "/v1/completions":
                released.wait(PATIENCE)

        server.hook = hold
        ask, calls = EarlyTeacher.ask, itertools.count()

        def interrupted(early: EarlyTeacher, teacher: Teacher) -> None:
            if next(calls) == 2:  # twice in the third step
                released.set()
                raise KeyboardInterrupt
            ask(early, teacher)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(EarlyTeacher, "ask", interrupted)
            distill(recipe)
        assert "needs the rollouts of the next one" in capsys.readouterr().out
        kept = latest_checkpoint(recipe.run.dir / "distill")
        assert kept is not None and kept.name == "step-000003"
        distill(recipe)
    assert_same_run(whole, tmp_path)


def test_a_server_that_stays_away_leaves_the_last_state(whole: Path, tmp_path: Path) -> None:
    with VllmServer(text_model(4)) as server:
        recipe = made(tmp_path, server, checkpoint_every=2, engine=on(server, patience=0.05))
        asked = itertools.count()
        server.hook = lambda path, body: (
            server.kill() if path == "/v1/completions" and next(asked) == 3 * GROUPS * N else None
        )
        with pytest.raises(Exception, match="no rollout server answers"):
            distill(recipe)
        kept = latest_checkpoint(recipe.run.dir / "distill")
        assert kept is not None and kept.name == "step-000002"
        server.hook = lambda path, body: None
        server.start()
        distill(recipe)
    assert_same_run(whole, tmp_path)


@pytest.mark.processes
def test_two_processes_run_ahead_as_one_does(tmp_path: Path) -> None:
    """Rounds of further prompts need words between them while the update does as well."""
    ends = []
    with VllmServer(text_model(4)) as server, VllmServer(text_model(1)) as teacher:
        for name in ("one", "two"):
            raw = made(tmp_path / name, server, refill=1, prompts_per_step=3).model_dump(mode="json")
            raw["teacher"]["server"] = on(teacher)
            if name == "one":
                distill(recipe_from(raw, where="test"))
            else:
                (tmp_path / "two.yaml").write_text(yaml.safe_dump(raw))
                done = loaded.run(two_processes.__file__, "1x2", f"distill={tmp_path / 'two.yaml'}")
                assert done.returncode == 0, done.stderr[-3000:]
            ends.append(load_file(tmp_path / name / "run/distill/final/model.safetensors"))
    for name in ends[0]:
        torch.testing.assert_close(ends[1][name], ends[0][name], rtol=0, atol=1e-5)
    for one, two in zip(*(metrics(tmp_path / name) for name in ("one", "two")), strict=True):
        for key in ("staleness", "reward", "rollout_tokens", "teacher_tokens", "groups_refilled", "groups_silent"):
            assert one[key] == two[key]
        assert two["mismatch_mean"] == pytest.approx(one["mismatch_mean"], abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": None}, "in the training process"),
        ({"engine": {"colocate": True, "memory": 0.4, "context": 64}}, "in the training process"),
        ({"engine": {"urls": ["http://localhost:1/v1"], "model": "tiny", "sleep": True}}, "sleep"),
        ({"ahead": 2}, "less than or equal to 1"),
    ],
)
def test_what_can_not_sample_meanwhile_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny.recipe(tmp_path, distill={"ahead": 1, **changes})


@pytest.mark.parametrize(("ahead", "version", "age"), [(0, 5, 0), (1, 5, 0), (1, 4, 1), (0, 4, None), (1, 3, None)])
def test_rollouts_older_than_the_recipe_allows_are_never_learnt_from(
    ahead: int, version: int, age: int | None, tmp_path: Path
) -> None:
    engine = {"urls": ["http://localhost:1/v1"], "model": "tiny"}
    config = tiny.recipe(tmp_path, distill={"ahead": ahead, "engine": engine}).distill
    assert config is not None
    one = Rollout("t", 0, (1,), Completion((5,), (-0.1,), (1,)), Grade(0.0, None, ""))
    rollouts = [one, Rollout("t", 0, (1,), one.completion, one.grade, version=version)]
    step = tiny.step([], number=5)
    if age is None:
        with pytest.raises(TrainingError, match="older than the recipe allows"):
            staleness(config, rollouts, step)
    else:
        assert staleness(config, rollouts, step) == age
