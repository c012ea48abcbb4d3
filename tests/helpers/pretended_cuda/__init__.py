"""A pretended CUDA device, for tests of what the program does on a GPU on machines that have none.

Tensors say that they are on `cuda:0` and hold real numbers in the host's memory (`backend.cpp`). What CUDA refuses is
refused, as on a GPU; waits of the host, copies, operators and bytes are counted by the line of vold that caused them
(`pretended_cuda.device`), and attention names the kernel that CUDA would choose (`pretended_cuda.attention`). It knows
nothing of streams, the card's own rounding and speed, Triton's code, several processes, and numbers that `torch.tensor`
reads out of a list of tensors.

The device has to be there before PyTorch is, so a test hands its work to a child process:

    found = pretended_cuda.run("pretended_runs:sampled", rows=8)      # a function and its arguments; JSON both ways

The function finds `cuda` an ordinary device, and counts with `pretended_cuda.device.counting`.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from package import ROOT, SOURCE

HERE = Path(__file__).parent
BUILT = ROOT / "build" / "pretended-cuda"


def torch_home() -> Path:
    """Where PyTorch is installed; it is not imported for this."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def library() -> Path:
    """The backend, compiled once for this source and this PyTorch.

    Raises:
        FileNotFoundError: there is no C++ compiler.
    """
    torch = torch_home()
    source = HERE / "backend.cpp"
    made_of = source.read_bytes() + (torch / "version.py").read_bytes()
    built = BUILT / f"{hashlib.sha256(made_of).hexdigest()[:16]}.so"
    if built.exists():
        return built
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise FileNotFoundError("the pretended CUDA device needs a C++ compiler: install g++, or name one in CXX")
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one compiles
        if not built.exists():
            includes = [f"-I{torch / 'include'}", f"-I{torch / 'include/torch/csrc/api/include'}"]
            libraries = [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch / 'lib'}"]
            unfinished = built.with_suffix(".unfinished")
            options = ["-std=c++20", "-O1", "-shared", "-fPIC"]
            subprocess.run([compiler, *options, *includes, "-o", unfinished, source, *libraries], check=True)
            unfinished.replace(built)
    return built


@functools.cache
def server() -> subprocess.Popen[str]:
    """A process that has the device and copies itself for each call: importing PyTorch and Transformers takes longer
    than most calls."""
    command = [sys.executable, "-m", "pretended_cuda.child", str(library())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_path())}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.__exit__, None, None, None)
    return process


def _path() -> list[str]:
    return [str(SOURCE), str(HERE.parent), *filter(None, sys.path)]  # an earlier test may have put a copy on the path


def run(target: str, **arguments: Any) -> Any:
    """What a function returns when it runs in a new process that has the device.

    Args:
        target: `module:function`; the module is found where the test's own imports are.
        arguments: of the function. They and what it returns pass as JSON.

    Raises:
        AssertionError: the function raised; with its traceback.
    """
    try:
        process = server()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    assert process.stdin is not None and process.stdout is not None
    with tempfile.TemporaryDirectory() as home:
        call = {"target": target, "arguments": arguments, "home": home}
        process.stdin.write(json.dumps(call | {"environment": {**os.environ}, "path": _path()}) + "\n")
        process.stdin.flush()
        status = process.stdout.readline().strip()
        assert status == "0", f"{target} on the pretended device:\n{(Path(home) / 'said').read_text()[-8000:]}"
        return json.loads((Path(home) / "found").read_text())
