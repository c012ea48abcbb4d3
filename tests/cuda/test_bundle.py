"""What `make gpu-bundle` packs, beside what test_measurements.py runs of it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks.gpu import bundle
from package import ROOT

REQUIREMENTS = (ROOT / "requirements.txt").read_text()


def plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def needs(name: str) -> set[str]:
    """What a distribution requires on this machine, extras aside."""
    found = map(Requirement, importlib.metadata.requires(name) or [])
    return {plain(r.name) for r in found if r.marker is None or r.marker.evaluate({"extra": ""})}


def brought() -> set[str]:
    """PyTorch, Transformers, and all that comes with them."""
    found, new = set[str](), {"torch", "transformers"}
    while new:
        found |= new
        new = {n for name in new for n in needs(name)} - found
    return found


def test_the_bundle_has_the_code_and_what_runs_it(tmp_path: Path) -> None:
    wheel = tmp_path / "some_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_thing/__init__.py", "")
    bundle.gather(tmp_path / "b", [wheel])
    files = {p.relative_to(tmp_path / "b").as_posix() for p in (tmp_path / "b").rglob("*") if p.is_file()}
    assert {"run.sh", "lacking.py", "COMMIT", "LICENSE", "published_models.py", "recipes/demo.yaml"} <= files
    assert {
        "packages/some-thing/some_thing/__init__.py",
        "benchmarks/gpu/__main__.py",
        "src/vold/cli/__init__.py",
    } <= files
    assert {"student", "teacher"} == {f.split("/")[4] for f in files if f.startswith("src/vold/demo/assets/")}
    assert not [f for f in files if "__pycache__" in f]
    assert {f.removeprefix("src/") for f in files if f.startswith("src/vold/model/")} == {
        p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src/vold/model").rglob("*.py")
    }


def test_an_archive_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(SystemExit, match="over 0: leave a package out"):
        bundle.pack(tmp_path / "b", tmp_path / "b.tar.xz", most=100)
    assert not (tmp_path / "b.tar.xz").exists()
    bundle.pack(tmp_path / "b", tmp_path / "b.tar.xz", most=10_000)
    assert bundle.MOST == 60_000_000


def test_every_wheel_is_pinned_by_content() -> None:
    for entry in bundle.pinned(REQUIREMENTS, bundle.WHEELS):
        assert "==" in entry.splitlines()[0] and entry.count("--hash=sha256:") >= 1


def test_the_wheels_are_enough_beside_pytorch_and_transformers() -> None:
    there = brought() | set(bundle.WHEELS)
    assert {name: gone for name in bundle.WHEELS if (gone := needs(name) - there)} == {}


def test_what_vold_needs_of_packages_is_there_but_for_what_no_measurement_imports() -> None:
    """Tables of evaluations are read and written with these two."""
    assert needs("vold") - brought() - set(bundle.WHEELS) == {"openpyxl", "pyarrow"}


def test_a_package_that_the_machine_has_is_not_taken_and_one_that_it_lacks_is(tmp_path: Path) -> None:
    """Compiled ones are for CPython 3.12: any other Python must have them all."""
    (tmp_path / "lacking.py").write_text(bundle.LACKING)

    def said() -> tuple[int, str]:
        done = subprocess.run([sys.executable, tmp_path / "lacking.py"], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    (tmp_path / "packages" / "numpy").mkdir(parents=True)
    assert said() == (0, "")
    (tmp_path / "packages" / "not-there").mkdir()
    code, words = said()
    if sys.version_info[:2] == (3, 12):
        assert (code, words) == (0, f":{tmp_path}/packages/not-there")
    else:
        assert code == 1 and "lacks not-there" in words
