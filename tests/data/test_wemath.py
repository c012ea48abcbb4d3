"""We-Math's options, several in one cell: rows as the published file has them."""

from __future__ import annotations

import contextlib
import time

import pytest

from vold.data.benchmarks.wemath import semicolon_options
from vold.errors import DataError


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        pytest.param("A. 3;B. 4; C. x; y;", ("3", "4", "x; y"), id="semicolons-in-a-text"),
        pytest.param(
            "A. There is an obtuse angle ∠AB;E.; B. There is an obtuse angle ∠AB;C.; C. There is no obtuse angle.",
            ("There is an obtuse angle ∠ABE", "There is an obtuse angle ∠ABC", "There is no obtuse angle."),
            id="an-angle-cut-in-two",
        ),
        pytest.param(
            "A. then 2 units downward to get Shape ;C.; B. then 4 units to the right to get Shape ;C.; C. None",
            ("then 2 units downward to get Shape C", "then 4 units to the right to get Shape C", "None"),
            id="a-shape-cut-off-at-the-blank",
        ),
        pytest.param(
            "A. North to ;C.  ;B. West to ;C.  ;C. East to ;C. ;D. No correct answer",
            ("North to C", "West to C", "East to C", "No correct answer"),
            id="blanks-behind-a-lone-label",
        ),
        pytest.param(
            "A. to obtain shape ;B.; B. to obtain shape ;B.; C. None",
            ("to obtain shape B", "to obtain shape B", "None"),
            id="a-lone-label-that-would-come-next",
        ),
        pytest.param(
            "A. 4 B. 3 C. 2 ;D. 1; E. No correct answer", ("4", "3", "2", "1", "No correct answer"), id="no-semicolons"
        ),
        pytest.param(
            "A. 6cm, 2cm B. 1cm, 3cm ;C. 1cm, 4cm", ("6cm, 2cm", "1cm, 3cm", "1cm, 4cm"), id="one-semicolon-missing"
        ),
        pytest.param("A. ①;B\uff0e②;C\uff1a ③\uff1b D. none", ("①", "②", "③", "none"), id="full-width-marks"),
        pytest.param(
            "A. Turn it around point ;O.;B. Yes;C. No.; F. No correct answer",
            ("Turn it around point ;O.", "Yes", "No.", "No correct answer"),
            id="a-last-label-that-is-too-late",
        ),
        pytest.param("", (), id="nothing"),
    ],
)
def test_options_are_those_that_were_meant(cell: str, texts: tuple[str, ...]) -> None:
    assert semicolon_options(cell) == texts


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param("A. 1;B. 2;B. 3", id="twice-the-same-label"),
        pytest.param("B. 1;A. 2", id="backwards"),
        pytest.param("A. 1; C. 2; D. 3", id="a-gap"),
        pytest.param("A. 1;B. 2;C.", id="no-text-behind-the-last"),
        pytest.param("1;B. 2", id="no-label"),
        pytest.param(";".join(f"{letter}. x" for letter in "ABCDEFGHIJKLL"), id="more-than-have-letters"),
    ],
)
def test_labels_out_of_order_are_an_error_and_not_lettered_anew(cell: str) -> None:
    with pytest.raises(DataError):
        semicolon_options(cell)


@pytest.mark.parametrize("cell", ["A. " + " " * 40_000 + "x", "A. 1" + " B" * 20_000 + ";C. 4", "A.;" + "B.;" * 13_000])
def test_a_long_cell_is_split_at_once(cell: str) -> None:
    began = time.monotonic()
    with contextlib.suppress(DataError):
        semicolon_options(cell)
    assert time.monotonic() - began < 1.0
