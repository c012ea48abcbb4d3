"""A model that can be trained, sampled from, scored and saved: the student, and any in-process teacher.

Images never leave this module as anything but an opaque mapping of tensors.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers.utils import logging as hf_logging

from vold.errors import CheckpointError, ConfigError, DataError
from vold.model import inputs as given
from vold.model.batching import evened, micro_batches, packed_micro_batches
from vold.model.chat import Chat
from vold.model.families import Part, family_of, may_pack, parameters_of
from vold.model.lm_head.fused import Query
from vold.model.lm_head.logprobs import read_head
from vold.model.lora import add_adapters, is_adapter, merged_state, save_adapters
from vold.model.packing import NO_MASK, attention_of, enable_packing, pack
from vold.model.parallel import ALONE
from vold.model.quantized import loading, quantized_layers, refuse_quantized, settle
from vold.model.reading import check_files, empty_model, model_at, read_config, read_model
from vold.model.sending import read_once
from vold.model.templates import ASKED
from vold.model.tokenizers import banned_ids
from vold.model.tower import GRID, enable_tower
from vold.types import IMAGE_MARKER, Message, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from vold.model.batching import Sequences
    from vold.model.certificate import Certificate
    from vold.model.lm_head.fused import HeadOutput, LossOf
    from vold.model.lm_head.teacher_logits import Against
    from vold.model.parallel import Processes
    from vold.model.quantized import Quantized
    from vold.model.sharding import Whole

hf_logging.disable_progress_bar()  # a bar for every save would tear our own apart
PICTURE = (56, 56)
"""Pixels of a picture that a model is tried with."""
LOW = (torch.float16, torch.bfloat16)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Policy:
    """A Transformers model with its chat template.

    Args:
        model: an image-text model of Transformers, or any causal LM.
        chat: its tokenizer and image processor.

    Raises:
        CheckpointError: the tokenizer has more tokens than the model has rows.
    """

    def __init__(self, model: Any, chat: Chat) -> None:
        self.model, self.chat, self.family = model, chat, family_of(model.config)
        self.adapters: Any = None
        self.trunk: Callable[..., torch.Tensor] | None = None
        """Runs the base model where processes share it (`vold.model.parallel`)."""
        self.whole_state: Callable[..., Whole] | None = None
        """Puts weights and adapters together where processes share them (`vold.model.sharding.whole_state`)."""
        self.packs = may_pack(model.config)
        """Whether rows of a micro-batch are one packed row; `vold.model.certificate` finds it out of any model."""
        self.shares = self.refills = self.pads = True
        """Whether packed rows share a prompt, whether packed rows generate in slots, and, where rows are not packed,
        whether several stand side by side in a padded batch."""
        self.certificate: Certificate | None = None
        """What it was tried for, where it was."""
        self.mute = ""
        """Why it cannot be sampled from here, where its own cache does not give what a full pass gives."""
        self.plain_attention = attention_of(model)
        if self.packs:
            enable_packing(model)
        self.on_host = frozenset({GRID} if enable_tower(model.base_model, self.family) else ())
        """Inputs of the model that its hooks want on the host."""
        self.ban_placeholders()

    @classmethod
    def load(
        cls,
        path: str,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        freeze: Sequence[Part] = (),
        quantize: Quantized | None = None,
        group: Processes = ALONE,
    ) -> Policy:
        """Read a model directory or hub id with `from_pretrained`: safetensors alone, and no code of the model's.
        Of `group`, all of which load it, one process a node reads its weights.

        Raises:
            CheckpointError: the directory is missing, incomplete or corrupt, or holds an adapter.
            ConfigError: the model has no part of that name to freeze, or cannot be quantised.
        """
        with model_at(path):
            check_files(path)
            config = read_config(path)
            refuse_quantized(config, path)
        more = {} if quantize is None else loading(quantize, DTYPES[dtype], family_of(config), device)
        read = partial(read_model, path, config, DTYPES[dtype], **more)
        model = read_once(group, device, read, partial(empty_model, config, DTYPES[dtype]))
        if quantize is not None:
            settle(model)
        policy = cls(model, Chat.load(path, config))
        policy.freeze(freeze)
        with model_at(path), torch.no_grad():
            policy.try_to_read()
        return policy

    def try_to_read(self) -> None:
        """Pass a question, and where it sees a small picture, through the model: a config.json whose weights fit can
        still be wrong about them.

        Raises:
            CheckpointError: what comes out is no number.
        """
        prompts = [Prompt(self.chat.tokens(ASKED))]
        if self.family.rotates_by_grid:
            picture = Image.new("RGB", PICTURE)
            with contextlib.suppress(DataError):  # its template may know no pictures: on text it can do without
                prompts.append(self.chat.prompt([Message("user", f"{IMAGE_MARKER}{ASKED}", (picture,))]))
        for prompt in prompts:
            ids = torch.tensor([prompt.ids])
            mask = torch.ones_like(ids)
            inputs = {"input_ids": ids, "attention_mask": mask, **self.beside(ids, mask, prompt.vision)}
            out = self.hidden(**self.sent(inputs), use_cache=False)
            if not bool(torch.isfinite(out.last_hidden_state).all()):
                raise CheckpointError(
                    "this model does not give finite numbers",
                    where=str(self.model.config.name_or_path),
                    got=f"its last hidden states of {'a picture' if prompt.vision else ASKED!r} are not finite",
                    fix="its weights are not numbers, or its config.json is wrong: save or download it again",
                )

    @property
    def rows(self) -> int:
        """How many ids the embedding has rows for."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def context(self) -> int:
        """Tokens that prompt and response may have together."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def ban_placeholders(self) -> None:
        """Set `banned`, the ids no response may hold, from the model's config and its tokenizer as they are now.

        Raises:
            CheckpointError: the tokenizer has more tokens than the model has rows.
        """
        tokenizer = self.chat.tokenizer
        if len(tokenizer) > self.rows:
            raise CheckpointError(
                "the tokenizer has more tokens than the model has embedding rows",
                where=str(self.model.config.name_or_path),
                got=f"{len(tokenizer)} tokens, {self.rows} rows",
                fix="use the tokenizer that belongs to the model, or resize its embeddings and save both",
            )
        never = banned_ids(self.model.config, tokenizer)
        self.banned = torch.tensor(never, dtype=torch.int64, device=self.model.device)

    def freeze(self, parts: Sequence[Part]) -> None:
        """Take parts out of training: `vision` is the tower without its projector, `projector` what follows it.

        Raises:
            ConfigError: the model has no such part.
        """
        for part in parts:
            if not self.is_vlm:
                raise ConfigError(
                    f"this model has no {part} to freeze",
                    where="student.freeze",
                    got=type(self.model).__name__,
                    fix="set student.freeze=[] for a text-only student",
                )
            for _, parameter in parameters_of(self.model.base_model, self.family, part):
                parameter.requires_grad_(False)

    def add_lora(self, *, rank: int, alpha: int, seed: int) -> None:
        """Train adapters in place of the language model's weights; see `vold.model.lora.add_adapters`."""
        self.adapters = add_adapters(self.model, self.family, rank=rank, alpha=alpha, seed=seed)

    @property
    def only_adapters(self) -> bool:
        """Whether adapters are all that training changes."""
        return self.adapters is not None and all(is_adapter(name) for name, _ in self.trainable())

    def without_adapters(self) -> AbstractContextManager[None]:
        """Inside, the model computes as if its adapters were not there."""
        found: AbstractContextManager[None] = self.adapters.disable_adapter()
        return found

    def trainable(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Names and parameters that training changes, in a fixed order."""
        return [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]

    @property
    def is_vlm(self) -> bool:
        """Whether the model has a vision tower."""
        return bool(self.family.tower)

    def positions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, vision: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Position ids; see `vold.model.inputs.positions`."""
        return given.positions(self.model, self.family, input_ids, attention_mask, vision)

    def beside(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, vision: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """What the base model is given beside ids and mask: positions, which tokens are pictures, and the pictures."""
        marks = {n: given.kinds(self.model.config, input_ids) for n in self.family.kinds}
        places = {"position_ids": self.positions(input_ids, attention_mask, vision)}
        return {**(places if "position_ids" in self.family.inputs else {}), **marks, **vision}

    def hidden(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        """The base model's output for these ids (no vocabulary-sized tensor)."""
        return given.run_base(self.model, input_ids=input_ids, **inputs)

    @property
    def head(self) -> torch.nn.Module:
        """What makes logits of states; see `vold.model.inputs.head_of`."""
        return given.head_of(self.model)

    def logprobs(
        self, batch: Sequences, *, temperature: float = 1.0, loss_of: LossOf | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-prob, entropy and most likely token at every selected token of a batch, each [tokens]; see `read`."""
        output = self.read(batch, temperature=temperature, loss_of=loss_of)
        return output.logp, output.entropy, output.argmax

    def read(
        self,
        batch: Sequences,
        *,
        temperature: float = 1.0,
        candidates: torch.Tensor | None = None,
        top_k: int = 0,
        against: Against | None = None,
        loss_of: LossOf | None = None,
        learn_entropy: bool = False,
    ) -> HeadOutput:
        """What `lm_head.logprobs.read_head` finds at the selected tokens of a batch, which describes the arguments."""
        targets = batch.targets.to(self.model.device, non_blocking=True)
        asked = Query(targets, self.banned, temperature, 0, candidates, top_k, against, loss_of, learn_entropy)
        return read_head(self.states(batch), self.head, asked)

    def states(self, batch: Sequences) -> torch.Tensor:
        """The last hidden states [tokens, width] that predict the selected tokens of a batch, on the model's device.

        Without padding, and with a prompt that rows share passed once, where the model's family allows it
        (`vold.model.packing`); as a padded batch where it does not. The batch is laid out on the host and then sent, so
        that a host with a GPU has no length to wait for.
        """
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        inputs |= self.beside(batch.input_ids, batch.attention_mask, batch.vision)
        more: dict[str, Any] = {"use_cache": False}
        if self.packs:
            batch = batch if self.shares else replace(batch, source=tuple(range(len(batch.source))))
            more["packed"] = packed = pack(batch, self.model.device)
            inputs["attention_mask"] = NO_MASK  # a packed row has no padding
            for name in ("input_ids", "position_ids", *self.family.kinds):
                inputs[name] = inputs[name].flatten(-2)[..., None, packed.index]
            places = packed.states
        else:
            places = batch.select.flatten().nonzero()[:, 0]
        sent = self.sent({**inputs, "places": places})
        places = sent.pop("places")
        run = self.trunk or self._last_states
        return run(**sent, **more).flatten(0, 1).index_select(0, places)

    def sent(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Inputs of the model, on its device, but a grid of pictures that the host reads (`vold.model.tower`). What an
        image processor has made of 16 bits gets the model's precision."""
        device, dtype = self.model.device, self.model.dtype
        ours = {n: v.to(dtype) if v.dtype in LOW else v for n, v in inputs.items()}
        return {n: v if n in self.on_host else v.to(device, non_blocking=True) for n, v in ours.items()}

    def _last_states(self, **inputs: Any) -> torch.Tensor:
        states: torch.Tensor = given.run_base(self.model, **inputs).last_hidden_state
        return states

    def micro_batches(
        self, prompts: Sequence[Prompt], response_lengths: Sequence[int], token_budget: int, processes: int = 1
    ) -> list[list[int]]:
        """Cut rows into groups of at most `token_budget` tokens as this model counts them, packed or padded; of even
        size where several processes share them (`vold.model.batching.evened`)."""
        lengths = [len(p.ids) + n for p, n in zip(prompts, response_lengths, strict=True)]

        def cut(budget: int) -> list[list[int]]:
            if self.packs and self.shares:
                return packed_micro_batches(prompts, response_lengths, budget)
            return micro_batches(lengths, budget if self.packs or self.pads else 1)

        return evened(cut, token_budget, processes)

    def save(self, path: Path) -> None:
        """Write weights (safetensors), config, tokenizer and processor; `from_pretrained` reads them back.

        Adapters are added into the weights, and also written alone (`lora.ADAPTER`). Where processes share the
        model all of them must call this, and the first one writes.
        """
        weights = adapters = None
        if self.whole_state is not None:
            weights, adapters = self.whole_state()
            if not weights:
                return
        elif self.adapters is not None or quantized_layers(self.model):
            weights = merged_state(self.model)
        self.model.save_pretrained(path, state_dict=weights)
        if self.adapters is not None:
            save_adapters(self.adapters, path, adapters)
        self.chat.save(path)
