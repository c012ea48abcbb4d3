"""Ask a server that speaks the OpenAI chat protocol, such as `vllm serve`."""

from __future__ import annotations

import base64
import concurrent.futures
import io
import itertools
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vold.errors import ConfigError, SamplerError
from vold.processing import IMAGE_MARKER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vold.config import Endpoint
    from vold.types import Finish, Message, SamplingParams

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 20.0
TIMEOUT_SECONDS = 1800.0
"""An answer of 8,192 tokens on a busy server takes minutes."""


@dataclass(frozen=True)
class EndpointReply:
    """The answer to request `index`. `error` holds the server's words where it refused this one request."""

    index: int
    text: str
    finish: Finish
    tokens: int
    error: str = ""


class EndpointSampler:
    """Sends chat requests to one or several servers, several at a time.

    Args:
        urls: base addresses that end in `/v1`; request i goes to the i-th in turn, a retry to the next.
        model: the name the server gives the model.
        key: bearer token; empty for none.
        concurrency: requests under way at a time.
        first_wait: seconds before the first retry; each further wait is twice as long.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        *,
        key: str = "",
        concurrency: int = 32,
        first_wait: float = FIRST_WAIT_SECONDS,
    ) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.urls, self.model, self.concurrency = [u.rstrip("/") for u in urls], model, concurrency
        self.first_wait = first_wait
        self.client = httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS)

    @classmethod
    def from_config(cls, config: Endpoint) -> EndpointSampler:
        """Build from a recipe's section.

        Raises:
            ConfigError: the environment variable of `key_env` is not set.
        """
        key = os.environ.get(config.key_env, "") if config.key_env else ""
        if config.key_env and not key:
            raise ConfigError("this environment variable is not set", where="key_env", got=config.key_env)
        return cls(config.urls, config.model, key=key, concurrency=config.concurrency)

    def answer(
        self, prompts: Sequence[tuple[Message, ...]], params: SamplingParams, samples: Sequence[int]
    ) -> Iterator[EndpointReply]:
        """Yield one reply a prompt as it comes, not in order. `samples[i]` numbers the draw and moves its seed.

        Raises:
            SamplerError: no server answers after `ATTEMPTS` tries, or it refuses every request (401, 403, 404). What
                was yielded before is whole.
        """
        pool = concurrent.futures.ThreadPoolExecutor(self.concurrency)
        queue = iter(enumerate(zip(prompts, samples, strict=True)))

        def submit(count: int) -> set[concurrent.futures.Future[EndpointReply]]:
            return {pool.submit(self._one, i, m, params, s) for i, (m, s) in itertools.islice(queue, count)}

        waiting = submit(2 * self.concurrency)
        failure: BaseException | None = None
        try:
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED")
                for future in done:
                    if (error := future.exception()) is None:
                        yield future.result()
                    elif failure is None:
                        # What is under way is still waited for: an answer that was paid for is not thrown away.
                        failure = error
                        waiting = {f for f in waiting if not f.cancel()}
                if failure is None:
                    waiting |= submit(len(done))
            if failure is not None:
                raise failure
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def chat(self, messages: tuple[Message, ...], params: SamplingParams) -> EndpointReply:
        """One reply. Raises as `answer`."""
        return self._one(0, messages, params, 0)

    def _one(self, index: int, messages: tuple[Message, ...], params: SamplingParams, sample: int) -> EndpointReply:
        import httpx

        body = {
            "model": self.model,
            "messages": [{"role": m.role, "content": content(m)} for m in messages],
            "max_tokens": params.max_new_tokens,
            "temperature": params.temperature,
            "seed": (params.seed + 1_000_003 * sample) % 2**31,
        }
        problem, wait = "", self.first_wait
        for attempt in range(ATTEMPTS):
            url = self.urls[(index + attempt) % len(self.urls)]
            try:
                response = self.client.post(f"{url}/chat/completions", json=body)
            except httpx.HTTPError as error:
                problem = f"{url}: {type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    reply = _reply(index, response)
                    if reply is not None:
                        return reply
                    problem = f"{url}: not a chat completion: {response.text[:200]}"
                elif response.status_code in (401, 403, 404):
                    raise SamplerError(
                        "the server refuses every request",
                        where=url,
                        got=f"status {response.status_code}: {response.text[:300]}",
                        fix="check the address (it ends in /v1), the model's name and the key",
                    )
                elif response.status_code < 500 and response.status_code not in (408, 409, 429):
                    return EndpointReply(index, "", "stop", 0, f"status {response.status_code}: {response.text[:300]}")
                else:
                    problem = f"{url}: status {response.status_code}: {response.text[:200]}"
            if attempt < ATTEMPTS - 1:
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        raise SamplerError(
            "no server answers",
            where=", ".join(self.urls),
            got=f"{ATTEMPTS} tries, the last: {problem}",
            fix="start the server again and repeat the command: it goes on with what is missing",
        )


def content(message: Message) -> str | list[dict[str, Any]]:
    """A turn as the protocol wants it: text, or parts with pictures as data URIs where the markers stand."""
    if not message.images:
        return message.text
    pieces = message.text.split(IMAGE_MARKER)
    if len(pieces) == 1:
        pieces = [""] * len(message.images) + pieces
    parts: list[dict[str, Any]] = []
    for i, piece in enumerate(pieces):
        if i:
            buffer = io.BytesIO()
            message.images[i - 1].save(buffer, "PNG")
            uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
            parts.append({"type": "image_url", "image_url": {"url": uri}})
        if piece.strip():
            parts.append({"type": "text", "text": piece})
    return parts


def _reply(index: int, response: Any) -> EndpointReply | None:
    """Read a completion; thinking that the server has split off is put back in front."""
    try:
        data = response.json()
        choice = data["choices"][0]
        message = choice["message"]
        text, thought = message.get("content") or "", message.get("reasoning_content") or message.get("reasoning")
        tokens = int((data.get("usage") or {}).get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    finish: Finish = "length" if choice.get("finish_reason") == "length" else "stop"
    if thought:
        # Cut off while thinking, the block stays open, as it would in the model's own text.
        text = f"<think>{thought}</think>{text}" if text or finish == "stop" else f"<think>{thought}"
    return EndpointReply(index, text, finish, tokens)
