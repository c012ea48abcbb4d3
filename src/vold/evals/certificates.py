"""What `vold check` says of models: every test of their certificates, and what is not used for failing one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.engines.samplers.agreement import sampler_differs
from vold.engines.teachers.inprocess import InProcessBackend
from vold.errors import CheckpointError
from vold.evals.subject import Finding
from vold.model.certificate import REFUSED, Certificate
from vold.model.trial import WAYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.evals.subject import Subject
    from vold.model.policy import Policy


def certificate_of(policy: Policy) -> Certificate:
    """A loaded model's certificate, and with it whether the sampler of this process agrees."""
    assert policy.certificate is not None
    tried = {} if policy.mute else {WAYS["rollouts"][0]: sampler_differs(policy)}
    return Certificate({**policy.certificate.found, **tried})


def certificates(subject: Subject) -> Iterator[Finding]:
    """The student's test by test; of a teacher in this process what failed.

    Raises:
        CheckpointError: the student fails a test that nothing else can take the place of.
    """
    made = certificate_of(subject.student)
    for test, outcome in made.tests():
        yield Finding("certificate", f"{test}: {outcome}", outcome.startswith("failed"))
    yield from _not_used("student", made)
    for way in REFUSED:
        if why := made.why_not(way):
            raise CheckpointError(
                "this model cannot be trained here",
                where=subject.recipe.learner.path,
                got=why,
                fix="take another release of Transformers, or another model",
            )
    for route, handle in subject.teachers.by_route.items():
        if isinstance(handle.backend, InProcessBackend) and handle.backend.policy.certificate is not None:
            theirs = handle.backend.policy.certificate
            passed = sum(outcome == "passed" for _, outcome in theirs.tests())
            name = f"teacher {route}".strip()
            yield Finding(f"certificate of {name}", f"{passed} of {len(theirs.found)} tests passed")
            yield from _not_used(name, theirs)


def _not_used(name: str, made: Certificate) -> Iterator[Finding]:
    for way, why in made.not_used():
        yield Finding(f"{name}: {way} not used", why, warns=True)
