"""`make gpu-bundle`: code and wheels in one archive, for a machine with a GPU that cannot install anything.

It is for CPython 3.12 on Linux, x86-64, with PyTorch and Transformers. There:

    python3 -m tarfile -e vold-gpu.tar.xz && bash vold-gpu/run.sh

What follows `run.sh` goes to `python -m benchmarks.gpu`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu.report import ROOT, commit

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "vold-gpu"
MOST = 60_000_000
"""Bytes of the archive."""
WHEELS = (
    "accelerate", "annotated-types", "anyio", "certifi", "cloudpickle", "h11", "httpcore", "httpx", "idna", "peft",
    "pillow", "psutil", "pydantic", "pydantic-core", "scipy", "typing-inspection",
)  # fmt: skip
"""What the measurements import and neither PyTorch nor Transformers brings for certain, in the versions of
requirements.txt. On the machine only those that it lacks are used."""
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64")
FOLDERS = ("src", "benchmarks/gpu")
LEFT_OUT = ("__pycache__", "caller", "caller-teacher", "teacher-b")
"""Folders that no measurement reads: models of other recipes than the demo's."""
FILES = {
    "recipes/demo.yaml": "recipes",
    "recipes/qwen2_5_vl-3b.yaml": "recipes",
    "tests/helpers/published_models.py": ".",
    "LICENSE": ".",
}
"""And where they go."""
RUN = """\
#!/bin/bash
# Measures with the Python that PYTHON names, and writes benchmarks/results/gpu-CARD.json. Installs nothing.
set -e
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-python3}"
lacking="$("$python" "$here/lacking.py")"
export PYTHONPATH="$here/src:$here$lacking${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec "$python" -m benchmarks.gpu "$@"
"""
LACKING = '''\
"""Prints a colon and the folder of every package that this machine lacks."""

import importlib.metadata
import sys
from pathlib import Path

found = []
for folder in sorted(Path(__file__).parent.glob("packages/*")):
    try:
        importlib.metadata.version(folder.name)
    except importlib.metadata.PackageNotFoundError:
        found.append(str(folder))
if found and sys.version_info[:2] != (3, 12):
    names = ", ".join(Path(f).name for f in found)
    sys.exit(f"this Python is {sys.version.split()[0]} and lacks {names}, which the bundle has for CPython 3.12")
print("".join(f":{f}" for f in found), end="")
'''


def main() -> None:
    out = ROOT / "dist" / f"{NAME}.tar.xz"
    out.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / NAME
        gather(folder, download(Path(scratch) / "wheels"))
        print(
            f"packing {sum(1 for f in folder.rglob('*') if f.is_file())} files, which takes a minute or two", flush=True
        )
        pack(folder, out)
    print(f"wrote {out}, {out.stat().st_size / 1e6:.1f} MB")


def pinned(text: str, names: Iterable[str]) -> list[str]:
    """The entries of a requirements file that are of these packages, with their hashes."""
    entries = {e.partition("==")[0]: e for e in re.split(r"\n(?=[a-z0-9])", text.strip())}
    return [entries[name] for name in names]


def download(folder: Path) -> list[Path]:
    """The wheels, each of a content that requirements.txt knows."""
    folder.mkdir()
    wanted = folder.with_suffix(".txt")
    wanted.write_text("\n".join(pinned((ROOT / "requirements.txt").read_text(), WHEELS)) + "\n")
    python = ("--only-binary=:all:", "--python-version=312", "--implementation=cp")
    platforms = (f"--platform={p}" for p in PLATFORMS)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--require-hashes")
    subprocess.run([*pip, *python, *platforms, "-r", str(wanted), "-d", str(folder)], check=True)
    return sorted(folder.glob("*.whl"))


def gather(folder: Path, wheels: Iterable[Path]) -> None:
    """Lay everything out in a new folder: code, wheels unpacked, and what runs them."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name, place in FILES.items():
        (folder / place).mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / place)
    for wheel in wheels:
        name = wheel.name.partition("-")[0].replace("_", "-")
        with zipfile.ZipFile(wheel) as whole:
            whole.extractall(folder / "packages" / name)
    (folder / "run.sh").write_text(RUN)
    (folder / "lacking.py").write_text(LACKING)
    (folder / "COMMIT").write_text(commit())


def pack(folder: Path, out: Path, most: int = MOST) -> None:
    """Compress a folder into an archive of at most so many bytes."""
    with tarfile.open(out, "w:xz") as archive:
        archive.add(folder, folder.name)
    if (size := out.stat().st_size) > most:
        out.unlink()
        raise SystemExit(
            f"the archive would have {size / 1e6:.1f} MB, over {most / 1e6:.0f}: leave a package out of WHEELS"
        )


if __name__ == "__main__":
    main()
