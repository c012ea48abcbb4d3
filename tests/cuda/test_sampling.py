"""In-process sampling on a GPU: recorded steps, few waits of the host, no keys made twice."""

from __future__ import annotations

import pytest

import pretended_cuda


def test_a_recorded_graph_is_done_when_it_is_replayed_and_lets_nobody_wait() -> None:
    found = pretended_cuda.run("pretended_sampling:graphs")
    assert found["recorded"] == [0.0, 0.0]
    assert found["replayed"] == [12.0, 12.0]  # twice 1, then twice 5
    assert "not permitted when stream is capturing" in found["refused"]


def test_rows_are_those_of_the_cpu_and_attention_has_a_kernel_that_makes_no_scores() -> None:
    found = pretended_cuda.run("pretended_sampling:rows")
    assert len(found["cpu"]) == 24
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        assert ours[:2] == theirs[:2] and ours[3] == theirs[3]
        assert ours[2] == pytest.approx(theirs[2], abs=1e-5)
    decoding = {kind: n for kind, n in found["attention"].items() if "masked" in kind}
    assert set(decoding) == {"efficient float32 masked"}  # heads that share keys are queries of one head


def test_a_model_that_rotates_by_the_positions_of_a_pass_is_not_recorded() -> None:
    """It asks for the largest position, for which no recording may wait; rows are those of the CPU all the same."""
    for kind, found in pretended_cuda.run("pretended_sampling:rotated").items():
        assert (found["graphs"] > 0) == (kind == "default"), kind
        assert len(found["cpu"]) == 4
        for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
            assert ours[:2] == theirs[:2], kind
            assert ours[2] == pytest.approx(theirs[2], abs=1e-5)


def test_the_host_waits_once_in_sixteen_tokens_and_launches_two_graphs_a_token() -> None:
    """Of rows of 48 and of 96 tokens the difference: three looks, 96 graphs, and what a look costs."""
    found = pretended_cuda.run("pretended_sampling:longer", tokens=[48, 96])
    short, long = found["totals"]
    assert long["waits"] - short["waits"] == 48 / 16
    assert {line.partition(":")[0] for line in found["waits"]} == {"engines/samplers/decoder.py"}
    assert long["operators"] - short["operators"] <= 4 * 48
    assert found["names"]["graph"] == 2 * 96 - 3  # either work comes once as it stands, and nothing follows the last
    assert long["to_card"] - short["to_card"] == 16 * 48 * 8  # random numbers of 16 rows, eight bytes each
    assert long["to_host"] - short["to_host"] == 16 * 48 * 8  # id and log-prob
