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

from vold.errors import ConfigError

JAIL = Path(__file__).with_name("jail.py")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
"""Where the C libraries of extension modules are."""

PROBE = "open('note', 'w').write('x')\nimport socket\nsocket.socket()"
"""A program that must fail, and may write."""

PROBE_SECONDS = 10.0
"""Seconds it has at least."""


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
        self._jail = JAIL
        standard, packages = sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")
        self._path = [standard, sysconfig.get_config_var("DESTSHARED"), packages]
        self._readable = [*self._path, *LIBRARIES]
        # A busy machine must not pass for one that cannot shut programs in.
        self.limits = dataclasses.replace(limits, seconds=max(limits.seconds, PROBE_SECONDS))
        self._check()
        self.limits = limits

    def _check(self) -> None:
        """Run a program that is only safe where the walls stand."""
        if not sys.platform.startswith("linux"):
            raise ConfigError(
                "programs of a model cannot be shut in on this system",
                where="environment",
                got=sys.platform,
                fix="use Linux 5.13 or newer, whose Landlock and seccomp the interpreter relies on",
            )
        result = self.run(PROBE)
        if "PermissionError" not in result.output:
            raise ConfigError(
                "programs of a model cannot be shut in on this machine",
                where="environment",
                got=result.output.strip()[-300:],
                fix="use Linux 5.13 or newer with Landlock and seccomp, on x86_64 or aarch64; containers may forbid it",
            )

    def run(self, program: str) -> ProgramResult:
        """Run a program to its end or to its limits. Never raises on what the program is or does."""
        began = time.monotonic()
        limits = self.limits
        with tempfile.TemporaryDirectory(prefix="vold-program-", ignore_cleanup_errors=True) as scratch:
            task = {
                "program": program,
                "scratch": scratch,
                "path": self._path,
                "readable": self._readable,
                "cpu_seconds": max(1, round(limits.seconds + 0.5)),
                "memory_mb": limits.memory_mb,
                "scratch_mb": limits.scratch_mb,
            }
            # The environment is replaced: a key or a token in ours is nobody's business.
            environment = {"LANG": "C.UTF-8", "HOME": scratch, "TMPDIR": scratch, "OMP_NUM_THREADS": "1"}
            with tempfile.TemporaryFile() as stdin:
                stdin.write(json.dumps(task).encode())
                stdin.seek(0)
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", str(self._jail)],
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd="/",
                    process_group=0,
                )
            try:
                raw, stopped = self._read(process, began + limits.seconds)
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

    def _read(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, str]:
        """Output up to four bytes a kept character, and why the program was stopped, if it was."""
        assert process.stdout is not None
        most, size = 4 * self.limits.output, 0
        chunks: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while size <= most:
                left = deadline - time.monotonic()
                if left <= 0:
                    return b"".join(chunks), f"TimeoutError: stopped after {self.limits.seconds:g} s"
                if not selector.select(left):
                    continue
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    break
                chunks.append(chunk)
                size += len(chunk)
            else:
                return b"".join(chunks)[
                    :most
                ], f"OutputError: stopped after {self.limits.output:,} characters of output"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        if process.returncode is None:  # it closed its output and went on
            return b"".join(chunks), f"TimeoutError: stopped after {self.limits.seconds:g} s"
        if process.returncode not in (0, 1) and not chunks:
            return b"", f"the program ended with status {process.returncode}"
        return b"".join(chunks), ""


def _trimmed(text: str, most: int) -> str:
    """Beginning and end of a text that is too long."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"
