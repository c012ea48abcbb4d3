"""The page of an evaluation: numbers worked out by hand in `pages`, half results, and a real browser that filters."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from browser import evaluate
from pages import DISPLAYED, Page, made_results, made_samples, uri
from vold.report import answers as chosen
from vold.report.answers import PROMPT, RESPONSE, THINKING
from vold.report.evaluation import content, evaluation, write_results
from vold.report.headline import gains
from vold.report.text import DASH, MINUS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def page_of(file: Path, results: Any = None, samples: Any = None, **options: Any) -> tuple[str, Page]:
    html = write_results(
        file,
        made_results() if results is None else results,
        made_samples() if samples is None else samples,
        **options,
    ).read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that no test changes."""
    return write_results(tmp_path_factory.mktemp("page") / "page.html", made_results(), made_samples())


# What it says


HEAD = ["score", "model", "%", "std. error", "95% interval", "truncated", "unparsed", "timed out", "questions",
        "mean tokens"]  # fmt: skip


def with_headlines() -> dict[str, Any]:
    """`angles` judged by two scores of its own, one of 20, and a mean of sets."""
    results = made_results()
    results["sets"]["angles"]["published"] = []
    results["headlines"] = [
        {"set": "mmmu_pro", "model": "base", "score": "overall", "value": 0.31, "low": 0.3, "high": 0.32},
        {"set": "angles", "model": "base", "score": "score_strict", "value": 0.229, "low": 0.2, "high": 0.26},
        {"set": "angles", "model": "base", "score": "perception", "value": 15.64, "low": 15.1, "high": 16.2},
    ]
    strict = {"value": 0.229, "low": 0.2, "high": 0.26, "n": 8, "stderr": 0.015}
    results["stages"]["base"]["angles"]["derived"] = {
        "score_strict": strict,
        "perception": {"value": 15.64, "low": 15.1, "high": 16.2, "n": 8, "most": 20.0},
        "three_step": {"value": 0.1, "low": 0.0, "high": 0.3, "n": 3},
    }
    return results


def test_a_set_is_shown_by_its_headline_scores(tmp_path: Path) -> None:
    _, page = page_of(tmp_path / "page.html", with_headlines())
    rows = page.rows
    assert rows[0] == HEAD
    assert rows[1:3] == [["MMMU-Pro, 10 options and vision"], ["overall", "base", "31.0", DASH, "30.0 to 32.0",
                          *[DASH] * 5]]  # fmt: skip
    assert rows[3] == ["Angles4 questions, test, protocol rule"]
    assert rows[4][:6] == ["score strict", "base", "22.9", "1.5", "20.0 to 26.0", "25.0"]
    assert rows[5][:5] == ["perception", "base", "1,564.0", DASH, "1,510.0 to 1,620.0"]
    assert ["three step", "base", "10.0", "0.0 to 30.0", "3"] in rows  # another score, further down
    drawn = [t for t in page.named("svg") if (t.get("aria-label") or "").startswith("Angles")]
    assert [t["aria-label"] for t in drawn] == [
        "Angles, score strict: base 22.9",
        "Angles, perception: base 1,564.0",
        "Angles: answers by outcome",
    ]


def test_a_published_figure_stands_by_its_own_score_only(tmp_path: Path) -> None:
    results = with_headlines()
    common = {"source": "a paper", "protocol": "vlmevalkit"}
    results["sets"]["angles"]["published"] = [
        {"model": "strictly", "value": 22.9, "metric": "score_strict", **common},
        {"model": "all", "value": 60.1, "metric": "accuracy", **common},
        {"model": "all again", "value": 61.0, "metric": "accuracy", **common},
    ]
    rows = page_of(tmp_path / "page.html", results)[1].rows
    start = next(i for i, r in enumerate(rows) if r[0].startswith("Angles"))
    assert [r[:3] for r in rows[start + 1 : start + 8]] == [
        ["score strict", "base", "22.9"],
        ["score strict", "strictly, published", "22.9"],
        ["perception", "base", "1,564.0"],
        ["accuracy", "base", "25.0"],
        ["accuracy", "vold", "75.0"],
        ["accuracy", "all, published", "60.1"],
        ["accuracy", "all again, published", "61.0"],
    ]
    assert rows[start + 2][3] == rows[start + 6][3] == "a paper; protocol vlmevalkit"
    assert len(rows[start + 7]) == 3  # one source, said once


