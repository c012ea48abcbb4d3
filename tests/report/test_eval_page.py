"""The result page: numbers worked out by hand, escaping, half results, and a real browser that filters and sorts.

The made-up evaluation: `angles` has four questions and `words` two.

    angles      a0      a1      a2         a3              words   w0      w1
    base        right   wrong   unparsed   truncated               right   wrong
    vold        right   right   right      timed out               wrong   right

So on `angles` base has 1 of 4 and vold 3 of 4; the sample variance of either is 4/3 * 1/4 * 3/4 = 1/4, the standard
error sqrt(1/4 / 4) = 0.25. The differences 0, 1, 1, 0 have the mean 0.5 and the variance 4/3 * 1/4 = 1/3, so the error
is sqrt(1/12) = 0.2887; with t(3) = 3.1824 the interval is 0.5 -+ 0.9187, and t = 1.732 has p = 0.1817. McNemar: two
wins, no loss, p = 2 * (1/2)^2 = 0.5. Detectable: (1.9600 + 0.8416) * 0.2887 = 0.8087.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import random
import re
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from browser import evaluate
from vold.report.bar_charts import Row, accuracy_chart, interval_strip, outcome_chart
from vold.report.eval_page import write_page
from vold.report.eval_samples import (
    PICTURE_BYTES,
    PROMPT,
    RESPONSE,
    THINKING,
    choose,
    cut,
    outcome_of,
    picture,
    split_thinking,
)
from vold.report.text import DASH, MINUS, clean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = (
    """</pre></script><script>window.pwned=1</script><img src=x onerror="window.pwned=1"> ' " & \u202egnorw\u202c"""
)
OUTCOMES = {
    "angles": {"base": "right wrong unparsed truncated", "vold": "right right right timed_out"},
    "words": {"base": "right wrong", "vold": "wrong right"},
}
DISPLAYED = (
    "[document.querySelectorAll('.answer:not([hidden])').length, "
    "document.querySelectorAll('.sample:not([hidden])').length]"
)


