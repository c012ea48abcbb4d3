"""Per-token losses: pure, unreduced, in nats.

Each function takes tensors of one shape and returns one value a token. Masking, normalising and summing happen in
`vold.objective.total` and nowhere else. Gradient flows through the student's current log-probs alone: behaviour
log-probs, advantages and the teacher's values are detached here, whatever the caller passes.

Which estimator may be back-propagated (method.md section 0), for tokens sampled from the student:

| function | its mean is         | the mean of its gradient is      |
|----------|---------------------|----------------------------------|
| `k1`     | KL(student‖teacher) | zero: report it, never train it  |
| `k2`     | a biased value      | the gradient of KL(student‖teacher), reverse KL |
| `k3`     | KL(student‖teacher) | the gradient of KL(teacher‖student), FORWARD KL |
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


IMPORTANCE_CAP = 2.0
"""The usual bound of truncated importance sampling."""


def nll(logp: Tensor) -> Tensor:
    """Negative log-likelihood of given tokens (VOLD Eq. 4), the loss of the cold start.

    Args:
        logp: [...] student log-probs of the tokens, with gradient.
    """
    return logp.neg()


def clipped_surrogate(
    logp: Tensor,
    behaviour_logp: Tensor,
    advantage: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Tensor:
    """PPO's pessimistic surrogate as a loss: -min(w·A, clip(w, 1 - clip_low, 1 + clip_high)·A), w = π_θ/π_old.

    Where A < 0 nothing bounds it for a large w. The dual clip (arXiv 1912.09729, Eq. 5) does: there the loss is at most
    dual_clip · |A|, and the token has no gradient beyond.

    Args:
        logp: [...] student log-probs, with gradient.
        behaviour_logp: [...] log-probs at the time of sampling.
        advantage: [...] one advantage a token.
        clip_low: how far below 1 the ratio still earns gradient when the advantage is negative.
        clip_high: how far above 1 the ratio still earns gradient when the advantage is positive.
        dual_clip: the highest ratio that earns gradient when the advantage is negative; None for any.

    Raises:
        ValueError: shapes differ.
    """
    _same_shape(logp=logp, behaviour_logp=behaviour_logp, advantage=advantage)
    ratio = (logp - behaviour_logp.detach()).exp()
    weight = advantage.detach()
    gain = (ratio * weight).minimum(ratio.clamp(1 - clip_low, 1 + clip_high) * weight)
    return (gain if dual_clip is None else gain.maximum((dual_clip * weight).where(weight < 0, gain))).neg()


def importance_surrogate(logp: Tensor, behaviour_logp: Tensor, advantage: Tensor) -> Tensor:
    """The unclipped surrogate -(π_θ/π_old)·A of Thinking Machines' on-policy distillation.

    Args and errors: as `clipped_surrogate`.
    """
    _same_shape(logp=logp, behaviour_logp=behaviour_logp, advantage=advantage)
    return ((logp - behaviour_logp.detach()).exp() * advantage.detach()).neg()


def importance(logp: Tensor, behaviour_logp: Tensor, cap: float = IMPORTANCE_CAP) -> Tensor:
    """What a token weighs in an average over the student's own samples when older weights have sampled it:
    min(π_θ/π_old, cap), without gradient. Without it the k2 loss goes on pushing down tokens that the student has given
    up since.

    Args:
        logp: [...] student log-probs.
        behaviour_logp: [...] log-probs at the time of sampling.
        cap: the most that a token weighs.

    Raises:
        ValueError: shapes differ.

    Example:
        >>> importance(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -9.0])).tolist()
        [1.0, 2.0]
    """
    _same_shape(logp=logp, behaviour_logp=behaviour_logp)
    return (logp - behaviour_logp).detach().exp().clamp(max=cap)


def k1(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """The gap log π_θ - log π_T of the sampled token: unbiased for KL(student‖teacher), positive where the
    student is the surer of the two. A quantity to log, not a loss: the mean of its gradient is zero.

    Args:
        student_logp: [...] log-probs of the sampled tokens.
        teacher_logp: [...] the teacher's log-probs of the same tokens.

    Raises:
        ValueError: shapes differ.
    """
    _same_shape(student_logp=student_logp, teacher_logp=teacher_logp)
    return student_logp - teacher_logp.detach()


def k2(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """½·gap², whose gradient gap·∇log π_θ is on average that of KL(student‖teacher): the term of VOLD and KDRL.

    Args and errors: as `k1`.
    """
    return k1(student_logp, teacher_logp).square() / 2


def k3(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """e^(-gap) - 1 + gap, never negative, unbiased for KL(student‖teacher) with little variance. Back-propagated it
    follows KL(teacher‖student) instead: (1 - π_T/π_θ)·∇log π_θ.

    Args and errors: as `k1`.
    """
    gap = k1(student_logp, teacher_logp)
    return gap.neg().expm1() + gap


SAMPLED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k2": k2, "k3": k3}
"""Estimators of a teacher loss on sampled tokens: of the student's and the teacher's log-probs. One more is a line
here; recipes know it by its name."""
OVER_VOCABULARY = ("reverse_kl", "forward_kl", "jsd")
"""Estimators over the vocabulary, or over candidates; see `vold.training.logit_distillation`."""


def sequence_log_ratio(logp: Tensor, behaviour_logp: Tensor, sequence: Tensor) -> Tensor:
    """GSPO's log ratio of a whole response, (1/|y|) Σ_t (log π_θ - log π_old), given to each of its tokens.

    The value is the mean, detached; the gradient is that of the token's own log-prob. Averaged over the tokens of a
    response, as `sequence_mean` does, that is the gradient of the mean (GSPO-token, arXiv 2507.18071).

    Args:
        logp: [tokens] student log-probs, with gradient.
        behaviour_logp: [tokens] log-probs at the time of sampling.
        sequence: [tokens] the number of the response each token belongs to; all of its tokens must be here.

    Raises:
        ValueError: shapes differ.
    """
    _same_shape(logp=logp, behaviour_logp=behaviour_logp, sequence=sequence)
    own = logp.detach()
    place = torch.searchsorted(sequence.sort().values, sequence)  # one for each response; `unique` waits for a GPU
    each = torch.stack([own - behaviour_logp.detach(), torch.ones_like(own)])
    sums, lengths = own.new_zeros(2, len(own)).index_add(1, place, each)[:, place]
    ratio: Tensor = logp + (sums / lengths - own)
    return ratio


def inside_band(log_ratio: Tensor, low: float, high: float) -> Tensor:
    """MiMo's rule for tokens on which trainer and sampler disagree: true where low ≤ π_θ/μ_θ ≤ high (Eq. 9).

    Args:
        log_ratio: [...] log π_θ - log μ_θ.
        low: smallest ratio that still teaches.
        high: largest ratio that still teaches.

    Returns:
        [...] bool.
    """
    ratio = log_ratio.detach().exp()
    return (ratio >= low) & (ratio <= high)


def full_reverse_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(student‖teacher) over the whole vocabulary, exact value and gradient.

    Args:
        student_logits: [..., vocabulary] finite logits or log-probs, with gradient.
        teacher_logits: [..., vocabulary] the same of the teacher, over the same ids.

    Returns:
        [...] nats.

    Raises:
        ValueError: shapes differ.
    """
    _same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    student, teacher = student_logits.log_softmax(-1), teacher_logits.detach().log_softmax(-1)
    return (student.exp() * (student - teacher)).sum(-1)


