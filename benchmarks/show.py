"""How long a click takes on a page of many long rollouts.

    PYTHONPATH=tests/helpers python benchmarks/show.py [N [LENGTH]]

N rollouts (1,000) of LENGTH tokens (8,192) of four steps, eight to a problem, with the teacher's scores, an advantage,
weights and a value of the objective, served as `vold show --serve` does to a real browser on the same machine. Of each
kind of click the milliseconds from the event until the second frame after everything is drawn: the median and the
longest of twelve, at the pace of a person and after the browser's own start. Then how many took longer than the 100 ms
that a person takes for at once, and the size of the saved page.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models

from browser import evaluate
from vold.report import write_report
from vold.report.serve import Server
from vold.run.files import write_text
from vold.run.rollouts import RolloutTask, store_rollouts, store_tokenizer
from vold.types import Completion, Grade, Rollout, TokenScores

STEPS, GROUP, WORDS, TIMES = 4, 8, 4000, 12
SETTLE, PACE, AT_ONCE = 3000, 300, 100
"""Milliseconds before the first click, between two, and of one that is answered at once."""
CLICKS = {
    "next rollout": "key('n')",
    "row of the list": "(() => { list.scrollTop += 2000; list.dispatchEvent(new Event('scroll')); "
    "list.querySelectorAll('.row')[3].click(); })()",
    "next step": "key(turn % 2 ? 'P' : 'N')",
    "next colour": "key('c')",
    "next widest value": "key('w')",
    "unfold": "key('u')",
    "its group, or one": "key(turn % 2 ? 'o' : 'g')",
    "its problem through training, or one": "key(turn % 2 ? 'o' : 't')",
    "filter by outcome": "set('outcome', turn % 2 ? '' : 'right')",
    "filter by length": "set('n0', turn % 2 ? '' : '100')",
    "search": "set('text', ['w1', 'w12', 'w123', 'W3999 w', 'what is 7 + 7', 'nowhere'][turn % 6])",
    "order": "set('order', ['d', 'n', 's', ''][turn % 4])",
}
"""What is done, by its name; `turn` counts."""
SCRIPT = """\
(async () => {
  const list = document.querySelector('#list'), form = document.querySelector('#choose'), out = {};
  const key = k => document.body.dispatchEvent(new KeyboardEvent('keydown', { key: k, bubbles: true }));
  const set = (name, value) => { form.elements[name].value = value;
    form.elements[name].dispatchEvent(new Event('input', { bubbles: true })); };
  const frame = () => new Promise(requestAnimationFrame);
  const rest = ms => new Promise(r => setTimeout(r, ms));
  const timed = async (act, turn) => {
    await rest(PACE);
    const began = performance.now();
    act(key, set, list, turn);
    while (document.querySelector('#shown[aria-busy], #choose[aria-busy]')) await rest(0);
    await frame(); await frame();
    return performance.now() - began;
  };
  await rest(SETTLE);
  ACTS
  return out;
})()"""


def make(run: Path, count: int, length: int) -> None:
    """A run with so many stored rollouts."""
    write_text(run / "recipe.yaml", f"distill: {{steps: {STEPS}}}\n")
    home, rng = run / "distill" / "rollouts", np.random.default_rng(1)
    words = {f" w{i}" if i % 12 else f"w{i}\n": i for i in range(WORDS)}
    store_tokenizer(home, lambda: str(Tokenizer(models.WordLevel(words, unk_token=next(iter(words)))).to_str()))
    for step in range(STEPS):
        rollouts = [rollout(i, length, rng) for i in range(count // STEPS)]
        asked = {i: RolloutTask(f"What is {i} + {i}?", str(2 * i), {"level": str(i % 5)}) for i in range(len(rollouts))}
        store_rollouts(home, step, rollouts, asked)


def rollout(place: int, length: int, rng: np.random.Generator) -> Rollout:
    """One of them, made up."""
    logps = -rng.exponential(0.5, length).astype("float32")
    passed = bool(rng.integers(2))
    return Rollout(
        f"problem-{place // GROUP}",
        place // GROUP,
        (1, 2),
        Completion(rng.integers(0, WORDS, length), logps, np.ones(length, bool)),
        Grade(float(passed), "3", "equal" if passed else "different"),
        TokenScores(logps - rng.normal(0, 0.6, length).astype("float32")),
        advantage=np.full(length, 0.5, "float32"),
        teacher_weight=rng.integers(0, 2, length).astype("float32"),
        token_values={"step_weight": rng.random(length, "float32")},
    )


def measure(server: Server, count: int) -> dict[str, list[float]]:
    """Milliseconds of each click."""
    ready = f"document.querySelector('#chosen').textContent.includes('of {count:,} rollouts')"
    wait = f"new Promise(r => {{ const t = setInterval(() => {{ if ({ready}) {{ clearInterval(t); r(1); }} }}, 50); }})"
    acts = "\n".join(
        f"out[{json.dumps(name)}] = []; for (let turn = 0; turn < {TIMES}; turn++) "
        f"out[{json.dumps(name)}].push(await timed((key, set, list, turn) => {{ {act}; }}, turn));"
        for name, act in CLICKS.items()
    )
    script = SCRIPT.replace("PACE", str(PACE)).replace("SETTLE", str(SETTLE)).replace("ACTS", acts)
    ((_, found),) = evaluate(server.address, [wait, script])
    assert isinstance(found, dict)
    return found


def main() -> None:
    """Measure and print."""
    count, length = (int(a) for a in (*sys.argv[1:], "1000", "8192")[:2])
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        make(run, count, length)
        with Server(run) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            found = measure(server, count)
            for name, times in found.items():
                print(f"{name:40} {statistics.median(times):6.0f} ms, at most {max(times):4.0f}")
            every = [time for times in found.values() for time in times]
            print(f"longer than {AT_ONCE} ms: {sum(time > AT_ONCE for time in every)} of {len(every)}")
            server.shutdown()
        began = time.monotonic()
        size = write_report(run).stat().st_size
        print(f"the saved page: {size / 1e6:.1f} MB, written in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
