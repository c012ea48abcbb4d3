"""The weights of the small server where it runs what vLLM's workers run: the same receiver around another model."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vold.engines.transfer.changed import whole_layers
from vold.engines.transfer.checksum import checksum
from vold.engines.transfer.receiver import Receiver
from vold.engines.transfer.segment import read
from vold.engines.transfer.source import Source
from vold.model.policy import Policy

TOGETHER = [["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"]]
"""Layers that vLLM makes one of."""


class ServedWeights:
    """A policy whose weights are replaced in part, and adapters beside it.

    `came` has, of every tensor that came so far, name and bytes; `files` the sizes of the files it came in.
    """

    def __init__(self, policy: Policy, *, rank: int = 0) -> None:
        self.own, self.rank = copy.deepcopy(policy), rank
        self.came, self.files = Counter[str](), list[int]()
        self.adapters = dict[str, Policy]()
        self.restart()

    def restart(self) -> None:
        """Begin with what it was started with."""
        self.policy = copy.deepcopy(self.own)
        self.receiver = Receiver(Source(self.policy).checksums(torch.float32))
        self.adapters.clear()

    def policy_of(self, model: str) -> Policy:
        """What a request for this model samples from."""
        return self.adapters.get(model, self.policy)

    def info(self) -> dict[str, Any]:
        lora = {"max_lora_rank": self.rank, "lora_dtype": "torch.float32"} if self.rank else None
        config = {"weight_transfer_config": {"backend": "vold"}, "lora_config": lora}
        return {"vllm_config": config, "vllm_env": {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": True}}

    def answer(self, route: str, body: dict[str, Any]) -> Any:
        """None where it is not for the weights."""
        if route == "/start_weight_update":
            self.receiver.begin()
        elif route == "/update_weights":
            self._update(**body["update_info"])
        elif route == "/finish_weight_update":
            self.receiver.finish(lambda: None)
        elif route == "/v1/load_lora_adapter":
            self._load_adapter(body["lora_name"], Path(body["lora_path"]))
            return "Success: LoRA adapter added successfully."
        elif route == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
            return "Success: LoRA adapter removed successfully."
        elif route == "/collective_rpc" and body["method"].startswith("vold_"):
            return {"results": [getattr(self, body["method"])(**body.get("kwargs", {}))]}
        else:
            return None
        return {"message": "done"}

    def vold_held(self) -> dict[str, Any]:
        return {"held": self.receiver.held, "dtype": "float32", "together": TOGETHER}

    def vold_report(self) -> dict[str, Any]:
        return self.receiver.report()

    def vold_reload(self) -> None:
        self.restart()

    def vold_adapter(self, path: str) -> dict[str, str]:
        return {n: checksum(t) for n, t in self.loaded.items()}

    def _update(self, checksums: dict[str, str], path: str) -> None:
        try:
            tensors = read(Path(path))
        except (OSError, SafetensorError) as error:
            self.receiver.refused |= dict.fromkeys(checksums, f"could not be read: {error}")
            return
        self.files.append(Path(path).stat().st_size)
        self.came.update({n: t.nbytes for n, t in tensors.items()})
        assert set(whole_layers(tensors, self.receiver.held, TOGETHER)) <= set(tensors), "vLLM loads whole layers"
        self.receiver.take(tensors, checksums, self._load)

    @torch.no_grad()
    def _load(self, tensors: list[tuple[str, torch.Tensor]]) -> None:
        parameters = dict(Source(self.policy).tensors(None, torch.float32))  # views of them
        for name, tensor in tensors:
            parameters[name].copy_(tensor)

    @torch.no_grad()
    def _load_adapter(self, name: str, path: Path) -> None:
        self.loaded = load_file(path / "adapter_model.safetensors")
        self.files.append((path / "adapter_model.safetensors").stat().st_size)
        self.came.update({n: t.nbytes for n, t in self.loaded.items()})
        policy = copy.deepcopy(self.policy)
        parameters = dict(policy.model.named_parameters())
        for key, a in self.loaded.items():
            if ".lora_A." in key:
                layer = key.removeprefix("base_model.model.").replace(".lora_A.", ".")
                parameters[layer] += self.loaded[key.replace(".lora_A.", ".lora_B.")] @ a
        self.adapters[name] = policy
