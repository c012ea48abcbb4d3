"""What a machine does to a run, in words; what nobody is known to cause stays a fault of the program."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from vold.errors import ConfigError
from vold.run.failures import WORDS, in_words, is_out_of_memory
from vold.run.files import append_jsonl

FULL = Path("/dev/full")


def raised(work: object) -> BaseException:
    try:
        work()  # type: ignore[operator]
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("number", WORDS, ids=errno.errorcode.get)
def test_an_error_of_the_system_says_what_where_and_how_to_mend_it(number: int) -> None:
    told = in_words(OSError(number, os.strerror(number), "/runs/a/file"))
    assert told is not None
    if number != errno.ENOMEM:
        assert told.where == "/runs/a/file"
    assert told.what
    assert told.fix
    assert os.strerror(number) in told.got


def test_an_error_of_the_system_that_is_not_known_is_told_all_the_same() -> None:
    told = in_words(OSError(errno.ENOSR, "Out of streams resources", "a"))
    assert told is not None
    assert (told.where, bool(told.fix)) == ("a", True)


def test_a_full_disk_is_told_with_the_file_that_was_at_work() -> None:
    """Python's own error names no file here."""
    told = in_words(raised(lambda: append_jsonl(FULL, [{"a": 1}])))
    assert told is not None
    assert "no room left" in told.what
    assert told.where == "/dev/full"
    assert "repeat the command" in told.fix


def test_what_safetensors_and_tokenizers_say_of_the_system_is_read(tmp_path: Path) -> None:
    """Theirs are no errors of the system."""
    told = in_words(raised(lambda: save_file({"a": np.zeros(9)}, tmp_path / "no" / "a.safetensors")))
    assert told is not None
    assert "no such file or directory" in told.what
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 99)
    assert "cut short or corrupt" in str(in_words(raised(lambda: load_file(tmp_path / "bad.safetensors"))))
    assert "no room left" in str(in_words(Exception("No space left on device (os error 28)")))


def test_what_a_library_wraps_counts() -> None:
    error = RuntimeError("the writer failed")
    error.__cause__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert "quota" in str(in_words(error))
    ours = RuntimeError("a validator failed")
    ours.__cause__ = ConfigError("no such key")
    assert in_words(ours) is ours.__cause__


def test_an_error_that_was_being_handled_does_not_hide_a_fault() -> None:
    def fault() -> None:
        try:
            Path("/nowhere/at/all").read_text()
        except OSError:
            raise KeyError("a fault of ours") from None

    def another() -> None:
        try:
            Path("/nowhere/at/all").read_text()
        except OSError:
            dict[str, int]()["a fault of ours"]

    assert in_words(raised(fault)) is None
    assert in_words(raised(another)) is None


def test_too_little_memory_says_what_to_lower() -> None:
    for error in (raised(lambda: torch.empty(2**52)), MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory")):
        assert is_out_of_memory(error), error
        told = in_words(error)
        assert told is not None
        assert "token_budget" in told.fix
        assert "activation_checkpointing" in told.fix


def test_other_errors_of_torch_are_no_lack_of_memory() -> None:
    error = raised(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3))
    assert not is_out_of_memory(error)
    assert in_words(error) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (raised(lambda: os.stat("a\0b")), "NUL"),
        (raised(lambda: "\ud800".encode()), "half a character"),
        (raised(lambda: json.loads("[" * 100_000)), "nested too deeply"),
        (ModuleNotFoundError("No module named 'x'"), "package is missing"),
    ],
    ids=["NUL", "surrogate", "deep", "package"],
)
def test_mistakes_that_python_reports_are_told(error: BaseException, said: str) -> None:
    told = in_words(error)
    assert told is not None
    assert said in told.what
    assert told.fix


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("a"), AssertionError(), ValueError("x"), RuntimeError("y")])
def test_a_fault_of_the_program_stays_one(error: Exception) -> None:
    assert in_words(error) is None
