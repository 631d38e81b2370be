r"""Answers to reasoning-gym tasks, read before a scorer sees them: out of their LaTeX, and never as code.

Enters: `"\text{True}"`, `"$2x^2 + C$"`, `"[1,2]"`. Leaves: `"True"`, `"2*x**2 + C"`, `"[1, 2]"`.

Some scorers evaluate an answer, as Python or as sympy does, which may run anything (a text that is evaluated may hold a
text that is evaluated again). They get what is written here from a tree in which nothing but numbers, signs, names,
brackets and known functions stands.
"""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

MAX_CHARS = 10_000
MAX_DEPTH = 100
"""Brackets inside brackets; more than a parser can take says nothing about the answer."""
MAX_EXPONENT = 1_000
MAX_BITS = 20_000
"""Of a power's value."""

_FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "sinh", "cosh", "tanh", "asinh", "acosh",
    "atanh", "exp", "log", "ln", "sqrt", "Abs", "Integral", "Rational", "erf", "erfi", "Ei", "Si", "Ci", "li",
})  # fmt: skip
_PYTHON_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "abs": "Abs"}
_NAME = re.compile(r"(?:[A-Za-z]|pi|alpha|beta|gamma|theta|lamda|mu|phi|omega)(?:_?\d{1,2})?")
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
_LETTER = re.compile(r"[A-Za-z0-9_.]")
_NUMBER = re.compile(r"-?\d{1,40}(?:\.\d{1,40})?")

_COMMAND = re.compile(r"\\(?:text(?:bf|it|tt|rm|sf|normal)?|math(?:rm|bf|tt|it|sf)|operatorname|mbox|boxed|fbox)\s*\{")
_IN_COMMAND = re.compile(_COMMAND.pattern + r"([^{}]*)\}")
_MATRIX = re.compile(r"\\(?:begin|end)\s*\{(?:[bpvBV]?matrix|smallmatrix|array)\}(?:\{[clr|]*\})?")
_SPACES = re.compile(r"\\[,;:!> ]|\\q?quad\b|~")
_ESCAPED = re.compile(r"\\([_%#&${}])")
_SIGNS = {
    r"\times": "×", r"\cdot": "·", r"\rightarrow": "→", r"\to": "→", r"\leftarrow": "←", r"\left": "", r"\right": "",
    r"\displaystyle": "", r"\degree": "°", r"^{\circ}": "°", r"^\circ": "°", r"\checkmark": "✅",
}  # fmt: skip
_AROUND = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("```", "```"), ("`", "`"))
_YES_AND_NO = frozenset({"true", "false", "yes", "no"})


class TooLargeError(ValueError):
    """An answer that is nested deeper, is longer or counts further than it could be read."""


def readings(answer: str, gold: str | None) -> Iterator[str]:
    """What an answer may mean to a scorer that looks at every character, the likeliest first.

    Args:
        answer: as the model wrote it.
        gold: the expected answer, if there is one; returned itself where an answer says the same in another form.
    """
    seen = {answer}
    yield answer
    plain = without_latex(answer)
    bold = answer.strip().removesuffix("**").removeprefix("**")  # in Python two stars are a power
    for reading in (answer.strip(), plain, plain.removesuffix(".").strip(), bold):
        if reading not in seen and reading:
            seen.add(reading)
            yield reading
    if gold is not None and gold not in seen and any(_says_the_same(reading, gold) for reading in seen):
        yield gold


def without_latex(answer: str) -> str:
    r"""An answer without dollars, `\text{…}` and other dress; matrices as lines of entries."""
    text = answer.strip()
    for _ in range(8):  # dress in dress
        before = text
        text = _IN_COMMAND.sub(r"\1", text)
        command = _COMMAND.match(text)
        if command and text.endswith("}") and _is_whole(text[command.end() : -1]):
            text = text[command.end() : -1].strip()
        for opening, closing in _AROUND:
            if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
                inner = text[len(opening) : -len(closing)]
                text = inner.strip() if opening.strip("\\([") not in inner or opening[0] == "\\" else text
        if text == before:
            break
    if "\\" in text:
        text = _rows(text)
        for sign, plain in _SIGNS.items():
            text = re.sub(re.escape(sign) + r"(?![A-Za-z])", plain, text)
        text = _ESCAPED.sub(r"\1", _SPACES.sub(" ", text))
    return text.strip()


