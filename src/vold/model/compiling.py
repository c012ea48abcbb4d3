"""Layers whose training passes run compiled by `torch.compile`.

A layer at a time: layers of one shape share their code, and attention, which goes by the rows of a batch, stays as it
is between two compiled parts. Passes without gradients (sampling, scoring) run the plain layer.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

WHERE = "student.compile"


def need_compiler(device: torch.device) -> None:
    """Raises ConfigError: there is no compiler for the code that PyTorch writes for a device.

    That is C++ for the processor. For a GPU it is Triton's, which builds its launchers with a C compiler.
    """
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            fix = "install g++, or name a compiler in the environment variable CXX; or drop the key"
            raise ConfigError("there is no C++ compiler", where=WHERE, got="true", fix=fix) from None
        return
    from torch.utils._triton import has_triton

    if not has_triton():
        raise ConfigError("Triton does not work here", where=WHERE, got="true", fix="install triton, or drop the key")
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        fix = "install gcc, or name a compiler in the environment variable CC; or drop the key"
        raise ConfigError("there is no C compiler", where=WHERE, got="true", fix=fix)


def compile_layers(layers: Iterable[nn.Module]) -> None:
    """Compile each layer for passes with gradients, for any number of tokens at once; names of weights stay."""
    for layer in layers:
        layer.compile(dynamic=True)
        compiled: Any = layer._compiled_call_impl
        layer._compiled_call_impl = partial(_call, compiled, layer._call_impl)


def _call(
    compiled: Callable[..., Any], plain: Callable[..., Any], states: torch.Tensor, *args: Any, **kwargs: Any
) -> Any:
    if not torch.is_grad_enabled():
        return plain(states, *args, **kwargs)
    if not states.requires_grad:  # of embeddings that are frozen: the first layer would be compiled a second time
        states = states.detach().requires_grad_()
    return compiled(states, *args, **kwargs)
