"""Which of the measured figures are shown, and what they are to reach on an H100."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Verdict = Literal["met", "missed", "not measured", ""]


class Figure(NamedTuple):
    """One of them.

    Attributes:
        what: in words.
        place: the measurement, and the keys below it.
        unit: of the figure.
        bound: what it is to reach; None where there is no target.
        least: whether the bound is the least it may be; otherwise the most.
    """

    what: str
    place: tuple[str, ...]
    unit: str = ""
    bound: float | None = None
    least: bool = False

    def of(self, measurements: Mapping[str, Any]) -> float | None:
        """The figure; None where it is not there."""
        found: Any = measurements
        for key in self.place:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def verdict(self, value: float | None) -> Verdict:
        """What it is beside its target."""
        if self.bound is None:
            return ""
        if value is None:
            return "not measured"
        return "met" if (value >= self.bound if self.least else value <= self.bound) else "missed"

    @property
    def target(self) -> str:
        """In words."""
        if self.bound is None:
            return "-"
        return f"{'at least' if self.least else 'at most'} {self.bound:,g} {self.unit}".strip()


FIGURES: dict[str, tuple[Figure, ...]] = {
    "the card at its best": (
        Figure("a product of 8192 x 8192 x 8192 in bfloat16", ("peaks", "product_tflops"), "TFLOP/s"),
        Figure("a copy on the card, read and written", ("peaks", "device_copy_gb_s"), "GB/s"),
        Figure("pageable memory to the host", ("peaks", "pageable_to_host_gb_s"), "GB/s"),
        Figure("pageable memory to the card", ("peaks", "pageable_to_device_gb_s"), "GB/s"),
        Figure("pinned memory to the host", ("peaks", "pinned_to_host_gb_s"), "GB/s"),
        Figure("pinned memory to the card", ("peaks", "pinned_to_device_gb_s"), "GB/s"),
    ),
    "a step of stage 2": (
        Figure("32 rollouts of 512 tokens with `run.offload`, the second step", ("step", "seconds"), "s", 12),
        Figure("the first step", ("step", "seconds_first"), "s"),
        Figure("the plan over the peak, of the highest phase", ("step", "planned_over_peak"), "", 1.08),
        Figure("memory kept above the plan, in any phase", ("step", "short_gib"), "GiB", 0),
        Figure("memory kept but unused after a change of phases", ("step", "spare_gib"), "GiB", 1),
        Figure("optimizer state, the slower way", ("offload", "slower_way_gb_s"), "GB/s", 45, least=True),
    ),
    "the sampler in the process, 64 rows": (
        Figure("a token of each row, over the card's own work for it", ("sampler", "wall_over_gpu"), "", 1.5),
        Figure("tokens a second", ("sampler", "tokens_a_second"), "", 4000, least=True),
        Figure("a token of each row", ("sampler", "ms_a_token"), "ms"),
        Figure("of which the card works", ("sampler", "gpu_ms_a_token"), "ms"),
        Figure("a token of each row, 4,000 tokens of context", ("sampler", "ms_a_token_long_prompts"), "ms"),
    ),
    "an update": (
        Figure("share of the best product, without what is made again", ("update", "share"), "", 0.45, least=True),
        Figure("2 rows of 8192 tokens", ("update", "2 x 8192", "seconds"), "s"),
        Figure("2 rows of 8192 tokens, without what is made again", ("update", "2 x 8192", "tflops"), "TFLOP/s"),
        Figure("2 rows of 8192 tokens, all products", ("update", "2 x 8192", "tflops_with_recomputation"), "TFLOP/s"),
        Figure("32 rows of 512 tokens", ("update", "32 x 512", "seconds"), "s"),
        Figure("the host waits, of one micro-batch", ("update", "2 x 8192", "host_waits"), "times", 12),
    ),
    "parts": (
        Figure("packed attention over padded, forward and backward", ("attention", "packed_over_padded")),
        Figure("packed attention in bfloat16 from float64, with gradients", ("attention", "apart"), "", 2e-2),
        Figure("an update with `student.compile` over one without", ("compiled", "compiled_over_plain")),
        Figure("the fused head over the dense one, seconds", ("head", "fused_over_dense")),
        Figure("the fused head, forward and backward of 8192 tokens", ("head", "fused_seconds"), "s"),
        Figure("gradient of the states, fused from dense", ("head", "states_apart"), "", 1e-3),
        Figure("gradient of the weight, fused from dense", ("head", "weights_apart"), "", 1e-3),
        Figure("log-probs of the Triton kernel from dense float32", ("kernels", "logp"), "nats", 1e-4),
        Figure("gradient of the Triton kernel from dense float32", ("kernels", "gradient"), "", 1e-5),
        Figure("a pass of the Triton kernel over the logits", ("kernels", "read_gb_s"), "GB/s"),
    ),
    "the demo in float32": (
        Figure("losses and gradient norms from the CPU's, relative", ("demo", "apart"), "", 1e-4),
        Figure("answers on pictures and text that are not the CPU's", ("demo", "other_answers_float32"), "", 0),
        Figure("the same in bfloat16", ("demo", "other_answers_bfloat16")),
        Figure("two runs end in the same bits (1: they do)", ("resume", "repeats"), "", 1, least=True),
        Figure("a killed one too", ("resume", "resumed"), "", 1, least=True),
    ),
    "to another process on the card": (
        Figure("all trained weights by CUDA IPC, with checksums on both sides", ("transfer", "gb_s"), "GB/s"),
        Figure("tensors that came with another checksum", ("transfer", "wrong"), "", 0),
        Figure("NCCL with one member broadcasts (1: it does)", ("transfer", "nccl"), "", 1, least=True),
    ),
    "both models in 4 bits, adapters": (
        Figure("32 rollouts of 128 tokens, the second step", ("quantized", "seconds"), "s"),
        Figure("the plan over the peak, of the highest phase", ("quantized", "planned_over_peak"), "", 1.08),
        Figure("memory kept above the plan, in any phase", ("quantized", "short_gib"), "GiB", 0),
    ),
}
"""By what they are of."""


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Every figure with its target and what each report has of it."""
    names = map(name_of, reports)
    lines = [f"| what | target | {' | '.join(names)} |", "|---" * (2 + len(reports)) + "|"]
    for group, figures in FIGURES.items():
        lines.append(f"| **{group}** | " + " | " * (1 + len(reports)))
        for figure in figures:
            cells = [shown(figure, report["measurements"]) for report in reports]
            lines.append(f"| {figure.what} | {figure.target} | {' | '.join(cells)} |")
    return "\n".join(line.rstrip() for line in lines)


def name_of(report: Mapping[str, Any]) -> str:
    """Card and commit."""
    return f"{report['card'].removeprefix('NVIDIA ')}, {report['commit'][:7]}"


def shown(figure: Figure, measurements: Mapping[str, Any]) -> str:
    """A cell of the table."""
    value = figure.of(measurements)
    said = "" if value is None else f"{value:,.4g} {figure.unit}".strip()
    verdict = figure.verdict(value)
    return ", ".join(part for part in (said, f"**{verdict}**" if verdict == "missed" else verdict) if part) or "-"
