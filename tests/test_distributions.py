"""Distributions chunk by chunk against the same written out in full."""

from __future__ import annotations

import math

import pytest
import torch

from vold import distributions
from vold.distributions import ABSENT, Distributions, candidate_divergence, candidate_logprobs, divergence, top_of
from vold.errors import ConfigError
from vold.losses import full_forward_kl, full_reverse_kl, stopped_reverse_kl


def pair(rows: int = 7, width: int = 4) -> tuple[Distributions, Distributions]:
    """Two random heads of 9 and 6 ids; the first may not emit ids 2 and 8, the second not 5."""
    torch.manual_seed(0)
    heads = [torch.nn.Linear(width, n, bias=False) for n in (9, 6)]
    states = [torch.randn(rows, width, requires_grad=True), torch.randn(rows, width)]
    banned = [torch.tensor([2, 8]), torch.tensor([5])]
    one, two = (Distributions(s, h, b, 0.7) for s, h, b in zip(states, heads, banned, strict=True))
    return one, two


def dense(d: Distributions, ids: list[int]) -> torch.Tensor:
    """Log-probs over `ids` alone."""
    logits: torch.Tensor = d.head(d.states) / 0.7
    return logits[:, ids].log_softmax(-1)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_a_divergence_is_taken_over_the_ids_both_can_emit(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "CHUNK_TOKENS", chunk)
    student, teacher = pair()
    shared = [0, 1, 3, 4]
    p, q = dense(student, shared), dense(teacher, shared)
    want = (p.exp() * (p - q)).sum(-1)
    got = divergence(student, teacher, full_reverse_kl)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    weights = (student.states, *student.head.parameters())
    expected = torch.autograd.grad((want * torch.arange(7.0)).sum(), weights)
    found = torch.autograd.grad((got * torch.arange(7.0)).sum(), weights)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("plain", [True, False])
def test_no_gradient_reaches_the_teacher_whatever_the_divergence(plain: bool) -> None:
    student, teacher = pair()
    if not plain:  # a head that is more than a linear layer takes another way
        student.head = torch.nn.Sequential(student.head)
    got = divergence(student, teacher, lambda mine, theirs: (mine * theirs).sum(-1)).sum()
    unused = torch.autograd.grad(got, tuple(teacher.head.parameters()), allow_unused=True)
    assert all(g is None for g in unused)


def test_the_whole_batch_never_has_its_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "CHUNK_TOKENS", 2)
    student, teacher = pair()
    seen: list[int] = []
    student.head.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    divergence(student, teacher, full_forward_kl).sum().backward()
    assert max(seen) == 2
    assert sum(seen) == 2 * 7 + 1  # once forward, once again backward, and one row to learn the vocabulary's size


@pytest.mark.parametrize("chunk", [2, 100])
def test_candidates_have_the_log_probs_of_the_whole_vocabulary(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "CHUNK_TOKENS", chunk)
    student, _ = pair(rows=3)
    allowed = [0, 1, 3, 4, 5, 6, 7]
    full = torch.full((3, 9), ABSENT)
    full[:, allowed] = dense(student, allowed)
    ids = torch.tensor([[0, 4], [7, 2], [1, 11]])
    want = torch.stack([full[0, [0, 4]], full[1, [7, 2]], torch.stack([full[2, 1], torch.tensor(ABSENT)])])
    got = candidate_logprobs(student, ids)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(got.sum(), student.states)
    assert torch.isfinite(gradient).all()


def test_a_models_own_top_k_and_its_limit() -> None:
    _, teacher = pair(rows=3)
    ids, values = top_of(teacher, 3)
    order = dense(teacher, [0, 1, 2, 3, 4]).sort(-1, descending=True)
    assert ids.tolist() == order.indices[:, :3].tolist()
    torch.testing.assert_close(values, order.values[:, :3], rtol=1e-5, atol=1e-6)
    top_of(teacher, 5)
    with pytest.raises(ConfigError, match="more candidates"):
        top_of(teacher, 6)
    with pytest.raises(ConfigError, match="more candidates"):
        top_of(teacher, 60)


def test_candidates_that_only_one_model_can_emit_are_left_out() -> None:
    """Two of four are known to both: (0.2, 0.3) against (0.4, 0.1), renormalised (0.4, 0.6) and (0.8, 0.2)."""
    mine = torch.tensor([[math.log(0.2), math.log(0.3), ABSENT, math.log(0.1)]], requires_grad=True)
    theirs = torch.tensor([[math.log(0.4), math.log(0.1), math.log(0.3), -math.inf]])
    want = 0.4 * math.log(0.4 / 0.8) + 0.6 * math.log(0.6 / 0.2)
    got = candidate_divergence(mine, theirs, full_reverse_kl)
    assert got.item() == pytest.approx(want, rel=1e-5)
    (gradient,) = torch.autograd.grad(got.sum(), mine)
    assert torch.isfinite(gradient).all() and gradient[0, 2:].tolist() == [0.0, 0.0]
    stopped = candidate_divergence(mine, theirs, stopped_reverse_kl)
    assert stopped.item() == pytest.approx(0.2 * math.log(0.5) + 0.3 * math.log(3), rel=1e-5)
    nothing = candidate_divergence(torch.tensor([[ABSENT, -1.0]]), torch.tensor([[-1.0, -math.inf]]), full_forward_kl)
    assert nothing.item() == 0.0
