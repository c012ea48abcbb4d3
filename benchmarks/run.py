"""All measurements: `python benchmarks/run.py [--full] [NAME ...]` prints a table and writes results/latest.json.

NAME is one of packing, teacher, growth, rollouts, roofline, head, update, step, processes, distillation and engines. By
default all but the last three are measured on small sizes, with `--full` all but the last on larger ones; `engines`
needs vLLM. Sides of a comparison take turns, and a figure is the median over turns, of wall time: leave the machine
alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VOCABULARY = {"smollm2": 49152, "qwen2_5_vl": 151936}
GROUPS = {"smollm2": 5, "qwen2_5_vl": 2}
"""Of a whole step in the small form."""
Row = dict[str, Any]


def significant(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def row(name: str, ours: list[float], peer: list[float], unit: str, **more: Any) -> Row:
    """One line of the table. The spread is that of the ratio over turns: smallest and largest."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    return {
        "name": name,
        "ratio": round(statistics.median(ratios), 3),
        "ours": significant(statistics.median(ours)),
        "peer": significant(statistics.median(peer)),
        "unit": unit,
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        **more,
    }


@dataclass(frozen=True)
class Side:
    """A process that works on request: `kind` is `vold` or `trl`, `torchrun` its options where it is several."""

    kind: str
    settings: dict[str, Any]
    torchrun: tuple[str, ...] = ()


