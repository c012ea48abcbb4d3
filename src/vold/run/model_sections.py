"""Sections of a recipe that say which models there are and where they run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from vold.errors import ConfigError
from vold.run.section import Address, Section
from vold.types import SamplingParams

COLDEST = 0.01
"""The least temperature above 0, as vLLM has it."""
KEPT = 256
"""Ids that truncated rollouts keep at most where `top_k` does not say."""


class Sampling(Section):
    """How responses are sampled."""

    max_new_tokens: int = Field(gt=0)
    """Token budget of a response; one that reaches it counts as truncated."""
    temperature: float = Field(1.0, ge=0, le=10)
    """0 is greedy. Student and teacher log-probs are taken at the rollout temperature."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Keep the fewest likeliest ids that have this probability together. All log-probs of rollouts are then those of
    the distribution over the kept ids, in the sampler and in the trainer."""
    top_k: int | None = Field(None, gt=0)
    """Keep so many of the likeliest ids. In rollouts that is also the room for the ids recorded with each token: 256 if
    `top_p` or `min_p` is set and this is not."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Keep ids at least this many times as likely as the likeliest."""

    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(None, min_length=1)
    """A response ends with the token that completes one of these texts, which stay in it. Of `eval.endpoint` they do
    where the server says which it was, as vLLM does."""

    def params(self, seed: int = 0, *, candidates: int = 0, first_row: int = 0, told: bool = False) -> SamplingParams:
        """The same for a sampler; `told` asks for the ids that are kept."""
        made = SamplingParams(
            self.max_new_tokens,
            self.temperature,
            seed,
            candidates,
            first_row,
            top_p=self.top_p or 1.0,
            top_k=self.top_k or 0,
            min_p=self.min_p or 0.0,
            stop=self.stop or (),
        )
        return replace(made, kept=self.top_k or KEPT) if told and made.narrowing else made

    @field_validator("temperature")
    @classmethod
    def _zero_or_not(cls, value: float) -> float:
        if 0 < value < COLDEST:
            fix = "set it to 0 for greedy answers, or to 1"
            raise ConfigError(f"a temperature below {COLDEST} overflows log-probs", got=f"{value:g}", fix=fix)
        return value


class Model(Section):
    """A model directory, a hub id, or `demo:NAME` for a model that ships with the project."""

    path: str
    """`demo:student`, a local directory, or a hub id such as `Qwen/Qwen3-8B`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the weights in memory. `auto`: the checkpoint's own on a GPU, float32 on a CPU; a stage keeps what
    it began with."""
    quantize: Literal["nf4", "int8"] | None = None
    """Hold the language model's linear layers in 4 or 8 bits (bitsandbytes, `pip install 'vold[quant]'`); the rest, and
    what is computed, has `dtype`. A student needs `lora`, and is quantised while it trains; a teacher must be in the
    run's own process."""

    @property
    def weights_in(self) -> str:
        """What decides a model's numbers beside its path, in a word or two."""
        return self.dtype if self.quantize is None else f"{self.dtype}, {self.quantize}"


class Lora(Section):
    """Adapters on every linear layer of the language model, trained in place of its weights."""

    rank: int = Field(16, gt=0, le=65_536)
    """Width of an adapter."""
    alpha: int = Field(32, gt=0)
    """An adapter's output is multiplied by alpha / rank."""


