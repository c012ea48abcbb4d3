"""The core of the suite under the releases that an environment has: what `make test-oldest` and the like run.

`python tests/helpers/compatibility.py NAME` prints them, runs the tests, and writes what was run and how it ended into
tests/compatibility/NAME.json; docs/compatibility.md has its table from those files.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "compatibility"
CORE = (
    "tests/objective", "tests/graders/test_registry.py", "tests/graders/test_rewards.py", "tests/data/test_sources.py",
    "tests/data/test_images.py", "tests/model/test_certificate.py", "tests/model/test_families.py",
    "tests/model/test_lora.py", "tests/model/test_quantized.py", "tests/engines/test_inprocess_sampler.py",
    "tests/engines/test_sampler_contract.py", "tests/engines/test_engines.py", "tests/engines/test_mcp.py",
    "tests/training/test_distill.py", "tests/training/test_recent_methods.py", "tests/training/test_resume.py",
)  # fmt: skip
"""The loss, graders, data, models with their certificates, sampling, and training that is killed and goes on."""
PACKAGES = (
    "torch", "transformers", "tokenizers", "peft", "safetensors", "huggingface_hub", "numpy", "scipy", "pillow",
    "pyarrow", "pydantic", "pyyaml", "jinja2", "httpx", "rich", "bitsandbytes", "mcp",
)  # fmt: skip
OUTCOMES = ("passed", "failed", "error", "skipped")


class Counts:
    """How many tests ended how, as pytest counts them."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        self.found = {name: len(terminalreporter.stats.get(name, ())) for name in OUTCOMES}


def releases() -> dict[str, str]:
    """By name, the releases that are installed here."""
    return {"python": platform.python_version()} | {name: _release(name) for name in PACKAGES}


def _release(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def run(name: str) -> int:
    """Run the core, and keep what it gave under a name. Returns pytest's exit status."""
    here, counts = releases(), Counts()
    said = ", ".join(f"{package} {release}" for package, release in here.items())
    print(f"{name}: {said}", flush=True)
    status = int(pytest.main(["-n", "2", "-m", "not mutants and not engines", *CORE], plugins=[counts]))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"releases": here, "tests": counts.found}, indent=2) + "\n")
    print(f"{name}: {said}")
    return status


def table() -> str:
    """A column for each run that was written down, the oldest releases first."""
    kept = [(file.stem, json.loads(file.read_text())) for file in RESULTS.glob("*.json")]
    kept.sort(key=lambda one: [int(part) for part in one[1]["releases"]["python"].split(".")])
    rows = [f"| | {' | '.join(f'`make test-{name}`' for name, _ in kept)} |", "|---" * (len(kept) + 1) + "|"]
    for package in ("python", *PACKAGES):
        rows.append(f"| {package} | {' | '.join(run['releases'][package] for _, run in kept)} |")
    for outcome in OUTCOMES:
        rows.append(f"| tests {outcome} | {' | '.join(str(run['tests'][outcome]) for _, run in kept)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
