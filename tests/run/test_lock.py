"""One process at a time in a run directory: who gets it, who is told what, and who takes over from the dead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vold.errors import ConfigError
from vold.run import alive, lock
from vold.run.lock import LOCK, RunLock, confirm, owning

BEAT = 0.05


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunLock, "beat", BEAT)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory that holds something."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "traces").mkdir()
    return tmp_path / "run"


def child(work: Callable[[], None]) -> int:
    """Start a process; its exit status is 0 if `work` ends, 2 if it is refused, and 1 otherwise."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            work()
            code = 0
        except ConfigError:
            code = 2
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    return pid


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def hold(run: Path) -> None:
    with owning(run, "sft"):
        pass


@contextlib.contextmanager
def held(run: Path, before: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Another process owns the run inside the block."""
    here, there = os.pipe()

    def work() -> None:
        before()
        with owning(run, "sft"):
            os.write(there, b"x")
            signal.pause()

    pid = child(work)
    assert os.read(here, 1) == b"x"
    os.close(here)
    os.close(there)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def elsewhere() -> None:
    """Make this process believe that it runs on another machine than its parent."""
    place = alive.place()
    alive.place = lambda: f"elsewhere {place}"


def files(run: Path) -> list[str]:
    return sorted(p.name for p in (run / LOCK).iterdir())


def test_a_second_process_is_told_who_is_there(run: Path) -> None:
    with held(run) as pid:
        before = files(run)
        with (
            pytest.raises(ConfigError, match="another process is at work in this run directory") as caught,
            owning(run, "eval"),
        ):
            pass
        assert caught.value.where == str(run)
        assert caught.value.got.startswith(f"`vold sft`, process {pid} on {os.uname().nodename}, since 20")
        assert f"kill {pid}" in caught.value.fix
        assert files(run) == before


def test_a_suspended_process_keeps_its_run(run: Path) -> None:
    with held(run) as pid:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        with pytest.raises(ConfigError) as caught, owning(run, "sft"):
            pass
        assert caught.value.got.endswith("(suspended)")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_one_is_followed_at_once(run: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunLock, "beat", 1e6)
    with held(run) as pid:
        os.kill(pid, how)
        os.waitpid(pid, 0)
        with owning(run, "sft"):
            assert len(files(run)) == 1


def test_a_dead_one_that_nobody_has_waited_for_is_dead(run: Path) -> None:
    with held(run) as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with owning(run, "sft"):
            pass


def test_an_id_that_another_process_has_now_is_not_the_owner(run: Path) -> None:
    with held(run) as pid:
        (file,) = (run / LOCK).iterdir()
        owner = json.loads(file.read_text())
        assert owner["pid"] == pid
        file.write_text(json.dumps(owner | {"born": owner["born"] - 1}))
        with owning(run, "sft"):
            pass


@pytest.mark.parametrize("how", ["return", "error", "interrupt"])
def test_it_is_let_go_however_the_block_ends(run: Path, how: str) -> None:
    def work() -> None:
        with owning(run, "sft"):
            if how == "error":
                raise ConfigError("no", fix="yes")
            if how == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
                signal.pause()

    assert status(child(work)) == {"return": 0, "error": 2, "interrupt": 130}[how]
    (file,) = (run / LOCK).iterdir()
    left = json.loads(file.read_text())
    assert (left["state"], left["why"]) == (("fail", "no") if how == "error" else ("free", ""))
    with owning(run, "sft"):
        pass


def test_a_block_inside_another_is_part_of_it(run: Path) -> None:
    with owning(run, "demo"):
        with owning(run / "traces" / "..", "sft"):
            pass
        assert status(child(lambda: hold(run))) == 2


def test_another_thread_of_the_process_is_another_owner(run: Path) -> None:
    found: list[str] = []

    def work() -> None:
        try:
            with owning(run, "sft"):
                found.append("in")
        except ConfigError as error:
            found.append(error.got)

    with owning(run, "distill"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found[0].startswith(f"`vold distill`, process {os.getpid()} on ")


def test_a_forked_child_does_not_let_go(run: Path) -> None:
    with owning(run, "sft") as _, contextlib.ExitStack() as stack:
        (inner,) = lock._held.values()
        stack.callback(lambda: None)
        assert status(child(inner.release)) == 0
        (file,) = (run / LOCK).iterdir()
        assert json.loads(file.read_text())["state"] == "held"


def test_only_the_first_of_several_training_processes_owns(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(run):
        monkeypatch.setenv("RANK", "1")
        with owning(run, "sft") as first:
            assert first is False


def test_from_elsewhere_a_heartbeat_keeps_the_owner(run: Path) -> None:
    with held(run, before=elsewhere) as pid, pytest.raises(ConfigError) as caught, owning(run, "sft"):
        pass
    assert f"process {pid} " in caught.value.got


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_from_elsewhere_an_owner_without_a_heartbeat_is_followed(
    run: Path, how: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(run, before=elsewhere) as pid:
        os.kill(pid, how)
        os.waitpid(pid, os.WUNTRACED)
        began = time.monotonic()
        with owning(run, "sft"):
            assert time.monotonic() - began >= RunLock.missed * BEAT
            confirm(run / "sft" / "metrics.jsonl")
        said = capsys.readouterr().out
        assert "looking for its heartbeat" in said
        assert f"no heartbeat: {RunLock.missed}/{RunLock.missed}" in said


def test_an_owner_that_was_followed_writes_nothing_more(run: Path) -> None:
    here, there = os.pipe()

    def work() -> None:
        elsewhere()
        with owning(run, "sft"):
            os.write(there, b"x")
            signal.raise_signal(signal.SIGSTOP)
            confirm(run / "sft" / "metrics.jsonl")

    pid = child(work)
    assert os.read(here, 1) == b"x"
    os.waitpid(pid, os.WUNTRACED)
    with owning(run, "sft"):
        os.kill(pid, signal.SIGCONT)
        assert status(pid) == 2
        confirm(run / "sft" / "metrics.jsonl")


def test_removing_the_lock_stops_its_owner(run: Path) -> None:
    with owning(run, "sft"):
        confirm(run / "x")
        confirm(run.parent / "x")
        (file,) = (run / LOCK).iterdir()
        file.unlink()
        with pytest.raises(ConfigError, match="does not own its run directory any more") as caught:
            confirm(run / "x")
        assert "removed" in caught.value.got
        confirm(run.parent / "x")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"token": 3}', b"\xff" * 3000, b"[" * 100_000])
def test_a_damaged_lock_is_watched_and_then_followed(run: Path, content: bytes) -> None:
    (run / LOCK).mkdir()
    (run / LOCK / "7").write_bytes(content)
    with owning(run, "sft"):
        assert files(run) == ["8"]


def test_what_a_kill_leaves_while_a_lock_is_made_is_swept(run: Path) -> None:
    """At each instant: only the directory, its temporary file, the file beside the temporary one."""
    (run / LOCK).mkdir()
    with owning(run, "sft"):
        (made,) = files(run)
    content = (run / LOCK / made).read_bytes()
    (run / LOCK / "half.new").write_bytes(content[:100])
    (run / LOCK / str(int(made) + 1)).write_bytes(content)
    with owning(run, "sft"):
        assert files(run) == [str(int(made) + 2)]


def test_without_hard_links_it_works_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(old: object, new: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    with owning(run, "sft"):
        assert len(files(run)) == 1
        assert status(child(lambda: hold(run))) == 2


def test_a_refused_directory_that_did_not_exist_is_gone_again(tmp_path: Path) -> None:
    with owning(tmp_path / "a" / "b", "sft"):
        assert (tmp_path / "a" / "b" / LOCK).is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_stop_the_heartbeat(run: Path) -> None:
    with held(run) as pid:
        (file,) = (run / LOCK).iterdir()
        os.chmod(run / LOCK, 0o500)
        seen = {file.read_bytes()}
        while len(seen) < 3:
            seen.add(file.read_bytes())
        os.chmod(run / LOCK, 0o700)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)


@pytest.mark.parametrize("dead", ["killed", "elsewhere"])
def test_of_many_that_find_it_dead_one_follows(run: Path, dead: str) -> None:
    """Every process that gets in writes its name twice, with a wait between: two at a time would mix theirs."""
    log = run / "log"
    with held(run, before=elsewhere if dead == "elsewhere" else lambda: None) as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        here, there = os.pipe()

        def work() -> None:
            os.close(there)
            os.read(here, 1)  # ends when the parent lets go: all start at once
            with owning(run, "sft"):
                for _ in range(2):
                    with log.open("a") as f:
                        f.write(f"{os.getpid()}\n")
                    time.sleep(0.2)

        pids = [child(work) for _ in range(6)]
        os.close(there)
        os.close(here)
        codes = [status(p) for p in pids]
    lines = log.read_text().split()
    assert set(codes) <= {0, 2}
    assert lines[::2] == lines[1::2]
    assert codes.count(0) == len(lines) // 2 >= 1


def test_hammered_by_many_it_is_never_held_twice(run: Path) -> None:
    """Eight processes take it, let it go or die with it, as fast as they can. Inside, each makes a file that must not
    be there; a dead one leaves its own, which only its follower may remove."""
    inside = run / "inside"

    def work(seed: int) -> None:
        won = 0
        for turn in range(400):
            try:
                with owning(run, "sft"):
                    won += 1
                    left = inside.read_text() if inside.exists() else ""
                    if left and (found := alive.seen(int(left))) is not None and found.state != "Z":
                        os._exit(9)  # somebody else is in here
                    inside.unlink(missing_ok=True)
                    fresh = os.open(inside, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                    os.write(fresh, str(os.getpid()).encode())
                    os.close(fresh)
                    if (seed + turn) % 37 == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    inside.unlink()
            except ConfigError:
                continue
        os._exit(0 if won else 3)

    left = [(seed, child(lambda seed=seed: work(seed))) for seed in range(8)]  # type: ignore[misc]
    codes = [status(pid) for _, pid in left]
    assert set(codes) <= {0, 3, -signal.SIGKILL}
    assert codes.count(-signal.SIGKILL) >= 1
    assert 9 not in codes
    with owning(run, "sft"):
        assert len(files(run)) == 1