def uri(image: Image.Image, form: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def made_results() -> dict[str, Any]:
    def stage(right: int, n: int, stderr: float, **outcomes: int) -> dict[str, Any]:
        rest = {o: outcomes.get(o, 0) for o in ("wrong", "unparsed", "truncated", "timed_out")}
        return {"accuracy": right / n, "stderr": stderr, "n": n, "k": 1, "outcomes": {"right": right, **rest}}

    base = stage(1, 4, 0.25, wrong=1, unparsed=1, truncated=1)
    vold = stage(3, 4, 0.25, timed_out=1)
    levels = {"1": {"accuracy": 1.0, "stderr": 0.0, "n": 1}, "10": {"accuracy": 0.5, "stderr": 0.354, "n": 2}}
    base |= {"low": 0.046, "high": 0.699, "mean_tokens": 120.4, "by": {"level": {**levels, "2": {"accuracy": 0.0}}}}
    vold |= {"low": 0.301, "high": 0.954, "derived": {"worst_case": {"value": 0.125, "low": 0.01, "high": 0.3, "n": 8}}}
    difference = {"difference": 0.5, "stderr": 0.2887, "low": -0.4187, "high": 1.4187, "p_value": 0.1817}
    return {
        "run": {"name": "by hand", "models": {"base": "org/base", "vold": "runs/v"}, "versions": {"vold": "0.3.0"}},
        "sets": {
            "angles": {
                "benchmark": "mathvision",
                "title": "Angles",
                "split": "test",
                "n_items": 4,
                "protocol": {"name": "rule", "hash": "ab12cd", "pixels": [3136, 12544], "max_new_tokens": 8192},
                "bad_rows": [{"where": "angles.parquet: row 3", "why": "no picture"}],
                "bad_golds": [{"id": "a9", "answer": "C", "why": "no such option"}],
                "published": [{"model": "Other-3B", "value": 27.1, "source": "arXiv 2510.23497", "protocol": "judge"}],
            },
            "words": {"title": "Words", "n_items": 2},
        },
        "stages": {
            "base": {"angles": base, "words": stage(1, 2, 0.5, wrong=1)},
            "vold": {"angles": vold, "words": stage(1, 2, 0.5, wrong=1)},
        },
        "comparisons": [
            {"set": "angles", "model": "vold", "against": "base", "mcnemar_p": 0.5, "min_detectable": 0.8087}
            | difference,
        ],
    }


def made_samples() -> dict[str, dict[str, list[dict[str, Any]]]]:
    out: dict[str, dict[str, list[dict[str, Any]]]] = {"base": {}, "vold": {}}
    for name, by_model in OUTCOMES.items():
        for model, listed in by_model.items():
            rows = []
            for i, outcome in enumerate(listed.split()):
                here = "hidden Needle" if (name, model, i) == ("angles", "vold", 2) else "thoughts"
                rows.append(
                    {
                        "id": f"{name[0]}{i}",
                        "sample": 0,
                        "images": [uri(Image.new("RGB", (24, 8), (i, 0, 0)))] if name == "angles" else [],
                        "prompt": f"What is {i}?",
                        "response": f"<think>{here}</think>It is \\boxed{{{i}}}.",
                        "extracted": str(i) if outcome in ("right", "wrong") else None,
                        "reference": str(i),
                        "score": float(outcome == "right"),
                        "note": "equal" if outcome == "right" else "different",
                        "outcome": outcome,
                        "tokens": 5,
                        "tags": {"level": str(1 + i % 2)},
                    }
                )
            out[model][name] = rows
    return out


class Page(HTMLParser):
    """Tags with their attributes, and the rows of all tables as text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data.strip()

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag]


def page_of(file: Path, results: Any = None, samples: Any = None, **options: Any) -> tuple[str, Page]:
    html = write_page(
        file,
        made_results() if results is None else results,
        made_samples() if samples is None else samples,
        **options,
    ).read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that no test changes."""
    return write_page(tmp_path_factory.mktemp("page") / "page.html", made_results(), made_samples())


# What it says


def test_accuracy_stands_beside_what_was_not_marked(made: Path) -> None:
    rows = Page(made.read_text()).rows
    head = "model,accuracy, %,truncated, %,unparsed, %,timed out, %,std. error,95% interval,questions,mean tokens"
    assert ",".join(rows[0]) == head
    assert rows[1] == ["Angles"]
    assert rows[2] == ["base", "25.0", "25.0", "25.0", "0.0", "25.0", "4.6 to 69.9", "4", "120"]
    assert rows[3] == ["vold", "75.0", "0.0", "0.0", "25.0", "25.0", "30.1 to 95.4", "4", DASH]
    assert rows[4] == ["Other-3B, published", "27.1", "arXiv 2510.23497; protocol judge"]
    assert rows[5] == ["Words"]
    # 0.5 -+ 1.96 * 0.5, made here because no interval is stored
    assert rows[6][:2] + rows[6][5:7] == ["base", "50.0", "50.0", f"{MINUS}48.0 to 148.0"]
    assert not any("published" in cell for row in rows[6:] for cell in row)
    assert ["Angles", "worst case", "vold", "12.5", "1.0 to 30.0", "8"] in rows


def test_difference_by_hand(made: Path) -> None:
    html = made.read_text()
    (row,) = [r for r in Page(html).rows if "not told apart" in r]
    assert row == ["vold", "+50.0", "", f"{MINUS}41.9 to +141.9", "not told apart", "0.182", "0.500", "80.9"]
    assert "Differences to base" in html
    assert "With 1 interval of 95%, 0.1 would" in html


@pytest.mark.parametrize(
    ("low", "high", "says"), [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (None, 0.2, DASH), (0.0, 0.2, "not told")]
)
def test_what_an_interval_allows_to_say(tmp_path: Path, low: Any, high: Any, says: str) -> None:
    results = made_results()
    results["comparisons"][0] |= {"low": low, "high": high, "p_value": 1e-9}
    row = next(r for r in page_of(tmp_path / "p.html", results)[1].rows if len(r) == 8 and r[1] == "+50.0")
    assert row[4].startswith(says)
    assert row[5] == "<0.001"


def test_pairs_without_the_baseline_are_apart(tmp_path: Path) -> None:
    results = made_results()
    results["comparisons"].append(results["comparisons"][0] | {"model": "base", "against": "vold"})
    html, page = page_of(tmp_path / "p.html", results)
    assert "1 other pair of models" in html
    assert [r[:3] for r in page.rows if "not told apart" in r] == [["vold", "+50.0", ""], ["base", "vold", "+50.0"]]


def test_samples_per_question_pass_and_majority(tmp_path: Path) -> None:
    results = made_results()
    results["stages"]["base"]["angles"] |= {"k": 8, "pass_at": {"1": 0.25, "8": 0.5, "4": 0.375}, "maj_at_k": 0.3}
    rows = page_of(tmp_path / "p.html", results)[1].rows
    assert rows[0][7:11] == ["pass@4", "pass@8", "maj@k", "questions"]
    assert rows[2][7:11] == ["37.5", "50.0", "30.0", "4 \N{MULTIPLICATION SIGN} 8"]
    assert rows[3][7:11] == [DASH, DASH, DASH, "4"]


def test_breakdown_by_level_in_natural_order(made: Path) -> None:
    rows = Page(made.read_text()).rows
    start = next(i for i, r in enumerate(rows) if r[0] == "level")
    assert rows[start] == ["level", "questions", "base, %"]
    assert [r[:2] for r in rows[start + 1 : start + 4]] == [["1", "1"], ["2", DASH], ["10", "2"]]
    assert [r[2] for r in rows[start + 1 : start + 4]] == ["100.0± 0.0", f"0.0± {DASH}", "50.0± 35.4"]


def test_problems_of_the_data_and_protocols(made: Path, tmp_path: Path) -> None:
    html = made.read_text()
    assert "1 row that cannot be asked, 1 reference answer that cannot be marked" in html
    rows = Page(html).rows
    assert ["angles.parquet: row 3", "no picture"] in rows
    assert ["a9", "C", "no such option"] in rows
    assert "<code>ab12cd</code>" in html
    assert "<dt>pixels</dt><dd>[3136, 12544]</dd>" in html
    assert "<dt>max new tokens</dt><dd>8192</dd>" in html
    results = made_results()
    results["sets"]["angles"]["bad_rows"] *= 150
    many, page = page_of(tmp_path / "p.html", results)
    assert "150 rows that cannot be asked" in many
    assert "The first 100 of 150." in many
    assert page.rows.count(["angles.parquet: row 3", "no picture"]) == 100
    for name in ("angles", "words"):
        assert "None: every row could be asked" not in page_of(tmp_path / "p.html", results)[0]
        results["sets"][name] |= {"bad_rows": [], "bad_golds": []}
    assert "None: every row could be asked" in page_of(tmp_path / "p.html", results)[0]


def test_bars_and_whiskers_have_the_length_of_the_numbers() -> None:
    failed = {"right": 0.25, "wrong": 0.5, "truncated": 0.125, "unparsed": 0.0625, "timed_out": 0.0625}
    svg = str(accuracy_chart("t", [Row("m", 0.25, 0.2, 0.3, failed), Row("none")], 0.5))
    assert svg.count("25.0% not marked") == svg.count("not marked") == 1
    assert 'class="bar c0" x="0" y="19" width="160.0"' in svg  # half of 320
    assert 'd="M128.0 23.5H192.0' in svg
    assert svg.count('class="bar') == 1
    assert f">{DASH}</text>" in svg


def test_stacked_bars_have_the_length_of_the_shares() -> None:
    row = Row("m", outcomes={"right": 0.25, "wrong": 0.5, "truncated": 0.25}, links={"wrong": "#samples?outcome=wrong"})
    svg = str(outcome_chart("t", [row, Row("empty")]))
    found = re.findall(r'class="o-(\w+)" x="([\d.]+)" y="18" width="([\d.]+)"', svg)
    assert found == [("right", "0.0", "79.0"), ("wrong", "80.0", "159.0"), ("truncated", "240.0", "79.0")]
    assert '<a href="#samples?outcome=wrong" aria-label="m: wrong 50.0%">' in svg
    assert svg.count("<a ") == 1


def test_interval_about_zero() -> None:
    svg = str(interval_strip(0.1, -0.1, 0.3, 0.2, reach=0.4))  # 150 wide: zero at 75, 0.4 at 150
    assert 'cx="93.8"' in svg
    assert 'd="M56.2 9H131.2' in svg
    assert 'class="band" x="37.5" y="1" width="75.0"' in svg
    assert interval_strip(None, reach=1.0) == ""


# Which answers


def test_every_outcome_is_seen_and_the_page_says_of_how_many(tmp_path: Path) -> None:
    rare = {3: "timed_out", 500: "truncated", 900: "unparsed"}
    rows = [{"id": str(i), "outcome": rare.get(i, "right" if i % 2 else "wrong")} for i in range(1000)]
    html, page = page_of(tmp_path / "p.html", {}, {"m": {"s": rows}}, per_set=20)
    answers = [a for a in page.named("section") if "data-outcome" in a]
    assert len(answers) == 20
    assert {a["data-outcome"] for a in answers} == {"right", "wrong", "unparsed", "truncated", "timed_out"}
    assert "s: 20 of 1000 questions, 20 of 1000 answers." in html
    again, _ = page_of(tmp_path / "q.html", {}, {"m": {"s": rows}}, per_set=20)
    assert again == html


def test_choice_is_the_hash_order_by_hand() -> None:
    keys = [(str(i), "0") for i in range(50)]
    ranked = sorted(keys, key=lambda k: hashlib.sha256(f"s\0{k[0]}\0{k[1]}".encode()).hexdigest())
    rare = ranked[-1]
    found = {"m": {k: "wrong" if k == rare else "right" for k in keys}}
    assert choose(found, 4, "s") == sorted([*ranked[:3], rare], key=keys.index)
    assert choose(found, 0, "s") == []
    assert choose(found, 99, "s") == keys
    assert choose({}, 9, "s") == []


def test_older_rows_without_an_outcome() -> None:
    assert [outcome_of(r) for r in ({"score": 1.0}, {"score": 0.0}, {}, {"outcome": "odd", "score": 1})] == [
        "right",
        "wrong",
        "unknown",
        "right",
    ]


def test_thinking_is_folded_where_the_graders_end_it() -> None:
    assert split_thinking("<think>a</think>b<think>c</think> d") == ("a</think>b<think>c", True, "d")
    assert split_thinking("opened in the prompt</think>d") == ("opened in the prompt", True, "d")
    assert split_thinking("<think>never closed") == ("never closed", False, "")
    assert split_thinking("no block") == ("", True, "no block")
    assert split_thinking("") == ("", True, "")


def test_long_texts_lose_their_middle() -> None:
    short = cut("a" * 30_000 + "b" * 20_000, 6000)
    assert short == {"head": "a" * 4000, "left_out": "44,000", "tail": "b" * 2000}
    assert cut("a" * 6000, 6000) == {"head": "a" * 6000, "left_out": "", "tail": ""}


def test_a_long_response_is_cut_with_a_note(tmp_path: Path) -> None:
    row = {"id": "1", "response": f"<think>{'t' * 50_000}</think>{'r' * 50_000}END", "prompt": "p" * 50_000}
    html, _ = page_of(tmp_path / "p.html", {}, {"m": {"s": [row]}})
    for limit, length in ((THINKING, 50_000), (RESPONSE, 50_003), (PROMPT, 50_000)):
        assert f"[ {length - limit:,} characters are left out here ]" in html
    assert "rEND</pre>" in html
    assert "thinking, 50,000 characters" in html
    assert len(html) < 60_000


# Pictures


def test_small_pictures_are_kept_as_they_are(made: Path) -> None:
    images = Page(made.read_text()).named("img")
    assert len(images) == 4  # once for both models
    assert images[0]["src"] == uri(Image.new("RGB", (24, 8), (0, 0, 0)))
    assert (images[0]["width"], images[0]["height"], images[0]["class"]) == ("288", "96", "pixelated")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_large_pictures_are_shrunk_to_a_stated_size(mode: str) -> None:
    noise = Image.frombytes(mode, (1500, 1000), random.Random(3).randbytes(1_500_000 * len(mode)))
    large = uri(noise)
    assert len(large) > PICTURE_BYTES * 4
    shown = picture(large)
    data = base64.b64decode(shown["uri"].removeprefix("data:image/jpeg;base64,"))
    size = Image.open(io.BytesIO(data)).size
    assert len(data) <= PICTURE_BYTES
    assert size == (shown["width"], shown["height"])
    assert shown["note"] == f"shown as a JPEG of {size[0]} by {size[1]} pixels, stored at 1500 by 1000"
    assert size == (768, 512)  # noise at 1024 pixels is still too much


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        "https://example.org/x.png",
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        'data:image/png;base64,A" onload="x',
        "data:image/png;base64,AAAA",
        "data:image/png;base64,AAAAA",
        uri(Image.new("1", (20_000, 10_000))),
        uri(Image.new("1", (8_000, 8_000))),
    ],
)
def test_what_is_no_picture_is_a_note(bad: Any) -> None:
    shown = picture(bad)
    assert shown["uri"] is None
    assert shown["note"]


