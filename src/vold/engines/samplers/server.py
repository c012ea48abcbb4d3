"""Rollouts on vLLM servers that get the student's weights after every update."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from vold.errors import SamplerError
from vold.model.parallel import ALONE, Processes
from vold.types import Completion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vold.engines.vllm import VllmClient
    from vold.model.policy import Policy
    from vold.types import Finish, Ids, Prompt, SamplingParams

NEVER = -100.0
"""The bias of an id that must not be sampled: vLLM's lowest. A reply that holds one all the same is refused."""


class ServerSampler:
    """Samples from a text model on servers.

    Behaviour log-probs are the servers' own, so they must be started with `--logprobs-mode processed_logprobs`: at the
    sampling temperature, and over the ids that can be sampled. Whether they are is measured by `vold.engines.mismatch`.

    Args:
        client: the servers.
        end_id: the id that ends a response.
        banned: ids that no response may hold.
        weights: keeps the servers at the student's weights; None for a model that is never changed.
    """

    def __init__(
        self, client: VllmClient, *, end_id: int, banned: Sequence[int] = (), weights: ServerWeights | None = None
    ) -> None:
        self.client, self.end_id, self.weights = client, end_id, weights
        self.banned = frozenset(banned)

    @contextlib.contextmanager
    def holding(self, step: int) -> Iterator[None]:
        """Inside, the servers sample from the weights that the policy has now, those after `step` updates.

        Raises:
            SamplerError: as `ServerWeights.changed`.
        """
        if self.weights is not None:
            self.weights.changed(step)
        yield

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams, n: int = 1) -> list[list[Completion]]:
        """`n` completions of each prompt. Row i of the call is drawn with the seed `params.seed + i`.

        Raises:
            SamplerError: as `stream`.
        """
        return self.stream(prompts, params, n, lambda place, completions: None)

    def stream(
        self, prompts: Sequence[Prompt], params: SamplingParams, n: int, whole: Callable[[int, list[Completion]], None]
    ) -> list[list[Completion]]:
        """As `generate`, and `whole` hears of each prompt's completions when its reply is there.

        Raises:
            SamplerError: a prompt has an image, no server answers within its patience, one refuses a request, or a
                reply is not whole.
        """
        if any(p.vision for p in prompts):
            raise SamplerError("rollout servers take text prompts only", fix="leave out distill.engine for image tasks")
        bodies = [self._body(p, params, n, i) for i, p in enumerate(prompts)]
        made: dict[int, list[Completion]] = {}

        def on_reply(place: int, reply: dict[str, Any]) -> None:
            made[place] = self._read(prompts[place], reply, params, n)
            whole(place, made[place])

        with self.client.awake():
            while True:
                if self.weights is not None:
                    self.weights.bring()
                self.client.post("/completions", bodies, on_reply=on_reply)
                # A server that was restarted meanwhile has answered with weights of its own.
                if self.weights is None or self.weights.in_place():
                    break
        return [made[i] for i in range(len(prompts))]

    def _body(self, prompt: Prompt, params: SamplingParams, n: int, place: int) -> dict[str, Any]:
        return {
            "prompt": list(prompt.ids),
            "n": n,
            "max_tokens": params.max_new_tokens,
            "temperature": params.temperature,
            "seed": (params.seed + params.first_row + place * n) % 2**62,  # vLLM adds 0 .. n - 1
            "logprobs": params.candidates,
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
            "add_special_tokens": False,
            # What a model's generation_config asks for would be another policy than the one that is trained.
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "ignore_eos": True,
            "stop_token_ids": [self.end_id],
            "logit_bias": {str(i): NEVER for i in sorted(self.banned)},
        }

    def _read(self, prompt: Prompt, reply: dict[str, Any], params: SamplingParams, n: int) -> list[Completion]:
        try:
            choices = sorted(reply["choices"], key=lambda c: int(c["index"]))
            rows = [
                (
                    c["token_ids"],
                    c["logprobs"]["token_logprobs"],
                    _best(c, params.candidates),
                    c.get("prompt_token_ids"),
                )
                for c in choices
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise SamplerError(
                "the rollout server leaves out ids or log-probs", got=str(reply)[:200], fix="use vLLM 0.20 or newer"
            ) from error
        out = []
        for ids, logps, candidates, echoed in rows:
            if echoed is not None and list(echoed) != list(prompt.ids):
                raise SamplerError("the rollout server has answered another prompt than it was sent")
            if not ids or len(ids) != len(logps) or not all(isinstance(v, float | int) and v <= 1e-3 for v in logps):
                raise SamplerError(
                    "the rollout server's log-probs do not line up with its tokens",
                    got=f"{len(ids)} ids, log-probs {str(logps)[:80]}",
                )
            if bad := self.banned.intersection(ids):
                raise SamplerError("the rollout server has sampled ids that were ruled out", got=str(sorted(bad)[:8]))
            ended = ids[-1] == self.end_id
            if not ended and len(ids) < params.max_new_tokens:
                raise SamplerError(
                    "the rollout server has cut a response short",
                    got=f"{len(ids)} of {params.max_new_tokens} tokens, no end token",
                    fix="start it with a larger --max-model-len, or lower max_new_tokens",
                )
            finish: Finish = "stop" if ended else "length"
            out.append(Completion(ids, logps, np.ones(len(ids)), finish, candidates))
        if len(out) != n:
            raise SamplerError("the rollout server returned another number of responses", got=f"{len(out)} of {n}")
        return out


def _best(choice: dict[str, Any], k: int) -> Ids | None:
    """The k likeliest ids at every position, likeliest first, from keys such as `token_id:17`; None if k is 0."""
    if not k:
        return None
    rows = []
    for top in choice["logprobs"]["top_logprobs"]:
        # The sampled token comes with them where it is not among them.
        best = sorted((-float(v), int(key.removeprefix("token_id:"))) for key, v in top.items())
        rows.append([i for _, i in best[:k]])
    return np.array(rows, np.int32)


class ServerWeights:
    """Keeps servers at a policy's weights, through a directory that both sides see.

    Servers read them with vLLM's own `reload_weights`, which casts to their precision, and carry a version. A server
    that was restarted has lost it and gets them again. They must run with `VLLM_SERVER_DEV_MODE=1`.

    Args:
        client: the servers.
        policy: the model that learns.
        directory: where weights are put for the servers to read; removed again afterwards.
        group: the processes that train the policy. Of several, all call `changed`, and the first sends at once.
    """

    def __init__(self, client: VllmClient, policy: Policy, directory: Path, group: Processes = ALONE) -> None:
        self.client, self.policy, self.directory, self.group = client, policy, directory, group
        # Servers outlive runs: versions of an earlier one must not pass for those of this one.
        self._run = group.gather(secrets.token_hex(4))[0]
        self.version = f"{self._run}/0"

    def changed(self, step: int) -> None:
        """Say that the policy's weights are now those of `step`.

        Raises:
            SamplerError: as `bring`, where several processes train.
        """
        self.version = f"{self._run}/{step}"
        if self.group.world > 1:
            self._send()
            self.group.wait()

    def bring(self) -> None:
        """Make every server hold the policy's weights.

        Raises:
            SamplerError: a server does not answer within its patience, or cannot read the directory.
        """
        if self.in_place():
            return
        if self.group.world > 1:
            raise SamplerError(
                "a server has lost the student's weights in the middle of a step",
                fix="start the run again: it goes on from its last checkpoint and sends them",
            )
        self._send()

    def _send(self) -> None:
        here = self.directory.resolve() / self.version.replace("/", "-")
        if self.group.first:
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir(parents=True)
        try:
            self.policy.save(here)
            if not self.group.first:
                return
            body = {"method": "reload_weights", "kwargs": {"weights_path": str(here)}}
            self.client.each("/collective_rpc", body, root=True)
            # Keys and values of earlier weights.
            self.client.each("/reset_prefix_cache", root=True)
            self.client.each("/update_weight_version", {"new_version": self.version}, root=True)
        finally:
            if self.group.first:
                shutil.rmtree(here, ignore_errors=True)

    def in_place(self) -> bool:
        """Whether every server says that it holds the present version."""
        replies = self.client.each("/weight_info", get=True, root=True)
        return all(r is not None and r.get("weight_version") == self.version for r in replies)
