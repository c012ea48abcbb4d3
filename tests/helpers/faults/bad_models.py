"""Directories of vision-language models that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from faults.damages import DEEP, cut, folder_instead

Edit = Callable[[Path], object]


def bad_models(vlm: Path) -> Iterator[tuple[str, Edit]]:
    """Changes to the directory of a vision-language model, each of which makes it one that cannot be used."""
    files = sorted(p.name for p in vlm.iterdir() if p.suffix in (".json", ".jinja", ".safetensors"))
    for name in files:
        for how, change in ANY_FILE.items() if name not in HARMLESS else ():
            yield f"{name} {how}", partial(_changed, name, change)
        for how, change in ANY_JSON.items() if name.endswith(".json") and name not in HARMLESS else ():
            yield f"{name} {how}", partial(_changed, name, change)
    for file, changes in {"config.json": CONFIG, "processor_config.json": PICTURES}.items():
        for keys, values in changes.items():
            for value in values:
                said = "gone" if value is GONE else json.dumps(value)
                yield f"{file}: {keys} {said}", partial(_set, file, keys, value)
    for name, text in TEMPLATES.items():
        yield f"template {name}", partial(_changed, "chat_template.jinja", partial(Path.write_text, data=text))
    yield from _bad_weights()


def _changed(name: str, change: Edit, directory: Path) -> None:
    change(directory / name)


HALF = partial(cut, share=0.5)
HARMLESS = ("generation_config.json",)
ANY_FILE: dict[str, Edit] = {
    "is gone": Path.unlink,
    "is empty": partial(Path.write_bytes, data=b""),
    "is no text": partial(Path.write_bytes, data=b"\xff\xfe\x00" * 9),
    "is a directory": folder_instead,
}
ANY_JSON: dict[str, Edit] = {
    "is cut short": HALF,
    "is a list": partial(Path.write_text, data="[]"),
    "is null": partial(Path.write_text, data="null"),
    "is deep": partial(Path.write_text, data="[" * DEEP),
}
GONE = object()
CONFIG: dict[str, tuple[object, ...]] = {
    "model_type": ("no_such_type", "", 3, None, GONE, "t5", "clip", "vit", "[/b]"),
    "text_config": (None, 3, "word", [], GONE),
    "vision_config": (None, 3, "word", [], GONE),
    "text_config.hidden_size": (15, 0, -16, 32, "many", None, 1.5, 10**12),
    "text_config.num_hidden_layers": (0, -1, 1, 3, "two", None, 10**6),
    "text_config.num_attention_heads": (0, -2, 3, 5, "two", None),
    "text_config.num_key_value_heads": (0, -1, 2, 3, "one"),
    "text_config.intermediate_size": (0, -1, 64, "many", None),
    "text_config.vocab_size": (0, -1, 10, 10**9, "many", None),
    "text_config.max_position_embeddings": (0, -1, "many", None),
    "text_config.rms_norm_eps": ("small", None),
    "text_config.hidden_act": ("no_such_act", 3, None),
    "text_config.rope_parameters": ("word", 3, {"rope_type": "no_such"}, {"rope_theta": "x"}),
    "text_config.rope_parameters.rope_theta": ("x", None, 0),
    "text_config.rope_parameters.mrope_section": ([1, 1, 1], [], "x", [4, 2, 2]),
    "vision_config.hidden_size": (15, 0, -16, "many", None),
    "vision_config.depth": (0, -1, 1, 3, "two"),
    "vision_config.num_heads": (0, -1, 3, "two"),
    "vision_config.patch_size": (0, -4, 8, "x"),
    "vision_config.spatial_merge_size": (0, 3, "x"),
    "vision_config.out_hidden_size": (8, 0, "x"),
    "image_token_id": ("x", -1, 10**6, None),
}
PICTURES: dict[str, tuple[object, ...]] = {
    "image_processor.patch_size": (0, -4, 8, "x"),
    "image_processor.merge_size": (0, 3, "x"),
    "image_processor.size": ("x", {"shortest_edge": -1, "longest_edge": -1}),
    "image_processor.image_mean": ("x", [0.5]),
}
TEMPLATES = {
    "that is empty": "",
    "that says nothing": "{% if false %}x{% endif %}",
    "that drops the prompt": "<|im_start|>user<|im_end|>",
    "with an open tag": "{% for m in messages %}{{ m.content }}",
    "with an open bracket": "{{ messages[ }}",
    "with an unknown tag": "{% nonsense %}",
    "with an unknown filter": "{{ messages | nonsense }}",
    "that asks for a missing key": "{{ messages[0].missing.key }}",
    "that asks for a missing turn": "{{ messages[7].content.strip() }}",
    "that raises": "{{ raise_exception('no [/b] such turn') }}",
    "that divides by zero": "{{ 1 / 0 }}",
    "that overflows": "{{ 2.0 ** 10000 }}",
    "that adds text and numbers": "{{ 'a' + 1 }}",
    "that reads private names": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "that reads a file": "{% include '/etc/passwd' %}",
    "that counts too far": "{{ range(10**9) | list }}",
    "that never ends": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "for text alone": "{% for m in messages %}{{ 'user: ' + m.content + '\\n' }}{% endfor %}assistant: ",
    "that prints pictures as Python": "{% for m in messages %}user: {{ m.content }}\n{% endfor %}assistant: ",
}


def _bad_weights() -> Iterator[tuple[str, Edit]]:
    file = "model.safetensors"
    for how, raw in {"of another format": b"PK\x03\x04" * 99, "with a lying header": b"\xff" * 99}.items():
        yield f"weights {how}", partial(_changed, file, partial(Path.write_bytes, data=raw))
    yield "weights cut short", partial(_changed, file, HALF)
    nan = np.full(1, np.nan, np.float32)
    for how, make in {
        "that lack one": None,
        "of another shape": lambda w: np.zeros((3, 3), np.float32),
        "of no dimension": lambda w: np.ones((), np.float32),
        "that are not numbers": lambda w: np.broadcast_to(nan, w.shape).copy(),
    }.items():
        yield f"weights {how}", partial(_weights, make)


def _weights(make: Callable[[Any], Any] | None, directory: Path) -> None:
    """Put another array in the place of a layer's, or none."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    name = min(n for n in tensors if "layers.0" in n and "proj" in n)
    old = tensors.pop(name)
    if make is not None:
        tensors[name] = make(old)
    save_file(tensors, file, metadata={"format": "pt"})


def _set(name: str, keys: str, value: object, directory: Path) -> None:
    file = directory / name
    raw = json.loads(file.read_text())
    node = raw
    *above, last = keys.split(".")
    for key in above:
        node = node[key]
    if value is GONE:
        node.pop(last, None)
    else:
        node[last] = value
    file.write_text(json.dumps(raw))


def copied(model: Path, to: Path) -> None:
    """A model's directory without a manifest, so that changes to it are not seen before it is read."""
    shutil.copytree(model, to, ignore=shutil.ignore_patterns("manifest.json"))
