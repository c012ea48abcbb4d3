"""Python's command lines, run in copies of a process that has loaded what takes long: PyTorch and Transformers take
longer to import than most of them take to run.

A script that needs a world of processes forks them itself, with `benchmarks/nodes.py`.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HUNG = 300.0
"""Seconds after which a command is killed, with all it has started."""


@functools.cache
def _server() -> subprocess.Popen[str]:
    """One for each process of tests; it has no threads, so that it may fork."""
    command = [sys.executable, __file__]
    path = os.pathsep.join(filter(None, (*sys.path, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.__exit__, None, None, None)
    return process


def run(*words: str, seconds: float = HUNG) -> subprocess.CompletedProcess[str]:
    """`python WORDS` in this directory and environment: `-m MODULE ...` or `SCRIPT ...`; its input is empty.

    Returns: its exit status, negative for a signal, and what it said on either stream.
    """
    process = _server()
    assert process.stdin is not None and process.stdout is not None
    with tempfile.TemporaryDirectory() as home:
        call = {"words": words, "home": home, "cwd": str(Path.cwd()), "environment": {**os.environ}}
        process.stdin.write(json.dumps({"call": call, "seconds": seconds}) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        out, err = ((Path(home) / name).read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(words, status, out, err)


def _perform(words: list[str], home: str, cwd: str, environment: dict[str, str]) -> int:
    """The copy's part."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(home) / name, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
    return 0


def _serve() -> None:
    """Each line read is a call as JSON, each line printed the status that it ended with."""
    from faults.frame import in_a_child, load

    load()
    importlib.import_module("vold.data.sources.digits")  # nearly every recipe of the tests has it
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        ended = in_a_child(functools.partial(_perform, **asked["call"]), asked["seconds"])
        print(ended.code, flush=True)


if __name__ == "__main__":
    _serve()
