"""Prompts, verdicts and marks held against the code of other evaluation programs, at pinned commits.

Run by `make test-peers`, which has that code in an environment of its own.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import peers
from peer_table import TABLE, WHY, chosen, oracle, table, verdicts
from prompt_cases import CASES
from undisputed import Case, Oracle
from undisputed_items import benchmarks_asked
from vold.evals.marking.as_vlmevalkit import as_vlmevalkit
from vold.evals.marking.llm_judge import judge_prompt, prediction, score_vlmevalkit

pytestmark = pytest.mark.peers
PROMPTS = Path(__file__).parent / "prompts_expected" / "vlmevalkit"
NOT_EMULATED = {"olympiadbench_mm_maths": 0.1}
"""Share of answers on which our form of VLMEvalKit's verdict may differ: its algebra there is SymPy's, ours is not."""


def vlmevalkit(calls: list[dict[str, Any]]) -> list[Any]:
    return peers.call("peer_vlmevalkit.py", "VLMEvalKit", calls)


def test_prompts_are_vlmevalkits() -> None:
    """Of every benchmark that it has: with the words that stand in its tables, not in its code, as we have them."""
    known = {name: item for name, (item, protocols) in CASES.items() if "vlmevalkit" in protocols.split()}
    calls, expected = [], []
    for name, item in known.items():
        asked, ours = peers.line(item), (PROMPTS / f"{name}.txt").read_bytes().decode()
        if name == "wemath":
            hint, requirement = ours.split("Hint: ")[1].partition("\nQuestion:")[0], ours.partition("\n\n")[2]
            asked |= {"hint": hint, "requirement": requirement}
        if name.startswith(("mathvision", "mathvista_bare")):
            asked["question"] = ours.replace("<image>", "")
        if name.startswith("olympiadbench"):
            continue  # its words are put together from columns that an item no longer has
        if item.form == "text":  # the options that an open question gets are for the judge
            asked = {column: value for column, value in asked.items() if column not in "AB"}
        calls.append(
            {"what": "ask", "dataset": peers.DATASETS[item.benchmark], "line": asked, "pictures": len(item.images)}
        )
        expected.append((name, ours))
    assert [(name, said) for (name, _), said in zip(expected, vlmevalkit(calls), strict=True)] == expected


def heard(case: Case, prompt: str, system: str) -> str | None:
    return oracle(case, prompt)


@pytest.mark.parametrize("name", sorted(peers.DATASETS.keys() & set(benchmarks_asked())))
def test_as_vlmevalkit_is_its_verdict(name: str) -> None:
    """With the same judge, and the judge asked the same."""
    made = chosen(name)
    differs = []
    for case, found in zip(made, verdicts(name, made), strict=True):
        ours = score_vlmevalkit(case.item, case.text, Oracle(case))
        verdict = as_vlmevalkit(case.item, case.text, ours, partial(heard, case))
        if verdict != pytest.approx(found["verdict"]):
            differs.append((case.kind, case.text[-120:], case.item.answer, verdict, found["verdict"]))
        for asked in found["asked"][:1]:
            assert asked == judge_prompt(case.item, prediction(case.text))
    assert len(differs) <= NOT_EMULATED.get(name, 0.0) * len(made), differs


def test_every_disagreement_is_in_the_table() -> None:
    """With who is right and why; and marks agree as often as it says. `python tests/helpers/peer_table.py` writes it
    anew, where answers or marks have changed on purpose."""
    kept, found = json.loads(TABLE.read_text()), table()
    assert found.keys() == kept.keys()
    for peer, row in found.items():
        classes = {(what, group) for what, groups in row["differ"].items() for group in groups}
        known = {(what, group) for what, groups in kept[peer]["differ"].items() for group in groups}
        assert classes <= known & WHY.keys(), peer
        assert row["same"] / row["answers"] >= kept[peer]["same"] / kept[peer]["answers"] - 0.01, peer
