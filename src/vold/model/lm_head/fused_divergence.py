"""A divergence over the whole vocabulary and its gradient, in the memory of the two distributions it compares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from vold.objective.losses import full_forward_kl, full_reverse_kl, jensen_shannon

COLUMNS = 8192
"""Columns that `row_dot` sums without a break."""


@dataclass(frozen=True)
class FullDivergence:
    """Which divergence student and teacher are compared by.

    Attributes:
        kind: `reverse_kl` is KL(student‖teacher), `forward_kl` KL(teacher‖student), `jsd` GKD's mixture of the two.
        teacher_share: β of `jsd`, see `vold.objective.losses.jensen_shannon`.
    """

    kind: Literal["reverse_kl", "forward_kl", "jsd"]
    teacher_share: float = 0.5

    def __call__(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The plain form, of `vold.objective.losses`: [..., ids] logits or log-probs to [...] nats."""
        if self.kind == "jsd":
            return jensen_shannon(student, teacher, self.teacher_share)
        return full_reverse_kl(student, teacher) if self.kind == "reverse_kl" else full_forward_kl(student, teacher)

    def in_place(
        self, student: torch.Tensor, teacher: torch.Tensor, probs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Value, and gradient by the student's logits z.

        With s and t the two distributions, m = β t + (1 - β) s and D the value:

            reverse KL   dD/dz = s (log s - log t - D)
            forward KL   dD/dz = s - t
            JSD          dD/dz = (1 - β) s (log s - log m - KL(s‖m))

        Args:
            student: [tokens, ids] normalised log-probs, finite (`chunked_logits.NEVER` where there is no
                probability); overwritten.
            teacher: the same of the teacher; overwritten.
            probs: [tokens, ids] the student's probabilities; only read.

        Returns:
            [tokens] nats and [tokens, ids], the latter in the memory of `student` or `teacher`.
        """
        share = {"reverse_kl": 1.0, "forward_kl": 0.0}.get(self.kind, self.teacher_share)
        if share == 1:
            gap = torch.sub(student, teacher, out=teacher)
            value = row_dot(probs, gap)
            return value, gap.sub_(value[:, None]).mul_(probs)
        if share == 0:
            gap = torch.sub(teacher, student, out=student)
            theirs = teacher.exp_()
            value = row_dot(theirs, gap)
            return value, torch.sub(probs, theirs, out=gap)
        theirs = teacher.exp()
        negentropy = row_dot(theirs, teacher)
        shifted = student.add_(math.log(1 - share))
        mixture = torch.logaddexp(shifted, teacher.add_(math.log(share)), out=teacher)
        from_teacher = negentropy - row_dot(theirs, mixture)
        gap = shifted.sub_(mixture)
        shifted_kl = row_dot(probs, gap)
        value = share * from_teacher + (1 - share) * (shifted_kl - math.log(1 - share))
        return value, gap.sub_(shifted_kl[:, None]).mul_(probs).mul_(1 - share)


def row_dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Σ_j a_ij b_ij of two [rows, columns] tensors, [rows], without a third of their size.

    Summed in blocks: one running float32 sum over 151,936 columns loses four digits.
    """
    out = a.new_zeros(len(a))
    for start in range(0, a.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        out += torch.bmm(a[:, None, part], b[:, part, None])[:, 0, 0]
    return out
