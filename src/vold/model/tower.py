"""Pictures of a micro-batch through a vision tower that takes patches of any grid (Qwen), without a wait of the host.

Transformers' towers ask the device for grids, and for lengths in every layer. What they make of a grid is made on the
host here, by the same functions, and sent; on a GPU in 16 bits all windows attend in one call (`vold.model.varlen`).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, vision_utils
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from vold.model.varlen import HALF, Sequences, attend, has_kernel, takes

if TYPE_CHECKING:
    from torch import nn

    from vold.model.families import Family

GRID = "image_grid_thw"
"""The input of a model that is to stay on the host: rows, [pictures, 3] int64."""
ATTENTION = "vold_flash_tower"
"""The name under which Transformers finds `tower_attention`; it hands lengths over where that says `flash`."""
EVERYWHERE = (-1, -1)
MADE_HERE = {
    "get_vision_cu_seqlens", "get_vision_attention_seqlens", "get_vision_position_ids", "get_vision_window_index",
    "get_vision_interpolation_indices_and_weights",
}  # fmt: skip
"""Functions of Transformers by which towers make what follows from a grid."""


def enable_tower(base: Any, family: Family) -> bool:
    """Have the arguments of a base model's tower made on the host, and its windows attend in one call where its device
    has the kernel. False where the tower is not one that takes them from outside, and nothing was done."""
    if not family.rotates_by_grid or not _takes_grids(base.get_submodule(family.tower)):
        return False
    tower, language = base.get_submodule(family.tower), base.get_submodule(family.language)
    tower.register_forward_pre_hook(_prepared, with_kwargs=True)
    if hasattr(language, "_deepstack_process") and tower.device.type != "cpu":
        language._deepstack_process = _add_features
    if has_kernel(tower.device) and tower.dtype in HALF:
        AttentionInterface.register(ATTENTION, tower_attention)
        tower.config._attn_implementation = ATTENTION
    return True


def _takes_grids(tower: nn.Module) -> bool:
    """Whether all that a tower makes of a grid is made by functions that `_prepared` calls, and may be given to it."""
    uses = {n for n in vars(inspect.getmodule(type(tower))) if n.startswith("get_vision_")}
    return "get_vision_position_ids" in uses and uses <= MADE_HERE and hasattr(tower, "spatial_merge_size")


def tower_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of windows side by side; arguments as for `vold.model.packing.packed_attention`."""
    begins, longest = kwargs["cu_seq_lens_q"], kwargs["max_length_q"]
    if takes(query):
        of = Sequences(begins, begins, longest, longest)
        return attend(query, key, value, of, scale=kwargs.get("scaling"), window=EVERYWHERE), None
    parts = zip(*(t.split(begins.diff().tolist(), 2) for t in (query, key, value)), strict=True)
    out = [
        sdpa_attention_forward(module, q, k, v, attention_mask, scaling=kwargs.get("scaling"), is_causal=False)[0]
        for q, k, v in parts
    ]
    return torch.cat(out, 1), None


def _add_features(states: torch.Tensor, places: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Qwen3-VL adds features of the tower to states of the language model's first layers. Its own way there counts the
    places, for which the host waits.

    Args:
        states: [rows, length, width].
        places: [rows, length] bool, those of pictures.
        features: [pictures' tokens, width].
    """
    return states + torch.zeros_like(states).masked_scatter(places[..., None], features.to(states.dtype))


def _prepared(tower: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The tower's arguments with all that follows from the grid."""
    grid, side = kwargs["grid_thw"].cpu(), tower.spatial_merge_size
    begins = {"cu_seqlens": vision_utils.get_vision_cu_seqlens(grid)}
    made = {"position_ids": vision_utils.get_vision_position_ids(grid, side)}
    if hasattr(tower, "window_size"):
        sizes = {"window_size": tower.window_size, "patch_size": tower.patch_size}
        made["window_index"], begins["cu_window_seqlens"] = vision_utils.get_vision_window_index(grid, side, **sizes)
    if hasattr(tower, "num_grid_per_side"):
        made["interp_indices"], made["interp_weights"] = vision_utils.get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=side,
        )
    longest: dict[str, int] = {}
    if tower.config._attn_implementation == ATTENTION:
        longest = {name.replace("cu_", "max_")[:-1]: int(t.diff().max()) for name, t in begins.items()}
        made |= begins
        begins = {}
    there = {name: tensor.to(args[0].device, non_blocking=True) for name, tensor in made.items()}
    return args, {**kwargs, **begins, **there, **longest}
