r"""A strict parser for one mathematical value in LaTeX or plain notation.

Enters: `"\frac{1}{2}E_{1} + x(x+1)"`, cleaned (`distill.grading.quantities.clean`). Leaves: a tree of `Node`, or
`Unreadable`. Nothing is dropped, reordered or worked out: a sign that the grammar does not know makes the text
unreadable. `distill.grading.values` compares two trees.
"""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_DEPTH = 60
"""Deeper texts are unreadable: the parser calls itself."""

MAX_NODES = 3_000

FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "arcsin", "arccos", "arctan", "arccot",
    "arcsinh", "arccosh", "arctanh", "arsinh", "arcosh", "artanh", "log", "ln", "lg", "exp", "max", "min", "gcd", "lcm",
    "tg", "ctg", "arctg", "arcctg", "sh", "ch", "th", "cosec", "Re", "Im", "arg", "det", "tr", "rank", "dim", "deg", "ker", "sgn", "sign", "Var", "Cov",
})  # fmt: skip
_INVERSE = {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"}
_WORD = re.compile(
    r"(?:sqrt|infinity|infty|pi|theta|alpha|beta|gamma|lambda|"
    + "|".join(
        sorted(FUNCTIONS - {"deg", "arg", "Re", "Im", "tr", "dim", "sign", "th", "sh", "ch"}, key=len, reverse=True)
    )
    + r")(?![a-zA-Z])"
)
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau "
    "upsilon phi varphi chi psi omega nabla partial Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar aleph".split()
)
_SYMBOLS = {
    "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/",
    "°": r"^\circ ", "−": "-", "²": "^2", "³": "^3", "′": "'", "’": "'", "α": r"\alpha ", "β": r"\beta ",
    "γ": r"\gamma ", "θ": r"\theta ", "λ": r"\lambda ", "μ": r"\mu ", "σ": r"\sigma ", "ω": r"\omega ", "φ": r"\phi ",
    "ρ": r"\rho ", "∠": r"\angle ", "½": r"\frac12", "¼": r"\frac14", "¾": r"\frac34",
}  # fmt: skip
_STYLES = "mathbf|boldsymbol|bm|mathrm|mathit|mathsf|mathnormal|operatorname|text|textit|textbf|textrm|rm|mbox"
_ACCENTS = (
    "bar|overline|hat|widehat|tilde|widetilde|vec|overrightarrow|dot|ddot|underline|mathcal|mathbb|mathfrak|breve|check"
)
_STYLE = re.compile(rf"\\(?:{_STYLES})\s*\*?\{{\s*([a-zA-Z]+)\s*\}}")
_ACCENT = re.compile(rf"\\({_ACCENTS})(?![a-zA-Z])\s*")
_SHAPE = re.compile(r"\\(angle|triangle|measuredangle|odot|square)(?![a-zA-Z])\s*\{?\s*([A-Z]{1,4}|\d)\}?")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
_PLAIN = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_MIXED = re.compile(
    r"\s*\\frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)(\d)|(\d)\s*\{\s*(\d+)\s*\}|\{\s*(\d+)\s*\}(\d))"
)
_COMMAND = re.compile(r"\\([a-zA-Z]+)\s*")
_DERIVATIVE = re.compile(
    r"\\frac\s*\{\s*(d|\\partial|\\mathrm\{d\})(?:\^\{?(\d)\}?)?\s*([a-zA-Z]|\\[a-zA-Z]+)(?:_\{?\w\}?)?\s*\}\s*"
    r"\{\s*(?:d|\\partial|\\mathrm\{d\})\s*([a-zA-Z]|\\[a-zA-Z]+)\s*(?:\^\{?(\d)\}?)?\s*\}"
)
_TIMES = re.compile(r"(?:\\(?:cdot|times|ast)(?![a-zA-Z])|\*(?!\*))\s*")
_DIVIDE = re.compile(r"(?:\\div(?![a-zA-Z])|/)\s*")
_MODULO = re.compile(r"\s*(?:\\[bp]?mod(?![a-zA-Z])|\(?\s*\bmod\b)\s*")
_LOWER = re.compile(r"_\s*\{")
_INDEX = re.compile(r"\s*([a-zA-Z])\s*=\s*")
_ANGLE_DIVISOR = re.compile(r"\s*/\s*(?=\d)")
_POWER = re.compile(r"\s*(?:\^|\*\*)\s*")
_DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\s*\\degree(?![a-zA-Z])")
_INVERTED = re.compile(r"\s*\^\s*\{-1\}(?=\s*\()")
_PRIMES = re.compile(r"\s*(?:'+|\^\s*\{?\s*(?:\\prime\s*)+\}?)")
_TRANSPOSE = re.compile(
    r"\s*\^\s*(?:\{\s*(?:T|\\top|\\intercal|\\dagger|\\ast|\*)\s*\}|T|\\top|\\intercal|\\dagger|\*)(?![a-zA-Z])"
)
_LETTER = re.compile(
    r"(?:(?<![\\a-zA-Z])|(?<=[a-z])(?<!\\[a-z])(?<!\\[a-z]{2})(?<!\\[a-z]{3})(?<!\\[a-z]{4}))"
    r"([a-zA-Z]|\\(?:phi|varphi|psi|Phi|Psi|zeta|Gamma)(?![a-zA-Z]))((?:_(?:\w|\{\w+\}))?'*)((?:\^\{-1\})?\s*\()?"
)
_FUNCTION_LETTERS = frozenset("fghFGHPQpqyu")
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


