"""The tests of the objective must notice every mutant in `helpers/mutants.py`, and pass without one."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mutants import MUTANTS, Mutant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

pytestmark = [
    pytest.mark.mutants,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants run in forked processes"),
]

HERE = Path(__file__).parents[1]
SOURCE = HERE.parent / "src" / "vold"
TESTS = (
    *(f"objective/test_{name}.py" for name in
      ("signal", "regularisers", "presets", "gates", "credit", "custom_loss", "prefix_teach", "losses", "uni_opd",
       "advantages", "objective")),
    "model/lm_head/test_teacher_logits.py", "model/lm_head/test_logprobs.py",
)  # fmt: skip
"""From the quickest to the slowest."""
HELPERS = ("peak",)
MODULES = ("__init__", "errors")
FOLDERS = ("objective", "model/lm_head", "types")
FIRST = {
    "objective/losses.py": "objective/test_losses.py",
    "objective/advantages.py": "objective/test_advantages.py",
    "objective/uni_opd.py": "objective/test_uni_opd.py",
    "objective/prefix_teach.py": "objective/test_prefix_teach.py",
    "objective/terms.py": "objective/test_objective.py",
    "model/lm_head/teacher_logits.py": "model/lm_head/test_teacher_logits.py",
    "model/lm_head/fused_divergence.py": "model/lm_head/test_teacher_logits.py",
    "model/lm_head/fused.py": "model/lm_head/test_logprobs.py",
    "model/lm_head/logprobs.py": "model/lm_head/test_logprobs.py",
    "objective/credit.py": "objective/test_credit.py",
    "objective/loss.py": "objective/test_presets.py",
    "objective/preset.py": "objective/test_objective.py",
    "objective/unscored.py": "objective/test_credit.py",
    "objective/spec.py": "objective/test_custom_loss.py",
    "objective/signal.py": "objective/test_signal.py",
    "objective/gates.py": "objective/test_gates.py",
    "objective/recent_presets.py": "objective/test_gates.py",
    "objective/outcome.py": "objective/test_credit.py",
    "objective/custom_loss.py": "objective/test_custom_loss.py",
}
"""The tests that are likely to notice a mutant of a file go first: a run ends at its first failure."""
FAILED = 1
"""pytest's exit status for failed tests. Others (a mutant that does not even import) do not count as noticed."""

RUNNER = """
import gc, inspect, json, os, sys
import hypothesis, pytest, torch, torch._dynamo  # what takes long happens once; one thread, so that forking is safe
torch.set_num_threads(1)
torch.testing.assert_close(torch.ones(1), torch.ones(1))
from pydantic import *  # it loads each name when that is asked for
inspect.getmodule(inspect.currentframe())  # for a model's docstrings: where every module lies
OPTIONS = ["-xq", "-c", os.devnull, "--rootdir=.", "--assert=plain", "--tb=native"]
OPTIONS += ["--confcutdir=../tests", "-pno:cacheprovider", "-pno:logging", "-pno:unraisableexception"]

def run(part):  # in a process of its own: a run of pytest leaves the modules that it imported
    child = os.fork()
    if child == 0:
        sys.path[:0] = [os.path.abspath("src"), os.path.abspath("../tests/helpers")]
        import vold.objective
        assert vold.objective.__file__ == os.path.abspath("src/vold/objective/__init__.py")
        code = pytest.main(OPTIONS + part)
        sys.stdout.flush()
        os._exit(int(code))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

gc.freeze()  # else most of a run is the collection of what is loaded here
status = {}
out = os.dup(1)
for name in json.loads(sys.argv[1]):
    os.chdir(name)
    log = os.open("log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1), os.dup2(log, 2)
    for part in json.load(open("order.json")):
        status[name] = run(part)
        if status[name]:
            break
os.dup2(out, 1)
print(json.dumps(status))
"""


def prepare(directory: Path) -> None:
    """A copy of the modules under test, compiled: to compile them for each mutant took longer than its tests."""
    package = directory / "src" / "vold"
    package.mkdir(parents=True)
    for name in MODULES:
        shutil.copy(SOURCE / f"{name}.py", package)
    for folder in FOLDERS:
        shutil.copytree(SOURCE / folder, package / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "model" / "__init__.py", package / "model")
    compileall.compile_dir(package, quiet=1)
    (directory / "order.json").write_text(json.dumps([_paths(TESTS)]))


def plant(mutant: Mutant, directory: Path) -> None:
    """Change a copy, whose files are links to those of the control; the tests that are likely to notice go first."""
    file = directory / "src" / "vold" / mutant.file
    text = file.read_text().replace(mutant.old, mutant.new)
    for link in (file, Path(cache_from_source(str(file))), directory / "order.json"):
        link.unlink()
    file.write_text(text)
    likely = FIRST[mutant.file]
    order = [_paths([likely]), _paths(name for name in TESTS if name != likely)]
    (directory / "order.json").write_text(json.dumps(order))


def _paths(names: Iterable[str]) -> list[str]:
    return [f"../tests/{name}" for name in names]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[int, str]]]:
    """Exit status and output of the tests on each copy that a selected test asks for."""
    chosen = {_mutant(item) for item in request.session.items}
    copies: dict[str, Mutant | None] = {"control": None} | {m.name: m for m in MUTANTS if m in chosen}
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with tempfile.TemporaryDirectory(prefix="vold-mutants-") as name:
        root = Path(name).resolve()
        for test in (*TESTS, *(f"helpers/{name}.py" for name in HELPERS)):
            (root / "tests" / test).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / test, root / "tests" / test)
        prepare(root / "control")
        for mutant in copies.values():
            if mutant is not None:
                shutil.copytree(root / "control", root / mutant.name, copy_function=os.link)
                plant(mutant, root / mutant.name)
        command = [sys.executable, "-c", RUNNER, json.dumps([str(root / c) for c in copies])]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, done.stderr
        status = json.loads(done.stdout)
        yield {c: (status[str(root / c)], (root / c / "log").read_text()) for c in copies}


def _mutant(item: pytest.Item) -> Mutant | None:
    found = getattr(getattr(item, "callspec", None), "params", {}).get("mutant")
    return found if isinstance(found, Mutant) else None


def test_the_tests_pass_without_a_mutant(runs: dict[str, tuple[int, str]]) -> None:
    status, log = runs["control"]
    assert status == 0, log


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_tests_notice(mutant: Mutant, runs: dict[str, tuple[int, str]]) -> None:
    count = (SOURCE / mutant.file).read_text().count(mutant.old)
    assert count == 1, f"the text of this mutant stands {count} times in {mutant.file}: {mutant.old!r}"
    status, log = runs[mutant.name]
    assert status == FAILED, f"nothing noticed that {mutant.why} (exit status {status})\n{log[-2000:]}"


def test_every_mutant_has_its_own_name() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)
