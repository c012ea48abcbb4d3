"""Wrong versions of the objective that its tests must catch: (file, text, replacement, what goes wrong).

Each is a mistake someone has made in a published code base, or could make here without anything crashing.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` stands exactly once in `src/vold/{file}`; with `new` in its place some test must fail."""

    name: str
    file: str
    old: str
    new: str
    why: str


MUTANTS = [
    # losses
    Mutant("kl-direction", "losses.py", "return student_logp - teacher_logp.detach()",
           "return teacher_logp.detach() - student_logp", "the gap has the wrong sign, k1 and k3 with it"),
    Mutant("teacher-not-detached", "losses.py", "return student_logp - teacher_logp.detach()",
           "return student_logp - teacher_logp", "gradient reaches the teacher"),
    Mutant("k2-without-half", "losses.py", ".square() / 2", ".square()", "beta means twice what it says"),
    Mutant("k3-sign", "losses.py", "gap.neg().expm1() + gap", "gap.expm1() - gap", "k3 of the inverse ratio"),
    Mutant("k3-naive", "losses.py", "gap.neg().expm1()", "gap.neg().exp() - 1", "digits are lost where models agree"),
    Mutant("reverse-is-forward", "losses.py", "(student.exp() * (student - teacher))",
           "(teacher.exp() * (teacher - student))", "full reverse KL is forward KL"),
    Mutant("forward-without-entropy", "losses.py", "(teacher.exp() * (teacher - student))",
           "(teacher.exp() * -student)", "gradient right, logged value off by the teacher's entropy"),
    Mutant("clip-swapped", "losses.py", "ratio.clamp(1 - clip_low, 1 + clip_high)",
           "ratio.clamp(1 - clip_high, 1 + clip_low)", "0.3 below and 0.2 above"),
    Mutant("optimistic", "losses.py", "(ratio * weight).minimum(", "(ratio * weight).maximum(",
           "the clip lets go where it should hold"),
    Mutant("advantage-not-detached", "losses.py", "    weight = advantage.detach()", "    weight = advantage",
           "gradient flows into the advantage"),
    Mutant("behaviour-not-detached", "losses.py", "    ratio = (logp - behaviour_logp.detach()).exp()",
           "    ratio = (logp - behaviour_logp).exp()", "on-policy, the policy gradient cancels to zero"),
    Mutant("surrogate-sign", "losses.py", "advantage.detach()).neg()", "advantage.detach())",
           "the unclipped surrogate is maximised"),
    # advantages
    Mutant("mean-kept", "advantages.py", "(value - mean) / scale", "value / scale", "no baseline"),
    Mutant("std-omitted", "advantages.py", "scale = spread + eps if", "scale = 1.0 if", "advantages are not scaled"),
    Mutant("population-std", "advantages.py", "/ (len(values) - 1))\n        scale", "/ len(values))\n        scale",
           "the other standard deviation"),
    Mutant("leave-one-out-counts-itself", "advantages.py", "(total - value) / (len(values) - 1)",
           "total / len(values)", "leave-one-out leaves none out"),
    Mutant("reward-sign", "advantages.py", "return [t - b for", "return [b - t for", "the student flees the teacher"),
    Mutant("mask-inverted", "advantages.py", "return [1.0 - s for s in scores]", "return [float(s) for s in scores]",
           "the teacher speaks on passed rollouts"),
    Mutant("group-mask-by-worst", "advantages.py", "best[group] = max(score, best.get(group, 0.0))",
           "best[group] = min(score, best.get(group, 1.0))", "one failure makes a group unsolved"),
    # objective
    Mutant("mask-missing", "objective.py", "t.at(step) * streams.teacher_weight[on] * divergence",
           "t.at(step) * divergence", "graded scores do not weigh the teacher"),
    Mutant("select-after", "objective.py", "on = streams.teacher_weight != 0",
           "on = streams.teacher_weight == streams.teacher_weight",
           "NaN of unasked tokens enters the arithmetic"),
    Mutant("select-none", "objective.py", "on = streams.advantage != 0",
           "on = streams.advantage == streams.advantage",
           "tokens without advantage enter the ratio"),
    Mutant("own-denominator", "objective.py", "values.sum() / max(1, denominator)",
           "values.sum() / max(1, len(values))",
           "each micro-batch is divided by its own token count; masked rollouts do not count"),
    Mutant("denominator-of-actions", "objective.py", "sum(1 for a in r.completion.action_mask if a)",
           "len(r.completion.action_mask)", "tool output counts as tokens"),
    Mutant("sequence-mean-is-token-sum", "objective.py", "values = values / lengths", "values = values * 1",
           "long rollouts weigh more"),
    Mutant("aggregates-swapped", "objective.py", 'if slot.aggregate == "token_mean" else',
           'if slot.aggregate != "token_mean" else', "token mean divides by rollouts"),
    Mutant("diluted", "objective.py", "count(objective.teacher_loss, seen)", "count(objective.teacher_loss, everyone)",
           "rollouts without a text view dilute the teacher term"),
    Mutant("anneal-off-by-one", "slots.py", "self.anneal_per_step * step", "self.anneal_per_step * (step + 1)",
           "the first step is already annealed"),
    Mutant("anneal-without-floor", "slots.py", "step, self.final_coefficient)", "step, -1.0)",
           "the coefficient turns negative"),
    Mutant("credit-on-tools", "objective.py", "advantage + d if action else 0.0", "advantage + d",
           "tool output is credited"),
    Mutant("credit-unmasked", "objective.py", "slot.at(step) * weight * ratio", "slot.at(step) * ratio",
           "graded scores do not weigh the teacher's advantage"),
    Mutant("everyone-asked", "objective.py", "w or m != 0 for", "True for", "the teacher is asked about all rollouts"),
    Mutant("metric-with-graph", "objective.py", "metrics[name] = value.detach()", "metrics[name] = value",
           "metrics keep the graph of every micro-batch alive"),
    Mutant("clip-fraction-both-sides", "objective.py", "((advantage > 0) & (ratio > high))", "(ratio > high)",
           "tokens count as clipped that still earn gradient"),
    Mutant("disconnected", "objective.py", "return loss + value", "return loss + value if len(values) else loss",
           "a batch without a selected token cannot be back-propagated"),
    Mutant("half-precision", "objective.py", "streams.logp.float() if streams.logp.dtype.itemsize < 4",
           "streams.logp if streams.logp.dtype.itemsize < 4", "bfloat16 log-probs are summed in bfloat16"),
    Mutant("preset-mutated", "objective.py",
           "    out = dict(base)\n", "    out = base\n", "an override changes the preset"),
]  # fmt: skip
