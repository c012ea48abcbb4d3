"""Pictures on a real vLLM server, with the demo world's student: `make test-engines` has them. test_shown.py has the
same on a small server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_backends import RealVllm, client
from package import ROOT
from seeing import CHANGES, Proxy, swapped
from vold.data.worlds.digits import DigitTasks
from vold.engines.mismatch import Mismatch
from vold.engines.samplers.server import ServerSampler
from vold.engines.teachers.health import probe_of_prompt
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.server import ServerTeacher
from vold.engines.transfer.starting import PICTURES, server_arguments, server_environment
from vold.errors import AlignmentError, SamplerError
from vold.model.batching import collate
from vold.model.policy import Policy
from vold.run.files import read_jsonl
from vold.run.recipe import load_recipe
from vold.run.shipped import resolve
from vold.training.distill import distill
from vold.types import Prompt, SamplingParams, ScoreRequest

pytestmark = pytest.mark.engines

STUDENT = resolve("demo:student")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(STUDENT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    """It holds the student, and can be sent others."""
    home = tmp_path_factory.mktemp("vllm-pictures")
    variables = server_environment(home)
    beside = [variables["PYTHONPATH"], str(ROOT / "recipes/image_rl-mini"), str(ROOT / "build/torchvision")]
    variables["PYTHONPATH"] = os.pathsep.join(beside)
    options = [*PICTURES, *server_arguments(), "--generation-config", "vllm"]
    with RealVllm(Path(STUDENT), home / "log") as one:
        yield one.start(*options, **variables)


def asked(policy: Policy, count: int = 3) -> list[Prompt]:
    tasks = DigitTasks("test", "image", count, 1)
    return [policy.chat.prompt(tasks[i].messages, tasks[i].id) for i in range(count)]


def sampler(url: str, policy: Policy) -> ServerSampler:
    servers = client(url, role="rollout", patience=600.0)
    return ServerSampler(servers, end_id=policy.chat.end_id, banned=policy.banned.tolist())


def requests(policy: Policy) -> list[ScoreRequest]:
    answer = policy.chat.tokens("7")
    return [ScoreRequest(p.ids, answer, vision=p.vision, pictures=p.pictures) for p in asked(policy)]


def test_rollouts_and_scores_are_those_of_this_process(server: RealVllm, policy: Policy) -> None:
    found, prompts = Mismatch(), asked(policy)
    with Proxy(server.url) as proxy:
        made = sampler(proxy.url, policy).generate(prompts, SamplingParams(8, 1.0, 3, candidates=3), n=4)
        assert len(proxy.sent) == 3 * 4  # one an answer
    for prompt, group in zip(prompts, made, strict=True):
        for c in group:
            batch = collate([prompt], [c.ids], [c.action_mask], policy.chat.pad_id)
            with torch.inference_mode():
                found.add(policy.read(batch, temperature=1.0).logp, torch.tensor(c.logps))
    assert found.tokens > 20
    assert found.largest < 1e-3
    expected = InProcessTeacher(policy, temperature=1.0, token_budget=4096).score(requests(policy))
    scores = ServerTeacher(client(server.url, patience=600.0), probe_of_prompt(prompts[0])).score(requests(policy))
    for ours, theirs in zip(expected, scores, strict=True):
        assert ours.logp == pytest.approx(theirs.logp, abs=1e-3)


@pytest.mark.parametrize("name", CHANGES)
def test_a_picture_changed_on_its_way_is_refused_with_its_task(name: str, server: RealVllm, policy: Policy) -> None:
    with Proxy(server.url, CHANGES[name], number=1) as proxy, pytest.raises(SamplerError, match=r"task digits-test"):
        sampler(proxy.url, policy).generate(asked(policy), SamplingParams(8, 1.0, 3), n=2)
    with Proxy(server.url, CHANGES[name], number=2) as proxy:
        teacher = ServerTeacher(client(proxy.url, patience=600.0), probe_of_prompt(asked(policy)[0]))
        with pytest.raises(AlignmentError, match=r"task digits-test"):
            teacher.score(requests(policy))


def recipe(home: Path, *more: str) -> Any:
    short = ["distill.init=demo:student", "distill.prompts_per_step=2", "distill.steps=3", f"run.dir={home}/run"]
    return load_recipe(ROOT / "recipes/image_rl-mini.yaml", [*short, *more])


def test_a_run_follows_its_weights_and_stops_where_a_picture_was_swapped(server: RealVllm, tmp_path: Path) -> None:
    """The tower is trained as well: a picture that comes again is not seen as by earlier weights. The last of all
    pictures is swapped."""
    with Proxy(server.url, swapped, number=3 * 2 * 5 - 1) as proxy:
        engine = f"distill.engine={{urls: ['{proxy.url}'], model: tiny, transfer: shared_memory, patience: 600}}"
        few = ["tasks.train.size=2", "student.freeze=[]", "distill.optimizer={lr: 1.0e-2}"]
        limit = "distill.mismatch={limit: 1.0e-6, action: stop}"
        with pytest.raises(SamplerError, match=r"task digits-train"):
            distill(recipe(tmp_path, engine, limit, *few))
    rows = read_jsonl(tmp_path / "run/distill/metrics.jsonl")
    assert [r["step"] for r in rows] == [0, 1]
    assert any(r.get("trained_tokens") for r in rows)


def test_the_recipe_runs_with_rollouts_and_a_teacher_that_sees_on_servers_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    distill(recipe(tmp_path, "distill.objective.method=vold", "teacher.path=demo:student"))
    rows = read_jsonl(tmp_path / "run/distill/metrics.jsonl")
    assert [r["step"] for r in rows] == [0, 1, 2]
    assert all(r["mismatch"] < 1e-3 for r in rows if "mismatch" in r)
    assert any(r["teacher_tokens"] for r in rows)
