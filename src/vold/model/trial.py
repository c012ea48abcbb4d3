"""Small inputs through a loaded model: row by row, with the attention that Transformers gave it, and again as they pass
in training and sampling: packed, sharing prompts, padded, token by token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from vold.errors import DataError
from vold.model.batching import collate
from vold.model.decoding import Cached, next_states, read_prompts
from vold.model.inputs import kinds
from vold.model.packing import enable_packing, set_attention
from vold.model.quantized import quantized_layers
from vold.model.slots import Slots
from vold.model.templates import ASKED
from vold.model.thorough import adapters_missing, gradients_differ, reads_back
from vold.run.failures import is_out_of_memory
from vold.types import IMAGE_MARKER, Message, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from vold.model.batching import Sequences
    from vold.model.chat import Chat
    from vold.model.packing import Attention
    from vold.model.policy import Policy

    Row = tuple[Prompt, tuple[int, ...]]

WAYS = {
    "packing": ("packed rows equal single rows", "packed rows do not see each other"),
    "shared prompts": ("rows that share a prompt equal single rows",),
    "fast decoding": ("decoding in slots equals a full pass",),
    "padded batches": ("padded rows equal single rows", "cached decoding of padded rows equals a full pass"),
    "sampling": ("cached decoding equals a full pass",),
    "pictures": ("the picture changes the score", "a picture is seen in its own place"),
    "adapters": ("LoRA targets are found",),
    "activation checkpointing": ("layers that are computed again give the same gradients",),
    "saving": ("a saved model reads back as it was",),
    "rollouts": ("the sampler's log-probs equal the trainer's",),
}
"""What is used only where its tests pass."""
ALSO = ("adapters", "activation checkpointing", "saving")
"""Ways that are tried only where somebody wants them."""
PLAIN = "the plain pass equals Transformers' own"
BLIND = "a text prompt does not touch the tower"
NEAR = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""By how much of its size a row's states may differ between two ways that round in another order."""
ON_GPU = 1e-3
"""The same in float32 on a GPU, whose convolutions of pictures round their factors to 10 bits."""
QUANTIZED = 0.2
"""The same of quantised layers, whose rounding depends on the rows beside."""
SAME = 0.1
"""The part of it that is left where only what a row must not see has changed: nothing but the choice of kernels."""
SIZES = ((56, 84), (84, 56))
"""Pixels of the first and the second picture of a prompt."""
CHUNKED = "chunked_attention"
"""How configs call layers whose tokens see those of their own chunk alone, thousands of tokens long."""
STEPS = 3
"""Tokens that are given one by one."""


