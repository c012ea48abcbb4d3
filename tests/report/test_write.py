"""What holds for both pages: nothing hostile in them, nothing from outside, both colour schemes, any width."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from browser import evaluate
from made_run import make_run
from pages import HOSTILE, OUTCOMES, Page, made_results, made_samples
from stored import Row, change_rows
from vold.errors import clean
from vold.report import write_report, write_results
from vold.run.files import append_jsonl, read_jsonl, write_json, write_text
from vold.run.rollouts import TOKENIZER

WRITTEN = {"base", "vold", "stop", "length", "student", "teacher"} | {
    o for by in OUTCOMES.values() for s in by.values() for o in s.split()
}
"""Texts that mean something, which stay as they are."""


def bad(value: Any) -> Any:
    """The same value with something hostile in front of every text but pictures, and of every key but those we read."""
    if isinstance(value, dict):
        return {HOSTILE + k if k in KEYS else k: bad(v) for k, v in value.items()}
    if isinstance(value, list):
        return [bad(v) for v in value]
    plain = not isinstance(value, str) or value in WRITTEN or value.startswith("data:")
    return value if plain else HOSTILE + value


KEYS = {"base", "vold", "angles", "words", "image", "level", "kind", "1", "2", "10", "worst_case", "weight", "cut"}


def evaluation_page(folder: Path, *, hostile: bool) -> Path:
    results, samples = made_results(), made_samples()
    return write_results(folder / "p.html", *((bad(results), bad(samples)) if hostile else (results, samples)))


def spoilt(row: Row, *, hostile: bool) -> Row:
    row |= {"token_values": {"weight": row["logp"]}, "rollout_values": {"cut": 3}}
    # a tokenizer spells no half of a surrogate pair
    spelled = [t.encode(errors="replace").decode() for t in bad(row["tokens"])]
    return bad(row) | {"tokens": spelled} if hostile else row


def run_page(folder: Path, *, hostile: bool) -> Path:
    run = make_run(folder / "run")
    for file in (run / "distill" / "rollouts").iterdir():
        if file.suffix == ".safetensors":
            change_rows(file, lambda rows: [spoilt(r, hostile=hostile) for r in rows])
    if hostile:
        write_text(run / "recipe.yaml", json.dumps({"student": {"path": HOSTILE}, "run": {"seed": HOSTILE}}))
        for file in [f for f in [*run.rglob("*.jsonl"), *run.rglob("*.json")] if f.name != TOKENIZER]:
            stored = bad(read_jsonl(file) if file.suffix == ".jsonl" else json.loads(file.read_text()))
            file.unlink()
            write_json(file, stored) if file.suffix == ".json" else append_jsonl(file, stored)
    return write_report(run)


PAGES = {"evaluation": evaluation_page, "run": run_page}
pages = pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
Make = Callable[..., Path]


@pages
def test_hostile_text_shows_itself_and_does_nothing_else(make: Make, tmp_path: Path) -> None:
    html = make(tmp_path, hostile=True).read_text(encoding="utf-8")
    page = Page(html)
    assert html.count("<script>") == 1  # and no other but what holds data
    assert html.count("<script") == html.count("</script") == 1 + html.count('<script type="application/json"')
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not set("\u202e\u202c\u2067\x1b\x00") & set(html)
    assert clean(HOSTILE) in unescape(html)
    assert "[U+202E]gnorw[U+202C]" in html


@pages
def test_nothing_hostile_runs_in_a_browser_or_widens_the_page(make: Make, tmp_path: Path) -> None:
    steps = [
        "document.querySelectorAll('details').forEach(d => d.open = true)",
        "window.pwned ?? 0",
        "[...document.scripts].filter(s => s.type !== 'application/json').length",
        "document.querySelectorAll('img[src=x]').length",
        "performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length",
        "[...document.querySelectorAll('main pre, .prompt, .tokens')].map(e => e.textContent)"
        ".filter(t => t.includes('<script>window.pwned=1</script>')).length > 5",
        "document.querySelector('#filter').hidden",
        "document.documentElement.scrollWidth <= innerWidth",
    ]
    (values,) = evaluate(make(tmp_path, hostile=True), steps)
    assert values[1:] == [0, 1, 0, 0, True, False, True]


@pages
def test_a_page_needs_nothing_from_outside(make: Make, tmp_path: Path) -> None:
    html = make(tmp_path, hostile=False).read_text()
    page = Page(html)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", html)
    assert not re.search(r"@import|url\(", html)
    assert {t for t, _ in page.tags} & {"link", "iframe", "object", "embed", "base"} == set()
    assert all((a["src"] or "").startswith("data:image/png;base64,") for a in page.named("img"))
    assert {href for a in page.named("a") if not (href := a["href"] or "").startswith("#")} <= {"../report.html"}
    policy = page.named("meta")[1]["content"] or ""
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


BROKEN_WORDS = """[...document.querySelectorAll('thead th')].flatMap(th => {
  const found = [], nodes = document.createTreeWalker(th, NodeFilter.SHOW_TEXT), range = document.createRange();
  for (let node; node = nodes.nextNode();) for (const word of node.data.matchAll(/\\S+/g)) {
    range.setStart(node, word.index); range.setEnd(node, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map(r => r.top)).size > 1) found.push(word[0]);
  }
  return found;
})"""
"""Words in the heads of tables that stand on more than one line."""


@pages
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_follows_the_colour_scheme(make: Make, dark: bool, tmp_path: Path) -> None:
    steps = [
        "document.querySelectorAll('details').forEach(d => d.open = true)",
        "document.documentElement.scrollWidth <= innerWidth",
        BROKEN_WORDS,
        "getComputedStyle(document.body).backgroundColor",
    ]
    (values,) = evaluate(make(tmp_path, hostile=False), steps, width=390, dark=dark)
    assert values[1:] == [True, [], "rgb(22, 24, 26)" if dark else "rgb(253, 253, 252)"]


def test_the_read_out_of_a_curve_and_of_a_token(tmp_path: Path) -> None:
    move = "document.querySelector('[data-lines] svg').dispatchEvent(new PointerEvent('pointermove', {clientX: 0}))"
    over = "document.querySelector('.tokens .over').dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))"
    steps = [move, "document.querySelector('[data-lines] output').textContent", over,
             "document.querySelector('.about-token').textContent.slice(0, 23)"]  # fmt: skip
    (values,) = evaluate(run_page(tmp_path, hostile=False), steps)
    assert values[1::2] == ["step 0: 0.5", "token 0  id 0  gap 0.5 "]