def full_forward_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher‖student) over the whole vocabulary, with the constant of the teacher's entropy.

    Args, shapes and errors: as `full_reverse_kl`.
    """
    _same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    student, teacher = student_logits.log_softmax(-1), teacher_logits.detach().log_softmax(-1)
    return (teacher.exp() * (teacher - student)).sum(-1)


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, beta: float) -> Tensor:
    """GKD's generalised divergence β KL(T‖m) + (1 - β) KL(S‖m) with m = β T + (1 - β) S (arXiv 2306.13649, Eq. 1).

    The formula is 0 at both ends. As in TRL, β = 0 stands for KL(T‖S) and β = 1 for KL(S‖T), the limits of the
    formula divided by β and by 1 - β.

    Args, shapes and errors: as `full_reverse_kl`; `beta` in [0, 1].
    """
    if beta == 0:
        return full_forward_kl(student_logits, teacher_logits)
    if beta == 1:
        return full_reverse_kl(student_logits, teacher_logits)
    _same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    student, teacher = student_logits.log_softmax(-1), teacher_logits.detach().log_softmax(-1)
    mixture = (student + math.log(1 - beta)).logaddexp(teacher + math.log(beta))
    from_teacher = (teacher.exp() * (teacher - mixture)).sum(-1)
    return beta * from_teacher + (1 - beta) * (student.exp() * (student - mixture)).sum(-1)


def stopped_reverse_kl(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """Reverse KL over K candidates as they are: value Σ_k π_θ(k) g_k, gradient Σ_k sg[π_θ(k) g_k] ∇log π_θ(k), with
    the gap g_k = log π_θ(k) - log π_T(k).

    Plain differentiation adds Σ_k ∇π_θ(k), which drives probability out of the K candidates whatever the teacher says.
    Over the whole vocabulary that addend is 0, and this is the gradient of KL(student‖teacher).

    Args:
        student_logp: [..., k] log-probs, normalised over the vocabulary, with gradient.
        teacher_logp: [..., k] the teacher's at the same ids.

    Returns:
        [...] nats; may be negative, since neither side sums to 1.

    Raises:
        ValueError: shapes differ.
    """
    gap = k1(student_logp, teacher_logp).detach()
    weighed = student_logp.detach().exp() * gap
    return (weighed * (1 + student_logp - student_logp.detach())).sum(-1)


def _same_shape(**tensors: Tensor) -> None:
    if len({tuple(t.shape) for t in tensors.values()}) > 1:
        found = ", ".join(f"{name} {list(t.shape)}" for name, t in tensors.items())
        raise ValueError(f"shapes must be equal (nothing is broadcast): {found}")
