"""What is installed and what is only in a checkout, from the file lists that the build backend makes."""

from __future__ import annotations

from pathlib import Path

from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from package import EXPERIMENTS, FILES, ROOT, SOURCE


def files_of(builder: WheelBuilder | SdistBuilder) -> set[str]:
    return {file.distribution_path for file in builder.recurse_included_files()}


def test_the_wheel_holds_the_package_and_no_experiments() -> None:
    found = files_of(WheelBuilder(str(ROOT)))
    assert {path.relative_to(SOURCE).as_posix() for path in FILES.values()} <= found
    assert "vold/demo/assets/caller/model.safetensors" in found
    assert "vold/demo/demo.yaml" in found
    assert {name.split("/")[0] for name in found} == {"vold"}
    beside = {path.stem for path in EXPERIMENTS.values()} - {"__init__", "build"}
    assert not [name for name in found if Path(name).stem in beside or "smollm2" in name]
    assert "vold/demo/build.py" not in found


def test_the_source_distribution_holds_the_experiments() -> None:
    found = files_of(SdistBuilder(str(ROOT)))
    assert {path.relative_to(ROOT).as_posix() for path in EXPERIMENTS.values()} <= found
