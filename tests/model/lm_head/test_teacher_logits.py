"""Distributions chunk by chunk against the same written out in full."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from vold.errors import ConfigError
from vold.model.lm_head import logprobs as head
from vold.model.lm_head.chunked_logits import NEVER
from vold.model.lm_head.fused import HeadOutput, Query
from vold.model.lm_head.fused_divergence import FullDivergence, row_dot
from vold.model.lm_head.logprobs import read_head
from vold.model.lm_head.teacher_logits import ABSENT, Against, Distributions, candidate_divergence
from vold.objective.losses import full_forward_kl, full_reverse_kl, stopped_reverse_kl


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


def read(student: Distributions, **asked: Any) -> HeadOutput:
    targets = torch.zeros(len(student.states), dtype=torch.int64)
    return read_head(
        student.states, student.head, Query(targets, banned=student.banned, temperature=student.temperature, **asked)
    )


def against(teacher: Distributions, kind: Any) -> Against:
    return Against(teacher, torch.ones(len(teacher.states), dtype=torch.bool), FullDivergence(kind))


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_a_divergence_is_taken_over_the_ids_both_can_emit(chunk: int, linear: bool) -> None:
    student, teacher = pair()
    shared = [0, 1, 3, 4]
    p, q = dense(student, shared), dense(teacher, shared)
    want = (p.exp() * (p - q)).sum(-1)
    weights = (student.states, *student.head.parameters())
    if not linear:  # a head that is more than a linear layer takes another way
        student.head, teacher.head = torch.nn.Sequential(student.head), torch.nn.Sequential(teacher.head)
    got = read(student, chunk_tokens=chunk, against=against(teacher, "reverse_kl")).divergence
    assert got is not None
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    expected = torch.autograd.grad((want * torch.arange(7.0)).sum(), weights)
    found = torch.autograd.grad((got * torch.arange(7.0)).sum(), weights)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_whole_batch_never_has_its_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "CHUNK_TOKENS", 2)
    student, teacher = pair()
    seen: list[int] = []
    student.head.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    divergence = read(student, against=against(teacher, "forward_kl")).divergence
    assert divergence is not None
    divergence.sum().backward()
    assert max(seen) == 2
    assert sum(seen) == 2 * 7  # once forward, once again backward


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("chunk", [2, 100])
def test_candidates_have_the_log_probs_of_the_whole_vocabulary(chunk: int, linear: bool) -> None:
    student, _ = pair(rows=3)
    allowed = [0, 1, 3, 4, 5, 6, 7]
    full = torch.full((3, 9), ABSENT)
    full[:, allowed] = dense(student, allowed)
    ids = torch.tensor([[0, 4], [7, 2], [1, 11]])
    want = torch.stack([full[0, [0, 4]], full[1, [7, 2]], torch.stack([full[2, 1], torch.tensor(ABSENT)])])
    if not linear:
        student.head = torch.nn.Sequential(student.head)
    got = read(student, chunk_tokens=chunk, candidates=ids).candidates
    assert got is not None
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(got.sum(), student.states)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("linear", [True, False])
def test_a_models_own_top_k_and_its_limit(linear: bool) -> None:
    _, teacher = pair(rows=3)
    order = dense(teacher, [0, 1, 2, 3, 4]).sort(-1, descending=True)
    if not linear:
        teacher.head = torch.nn.Sequential(teacher.head)
    reading = read(teacher, top_k=3)
    assert reading.top_ids is not None and reading.top_logp is not None
    assert reading.top_ids.tolist() == order.indices[:, :3].tolist()
    torch.testing.assert_close(reading.top_logp, order.values[:, :3], rtol=1e-5, atol=1e-6)
    read(teacher, top_k=5)
    with pytest.raises(ConfigError, match="more candidates"):
        read(teacher, top_k=6)
    with pytest.raises(ConfigError, match="more candidates"):
        read(teacher, top_k=60)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_a_divergence_in_place_is_the_plain_one_in_value_and_gradient(share: float) -> None:
    """In float64, with ids that neither model can emit and probabilities down to 1e-30."""
    torch.manual_seed(2)
    logits, theirs = (torch.randn(5, 12, dtype=torch.float64) * 9 for _ in range(2))
    logits[0] = theirs[0]  # where they agree, there is no gradient
    plain = FullDivergence("jsd", share)
    leaf = logits.clone().requires_grad_()
    expected = plain(leaf, theirs)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    never = torch.full((5, 2), NEVER, dtype=torch.float64)
    student = torch.cat([logits, never], -1).log_softmax(-1)
    value, slope = plain.in_place(student, torch.cat([theirs, never], -1).log_softmax(-1), student.exp())
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(slope[:, :12], gradient, rtol=1e-12, atol=1e-14)
    assert bool((slope[:, 12:] == 0).all()) and bool((slope[0].abs() < 1e-14).all())
    ends = {0.0: "forward_kl", 1.0: "reverse_kl"}
    if share in ends:
        torch.testing.assert_close(FullDivergence(ends[share])(logits, theirs), expected.detach())  # type: ignore[arg-type]


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


def test_sums_over_a_whole_vocabulary_keep_seven_digits() -> None:
    """The entropy of 151,936 ids, about 11.4 nats. One float32 sum that runs through them all is wrong by 2e-4."""
    torch.manual_seed(0)
    logp = torch.randn(4, 151936).log_softmax(-1)
    exact = (logp.double().exp() * logp.double()).sum(-1)
    torch.testing.assert_close(row_dot(logp.exp(), logp).double(), exact, rtol=0, atol=2e-5)
