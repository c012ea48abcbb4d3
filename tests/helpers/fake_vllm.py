#!/usr/bin/env python
"""Stands where a recipe names an interpreter that has vLLM (`launch.python`) and takes what vLLM's server is given:
`fake_vllm.py -m vllm.entrypoints.openai.api_server --model DIR ...`. It starts in a fraction of a second.

In place of the model it holds a bigram model that is drawn by the model's name, whatever weights it is given; what it
samples and scores is a function of the request alone. It has a worker and a piece of shared
memory between the two. `--fault` makes it fail, as `Fault` says.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

FAULTS = {
    "exit": "ends at its start with an error",
    "hang": "never listens",
    "stay": "does not end at SIGTERM, nor does its worker",
    "awake": "does not go to sleep",
    "once": "ends at its third completion, and leaves its worker; started again in the same folder it does not",
    "hold": "does not answer its third completion; started again in the same folder it does",
    "deaf": "answers nothing any more from its third completion on; started again in the same folder it does",
    "always": "ends at every second completion",
    "push": "ends as it takes weights for the second time; started again in the same folder it does not",
}


def given(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


class Bigrams:
    """Log-probs of the next id after each, as far from uniform as a trained model's."""

    def __init__(self, model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        config |= config.get("text_config", {})
        self.end, self.rows = config["eos_token_id"], config["vocab_size"]
        seed = int(hashlib.sha256(model.name.encode()).hexdigest()[:8], 16)
        self.logits = np.random.default_rng(seed).normal(size=(self.rows, self.rows))
        self.logits[:, :16] = -30.0  # of tokens that stand for no text
        self.logits[:, self.end] = 3.0

    def logp(self, before: int, bias: dict[str, float], temperature: float = 1.0) -> np.ndarray:
        row = self.logits[before].copy()
        for name, value in bias.items():
            row[int(name)] += value
        row = row / (temperature or 1.0)
        out: np.ndarray = row - row.max() - np.log(np.exp(row - row.max()).sum())
        return out

    def sample(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = []
        for n in range(body["n"]):
            said = json.dumps([body["prompt"], body["seed"] + n])
            draws = np.random.default_rng(int(hashlib.sha256(said.encode()).hexdigest()[:8], 16))
            ids, logps, tops = list[int](), list[float](), list[dict[str, float]]()
            while len(ids) < body["max_tokens"] and self.end not in ids:
                logp = self.logp((body["prompt"] + ids)[-1], body["logit_bias"], body["temperature"])
                ids.append(int(draws.choice(self.rows, p=np.exp(logp))) if body["temperature"] else int(logp.argmax()))
                logps.append(float(logp[ids[-1]]))
                best = [ids[-1], *map(int, logp.argsort()[::-1][: body["logprobs"]])]
                tops.append({f"token_id:{i}": float(logp[i]) for i in dict.fromkeys(best)})
            finish = "stop" if ids[-1] == self.end else "length"
            logprobs = {"token_logprobs": logps, "top_logprobs": tops}
            choices.append({"index": n, "token_ids": ids, "logprobs": logprobs, "finish_reason": finish})
        return {"choices": [{**c, "prompt_token_ids": body["prompt"]} for c in choices]}

    def score(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, rows = body["prompt"], list[dict[str, Any] | None]([None])
        for before, token in itertools.pairwise(ids):
            logp = self.logp(before, {})
            row = {str(token): {"logprob": float(logp[token]), "rank": int((logp >= logp[token]).sum())}}
            for rank, i in enumerate(logp.argsort()[::-1][: body["prompt_logprobs"]], 1):
                row[str(i)] = {"logprob": float(logp[i]), "rank": rank}
            rows.append(row)
        return {"choices": [{"index": 0, "prompt_logprobs": rows, "prompt_token_ids": ids, "token_ids": [0]}]}


class Fake:
    """What it knows: its model's name there, its version of the weights, whether it sleeps, and its faults."""

    def __init__(self, fault: str) -> None:
        self.model, self.name, self.fault = Bigrams(Path(given("--model"))), given("--served-model-name"), fault
        self.key, self.version, self.asleep, self.asked = os.environ["VLLM_API_KEY"], "default", False, 0
        self.deaf, self.pushed = False, 0

    def answer(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        route = path.partition("?")[0]
        while self.deaf:
            time.sleep(3600)
        os.write(1, f"INFO {route}\n".encode())  # in one piece, whoever else writes
        if route.startswith("/v1") and key != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        about: dict[str, dict[str, Any]] = {"/v1/models": {"data": [{"id": self.name, "max_model_len": 256}]}}
        about["/server_info"] = {"vllm_config": {}}
        if route in about:
            return 200, about[route]
        if route in ("/v1/completions", "/v1/chat/completions"):
            return self.complete(route, body)
        if route == "/sleep" and self.fault == "awake":
            return 500, {"error": "no pinned memory"}
        if route in ("/sleep", "/wake_up"):
            self.asleep = route == "/sleep"
        elif route == "/update_weight_version":
            self.version = body["new_version"]
        elif route == "/collective_rpc":
            assert Path(body["kwargs"]["weights_path"]).is_dir()
            self.pushed += 1
            if self.fault == "push" and self.pushed == 2 and not Path("ended").exists():
                Path("ended").touch()
                os._exit(3)
        return 200, {"weight_version": self.version}

    def complete(self, route: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked += 1
        if (self.fault == "once" and self.asked == 3 and not Path("ended").exists()) or (
            self.fault == "always" and self.asked % 2 == 0
        ):
            Path("ended").touch()
            print("MemoryError: the fake has no memory left", flush=True)
            os._exit(3)
        if self.fault in ("hold", "deaf") and self.asked == 3 and not Path("held").exists():
            Path("held").touch()
            self.deaf = self.fault == "deaf"
            time.sleep(3600)
        if self.asleep or body["model"] != self.name:
            return (500, {"error": "asleep"}) if self.asleep else (404, {"error": "no such model"})
        if route == "/v1/chat/completions":
            said = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()[0] % 10
            message = {"role": "assistant", "content": str(said)}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            return 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
        return 200, self.model.sample(body) if body.get("prompt_logprobs") is None else self.model.score(body)


def serve(fake: Fake, host: str, port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each reply waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.reply(json.loads(raw) if raw else {})

        def reply(self, body: dict[str, Any]) -> None:
            status, said = fake.answer(self.path, self.headers.get("Authorization", ""), body)
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    class Http(ThreadingHTTPServer):
        request_queue_size = 1024
        daemon_threads = True

    Http((host, port), Handler).serve_forever()


def work(segment: str) -> None:
    """The worker: maps the shared memory and waits for a signal."""
    import mmap

    if given("--fault") == "stay":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(segment, "r+b") as f, mmap.mmap(f.fileno(), 4096) as mapped:
        mapped[:4] = b"used"
        while True:
            time.sleep(3600)


def main() -> None:
    if sys.argv[1] == "worker":
        return work(sys.argv[2])
    assert sys.argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"], sys.argv
    fault = given("--fault")
    print(f"INFO loading {given('--model')}", flush=True)
    if "--bogus" in sys.argv:
        sys.exit("usage: api_server.py [options]\napi_server.py: error: unrecognized arguments: --bogus")
    if fault == "exit":
        print("ValueError: no kernel for heads of 16\n" + "INFO more\n" * 20 + "the engine did not start", flush=True)
        sys.exit(1)
    if fault == "hang":
        time.sleep(3600)
    segment = f"/dev/shm/fake_vllm_{os.getpid()}"
    Path(segment).write_bytes(os.getcwd().encode().ljust(4096, b"\0"))
    # vLLM's workers are in the process group of their server; one that is not is found as a descendant.
    away = fault in ("once", "stay")
    child = subprocess.Popen([sys.executable, __file__, "worker", segment, *sys.argv[3:]], start_new_session=away)

    def end(number: int, frame: object) -> None:
        child.terminate()
        child.wait()
        os.unlink(segment)
        os._exit(0)

    while Path(segment).read_bytes()[:4] != b"used":
        time.sleep(0.01)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if fault == "stay" else end)
    try:
        serve(Fake(fault), given("--host"), int(given("--port")))
    except OSError as error:
        child.kill()
        os.unlink(segment)
        sys.exit(f"OSError: {error}")


if __name__ == "__main__":
    main()
