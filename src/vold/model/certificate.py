"""Whether a model computes the same along the fast ways as along the plain one, tried on the model that is there.

Nothing is known of a family beforehand (`vold.model.trial`). What does not agree is not used; the plain way goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from vold.errors import CheckpointError
from vold.model.packing import attention_of, enable_packing, set_attention
from vold.model.trial import BLIND, PLAIN, WAYS, Trial

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from vold.model.policy import Policy

INSTEAD = {
    "packing": "rows are padded",
    "shared prompts": "each row brings its prompt",
    "fast decoding": "padded batches generate",
    "padded batches": "rows pass one by one",
    "sampling": "it is sampled from on servers only",
    "pictures": "prompts with pictures are refused",
    "adapters": "student.lora is refused",
    "activation checkpointing": "layers keep what they compute",
    "saving": "it is refused",
    "rollouts": "it is refused",
}
"""What happens where a way is not certified."""
ON_PACKED = ("shared prompts", "fast decoding")
"""Ways to pack."""
REFUSED = ("saving", "rollouts")
"""Ways that nothing else can take the place of; `vold check` tries them."""


@dataclass(frozen=True)
class Certificate:
    """What was tried on a model.

    Attributes:
        found: by test, why it failed; empty where it passed. A test that this model has no part in is not there.
    """

    found: dict[str, str] = field(default_factory=dict)

    def why_not(self, way: str) -> str:
        """The test that keeps this way from being used, with what was found; empty where none does."""
        return next((f"{test}: {self.found[test]}" for test in WAYS[way] if self.found.get(test)), "")

    def tests(self) -> Iterator[tuple[str, str]]:
        """Every test with its outcome, in words."""
        for test in (PLAIN, BLIND, *(test for tests in WAYS.values() for test in tests)):
            said = self.found.get(test)
            yield test, "not applicable" if said is None else f"failed, {said}" if said else "passed"

    def not_used(self) -> Iterator[tuple[str, str]]:
        """Each way that is not used, with the test that failed and what happens instead."""
        for way, instead in INSTEAD.items():
            if not (way in ON_PACKED and self.why_not("packing")) and (why := self.why_not(way)):
                yield way, f"{instead}, as this test failed: {why}"


def certify(policy: Policy, also: Collection[str] = ()) -> Certificate:
    """Try a loaded model, neither sharded nor with adapters; nothing of it changes, and nothing is used yet (`use`).

    Args:
        policy: the model.
        also: those of `WAYS` that are tried only where they are named; see `vold.model.thorough`.

    Raises:
        CheckpointError: not even the plain pass is that of Transformers.
    """
    was, attention, packs = policy.model.training, attention_of(policy.model), policy.packs
    policy.model.eval()
    policy.chat.unseen = ""
    try:
        with torch.no_grad():
            certificate = Certificate(Trial(policy, attention).run(also))
    finally:
        set_attention(attention)
        policy.packs = packs
        policy.model.train(was)
    if certificate.found[PLAIN]:
        raise CheckpointError(
            "this model's states are not what Transformers makes of the same tokens",
            where=str(policy.model.config.name_or_path),
            got=certificate.found[PLAIN],
            fix="take another release of Transformers, or another model: it cannot be trained or scored here",
        )
    return certificate


def use(policy: Policy, certificate: Certificate) -> None:
    """Let a model do what its certificate allows, and nothing else of `WAYS`."""
    packs = not certificate.why_not("packing")
    if packs and not policy.packs:
        enable_packing(policy.model)
    elif policy.packs and not packs:
        set_attention(policy.plain_attention)
    policy.packs, policy.shares = packs, not certificate.why_not("shared prompts")
    policy.refills, policy.pads = not certificate.why_not("fast decoding"), not certificate.why_not("padded batches")
    policy.mute, policy.chat.unseen = certificate.why_not("sampling"), certificate.why_not("pictures")