def test_the_bytes_of_pictures_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = uri(Image.frombytes("RGB", (200, 200), random.Random(1).randbytes(120_000)))
    rows = [{"id": str(i), "images": [one]} for i in range(10)]
    monkeypatch.setattr("vold.report.eval_samples.PAGE_PICTURES", 6 * len(one))
    html, page = page_of(tmp_path / "p.html", {}, {"m": {"s": rows, "t": rows}})
    assert len(page.named("img")) == 6  # three of either set
    assert html.count("a picture is left out") == 14


# Nothing fails, nothing runs


def everything_hostile() -> tuple[dict[str, Any], dict[str, Any]]:
    def bad(value: Any) -> Any:
        if isinstance(value, dict):
            return {HOSTILE + str(k) if str(k) in hostile_keys else k: bad(v) for k, v in value.items()}
        if isinstance(value, list):
            return [bad(v) for v in value]
        return HOSTILE + value if isinstance(value, str) and value not in kept else value

    hostile_keys = {"base", "vold", "angles", "words", "level", "1", "2", "10", "worst_case"}
    kept = {o for by in OUTCOMES.values() for s in by.values() for o in s.split()} | {"base", "vold"}
    samples = made_samples()
    kept |= {i for by in samples.values() for rows in by.values() for r in rows for i in r["images"]}
    return bad(made_results()), bad(samples)


