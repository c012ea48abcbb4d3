"""Models and judges behind an endpoint: a real server on this machine that fails, dies and comes back on command."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import layouts
from chat_server import chat_client, one_by_one
from faults.frame import vold_started
from killed import in_a_process_killed_at
from vold.cli import main
from vold.data.benchmarks.item import Item
from vold.data.files.images import png_uri
from vold.engines import chat_bodies
from vold.engines.chat_api import ATTEMPTS, EndpointSampler
from vold.errors import ConfigError, SamplerError
from vold.evals.marking.llm_judge import Judge, score_vlmevalkit
from vold.graders import outcome
from vold.run.files import read_jsonl, sums_of
from vold.run.recipe import Endpoint
from vold.types import Message, SamplingParams

PARAMS = SamplingParams(max_new_tokens=16, temperature=0.5, seed=7)
Answer = Callable[[dict[str, Any], dict[str, str]], tuple[int, Any]]


def completion(text: str, *, finish: str = "stop", **more: Any) -> tuple[int, Any]:
    message = {"role": "assistant", "content": text, **more}
    return 200, {"choices": [{"message": message, "finish_reason": finish}], "usage": {"completion_tokens": 3}}


class Server:
    """Speaks chat completions; `answer(body, headers)` gives status and body."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.requests = answer, list[dict[str, Any]]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                status, reply = outer.answer(body, dict(self.headers))
                content = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(urls: list[str], questions: list[str], **options: Any) -> dict[int, Any]:
    sampler = chat_client(*urls, **options)
    prompts = [(Message("user", q),) for q in questions]
    return {r.index: r for r in one_by_one(sampler.answer(prompts, PARAMS, [0] * len(prompts)))}


