"""Directories of models as Transformers reads them. Whatever it raises for one is said in words, with the directory."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)
from transformers.initialization import no_init_weights
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from vold.errors import CheckpointError, VoldError
from vold.model.families import image_text_class
from vold.run.failures import is_out_of_memory
from vold.run.names import close_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedTokenizerBase

COUNTS = ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")
"""What every language model's config.json counts."""
OTHER_COUNTS = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
"""What most of them count, a few layer by layer."""
LAYER = re.compile(r"\b(layers|blocks|h)\.\d+\.")
PATCHED = threading.Lock()
"""Transformers replaces functions of torch and methods of its own while it makes a model: of two threads that do so at
once, the one to end last would put back what the other had put there, for as long as the process lives."""
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
"""Files of a directory of which one holds a tokenizer's tokens."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


def may_be_on_the_hub(path: str) -> bool:
    """Whether a path has the form of a hub's OWNER/NAME."""
    return not path.startswith((".", "/", "~", "$")) and len(Path(path).parts) == 2


@contextlib.contextmanager
def model_at(path: str) -> Iterator[None]:
    """Read a model directory or hub id in the block.

    Raises:
        CheckpointError: there is none, or it is incomplete, corrupt, or not what its config.json says. A directory's
            files may hold anything, so any error of the block's is one; errors of ours and of the machine stay.
    """
    local = Path(path).is_dir()
    # Local directories must be whole; a name that is no directory is left to the hub client.
    if not local and not may_be_on_the_hub(path):
        got = f"no directory {path}" + ", seen from where the command runs" * (not os.path.isabs(path))
        fix = f"{_meant(path)}check the path in the recipe" + "; variables such as $HOME are not read in it" * (
            "$" in path
        )
        raise CheckpointError("there is no model directory here", where=path, got=got, fix=fix)
    try:
        yield
    except Exception as error:
        told = isinstance(error, OSError) and error.errno is not None  # by the system, not by a library
        if told or isinstance(error, VoldError) or is_out_of_memory(error):
            raise
        raise CheckpointError(
            "this model cannot be loaded" if local else "there is no such directory, and the hub gives no such model",
            where=path,
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else ''}",
            fix="the directory may be cut short or corrupt: save or download it again"
            if local
            else f"{_meant(path)}check the path in the recipe, or download the model and give its directory's path",
        ) from error


def _meant(path: str) -> str:
    """A question that names a directory like the one that is not there; empty where none is."""
    folder = Path(path).parent
    try:
        close = close_to(Path(path).name, [p.name for p in folder.iterdir() if p.is_dir()])
    except OSError:
        return ""
    return f"did you mean {str(folder / close)!r}? " if close is not None else ""


