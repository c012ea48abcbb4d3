"""`vold check` prints a certificate of each family, and of planted faults what falls back or is refused."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import model_docs
import model_sweep
import tiny
from vold.engines.samplers import draw
from vold.engines.samplers.draw import logps_of
from vold.errors import CheckpointError, DataError
from vold.evals.preflight import check
from vold.model import packing
from vold.model.policy import Policy
from vold.model.trial import BLIND, PLAIN, WAYS

NOT_USED = {
    "qwen3_5": {"packing"},  # half of its layers carry a state from token to token
    "gemma3": {"packing"},  # tokens of a picture see each other both ways
    "gpt_oss": {"packing"},  # attention has sinks
    "llama4": {"packing", "adapters"},  # attention in chunks; its router is a linear layer with two results
}
KINDS = list(model_docs.STUDENTS | model_docs.TEACHERS)


def not_used(lines: list[str]) -> set[str]:
    return {line.split(": ")[2].removesuffix(" not used") for line in lines if " not used: " in line}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Transformers on GLM-4V's grids
@pytest.mark.parametrize("kind", KINDS)
def test_a_family_by_name_has_the_certificate_of_the_page(kind: str, tmp_path: Path) -> None:
    if kind in model_docs.WANT_TORCHVISION and find_spec("torchvision") is None:
        pytest.skip("Transformers prepares its pictures with torchvision")
    lines = model_docs.checked(kind, tmp_path)
    found = model_docs.outcomes(lines)
    assert found.keys() == {PLAIN, BLIND, *(test for tests in WAYS.values() for test in tests)}
    assert not_used(lines) == NOT_USED.get(kind, set())
    assert (found[BLIND] == "not applicable") == (kind in model_docs.TEACHERS)
    assert model_docs.row(kind, found) in model_docs.PAGE.read_text().splitlines()


def test_enough_families_are_tried_without_torchvision() -> None:
    assert len(set(KINDS) - set(model_docs.WANT_TORCHVISION)) >= 12


def test_rows_that_leak_into_each_other_are_said_to_be_padded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def leaking(query: Any, key: Any, value: Any, packed: Any, window: Any, **kwargs: Any) -> torch.Tensor:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2)

    monkeypatch.setattr(packing, "_row_by_row", leaking)
    lines = model_docs.checked("qwen2_5_vl", tmp_path, tiny.student())
    (said,) = [line for line in lines if " not used: " in line]
    wanted = "warn: student: packing not used: rows are padded, as this test failed: packed rows equal single rows: row"
    assert said.startswith(wanted)
    assert model_docs.outcomes(lines)[WAYS["rollouts"][0]] == "passed"  # by the padded sampler


def test_a_blank_picture_stops_the_check_of_a_recipe_that_shows_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stock = type(tiny.student().chat.processor.image_processor)
    whole = stock.preprocess

    def blank(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = whole(self, *args, **kwargs)
        out["pixel_values"] = out["pixel_values"] * 0
        return out

    monkeypatch.setattr(stock, "preprocess", blank)
    with pytest.raises(DataError, match="does not reach this model as it should"):
        model_docs.checked("qwen2_5_vl", tmp_path, tiny.student())


def test_a_sampler_that_tells_other_log_probs_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(draw, "logps_of", lambda told: logps_of(told) + 0.5)
    with pytest.raises(CheckpointError, match=r"the sampler's log-probs equal the trainer's: differs by 0\.5 nats"):
        model_docs.checked("qwen3", tmp_path, tiny.teacher())


def test_a_model_that_does_not_read_back_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stock = Policy.save

    @torch.no_grad()
    def changed(self: Policy, path: Path) -> None:
        weight = next(iter(self.model.parameters()))
        weight.add_(1)
        stock(self, path)
        weight.sub_(1)

    monkeypatch.setattr(Policy, "save", changed)
    with pytest.raises(CheckpointError, match="a saved model reads back as it was: another weight"):
        model_docs.checked("qwen3", tmp_path, tiny.teacher())


def test_a_teacher_that_sees_has_a_certificate_too(tmp_path: Path) -> None:
    tiny.student(seed=4).save(tmp_path / "sees")
    lines = check(tiny.recipe(tmp_path, teacher={"path": str(tmp_path / "sees")}))
    assert "certificate of teacher: 11 of 11 tests passed" in lines


def test_the_page_says_of_every_image_text_type_what_became_of_it_and_why() -> None:
    page = model_sweep.MARKS[0].join(model_docs.PAGE.read_text().split(model_sweep.MARKS[0])[1:])
    rows = re.findall(r"^\| ([a-z ]+) \| (`.+?`) \| (.+) \|$", page, re.MULTILINE)
    named = [kind for _, kinds, _ in rows for kind in re.findall("`(.+?)`", kinds)]
    assert sorted(named) == sorted(model_sweep.TYPES)
    for outcome in model_sweep.OUTCOMES:
        mine = [(kinds, why) for said, kinds, why in rows if said == outcome]
        assert f"| {outcome} | {sum(kinds.count('`') // 2 for kinds, _ in mine)} | " in page
        assert all((why == "-") == (outcome == "certified") for _, why in mine)


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("vipllava", "certified"), ("udop", "refused"), ("fuyu", "not made"), ("gemma3", "falls back")],
)
def test_a_type_is_tried_as_the_page_says(kind: str, outcome: str) -> None:
    assert model_sweep.tried(kind).outcome == outcome
