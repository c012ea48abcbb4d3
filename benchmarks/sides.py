"""One side of a comparison in a process of its own: `python sides.py SIDE SETTINGS`. It prints a JSON line when it is
ready and one a request. Under torchrun our side is as many processes as it starts.

Each side loads the same weights and gets the same rollouts. A request runs one update, or one whole step, and answers
seconds, and by how much the peak of resident memory exceeds what the model owns (weights,
gradients, moments).
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from shapes import GROUP, stored_rollouts

from vold.model.parallel import ALONE
from vold.training.optim import keep_freed_memory

MIB = 2**20
OBJECTIVE: dict[str, Any] = {"gkd": {"teacher_loss": {"estimator": "reverse_kl"}, "mix": None}}
"""What the peer computes, where a preset does otherwise: reverse KL, and rollouts of the student alone."""


def resident(field: str) -> float:
    """MiB of `VmRSS` or `VmHWM`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field}")


def measured(work: Any, gradients_mib: float) -> dict[str, float]:
    """Run `work` once: seconds, processor seconds and MiB above what is there before and the gradients."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # starts VmHWM again from here
    before, began = resident("VmRSS"), time.perf_counter()
    value = work()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "mib": resident("VmHWM") - before - gradients_mib, "value": value}


class Ours:
    """vold: its own update, teacher and sampler."""

    def __init__(self, s: dict[str, Any]) -> None:
        from vold.engines.teachers.inprocess import InProcessTeacher
        from vold.engines.teachers.routed import RoutedTeacher
        from vold.model.parallel import processes
        from vold.model.policy import Policy
        from vold.run.recipe import Distill
        from vold.training.learner import Learner
        from vold.training.optim import build_optimizer

        self.s, self.policy = s, Policy.load(s["model"])
        self.policy.model.train()
        self.config = Distill.model_validate(
            {
                "tasks": "unused",
                "objective": {"method": s["method"], **OBJECTIVE.get(s["method"], {})},
                "sampling": {"max_new_tokens": s["longest"]},
                "optimizer": {"lr": 1e-12, "schedule": "constant", "warmup_steps": 0},
                "token_budget": s["budget"],
                "rollouts": GROUP,
            }
        )
        self.prompts, rollouts = stored_rollouts(s["groups"], s["longest"], size=s["vocabulary"], silent=s["silent"])
        self.rollouts = self._with_behaviour(rollouts)
        self.group = processes()
        self.group.shard(self.policy, s["exchange"])
        optimizer = build_optimizer(self.policy, self.config.optimizer)
        self.learner = Learner(self.config, self.policy, optimizer, self.group)
        self.gradients = sum(p.numel() * p.element_size() for _, p in self.policy.trainable()) / MIB
        self.teacher: Any = RoutedTeacher({})
        if s["method"] != "grpo" or s["what"] == "step":
            self.teacher = InProcessTeacher(
                Policy.load(s["model"] + "-teacher"), temperature=1.0, token_budget=s["budget"]
            )
        if s["method"] != "grpo" and s["what"] == "update":
            self.rollouts = self._credited(self.rollouts)

    def _credited(self, rollouts: list[Any]) -> list[Any]:
        from vold.engines.teachers.ask import score_rollouts
        from vold.objective import credit

        objective = self.config.objective
        return credit(
            objective, score_rollouts(rollouts, self.teacher, [*self.prompts], objective), 0,
            seed=1, max_new_tokens=self.s["longest"], token_texts=self.policy.chat.token_texts,
        )  # fmt: skip

    def _with_behaviour(self, rollouts: list[Any]) -> list[Any]:
        from vold.model.batching import collate

        out = []
        with torch.no_grad():
            for r in rollouts:
                ids = r.completion.ids
                batch = collate([self.prompts[r.group]], [ids], [(1,) * len(ids)], self.policy.chat.pad_id)
                logps = tuple(self.policy.logprobs(batch)[0].tolist())
                out.append(dataclasses.replace(r, completion=dataclasses.replace(r.completion, logps=logps)))
        return out

    def warm_up(self) -> None:
        """An update on the first group: what is made at first use is made."""
        self.update(self.rollouts[:GROUP])

    def update(self, rollouts: list[Any] | None = None) -> float:
        from vold.training.prompted import Prompted, Step
        from vold.training.step import update
        from vold.types import Task

        alone = self.s["method"] == "grpo"
        problems = [Prompted(Task(f"{g}", (), "", ""), p, None if alone else p) for g, p in enumerate(self.prompts)]
        step = Step(number=0, seed=0, prompted=problems)
        row, _ = update(self.learner, self.rollouts if rollouts is None else rollouts, step, self.teacher)
        return row.grad_norm

    def step(self) -> float:
        """Rollouts, grades by length, the teacher on those that failed, update."""
        from vold.engines.samplers.inprocess import InProcessSampler
        from vold.types import Grade, Rollout, SamplingParams

        sampler = InProcessSampler(self.policy, len(self.rollouts))
        params = SamplingParams(self.s["longest"], 1.0, 7)
        rollouts = []
        for g, group in enumerate(sampler.generate(self.prompts, params, GROUP)):
            for k, c in enumerate(group):
                score = float(k == 0)
                rollouts.append(Rollout(f"task-{g}", g, self.prompts[g].ids, c, Grade(score, None, "")))
        return self.update(self._credited(rollouts))


class Trl:
    """TRL's GRPOTrainer, and its DistillationTrainer for the loss over the whole vocabulary."""

    def __init__(self, s: dict[str, Any]) -> None:
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer
        from trl import DistillationConfig, DistillationTrainer, GRPOConfig, GRPOTrainer

        self.s, self.group = s, ALONE
        kind = AutoModelForImageTextToText if s["shape"] == "qwen2_5_vl" else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(s["model"], padding_side="left")
        rows = s["groups"] * GROUP
        common = {
            "output_dir": s["model"] + "-trl",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "learning_rate": 1e-12,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": s["rows"],
            "gradient_accumulation_steps": rows // s["rows"],
            "max_completion_length": s["longest"],
            "max_steps": 1000,
            "disable_tqdm": True,
            "save_strategy": "no",
            "max_grad_norm": 1.0,
        }
        prompts, self.rollouts = stored_rollouts(s["groups"], s["longest"], size=s["vocabulary"], silent=s["silent"])
        texts = [" ".join(f"w{i}" for i in p.ids) for p in prompts]
        data = Dataset.from_list([{"prompt": t} for t in texts])
        model = kind.from_pretrained(s["model"], dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if "visual" in name:
                parameter.requires_grad_(False)
        self.distills = s["method"] == "gkd"
        if not self.distills:
            config = GRPOConfig(num_generations=GROUP, beta=0.0, epsilon=0.2, epsilon_high=0.3, **common)
            rewards = [0.0]

            def reward(completions: list[str], **_: Any) -> list[float]:
                return [float(i % GROUP == 0) + rewards[0] for i in range(len(completions))]

            self.trainer: Any = GRPOTrainer(
                model=model, reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer
            )
        else:
            self.trainer = DistillationTrainer(
                model=model,
                teacher_model=kind.from_pretrained(s["model"] + "-teacher", dtype=torch.float32),
                args=DistillationConfig(beta=1.0, **common),
                train_dataset=data,
                processing_class=tokenizer,
            )
        if s["what"] == "step":
            self.teacher = kind.from_pretrained(s["model"] + "-teacher", dtype=torch.float32).eval()
        self.texts = texts
        self.trainer.create_optimizer_and_scheduler(1000)
        self.trainer.current_gradient_accumulation_steps = rows // s["rows"]
        self.model = self.trainer.model.train()
        self.gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad) / MIB

    def batch(self, rollouts: list[Any]) -> dict[str, torch.Tensor]:
        """Stored rollouts as the trainer lays them out after generating: prompts left, completions right."""
        from trl.trainer.utils import pad

        prompts = [torch.tensor(r.prompt_ids) for r in rollouts]
        completions = [torch.tensor(r.completion.ids) for r in rollouts]
        return {
            "prompt_ids": pad(prompts, padding_value=0, padding_side="left"),
            "prompt_mask": pad([torch.ones_like(p) for p in prompts], padding_value=0, padding_side="left"),
            "completion_ids": pad(completions, padding_value=0),
            "completion_mask": pad([torch.ones_like(c) for c in completions], padding_value=0),
            "advantages": torch.tensor([r.advantage[0] for r in rollouts]),
            "num_items_in_batch": torch.tensor(sum(len(c) for c in completions)),
        }

    def warm_up(self) -> None:
        """As `Ours.warm_up`."""
        self.update(self.batch(self.rollouts[:GROUP]))

    def update(self, whole: dict[str, torch.Tensor] | None = None) -> float:
        whole = self.batch(self.rollouts) if whole is None else whole
        rows = self.s["rows"]
        trainer, count = self.trainer, len(whole["prompt_ids"])
        prepared = type(trainer)._prepare_inputs
        trainer._prepare_inputs = lambda inputs: inputs
        for start in range(0, count, rows):
            part = {k: v[start : start + rows] if v.ndim else v for k, v in whole.items() if torch.is_tensor(v)}
            # DistillationTrainer divides by the tokens of the whole step where it is told their number
            trainer.training_step(self.model, part, whole["num_items_in_batch"] if self.distills else None)
        trainer._prepare_inputs = prepared.__get__(trainer)
        norm = trainer.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        trainer.optimizer.step()
        self.model.zero_grad()
        return float(norm)

    def step(self) -> float:
        """Generate and reward as the trainer does, a forward pass of a teacher on every rollout, update."""
        inputs = [{"prompt": t} for t in self.texts for _ in range(GROUP)]
        torch.manual_seed(7)
        whole = self.trainer._generate_and_score_completions(inputs)
        ids = torch.cat([whole["prompt_ids"], whole["completion_ids"]], 1)
        mask = torch.cat([whole["prompt_mask"], whole["completion_mask"]], 1)
        keep = whole["completion_ids"].shape[1]
        with torch.no_grad():
            for start in range(0, len(ids), self.s["rows"]):
                part = slice(start, start + self.s["rows"])
                logits = self.teacher(
                    input_ids=ids[part], attention_mask=mask[part], logits_to_keep=keep + 1, use_cache=False
                ).logits[:, :-1]
                logits.log_softmax(-1).gather(-1, whole["completion_ids"][part, :, None])
        return self.update(whole)


def main() -> None:
    settings = json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    keep_freed_memory()  # both sides: it is the machine's setting, and makes the peer faster too
    side: Any = {"vold": Ours, "trl": Trl}[sys.argv[1]](settings)
    work = getattr(side, settings["what"])
    side.warm_up()
    result: dict[str, float] = {}  # the first line says that this side is ready
    while True:
        if side.group.first:
            print(json.dumps(result), file=answers, flush=True)
        if not asked(side):
            break
        result = measured(work, side.gradients)


def asked(side: Any) -> bool:
    """Whether another request has come; of several processes the first one hears it."""
    return any(side.group.gather(side.group.first and bool(sys.stdin.readline())))


if __name__ == "__main__":
    main()
