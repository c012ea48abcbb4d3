"""Float32 where it matters, on the pretended device."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

import tiny
from pretended_cuda.device import counting
from vold.errors import ConfigError
from vold.model.batching import collate
from vold.model.lm_head.chunked_logits import Projection
from vold.model.packing import Packed, pack, packed_attention
from vold.model.policy import Policy
from vold.run.recipe import load_recipe
from vold.training.distill import distill
from vold.types import Prompt


def automatic() -> dict[str, Any]:
    """A step of a bfloat16 student and a float32 teacher whose recipe names no precision: on the card, then on the CPU,
    then there as the error says. What `settings.json` and the kept recipe hold, and what was said."""
    said, found = io.StringIO(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(said):
        home = Path(folder)
        raw = tiny.recipe_dict(home)
        Policy.load(str(home / "student"), dtype="bfloat16").save(home / "student")
        raw["run"]["device"] = "cpu"
        raw["distill"] |= {"init": str(home / "student"), "steps": 1}
        (home / "recipe.yaml").write_text(yaml.safe_dump(raw))
        for name, keys in {"card": ["run.device=cuda"], "cpu": [], "as told": ["student.dtype=bfloat16"]}.items():
            try:
                final = distill(load_recipe(home / "recipe.yaml", keys))
            except ConfigError as error:
                found[name] = [error.got, error.fix]
            else:
                settings = json.loads((final.parent / "settings.json").read_text())
                kept = load_recipe(final.parent / "recipe.yaml")
                found[name] = [settings["student.dtype"], settings["teacher.dtype"], kept.learner.dtype]
                found[f"weights of {name}"] = str(load_file(final / "model.safetensors").popitem()[1].dtype)
    return {**found, "said": [line for line in said.getvalue().splitlines() if line.startswith("dtype")]}


def logits() -> float:
    """By how much logits of a bfloat16 model differ from their sums in float64."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 64).bfloat16(), torch.randn(32, 64).bfloat16()
    there = Projection(hidden.cuda(), weight.cuda(), None, torch.zeros(0, dtype=torch.int64).cuda(), 1.0, 8)
    return float((there.logits(slice(0, 5)).cpu() - hidden.double() @ weight.double().t()).abs().max())


def side_by_side(window: int | None) -> dict[str, Any]:
    """Attention of packed rows in bfloat16 on the card, forward and backward: its kernels, and how far it is from
    float64 row by row, as a share of the largest number. Three rows share a prompt, two another, one has its own."""
    torch.manual_seed(0)
    a, b, c = (Prompt(tuple(range(1, n + 1))) for n in (9, 4, 6))
    responses = [(1,) * n for n in (7, 3, 12, 5, 8, 0)]
    batch = collate([a, b, a, c, b, a], responses, [np.ones(len(r)) for r in responses], 0)
    given = [torch.randn(1, heads, 54, 8).bfloat16() for heads in (4, 2, 2, 4)]
    module, found = torch.nn.Module(), []
    with counting() as counts:
        for device, kind in (("cuda", torch.bfloat16), ("cpu", torch.float64)):
            query, key, value, above = (t.to(device, kind).requires_grad_() for t in given)
            packed = pack(batch, torch.device(device))
            out, _ = packed_attention(module, query, key, value, None, packed, sliding_window=window)
            gradients = torch.autograd.grad(out, (query, key, value), above.transpose(1, 2))
            found.append([t.detach().double().cpu() for t in (out, *gradients)])
    off = [float((x - y).abs().max() / y.abs().max()) for x, y in zip(*found, strict=True)]
    return {"kernels": counts.attention, "off": off}


def attention(kind: str) -> dict[str, Any]:
    """Kernels of two packed rows whose four heads share two of keys, and the largest difference from float64."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 7, 8).to(getattr(torch, kind)) for heads in (4, 2, 2))
    places = torch.arange(7)
    packed = Packed(places, (3, 4), ((0,), (1,)), places)
    module = torch.nn.Module()
    with counting() as counts:
        out, _ = packed_attention(module, query.cuda(), key.cuda(), value.cuda(), None, packed)
    exact, _ = packed_attention(module, query.double(), key.double(), value.double(), None, packed)
    return {"kernels": sorted(counts.attention), "off": float((out.cpu() - exact).abs().max())}
