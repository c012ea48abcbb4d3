"""Of several processes one is lost: the others end, and say which it was and where it was seen last."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import loaded
import lost_rank
import tiny
from lost_rank import World
from vold.run.files import read_jsonl
from vold.run.recipe import recipe_from
from vold.training.distill import distill
from vold.training.sft import sft

pytestmark = pytest.mark.processes
MINUTES = 0.1
WORLDS = {
    "stopped": World("", "sft", nodes=2, each=2, rank=2, how="stopped", phase="update", step=1),
    "killed": World("", "sft", nodes=1, each=2, rank=1, how="killed", phase="update", step=3),
    "stands": World("", "distill", nodes=1, each=2, rank=1, how="stands", phase="sample", step=2),
    "first stands": World("", "sft", nodes=1, each=2, rank=0, how="stands", phase="update", step=1),
    "fails": World("", "sft", nodes=1, each=2, rank=1, how="fails", phase="update", step=1),
    "works": World("", "distill", nodes=1, each=2, rank=1, how="works", phase="sample", step=1),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory `NAME` for each of `WORLDS`, with `status` in it, and `run` of one process."""
    made = tmp_path_factory.mktemp("worlds")
    raw = tiny.recipe_dict(made)
    raw["run"]["timeout_minutes"] = MINUTES
    alone = recipe_from(raw, where="test")
    tiny.write_traces(made, alone)
    sft(alone)
    words = []
    for name, world in WORLDS.items():
        file = made / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**raw, "run": raw["run"] | {"dir": str(made / name)}}))
        kept = ("traces", "sft") if world.stage == "distill" else ("traces",)
        for stage in kept:
            shutil.copytree(made / "run" / stage, made / name / stage)
        words.append(json.dumps(dataclasses.asdict(dataclasses.replace(world, recipe=str(file)))))
    done = loaded.run(lost_rank.__file__, *words)
    assert done.returncode == 0, done.stderr
    for name, status in zip(WORLDS, json.loads(done.stdout), strict=True):
        (made / name / "status").write_text(str(status))
    distill(alone)
    return made


def said(home: Path, name: str, rank: int = 0) -> str:
    return (home / f"{name}.{rank}.err").read_text()


@pytest.mark.parametrize("name", ["stopped", "killed", "stands"])
def test_who_is_left_says_which_process_was_lost_and_where(name: str, home: Path) -> None:
    """Of four processes all three, though they do not learn of it at the same moment."""
    world = WORLDS[name]
    assert (home / name / "status").read_text() == "2"
    seen = f"rank {world.rank} did not arrive: it was last seen in `{world.phase}` of step {world.step}, at vold."
    assert f"vold {world.stage} [process 0]: {seen}" in said(home, name)
    assert f"  where: rank 0, in `{world.phase}` of step {world.step}\n" in said(home, name)
    others = "ranks 0, 1, 3" if name == "stopped" else "rank 0"
    assert f"  got:   {others} waiting in `{world.phase}` of step {world.step}" in said(home, name)
    if name == "stopped":
        assert all(seen in said(home, name, rank) for rank in (0, 1, 3))


def test_a_process_that_stands_still_ends_as_well_and_says_where(home: Path) -> None:
    """It cannot raise an error where it stands."""
    assert (home / "first stands" / "status").read_text() == "1"
    words = "rank 0 did not arrive: it was last seen in `update` of step 1"
    assert f"vold [process 0]: {words}" in said(home, "first stands")
    assert f"vold sft [process 1]: {words}" in said(home, "first stands", 1)


def test_the_error_that_another_process_has_ended_with_is_told(home: Path) -> None:
    assert "rank 1 did not arrive: it has ended in `update` of step 1" in said(home, "fails")
    assert "rank 1: the teacher has left" in said(home, "fails")


def test_a_process_that_works_is_waited_for_however_long_it_takes(home: Path) -> None:
    assert (home / "works" / "status").read_text() == "0", said(home, "works")
    rows = [read_jsonl(home / run / "distill" / "metrics.jsonl") for run in ("run", "works")]
    losses = [[row["loss"] for row in run] for run in rows]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


def test_a_process_ends_in_order_while_its_signs_of_life_go_on() -> None:
    """A thread that comes back from the store when the interpreter is on its way out aborts the process (code 134)."""
    store = 'TCPStore("localhost", 0, 1, True, limit)'
    program = (
        "import datetime\nfrom torch.distributed import PrefixStore, TCPStore\nfrom vold.model.lookout import Lookout\n"
        f'limit = datetime.timedelta(seconds=30)\nstore = PrefixStore("vold", {store})\n'
        'Lookout(store, 0, 1, limit, patience=0.002)\nprint("made")\n'
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "made\n"), done.stderr
