"""The math worker: callers of every kind, limits, and recovery. No test asserts a duration."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import gc
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import vold
from vold.errors import VoldError
from vold.graders import get_grader, outcome
from vold.graders.math import MAX_ANSWER_CHARS, MathGrader
from vold.graders.mathematics import client

HOSTILE = "\\boxed{9^{9^9}}"
HALF = "\\boxed{\\frac{1}{2}}"


@pytest.fixture
def grader() -> Iterator[MathGrader]:
    made = MathGrader(time_limit=1.5)
    yield made
    made.close()


def wait_until_dead(pid: int) -> None:
    for _ in range(500):
        if not os.path.exists(f"/proc/{pid}"):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def test_integers_and_boxless_text_need_no_worker(grader: MathGrader) -> None:
    assert grader("\\boxed{8}", "8").score == 1.0
    assert grader("8", "8").score == 0.0
    assert grader._client.pid is None


def test_verdicts_are_remembered_and_equal_to_fresh_ones(grader: MathGrader) -> None:
    answers = ["0.5", "x", "\\frac{2}{4}", "???", "1=2", "5 cm", "0.5"]
    first = [grader(f"\\boxed{{{a}}}", "\\frac{1}{2}") for a in answers]
    again = [grader(f"\\boxed{{{a}}}", "\\frac{1}{2}") for a in answers]
    grader.close()
    other = MathGrader(time_limit=3.0)
    fresh = [other(f"\\boxed{{{a}}}", "\\frac{1}{2}") for a in reversed(answers)]
    other.close()
    assert first == again == fresh[::-1]


def test_time_out_then_next_answer_is_graded(grader: MathGrader) -> None:
    for turn in range(2):
        late = grader(HOSTILE, "5")
        assert (late.score, late.extracted, late.note) == (0.0, "9^{9^9}", "grader time-out")
        assert outcome(late) == "timed_out"
        assert grader(f"\\boxed{{\\frac{{{2 * turn + 1}}}{{2}}}}", f"{turn}.5").score == 1.0


def test_time_out_is_not_remembered(grader: MathGrader) -> None:
    assert grader(HOSTILE, "5").note == "grader time-out"
    assert not grader._verdicts


def test_killed_worker_is_replaced(grader: MathGrader) -> None:
    for turn in range(3):
        assert grader(f"\\boxed{{\\frac{{1}}{{{turn + 2}}}}}", f"1/{turn + 2}").score == 1.0
        pid = grader._client.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)


def test_worker_killed_while_starting(grader: MathGrader) -> None:
    with grader._client._lock:
        grader._client._start()
    pid = grader._client.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert grader(HALF, "0.5").score == 1.0


def test_worker_killed_in_the_middle_of_an_answer() -> None:
    grader = MathGrader(time_limit=60.0)
    assert grader(HALF, "0.5").score == 1.0
    stop = threading.Event()

    def kill_all() -> None:
        seen = 0
        while not stop.is_set() and seen < 2:
            pid = grader._client.pid
            if pid is not None and grader._client._ready:
                time.sleep(0.2)
                with contextlib.suppress(ProcessLookupError):  # it may have been replaced meanwhile
                    os.kill(pid, signal.SIGKILL)
                    seen += 1
            time.sleep(0.02)

    killer = threading.Thread(target=kill_all)
    killer.start()
    grade = grader(HOSTILE, "5")
    stop.set()
    killer.join()
    assert grade.score == 0.0
    assert outcome(grade) == "timed_out"
    assert grade.note.startswith("grader crash")
    assert grader("\\boxed{\\frac{1}{3}}", "1/3").score == 1.0
    grader.close()


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
        "from vold.graders.mathematics import equal as judge, worker\n"
        "def compare(reference, answer): raise MemoryError\n"
        "judge.warm_up = lambda: None\n"
        "judge.compare = compare\n"
        "worker.main(1.0, 2**31)\n"
    )
    done = run_python(code, '{"id": 0, "reference": "5", "answer": "6"}\n')
    assert (done.returncode, done.stdout) == (1, '{"ready": true}\n')


def test_worker_is_replaced_after_its_share(grader: MathGrader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWERS_PER_WORKER", 2)
    pids = []
    for turn in range(3):
        assert grader(f"\\boxed{{\\frac{{1}}{{{turn + 2}}}}}", f"1/{turn + 2}").score == 1.0
        pids.append(grader._client.pid)
    assert pids[0] == pids[1] != pids[2]


def test_threads_share_one_worker() -> None:
    grader = get_grader("math")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(grader, f"\\boxed{{\\frac{{{i}}}{{8}}}}", str(i % 5 / 8)) for i in range(64)]
        scores = [job.result().score for job in jobs]
    assert scores == [float(i % 5 == i) for i in range(64)]


def test_threads_with_time_outs_between(grader: MathGrader) -> None:
    texts = [HOSTILE if i in (3, 9) else f"\\boxed{{\\frac{{{i}}}{{7}}}}" for i in range(12)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        grades = list(pool.map(lambda i: grader(texts[i], f"{i}/7"), range(12)))
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


def grade_in_child(grader: MathGrader, queue: multiprocessing.Queue[tuple[float, int | None]]) -> None:
    queue.put((grader("\\boxed{\\frac{3}{2}}", "1.5").score, grader._client.pid))
    grader.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_get_their_own_worker(method: str, grader: MathGrader) -> None:
    assert grader(HALF, "0.5").score == 1.0
    parent_pid = grader._client.pid
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=grade_in_child, args=(grader, queue), daemon=True)  # as data-loader workers are
    child.start()
    score, pid = queue.get(timeout=120)
    child.join(timeout=60)
    assert score == 1.0
    assert pid is not None and pid != parent_pid
    assert grader._client.pid == parent_pid
    assert grader("\\boxed{\\frac{5}{2}}", "2.5").score == 1.0


def test_unguarded_script_without_path(tmp_path: os.PathLike[str]) -> None:
    root = os.path.dirname(os.path.dirname(vold.__file__))
    with open(os.path.join(tmp_path, "sympy.py"), "w") as trap:
        trap.write("raise SystemExit(3)")
    code = (
        f"import sys; sys.path.append({root!r})\n"
        "from vold.graders import get_grader\n"
        "g = get_grader('math')\n"
        "score = g('\\\\boxed{\\\\frac12}', '0.5').score\n"
        "print(score, g._client.pid, 'sympy' in sys.modules, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    score, pid, sympy, torch = done.stdout.split()
    assert (score, sympy, torch) == ("1.0", "False", "False")
    wait_until_dead(int(pid))


def test_worker_ends_when_its_parent_is_killed() -> None:
    code = (
        "import os, signal\n"
        "from vold.graders import get_grader\n"
        "g = get_grader('math'); g('\\\\boxed{\\\\frac12}', '0.5'); print(g._client.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    wait_until_dead(int(run_python(code).stdout))


def test_dropped_grader_ends_its_worker() -> None:
    grader = MathGrader()
    assert grader(HALF, "0.5").score == 1.0
    pid = grader._client.pid
    assert pid is not None
    del grader
    gc.collect()
    wait_until_dead(pid)


def test_pickle_and_copy_keep_the_limits(grader: MathGrader) -> None:
    grader(HALF, "0.5")
    for twin in (pickle.loads(pickle.dumps(grader)), copy.deepcopy(grader)):
        assert (twin.time_limit, twin.memory_limit) == (grader.time_limit, grader.memory_limit)
        assert twin._client is not grader._client


def test_broken_installation_is_an_error_not_a_zero(grader: MathGrader, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"PYTHONPATH": os.path.dirname(os.path.dirname(vold.__file__)), "PATH": ""}
    monkeypatch.setattr(client, "_environment", lambda: broken)
    monkeypatch.setattr(sys, "executable", getattr(sys, "_base_executable"))  # noqa: B009 - an interpreter without Math-Verify
    if subprocess.run([sys.executable, "-c", "import math_verify"], capture_output=True).returncode == 0:
        pytest.skip("the base interpreter has Math-Verify")
    with pytest.raises(VoldError, match="cannot start"):
        grader(HALF, "0.5")


def test_worker_survives_output_of_libraries_and_bad_terms(grader: MathGrader) -> None:
    for text in ("\\boxed{\\print{x}}", "\\boxed{\\input{/etc/passwd}}", "\\boxed{\\write18{ls}}", "\\boxed{%(x)s}"):
        assert grader(text, "5").score == 0.0
    assert grader(HALF, "0.5").score == 1.0


def test_requests_fit_a_pipe() -> None:
    text = "\U0001f600" * MAX_ANSWER_CHARS
    longest = json.dumps({"id": 10**9, "reference": text, "answer": text})
    assert len(longest) < 65536
