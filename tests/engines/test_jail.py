"""Hostile programs get nothing, on the rights of every kernel from 5.13 on, with and without namespaces, as root and not.

The kernel is the one below the tests; the jail is told that it has less. What each program does, and what it must not
reach, is in tests/helpers: hostile.py and jailed.py.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from hostile import FORBIDDEN, HOSTILE
from jailed import KERNELS, OLDEST, USERS, Attacker, Kernel, attacker, jail_on, kernels
from vold.engines.tools import interpreter as module
from vold.engines.tools.interpreter import JAIL, Limits, PythonInterpreter
from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")

REFUSED = [k for k in kernels() if k.landlock < OLDEST]
WEAKEST = [k for k in kernels() if k.landlock == OLDEST]
NEWER = [k for k in kernels() if k.landlock > OLDEST]

# A newer kernel forbids more. So all programs run on the least rights, and in turn on those of one newer kernel.
ATTACKS = [(user, kernel, name) for user in USERS for kernel in WEAKEST for name in HOSTILE] + [
    (user, kernel, name)
    for name, (kernel, user) in zip(HOSTILE, itertools.cycle(itertools.product(NEWER, USERS)), strict=False)
]


@pytest.fixture(scope="module")
def attackers() -> Iterator[dict[str, Attacker | str]]:
    made = {user: attacker(user) for user in USERS}
    yield made
    for one in made.values():
        if isinstance(one, Attacker):
            one.close()


def attack_as(attackers: dict[str, Attacker | str], user: str) -> Attacker:
    one = attackers[user]
    if isinstance(one, str):
        pytest.skip(one)
    return one


@pytest.mark.parametrize(("user", "kernel", "name"), ATTACKS, ids=lambda value: str(value))
def test_a_hostile_program_gets_nothing(
    attackers: dict[str, Attacker | str], user: str, kernel: Kernel, name: str
) -> None:
    answer = attack_as(attackers, user).attack(name, kernel)
    assert (answer.wrong, answer.refused) == ("", ""), answer.output


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kernel", REFUSED, ids=str)
def test_nothing_is_run_where_landlock_lets_files_be_emptied(
    attackers: dict[str, Attacker | str], user: str, kernel: Kernel
) -> None:
    answer = attack_as(attackers, user).attack("writing: emptying", kernel)
    assert answer.output == ""
    assert f"Landlock {kernel.landlock} lets a program empty files" in answer.refused
    assert "fix:   use Linux 6.2 or newer" in answer.refused


# What a filter says: the kernel's rules for classic BPF on (number, architecture, six arguments).

ALLOWED, EPERM, ENOSYS, KILLED = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def verdict(code: bytes, architecture: int, number: int, *arguments: int) -> int:
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(*arguments, *[0] * 6)[:6])
    at, loaded = 0, 0
    while True:
        operation, yes, no, value = struct.unpack_from("HBBI", code, 8 * at)
        at += 1
        if operation == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif operation == 0x15:
            at += yes if loaded == value else no
        elif operation == 0x45:
            at += yes if loaded & value else no
        else:
            assert operation == 0x06
            return int(value)


@pytest.fixture(scope="module")
def jail() -> ModuleType:
    spec = importlib.util.spec_from_file_location("jail", JAIL)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_no_call_that_reaches_out_passes_the_filter(jail: ModuleType, machine: str) -> None:
    code = jail.filter_program(machine, 4321)
    numbers = {name: pair[machine == "aarch64"] for name, pair in FORBIDDEN.items()}
    passed = {
        name
        for name, number in numbers.items()
        for first in (0, 4321, 0x3D0F00)
        if number is not None and verdict(code, ARCHITECTURES[machine], number, first, 0, 0) != EPERM
    }
    assert passed == set()
    assert verdict(code, ARCHITECTURES[machine], 435, 0x3D0F00, 88) == ENOSYS  # clone3: the C library then uses clone


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_calls_of_another_architecture_end_the_program(jail: ModuleType, machine: str) -> None:
    code = jail.filter_program(machine, 4321)
    others = {*ARCHITECTURES.values(), 0x40000003, 0x40000028, 0xC00000F3, 0} - {ARCHITECTURES[machine]}
    assert {verdict(code, other, number) for other in others for number in range(500)} == {KILLED}


@pytest.mark.parametrize(
    ("call", "arguments", "passes"),
    [
        ("clone", (0x3D0F00,), True),  # a thread of glibc
        ("clone", (0x7D0F00,), True),  # a thread of musl
        ("clone", (0x11,), False),  # a process
        ("clone", (0x4111,), False),  # a process that borrows memory
        ("clone", (0x2D0F00 & ~0x10000,), False),
        *(("clone", (0x3D0F00 | flag,), False) for flag in (
            0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80000000, 0x80, 0x1000, 0x2000, 0x8000, 0x800000)),
        *(("fcntl", (3, command, 0), command in (0, 1, 2, 3, 4, 1030)) for command in (*range(40), *range(1024, 1050))),
        ("fcntl", (3, 4, 0x800), True),  # O_NONBLOCK
        ("fcntl", (3, 4, 0x2800), False),  # O_ASYNC
        ("fcntl", (3, 4 + (1 << 32), 0x2000), False),  # the kernel reads the lower half of a command
        *((name, (target, 9, 9), target == 4321) for name in ("kill", "tgkill") for target in (0, 1, 4320, 4321, 2**32 - 1, 2**32 - 4321)),
        *(("ioctl", (1, request, 0), request in (0x5401, 0x541B, 0x5450, 0x5451)) for request in (*range(0x5400, 0x5480), *range(0x8900, 0x8960), 0x40086602)),
        ("ftruncate", (3, 0), True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_some_calls_pass_for_what_they_ask(
    jail: ModuleType, machine: str, call: str, arguments: tuple[int, ...], passes: bool
) -> None:
    numbers = {
        "x86_64": {"clone": 56, "fcntl": 72, "kill": 62, "tgkill": 234, "ioctl": 16, "ftruncate": 77},
        "aarch64": {"clone": 220, "fcntl": 25, "kill": 129, "tgkill": 131, "ioctl": 29, "ftruncate": 46},
    }
    code = jail.filter_program(machine, 4321)
    said = verdict(code, ARCHITECTURES[machine], numbers[machine][call], *arguments)
    assert said == (ALLOWED if passes else EPERM)


def changed(folder: Path, kernel: Kernel, *changes: tuple[str, str]) -> Path:
    """The jail's file with lines replaced."""
    file = jail_on(kernel, folder)
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    return file


