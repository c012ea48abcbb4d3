"""The pretended CUDA device refuses what CUDA refuses, lets pass what CUDA lets pass, and counts."""

from __future__ import annotations

from typing import Any

import pytest

import pretended_cuda

TWO_DEVICES = "Expected all tensors to be on the same device"
INDICES = "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
GENERATOR = "Expected a 'cuda' device type for generator but found 'cpu'"
REFUSED = {
    "host tensor in a sum": TWO_DEVICES,
    "host tensor of one element in a sum": TWO_DEVICES,
    "host tensor in a product": TWO_DEVICES,
    "host tensor in a concatenation": TWO_DEVICES,
    "host tensor in a choice": TWO_DEVICES,
    "host mask in a choice": TWO_DEVICES,
    "host mask to fill by": TWO_DEVICES,
    "host ids to look up": TWO_DEVICES,
    "host ids to gather by": TWO_DEVICES,
    "host number to gather by": TWO_DEVICES,
    "host tensor to write into": TWO_DEVICES,
    "host tensor as out": TWO_DEVICES,
    "card index of a host tensor": INDICES,
    "card mask of a host tensor": INDICES,
    "host values written by a card index": TWO_DEVICES,
    "host values written by a host index": TWO_DEVICES,
    "difference of card and host log-probs": TWO_DEVICES,
    "numpy of a card tensor": "can't convert cuda:0 device type tensor to numpy",
    "generator of the host": GENERATOR,
    "random numbers by a host generator": GENERATOR,
    "weight left on the host": TWO_DEVICES,
    "optimizer's step left on the host": TWO_DEVICES,
    "float32 factors with an output type": "out_dtype is only supported",
    "shared keys that nobody shares out": "enable_gqa",
}
PASSES = {
    "host number in a sum", "card number in a sum", "host index of a card tensor", "host mask of a card tensor",
    "host number written by a mask", "host tensor copied in", "host values copied into a slice", "numpy of a copy",
    "generator of the card", "bfloat16 factors, float32 out", "float16 factors added up in float32", "shared keys",
    "inference mode",
}  # fmt: skip
COUNTED = {
    "number": (1, 0, 0),
    "truth": (1, 0, 0),
    "list": (1, 0, 16),
    "to the host": (1, 0, 16),
    "to the host, going on": (0, 0, 16),
    "into pageable memory": (1, 0, 16),
    "to the card": (1, 16, 0),
    "to the card, going on": (0, 16, 0),
    "made on the card": (0, 0, 0),
    "list made on the card": (1, 16, 0),
    "mask as index": (1, 0, 0),
    "mask as place of a number": (0, 0, 0),
    "mask as place of values": (1, 0, 0),
    "mask to fill by": (0, 0, 0),
    "ids as index": (1, 16, 0),
    "host ids as index": (1, 16, 0),
    "host mask as index": (1, 4, 0),
    "places": (1, 0, 0),
    "kinds": (1, 0, 0),
    "equal": (1, 0, 0),
    "among few": (0, 0, 0),
    "among many": (1, 0, 0),
    "repeated by a tensor": (1, 0, 0),
    "repeated to a size": (0, 0, 0),
    "sum": (0, 0, 0),
    "waited for": (1, 0, 0),
}
"""Waits of the host, bytes of four float32 numbers to the card and to the host. `ids as index` are made there first."""


@pytest.fixture(scope="module")
def plants() -> dict[str, Any]:
    found: dict[str, Any] = pretended_cuda.run("pretended_plants:plants")
    return found


def test_every_use_has_a_verdict(plants: dict[str, Any]) -> None:
    assert set(plants["uses"]) == {*REFUSED, *PASSES}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses_is_refused(plants: dict[str, Any], name: str) -> None:
    assert REFUSED[name] in (plants["uses"][name] or "it passed")


@pytest.mark.parametrize("name", sorted(PASSES))
def test_what_cuda_takes_passes(plants: dict[str, Any], name: str) -> None:
    assert plants["uses"][name] is None


def test_waits_and_bytes_are_those_of_cuda(plants: dict[str, Any]) -> None:
    assert {name: tuple(found) for name, found in plants["counts"].items()} == COUNTED


def test_a_copy_that_nobody_waited_for_is_not_there_yet(plants: dict[str, Any]) -> None:
    early, late = plants["races"]["early"], plants["races"]["late"]
    assert all(value != value for value in early) and late == [1.0, 2.0]


def test_memory_is_counted_by_storage_and_at_its_peak(plants: dict[str, Any]) -> None:
    """1,000 float32 numbers and a view of all but five; what is made of the view is the peak."""
    assert plants["memory"] == {"one": 4000, "viewed": 4000, "kept": 4000, "peak": 4000 + 3980 + 4, "gone": 0}
