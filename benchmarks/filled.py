"""How full rollouts keep two real vLLM servers on this machine:

    python benchmarks/filled.py --python .venv-engines/bin/python [--places 64 --prompts 512 --rollouts 4]

The student is untrained, so that responses end anywhere up to --tokens; its steps take long enough that what a server
spends on taking and answering requests is a small part, as on a GPU. Each server says how many responses it works at
(`vllm:num_requests_running`), and is asked ten times a second. Counted are its answers from when both are at work until
the last request has been sent: what follows is the tail. Once with `concurrency` as many as there are places, and
with two and four times as many. Writes benchmarks/results/filled.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx

from vold.engines.samplers.server import ServerSampler
from vold.model.policy import Policy
from vold.run.files import write_json
from vold.types import Prompt, SamplingParams

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))
import engine_backends
from engine_backends import RealVllm, client, saved, text_model

HERE = Path(__file__).parent
RUNNING = re.compile(r"^vllm:num_requests_running\{.*\} ([\d.]+)$", re.M)
SEED = 4
"""Of the model's weights."""
LOOK = 0.1
"""Seconds between two questions."""


class Watch:
    """What servers say, until `ended`: rows of how many responses each works at, while `left` requests are not sent."""

    def __init__(self, urls: list[str], requests: int) -> None:
        self.urls, self.left, self.rows, self.ended = urls, requests, list[tuple[int, list[int]]](), threading.Event()

    def work(self) -> None:
        while not self.ended.wait(LOOK):
            said = [httpx.get(url.removesuffix("/v1") + "/metrics", timeout=None).text for url in self.urls]
            self.rows.append((self.left, [int(sum(map(float, RUNNING.findall(text)))) for text in said]))


def shares(rows: list[tuple[int, list[int]]], places: int) -> list[float]:
    """Of each server the mean share of its places that was filled, from when all are at work until every request has
    been sent."""
    first = next(i for i, (_, running) in enumerate(rows) if min(running))
    counted = [running for left, running in rows[first:] if left]
    return [round(statistics.mean(of) / places, 3) for of in zip(*counted, strict=True)]


def model_of(a: argparse.Namespace) -> Policy:
    return text_model(SEED, width=a.width, layers=a.layers)


def measured(a: argparse.Namespace, one: RealVllm, two: RealVllm, concurrency: int) -> dict[str, Any]:
    policy = model_of(a)
    servers = client(one.url, two.url, role="rollout", concurrency=concurrency, patience=600)
    sampler = ServerSampler(servers, end_id=policy.chat.end_id, banned=policy.banned.tolist())
    prompts = [Prompt((20 + i % 9, 21, 22 + i % 7)) for i in range(a.prompts)]
    watch = Watch([one.url, two.url], a.prompts * a.rollouts)
    send = servers.send

    def counted(*args: Any, **more: Any) -> Any:
        watch.left -= 1
        return send(*args, **more)

    servers.send = counted
    looking = threading.Thread(target=watch.work)
    looking.start()
    made = sampler.stream(prompts, SamplingParams(a.tokens, 1.0, 0), a.rollouts, lambda place, completions: None)
    watch.ended.set()
    looking.join()
    lengths = [len(c.ids) for group in made for c in group]
    return {
        "concurrency": concurrency,
        "shares": shares(watch.rows, a.places),
        "mean_tokens": round(statistics.mean(lengths), 1),
        "looks": len(watch.rows),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="an interpreter that has vLLM")
    parser.add_argument("--places", type=int, default=64, help="of each server: --max-num-seqs")
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--width", type=int, default=512, help="of the student's hidden states")
    parser.add_argument("--layers", type=int, default=8)
    a = parser.parse_args()
    engine_backends.VLLM_PYTHON = os.path.abspath(a.python)  # servers start in another directory
    with tempfile.TemporaryDirectory() as home:
        model = saved(model_of(a), Path(home) / "model")
        with RealVllm(model, Path(home) / "one.log") as one, RealVllm(model, Path(home) / "two.log") as two:
            for server in (one, two):
                server.start("--max-num-seqs", str(a.places))
            rows = [measured(a, one, two, times * a.places) for times in (1, 2, 4)]
    asked = {"places": a.places, "prompts": a.prompts, "rollouts": a.rollouts, "tokens": a.tokens}
    asked |= {"width": a.width, "layers": a.layers}
    found = {**asked, "cores": os.cpu_count(), "runs": rows}
    write_json(HERE / "results" / "filled.json", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
