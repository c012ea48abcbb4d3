"""Whole stages with teachers and rollouts on servers, several teachers, stored scores, and outages in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import save as save_tensors

from engine_backends import saved, text_model
from served import metrics, on, raw_recipe
from stored import stored_rows
from vllm_server import VllmServer
from vold.data.sources import open_tasks
from vold.engines.http import HttpClient
from vold.engines.teachers.cached import CachedTeacher
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.teachers import open_teachers
from vold.errors import ConfigError, DataError, TeacherError, TrainingError
from vold.evals.engine_check import self_check
from vold.evals.overlap import align
from vold.evals.preflight import check
from vold.model.loading import load_student
from vold.model.policy import Policy
from vold.run.console import console
from vold.run.files import read_jsonl
from vold.run.folders import latest_checkpoint
from vold.run.recipe import recipe_from
from vold.training.distill import distill
from vold.training.traces import make_traces
from vold.types import Message, ScoreRequest, TokenScores


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpClient, "first_wait", 0.001)


def test_opening_a_teacher_that_sleeps_wakes_it_and_asks_it_once(tmp_path: Path) -> None:
    with VllmServer(text_model(1)) as server:
        raw = raw_recipe(tmp_path)
        raw["teacher"]["server"] = on(server, sleep=True)
        recipe = recipe_from(raw, where="test")
        assert recipe.distill is not None
        teachers = open_teachers(recipe, load_student(recipe))
        prompts = [teachers.prompt(t) for t in open_tasks(recipe.tasks, recipe.distill.tasks)]
        server.requests.clear()
        teachers.scorer(recipe.distill.sampling, 512, prompts, tmp_path)
        assert [r for r in server.requests if r != "/v1/models"] == ["/wake_up", "/v1/completions", "/sleep?level=1"]


def test_a_teacher_on_a_server_trains_the_student_like_one_in_the_process(tmp_path: Path) -> None:
    weights = []
    for name in ("inside", "outside"):
        home = tmp_path / name
        raw = raw_recipe(home)
        with VllmServer(text_model(1)) as server:
            if name == "outside":
                raw["teacher"]["server"] = on(server)
            weights.append(Policy.load(str(distill(recipe_from(raw, where="test")))).model.state_dict())
    for name, tensor in weights[0].items():
        assert tensor == pytest.approx(weights[1][name], abs=1e-5), name
    assert metrics(tmp_path / "outside")[0]["teacher_tokens"] > 0


def test_rollouts_on_a_server_follow_the_student(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path, optimizer={"lr": 1e-2, "warmup_steps": 1})
    with VllmServer(text_model(4)) as server:
        raw["distill"]["engine"] = on(server)
        distill(recipe_from(raw, where="test"))
        assert server.version.endswith("/2")
        assert [r for r in server.requests if r == "/collective_rpc"] == ["/collective_rpc"] * 3
    rows = metrics(tmp_path)
    # Stale weights would show: a step of this size moves log-probs by far more.
    assert all(r["mismatch"] < 1e-4 for r in rows)
    assert all(0 <= r["mismatch_kl"] < 1e-8 and r["mismatch_mean"] <= r["mismatch"] for r in rows)
    assert not list((tmp_path / "run" / "distill" / "weights").glob("*"))


def test_a_rollout_server_that_sleeps_gets_the_weights_before_it_has_room_for_keys_and_values(tmp_path: Path) -> None:
    """What it held is of no use after a step, so it is dropped."""
    raw = raw_recipe(tmp_path, optimizer={"lr": 1e-2, "warmup_steps": 1}, steps=2)
    with VllmServer(text_model(4)) as server:
        raw["distill"]["engine"] = on(server, sleep=True)
        distill(recipe_from(raw, where="test"))
        assert server.asleep and server.lost
        other = ("/v1/models", "/weight_info", "/v1/completions", "/server_info?config_format=json")
        asked = [r for r in server.requests if r not in other]
    assert asked == 2 * [
        "/wake_up?tags=weights", "/update_weight_version", "/collective_rpc",
        "/reset_prefix_cache?reset_running_requests=true",
        "/wake_up?tags=kv_cache", "/sleep?level=2",
    ]  # fmt: skip
    assert all(r["mismatch"] < 1e-4 for r in metrics(tmp_path))


def test_adapters_reach_a_rollout_server_as_part_of_the_weights(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path, optimizer={"lr": 1e-2, "warmup_steps": 1})
    raw["student"]["lora"] = {"rank": 4, "alpha": 64}
    with VllmServer(text_model(4)) as server:
        raw["distill"]["engine"] = on(server)
        distill(recipe_from(raw, where="test"))
    rows = metrics(tmp_path)
    assert len(rows) == 3
    assert all(r["mismatch"] < 1e-4 for r in rows)


def test_a_rollout_server_that_restarts_gets_the_weights_again(tmp_path: Path) -> None:
    """It comes back with its first weights between two requests; what it sampled with those is thrown away."""
    raw = raw_recipe(tmp_path)
    with VllmServer(text_model(4)) as server:
        raw["distill"]["engine"] = on(server)
        left = [5]

        def restart(path: str, body: dict[str, Any]) -> None:
            if path == "/v1/completions":
                left[0] -= 1
                if left[0] == 0:
                    server.policy, server.version = text_model(4), "default"

        server.hook = restart
        distill(recipe_from(raw, where="test"))
        assert left[0] < 0
    assert all(r["mismatch"] < 1e-4 for r in metrics(tmp_path))


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_rollouts_of_another_policy_are_warned_about_or_stop_the_run_before_the_update(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = raw_recipe(tmp_path, mismatch={"limit": 1e-3, "action": action})
    with VllmServer(text_model(4)) as server:
        raw["distill"]["engine"] = on(server)
        # It claims to have taken the weights and keeps its own.
        server.hook = lambda path, body: (200, {"results": [None]}) if path == "/collective_rpc" else None
        if action == "stop":
            with pytest.raises(TrainingError, match="another policy"):
                distill(recipe_from(raw, where="test"))
            assert metrics(tmp_path) == []
        else:
            distill(recipe_from(raw, where="test"))
            assert "KL(sampler || trainer)" in capsys.readouterr().out
            assert metrics(tmp_path)[0]["mismatch_kl"] > 1e-3


A_STEP = 2 * 4
"""Requests of a step: two prompts of four rollouts."""


def scaled(server: VllmServer, factor: float) -> Callable[[str, dict[str, Any]], Any]:
    """A hook: the log-probs of all replies to a prompt of the second step are `factor` times the right ones."""
    asked = list[list[int]]()

    def hook(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        if path == "/v1/completions":
            asked.append(body["prompt"])
        if path != "/v1/completions" or not A_STEP < len(asked) <= 2 * A_STEP or body["prompt"] != asked[A_STEP]:
            return None
        status, reply = server._answer(path, body)
        for choice in reply["choices"]:
            choice["logprobs"]["token_logprobs"] = [factor * v for v in choice["logprobs"]["token_logprobs"]]
        return status, reply

    return hook


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0, 25.0])
def test_log_probs_of_another_temperature_stop_a_run_before_the_update_and_lose_nothing(
    factor: float, tmp_path: Path
) -> None:
    """It is found in the second step. 25 times the log-probs make ratios overflow, and the
    loss with them; that is said as what it is."""
    raw = raw_recipe(tmp_path)
    with VllmServer(text_model(4)) as server:
        raw["distill"]["engine"] = on(server)
        server.hook = scaled(server, factor)
        with pytest.raises(TrainingError, match="another policy"):
            distill(recipe_from(raw, where="test"))
        assert [r["step"] for r in metrics(tmp_path)] == [0]
        kept = latest_checkpoint(tmp_path / "run" / "distill")
        assert kept is not None and kept.name == "step-000001"
        server.hook = lambda path, body: None
        distill(recipe_from(raw, where="test"))
    assert [r["step"] for r in metrics(tmp_path)] == [0, 1, 2]
    assert all(r["mismatch_kl"] < 1e-8 for r in metrics(tmp_path))


def test_log_probs_that_are_a_little_off_are_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = raw_recipe(tmp_path, mismatch={"limit": 1e-4})
    with VllmServer(text_model(4)) as server:
        raw["distill"]["engine"] = on(server)
        server.hook = scaled(server, 0.97)
        distill(recipe_from(raw, where="test"))
    assert "warning: KL(sampler || trainer)" in capsys.readouterr().out
    assert 1e-4 < metrics(tmp_path)[1]["mismatch_kl"] < 0.1


def interrupted(server: VllmServer, at: int) -> Callable[[str, dict[str, Any]], None]:
    """A hook that kills the server at its n-th scoring request."""
    left = [at]

    def hook(path: str, body: dict[str, Any]) -> None:
        if body.get("prompt_logprobs") is not None:
            left[0] -= 1
            if left[0] == 0:
                server.kill()

    return hook


def test_a_run_waits_for_a_teacher_that_dies_in_the_middle_and_ends_as_if_it_had_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for name in ("whole", "broken"):
        home = tmp_path / name
        raw = raw_recipe(home)
        said: list[str] = []
        with VllmServer(text_model(1)) as server:

            def report(words: str, server: VllmServer = server, said: list[str] = said) -> None:
                if "waiting" in words:
                    said.append(words)
                    server.start()

            monkeypatch.setattr(console, "print", report)
            raw["teacher"]["server"] = on(server)
            if name == "broken":
                server.hook = interrupted(server, 7)
            ends.append((distill(recipe_from(raw, where="test")) / "model.safetensors").read_bytes())
        assert bool(said) == (name == "broken")
    assert ends[0] == ends[1]


def test_a_teacher_that_stays_away_stops_the_run_with_nothing_lost(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with VllmServer(text_model(1)) as server:
        raw = raw_recipe(whole)
        raw["teacher"]["server"] = on(server)
        expected = (distill(recipe_from(raw, where="test")) / "model.safetensors").read_bytes()
    home = tmp_path / "broken"
    raw = raw_recipe(home)
    with VllmServer(text_model(1)) as server:
        raw["teacher"]["server"] = on(server, patience=0.05)

        def hook(path: str, body: dict[str, Any]) -> None:
            if len(metrics(home)) == 2:
                server.kill()

        server.hook = hook
        with pytest.raises(TeacherError, match="goes on from here"):
            distill(recipe_from(raw, where="test"))
        assert len(metrics(home)) == 2
        kept = latest_checkpoint(home / "run" / "distill")
        assert kept is not None and kept.name == "step-000002"  # `checkpoint_every` is 10: it was saved for the stop
        server.hook = lambda path, body: None
        server.start()
        # Another address and more patience are no other run.
        raw["teacher"]["server"] = on(server, patience=30.0, concurrency=2)
        assert (distill(recipe_from(raw, where="test")) / "model.safetensors").read_bytes() == expected
    assert [r["step"] for r in metrics(home)] == [0, 1, 2]


def test_a_run_does_not_go_on_with_another_teacher(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path, steps=2)
    with VllmServer(text_model(1)) as server:
        raw["teacher"]["server"] = on(server)
        server.hook = lambda path, body: (400, {"error": {"message": "enough"}}) if len(metrics(tmp_path)) else None
        with pytest.raises(TeacherError, match="enough"):
            distill(recipe_from(raw, where="test"))
        server.hook = lambda path, body: None
        server.policy = text_model(2)
        with pytest.raises(TeacherError, match="not the teacher the run began with"):
            distill(recipe_from(raw, where="test"))


def tagged(tmp_path: Path, prompts: dict[str, str]) -> dict[str, Any]:
    """A recipe over these prompts, each with its tag `domain`, and a second teacher for `code`."""
    rows = [{"id": p, "prompt": p, "reference": "8", "tags": {"domain": d}} for p, d in prompts.items()]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    raw = raw_recipe(
        tmp_path,
        tasks="tagged",
        prompts_per_step=len(prompts),
        rollouts=2,
        steps=1,
        objective={"method": "vold", "teacher_loss": {"mask": "none"}},
    )
    raw["tasks"]["tagged"] = {"kind": "jsonl", "path": str(tmp_path / "tasks.jsonl"), "grader": "exact"}
    raw["teacher"]["routes"] = {"code": {"path": str(saved(text_model(2), tmp_path / "coder"))}}
    return raw


def test_each_task_goes_to_the_teacher_its_tag_names(tmp_path: Path) -> None:
    """Two tasks of five are tagged `code`: the second teacher's scores are on those, and on no other. One of them has
    the tokens of one that is not."""
    domains = {f"digits 3 {i} . sum ?": d for i, d in zip((1, 2, 4, 5), ("code", "maths", "code", ""), strict=True)}
    domains["digits 3 1  . sum ?"] = "maths"
    raw = tagged(tmp_path, domains)
    with VllmServer(text_model(2)) as server:
        raw["teacher"]["routes"]["code"]["server"] = on(server)
        distill(recipe_from(raw, where="test"))
    stored = stored_rows(tmp_path / "run" / "distill" / "rollouts" / "step-000000.safetensors")
    assert len(stored) == 10
    teachers = {s: InProcessTeacher(text_model(s), temperature=1.0, token_budget=512) for s in (1, 2)}
    for row in stored:
        prompt = text_model(1).chat.prompt((Message("user", row["prompt"]),)).ids
        seed = 2 if domains[row["task_id"]] == "code" else 1
        (right,) = teachers[seed].score([ScoreRequest(prompt, tuple(row["ids"]))])
        assert row["teacher_logp"] == pytest.approx(right.logp, abs=2e-5)


def test_a_trace_is_scored_by_the_teacher_of_its_own_task(tmp_path: Path) -> None:
    """All traces are of tasks for `code`, and no problem of stage 2 is."""
    raw = tagged(tmp_path, {"digits 3 1 . sum ?": "maths", "digits 3 2 . sum ?": "maths"})
    raw["distill"]["objective"] = {
        "method": "gkd", "mix": {"student_share": 0.5}, "teacher_loss": {"estimator": "k2"},
    }  # fmt: skip
    written = {"digits 3 4 . sum ?": (30, 31, 2), "digits 3 5 . sum ?": (32, 2)}
    rows = [{"id": p, "prompt": p, "reference": "8", "tags": {"domain": "code"}} for p in written]
    (tmp_path / "coded.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    raw["tasks"]["coded"] = {"kind": "jsonl", "path": str(tmp_path / "coded.jsonl"), "grader": "exact"}
    raw["traces"] |= {"tasks": "coded", "keep": "all"}
    marked = {"response": "", "finish": "stop", "score": 0.0, "extracted": None, "note": ""}
    traces = [
        {"task_id": p, "response_ids": ids, "action_mask": [1] * len(ids), **marked} for p, ids in written.items()
    ]
    (tmp_path / "run" / "traces").mkdir(parents=True)
    (tmp_path / "run" / "traces" / "traces.jsonl").write_text("".join(json.dumps(t) + "\n" for t in traces))
    distill(recipe_from(raw, where="test"))
    stored = stored_rows(tmp_path / "run" / "distill" / "rollouts" / "step-000000.safetensors")
    found = {row["task_id"]: row["teacher_logp"] for row in stored if row["task_id"] in written}
    assert found.keys() == written.keys()
    coder = InProcessTeacher(text_model(2), temperature=1.0, token_budget=512)
    for task, ids in written.items():
        (right,) = coder.score([ScoreRequest(text_model(2).chat.prompt((Message("user", task),)).ids, ids)])
        assert found[task] == pytest.approx(right.logp, abs=2e-5)


class Counting:
    """A real teacher that counts what it is asked."""

    def __init__(self) -> None:
        self.inner = InProcessTeacher(text_model(1), temperature=1.0, token_budget=512)
        self.asked = 0

    def score(self, requests: Any) -> list[TokenScores]:
        self.asked += len(requests)
        return self.inner.score(requests)


ASKED = [ScoreRequest((20, 21), (30, 31)), ScoreRequest((20,), (21, 30, 31)), ScoreRequest((20, 21), (30, 31), top_k=1)]


def test_a_stored_score_is_not_asked_for_again_and_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    teacher = Counting()
    first = CachedTeacher(teacher, tmp_path, "tiny").score(ASKED[:2])
    assert CachedTeacher(teacher, tmp_path, "tiny").score([ASKED[1], ASKED[0], ASKED[1]]) == [
        first[1],
        first[0],
        first[1],
    ]
    assert teacher.asked == 2


def test_a_stored_score_with_a_turned_bit_or_of_another_question_is_asked_for_again(tmp_path: Path) -> None:
    teacher = Counting()
    first = CachedTeacher(teacher, tmp_path, "tiny").score(ASKED[:1])
    (file,) = tmp_path.glob("*/*.safetensors")
    content = file.read_bytes()
    for place in range(len(content)):
        turned = bytearray(content)
        turned[place] ^= 1
        file.write_bytes(turned)
        assert CachedTeacher(teacher, tmp_path, "tiny").score(ASKED[:1]) == first
    assert teacher.asked > len(content) - len("sha256")  # without its name there is no digest to compare with
    file.write_bytes(content)
    other = CachedTeacher(teacher, tmp_path, "tiny").score(ASKED[1:2])
    before = teacher.asked
    (second,) = (f for f in tmp_path.glob("*/*.safetensors") if f != file)
    second.write_bytes(content)
    assert CachedTeacher(teacher, tmp_path, "tiny").score(ASKED[1:2]) == other
    assert teacher.asked == before + 1


def test_another_question_or_another_teacher_is_another_entry(tmp_path: Path) -> None:
    teacher = Counting()
    CachedTeacher(teacher, tmp_path, "tiny").score(ASKED)
    assert teacher.asked == 3
    CachedTeacher(teacher, tmp_path, "tiny at temperature 2").score(ASKED[:1])
    assert teacher.asked == 4


@pytest.mark.parametrize(
    "damage",
    ["cut short", "emptied", "of another length", "NaN", "above 0", "a further field", "of 8 bits", "of 16 bits"],
)
def test_a_damaged_entry_is_asked_for_again_and_mended(damage: str, tmp_path: Path) -> None:
    teacher = Counting()
    cached = CachedTeacher(teacher, tmp_path, "tiny")
    (right,) = cached.score(ASKED[:1])
    (file,) = tmp_path.rglob("*.safetensors")
    if damage == "of another length":
        cached.score(ASKED[1:2])
        (other,) = [f for f in tmp_path.rglob("*.safetensors") if f != file]
        file.write_bytes(other.read_bytes())
        teacher.asked -= 1
    elif damage in ("NaN", "above 0"):
        file.write_bytes(save({"logp": right.logp + np.float32("nan" if damage == "NaN" else "9")}))
    elif damage == "a further field":
        file.write_bytes(save({"logp": right.logp, "logq": right.logp}))
    elif damage in ("of 8 bits", "of 16 bits"):
        kind = torch.float8_e4m3fn if damage == "of 8 bits" else torch.bfloat16
        file.write_bytes(save_tensors({"logp": torch.from_numpy(right.logp.copy()).to(kind)}))
    else:
        file.write_bytes(file.read_bytes()[:20] if damage == "cut short" else b"")
    assert cached.score(ASKED[:1]) == [right]
    assert teacher.asked == 2
    assert CachedTeacher(teacher, tmp_path, "tiny").score(ASKED[:1]) == [right]
    assert teacher.asked == 2


def test_everything_a_teacher_can_say_is_stored(tmp_path: Path) -> None:
    said = TokenScores(
        (-1.0, float("-inf")), ((-0.1, -0.2), (-3.0, float("-inf"))), ((5, 6, 7), (8, 9, 1)), ((-0.1,) * 3, (-0.3,) * 3)
    )

    class Canned:
        def score(self, requests: Any) -> list[TokenScores]:
            return [said] * len(requests)

    class Silent:
        def score(self, requests: Any) -> list[TokenScores]:
            assert not requests
            return []

    asked = ScoreRequest((1,), (2, 3), candidate_ids=((4, 5), (6, 7)), top_k=3)
    CachedTeacher(Canned(), tmp_path, "tiny").score([asked])
    assert CachedTeacher(Silent(), tmp_path, "tiny").score([asked]) == [said]


def test_a_cache_filled_by_another_teacher_is_refused(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path, steps=1)
    raw["teacher"]["cache"] = str(tmp_path / "scores")
    distill(recipe_from(raw, where="test"))
    saved(text_model(2), tmp_path / "text-teacher")
    raw["run"]["dir"] = str(tmp_path / "again")
    with pytest.raises(TeacherError, match="not the teacher the run began with"):
        distill(recipe_from(raw, where="test"))


def test_a_server_scores_at_temperature_one_only(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path)
    raw["teacher"]["server"] = {"urls": ["http://127.0.0.1:1/v1"], "model": "tiny"}
    raw["distill"]["sampling"]["temperature"] = 0.8
    with pytest.raises(ConfigError, match="temperature 1 only"):
        recipe_from(raw, where="test")


def test_a_context_too_small_for_the_scores_is_told_at_the_start(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path)
    with VllmServer(text_model(1), context=10) as server:
        raw["teacher"]["server"] = on(server)
        with pytest.raises(ConfigError, match="max-model-len 10"):
            distill(recipe_from(raw, where="test"))


def test_the_student_agrees_with_itself_in_its_teachers_place(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path)
    raw["align"]["self_check"] = True
    inside = self_check(recipe_from(raw, where="test"))
    with VllmServer(text_model(3)) as teacher, VllmServer(text_model(4)) as rollouts:
        raw["teacher"]["server"] = on(teacher)
        raw["distill"]["engine"] = on(rollouts)
        outside = self_check(recipe_from(raw, where="test"))
    for figures in (inside, outside):
        assert figures.tokens > 100
        assert 0 <= figures.kl < 1e-9
        assert figures.largest < 1e-4


def test_another_model_in_the_teachers_place_fails_the_self_check(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path)
    raw["align"]["self_check"] = True
    with VllmServer(text_model(1)) as teacher:
        raw["teacher"]["server"] = on(teacher)
        with pytest.raises(TeacherError, match="does not agree with itself"):
            self_check(recipe_from(raw, where="test"))


def test_align_gives_the_same_figures_through_a_server(tmp_path: Path) -> None:
    figures = []
    for name in ("inside", "outside"):
        raw = raw_recipe(tmp_path / name)
        with VllmServer(text_model(1)) as server:
            if name == "outside":
                raw["teacher"]["server"] = on(server)
            figures.append(align(recipe_from(raw, where="test")))
    inside, outside = figures
    for key in ("kl", "top1_agreement", "teacher_mass", "student_entropy", "pass_rate"):
        assert getattr(outside, key) == pytest.approx(getattr(inside, key), abs=1e-5)
    assert inside.teacher_entropy is not None and inside.teacher_entropy > 0
    assert outside.teacher_entropy is None


def test_a_teacher_on_a_server_writes_the_traces_too(tmp_path: Path) -> None:
    """The student's weights are not read for it: they would take a part of a GPU that a server has."""
    raw = raw_recipe(tmp_path)
    raw["traces"]["sampling"] = {"max_new_tokens": 6, "temperature": 0}
    rows = []
    for name in ("inside", "outside"):
        raw["run"]["dir"] = str(tmp_path / name)
        with VllmServer(text_model(1)) as server:
            raw["teacher"].pop("server", None)
            if name == "outside":
                raw["teacher"]["server"] = on(server)
                (tmp_path / "text-student" / "model.safetensors").unlink()
            with pytest.raises(DataError, match="12 truncated"):  # an untrained teacher ends none of these answers
                make_traces(recipe_from(raw, where="test"))
        stored = read_jsonl(tmp_path / name / "traces" / "traces.jsonl")
        rows.append([r["response_ids"] for r in stored])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 12


