"""The page in a real browser: rollouts by keyboard, at every width; a run that is killed and goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import tiny
from browser import evaluate
from stored import Row, store_rows
from vold.report import write_report
from vold.run.files import append_jsonl, write_text
from vold.run.state import state_of
from watching import served, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


STATE = "document.querySelector('.badge.state').textContent"
REWARD = "JSON.parse(document.querySelector('#training-now [data-lines]').dataset.lines)[0].points.map(p => p[0])"
STEPS = "[...document.querySelector('#choose').elements.step.options].slice(1).map(o => +o.value)"


class Training:
    """`vold distill` of a tiny recipe in a process of its own."""

    def __init__(self, home: Path) -> None:
        raw = tiny.recipe_dict(home)
        raw["distill"] |= {
            "steps": 100_000,
            "keep_rollouts_every": 2,
            "checkpoint_every": 3,
            "init": raw["student"]["path"],
        }
        self.run, self.recipe = Path(raw["run"]["dir"]), home / "recipe.yaml"
        self.recipe.write_text(yaml.safe_dump(raw))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [sys.executable, "-m", "vold.cli", "distill", str(self.recipe)]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    found = Training(tmp_path)
    yield found
    found.kill()


def test_a_run_is_watched_while_it_is_killed_and_resumed(training: Training) -> None:
    (training.run / "distill").mkdir(parents=True)
    (training.run / "recipe.yaml").write_text(training.recipe.read_text())
    steps: list[str | Callable[[], None]] = [
        until(f"{STATE} === 'stopped'"), training.start,
        until(f"{STATE} === 'running' && document.querySelector('#training-now [data-lines]') && {REWARD}.length > 4"),
        until(f"{STEPS}.length > 1"), training.kill, until(f"{STATE} === 'stopped'"),
        f"globalThis.before = {REWARD}.length", training.start,
        until(f"{STATE} === 'running' && {REWARD}.length > globalThis.before + 3"), training.kill,
        until(f"{STATE} === 'stopped'"), REWARD, STEPS, "document.querySelector('#heard').textContent",
    ]  # fmt: skip
    with served(training.run) as server:
        (values,) = evaluate(server.address, steps)
    reward, stored, heard = values[-3:]
    assert reward == sorted({*reward}) and reward[0] == 0 and len(reward) == reward[-1] + 1  # every step once
    assert stored == sorted({*stored}) and all(step % 2 == 0 for step in stored)
    assert heard.startswith("Live")
    assert state_of(training.run, finished=False) == "stopped"


@pytest.mark.parametrize(("width", "dark"), [(420, True), (1300, False)])
def test_a_list_of_runs_is_watched(tmp_path: Path, width: int, dark: bool) -> None:
    def begun(name: str) -> Callable[[], None]:
        def begin() -> None:
            write_text(tmp_path / name / "recipe.yaml", "distill: {steps: 8}\n")
            append_jsonl(tmp_path / name / "distill" / "metrics.jsonl", [{"step": 0, "reward": 0.25}])

        return begin

    begun("one")()
    names = "[...document.querySelectorAll('#runs td a')].map(a => a.textContent)"
    labels = "[...document.querySelectorAll('#runs td')].map(cell => cell.dataset.l ?? '')"
    more = {"step": 1, "reward": 0.75}
    steps: list[str | Callable[[], None]] = [
        names, lambda: append_jsonl(tmp_path / "one" / "distill" / "metrics.jsonl", [more]),
        until("document.querySelector('#runs').textContent.includes('2 of 8 steps, last reward 0.750')"),
        begun("two"), until(f"{names}.length === 2"), names, labels, "document.querySelector('#heard').textContent",
        "document.documentElement.scrollWidth <= innerWidth",
    ]  # fmt: skip
    with served(tmp_path) as server:
        ((before, *_, after, told, heard, fits),) = evaluate(server.address, steps, width=width, dark=dark)
    assert (before, after) == (["one"], ["one", "two"])
    assert told == ["", "state", "step", "headline"] * 2
    assert heard == "Live: this page follows the runs." and fits


LONG = 3000
IDLE = until("!document.querySelector('#shown[aria-busy]') && document.querySelector('#shown .card')")
SEEN = """(() => { const card = document.querySelector('.mine') ?? document.querySelector('#shown .card');
  const head = card.querySelector('.head').textContent;
  return [card.querySelector('.badge').textContent, head.match(/step \\d+, no. \\d+/)[0],
    document.querySelectorAll('#shown .card').length]; })()"""
"""Outcome, step and place of the rollout that is shown, and how many stand beside it."""
COUNT = "document.querySelector('#chosen').textContent"


def made_long(run: Path) -> Path:
    """Two steps of two problems with two rollouts each, of 3,000 tokens; one token in the middle is far off."""
    write_text(run / "recipe.yaml", "distill: {steps: 8}\n")
    words = [f"w{i % 50} " if i % 9 else "line\n" for i in range(LONG - 1)] + ["answer"]
    for step in (0, 7):
        rows: list[Row] = []
        for place in range(4):
            logp = [-0.5] * LONG
            teacher = [-0.5 - 0.001 * (i % 3) for i in range(LONG)]
            teacher[1500] = -6.0
            rows.append({"tokens": words, "logp": logp, "teacher_logp": teacher,
                         "group": place // 2, "task_id": f"t{place // 2}", "prompt": f"problem {place // 2}",
                         "score": float(place % 2), "extracted": "7", "advantage": [0.5] * LONG,
                         "token_values": {"step_weight": logp}})  # fmt: skip
        store_rows(run / "distill" / "rollouts", step, rows)
    return run


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that no test changes."""
    return made_long(tmp_path_factory.mktemp("long") / "run")


