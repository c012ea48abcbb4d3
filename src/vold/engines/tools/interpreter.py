"""A Python interpreter for programs that a model wrote: each in a process of its own that the kernel shuts in.

What is given up, and how, is in `vold.engines.tools.jail`. This side keeps the clock, reads at most so much output, and
ends the process and all that belongs to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

JAIL = Path(__file__).with_name("jail.py")
LIBRARIES: tuple[str, ...] = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
"""Where the C libraries of extension modules are."""

PROBE = """
import fcntl, os, socket
for reach in (
    lambda: os.truncate(KEPT, 0), lambda: os.open(KEPT, os.O_RDONLY | os.O_TRUNC), lambda: open(KEPT, "w"),
    lambda: os.remove(KEPT), lambda: os.listdir("/"), socket.socket, os.fork, lambda: os.execv("/bin/true", ["true"]),
    lambda: os.kill(os.getppid(), 0), lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid()),
):
    try:
        reach()
    except PermissionError:
        continue
    print("nothing forbids", reach.__code__.co_names)
print("shut in")
"""
"""Tries what must fail, on a file KEPT below a folder that can be read."""

PROBE_SECONDS = 10.0
"""Seconds it has at least: a busy machine must not pass for one that cannot shut programs in."""


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    `seconds` are wall-clock and CPU seconds, `memory_mb` its address space and `scratch_mb` its scratch folder in MiB,
    `output` the characters of standard output and error that are kept.

    Example:
        >>> Limits(seconds=1.0).output
        4000
    """

    seconds: float = 10.0
    memory_mb: int = 1024
    scratch_mb: int = 16
    output: int = 4000


@dataclass(frozen=True)
class ProgramResult:
    """What a program printed, whether it ended well, and its wall-clock seconds.

    Example:
        >>> ProgramResult("4\\n", ok=True, seconds=0.05).output
        '4\\n'
    """

    output: str
    ok: bool
    seconds: float


class PythonInterpreter:
    """Runs programs, each on its own: nothing is left over for the next.

    Args:
        limits: of every program.

    Raises:
        ConfigError: this machine cannot shut a program in.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._jail = JAIL
        standard, packages = sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")
        self._path = [standard, sysconfig.get_config_var("DESTSHARED"), packages]
        self._namespaces = True
        if not sys.platform.startswith("linux"):
            raise _not_isolated("on this system", sys.platform)
        said = self._probe()
        if said:  # some kernels grant namespaces and then forbid to use them
            self._namespaces = False
            said = self._probe()
        if said:
            raise _not_isolated("on this machine", said[-300:])

    def _probe(self) -> str:
        """What a program says that is only safe where the walls stand; nothing if they do."""
        limits = dataclasses.replace(self.limits, seconds=max(self.limits.seconds, PROBE_SECONDS), output=4000)
        with tempfile.TemporaryDirectory(prefix="vold-probe-") as folder:
            kept = Path(folder, "kept")
            kept.write_text("kept")
            result = self._run(f"KEPT = {str(kept)!r}{PROBE}", limits, readable=[folder])
            stands = result.ok and result.output == "shut in\n" and kept.read_text() == "kept"
        return "" if stands else result.output.strip() or "nothing"

    def run(self, program: str) -> ProgramResult:
        """Run a program to its end or to its limits. Never raises on what the program is or does.

        Raises:
            ConfigError: this machine cannot start a program.
        """
        return self._run(program, self.limits)

    def _run(self, program: str, limits: Limits, readable: Sequence[str] = ()) -> ProgramResult:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="vold-program-", ignore_cleanup_errors=True) as scratch:
            task = {
                "program": program,
                "scratch": scratch,
                "namespaces": self._namespaces,
                "path": self._path,
                "readable": [*self._path, *LIBRARIES, *readable],
                "cpu_seconds": max(1, round(limits.seconds + 0.5)),
                "memory_mb": limits.memory_mb,
                "scratch_mb": limits.scratch_mb,
            }
            process = self._start(task, scratch)
            try:
                raw, stopped = _read(process, limits, began + limits.seconds)
            finally:
                # The whole group: the process that waits, and through it the namespace with all that is in it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
                assert process.stdout is not None
                process.stdout.close()
        output = _trimmed(raw.decode("utf-8", "replace"), limits.output)
        if stopped:
            output += f"{'' if output.endswith(chr(10)) or not output else chr(10)}{stopped}\n"
        return ProgramResult(output, ok=code == 0 and not stopped, seconds=time.monotonic() - began)

    def _start(self, task: dict[str, Any], scratch: str) -> subprocess.Popen[bytes]:
        # The environment is replaced: a key or a token in ours is nobody's business.
        environment = {"LANG": "C.UTF-8", "HOME": scratch, "TMPDIR": scratch, "OMP_NUM_THREADS": "1"}
        python = sys.executable or ""
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(task).encode())
            stdin.seek(0)
            try:
                return subprocess.Popen(
                    [python, "-I", "-S", "-B", str(self._jail)],
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd="/",
                    process_group=0,
                )
            except OSError as error:
                raise ConfigError(
                    "the Python that runs the programs of a model cannot be started",
                    where=python or "sys.executable",
                    got=str(error),
                    fix="use a Python that this user may execute, or free processes and memory if it may",
                ) from None


def _not_isolated(where: str, got: str) -> ConfigError:
    return ConfigError(
        f"programs of a model cannot be shut in {where}",
        where="environment",
        got=got,
        fix="use Linux 6.2 or newer with Landlock and seccomp, on x86_64 or aarch64; containers may forbid it",
    )


def _read(process: subprocess.Popen[bytes], limits: Limits, deadline: float) -> tuple[bytes, str]:
    """Output up to four bytes a kept character, and why the program was stopped, if it was."""
    assert process.stdout is not None
    most, size = 4 * limits.output, 0
    chunks: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while size <= most:
            left = deadline - time.monotonic()
            if left <= 0:
                return b"".join(chunks), f"TimeoutError: stopped after {limits.seconds:g} s"
            if not selector.select(left):
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
        else:
            return b"".join(chunks)[:most], f"OutputError: stopped after {limits.output:,} characters of output"
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, deadline - time.monotonic()))
    if process.returncode is None:  # it closed its output and went on
        return b"".join(chunks), f"TimeoutError: stopped after {limits.seconds:g} s"
    if process.returncode not in (0, 1) and not chunks:
        return b"", f"the program ended with status {process.returncode}"
    return b"".join(chunks), ""


def _trimmed(text: str, most: int) -> str:
    """Beginning and end of a text that is too long."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"
