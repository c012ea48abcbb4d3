"""What a model is made of: its language model, its vision tower, and how pictures and positions enter it.

Nothing here is listed by name. Transformers' table of image-text models says what sees; a model of the config's
architecture, built without storage, says where its parts are.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
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
        rotates_by_grid: whether positions have three axes (time, height, width) instead of one.
        inputs: names of what the base model takes.
    """

    language: str = ""
    tower: str = ""
    projector: tuple[str, ...] = ()
    rotates_by_grid: bool = False
    inputs: frozenset[str] = frozenset({"position_ids"})

    @property
    def kinds(self) -> tuple[str, ...]:
        """Inputs that say of each token whether it stands for a picture. A model whose positions are made here needs
        none for them."""
        own = (n for n in self.inputs if n.endswith("token_type_ids"))
        return tuple(sorted(n for n in own if not (self.rotates_by_grid and n == "mm_token_type_ids")))


TEXT_ONLY = Family()
ADAPTS = re.compile(r"merger|projector|projection|connector|aligner|resampler")
"""How Transformers calls what maps a tower's features to the language model's width, where it is part of the tower."""
TOWER = re.compile(r"vis|image|vq")
"""How it calls a tower that `get_encoder` does not find."""
ASIDE = re.compile(r"audio|lm_head|embed_tokens|generation|dit$")
"""Parts of a base model that pictures do not pass."""
ASKED_ALONE = "teacher.path and student.path take models that predict the next token of one text: choose such a model"
PROVEN = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "qwen2_5_vl_text", "qwen3_vl_text"})
"""`model_type` of language models whose packed rows are held against float64 in this package's own tests. They pack
where nobody has asked for a certificate (`vold.model.certificate`)."""
_FOUND: dict[tuple[Any, ...], Family] = {}


def image_text_class(config: Any) -> Any:
    """The Transformers class of a model that reads pictures and writes text; None for a config of any other."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    found: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    if found is None or not any("pixel" in n or "patches" in n for n in inspect.signature(found.forward).parameters):
        return None  # one that takes no picture is there for the sake of another model's config
    return found


def family_of(config: Any) -> Family:
    """The family of a Transformers config.

    Raises:
        ConfigError: a model whose pictures do not become tokens among the text's.
    """
    model_class = image_text_class(config)
    if model_class is None:
        return TEXT_ONLY
    parts = tuple((n, type(getattr(config, n, None))) for n in config.sub_configs)
    if (key := (type(config), *parts)) not in _FOUND:
        _FOUND[key] = _looked_up(config, model_class)
    return _FOUND[key]


def skeleton(config: Any, layers: int = 1, dtype: Any = None) -> Any:
    """A model of a config without storage, its language model of so many layers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    own = type(config).from_dict(config.to_dict())
    text = own.get_text_config()
    text.num_hidden_layers = layers
    if types := getattr(text, "layer_types", None):
        text.layer_types = [types[i % len(types)] for i in range(layers)]  # there may be fewer than are asked for
    factory: Any = AutoModelForCausalLM if image_text_class(config) is None else AutoModelForImageTextToText
    with torch.device("meta"):
        return factory.from_config(own, dtype=dtype)


def _looked_up(config: Any, model_class: Any) -> Family:
    if config.is_encoder_decoder or picture_id(config) is None:
        raise ConfigError(
            "this model cannot be used here: its pictures are not tokens among those of the text",
            where="student.path",
            got=f"{config.model_type} ({model_class.__name__})",
            fix=ASKED_ALONE,
        )
    try:
        model = skeleton(config)
    except Exception:  # a config may want as many layers as it says
        import torch

        with torch.device("meta"):
            model = model_class(config)
    base = model.base_model
    names = {id(module): name for name, module in base.named_modules()}
    decoder = model.get_decoder()
    language = names.get(id(decoder.base_model), "") if decoder is not base else ""
    weighty = [n for n, m in base.named_children() if any(True for _ in m.parameters())]
    beside = [n for n in weighty if language.partition(".")[0] != n and not ASIDE.search(n)] if language else []
    encoder = model.get_encoder(modality="image")
    tower = names.get(id(encoder), "") if encoder not in (model, base) else ""
    seeing = [n for n in weighty if TOWER.search(n) and not ADAPTS.search(n)]
    tower = tower or max(seeing, key=lambda n: _size(base.get_submodule(n)), default="")
    inner = [f"{tower}.{n}" for n, _ in base.get_submodule(tower).named_children() if ADAPTS.search(n)] if tower else []
    projector = [*inner, *(n for n in beside if n != tower.partition(".")[0])]
    return Family(
        language=language,
        tower=tower or (projector.pop() if projector else ""),
        projector=tuple(projector),
        rotates_by_grid=hasattr(base, "get_rope_index"),
        inputs=frozenset(inspect.signature(base.forward).parameters),
    )


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def picture_id(config: Any) -> int | None:
    """Id of the token that stands for a piece of a picture."""
    found = getattr(config, "image_token_id", None)
    return getattr(config, "image_token_index", None) if found is None else found


def may_pack(config: Any) -> bool:
    """Whether rows are packed where there is no certificate."""
    return str(config.get_text_config().model_type) in PROVEN


def part_of(name: str, family: Family) -> Part | None:
    """The part that a parameter or module of the base model belongs to; None for the language model.

    Example:
        >>> part_of("visual.merger.mlp.0.weight", Family("language_model", "visual", ("visual.merger",)))
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
    return re.escape(prefix) + r"(model\.)?(layers|h|blocks)\.\d+\."


def _below(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")