def test_text_of_models_and_data_is_escaped(tmp_path: Path) -> None:
    html, page = page_of(tmp_path / "p.html", *everything_hostile())
    assert html.count("<script") == html.count("</script") == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "\u202e" not in html
    assert "<script>window.pwned" not in html
    assert clean(HOSTILE) in unescape(html)
    assert "[U+202E]gnorw[U+202C]" in html


def test_page_needs_nothing_from_outside(made: Path) -> None:
    html = made.read_text()
    page = Page(html)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", html)
    assert not re.search(r"@import|url\(", html)
    assert {t for t, _ in page.tags} & {"link", "iframe", "object", "embed", "base"} == set()
    assert all((a["href"] or "").startswith("#") for a in page.named("a"))
    policy = page.named("meta")[1]["content"] or ""
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_odd_characters_can_be_written(tmp_path: Path) -> None:
    rows = [{"id": "\ud800", "response": "\x00\x1b[31m \udfff \u2067", "tags": {"a\nb": "c"}}]
    html, _ = page_of(tmp_path / "p.html", {"run": {"name": "\ud83d"}}, {"\ud800": {"s": rows}, "m": {"s": rows}})
    assert "[U+2067]" in html
    assert "\x1b" not in html


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*here, key)
        yield from paths(inner, (*here, key))