class Unreadable(ValueError):
    """The text is none of what this grammar knows."""


class Node(NamedTuple):
    """A piece of an expression: `num`, `sym`, `add`, `mul`, `div`, `neg`, `pow`, `sum`, `prod`, `fn` (known), `call` (unknown)."""

    op: str
    args: tuple["Node", ...] = ()
    value: Fraction | str = ""


def read_expression(text: str, functions: frozenset[str] = frozenset(), tight: bool = False) -> Node:
    r"""The tree of one value.

    Args:
        text: cleaned LaTeX or plain notation.
        functions: letters that are functions where a bracket follows (`function_names`); others are factors.
        tight: read `1/2x` as `1/(2x)`; else as `(1/2)x`.

    Raises:
        Unreadable: the text is no single value of this grammar.
    """
    for sign, command in _SYMBOLS.items():
        if sign in text:
            text = text.replace(sign, command)
    return _Parser(text.strip(), functions, tight).whole()


def function_names(*texts: str) -> frozenset[str]:
    """The letters that stand for functions in all of these texts: `f` of `f(2x)`, but not `h` of `h(r+1) + h`."""
    applied, plain = set(), set()
    for text in texts:
        for found in _LETTER.finditer(re.sub(r"\\left(?![a-zA-Z])", "", text)):
            name = found[1] + found[2].replace("{", "").replace("}", "")
            (applied if found[3] else plain).add(name)
    return frozenset(name for name in applied - plain if name[0] in _FUNCTION_LETTERS or name[0] == "\\" or "'" in name)


