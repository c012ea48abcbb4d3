"""The chunked head against the definition in float64: values, gradients, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vold.head import NEVER, is_linear, read_logits, token_logprobs

TOKENS, WIDTH, VOCABULARY = 23, 8, 31
BANNED = torch.tensor([28, 30])


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
    logp, entropy, favourite = token_logprobs(hidden, head, targets, banned=BANNED, temperature=0.7, chunk_tokens=chunk)
    assert (logp.dtype, entropy.dtype, entropy.requires_grad) == (torch.float32, torch.float32, False)
    (logp * weights).sum().backward()
    dense, leaves = oracle(hidden, head, 0.7)
    expected = dense.gather(-1, targets[:, None])[:, 0]
    (expected * weights).sum().backward()
    torch.testing.assert_close(logp.double(), expected, rtol=0, atol=value)
    safe = dense.detach().masked_fill(dense.isneginf(), 0.0)
    torch.testing.assert_close(entropy.double(), -(dense.exp() * safe).sum(-1), rtol=0, atol=value)
    assert dense.gather(-1, favourite[:, None])[:, 0].tolist() == pytest.approx(dense.amax(-1).tolist(), abs=value)
    for got, leaf in zip((hidden, head.weight, head.bias), leaves, strict=False):
        assert got.grad is not None and leaf.grad is not None
        assert got.grad.dtype == dtype
        error = (got.grad.double() - leaf.grad).abs().max() / leaf.grad.abs().max()
        assert float(error) < gradient


def test_a_function_of_the_logits_passes_the_numerical_gradient_check() -> None:
    hidden, head, targets = model(torch.float64)

    def value(states: torch.Tensor) -> torch.Tensor:
        return read_logits(square_of_target, states, head, targets[:3], banned=BANNED, temperature=0.7, chunk_tokens=2)

    assert torch.autograd.gradcheck(value, (hidden[:3].detach().requires_grad_(),))


def square_of_target(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0] ** 2
    return found


@pytest.mark.parametrize("chunk", [1, 5, 40])
def test_any_function_of_the_logits_gets_its_exact_gradient(chunk: int) -> None:
    """Reverse KL to another model over the whole vocabulary, against the definition in float64."""
    hidden, head, _ = model(torch.float32)
    torch.manual_seed(1)
    states, other = torch.randn(TOKENS, 5), torch.nn.Linear(5, VOCABULARY, bias=False)

    def kl(logits: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        mine = logits.log_softmax(-1)
        with torch.no_grad():
            reference = other(theirs).index_fill(-1, BANNED, NEVER).log_softmax(-1)
        divergence: torch.Tensor = (mine.exp() * (mine - reference)).sum(-1)
        return divergence

    weights = torch.randn(TOKENS)
    value = read_logits(kl, hidden, head, states, banned=BANNED, temperature=0.7, chunk_tokens=chunk)
    (value * weights).sum().backward()
    dense, leaves = oracle(hidden, head, 0.7)
    keep = [i for i in range(VOCABULARY) if i not in BANNED.tolist()]
    theirs = (states.double() @ other.weight.detach().double().t())[:, keep].log_softmax(-1)
    expected = (dense[:, keep].exp() * (dense[:, keep] - theirs)).sum(-1)
    (expected * weights).sum().backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    for got, leaf in zip((hidden, head.weight), leaves, strict=True):
        torch.testing.assert_close(got.grad.double(), leaf.grad, rtol=1e-4, atol=1e-6)  # type: ignore[union-attr]


def test_a_banned_target_is_impossible_and_gives_no_gradient_of_its_own() -> None:
    hidden, head, targets = model(torch.float32)
    targets[3] = 30
    logp, _, _ = token_logprobs(hidden, head, targets, banned=BANNED)
    assert logp[3] == float("-inf")
    logp[torch.arange(TOKENS) != 3].sum().backward()
    assert hidden.grad is not None and bool(hidden.grad.isfinite().all())
    assert bool((hidden.grad[3] == 0).all())


class Widest(TorchDispatchMode):
    """Remembers the largest number of elements an operation returned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_no_tensor_is_larger_than_a_chunk_of_logits() -> None:
    head = torch.nn.Linear(4, 90, bias=False)
    hidden = torch.randn(500, 4, requires_grad=True)
    nothing = torch.tensor([], dtype=torch.int64)
    with Widest() as widest:
        logp, _, _ = token_logprobs(hidden, head, torch.zeros(500, dtype=torch.int64), banned=nothing, chunk_tokens=30)
        logp.sum().backward()
        torch.autograd.grad(
            read_logits(lambda z: z.logsumexp(-1), hidden, head, banned=nothing, chunk_tokens=30).sum(), hidden
        )
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
