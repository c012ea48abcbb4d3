"""What is installed and what is only in a checkout, from the file lists that the build backend makes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from package import EXPERIMENTS, FILES, ROOT, SOURCE

NEED_A_CHECKOUT = {"eval-mini", "image_rl-mini", "launch-mini", "smollm2-cpu"}
"""Recipes over files that no wheel holds."""


def files_of(builder: WheelBuilder | SdistBuilder) -> set[str]:
    return {file.distribution_path for file in builder.recurse_included_files()}


def test_the_wheel_holds_the_package_and_no_experiments() -> None:
    found = files_of(WheelBuilder(str(ROOT)))
    assert {path.relative_to(SOURCE).as_posix() for path in FILES.values()} <= found
    assert "vold/demo/assets/caller/model.safetensors" in found
    assert {"vold/demo/demo.yaml", "vold/data/worlds/digits.npz", "vold/data/worlds/digits.md"} <= found
    assert {name.split("/")[0] for name in found} == {"vold"}
    beside = {path.stem for path in EXPERIMENTS.values()} - {"__init__", "build"}
    assert not [name for name in found if Path(name).stem in beside or "smollm2" in name]
    assert "vold/demo/build.py" not in found
    recipes = {file.stem for file in (ROOT / "recipes").glob("*.yaml")}
    assert {Path(name).stem for name in found if name.startswith("vold/recipes/")} == recipes - NEED_A_CHECKOUT


def test_the_source_distribution_holds_the_experiments() -> None:
    found = files_of(SdistBuilder(str(ROOT)))
    assert {path.relative_to(ROOT).as_posix() for path in EXPERIMENTS.values()} <= found


def pins(file: str) -> dict[NormalizedName, tuple[str, list[str]]]:
    """Version and hashes of each package that a list of requirements names."""
    text = (ROOT / file).read_text().replace("\\\n", " ")
    found = {}
    for line in (line for line in text.splitlines() if line and not line.lstrip().startswith("#")):
        requirement, *hashes = line.split("--hash=")
        name, version = requirement.split(";")[0].strip().split("==")
        found[canonicalize_name(name)] = (version, [h.strip() for h in hashes])
    return found


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-browser.txt", "requirements-notebook.txt"])
def test_every_pin_has_the_hashes_of_its_files(file: str) -> None:
    found = pins(file)
    assert len(found) >= 5
    assert [n for n, (_, hashes) in found.items() if not hashes] == []
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", h) for _, hashes in found.values() for h in hashes)


def test_all_that_the_project_asks_for_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    known = pins("requirements.txt")
    for requirement in map(Requirement, asked):
        if requirement.name != "torch":
            version, _ = known[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement}: {version}"
    for group in ("browser", "notebook"):
        for requirement in map(Requirement, project["dependency-groups"][group]):
            version, _ = pins(f"requirements-{group}.txt")[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement}: {version}"
    both = pins("requirements.txt").keys() & pins("requirements-notebook.txt").keys()
    assert [n for n in both if pins("requirements.txt")[n] != pins("requirements-notebook.txt")[n]] == []


def test_make_installs_nothing_without_hashes_for_demo_and_test_but_pytorch() -> None:
    make = (ROOT / "Makefile").read_text()
    installs = []
    for target in ("$(STAMP)", "demo", "test", "lint"):
        (body,) = re.findall(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", make, re.MULTILINE)
        installs += [line.strip(" \t\\") for line in body.splitlines() if "$(PIP) install " in line]
    assert [i for i in installs if "--require-hashes" not in i] == [
        "$(PIP) install --no-compile $(PIP_TORCH_ARGS) $(TORCH)",
        "$(PIP) install --no-deps --no-build-isolation -e .",
    ]
    assert len(installs) == 5
