"""vLLM in the training process, in an environment that has both: vLLM's, and behind it what tests need of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig

import pytest

from engine_backends import VLLM_PYTHON
from package import ROOT

pytestmark = pytest.mark.engines
RUN = """
import sys
sys.path.append(sys.argv.pop(1))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def pytest_with_vllm(*arguments: str) -> str:
    """What pytest says in vLLM's environment. Ours comes last, so all that vLLM pins is as vLLM pins it."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in ("src", "tests/helpers", ".")),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    command = [VLLM_PYTHON, "-c", RUN, sysconfig.get_paths()["purelib"], "-o", "filterwarnings=default", *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_the_contract_of_samplers_holds_for_vllm_in_the_training_process() -> None:
    passed = re.search(
        r"^(\d+) passed", pytest_with_vllm("tests/engines/test_sampler_contract.py", "-k", "colocated"), re.M
    )
    assert passed is not None and int(passed[1]) >= 9


def test_a_run_samples_by_vllm_in_its_own_process() -> None:
    assert "1 passed" in pytest_with_vllm("tests/engines/test_colocated.py", "-k", "three_steps")
