"""Packed rows against the definition: one row at a time, eager attention, float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

import families
import tiny
from peak import Widest
from vold.data.worlds.call_tokens import build_tokenizer
from vold.data.worlds.digits import DigitTasks
from vold.model.batching import collate, packed_micro_batches
from vold.model.chat import Chat
from vold.model.families import PROVEN
from vold.model.packing import SHORT, Packed, pack, packed_attention
from vold.model.policy import Policy
from vold.types import Prompt


def policy_of(kind: str) -> Policy:
    """A student whose language model has this `model_type`."""
    if kind.endswith("_text"):
        return families.IMAGE_STUDENTS[kind.removesuffix("_text")]()
    torch.manual_seed(3)
    tokenizer = build_tokenizer()
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer) + 2,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **({"sliding_window": 5} if kind == "mistral" else {}),
    )
    return Policy(AutoModelForCausalLM.from_config(config), Chat(tokenizer))


def rows(policy: Policy) -> tuple[list[Prompt], list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Two prompts with three and two responses, a third with one; an empty response; a mask with holes."""
    generator = torch.Generator().manual_seed(5)
    known = [i for i in range(len(policy.chat.tokenizer)) if i not in policy.banned.tolist()]

    def draw(n: int) -> tuple[int, ...]:
        return tuple(known[int(j)] for j in torch.randint(0, len(known), (n,), generator=generator))

    a, b, c = (Prompt(draw(n)) for n in (9, 4, 6))
    prompts = [a, b, a, c, b, a]
    responses = [draw(n) for n in (7, 3, 12, 5, 8, 0)]
    masks = [tuple(int(j % 3 != 1) for j in range(len(r))) for r in responses]
    return prompts, responses, masks


def oracle(policy: Policy, weights: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Log-probs of the selected tokens row by row in float64, and gradients of their weighted sum by parameter."""
    model = copy.deepcopy(policy.model).double()
    model.set_attn_implementation("eager")
    found = []
    for prompt, response, mask in zip(*rows(policy), strict=True):
        ids = torch.tensor([[*prompt.ids, *response]])
        logits = model(input_ids=ids).logits[0].index_fill(-1, policy.banned, float("-inf"))
        for t, (token, selected) in enumerate(zip(response, mask, strict=True)):
            if selected:
                found.append(logits[len(prompt.ids) + t - 1].log_softmax(-1)[token])
    logp = torch.stack(found)
    (logp * weights).sum().backward()
    return logp.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", sorted(PROVEN))
@pytest.mark.parametrize(
    ("dtype", "value", "gradient"),
    [(torch.float32, 5e-6, 1e-5), (torch.bfloat16, 0.15, 0.1)],
    ids=["float32", "bfloat16"],
)
@pytest.mark.parametrize("budget", [1, 25, 1000])
def test_value_and_gradient_are_those_of_single_rows_in_float64(
    family: str, dtype: torch.dtype, value: float, gradient: float, budget: int
) -> None:
    """Bounds: nats for values; for gradients the norm of the error over that of the gradient, all parameters as one."""
    policy = policy_of(family)
    assert policy.packs
    prompts, responses, masks = rows(policy)
    counts = [sum(m) for m in masks]
    weights = torch.linspace(-1, 2, sum(counts), dtype=torch.float64)
    expected, gradients = oracle(policy, weights)
    policy.model.to(dtype)
    for group in policy.micro_batches(prompts, [len(r) for r in responses], budget):
        batch = collate(
            [prompts[i] for i in group],
            [responses[i] for i in group],
            [masks[i] for i in group],
            policy.chat.pad_id,
        )
        logp, _, _ = policy.logprobs(batch)
        here = torch.cat([weights.split(counts)[i] for i in group])
        torch.testing.assert_close(
            logp.double(), torch.cat([expected.split(counts)[i] for i in group]), rtol=0, atol=value
        )
        (logp * here).sum().backward()
    error = scale = 0.0
    for name, parameter in policy.model.named_parameters():
        if name in gradients:
            assert parameter.grad is not None
            error += float((parameter.grad.double() - gradients[name]).square().sum())
            scale += float(gradients[name].square().sum())
    assert (error / scale) ** 0.5 < gradient


class Attended(TorchDispatchMode):
    """Collects the types in which rows attend, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kinds: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "scaled_dot_product" in func.__name__:
            self.kinds.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dtype", "longest", "learns", "kind"),
    [
        (torch.bfloat16, SHORT, True, torch.float32),
        (torch.float16, SHORT, True, torch.float32),
        (torch.bfloat16, SHORT + 1, True, torch.bfloat16),
        (torch.bfloat16, SHORT, False, torch.bfloat16),
        (torch.float64, SHORT, True, torch.float64),
    ],
)
def test_short_rows_of_16_bits_attend_in_float32_where_a_backward_pass_follows(
    dtype: torch.dtype, longest: int, learns: bool, kind: torch.dtype
) -> None:
    """A row of two pieces, and a short one."""
    pieces = (6, longest - 6, 3)
    packed = Packed(torch.arange(longest + 3), pieces, ((0, 1), (2,)), torch.arange(1))
    query, key, value = (
        torch.randn(1, heads, longest + 3, 8, dtype=dtype, requires_grad=learns) for heads in (4, 2, 2)
    )
    with Attended() as seen:
        attended, _ = packed_attention(torch.nn.Linear(1, 1), query, key, value, None, packed=packed)
        if learns:
            attended.sum().backward()
            assert query.grad is not None and query.grad.dtype == dtype
    assert attended.dtype == dtype
    assert seen.kinds == [kind] * (4 if learns else 2)


