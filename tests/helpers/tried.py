"""A model's certificate, found out once for all tests of a process that load the same kind again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vold.model import certified
from vold.model.certificate import certify

if TYPE_CHECKING:
    from collections.abc import Collection

    from vold.model.certificate import Certificate
    from vold.model.policy import Policy

KNOWN: dict[tuple[str, frozenset[str]], Certificate] = {}
"""By what decides how a model computes, which is all that a run goes by as well."""


def once(policy: Policy, also: Collection[str] = ()) -> Certificate:
    """As `certify`, of a model of a kind that is not known yet."""
    name = certified._identity(policy), frozenset(also)
    if name not in KNOWN:
        KNOWN[name] = certify(policy, also)
    return KNOWN[name]


def every_time(every: bool) -> None:
    """Whether what loads a model tries it each time, as in a run of its own."""
    pytest.MonkeyPatch().setattr("vold.model.certified.certify", certify if every else once)
