r"""Throw hostile text at every grader and every rule of `score` for a while, and see that none gives way.

`python -m experiments.fuzz --seconds 60 [--seed N] [--failures FILE]`. Each call must return a score of 0 or 1, or
between them where a grader pays for a part, without an exception and within its time limit, and the memory of this
process must not grow. Exits with 1 if one of these does not hold, and writes the texts to FILE. The same seed gives the
same texts in the same order.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vold.data.benchmarks.item import Item
from vold.evals.marking.rules import score
from vold.graders import get_grader, grader_names, outcome
from vold.graders.math import TIME_LIMIT_SECONDS
from vold.run.console import Bar, console

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.data.benchmarks.item import Form
    from vold.types import Finish, Grade

PURE_LIMIT_SECONDS = 2.0
"""Longest call of a grader that is string work only: 200,000 characters take a few hundredths of it."""

MATH_LIMIT_SECONDS = 2 * TIME_LIMIT_SECONDS + 6.0
"""Longest call of one that asks the math worker: a worker that dies is replaced and asked once more."""

MATH_SHARE = 0.3

GROWTH_LIMIT_MIB = 64.0
"""How much the resident memory of this process may grow after the first tenth of the time."""

LONGEST_TEXT = 200_000
SHOWN_CHARS = 60

SEEDS = (
    r"\boxed{B}", r"<think>\boxed{A}</think>Answer: C", "<think>" * 40 + r"\boxed{1}", r"\boxed{\boxed{\fbox{5}}}",
    r"\boxed{9^{9^{9^9}}}", r"\boxed{(10!)!}", r"\boxed{\binom{10^7}{5\cdot 10^6}}", r"\boxed{\sum_{k=1}^{10^7} 1/k}",
    r"\boxed{\int_0^1 e^{x^2}\sin(x^3)\,dx}", r"\boxed{\frac{1}{0}}", r"\boxed{0/0}", r"\boxed{1e9999}",
    r"\boxed{10^{999}}", r"\boxed{\sqrt[3]{-8}}", r"\boxed{\begin{pmatrix}1&2\\3&4\end{pmatrix}}",
    r"\boxed{[0,1)\cup(2,\infty)}", r"\boxed{\{1,2,3\}}", r"\boxed{x=2=3}", r"\boxed{1\frac{1}{2}}",
    r"\boxed{5\text{ cm}^2}", r"\boxed{10\%}", r"\boxed{-\infty}", r"\boxed{A, C}", r"\boxed{A. 12 B. 13}",
    r"\boxed{C (because A and B fail)}", r"\boxed{[1, 2, [3]]}", r"\boxed{1,234,567.89}", r"\boxed{\\}", r"\boxed{\}",
    r"\boxed{{{{}", "Answer: **", "Answer:\n\n\n", "The answer is The answer is Answer:", "answer: \\( \\)",
    "Answer: $$$", "**Answer:** (B) because (A) fails", r"\boxed{__import__('os').system('true')}",
    r"\boxed{lambda: 0}", r"\boxed{exit()}", r"\boxed{\def\a{\a\a}\a}", r"\boxed{\input{/etc/passwd}}",
    "\\boxed{\x00}", "\\boxed{\ud800}", "\\boxed{\u202e12}", "\\boxed{\u0663\u0664}", "\\boxed{\uff11\uff12}",
    "\\boxed{\u221212}", "\\boxed{\u00bd}", "\\boxed{\ufdfa}", "\\boxed{e\u0301\u0301\u0301}",
    r"\boxed{3 \text{ or } 4}", r"\boxed{\pm 2}", r"\boxed{\log_2 8}", r"\boxed{101_2}", r"\boxed{f'(x)}",
    r"\boxed{\lim_{x\to 0} x^{-1}}", r"\boxed{0.1\overline{6}}", r"\boxed{\frac\pi2}",
    r"\boxed{\sum_{k=1}^{999}\frac{1}{k^{30}}}",
    r"\boxed{\prod_{k=1}^{999} k!}", r"\boxed{\lfloor n/2\rfloor \bmod 7}",
    r"\boxed{\begin{vmatrix}1&2\\3&4\end{vmatrix}^{99}}",
    r"\boxed{((1+\sqrt{2})^{999})^{999}}", r"\boxed{\gcd(10^{999}, 7^{999})}", r"\boxed{x \equiv 3 \pmod 7}",
)  # fmt: skip
"""Texts that were trouble for some grader, to be mutated."""

_PIECES = (
    r"\frac{", r"\sqrt{", r"\boxed{", r"\fbox{", r"\text{", r"\left(", r"\right)", r"\begin{matrix}", r"\end{matrix}",
    r"\\", r"\cdot", r"\times", r"\pi", r"\infty", r"\approx", r"\%", r"\circ", r"\int", r"\sum_{", r"\binom{", "{",
    "}", "(", ")", "[", "]", "^", "_", "&", "$", "%", "#", "~", "|", "!", "=", "<", ">", ",", ";", ".", "-", "+", "*",
    "/", "\\", "'", '"', "\n", " ", "0", "1", "9", "10", "1e", "x", "e", "i", "A", "B", "L", "or", "and", "because",
    "cm", "degrees", "million", "<think>", "</think>", "Answer:", "the answer is ", "\x00", "\x0c", "\x1b[31m",
    "\u200b", "\u202e", "\u2212", "\u00b2",
)  # fmt: skip
_PAIRS = (
    ("{", "}"), ("(", ")"), ("[", "]"), (r"\left(", r"\right)"), ("<think>", "</think>"),
    (r"\boxed{", "}"), (r"\frac{", "}{2}"), (r"\sqrt{", "}"),
)  # fmt: skip
_REFERENCES = ("B", "5", "0.5", r"\frac{36}{13}", "(1,2)", "A, C", r"9\pi \mathrm{cm}^{2}", "east", "10%", "x^2+1")

PARTIAL = ("boxes", "count", "ocr")
"""Graders that pay for a part of an answer."""

Mark: TypeAlias = "Callable[[str, Finish, int], Grade]"
"""Marks a text, given how it ended and the number of the call."""


@dataclass(frozen=True)
class Target:
    """Something that marks text, with the longest a call may take in seconds.

    `share` is the part of the time after which it misses texts, so that waiting for the math worker leaves room for
    the others. One that is `partial` may give any score from 0 to 1.
    """

    name: str
    mark: Mark
    limit: float = PURE_LIMIT_SECONDS
    share: float = 1.0
    partial: bool = False


@dataclass
class Record:
    """What was seen of one target."""

    calls: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    slowest_text: str = ""
    outcomes: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """What a run saw: a record for each target, `growth` in MiB (None: cannot be measured here), the failures."""

    seed: int
    records: dict[str, Record]
    growth: float | None = None
    failures: list[dict[str, object]] = field(default_factory=list)


def targets() -> list[Target]:
    """Every grader of `vold.graders` and every form of `score`."""
    found = [_grader_target(name) for name in grader_names()]
    return found + [_form_target(form, items) for form, items in _items().items()]


def fuzz(things: Sequence[Target], seconds: float, seed: int) -> Report:
    """Mark hostile texts with all of `things` for `seconds`; failures are collected, not raised."""
    rng = random.Random(seed)
    report = Report(seed, {thing.name: Record() for thing in things})
    before: float | None = None
    number = 0
    began = time.monotonic()
    with Bar("fuzz, seconds", max(1, round(seconds))) as bar:
        while (spent := time.monotonic() - began) < seconds or number == 0:
            if before is None and spent >= seconds / 10 and number:
                before = resident_mib()
            text, finish = hostile_text(rng), _finish(rng)
            for thing in things:
                if report.records[thing.name].seconds <= thing.share * spent:
                    _call(thing, text, finish, number, report)
            number += 1
            if int(spent) > bar.done:
                bar.advance(int(spent) - bar.done, f"{number} texts, {len(report.failures)} failures")
        bar.advance(max(0, bar.total - bar.done), f"{number} texts, {len(report.failures)} failures")
    after = resident_mib()
    report.growth = None if before is None or after is None else after - before
    if report.growth is not None and report.growth > GROWTH_LIMIT_MIB:
        report.failures.append({"target": "memory", "why": f"grew by {report.growth:.0f} MiB", "text": ""})
    return report


def _call(thing: Target, text: str, finish: Finish, number: int, report: Report) -> None:
    record, why, kind = report.records[thing.name], "", "none"
    start = time.perf_counter()
    try:
        grade = thing.mark(text, finish, number)
        kind = outcome(grade, finish)
        if not 0 <= grade.score <= 1 or (not thing.partial and 0 < grade.score < 1):
            why = f"score {grade.score}"
        elif grade.score and finish == "length":
            why = "a truncated response is right"
    except Exception as problem:
        why = f"{type(problem).__name__}: {problem}"
    took = time.perf_counter() - start
    if took > thing.limit:
        why = why or f"took {took:.1f} s, limit {thing.limit:.1f} s"
    record.calls += 1
    record.seconds += took
    record.outcomes[kind] = record.outcomes.get(kind, 0) + 1
    if took > record.slowest:
        record.slowest, record.slowest_text = took, text
    if why:
        report.failures.append({"target": thing.name, "why": why, "finish": finish, "number": number, "text": text})


def hostile_text(rng: random.Random) -> str:
    """A text of up to 200,000 characters: a mutated seed, LaTeX soup, random Unicode, deep nesting or a long run."""
    makers = (_mutated, _mutated, _mutated, _soup, _soup, _unicode, _nested, _run)
    text = makers[rng.randrange(len(makers))](rng)
    dressed = (text, rf"so \boxed{{{text}}}.", f"<think>{text}</think>\nAnswer: {text}", f"The answer is {text}")
    return dressed[rng.randrange(len(dressed))][:LONGEST_TEXT]


def _mutated(rng: random.Random) -> str:
    text = rng.choice(SEEDS)
    for _ in range(rng.randint(0, 6)):
        at, to = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        other = rng.choice((*_PIECES, *SEEDS))
        text = rng.choice(
            (
                text[:at] + other + text[at:],
                text[:at] + text[to:],
                text[:to] + text[at:],
                text[:at] + text[at:to] * rng.randint(2, 9) + text[to:],
                text[:at] + text[at:to][::-1] + text[to:],
                text[:at] + text[at:to].swapcase() + text[to:],
            )
        )[:5000]
    return text


def _soup(rng: random.Random) -> str:
    return "".join(rng.choices(_PIECES, k=_length(rng, 400)))


def _unicode(rng: random.Random) -> str:
    top = rng.choice((0x80, 0x250, 0x3000, 0xFFFF, 0x10FFFF))
    return "".join(chr(rng.randint(0, top)) for _ in range(_length(rng, 300)))


def _nested(rng: random.Random) -> str:
    start, end = rng.choice(_PAIRS)
    depth = _length(rng, 60)
    return start * depth + rng.choice(("1", "B", "x", "")) + end * max(0, depth - rng.choice((0, 0, 0, 1, depth)))


def _run(rng: random.Random) -> str:
    piece = rng.choice((*_PIECES, "".join(rng.choices(_PIECES, k=3))))
    return rng.choice(("", "answer", *_PIECES)) + (piece * _length(rng, 2000))[:LONGEST_TEXT] + rng.choice(_PIECES)


def _length(rng: random.Random, usual: int) -> int:
    return rng.randint(1, LONGEST_TEXT if rng.random() < 0.03 else usual)


def _finish(rng: random.Random) -> Finish:
    return "length" if rng.random() < 0.05 else "stop"


def _grader_target(name: str) -> Target:
    grader = get_grader(name)

    def mark(text: str, finish: Finish, number: int) -> Grade:
        return grader(text, _REFERENCES[number % len(_REFERENCES)], finish=finish)

    return replace(_target(f"grader {name}", mark, name == "math"), partial=name in PARTIAL)


def _form_target(form: Form, items: Sequence[Item]) -> Target:
    def mark(text: str, finish: Finish, number: int) -> Grade:
        return score(items[number % len(items)], text, finish=finish)

    return _target(f"score {form}", mark, form == "math")


def _target(name: str, mark: Mark, asks_worker: bool) -> Target:
    return Target(name, mark, MATH_LIMIT_SECONDS, MATH_SHARE) if asks_worker else Target(name, mark)


def _items() -> dict[Form, list[Item]]:
    def item(form: Form, answer: str, *options: str, benchmark: str = "any", unit: str | None = None) -> Item:
        return Item(
            benchmark, "1", "How many percent?" if unit == "%" else "", options, (), answer, form, "1", unit=unit
        )

    return {
        "choice": [
            item("choice", "B", "12 cm", "13 cm", "15"),
            item("choice", "B"),
            item("choice", "A", "b", "B", "B"),
        ],
        "letters": [item("letters", "A, C"), item("letters", "3")],
        "integer": [item("integer", "14"), item("integer", "5", unit="cm"), item("integer", "10", unit="%")],
        "float": [item("float", "0.67"), item("float", "6.928", benchmark="dynamath")],
        "list": [item("list", "[1, 2, 3]")],
        "math": [item("math", r"\frac{1}{2}"), item("math", "(1,2)"), item("math", r"9\pi \mathrm{cm}^{2}")],
        "text": [item("text", "Seine\nLoire"), item("text", "8.4")],
    }


def resident_mib() -> float | None:
    """Resident memory of this process in MiB; None where the system does not tell."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except (ImportError, OSError):
        return None


