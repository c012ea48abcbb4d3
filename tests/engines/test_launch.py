"""Servers that a run starts itself, with `fake_vllm` in vLLM's place; test_vllm_launch.py has them with vLLM."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from faults.frame import Running, in_a_child, vold_in, vold_started
from killed import after, killer, weights_of
from launched import command_line, fault, gone, gpus_are, keepers_of, launch, of_run, recipe_dict, shared_memory
from vold.demo.pipeline import run_stages
from vold.engines import http
from vold.engines.launch import server as launched_server
from vold.engines.launch import serving as launched_serving
from vold.engines.launch.devices import check_devices
from vold.engines.launch.server import HeldPort, end_left_behind, kept, rotate, tell_to_end
from vold.engines.launch.serving import keeping, serving
from vold.engines.launch.started import STARTED
from vold.engines.launch.wanted import servers_of
from vold.engines.transfer.starting import python_path
from vold.errors import ConfigError, TeacherError
from vold.evals.preflight import check
from vold.evals.recipe_doubts import recipe_doubts
from vold.evals.subject import Subject
from vold.run.alive import born_of, place
from vold.run.console import console
from vold.run.recipe import Recipe, dump_recipe, load_recipe, recipe_from
from vold.training.distill import distill
from vold.training.traces import make_traces


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder of servers: when a test is over, none of their processes is left, and none of their shared memory."""
    home = tmp_path / "a folder with spaces"
    home.mkdir()
    yield home
    assert of_run(home) == []
    assert shared_memory(home) == set()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(console, "print", lambda *words, **how: lines.append(" ".join(map(str, words))))
    return lines


def made(home: Path, **teacher: Any) -> Recipe:
    return recipe_from(recipe_dict(home, **teacher), where="test")


def addressed(recipe: Recipe) -> tuple[str, ...]:
    assert recipe.teacher is not None and recipe.teacher.server is not None
    return recipe.teacher.server.urls


def saved(home: Path, raw: dict[str, Any]) -> str:
    """A recipe as a file, which JSON is as well."""
    file = home / "recipe.yaml"
    file.write_text(json.dumps(raw))
    return str(file)


def test_a_run_starts_what_each_stage_needs_and_ends_it(home: Path, said: list[str]) -> None:
    raw = recipe_dict(home)
    raw["eval"]["models"] = {"base": "demo:student", "vold": f"{home}/run/distill/final"}
    run_stages(recipe_from(raw, where="test"))
    begun = [line.split(": ")[0].removeprefix("server ") for line in said if ": starting " in line]
    # The teacher of the traces is that of `align` and of stage 2; each of two models is tested on a server of its own.
    assert begun == ["teacher-cpu0", "distill-engine-cpu0", *["eval-endpoint-cpu0"] * 2]
    logs = sorted(str(f.relative_to(home / "run")) for f in home.rglob("*.log"))
    evals = [f"eval/servers/eval-endpoint-cpu0{n}.log" for n in (".1", "")]
    assert logs == ["distill/servers/distill-engine-cpu0.log", *evals, "traces/servers/teacher-cpu0.log"]
    assert not STARTED
    assert "127.0.0.1" not in (home / "run" / "recipe.yaml").read_text()


def test_a_server_has_a_key_an_address_of_this_machine_and_no_secret_in_its_arguments(home: Path) -> None:
    with serving(made(home), "traces") as recipe:
        (url,) = addressed(recipe)
        (one,) = [
            pid for pid in of_run(home) if "api_server" in command_line(pid) and "worker" not in command_line(pid)
        ]
        key = STARTED[url].key
        assert len(key) > 30 and key not in command_line(one)
        assert "--host 127.0.0.1" in command_line(one)
        assert httpx.get(f"{url}/models").status_code == 401
        assert httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert recipe.teacher is not None and recipe.teacher.server is not None
        assert recipe.teacher.server.model == "demo:teacher"


def test_its_requests_go_to_no_proxy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert make_traces(made(home)).exists()


