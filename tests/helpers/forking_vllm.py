#!/usr/bin/env -S ${VOLD_VLLM_PYTHON}
"""An interpreter that has vLLM, as `launch.python`, whose server on a CPU forks its engine.

vLLM imports itself in each of its processes, which takes a slow core 12 s, and on a CPU its engine is always one that
does so again. Forked it has everything imported; its process group, its parent and its end are the same.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys
from typing import Any

VARIABLE = "VLLM_WORKER_MULTIPROC_METHOD"


def main() -> None:
    """`-m MODULE ARGUMENTS`, as Python would run it."""
    del sys.path[0]  # the tests' helpers, which have names that others have too
    gc.disable()  # nothing that an import makes can be thrown away
    from vllm import collect_env
    from vllm.platforms.cpu import CpuPlatform

    collect_env.run = lambda command: (0, "", "")  # `/server_info` asks pip about the machine, which takes 2 s
    decide = CpuPlatform.check_and_update_config

    def decide_and_fork(config: Any) -> None:
        decide(config)
        os.environ[VARIABLE] = "fork"
        gc.enable()

    CpuPlatform.check_and_update_config = staticmethod(decide_and_fork)
    _, option, module, *arguments = sys.argv
    assert option == "-m", sys.argv
    sys.argv = ["", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
