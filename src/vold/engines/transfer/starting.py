"""What a vLLM server has to be started with, so that weights and pictures can be sent to it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import vold

if TYPE_CHECKING:
    from vold.run.model_sections import Lora

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Widths that vLLM 0.32 can be told to make room for."""

CANDIDATES = "--enable-scale-out"
"""Opens the route by which a teacher is asked about candidates, and any server about pictures."""
PICTURES = [CANDIDATES, "--middleware", "vold.engines.seen.Seen"]
"""Arguments of `vllm serve` for a server that is shown pictures."""


def server_arguments(lora: Lora | None = None) -> list[str]:
    """Arguments of `vllm serve` for every way in which weights are sent (`engine.transfer`).

    Args:
        lora: the student's adapters, if it has any: they are then sent as adapters. One that is wider than any of
            `RANKS` is added into the weights.
    """
    out = ["--worker-extension-cls", "vold.engines.transfer.vllm_worker.Extension"]
    out += ["--weight-transfer-config", json.dumps({"backend": "vold"})]
    room = next((r for r in RANKS if lora is not None and r >= lora.rank), 0)
    return [*out, "--enable-lora", "--max-lora-rank", str(room), "--max-loras", "1"] if room else out


def server_environment(directory: Path, lora: Lora | None = None) -> dict[str, str]:
    """Variables that such a server needs. Args: `server_arguments`, `python_path`."""
    adapters = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} if lora is not None else {}
    return {"VLLM_SERVER_DEV_MODE": "1", **python_path(directory), **adapters}


def python_path(directory: Path) -> dict[str, str]:
    """`PYTHONPATH` of a server that runs a part of vold.

    vLLM has an environment of its own, and this package's other packages must not get into it. So the path leads to a
    directory with this package alone.

    Args:
        directory: where that directory is made.
    """
    here, home = directory.resolve() / "importable", Path(vold.__file__).resolve().parent
    here.mkdir(parents=True, exist_ok=True)
    link = here / home.name
    if not link.exists():  # or it leads to where the package was
        new = here / f".{secrets.token_hex(4)}"  # the others of several that start at once find one or the other
        new.symlink_to(home)
        new.replace(link)
    return {"PYTHONPATH": str(here)}