def test_two_runs_at_once_have_servers_and_keys_of_their_own(home: Path) -> None:
    raw = recipe_dict(home / "other")
    with contextlib.ExitStack() as both:
        (mine,) = addressed(both.enter_context(serving(made(home), "traces")))
        pid = os.getpid()
        ended = in_a_child(lambda: _asks(mine, recipe_from(raw, where="test"), pid))
        assert ended.code == 0, ended.said
        assert STARTED[mine].key
        assert httpx.get(mine.removesuffix("/v1") + "/health").status_code == 200


def _asks(other: str, recipe: Recipe, parent: int) -> int:
    """In a process beside one that serves: starts servers too, and tries their key on the other's."""
    launched_serving._kept = None  # the parent's are not ours
    with serving(recipe, "traces") as served:
        (url,) = addressed(served)
        headers = {"Authorization": f"Bearer {STARTED[url].key}"}
        answers = [httpx.get(f"{u}/models", headers=headers).status_code for u in (url, other)]
    return 0 if answers == [200, 401] and url != other and os.getpid() != parent else 1


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (launch("--bogus"), "unrecognized arguments: --bogus"),
        (fault("exit"), "ValueError: no kernel for heads of 16"),
        ({**fault("hang"), "start_seconds": 1}, "does not answer 1 s after its start"),
        (launch(python=sys.executable), "No module named 'vllm'"),
    ],
)
def test_a_server_that_does_not_come_up_says_why(section: dict[str, Any], words: str, home: Path) -> None:
    with pytest.raises(TeacherError) as caught:
        make_traces(made(home, launch=section))
    assert words in str(caught.value)
    assert str(home / "run/traces/servers/teacher-cpu0.log") in str(caught.value)
    assert not list(home.rglob("*.json"))


def test_what_is_not_there_to_start_is_told_before(home: Path) -> None:
    with pytest.raises(ConfigError, match="no such program"):
        make_traces(made(home, launch=launch(python=str(home / "bin" / "python"))))


def test_a_server_that_dies_in_the_middle_is_started_again_and_nothing_is_lost(home: Path, said: list[str]) -> None:
    whole = make_traces(made(home)).read_bytes()
    assert whole == make_traces(made(home / "broken", launch=fault("once"))).read_bytes()
    (again,) = [line for line in said if "starting it again" in line]
    assert "has ended with status 3" in again and "no memory left" in again and "1 of 3" in again
    logs = sorted(f.name for f in (home / "broken").rglob("*.log"))
    assert logs == ["teacher-cpu0.1.log", "teacher-cpu0.log"]


def test_a_server_that_dies_as_it_takes_weights_is_started_again_and_gets_them(home: Path, said: list[str]) -> None:
    ends = []
    for name, section in (("whole", launch()), ("broken", fault("push"))):
        raw = recipe_dict(home / name)
        del raw["traces"], raw["sft"], raw["align"], raw["eval"]
        raw["distill"] |= {"init": "demo:student", "engine": {"launch": section, "patience": 60}}
        distill(recipe_from(raw, where="test"))
        ends.append(weights_of(home / name / "run/distill"))
    assert ends[0] == ends[1]
    (again,) = [line for line in said if "starting it again" in line]
    assert "distill-engine-cpu0 has ended with status 3" in again