class _Parser:
    """Recursive descent without a tokenizer: `\frac12` and `x12` cut their digits differently."""

    def __init__(self, text: str, functions: frozenset[str], tight: bool) -> None:
        self.text, self.functions, self.tight = text, functions, tight
        self.place = self.depth = self.num_nodes = self.bars = 0
        self.bound = " "
        """The indices of the sums that the parser is in."""
        self.commas = 0
        """Open brackets in which a comma separates."""

    def whole(self) -> Node:
        if not self.text:
            raise Unreadable
        node = self.sum()
        if self.take(_MODULO):
            bracketed = self.peek() == "("
            modulus = self.primary() if not bracketed else self.group("(")
            node = self.node("call", node, modulus, value="modulo")
            if self.text[self.place :].strip() == ")":
                self.place = len(self.text)
        if self.place < len(self.text):
            raise Unreadable
        return node

    def skip(self) -> None:
        while self.place < len(self.text) and self.text[self.place].isspace():
            self.place += 1

    def peek(self) -> str:
        self.skip()
        return self.text[self.place : self.place + 1]

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.place)
        if found:
            self.place = found.end()
        return found

    def node(self, op: str, *args: Node, value: Fraction | str = "") -> Node:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise Unreadable
        return Node(op, args, value)

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable
        terms = []
        while True:
            sign = self.peek()
            negative = False
            while sign and sign in "+-":
                negative ^= sign == "-"
                self.place += 1
                sign = self.peek()
            term = self.product()
            terms.append(self.node("neg", term) if negative else term)
            if self.peek() not in ("+", "-"):
                break
        self.depth -= 1
        return terms[0] if len(terms) == 1 else self.node("add", *terms)

    def product(self) -> Node:
        node = self.factors()
        while True:
            self.skip()
            if found := self.take(_TIMES):
                right = self.signed_factors()
                if "times" in found[0] and _is_vector(node) and _is_vector(right):
                    node = self.node("call", node, right, value="cross")
                else:
                    node = self.node("mul", node, right)
            elif self.take(_DIVIDE):
                right = self.signed_factors() if self.tight else self.signed_factor()
                node = self.node("div", node, right)
            elif self.starts_factor():
                node = self.node("mul", node, self.power())
            else:
                return node

    def signed_factors(self) -> Node:
        self.skip()
        if self.peek() in ("-", "+"):
            negative = self.text[self.place] == "-"
            self.place += 1
            node = self.factors()
            return self.node("neg", node) if negative else node
        return self.factors()

    def signed_factor(self) -> Node:
        if self.peek() in ("-", "+"):
            negative = self.text[self.place] == "-"
            self.place += 1
            node = self.power()
            return self.node("neg", node) if negative else node
        return self.power()

    def factors(self) -> Node:
        """Factors that stand side by side."""
        parts = [self.power()]
        while self.starts_factor():
            parts.append(self.power())
        return parts[0] if len(parts) == 1 else self.node("mul", *parts)

    def starts_factor(self) -> bool:
        char = self.peek()
        if not char or char in "+-*/^_)]},;:=<>!&'.?\"`#%@~$":
            return False
        if char == "|":
            return self.bars == 0
        if char.isdigit():  # a number after a number is no product
            before = self.text[: self.place].rstrip()[-1:]
            return not before.isdigit() or not self.text[self.place - 1].isspace()
        if char == "\\":
            found = _COMMAND.match(self.text, self.place)
            return found is not None and found[1] not in (
                "cdot",
                "times",
                "div",
                "ast",
                "rfloor",
                "rceil",
                "rvert",
                "mod",
                "bmod",
                "pmod",
            )
        return char.isalpha() or char in "({["

    def power(self) -> Node:
        node = self.primary()
        while True:
            self.skip()
            if self.take(_DEGREES):
                node = self.node("fn", node, value="degree")
            elif _transposable(node) and self.take(_TRANSPOSE):
                node = self.node("call", node, value="transpose")
            elif self.take(_POWER):
                node = self.node("pow", node, self.exponent())
            elif self.text.startswith("!", self.place):
                self.place += 1
                if self.text.startswith("!", self.place):
                    raise Unreadable  # the double factorial
                node = self.node("fn", node, value="factorial")
            elif self.text.startswith("\\%", self.place) or self.text.startswith("%", self.place):
                raise Unreadable
            else:
                return node

    def exponent(self) -> Node:
        if self.peek() == "-":
            self.place += 1
            return self.node("neg", self.exponent())
        argument = self.argument()
        if found := self.take(_POWER):
            del found
            return self.node("pow", argument, self.exponent())
        return argument

    def argument(self) -> Node:
        """What a command takes: a group in braces, a command with its own arguments, or one character."""
        char = self.peek()
        if char == "{":
            return self.group("{")
        if char == "(":
            return self.group("(")
        if char.isdigit():
            if self.text[: self.place].endswith(("**", "** ")) and (
                found := self.take(_PLAIN if self.commas else _NUMBER)
            ):
                return self.number(found[0])
            self.place += 1
            return self.node("num", value=Fraction(int(char)))
        if char == "\\" or char.isalpha():
            return self.primary(one_letter=True)
        raise Unreadable

    def group(self, opening: str) -> Node:
        self.place += 1
        bars, self.bars = self.bars, 0
        self.commas += opening != "{"
        node = self.sum()
        self.commas -= opening != "{"
        self.bars = bars
        if self.peek() != _CLOSERS[opening]:
            raise Unreadable
        self.place += 1
        return node

    def primary(self, one_letter: bool = False) -> Node:
        char = self.peek()
        if char.isdigit() or char == ".":
            found = self.take(_PLAIN if self.commas else _NUMBER)
            if found is None:
                raise Unreadable
            return self.number(found[0], mixed=True)
        if char and char in _CLOSERS:
            return self.group(char)
        if char == "|":
            self.place += 1
            return self.bar("|")
        if char == "\\":
            return self.command()
        if char.isalpha():
            if not one_letter and (word := self.take(_WORD)):
                return self.named(word[0])
            self.place += 1
            return self.symbol(char)
        raise Unreadable

    def bar(self, closing: str) -> Node:
        self.bars += 1
        node = self.sum()
        self.skip()
        if not self.text.startswith(closing, self.place):
            raise Unreadable
        self.place += len(closing)
        self.bars -= 1
        return self.node("fn", node, value="abs")

    def number(self, digits: str, mixed: bool = False) -> Node:
        if self.text.startswith("_", self.place):
            raise Unreadable  # a number in another base
        value = Fraction(digits.replace(",", ""))
        if mixed and "." not in digits and (found := _MIXED.match(self.text, self.place)):
            top, bottom = (int(group) for group in found.groups() if group)
            if not bottom:
                raise Unreadable
            self.place = found.end()
            value += Fraction(top, bottom)
        return self.node("num", value=value)

    def command(self) -> Node:
        if found := self.take(_DERIVATIVE):
            if (found[2] or "1") != (found[5] or "1"):
                raise Unreadable
            return self.node("sym", value=f"d{found[2] or ''} {found[3]}/{found[4]}")
        if found := self.take(_SHAPE):
            return self.node("sym", value=f"{found[1]} {_same_shape(found[1], found[2])}")
        if found := self.take(_STYLE):
            is_bold = found[0][1:].startswith(("mathbf", "bold", "bm"))
            return self.symbol(f"vec {found[1]}") if is_bold and len(found[1]) == 1 else self.styled(found[1])
        if found := self.take(_ACCENT):
            return self.accented(found[1])
        found = self.take(_COMMAND)
        if found is None:
            raise Unreadable
        return self.named(found[1])

    def named(self, name: str) -> Node:
        if name in ("frac", "binom"):
            top, bottom = self.argument(), self.argument()
            return self.node("div", top, bottom) if name == "frac" else self.node("fn", top, bottom, value="binomial")
        if name == "sqrt":
            return self.root()
        if name in ("sum", "prod"):
            return self.series(name)
        if name in ("lvert", "lfloor", "lceil"):
            self.skip()
            if name == "lvert":
                return self.bar("\\rvert")
            bars, self.bars = self.bars, 0
            inner = self.sum()
            self.bars = bars
            if not self.text.startswith(f"\\r{name[1:]}", self.place):
                raise Unreadable
            self.place += len(name) + 1
            return self.node("fn", inner, value=name[1:])
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("pi", "infty", "infinity"):
            return self.node("sym", value="pi" if name == "pi" else "infty")
        if name in _GREEK:
            return self.symbol(f"\\{name}")
        if name in ("imath", "jmath"):
            return self.node("sym", value="i")
        raise Unreadable

    def root(self) -> Node:
        degree = None
        if self.peek() == "[":
            degree = self.group("[")
        inside = self.number_or_argument()
        if degree is None:
            return self.node("fn", inside, value="sqrt")
        return self.node("fn", inside, degree, value="root")

    def series(self, name: str) -> Node:
        """A sum or product over a whole-numbered index; its term ends at the next plus or minus."""
        lower = upper = None
        index = ""
        for _ in range(2):
            self.skip()
            if self.take(_LOWER):
                found = self.take(_INDEX)
                if found is None:
                    raise Unreadable
                index, lower = found[1], self.sum()
                if self.peek() != "}":
                    raise Unreadable
                self.place += 1
            elif self.take(_POWER):
                upper = self.argument()
        if lower is None or upper is None or upper == Node("sym", (), "infty"):
            raise Unreadable
        self.bound += index
        term = self.product()
        self.bound = self.bound[:-1]
        return self.node(name, lower, upper, term, value=index)

    def number_or_argument(self) -> Node:
        r"""`\sqrt12` is the root of 1, times 2, in TeX; people who write it mean twelve."""
        if found := self.take(_PLAIN if self.commas else _NUMBER):
            return self.number(found[0])
        return self.argument()

    def function(self, name: str) -> Node:
        base = None
        power: Node | None = None
        for _ in range(2):
            self.skip()
            if self.text.startswith("_", self.place) and base is None:
                self.place += 1
                base = self.number_or_argument()
            elif self.take(_POWER) and power is None:
                power = self.exponent()
        if power is not None and power.op == "neg" and power.args[0].value == 1 and name in _INVERSE:
            name, power = f"arc{name}", None
        args = self.call_arguments() if self.peek() == "(" else (self.bare_argument(),)
        if base is not None:
            if name not in ("log", "lg"):
                raise Unreadable
            args = (*args, base)
        op = "call" if name in ("Re", "Im", "arg") and any(map(_has_letters, args)) else "fn"
        node = self.node(op, *args, value=name)
        return node if power is None else self.node("pow", node, power)

    def call_arguments(self) -> tuple[Node, ...]:
        self.place += 1
        bars, self.bars = self.bars, 0
        self.commas += 1
        args = [self.sum()]
        while self.peek() in (",", ";"):
            self.place += 1
            args.append(self.sum())
        self.commas -= 1
        self.bars = bars
        if self.peek() != ")":
            raise Unreadable
        self.place += 1
        return tuple(args)

    def bare_argument(self) -> Node:
        r"""`2x` of `\sin 2x \cos y`: up to the next function, sign or bracket."""
        if self.peek() == "-":
            self.place += 1
            return self.node("neg", self.bare_argument())
        if self.at_function():
            return self.power()
        parts = [self.power()]
        while self.starts_factor() and self.peek() not in ("(", "[") and not self.at_function():
            parts.append(self.power())
        node = parts[0] if len(parts) == 1 else self.node("mul", *parts)
        if Node("sym", (), "pi") in parts and self.take(_ANGLE_DIVISOR):  # sin pi/6, but not sin x / x
            node = self.node("div", node, self.power())
        return node

    def at_function(self) -> bool:
        self.skip()
        found = _COMMAND.match(self.text, self.place) or _WORD.match(self.text, self.place)
        return found is not None and found[0].strip("\\ ") in FUNCTIONS

    def styled(self, word: str) -> Node:
        if word == "infinity":
            return self.node("sym", value="infty")
        if len(word) == 1:
            return self.symbol(word)
        if word in FUNCTIONS:
            return self.function(word)
        if word.isupper() and len(word) <= 3:
            return self.node("mul", *(self.symbol(letter) for letter in word))
        raise Unreadable

    def accented(self, accent: str) -> Node:
        if self.peek() == "{":
            end = self.text.find("}", self.place)
            inside, self.place = self.text[self.place + 1 : end].strip(), end + 1
            if end < 0 or not re.fullmatch(r"[A-Za-z]{1,3}|\\[a-zA-Z]+|[a-zA-Z]_\{?\w", inside):
                raise Unreadable
        else:
            found = re.compile(r"[A-Za-z]|\\[a-zA-Z]+").match(self.text, self.place)
            if found is None:
                raise Unreadable
            inside, self.place = found[0], found.end()
        accent = {"overrightarrow": "vec", "overline": "bar", "widehat": "hat", "widetilde": "tilde"}.get(
            accent, accent
        )
        if accent == "bar" and len(inside) == 2 and inside.isupper():
            inside = "".join(sorted(inside))  # a segment has two ends and no direction
        return self.symbol(f"{accent} {inside}")

    def symbol(self, name: str) -> Node:
        """A variable with its index and primes; before a bracket it may be a function, which `values` decides."""
        if self.peek() == "_":
            self.place += 1
            index = self.index()
            if index in self.bound:  # x_i of a sum over i
                return self.node("call", Node("sym", (), index), value=f"{name}_")
            name += "_" + index
        if found := self.take(_PRIMES):
            name += "'" * (found[0].count("'") + found[0].count("prime"))
        if name in self.functions:
            inverse = self.take(_INVERTED)
            if self.peek() == "(":
                return self.node("call", *self.call_arguments(), value=f"{name}^-1" if inverse else name)
            if inverse:
                raise Unreadable
        return self.node("sym", value=name)

    def index(self) -> str:
        self.skip()
        if not self.text.startswith("{", self.place):
            found = re.compile(r"\w|\\[a-zA-Z]+").match(self.text, self.place)
            if found is None:
                raise Unreadable
            self.place = found.end()
            return found[0]
        depth, start = 0, self.place
        while self.place < len(self.text):
            depth += {"{": 1, "}": -1}.get(self.text[self.place], 0)
            self.place += 1
            if depth == 0:
                inside = re.sub(rf"\\(?:{_STYLES})\s*\{{([^{{}}]*)\}}", r"\1", self.text[start + 1 : self.place - 1])
                return inside.replace(" ", "")
        raise Unreadable


def _transposable(node: Node) -> bool:
    """Whether all letters are capitals or vectors, so that a T in the exponent is no number."""
    if node.op == "sym":
        return str(node.value)[:1].isupper() or str(node.value).startswith("vec ")
    return node.op in ("mul", "add", "neg", "call") and all(_transposable(argument) for argument in node.args)


def _has_letters(node: Node) -> bool:
    if node.op == "sym":
        return node.value not in ("i", "e", "pi")
    return any(_has_letters(argument) for argument in node.args)


def _is_vector(node: Node) -> bool:
    return (node.op == "sym" and str(node.value).startswith("vec ")) or any(_is_vector(one) for one in node.args)


def _same_shape(kind: str, letters: str) -> str:
    """An angle is the same read from either side, a triangle from any corner."""
    if kind == "triangle":
        return "".join(sorted(letters))
    return min(letters, letters[::-1])
