"""Weights on their way to a real vLLM server, which was started with the arguments that `transfer.starting` names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from engine_backends import RealVllm, client, saved, text_model
from served import metrics, raw_recipe
from vold.engines.samplers.server import ServerSampler
from vold.engines.transfer.changed import asked
from vold.engines.transfer.starting import server_arguments, server_environment
from vold.engines.transfer.weights import ServerWeights
from vold.engines.vllm import VllmClient
from vold.model.policy import Policy
from vold.run.model_sections import Lora, Transfer
from vold.run.recipe import recipe_from
from vold.training.distill import distill
from vold.types import Prompt, SamplingParams

pytestmark = pytest.mark.engines
PROMPT = Prompt((20, 21, 22))
LORA = Lora(rank=8, alpha=12)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    """It holds `text_model(4)`, and has room for an adapter."""
    home = tmp_path_factory.mktemp("vllm-transfer")
    with RealVllm(saved(text_model(4, padded_rows=3), home / "model"), home / "log") as server:
        variables = server_environment(home, LORA)
        yield server.start(*server_arguments(LORA), **variables)


def sampler_for(server: RealVllm, policy: Policy, directory: Path, transfer: Transfer) -> ServerSampler:
    servers = client(server.url, role="rollout", patience=120)
    weights = ServerWeights(servers, policy, directory, transfer=transfer)
    return ServerSampler(servers, end_id=policy.chat.end_id, banned=policy.banned.tolist(), weights=weights)


def servers_of(sampler: ServerSampler) -> VllmClient:
    assert isinstance(sampler.client, VllmClient)
    return sampler.client


def mismatch(sampler: ServerSampler, policy: Policy, step: int) -> float:
    """Largest distance of the server's log-probs from the student's, after an update."""
    with sampler.holding(step):
        (group,) = sampler.generate([PROMPT], SamplingParams(12, 1.0, step), n=3)
    worst = 0.0
    for c in group:
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([[*PROMPT.ids, *c.ids]])).logits[0, 2:-1]
        logp = logits.index_fill(-1, policy.banned, float("-inf")).log_softmax(-1)
        expected = logp.gather(-1, torch.tensor(c.ids.tolist())[:, None])[:, 0]
        worst = max(worst, float((expected - torch.tensor(c.logps)).abs().max()))
    return worst


def moved(sampler: ServerSampler) -> int:
    """Bytes of tensors that the last push brought, as every worker counts them."""
    ((_, workers),) = asked(servers_of(sampler), "vold_report")
    (count,) = {w["moved"] for w in workers}
    return int(count)


@torch.no_grad()
def changed(policy: Policy, *names: str) -> int:
    """Change these weights; how many bytes they have."""
    found = [p for n, p in policy.model.named_parameters() if n.endswith(names)]
    for parameter in found:
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)), alpha=0.1)
    return sum(p.nbytes for p in found)


@pytest.mark.parametrize("transfer", ["files", "shared_memory"])
def test_a_push_to_vllm_moves_what_changed_and_its_model_has_loaded_it(
    transfer: Transfer, server: RealVllm, tmp_path: Path
) -> None:
    policy = text_model(3, padded_rows=3)
    sampler = sampler_for(server, policy, tmp_path / "way", transfer)
    total = changed(policy, ".weight")
    assert mismatch(sampler, policy, 1) < 1e-4
    assert moved(sampler) <= total
    assert mismatch(sampler, policy, 2) < 1e-4  # nothing has changed: nothing was sent
    for step, names in enumerate([("1.mlp.down_proj.weight",), ("model.norm.weight", "lm_head.weight")], 3):
        size = changed(policy, *names)
        assert mismatch(sampler, policy, step) < 1e-4
        assert moved(sampler) == size
    with torch.no_grad():
        policy.model.model.layers[0].self_attn.v_proj.weight.mul_(-1.5)
    assert mismatch(sampler, policy, 9) < 1e-4
    assert moved(sampler) == 4 * 64 * (64 + 32 + 32)  # q, k and v are one layer of vLLM's
    assert not list(tmp_path.glob("way/*"))


def test_a_push_to_vllm_that_was_damaged_is_refused_and_sent_again(
    server: RealVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = text_model(5, padded_rows=3)
    sampler = sampler_for(server, policy, tmp_path, "files")
    each, times = servers_of(sampler).each, [2]

    def damaged(path: str, body: dict[str, Any] | None = None, **more: Any) -> Any:
        if path == "/update_weights" and body is not None and times[0]:
            times[0] -= 1
            with Path(body["update_info"]["path"]).open("r+b") as file:
                file.seek(-64, 2)
                file.write(b"\x55")
        return each(path, body, **more)

    monkeypatch.setattr(servers_of(sampler), "each", damaged)
    assert mismatch(sampler, policy, 1) < 1e-4
    assert times == [0] and "arrived with checksum" in capsys.readouterr().out


def test_a_trainer_that_dies_in_the_middle_of_a_push_to_vllm_leaves_it_able_to_take_the_next(
    server: RealVllm, tmp_path: Path
) -> None:
    policy = text_model(6, padded_rows=3)
    root = server.url.removesuffix("/v1")
    assert httpx.post(f"{root}/start_weight_update", timeout=60).status_code == 200
    assert mismatch(sampler_for(server, policy, tmp_path, "shared_memory"), policy, 1) < 1e-4


def test_an_adapter_of_rank_8_moves_its_own_bytes_to_vllm(
    server: RealVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy.load(str(server.model))
    policy.add_lora(rank=LORA.rank, alpha=LORA.alpha, seed=0)
    sampler = sampler_for(server, policy, tmp_path / "way", "shared_memory")
    own = sum(p.nbytes for n, p in policy.model.named_parameters() if ".lora_" in n)
    sizes, each = list[int](), servers_of(sampler).each

    def measured(path: str, body: dict[str, Any] | None = None, **more: Any) -> Any:
        if path == "/load_lora_adapter" and body is not None:
            sizes.append((Path(body["lora_path"]) / "adapter_model.safetensors").stat().st_size)
        return each(path, body, **more)

    monkeypatch.setattr(servers_of(sampler), "each", measured)
    mismatch(sampler, policy, 1)
    base = moved(sampler)
    for step in (2, 3):
        changed(policy, ".default.weight")
        assert mismatch(sampler, policy, step) < 1e-4
        assert moved(sampler) == base  # of the weights below, no further push
    names = 150 * len([n for n, _ in policy.model.named_parameters() if ".lora_" in n])
    assert len(sizes) == 3 and all(own <= s <= own + names for s in sizes)


def test_three_steps_with_adapters_on_vllm(server: RealVllm, tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path, optimizer={"lr": 1e-2, "warmup_steps": 1}, mismatch={"limit": 1e-6, "action": "stop"})
    raw["student"] = {"path": str(server.model), "freeze": [], "lora": {"rank": 8, "alpha": 64}}
    raw["distill"]["init"] = str(server.model)
    raw["distill"]["engine"] = {"urls": [server.url], "model": "tiny", "patience": 600.0, "transfer": "shared_memory"}
    distill(recipe_from(raw, where="test"))
    assert len(metrics(tmp_path)) == 3
    assert all(r["mismatch"] < 1e-4 for r in metrics(tmp_path))


def test_a_vllm_that_was_restarted_gets_the_weights_again(server: RealVllm, tmp_path: Path) -> None:
    """The last test: it ends with a server of its own."""
    policy = text_model(3, padded_rows=3)
    sampler = sampler_for(server, policy, tmp_path, "shared_memory")
    assert mismatch(sampler, policy, 1) < 1e-4
    server.kill()
    server.start(*server_arguments(LORA), **server_environment(tmp_path, LORA))
    sampler.generate([PROMPT], SamplingParams(4, 1.0, 1))
    assert moved(sampler) == sum(p.nbytes for _, p in policy.trainable()) - sum(
        p.nbytes for n, p in policy.model.named_parameters() if "norm" in n
    )  # norms are ones in every untrained model