def test_a_server_that_lives_and_does_not_answer_is_started_again(
    home: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launched_server, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(launched_server, "HUNG_SECONDS", 1.0)
    rows = make_traces(made(home, launch=fault("deaf"))).read_bytes()
    (again,) = [line for line in said if "starting it again" in line]
    assert "has not answered for 1 s" in again
    assert rows == make_traces(made(home / "well")).read_bytes()


def test_a_server_that_dies_again_and_again_stops_the_run(
    home: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LONGEST_WAIT_SECONDS", 0.2)
    with pytest.raises(TeacherError, match="no memory left"):
        make_traces(made(home, launch=fault("always")))
    assert sum("starting it again" in line for line in said) == 3


def test_a_port_that_somebody_has_taken_is_left_to_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first: list[HeldPort] = []

        def port() -> HeldPort:
            held = HeldPort()
            if not first:
                first.append(held)
                theirs.bind(("127.0.0.1", held.number))
                theirs.listen()
            return held

        monkeypatch.setattr(launched_server, "HeldPort", port)
        with serving(made(home), "traces") as recipe:
            assert str(first[0].number) not in addressed(recipe)[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_a_held_port_is_nobody_elses_at_any_address_until_it_is_free(host: str) -> None:
    held = HeldPort()
    with socket.socket() as theirs:
        with pytest.raises(OSError, match="ddress already in use"):
            theirs.bind((host, held.number))
        held.free()
        theirs.bind((host, held.number))


def test_another_program_at_the_port_is_not_taken_for_ours(home: Path) -> None:
    with serving(made(home), "traces") as recipe:
        (url,) = addressed(recipe)
        key = STARTED[url].key
        assert launched_server.answers(url, key, "demo:teacher")
        assert not launched_server.answers(url, "another key", "demo:teacher")
        assert not launched_server.answers(url, key, "another model")
    assert not launched_server.answers(url, key, "demo:teacher")


def test_a_keeper_that_is_killed_takes_its_server_along_and_both_come_again(home: Path) -> None:
    with serving(made(home), "traces") as recipe:
        (url,) = addressed(recipe)
        (keeper,) = keepers_of(home)
        before = of_run(home)
        os.kill(keeper, signal.SIGKILL)
        for pid in before:
            gone(pid)
        until(lambda: launched_server.answers(url, STARTED[url].key, "demo:teacher"))
        assert set(before).isdisjoint(of_run(home))


def started(home: Path, verb: str, **teacher: Any) -> Running:
    return vold_started([verb, saved(home, recipe_dict(home, **teacher))], home)


def until(there: Callable[[], bool], seconds: float = 120.0) -> None:
    """Come back when it is so; a test that waits for longer fails."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("phase", ["starting", "at work", "that does not end"])
def test_a_signal_to_the_run_ends_its_servers(
    number: signal.Signals, phase: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launched_server, "GRACE", 0.5)
    section = {"starting": fault("hang"), "at work": launch(), "that does not end": fault("stay")}[phase]
    run = started(home, "traces", launch=section)
    log = home / "run/traces/servers/teacher-cpu0.log"
    mark = "INFO loading" if phase == "starting" else "INFO /v1/completions"
    until(lambda: log.exists() and mark in log.read_text())
    keepers = list(keepers_of(home))
    servers = of_run(home)
    assert servers
    os.kill(run.pid, number)
    ended = run.end()
    assert ended.code == (-9 if number == signal.SIGKILL else 128 + number), ended.said
    for pid in (*keepers, *servers):
        gone(pid)


def test_what_a_killed_start_has_left_is_ended_by_the_next(home: Path, said: list[str]) -> None:
    """Run and keeper are killed at once, and a worker of the server is left."""
    run = started(home, "traces")
    log = home / "run/traces/servers/teacher-cpu0.log"
    until(lambda: log.exists() and "INFO /v1/completions" in log.read_text())
    (keeper,) = keepers_of(home)
    for pid in (run.pid, keeper):
        os.kill(pid, signal.SIGKILL)
    run.end()
    gone(keeper)
    assert of_run(home)
    make_traces(made(home))
    assert any("an earlier start had left behind: teacher-cpu0" in line for line in said)


def test_a_record_of_another_process_ends_nobody(tmp_path: Path) -> None:
    """Its process ids have been given to others since, or it is another machine's or run's."""
    waits = [sys.executable, "-c", "input()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, process_group=0) as bystander:
        pid, born, here = bystander.pid, born_of(bystander.pid), place()
        mine = {"keeper": [pid, born - 1], "server": [pid, born], "place": here, "record": str(tmp_path / "x.json")}
        others: list[dict[str, Any]] = [
            {"server": [pid, born - 1]},
            {"place": "elsewhere"},
            {"record": "/of/another/run"},
            {"keeper": None},
        ]
        for told in others:
            record = {**mine, **told}
            (tmp_path / "x.json").write_text(json.dumps(record))
            assert not end_left_behind(tmp_path / "x.json")
        assert bystander.poll() is None
        bystander.communicate(b"\n")


def test_a_log_that_cannot_be_written_stops_no_server(tmp_path: Path) -> None:
    """The disk of the log is full; what the server says last is told all the same."""
    said = (
        "print('first', flush=True); input(); print('x' * 100_000, flush=True); print('the end'); raise SystemExit(7)"
    )
    order = {
        "command": [sys.executable, "-c", said.replace("input(); ", "")],
        "env": dict(os.environ),
        "cwd": str(tmp_path),
        "log": "/dev/full",
        "record": str(tmp_path / "record.json"),
        "parent": os.getpid(),
        "grace": 1.0,
    }
    keeper = subprocess.Popen(
        [sys.executable, "-m", "vold.engines.launch.keeper"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    keeper.stdin.write(json.dumps(order).encode() + b"\n")
    keeper.stdin.flush()
    told = json.loads(keeper.stdout.read())
    keeper.communicate()
    assert told["status"] == 7
    assert "the end" in told["tail"] and "No space left" in told["tail"]


def test_logs_of_earlier_starts_are_kept_up_to_five(tmp_path: Path) -> None:
    log = tmp_path / "teacher-cpu0.log"
    for start in range(8):
        rotate(log)
        log.write_text(str(start))
    found = {f.name: f.read_text() for f in tmp_path.iterdir()}
    assert found == {"teacher-cpu0.log": "7", **{f"teacher-cpu0.{n}.log": str(7 - n) for n in range(1, 6)}}


def test_servers_that_share_a_gpu_sleep_while_it_is_not_their_turn(home: Path) -> None:
    raw = recipe_dict(home, sleep=True)
    raw["distill"] |= {"engine": {"launch": launch(), "sleep": True}, "init": "demo:student", "steps": 1}
    distill(recipe_from(raw, where="test"))
    told = {}
    for name in ("teacher", "distill-engine"):
        routes = (home / f"run/distill/servers/{name}-cpu0.log").read_text().replace("INFO ", "").splitlines()
        told[name] = [r for r in routes if r.startswith(("/sleep", "/wake_up", "/v1/completions"))]
    # Each goes to sleep at its start, and is awake for its part of the step alone.
    assert told["teacher"][:2] == ["/sleep", "/wake_up"] and told["teacher"][-1] == "/sleep"
    rollouts = told["distill-engine"]
    assert rollouts[:3] == ["/sleep", "/wake_up", "/wake_up"] and rollouts[-1] == "/sleep"
    assert set(rollouts[3:-1]) == {"/v1/completions"}


def test_a_server_that_does_not_go_to_sleep_stops_the_run_in_words(home: Path) -> None:
    raw = recipe_dict(home, sleep=True)
    raw["teacher"]["server"]["launch"] = fault("awake")
    with pytest.raises(TeacherError, match="does not go to sleep: HTTPStatusError: Server error '500") as caught:
        make_traces(recipe_from(raw, where="test"))
    assert caught.value.where == str(home / "run/traces/servers/teacher-cpu0.log")


def test_a_server_that_never_stops_talking_is_ended(tmp_path: Path) -> None:
    """However much it says, and though it takes no notice of SIGTERM."""
    said = "import pathlib, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\npathlib.Path('deaf').touch()\n"
    said += "while True: print('x' * 60_000, flush=True)"
    order = {
        "command": [sys.executable, "-c", said],
        "env": dict(os.environ),
        "cwd": str(tmp_path),
        "log": os.devnull,
        "record": str(tmp_path / "record.json"),
        "parent": os.getpid(),
        "grace": 0.5,
    }
    with kept(order) as keeper:
        until((tmp_path / "deaf").exists)
        tell_to_end(keeper)
        told = keeper.communicate(timeout=60)[0]
    assert json.loads(told)["status"] == -signal.SIGKILL


def test_servers_that_start_at_once_share_the_way_to_this_package(tmp_path: Path) -> None:
    for turn in range(50):
        start = threading.Barrier(4)

        def path(home: Path = tmp_path / str(turn), start: threading.Barrier = start) -> str:
            start.wait()
            return python_path(home)["PYTHONPATH"]

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            (found,) = {one.result() for one in [pool.submit(path) for _ in range(4)]}
        assert [f.name for f in Path(found).iterdir()] == ["vold"]


def test_a_killed_run_started_again_ends_in_the_same_weights(home: Path) -> None:
    """Killed at flushes further and further on, its servers with it, until it comes to its end."""
    raw = recipe_dict(home / "whole")
    for stage in ("sft", "align", "eval"):
        del raw[stage]
    raw["distill"]["init"] = "demo:student"
    file = saved(home, raw)
    assert vold_in(["run", file], home).code == 0
    broken = home / "broken"
    for kills in itertools.count():
        count = killer(10 * (kills + 1))

        def counted(count: Callable[[], None] = count) -> None:
            os.fsync = after(count, os.fsync)

        ended = vold_in(["run", file, f"run.dir={broken}/run"], home, counted)
        for pid in [*keepers_of(broken), *of_run(broken)]:
            gone(pid)
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended.said
    assert kills >= 4
    assert weights_of(broken / "run/distill") == weights_of(home / "whole/run/distill")


@pytest.mark.parametrize(
    ("teacher", "engine", "words"),
    [
        ({"devices": [1]}, {"devices": [2]}, None),
        ({"devices": [[0, 1]]}, {"devices": [2, 3]}, None),
        ({"devices": [1]}, {"devices": [7]}, "no such GPU"),
        ({"devices": [1]}, {"devices": [2, 1]}, "one GPU at the same time"),
        ({"devices": [[1, 2]]}, {"devices": [2]}, "one GPU at the same time"),
        ({"devices": ["cpu"]}, {"devices": ["cpu", "cpu"]}, None),
    ],
)
def test_servers_get_gpus_that_are_there_and_their_own(
    teacher: Any, engine: Any, words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus_are(monkeypatch, tmp_path, 0, 1, 2, 3)
    raw = recipe_dict(tmp_path)
    raw["teacher"]["server"]["launch"] |= teacher
    raw["distill"]["engine"]["launch"] |= engine
    recipe = recipe_from(raw, where="test")
    with contextlib.nullcontext() if words is None else pytest.raises(ConfigError, match=words):
        check_devices(recipe, "distill", servers_of(recipe, "distill"))
    for section in (raw["teacher"]["server"], raw["distill"]["engine"]):
        section["sleep"] = True
    recipe = recipe_from(raw, where="test")
    with contextlib.nullcontext() if words != "no such GPU" else pytest.raises(ConfigError, match=words):
        check_devices(recipe, "distill", servers_of(recipe, "distill"))


def test_a_server_is_told_its_gpus_and_nothing_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    raw = recipe_dict(tmp_path)
    raw["teacher"]["server"]["launch"] |= {"devices": [[4, 5], 6], "args": ["--max-model-len", "99"]}
    raw["traces"]["devices"] = [4, 5, 6]
    recipe = recipe_from(raw, where="test")
    pair, single, *_ = servers_of(recipe, "distill")
    env = pair.environment("secret", tmp_path)
    assert (env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"], env["VLLM_API_KEY"]) == (
        "4,5",
        "PCI_BUS_ID",
        "secret",
    )
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "PYTHONPATH"} & {*env}
    words = " ".join(pair.command("127.0.0.1", 8000))
    assert "--tensor-parallel-size 2" in words and "--max-model-len 99" in words and "--port 8000" in words
    assert "--tensor-parallel-size" not in " ".join(single.command("127.0.0.1", 8000))
    assert [one.devices for one in servers_of(recipe, "traces")] == [(4,), (5,), (6,)]
    # The one that both stages want is one and the same.
    assert {*servers_of(recipe, "traces")} & {*servers_of(recipe, "distill")} == {single}


STUDENTS_CHOICE = {"teacher_loss": {"estimator": "reverse_kl", "top_k": {"k": 32, "support": "student"}}}


@pytest.mark.parametrize(
    ("distill", "rollouts", "teacher"),
    [
        ({}, None, None),
        ({"sampling": {"max_new_tokens": 8, "top_p": 0.9}}, "256", None),  # as many ids as can be kept
        ({"sampling": {"max_new_tokens": 8, "top_k": 50}}, "50", None),
        ({"sampling": {"max_new_tokens": 8, "top_k": 5}}, None, None),  # vLLM's own is 20
        ({"objective": STUDENTS_CHOICE}, "32", "32"),
    ],
)
def test_servers_may_be_asked_for_as_many_log_probs_as_their_role_needs(
    distill: dict[str, Any], rollouts: str | None, teacher: str | None, tmp_path: Path
) -> None:
    raw = recipe_dict(tmp_path)
    raw["distill"] |= distill
    found = {}
    for one in servers_of(recipe_from(raw, where="test"), "distill"):
        at = one.options.index("--max-logprobs") + 1 if "--max-logprobs" in one.options else None
        found[one.role] = None if at is None else one.options[at]
        if one.role == "teacher":  # the route that is asked for candidates
            assert one.options.count("--enable-scale-out") == (distill.get("objective") is STUDENTS_CHOICE)
    assert found == {"rollouts": rollouts, "teacher": teacher}


def test_a_server_on_a_cpu_is_a_process_less_unless_that_one_is_bound_to_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    less, bound = "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_OMP_THREADS_BIND"
    for name in (less, bound):
        monkeypatch.delenv(name, raising=False)
    (server,) = servers_of(made(tmp_path), "traces")
    env = server.environment("secret", tmp_path)
    assert (env[less], env[bound]) == ("0", "nobind")
    monkeypatch.setenv(bound, "0-1")
    env = server.environment("secret", tmp_path)
    assert (env.get(less), env[bound]) == (None, "0-1")


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"launch": {"devices": [0]}, "urls": ["http://127.0.0.1:1/v1"]}, "`urls`, or a `launch`"),
        ({"urls": []}, "`urls`, or a `launch`"),
        ({"urls": ["http://127.0.0.1:1/v1"]}, "needs `model`"),
        ({"launch": {"devices": []}}, "devices"),
        ({"launch": {"devices": [[]]}}, "no device"),
        ({"launch": {"devices": [0, [1, 0]]}}, "given twice"),
        ({"launch": {"devices": [-1]}}, "devices"),
        ({"launch": {"devices": [0], "args": ["--port=8000"]}}, "vold says this"),
        ({"launch": {"devices": [0], "args": ["--api-key", "x"]}}, "vold says this"),
        ({"launch": {"devices": [0]}, "key_env": "KEY"}, "key of their own"),
    ],
)
def test_a_section_that_cannot_be_started_is_refused(server: dict[str, Any], words: str, tmp_path: Path) -> None:
    raw = recipe_dict(tmp_path)
    raw["teacher"]["server"] = server
    with pytest.raises(ConfigError, match=words):
        recipe_from(raw, where="test")


def test_what_is_said_of_servers_that_do_not_need_it_is_a_doubt(tmp_path: Path) -> None:
    raw = recipe_dict(tmp_path)
    raw["teacher"]["server"] = {"urls": ["http://localhost:1/v1"], "model": "m"}
    raw["traces"]["devices"] = [0]
    raw["distill"]["engine"] |= {"transfer": "nccl", "weights_dir": "w"}
    found = {one.what: one.how for one in recipe_doubts(Subject(recipe_from(raw, where="test")))}
    assert found["traces.devices"] == "`teacher.server` has no `launch`, so no server is started there"
    assert found["distill.engine.weights_dir"] == "weights go by nccl, through no directory"


def test_a_recipe_as_it_ran_is_one_again(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_check_says_what_would_be_started_and_starts_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus_are(monkeypatch, home, 0, 1)
    raw = recipe_dict(home)
    raw["teacher"]["server"]["launch"] |= {"devices": [[0, 1]]}
    lines = check(recipe_from(raw, where="test"))
    assert "servers of traces: teacher-gpu0-1: demo:teacher on GPU 0+1" in lines
    assert any(line.startswith("servers of eval: eval-endpoint-cpu0: demo:student on the processor") for line in lines)
    raw["teacher"]["server"]["launch"] |= {"devices": [2]}
    with pytest.raises(ConfigError, match="no such GPU"):
        check(recipe_from(raw, where="test"))


def test_stages_that_share_a_server_start_it_once_and_end_it_last(home: Path, said: list[str]) -> None:
    raw = recipe_dict(home)
    raw["distill"]["init"] = "demo:student"
    recipe = recipe_from(raw, where="test")
    with keeping():
        with serving(recipe, "traces") as first:
            pass
        with serving(recipe, "distill") as second:
            assert addressed(first) == addressed(second)
        with serving(recipe, "eval", "demo:student"):
            assert not launched_server.answers(addressed(first)[0], "", "demo:teacher")
    assert sum("teacher-cpu0: starting" in line for line in said) == 1
