"""Models that every engine can run, servers for them, and the backends that the contract suites go through."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from vold.data.worlds.call_tokens import build_tokenizer
from vold.engines.launch.server import HeldPort
from vold.engines.teachers.health import probe_of
from vold.engines.vllm import VllmClient
from vold.errors import SamplerError, TeacherError
from vold.model.chat import Chat
from vold.model.policy import Policy
from vold.run.model_sections import Server
from vold.types import ScoreRequest

VLLM_PYTHON = os.environ.get("VOLD_VLLM_PYTHON", "")
"""An interpreter that has vLLM; `make test-engines` sets it."""
FORKING = str(Path(__file__).with_name("forking_vllm.py"))
"""The same, for servers that start in half the time."""

START_SECONDS = 600


def text_model(seed: int, *, padded_rows: int = 0, tied: bool = False, width: int = 64, layers: int = 2) -> Policy:
    """An untrained text model of vLLM's least head size, far from uniform, and equally far at any width.

    vLLM lets padded rows of the embedding take part when it scores, so a teacher that is compared has none.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer) + padded_rows,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        head_dim=32,
        max_position_embeddings=128,
        # On a CPU vLLM 0.32 keeps a packed copy of a tied output embedding, which `reload_weights` does not reach.
        tie_word_embeddings=tied,
        initializer_range=1.2 / width**0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    policy = Policy(Qwen3ForCausalLM(config), Chat(tokenizer))
    policy.model.eval()
    return policy


def saved(policy: Policy, directory: Path) -> Path:
    policy.save(directory)
    return directory


def client(
    *urls: str,
    role: str = "teacher",
    patience: float = 5.0,
    report: Callable[[str], None] = lambda words: None,
    **more: Any,
) -> VllmClient:
    """A client that does not wait long and says nothing."""
    error = TeacherError if role == "teacher" else SamplerError
    section = Server(urls=urls, model="tiny", patience=patience, **more)
    made = VllmClient(section, role=role, error=error, report=report)
    made.first_wait = 0.001
    return made


PROBE: ScoreRequest = probe_of(list(range(20, 40)))


@dataclass
class RealVllm:
    """vLLM in a process of its own, on this machine's CPU. Use as a context manager."""

    model: Path
    log: Path
    port: HeldPort = field(default_factory=HeldPort)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port.number}/v1"

    def start(self, *options: str, **variables: str) -> RealVllm:
        """Start it and wait until it answers. `variables` are added to its environment."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_SERVER_DEV_MODE": "1",
            **variables,
        }
        command = [FORKING, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model)]
        command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(self.port.number)]
        command += ["--max-model-len", "128", "--max-num-seqs", "16", "--dtype", "float32", "--enforce-eager"]
        command += ["--logprobs-mode", "processed_logprobs", *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.log.parent, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"vLLM did not start:\n{self.log.read_text()[-3000:]}"
            try:
                if httpx.get(self.url.removesuffix("/v1") + "/health", timeout=5).status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise AssertionError(f"vLLM did not answer within {START_SECONDS} s:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """Kill it with all its workers, as a machine that goes down does."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def __enter__(self) -> RealVllm:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.port.free()
