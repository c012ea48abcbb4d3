"""What is optimised: one small algebra, of which every published method is a preset.

    A_t = a · A_outcome + c(step) · M(rollout) · W(token) · P(prefix) · [R_t + s(group)]
    R_t = log π_T - log π_old                                                                       (A_t is detached)
    L   = agg surrogate(π_θ/π_old, A_t; clip, band, gate) + β(step) · agg M · W · D(π_θ, π_T) + agg nll

`credit` computes A and M · W, `token_counts` the denominators of `agg`, and `total` is the one place that selects,
weighs, normalises and sums.

VOLD's (1 - r) stands inside the expectation over rollouts (Eq. 6). So a denominator counts every rollout of the
step, also those whose weight is 0: as the student passes more often, the teacher term fades.
"""

from vold.objective.credit import credit, needs_teacher, value_means
from vold.objective.loss import Denominators, Streams, averages, token_counts, total
from vold.objective.preset import Preset, Variant
from vold.objective.presets import PRESETS, Method
from vold.objective.spec import Needs, Objective

__all__ = [
    "PRESETS",
    "Denominators",
    "Method",
    "Needs",
    "Objective",
    "Preset",
    "Streams",
    "Variant",
    "averages",
    "credit",
    "needs_teacher",
    "token_counts",
    "total",
    "value_means",
]
