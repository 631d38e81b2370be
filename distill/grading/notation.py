"""The notation of the grammar in `distill.grading.expression`: patterns, names, tree nodes and a cursor."""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_NODES = 3_000

FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "arcsin", "arccos", "arctan", "arccot",
    "arcsinh", "arccosh", "arctanh", "arsinh", "arcosh", "artanh", "log", "ln", "lg", "exp", "max", "min", "gcd", "lcm",
    "tg", "ctg", "arctg", "arcctg", "sh", "ch", "th", "cosec", "Re", "Im", "arg", "det", "tr", "rank", "dim", "deg",
    "ker", "sgn", "sign", "Var", "Cov", "cis",
})  # fmt: skip
INVERSE = {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"}
WORD = re.compile(
    r"(?:sqrt|infinity|infty|pi|theta|alpha|beta|gamma|lambda|"
    + "|".join(
        sorted(FUNCTIONS - {"deg", "arg", "Re", "Im", "tr", "dim", "sign", "th", "sh", "ch"}, key=len, reverse=True)
    )
    + r")(?![a-zA-Z])"
)
GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "vartheta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "varrho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
        "nabla",
        "partial",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "ell",
        "hbar",
        "aleph",
    ]
)
SYMBOLS = {
    "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/",
    "°": r"^\circ ", "−": "-", "²": "^2", "³": "^3", "′": "'", "’": "'", "α": r"\alpha ", "β": r"\beta ",
    "γ": r"\gamma ", "θ": r"\theta ", "λ": r"\lambda ", "μ": r"\mu ", "σ": r"\sigma ", "ω": r"\omega ", "φ": r"\phi ",
    "ρ": r"\rho ", "∠": r"\angle ", "½": r"\frac12", "¼": r"\frac14", "¾": r"\frac34",
}  # fmt: skip
STYLES = "mathbf|boldsymbol|bm|mathrm|mathit|mathsf|mathnormal|operatorname|text|textit|textbf|textrm|rm|mbox"
_ACCENTS = (
    "bar|overline|hat|widehat|tilde|widetilde|vec|overrightarrow|dot|ddot|underline|mathcal|mathbb|mathfrak|breve|check"
)
STYLE = re.compile(rf"\\(?:{STYLES})\s*\*?\{{\s*([a-zA-Z]+)\s*\}}")
ACCENT = re.compile(rf"\\({_ACCENTS})(?![a-zA-Z])\s*")
SHAPE = re.compile(r"\\(angle|triangle|measuredangle|odot|square)(?![a-zA-Z])\s*\{?\s*([A-Z]{1,4}|\d)\}?")
NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+")
PLAIN = re.compile(r"\d+(?:\.\d*)?|\.\d+")
MIXED = re.compile(
    r"\s*\\frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)(\d)|(\d)\s*\{\s*(\d+)\s*\}|\{\s*(\d+)\s*\}(\d))"
)
COMMAND = re.compile(r"\\([a-zA-Z]+)\s*")
DERIVATIVE = re.compile(
    r"\\frac\s*\{\s*(d|\\partial|\\mathrm\{d\})(?:\^\{?(\d)\}?)?\s*([a-zA-Z]|\\[a-zA-Z]+)(?:_\{?\w\}?)?\s*\}\s*"
    r"\{\s*(?:d|\\partial|\\mathrm\{d\})\s*([a-zA-Z]|\\[a-zA-Z]+)\s*(?:\^\{?(\d)\}?)?\s*\}"
)
TIMES = re.compile(r"(?:\\(?:cdot|times|ast)(?![a-zA-Z])|\*(?!\*))\s*")
DIVIDE = re.compile(r"(?:\\div(?![a-zA-Z])|/)\s*")
MODULO = re.compile(r"\s*(?:\\[bp]?mod(?![a-zA-Z])|\(?\s*\bmod\b)\s*")
LOWER = re.compile(r"_\s*\{")
INDEX = re.compile(r"\s*([a-zA-Z])\s*=\s*")
ANGLE_DIVISOR = re.compile(r"\s*/\s*(?=\d)")
POWER = re.compile(r"\s*(?:\^|\*\*)\s*")
DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\s*\\degree(?![a-zA-Z])")
INVERTED = re.compile(r"\s*\^\s*\{-1\}(?=\s*\()")
PRIMES = re.compile(r"\s*(?:'+|\^\s*\{?\s*(?:\\prime\s*)+\}?)")
TRANSPOSE = re.compile(
    r"\s*\^\s*(?:\{\s*(?:T|\\top|\\intercal|\\dagger|\\ast|\*)\s*\}|T|\\top|\\intercal|\\dagger|\*)(?![a-zA-Z])"
)
_LETTER = re.compile(
    r"(?:(?<![\\a-zA-Z])|(?<=[a-z])(?<!\\[a-z])(?<!\\[a-z]{2})(?<!\\[a-z]{3})(?<!\\[a-z]{4}))"
    r"([a-zA-Z]|\\(?:phi|varphi|psi|Phi|Psi|zeta|Gamma)(?![a-zA-Z]))((?:_(?:\w|\{\w+\}))?'*)((?:\^\{-1\})?\s*\()?"
)
_FUNCTION_LETTERS = frozenset("fghFGHPQpqyu")
CLOSERS = {"(": ")", "[": "]", "{": "}"}


