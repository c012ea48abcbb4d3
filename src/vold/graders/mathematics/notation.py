# ruff: noqa: RUF001 (the look-alike characters are what this module is about)
r"""Bring a mathematical answer into one notation and cut it into tokens.

Layout is dropped here (`\left`, `\displaystyle`, `\,`, colours, fonts of numbers), look-alike characters are folded,
and numbers are read whole: `1,000`, `1\,000`, `1{,}000`, `0.1\overline{6}`, `1e3`. What is inside `\text{}` becomes
tokens of its own kind, so that words are never taken for products of letters. Linear in the length of the text.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from vold.graders.extract import fold, squeeze

_SYMBOLS = {
    "×": r"\times ", "÷": "/", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "∕": "/", "⁄": "/", "∶": ":", "π": r"\pi ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ",
    "λ": r"\lambda ", "μ": r"\mu ", "µ": r"\mu ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ",
    "ω": r"\omega ", "Δ": r"\Delta ", "Ω": r"\Omega ", "Σ": r"\Sigma ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
    "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "∖": r"\setminus ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "º": r"^\circ ",
    "℃": r"^\circ C", "℉": r"^\circ F", "√": r"\sqrt ", "∛": r"\sqrt[3] ", "¼": r"\frac{1}{4}", "½": r"\frac{1}{2}",
    "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}",
    "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}",
    "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}", "€": r"\euro ", "£": r"\pounds ", "ℝ": r"\mathbb{R}",
    "∠": r"\angle ", "△": r"\triangle ", "′": "'", "″": "''", "’": "'", "⟨": r"\langle ", "⟩": r"\rangle ",
    "〈": r"\langle ", "〉": r"\rangle ", "（": "(", "）": ")", "，": ",", "；": ";", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "¢": r"\text{ cents}", "∑": r"\sum ", "∏": r"\prod ",
    "∫": r"\int ",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LAYOUT = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|hline|hfill|strut|mathstrut|middle|noindent"
    r"|[Bb]igg?[lrm]?|bf|rm|it|sf|left|right|boxed|fbox|underline)(?![a-zA-Z])"
    r"|\\(?:text)?color\s*\{[^{}]*\}|\\[hv]space\*?\{[^{}]*\}"
)
_BLANK = re.compile(
    r"(\\\\)(?:\[[^\[\]{}]*\])?|\\(?:q?quad|thinspace|enspace|thickspace|medspace)(?![a-zA-Z])|\\[,;:! ]|~"
)
_ARRAY = re.compile(r"\\begin\s*\{array\}\s*(?:\[[a-z]\]\s*)?\{[^{}]*\}")
_CASES = re.compile(r"\\left\s*\\\{\s*\\begin\s*\{(?:array\}\s*\{[^{}]*|array|aligned|matrix|gathered)\}")
_TIMES_TEN = re.compile(r"(?<=[\d}]) ?[xX] ?(?=10 ?\^)")
_ANGLED = re.compile(r"<([^<>=]*,[^<>=]*)>")

_TEXT_COMMANDS_TEXT = """
text mathrm mbox textrm textit textbf textsf texttt emph mathit mathsf mathtt textnormal operatorname hbox
"""
TEXT_COMMANDS = frozenset(_TEXT_COMMANDS_TEXT.split())
_BOLD = frozenset(["mathbf", "boldsymbol", "bm", "vec", "hat", "overrightarrow", "widehat"])
_FONT_TEXT = """
mathbb mathcal mathfrak mathscr overline bar dot tilde overparen widetilde
"""
_FONT = frozenset(_FONT_TEXT.split())

_MARK = r"\\(?:overline|bar)\s*(?:\{\s*(\d+)\s*\}|(\d))"
_REPEATING = re.compile(rf"(\d*)\.\s*(\d*)\s*{_MARK}")
_DOT = r"\\dot\s*(?:\{\s*(\d)\s*\}|(\d))"
_DOTTED = re.compile(rf"(\d*)\.\s*(\d*)\s*{_DOT}(?:(\d*)\s*{_DOT})?")
_BRACKETED = re.compile(r"(\d+)\.\((\d+)\)")
_SCIENTIFIC = re.compile(r"(?:\d+\.?\d*|\.\d+)[eE][+-]?\d{1,4}(?![\w.])")
_GROUPED = re.compile(r"\d{1,3}(?:\{,\}\d{3})+(?:\.\d+)?(?!\d)")
_DECIMAL_COMMA = re.compile(r"(\d+)\{,\}(\d+)(?![\d{])")
_PLAIN = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_OPENING = re.compile(r"\s*\{")
_ENVIRONMENT = re.compile(r"\s*\{\s*([a-zA-Z]+)\*?\s*\}")
_LETTERS = re.compile(r"\s*(?:\{\s*\\?([a-zA-Z]+)\s*\}|\\?([a-zA-Z])(?![a-zA-Z]))")
_LEX = re.compile(r"\\[a-zA-Z]+\*?|\\.|[a-zA-Z]+|<=|>=|!=|:=|.", re.DOTALL)


class Unreadable(ValueError):
    """The text is no mathematical answer that could be compared."""


class Token(NamedTuple):
    r"""A piece of an answer. `kind` is one of

    "num" (with its `value` and `places`, the decimals it is written with), "word" (letters), "text" (letters inside
    `\text{}`), "cmd" (a command without its backslash), "sym" (a letter or points in a font of their own), "begin" and
    "end" of an environment, or the sign itself. `spaced`: a blank stands before it.
    """

    kind: str
    text: str
    spaced: bool = False
    value: Fraction = Fraction(0)
    places: int = 0

    @property
    def joins(self) -> bool:
        """Whether it is an "or" or "and", which stands between answers."""
        return self.kind in ("word", "text") and self.text.lower() in ("or", "and")


def tokens(text: str) -> list[Token]:
    """Cut an answer into tokens.

    Raises:
        Unreadable: it is empty, holds control characters, or braces do not match.
    """
    if CONTROL.search(text):
        raise Unreadable("control character")
    found = _join_thousands(_Lexer(tidy(text)).run())
    if not found:
        raise Unreadable("empty")
    return found


def tidy(text: str) -> str:
    """Fold look-alikes and drop layout."""
    latex = fold(text)
    if not latex.isascii():
        latex = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda run: f"^{{{run.group().translate(_SUPERSCRIPTS)}}}", latex)
        latex = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda run: f"_{{{run.group().translate(_SUBSCRIPTS)}}}", latex)
        latex = "".join(_SYMBOLS.get(character, character) for character in latex)
    latex = squeeze(latex.replace("...", r"\ldots "))
    latex = _CASES.sub(r"\\begin{cases}", latex)
    latex = re.sub(r"\\end\s*\{(?:array|aligned|matrix|gathered)\}\s*\\right\.", r"\\end{cases}", latex)
    latex = _ARRAY.sub(r"\\begin{array}", latex)
    latex = latex.replace(r"\left.", " ").replace(r"\right.", " ")
    latex = _LAYOUT.sub(" ", latex).replace(r"\$", r"\dollar ")
    latex = re.sub(r"(?<=[^\s$+*/=-])\$\s+\$(?=[^\s$])", ", ", latex)
    parts = re.split(r"[,;]?\s*\\q?quad(?![a-zA-Z])", latex)
    if len(parts) > 1 and all(re.search(r"[=<>]|\\[lg]e", part) for part in parts):
        latex = ", ".join(parts)
    if latex.count("$") == 1:
        latex = latex.replace("$", r"\dollar ")
    latex = re.sub(r"(\\\\)|(?<!\\)\$|\\[()\[\]]", lambda m: m[1] or " ", latex)
    latex = re.sub(r"(?<=\d)(?:,\\!|\{,\\!\}|\\!,|\{,\})\s*(?=\d)", "{,}", latex)
    latex = re.sub(r"\^\s*(?:\{\s*((?:\\prime\s*)+)\}|(\\prime))", lambda m: "'" * m[0].count("prime"), latex)
    latex = _BLANK.sub(lambda m: m[1] or " ", latex)
    latex = _TIMES_TEN.sub(r"\\times ", squeeze(latex))
    whole = _ANGLED.fullmatch(latex.strip())
    latex = rf"\langle {whole[1]}\rangle" if whole else latex
    return re.sub(r"(?<!\\)\s*[,;]?\s*\.?\s*$", "", latex).strip()


class _Lexer:
    """One pass over the text. Groups of fonts and of text are marked by the depth at which they end."""

    def __init__(self, latex: str) -> None:
        self.latex, self.at, self.spaced = latex, 0, False
        self.found: list[Token] = []
        self.wrapped: list[bool] = []
        """For each open brace whether it belongs to a text command."""

    def run(self) -> list[Token]:
        while self.at < len(self.latex):
            if self.latex[self.at].isspace():
                self.at, self.spaced = self.at + 1, True
            elif not ((self.latex[self.at].isdigit() or self.latex[self.at] == ".") and self._number()):
                self._other()
        if self.wrapped:
            raise Unreadable("braces that do not match")
        return self.found

    def _add(self, kind: str, text: str, value: Fraction = Fraction(0), places: int = 0) -> None:
        self.found.append(Token(kind, text, self.spaced, value, places))
        self.spaced = False

    def _number(self) -> bool:
        for pattern, make in _NUMBERS:
            found = pattern.match(self.latex, self.at)
            if found:
                value, places = make(found)
                self._add("num", found.group(), value, places)
                self.at = found.end()
                return True
        return False

    def _other(self) -> None:
        found = _LEX.match(self.latex, self.at)
        assert found is not None
        piece, self.at = found.group(), found.end()
        if piece[0] == "\\" and piece[1:2].isalpha():
            self._command(piece[1:].rstrip("*"))
        elif piece == "{":
            self.wrapped.append(False)
            self._add("{", "{")
        elif piece == "}":
            if not self.wrapped:
                raise Unreadable("braces that do not match")
            if self.wrapped.pop():
                self.spaced = True
            else:
                self._add("}", "}")
        elif piece[0].isalpha() and piece.isascii():
            self._add("text" if True in self.wrapped else "word", piece)
        else:
            piece = {r"\%": "%", r"\&": "&"}.get(piece, piece)
            self._add(*(("cmd", "Vert") if piece == r"\|" else (piece, piece)))

    def _command(self, name: str) -> None:
        group = _OPENING.match(self.latex, self.at)
        if name in ("begin", "end"):
            self._environment(name)
        elif name in TEXT_COMMANDS and group:
            self.at, self.spaced = group.end(), self.spaced or name != "operatorname"
            self.wrapped.append(True)
        elif name in _BOLD or name in _FONT:
            self._font(name)
        else:
            self._plain_command(_ALIASES.get(name, name))

    def _plain_command(self, name: str) -> None:
        self._add("text" if name in ("and", "or") else "cmd" if name.isalpha() else name, name)

    def _environment(self, kind: str) -> None:
        found = _ENVIRONMENT.match(self.latex, self.at)
        if found is None:
            raise Unreadable("not LaTeX maths")
        self.at = found.end()
        self._add(kind, found[1])

    def _font(self, name: str) -> None:
        r"""`\mathbf{v}` is a name of its own; around anything but letters a font changes nothing."""
        found = _LETTERS.match(self.latex, self.at)
        letters = "" if found is None else {"imath": "i", "jmath": "j"}.get(found[1], found[1] or found[2])
        if found is not None and (name in _FONT or len(letters) == 1 or name[:1] in "ow"):
            self.at = found.end()
            self._add("sym", f"{'bold' if name in _BOLD else _ALIASES.get(name, name)} {letters}")
        elif name in ("mathbf", "boldsymbol", "bm"):
            group = _OPENING.match(self.latex, self.at)
            if group:
                self.at = group.end()
                self.wrapped.append(True)
        else:
            self._plain_command(_ALIASES.get(name, name))


def _repeating(found: re.Match[str]) -> tuple[Fraction, int]:
    return _periodic(found[1], found[2], found[3] or found[4])


def _dotted(found: re.Match[str]) -> tuple[Fraction, int]:
    last = found[6] or found[7]
    return _periodic(found[1], found[2], (found[3] or found[4]) + (found[5] + last if last else ""))


def _bracketed(found: re.Match[str]) -> tuple[Fraction, int]:
    return _periodic(found[1], "", found[2])


def _periodic(whole: str, fixed: str, period: str) -> tuple[Fraction, int]:
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
    return Fraction(int(whole + fixed or "0"), 10 ** len(fixed)) + tail, 0


def _scientific(found: re.Match[str]) -> tuple[Fraction, int]:
    return Fraction(found.group()), 0


def _decimal_comma(found: re.Match[str]) -> tuple[Fraction, int]:
    return Fraction(f"{found[1]}.{found[2]}"), len(found[2])


def _plain(found: re.Match[str]) -> tuple[Fraction, int]:
    digits = found.group().replace("{,}", "")
    return Fraction(digits), len(digits.partition(".")[2])


_NUMBERS = (
    (_REPEATING, _repeating),
    (_DOTTED, _dotted),
    (_BRACKETED, _bracketed),
    (_SCIENTIFIC, _scientific),
    (_GROUPED, _plain),
    (_DECIMAL_COMMA, _decimal_comma),
    (_PLAIN, _plain),
)
_ALIASES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge",
    "lt": "<", "gt": ">", "neq": "ne", "varnothing": "emptyset", "dbinom": "binom", "tbinom": "binom",
    "bar": "overline", "lbrace": "{", "rbrace": "}", "lvert": "|", "rvert": "|", "vert": "|", "lVert": "Vert",
    "rVert": "Vert", "varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "ast": "*", "div": "/",
    "colon": ":", "land": "and", "wedge": "and", "lor": "or", "vee": "or", "dots": "ldots", "cdots": "ldots",
    "dotsc": "ldots", "backslash": "setminus", "imath": "i", "lbrack": "[", "rbrack": "]", "lparen": "(",
    "langle": "(", "rangle": ")", "rparen": ")", "mod": "bmod", "smallsetminus": "setminus", "percent": "%",
    "iff": "Leftrightarrow", "widetilde": "tilde", "simeq": "approx", "bullet": "cdot",
}  # fmt: skip


def _join_thousands(found: list[Token]) -> list[Token]:
    """Join "1,000" outside brackets, or inside where other commas have blanks behind them; and "1 000" anywhere."""
    joined: list[Token] = []
    spaced_commas = _groups_with_spaced_commas(found)
    for i, token in enumerate(found):
        last = joined[-1] if joined else None
        if token.kind == "num" and _three(token) and last is not None:
            before = joined[-2] if len(joined) > 1 else None
            if (
                last.kind == ","
                and not token.spaced
                and not last.spaced
                and before
                and _head(joined, -2)
                and spaced_commas[i]
            ):
                joined[-2:] = [_glued(before, token)]
                continue
            if token.spaced and _head(joined, -1):
                joined[-1:] = [_glued(last, token)]
                continue
        joined.append(token)
    return joined


def _three(token: Token) -> bool:
    return re.fullmatch(r"\d{3}(?:\.\d+)?", token.text) is not None


def _head(joined: list[Token], at: int) -> bool:
    """Whether a number can go on with three more digits: 1 to 3 digits, or groups already joined."""
    token = joined[at]
    before = joined[at - 1].kind if len(joined) > -at else ""
    return (
        token.kind == "num"
        and before not in ("_", "^")
        and re.fullmatch(r"[1-9]\d{0,2}(?:[, ]\d{3})*", token.text) is not None
    )


def _glued(head: Token, tail: Token) -> Token:
    digits = head.text.replace(",", "").replace(" ", "") + tail.text
    return Token("num", f"{head.text},{tail.text}", head.spaced, Fraction(digits), tail.places)


def _groups_with_spaced_commas(found: list[Token]) -> list[bool]:
    """For each token whether a comma just before it may separate thousands."""
    loose: dict[int, bool] = {0: True}
    group, stack, owner = 0, [0], []
    for i, token in enumerate(found):
        if token.kind in ("(", "[", r"\{", "{"):
            group += 1
            stack.append(group)
        owner.append(stack[-1])
        if token.kind in (")", "]", r"\}", "}") and len(stack) > 1:
            stack.pop()
        if token.kind in (",", ";") and i + 1 < len(found) and (found[i + 1].spaced or token.kind == ";"):
            loose[stack[-1]] = True
    return [loose.get(own, False) for own in owner]
