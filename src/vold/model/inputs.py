"""What a base model is given beside ids, and how its last states are had."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vold.model.families import picture_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.model.families import Family


def kinds(config: Any, input_ids: torch.Tensor) -> torch.Tensor:
    """[rows, length] int64: 1 where a token stands for a piece of a picture."""
    wanted = picture_id(config)
    return torch.zeros_like(input_ids) if wanted is None else (input_ids == wanted).long()


def positions(
    model: Any, family: Family, input_ids: torch.Tensor, mask: torch.Tensor, vision: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Position ids [rows, length], or [3, rows, length] where the model rotates by time, height and width.

    They are always passed explicitly: left to itself, a VLM falls back on what it remembers of the last image.
    """
    if vision and family.rotates_by_grid:
        there = {"input_ids": input_ids, "mm_token_type_ids": kinds(model.config, input_ids).int(), **vision}
        there["attention_mask"] = mask
        find = model.base_model.get_rope_index
        ids, _ = find(**{n: there[n] for n in inspect.signature(find).parameters if n in there})
        return torch.as_tensor(ids)
    flat = (mask.cumsum(-1) - 1).clamp(min=0)
    return flat.expand(3, *flat.shape) if family.rotates_by_grid else flat


def run_base(model: Any, **inputs: Any) -> Any:
    """The base model's output, with `last_hidden_state` and no vocabulary-sized tensor.

    Some models are their own base. Their head is then given the last token alone, and what it would have been given is
    the state of all.
    """
    if model.base_model is not model:
        return model.base_model(**inputs)
    seen: list[torch.Tensor] = []

    def cut(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        seen.append(args[0])
        return (args[0][:, -1:],)

    hook = model.get_output_embeddings().register_forward_pre_hook(cut)
    try:
        output = model(**inputs)
    finally:
        hook.remove()
    output["last_hidden_state"] = seen[0]
    return output


class ScaledHead(nn.Module):
    """An output embedding whose logits a model scales, or bounds by c tanh(logit / c), before they are log-probs.

    Args:
        linear: the output embedding.
        scale: what logits are multiplied by.
        bound: c; none at 0.
    """

    def __init__(self, linear: nn.Module, scale: float, bound: float) -> None:
        super().__init__()
        self.linear, self.scale, self.bound = linear, scale, bound

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[tokens, width] to [tokens, vocabulary]."""
        logits: torch.Tensor = self.linear(states) * self.scale
        return self.bound * torch.tanh(logits / self.bound) if self.bound else logits


def head_of(model: Any) -> nn.Module:
    """A model's output embedding, with what its language model's config makes of logits."""
    linear: nn.Module = model.get_output_embeddings()
    text = model.config.get_text_config()
    scale = float(getattr(text, "logit_scale", None) or 1.0) / float(getattr(text, "logits_scaling", None) or 1.0)
    bound = float(getattr(text, "final_logit_softcapping", None) or 0.0)
    return linear if scale == 1.0 and not bound else ScaledHead(linear, scale, bound)