KEYS: dict[str, tuple[str, list[object]]] = {
    "n": (SEEN, ["right", "step 7, no. 1", 1]),
    "p": (SEEN, ["wrong", "step 7, no. 0", 1]),
    "P": (SEEN, ["wrong", "step 0, no. 0", 1]),
    "N": (SEEN, ["wrong", "step 7, no. 0", 1]),
    "g": (SEEN, ["wrong", "step 7, no. 0", 2]),
    "t": (SEEN, ["wrong", "step 7, no. 0", 4]),
    "o": (SEEN, ["wrong", "step 7, no. 0", 1]),
}
"""Keys one after the other, from the first rollout of the last step, and what is shown then."""


@pytest.mark.parametrize("live", [True, False], ids=["live", "saved"])
def test_rollouts_are_read_with_the_keyboard_alone(long: Path, live: bool) -> None:
    text = "document.querySelector('#shown .tokens').textContent"
    told = "document.querySelector('#shown .about-token').textContent"
    steps: list[str | Callable[[], None]] = [
        until(f"{COUNT}.startsWith('8 of 8')"), IDLE, "key:P", IDLE, "key:N", IDLE, SEEN,
    ]  # fmt: skip
    for key, (look, _) in KEYS.items():
        steps += [f"key:{key}", IDLE, look]
    steps += [
        f"[{text}.startsWith('line'), {text}.includes('answer'), document.querySelectorAll('#shown .fold').length]",
        "key:w", told, "document.querySelectorAll('#shown .tokens span').length", "key:u", IDLE,
        "document.querySelectorAll('#shown .tokens span').length",
        "key:c", "document.querySelector('#colour').value",
        "document.querySelector('#shown .tokens').focus()", "key:ArrowRight", told,
        "document.querySelector('#list').focus()", "key:ArrowDown", IDLE, SEEN,
        "key:f", "document.activeElement.name",
    ]  # fmt: skip
    with served(long) as server:
        (values,) = evaluate(server.address if live else write_report(long), steps)
    assert values[6] == ["wrong", "step 7, no. 0", 1]
    assert values[9 : 9 + 3 * len(KEYS) : 3] == [wanted for _, wanted in KEYS.values()]
    (start, answer, folds), _, gap, before, _, _, more, _, colour, _, _, after, _, _, _, last, _, active = values[-18:]
    assert start and answer and folds == 2  # head, what is around the far token and the end are there
    assert gap.startswith("token 1500  id ") and "gap 5.5" in gap
    assert more == before + 256
    assert colour == "student"
    assert after.startswith("token 108 ")  # the first unfolded is 107: 83 is among the widest
    assert last[1] == "step 7, no. 1" and active == "text"


