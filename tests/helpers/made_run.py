"""A finished run of a few steps, made without training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from PIL import Image

from stored import speller
from vold.data.files.images import thumbnail
from vold.evals.metrics import summarise
from vold.run.answers import Answer, Stamp
from vold.run.files import append_jsonl, read_records, write_json, write_text
from vold.run.records import to_json
from vold.training.rollout_log import describe, store
from vold.types import Completion, Grade, Message, Rollout, Task, TokenScores

HOSTILE = '</pre><script>alert("x")</script><img src=x onerror="alert(1)">'


WORDS = ["<think>", "1", "+", "2", "=", "3", "</think>", "<|im_end|>"]


RECIPE = """\
run: {dir: runs/tiny, seed: 7, threads: 1}
student: {path: "demo:student"}
teacher: {path: "demo:teacher"}
sft: {steps: 3}
distill: {steps: 4, objective: {method: vold}}
"""


def make_run(root: Path) -> Path:
    """A finished run of a few steps, written by the functions that write real ones."""
    write_text(root / "recipe.yaml", RECIPE)
    write_json(root / "versions.json", {"vold": "0.1.0", "torch": "2.9"})
    write_json(
        root / "traces" / "summary.json", {"answers": 9, "correct": 8, "truncated": 1, "kept": 7, "tokens_kept": 70}
    )
    figures = {
        "kl": 0.125,
        "kl_failed": None,
        "top1_agreement": 0.9,
        "tokens": 640,
        "verdict": "ready",
        "words": "Alike.",
    }
    write_json(root / "align" / "align.json", figures)
    append_jsonl(root / "sft" / "metrics.jsonl", [{"step": s, "loss": 3.0 - s, "grad_norm": 1.0} for s in range(3)])
    tasks = [Task(f"t{g}", (Message("user", f"1 + {g} ?"),), str(g + 1), "exact") for g in range(2)]
    spelled = SimpleNamespace(to_str=lambda: speller(WORDS))
    policy = cast("Any", SimpleNamespace(chat=SimpleNamespace(tokenizer=SimpleNamespace(backend_tokenizer=spelled))))
    for step in range(4):
        rollouts = [rollout(g, k, step) for g in range(2) for k in range(4)]
        row = {
            "step": step,
            "loss": 0.1,
            "grad_norm": 0.5,
            "trained_tokens": 32,
            "entropy": 0.3,
            "teacher_gap": 0.5,
            **to_json(describe(rollouts)),
        }
        append_jsonl(root / "distill" / "metrics.jsonl", [row])
        if step in (0, 2, 3):
            store(root / "distill" / "rollouts", step, rollouts, tasks, policy)
    for stage in ("sft", "distill"):
        (root / stage / "final").mkdir()
    for model, rights in (("base", 2), ("vold", 6)):
        rows = [answer(i, i < rights) for i in range(8)]
        rows[7]["response"] = HOSTILE
        append_jsonl(root / "eval" / model / "image.jsonl", rows)
        append_jsonl(root / "eval" / model / "model.json", [{"path": model}])
        write_json(root / "eval" / model / "image.protocol.json", Stamp("ab", {}))
    stages = {
        model: {"image": summarise(read_records(root / "eval" / model / "image.jsonl", Answer), benchmark="image")}
        for model in ("base", "vold")
    }
    # Four of eight problems are gained and none is lost: 0.5, sd sqrt(8 / 28), t(7) = 2.3646.
    spread = (8 / 28) ** 0.5 / 8**0.5
    gained = {"difference": 0.5, "stderr": spread, "low": 0.5 - 2.3646 * spread, "high": 0.5 + 2.3646 * spread}
    comparison = {"set": "image", "model": "vold", "against": "base", "p_value": 0.0331, **gained}
    write_json(root / "eval" / "results.json", {"stages": stages, "comparisons": [comparison]})
    return root


def rollout(group: int, index: int, step: int) -> Rollout:
    """Odd rollouts pass; those that fail were read by the teacher, 0.5 nats below the student at every token."""
    passed = bool(index % 2)
    ids = tuple(range(8)) if passed else (0, 1, 2, 7)
    logps = tuple(-0.25 - 0.01 * step for _ in ids)
    teacher = None if passed else TokenScores(tuple(v - 0.5 for v in logps))
    grade = Grade(1.0, "3", "equal") if passed else Grade(0.0, None, "no \\boxed{}")
    completion = Completion(ids, logps, (1,) * len(ids), "stop" if passed else "length")
    return Rollout(f"t{group}", group, (1, 2), completion, grade, teacher, (0.75 if passed else -0.75,) * len(ids))


def answer(index: int, right: bool) -> dict[str, Any]:
    return {
        "id": f"p{index}",
        "prompt": ". sum ?",
        "images": [thumbnail(Image.new("RGB", (24, 8), (index, 0, 0)))],
        "response": "digits & so",
        "extracted": "3" if right else None,
        "reference": "3",
        "score": float(right),
        "note": "equal" if right else "no box",
        "outcome": "right" if right else "unparsed",
        "tokens": 5,
        "tags": {"kind": "sum" if index % 2 else "span"},
    }