def damaged(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = junk
    return value


@pytest.mark.parametrize("junk", [None, "x", -3, [None, 1, "y"], {"z": {"z": None}}, float("nan")], ids=repr)
def test_junk_anywhere_is_survived(tmp_path: Path, junk: Any) -> None:
    from vold.report.eval_page import context

    results, samples = made_results(), made_samples()
    for path in paths(results):
        context(damaged(results, path, junk), samples, 60)
    for path in paths(samples):
        context(results, damaged(samples, path, junk), 60)
    html, _ = page_of(tmp_path / "p.html", dict.fromkeys(results, junk), {"m": junk, "n": {"s": junk}})
    assert "No benchmark has been measured" in html


def test_nothing_at_all_is_a_page_of_notes(tmp_path: Path) -> None:
    html, _ = page_of(tmp_path / "deep" / "p.html", {}, {})
    for note in ("No benchmark has been measured", "Nothing to compare", "No outcomes", "No answers are stored"):
        assert note in html


def test_a_row_without_its_fields_is_shown(tmp_path: Path) -> None:
    html, _ = page_of(tmp_path / "p.html", {}, {"m": {"s": [{}]}})
    assert "an empty response" in html
    assert f"reference <code>{DASH}</code>" in html
    assert f"{DASH} tokens" in html


# In a browser


FILTERED = {
    "": [12, 6],
    "#samples?set=angles": [8, 4],
    "#samples?model=vold": [6, 6],
    "#samples?outcome=right": [6, 5],
    "#samples?model=base&outcome=truncated": [1, 1],
    "#samples?outcome=gained": [3, 3],
    "#samples?outcome=lost": [1, 1],
    "#samples?outcome=gained&others=1": [6, 3],
    "#samples?tag=level%3A+2": [6, 3],
    "#samples?set=angles&tag=level%3A+2&outcome=right": [1, 1],
    "#samples?text=NEEDLE": [1, 1],
    "#samples?text=what+is+3": [2, 1],
    "#samples?text=nowhere": [0, 0],
    "#samples?set=angles&id=a1&sample=0": [2, 1],
    "#samples?model=nosuch": [12, 6],
    "#accuracy": [12, 6],
}
"""Answers and questions that are to be seen at an address."""


def test_the_hash_filters(made: Path) -> None:
    steps = [DISPLAYED, "document.querySelector('#count').textContent"]
    values = evaluate(made, steps, hashes=list(FILTERED))
    assert {h: v[0] for h, v in zip(FILTERED, values, strict=True)} == FILTERED
    said = dict(zip(FILTERED, (v[1] for v in values), strict=True))
    assert said["#samples?outcome=right"] == "6 of 12 answers, to 5 of 6 questions"
    assert said["#samples?model=nosuch"] == "12 of 12 answers, to 6 of 6 questions; not on this page: model nosuch"
    assert said["#samples?set=angles&id=a1&sample=0"].endswith("; only question a1")


def test_filters_write_the_hash_and_count(made: Path) -> None:
    def choose_in(name: str, value: str) -> str:
        event = "form.dispatchEvent(new Event('input', {bubbles: true}))"
        return f"(form.elements.{name}.value = {value!r}, {event}, location.hash)"

    labels = "[...form.elements.outcome.options].filter(o => !o.hidden).map(o => o.textContent)"
    (values,) = evaluate(
        made,
        [
            choose_in("model", "vold"),
            labels,
            choose_in("text", "a&b = c"),
            DISPLAYED,
            "(form.querySelector('button').click(), location.hash)",
            DISPLAYED,
            "document.querySelector('.head a').getAttribute('href')",
        ],
    )
    assert values[0] == "#samples?model=vold"
    assert values[1] == ["any (6)", "right (4)", "wrong (1)", "timed out (1)", "right, base was not (3)",
                         "not right, base was (1)"]  # fmt: skip
    assert values[2] == "#samples?model=vold&text=a%26b+%3D+c"
    assert values[3] == [0, 0]
    assert values[4] == "#samples"
    assert values[5] == [12, 6]
    assert values[6] == "#samples?set=angles&id=a0&sample=0"


def test_keys_walk_through_the_questions(made: Path) -> None:
    def press(key: str) -> str:
        where = "document.activeElement"
        event = f"new KeyboardEvent('keydown', {{key: {key!r}, bubbles: true, cancelable: true}})"
        return f"({where}.dispatchEvent({event}), {where}.dataset.id ?? {where}.name)"

    (values,) = evaluate(made, [press(k) for k in "jjkkj/j"], hashes=["#samples?outcome=gained"])
    assert values == ["a1", "a2", "a1", "a1", "a2", "text", "text"]


def test_tables_are_sorted(made: Path) -> None:
    column = "[...document.querySelector('.sortable').tBodies[0].rows].map(r => r.cells[0].textContent)"
    heads = "document.querySelectorAll('.sortable th')"
    clicks = [f"({heads}[{i}].querySelector('button').click(), {column})" for i in (2, 2, 0, 0, 1)]
    (values,) = evaluate(made, [column, *clicks, f"{heads}[1].ariaSort"])
    assert values[0] == ["1", "2", "10"]
    assert values[1] == ["1", "10", "2"]  # 100, 50, 0
    assert values[2] == ["2", "10", "1"]
    assert values[3] == ["1", "2", "10"]
    assert values[4] == ["10", "2", "1"]
    assert values[5] == ["10", "1", "2"]  # 2, 1, not known
    assert values[6] == "descending"


def test_nothing_hostile_runs(tmp_path: Path) -> None:
    file = write_page(tmp_path / "p.html", *everything_hostile())
    steps = [
        "window.pwned ?? 0",
        "document.scripts.length",
        "document.querySelectorAll('img[src=x]').length",
        "performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length",
        DISPLAYED,
        "document.querySelector('.answer pre:last-child').textContent.includes('<script>window.pwned=1</script>')",
        "form.hidden",
    ]
    (values,) = evaluate(file, steps)
    assert values == [0, 1, 0, 0, [12, 6], True, False]


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_follows_the_colour_scheme(made: Path, dark: bool) -> None:
    steps = [
        "document.querySelectorAll('details').forEach(d => d.open = true)",
        "document.documentElement.scrollWidth <= innerWidth",
        "getComputedStyle(document.body).backgroundColor",
    ]
    (values,) = evaluate(made, steps, width=390, dark=dark)
    assert values[1:] == [True, "rgb(22, 24, 26)" if dark else "rgb(253, 253, 252)"]