def test_traces_from_a_server_hold_no_row_without_a_token(tmp_path: Path) -> None:
    teacher = text_model(1, padded_rows=3)
    with torch.no_grad():
        teacher.model.get_output_embeddings().weight[teacher.banned] *= 20
    raw = raw_recipe(tmp_path)
    raw["teacher"]["path"] = str(saved(teacher, tmp_path / "padded-teacher"))
    raw["traces"]["sampling"] = {"max_new_tokens": 20, "temperature": 1.0}
    with VllmServer(teacher) as server:
        raw["teacher"]["server"] = on(server)
        rows = read_jsonl(make_traces(recipe_from(raw, where="test")))
    written = {i for r in rows for i in r["response_ids"]}
    assert len(written) > 20
    assert not written & set(teacher.banned.tolist())


def test_check_asks_the_servers(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path)
    del raw["eval"]  # it has images
    with VllmServer(text_model(1)) as teacher, VllmServer(text_model(4)) as rollouts:
        raw["teacher"]["server"] = on(teacher)
        raw["distill"]["engine"] = on(rollouts)
        there = sorted(tmp_path.iterdir())
        lines = check(recipe_from(raw, where="test"))
        assert sorted(tmp_path.iterdir()) == there
        assert any(teacher.url in line for line in lines)
        assert any(line.startswith("rollout servers: KL(sampler || trainer)") for line in lines)
        rollouts.policy = text_model(4)
        rollouts.hook = lambda path, body: (200, {}) if path == "/collective_rpc" else None
        with pytest.raises(TrainingError, match="another policy"):
            check(recipe_from(raw, where="test"))
