"""Pictures on servers: the replies are those of this process, and what is changed on the way is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny
from engine_backends import client
from seeing import CHANGES, Body, Proxy, SeeingServer, swapped, tasks, turned
from served import metrics, on
from vold.data.files.images import png_uri
from vold.engines import shown
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.server import ServerSampler
from vold.engines.seen import KEY, ROUTE, Seen, digest
from vold.engines.teachers.ask import EarlyTeacher, score_rollouts
from vold.engines.teachers.health import probe_of_prompt
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.server import ServerTeacher
from vold.errors import AlignmentError, ConfigError, SamplerError, TeacherError, VoldError
from vold.evals.engine_check import self_check
from vold.evals.preflight import check
from vold.objective import Objective
from vold.run.recipe import recipe_from
from vold.training import rollout
from vold.training.distill import distill
from vold.types import Completion, Grade, Prompt, Rollout, SamplingParams, ScoreRequest

PARAMS = SamplingParams(6, 1.0, seed=3)


def prompts(count: int = 3, pictures: int = 1) -> list[Prompt]:
    chat = tiny.student().chat
    return [chat.prompt(t.messages, t.id) for t in tasks(count, pictures)]


def sampler(url: str) -> ServerSampler:
    policy = tiny.student()
    return ServerSampler(client(url, role="rollout"), end_id=policy.chat.end_id, banned=policy.banned.tolist())


def requests(asked: list[Prompt]) -> list[ScoreRequest]:
    return [ScoreRequest(p.ids, (20 + i, 21, 22), vision=p.vision, pictures=p.pictures) for i, p in enumerate(asked)]


def test_ids_with_one_place_a_picture_are_the_expanded_ones_but_for_the_placeholders() -> None:
    policy = tiny.student()
    pad = policy.model.config.image_token_id
    (prompt,) = prompts(1, pictures=2)
    assert prompt.pictures is not None
    assert prompt.pictures.ids.count(pad) == 2 < prompt.ids.count(pad)
    assert [i for i in prompt.pictures.ids if i != pad] == [i for i in prompt.ids if i != pad]
    longer = prompt.then([30, 31])
    assert longer.pictures is not None
    assert (longer.ids[-2:], longer.pictures.ids[-2:]) == ((30, 31), (30, 31))


def test_rollouts_are_those_of_this_process(tmp_path: Path) -> None:
    """A picture is written once for all rollouts of its problem, and a text among pictures goes along."""
    asked = [*prompts(2), tiny.student().chat.prompt(tiny.opened(tiny.TASKS["train"])[0].messages)]
    with SeeingServer(tiny.student()) as server, Proxy(server.url) as proxy:
        made = sampler(proxy.url).generate(asked, PARAMS, n=2)
    for i, (prompt, group) in enumerate(zip(asked, made, strict=True)):
        for j, theirs in enumerate(group):
            params = dataclasses.replace(PARAMS, seed=3 + 2 * i + j)
            ((ours,),) = InProcessSampler(tiny.student()).generate([prompt], params)
            assert ours.ids.tolist() == theirs.ids.tolist()
            assert ours.logps == pytest.approx(theirs.logps, abs=1e-5)
    assert len(proxy.sent) == 4
    assert server.requests.count(ROUTE) == 6


def test_scores_are_those_of_this_process_and_its_probe_shows_a_picture() -> None:
    asked = requests(prompts(2))
    expected = InProcessTeacher(tiny.student(), temperature=1.0, token_budget=4096).score(asked)
    with SeeingServer(tiny.student()) as server, Proxy(server.url) as proxy:
        found = ServerTeacher(client(proxy.url), probe_of_prompt(prompts(1)[0])).score(asked)
    for ours, theirs in zip(expected, found, strict=True):
        assert ours.logp == pytest.approx(theirs.logp, abs=1e-5)
    assert len(proxy.sent) == 4  # the probe at first, two requests, the probe again


@pytest.mark.parametrize("name", CHANGES)
def test_a_picture_changed_on_its_way_to_the_sampler_names_its_task(name: str) -> None:
    with SeeingServer(tiny.student()) as server, Proxy(server.url, CHANGES[name], number=1) as proxy:
        with pytest.raises(SamplerError, match="has seen other pictures than it was sent") as caught:
            sampler(proxy.url).generate(prompts(3), PARAMS, n=2)
        (body,) = proxy.changed
    assert f"task {task_of(body)}, http" in caught.value.where


@pytest.mark.parametrize("name", CHANGES)
def test_a_picture_changed_on_its_way_to_the_teacher_names_its_task(name: str) -> None:
    with SeeingServer(tiny.student()) as server, Proxy(server.url, CHANGES[name], number=2) as proxy:
        teacher = ServerTeacher(client(proxy.url), probe_of_prompt(prompts(1)[0]))
        with pytest.raises(AlignmentError, match="has seen other pictures than it was sent") as caught:
            teacher.score(requests(prompts(3)))
        (body,) = proxy.changed
    assert f"task {task_of(body)}, http" in caught.value.where


def task_of(body: Body) -> str:
    """The task whose picture a request shows."""
    seen = [part["url"] for part in body["content_parts"]]
    (task,) = [t.id for t in tasks(3) if [png_uri(i) for i in t.messages[0].images] == seen]
    return task


def test_pictures_in_another_order_are_refused() -> None:
    with (
        SeeingServer(tiny.student()) as server,
        Proxy(server.url, turned) as proxy,
        pytest.raises(SamplerError, match="in another order"),
    ):
        sampler(proxy.url).generate(prompts(1, pictures=2), PARAMS)


def test_ids_that_a_server_has_expanded_otherwise_are_refused() -> None:
    """Its image processor has other limits than the student's."""
    server = SeeingServer(tiny.student())
    server.policy.chat.processor.image_processor.size = {"shortest_edge": 1024, "longest_edge": 4096}
    with server, pytest.raises(SamplerError, match="another prompt than it was sent") as caught:
        sampler(server.url).generate(prompts(1), PARAMS)
    assert "task seen-0" in caught.value.where