def _is_whole(text: str) -> bool:
    """Whether every brace in a text is closed in it."""
    now = 0
    for char in text:
        now += (char == "{") - (char == "}")
        if now < 0:
            return False
    return now == 0


def _rows(text: str) -> str:
    """Rows of a matrix, or lines that LaTeX breaks, as lines."""
    if not _MATRIX.search(text):
        return re.sub(r"[ \t]*\\\\[ \t]*\n?[ \t]*", "\n", text)
    bare = _MATRIX.sub("", text).strip()
    rows = [row for row in re.split(r"\\\\", bare) if row.strip()]
    return "\n".join(" ".join(cell.strip() for cell in row.split("&")) for row in rows)


def _says_the_same(answer: str, gold: str) -> bool:
    """The same but for LaTeX, a last period, or spaces: in a list, around commas, between columns."""
    if without_latex(answer).removesuffix(".") == without_latex(gold).removesuffix("."):
        return True
    lists = [_as_list(text) for text in (answer, gold)]
    if lists[1] is not None:
        return bool(lists[0] == lists[1])
    if "," in gold and "\n" not in gold:
        return _spaced(answer) == _spaced(gold)
    lines = [[line.split() for line in text.strip().splitlines() if line.strip()] for text in (answer, gold)]
    return " " in gold.strip() and lines[0] == lines[1]


