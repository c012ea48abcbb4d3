"""The chunked head against the definition in float64: values, gradients, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from peak import Widest
from vold.errors import ConfigError
from vold.model.lm_head.chunked_logits import Gradients, Projection, is_linear
from vold.model.lm_head.fused import HeadOutput, Query
from vold.model.lm_head.fused_divergence import FullDivergence
from vold.model.lm_head.logprobs import read_head, token_logprobs
from vold.model.lm_head.teacher_logits import ABSENT, Against, Distributions

TOKENS, WIDTH, VOCABULARY = 23, 8, 31
BANNED = torch.tensor([28, 30])
USED = torch.ones(TOKENS, dtype=torch.bool)


def model(dtype: torch.dtype, *, bias: bool = False) -> tuple[torch.Tensor, torch.nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH).to(dtype).requires_grad_()
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=bias).to(dtype)
    return hidden, head, torch.randint(0, 28, (TOKENS,))


def oracle(hidden: torch.Tensor, head: torch.nn.Linear, temperature: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Dense log-probs [tokens, vocabulary] in float64 from copies of the inputs, and those copies."""
    leaves = [t.detach().double().requires_grad_() for t in (hidden, head.weight)]
    logits = leaves[0] @ leaves[1].t()
    if head.bias is not None:
        leaves.append(head.bias.detach().double().requires_grad_())
        logits = logits + leaves[2]
    return (logits / temperature).index_fill(-1, BANNED, float("-inf")).log_softmax(-1), leaves


# float32 rounds at 6e-8 and bfloat16 at 4e-3; the bounds leave room for sums of 31 terms.
@pytest.mark.parametrize(
    ("dtype", "value", "gradient"),
    [(torch.float64, 1e-6, 1e-6), (torch.float32, 2e-6, 2e-6), (torch.bfloat16, 2e-2, 3e-2)],
)
@pytest.mark.parametrize("chunk", [1, 4, 23, 100])
@pytest.mark.parametrize("bias", [False, True])
def test_log_probs_entropy_and_gradient_are_those_of_float64(
    dtype: torch.dtype, value: float, gradient: float, chunk: int, bias: bool
) -> None:
    hidden, head, targets = model(dtype, bias=bias)
    weights = torch.randn(TOKENS)
    logp, entropy, argmax = token_logprobs(hidden, head, targets, banned=BANNED, temperature=0.7, chunk_tokens=chunk)
    assert (logp.dtype, entropy.dtype, entropy.requires_grad) == (torch.float32, torch.float32, False)
    (logp * weights).sum().backward()
    dense, leaves = oracle(hidden, head, 0.7)
    expected = dense.gather(-1, targets[:, None])[:, 0]
    (expected * weights).sum().backward()
    torch.testing.assert_close(logp.double(), expected, rtol=0, atol=value)
    safe = dense.detach().masked_fill(dense.isneginf(), 0.0)
    torch.testing.assert_close(entropy.double(), -(dense.exp() * safe).sum(-1), rtol=0, atol=value)
    assert dense.gather(-1, argmax[:, None])[:, 0].tolist() == pytest.approx(dense.amax(-1).tolist(), abs=value)
    for got, leaf in zip((hidden, head.weight, head.bias), leaves, strict=False):
        assert got.grad is not None and leaf.grad is not None
        assert got.grad.dtype == dtype
        error = (got.grad.double() - leaf.grad).abs().max() / leaf.grad.abs().max()
        assert float(error) < gradient


KINDS: list[Any] = ["reverse_kl", "forward_kl", "jsd"]


def teacher(
    *, used: list[int] | None = None, size: int = VOCABULARY, banned: torch.Tensor = BANNED, linear: bool = True
) -> Distributions:
    """Another model of another width at the used tokens."""
    torch.manual_seed(1)
    states, head = torch.randn(TOKENS, 5), torch.nn.Linear(5, size, bias=False)
    picked = states if used is None else states[used]
    return Distributions(picked, head if linear else torch.nn.Sequential(head), banned, 0.7)