class Student(Model):
    """The model that learns."""

    freeze: tuple[Literal["vision", "projector"], ...] = ("vision", "projector")
    """Parts that no stage changes. The paper freezes the vision tower; what it does with the projector is not known."""
    lora: Lora | None = None
    """Train adapters; absent: the language model's weights themselves, as the paper does. Each stage saves a model with
    its adapters added in, and the adapters beside it."""
    teacher_tokens: Literal["refuse", "add"] = "refuse"
    """Tokens that only the teacher has, such as Qwen3's `<think>` beside Qwen2.5-VL. `refuse`: traces that hold one
    stop the cold start. `add`: the student's tokenizer gets them under the teacher's ids; its embedding must have rows
    for them, which the cold start trains. The other way out is `teacher.tokenizer: align`: the student writes them in
    its own pieces, and these take no part in what the teacher says."""
    activation_checkpointing: bool | Literal["selective"] = False
    """Keep a layer's input alone and compute the rest again in the backward pass: far less memory, about a third more
    time. `selective`: keep the results of products and attention too, and compute again what is cheap: about half of
    the memory, a few percent more time."""
    compile: bool = False
    """Let `torch.compile` write the code of a layer for training passes, in the first step. Results are the same up to
    rounding. Needs a C++ compiler, on a GPU Triton and a C compiler."""

    @model_validator(mode="after")
    def _quantised_weights_stay(self) -> Student:
        if self.quantize is not None and self.lora is None:
            raise ConfigError(
                "quantised weights can not be trained",
                got=f"quantize: {self.quantize} without lora",
                fix="add lora: {rank: 64, alpha: 128}, or drop quantize",
            )
        return self

    @model_validator(mode="after")
    def _compiled_layers_are_whole(self) -> Student:
        if self.compile and self.activation_checkpointing == "selective":
            raise ConfigError(
                "which products to keep can not be told of inside a compiled layer",
                got="compile: true with activation_checkpointing: selective",
                fix="set activation_checkpointing=true or false, or compile=false",
            )
        return self

    @model_validator(mode="after")
    def _new_tokens_have_trained_rows(self) -> Student:
        if self.lora is not None and self.teacher_tokens == "add":
            raise ConfigError(
                "teacher_tokens=add trains rows of the embedding, which lora leaves as they are",
                got="teacher_tokens: add with lora",
                fix="drop one, or use teacher.tokenizer=align",
            )
        return self


class Endpoint(Section):
    """A server that speaks the OpenAI chat protocol, such as `vllm serve`."""

    urls: tuple[Address, ...] = Field(min_length=1)
    """Base addresses that end in `/v1`; a request goes to the least busy."""
    model: str
    """The name the server gives the model."""
    key_env: str | None = None
    """Environment variable that holds the key; the key itself is never stored."""
    concurrency: int = Field(256, gt=0, le=4096)
    """Answers under way at a time on each server; vLLM works at 256 side by side by default. A request for several
    answers counts as so many. Processes that train together have equal parts of it."""


Gpu = Annotated[int, Field(ge=0, le=4095)]
"""The number of a GPU as `nvidia-smi` shows it."""


def _devices(value: tuple[Any, ...]) -> tuple[Any, ...]:
    used = [gpu for group in groups_of(value) for gpu in group]
    if () in value:
        raise ConfigError("a server has no device", got="[]", fix="name its GPUs, or write `cpu`")
    if twice := sorted({gpu for gpu in used if used.count(gpu) > 1}):
        fix = "give each server GPUs of its own"
        raise ConfigError("a GPU is given twice", got=str(twice[0]), fix=fix)
    return value


def groups_of(devices: Devices) -> tuple[tuple[int, ...], ...]:
    """The GPUs of each server; none of one on the processor."""
    return tuple(() if d == "cpu" else (d,) if isinstance(d, int) else d for d in devices)


Devices = Annotated[tuple[Gpu | Literal["cpu"] | tuple[Gpu, ...], ...], Field(min_length=1), AfterValidator(_devices)]
"""Where servers run, one each."""


