"""Declares two operators of torchvision's before it is imported: its usual build brings them as CUDA code, which a
build of PyTorch for a CPU does not load. Python reads this file at its start where `PYTHONPATH` leads here.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

held: list[Any] = []


class Declares(MetaPathFinder):
    """Is asked about every module; finds none."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Declare the operators when torchvision is asked for."""
        if name != "torchvision" or held:
            return
        import torch

        held.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            held[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, Declares())