def echo(body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
    return completion(str(body["messages"][0]["content"]).upper())


def test_every_reply_carries_its_own_number(serve: Callable[[Answer], Server]) -> None:
    server = serve(echo)
    replies = ask([server.url], [f"q{n}" for n in range(50)], concurrency=8)
    assert {i: r.text for i, r in replies.items()} == {n: f"Q{n}" for n in range(50)}
    assert {(b["model"], b["max_tokens"], b["temperature"], b["seed"]) for b in server.requests} == {("m", 16, 0.5, 7)}
    assert {r.tokens for r in replies.values()} == {3}


def test_samples_of_one_question_have_seeds_of_their_own(serve: Callable[[Answer], Server]) -> None:
    server = serve(echo)
    list(
        EndpointSampler(Endpoint(urls=(server.url,), model="m")).answer(
            [(Message("user", "q"),)] * 3, PARAMS, [0, 1, 2]
        )
    )
    assert len({b["seed"] for b in server.requests}) == 3


def test_pictures_go_where_their_markers_stand(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda _b, _h: completion("x"))
    message = Message("user", "a <image> b", (Image.new("RGB", (4, 2), "red"),))
    list(EndpointSampler(Endpoint(urls=(server.url,), model="m")).answer([(message,)], PARAMS, [0]))
    first, picture, last = server.requests[0]["messages"][0]["content"]
    assert (first["text"].strip(), last["text"].strip()) == ("a", "b")
    raw = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
    with Image.open(io.BytesIO(raw)) as image:
        assert image.size == (4, 2)
        assert image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(serve: Callable[[Answer], Server], status: int) -> None:
    left = [2]

    def flaky(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        left[0] -= 1
        return (status, "busy") if left[0] >= 0 else echo(body, headers)

    server = serve(flaky)
    assert ask([server.url], ["a"])[0].text == "A"
    assert len(server.requests) == 3


def test_a_reply_that_is_no_completion_is_asked_for_again(serve: Callable[[Answer], Server]) -> None:
    replies = iter(["not json", '{"choices": []}', '{"choices": [{"message": null}]}'])
    server = serve(lambda b, h: (200, found) if (found := next(replies, None)) else echo(b, h))
    assert ask([server.url], ["a"])[0].text == "A"


def test_one_of_two_servers_may_be_dead(serve: Callable[[Answer], Server]) -> None:
    dead = serve(echo)
    dead.close()
    alive = serve(echo)
    assert len(ask([dead.url, alive.url], ["a", "b", "c"])) == 3


def test_no_server_is_an_error_with_the_number_of_tries(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda _b, _h: (500, "broken"))
    with pytest.raises(SamplerError, match=f"{ATTEMPTS} tries"):
        ask([server.url], ["a"])
    assert len(server.requests) == ATTEMPTS


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_everything_is_not_tried_again(serve: Callable[[Answer], Server], status: int) -> None:
    server = serve(lambda _b, _h: (status, "no such model"))
    with pytest.raises(SamplerError, match="no such model"):
        ask([server.url], ["a"])
    assert len(server.requests) == 1


def test_one_bad_request_is_a_failed_sample_and_not_the_end(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda b, h: (400, "too large") if b["messages"][0]["content"] == "b" else echo(b, h))
    replies = ask([server.url], ["a", "b", "c"])
    assert [replies[i].text for i in range(3)] == ["A", "", "C"]
    assert "too large" in replies[1].error


def test_thinking_that_the_server_split_off_is_put_back(serve: Callable[[Answer], Server]) -> None:
    kinds = {
        "done": completion("4", reasoning_content="2+2"),
        "cut": completion("", reasoning_content="2+", finish="length"),
        "cut later": completion("4, be", reasoning_content="2+2", finish="length"),
    }
    server = serve(lambda b, _h: kinds[b["messages"][0]["content"]])
    replies = ask([server.url], list(kinds))
    assert [(replies[i].text, replies[i].finish) for i in range(3)] == [
        ("<think>2+2</think>4", "stop"),
        ("<think>2+", "length"),
        ("<think>2+2</think>4, be", "length"),
    ]


def test_the_key_comes_from_the_environment_and_is_sent(
    serve: Callable[[Answer], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def watching(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        seen.append(headers.get("Authorization", ""))
        return echo(body, headers)

    config = Endpoint(urls=(serve(watching).url,), model="m", key_env="VOLD_TEST_KEY")
    monkeypatch.delenv("VOLD_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="VOLD_TEST_KEY"):
        EndpointSampler(config)
    monkeypatch.setenv("VOLD_TEST_KEY", "secret")
    EndpointSampler(config).chat((Message("user", "a"),), PARAMS)
    assert seen == ["Bearer secret"]


def item(form: Any, answer: str, options: tuple[str, ...] = ()) -> Item:
    return Item("mathvista", "1", "How many?", options, (), answer, form, cluster="1")


def judged(serve: Callable[[Answer], Server], directory: Path, reply: str) -> tuple[Judge, Server]:
    server = serve(lambda _b, _h: completion(reply))
    return Judge(chat_client(server.url, model="judge"), directory), server


@pytest.mark.parametrize(
    ("made", "response", "reply", "score", "name"),
    [
        (item("integer", "14"), "I count fourteen of them.", "14", 1.0, "right"),
        (item("integer", "14"), "I count fourteen of them.", "Extracted answer: 15", 0.0, "wrong"),
        (item("choice", "B", ("red", "blue")), "It is the blue one.", "B", 1.0, "right"),
        (item("choice", "B", ("red", "blue")), "I cannot tell.", "NONE", 0.0, "unparsed"),
        (item("choice", "B", ("red", "blue")), "Hm.", "Z", 0.0, "unparsed"),
        (item("letters", "A, C"), "The first and the third.", "A, C", 1.0, "right"),
        (item("math", r"\frac{1}{2}"), "one half", "0.5", 1.0, "right"),
        (item("integer", "14"), "I count fourteen of them.", "<think>They said 15?</think>14", 1.0, "right"),
        (item("integer", "14"), "I count fourteen of them.", "__import__('os').system('true')", 0.0, "unparsed"),
    ],
)
def test_what_the_judge_extracts_is_compared_by_rule(
    serve: Callable[[Answer], Server], tmp_path: Path, made: Item, response: str, reply: str, score: float, name: str
) -> None:
    judge, server = judged(serve, tmp_path, reply)
    grade = score_vlmevalkit(made, response, judge)
    assert (grade.score, outcome(grade)) == (score, name)
    assert len(server.requests) == 1
    assert response in server.requests[0]["messages"][0]["content"]


def test_the_judge_is_not_asked_about_what_a_rule_can_read(serve: Callable[[Answer], Server], tmp_path: Path) -> None:
    judge, server = judged(serve, tmp_path, "14")
    assert score_vlmevalkit(item("integer", "14"), r"so \boxed{15}", judge).score == 0.0
    assert score_vlmevalkit(item("integer", "14"), "<think>14", judge, finish="length").note.startswith("truncated")
    assert not server.requests


def test_a_second_marking_asks_nobody_and_gives_the_same(serve: Callable[[Answer], Server], tmp_path: Path) -> None:
    judge, server = judged(serve, tmp_path, "14")
    first = score_vlmevalkit(item("integer", "14"), "I count fourteen of them.", judge)
    server.close()
    again = Judge(chat_client(server.url, model="judge"), tmp_path)
    assert score_vlmevalkit(item("integer", "14"), "I count fourteen of them.", again) == first
    with pytest.raises(SamplerError):
        score_vlmevalkit(item("integer", "14"), "another text", again)


def test_judges_that_share_a_directory_ask_each_question_once(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    """Each of two writes a file of its own, and a third reads both; a judge of another name shares nothing."""
    server = serve(lambda b, _h: completion(b["messages"][0]["content"].upper()))
    one, two = (Judge(chat_client(server.url, model="judge"), tmp_path, shared=True) for _ in range(2))
    assert [one.ask("a"), two.ask("b"), one.ask("a")] == ["A", "B", "A"]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    third = Judge(chat_client("http://127.0.0.1:9/v1", model="judge"), tmp_path, shared=True)
    assert [third.ask("a"), third.ask("b")] == ["A", "B"]
    assert Judge(chat_client(server.url, model="other"), tmp_path, shared=True).said("a") is None
    assert len(server.requests) == 2


def test_a_question_that_is_asked_already_is_waited_for(serve: Callable[[Answer], Server], tmp_path: Path) -> None:
    asked, go_on, said = threading.Event(), threading.Event(), list[str]()

    def slow(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        asked.set()
        return completion("14") if go_on.wait(30) else (401, "nobody went on")

    server = serve(slow)
    judge = Judge(chat_client(server.url, model="judge"), tmp_path)
    first, second = (threading.Thread(target=lambda: said.append(judge.ask("how many?"))) for _ in range(2))
    first.start()
    assert asked.wait(30)
    second.start()
    go_on.set()
    for thread in (first, second):
        thread.join(30)
    assert (said, len(server.requests)) == (["14", "14"], 1)


def test_a_prompt_of_the_data_can_not_reach_the_judges_template(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    judge, server = judged(serve, tmp_path, "14")
    score_vlmevalkit(item("integer", "14"), "{question} {options} fourteen", judge)
    assert "{question} {options} fourteen" in server.requests[0]["messages"][0]["content"]


def recipe(home: Path, model: Server, judge: Server | None = None) -> str:
    """MathVista asked of one server, marked with another where one is given."""
    spec: dict[str, Any] = {"path": str(layouts._mathvista_zip(home / "m.zip"))}
    evaluation: dict[str, Any] = {
        "sampling": {"max_new_tokens": 64},
        "samples": 2,
        "benchmarks": {"mathvista": spec},
        "endpoint": {"urls": [model.url], "model": "served", "concurrency": 2},
    }
    if judge is not None:
        spec |= {"protocol": "vlmevalkit", "limit": 6}  # the seventh has a gold that no rule can mark
        evaluation["judge"] = {"urls": [judge.url], "model": "judge", "concurrency": 1}
    raw = {"run": {"dir": str(home / "run")}, "eval": evaluation}
    (home / "r.yaml").write_text(yaml.safe_dump(raw))
    return str(home / "r.yaml")


def test_an_evaluation_by_endpoint_stores_each_answer_and_goes_on(
    serve: Callable[[Answer], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = [0]

    def dies(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        counted[0] += 1
        return completion(r"\boxed{14}") if counted[0] <= 5 else (401, "the key has expired")

    server = serve(dies)
    file = recipe(tmp_path, server)
    assert main(["eval", file]) == 2
    assert "the key has expired" in capsys.readouterr().err
    stored = tmp_path / "run" / "eval" / "served" / "mathvista.jsonl"
    kept = len(read_jsonl(stored))
    assert 0 < kept <= 5
    server.answer = lambda _b, _h: completion(r"\boxed{14}")
    before = len(server.requests)
    assert main(["eval", file]) == 0
    assert len(server.requests) - before == 12 - kept
    rows = read_jsonl(stored)
    assert [(r["id"], r["sample"]) for r in rows] == [
        (i, s) for i in ("1", "2", "3", "4", "225", "587") for s in (0, 1)
    ]
    results = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())
    assert results["stages"]["served"]["mathvista"]["accuracy"] == pytest.approx(1 / 6)  # item 2 is 14


def test_vlmevalkits_verdict_stands_beside_ours_and_costs_no_question(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    """One of six items is 14. A judge that replies "14.0" has us count it and VLMEvalKit not."""
    model, judge = serve(lambda _b, _h: completion("I count fourteen.")), serve(lambda _b, _h: completion("14.0"))
    file = recipe(tmp_path, model, judge)
    assert main(["eval", file]) == 0
    assert len(judge.requests) == 6  # once an item: both samples read the same
    results = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())
    figures = results["stages"]["served"]["mathvista"]
    assert figures["accuracy"] == pytest.approx(1 / 6)
    assert figures["as_vlmevalkit"] == {"accuracy": 0.0, "derived": {}, "lenient": 2, "strict": 0}
    rows = read_jsonl(tmp_path / "run" / "eval" / "served" / "mathvista.jsonl", whole=True)
    assert {r["as_vlmevalkit"] for r in rows} == {0.0}


def garbled(rows: list[str]) -> list[str]:
    return [*rows[:4], rows[4][:-3], *rows[5:]]


def doubled(rows: list[str]) -> list[str]:
    return [*rows[:5], *rows[4:]]


def changed(rows: list[str]) -> list[str]:
    return [*rows[:4], rows[4].replace("fourteen", "15"), *rows[5:]]


@pytest.mark.parametrize(
    ("damage", "line", "sums"),
    [(garbled, 5, True), (garbled, 5, False), (doubled, 6, True), (doubled, 6, False), (changed, 5, True)],
)  # another text in a list of an earlier version, which has no sums: nothing tells
def test_damaged_answers_that_wait_for_a_judge_are_named_and_asked_again(
    serve: Callable[[Answer], Server],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[list[str]], list[str]],
    line: int,
    sums: bool,
) -> None:
    model = serve(lambda _b, _h: completion("I count fourteen of them."))
    judge = serve(lambda _b, _h: (404, "no such judge"))
    recipe_file = recipe(tmp_path, model, judge)
    assert main(["eval", recipe_file]) == 2
    judge.answer = lambda _b, _h: completion("14")
    file = tmp_path / "run" / "eval" / "served" / "mathvista.jsonl"
    whole = file.read_text().splitlines()
    assert len(whole) == 12
    file.write_text("\n".join(damage(whole)) + "\n")
    if not sums:
        sums_of(file).unlink()
    capsys.readouterr()
    assert main(["eval", recipe_file]) == 2
    assert f"mathvista.jsonl: line {line}\n" in capsys.readouterr().err
    file.write_text("".join(row + "\n" for row in file.read_text().splitlines()[: line - 1]))  # as it says
    assert main(["eval", recipe_file]) == 0
    assert [(r["id"], r["sample"], r["response"]) for r in read_jsonl(file, whole=True)] == [
        (i, s, "I count fourteen of them.") for i in ("1", "2", "3", "4", "225", "587") for s in (0, 1)
    ]


def test_a_changed_reply_of_a_judge_is_named(
    serve: Callable[[Answer], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = serve(lambda _b, _h: completion("I count fourteen of them."))
    judge = serve(lambda _b, _h: completion("14"))
    recipe_file = recipe(tmp_path, model, judge)
    assert main(["eval", recipe_file]) == 0
    (file,) = (tmp_path / "run" / "eval" / "judge").glob("*.jsonl")
    file.write_text(file.read_text().replace('"reply": "14"', '"reply": "15"', 1))
    capsys.readouterr()
    assert main(["eval", recipe_file]) == 2
    assert f"{file.name}: line 1\n" in capsys.readouterr().err


def test_a_dead_judge_loses_nothing(
    serve: Callable[[Answer], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = serve(lambda _b, _h: completion("I count fourteen of them."))
    judge = serve(lambda _b, _h: (404, "no such judge"))
    file = recipe(tmp_path, model, judge)
    assert main(["eval", file]) == 2
    assert "no such judge" in capsys.readouterr().err
    judge.answer = lambda _b, _h: completion("14")
    assert main(["eval", file]) == 0
    results = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())
    assert results["stages"]["served"]["mathvista"]["accuracy"] == pytest.approx(1 / 6)
    assert "judge" in results["sets"]["mathvista"]["protocol"]["judge"]
    about = results["sets"]["mathvista"]
    assert (about["official_n"], about["n_items"], about["published"]) == (1000, 6, [])
    assert about["differs"][0] == "6 of 1,000 items (994 beyond the limit)"


def test_a_judge_is_asked_about_every_item_and_a_rule_only_of_what_it_can_mark(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    """Five of MathVerse's fifteen rows have a gold that no rule can read, one of MathVista's seven one that is none of
    its choices. The judge finds the answer equal to whatever gold it is shown."""
    model, judge = serve(lambda _b, _h: completion("So be it.")), serve(lambda _b, _h: completion("1"))
    counted = {}
    for protocol in ("rule", "vlmevalkit"):
        raw = yaml.safe_load(Path(recipe(tmp_path, model, judge)).read_text())
        raw["run"]["dir"] = str(tmp_path / protocol)
        paths = {
            "mathvista": tmp_path / "m.zip",
            "mathverse": layouts.parquet(tmp_path / "v.parquet", layouts.mathverse()),
        }
        raw["eval"] |= {
            "samples": 1,
            "benchmarks": {n: {"path": str(p), "protocol": protocol} for n, p in paths.items()},
        }
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(raw))
        assert main(["eval", str(tmp_path / "r.yaml")]) == 0
        results = json.loads((tmp_path / protocol / "eval" / "results.json").read_text())
        counted[protocol] = {n: (about["n_items"], about["left_out"]) for n, about in results["sets"].items()}
    cannot = "with a gold that cannot be marked"
    assert counted["rule"] == {
        "mathvista": (6, {"not in the data": 993, cannot: 1}),
        "mathverse": (10, {"not in the data": 3925, cannot: 5}),
    }
    assert counted["vlmevalkit"] == {
        "mathvista": (7, {"not in the data": 993}),
        "mathverse": (15, {"not in the data": 3925}),
    }
    assert results["stages"]["served"]["mathverse"]["outcomes"] == {"right": 10, "unparsed": 5}  # "1" is no option


@pytest.mark.parametrize(("tokens", "rows", "shown"), [(2048, 448, True), (8192, 448, False), (2048, 447, False)])
def test_published_figures_stand_beside_the_whole_benchmark_asked_as_they_were(
    serve: Callable[[Answer], Server], tmp_path: Path, tokens: int, rows: int, shown: bool
) -> None:
    """LogicVista: 448 rows, the last without question and answer. With 2,048 new tokens and greedy, as VLMEvalKit."""
    asked = [
        {"id": str(n), "question": f"Which is {n}?", "answer": "A", "skill": "s", "image": None} for n in range(rows)
    ]
    asked[-1] |= {"question": "", "answer": ""}
    file = layouts.parquet(tmp_path / "test-0.parquet", asked)
    server = serve(lambda _b, _h: completion(r"\boxed{A}"))
    path = Path(recipe(tmp_path, server, server))
    raw = yaml.safe_load(path.read_text())
    raw["eval"] |= {"samples": 1, "sampling": {"max_new_tokens": tokens, "temperature": 0}}
    raw["eval"]["benchmarks"] = {"logicvista": {"path": str(file), "protocol": "vlmevalkit"}}
    path.write_text(yaml.safe_dump(raw))
    assert main(["eval", str(path)]) == 0
    results = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())
    about = results["sets"]["logicvista"]
    assert (about["official_n"], about["n_items"]) == (448, rows - 1)
    assert [h["differs"] for h in results["headlines"]] == [about["differs"]]
    assert (about["differs"] == []) is shown
    assert ({40.3, 45.0} <= {p["value"] for p in about["published"]}) is shown and bool(about["published"]) is shown


def test_a_judge_that_dies_costs_no_answer(
    serve: Callable[[Answer], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = [0]

    def dies(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        counted[0] += 1
        return completion("14") if counted[0] <= 3 else (401, "the key has expired")

    model, judge = serve(lambda _b, _h: completion("It must be fourteen.")), serve(dies)
    file = recipe(tmp_path, model, judge)
    assert main(["eval", file]) == 2
    assert "the judge" in capsys.readouterr().err
    stored = read_jsonl(tmp_path / "run" / "eval" / "served" / "mathvista.jsonl")
    assert len(stored) == 12
    assert all(r["response"] == "It must be fourteen." and "score" not in r for r in stored)
    before, judge.answer = (len(model.requests), len(judge.requests)), lambda _b, _h: completion("14")
    assert main(["eval", file]) == 0
    # Both answers to an item make one and the same request, and three of six were judged before.
    assert (len(model.requests), len(judge.requests)) == (before[0], before[1] + 3)
    results = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())
    assert sum(results["stages"]["served"]["mathvista"]["outcomes"].values()) == 12


def test_an_interrupt_does_not_wait_for_a_judge(serve: Callable[[Answer], Server], tmp_path: Path) -> None:
    asked, over, waited_for = threading.Event(), threading.Event(), threading.Event()

    def hangs(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        asked.set()
        if not over.wait(60):
            waited_for.set()
        return completion("14")

    model, judge = serve(lambda _b, _h: completion("It must be fourteen.")), serve(hangs)
    file = recipe(tmp_path, model, judge)
    running = vold_started(["eval", file], tmp_path)
    assert asked.wait(60)
    os.kill(running.pid, signal.SIGINT)
    ended = running.end()
    assert (ended.code, "Traceback" in ended.said) == (130, False), ended.said
    assert not waited_for.is_set()
    over.set()
    kept, before = len(read_jsonl(tmp_path / "run" / "eval" / "served" / "mathvista.jsonl")), len(model.requests)
    assert kept > 0
    judge.answer = lambda _b, _h: completion("14")
    assert main(["eval", file]) == 0
    assert 12 - kept <= len(model.requests) - before <= 14 - kept  # two were on their way when the interrupt came


def two_sets(home: Path, model: Server, judge: Server | None = None, *, concurrency: int = 2) -> str:
    """MathVista twice, one answer to each of its six questions, under two names."""
    home.mkdir(exist_ok=True)
    file = Path(recipe(home, model, judge))
    raw = yaml.safe_load(file.read_text())
    benchmarks = raw["eval"]["benchmarks"]
    benchmarks["again"] = {**benchmarks["mathvista"], "name": "mathvista"}
    raw["eval"] |= {"samples": 1, "endpoint": {**raw["eval"]["endpoint"], "concurrency": concurrency}}
    file.write_text(yaml.safe_dump(raw))
    return str(file)


def test_a_slow_answer_does_not_hold_up_the_next_set(serve: Callable[[Answer], Server], tmp_path: Path) -> None:
    others = threading.Event()

    def answer(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        place = len(server.requests)
        if place == 1:  # of the first set; it ends when the other eleven have
            return completion(r"\boxed{14}") if others.wait(30) else (401, "nobody else was asked")
        if place == 12:
            others.set()
        return completion(r"\boxed{14}")

    server = serve(answer)
    assert main(["eval", two_sets(tmp_path, server)]) == 0
    assert len(server.requests) == 12


def test_the_judge_is_asked_while_others_answer(
    serve: Callable[[Answer], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = threading.Event()

    def answer(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        if len(model.requests) == 12 and not judged.wait(30):
            return 401, "the judge was not asked"
        return completion("It must be fourteen.")

    def judging(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        judged.set()
        return completion("14")

    model, judge = serve(answer), serve(judging)
    assert main(["eval", two_sets(tmp_path, model, judge)]) == 0
    assert all("score" in r for r in read_jsonl(tmp_path / "run" / "eval" / "served" / "again.jsonl"))


def test_a_server_is_kept_as_full_as_it_may_be(serve: Callable[[Answer], Server], tmp_path: Path) -> None:
    """Five places: the first five requests wait until all of them are there, and no sixth comes before one ends."""
    full, most, now, lock = threading.Event(), [0], [0], threading.Lock()

    def answer(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 5:
                full.set()
        there = full.wait(30)
        with lock:
            now[0] -= 1
        return completion(r"\boxed{14}") if there else (401, "five places were not filled")

    assert main(["eval", two_sets(tmp_path, serve(answer), concurrency=5)]) == 0
    assert most == [5]


def test_a_picture_is_encoded_once_for_all_answers_to_its_question(
    serve: Callable[[Answer], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[Image.Image] = []

    def counted(image: Image.Image) -> str:
        encoded.append(image)
        return png_uri(image)

    monkeypatch.setattr(chat_bodies, "png_uri", counted)
    server = serve(lambda _b, _h: completion("14"))
    assert main(["eval", recipe(tmp_path, server)]) == 0
    shown = [p["image_url"]["url"] for b in server.requests for p in b["messages"][0]["content"] if "image_url" in p]
    assert len(shown) == 2 * len(encoded)
    assert len(encoded) >= 6


@pytest.mark.parametrize("operation", [1, 6, 9, 14, 20])
def test_a_killed_evaluation_by_servers_ends_in_the_same_bytes(
    serve: Callable[[Answer], Server], tmp_path: Path, operation: int
) -> None:
    def answer(body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        said = len(str(body["messages"])) % 3
        return completion((r"\boxed{14}", "It must be fourteen.", "One can not tell.")[said])

    def judging(body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        return completion("14" if "fourteen" in body["messages"][0]["content"] else "15")

    model, judge = serve(answer), serve(judging)
    work = {home: partial(main, ["eval", two_sets(tmp_path / home, model, judge)]) for home in ("whole", "broken")}
    assert work["whole"]() == 0
    assert not in_a_process_killed_at(operation, work["broken"]), "the kill came after the end"
    lists = {home: tmp_path / home / "run" / "eval" / "served" for home in work}
    kept, before = sum(len(read_jsonl(f)) for f in lists["broken"].glob("*.jsonl")), len(model.requests)
    assert work["broken"]() == 0
    assert len(model.requests) - before == 12 - kept
    for name in ("mathvista.jsonl", "again.jsonl"):
        assert (lists["broken"] / name).read_bytes() == (lists["whole"] / name).read_bytes()


def test_the_agreement_of_judge_and_rule_is_stored_and_said(
    serve: Callable[[Answer], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six items, of which the golds are not all 14: half of the answers a rule can read, and half only the judge."""
    words = {0: r"So \boxed{14}.", 1: "It must be fourteen."}
    model = serve(lambda b, _h: completion(words[b["seed"] // 1_000_003]))
    assert main(["eval", recipe(tmp_path, model, serve(lambda _b, _h: completion("14")))]) == 0
    found = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())["stages"]["served"]["mathvista"]
    rows = read_jsonl(tmp_path / "run" / "eval" / "served" / "mathvista.jsonl")
    boxed = [r for r in rows if r["sample"] == 0]
    assert {r["by_rule"] for r in rows if r["sample"] == 1} == {"unparsed"}
    read = [r for r in boxed if r["by_rule"] in ("right", "wrong") and r["outcome"] in ("right", "wrong")]
    assert found["judge_agreement"]["n"] == len(read) >= 2
    assert found["judge_agreement"]["share"] == sum(r["by_rule"] == r["outcome"] for r in read) / len(read)
    assert found["judge_agreement"]["unread"] == 12 - sum(r["by_rule"] in ("right", "wrong") for r in rows)
    assert "judge and rule agree on" in capsys.readouterr().out


def test_replies_of_a_judge_that_cannot_be_used_are_counted(
    serve: Callable[[Answer], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, judge = serve(lambda _b, _h: completion("It must be fourteen.")), serve(lambda _b, _h: completion(""))
    assert main(["eval", recipe(tmp_path, model, judge)]) == 0
    results = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())
    assert results["stages"]["served"]["mathvista"]["judge_failed"] == 12
    assert "12 of 12 answers score 0 because the judge's reply could not be used" in capsys.readouterr().out


def with_digits(file: str, **more: Any) -> str:
    """The recipe with a task set of pictures as well, and `more` keys in its sections."""
    raw = yaml.safe_load(Path(file).read_text())
    raw["tasks"] = {"image": {"kind": "digits", "split": "test", "form": "image", "size": 4}}
    raw["eval"]["tasks"] = ["image"]
    raw |= {key: {**raw.get(key, {}), **section} for key, section in more.items()}
    Path(file).write_text(yaml.safe_dump(raw))
    return file


def test_a_model_behind_an_endpoint_needs_no_student_for_any_verb(
    serve: Callable[[Answer], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, judge = serve(lambda _b, _h: completion(r"\boxed{14}")), serve(lambda _b, _h: completion("14"))
    file = with_digits(recipe(tmp_path, model, judge))
    assert main(["check", file]) == 0
    said = capsys.readouterr().out
    assert f"served on {model.url} answers" in said
    assert f"judge on {judge.url} answers" in said
    assert "warn" not in said
    assert main(["eval", file]) == 0
    run = str(tmp_path / "run")
    assert main(["show", run]) == 0
    assert main(["compare", run, run]) == 0
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    "more",
    [
        {"sft": {"steps": 1, "batch_size": 1, "optimizer": {"lr": 1e-4}}},
        {"align": {"tasks": "image", "sampling": {"max_new_tokens": 4}}},
        {"eval": {"endpoint": None}},
    ],
)
def test_whatever_needs_a_student_says_so(
    serve: Callable[[Answer], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any]
) -> None:
    assert main(["eval", with_digits(recipe(tmp_path, serve(echo)), **more)]) == 2
    assert "this needs a student" in capsys.readouterr().err


def test_a_key_that_is_not_set_is_said_before_anything_is_asked(
    serve: Callable[[Answer], Server],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VOLD_TEST_KEY", raising=False)
    model, judge = serve(echo), serve(echo)
    file = recipe(tmp_path, model, judge)
    for verb in ("check", "eval"):
        assert main([verb, file, "eval.judge.key_env=VOLD_TEST_KEY"]) == 2
        assert "VOLD_TEST_KEY" in capsys.readouterr().err
    assert not judge.requests
