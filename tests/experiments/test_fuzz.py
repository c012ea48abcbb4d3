"""The fuzzer finds what it looks for: exceptions, other scores, slow calls, a right truncated response."""

from __future__ import annotations

import json
import mmap
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import fuzz
from experiments.fuzz import Report, Target, hostile_text, targets
from package import ROOT
from vold.types import Finish, Grade


def raises(text: str, finish: Finish, number: int) -> Grade:
    raise ValueError("no")


def half(text: str, finish: Finish, number: int) -> Grade:
    return Grade(0.5, text, "half")


def slow(text: str, finish: Finish, number: int) -> Grade:
    end = time.perf_counter() + 0.02
    while time.perf_counter() < end:
        pass
    return Grade(0.0, None, "slow")


def generous(text: str, finish: Finish, number: int) -> Grade:
    return Grade(1.0, text, "equal")


def good(text: str, finish: Finish, number: int) -> Grade:
    return Grade(0.0, None, "unreadable")


@pytest.mark.parametrize(
    ("mark", "why"),
    [(raises, "ValueError: no"), (half, "score 0.5"), (slow, "limit 0.0 s")],
    ids=["raises", "half", "slow"],
)
def test_a_fault_is_found_with_its_text(mark: fuzz.Mark, why: str) -> None:
    report = fuzz.fuzz([Target("good", good), Target("bad", mark, limit=0.01)], 0.1, 3)
    assert report.failures
    assert {f["target"] for f in report.failures} == {"bad"}
    assert all(why in str(f["why"]) for f in report.failures)
    assert report.failures[0]["text"] == hostile_text(random.Random(3))


def test_a_truncated_response_that_is_right_is_a_fault() -> None:
    report = fuzz.fuzz([Target("generous", generous)], 0.3, 1)
    assert report.failures
    assert {(f["finish"], f["why"]) for f in report.failures} == {("length", "a truncated response is right")}


def test_a_target_over_its_share_of_the_time_misses_texts() -> None:
    report = fuzz.fuzz([Target("good", good), Target("slow", slow, share=0.2)], 0.5, 1)
    assert 1 <= report.records["slow"].calls < report.records["good"].calls
    assert report.records["slow"].seconds < 0.2 * 0.5 + 0.1


def test_the_same_seed_gives_the_same_texts() -> None:
    a, b, c = random.Random(5), random.Random(5), random.Random(6)
    first = [hostile_text(a) for _ in range(50)]
    assert first == [hostile_text(b) for _ in range(50)]
    assert first != [hostile_text(c) for _ in range(50)]


def test_texts_are_of_many_kinds_and_bounded() -> None:
    rng = random.Random(0)
    found = [hostile_text(rng) for _ in range(1500)]
    assert max(map(len, found)) > 50_000
    assert max(map(len, found)) <= fuzz.LONGEST_TEXT
    for wanted in ("\x00", "<think>", r"\frac{", "\u2212", r"\boxed{" * 5, "Answer: "):
        assert any(wanted in text for text in found), ascii(wanted)
    assert any(any(0xD800 <= ord(c) < 0xE000 for c in text) for text in found)


def test_every_grader_and_every_form_is_a_target() -> None:
    assert [t.name for t in targets()] == [
        "grader boxes", "grader choice", "grader count", "grader exact", "grader math", "grader ocr", "grader yes_no",
        "score choice", "score letters", "score integer",
        "score float", "score list", "score math", "score text",
    ]  # fmt: skip


@pytest.mark.skipif(fuzz.resident_mib() is None, reason="this system does not tell a process its memory")
def test_growing_memory_is_a_fault() -> None:
    hoard: list[mmap.mmap] = []

    def leaks(text: str, finish: Finish, number: int) -> Grade:
        if (
            len(hoard) < 40
        ):  # enough of them come after the first tenth of the time, on a slow machine and on a fast one
            page = mmap.mmap(-1, 2**24)  # never from what the heap has left over of earlier tests
            page.write(b"x" * len(page))
            hoard.append(page)
        return good(slow(text, finish, number).note, finish, number)

    report = fuzz.fuzz([Target("leaks", leaks)], 3.0, 1)
    assert report.growth is not None and report.growth > 64
    assert [f["target"] for f in report.failures] == ["memory"]


def test_failures_are_written_and_the_status_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "failures.jsonl"
    failures: list[dict[str, object]] = [
        {"target": "bad", "why": "score 0.5", "text": "\ud800 \n"},
        {"target": "worse"},
    ]
    assert fuzz.conclude(Report(2, {}, failures=failures), file) == 1
    assert [json.loads(line) for line in file.read_text().splitlines()] == failures
    assert "failures: 2" in capsys.readouterr().out


def test_a_clean_report_writes_nothing(tmp_path: Path) -> None:
    assert fuzz.conclude(Report(2, {"good": fuzz.Record()}, growth=0.5), tmp_path / "failures.jsonl") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_report_without_memory_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz.print_report(Report(7, {}))
    assert "not measured" in capsys.readouterr().out


def test_a_short_run_from_the_command_line_is_clean(tmp_path: Path) -> None:
    failures = tmp_path / "failures.jsonl"
    command = [sys.executable, "-m", "experiments.fuzz", "--seconds", "3", "--seed", "11", "--failures", str(failures)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failures: 0" in done.stdout
    assert "score math" in done.stdout
    assert list(tmp_path.iterdir()) == []