@dataclass
class Trial:
    """A model at its trial, in evaluation mode.

    Attributes:
        policy: the model.
        attention: what it came with; see `attention_of`.
    """

    policy: Policy
    attention: Attention

    def run(self, also: Collection[str]) -> dict[str, str]:
        """The outcome of each test that this model has a part in, and of those of `also`: the plain way first, which
        all others are held against."""
        packs, self.policy.packs = self.policy.packs, False
        set_attention(self.policy.plain_attention)
        rows, decoding = WAYS["padded batches"]
        found = {PLAIN: _tried(self._as_transformers)}
        if found[PLAIN]:
            return found
        found |= {rows: _tried(self._as_singles), decoding: _tried(self._cached_side_by_side)}
        found[WAYS["sampling"][0]] = found[decoding] and _tried(self._cached)
        if self.pictures:
            counts, placed = WAYS["pictures"]
            found |= {counts: _tried(self._counts), placed: _tried(self._in_place), BLIND: _tried(self._blind)}
        fails = _tried(partial(self._enable, packs=packs))
        equal, apart = WAYS["packing"]
        found |= {equal: fails or _tried(self._as_singles), apart: fails or _tried(self._apart)}
        found[WAYS["shared prompts"][0]] = fails or _tried(partial(self._as_singles, share=True))
        found[WAYS["fast decoding"][0]] = fails or _tried(self._slots)
        if found[equal] or found[apart]:  # go on as it will be used
            set_attention(self.policy.plain_attention)
            self.policy.packs = False
        more = {"adapters": self._adapters, "activation checkpointing": self._gradients, "saving": self._saved}
        return found | {WAYS[way][0]: _tried(more[way]) for way in ALSO if way in also}

    def _enable(self, *, packs: bool) -> str:
        if CHUNKED in (getattr(self.policy.model.config.get_text_config(), "layer_types", None) or ()):
            return "its attention is cut into chunks, longer than what is tried here"
        if packs:
            set_attention(self.attention)
        else:
            enable_packing(self.policy.model)
        self.policy.packs = True
        return ""

    @cached_property
    def near(self) -> float:
        """By how much of their size states may differ."""
        model = self.policy.model
        if quantized_layers(model):
            return QUANTIZED
        return max(NEAR[model.dtype], ON_GPU if model.device.type == "cuda" else 0.0)

    @cached_property
    def words(self) -> list[int]:
        """Ids that may stand in a text."""
        never = {*self.policy.banned.tolist(), *self.policy.chat.tokenizer.added_tokens_decoder}
        return [i for i in range(len(self.policy.chat.tokenizer)) if i not in never]

    def drawn(self, seed: int, count: int) -> tuple[int, ...]:
        """Some ids of a text."""
        at = torch.randint(len(self.words), (count,), generator=torch.Generator().manual_seed(seed))
        return tuple(self.words[i] for i in at.tolist())

    @cached_property
    def pictures(self) -> list[Prompt]:
        """Prompts with one picture and with two; none for a model that is shown none."""
        if not self.policy.is_vlm or self.policy.chat.processor is None:
            return []
        try:
            self.policy.chat.prompt([Message("user", IMAGE_MARKER, (_noise(0, SIZES[0]),))])
        except DataError:  # of a template that cannot write one: on text the model can do without
            return []
        return [self.shown(0), self.shown(1, 0)]

    def shown(self, *seeds: int) -> Prompt:
        """A prompt with a picture for each seed; those of one place are of one size."""
        made = tuple(_noise(seed, SIZES[i]) for i, seed in enumerate(seeds))
        return self.policy.chat.prompt([Message("user", f"{' and '.join([IMAGE_MARKER] * len(made))} ?", made)])

    def written(self, chat: Chat) -> list[Prompt]:
        """What a chat makes of a text, and of one that has pictures."""
        more = [Message("user", IMAGE_MARKER, (_noise(0, SIZES[0]),))] if self.pictures else []
        return [chat.prompt([message]) for message in (Message("user", ASKED), *more)]

    @cached_property
    def rows(self) -> list[Row]:
        """Prompts and responses: two of one prompt, one of another, and those with pictures."""
        a, b = Prompt(self.drawn(1, 9)), Prompt(self.drawn(2, 5))
        text = [(a, self.drawn(3, 7)), (b, self.drawn(4, 6)), (a, self.drawn(5, 11))]
        return [*text, *((p, self.drawn(6 + i, 4 + i)) for i, p in enumerate(self.pictures))]

    @cached_property
    def singles(self) -> list[torch.Tensor]:
        """The states that predict each response, every row alone."""
        return [self.states([row])[0] for row in self.rows]

    def states(self, rows: Sequence[Row], *, share: bool = False) -> list[torch.Tensor]:
        """The states that predict each response, on the way that the model is set to."""
        batch = self.batch(rows)
        batch = batch if share else replace(batch, source=tuple(range(len(rows))))
        return list(self.policy.states(batch).float().split([len(r) for _, r in rows]))

    def batch(self, rows: Sequence[Row]) -> Sequences:
        """Rows side by side, each response selected."""
        prompts, responses = zip(*rows, strict=True)
        return collate(prompts, responses, [(1,) * len(r) for r in responses], self.policy.chat.pad_id)

    def _as_transformers(self) -> str:
        """Logits of the model called as it stands, with positions of its own, against ours."""
        for i in {0, len(self.rows) - 1}:
            batch = self.batch([self.rows[i]])
            marks = kinds(self.policy.model.config, batch.input_ids)
            named = {n: marks for n in self.policy.family.inputs if n.endswith("token_type_ids")}
            sent = self.policy.sent({"input_ids": batch.input_ids, **named, **batch.vision})
            theirs = self.policy.model(**sent, use_cache=False).logits[0].float()
            ours = self.policy.head(self.singles[i].to(self.policy.model.dtype)).float()
            if said := _differ(ours, theirs[batch.select[0].to(theirs.device)], self.near):
                return said
        return ""

    def _as_singles(self, *, share: bool = False) -> str:
        """All rows together."""
        together = self.states(self.rows, share=share)
        differ = (_differ(a, b, self.near) for a, b in zip(together, self.singles, strict=True))
        return next((f"row {i + 1} of {len(together)} {said}" for i, said in enumerate(differ) if said), "")

    def _apart(self) -> str:
        """Rows that are the same beside another one of the same length."""
        first, other = self.rows[0], (Prompt(self.drawn(11, 9)), self.drawn(12, 7))
        one, two = (self.states([row, *self.rows[1:]])[1:] for row in (first, other))
        differ = (_differ(a, b, self.near * SAME) for a, b in zip(one, two, strict=True))
        return next((f"behind another row one {said}" for said in differ if said), "")

    def _slots(self) -> str:
        """Prompts are read into slots, one of them into two, and what follows is given token by token."""
        chosen = [0, 2, 1, *([len(self.rows) - 1] * bool(self.pictures))]
        rows = [self.rows[i] for i in chosen]
        prompts = [p for p, _ in rows[1:]]
        device = self.policy.model.device
        cache = Slots(len(rows), max(len(p.ids) for p in prompts) + STEPS, device)
        cache.see(cache.capacity)
        state, lengths, after = read_prompts(self.policy, cache, prompts, [2, *[1] * (len(prompts) - 1)], 0)
        made = [state]
        for t in range(STEPS - 1):
            ids = torch.tensor([[r[t]] for _, r in rows])
            made.append(next_states(self.policy, cache, *(x.to(device) for x in (ids, lengths + t, after + t))))
        return self._as_begun(made, chosen)

    def _cached(self) -> str:
        """Rows one by one, token by token, with the model's own cache."""
        said = (self._from_cache([i], [0], [i]) for i in range(len(self.rows)))
        return next(filter(None, said), "")

    def _cached_side_by_side(self) -> str:
        """A prompt of two rows is read once, beside others of other lengths."""
        last = [len(self.rows) - 1] * bool(self.pictures)
        return self._from_cache([0, 1, *last], [0, 0, 1, *range(2, 2 + len(last))], [0, 2, 1, *last])

    def _from_cache(self, read: Sequence[int], copied: Sequence[int], rows: Sequence[int]) -> str:
        cached = Cached(self.policy, [self.rows[i][0] for i in read])
        if len(copied) > 1:
            cached.take(torch.tensor(copied, device=self.policy.model.device))
        made = [cached.last]
        for t in range(STEPS - 1):
            cached.step(torch.tensor([self.rows[i][1][t] for i in rows], device=self.policy.model.device))
            made.append(cached.last)
        return self._as_begun(made, rows)

    def _as_begun(self, made: Sequence[torch.Tensor], rows: Sequence[int]) -> str:
        """States of one token after the other, each of all rows."""
        return _differ(
            torch.stack(list(made), 1).float(), torch.stack([self.singles[i][:STEPS] for i in rows]), self.near
        )

    def _counts(self) -> str:
        """Another picture, alone or as the first or second of two, gives other states."""
        if torch.equal(self.singles[0][:4], self.singles[1][:4]):  # nothing counts: an empty model, not a blind one
            return ""
        for which, seeds, others in (("", (0,), (2,)), ("first of ", (0, 1), (2, 1)), ("second of ", (0, 1), (0, 2))):
            one, two = (self._whole(self.shown(*s)) for s in (seeds, others))
            if len(one) == len(two) and torch.equal(one, two):
                return f"{which}two pictures {'changes nothing' if which else 'give the same states'}"
        return ""

    def _whole(self, prompt: Prompt) -> torch.Tensor:
        """The states of all tokens of a prompt but the last."""
        return self.states([(Prompt(prompt.ids[:1], prompt.vision), prompt.ids[1:])])[0]

    def _in_place(self) -> str:
        """When the second of two pictures is another one, the first stays as it was."""
        one, two = self.shown(0, 1), self.shown(0, 2)
        places = [i for i, mark in enumerate(kinds(self.policy.model.config, torch.tensor(one.ids)).tolist()) if mark]
        if not places or len(one.ids) != len(two.ids):
            return (
                "no token stands for a picture" if not places else "pictures of one size take other numbers of tokens"
            )
        here = slice(places[0], places[len(places) // 4] + 1)  # of the first picture, whatever stands between them
        a, b = (self._whole(p)[here] for p in (one, two))
        said = _differ(a, b, self.near * SAME)
        return f"the first of two, when the second changes, {said}" if said else ""

    def _adapters(self) -> str:
        return adapters_missing(self.policy, lambda: self.states(self.rows[:1])[0])

    def _gradients(self) -> str:
        both = gradients_differ(self.policy, lambda: torch.cat(self.states(self.rows)))
        return next(filter(None, (_differ(again, plain, self.near) for again, plain in both)), "")

    def _saved(self) -> str:
        return reads_back(self.policy, self.written)

    def _blind(self) -> str:
        touched: list[object] = []
        tower = self.policy.model.base_model.get_submodule(self.policy.family.tower)
        hook = tower.register_forward_pre_hook(lambda *_: touched.append(None))
        self.states(self.rows[:1])
        hook.remove()
        return "it does" if touched else ""


def _differ(a: torch.Tensor, b: torch.Tensor, limit: float) -> str:
    """How far states are apart, as a part of their size; empty within the limit."""
    off = float((a - b).norm() / b.norm().clamp(min=1e-12))
    return "" if off <= limit else f"differs by {off:.2g} of its size, limit {limit:g}"


def _tried(test: Callable[[], str]) -> str:
    try:
        return test()
    except Exception as error:  # of a model's own code, whatever it may be
        if is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _noise(seed: int, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
