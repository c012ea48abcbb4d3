"""The live page's server: who may read what, and how it follows a run."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from made_run import make_run
from stored import store_rows
from vold.errors import ConfigError, DataError
from vold.evals.compare import compare_all
from vold.report.evaluation import write_results
from vold.report.run_page import write_report
from vold.report.serve import HEADERS, Server
from vold.report.show import serve
from vold.run.files import append_jsonl, write_text
from vold.run.lock import owning
from watching import get, served


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


def parts(run: Server, path: str) -> Any:
    status, body = get(run, f"/{run.token}/{path}")
    assert status == 200, body
    return json.loads(body)


def test_only_who_knows_the_word_and_asks_this_machine_is_answered(made: Path) -> None:
    with served(made) as server:
        assert server.server_address[0] == "127.0.0.1"
        here = f"/{server.token}/"
        assert get(server, here)[0] == 200
        assert get(server, here, f"localhost:{server.server_port}")[0] == 200
        for path in (
            "/",
            "",
            f"/{server.token}",
            "/x/",
            f"/{server.token[:-1]}/",
            f"/{server.token}x/",
            "/favicon.ico",
        ):
            assert get(server, path or "/") == (404, "nothing here"), path
        for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", "127.0.0.1:1", " "):
            assert get(server, here, host)[0] in (400, 404), host
        assert get(server, here, method="POST")[0] == 501
    with served(made) as other:
        assert len(other.token) == 32 and other.token != server.token


def test_no_address_is_a_path(made: Path) -> None:
    with served(made.parent) as server:
        for name in ("tiny", "../tiny", "tiny/..", "%2e%2e", "..%2f..%2fetc", "tiny/distill"):
            for what in ("", "now", "passwd", "recipe.yaml", "distill/metrics.jsonl", "results.html", "compare.html"):
                status, body = get(server, f"/{server.token}/{name}/{what}")
                assert (status == 200) == (name == "tiny" and what in ("", "now")), (name, what, body[:80])
        for path in ("//etc/passwd", "/../../etc/passwd", "/tiny/../../../etc/passwd", "/tiny/now/"):
            assert get(server, f"/{server.token}{path}") == (404, "nothing here")


def test_an_answer_goes_out_in_one_piece(made: Path) -> None:
    """In two, the second waits until the browser has acknowledged the first, which it puts off by 40 ms."""
    with served(made) as server, socket.create_connection(("127.0.0.1", server.server_port)) as there:
        there.sendall(
            f"GET /{server.token}/find?text=a HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n".encode()
        )
        head, _, body = there.recv(1 << 16).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head and json.loads(body)


def test_the_pages_of_a_run_lead_to_each_other(made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made, tmp_path / "runs" / "one")
    write_results(run / "eval" / "results.html", {}, {})
    there = re.search(r'href="([^"]+)"[^>]*>Evaluation page<', write_report(run).read_text())
    back = re.search(r'href="([^"]+)"[^>]*>Page of the run<', (run / "eval" / "results.html").read_text())
    assert there is not None and back is not None
    assert (run / there[1]).samefile(run / "eval" / "results.html")
    assert (run / "eval" / back[1]).samefile(run / "report.html")
    for folder, name in ((run, ""), (run.parent, "one/")):
        with served(folder) as server:
            page = f"/{server.token}/{name}"
            assert f'href="{there[1]}"' in get(server, page)[1]
            assert "A vold evaluation" in get(server, urljoin(page, there[1]))[1]
            assert "A vold run" in get(server, urljoin(urljoin(page, there[1]), back[1]))[1]


def test_a_page_of_runs_side_by_side_is_served_and_led_to_where_there_is_one(made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made, tmp_path / "runs" / "one")
    link = '<a href="compare.html">Beside other runs</a>'
    write_text(tmp_path / "runs" / "compare.html", "of no run")
    with served(run) as alone, served(run.parent) as several:
        places = ((alone, f"/{alone.token}/"), (several, f"/{several.token}/one/"))
        for server, page in places:
            assert link not in get(server, page)[1]
            assert get(server, f"{page}compare.html") == (404, "nothing here")
        assert link not in write_report(run).read_text()
        assert compare_all(str(run), [str(shutil.copytree(made, run.parent / "two"))]) == run / "compare.html"
        for server, page in places:
            assert link in get(server, page)[1]
            assert get(server, f"{page}compare.html") == (200, (run / "compare.html").read_text())
        assert link in write_report(run).read_text()
        for path in ("compare.html", "two/compare.html", "one/../compare.html", "one/eval/compare.html"):
            assert get(several, f"/{several.token}/{path}") == (404, "nothing here"), path


def test_nothing_is_kept_framed_or_fetched_from_elsewhere(made: Path) -> None:
    with served(made) as server:
        _, html = get(server, f"/{server.token}/")
    assert re.search(r"default-src 'none'; .*connect-src 'self'; base-uri 'none'", html)
    assert HEADERS["Cache-Control"] == "no-store" and HEADERS["X-Frame-Options"] == "DENY"
    assert HEADERS["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", html)


def test_it_follows_metrics_and_rollouts(made: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with served(run) as server:
        first = parts(server, "now")
        assert list(first["steps"]) == ["0", "2", "3"] and "4 of 4 steps" in first["html"]
        again = parts(server, f"now?have={first['version']}")
        assert "html" not in again and again["steps"] == first["steps"]
        append_jsonl(run / "distill" / "metrics.jsonl", [{"step": 4, "reward": 0.25}])
        store_rows(run / "distill" / "rollouts", 4, [{"tokens": ["x"], "logp": [-1.0], "prompt": "new"}])
        then = parts(server, f"now?have={first['version']}")
        assert "5 of 4 steps, last reward 0.250" in then["html"] and list(then["steps"]) == ["0", "2", "3", "4"]
        assert parts(server, "step?step=4")["groups"]["0"]["prompt"] == "new"
        assert parts(server, "rollouts?at=4.0,3.1")["4.0"]["texts"] == ["x"]
        store_rows(run / "distill" / "rollouts", 4, [{"tokens": ["y"], "logp": [-1.0]}] * 2)
        assert parts(server, "now")["steps"]["4"] != then["steps"]["4"]  # written again, by a run that was resumed


def test_a_run_is_running_while_a_process_owns_it(made: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "eval" / "results.json").unlink()
    write_text(run / "recipe.yaml", "distill: {steps: 9}\neval: {}\n")

    def state(server: Server) -> str:
        found = re.search(r'class="badge state (\w+)"', parts(server, "now")["html"])
        assert found is not None
        return found[1]

    with served(run) as server:
        assert state(server) == "stopped"
        with owning(run, "distill"):
            assert state(server) == "running"
        assert state(server) == "stopped"
        with pytest.raises(ConfigError), owning(run, "distill"):
            raise ConfigError("no")
        assert state(server) == "failed"


def test_rollouts_are_searched_by_what_was_asked_and_written(made: Path) -> None:
    with served(made) as server:
        assert parts(server, "find?step=3&text=1%20%2B%200") == {"3": [0, 1, 2, 3]}  # the prompt of the first group
        assert parts(server, "find?step=3&text=2%20%3D%203") == {"3": [1, 3, 5, 7]}  # those that pass go on that far
        assert parts(server, "find?step=3&text=nowhere") == {"3": []}
        assert parts(server, "find?text=2%20%3D%203") == {step: [1, 3, 5, 7] for step in "023"}


@pytest.mark.parametrize(
    "path", ["step", "step?step=1", "step?step=-1", "rollouts?at=3.99", "rollouts?at=x", "find?step=1&text=a"]
)
def test_what_is_not_there_is_said_in_words(made: Path, path: str) -> None:
    with served(made) as server:
        status, body = get(server, f"/{server.token}/{path}")
    assert status == 500 and "Traceback" not in body and len(body) > 10


def test_a_damaged_file_is_said_and_the_server_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "distill" / "rollouts" / "step-000003.safetensors").write_bytes(b"x")
    with served(run) as server:
        assert "these are no stored rollouts" in get(server, f"/{server.token}/step?step=3")[1]
        assert parts(server, "step?step=2")["rows"]


def test_a_folder_of_runs_has_a_page_of_them(made: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "b <i>")
    make_run(tmp_path / "c")
    (tmp_path / "c" / "distill" / "metrics.jsonl").write_text("{\n{}\n")
    with served(tmp_path) as server:
        _, html = get(server, f"/{server.token}/")
        addresses = re.findall(r'<tr><td><a href="([^"]*)">', html)
        assert addresses == ["a/b%20%3Ci%3E/", "c/"]
        assert "damaged" in html and "<i>" not in html.partition("<main>")[2]
        status, page = get(server, f"/{server.token}/{addresses[0]}")
        assert status == 200 and '<a href="../../">All runs</a>' in page


def test_the_list_of_a_folder_follows_its_runs(made: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run = make_run(runs / "one")
    (run / "eval" / "results.json").unlink()

    def states(found: Any) -> list[str]:
        return re.findall(r'<td class="state (\w+)">', found["html"])

    with served(runs) as server:
        first = parts(server, "now")
        assert states(first) == ["finished"] and "4 of 4 steps" in first["html"]
        assert parts(server, f"now?have={first['version']}") == {"version": first["version"]}
        append_jsonl(run / "distill" / "metrics.jsonl", [{"step": 4, "reward": 0.25}])
        then = parts(server, f"now?have={first['version']}")
        assert "5 of 4 steps, last reward 0.250" in then["html"]
        write_text(run / "recipe.yaml", "distill: {steps: 9}\neval: {}\n")
        for why in ("no room", "no time"):
            with pytest.raises(ConfigError), owning(run, "eval"):
                assert states(parts(server, f"now?have={then['version']}")) == ["running"]
                raise ConfigError(why)
            then = parts(server, f"now?have={then['version']}")
            assert states(then) == ["failed"] and f"eval: {why}" in then["html"]
        make_run(runs / "two")
        (runs / "two" / "distill" / "metrics.jsonl").write_text("{\n{}\n")
        then = parts(server, f"now?have={then['version']}")
        assert states(then) == ["failed", "damaged"]


@pytest.mark.parametrize("port", ["x", "-1", "70000", "\u0661"])
def test_a_port_that_is_none_is_refused(made: Path, port: str) -> None:
    with pytest.raises(ConfigError, match="no port"):
        serve(made, port=port)


def test_a_port_that_is_taken_and_a_folder_without_runs(made: Path, tmp_path: Path) -> None:
    with served(made) as server, pytest.raises(ConfigError, match="cannot be taken"):
        serve(made, port=str(server.server_port))
    with pytest.raises(DataError, match="no run here"):
        serve(tmp_path)