class Launch(Section):
    """vLLM servers that vold starts for the stages that need them, watches, and ends with them."""

    devices: Devices
    """A server each: `[2, 3]` are two servers on a GPU each, `[[2, 3]]` is one on both (tensor parallel), `[cpu]` one
    on the processor. GPUs have the numbers that `nvidia-smi` shows."""
    args: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, such as `[--max-model-len, "16384"]`."""
    python: Path | None = None
    """An interpreter that has vLLM, such as another virtual environment's `bin/python`; if absent, vold's own, or that
    of the `vllm` command."""
    start_seconds: float = Field(1800.0, gt=0, le=86_400)
    """A server that does not answer so long after its start is ended, and the command with it."""

    @model_validator(mode="after")
    def _can_be_started(self) -> Launch:
        for given in self.args:
            if (where_from := OURS.get(given.partition("=")[0])) is not None:
                fix = f"leave it out of `args`: a server gets {where_from}"
                raise ConfigError("vold says this to a server itself", got=given, fix=fix)
        return self


OURS = {
    "--model": "the model of the section",
    "--served-model-name": "the section's `model`",
    "--host": "127.0.0.1, which only this machine reaches",
    "--port": "a free port",
    "--uds": "a port",
    "--api-key": "one that is made anew for each run, and not in an argument, which anybody can read",
    "--tensor-parallel-size": "the number of devices of a server",
    "-tp": "the number of devices of a server",
}
"""Arguments of `vllm serve` that a recipe cannot give, and where they come from."""


class Launchable(Endpoint):
    """Servers at an address, or such as vold starts."""

    urls: tuple[Address, ...] = ()
    """Base addresses that end in `/v1`; a request goes to the least busy. Either these or `launch`."""
    model: str = ""
    """The name the server gives the model. With `launch` the model itself if absent."""
    launch: Launch | None = None
    """Start these servers, in place of asking those at `urls`."""

    @model_validator(mode="after")
    def _somewhere(self) -> Launchable:
        if isinstance(self, RolloutServer) and self.colocate:
            return self
        if (self.launch is None) == (not self.urls):
            got = "both" if self.urls else "neither"
            fix = 'write urls: ["http://HOST:PORT/v1"] for servers that run, or launch: {devices: [...]}'
            fix += ", or colocate: true" * isinstance(self, RolloutServer)
            raise ConfigError("servers have `urls`, or a `launch` section", got=got, fix=fix)
        if self.launch is None and not self.model:
            raise ConfigError("a server at an address needs `model`", got="none", fix="name the model as it is served")
        if self.launch is not None and self.key_env is not None:
            raise ConfigError("servers that vold starts get a key of their own", got="key_env", fix="leave it out")
        return self


class Server(Launchable):
    """vLLM servers that all hold the same model."""

    patience: float = Field(1800.0, ge=0, le=10**7)
    """Seconds a run waits for servers that do not answer, or for one whole reply (at most 1,800 of those). Then it
    saves its state and stops."""
    sleep: bool = False
    """Servers give up their GPU's memory while it is not their turn; they need `--enable-sleep-mode`."""


Transfer = Literal["files", "shared_memory", "nccl", "ipc"]


class RolloutServer(Server):
    """vLLM servers that sample for the student, and get its weights after every update; or vLLM in the training
    process."""

    colocate: bool = False
    """Sample by vLLM in the training process, where it has to be installed beside vold. On a GPU it sleeps while the
    student learns."""
    memory: float = Field(0.4, gt=0, lt=1)
    """With `colocate`: the share of the device's memory for vLLM's weights, keys and values."""
    context: int | None = Field(None, gt=0)
    """With `colocate`: tokens that prompt and response may have together; those of the model if absent."""
    transfer: Transfer = "files"
    """How weights go to the servers. `files`: through `weights_dir`. `shared_memory`: run and servers are on one
    machine. `nccl`: from GPU to GPU. `ipc`: run and servers are on one GPU. All but `files` need servers that are
    started for it; to those that are, only what has changed is sent, by `files` too."""
    weights_dir: Path | None = None
    """Directory that run and servers see, for weights on their way; the run's own if absent. `/dev/shm/vold` on one
    machine keeps them in memory."""

    @model_validator(mode="after")
    def _here_or_there(self) -> RolloutServer:
        # A recipe as it ran names every key, so that what counts is another value than the usual one.
        said = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        here, there = said & {"memory", "context"}, said - {"colocate", "memory", "context"}
        if self.colocate and there:
            fix = "leave them out: vLLM is in this process, where it sleeps by itself on a GPU and cannot on a CPU"
            raise ConfigError("colocate goes without what is said of servers", got=", ".join(sorted(there)), fix=fix)
        if not self.colocate and here:
            raise ConfigError(
                "this is said of vLLM in this process", got=", ".join(sorted(here)), fix="add colocate: true"
            )
        return self
