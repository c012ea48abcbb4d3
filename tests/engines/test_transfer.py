"""Weights on their way to a server: how many bytes move, what is refused, and what a killed process leaves."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import loaded
import tiny
import two_processes
from engine_backends import client, saved, text_model
from served import metrics, on, raw_recipe
from vllm_server import VllmServer
from vllm_weights import ServedWeights
from vold.engines.samplers.server import ServerSampler
from vold.engines.transfer import segment
from vold.engines.transfer.checksum import checksum
from vold.engines.transfer.receiver import Receiver
from vold.engines.transfer.source import Source
from vold.engines.transfer.weights import ServerWeights
from vold.errors import ConfigError, SamplerError
from vold.model.policy import Policy
from vold.run.model_sections import Transfer
from vold.run.recipe import recipe_from
from vold.training.distill import distill
from vold.types import Prompt, SamplingParams

WAYS: list[Transfer] = ["files", "shared_memory"]


def weights_for(server: VllmServer, policy: Policy, directory: Path, transfer: Transfer = "files") -> ServerWeights:
    return ServerWeights(client(server.url, role="rollout"), policy, directory, transfer=transfer)


def left_in_memory() -> list[Path]:
    return list(segment.SHARED.glob(f"{segment.PREFIX}*-{os.getpid()}-*"))


@torch.no_grad()
def trained(policy: Policy, seed: int = 0) -> None:
    """As an update leaves it: every trained tensor is another."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in policy.trainable():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)


def same(one: Policy, other: Policy) -> bool:
    pairs = zip(one.model.named_parameters(), other.model.named_parameters(), strict=True)
    return all(n == m and torch.equal(a, b) for (n, a), (m, b) in pairs)


@pytest.fixture
def student() -> Policy:
    """One that sees; its tower and projector are frozen, as in the paper."""
    policy = tiny.student()
    policy.freeze(("vision", "projector"))
    return policy


@pytest.mark.parametrize("transfer", WAYS)
def test_a_push_moves_what_was_trained_and_nothing_of_a_frozen_tower(
    transfer: Transfer, student: Policy, tmp_path: Path
) -> None:
    served = ServedWeights(student)
    with VllmServer(student, weights=served) as server:
        weights = weights_for(server, student, tmp_path / "way", transfer)
        weights.bring()
        assert not served.came  # the server was started with these
        for step in (1, 2):
            trained(student, step)
            weights.changed(step)
            weights.bring()
            assert server.version == weights.version and same(served.policy, student)
            assert sum(served.came.values()) == step * sum(p.nbytes for _, p in student.trainable())
        assert not any("visual" in name for name in served.came)
    assert not left_in_memory() and not list(tmp_path.glob("way/*"))


def test_a_push_moves_only_what_changed_since_that_version_and_whole_layers(tmp_path: Path) -> None:
    policy = text_model(3)
    served = ServedWeights(policy)
    with VllmServer(policy, weights=served) as server:
        weights = weights_for(server, policy, tmp_path)
        layers = policy.model.model.layers
        with torch.no_grad():
            layers[1].self_attn.k_proj.weight.mul_(2)
            layers[0].mlp.down_proj.weight.mul_(2)
        weights.changed(1)
        weights.bring()
        assert same(served.policy, policy)
    below = "model.layers.1.self_attn"
    expected = {f"{below}.{n}_proj.weight" for n in "qkv"} | {"model.layers.0.mlp.down_proj.weight"}
    assert set(served.came) == expected
    assert sum(served.came.values()) == 4 * 64 * (64 + 32 + 32 + 64)


def test_a_server_that_was_restarted_gets_all_that_its_files_do_not_have(student: Policy, tmp_path: Path) -> None:
    served = ServedWeights(student)
    with VllmServer(student, weights=served) as server:
        weights = weights_for(server, student, tmp_path)
        trained(student)
        weights.changed(1)
        weights.bring()
        served.came.clear()
        weights.bring()
        assert not served.came
        served.restart()
        server.version = "default"
        weights.bring()
        assert sum(served.came.values()) == sum(p.nbytes for _, p in student.trainable())
        assert same(served.policy, student)