def exact_divergence(
    kind: str, student: torch.Tensor, other: Distributions, keep: list[int], rows: list[int]
) -> torch.Tensor:
    """[rows] in float64, from dense log-probs of the student; the definitions, written out."""
    weight = next(other.head.parameters()).detach().double()
    q = (other.states.double() @ weight.t() / 0.7)[:, keep].log_softmax(-1)
    p = student[rows][:, keep].log_softmax(-1)
    if kind == "reverse_kl":
        return (p.exp() * (p - q)).sum(-1)
    if kind == "forward_kl":
        return (q.exp() * (q - p)).sum(-1)
    m = (0.3 * q.exp() + 0.7 * p.exp()).log()
    return 0.3 * (q.exp() * (q - m)).sum(-1) + 0.7 * (p.exp() * (p - m)).sum(-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "value", "gradient"),
    [(torch.float64, 1e-6, 1e-6), (torch.float32, 3e-6, 3e-6), (torch.bfloat16, 3e-2, 5e-2)],
)
@pytest.mark.parametrize("foreseen", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 40])
def test_log_probs_candidates_and_divergence_of_one_pass_are_those_of_float64(
    kind: Any, dtype: torch.dtype, value: float, gradient: float, foreseen: bool, chunk: int
) -> None:
    """The loss takes all three with weights of either sign; a third of the tokens have no teacher. The teacher has
    fewer ids and bans one that the student does not."""
    hidden, head, targets = model(dtype, bias=True)
    rows = [t for t in range(TOKENS) if t % 3]
    used = torch.zeros(TOKENS, dtype=torch.bool)
    used[rows] = True
    other = teacher(used=rows, size=27, banned=torch.tensor([3]))
    ids = torch.randint(0, 28, (TOKENS, 4))
    ids[2], ids[5, 1] = torch.tensor([28, 99, -1, 1]), 30  # some that can not be: banned, or no ids at all
    weights, pulls, third = torch.randn(TOKENS), torch.randn(TOKENS, 4), torch.randn(TOKENS)
    third[~used] = torch.nan  # nothing may come from there
    possible = (ids >= 0) & (ids < VOCABULARY) & ~torch.isin(ids, BANNED)

    def loss_of(part: slice, found: HeadOutput) -> torch.Tensor:
        assert found.candidates is not None and found.divergence is not None
        on = used[part]
        return (
            (found.logp * weights[part]).sum()
            + (found.candidates * pulls[part])[possible[part]].sum()
            + (found.divergence[on] * third[part][on]).sum()
        )

    reading = read_head(
        hidden,
        head,
        Query(
            targets,
            banned=BANNED,
            temperature=0.7,
            chunk_tokens=chunk,
            candidates=ids,
            against=Against(other, used, FullDivergence(kind, 0.3)),
            loss_of=loss_of if foreseen else None,
        ),
    )
    loss_of(slice(None), reading).backward()
    dense, leaves = oracle(hidden, head, 0.7)
    keep = [i for i in range(27) if i != 3]
    logp = dense.gather(-1, targets[:, None])[:, 0]
    some = dense.gather(-1, ids.where(possible, 0))
    apart = exact_divergence(kind, dense, other, keep, rows)
    ((logp * weights).sum() + (some * pulls)[possible].sum() + (apart * third[rows]).sum()).backward()
    assert reading.candidates is not None and reading.divergence is not None
    torch.testing.assert_close(reading.logp.double(), logp, rtol=0, atol=value)
    torch.testing.assert_close(reading.candidates.double()[possible], some[possible], rtol=0, atol=value)
    assert bool((reading.candidates[~possible] == ABSENT).all())
    torch.testing.assert_close(reading.divergence.double()[rows], apart, rtol=0, atol=value)
    assert bool((reading.divergence[~used] == 0).all())
    for got, leaf in zip((hidden, head.weight, head.bias), leaves, strict=True):
        assert got.grad is not None and leaf.grad is not None
        assert float((got.grad.double() - leaf.grad).abs().max() / leaf.grad.abs().max()) < gradient


@pytest.mark.parametrize("kind", KINDS)
def test_a_divergence_alone_passes_the_numerical_gradient_check(kind: Any) -> None:
    hidden, head, targets = model(torch.float64)
    other = teacher()
    against = Against(
        Distributions(other.states[:3].double(), other.head.double(), BANNED, 0.7), USED[:3], FullDivergence(kind)
    )

    def value(states: torch.Tensor) -> torch.Tensor:
        query = Query(targets[:3], BANNED, temperature=0.7, chunk_tokens=2, against=against)
        return present(read_head(states, head, query).divergence)

    # values are reported in float32
    assert torch.autograd.gradcheck(value, (hidden[:3].detach().requires_grad_(),), eps=1e-2, atol=2e-3)


