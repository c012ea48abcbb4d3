"""A model that can be trained, sampled from, scored and saved: the student, and any in-process teacher.

Images never leave this module as anything but an opaque mapping of tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.utils import logging as hf_logging
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from vold.errors import CheckpointError, ConfigError
from vold.model.batching import evened, micro_batches, packed_micro_batches
from vold.model.chat import Chat
from vold.model.families import Part, family_of, parameters_of
from vold.model.lm_head.fused import Query
from vold.model.lm_head.logprobs import read_head
from vold.model.lora import add_adapters, merged_state, save_adapters
from vold.model.packing import enable_packing, pack
from vold.model.tokenizers import banned_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vold.model.batching import Sequences
    from vold.model.lm_head.fused import HeadOutput, LossOf
    from vold.model.lm_head.teacher_logits import Against
    from vold.types import Prompt

hf_logging.disable_progress_bar()  # a bar for every save would tear our own apart
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


class Policy:
    """A Transformers model with its chat template.

    Args:
        model: a vision-language model of `vold.model.families.FAMILIES`, or any causal LM.
        chat: its tokenizer and image processor.

    Raises:
        CheckpointError: the tokenizer has more tokens than the model has rows.
    """

    def __init__(self, model: Any, chat: Chat) -> None:
        self.model, self.chat, self.family = model, chat, family_of(model.config)
        self.adapters: Any = None
        self.trunk: Callable[..., torch.Tensor] | None = None
        """Runs the base model where processes share it (`vold.model.parallel`)."""
        self.whole_state: Callable[[], dict[str, torch.Tensor]] | None = None
        """Collects the weights where processes share them; empty but on the first."""
        self.packs = enable_packing(model)
        self.ban_placeholders()

    @classmethod
    def load(cls, path: str, *, dtype: str = "float32", device: str = "cpu", freeze: Sequence[Part] = ()) -> Policy:
        """Read a model directory or hub id with `from_pretrained`: safetensors alone, and no code of the model's.

        Raises:
            CheckpointError: the directory is missing, incomplete or corrupt, or holds an adapter.
            ConfigError: the model has no part of that name to freeze.
        """
        # Local directories must be whole; a name that is no directory is left to the hub client.
        if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or len(Path(path).parts) != 2):
            raise CheckpointError("there is no model directory here", where=path, fix="check the path in the recipe")
        try:
            _check_files(path)
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            factory = AutoModelForImageTextToText if family_of(config).tower else AutoModelForCausalLM
            loaded: Any = factory.from_pretrained(
                path,
                dtype=DTYPES[dtype],
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
            model, info = loaded
            chat = Chat.load(path)
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
            if isinstance(error, (CheckpointError, ConfigError)):
                raise
            raise CheckpointError(
                "this model cannot be loaded",
                where=path,
                got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                fix="the directory may be cut short or corrupt: save or download it again"
                if Path(path).is_dir()
                else "download it, and put the directory's path into the recipe",
            ) from error
        missing = sorted(info["missing_keys"])
        if missing:
            raise CheckpointError(
                "weights are missing from this model directory",
                where=path,
                got=f"{len(missing)} missing, first: {missing[0]}",
                fix="save or download the model again",
            )
        policy = cls(model.to(device), chat)
        policy.freeze(freeze)
        return policy

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
        """Position ids [rows, length], or [3, rows, length] where the model rotates by time, height and width.

        They are always passed explicitly: left to itself, a VLM falls back on what it remembers of the last image.
        """
        if vision and self.family.rotates_by_grid:
            kinds = (input_ids == self.model.config.image_token_id).int()
            ids, _ = self.model.base_model.get_rope_index(
                input_ids, kinds, image_grid_thw=vision["image_grid_thw"], attention_mask=attention_mask
            )
            return torch.as_tensor(ids)
        flat = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return flat.expand(3, *flat.shape) if self.family.rotates_by_grid else flat

    def hidden(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        """The base model's output for these ids (no vocabulary-sized tensor)."""
        return self.model.base_model(input_ids=input_ids, **inputs)

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
    ) -> HeadOutput:
        """What `lm_head.logprobs.read_head` finds at the selected tokens of a batch, which describes the arguments."""
        batch = batch.to(self.model.device)
        asked = Query(batch.targets, self.banned, temperature, 0, candidates, top_k, against, loss_of)
        return read_head(self.states(batch), self.model.get_output_embeddings(), asked)

    def states(self, batch: Sequences) -> torch.Tensor:
        """The last hidden states [tokens, width] that predict the selected tokens of a batch on the model's device.

        Without padding, and with a prompt that rows share passed once, where the model's family allows it
        (`vold.model.packing`); as a padded batch where it does not.
        """
        positions = self.positions(batch.input_ids, batch.attention_mask, batch.vision)
        run = self.trunk or self._last_states
        if not self.packs:
            states = run(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=positions,
                use_cache=False,
                **batch.vision,
            )
            return states[batch.select]
        packed = pack(batch)
        states = run(
            input_ids=batch.input_ids.flatten()[packed.index][None],
            attention_mask=None,
            position_ids=positions.flatten(-2)[..., None, packed.index],
            use_cache=False,
            packed=packed,
            **batch.vision,
        )
        return states[0].index_select(0, packed.states)

    def _last_states(self, **inputs: Any) -> torch.Tensor:
        states: torch.Tensor = self.model.base_model(**inputs).last_hidden_state
        return states

    def micro_batches(
        self, prompts: Sequence[Prompt], response_lengths: Sequence[int], token_budget: int, processes: int = 1
    ) -> list[list[int]]:
        """Cut rows into groups of at most `token_budget` tokens as this model counts them, packed or padded; of even
        size where several processes share them (`vold.model.batching.evened`)."""
        lengths = [len(p.ids) + n for p, n in zip(prompts, response_lengths, strict=True)]

        def cut(budget: int) -> list[list[int]]:
            return (
                packed_micro_batches(prompts, response_lengths, budget)
                if self.packs
                else micro_batches(lengths, budget)
            )

        return evened(cut, token_budget, processes)

    def save(self, path: Path) -> None:
        """Write weights (safetensors), config, tokenizer and processor; `from_pretrained` reads them back.

        Adapters are added into the weights, and also written alone (`lora.ADAPTER`). Where processes share the
        model all of them must call this, and the first one writes.
        """
        if self.whole_state is not None:
            if not (state := self.whole_state()):
                return
            self.model.save_pretrained(path, state_dict=state)
        elif self.adapters is None:
            self.model.save_pretrained(path)
        else:
            self.model.save_pretrained(path, state_dict=merged_state(self.model))
            save_adapters(self.adapters, path)
        self.chat.save(path)


def _check_files(path: str) -> None:
    """Refuse what Transformers would load beside the model, or unpickle.

    Raises:
        CheckpointError: the directory or hub repository holds an adapter, or its weights are pickles.
    """
    if find_adapter_config_file(path) is not None:
        raise CheckpointError(
            "this is an adapter, or a model with one beside it, which would change its weights unseen",
            where=path,
            got=ADAPTER_CONFIG_NAME,
            fix="merge it (peft: PeftModel.merge_and_unload) and save the model, or move the adapter's files away",
        )
    pickles = sorted(f.name for suffix in PICKLES for f in Path(path).glob(f"*{suffix}"))
    if pickles and not list(Path(path).glob("*.safetensors")):
        raise CheckpointError(
            "the weights of this model are pickles, which can run code; only safetensors are read",
            where=path,
            got=", ".join(pickles[:3]),
            fix="take a release with safetensors; or, if you trust its source, load it with Transformers and call "
            "`save_pretrained`",
        )