def test_a_server_that_does_not_say_what_it_has_seen_is_refused_at_the_start() -> None:
    server = SeeingServer(tiny.student())
    server.silent = True
    with server, pytest.raises(SamplerError, match="does not say which pictures") as caught:
        sampler(server.url).generate(prompts(1), PARAMS)
    assert "--middleware vold.engines.seen.Seen" in caught.value.fix


def test_a_request_that_is_refused_names_its_task() -> None:
    with SeeingServer(tiny.student()) as server:
        server.hook = lambda path, body: (403, {"message": "disabled"}) if path == ROUTE else None
        with pytest.raises(SamplerError, match="disabled") as caught:
            sampler(server.url).generate(prompts(1), PARAMS)
    assert caught.value.where.startswith("task seen-0, ")


def test_tasks_that_differ_in_their_pictures_alone_have_scores_of_their_own() -> None:
    """Scores that came early are found again by what was asked, and ids are not all of it."""
    objective = Objective.model_validate({"method": "opd"})
    asked = prompts(2)
    assert asked[0].ids == asked[1].ids
    said = Completion((20, 21, 22), (-1.0, -1.0, -1.0), (1, 1, 1), "length")
    rollouts = [Rollout(f"seen-{i}", i, p.ids, said, Grade(0.0, None, "")) for i, p in enumerate(asked)]
    teacher = InProcessTeacher(tiny.student(), temperature=1.0, token_budget=4096)
    expected = score_rollouts(rollouts, teacher, asked, objective)
    with EarlyTeacher(teacher, asked, objective) as early:
        for rollout in rollouts:
            early.group([rollout])
    found = score_rollouts(rollouts, teacher, asked, objective, early=early.finish())
    logps = [r.teacher.logp.tolist() for r in found if r.teacher is not None]
    assert logps == [pytest.approx(r.teacher.logp, abs=1e-6) for r in expected if r.teacher is not None]
    assert logps[0] != logps[1]