def _spaced(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _as_list(text: str) -> Any:
    """A JSON or Python list or mapping; `None`: it is neither."""
    if not text.lstrip().startswith(("[", "{", "(")) or len(text) > MAX_CHARS or depth(text) > MAX_DEPTH:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    return found if isinstance(found, list | dict | tuple) else None


def yes_or_no(answer: str, gold: str) -> bool | None:
    """Whether the answer is the expected yes or no, however it is capitalised; `None`: something else is expected."""
    if gold.casefold() not in _YES_AND_NO:
        return None
    return without_latex(answer).removesuffix(".").casefold() == gold.casefold()


def depth(text: str) -> int:
    """How deep brackets stand in brackets at most."""
    deepest = now = 0
    for char in text:
        if char in "([{":
            now += 1
            deepest = max(deepest, now)
        elif char in ")]}":
            now -= 1
    return deepest


def as_expression(answer: str, names: frozenset[str] = frozenset()) -> str | None:
    """An answer as Python writes arithmetic; `None`: it is none.

    Args:
        answer: Python's or LaTeX's way of writing it.
        names: words that may stand for variables, besides letters.

    Raises:
        TooLargeError: a power in it is too large, or it is too long or too deep.
    """
    for text in (answer, _in_python(without_latex(answer))):
        tree = _parsed(text)
        if tree is not None and _is_arithmetic(tree, names):
            return ast.unparse(tree)
    return None


def as_list(answer: str) -> str | None:
    """An answer as Python writes a list of numbers and single letters, nested or not; `None`: it is none.

    Raises:
        TooLargeError: it is too long or too deep.
    """
    tree = _parsed(answer)
    return ast.unparse(tree) if isinstance(tree, ast.List | ast.Tuple) and _is_list(tree) else None


def _parsed(text: str) -> ast.expr | None:
    if len(text) > MAX_CHARS or depth(text) > MAX_DEPTH:
        raise TooLargeError
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    except (MemoryError, RecursionError):
        raise TooLargeError from None


def _is_list(tree: ast.expr) -> bool:
    if isinstance(tree, ast.List | ast.Tuple):
        return all(_is_list(one) for one in tree.elts)
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        return bool(_LETTER.fullmatch(tree.value) or _NUMBER.fullmatch(tree.value))
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        tree = tree.operand
    return isinstance(tree, ast.Constant) and type(tree.value) in (int, float)


def _is_arithmetic(tree: ast.expr, names: frozenset[str]) -> bool:
    """Whether nothing but arithmetic stands in a tree.

    Raises:
        TooLargeError: a power in it is too large.
    """
    if isinstance(tree, ast.Constant):
        return type(tree.value) in (int, float)
    if isinstance(tree, ast.Name):
        return tree.id in names or _NAME.fullmatch(tree.id) is not None
    if isinstance(tree, ast.UnaryOp):
        return isinstance(tree.op, ast.UAdd | ast.USub) and _is_arithmetic(tree.operand, names)
    if isinstance(tree, ast.BinOp):
        if not (isinstance(tree.op, _OPERATORS) and _is_arithmetic(tree.left, names)):
            return False
        if not _is_arithmetic(tree.right, names):
            return False
        if isinstance(tree.op, ast.Pow):
            _check_power(tree)
        return True
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.keywords:
        tree.func.id = _PYTHON_NAMES.get(tree.func.id, tree.func.id)
        return (
            tree.func.id in _FUNCTIONS
            and 1 <= len(tree.args) <= 2
            and all(_is_arithmetic(one, names) for one in tree.args)
        )
    return False


def _check_power(tree: ast.BinOp) -> None:
    exponent = _value(tree.right)
    if exponent is None:  # it has a name in it, so nothing is worked out
        return
    base = _value(tree.left)
    bits = abs(base).bit_length() if isinstance(base, int) else 64
    if abs(exponent) > MAX_EXPONENT or (base is not None and bits * abs(exponent) > MAX_BITS):
        raise TooLargeError


def _value(tree: ast.expr) -> int | float | None:
    """The value of an expression without names, in which powers have been checked; `None` where it has names."""
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int | float):
        return tree.value
    if isinstance(tree, ast.UnaryOp):
        inner = _value(tree.operand)
        return None if inner is None else -inner if isinstance(tree.op, ast.USub) else inner
    if isinstance(tree, ast.BinOp):
        left, right = _value(tree.left), _value(tree.right)
        if left is None or right is None:
            return None
        try:
            if isinstance(tree.op, ast.Pow):
                _check_power(tree)
                return left**right if not isinstance(left**right, complex) else 1
            if isinstance(tree.op, ast.Div):
                return left / right
            return (
                left + right
                if isinstance(tree.op, ast.Add)
                else (left - right if isinstance(tree.op, ast.Sub) else left * right)
            )
        except (ArithmeticError, ValueError):
            raise TooLargeError from None
    return None


def _in_python(text: str) -> str:
    """LaTeX's way of writing arithmetic in Python's, as far as scorers need it."""
    for _ in range(20):  # fractions in fractions
        text, num = re.subn(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
        text, more = re.subn(r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)", text)
        text, powers = re.subn(r"\^\s*\{([^{}]*)\}", r"**(\1)", text)
        if not num + more + powers:
            break
    text = re.sub(r"\\(?=(?:sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|exp|log|ln|arcsin|arccos|arctan|pi)\b)", "", text)
    for sign, plain in (("×", "*"), ("·", "*"), ("÷", "/"), ("−", "-"), ("^", "**"), ("{", "("), ("}", ")")):
        text = text.replace(sign, plain)
    text = re.sub(r"(?<![A-Za-z_\d.])(\d+(?:\.\d+)?)\s*(?=[A-Za-z(])(?![eE]\d)", r"\1*", text)
    text = re.sub(r"(?<![A-Za-z])([A-Za-z])\s*(?=\()", r"\1*", text)
    return re.sub(r"\)\s*(?=[A-Za-z\d(])", ")*", text)