def test_what_is_partial_says_so(tmp_path: Path) -> None:
    results = made_results()
    results["sets"]["angles"]["official_n"] = 3040
    mark, own = "4 of 3,040 items (3,036 beyond the limit)", "1 of 4 answers scores 0 because the server gave no answer"
    for model, marks in {"base": [mark], "vold": [mark, own]}.items():
        results["stages"][model]["angles"]["differs"] = marks
    _, page = page_of(tmp_path / "page.html", results)
    said = "4 of 3,040 questions, test, protocol rule"
    assert page.rows[1] == [f"Angles{said}{mark}vold: {own}"]


def test_how_a_judge_did_stands_beside_its_marks(tmp_path: Path) -> None:
    results = made_results()
    results["stages"]["vold"]["angles"]["judge_agreement"] = {"share": 0.95, "n": 1400, "unread": 12}
    said = "vold: judge and rule agree on 95.0% of 1,400 answers, and a rule alone cannot read 12 others"
    assert said in page_of(tmp_path / "page.html", results)[1].rows[1][0]


def test_the_peers_own_verdict_stands_beside_ours(tmp_path: Path) -> None:
    results = with_headlines()
    peer = {"accuracy": 0.2, "derived": {"score_strict": 0.215}, "lenient": 1, "strict": 0}
    results["stages"]["base"]["angles"]["as_vlmevalkit"] = peer
    rows = page_of(tmp_path / "page.html", results)[1].rows
    assert rows[0][5] == "as VLMEvalKit"
    assert rows[4][:6] == ["score strict", "base", "22.9", "1.5", "20.0 to 26.0", "21.5"]


def test_accuracy_stands_beside_what_was_not_marked(made: Path) -> None:
    rows = Page(made.read_text()).rows
    assert rows[0] == HEAD
    assert rows[1] == ["Angles4 questions, test, protocol rule"]
    assert rows[2] == ["accuracy", "base", "25.0", "25.0", "4.6 to 69.9", "25.0", "25.0", "0.0", "4", "120"]
    assert rows[3] == ["accuracy", "vold", "75.0", "25.0", "30.1 to 95.4", "0.0", "0.0", "25.0", "4", DASH]
    assert rows[4] == ["accuracy", "Other-3B, published", "27.1", "arXiv 2510.23497; protocol judge"]
    assert rows[5] == ["Words2 questions"]
    # 0.5 -+ 1.96 * 0.5, made here because no interval is stored, and cut at 0 and 1
    assert rows[6][1:5] == ["base", "50.0", "50.0", "0.0 to 100.0"]
    assert not any("published" in cell for row in rows[6:] for cell in row)
    assert ["worst case", "vold", "12.5", "1.0 to 30.0", "8"] in rows


def test_one_model_is_no_baseline(tmp_path: Path) -> None:
    results, samples = made_results(), made_samples()
    del results["run"]["models"]["vold"], results["stages"]["vold"], samples["vold"]
    results["comparisons"] = []
    html, _ = page_of(tmp_path / "page.html", results, samples)
    said = html[html.index("</style>") :]
    assert "baseline" not in said and "Differences to" not in said


def test_a_picture_is_named_where_it_stands_and_no_marker_is_left(tmp_path: Path) -> None:
    blank = uri(Image.new("RGB", (8, 8)))
    rows = [{"id": "1", "prompt": "<image>Left, <image> right", "images": [blank, blank]}]
    rows.append({"id": "2", "prompt": "<image>Left, and <image> again", "images": [blank]})
    html, _ = page_of(tmp_path / "page.html", {}, {"m": {"s": rows}})
    assert ">[picture 1]Left, [picture 2] right</div>" in html
    assert ">[picture]Left, and [picture] again</div>" in html


