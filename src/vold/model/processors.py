"""Pictures to numbers and to places in a text: Transformers' own processor of a model, for text and still images.

Many processors insist on a video processor, and that one insists on torchvision. Here each is the stock class without
that part, so that it works where torchvision is absent; what it saves is an ordinary processor directory, which names
the stock class.
"""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from PIL import Image
from transformers import Idefics3Processor, ProcessorMixin
from transformers.models.auto import processing_auto, video_processing_auto
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from vold.errors import CheckpointError
from vold.model.reading import model_at

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("preprocessor_config.json", "processor_config.json")
"""Where a model directory may say how pictures are prepared."""
PROCESSORS: dict[str, str] = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"]
"""Names of Transformers' processors by `model_type`."""
VIDEO_PROCESSORS: dict[str, Any] = vars(video_processing_auto)["VIDEO_PROCESSOR_MAPPING_NAMES"]
"""Names of those for films: of Transformers 5.17 a name, later one by package; None where the package is missing."""
STILL = ("image_processor", "tokenizer")
STAND_INS = {"SmolVLMProcessor": Idefics3Processor}
"""Where the stock class wants a package for videos: one that writes a picture the same way."""
BY_PILLOW: dict[str, Any] = {
    "Idefics3ImageProcessor": Idefics3ImageProcessorPil, "SmolVLMImageProcessor": SmolVLMImageProcessorPil,
}  # fmt: skip
"""Classes that need Pillow alone, which the table of Transformers before 5.19 takes to need torchvision. So it does
`AutoImageProcessor`, which is therefore imported from where it is made."""
SIDE = 56
"""Pixels of a side of a picture that a processor is tried with."""


class _Still(ProcessorMixin):
    """Stands between a stock processor and what it is derived from, and takes the parts for video and sound away."""

    stock: Any
    films: str | None = None
    """What Transformers' own class reads films with; none are read here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(self.stock.get_attributes(), args, strict=False)) | kwargs
        kept = {n: v for n, v in given.items() if n in STILL or n == "chat_template"}
        parent: Any = super()
        parent.__init__(**kept)


@functools.cache
def still(name: str) -> Any:
    """The processor class of that name in Transformers, for text and still images."""
    stock: Any = STAND_INS.get(name) or getattr(transformers, name)
    kept = [n for n in stock.get_attributes() if n in STILL]
    return type(name, (stock, _Still), {"stock": stock, "get_attributes": classmethod(lambda _: list(kept))})


def build_processor(
    config: Any, images: Any, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any] | None = None
) -> Any:
    """A model's processor.

    Args:
        config: the model's.
        images: its image processor.
        tokenizer: its tokenizer.
        settings: what its directory says about the processor; the rest is its config's, or the class's own.

    Raises:
        CheckpointError: Transformers has no processor for this model, or not without a package that is missing.
    """
    settings = settings or {}
    name = settings.get("processor_class") or PROCESSORS.get(config.model_type)
    if name is None:
        raise CheckpointError(
            "Transformers has no processor for models of this type",
            where=str(tokenizer.name_or_path),
            got=f"model_type {config.model_type}, and no processor_class in the directory",
            fix="use a model directory with a preprocessor_config.json that names its processor_class",
        )
    try:
        made = still(str(name))
        wanted = inspect.signature(made.__init__).parameters
        known = {n: _said(n, settings, config) for n in wanted if n not in made.stock.get_attributes()}
        own = {n: v for n, v in known.items() if v is not None}
        absent = {n: None for n in made.stock.get_attributes() if n in wanted}
        given = absent | {"image_processor": images, "tokenizer": tokenizer, "chat_template": tokenizer.chat_template}
        processor = made(**{**own, **given})
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise CheckpointError(
            "Transformers' processor of this model cannot be used here",
            where=str(tokenizer.name_or_path),
            got=f"{name} of {config.model_type}: {type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="install what it asks for, or use its tokenizer's own special tokens",
        ) from error
    if "video_processor" in getattr(transformers, str(name)).get_attributes():
        processor.films = _films(str(name), config, images, settings.get("video_processor"))
    return processor


def _films(processor: str, config: Any, images: Any, said: Any) -> str:
    """The name of the video processor: the directory's own, else Transformers' for this model, which keeps it to itself
    where torchvision is absent and goes by the names of the processor or of the image processor then."""
    own = said.get("video_processor_type") if isinstance(said, dict) else None
    listed = VIDEO_PROCESSORS.get(config.model_type)
    known = listed.get("torchvision") if isinstance(listed, dict) else listed
    stems = processor.removesuffix("Processor"), type(images).__name__.partition("ImageProcessor")[0]
    alike = (f"{stem}VideoProcessor" for stem in stems)
    return str(own or known or next((name for name in alike if hasattr(transformers, name)), ""))


def _said(name: str, settings: dict[str, Any], config: Any) -> Any:
    """What a processor is told under a name: by its directory, else by the model's config."""
    if name == "image_seq_len" and hasattr(config, "scale_factor"):
        return _tile_tokens(config)
    if name in settings:
        return settings[name]
    places = (config, getattr(config, "vision_config", None))
    return next((v for place in places if isinstance(v := getattr(place, name, None), int | str)), None)


