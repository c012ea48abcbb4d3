"""The published methods as presets of the algebra, and their variants.

A preset names terms and their options and nothing else; terms not named are left out. Where paper and released code
differ, or a paper leaves a choice open, the variant has a name of its own and is chosen by `reading`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vold.objective.preset import OUTCOME, UNCLIPPED, Preset, Terms, Variant, surrogate
from vold.objective.recent_presets import RECENT

_GRPO: Terms = OUTCOME | surrogate(0.2, 0.3)
_K2: Terms = {"estimator": "k2", "aggregate": "token_mean"}
_KDRL: Terms = {"coefficient": 5e-3, "final_coefficient": 1e-3, "anneal_per_step": 5e-5, "mask": "none"}

PRESETS: dict[str, Preset] = {
    "vold": Preset(
        "arXiv 2510.23497, Eq. 6",
        "GRPO, and the teacher's k2 loss on failed rollouts.",
        _GRPO | {"teacher_loss": _K2 | {"coefficient": 0.1, "mask": "failed"}},
        variants={
            "supplement": Variant(
                "β of supplementary table 4, on the token sum that Eq. 6 writes.",
                {"teacher_loss": {"coefficient": 1e-3, "aggregate": "token_sum"}},
            ),
        },
    ),
    "grpo": Preset("arXiv 2510.23497, ablation", "VOLD without its teacher: same clip bounds, no reference KL.", _GRPO),
    "kdrl": Preset(
        "arXiv 2506.02208",
        "GRPO, and a k2 loss on every rollout whose coefficient falls linearly.",
        _GRPO | {"teacher_loss": _K2 | _KDRL},
        fidelity="in the style of",
        missing="clip bounds are those of `grpo`; on-policy they do not act",
        variants={
            "response_mask": Variant("No distillation on passed rollouts.", {"teacher_loss": {"mask": "failed"}}),
            "group_mask": Variant("Distillation where nobody passed.", {"teacher_loss": {"mask": "group_failed"}}),
            "reward": Variant(
                "The teacher's log-ratio is added to the token reward.",
                {"teacher_loss": None, "teacher_advantage": _KDRL},
            ),
        },
    ),
    "opd": Preset(
        "Thinking Machines, on-policy distillation, 2025",
        "The teacher's log-ratio as an unclipped advantage, no outcome reward.",
        {"teacher_advantage": {"coefficient": 1.0, "mask": "none"}} | UNCLIPPED,
        fidelity="in the style of",
        missing="averages over tokens, where the released code sums",
        variants={
            "future": Variant(
                "A discounted sum of later rewards (no gain reported).",
                {"teacher_advantage": {"future": {"discount": 0.99, "per": "position"}}},
            ),
        },
    ),
    "sft": Preset("arXiv 2510.23497, Eq. 4", "Likelihood of given tokens.", {"nll": {"aggregate": "token_mean"}}),
    "sod": Preset(
        "arXiv 2605.07725, Eq. 6, 7 and 10",
        "GRPO, and the teacher's log-ratio weighed down on the steps on which the student has drifted.",
        {
            "outcome": {"weight": 1.0, "normalise": "std", "signed": True}
            | {"tool_reward": {"per_call": 0.1, "ceiling": -0.6}, "overlong": {"buffer": 0.05, "factor": 1.0}},
            "teacher_advantage": {"coefficient": 1.0, "mask": "none", "steps": {"eps": 1e-6, "delta": 0.2}},
        }
        | surrogate(0.2, 0.28, dual_clip=3.0),
        mini_batches=4,
        variants={
            "library": Variant(
                "δ as the released library sets it by default.", {"teacher_advantage": {"steps": {"delta": 0.5}}}
            ),
        },
    ),
    "uni_opd": Preset(
        "arXiv 2605.03677, Eq. 1, 2, 11 and 12, as its released code computes them",
        "The teacher's log-ratio, on balanced rollouts, shifted until correct ones lead by a margin.",
        {
            "teacher_advantage": {
                "coefficient": 1.0,
                "mask": "none",
                "balance": {"ratio": 1.0, "scope": "group"},
                "margin": {"form": "shift", "delta": 0.4, "scope": "group", "statistic": "mean", "direction": "both"},
                "gate": 10.0,
            }
        }
        | surrogate(0.2, 0.28, "sequence_mean"),
        missing="balancing is as the paper says: the released script does not reach it",
        variants={
            "paper": Variant(
                "The shifted mean return is given to all tokens; the gap is lowest correct minus highest incorrect.",
                {
                    "teacher_advantage": {
                        "margin": {"form": "broadcast", "statistic": "minmax", "direction": "correct_up"}
                    }
                },
            ),
            "mask": Variant(
                "Offending rollouts are dropped instead of shifted.",
                {"teacher_advantage": {"margin": {"form": "mask"}}},
            ),
        },
    ),
    "prefix_teach": Preset(
        "arXiv 2605.13643",
        "The teacher's log-ratio up to the sentence after which it no longer separates the student's candidates.",
        {"teacher_advantage": {"coefficient": 1.0, "mask": "none", "prefix": {"top_k": 8, "margin": "log_gap"}}}
        | UNCLIPPED,
        fidelity="in the style of",
        missing="margin, K, the parameters of the BIC test, clip and average are ours",
        variants={
            "probability": Variant(
                "The margin in probability.", {"teacher_advantage": {"prefix": {"margin": "probability_gap"}}}
            ),
            "best_to_mean": Variant(
                "Best candidate against the mean.", {"teacher_advantage": {"prefix": {"margin": "best_to_mean"}}}
            ),
        },
    ),
    "mopd": Preset(
        "arXiv 2601.02780, Eq. 7 to 9",
        "The teacher against the trainer's own log-probs plus the outcome advantage; unmatched tokens are left out.",
        OUTCOME
        | {"teacher_advantage": {"coefficient": 1.0, "mask": "none", "against": "current"}}
        | surrogate(None, None, "sequence_mean", band={"low": 0.5, "high": 2.0}),
        fidelity="in the style of",
        missing="the weight of the outcome and the band are ours",
    ),
    "gkd": Preset(
        "arXiv 2306.13649, Eq. 1 and algorithm 1, with the ends of β as in TRL",
        "A full-vocabulary divergence on a mixture of the student's rollouts and the teacher's traces.",
        {
            "teacher_loss": {
                "estimator": "jsd",
                "teacher_share": 0.5,
                "coefficient": 1.0,
                "mask": "none",
                "aggregate": "token_mean",
            },
            "mix": {"student_share": 0.5},
        },
        variants={
            "forward": Variant("β = 0: forward KL.", {"teacher_loss": {"teacher_share": 0.0}}),
            "reverse": Variant("β = 1: reverse KL.", {"teacher_loss": {"teacher_share": 1.0}}),
            "top_k": Variant(
                "The teacher's 32 likeliest tokens, for a teacher without logits.",
                {"teacher_loss": {"top_k": {"k": 32, "support": "teacher"}}},
            ),
        },
    ),
    "minillm": Preset(
        "arXiv 2306.08543",
        "Reverse KL of whole responses: the next token exactly, what follows it as a length-normalised advantage.",
        {
            "teacher_advantage": {
                "coefficient": 1.0,
                "mask": "none",
                "future": {"discount": 1.0, "from_next": True, "length_normalised": True},
            },
            "teacher_loss": {"estimator": "reverse_kl", "coefficient": 1.0, "mask": "none", "aggregate": "token_mean"},
        }
        | surrogate(0.2, 0.2),
        fidelity="in the style of",
        missing="no sampling mixed with the teacher's, no pre-training loss, one update a batch; the average is ours",
        variants={
            "sampled": Variant(
                "R_t from the token on, without the full-vocabulary term.",
                {
                    "teacher_loss": None,
                    "teacher_advantage": {"future": {"from_next": False, "length_normalised": False}},
                },
            ),
        },
    ),
    "dapo": Preset(
        "arXiv 2503.14476",
        "GRPO with a higher upper clip, a mean over tokens and a penalty near the token budget.",
        {"outcome": {"weight": 1.0, "normalise": "std", "signed": True, "overlong": {"buffer": 0.2, "factor": 1.0}}}
        | surrogate(0.2, 0.28),
        fidelity="in the style of",
        missing="its 16 updates a batch, and groups sampled anew, only with `distill.updates` and `distill.refill`",
    ),
    "gspo": Preset(
        "arXiv 2507.18071",
        "GRPO with one ratio a response.",
        OUTCOME | surrogate(3e-4, 4e-4, "sequence_mean", ratio="sequence"),
    ),
    "dr_grpo": Preset(
        "arXiv 2503.20783",
        "GRPO without the division by the standard deviation and by response length.",
        {"outcome": {"weight": 1.0, "normalise": "none"}} | surrogate(0.2, 0.2, "token_sum"),
        variants={
            "code": Variant(
                "The token sum is divided by the token budget.", {"surrogate": {"aggregate": "budget_mean"}}
            ),
        },
    ),
    "hypereyes": Preset(
        "arXiv 2605.07177",
        "GRPO, and the teacher's KL on rollouts with a score of 0.",
        _GRPO | {"teacher_loss": _K2 | {"coefficient": 0.05, "mask": "zero_score", "aggregate": "sequence_mean"}},
        fidelity="in the style of",
        missing="the estimator (k2) and the clip bounds are VOLD's",
    ),
    **RECENT,
}
"""Presets by name."""

if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[*PRESETS]
