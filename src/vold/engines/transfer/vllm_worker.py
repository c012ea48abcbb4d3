"""The part that runs inside vLLM 0.32: a weight transfer engine of its own kind, and the questions a trainer asks.

`--worker-extension-cls vold.engines.transfer.vllm_worker.Extension` makes vLLM's workers import this module, which
registers the engine, and `--weight-transfer-config '{"backend": "vold"}'` makes them use it
(`vold.engines.transfer.starting`). It imports nothing of the project but its neighbours, and they nothing but PyTorch
and safetensors.

vLLM's own reload does the loading: it takes a layer back to the form of a checkpoint, waits until all tensors of the
layer have come, packs them as its kernels want them and copies them to where they were.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo, worker_init_process_group
from vllm.lora.utils import parse_fine_tuned_lora_name
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

from vold.engines.transfer import devices
from vold.engines.transfer.checksum import checksum
from vold.engines.transfer.receiver import Receiver
from vold.engines.transfer.segment import read

BACKEND = "vold"


@dataclass
class InitInfo(WeightTransferInitInfo):
    """A group of NCCL's: our word for it and its own name, how many are in it, and the place of the first worker."""

    group: str
    unique_id: str
    world_size: int
    rank_offset: int


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """A part of a push: the checksums of what was sent, and where it lies: in a file or segment (`path`), in the memory
    of this GPU (`handle`), or on its way through a group of NCCL's (`group`), the latter two with a table."""

    checksums: dict[str, str]
    path: str = ""
    handle: dict[str, Any] = field(default_factory=dict)
    group: str = ""
    table: devices.Table = field(default_factory=list)


class Engine(WeightTransferEngine):
    """Takes a push in parts, between `start_weight_update` and `finish_weight_update`."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: torch.nn.Module) -> None:
        super().__init__(config, vllm_config, device, model)
        self.receiver: Receiver | None = None
        self.under_way = False
        self.group, self.communicator = "", None

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Join a group of NCCL's in which the trainer is rank 0; the one before is left."""
        self.shutdown()
        name = base64.b64encode(bytes.fromhex(init_info.unique_id)).decode()
        info = NCCLWeightTransferInitInfo(
            rank_offset=init_info.rank_offset, world_size=init_info.world_size, nccl_unique_id_b64=name
        )
        self.communicator = worker_init_process_group(info, self.parallel_config)
        self.group = init_info.group

    def known(self) -> Receiver:
        """What this worker holds: at first the files of the model that it was started with."""
        if self.receiver is None:
            loader = get_model_loader(self.vllm_config.load_config)
            files = loader.get_all_weights(self.model_config, self.model)
            self.receiver = Receiver({n: checksum(t.to(self.model_config.dtype)) for n, t in files})
        return self.receiver

    def start_weight_update(self) -> None:
        """Take layers back to the form of a checkpoint."""
        self.known().begin()
        initialize_layerwise_reload(self.model)
        self.under_way = True

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receive and load a part. What is wrong with it stands in the report: an error would look like an outage."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Load a part of a push."""
        receiver = self.known()
        try:
            tensors = {n: t.to(self.device) for n, t in self._came(update_info).items()}
        except (OSError, ValueError, SafetensorError) as error:
            receiver.refused |= dict.fromkeys(update_info.checksums, f"could not be read: {error}")
            return
        receiver.take(tensors, update_info.checksums, self.model.load_weights)

    def _came(self, info: UpdateInfo) -> dict[str, torch.Tensor]:
        if info.path:
            return read(Path(info.path))
        if info.handle:
            # The trainer goes on when this part is loaded, and vLLM keeps tensors until it has the rest of a layer.
            return devices.unpacked(devices.shared(info.handle, self.device).clone(), info.table)
        if self.communicator is None or info.group != self.group:
            raise ValueError(f"this worker is not in the group {info.group}")
        buffer = torch.empty(devices.size_of(info.table), dtype=torch.uint8, device=self.device)
        self.communicator.broadcast(buffer, src=0)
        return devices.unpacked(buffer, info.table)

    def finish_weight_update(self) -> None:
        """Put every layer together again. One that lacks a tensor keeps what it had."""
        receiver = self.known()
        for name, layer in self.model.named_modules():
            info = get_layerwise_info(layer)
            if isinstance(layer, LinearBase) and info.can_load() and 0 < info.load_numel < info.load_numel_total:
                receiver.refused[name] = f"has {info.load_numel} of {info.load_numel_total} numbers of this layer"
                info.load_numel, info.loaded_weights = 0, []
        receiver.finish(lambda: finalize_layerwise_reload(self.model, self.model_config))
        repack_head(self.model)
        self.under_way = False

    def shutdown(self) -> None:
        """Leave the group."""
        if self.communicator is not None:
            self.communicator.destroy()
        self.group, self.communicator = "", None