def present(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None
    return value


@pytest.mark.parametrize("plain_student", [True, False])
@pytest.mark.parametrize("plain_teacher", [True, False])
def test_heads_that_are_more_than_linear_are_read_alike(plain_student: bool, plain_teacher: bool) -> None:
    hidden, head, targets = model(torch.float32)
    used = torch.arange(TOKENS) % 2 == 0
    rows = used.nonzero()[:, 0].tolist()
    ids = torch.randint(0, 40, (TOKENS, 3))
    found = []
    for student_linear, teacher_linear in ((True, True), (plain_student, plain_teacher)):
        against = Against(teacher(used=rows, linear=teacher_linear), used, FullDivergence("jsd", 0.3))
        reading = read_head(
            hidden,
            head if student_linear else torch.nn.Sequential(head),
            Query(targets, banned=BANNED, temperature=0.7, chunk_tokens=5, candidates=ids, top_k=4, against=against),
        )
        loss = reading.logp.sum() + (present(reading.candidates) / 100).sum() + present(reading.divergence).sum()
        gradients = torch.autograd.grad(loss, (hidden, head.weight))
        found.append([*(present(t) for t in reading), *gradients])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_the_likeliest_ids_come_with_the_log_probs() -> None:
    hidden, head, targets = model(torch.float32)
    dense, _ = oracle(hidden, head, 0.7)
    reading = read_head(hidden, head, Query(targets, banned=BANNED, temperature=0.7, chunk_tokens=4, top_k=5))
    best = dense.topk(5)
    assert present(reading.top_ids).tolist() == best.indices.tolist()
    torch.testing.assert_close(present(reading.top_logp).double(), best.values.detach(), rtol=0, atol=2e-6)
    assert not present(reading.top_logp).requires_grad
    read_head(hidden, head, Query(targets, banned=BANNED, top_k=29))
    for k in (30, 60):  # two of 31 are banned
        with pytest.raises(ConfigError, match="more candidates"):
            read_head(hidden, head, Query(targets, banned=BANNED, top_k=k))


def test_no_gradient_reaches_the_teacher() -> None:
    hidden, head, targets = model(torch.float32)
    for linear in (True, False):
        other = teacher(linear=linear)
        other.states.requires_grad_()
        reading = read_head(
            hidden, head, Query(targets, banned=BANNED, against=Against(other, USED, FullDivergence("reverse_kl")))
        )
        unused = torch.autograd.grad(
            present(reading.divergence).sum(), (other.states, *other.head.parameters()), allow_unused=True
        )
        assert [g is None for g in unused] == [True, True]


class Products(TorchDispatchMode):
    """Counts products with a matrix of as many rows or columns as there are ids, in units of one token."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tokens = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            a, b = args[-2:]
            self.tokens += a.shape[0] * a.shape[1] * b.shape[1] // (VOCABULARY * WIDTH)
        return func(*args, **(kwargs or {}))


def test_a_loss_that_was_foreseen_spares_the_backward_pass_its_logits() -> None:
    """Products of states and head: forward, states' gradient, weight's gradient; and the logits again without it."""
    hidden, head, targets = model(torch.float32)
    weights, spent = torch.randn(TOKENS), []
    for loss_of in (None, lambda part, found: (found.logp * weights[part]).sum()):
        with Products() as products:
            logp, _, _ = token_logprobs(hidden, head, targets, banned=BANNED, chunk_tokens=5, loss_of=loss_of)
            (logp * weights).sum().backward()
        spent.append(products.tokens)
    assert spent == [4 * TOKENS, 3 * TOKENS]


@pytest.mark.parametrize("factor", [1.0, 2.0, -0.25, 0.0])
def test_a_multiple_of_the_loss_that_was_foreseen_needs_no_second_pass(factor: float) -> None:
    """As a loss that is scaled, or summed over processes."""
    hidden, head, targets = model(torch.float32)
    weights = torch.randn(TOKENS)
    plain, _, _ = token_logprobs(hidden, head, targets, banned=BANNED)
    expected = torch.autograd.grad((plain * weights).sum() * factor, (hidden, head.weight))
    with Products() as products:
        logp, _, _ = token_logprobs(
            hidden, head, targets, banned=BANNED, loss_of=lambda part, found: (found.logp * weights[part]).sum()
        )
        got = torch.autograd.grad((logp * weights).sum() * factor, (hidden, head.weight))
    assert products.tokens == 3 * TOKENS
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_a_loss_that_was_not_what_was_foreseen_gets_its_own_gradient() -> None:
    """Another one, one token of 23 slightly off, one where nothing was foreseen, and a second backward pass."""
    hidden, head, targets = model(torch.float32)
    weights, off = torch.randn(TOKENS), torch.zeros(TOKENS)
    off[7] = 1e-3

    def foreseen(part: slice, found: HeadOutput) -> torch.Tensor:
        return (found.logp * weights[part]).sum()

    def nothing(part: slice, found: HeadOutput) -> torch.Tensor:
        return found.entropy.sum()

    for loss_of, made in ((foreseen, weights.flip(0)), (foreseen, weights + off), (nothing, weights)):
        plain, _, _ = token_logprobs(hidden, head, targets, banned=BANNED)
        expected = torch.autograd.grad((plain * made).sum(), (hidden, head.weight))
        logp, _, _ = token_logprobs(hidden, head, targets, banned=BANNED, chunk_tokens=6, loss_of=loss_of)
        loss = (logp * made).sum()
        for again in (True, False):
            got = torch.autograd.grad(loss, (hidden, head.weight), retain_graph=again)
            for one, two in zip(got, expected, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_a_chunk_whose_loss_has_no_gradient_adds_none() -> None:
    hidden, head, targets = model(torch.float32)

    def last(part: slice, found: HeadOutput) -> torch.Tensor:
        return found.logp.sum() if part.start >= 20 else found.entropy.sum()

    plain, _, _ = token_logprobs(hidden, head, targets, banned=BANNED)
    expected = torch.autograd.grad(plain[20:].sum(), (hidden, head.weight))
    with Products() as products:
        logp, _, _ = token_logprobs(hidden, head, targets, banned=BANNED, chunk_tokens=10, loss_of=last)
        got = torch.autograd.grad(logp[20:].sum(), (hidden, head.weight))
    assert products.tokens == 3 * TOKENS
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_a_banned_target_is_impossible_and_gives_no_gradient_of_its_own() -> None:
    hidden, head, targets = model(torch.float32)
    targets[3] = 30
    logp, _, _ = token_logprobs(hidden, head, targets, banned=BANNED)
    assert logp[3] == float("-inf")
    logp[torch.arange(TOKENS) != 3].sum().backward()
    assert hidden.grad is not None and bool(hidden.grad.isfinite().all())
    assert bool((hidden.grad[3] == 0).all())


def test_no_tensor_is_larger_than_a_chunk_of_logits() -> None:
    head = torch.nn.Linear(4, 90, bias=False)
    hidden = torch.randn(500, 4, requires_grad=True)
    nothing = torch.tensor([], dtype=torch.int64)
    with Widest() as widest:
        logp, _, _ = token_logprobs(hidden, head, torch.zeros(500, dtype=torch.int64), banned=nothing, chunk_tokens=30)
        logp.sum().backward()
        other = Distributions(torch.randn(500, 4), torch.nn.Linear(4, 90, bias=False), nothing, 1.0)
        for kind in KINDS:
            against = Against(other, torch.ones(500, dtype=torch.bool), FullDivergence(kind))
            targets = torch.zeros(500, dtype=torch.int64)
            reading = read_head(hidden, head, Query(targets, banned=nothing, chunk_tokens=30, against=against))
            present(reading.divergence).sum().backward()
    assert widest.elements == 30 * 90  # the states are 2,000, dense logits would be 45,000


def test_a_head_with_more_to_it_than_a_linear_layer_is_called_as_a_module() -> None:
    hidden, head, targets = model(torch.float32)
    nothing = torch.tensor([], dtype=torch.int64)
    plain, _, _ = token_logprobs(hidden, head, targets, banned=nothing)
    doubled = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    doubled.load_state_dict(head.state_dict())
    doubled.register_forward_hook(lambda _m, _args, out: 2 * out)
    assert is_linear(head) and not is_linear(doubled) and not is_linear(torch.nn.Sequential(head))
    got, _, _ = token_logprobs(hidden, doubled, targets, banned=nothing)
    expected, _, _ = token_logprobs(hidden, head, targets, banned=nothing, temperature=0.5)
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, plain)


def test_a_frozen_head_costs_no_gradient_of_its_weight() -> None:
    hidden, head, targets = model(torch.float32)
    head.requires_grad_(False)
    logp, _, _ = token_logprobs(hidden, head, targets, banned=BANNED)
    logp.sum().backward()
    assert head.weight.grad is None
    assert hidden.grad is not None


class Kinds(TorchDispatchMode):
    """The types of the factors of every product, and of what it makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[torch.dtype, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            factors = [a for a in args if isinstance(a, torch.Tensor)][-2:]
            self.seen.append((*(f.dtype for f in factors), out.dtype))
        return out


def test_on_a_gpu_the_gradient_of_a_low_precision_weight_is_summed_in_float32_from_factors_as_they_are() -> None:
    """PyTorch's `meta` device stands for the GPU: the operators check shapes and types, and make no numbers.

    Two chunks: the first one's product is the sum, the second is added to it.
    """
    low, full = torch.bfloat16, torch.float32
    hidden = torch.empty(6, WIDTH, dtype=low, device="meta")
    weight = torch.empty(VOCABULARY, WIDTH, dtype=low, device="meta")
    projection = Projection(hidden, weight, None, torch.empty(0, dtype=torch.int64, device="meta"), 1.0, 4)
    sums = Gradients(projection, (True, True, False))
    with Kinds() as kinds:
        for part in projection.slices():
            sums.add(part, torch.empty(part.stop - part.start, VOCABULARY, device="meta"))
    assert kinds.seen == [(low, low, low), (low, low, full)] * 2
    assert sums.weight is not None and sums.weight.dtype == full


def entropy_loss(logp: torch.Tensor, entropy: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (logp * weights[0]).sum() - (entropy * weights[1]).sum()


@pytest.mark.parametrize("case", ["after", "foreseen", "candidates", "against", "against, some", "any head"])
@pytest.mark.parametrize("chunk", [4, 100])
def test_the_entropy_has_the_gradient_of_its_definition(case: str, chunk: int) -> None:
    """Beside every other thing that is read: the gradient of Σ a log p - b H by states and head, in float64."""
    hidden, head, targets = model(torch.float64)
    weights = torch.randn(2, TOKENS, dtype=torch.float64)
    ids = torch.randint(0, 28, (TOKENS, 3)) if case == "candidates" else None
    used = torch.arange(TOKENS) % 2 == 0 if case == "against, some" else USED
    picked = used.nonzero()[:, 0].tolist()
    against = Against(teacher(used=picked), used, FullDivergence("reverse_kl")) if "against" in case else None

    def loss_of(part: slice, read: HeadOutput) -> torch.Tensor:
        return entropy_loss(read.logp, read.entropy, weights[:, part])

    query = Query(
        targets, BANNED, 0.7, chunk, ids, 0, against, loss_of if case == "foreseen" else None, learn_entropy=True
    )
    output = read_head(hidden, torch.nn.Sequential(head) if case == "any head" else head, query)
    loss = entropy_loss(output.logp, output.entropy, weights)
    if output.divergence is not None:
        loss = loss + 0.0 * output.divergence.sum()
    loss.backward()
    dense, leaves = oracle(hidden, head, 0.7)
    plain = -(dense.exp() * dense.masked_fill(dense.isneginf(), 0.0)).sum(-1)
    entropy_loss(dense.gather(-1, targets[:, None])[:, 0], plain, weights).backward()
    torch.testing.assert_close(output.entropy.double(), plain, rtol=0, atol=1e-6)
    for got, leaf in zip((hidden, head.weight), leaves, strict=False):
        assert got.grad is not None and leaf.grad is not None
        torch.testing.assert_close(got.grad, leaf.grad, rtol=1e-5, atol=1e-7)


def test_the_entropys_gradient_is_its_finite_difference() -> None:
    """Moved by 1e-6 along a random direction of the states, the sum of entropies changes by the gradient times it."""
    hidden, head, targets = model(torch.float64)
    query = Query(targets, BANNED, 0.7, 4, learn_entropy=True)
    read_head(hidden, head, query).entropy.double().sum().backward()
    assert hidden.grad is not None
    direction = torch.randn_like(hidden)

    def entropies(step: float) -> float:
        dense = (((hidden + step * direction) @ head.weight.t()) / 0.7).index_fill(-1, BANNED, float("-inf"))
        return float(torch.distributions.Categorical(logits=dense).entropy().sum().detach())

    expected = (entropies(1e-6) - entropies(-1e-6)) / 2e-6
    assert float((hidden.grad * direction).sum()) == pytest.approx(expected, rel=1e-4)
