"""Stage 2 and the cold start: what is asked, what is summed, and what must never reach the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.teachers.ask import score_rollouts
from vold.errors import AlignmentError, DataError, TrainingError
from vold.model.policy import Policy
from vold.objective import Objective, credit
from vold.run.order import epoch_indices
from vold.run.recipe import Distill, Optimizer, Sft
from vold.training.distill import distill
from vold.training.learner import Learner
from vold.training.optim import build_optimizer
from vold.training.rollout import sample
from vold.training.rollout_log import with_entropy
from vold.training.sft import accumulate, refuse_banned, sft
from vold.training.step import update
from vold.training.streams import has_signal
from vold.training.traces import Trace, read_traces
from vold.types import Completion, Grade, Prompt, Rollout, ScoreRequest, TokenScores


def config_of(home: Path, **changes: object) -> Distill:
    made = tiny.recipe(home, distill=changes)
    assert made.distill is not None
    return made.distill


def learner_of(policy: Policy, config: Distill) -> Learner[Distill]:
    return Learner(config, policy, build_optimizer(policy, config.optimizer))


def rollouts_of(policy: Policy, config: Distill, scores: Sequence[float]) -> tuple[list[Rollout], list[Prompt]]:
    """Two groups of three sampled rollouts with the scores we say."""
    tasks = tiny.opened(tiny.TASKS["train"])[:2]
    prompts = [policy.chat.prompt(t.messages) for t in tasks]
    made = sample(InProcessSampler(policy), policy.chat, config, tiny.step(prompts, tasks=tasks), range(2))
    graded = [dataclasses.replace(r, grade=Grade(s, None, "")) for r, s in zip(made, scores, strict=True)]
    return graded, prompts


def finished(rollouts: list[Rollout], prompts: list[Prompt], objective: Objective) -> list[Rollout]:
    done = score_rollouts(rollouts, tiny.RecordingTeacher(), list(prompts), objective)
    return credit(objective, done, 0)


MIXED = (1.0, 0.0, 0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("objective", "asked"),
    [
        ({"method": "vold"}, [1, 2, 3]),
        ({"method": "vold", "teacher_loss": {"mask": "none"}}, [0, 1, 2, 3, 4, 5]),
        ({"method": "vold", "teacher_loss": {"mask": "passed"}}, [0, 4, 5]),
        ({"method": "grpo"}, []),
        ({"method": "opd"}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_teacher_reads_only_the_rollouts_the_objective_uses(
    objective: dict[str, object], asked: list[int], tmp_path: Path
) -> None:
    config = config_of(tmp_path, objective=objective)
    rollouts, prompts = rollouts_of(tiny.student(), config, MIXED)
    teacher = tiny.RecordingTeacher()
    done = score_rollouts(rollouts, teacher, list(prompts), config.objective)
    expected = [ScoreRequest(prompts[i // 3].ids, rollouts[i].completion.ids) for i in asked]
    assert teacher.asked == expected
    assert [i for i, r in enumerate(done) if r.teacher is not None] == asked


def test_scores_of_another_length_are_refused(tmp_path: Path) -> None:
    class Short:
        def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
            return [TokenScores((0.0,) * (len(r.response_ids) - 1)) for r in requests]

    config = config_of(tmp_path)
    rollouts, prompts = rollouts_of(tiny.student(), config, MIXED)
    with pytest.raises(AlignmentError, match="do not line up"):
        score_rollouts(rollouts, Short(), list(prompts), config.objective)


def dense_vold(policy: Policy, teacher: Policy, rollouts: list[Rollout], beta: float) -> torch.Tensor:
    """The loss of VOLD Eq. 6 with token means, written again from full logits, one rollout at a time."""
    tokens = sum(len(r.completion.ids) for r in rollouts)
    total = torch.zeros(())
    for group in (rollouts[:3], rollouts[3:]):
        scores = torch.tensor([r.grade.score for r in group])
        spread = scores.std()
        for r in group:
            ids = torch.tensor([[*r.prompt_ids, *r.completion.ids]])
            n = len(r.completion.ids)
            logits = policy.model(input_ids=ids).logits[0].index_fill(-1, policy.banned, float("-inf"))
            with torch.no_grad():
                theirs = teacher.model(input_ids=ids).logits[0].log_softmax(-1)
            column = torch.tensor(r.completion.ids)[:, None]
            logp = logits.log_softmax(-1)[-n - 1 : -1].gather(1, column)[:, 0]
            logt = theirs[-n - 1 : -1].gather(1, column)[:, 0]
            advantage = 0.0 if spread == 0 else float((r.grade.score - scores.mean()) / (spread + 1e-6))
            ratio = (logp - torch.tensor(r.completion.logps)).exp()
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.3) * advantage)
            total = total + (-surrogate.sum() + beta * (1 - r.grade.score) * 0.5 * ((logp - logt) ** 2).sum()) / tokens
    return total


@pytest.mark.parametrize("token_budget", [8192, 40])
def test_an_update_follows_the_gradient_of_the_loss_written_out_in_full(token_budget: int, tmp_path: Path) -> None:
    objective = {"method": "vold", "teacher_loss": {"coefficient": 0.7}}
    config = config_of(tmp_path, objective=objective, token_budget=token_budget)
    policy, teacher = tiny.student(), tiny.teacher()
    policy.model.eval()
    rollouts, prompts = rollouts_of(policy, config, MIXED)
    done = finished(rollouts, prompts, config.objective)
    loss = dense_vold(policy, teacher, done, 0.7)
    loss.backward()
    expected = {n: p.grad.clone() for n, p in policy.trainable() if p.grad is not None}
    policy.model.zero_grad(set_to_none=True)
    seen: dict[str, torch.Tensor] = {}
    optimizer = build_optimizer(policy, config.optimizer)
    optimizer.register_step_pre_hook(
        lambda *_: seen.update({n: p.grad.clone() for n, p in policy.trainable() if p.grad is not None})
    )
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"max_grad_norm": 1e9})})
    row, _ = update(Learner(config, policy, optimizer), done, tiny.step(prompts), tiny.NO_TEACHER)
    assert row.loss == pytest.approx(loss.item(), rel=1e-4)
    assert {n for n in seen if seen[n].abs().sum() > 0} == {n for n in expected if expected[n].abs().sum() > 0}
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_the_entropy_is_kept_of_what_was_trained_on(tmp_path: Path) -> None:
    config = config_of(tmp_path, token_budget=40)
    policy = tiny.student()
    rollouts, prompts = rollouts_of(policy, config, MIXED)
    done = finished(rollouts, prompts, config.objective)
    done[1] = dataclasses.replace(done[1], advantage=None, teacher_weight=None)  # teaches nothing
    # Before the update, which changes the weights.
    expected = {}
    for place, r in enumerate(done):
        ids = torch.tensor([[*r.prompt_ids, *r.completion.ids]])
        logits = policy.model(input_ids=ids).logits[0].index_fill(-1, policy.banned, float("-inf"))
        p = logits[len(r.prompt_ids) - 1 : -1].softmax(-1)
        expected[place] = torch.special.entr(p).sum(-1)
    with torch.enable_grad():
        _, kept = update(learner_of(policy, config), done, tiny.step(prompts), tiny.NO_TEACHER)
    found = {place: r.token_values["entropy"] for place, r in enumerate(kept) if "entropy" in r.token_values}
    assert sorted(found) == [place for place, r in enumerate(done) if has_signal(r, config.objective)]
    assert 1 not in found
    for place, values in found.items():
        torch.testing.assert_close(torch.tensor(values), expected[place], rtol=1e-4, atol=1e-5)


def test_entropy_has_no_value_where_a_tool_wrote() -> None:
    r = Rollout("t", 0, (1,), Completion((5, 6, 7), (-1.0, 0.0, -1.0), (1, 0, 1)), Grade(0.0, None, ""))
    first, second = with_entropy([r, r], {1: np.asarray([0.5, 2.0], "float32")})
    assert "entropy" not in first.token_values
    assert second.token_values["entropy"].tolist() == pytest.approx([0.5, math.nan, 2.0], nan_ok=True)


def test_a_step_in_which_all_pass_leaves_the_weights_alone(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    policy = tiny.student()
    rollouts, prompts = rollouts_of(policy, config, (1.0,) * 6)
    done = finished(rollouts, prompts, config.objective)
    before = [p.clone() for _, p in policy.trainable()]
    row, _ = update(learner_of(policy, config), done, tiny.step(prompts), tiny.NO_TEACHER)
    assert row.trained_tokens == 0
    assert all(torch.equal(b, p) for b, (_, p) in zip(before, policy.trainable(), strict=True))


def test_a_loss_that_is_not_finite_stops_before_the_weights(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    policy = tiny.student()
    rollouts, prompts = rollouts_of(policy, config, MIXED)
    done = finished(rollouts, prompts, config.objective)
    worst = TokenScores((float("-inf"),) * len(done[1].completion.ids))
    done[1] = dataclasses.replace(done[1], teacher=worst)
    before = [p.clone() for _, p in policy.trainable()]
    with pytest.raises(TrainingError, match="not finite"):
        update(learner_of(policy, config), done, tiny.step(prompts, number=7), tiny.NO_TEACHER)
    assert all(torch.equal(b, p) for b, (_, p) in zip(before, policy.trainable(), strict=True))


def test_both_stages_leave_vision_and_projector_bit_for_bit(tmp_path: Path) -> None:
    made = tiny.recipe(tmp_path)
    tiny.write_traces(tmp_path, made)
    start = Policy.load(str(tmp_path / "student")).model.state_dict()
    for directory in (sft(made), distill(made)):
        end = Policy.load(str(directory)).model.state_dict()
        changed = {n for n in start if not torch.equal(start[n], end[n])}
        assert changed
        assert not any("visual" in n for n in changed)


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    def train(name: str, seed: int) -> bytes:
        start = str(tmp_path / "student")
        made = tiny.recipe(
            tmp_path, run={"dir": str(tmp_path / name), "seed": seed}, distill={"init": start, "steps": 2}
        )
        return (distill(made) / "model.safetensors").read_bytes()

    assert train("a", 1) == train("b", 1)
    assert train("a", 1) != train("c", 2)


def test_grpo_alone_raises_the_reward_of_a_task_the_student_can_do(tmp_path: Path) -> None:
    """A reward of 1 for ending within eight tokens: reached now and then at first, nearly always at the end."""
    config = config_of(tmp_path, objective={"method": "grpo"}, rollouts=8, optimizer={"lr": 1e-2, "warmup_steps": 1})
    policy = tiny.student()
    tasks = tiny.opened(tiny.TASKS["train"])[:6]
    prompts = [policy.chat.prompt(t.messages) for t in tasks]
    longer = config.model_copy(update={"steps": 40})
    learner = Learner(longer, policy, build_optimizer(policy, config.optimizer))
    rewards = []
    for step in range(40):
        here = tiny.step(prompts, number=step, seed=step, tasks=tasks, teacher_prompts=[None] * 6)
        made = sample(InProcessSampler(policy), policy.chat, config, here, range(6))
        graded = [dataclasses.replace(r, grade=Grade(float(len(r.completion.ids) < 9), None, "")) for r in made]
        done = credit(config.objective, graded, step)
        update(learner, done, here, tiny.NO_TEACHER)
        rewards.append(sum(r.grade.score for r in done) / len(done))
    assert sum(rewards[:3]) / 3 < 0.4
    assert sum(rewards[-5:]) / 5 > 0.8


def test_tasks_without_a_text_view_do_not_dilute_the_teacher(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    policy = tiny.student()
    rollouts, prompts = rollouts_of(policy, config, (0.0,) * 6)
    both = score_rollouts(rollouts, tiny.RecordingTeacher(), [prompts[0], None], config.objective)
    assert [r.teacher is not None for r in both] == [True] * 3 + [False] * 3
    only = both[:3]
    losses = []
    for part in (both, only):
        fresh = tiny.student()
        done = credit(config.objective, part, 0)
        step = tiny.step(prompts, teacher_prompts=[prompts[0], None])
        losses.append(update(learner_of(fresh, config), done, step, tiny.NO_TEACHER)[0].loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] > 0


def traces_of(home: Path) -> tuple[Policy, list[Trace]]:
    made = tiny.recipe(home)
    tiny.write_traces(home, made)
    return tiny.student(), read_traces(made)


def test_the_cold_start_averages_over_tokens_however_rows_are_cut(tmp_path: Path) -> None:
    policy, traces = traces_of(tmp_path)
    gradients = []
    for budget in (8192, 60, 1):
        config = Sft(steps=1, batch_size=5, token_budget=budget, optimizer=Optimizer(lr=1e-3))
        learner = Learner(config, policy, build_optimizer(policy, config.optimizer))
        value, tokens = accumulate(learner, traces[:5])
        gradients.append([p.grad.clone() for _, p in policy.trainable() if p.grad is not None])
        policy.model.zero_grad(set_to_none=True)
        assert tokens == sum(len(t.response_ids) for t in traces[:5])
        assert value == pytest.approx(4.68, abs=0.5)  # an untrained model is near ln(108 rows - 4 banned)
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_traces_the_student_can_never_write_are_refused(tmp_path: Path) -> None:
    policy, traces = traces_of(tmp_path)
    refuse_banned(traces, policy)
    bad = [dataclasses.replace(traces[0], response_ids=(int(policy.banned[-1]), policy.chat.end_id)), *traces]
    with pytest.raises(DataError, match=r"1 of 13 traces"):
        refuse_banned(bad, policy)


def test_an_epoch_shows_every_trace_once() -> None:
    seen = [epoch_indices(10, 4, 5, step) for step in range(5)]
    flat = [i for part in seen for i in part]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert epoch_indices(10, 4, 6, 0) != seen[0]


def test_flattened_tool_tokens_take_no_part(tmp_path: Path) -> None:
    """An action mask of 0 drops a token from the loss; the gradient is that of the other tokens."""
    config = config_of(tmp_path, objective={"method": "grpo"})
    policy = tiny.student()
    rollouts, prompts = rollouts_of(policy, config, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    masked = []
    for r in rollouts:
        c = r.completion
        masked.append(dataclasses.replace(r, completion=Completion(c.ids, c.logps, (0, *c.action_mask[1:]), c.finish)))
    done = credit(config.objective, masked, 0)
    step = tiny.step(prompts, teacher_prompts=[None, None])
    row, _ = update(learner_of(policy, config), done, step, tiny.NO_TEACHER)
    assert row.trained_tokens == sum(len(r.completion.ids) - 1 for r in rollouts[:3])