def test_how_an_answer_was_marked_is_said(tmp_path: Path) -> None:
    row = {"id": "1", "response": "so 60", "extracted": "B", "reference": "C", "note": "different", "score": 0.0}
    rows = [row | {"place": "the answer line", "read": "60"}, {**row, "id": "2", "as_vlmevalkit": 0.25}]
    html, _ = page_of(tmp_path / "page.html", {}, {"m": {"s": rows}})
    code = "<code>{}</code>".format
    assert (
        f"In the answer line {code(60)}, taken as {code('B')}, expected {code('C')}: <bdi>different</bdi></p>" in html
    )
    assert f"Answer {code('B')}, expected {code('C')}: <bdi>different</bdi>; VLMEvalKit gives 0.25</p>" in html


def test_difference_by_hand(made: Path) -> None:
    html = made.read_text()
    (row,) = [r for r in Page(html).rows if "not told apart" in r]
    assert row == ["vold", "+50.0", "", f"{MINUS}63.5 to +100.0", "not told apart", "0.353", "0.707", "0.500", "80.9"]
    assert 'Differences to <span class="name">base</span>' in html
    assert "With 1 interval of 95%, 0.1 would" in html


def test_a_difference_is_of_the_score_that_is_read_first(tmp_path: Path) -> None:
    results = with_headlines()
    found = {"difference": 1.5, "low": 0.5, "high": 2.5, "p_value": 0.01, "corrected_p": 0.02}
    results["comparisons"][0] |= {"headline": ["perception"], "derived": {"perception": found}}
    rows = page_of(tmp_path / "p.html", results)[1].rows
    start = rows.index(["Angles, perception"])
    assert rows[start + 1] == ["vold", "+150.0", "", "+50.0 to +250.0", "better", "0.010", "0.020", DASH, DASH]


@pytest.mark.parametrize(
    ("low", "high", "corrected", "says"),
    [(0.01, 0.2, 0.05, "better"), (-0.2, -0.01, 0.04, "worse"), (-0.2, -0.01, None, "worse"), (None, 0.2, 0.01, DASH),
     (0.0, 0.2, 0.05, "not told"), (0.01, 0.2, 0.051, "not told"), (-0.2, -0.01, 0.132, "not told")],
)  # fmt: skip
def test_what_an_interval_and_its_corrected_p_allow_to_say(
    tmp_path: Path, low: Any, high: Any, corrected: Any, says: str
) -> None:
    results = made_results()
    results["comparisons"][0] |= {"low": low, "high": high, "p_value": 1e-9, "corrected_p": corrected}
    row = next(r for r in page_of(tmp_path / "p.html", results)[1].rows if len(r) == 9 and r[1] == "+50.0")
    assert row[4].startswith(says)
    assert row[5] == "<0.001"
    (said, *_) = gains(evaluation(results, {}, 0))
    assert said.endswith(f"{says}{' apart' * says.startswith('not')}.") or says == DASH
    assert (f"corrected p {corrected:.3f}" in said) if corrected else ("corrected" not in said)


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
    assert [rows[i][8] for i in (2, 3)] == ["4 \N{MULTIPLICATION SIGN} 8", "4"]
    others = [r[:3] for r in rows if r[0].startswith(("pass@", "maj@"))]
    assert others == [["pass@4", "base", "37.5"], ["pass@8", "base", "50.0"], ["maj@k", "base", "30.0"]]


def test_breakdown_by_level_in_natural_order(made: Path) -> None:
    rows = Page(made.read_text()).rows
    start = next(i for i, r in enumerate(rows) if r[0] == "level")
    assert rows[start] == ["level", "questions", "base"]
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
    assert (images[0]["width"], images[0]["height"]) == ("288", "96")


def test_the_bytes_of_pictures_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = uri(Image.frombytes("RGB", (200, 200), random.Random(1).randbytes(120_000)))
    rows = [{"id": str(i), "images": [one]} for i in range(10)]
    monkeypatch.setattr(chosen, "PAGE_PICTURES", 6 * len(one))
    html, page = page_of(tmp_path / "p.html", {}, {"m": {"s": rows, "t": rows}})
    assert len(page.named("img")) == 6  # three of either set
    assert html.count("a picture is left out") == 14


