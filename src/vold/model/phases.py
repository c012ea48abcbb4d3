"""What a phase needs of a device: its parts, in words, and beside what it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.model.place import Peak, Phase


@dataclass(frozen=True)
class PhaseMemory:
    """One phase on each device.

    Attributes:
        name: the phase.
        parts: bytes at its peak, by what they are for.
        moved: bytes that it brings to the device and takes to the host, in every step but the first.
    """

    name: str
    parts: Mapping[str, int]
    moved: int = 0

    @property
    def total(self) -> int:
        """Bytes that a card must have for it."""
        return sum(self.parts.values())

    @property
    def held(self) -> int:
        """Bytes that this process's tensors take, with what is lost between them: what PyTorch tells of its peak."""
        return self.total - sum(self.parts.get(name, 0) for name in BESIDE)


BESIDE = ("context", "servers asleep", "server")
"""Parts of a plan that are none of PyTorch's in this process."""


def phase_text(phase: PhaseMemory) -> str:
    """A phase as one line, in GiB (2^30 bytes); what is below a hundredth is left out."""
    sizes = {name: size / 2**30 for name, size in phase.parts.items()}
    parts = ", ".join(f"{name} {size:.2f}" for name, size in sizes.items() if size >= 0.01)
    moved = f"; {phase.moved / 2**30:.2f} GiB moved a step" if phase.moved else ""
    return f"{phase.total / 2**30:.2f} GiB" + (f" ({parts})" if parts else "") + moved


PLANNED = {"sample": ("rollouts",), "teacher": ("teacher scoring", "teacher compared"), "update": ("update",)}
"""What the phases of stage 2 are called in the plan; a quantised teacher is compared in its own in the first step."""


def planned_of(phases: Sequence[PhaseMemory], stage: str, phase: Phase) -> PhaseMemory | None:
    """What was planned for a phase of a stage: the largest where the plan has several, None where it has none."""
    names = (stage,) if stage == "sft" and phase == "update" else PLANNED.get(phase, ())
    return max((p for p in phases if p.name in names), key=lambda p: p.held, default=None)


def planned_and_measured(phases: Sequence[PhaseMemory], stage: str, peaks: Mapping[Phase, Peak]) -> list[str]:
    """A line for each phase of a stage that has peaks: GiB that were planned for PyTorch, and those it took."""
    lines = list[str]()
    for phase, peak in peaks.items():
        if (plan := planned_of(phases, stage, phase)) is not None:
            planned, peaked, kept = (f"{size / 2**30:.2f}" for size in (plan.held, *peak))
            more = ": more than planned" * (peak.reserved > plan.held)
            lines.append(f"memory of {plan.name}: planned {planned} GiB, at its peak {peaked}, kept {kept}{more}")
    return lines