def duel(sides: dict[str, Side], repetitions: int, threads: int | None = None) -> dict[str, list[dict[str, float]]]:
    """All sides, in turn, in processes of their own that stay; each process has `threads`, or as many as this one."""
    workers = {
        name: subprocess.Popen(
            [
                sys.executable, *(("-m", "torch.distributed.run", *side.torchrun) if side.torchrun else ()),
                str(HERE / "sides.py"), side.kind, json.dumps(side.settings),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
        )
        for name, side in sides.items()
    }  # fmt: skip

    def answer(side: str) -> dict[str, float]:
        pipe = workers[side].stdout
        if pipe is None or not (line := pipe.readline()):
            raise SystemExit(f"the side {side} of a comparison has failed: {sides[side].settings}")
        read: dict[str, float] = json.loads(line)
        return read

    found: dict[str, list[dict[str, float]]] = {side: [] for side in workers}
    for side in workers:
        answer(side)  # ready: nobody is timed while another still loads
    for _ in range(repetitions):
        for side, worker in workers.items():
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            found[side].append(answer(side))
    for worker in workers.values():
        worker.communicate()
    return found


def take(side: list[dict[str, float]], key: str) -> list[float]:
    """One field over the turns that have it."""
    return [r[key] for r in side if key in r]


class Bench:
    """The measurements by name. Each returns rows."""

    def __init__(self, models: Path, *, full: bool, repetitions: int) -> None:
        self.models, self.full, self.repetitions = models, full, repetitions

    def settings(self, shape: str, what: str, **changes: Any) -> dict[str, Any]:
        groups, longest = (8, 256) if self.full else (3, 64)
        groups = changes.get("groups", groups)
        return {
            "what": what, "shape": shape, "model": str(self.models / shape), "method": "grpo",
            "groups": groups, "longest": longest, "silent": 0, "rows": 8 if self.full else groups * 4,
            "budget": 8192, "exchange": "micro_batch", "vocabulary": VOCABULARY[shape], **changes,
        }  # fmt: skip

    def compare(self, name: str, shape: str, settings: dict[str, Any], *, same: bool) -> list[Row]:
        found = duel({kind: Side(kind, settings) for kind in ("vold", "trl")}, self.repetitions)
        ours, peer = found["vold"], found["trl"]
        if same and abs(ours[0]["value"] / peer[0]["value"] - 1) > 1e-3:
            raise SystemExit(f"{name}: the gradients differ: {ours[0]['value']} and {peer[0]['value']}")

        norm = {"gradient_norm": ours[0]["value"]}
        return [
            row(f"{name}/time_vs_trl/{shape}", take(ours, "seconds"), take(peer, "seconds"), "s", **norm),
            row(f"{name}/memory_vs_trl/{shape}", take(ours, "mib"), take(peer, "mib"), "MiB"),
        ]

    def update(self) -> list[Row]:
        """One optimizer step of GRPO on the same stored rollouts; the gradient norms are compared."""
        return [r for s in VOCABULARY for r in self.compare("update", s, self.settings(s, "update"), same=True)]

    def distillation(self) -> list[Row]:
        """One optimizer step on reverse KL over the vocabulary, the teacher's forward pass included; the gradient norms
        are compared."""
        rows = []
        for shape in VOCABULARY:
            rows += self.compare("distillation", shape, self.settings(shape, "update", method="gkd"), same=True)
        return rows

    def step(self) -> list[Row]:
        """Rollouts, grades, teacher and update; the peer is GRPOTrainer and a forward pass of a teacher."""
        rows = []
        for shape in VOCABULARY:
            settings = self.settings(
                shape, "step", method="vold", longest=256 if self.full else 28, groups=8 if self.full else GROUPS[shape]
            )
            rows += self.compare("step", shape, settings, same=False)[:1]
        return rows

    def processes(self) -> list[Row]:
        """The same update on two processes with a thread each, against one; weights are exchanged in each of its four
        micro-batches, or once."""
        more = {"budget": 512, "groups": 8, "longest": 96}
        two = ("--standalone", "--nproc-per-node", "2")
        sides = {"1": Side("vold", self.settings("smollm2", "update", **more))}
        for exchange in ("micro_batch", "step"):
            sides[exchange] = Side("vold", self.settings("smollm2", "update", exchange=exchange, **more), two)
        found = duel(sides, self.repetitions, threads=1)
        alone = take(found.pop("1"), "seconds")
        return [row(f"processes/time_2_over_1/{e}", take(side, "seconds"), alone, "s") for e, side in found.items()]

    def head(self) -> list[Row]:
        """Log-prob with entropy, reverse KL, and with `full` candidates and likeliest ids, at 151,936 ids; memory also
        for many tokens."""
        from single import head, head_error, head_memory

        tokens = 1024 if self.full else 256
        rows = []
        for what, sides in head(tokens, self.repetitions, full=self.full).items():
            ours = [r["seconds"] for r in sides["vold"]]
            for peer in [s for s in sides if s != "vold"]:
                theirs = sides[peer]
                rows.append(row(f"head/time_vs_{peer}/{what}", ours, [r["seconds"] for r in theirs], "s"))
                rows.append(
                    row(
                        f"head/memory_vs_{peer}/{what}/{tokens}_tokens",
                        [r["mib"] for r in sides["vold"]], [r["mib"] for r in theirs], "MiB",
                    )
                )  # fmt: skip
        many = 32768 if self.full else 4096
        for what, mib in head_memory(many).items():
            dense = [sides_of(rows, f"head/memory_vs_dense/{what}/{tokens}_tokens") * many / tokens] * self.repetitions
            rows.append(
                row(f"head/memory_vs_dense/{what}", [mib] * self.repetitions, dense, "MiB",
                    note=f"ours measured at {many} tokens; dense at {tokens} tokens, times {many // tokens}")
            )  # fmt: skip
        for name, error in head_error().items():
            unit = "of the largest" if name.startswith("gradient") else "nats"
            rows.append({"name": f"head/error/{name}", "ratio": None, "ours": significant(error), "unit": unit})
        return rows

    def roofline(self) -> list[Row]:
        """Share of the best matrix product of this machine that an update reaches."""
        from single import roofline

        found = roofline(self.models / "smollm2", 4096 if self.full else 512, self.repetitions)
        return [row("roofline/update_cpu", found["achieved"], found["peak"], "GFLOP/s")]

    def packing(self) -> list[Row]:
        """How full micro-batches are."""
        from single import packing_efficiency

        return [row("packing/efficiency", [packing_efficiency()], [1.0], "share")]

    def teacher(self) -> list[Row]:
        """Tokens the teacher scores over tokens the objective uses, and its speed."""
        from single import teacher_share

        scored, used, rollouts, seconds = teacher_share(self.models / "smollm2")
        return [
            row("teacher/tokens_scored_over_used", [scored], [used], "tokens"),
            row("teacher/tokens_scored_over_sampled", [scored], [rollouts], "tokens"),
            {"name": "teacher/tokens_per_second", "ratio": None, "ours": round(scored / seconds, 1), "unit": "/s"},
        ]

    def growth(self) -> list[Row]:
        """Seconds and memory of a token, from few to many of something."""
        from shapes import SMALL
        from single import growth

        base = {"tokens": 8192, "rows": 4, "response": 120}
        more = {
            "tokens_8k_to_64k": {"tokens": 65536},
            "group_4_to_32": {"rows": 32},
            "response_120_to_960": {"response": 960},
        }
        small, wide = self.models / "growth", self.models / "growth_152k"
        rows = []
        for name, change in more.items() if self.full else [*more.items()][:1]:
            few, many = growth((small, small), base, base | change, self.repetitions)
            rows.append(row(f"growth/{name}", take(many, "seconds"), take(few, "seconds"), "s/token"))
            rows.append(row(f"growth/memory_{name}", take(many, "mib"), take(few, "mib"), "MiB/token"))
        if self.full:
            few, many = growth((small, wide), base | {"tokens": 2048}, base | {"tokens": 2048}, self.repetitions)
            work = [4 * 256**2 + 3 * 256 * 512 + SMALL[m.name][0] * 256 for m in (small, wide)]  # weights that multiply
            seconds = [[t / w for t in take(side, "seconds")] for side, w in zip((few, many), work, strict=True)]
            rows.append(row("growth/vocabulary_1k_to_152k", seconds[1], seconds[0], "s/product"))
            rows.append(row("growth/memory_vocabulary_1k_to_152k", take(many, "mib"), take(few, "mib"), "MiB/token"))
        return rows

    def rollouts(self) -> list[Row]:
        """Sampling against `generate`: responses that end by chance, of a small model, and with `full` of `smollm2`."""
        from single import rollouts

        rows = []
        sizes = {"time": ("endings", 128, 96), "time_smollm2": ("smollm2", 16, 16)}
        for name, (shape, many, new) in sizes.items() if self.full else [*sizes.items()][:1]:
            found = rollouts(self.models / shape, many, new, self.repetitions)
            rows.append(row(f"rollouts/{name}_vs_generate", found["vold"], found["generate"], "s/token"))
        return rows

    def engines(self) -> list[Row]:
        """Sampling and scoring against a vLLM server."""
        from engines import engines

        found = engines(self.models / "smollm2", self.repetitions)
        return [row(f"{what}/time_vs_vllm", sides["vold"], sides["vllm"], "s/token") for what, sides in found.items()]


def sides_of(rows: list[Row], name: str) -> float:
    """The peer's median of a row."""
    return next(float(r["peer"]) for r in rows if r["name"] == name)


def worst(rows: list[Row]) -> list[Row]:
    """A plain name for what was measured on several shapes, or as several readings: the worse of them."""
    best: dict[str, Row] = {}
    for r in rows:
        plain, _, shape = r["name"].rpartition("/")
        if shape in (*VOCABULARY, "logprob", "reverse_kl", "candidates", "top_k", "micro_batch", "step") and (
            plain not in best or r["ratio"] > best[plain]["ratio"]
        ):
            best[plain] = {**r, "name": plain, "shape": shape}
    return list(best.values())


def main() -> None:
    quick = ["packing", "teacher", "growth", "rollouts", "roofline", "head", "update", "step"]
    names = [*quick, "processes", "distillation", "engines"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*names, []])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "latest.json")
    arguments = parser.parse_args()
    os.environ |= {
        "OMP_NUM_THREADS": str(arguments.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    import torch
    from shapes import SMALL, build

    from vold.training.optim import keep_freed_memory

    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    rows: list[Row] = []
    print(f"{'measurement':<48} {'ratio':>7}  {'ours':>10} {'peer':>10}  unit")
    with tempfile.TemporaryDirectory() as home:
        models = Path(home)
        needed = [s for s in (*VOCABULARY, *SMALL) if arguments.full or s != "growth_152k"]
        for shape in needed:
            build(shape, models / shape, response=128 if arguments.full else 16)
        for shape in VOCABULARY:
            build(shape, models / f"{shape}-teacher", response=None, seed=1)
        bench = Bench(models, full=arguments.full, repetitions=arguments.repetitions)
        for name in arguments.name or ([*quick, "processes", "distillation"] if arguments.full else quick):
            began = time.monotonic()
            found = getattr(bench, name)()
            rows += found
            for r in found:
                ratio, ours, peer = ("-" if r.get(k) is None else r[k] for k in ("ratio", "ours", "peer"))
                print(f"{r['name']:<48} {ratio!s:>7}  {ours!s:>10} {peer!s:>10}  {r['unit']}", flush=True)
            print(f"-- {name}: {time.monotonic() - began:.0f} s", flush=True)
    result: dict[str, Any] = {
        "machine": {
            "processor": cpu_name(),
            "threads": arguments.threads,
            "load": os.getloadavg(),
            "system": platform.system(),
        },
        "versions": {p: version(p) for p in ("torch", "transformers", "trl", "accelerate", "vold")},
        "settings": {"full": arguments.full, "repetitions": arguments.repetitions, "dtype": "float32"},
        "rows": worst(rows) + rows,
    }
    if arguments.name and arguments.out.exists():  # what was not measured this time stays
        names = {r["name"] for r in result["rows"]}
        result["rows"] += [r for r in json.loads(arguments.out.read_text())["rows"] if r["name"] not in names]
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
