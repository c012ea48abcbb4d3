"""`student.compile`: plain layers are the oracle of compiled ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from torch._dynamo.utils import counters
from torch._inductor.exc import InductorError

import tiny
from families import STUDENTS
from killed import interrupted_at_update
from vold.errors import ConfigError
from vold.model.batching import Sequences, collate
from vold.model.compiling import compile_layers, need_compiler
from vold.model.policy import Policy
from vold.model.sharding import layers_of
from vold.run.failures import in_words
from vold.run.files import read_jsonl
from vold.training.sft import sft
from vold.types import Prompt

pytestmark = pytest.mark.filterwarnings("default")  # the compiler causes warnings of its own
LENGTHS = ([7, 3], [4, 5, 6], [1], [20, 2, 9])
"""Of the responses of each batch; two share a prompt."""
PARTS = 4
"""Of a layer: up to attention and after it, and what Python does between them."""


def batch(lengths: list[int]) -> Sequences:
    prompts = [Prompt(tuple(range(6, 6 + 2 + i))) for i in range(len(lengths))]
    prompts[-1] = prompts[0]
    responses = [[5 + i % 9 for i in range(n)] for n in lengths]
    return collate(prompts, responses, [[1] * n for n in lengths], 0)


def gradients(policy: Policy, of: Sequences) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    policy.model.zero_grad()
    logp, _, _ = policy.logprobs(of)
    logp.mean().backward()
    return logp.detach(), {n: p.grad for n, p in policy.model.named_parameters()}


def compilations() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.fixture(scope="module", autouse=True)
def _afresh() -> None:
    """What one of the tests has compiled serves them all."""
    torch._dynamo.reset()
    counters.clear()


def test_compiled_layers_give_the_losses_and_gradients_of_plain_ones_from_one_compilation() -> None:
    """Also where the first layer's input needs no gradient and the others' does, as under adapters."""
    plain, compiled = tiny.student(), tiny.student()
    names = [*plain.model.state_dict()]
    compile_layers(layers_of(compiled))
    assert [*compiled.model.state_dict()] == names
    for policy in (plain, compiled):
        policy.model.train()
        policy.model.get_input_embeddings().requires_grad_(False)
    for lengths in LENGTHS:
        of = batch(lengths)
        (expected, theirs), (got, ours) = (gradients(policy, of) for policy in (plain, compiled))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        assert ours.keys() == theirs.keys()
        for name, gradient in theirs.items():
            torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
        assert compilations() == PARTS
    compiled.model.eval()
    with torch.no_grad():
        assert torch.equal(compiled.logprobs(of)[0], plain.logprobs(of)[0])
    assert compilations() == PARTS


def test_a_compiled_run_that_is_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """A run may also go on without compiling, to the same losses up to rounding."""
    recipes = []
    for name, on in (("whole", True), ("broken", True), ("plain", False)):
        recipes.append(tiny.recipe(tmp_path / name, student={"compile": on}))
        tiny.write_traces(tmp_path / name, recipes[-1])
    finals = [sft(recipes[0])]
    assert compilations() == PARTS
    interrupted_at_update(4, partial(sft, recipes[1]))
    finals.append(sft(recipes[1]))
    first, second = ((final / "model.safetensors").read_bytes() for final in finals)
    assert first == second
    interrupted_at_update(4, partial(sft, tiny.recipe(tmp_path / "plain", student={"compile": True})))
    finals.append(sft(recipes[2]))
    losses = [[row["loss"] for row in read_jsonl(final.parent / "metrics.jsonl")] for final in finals]
    assert len(losses[0]) == 6 and losses[2] == pytest.approx(losses[0], abs=1e-4)


@pytest.mark.parametrize("name", STUDENTS)
def test_every_family_names_its_layers(name: str) -> None:
    policy = STUDENTS[name]()
    assert len(layers_of(policy)) == policy.model.config.get_text_config().num_hidden_layers


def test_it_is_refused_where_it_can_not_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="inside a compiled layer"):
        tiny.recipe(tmp_path, student={"compile": True, "activation_checkpointing": "selective"})
    with (
        torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "g++"),)}),
        pytest.raises(ConfigError, match=r"no C\+\+ compiler"),
    ):
        need_compiler(torch.device("cpu"))
    told = in_words(InductorError(RuntimeError("collect2: ld returned 1"), None))
    assert told is not None and "student.compile=false" in (told.fix or "")
