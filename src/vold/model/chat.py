"""Text and images to token ids: one object for every student and teacher."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL.Image import Image as Picture
from transformers import Qwen2_5_VLConfig

from vold.errors import DataError
from vold.model.families import image_text_class
from vold.model.processors import Encoder, build_processor, read_processor, save_processor
from vold.model.reading import read_config, read_tokenizer
from vold.model.special_tokens import TypedText
from vold.model.templates import check_template, rendered
from vold.run.failures import is_out_of_memory
from vold.types import Message, Pictures, Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

PIECE_CONTEXT = 8
"""Tokens before one that can change how it is written: blanks between words, bytes of one character."""
HALF = "\ufffd"
"""What the bytes of half a character are decoded as."""
PAIRS = 2**16
"""Pairs of ids whose texts are remembered."""


class Chat:
    """Renders messages with a model's chat template and turns them into a `Prompt`.

    Args:
        tokenizer: the model's tokenizer, with a chat template.
        image_processor: turns pictures into numbers; None for a text-only model.
        config: the model's, which says how its pictures are written; Qwen2.5-VL's by default.
        processor: what both are part of, where there is one already.

    Example:
        `Chat.load("path/to/model").prompt([Message("user", "digits 3 5 . sum ?")]).ids`
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any = None,
        config: Any = None,
        processor: Any = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.typed = TypedText(tokenizer)
        self._spelled = functools.cache(lambda token: str(tokenizer.decode([token])))
        self._added = functools.lru_cache(PAIRS)(
            lambda before, token: _rest(self._spelled(before), str(tokenizer.decode([before, token])))
        )
        self.blind = False
        """Whether it is the chat of a model that sees, whose directory lacks the image processor."""
        self.unseen = ""
        """Why this model is given no picture, where a picture does not reach it as it should."""
        self.processor = processor
        if image_processor is not None:
            self.processor = build_processor(config or Qwen2_5_VLConfig(), image_processor, tokenizer)
        self.pictures = None if self.processor is None else Encoder(self.processor)

    @classmethod
    def load(cls, path: str, config: Any = None) -> Chat:
        """Read the tokenizer, and the image processor if the directory holds one; its config too, unless it is given.

        Raises:
            ConfigError: the model belongs to no known family.
            CheckpointError: the directory cannot be read.
            DataError: the tokenizer has no chat template, or one that cannot be used.
        """
        config = read_config(path) if config is None else config
        tokenizer, sees = read_tokenizer(path), image_text_class(config) is not None
        processor = read_processor(path, config, tokenizer) if sees else None
        chat = cls(tokenizer, processor=processor)
        chat.blind = sees and processor is None
        check_template(tokenizer)
        return chat

    def save(self, path: str | Path) -> None:
        """Write the tokenizer, its chat template and the image processor so that `load` and Transformers read them."""
        if self.processor is None:
            self.tokenizer.save_pretrained(path)
        else:
            save_processor(self.processor, path)

    def prompt(self, messages: Sequence[Message], task: str = "") -> Prompt:
        """Token ids (with one placeholder per image patch group) and image tensors, ready for a response.

        Special tokens in the messages' texts are spelled with ordinary tokens. `task` is the id of the task, which
        messages about its pictures name, and environments are told.

        Raises:
            DataError: images for a text-only model, or another number of `<image>` markers than images.
        """
        images = [image for m in messages for image in m.images]
        if other := next((i for i in images if not isinstance(i, Picture)), None):
            raise DataError(
                "a prompt is shown pictures, and no video",
                got=type(other).__name__,
                fix="give frames as pictures, each with its place `<image>` in the text",
            )
        if images and (self.processor is None or self.unseen):
            raise self._cannot_see(len(images))
        messages, hidden = self.typed.hide(messages)
        turns: list[Any] = [{"role": m.role, "content": _content(m)} for m in messages]
        picture = str(self.processor.image_token) if images else ""
        text = rendered(self.tokenizer, turns, picture, len(images))
        text, places = (text, []) if hidden is None else hidden.carried(text)
        ids, vision = self._encoded(text, images)
        ids = ids if hidden is None else hidden.spell(ids, self.end_id, places)
        if not images:
            return Prompt(ids, task=task)
        once, _ = self._encoded(text, ())
        once = once if hidden is None else hidden.spell(once, self.end_id, places)
        return Prompt(ids, vision, Pictures(tuple(images), once, task), task)

    def _encoded(self, text: str, images: Sequence[Image]) -> tuple[tuple[int, ...], dict[str, torch.Tensor]]:
        """Ids of a rendered conversation, and its pictures."""
        if not images or self.pictures is None:
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]), {}
        try:
            return self.pictures.encode(text, images)
        except Exception as error:  # of a strip of 5,000 x 1 pixels, for one, or of a config that lies
            if is_out_of_memory(error):
                raise
            sizes = ", ".join(f"{i.width} x {i.height}" for i in images)
            raise DataError(
                "the model's image processor refuses a picture",
                got=f"{sizes} pixels: {type(error).__name__}: {error}",
                fix="leave that row out, or copy preprocessor_config.json from the base model",
            ) from error

    def _cannot_see(self, images: int) -> DataError:
        where, got = str(self.tokenizer.name_or_path), f"{images} image(s)"
        if self.unseen:
            return DataError(
                "a picture does not reach this model as it should",
                where=where,
                got=self.unseen,
                fix="copy preprocessor_config.json and processor_config.json from the base model",
            )
        if not self.blind:
            return DataError("a text-only model was given an image", where=where, got=got, fix="use a model that sees")
        return DataError(
            "this model cannot be given an image: it has no image processor",
            where=where,
            got=f"{got}, and no preprocessor_config.json in {where}",
            fix="copy preprocessor_config.json from the base model",
        )

    def after_turn(self, observation: str) -> tuple[int, ...]:
        """Ids that follow a turn of the model, after its end token: a tool's answer, and the start of the next turn.

        Special tokens in the answer stay text, lest a program's output ends the turn or shows a picture.

        Raises:
            DataError: the chat template has no place for a tool's answer.
        """
        turn, said = "a turn of the model", "what the tool says"
        turns = [("user", "a question"), ("assistant", turn), ("tool", said)]
        text = rendered(self.tokenizer, [{"role": r, "content": c} for r, c in turns])
        _, _, rest = text.partition(turn)
        before, found, after = rest.lstrip().removeprefix(self.tokenizer.eos_token).partition(said)
        if not found:
            raise DataError(
                "this chat template has no place for a tool's answer",
                got=self.tokenizer.name_or_path,
                fix="add the role `tool` to chat_template.jinja, or use a model that knows tools",
            )
        (before_ids, _), (after_ids, _) = self._encoded(before, ()), self._encoded(after, ())
        return (*before_ids, *self.tokens(observation), *after_ids)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Ids of running text, no template and no special tokens added; those in the text stay text."""
        return self.typed.ids(text)

    def text(self, ids: ArrayLike) -> str:
        """The text of response ids without the end token; other special tokens, such as `<think>`, stay."""
        said = np.asarray(ids, np.int64)
        return str(self.tokenizer.decode(said[said != self.tokenizer.eos_token_id].tolist()))

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text that each id adds to those before it; joined they are the decoded response. A character that takes
        several ids is the last one's."""
        whole, alone = str(self.tokenizer.decode(list(ids))), list(map(self._spelled, ids))
        if "".join(alone) == whole:
            return alone
        after_one = alone[:1] + list(map(self._added, ids, ids[1:]))
        if "".join(after_one) == whole:
            return after_one
        ends: list[int] = []
        said = 0
        for t in range(len(ids)):
            before, now = (
                str(self.tokenizer.decode(list(ids[max(0, said - PIECE_CONTEXT) : n]))) for n in (said, t + 1)
            )
            whole_characters = not now.endswith(HALF) and now.startswith(before)
            ends.append((ends[-1] if ends else 0) + (len(now) - len(before) if whole_characters else 0))
            said = t + 1 if whole_characters else said
        ends[-1:] = [len(whole)]
        return [whole[start:end] for start, end in itertools.pairwise([0, *ends])]

    @property
    def end_id(self) -> int:
        """Id of the token that ends a response."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """Id used to fill rows up; the end token where the tokenizer names none."""
        pad = self.tokenizer.pad_token_id
        return self.end_id if pad is None else int(pad)


def _rest(before: str, now: str) -> str:
    """What `now` has beyond what it begins with in common with `before`."""
    if now.startswith(before):
        return now[len(before) :]
    return now[next((i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), len(before)) :]


def _content(message: Message) -> str | list[dict[str, str]]:
    """A turn as a chat template wants it: plain text, or a list of texts and places of pictures."""
    if not message.images:
        return message.text
    return [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in message.parts()]


def stack_vision(prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
    """Join the image tensors of several prompts in order, each filled up with zeros to the size of the largest; empty
    where none has an image."""
    with_images = [p.vision for p in prompts if p.vision]
    if not with_images:
        return {}
    return {key: torch.cat(_evened([v[key] for v in with_images])) for key in with_images[0]}


def _evened(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    if len({t.shape[1:] for t in tensors}) == 1:
        return tensors
    sizes = [max(t.shape[i] for t in tensors) for i in range(1, tensors[0].ndim)]
    filled = [t.new_zeros((len(t), *sizes)) for t in tensors]
    for whole, t in zip(filled, tensors, strict=True):
        whole[tuple(slice(n) for n in t.shape)] = t
    return filled
