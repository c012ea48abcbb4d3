"""What a machine without GPUs can hold of the ways between them: layout, handles, and who says what in which order."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_backends import client, text_model
from vllm_server import VllmServer
from vllm_weights import ServedWeights
from vold.engines.transfer import devices
from vold.engines.transfer.carriers import NcclCarrier
from vold.engines.transfer.changed import ChangedWeights
from vold.engines.transfer.source import Source
from vold.engines.transfer.starting import server_arguments, server_environment
from vold.errors import SamplerError
from vold.run.model_sections import Lora

TENSORS = {
    "odd": torch.randn(3, 5).bfloat16(),
    "none": torch.zeros(0, 4),
    "one": torch.tensor(2.5),
    "wide": torch.randn(4, 4, dtype=torch.float64),
    "turned": torch.randn(6, 2).t(),
}


def test_a_buffer_holds_tensors_of_every_kind_and_its_table_says_where() -> None:
    table = json.loads(json.dumps(devices.table_of(TENSORS)))
    buffer = devices.packed(TENSORS.values())
    assert buffer.dtype == torch.uint8 and buffer.numel() == devices.size_of(table)
    found = devices.unpacked(buffer, table)
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize("table", [[["w", "float32", [5]]], [["w", "load", [1]]], [["w", "__doc__", [1]]]])
def test_a_table_that_does_not_fit_its_buffer_is_refused(table: devices.Table) -> None:
    with pytest.raises(ValueError, match=r"ends behind|no element type"):
        devices.unpacked(torch.zeros(16, dtype=torch.uint8), table)


def test_a_handle_is_numbers_and_hexadecimal_text_and_nothing_else() -> None:
    parts = ["00ff", 32, 0, "0a", 4, "0b", True]
    handle = json.loads(json.dumps({"gpu": "GPU-1", "parts": parts}))
    assert devices.handle_parts(handle) == [b"\x00\xff", 32, 0, b"\n", 4, b"\x0b", True]
    for wrong in ([], parts[:6], [*parts, 1], [b"00", *parts[1:]], ["00", True, *parts[2:]], [["00"], *parts[1:]], "x"):
        with pytest.raises(ValueError, match="no handle"):
            devices.handle_parts({"gpu": "GPU-1", "parts": wrong})
    with pytest.raises(ValueError, match="hexadecimal"):
        devices.handle_parts({"gpu": "GPU-1", "parts": ["zz", *parts[1:]]})


class Group:
    """Stands for NCCL: members meet in `join`, and a buffer that rank 0 sends is received by all others."""

    def __init__(self, members: int) -> None:
        self.members, self.names = members, list[bytes]()
        self.ranks, self.together = list[int](), threading.Barrier(members)
        self.buffer = torch.zeros(0, dtype=torch.uint8)

    def join(self, rank: int, world: int, name: bytes) -> None:
        assert world == self.members
        self.ranks.append(rank)
        self.names.append(name)
        self.together.wait(60)

    def send(self, buffer: torch.Tensor) -> None:
        self.buffer = buffer
        self.together.wait(60)  # a broadcast goes on when everybody is in it
        self.together.wait(60)

    def receive(self, size: int) -> torch.Tensor:
        self.together.wait(60)
        found = self.buffer.clone()
        self.together.wait(60)
        assert found.numel() == size
        return found


class InGroup(ServedWeights):
    """The small server's weights with workers that take them from a group, each as vLLM's worker does."""

    workers = 2

    def __init__(self, group: Group) -> None:
        super().__init__(text_model(4))
        self.nccl, self.group = group, ""
        self.rank = 0  # no adapters

    def vold_group(self) -> dict[str, str]:
        return {"group": self.group}

    def answer(self, route: str, body: dict[str, Any]) -> Any:
        if route == "/get_world_size":
            return {"world_size": self.workers}
        if route == "/init_weight_transfer_engine":
            info = body["init_info"]
            name = bytes.fromhex(info["unique_id"])
            self._each(lambda i: self.nccl.join(info["rank_offset"] + i, info["world_size"], name))
            self.group = info["group"]
            return {"message": "done"}
        return super().answer(route, body)

    def _update(self, checksums: dict[str, str], group: str, table: devices.Table) -> None:  # type: ignore[override]
        assert group == self.group
        found = list[torch.Tensor]()
        self._each(lambda i: found.append(self.nccl.receive(devices.size_of(table))))
        self.receiver.take(devices.unpacked(found[0], table), checksums, self._load)

    def _each(self, work: Any) -> None:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(self.workers)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()


def test_all_workers_join_a_group_once_and_take_the_weights_from_it() -> None:
    """Two servers of two workers each: ranks 1 and 2, and 3 and 4; the trainer is rank 0."""
    policy, group = text_model(3), Group(5)

    def join(world: int, name: bytes) -> Any:
        group.join(0, world, name)
        return group.send

    first, second = InGroup(group), InGroup(group)
    with VllmServer(policy, weights=first) as one, VllmServer(policy, weights=second) as two:
        servers = client(one.url, two.url, role="rollout")
        way = ChangedWeights(servers, Source(policy), NcclCarrier(servers, join, lambda: b"\x07" * 128))
        way.push(first=True)
        assert sorted(group.ranks) == [0, 1, 2, 3, 4] and set(group.names) == {b"\x07" * 128}
        with torch.no_grad():
            policy.model.model.norm.weight.mul_(2)
        way.push(first=True)
        assert len(group.ranks) == 5
        second.group = ""  # it was started again: all make a new group
        with torch.no_grad():
            policy.model.model.norm.weight.mul_(2)
        way.push(first=True)
        assert len(group.ranks) == 10
        for served in (first, second):
            pairs = zip(served.policy.model.parameters(), policy.model.parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
        assert one.requests.count("/update_weights") == 3
        order = [r for r in one.requests if "weight" in r or "init" in r][:4]
    assert order == ["/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update"]


def test_a_server_that_does_not_say_how_many_workers_it_has_gets_no_place() -> None:
    class Silent(InGroup):
        workers = 0

    policy = text_model(3)
    with VllmServer(policy, weights=Silent(Group(1))) as server:
        servers = client(server.url, role="rollout")
        way = ChangedWeights(servers, Source(policy), NcclCarrier(servers, lambda w, n: lambda b: None, lambda: b""))
        with pytest.raises(SamplerError, match="how many workers"):
            way.push(first=True)


def test_what_a_server_is_started_with() -> None:
    plain = server_arguments()
    assert plain[:2] == ["--worker-extension-cls", "vold.engines.transfer.vllm_worker.Extension"]
    assert json.loads(plain[3]) == {"backend": "vold"}
    widths = {1: "1", 8: "8", 9: "16", 512: "512"}
    for rank, room in widths.items():
        assert server_arguments(Lora(rank=rank))[4:7] == ["--enable-lora", "--max-lora-rank", room]
    assert server_arguments(Lora(rank=513)) == plain


LIGHT = """
import sys
from vold.engines.transfer import checksum, devices, receiver, segment
print(sorted({m.partition(".")[0] for m in sys.modules} & {"transformers", "pydantic", "httpx", "peft", "PIL", "rich"}))
"""


def test_a_server_finds_this_package_alone_and_imports_nothing_heavy_for_it(tmp_path: Path) -> None:
    (tmp_path / "importable").mkdir()
    (tmp_path / "importable" / "vold").symlink_to(tmp_path / "elsewhere")  # of a package that has moved
    environment = server_environment(tmp_path)
    here = Path(environment["PYTHONPATH"])
    assert [p.name for p in here.iterdir()] == ["vold"]
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment
    assert server_environment(tmp_path, Lora())["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    done = subprocess.run([sys.executable, "-c", LIGHT], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
