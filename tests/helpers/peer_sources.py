"""Fetch the peers' code at pinned commits: `python tests/helpers/peer_sources.py FOLDER`.

From GitHub; or, where `VOLD_PEERS` names a folder, from the repositories `OWNER+NAME` or `OWNER+NAME/repo` in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCES = (
    ("open-compass/VLMEvalKit", "e8e78f05f3080fe28154f2130321f17951c3be94", ("vlmeval",)),
    ("EvolvingLMMs-Lab/lmms-eval", "75571cfe0fa36ca5ec2e6aa2bb268f9d38295af3", ("lmms_eval/tasks",)),
    ("mathllm/MATH-V", "a1f5cc3add200c0cd080fad463e500f44ef1fb41", ("evaluation",)),
    ("MMMU-Benchmark/MMMU", "bb0b95a945998d91dfef37e969e07d49d1139438", ("mmmu-pro/evaluate.py",)),
    ("lupantech/MathVista", "53d525874bdde205128e6b160b7357a88277d479", ("evaluation", "utilities.py")),
)
"""Repository, commit, and the paths that are taken out of it."""


def repository(name: str, folder: Path) -> Path:
    """The repository on this machine, cloned where there is no copy of it."""
    if os.environ.get("VOLD_PEERS"):
        copy = Path(os.environ["VOLD_PEERS"]) / name.replace("/", "+")
        return copy / "repo" if (copy / "repo").is_dir() else copy
    clone = folder / f"{name.replace('/', '+')}.git"
    if not clone.is_dir():
        url = f"https://github.com/{name}"
        subprocess.run(["git", "clone", "--bare", "--filter=blob:none", url, str(clone)], check=True)
    return clone


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, commit, paths in SOURCES:
        target = folder / name.partition("/")[2]
        target.mkdir(exist_ok=True)
        archive = ["git", "-C", str(repository(name, folder)), "archive", commit, *paths]
        packed = subprocess.run(archive, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "x", "-C", str(target)], input=packed, check=True)


if __name__ == "__main__":
    main()
