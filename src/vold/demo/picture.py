"""What VOLD is about as one picture (SVG), from a run of the demo: a problem that is seen, the same that is read, and a
response to the second whose tokens are coloured by the teacher's gap.

The picture has its own light and dark colours, no script, and nothing from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from vold.data.files.images import thumbnail
from vold.data.sources.digits import Spec
from vold.errors import clean
from vold.report.rollouts import GAP_LIMIT, gaps_of
from vold.report.text import decimal
from vold.run.files import write_text
from vold.run.view import Run
from vold.types import IMAGE_MARKER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

    from vold.run.rollouts import StoredRollout

WIDTH, MARGIN, LINE, SIZE = 560, 20, 34, 17
"""Of the picture, around its parts, from one row of tokens to the next, and of the letters, in its own units."""
LETTER = 0.62 * SIZE
"""Room for a letter of a font of equal widths; a narrower font leaves more air."""
PIXEL = 7
"""Size of a pixel of the handwriting."""
ROOT = Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img">\n')
STYLE = Markup("""<style>
svg { color: #1f2328; --soft: #59636e; --card: #f6f8fa; --line: #d1d9e0; --over: 240, 140, 50; --under: 70, 135, 240;
  font: 17px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media (prefers-color-scheme: dark) { svg { color: #e6edf3; --soft: #9198a1; --card: #151b23; --line: #3d444d;
  --over: 175, 85, 10; --under: 45, 100, 205; } }
text { fill: currentColor; white-space: pre; }
.soft { fill: var(--soft); font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
.card { fill: var(--card); stroke: var(--line); }
.over { fill: rgb(var(--over)); } .under { fill: rgb(var(--under)); }
</style>
""")


@dataclass(frozen=True)
class Example:
    """A problem in both forms, and a failed response to the text one: `image` stands where `<image>` is in `seen`.

    `tokens` have the student's log-prob less the teacher's, in nats.
    """

    seen: str
    image: Image
    read: str
    tokens: Sequence[tuple[str, float]]
    answer: str
    reference: str


def draw_example(run_dir: Path) -> Path | None:
    """Draw `example.svg` into the directory of a demo.

    None where no stored rollout of its digits failed, stopped by itself and was read by the teacher.

    Raises:
        DataError: stored rollouts cannot be read.
    """
    found = find_example(Run(run_dir))
    if found is None:
        return None
    file = run_dir / "example.svg"
    write_text(file, picture(found))
    return file


def find_example(run: Run) -> Example | None:
    """The failed rollout in which one token has most of all gap, with its problem: there it went wrong."""
    distill = run.recipe.distill
    spec = run.recipe.tasks[distill.tasks] if distill is not None else None
    if not isinstance(spec, Spec) or spec.form != "text":
        return None
    known = [(one, _told(one)) for step in run.stored_steps for one in run.rollouts(step)]
    if not (failed := [(one, told) for one, told in known if told is not None]):
        return None
    one, _ = max(failed, key=lambda found: found[1])
    place = int(one.rollout.task_id.rpartition("-")[2])
    seen = spec.model_copy(update={"form": "image", "size": place + 1}).open({}, references=True)[place].messages[0]
    gaps = gaps_of(one.rollout)
    assert gaps is not None and one.rollout.grade.extracted is not None
    return Example(
        seen=seen.text,
        image=seen.images[0],
        read=one.question.prompt,
        tokens=[(clean(t), g) for t, g in zip(one.texts(), gaps.tolist(), strict=True)],
        answer=clean(one.rollout.grade.extracted),
        reference=one.question.reference,
    )


def _told(one: StoredRollout) -> tuple[float, float] | None:
    """How much of all gap the widest of a failed rollout has, and the gap; None where there is nothing to tell."""
    r, gaps = one.rollout, gaps_of(one.rollout)
    whole = gaps is not None and len(gaps) > 0 and bool(np.isfinite(gaps).all())
    if gaps is None or not whole or r.grade.score >= 1 or r.grade.extracted is None or r.completion.finish != "stop":
        return None
    widest = float(gaps.max())
    return (round(widest / float(np.abs(gaps).sum()), 2), widest) if widest > GAP_LIMIT else None


def picture(e: Example) -> str:
    """The example as SVG."""
    half = (WIDTH - 3 * MARGIN) / 2
    right = 2 * MARGIN + half
    rows = _rows(e.tokens)
    top, end = 214, 214 + LINE * len(rows)
    parts = [
        _soft(MARGIN, 32, "Asked in the test: never trained on"),
        _soft(right, 32, "Asked in training: the same as text"),
        _card(MARGIN, half),
        _card(right, half),
        *_seen(e, half),
        *_written(e.read, right),
        _soft(MARGIN, top - 32, "A wrong answer, coloured where it was surer than the teacher"),
        *(part for i, row in enumerate(rows) for part in _tokens(row, top + i * LINE)),
        *_legend(e, end + 4),
    ]
    return str(ROOT.format(WIDTH, end + 40) + STYLE + Markup("\n").join(parts) + Markup("\n</svg>\n"))


def _soft(x: float, y: float, text: str) -> Markup:
    return Markup('<text class="soft" x="{:g}" y="{:g}">{}</text>').format(x, y, text)


def _text(x: float, y: float, text: str) -> Markup:
    return Markup('<text x="{:g}" y="{:g}">{}</text>').format(x, y, text)


def _card(x: float, width: float) -> Markup:
    return Markup('<rect class="card" x="{:g}" y="44" width="{:g}" height="112" rx="6"/>').format(x, width)


def _seen(e: Example, width: float) -> list[Markup]:
    """The problem with its picture, pixels blended so that handwriting can be read."""
    high, wide = PIXEL * e.image.height, PIXEL * e.image.width
    x = MARGIN + (width - wide) / 2
    shown = '<image href="{}" x="{:g}" y="54" width="{:g}" height="{:g}"><title>{}</title></image>'
    question = e.seen.partition(IMAGE_MARKER)[2].strip(" .")
    return [Markup(shown).format(thumbnail(e.image), x, wide, high, e.seen), _text(MARGIN + 12, 146, question)]


def _written(read: str, x: float) -> list[Markup]:
    """The problem as text, its question in a line of its own."""
    problem, dot, question = read.partition(" . ")
    return [_text(x + 12, 96, problem + dot.rstrip()), _text(x + 12, 146, question)]


def _rows(tokens: Sequence[tuple[str, float]]) -> list[list[tuple[str, float]]]:
    """Tokens in rows that are no wider than the picture."""
    rows: list[list[tuple[str, float]]] = [[]]
    room = 0.0
    for text, gap in tokens:
        room -= _wide(text)
        if room < 0:
            rows.append([])
            room = WIDTH - 2 * MARGIN - _wide(text)
        rows[-1].append((text, gap))
    return rows[1:]


def _wide(text: str) -> float:
    return LETTER * len(text) + 8


def _tokens(row: Sequence[tuple[str, float]], y: float) -> list[Markup]:
    out, x = [], float(MARGIN)
    one = Markup('<g><title>{}</title><rect{} x="{:g}" y="{:g}" width="{:g}" height="26" rx="4" fill-opacity="{:g}"/>')
    for text, gap in row:
        kind = Markup(' class="{}"').format("over" if gap > 0 else "under")
        said = f"{text}: {decimal(gap, 2, sign=True)} nats"
        out.append(one.format(said, kind, x, y - 19, _wide(text) - 2, strength(gap)))
        out.append(Markup("{}</g>").format(_text(x + 3, y, text)))
        x += _wide(text)
    return out


def strength(gap: float) -> float:
    """How strong a token's colour is, from 0 to 1 at a gap of `GAP_LIMIT` nats.

    Example:
        >>> strength(0.0), strength(-1.5), strength(20.0)
        (0.0, 0.5, 1.0)
    """
    return round(min(1.0, abs(gap) / GAP_LIMIT), 2)


def _legend(e: Example, y: float) -> list[Markup]:
    """Where the student was surest against its teacher, and what was right."""
    text, gap = max(e.tokens, key=lambda token: token[1])
    said = f"{text}: {decimal(gap, 1, sign=True)} nats over the teacher. Answer {e.answer}, right {e.reference}."
    swatch = Markup('<rect class="over" x="{:g}" y="{:g}" width="16" height="16" rx="4"/>').format(MARGIN, y - 1)
    return [swatch, _soft(MARGIN + 24, y + 12, said)]