def raw_recipe(home: Path, method: str) -> dict[str, Any]:
    raw = tiny.recipe_dict(home)
    raw["teacher"] = {"path": str(home / "eyes")}
    tiny.student(9).save(home / "eyes")
    raw["distill"] |= {"tasks": "image", "init": raw["student"]["path"], "steps": 3, "objective": {"method": method}}
    raw["distill"]["prompts_per_step"] = 1
    raw["distill"]["sampling"] = {"max_new_tokens": 8, "temperature": 1.0}
    return raw


def row_by_row(stream: Any) -> Any:
    """On servers each row has a seed of its own: so it is in this process with this in the place of `stream`."""

    def drawn(
        sampler: Any, prompts: Sequence[Prompt], params: SamplingParams, n: int, whole: Any
    ) -> list[list[Completion]]:
        made = []
        for place, prompt in enumerate(prompts):
            seeds = [params.seed + params.first_row + place * n + j for j in range(n)]
            each = [dataclasses.replace(params, seed=seed, first_row=0) for seed in seeds]
            made.append([stream(sampler, [prompt], one, 1, lambda place, group: None)[0][0] for one in each])
            whole(place, made[-1])
        return made

    return drawn


@pytest.mark.parametrize("method", ["grpo", "opd"])
def test_a_run_on_pictures_ends_like_one_in_this_process(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained student solves nothing: here every answer is right in part."""
    monkeypatch.setattr(rollout, "grade", lambda task, chat, c: Grade(int(c.ids.sum()) % 97 / 97, None, ""))
    monkeypatch.setattr(InProcessSampler, "stream", row_by_row(InProcessSampler.stream))
    ends = []
    with SeeingServer(tiny.student(9)) as teacher, SeeingServer(tiny.student(5)) as rollouts:
        for name in ("inside", "served"):
            raw = raw_recipe(tmp_path / name, method)
            if name == "served":
                raw["teacher"]["server"], raw["distill"]["engine"] = on(teacher), on(rollouts)
            ends.append(load_file(distill(recipe_from(raw, where="test")) / "model.safetensors"))
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-4) for name in ends[0])
    assert all(row["mismatch"] < 1e-4 for row in metrics(tmp_path / "served"))
    assert rollouts.requests.count("/reset_encoder_cache") == 3
    assert ROUTE in rollouts.requests
    assert (ROUTE in teacher.requests) == (method == "opd")


def test_a_run_stops_at_the_step_whose_picture_was_swapped(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path, "grpo")
    with SeeingServer(tiny.student(5)) as rollouts, Proxy(rollouts.url, swapped, number=8) as proxy:
        raw["distill"]["engine"] = {"urls": [proxy.url], "model": "tiny"}
        with pytest.raises(SamplerError, match=r"task digits-test-3-\d+, http"):
            distill(recipe_from(raw, where="test"))
    assert [row["step"] for row in metrics(tmp_path)] == [0, 1]  # of four rollouts each


def test_the_check_shows_a_teacher_on_a_server_a_picture(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path, "opd")
    for section in ("align", "traces", "sft"):
        del raw[section]
    with (teacher := SeeingServer(tiny.student(9))):
        raw["teacher"]["server"] = on(teacher)
        recipe = recipe_from(raw, where="test")
        (line,) = [line for line in check(recipe) if line.startswith("pictures shown to teacher: ")]
        assert ROUTE in teacher.requests
        teacher.silent = True
        with pytest.raises(TeacherError, match="does not say which pictures it has seen"):
            check(recipe)
    task = tiny.opened(tiny.TASKS["image"])[0]
    here = InProcessTeacher(tiny.student(9), temperature=1.0, token_budget=4096)
    (scores,) = here.score([probe_of_prompt(tiny.student(9).chat.prompt(task.messages))])
    assert f"{float(scores.logp.mean()):.2f} nats" in line


@pytest.mark.parametrize("sees", [True, False])
def test_the_students_own_check_is_about_pictures_where_its_teacher_is_shown_them(sees: bool, tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path, "opd")
    raw["align"] |= {"tasks": "image", "self_check": True, "limit": 2}
    if not sees:
        raw["teacher"]["path"] = str(tmp_path / "teacher")
    with SeeingServer(tiny.student()) as teacher, SeeingServer(tiny.student(5)) as rollouts:
        raw["teacher"]["server"], raw["distill"]["engine"] = on(teacher), on(rollouts)
        recipe = recipe_from(raw, where="test")
        if not sees:
            with pytest.raises(ConfigError, match="no problem is left that this teacher can be asked about"):
                self_check(recipe)
            return
        assert self_check(recipe).kl < 1e-9
        assert teacher.requests.count(ROUTE) >= 2 * 2  # two problems of two rollouts
        assert rollouts.requests.count(ROUTE) == 2 * 2


async def asked_of(app: Any, path: str, parts: list[bytes]) -> list[dict[str, Any]]:
    """What an ASGI app sends to a request that comes in parts."""
    said: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": part, "more_body": i + 1 < len(parts)} for i, part in enumerate(parts)]

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await app({"type": "http", "path": path}, receive, send)
    return said


def answering(status: int, body: bytes) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    return app


def test_a_reply_says_which_pictures_came_with_its_request() -> None:
    uris = ["data:image/png;base64,AAAA", "data:image/png;base64,BBBB"]
    request = json.dumps({"content_parts": [{"type": "image_url", "url": u} for u in uris]}).encode()
    reply = b'{"choices": [], "prompt_token_ids": [1]}'
    said = asyncio.run(asked_of(Seen(answering(200, reply)), ROUTE, [request[:30], request[30:]]))
    body = b"".join(m["body"] for m in said[1:])
    assert json.loads(body) == json.loads(reply) | {KEY: [digest(u) for u in uris]}
    assert (b"content-length", str(len(body)).encode()) in said[0]["headers"]


@pytest.mark.parametrize(("status", "path"), [(400, ROUTE), (200, "/v1/completions")])
def test_refusals_and_other_routes_stay_as_they_are(status: int, path: str) -> None:
    reply = b'{"error": {"message": "no"}}'
    plain, around = (
        asyncio.run(asked_of(app, path, [b"{}"])) for app in (answering(status, reply), Seen(answering(status, reply)))
    )
    assert plain == around


@pytest.mark.parametrize("request_body", [b"", b"[1]", b'{"content_parts": [{}]}', b'{"content_parts": 7}', b"\xff"])
def test_a_request_that_is_none_is_the_servers_to_refuse(request_body: bytes) -> None:
    said = asyncio.run(asked_of(Seen(answering(400, b'{"error": 1}')), ROUTE, [request_body]))
    assert said[0]["status"] == 400


def test_a_picture_is_encoded_once_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(image: Image.Image) -> str:
        made.append(id(image))
        return png_uri(image)

    monkeypatch.setattr(shown, "png_uri", counted)
    (prompt,) = prompts(1)
    for _ in range(3):
        shown.body(prompt.ids, prompt.pictures, (), {})
        shown.digests(prompt.pictures)
    assert len(made) == 1
    known = id(prompt.pictures.images[0]) if prompt.pictures else 0
    del prompt
    assert known not in shown._encoded


def test_vllm_in_the_training_process_takes_no_pictures() -> None:
    from vold.engines.samplers.colocated import ColocatedVllm

    with pytest.raises(VoldError, match="takes text prompts only"):
        ColocatedVllm.post(
            ColocatedVllm.__new__(ColocatedVllm), ROUTE, [], root=True, own=(), tasks=(), on_reply=lambda i, r: None
        )