def print_report(report: Report) -> None:
    """Print a line for each target, the growth of memory and the number of failures."""
    from rich.table import Table

    table = Table(title=f"fuzz, seed {report.seed}", title_justify="left")
    for column in ("target", "calls", "right", "timed out", "slowest, s", "its characters"):
        table.add_column(column, justify="left" if column == "target" else "right", no_wrap=True)
    for name, r in report.records.items():
        counts = (f"{n:,}" for n in (r.calls, r.outcomes.get("right", 0), r.outcomes.get("timed_out", 0)))
        table.add_row(name, *counts, f"{r.slowest:.3f}", f"{len(r.slowest_text):,}")
    console.print(table)
    console.print("the slowest text of each begins")
    for name, r in report.records.items():
        console.print(f"  {name:<16}{ascii(r.slowest_text[:SHOWN_CHARS])[1:-1]}", markup=False)
    grown = "not measured on this system" if report.growth is None else f"{report.growth:+.1f} MiB"
    console.print(f"memory after the first tenth of the time: {grown} (limit {GROWTH_LIMIT_MIB:.0f} MiB)")
    console.print(f"failures: {len(report.failures)}")


def conclude(report: Report, file: Path) -> int:
    """Print a report, write its failures to `file`, one JSON object a line, and return the exit status."""
    print_report(report)
    if not report.failures:
        return 0
    file.write_text("".join(json.dumps(f) + "\n" for f in report.failures), encoding="utf-8")
    console.print(f"written to {file}", markup=False)
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.fuzz", description="Hostile text for every grader.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--failures", type=Path, default=Path("fuzz_failures.jsonl"), help="where failures are written")
    chosen = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(2**31) if chosen.seed is None else chosen.seed
    return conclude(fuzz(targets(), chosen.seconds, seed), chosen.failures)


if __name__ == "__main__":
    sys.exit(main())
