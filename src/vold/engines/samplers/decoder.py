"""What the device does while rows generate: read prompts, draw a token of each row, pass it through the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vold.model.decoding import next_states, read_prompts
from vold.model.quantized import quantized_layers
from vold.model.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vold.engines.samplers.draw import Draw
    from vold.model.policy import Policy
    from vold.types import Prompt

CHUNK = {"cuda": 16}
"""Tokens a row between two looks at what was drawn, by the device's type; 1 elsewhere. A look waits for the device, and
rows that end between two looks go on until the second."""
PLACES = {"cuda": 256}
"""Places that attention reads at least, by the device's type; when they are full, twice as many, and so on: a recorded
graph is for one number of places. Elsewhere it reads those that are written."""


class Decoder:
    """Rows in slots, of which the first `live` generate.

    What a step reads and writes stays where it is in memory, and no step waits for the device. On a GPU it is recorded
    as a graph: a token of all rows costs two launches, whatever the number of layers; but not every model can be
    (`can_record`).

    Args:
        policy: the model, of a family whose rows can be packed (`Policy.packs`).
        draw: what is drawn, and how.
        slots: rows side by side.
        prompt: tokens of the longest prompt.
    """

    def __init__(self, policy: Policy, draw: Draw, slots: int, prompt: int) -> None:
        device = policy.model.device
        self.policy, self.draw, self.count, self.live = policy, draw, slots, 0
        self.chunk = CHUNK.get(device.type, 1)
        self.reach = draw.params.max_new_tokens + self.chunk  # rows that have ended go on for a part of a chunk
        self.cache = Slots(slots, prompt + self.reach, device)
        width = policy.model.config.get_text_config().hidden_size
        self.state = torch.zeros((slots, width), dtype=policy.model.dtype, device=device)
        self.ids = torch.zeros((slots, 1), dtype=torch.int64, device=device)
        self.counts = torch.zeros((3, slots), dtype=torch.int64, device=device)
        self.made, self.place, self.position = self.counts
        self.uniforms = torch.zeros((slots, self.reach), dtype=torch.float64, device=device)
        self.told = torch.zeros((self.chunk, slots, draw.told), dtype=torch.int32, device=device)
        self.turn = torch.zeros(1, dtype=torch.int64, device=device)
        self.recorder = Recorder(records=device.type == "cuda" and can_record(policy))

    def read(self, prompts: Sequence[Prompt], rows: Sequence[int], uniforms: torch.Tensor) -> None:
        """Start `rows[i]` rows of `prompts[i]` in the slots after those that are live; each prompt passes once.

        `uniforms` [rows, max_new_tokens] float64 are the random numbers of the new rows.
        """
        self.see(max(len(p.ids) for p in prompts))
        states, lengths, after = read_prompts(self.policy, self.cache, prompts, rows, self.live)
        here = slice(self.live, self.live + len(lengths))
        self.live = here.stop
        self.state[here] = states
        self.counts[:, here] = self._sent(torch.stack([torch.zeros_like(lengths), lengths, after]))
        self.uniforms[here, : uniforms.shape[1]] = self._sent(uniforms)

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.state.device, non_blocking=True)

    def see(self, places: int) -> None:
        """Let attention read at least so many places of every slot."""
        if least := PLACES.get(self.state.device.type):
            places = max(least, 2 ** (places - 1).bit_length())
        self.cache.see(min(places, self.cache.capacity))

    def sample(self) -> None:
        """Draw a token of every live row from its state."""
        self.recorder.run(("sample", self._batch), self._sample)

    def forward(self) -> None:
        """Pass the tokens drawn last through the model."""
        self.recorder.run(("forward", self._batch, self.cache.visible), self._forward)

    @property
    def _batch(self) -> int:
        """Rows of a step: the live ones; where steps are recorded, filled up to one of a few numbers."""
        rows = self.count
        while self.recorder.records and self.live <= rows // 2:
            rows //= 2
        return rows if self.recorder.records else self.live

    def _sample(self) -> None:
        rows = self._batch
        chance = self.uniforms[:rows].gather(1, self.made[:rows, None])[:, 0]
        token, told = self.draw.tokens(self.state[:rows], chance)
        self.ids[:rows, 0] = token
        self.told[:, :rows].index_copy_(0, self.turn, told[None])
        self.turn += 1

    def _forward(self) -> None:
        rows = self._batch
        self.state[:rows] = next_states(
            self.policy, self.cache, self.ids[:rows], self.place[:rows], self.position[:rows]
        )
        self.counts[:, :rows] += 1

    def look(self, tokens: int) -> NDArray[np.int32]:
        """Wait for the device: what the last `tokens` draws of the live rows were, [tokens, rows, told]."""
        seen: NDArray[np.int32] = self.told[:tokens, : self.live].cpu().numpy()
        self.turn.zero_()
        return seen

    def keep(self, source: Sequence[int], target: Sequence[int], live: int) -> None:
        """Only `live` rows go on: those in slots `source` move to the free ones of `target`."""
        if source:
            a, b = (self._sent(torch.tensor(slots)) for slots in (source, target))
            self.cache.move(a, b)
            for kept in (self.state, self.ids, self.uniforms):
                kept[b] = kept[a]
            self.counts[:, b] = self.counts[:, a]
        self.live = live
        self.counts[:, live:] = 0  # what fills a step up starts anew, and stays inside its slot


def can_record(policy: Policy) -> bool:
    """Whether no step of a model makes the host wait, which no recording may: not where processes gather its weights,
    where it chooses rotary frequencies pass by pass, or where bitsandbytes asks in every int8 product for outliers."""
    int8 = any(not hasattr(layer.weight, "quant_state") for layer in quantized_layers(policy.model).values())
    return policy.trunk is None and not int8 and not _rotates_by_need(policy.model)


def _rotates_by_need(model: Any) -> bool:
    """Whether rotary frequencies are chosen by the largest position of a pass: the host waits for it, which no
    recording may (`transformers.modeling_rope_utils.dynamic_rope_update`)."""
    found = [getattr(module, "rope_type", "") for module in model.modules()]
    kinds = [kind for types in found for kind in (types.values() if isinstance(types, dict) else [types])]
    return any("dynamic" in kind or kind == "longrope" for kind in kinds)


class Recorder:
    """Does the same work again and again; as graphs of the GPU where it `records`.

    Work is known by its key. The first time it is done as it stands, since libraries set themselves up then, which no
    graph can hold; the second time it is recorded.
    """

    def __init__(self, *, records: bool) -> None:
        self.records = records
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self.pool = torch.cuda.graph_pool_handle() if records else None

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Do the work of that key."""
        if not self.records or key not in self.graphs:
            work()
            self.graphs[key] = None
            return
        if (graph := self.graphs[key]) is None:
            graph = self.graphs[key] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                work()
        graph.replay()
