"""A step of the losses over the vocabulary or over candidates, and who can answer them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.teachers.ask import candidates_of, score_rollouts
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.errors import AlignmentError, ConfigError
from vold.model.policy import Policy
from vold.objective import Objective, credit
from vold.objective.losses import full_reverse_kl, jensen_shannon
from vold.training.learner import Learner
from vold.training.logit_distillation import refuse_without_logits
from vold.training.optim import build_optimizer
from vold.training.rollout import sample
from vold.training.step import update
from vold.types import Completion, Grade, Rollout, SamplingParams, ScoreRequest, TokenScores


def test_the_teacher_answers_candidates_and_its_own_top_k() -> None:
    """Against the model's own logits; requests of different lengths, so that padding would show."""
    model = tiny.teacher()
    teacher = InProcessTeacher(model, temperature=0.5, token_budget=64)
    requests = [
        ScoreRequest((9, 10, 11), (12, 13), ((12, 14), (0, 15)), 3),
        ScoreRequest((9,), (12, 13, 20, 21), ((1, 2),) * 4, 3),
        ScoreRequest((9, 10), (12,)),
    ]
    for request, answer in zip(requests, teacher.score(requests), strict=True):
        ids = torch.tensor([[*request.prompt_ids, *request.response_ids]])
        logits = model.model(input_ids=ids).logits[0].float() / 0.5
        logp = logits.index_fill(-1, model.banned, float("-inf")).log_softmax(-1)
        logp = logp[len(request.prompt_ids) - 1 : -1].detach()
        torch.testing.assert_close(
            torch.tensor(answer.logp), logp.gather(1, torch.tensor(request.response_ids.tolist())[:, None])[:, 0]
        )
        if request.candidate_ids is None:
            assert answer.candidate_logp is None and answer.top_ids is None and answer.top_logp is None
            continue
        torch.testing.assert_close(
            torch.tensor(answer.candidate_logp),
            logp.gather(1, torch.tensor(request.candidate_ids, dtype=torch.int64)),
            rtol=1e-4,
            atol=1e-5,
        )
        assert answer.top_ids is not None
        assert answer.top_ids.tolist() == logp.topk(3).indices.tolist()
        torch.testing.assert_close(torch.tensor(answer.top_logp), logp.topk(3).values, rtol=1e-4, atol=1e-5)


def test_the_sampler_notes_the_students_likeliest_tokens_without_another_sample() -> None:
    policy = tiny.student()
    policy.model.eval()
    prompts = [policy.chat.prompt(t.messages) for t in tiny.opened(tiny.TASKS["train"])[:3]]
    plain = InProcessSampler(policy).generate(prompts, SamplingParams(9, 1.0, 3), 2)
    with_candidates = InProcessSampler(policy).generate(prompts, SamplingParams(9, 1.0, 3, candidates=4), 2)
    for prompt, group, other in zip(prompts, with_candidates, plain, strict=True):
        for c, same in zip(group, other, strict=True):
            assert dataclasses.replace(c, candidate_ids=None) == same
            logits = policy.model(input_ids=torch.tensor([[*prompt.ids, *c.ids]])).logits[0]
            best = logits.index_fill(-1, policy.banned, float("-inf"))[len(prompt.ids) - 1 : -1].topk(4).indices
            assert c.candidate_ids is not None
            assert c.candidate_ids.tolist() == best.tolist()


# -- a whole step -----------------------------------------------------------------------------------------------------


def full_logps(policy: Policy, r: Rollout) -> torch.Tensor:
    ids = torch.tensor([[*r.prompt_ids, *r.completion.ids]])
    logits: torch.Tensor = policy.model(input_ids=ids).logits[0].index_fill(-1, policy.banned, float("-inf"))
    return logits[-len(r.completion.ids) - 1 : -1].log_softmax(-1)


