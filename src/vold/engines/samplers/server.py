"""Rollouts on vLLM servers that get the student's weights after every update."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vold.engines.replies import LOWEST, MOST_IDS, ROUNDING, ids_named, wrong_ids, wrong_logps
from vold.engines.seen import ROUTE
from vold.engines.shown import ASKED, body, read, route
from vold.errors import SamplerError
from vold.types import Completion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from vold.engines.replies import VllmReply
    from vold.engines.samplers.colocated import ColocatedVllm, ColocatedWeights
    from vold.engines.transfer.weights import ServerWeights
    from vold.engines.vllm import VllmClient
    from vold.run.records import JsonObject
    from vold.types import Finish, Ids, Prompt, SamplingParams

RESTARTS = 5
"""Times that the prompts of a call are sampled anew because a server has lost the weights meanwhile."""
NEVER = -100.0
"""The bias of an id that must not be sampled: vLLM's lowest. A reply that holds one all the same is refused."""


class ServerSampler:
    """Samples from a model on servers. Where any prompt of a call has pictures, all go to vLLM's route of ids in, ids
    out (`vold.engines.shown`).

    Behaviour log-probs are the servers' own, so they must be started with `--logprobs-mode processed_logprobs`: at the
    sampling temperature, and over the ids that can be sampled. Whether they are is measured by `vold.engines.mismatch`.

    Args:
        client: the servers, or vLLM in this process.
        end_id: the id that ends a response.
        rows: ids the model has; those of a response are below.
        banned: ids that no response may hold.
        weights: keeps the servers at the student's weights; None for a model that is never changed.
    """

    def __init__(
        self,
        client: VllmClient | ColocatedVllm,
        *,
        end_id: int,
        rows: int = MOST_IDS,
        banned: Sequence[int] = (),
        weights: ServerWeights | ColocatedWeights | None = None,
    ) -> None:
        self.client, self.end_id, self.rows, self.weights = client, end_id, rows, weights
        self.banned = frozenset(banned)

    @contextlib.contextmanager
    def holding(self, step: int, *, pictures: bool = True) -> Iterator[None]:
        """Inside, the servers sample from the weights that the policy has now, those after `step` updates.

        Raises:
            SamplerError: as `vold.engines.transfer.weights.ServerWeights.changed`.
        """
        if self.weights is not None:
            self.weights.pictures |= pictures
            self.weights.changed(step)
        with self._awake():
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
            SamplerError: no server answers within its patience, one refuses a request, or a reply is not whole, or is
                one to other pictures than were sent.
        """
        made: dict[int, Completion] = {}
        heard = set[str]()
        left = dict[int, int]()  # of each prompt, the answers that are still to come
        path = route(prompts, SamplerError)
        shown = path == ROUTE

        def group(place: int) -> list[Completion]:
            return [made[row] for row in range(place * n, (place + 1) * n)]

        def on_reply(row: int, reply: VllmReply) -> None:
            place = row // n
            reply.comes_once(heard)
            reply = read(reply, prompts[place].pictures) if shown else reply
            made[row] = self._read(prompts[place], reply, params)
            left[place] -= 1
            if not left[place]:
                whole(place, group(place))

        with self._awake():
            for _ in range(RESTARTS):
                if self.weights is not None:
                    self.weights.bring()
                bodies = [self._body(p, params, path) for p in prompts]
                own = [self._own(params, n, i, path) for i in range(len(prompts))]
                left.update(dict.fromkeys(range(len(prompts)), n))
                tasks = [p.pictures.task if p.pictures else "" for p in prompts]
                try:
                    self.client.post(path, bodies, root=shown, own=own, tasks=tasks, on_reply=on_reply)
                except SamplerError:
                    # A server that was restarted knows no adapter of the student's, and refuses.
                    if self.weights is None or self.weights.in_place():
                        raise
                    continue
                # A server that was restarted meanwhile has answered with weights of its own.
                if self.weights is None or self.weights.in_place():
                    return [group(i) for i in range(len(prompts))]
        raise SamplerError(
            "a rollout server does not keep the version of the weights it was given",
            where=", ".join(self.client.urls),
            got=f"another one after each of {RESTARTS} tries",
            fix="start it with VLLM_SERVER_DEV_MODE=1, and let no other run send it weights",
        )

    def _awake(self) -> AbstractContextManager[None]:
        """For all turns of a step the servers are woken once. What they hold of a student's weights ends in sleep."""
        return self.client.awake(None if self.weights is None else self.weights.bring_to_woken)

    def _body(self, prompt: Prompt, params: SamplingParams, path: str) -> JsonObject:
        """What all requests about a prompt say."""
        model = {"model": self.client.model if self.weights is None else self.weights.model}
        if path == ROUTE:
            return model | body(prompt.ids, prompt.pictures, (), {})
        return {
            **model,
            "prompt": list(prompt.ids),
            **self._asked(params),
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
            "add_special_tokens": False,
        }

    def _own(self, params: SamplingParams, n: int, place: int, path: str) -> list[JsonObject]:
        """What each of the `n` requests about a prompt says beside. Each has a seed, those that vLLM would give to the
        answers of one request."""
        first = (params.seed + params.first_row + place * n) % 2**62
        seeds: list[JsonObject] = [{"seed": first + i} for i in range(n)]
        if path != ROUTE:
            return seeds
        asked = {key: value for key, value in self._asked(params).items() if key in ASKED}
        return [{"sampling_params": {**asked, **seed, "detokenize": bool(params.stop)}} for seed in seeds]

    def _asked(self, params: SamplingParams) -> JsonObject:
        return {
            "n": 1,
            "max_tokens": params.max_new_tokens,
            "temperature": params.temperature,
            "logprobs": max(params.candidates, self._most(params) if params.kept else 0),
            # What a model's generation_config asks for would be another policy than the one that is trained.
            "top_p": params.top_p,
            "top_k": self._most(params),
            "min_p": params.min_p,
            "repetition_penalty": 1.0,
            "ignore_eos": True,
            "stop_token_ids": [self.end_id],
            "stop": list(params.stop),
            "logit_bias": {str(i): NEVER for i in sorted(self.banned)},
        }

    def _read(self, prompt: Prompt, reply: VllmReply, params: SamplingParams) -> Completion:
        (choice,) = reply.choices(1)
        reply.echoes(choice, prompt.ids)
        ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
        if ids is None or not isinstance(logprobs, dict):
            fix = "use vLLM 0.20 or newer"
            reply.fail(f"the {reply.server} leaves out ids or log-probs", got=str(choice), fix=fix)
        finish = self._check_ids(reply, choice, ids, params)
        logps: Any = logprobs.get("token_logprobs")
        # A token that was sampled is no impossible one.
        wrong = wrong_logps(logps, lowest=math.nextafter(LOWEST, 0.0))
        if wrong or len(logps) != len(ids):
            reply.fail(
                f"the {reply.server}'s log-probs do not line up with its tokens",
                got=wrong or f"{len(ids)} ids, {len(logps)} log-probs",
            )
        best = self._best(reply, logprobs, ids, params.candidates) if params.candidates else None
        kept = self._kept(reply, logprobs, ids, params) if params.kept else None
        return Completion(ids, logps, np.ones(len(ids)), finish, best, kept)

    def _most(self, params: SamplingParams) -> int:
        """How many ids are kept at most; 0 for all."""
        return min(params.most_kept, self.rows - len(self.banned))

    def _kept(self, reply: VllmReply, logprobs: JsonObject, ids: list[int], params: SamplingParams) -> Ids:
        """[response, k] the ids that the server has sampled from, -1 after the last. Their chances are 1 in sum: a
        server that leaves some out, or tells log-probs of the whole distribution, is refused."""
        most = self._most(params)
        rows = self._best(reply, logprobs, ids, most)
        for place, (row, top) in enumerate(zip(rows, logprobs["top_logprobs"], strict=True)):
            values = np.array([top[f"token_id:{i}"] for i in row])
            mass = float(np.exp(values).sum())
            if abs(mass - 1) > 10 * ROUNDING:
                reply.fail(
                    f"it cannot be known which ids the {reply.server} has sampled from",
                    got=f"the {most} likeliest ids of token {place} have {mass:.4f} of the chances in sum, not 1",
                    fix="start it with --logprobs-mode processed_logprobs, or leave out top_p, top_k and min_p",
                )
            row[values <= LOWEST] = -1
        return rows[:, : (rows >= 0).sum(1).max(initial=1)]

    def _check_ids(self, reply: VllmReply, choice: JsonObject, ids: Any, params: SamplingParams) -> Finish:
        """How a response ended. The end token is its last id, or not there and the budget is used up, or a stop string
        has come."""
        budget, stopped = params.max_new_tokens, choice.get("stop_reason") in params.stop
        if wrong := wrong_ids(ids, self.rows):
            reply.fail(f"the {reply.server} returns ids that are none", got=wrong)
        if bad := self.banned.intersection(ids):
            reply.fail(f"the {reply.server} has sampled ids that were ruled out", got=str(sorted(bad)[:8]))
        ended, reason = self.end_id in ids, choice.get("finish_reason")
        if ended and ids.index(self.end_id) != len(ids) - 1:
            reply.fail(
                f"the {reply.server} goes on after the end token",
                got=f"id {self.end_id} at place {ids.index(self.end_id)} of {len(ids)}",
            )
        if not ended and not stopped and len(ids) < budget:
            reply.fail(
                f"the {reply.server} has cut a response short",
                got=f"{len(ids)} of {budget} tokens, no end token",
                fix="start it with a larger --max-model-len, or lower max_new_tokens",
            )
        # Where the last token of the budget is the end token, either may be given as the reason.
        fits = [None] + ["stop"] * (ended or stopped) + ["length"] * (len(ids) == budget)
        if len(ids) > budget or reason not in fits:
            reply.fail(
                f"the {reply.server}'s response ends as it should not",
                got=f"finish_reason {reason!r}, {len(ids)} of {budget} tokens, {'' if ended else 'no '}end token",
            )
        return "stop" if ended or stopped else "length"

    def _best(self, reply: VllmReply, logprobs: JsonObject, ids: list[int], k: int) -> Ids:
        """[response, k] likeliest ids at every position, likeliest first, from keys such as `token_id:17`."""
        rows, tops = [], logprobs.get("top_logprobs")
        if not isinstance(tops, list) or len(tops) != len(ids) or not all(isinstance(t, dict) for t in tops):
            reply.fail(f"the {reply.server} leaves out the likeliest ids of some tokens", got=str(tops))
        for token, logp, top in zip(ids, logprobs["token_logprobs"], tops, strict=True):
            # Without its beginning a key is a token's text, and that may be a number too.
            names = [key.removeprefix("token_id:") if key.startswith("token_id:") else "" for key in top]
            found, values = ids_named(names), list(top.values())
            wrong = wrong_ids(found, self.rows) or wrong_logps(values)
            # The sampled token comes with them where it is not among them.
            if wrong or len(set(found)) < k or token not in found or abs(values[found.index(token)] - logp) > 0.1:
                got = wrong or f"{len(set(found))} ids where {k} were due, beside id {token} of log-prob {logp}"
                reply.fail(f"the {reply.server}'s likeliest ids cannot be used", got=got)
            if sum(map(math.exp, values)) > 1 + 10 * ROUNDING:
                reply.fail(f"the {reply.server}'s likeliest ids have chances above 1 in sum", got=str(top))
            best = sorted((-v, i) for v, i in zip(values, found, strict=True))
            rows.append([i for _, i in best[:k]])
        return np.array(rows, np.int32)
