"""A server that is shown pictures, a proxy that changes them on their way, and tasks whose pictures are of one size."""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import json
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
from PIL import Image

from vllm_server import VllmServer
from vold.data.files.images import decoded, png_uri
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.seen import KEY, ROUTE, digest
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.types import IMAGE_MARKER, Message, Prompt, SamplingParams, ScoreRequest, Task

Body = dict[str, Any]


def noise(seed: int, width: int = 16, height: int = 8) -> Image.Image:
    """A picture unlike every other of its size."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def tasks(count: int, pictures: int = 1) -> list[Task]:
    """Problems with one text and pictures of one size: their expanded prompts are the same ids."""
    return [
        Task(
            f"seen-{i}",
            (Message("user", f"{IMAGE_MARKER * pictures} sum ?", tuple(noise(10 * i + j) for j in range(pictures))),),
            "7",
            "exact",
        )
        for i in range(count)
    ]


class SeeingServer(VllmServer):
    """A server of a model with Qwen's pictures, with `vold.engines.seen` around it unless it is `silent`."""

    silent = False

    def _answer(self, path: str, body: Body) -> tuple[int, Any]:
        if path == "/reset_encoder_cache":
            return 200, {}
        return (200, self._generate(body)) if path == ROUTE else super()._answer(path, body)

    def _generate(self, body: Body) -> Body:
        prompt, asked = self._shown(body), body["sampling_params"]
        said: Body = {"request_id": uuid.uuid4().hex, "prompt_token_ids": list(prompt.ids)}
        if not self.silent:
            said[KEY] = [digest(part["url"]) for part in body.get("content_parts", ())]
        if "prompt_logprobs" in asked:
            return said | {"choices": [{"index": 0, "token_ids": [0]}], "prompt_logprobs": self._scores(prompt)}
        params = SamplingParams(asked["max_tokens"], asked["temperature"], asked["seed"])
        (made,) = InProcessSampler(self.policy).generate([prompt], params, n=asked["n"])
        content = [
            [
                {"token_id": i, "logprob": logp, "rank": 1, "top_logprobs": [{"token_id": i, "logprob": logp}]}
                for i, logp in zip(c.ids.tolist(), c.logps.tolist(), strict=True)
            ]
            for c in made
        ]
        return said | {
            "choices": [
                {
                    "index": i,
                    "token_ids": c.ids.tolist(),
                    "finish_reason": c.finish,
                    "stop_reason": None,
                    "logprobs": {"content": at},
                }
                for i, (c, at) in enumerate(zip(made, content, strict=True))
            ]
        }

    def _shown(self, body: Body) -> Prompt:
        """The prompt with its placeholders put in, as vLLM does it from ids and pictures."""
        images = [decoded(base64.b64decode(p["url"].partition(",")[2])) for p in body.get("content_parts", ())]
        if not images:
            return Prompt(tuple(body["token_ids"]))
        vision = dict(self.policy.chat.processor.image_processor(images, return_tensors="pt"))
        counts, pad = iter((vision["image_grid_thw"].prod(-1) // 4).tolist()), self.policy.model.config.image_token_id
        ids = [i for one in body["token_ids"] for i in ([one] * next(counts, 1) if one == pad else [one])]
        return Prompt(tuple(ids), vision)

    def _scores(self, prompt: Prompt) -> list[Any]:
        """Of all ids after the last placeholder, which is as far as anybody looks."""
        pad, ids = self.policy.model.config.image_token_id, prompt.ids
        start = 1 + max((i for i, one in enumerate(ids) if one == pad), default=0)
        teacher = InProcessTeacher(self.policy, temperature=1.0, token_budget=4096)
        (scores,) = teacher.score([ScoreRequest(ids[:start], ids[start:], vision=prompt.vision)])
        found = [{str(i): {"logprob": float(v), "rank": 1}} for i, v in zip(ids[start:], scores.logp, strict=True)]
        return [None, *[{str(i): {"logprob": -1.0, "rank": 1}} for i in ids[1:start]], *found]


class Proxy:
    """Passes requests on to a server; `change` gets the `number`-th of those with pictures, from 0. A context manager.

    Attributes:
        sent: bytes of the bodies with pictures.
        changed: the requests that it has changed, as they came.
    """

    def __init__(self, url: str, change: Callable[[Body], Body] = lambda body: body, number: int = 0) -> None:
        self.sent, self.changed = list[int](), list[Body]()
        root, lock, proxy = url.removesuffix("/v1"), threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each reply waits 40 ms for an acknowledgement

            def do_GET(self) -> None:
                self.answer(httpx.get(root + self.path, timeout=None))

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    raw = proxy.passed(raw, change, number)
                headers = {"Content-Type": "application/json"}
                self.answer(httpx.post(root + self.path, content=raw, headers=headers, timeout=None))

            def answer(self, reply: httpx.Response) -> None:
                self.send_response(reply.status_code)
                self.send_header("Content-Type", reply.headers.get("Content-Type", "application/json"))
                self.send_header("Content-Length", str(len(reply.content)))
                with contextlib.suppress(OSError):  # who has asked may have heard enough
                    self.end_headers()
                    self.wfile.write(reply.content)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def passed(self, raw: bytes, change: Callable[[Body], Body], number: int) -> bytes:
        """A request's body as it goes on."""
        body = json.loads(raw) if b"content_parts" in raw else {}
        if not body:
            return raw
        self.sent.append(len(raw))
        if len(self.sent) - 1 != number:
            return raw
        self.changed.append(body)
        return json.dumps(change(copy.deepcopy(body))).encode()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def dropped(body: Body) -> Body:
    """No picture at all."""
    del body["content_parts"]
    return body


def swapped(body: Body) -> Body:
    """Another picture of the same size."""
    return _with(body, lambda image: noise(999, *image.size))


def resized(body: Body) -> Body:
    """The picture at twice its size."""
    return _with(body, lambda image: image.resize((2 * image.width, 2 * image.height)))


def squeezed(body: Body) -> Body:
    """The picture as JPEG, at its own size."""
    out = io.BytesIO()
    _picture(body).save(out, "JPEG", quality=30)
    body["content_parts"][0]["url"] = "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
    return body


def turned(body: Body) -> Body:
    """Pictures in another order."""
    body["content_parts"].reverse()
    return body


CHANGES = {change.__name__: change for change in (dropped, swapped, resized, squeezed)}


def _picture(body: Body) -> Image.Image:
    return decoded(base64.b64decode(body["content_parts"][0]["url"].partition(",")[2]))


def _with(body: Body, change: Callable[[Image.Image], Image.Image]) -> Body:
    body["content_parts"][0]["url"] = png_uri(change(_picture(body)))
    return body