def _tile_tokens(config: Any) -> int:
    """Tokens that a tile of Idefics3 or SmolVLM becomes, from the model's config."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    return int(side * side // config.scale_factor**2)


def save_processor(processor: Any, path: str | Path) -> None:
    """Write a processor as a directory that Transformers' own class reads, which wants to be told of films as well."""
    processor.save_pretrained(path)
    file = Path(path) / FILES[1]
    content = json.loads(file.read_text())
    if processor.films and "image_processor" in content:
        images = {k: v for k, v in content["image_processor"].items() if k != "image_processor_type"}
        content["video_processor"] = images | {"video_processor_type": processor.films}
        file.write_text(json.dumps(content, indent=2) + "\n")


def read_processor(path: str, config: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The processor of a model directory or hub id; None where it has no image processor: on text alone, a model can do
    without.

    Pictures are always prepared by Pillow where Transformers has that, so that every installation sees the same
    numbers.

    Raises:
        CheckpointError: there is one that cannot be read, or that Transformers cannot use here.
    """
    local = Path(path).is_dir()
    if local and not any((Path(path) / file).exists() for file in FILES):
        return None
    if local:
        with model_at(path):
            images = _read_images(path)
    else:
        try:
            images = _read_images(path)
        except OSError:  # the hub's
            return None
    with model_at(path):
        settings, _ = ProcessorMixin.get_processor_dict(path)
        if tokenizer.chat_template is None:
            tokenizer.chat_template = settings.get("chat_template")
    return build_processor(config, images, tokenizer, settings)


def _read_images(path: str) -> Any:
    said, _ = Idefics3ImageProcessorPil.get_image_processor_dict(path)
    name = str(said.get("image_processor_type"))
    if own := BY_PILLOW.get(name.removesuffix("Pil").removesuffix("Fast")):
        return own.from_pretrained(path)
    return AutoImageProcessor.from_pretrained(path, backend="pil", trust_remote_code=False)


class Encoder:
    """The pictures of conversations through a processor.

    Args:
        processor: the model's.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._boxed = functools.lru_cache(1)(self._try)

    def encode(self, text: str, images: Any) -> tuple[tuple[int, ...], dict[str, torch.Tensor]]:
        """Ids of a rendered conversation, and its pictures, so that those of several can be joined along the first
        axis."""
        encoded = self._call(text, images)
        ids = tuple(encoded["input_ids"][0].tolist())
        found = {k: v for k, v in encoded.items() if isinstance(v, torch.Tensor)}
        boxed = self._boxed() if any(k.startswith("pixel_") and len(v) == 1 for k, v in found.items()) else frozenset()
        return ids, {k: v[0].unsqueeze(1) if k in boxed else v for k, v in found.items() if not _of_text(k)}

    def _call(self, text: str, images: Any) -> Any:
        return self.processor(text=[text], images=images, return_tensors="pt", add_special_tokens=False)

    def _try(self) -> frozenset[str]:
        """Tensors whose first axis is of conversations, and whose second is of their pictures: two pictures of one
        conversation show it."""
        picture = str(self.processor.image_token)
        try:
            two = self._call(f"{picture} {picture}", [Image.new("RGB", (SIDE, SIDE))] * 2)
        except Exception:  # of one picture only, or another way to write two: the first call is the one that speaks
            return frozenset()
        return frozenset(k for k, v in two.items() if not _of_text(k) and v.ndim > 2 and len(v) == 1)


def _of_text(name: str) -> bool:
    return name in ("input_ids", "attention_mask") or name.endswith("token_type_ids")
