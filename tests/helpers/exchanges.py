"""Started by torchrun: prints how many collectives an update of four micro-batches a process takes, by `exchange`."""

from __future__ import annotations

import json
from typing import get_args

import torch
from torch.profiler import ProfilerActivity, profile

import tiny
from vold.data.worlds.digits import DigitTasks
from vold.model.parallel import processes
from vold.run.recipe import Exchange, Optimizer, Sft
from vold.training.learner import Learner
from vold.training.optim import build_optimizer
from vold.training.sft import accumulate
from vold.training.traces import Trace


def count(exchange: Exchange) -> dict[str, int]:
    policy = tiny.student()
    task = DigitTasks("train", "text", 1, 1)[0]
    traces = [Trace(task, (20 + i, 21, 22), (1, 1, 1), f"line {i}") for i in range(8)]
    group = processes()
    group.shard(policy, exchange)
    config = Sft(steps=1, batch_size=8, token_budget=1, optimizer=Optimizer(lr=1e-3))  # a row is a micro-batch
    learner = Learner(config, policy, build_optimizer(policy, config.optimizer), group)
    with profile(activities=[ProfilerActivity.CPU]) as watch:
        accumulate(learner, traces)
    counts = {e.key: e.count for e in watch.key_averages()}
    return {"gathered": counts["c10d::_allgather_base_"], "added_up": counts["c10d::_reduce_scatter_base_"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {e: count(e) for e in get_args(Exchange)}
    if processes().first:
        print(json.dumps(found))
