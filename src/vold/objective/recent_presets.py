"""Presets of works of summer and autumn 2026. Their own weights and masks are functions of `vold.objective.gates`."""

from __future__ import annotations

from vold.objective.preset import OUTCOME, UNCLIPPED, Preset, surrogate

_GATES = "vold.objective.gates:"
_TRUSTED = {"tag": "correct", "value": 4}

RECENT: dict[str, Preset] = {
    "exopd": Preset(
        "arXiv 2602.12125 (G-OPD, reward extrapolation)",
        "λ times what training has made of the teacher, less the student's own distance to the teacher's base.",
        {"teacher_advantage": {"coefficient": 1.0, "mask": "none", "against": "reference", "extrapolation": 1.25}}
        | UNCLIPPED,
        fidelity="in the style of",
        missing="the objective is the paper's; the value of λ, the clip and the average are ours",
        teacher={"teacher.base": "the model that the teacher was trained from"},
    ),
    "direct_opd": Preset(
        "arXiv 2607.05394",
        "What training has made of the teacher as the reward: its log-ratio to its own base.",
        {"teacher_advantage": {"coefficient": 1.0, "mask": "none", "against": "reference"}} | UNCLIPPED,
        fidelity="in the style of",
        missing="read in its abstract alone: clip, average and a KL to the student's start are not known to us",
        teacher={"teacher.base": "the model that the teacher was trained from"},
    ),
    "sg_opd": Preset(
        "arXiv 2606.09304",
        "The teacher's log-ratio, more where its sign agrees with the verdict and less where it does not.",
        {
            "teacher_advantage": {
                "coefficient": 1.0,
                "mask": "none",
                "weight": f"{_GATES}sign_gate",
                "weight_options": {"agree": 1.25, "differ": 0.75},
            }
        }
        | UNCLIPPED,
        fidelity="in the style of",
        missing="read in its abstract alone: both factors are ours, and no teacher rollouts are mixed in at first",
    ),
    "tgopd": Preset(
        "arXiv 2609.02998",
        "The teacher's log-ratio on problems that it solves itself, GRPO on the others.",
        {
            "outcome": OUTCOME["outcome"] | {"mask": f"{_GATES}tag_below", "mask_options": _TRUSTED},
            "teacher_advantage": {"coefficient": 1.0, "mask": f"{_GATES}tag_at_least", "mask_options": _TRUSTED},
        }
        | surrogate(0.2, 0.3),
        fidelity="in the style of",
        missing="read in its abstract alone: how often the teacher is tried, the threshold and the clip are ours; it "
        "is tried beforehand, and what came of it is a tag of the task",
    ),
    "iw_opd": Preset(
        "arXiv 2606.22600, algorithm 1 as TRL 1.16 computes it",
        "The teacher's log-ratio, weighed down as student and teacher have drifted apart.",
        {
            "teacher_advantage": {
                "coefficient": 1.0,
                "mask": "none",
                "weight": f"{_GATES}prefix_drift",
                "weight_options": {"gamma": 0.5},
            }
        }
        | UNCLIPPED,
        fidelity="in the style of",
        missing="read in TRL's trainer, not in the paper",
    ),
    "opsd": Preset(
        "arXiv 2601.18734, as its released script runs it",
        "The student as it began, shown the solution, teaches the student by a full-vocabulary divergence.",
        {
            "teacher_loss": {
                "estimator": "jsd",
                "teacher_share": 0.5,
                "coefficient": 1.0,
                "mask": "none",
                "aggregate": "token_mean",
            }
        },
        fidelity="in the style of",
        missing="the words of the hint are the recipe's, and a token's divergence is not clipped",
        teacher={"teacher.student.weights": "start", "teacher.hint": "a text with {solution} or {reference}"},
    ),
    "sdpo": Preset(
        "arXiv 2601.20802, as TRL 1.16 computes it on sampled tokens",
        "A running average of the student, shown more than the student, is the teacher of on-policy distillation.",
        {"teacher_advantage": {"coefficient": 1.0, "mask": "none"}} | UNCLIPPED,
        fidelity="in the style of",
        missing="the teacher is shown what comes with the task, where the paper has a passed rollout of the same "
        "problem or what the environment says of a failed one",
        teacher={"teacher.student.weights": "ema", "teacher.hint": "a text with {solution} or {reference}"},
    ),
    "va_opd": Preset(
        "arXiv 2605.21924, Eq. 2 to 6, as its released code computes them",
        "Full reverse KL, half of it on the tokens that the picture matters to most, by rollout and by token.",
        {
            "contrast": "blind",
            "teacher_loss": {
                "estimator": "reverse_kl",
                "coefficient": 1.0,
                "mask": "none",
                "weight": f"{_GATES}visual_advantage",
                "weight_options": {"share": 0.2, "high": 0.5, "temperature": 1.0},
                "aggregate": "sequence_mean",
            },
        },
        fidelity="in the style of",
        missing="the teacher is shown no picture at all, where the paper shows a coarse one",
        teacher={"teacher.path": "a model that sees, in the run's own process"},
    ),
    "opsa": Preset(
        "arXiv 2608.31046, its control",
        "One fixed negative advantage for every token, and no teacher: what distillation has to be better than.",
        {"outcome": {"constant": -1.0}} | UNCLIPPED,
        fidelity="in the style of",
        missing="the number and the clip are ours; its own method, which weighs by entropy, is not built",
    ),
}
