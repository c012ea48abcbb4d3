"""A real HTTP server on this machine with the routes of vLLM 0.32 that the project uses, around a tiny model."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch

from vllm_weights import ServedWeights
from vold.engines.launch.server import HeldPort
from vold.engines.samplers.draw import truncated
from vold.engines.samplers.inprocess import InProcessSampler
from vold.model.policy import Policy
from vold.types import Completion, Prompt, SamplingParams

Hook = Callable[[str, dict[str, Any]], tuple[int, Any] | None]


class VllmServer:
    """Scores and samples with `policy`, whose weights it can be told to replace. Use as a context manager.

    `hook(path, body)` runs before every request and may answer in the model's place with (status, object).
    `requests` are the paths asked for so far, `hang_up` makes it close connections without an answer. With `weights` it
    was started with `vold.engines.transfer.vllm_worker`, around that one's policy.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        name: str = "tiny",
        context: int = 128,
        port: HeldPort | None = None,
        weights: ServedWeights | None = None,
    ) -> None:
        self.policy, self.name, self.context, self.weights = policy, name, context, weights
        self.requests, self.version, self.hang_up = list[str](), "default", False
        self.hook: Hook = lambda path, body: None
        self.asleep, self.lost = set[str](), False
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each reply waits 40 ms for an acknowledgement

            def do_GET(self) -> None:
                server.reply(self, {})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.reply(self, json.loads(raw) if raw else {})

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._handler = Handler
        self._http: ThreadingHTTPServer | None = None
        self._open: set[socket.socket] = set()
        self._port = port or HeldPort()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port.number}/v1"

    def start(self) -> None:
        """Listen, at the port of the last time."""
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port.number), self._handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def kill(self) -> None:
        """Stop listening and tear every connection, as a process does that dies."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        for connection in list(self._open):
            connection.close()

    def __enter__(self) -> VllmServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._port.free()

    def reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self._open.add(handler.connection)
        self.requests.append(handler.path)
        answer = self.hook(handler.path, body)
        if self.hang_up or self._http is None:
            handler.close_connection = True
            return
        with self._lock:
            status, data = answer if answer is not None else self._answer(handler.path, body)
        text = data.encode() if isinstance(data, str) else json.dumps(data).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        route = path.partition("?")[0]
        if refusal := self._refusal(route, body):
            return refusal
        if route == "/v1/models":
            return 200, {"object": "list", "data": [{"id": self.name, "max_model_len": self.context}]}
        if route == "/v1/completions":
            return 200, self._score(body) if body.get("prompt_logprobs") is not None else self._sample(body)
        if route == "/inference/v1/generate":
            return 200, self._candidates(body)
        return self._slept(route, path) or self._managed(route, body)

    def _refusal(self, route: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """What a request is turned away with."""
        models = {self.name} | ({*self.weights.adapters} if self.weights is not None else set())
        if route in ("/v1/completions", "/inference/v1/generate") and body.get("model") not in models:
            return 404, {"error": {"message": f"The model `{body.get('model')}` does not exist."}}
        if route == "/v1/completions" and (self.asleep or self.lost):
            return 500, {"error": {"message": f"asleep: {self.asleep}, weights lost: {self.lost}"}}
        if route == "/collective_rpc" and "weights" in self.asleep:
            return 500, {"error": {"message": "no memory for weights"}}
        if route == "/v1/completions" and len(body["prompt"]) + body["max_tokens"] > self.context:
            return 400, {"error": {"message": f"This model's maximum context length is {self.context} tokens."}}
        return None

    def _slept(self, route: str, path: str) -> tuple[int, dict[str, Any]] | None:
        """Sleep of level 1 and 2, and waking, in parts or at once."""
        asked = parse_qs(urlsplit(path).query)
        if route == "/sleep":
            self.asleep, self.lost = {"weights", "kv_cache"}, self.lost or asked["level"] == ["2"]
        elif route == "/wake_up":
            self.asleep -= set(asked.get("tags", self.asleep))
        else:
            return None
        return 200, {"status": "sleeping" if self.asleep else "awake"}

    def _managed(self, route: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Weights, their version and caches."""
        if route == "/server_info":
            return 200, self.weights.info() if self.weights is not None else {"vllm_config": {}}
        if self.weights is not None and (answer := self.weights.answer(route, body)) is not None:
            self.lost &= body.get("method") != "vold_reload"
            return 200, answer
        if route == "/weight_info":
            return 200, {"weight_version": self.version}
        if route == "/update_weight_version":
            self.version = body["new_version"]
            return 200, {"success": True}
        if route == "/collective_rpc" and body["method"] == "reload_weights":
            self.policy, self.lost = Policy.load(body["kwargs"]["weights_path"]), False
            return 200, {"results": [None]}
        if route == "/reset_prefix_cache":
            return 200, {"success": True}
        return 404, {"error": {"message": f"no route {route}"}}

    def _logits(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = self.policy.model(input_ids=torch.tensor([ids])).logits[0].float()
        return logits

    def _score(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, k = body["prompt"], body["prompt_logprobs"]
        logp = self._logits(ids).log_softmax(-1)
        rows: list[dict[str, Any] | None] = [None]
        for t, token in enumerate(ids[1:]):
            rank = int((logp[t] >= logp[t, token]).sum())
            row = {str(token): {"logprob": max(float(logp[t, token]), -9999.0), "rank": rank}}
            best = logp[t].topk(k)
            for r, (value, i) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), 1):
                row[str(i)] = {"logprob": max(value, -9999.0), "rank": r}
            rows.append(row)
        return {"choices": [{"index": 0, "prompt_logprobs": rows, "prompt_token_ids": ids, "token_ids": [0]}]}

    def _sample(self, body: dict[str, Any]) -> dict[str, Any]:
        served = self.policy if self.weights is None else self.weights.policy_of(body["model"])
        policy = Policy(served.model, served.chat)
        policy.banned = torch.tensor(sorted(int(i) for i in body["logit_bias"]), dtype=torch.int64)
        params = self._params(body)
        (made,) = InProcessSampler(policy).generate([Prompt(tuple(body["prompt"]))], params, n=body["n"])
        return {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "choices": [
                {
                    "index": i,
                    "token_ids": c.ids.tolist(),
                    "logprobs": {"token_logprobs": c.logps.tolist(), "top_logprobs": self._tops(body, c)},
                    "prompt_token_ids": body["prompt"],
                    "finish_reason": c.finish,
                    "stop_reason": next((s for s in body["stop"] if s in policy.chat.text(c.ids)), None),
                }
                for i, c in enumerate(made)
            ],
        }

    def _params(self, body: dict[str, Any]) -> SamplingParams:
        cut = {name: body[name] for name in ("top_p", "top_k", "min_p")}
        asked = body["max_tokens"], body["temperature"], body["seed"], body["logprobs"]
        return SamplingParams(*asked, **cut, stop=tuple(body["stop"]))

    def _tops(self, body: dict[str, Any], c: Completion) -> list[dict[str, float]]:
        """The sampled token first, then the likeliest, as vLLM orders them."""
        logits = self._logits([*body["prompt"], *c.ids.tolist()])[len(body["prompt"]) - 1 : -1].clone()
        logits[:, [int(i) for i in body["logit_bias"]]] -= 100
        logp, params = (logits / (body["temperature"] or 1.0)).log_softmax(-1), self._params(body)
        if params.narrowing:
            logp = truncated(logp, params, params.top_k or logp.shape[1])[0].clamp(min=-9999.0)
        rows = []
        for token, row in zip(c.ids.tolist(), logp, strict=True):
            best = row.topk(body["logprobs"]).indices.tolist()
            rows.append({f"token_id:{i}": float(row[i]) for i in dict.fromkeys([token, *best])})
        return rows

    def _candidates(self, body: dict[str, Any]) -> dict[str, Any]:
        params = body["sampling_params"]
        wanted, start = params["prompt_logprob_token_ids"], params["prompt_logprob_start"]
        logp = self._logits(body["token_ids"]).log_softmax(-1)
        scores = np.full((len(wanted), max(map(len, wanted))), -np.inf, dtype=np.float32)
        for i, row in enumerate(wanted):
            scores[i, : len(row)] = logp[start + i, row].numpy()
        buffer = io.BytesIO()
        np.save(buffer, scores, allow_pickle=False)
        return {"choices": [], "prompt_token_id_logprobs": base64.b64encode(buffer.getvalue()).decode()}
