"""A stage that a signal stops ends in order, with the state of its last whole step, and goes on to the same bits."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from faults.frame import vold_in
from faults.runs import differences, runs


def in_the_fourth_step(what: signal.Signals) -> None:
    """Send a signal to this process once three rows of metrics are written and the next step's gradient is made."""
    rows = 0

    def count(event: str, args: tuple[object, ...]) -> None:
        nonlocal rows
        if event == "open" and str(args[0]).endswith("metrics.jsonl") and "a" in str(args[1]):
            rows += 1
            if rows == 3:
                sys.setprofile(watch)

    def watch(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_name == "backward" and frame.f_code.co_filename.endswith("learner.py"):
            sys.setprofile(None)
            os.kill(os.getpid(), what)

    sys.addaudithook(count)


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stage", ["sft", "distill"])
def test_a_signal_ends_a_stage_in_order(stage: str, what: signal.Signals, tmp_path: Path) -> None:
    made = runs()
    made.before(stage, tmp_path)
    ended = vold_in([stage, made.recipe], tmp_path, partial(in_the_fourth_step, what))
    assert ended.code == 128 + what
    assert "Traceback" not in ended.said
    assert 0 < ended.said.index("stopping") < ended.said.index("the same command goes on from here")
    assert [d.name for d in (tmp_path / "run" / stage).glob("step-*")] == ["step-000003"]  # not 2, the last one due
    assert vold_in([stage, made.recipe], tmp_path).code == 0
    assert differences(tmp_path, made.after(stage)) == []


def test_a_second_signal_ends_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    made = runs()
    made.before("sft", tmp_path)

    def twice() -> None:
        in_the_fourth_step(signal.SIGTERM)

        def hook(event: str, args: tuple[object, ...]) -> None:
            if event == "open" and str(args[0]).endswith("state.json") and "000003" in str(args[0]):
                os.kill(os.getpid(), signal.SIGTERM)

        sys.addaudithook(hook)

    ended = vold_in(["sft", made.recipe], tmp_path, twice)
    assert ended.code == 128 + signal.SIGTERM
    assert "stopped at once" in ended.said
    assert "Traceback" not in ended.said
    assert vold_in(["sft", made.recipe], tmp_path).code == 0
    assert differences(tmp_path, made.after("sft")) == []