# Nothing fails, nothing runs


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
    results, samples = made_results(), made_samples()
    for path in paths(results):
        content(damaged(results, path, junk), samples, 60)
    for path in paths(samples):
        content(results, damaged(samples, path, junk), 60)
    html, _ = page_of(tmp_path / "p.html", dict.fromkeys(results, junk), {"m": junk, "n": {"s": junk}})
    assert "No benchmark has been measured" in html


def test_nothing_at_all_is_a_page_of_notes(tmp_path: Path) -> None:
    html, _ = page_of(tmp_path / "deep" / "p.html", {}, {})
    for note in ("No benchmark has been measured", "Nothing to compare", "No outcomes", "No answers are stored"):
        assert note in html


def test_a_row_without_its_fields_is_shown(tmp_path: Path) -> None:
    html, _ = page_of(tmp_path / "p.html", {}, {"m": {"s": [{}]}})
    assert "an empty response" in html
    assert f"expected <code>{DASH}</code>" in html
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


def test_narrow_tables_keep_labels_with_values_and_zeros_in_line(tmp_path: Path) -> None:
    results = made_results()
    (pair,) = results["comparisons"]
    results["comparisons"] = [pair, pair | {"model": "vold_after_more_steps", "difference": -0.01}]
    lines = (
        "[...document.querySelectorAll('.scores .name')].map(name => name.getBoundingClientRect().top"
        " - name.closest('td').getBoundingClientRect().top).filter(below => below > 8)"
    )
    zeros = "[...document.querySelectorAll('.strip .zero')].map(zero => zero.getBoundingClientRect().x)"
    (found,) = evaluate(write_results(tmp_path / "page.html", results, {}), [lines, zeros], width=420)
    assert found[0] == []  # pixels that a name stands below its label
    assert len(found[1]) == 2 and len({*found[1]}) == 1


LONG = ("Qwen2.5-VL-3B-Instruct", "org/VLAA-Thinker-Qwen2.5VL-3B-with-a-long-checkpoint-name-step-000600", "w" * 90,
        "X_Reasoner_3B_reproduction")  # fmt: skip
WIDE = [
    "[...document.querySelectorAll('details')].forEach(d => d.open = true)",
    "document.documentElement.scrollWidth - document.documentElement.clientWidth",
    "[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth).map(s => s.ariaLabel)",
    # what is cut off: cells and texts of charts that reach out of the window
    "[...document.querySelectorAll('td, th, svg text, p')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
    " && getComputedStyle(e.closest('thead') ?? e).position !== 'absolute').map(e => e.textContent)",
]


@pytest.mark.parametrize("models", [1, 4])
@pytest.mark.parametrize("width", [1300, 420])
def test_nothing_is_wider_than_the_window(tmp_path: Path, models: int, width: int) -> None:
    """22 sets, long names, every kind of table; whatever is folded is unfolded."""
    results, samples = with_headlines(), made_samples()
    peer = {"accuracy": 0.2, "derived": {"score_strict": 0.215}}
    known, of = (
        results["stages"]["base"] | {"angles": results["stages"]["base"]["angles"] | {"as_vlmevalkit": peer}},
        LONG[:models],
    )
    results["run"]["models"] = dict.fromkeys(of, "/a/very/long/path/" * 9)
    results["sets"] |= {
        f"set{i}": results["sets"]["angles"] | {"title": f"Olympiad {i}, maths with pictures"} for i in range(20)
    }
    results["stages"] = {m: {**known, **{f"set{i}": known["angles"] for i in range(20)}} for m in of}
    results["headlines"] = [h | {"model": m} for h in results["headlines"] for m in of]
    (pair,) = results["comparisons"]
    pairs = [(a, b) for i, a in enumerate(of) for b in of[:i]]
    results["comparisons"] = [pair | {"set": s, "model": a, "against": b} for s in ("angles", "set1") for a, b in pairs]
    found = evaluate(
        write_results(tmp_path / "page.html", results, dict.fromkeys(of, samples["vold"])), WIDE, width=width
    )
    assert found[0][1:] == [0, [], []]
