"""vLLM in the training process: rollouts from the student's own weights, with nothing between but vLLM's loaders.

`ColocatedVllm` takes the place of a client of servers: the same bodies go in and the same objects come out, so
`vold.engines.samplers.server.ServerSampler` asks and checks it as it does a server.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vold.engines.replies import LOWEST, VllmReply
from vold.engines.shown import ASKED, PLAIN
from vold.engines.transfer.source import Source
from vold.errors import ConfigError, SamplerError
from vold.model.place import give_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vold.model.policy import Policy
    from vold.run.model_sections import RolloutServer
    from vold.run.records import JsonObject

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine, too, is in this process
    "VLLM_HOST_IP": "127.0.0.1",  # or vLLM asks the network for it
    "VLLM_NO_USAGE_STATS": "1",
}


class ColocatedVllm:
    """An engine with room for a model of the policy's shape; its weights are of no use until they are brought.

    On a GPU it sleeps but for a step's rollouts (level 2: weights are dropped, keys and values too). On a CPU vLLM
    cannot sleep, and both models stay.

    Args:
        policy: whose shape, tokenizer and precision it has.
        directory: where these are put for vLLM to read; no weights are.
        config: the recipe's.

    Raises:
        ConfigError: vLLM is not installed beside vold.
    """

    model = "student"
    urls = ("the vLLM of this process",)

    def __init__(self, policy: Policy, directory: Path, config: RolloutServer) -> None:
        os.environ.update(ENVIRONMENT)
        try:
            import vllm
        except ImportError as error:
            raise ConfigError(
                "vLLM in the training process has to be in the environment that vold is in",
                where="engine.colocate",
                got=str(error),
                fix="pip install vllm there, or start a server in an environment of its own and name it by `urls`",
            ) from error
        directory.mkdir(parents=True, exist_ok=True)
        config_there = copy.deepcopy(policy.model.config)
        config_there.architectures = [type(policy.model).__name__]
        config_there.save_pretrained(directory)
        policy.chat.save(directory)
        self.vllm, self.sleeps, self._awake = vllm, policy.model.device.type == "cuda", False
        self.dtype = next(policy.model.parameters()).dtype
        with _own_process():
            self.llm = vllm.LLM(
                model=str(directory.resolve()),
                load_format="dummy",
                dtype=str(self.dtype).removeprefix("torch."),
                gpu_memory_utilization=config.memory,
                max_model_len=config.context,
                logprobs_mode="processed_logprobs",
                max_logprobs=-1,  # as many as truncated rollouts can keep
                generation_config="vllm",
                enable_sleep_mode=self.sleeps,
                enforce_eager=not self.sleeps,
                disable_log_stats=True,
                trust_remote_code=False,
                worker_extension_cls="vold.engines.transfer.vllm_worker.Extension",
            )
        self._asleep()

    def context(self) -> int:
        """Tokens that prompt and response may have together."""
        return int(self.llm.llm_engine.model_config.max_model_len)

    def load(self, source: Source) -> None:
        """Take the policy's weights, adapters added in, a tensor at a time."""
        weights = source.tensors(None, self.dtype)
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self.llm.collective_rpc("vold_repack")
        self.llm.reset_prefix_cache()

    @contextlib.contextmanager
    def awake(self, bring: Callable[[], None] | None = None) -> Iterator[None]:
        """As `vold.engines.vllm.VllmClient.awake`: room for weights, the weights, and only then for keys and values."""
        if not self.sleeps or self._awake:
            yield
            return
        give_back()  # what the trainer has kept for itself
        self.llm.wake_up(tags=["weights"])
        if bring is not None:
            bring()
        self.llm.wake_up(tags=["kv_cache"])
        self._awake = True
        try:
            yield
        finally:
            self._awake = False
            self._asleep()

    def post(
        self,
        path: str,
        bodies: Sequence[JsonObject],
        *,
        root: bool,
        own: Sequence[Sequence[JsonObject]],
        tasks: Sequence[str],
        on_reply: Callable[[int, VllmReply], None],
    ) -> None:
        """Answer every request, as `vold.engines.vllm.VllmClient.post`.

        Raises:
            SamplerError: one has pictures.
        """
        if path != PLAIN:
            fix = "start a server (engine.launch), or sample in the process: drop engine"
            raise SamplerError("vLLM in the training process takes text prompts only", where="engine.colocate", fix=fix)
        engine = self.llm.llm_engine
        requests = ({**body, **one} for body, of in zip(bodies, own, strict=True) for one in of)
        places = {str(number): request for number, request in enumerate(requests)}
        for name, body in places.items():
            engine.add_request(name, {"prompt_token_ids": body["prompt"]}, self._params(body))
        try:
            while places:
                for output in engine.step():
                    if output.finished:
                        said = _reply(output, places.pop(output.request_id)["logprobs"])
                        on_reply(int(output.request_id), VllmReply(said, self.urls[0], "rollout engine", SamplerError))
        finally:
            engine.abort_request(list(places))

    def _params(self, body: JsonObject) -> Any:
        bias = {int(i): value for i, value in body["logit_bias"].items()}
        kind = self.vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        asked = {key: body[key] for key in (*ASKED, "seed")} | {"logit_bias": bias or None}
        text = bool(body["stop"])  # what it stops at
        return self.vllm.SamplingParams(**asked, detokenize=text, output_kind=kind)

    def _asleep(self) -> None:
        if self.sleeps:
            self.llm.sleep(level=2)


class ColocatedWeights:
    """Keeps a colocated engine at a policy's weights; as `vold.engines.transfer.weights.ServerWeights`."""

    def __init__(self, engine: ColocatedVllm, policy: Policy) -> None:
        self.engine, self.source, self.model = engine, Source(policy), engine.model
        self.pictures = False
        self._stale = True

    def changed(self, step: int) -> None:
        """Say that the policy's weights are now those of `step`."""
        self._stale = True

    def bring(self) -> None:
        """Make the engine hold the policy's weights."""
        if self._stale:
            self.engine.load(self.source)
            self._stale = False

    def bring_to_woken(self) -> None:
        """As `bring`: in sleep they were lost."""
        self._stale = True
        self.bring()

    def in_place(self) -> bool:
        """Nobody else changes them."""
        return not self._stale


def _reply(output: Any, likeliest: int) -> JsonObject:
    """What a server would have said."""
    choices = []
    for one in output.outputs:
        logps = [{i: max(v.logprob, LOWEST) for i, v in at.items()} for at in one.logprobs]
        choices.append(
            {
                "index": one.index,
                "token_ids": list(one.token_ids),
                "prompt_token_ids": list(output.prompt_token_ids),
                "finish_reason": one.finish_reason,
                "stop_reason": one.stop_reason,
                "logprobs": {
                    "token_logprobs": [at[i] for i, at in zip(one.token_ids, logps, strict=True)],
                    "top_logprobs": [{f"token_id:{i}": v for i, v in at.items()} for at in logps]
                    if likeliest
                    else None,
                },
            }
        )
    return {"choices": choices}


@contextlib.contextmanager
def _own_process() -> Iterator[None]:
    """What vLLM sets for a whole process as it starts is as it was afterwards: seeds, PyTorch's threads, and objects
    that it takes out of the collection of garbage, models of earlier stages among them."""
    python, numbers, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(numbers)
    torch.set_num_threads(threads)
    gc.unfreeze()
