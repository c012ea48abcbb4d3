"""The student's weights as a rollout server wants them: under the names of a checkpoint, in the server's precision,
with adapters added in, one tensor after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers.core_model_loading import revert_weight_conversion

from vold.engines.transfer.checksum import checksum
from vold.model.lora import adapters_of, merged
from vold.model.quantized import plain_state, quantized_layers
from vold.model.sharding import Whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from vold.model.policy import Policy


class Source:
    """What a policy's weights are at present. Of several processes all call `refresh`, and the first asks the rest.

    Args:
        policy: the model that learns; it is read, never changed.
        plain: leave adapters out: the weights below them.
        kept: what a policy in one process trains is copied to the host by `refresh`, and stays what it was then.
    """

    def __init__(self, policy: Policy, *, plain: bool = False, kept: bool = False) -> None:
        self.policy, self.plain, self.kept = policy, plain, kept
        self._whole: Whole | None = None
        self._known = dict[tuple[str, torch.dtype], str]()

    def refresh(self) -> None:
        """Collect the weights where processes share them, or where they are kept."""
        if self.policy.whole_state is not None:
            self._whole = self.policy.whole_state(plain=self.plain)
        elif self.kept:
            self._whole, changing = None, self._changing()
            made = bool(quantized_layers(self.policy.model))  # whole weights that lie nowhere yet
            weights = {n: _copied(t) if made or n in changing else t for n, t in self._named()}
            adapters = self.policy.adapters
            self._whole = Whole(weights, {} if adapters is None else {n: _copied(t) for n, t in adapters_of(adapters)})

    def adapters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """As `vold.model.lora.adapters_of`."""
        if self._whole is not None:
            return iter(self._whole.adapters.items())
        return adapters_of(self.policy.adapters)

    def tensors(self, names: Collection[str] | None, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        """These tensors, or all, in the order of the model. Floats are cast."""
        return ((name, tensor) for name, tensor, _ in self._saved(names, dtype))

    def checksums(self, dtype: torch.dtype) -> dict[str, str]:
        """Of every tensor. Those of weights that no update changes are computed once."""
        out = {}
        for name, tensor, fixed in self._saved(None, dtype):
            if not (fixed and (name, dtype) in self._known):
                self._known[name, dtype] = checksum(tensor)
            out[name] = self._known[name, dtype]
        return out

    def _saved(self, names: Collection[str] | None, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor, bool]]:
        """Name in a checkpoint, tensor, and whether no update changes it."""
        changing = self._changing()
        for name, tensor in self._named():
            for saved, value in revert_weight_conversion(self.policy.model, {name: tensor.detach()}).items():
                if names is None or saved in names:
                    cast = value.to(dtype) if value.is_floating_point() else value
                    yield saved, cast, name not in changing

    def _named(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every weight under the model's own name; what is tied comes once, as in a checkpoint."""
        model = self.policy.model
        once = {_plain(n): p for n, p in model.named_parameters() if ".lora_" not in n}
        if self._whole is not None:
            return ((n, t) for n, t in self._whole.weights.items() if n in once)
        if self.policy.adapters is None:
            return iter(once.items())
        named = plain_state(model) if self.plain else merged(model)  # never the packed codes of quantised weights
        return ((_plain(n), t) for n, t in named if _plain(n) in once)

    def _changing(self) -> set[str]:
        """Names of weights that training changes, themselves or by an adapter that is added in."""
        names = {n for n, _ in self.policy.trainable()}
        if self.plain:
            return {_plain(n) for n in names if ".lora_" not in n}
        return {n.partition(".lora_")[0] + ".weight" if ".lora_" in n else _plain(n) for n in names}


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _plain(name: str) -> str:
    return name.replace(".base_layer.", ".")
