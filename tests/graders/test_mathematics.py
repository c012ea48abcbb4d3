"""The math workers: callers of every kind, limits, and recovery. No test asserts a duration."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vold
from answer_pairs import Pair, math_pairs
from vold.errors import VoldError
from vold.graders import get_grader, outcome
from vold.graders.math import MAX_ANSWER_CHARS, MathGrader
from vold.graders.mathematics import client

SUM = "\\sum_{k=1}^{700} \\sin(k x)"
HEAVY, HEAVY_REFERENCE = f"\\boxed{{{SUM} + x}}", f"x + {SUM}"
"""Takes some hundred times as long as a usual answer."""
SHORT_TIME = 0.03
HALF = "\\boxed{\\frac{1}{2}}"


@pytest.fixture
def grader() -> Iterator[MathGrader]:
    made = MathGrader()
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[MathGrader]:
    """A grader with a limit that `HEAVY` exceeds."""
    made = MathGrader(time_limit=SHORT_TIME)
    yield made
    made.close()


def only_pid(grader: MathGrader) -> int:
    (pid,) = grader._pool.pids
    return pid


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(500):
        if done():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def wait_until_dead(pid: int) -> None:
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_integers_and_boxless_text_need_no_worker(grader: MathGrader) -> None:
    assert grader("\\boxed{8}", "8").score == 1.0
    assert grader("8", "8").score == 0.0
    assert grader._pool.pids == []


def test_verdicts_are_remembered_and_equal_to_fresh_ones(grader: MathGrader) -> None:
    answers = ["0.5", "x", "\\frac{2}{4}", "???", "1=2", "5 cm", "0.5"]
    first = [grader(f"\\boxed{{{a}}}", "\\frac{1}{2}") for a in answers]
    again = [grader(f"\\boxed{{{a}}}", "\\frac{1}{2}") for a in answers]
    grader.close()
    other = MathGrader(time_limit=3.0)
    fresh = [other(f"\\boxed{{{a}}}", "\\frac{1}{2}") for a in reversed(answers)]
    other.close()
    assert first == again == fresh[::-1]


def test_time_out_then_next_answer_is_graded(hasty: MathGrader) -> None:
    for turn in range(2):
        late = hasty(HEAVY, f"{turn} + {HEAVY_REFERENCE}")
        assert (late.score, late.note) == (0.0, "grader time-out")
        assert outcome(late) == "timed_out"
        assert hasty(f"\\boxed{{\\frac{{{2 * turn + 1}}}{{2}}}}", f"{turn}.5").score == 1.0


def test_a_time_out_is_paid_for_once(hasty: MathGrader) -> None:
    assert hasty(HEAVY, HEAVY_REFERENCE).note == "grader time-out"
    assert hasty(HALF, "0.5").score == 1.0
    pid = only_pid(hasty)
    assert [hasty(HEAVY, HEAVY_REFERENCE).note for _ in range(256)] == ["grader time-out"] * 256
    assert only_pid(hasty) == pid, "no worker was used up"


def test_what_is_large_is_bounded_without_the_limit(grader: MathGrader) -> None:
    """No verdict below hangs on a limit of time: none of them ends a worker."""
    assert grader(HALF, "0.5").score == 1.0
    pid = only_pid(grader)
    towers = (
        "9^{9^9}",
        "9^{9^{9^9}}",
        "(10!)!",
        "((10!)!)!",
        "\\binom{10^7}{5\\cdot 10^6}",
        "x^{x^{x^{x^x}}}",
        "e^{e^{e^{e^9}}}",
    )
    sums = (
        "\\sum_{k=1}^{10^9} k",
        "\\sum_{k=1}^{999} \\sum_{j=1}^{999} \\frac{1}{jk}",
        "\\prod_{k=1}^{999} k^{k^k}",
        "\\sum_{k=1}^{999} (k/7)!",
        "\\prod_{k=1}^{999} k!",
        ", ".join([SUM] * 20),
    )
    for text in (
        *towers,
        *sums,
        "\\sin " * 300 + "1",
        "1/" * 900 + "1",
        "x" + "'" * 1500,
        "-" * 1500 + "1",
        "1" + "+1" * 900,
        "\\sqrt{" * 20 + "2" + "}" * 20,
    ):
        for reference in ("5", text):
            note = grader(f"\\boxed{{{text}}}", reference).note
            assert note != "grader time-out" and "Error" not in note, text
    assert only_pid(grader) == pid


def test_killed_worker_is_replaced(grader: MathGrader) -> None:
    for turn in range(3):
        assert grader(f"\\boxed{{\\frac{{1}}{{{turn + 2}}}}}", f"1/{turn + 2}").score == 1.0
        os.kill(only_pid(grader), signal.SIGKILL)


def test_worker_killed_while_starting(grader: MathGrader) -> None:
    worker = grader._pool._idle[-1]
    worker._start()
    os.kill(only_pid(grader), signal.SIGKILL)
    assert grader(HALF, "0.5").score == 1.0


def test_worker_killed_in_the_middle_of_an_answer_is_replaced_and_asked_again(grader: MathGrader) -> None:
    assert grader(HALF, "0.5").score == 1.0
    pid = only_pid(grader)
    os.kill(pid, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(grader, "\\boxed{\\frac{2}{3}}", "2/3")
        wait_until(lambda: grader._pool._idle == grader._pool._workers[:1])
        os.kill(pid, signal.SIGKILL)
        assert waiting.result().score == 1.0
    assert only_pid(grader) != pid


def test_a_worker_that_dies_twice_is_a_crash_and_not_remembered(
    grader: MathGrader, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = client._Worker._write

    def die(self: client._Worker, message: dict[str, object]) -> None:
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        write(self, message)

    with monkeypatch.context() as patch:
        patch.setattr(client._Worker, "_write", die)
        grade = grader(HALF, "0.5")
    assert grade.note.startswith("grader crash") and outcome(grade) == "timed_out"
    assert grader(HALF, "0.5").score == 1.0


def test_a_worker_that_does_not_run_is_given_up_and_not_remembered(
    grader: MathGrader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert grader(HALF, "0.5").score == 1.0
    os.kill(only_pid(grader), signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(client, "STUCK_LIMIT_SECONDS", 0.2)
        assert outcome(grader("\\boxed{\\frac{2}{3}}", "2/3")) == "timed_out"
    assert grader("\\boxed{\\frac{2}{3}}", "2/3").score == 1.0


def test_two_workers_share_the_load(grader: MathGrader) -> None:
    """While one works the other answers, and no third is started."""
    assert grader(HALF, "0.5").score == 1.0
    first = only_pid(grader)
    os.kill(first, signal.SIGSTOP)  # as if it worked on something long
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = pool.submit(grader, "\\boxed{\\frac{2}{3}}", "2/3")
        wait_until(lambda: len(grader._pool._idle) == client.WORKERS - 1)
        same = pool.submit(grader, "\\boxed{\\frac{2}{3}}", "2/3")
        others = [pool.submit(grader, f"\\boxed{{\\frac{{{i}}}{{7}}}}", f"{i}/7") for i in range(1, 7)]
        assert [other.result().score for other in others] == [1.0] * 6
        assert len(grader._pool.pids) == 2 and not waiting.done() and not same.done()
        os.kill(first, signal.SIGCONT)
        assert waiting.result() == same.result() and waiting.result().score == 1.0


def test_a_verdict_does_not_hang_on_what_was_asked_before() -> None:
    answers = [pair for pair in math_pairs() if pair.kind in ("surds", "units", "matrices")][:300]

    def notes(order: list[Pair]) -> dict[tuple[str, str], str]:
        made = MathGrader()
        found = {(p.reference, p.answer): made(rf"\boxed{{{p.answer}}}", p.reference).note for p in order}
        made.close()
        return found

    assert notes(answers) == notes(answers[::-1])


def run_python(code: str, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(vold.__file__))}
    return subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, timeout=120, env=environment
    )


def test_memory_limit_holds() -> None:
    code = "from vold.graders.mathematics.worker import _limit_memory; _limit_memory(2**28); bytearray(2**29)"
    assert "MemoryError" in run_python(code).stderr


def test_worker_out_of_memory_dies_and_so_is_replaced() -> None:
    code = (
        "from vold.graders.mathematics import equal, worker\n"
        "def compare(reference, answer): raise MemoryError\n"
        "equal.warm_up = lambda: None\n"
        "equal.compare = compare\n"
        "worker.main(1.0, 2**31)\n"
    )
    done = run_python(code, '{"reference": "5", "answer": "6"}\n')
    assert (done.returncode, done.stdout) == (1, '{"ready": true}\n')


def test_threads() -> None:
    grader = get_grader("math")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(grader, f"\\boxed{{\\frac{{{i}}}{{8}}}}", str(i % 5 / 8)) for i in range(64)]
        scores = [job.result().score for job in jobs]
    assert scores == [float(i % 5 == i) for i in range(64)]


def test_threads_with_time_outs_between(hasty: MathGrader) -> None:
    pairs = [(f"\\boxed{{\\frac{{{i}}}{{7}}}}", f"{i}/7") for i in range(12)]
    pairs[3] = pairs[9] = (HEAVY, HEAVY_REFERENCE)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        grades = list(pool.map(lambda pair: hasty(*pair), pairs))
    assert [outcome(g) for g in grades] == ["timed_out" if i in (3, 9) else "right" for i in range(12)]


def test_asyncio() -> None:
    grader = get_grader("math")

    async def grade_all() -> list[float]:
        direct = grader(HALF, "0.5").score
        others = await asyncio.gather(
            *(asyncio.to_thread(grader, f"\\boxed{{\\sqrt{{{i * i}}}}}", f"{i}.0") for i in range(1, 9))
        )
        return [direct, *(grade.score for grade in others)]

    assert asyncio.run(grade_all()) == [1.0] * 9


def grade_in_child(grader: MathGrader, queue: multiprocessing.Queue[tuple[float, int]]) -> None:
    queue.put((grader("\\boxed{\\frac{3}{2}}", "1.5").score, only_pid(grader)))
    grader.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_get_their_own_worker(method: str, grader: MathGrader) -> None:
    assert grader(HALF, "0.5").score == 1.0
    parent_pid = only_pid(grader)
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=grade_in_child, args=(grader, queue), daemon=True)  # as data-loader workers are
    child.start()
    score, pid = queue.get(timeout=120)
    child.join(timeout=60)
    assert score == 1.0
    assert pid != parent_pid
    assert only_pid(grader) == parent_pid
    assert grader("\\boxed{\\frac{5}{2}}", "2.5").score == 1.0


def test_unguarded_script_without_path(tmp_path: os.PathLike[str]) -> None:
    root = os.path.dirname(os.path.dirname(vold.__file__))
    with open(os.path.join(tmp_path, "mpmath.py"), "w") as trap:
        trap.write("raise SystemExit(3)")
    code = (
        f"import sys; sys.path.append({root!r})\n"
        "from vold.graders import get_grader\n"
        "g = get_grader('math')\n"
        "score = g('\\\\boxed{\\\\frac12}', '0.5').score\n"
        "print(score, *g._pool.pids, 'mpmath' in sys.modules, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    score, pid, mpmath, torch = done.stdout.split()
    assert (score, mpmath, torch) == ("1.0", "False", "False")
    wait_until_dead(int(pid))


def test_worker_ends_when_its_parent_is_killed() -> None:
    code = (
        "import os, signal\n"
        "from vold.graders import get_grader\n"
        "g = get_grader('math'); g('\\\\boxed{\\\\frac12}', '0.5'); print(*g._pool.pids, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    wait_until_dead(int(run_python(code).stdout))


def test_dropped_grader_ends_its_worker() -> None:
    grader = MathGrader()
    assert grader(HALF, "0.5").score == 1.0
    pid = only_pid(grader)
    del grader
    gc.collect()
    wait_until_dead(pid)


def test_pickle_and_copy_keep_the_limits(grader: MathGrader) -> None:
    grader(HALF, "0.5")
    for twin in (pickle.loads(pickle.dumps(grader)), copy.deepcopy(grader)):
        assert (twin.time_limit, twin.memory_limit) == (grader.time_limit, grader.memory_limit)
        assert twin._pool is not grader._pool


def test_broken_installation_is_an_error_not_a_zero(
    grader: MathGrader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mpmath.py").write_text("raise ImportError('broken')")
    root = os.path.dirname(os.path.dirname(vold.__file__))
    broken = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), root))}
    monkeypatch.setattr(client, "_environment", lambda: broken)
    with pytest.raises(VoldError, match="cannot start") as caught:
        grader(HALF, "0.5")
    assert "ImportError: broken" in caught.value.got


def test_worker_survives_output_of_libraries_and_bad_terms(grader: MathGrader) -> None:
    for text in ("\\boxed{\\print{x}}", "\\boxed{\\input{/etc/passwd}}", "\\boxed{\\write18{ls}}", "\\boxed{%(x)s}"):
        assert grader(text, "5").score == 0.0
    assert grader(HALF, "0.5").score == 1.0


def test_requests_fit_a_pipe() -> None:
    text = "\U0001f600" * MAX_ANSWER_CHARS
    longest = json.dumps({"reference": text, "answer": text})
    assert len(longest) < 65536