def test_a_prompt_that_rows_share_passes_once() -> None:
    policy = tiny.student()
    prompts, responses, masks = rows(policy)
    packed = pack(collate(prompts, responses, masks, policy.chat.pad_id), torch.device("cpu"))
    assert len(packed.index) == sum(map(len, responses)) + 9 + 4 + 6
    assert packed.pieces == (
        9,
        7,
        12,
        4,
        3,
        8,
        11,
    )  # a, its two responses that are not empty, b, its two, c with its one
    assert packed.rows == ((0, 1), (3, 4), (0, 2), (6,), (3, 5), (0,))


def test_prompts_with_pictures_are_packed_but_not_shared() -> None:
    policy = tiny.student()
    policy.model.eval()
    tasks = DigitTasks("test", "image", 3, 1)
    shown = [policy.chat.prompt(tasks[i].messages) for i in range(3)]
    text = policy.chat.prompt(DigitTasks("test", "text", 1, 1)[0].messages)
    prompts = [shown[0], text, shown[1], shown[0], shown[2]]
    responses = [policy.chat.tokens("3 4"), policy.chat.tokens("5"), *[policy.chat.tokens("1 2 3")] * 3]
    masks = [(1,) * len(r) for r in responses]
    batch = collate(prompts, responses, masks, policy.chat.pad_id)
    with torch.no_grad():
        got = policy.logprobs(batch)[0]
        policy.packs = False
        policy.model.set_attn_implementation("eager")
        torch.testing.assert_close(got, policy.logprobs(batch)[0], rtol=1e-5, atol=1e-5)
    assert batch.source == (0, 1, 2, 3, 4)


def test_a_family_that_is_not_listed_runs_as_a_padded_batch() -> None:
    policy = policy_of("llama")
    prompts, responses, masks = rows(policy)
    batch = collate(prompts, responses, masks, policy.chat.pad_id)
    expected = policy.logprobs(batch)[0]
    policy.packs = False
    seen: list[Any] = []
    policy.model.model.register_forward_hook(
        lambda _m, _a, kwargs, _o: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    torch.testing.assert_close(policy.logprobs(batch)[0], expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(seen[0], batch.attention_mask)
    assert policy.micro_batches(prompts, [len(r) for r in responses], 42) == [
        [1, 5, 3],
        [4, 0],
        [2],
    ]  # 3 x 11, 2 x 16 and 21 tokens


def test_no_mask_of_packed_by_packed_tokens_is_made() -> None:
    policy = policy_of("llama")
    batch = collate([Prompt((5, 6, 7))] * 600, [(8, 9)] * 600, [(1, 1)] * 600, policy.chat.pad_id)
    with Widest() as widest, torch.no_grad():
        policy.logprobs(batch)
    assert widest.elements == 1200 * policy.model.config.vocab_size  # logits; a mask would have 1,203 x 1,203


def test_packing_leaves_no_trace_in_a_saved_model(tmp_path: Any) -> None:
    policy = policy_of("llama")
    policy.save(tmp_path)
    assert "vold_packed" not in (tmp_path / "config.json").read_text()


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=40),
    st.integers(1, 150),
)
def test_packed_micro_batches_cover_every_row_once_within_the_budget(drawn: list[tuple[int, int]], budget: int) -> None:
    prompts = [Prompt((g,) * (g + 1)) for g, _ in drawn]
    lengths = [n for _, n in drawn]
    groups = packed_micro_batches(prompts, lengths, budget)
    assert sorted(i for g in groups for i in g) == list(range(len(drawn)))
    for g in groups:
        tokens = sum(lengths[i] for i in g) + sum(len(ids) for ids in {prompts[i].ids for i in g})
        assert tokens <= budget or len(g) == 1


def test_groups_are_full_when_there_is_enough_to_fill_them() -> None:
    """400 rows of 100 to 900 tokens under a budget of 8,192: at least 95% of every group but the last is filled."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(80, 880, (400,), generator=generator).tolist()
    prompts = [Prompt((i // 4,) * 20) for i in range(400)]
    groups = packed_micro_batches(prompts, lengths, 8192)
    filled = sorted(sum(lengths[i] for i in g) + 20 * len({prompts[i].ids for i in g}) for g in groups)
    assert sum(filled) / (8192 * len(filled)) >= 0.95
    assert filled[1] >= 0.95 * 8192
