"""What every test runs under: no network, one thread, the same hypothesis examples each time."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

import brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_backends import RealVllm

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MPLBACKEND", "agg")

TRACED = ("objective", "training", "engines/test_told.py", "engines/test_aligned.py", "model/test_moments.py")
"""Tests that say something of the rooms whose coverage is measured."""
REPEATS = tuple(f"training/test_{name}.py" for name in ("resume", "go_on", "stopped", "heap"))
"""Runs of what others trace already: to trace a test takes half of its time again."""

# Two runs of the suite try the same examples; `pytest --hypothesis-profile=explore` tries new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("repeatable")


def _is_this_machine(host: object) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name is None or name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(name).split("%")[0]).is_loopback
    except ValueError:
        return False


def _fence(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto") and args[0].family in (socket.AF_INET, socket.AF_INET6):
        host = args[1][0]
    else:
        return
    if not _is_this_machine(host):
        pytest.fail(f"a test tried to reach {host!r}: tests use this machine only", pytrace=True)


# An audit hook sees every Python socket, whoever opened it, and `pytest.fail` passes through `except Exception`.
sys.addaudithook(_fence)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Undo what a test or the code under it did to PyTorch's threads; PyTorch is not loaded for this."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only `make test-engines` and `make test-peers` have the means for."""
    needs = {"engines": "VOLD_VLLM_PYTHON", "peers": "VOLD_PEERS_PYTHON"}
    missing = [marker for marker, variable in needs.items() if not os.environ.get(variable)]
    left_out = [i for i in items if any(i.get_closest_marker(marker) for marker in missing)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [i for i in items if i not in left_out]


def pytest_collection_finish() -> None:
    """All that tests import at their top is loaded by now."""
    brief.configs()


STOPPED: list[Any] = []
"""What measures coverage, while it is stopped."""
TRIALS = ("model/test_certificate.py", "evals/test_certificates.py")
"""Tests of the trial of a model. All others try a kind of model once."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Before a test and the fixtures that it asks for: trace those that say something of coverage, and no others."""
    file = item.path.relative_to(Path(__file__).parent).as_posix()
    if "vold.model.certified" in sys.modules:
        from tried import every_time

        every_time(file in TRIALS)
    if file.startswith(TRACED) and file not in REPEATS:
        while STOPPED:
            STOPPED.pop().start()
    elif "coverage" in sys.modules:
        # Two in a worker of xdist: where one stops, the other goes on.
        while found := sys.modules["coverage"].Coverage.current():
            found.stop()
            STOPPED.append(found)


@pytest.fixture(scope="session")
def vllm_teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    """A real vLLM server that holds `text_model(1)`."""
    from engine_backends import RealVllm, saved, text_model

    home = tmp_path_factory.mktemp("vllm-teacher")
    with RealVllm(saved(text_model(1), home / "model"), home / "log") as server:
        yield server.start()


@pytest.fixture(scope="session")
def vllm_rollouts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    """A real vLLM server for rollouts. It begins with other weights than any student's."""
    from engine_backends import RealVllm, saved, text_model

    home = tmp_path_factory.mktemp("vllm-rollouts")
    with RealVllm(saved(text_model(4, padded_rows=3), home / "model"), home / "log") as server:
        yield server.start()
