"""What a server does with weights that come in, whatever model code it has: refuse what was damaged on the way, watch
the model's own loaders copy the rest, and say the checksum of what they have written.

Nothing here needs vLLM: the suite's small server runs the same code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from vold.engines.transfer.checksum import checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vold.run.records import JsonObject


class Receiver:
    """Which weights a server holds, by name and checksum, and what became of the last ones it was sent.

    Attributes:
        held: checksum of every tensor that is in place.
        refused: why tensors of the last push were not loaded.
        moved: bytes of tensors that the last push brought.
    """

    def __init__(self, held: Mapping[str, str]) -> None:
        self.held = dict(held)
        self.refused = dict[str, str]()
        self.moved = 0
        self._watched = Watched()

    def begin(self) -> None:
        """A push begins."""
        self.refused, self.moved, self._watched = {}, 0, Watched()

    def take(
        self,
        tensors: Mapping[str, torch.Tensor],
        checksums: Mapping[str, str],
        load: Callable[[list[tuple[str, torch.Tensor]]], object],
    ) -> bool:
        """Load a part of a push; nothing of a part is loaded where any tensor of it was damaged.

        Args:
            tensors: what came, under the names of a checkpoint.
            checksums: of what was sent.
            load: hands them to the model's loaders, which may wait for the rest of a layer.

        Returns:
            Whether it was loaded.
        """
        self.moved += sum(t.nbytes for t in tensors.values())
        self.refused |= {n: "is missing" for n in checksums if n not in tensors}
        for name, tensor in tensors.items():
            if checksums.get(name) != (found := checksum(tensor)):
                self.refused[name] = f"arrived with checksum {found}, sent with {checksums.get(name)}"
        if self.refused:
            return False
        for name in tensors:
            self.held.pop(name, None)  # until it is known what the loaders have made of it
        self._watched.expect(tensors)
        with self._watched:
            load(list(tensors.items()))
        return True

    def finish(self, load: Callable[[], object]) -> None:
        """The push is over; `load` brings in what loaders have put off."""
        with self._watched:
            load()
        self.held |= self._watched.loaded()

    def report(self) -> JsonObject:
        """What a trainer wants to know after a push."""
        return {"held": self.held, "refused": self.refused, "moved": self.moved}


class Watched(TorchFunctionMode):
    """Sees a model's loaders copy tensors into its weights, and reads the weights back at once.

    Loaders copy views of what came (one head's rows, one process's columns) into views of weights that are fused and
    divided otherwise. Each view that was written is copied into the place of the one that was read, in a tensor of the
    layout that came. So it can be compared however the model keeps its weights, and before they are packed for a
    processor.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting = dict[str, tuple[torch.Tensor, torch.Tensor]]()
        self._left, self._loaded = dict[str, int](), dict[str, str]()

    def expect(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """These are going to be loaded."""
        for name, came in tensors.items():
            # A process that holds a part of a weight reads back that part; the rest stays as it came.
            self._waiting[name] = (came, came.clone())
            self._left[name] = came.numel()

    def loaded(self) -> dict[str, str]:
        """Checksums of what was written; there is none of a tensor that no loader has copied as it is."""
        parts = {n: b for n, (came, b) in self._waiting.items() if self._left[n] < came.numel()}
        return self._loaded | {n: checksum(back) for n, back in parts.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it, and read back what a copy has written."""
        out = func(*args, **(kwargs or {}))
        if func is torch.Tensor.copy_ and not (args[0].is_meta or args[1].is_meta):
            self._read_back(args[0], args[1])
        return out

    def _read_back(self, written: torch.Tensor, source: torch.Tensor) -> None:
        memory = source.untyped_storage().data_ptr()
        for name, (came, back) in self._waiting.items():
            place = source.data_ptr() - came.data_ptr()
            if came.untyped_storage().data_ptr() == memory and 0 <= place < came.nbytes and source.dtype == came.dtype:
                back.as_strided(source.shape, source.stride(), place // came.itemsize).copy_(written)
                self._left[name] -= source.numel()
                if self._left[name] <= 0:  # whole: nothing of it is kept until the end
                    self._loaded[name] = checksum(back)
                    del self._waiting[name]
                return