def one(kind: str, mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """The divergence of each position, over the ids that both give a probability."""
    keep = (torch.isfinite(mine[:, : theirs.shape[1]]) & torch.isfinite(theirs)).all(0).nonzero()[:, 0]
    if kind == "top_student":
        keep = mine.detach().topk(5).indices
        return full_reverse_kl(mine.gather(1, keep), theirs.gather(1, keep))
    if kind == "top_teacher":
        keep = theirs.topk(5).indices
        p, q = mine.gather(1, keep), theirs.gather(1, keep)
        never = p.isneginf()  # some of these are ids the student never emits
        assert never.any() and not never.all(1).any()
        return jensen_shannon(p.masked_fill(never, -99.0), q.masked_fill(never, -99.0), 0.3)
    if kind == "stopped":
        keep = mine.detach().topk(5).indices
        p, q = mine.gather(1, keep), theirs.gather(1, keep)
        return ((p.exp() * (p - q)).detach() * p).sum(-1)
    p, q = mine[:, keep].log_softmax(-1), theirs[:, keep].log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


FORMS: dict[str, dict[str, Any]] = {
    "full": {"estimator": "reverse_kl"},
    "top_student": {"estimator": "reverse_kl", "top_k": {"k": 5}},
    "top_teacher": {"estimator": "jsd", "teacher_share": 0.3, "top_k": {"k": 5, "support": "teacher"}},
    "stopped": {"estimator": "reverse_kl", "top_k": {"k": 5, "form": "stop_gradient"}},
}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("token_budget", [8192, 40])
def test_an_update_over_distributions_follows_the_gradient_written_out_in_full(
    kind: str, token_budget: int, tmp_path: Path
) -> None:
    objective = {"method": None, "teacher_loss": FORMS[kind] | {"coefficient": 0.5, "mask": "failed"}}
    made = tiny.recipe(tmp_path, distill={"objective": objective, "token_budget": token_budget})
    config = made.distill
    assert config is not None
    policy, model = tiny.student(), tiny.teacher()
    policy.model.eval()
    tasks = tiny.opened(tiny.TASKS["train"])[:2]
    prompts = [policy.chat.prompt(t.messages) for t in tasks]
    asks = list(prompts)
    teacher = InProcessTeacher(model, temperature=1.0, token_budget=64)
    sampled = sample(InProcessSampler(policy), policy.chat, config, tiny.step(prompts, tasks=tasks), range(len(tasks)))
    graded = [
        dataclasses.replace(r, grade=Grade(s, None, "")) for r, s in zip(sampled, (1, 0, 0, 0.5, 0, 0), strict=True)
    ]
    done = credit(config.objective, score_rollouts(graded, teacher, asks, config.objective), 0)
    tokens = sum(len(r.completion.ids) for r in done)
    terms = []
    for r in done:
        with torch.no_grad():
            theirs = full_logps(model, r)
        terms.append((1 - r.grade.score) * one(kind, full_logps(policy, r), theirs).sum())
    loss = 0.5 * torch.stack(terms).sum() / tokens
    loss.backward()
    expected = {n: p.grad.clone() for n, p in policy.trainable() if p.grad is not None}
    policy.model.zero_grad(set_to_none=True)
    seen: dict[str, torch.Tensor] = {}
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"max_grad_norm": 1e9})})
    optimizer = build_optimizer(policy, config.optimizer)
    optimizer.register_step_pre_hook(
        lambda *_: seen.update({n: p.grad.clone() for n, p in policy.trainable() if p.grad is not None})
    )
    row, _ = update(Learner(config, policy, optimizer), done, tiny.step(prompts), teacher)
    if kind != "stopped":  # its value is defined otherwise than its gradient
        assert row.loss == pytest.approx(loss.item(), rel=1e-4)
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=2e-3, atol=1e-5)


# -- who can answer ---------------------------------------------------------------------------------------------------


class Server:
    """A teacher that knows sampled tokens only."""

    def score(self, requests: Any) -> list[TokenScores]:
        return [TokenScores((0.0,) * len(r.response_ids)) for r in requests]


def test_a_loss_over_the_vocabulary_refuses_a_teacher_without_logits() -> None:
    gkd = Objective.model_validate({"method": "gkd"})
    with pytest.raises(ConfigError, match="whole distributions") as caught:
        refuse_without_logits(gkd, Server())
    assert "top_k" in caught.value.fix and "teacher.path" in caught.value.fix
    refuse_without_logits(gkd, InProcessTeacher(tiny.teacher(), temperature=1.0, token_budget=8))
    refuse_without_logits(Objective.model_validate({"method": "gkd", "reading": "top_k"}), Server())


def test_candidates_of_a_rollout_leave_out_what_a_tool_wrote() -> None:
    completion = Completion((5, 6, 7), (-1.0,) * 3, (1, 0, 1), "stop", ((5, 1, 2), (8, 8, 8), (7, 3, 4)))
    r = Rollout("t", 0, (9,), completion, Grade(0, None, ""))
    found = candidates_of(r, 2)
    assert found is not None and found.tolist() == [[5, 1], [0, 0], [7, 3]]
    assert candidates_of(r, 0) is None
    with pytest.raises(AlignmentError, match="no candidates"):
        candidates_of(r, 4)
    with pytest.raises(AlignmentError, match="no candidates"):
        candidates_of(dataclasses.replace(r, completion=dataclasses.replace(completion, candidate_ids=None)), 2)


def test_a_teacher_that_ignores_candidates_is_noticed(tmp_path: Path) -> None:
    objective = {"method": None, "teacher_loss": FORMS["top_student"] | {"mask": "none"}}
    config = tiny.recipe(tmp_path, distill={"objective": objective}).distill
    assert config is not None
    policy = tiny.student()
    tasks = tiny.opened(tiny.TASKS["train"])[:1]
    prompts = [policy.chat.prompt(t.messages) for t in tasks]
    sampled = sample(InProcessSampler(policy), policy.chat, config, tiny.step(prompts, tasks=tasks), range(len(tasks)))
    done = credit(config.objective, score_rollouts(sampled, Server(), [prompts[0]], config.objective), 0)
    with pytest.raises(AlignmentError, match="has not scored the candidates"):
        learner = Learner(config, policy, build_optimizer(policy, config.optimizer))
        update(learner, done, tiny.step(prompts), Server())