def check_files(path: str) -> None:
    """Refuse what Transformers would load beside the model, or unpickle. Belongs in a block of `model_at`.

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


def read_config(path: str) -> Any:
    """A model's config.

    Raises:
        CheckpointError: see `model_at`; or Transformers does not know its kind; or a count is none.
    """
    with model_at(path):
        _check_kind(Path(path))
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        text = config.get_text_config()
        for name in (*COUNTS, *OTHER_COUNTS):
            count: Any = getattr(text, name, None)
            whole = isinstance(count, int) and not isinstance(count, bool)
            if (whole and count < 1) or (not whole and name in COUNTS):
                raise CheckpointError(
                    "this is no count",
                    where=f"{path}: config.json, {name} of the language model",
                    got="nothing" if count is None else repr(count),
                    fix="copy config.json from the model it was made from",
                )
    return config


def _check_kind(directory: Path) -> None:
    """Refuse a directory without a config, or of a kind of model that Transformers does not know. What is wrong with it
    otherwise Transformers says. Belongs in a block of `model_at`."""
    file = directory / "config.json"
    if not directory.is_dir():
        return
    if not file.is_file():
        raise CheckpointError(
            "this is no model directory: it has no config.json",
            where=str(directory),
            fix="give the directory that `save_pretrained` has written, or download the model again",
        )
    try:
        raw = json.loads(file.read_bytes())
    except ValueError:
        return
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if isinstance(kind, str) and kind not in CONFIG_MAPPING:
        raise CheckpointError(
            "this release of Transformers knows no such kind of model",
            where=f"{file}: model_type",
            got=repr(kind),
            fix="take a later release, as far as docs/compatibility.md goes, or a model of another family",
        )


def read_model(path: str, config: Any, dtype: torch.dtype, **more: Any) -> Any:
    """A model with its weights, on the host.

    Args:
        path: its directory or hub id.
        config: what `read_config` gives.
        dtype: its precision.
        more: of `vold.model.quantized.loading`.

    Raises:
        CheckpointError: see `model_at`; or weights and config are not of one model.
    """
    with model_at(path):
        check_weights(path, config)
        with PATCHED:
            loaded: Any = _factory(config).from_pretrained(
                path,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                **more,
            )
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(
            "weights are missing from this model directory",
            where=path,
            got=f"{len(missing)} missing, first: {missing[0]}",
            fix="save or download the model again",
        )
    if unused := sorted(n for n in info["unexpected_keys"] if LAYER.search(n)):
        raise CheckpointError(
            "config.json has fewer layers than the weights",
            where=path,
            got=f"{len(unused)} weights have no place, first: {unused[0]}",
            fix="copy config.json from the model it was made from",
        )
    return model


def empty_model(config: Any, dtype: torch.dtype) -> Any:
    """The same without values, on the host: nothing is written to the memory of its weights."""
    with PATCHED, no_init_weights():
        return _factory(config).from_config(copy.deepcopy(config), dtype=dtype, trust_remote_code=False).eval()


def _factory(config: Any) -> Any:
    return AutoModelForImageTextToText if image_text_class(config) else AutoModelForCausalLM


def check_weights(path: str, config: Any) -> None:
    """Compare the first layers' shapes with the config, before memory is given to what it describes. Belongs in a block
    of `model_at`.

    Raises:
        CheckpointError: they differ: a section of config.json is missing or another model's.
    """
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    width = getattr(vision, "embed_dim", None) or getattr(vision, "hidden_size", None)
    described = {
        ("embed_tokens.weight",): [text.vocab_size, getattr(text, "word_embed_proj_dim", text.hidden_size)],
        ("patch_embed.proj.weight", "patch_embedding.weight"): [width],
    }
    for name, shape in _shapes(path).items():
        for endings, wanted in described.items():
            if name.endswith(endings) and None not in wanted and shape[: len(wanted)] != wanted:
                raise CheckpointError(
                    "config.json and the weights are of different models",
                    where=path,
                    got=f"{name} is {shape}, config.json wants {wanted}",
                    fix="copy config.json from the model it was made from",
                )


def _shapes(path: str) -> dict[str, list[int]]:
    """Shapes of the weights of a local directory, from the headers of its files."""
    found: dict[str, list[int]] = {}
    for file in Path(path).glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            names = weights.keys()
            found |= {name: weights.get_slice(name).get_shape() for name in names}
    return found


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """A model's tokenizer.

    Raises:
        CheckpointError: see `model_at`; or there is none, or it has no token that ends a response.
    """
    with model_at(path):
        if Path(path).is_dir() and not any(file for kind in TOKENIZERS for file in Path(path).glob(kind)):
            raise CheckpointError(
                "this model directory has no tokenizer",
                where=path,
                got=f"none of {', '.join(TOKENIZERS)}",
                fix="copy tokenizer.json, tokenizer_config.json and chat_template.jinja from the base model",
            )
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        if tokenizer.eos_token_id is None:
            raise CheckpointError(
                "this tokenizer has no token that ends a response",
                where=path,
                got="no eos_token",
                fix="set eos_token in tokenizer_config.json",
            )
    return tokenizer