CHOSEN = "document.querySelector('#choose').elements"
TOPS = "['n0', 'n1', 'd0', 'd1', 'text', 'order'].map(name => at(form.elements[name]))"


def test_filters_that_belong_together_stand_together(long: Path) -> None:
    """With a wide tag; 0 is the button's line."""
    steps = [
        until(f"{COUNT}.startsWith('8 of 8')"),
        f"{CHOSEN}.tag.add(new Option('a tag: of a good many words')), {CHOSEN}.tag.closest('label').hidden = false",
        f"(() => {{ const form = document.querySelector('#choose'), top = e => e.getBoundingClientRect().top,"
        f" at = e => Math.round(top(form.querySelector('button')) - top(e)); return {TOPS}; }})()",
        f"(() => {{ const e = {CHOSEN}.text, style = getComputedStyle(e),"
        " pen = new OffscreenCanvas(9, 9).getContext('2d'); pen.font = style.font;"
        " return pen.measureText(e.placeholder).width <= e.clientWidth"
        " - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight); })()",
    ]  # fmt: skip
    page = write_report(long)
    ((_, _, wide, whole),) = evaluate(page, steps, width=1300)
    assert wide == [0] * 6 and whole
    ((_, _, narrow, whole),) = evaluate(page, steps, width=420)
    assert narrow[0] == narrow[1] > narrow[2] == narrow[3] > 0 and whole


def test_rounding_is_no_end_of_a_colour_scale(tmp_path: Path) -> None:
    write_text(tmp_path / "recipe.yaml", "distill: {steps: 1}\n")
    store_rows(tmp_path / "distill" / "rollouts", 0, [{"tokens": ["a", "b"], "logp": [-2.5, -1.19e-7]}])
    ends = "['low', 'high'].map(end => document.querySelector('.scale .' + end).textContent)"
    chosen = "c => { c.value = 'student'; return c.dispatchEvent(new Event('change')) }"
    colour = f"({chosen})(document.querySelector('#colour'))"
    ((*_, found),) = evaluate(write_report(tmp_path), [IDLE, colour, ends])
    assert found == ["\N{MINUS SIGN}2.5 nats", "0 nats"]


@pytest.mark.parametrize(("width", "dark"), [(420, True), (1600, False)])
def test_it_fits_and_filters_at_every_width(long: Path, width: int, dark: bool) -> None:
    def filled(name: str, value: str) -> str:
        field = f"document.querySelector('#choose').elements.{name}"
        return f"{field}.value = '{value}'; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))"

    fits = "document.documentElement.scrollWidth <= innerWidth"
    steps = [
        until(f"{COUNT}.startsWith('8 of 8')"), IDLE, fits, "key:g", IDLE, fits,
        filled("outcome", "right"), COUNT, filled("step", "7"), COUNT, filled("n0", "3001"), COUNT, filled("n0", ""),
        filled("d0", "0.01"), COUNT, filled("d0", ""),
        filled("text", "PROBLEM 1"), until(f"{COUNT}.startsWith('1 of')"),
        "document.querySelector('#choose button').click()", until(f"{COUNT}.startsWith('8 of 8')"),
        "getComputedStyle(document.body).backgroundColor",
    ]  # fmt: skip
    with served(long) as server:
        (values,) = evaluate(server.address, steps, width=width, dark=dark)
    assert (values[2], values[5]) == (True, True)
    found = [v.partition(" of")[0] for v in values if isinstance(v, str) and "rollouts" in v]
    assert found == ["4", "2", "0", "0"]  # the mean gap is 0.0028
    assert values[-1] == ("rgb(22, 24, 26)" if dark else "rgb(253, 253, 252)")