def test_one_server_of_two_that_holds_other_weights_brings_them_to_the_same(tmp_path: Path) -> None:
    policy = text_model(3)
    other = ServedWeights(text_model(4))
    with VllmServer(policy, weights=ServedWeights(policy)) as one, VllmServer(policy, weights=other) as two:
        weights = ServerWeights(client(one.url, two.url, role="rollout"), policy, tmp_path)
        weights.bring()
        assert same(other.policy, policy) and one.version == two.version == weights.version
    (size,) = other.files  # with the names
    assert size <= 1.05 * sum(p.nbytes for _, p in policy.trainable())


def test_a_server_that_is_restarted_in_the_middle_of_a_push_gets_all_of_it_again(tmp_path: Path) -> None:
    policy, served = text_model(3), ServedWeights(text_model(4))
    with VllmServer(policy, weights=served) as server:
        left = ["/update_weights", "/finish_weight_update"]

        def restart(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
            """As vLLM refuses the rest of a push whose beginning it has not seen."""
            if path not in left:
                return None
            left.remove(path)
            served.restart()
            return 500, {"error": {"message": "start_weight_update must be called before"}}

        server.hook = restart
        weights_for(server, policy, tmp_path).bring()
        assert not left and same(served.policy, policy)


@pytest.mark.parametrize("route", ["/reset_prefix_cache?reset_running_requests=true", "/finish_weight_update"])
def test_a_server_that_is_restarted_as_a_push_ends_does_not_pass_for_one_with_it(route: str, tmp_path: Path) -> None:
    policy, served = text_model(3), ServedWeights(text_model(4))
    with VllmServer(policy, weights=served) as server:
        left = [route]

        def restart(path: str, body: dict[str, Any]) -> None:
            """The request is answered by the server that has come after the one that took the weights."""
            if path in left:
                left.remove(path)
                served.restart()
                server.version = "default"
                if path == "/finish_weight_update":
                    served.receiver.begin()

        server.hook = restart
        weights = weights_for(server, policy, tmp_path)
        weights.bring()
        assert not left and not weights.in_place()
        weights.bring()
        assert weights.in_place() and same(served.policy, policy)


class Damage:
    """A hook that turns one bit of what a server is about to read, so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, path: str, body: dict[str, Any]) -> None:
        if path == "/update_weights" and self.left:
            self.left -= 1
            with Path(body["update_info"]["path"]).open("r+b") as file:
                file.seek(-100, os.SEEK_END)
                (byte,) = file.read(1)
                file.seek(-100, os.SEEK_END)
                file.write(bytes([byte ^ 8]))


@pytest.mark.parametrize("transfer", WAYS)
def test_a_push_that_was_damaged_is_refused_and_sent_again(
    transfer: Transfer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, served = text_model(3), ServedWeights(text_model(4))
    with VllmServer(policy, weights=served) as server:
        server.hook = Damage(2)
        weights = weights_for(server, policy, tmp_path, transfer)
        weights.bring()
        assert same(served.policy, policy) and server.version == weights.version
        assert server.requests.count("/update_weights") == 3
    assert capsys.readouterr().out.replace("\n", " ").count("arrived with checksum") == 2


def test_a_push_that_is_damaged_every_time_is_given_up_and_loads_nothing(tmp_path: Path) -> None:
    policy, own = text_model(3), text_model(4)
    served = ServedWeights(own)
    with VllmServer(policy, weights=served) as server:
        server.hook = Damage(99)
        weights = weights_for(server, policy, tmp_path)
        with pytest.raises(SamplerError, match="does not take the student's weights") as caught:
            weights.bring()
        assert "arrived with checksum" in str(caught.value) and server.url.removesuffix("/v1") in str(caught.value)
        assert same(served.policy, own) and server.version == "none"
    assert not list(tmp_path.glob("*"))


def test_weights_that_a_server_loads_otherwise_than_they_came_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrived was right: only the checksum of what was loaded tells."""
    policy, served = text_model(3), ServedWeights(text_model(4))
    kept = torch.zeros(64, 64, dtype=torch.bfloat16)

    def narrow(tensors: list[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in tensors:
            (kept if name.endswith("1.mlp.up_proj.weight") else torch.empty_like(tensor)).copy_(tensor)

    monkeypatch.setattr(served, "_load", narrow)
    with VllmServer(policy, weights=served) as server, pytest.raises(SamplerError) as caught:
        weights_for(server, policy, tmp_path).bring()
    assert "model.layers.1.mlp.up_proj.weight is one of 1 that are not loaded as they were sent" in str(caught.value)


def test_a_loader_is_watched_through_views_casts_and_what_it_puts_off() -> None:
    """As vLLM's loaders do it: rows of a fused weight, a wider type, and a layer that waits for all its tensors."""
    fused, wide = torch.zeros(6, 4), torch.zeros(3, dtype=torch.float64)
    q, k, b = torch.randn(4, 4), torch.randn(2, 4), torch.randn(3)
    receiver, waiting = Receiver({"gone": "1"}), list[torch.Tensor]()

    def load(tensors: list[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in tensors:
            if name == "q":
                fused.narrow(0, 0, 4).copy_(tensor.narrow(0, 0, 4))
            elif name == "b":
                for i in range(3):
                    wide[i : i + 1].copy_(tensor[i : i + 1])
            elif name == "k":
                waiting.append(tensor)

    sent = {"q": q, "k": k, "b": b, "skipped": torch.ones(2)}
    receiver.begin()
    assert receiver.take(sent, {n: checksum(t) for n, t in sent.items()}, load)
    assert receiver.held == {"gone": "1"}
    receiver.finish(lambda: fused.narrow(0, 4, 2).copy_(waiting[0]))
    assert receiver.held == {"gone": "1", "q": checksum(q), "k": checksum(k), "b": checksum(b)}
    assert torch.equal(fused, torch.cat([q, k]))


def test_a_worker_with_a_part_of_a_weight_reads_back_that_part() -> None:
    mine, whole = torch.zeros(2, 4), torch.randn(4, 4)
    for wrong in (False, True):
        receiver = Receiver({})
        receiver.begin()
        source = whole.flip(0) if wrong else whole
        receiver.take({"w": whole}, {"w": checksum(whole)}, lambda _: mine.copy_(whole.narrow(0, 2, 2)))
        receiver.finish(lambda: None)
        assert (receiver.held["w"] == checksum(source)) != wrong


@given(st.integers(1, 40_000), st.integers(0, 2**32 - 1), st.sampled_from([torch.float32, torch.bfloat16, torch.int8]))
def test_one_wrong_word_always_shows(size: int, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randint(-100, 100, (size,), generator=generator).to(dtype)
    other = tensor.clone()
    place = int(torch.randint(size, (), generator=generator))
    other[place] = -tensor[place] - 1
    assert checksum(tensor) == checksum(tensor.clone()) != checksum(other)


def test_what_single_words_do_not_show() -> None:
    """Signs of two numbers, two that changed places, a shift by one, and a zero more."""
    tensor = torch.arange(1.0, 20_001.0)
    signs, swapped = tensor.clone(), tensor.clone()
    signs[[7, 9_000]] *= -1
    swapped[[3, 12_000]] = tensor[[12_000, 3]]
    others = [signs, swapped, tensor.roll(1), torch.cat([tensor, torch.zeros(1)])]
    assert len({checksum(t) for t in [tensor, *others]}) == 5
    assert checksum(tensor.reshape(100, 200).t()) != checksum(tensor) == checksum(tensor.reshape(100, 200))


def test_a_segment_is_for_its_user_alone_has_a_name_nobody_guesses_and_is_gone_afterwards() -> None:
    tensors = {"a": torch.randn(3, 5), "none": torch.zeros(0), "b": torch.ones(7, dtype=torch.bfloat16)}
    names = set()
    for _ in range(2):
        with segment.in_shared_memory(tensors) as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            found = segment.read(path)
            names.add(path.name.rpartition("-")[2])
        assert not path.exists()
        assert {n: t.tolist() for n, t in found.items()} == {n: t.tolist() for n, t in tensors.items()}
    assert len(names) == 2 and min(map(len, names)) == 32
    with pytest.raises(KeyError), segment.in_shared_memory(tensors):
        raise KeyError
    assert not left_in_memory()


HELD = """
import sys, torch
from multiprocessing import resource_tracker
from vold.engines.transfer.segment import in_shared_memory
with in_shared_memory({"w": torch.zeros(8)}) as path:
    print(path, resource_tracker._resource_tracker._pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
    """A process with a segment, the segment, and a handle of the process that cleans up after it."""
    process = subprocess.Popen([sys.executable, "-c", HELD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    name, tracker = process.stdout.readline().split()
    handle = os.pidfd_open(int(tracker))
    yield process, Path(name), handle
    os.close(handle)
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def ended(handle: int) -> bool:
    return bool(select.select([handle], [], [], 60)[0])


@pytest.mark.parametrize("name", ["in_shared_memory", "in_file"])
def test_weights_for_which_there_is_no_room_are_an_error_and_no_dead_process(name: str) -> None:
    """A file that is longer than what is left can be made and mapped; who writes to it is killed."""
    tensors = {"w": torch.zeros(1, dtype=torch.uint8).expand(2 * shutil.disk_usage(segment.SHARED).total)}
    with tempfile.TemporaryDirectory(dir=segment.SHARED) as directory:
        before = {*segment.SHARED.iterdir()}
        made = segment.in_file(Path(directory), tensors) if name == "in_file" else segment.in_shared_memory(tensors)
        with pytest.raises(SamplerError, match="no room for the weights") as caught, made:
            pass
        assert not list(Path(directory).iterdir())
    assert not [path for path in {*segment.SHARED.iterdir()} - before if f"-{os.getpid()}-" in path.name]
    assert "No space left" in caught.value.got


def test_a_segment_goes_with_a_process_that_is_killed(holder: tuple[subprocess.Popen[str], Path, int]) -> None:
    process, path, tracker = holder
    assert path.exists()
    process.kill()
    process.wait()
    assert ended(tracker) and not path.exists()


def test_a_segment_of_a_machine_room_that_was_killed_is_swept_away_by_the_next_run(
    holder: tuple[subprocess.Popen[str], Path, int],
) -> None:
    process, path, tracker = holder
    segment.sweep(segment.SHARED)
    assert path.exists()  # its process lives
    signal.pidfd_send_signal(tracker, signal.SIGKILL)
    process.kill()
    process.wait()
    assert ended(tracker) and path.exists()
    elsewhere = path.with_name(path.name.replace("vold-", "vold-f", 1))  # of another machine, in a directory of both
    path.rename(elsewhere)
    segment.sweep(segment.SHARED)
    assert elsewhere.exists()
    elsewhere.rename(path)
    segment.sweep(segment.SHARED)
    assert not path.exists()


@pytest.mark.parametrize("transfer", WAYS)
def test_an_adapter_moves_its_own_bytes_and_the_weights_below_it_none(transfer: Transfer, tmp_path: Path) -> None:
    policy = text_model(3, padded_rows=3)
    served = ServedWeights(policy, rank=8)
    policy = Policy.load(str(saved(policy, tmp_path / "model")))
    policy.add_lora(rank=8, alpha=12, seed=0)
    with VllmServer(policy, weights=served) as server:
        weights = weights_for(server, policy, tmp_path / "way", transfer)
        banned = policy.banned.tolist()
        sampler = ServerSampler(weights.client, end_id=policy.chat.end_id, banned=banned, weights=weights)
        own = sum(p.nbytes for n, p in policy.model.named_parameters() if ".lora_" in n)
        for step in (1, 2, 3):
            trained(policy, step)
            with sampler.holding(step):
                (group,) = sampler.generate([Prompt((20, 21, 22))], SamplingParams(8, 1.0, step), n=2)
            assert sum(served.came.values()) == step * own
            for c in group:
                with torch.no_grad():
                    logits = policy.model(input_ids=torch.tensor([[20, 21, 22, *c.ids]])).logits[0, 2:-1]
                logp = logits.index_fill(-1, policy.banned, float("-inf")).log_softmax(-1)
                expected = logp.gather(-1, torch.tensor(c.ids.tolist())[:, None])[:, 0]
                torch.testing.assert_close(torch.tensor(c.logps), expected, rtol=0, atol=5e-5)
        served.restart()  # in the middle: it knows no adapter, and refuses requests for one
        server.version = "default"
        sampler.generate([Prompt((20, 21, 22))], SamplingParams(8, 1.0, 1))
        assert sum(served.came.values()) == 4 * own
        assert len(served.adapters) == 1
    assert all(".lora_" in name for name in served.came)
    (left,) = [*tmp_path.glob("way/*"), *left_in_memory()]
    assert stat.S_IMODE(left.stat().st_mode) == 0o700
    del weights, sampler
    gc.collect()
    assert not left.exists()


def test_an_adapter_goes_as_part_of_the_weights_where_a_server_has_no_room_for_it(tmp_path: Path) -> None:
    policy = text_model(3)
    served = ServedWeights(policy, rank=4)
    policy = Policy.load(str(saved(policy, tmp_path / "model")))
    policy.add_lora(rank=8, alpha=12, seed=0)
    with VllmServer(policy, weights=served) as server:
        weights = weights_for(server, policy, tmp_path / "way", "shared_memory")
        weights.bring()
        assert not served.came  # B is zero at first
        trained(policy)
        weights.changed(1)
        weights.bring()
    moved = {n for n, _ in Source(policy).tensors(None, torch.float32)} & set(served.came)
    assert moved == set(served.came) == {n for n in served.came if n.endswith("_proj.weight")}
    assert len(moved) == 2 * 7


def test_a_plain_server_takes_the_whole_model_as_files_and_nothing_else(tmp_path: Path) -> None:
    policy = text_model(3)
    with VllmServer(text_model(4)) as server:
        weights_for(server, policy, tmp_path).bring()
        assert same(server.policy, policy)
        with pytest.raises(ConfigError, match="not started for this way") as caught:
            weights_for(server, policy, tmp_path, "shared_memory").bring()
        assert "docs/engines.md" in str(caught.value)


@pytest.mark.parametrize("transfer", ["nccl", "ipc"])
def test_ways_between_gpus_need_a_student_on_one(transfer: Transfer, tmp_path: Path) -> None:
    policy = text_model(3)
    with (
        VllmServer(policy, weights=ServedWeights(policy)) as server,
        pytest.raises(ConfigError, match="from a GPU only"),
    ):
        weights_for(server, policy, tmp_path, transfer).bring()


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_whose_server_sleeps_sends_what_the_servers_files_do_not_have(lora: bool, tmp_path: Path) -> None:
    """Sleep of level 2 drops all weights: the server reads its own files, and gets what was trained."""
    raw = raw_recipe(tmp_path, optimizer={"lr": 1e-2, "warmup_steps": 1})
    if lora:
        raw["student"]["lora"] = {"rank": 4, "alpha": 64}
    served = ServedWeights(text_model(3), rank=8)
    with VllmServer(text_model(3), weights=served) as server:
        raw["distill"]["engine"] = on(server, sleep=True, transfer="shared_memory")
        distill(recipe_from(raw, where="test"))
    assert all(r["mismatch"] < 1e-4 for r in metrics(tmp_path))
    assert len(metrics(tmp_path)) == 3
    assert any(".lora_" in n for n in served.came) == lora


@pytest.mark.processes
def test_two_processes_that_share_an_adapter_push_it_as_one_does(tmp_path: Path) -> None:
    """Nothing of the weights below it moves, and each process sends its own requests for it."""
    jobs, servers = list[str](), list[ServedWeights]()
    with contextlib.ExitStack() as opened:
        for transfer, world in itertools.product(WAYS, ("1x1", "1x2")):
            home = tmp_path / f"{transfer}-{world}"
            raw = raw_recipe(home, optimizer={"lr": 1e-2, "warmup_steps": 1})
            raw["student"]["lora"] = {"rank": 4, "alpha": 64}
            servers.append(ServedWeights(text_model(3), rank=8))
            server = opened.enter_context(VllmServer(text_model(3), weights=servers[-1]))
            raw["distill"]["engine"] = on(server, transfer=transfer)
            (home / "recipe.yaml").write_text(yaml.safe_dump(raw))
            jobs += [world, f"distill={home / 'recipe.yaml'}"]
        done = loaded.run(two_processes.__file__, *jobs)
    assert done.returncode == 0, done.stderr
    first, *others = servers
    assert all(".lora_" in key for key in first.came)
    assert any(bool(tensor.any()) for key, tensor in first.loaded.items() if ".lora_B." in key)  # zero when it began
    for served in others:
        assert served.came == first.came
        for key, tensor in first.loaded.items():
            torch.testing.assert_close(served.loaded[key], tensor, rtol=0, atol=2e-6)
    for home in tmp_path.iterdir():
        assert len(metrics(home)) == 3
        assert all(r["mismatch"] < 1e-4 for r in metrics(home))