def repack_head(model: torch.nn.Module) -> None:
    """On a CPU vLLM multiplies by a packed copy of a tied output embedding, which its reload does not reach."""
    for layer in model.modules():
        method = getattr(layer, "quant_method", None)
        if isinstance(layer, ParallelLMHead) and isinstance(method, UnquantizedEmbeddingMethod):
            method.process_weights_after_loading(layer)


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, Engine)


class Extension:
    """What a trainer may ask of a worker, by `/collective_rpc`. Values go out as JSON."""

    weight_transfer_engine: Engine
    model_runner: Any
    vllm_config: Any
    _weight_update_active: bool

    def vold_held(self) -> dict[str, Any]:
        """Checksums of the weights in place, and how to send others. A push that was left half-way is ended first."""
        engine = self.weight_transfer_engine
        if engine.under_way:
            engine.finish_weight_update()
            self._weight_update_active = False
        packed = getattr(engine.model, "packed_modules_mapping", {})
        dtype = str(engine.model_config.dtype).removeprefix("torch.")
        return {"held": engine.known().held, "dtype": dtype, "together": list(packed.values())}

    def vold_report(self) -> dict[str, Any]:
        """What became of the last push. What was computed from earlier weights is dropped."""
        self.model_runner.reset_encoder_cache()
        self.model_runner.reset_mm_cache()
        return self.weight_transfer_engine.known().report()

    def vold_reload(self) -> None:
        """Load the files that the server was started with: sleep of level 2 has dropped all weights."""
        self.model_runner.reload_weights()
        self.weight_transfer_engine.receiver = None

    def vold_repack(self) -> None:
        """Bring a head that is tied up to what a reload of the usual kind has made of the embedding."""
        repack_head(self.model_runner.get_model())

    def vold_group(self) -> dict[str, str]:
        """The group of NCCL's that this worker is in."""
        return {"group": self.weight_transfer_engine.group}

    def vold_adapter(self, path: str) -> dict[str, str]:
        """Checksums of the adapter that was loaded last, under the names of the file that it came from."""
        manager, model = self.model_runner.lora_manager._adapter_manager, self.weight_transfer_engine.model
        adapter = manager.get_adapter(max(manager.list_adapters()))
        renames = getattr(model, "hf_to_vllm_mapper", None)
        together = {
            own: (fused, i) for fused, names in manager.packed_modules_mapping.items() for i, own in enumerate(names)
        }
        out = {}
        for name in read(Path(path) / "adapter_model.safetensors"):
            module, is_a = parse_fine_tuned_lora_name(name, renames and renames.get_rename_mapper())
            layer, place = adapter.get_lora(module), None
            if layer is None:
                above, _, own = module.rpartition(".")
                fused, place = together[own]
                layer = adapter.get_lora(f"{above}.{fused}")
            half = layer.lora_a if is_a else layer.lora_b
            out[name] = checksum(half if place is None else half[place])
        return out