LIMITS = Limits(seconds=10.0, memory_mb=512, scratch_mb=4, output=4000)


@pytest.mark.parametrize("namespaces", [True, False])
def test_no_capability_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespaces: bool) -> None:
    # The file is opened while it can be, and read when the program is about to run.
    file = changed(
        tmp_path,
        Kernel(max(KERNELS), namespaces),
        ("        restrict_files(", "        status = open('/proc/self/status')\n        restrict_files("),
        ("        restrict_calls()", "        bits = libc.prctl(27, 0, 0, 0, 0)\n        restrict_calls()"),
        ("    code = run(", "    if len(task['program']) < 5: print(status.read(), 'bits:', bits)\n    code = run("),
    )
    monkeypatch.setattr(module, "JAIL", file)
    said = PythonInterpreter(LIMITS).run("None").output
    found = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    none = "0000000000000000"
    has_some = os.geteuid() == 0 or namespaces  # to take from
    assert [found[f"Cap{kind}"].strip() for kind in ("Inh", "Prm", "Eff", "Amb")] == [none] * 4
    assert not has_some or found["CapBnd"].strip() == none
    assert not has_some or int(found[" bits"]) == 0b11101111
    assert (found["NoNewPrivs"].strip(), found["Seccomp"].strip()) == ("1", "2")


THREADS = """
import threading
threading.stack_size(32768)
gate, made = threading.Event(), 0
try:
    while made < 200:
        threading.Thread(target=gate.wait).start()
        made += 1
except RuntimeError:
    pass
gate.set()
print(made)
"""


@pytest.mark.parametrize("namespaces", [True, False])
def test_a_program_has_about_32_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespaces: bool) -> None:
    monkeypatch.setattr(module, "JAIL", jail_on(Kernel(max(KERNELS), namespaces), tmp_path))
    result = PythonInterpreter(LIMITS).run(THREADS)
    assert result.ok
    assert 16 <= int(result.output) <= 64  # without namespaces the user's other processes come and go


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="threads of others are always limited")
def test_root_that_cannot_be_limited_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = changed(tmp_path, Kernel(max(KERNELS), True), ("alone = leave_root()", "alone = False"))
    monkeypatch.setattr(module, "JAIL", file)
    with pytest.raises(ConfigError, match="threads of root cannot be limited; run as another user"):
        PythonInterpreter(LIMITS)


def test_a_kernel_that_grants_namespaces_and_forbids_their_use_is_served_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grants = "if libc.unshare(NAMESPACES) != 0:\n        return False\n"
    file = changed(tmp_path, Kernel(max(KERNELS), True), (grants, "raise PermissionError('uid_map')\n"))
    monkeypatch.setattr(module, "JAIL", file)
    python = PythonInterpreter(LIMITS)
    assert python.run("6 * 7").output == "42\n"
    assert "PermissionError" in python.run("open('a', 'w')").output


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        restrict_files(task", "        (lambda *a: 0)(task"),
        ("        restrict_calls()\n", ""),
        ("    rights = (1 << FILE_RIGHTS.get(version, 16)) - 1", "    rights = (1 << 14) - 1"),
        ("FCNTLS = (0,", "FCNTLS = (8, 0,"),
        ("    code = run(", "    print('more')\n    code = run("),
    ],
)
def test_a_jail_with_a_gap_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """The interpreter tries the walls before it serves."""
    monkeypatch.setattr(module, "JAIL", changed(tmp_path, Kernel(max(KERNELS), True), (old, new)))
    with pytest.raises(ConfigError, match="cannot be shut in"):
        PythonInterpreter(LIMITS)


@pytest.mark.parametrize("python", ["missing", "not-executable", "not-a-program", "folder", "", None])
def test_a_python_that_cannot_be_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str | None
) -> None:
    (tmp_path / "not-executable").write_text("x")
    (tmp_path / "not-a-program").write_text("x")
    (tmp_path / "not-a-program").chmod(0o755)
    (tmp_path / "folder").mkdir()
    path = str(tmp_path / python) if python else python
    monkeypatch.setattr(sys, "executable", path)
    with pytest.raises(ConfigError) as caught:
        PythonInterpreter(LIMITS)
    assert caught.value.what == "the Python that runs the programs of a model cannot be started"
    assert caught.value.where == (path or "sys.executable")
    assert caught.value.got
    assert "may execute" in caught.value.fix


def test_a_python_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(ConfigError, match="cannot be shut in on this machine"):
        PythonInterpreter(LIMITS)
