"""Runs a function on the pretended device. Arguments: LIBRARY MODULE:FUNCTION JSON; the last line printed is JSON."""

from __future__ import annotations

import ctypes
import importlib
import json
import sys


def main(library: str, target: str, arguments: str) -> None:
    backend = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)  # PyTorch asks for its devices once, and then never again
    from pretended_cuda import device

    device.install(backend)
    module, _, name = target.partition(":")
    found = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
