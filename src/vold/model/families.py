"""What differs between model families: where their parts are, and how a picture reaches them.

A new family is a row of `FAMILIES`, if its pictures are prepared in one of the two ways that `vold.model.chat` knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

Part = Literal["vision", "projector"]
"""A part of a student beside its language model. `vision` is the tower without the projector."""


@dataclass(frozen=True)
class Family:
    """Names inside one architecture. Module names are relative to the base model (`model.base_model`).

    Attributes:
        language: the language model; empty where it is the base model itself.
        tower: the vision tower; empty for a text-only model.
        projector: what maps the tower's features to the language model's width.
        pictures: how pictures become tensors. `grid`: patches of any area and their grid (Qwen). `tiles`: squares of
            one size, each a fixed number of tokens (Idefics3). Empty for a text-only model.
        processor: the Transformers class that reads a saved processor.
        video_processor: the same for films. Stock processors want one, and vold shows none.
        image_processor: module below `transformers.models` and class of what turns pictures into numbers. Always
            Pillow's, so that every installation sees the same numbers.
        placeholders: pattern of the tokens that stand for pictures; a response never holds one.
        packs: `model_type` of the language models whose rows can be packed: their tokens meet in causal attention and
            nowhere else.
    """

    language: str = ""
    tower: str = ""
    projector: tuple[str, ...] = ()
    pictures: Literal["grid", "tiles", ""] = ""
    processor: str = ""
    video_processor: str = ""
    image_processor: str = ""
    placeholders: str = ""
    packs: tuple[str, ...] = ()

    @property
    def rotates_by_grid(self) -> bool:
        """Whether positions have three axes (time, height, width) instead of one."""
        return self.pictures == "grid"


QWEN_TOKENS = r"<\|(vision_start|vision_end|vision_pad|image_pad|video_pad)\|>"
TILE_TOKENS = r"<(image|video|fake_token_around_image|global-img|row_\d+_col_\d+)>"
TEXT_ONLY = Family()
QWEN2_5_VL = Family(
    language="language_model",
    tower="visual",
    projector=("visual.merger",),
    pictures="grid",
    processor="Qwen2_5_VLProcessor",
    video_processor="Qwen2VLVideoProcessor",
    image_processor="qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil",
    placeholders=QWEN_TOKENS,
    packs=("qwen2_5_vl_text",),
)
IDEFICS3 = Family(
    language="text_model",
    tower="vision_model",
    projector=("connector",),
    pictures="tiles",
    processor="Idefics3Processor",
    image_processor="idefics3.image_processing_pil_idefics3.Idefics3ImageProcessorPil",
    placeholders=TILE_TOKENS,
)
FAMILIES = {
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_vl": replace(
        QWEN2_5_VL,
        projector=("visual.merger", "visual.deepstack_merger_list"),
        processor="Qwen3VLProcessor",
        video_processor="Qwen3VLVideoProcessor",
        packs=("qwen3_vl_text",),
    ),
    "idefics3": IDEFICS3,
    "smolvlm": replace(
        IDEFICS3,
        processor="SmolVLMProcessor",
        image_processor="smolvlm.image_processing_pil_smolvlm.SmolVLMImageProcessorPil",
    ),
    **{kind: Family(packs=(kind,)) for kind in ("llama", "mistral", "qwen2", "qwen3", "smollm3")},
}
"""Families by `model_type` of their config. Every other type is a plain causal language model whose rows are padded."""


def family_of(config: Any) -> Family:
    """The family of a Transformers config.

    Raises:
        ConfigError: a vision-language model of a family that is not in `FAMILIES`.
    """
    kind = str(config.model_type)
    if kind not in FAMILIES and getattr(config, "vision_config", None) is not None:
        raise ConfigError(
            "students of this family are not known",
            where="student.path",
            got=kind,
            fix=f"one of {', '.join(k for k, f in FAMILIES.items() if f.tower)}, or a causal language model",
        )
    return FAMILIES.get(kind, TEXT_ONLY)


def can_pack(config: Any) -> bool:
    """Whether rows of the language model of a Transformers config can be packed."""
    kind = str(config.get_text_config().model_type)
    return any(kind in family.packs for family in FAMILIES.values())


def part_of(name: str, family: Family) -> Part | None:
    """The part that a parameter or module of the base model belongs to; None for the language model.

    Example:
        >>> part_of("visual.merger.mlp.0.weight", QWEN2_5_VL)
        'projector'
    """
    if any(_below(name, p) for p in family.projector):
        return "projector"
    return "vision" if family.tower and _below(name, family.tower) else None


def parameters_of(base: nn.Module, family: Family, part: Part) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of one part of a base model, with their names there."""
    return ((n, p) for n, p in base.named_parameters() if part_of(n, family) == part)


def linear_layers(base: nn.Module, family: Family) -> list[str]:
    """Names of the linear layers inside the language model's blocks, where adapters go."""
    from torch import nn

    inside = re.compile(inside_blocks(family))
    return [n for n, m in base.named_modules() if isinstance(m, nn.Linear) and inside.match(n)]


def inside_blocks(family: Family) -> str:
    """Pattern of how names of modules inside the language model's blocks begin, in the base model."""
    prefix = f"{family.language}." if family.language else ""
    return re.escape(prefix) + r"(layers|h|blocks)\.\d+\."


def _below(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")