class UnreadableError(ValueError):
    """The text is outside this grammar."""


class Node(NamedTuple):
    """A node of an expression tree; `op` is `num`, `sym`, `add`, `mul`, `div`, `neg`, `pow`, `sum`, `prod`, `fn` (a
    known function) or `call` (an unknown one).
    """

    op: str
    args: tuple["Node", ...] = ()
    value: Fraction | str = ""


def function_names(*texts: str) -> frozenset[str]:
    """Return the letters that are functions in all of these texts: `f` in `f(2x)`, but not `h` in `h(r+1) + h`."""
    applied: set[str] = set()
    plain: set[str] = set()
    for text in texts:
        for found in _LETTER.finditer(re.sub(r"\\left(?![a-zA-Z])", "", text)):
            name = found[1] + found[2].replace("{", "").replace("}", "")
            (applied if found[3] else plain).add(name)
    return frozenset(name for name in applied - plain if name[0] in _FUNCTION_LETTERS or name[0] == "\\" or "'" in name)


def transposable(node: Node) -> bool:
    """Return whether all letters are capitals or vectors, so that T as an exponent means transpose."""
    if node.op == "sym":
        return str(node.value)[:1].isupper() or str(node.value).startswith("vec ")
    return node.op in ("mul", "add", "neg", "call") and all(transposable(argument) for argument in node.args)


def has_letters(node: Node) -> bool:
    if node.op == "sym":
        return node.value not in ("i", "e", "pi")
    return any(has_letters(argument) for argument in node.args)


def is_vector(node: Node) -> bool:
    return (node.op == "sym" and str(node.value).startswith("vec ")) or any(is_vector(one) for one in node.args)


def same_shape(kind: str, letters: str) -> str:
    """Return the letters in canonical order: an angle reads the same from either side, a triangle from any corner."""
    if kind == "triangle":
        return "".join(sorted(letters))
    return min(letters, letters[::-1])


class Cursor:
    """A position in a text, and the number of nodes made so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = self.num_nodes = 0

    def skip(self) -> None:
        """Advance to the next character that is not a space."""
        while self.place < len(self.text) and self.text[self.place].isspace():
            self.place += 1

    def peek(self) -> str:
        """Return the next character that is not a space; `""` at the end."""
        self.skip()
        return self.text[self.place : self.place + 1]

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Match a pattern at this position and advance past it; return `None` if it does not match."""
        found = pattern.match(self.text, self.place)
        if found:
            self.place = found.end()
        return found

    def node(self, op: str, *args: Node, value: Fraction | str = "") -> Node:
        """Make a node.

        Raises:
            UnreadableError: there are too many nodes.
        """
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise UnreadableError
        return Node(op, args, value)
