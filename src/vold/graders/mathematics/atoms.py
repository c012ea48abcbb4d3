r"""What sums and products are made of: numbers, names, functions with their arguments, and everything in brackets."""

from __future__ import annotations

from fractions import Fraction

from vold.graders.mathematics import units
from vold.graders.mathematics.brackets import Brackets, Unsupported
from vold.graders.mathematics.notation import Unreadable
from vold.graders.mathematics.trees import Node, number

_FUNCTIONS_TEXT = """
sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth arsinh arcosh artanh ln log lg exp det
gcd lcm max min asin acos atan
"""
_FUNCTIONS = frozenset(_FUNCTIONS_TEXT.split())
TRIGONOMETRIC = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])
_ARC = {name: f"arc{name}" for name in ("sin", "cos", "tan", "cot")}
_CONSTANTS = {"pi": "pi", "infty": "inf", "infinity": "inf", "inf": "inf", "e": "e", "i": "i"}
_GREEK_TEXT = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi
omega
"""
_GREEK = frozenset(_GREEK_TEXT.split())
_APPLIED = frozenset("fghFGH")
_POINTED = frozenset(("angle", "triangle", "measuredangle", "Delta", "odot", "square", "parallelogram", "arc"))
_BASE_WORDS = {
    name: base
    for base, names in (
        (2, "two binary"), (3, "three"), (4, "four"), (5, "five"), (6, "six"), (7, "seven"), (8, "eight octal"),
        (9, "nine"), (10, "ten decimal"), (11, "eleven"), (12, "twelve"), (16, "sixteen hex hexadecimal"),
    )
    for name in names.split()
}  # fmt: skip


class Atoms(Brackets):
    """The part of the parser that reads atoms."""

    def atom(self) -> Node:
        """A number, a name, a function with its argument, or something in brackets."""
        based = self._based_number()
        if based is not None:
            return based
        token = self.peek()
        read = {
            "num": self._number, "word": self._word, "text": self._word, "sym": self._sym, "cmd": self._command,
            "begin": self.environment, "(": self.bracket, "[": self.bracket, r"\{": self.set, "{": self.group,
            "|": self.bars,
        }.get(token.kind)  # fmt: skip
        if read is None:
            raise Unreadable("not LaTeX maths")
        return read()

    # -- numbers -----------------------------------------------------------------------------------------------------

    def _number(self) -> Node:
        token = self.peek()
        self.at += 1
        return number(token.value, token.places)

    def _based_number(self) -> Node | None:
        r"""`101_2`, `(101)_2`, `FF_{16}`: digits with a base below them. None, and nothing read, if there are none."""
        start = self.at
        opened = self.peek().kind in ("(", "{")
        self.at += opened
        digits = ""
        while self.peek().kind in ("num", "word", "text") and not (digits and self.peek().spaced):
            digits += self.peek().text
            self.at += 1
        self.at += opened and self.peek().kind in (")", "}")
        if digits and self.peek().kind == "_" and (not opened or self.found[self.at - 1].kind in (")", "}")):
            self.at += 1
            name = self.subscript().strip("()").lower()
            base = _BASE_WORDS.get(name) or (int(name) if name.isdecimal() and len(name) < 3 else 0)
            value = _in_base(digits, base)
            if value is not None:
                return Node("based", (number(value),), base)
        self.at = start
        return None

    # -- names -------------------------------------------------------------------------------------------------------

    def _sym(self) -> Node:
        if self.peek().text == "mathbb R" and self.peek(1).kind not in ("^", "_"):
            self.at += 1
            infinite = Node("const", (), "inf")
            return Node("tuple", (Node("neg", (infinite,)), infinite), "()")
        return self._named(self.next())

    def _word(self) -> Node:
        token = self.peek()
        word = token.text
        if word in _FUNCTIONS or (word == "sqrt" and self.peek(1).kind in ("(", "{")):
            self.at += 1
            return self._root() if word == "sqrt" else self._function(word)
        if word in ("pi", "infinity", "inf") or word in _GREEK:
            self.at += 1
            return Node("const", (), _CONSTANTS[word]) if word in _CONSTANTS else self._named(word)
        unit = units.match(self.found, self.at) if token.kind == "text" and len(word) > 1 else None
        if unit is not None and self.at:  # "4 ft x 12 ft"
            self.at = unit[1]
            return Node("sym", (), f"unit {unit[0]}")
        if len(word) > 1 and (token.kind == "text" or len(word) > 3):
            raise Unreadable("words beside the value")
        if len(word) > 1:
            self._split_word()
        return self._letter(self.next())

    def _letter(self, letter: str) -> Node:
        if letter in ("e", "i") and self.peek().kind not in ("_", "'"):
            return Node("const", (), letter)
        if letter in _APPLIED and self.peek().kind == "(":
            return self._applied(letter)
        return self._named(letter)

    def _applied(self, name: str) -> Node:
        arguments = self.bracket()
        return Node("apply", arguments.args if arguments.op == "tuple" else (arguments,), name)

    def _named(self, name: str) -> Node:
        """A name with its subscript."""
        if self.peek().kind == "_":
            self.at += 1
            name = f"{name}_{self.subscript()}"
        return Node("sym", (), name)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _command(self) -> Node:
        name = self.peek().text
        self.at += 1
        special = {
            "frac": self._fraction, "sqrt": self._root, "binom": self._fraction, "lfloor": self._floor,
            "lceil": self._floor, "Vert": self._norm, "sum": self._iterated, "prod": self._iterated,
            "emptyset": lambda: Node("set"), "dollar": self._money, "euro": self._money, "pounds": self._money,
        }.get(name)  # fmt: skip
        if special is not None:
            return special()
        if name in _FUNCTIONS:
            return self._function(name)
        if name in _CONSTANTS:
            return Node("const", (), _CONSTANTS[name])
        if name in _POINTED:
            return self._points(name)
        if name in _REFUSED:
            raise Unsupported("a notation whose value is not worked out")
        return self._named(f"\\{name}" if name not in _GREEK else name)

    def _money(self) -> Node:
        name = {"pounds": "pound_sterling"}.get(self.found[self.at - 1].text, self.found[self.at - 1].text)
        value = self._factor_after_sign()
        return Node("unit", (value,), ((name, 1),))

    def _points(self, name: str) -> Node:
        r"""`\angle ABC`, `\triangle ABC`: the letters are points in an order, not a product."""
        token = self.peek()
        if token.kind in ("word", "text", "sym"):
            self.at += 1
            return self._named(f"\\{name} {token.text}")
        if token.kind == "num":
            return Node("named", (self._number(),), name)
        return self._named(f"\\{name}")

    def _fraction(self) -> Node:
        """A fraction or a binomial coefficient."""
        op = "div" if self.found[self.at - 1].text == "frac" else "binom"
        above = self.argument(single_digit=True)
        return Node(op, (above, self.argument(single_digit=True)))

    def _root(self) -> Node:
        index = number(2)
        if self.peek().kind == "[":
            self.at += 1
            index = self.inner()
            self.take("]")
        return Node("root", (self.argument(), index))

    def _floor(self) -> Node:
        name = self.found[self.at - 1].text
        inside = self._up_to("rfloor" if name == "lfloor" else "rceil")
        return Node("floor" if name == "lfloor" else "ceil", (inside,))

    def _norm(self) -> Node:
        return Node("named", (self._up_to("Vert"),), "norm")

    def _up_to(self, name: str) -> Node:
        """An expression with a command behind it."""
        inside = self.inner()
        if not self.cmd(name):
            raise Unreadable("not LaTeX maths")
        self.at += 1
        return inside

    def _iterated(self) -> Node:
        r"""`\sum_{k=1}^{10} k^2` and `\prod`."""
        name = self.found[self.at - 1].text
        self.take("_")
        self.take("{")
        variable = self.next()
        self.take("=")
        low = self.expression()
        self.take("}")
        self.take("^")
        high = self.argument()
        return Node(name, (low, high, self.product()), variable)

    def _function(self, name: str) -> Node:
        """A function with its power, its base and its argument, with or without brackets."""
        power, base = None, None
        while self.peek().kind in ("^", "_"):
            kind = self.peek().kind
            self.at += 1
            if kind == "^":
                power = self.argument(sign=True)
            else:
                base = self.argument()
        bracketed = self.peek().kind in ("(", "{", "|", "[", r"\{")
        inside = self._function_argument(bracketed)
        inside = inside.args[0] if inside.op == "set" and len(inside.args) == 1 else inside
        if power in (Node("neg", (number(1),)), number(-1)) and name in _ARC:
            name, power = _ARC[name], None
        if inside.op == "unit" and inside.value == (("deg", 1),):  # "sin(30 degrees)"
            inside = Node("deg", inside.args)
        arguments = inside.args if inside.op == "tuple" else (inside,)
        made = Node("func", (*arguments, *(() if base is None else (Node("base", (base,)),))), name)
        return made if power is None else Node("pow", (made, power))

    def _function_argument(self, bracketed: bool) -> Node:
        self.nested()
        if bracketed:
            inside = self.atom()
        else:
            sign = self.peek().kind == "-"
            self.at += sign
            factors = [self.power()]
            while self._starts_factor() and not self._starts_function():
                factors.append(self.power())
            inside = factors[0] if len(factors) == 1 else Node("mul", tuple(factors))
            inside = Node("neg", (inside,)) if sign else inside
        self.depth -= 1
        return inside

    def _starts_function(self) -> bool:
        return self.peek().text in _FUNCTIONS or self.peek().kind in ("(", "[", r"\{")


_REFUSED_TEXT = """
int iint oint lim partial nabla cancel bcancel xcancel sout phantom hphantom not underbrace overbrace overset
underset stackrel text mathrm def let newcommand input include write print href url
"""
_REFUSED = frozenset(_REFUSED_TEXT.split())


def _in_base(text: str, base: int) -> Fraction | None:
    """The value of digits in a base; None if they are none. A letter alone, as in `a_{16}`, is a name."""
    whole, dot, part = text.partition(".")
    digits = whole + part
    if (
        not 2 <= base <= 36
        or not digits.isalnum()
        or bool(dot) != bool(part)
        or (digits.isalpha() and len(digits) == 1)
    ):
        return None
    if not digits.isdigit() and base != 16 and digits != digits.upper():
        return None
    try:
        return Fraction(int(digits, base), base ** len(part))
    except ValueError:
        return None
