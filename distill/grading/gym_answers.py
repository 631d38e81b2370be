r"""Clean answers to reasoning-gym tasks before a scorer sees them: LaTeX is removed, and code never passes.

Examples: `"\text{True}"` becomes `"True"`, `"$2x^2 + C$"` becomes `"2*x**2 + C"`, `"[1,2]"` becomes `"[1, 2]"`.

Some scorers evaluate an answer with Python or sympy, which may run arbitrary code (even a string inside the text may be
evaluated again). They get text written from a syntax tree that holds only numbers, signs, names, brackets and known
functions.
"""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

MAX_CHARS = 10_000
MAX_DEPTH = 100
"""Maximum nesting of brackets. Deeper answers exceed what parsers can read, and are ungraded rather than wrong."""
MAX_EXPONENT = 1_000
MAX_BITS = 20_000
"""Maximum size of a power's value."""

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
    """An answer that is too deep, too long, or has too large a power."""


def readings(answer: str, gold: str | None) -> Iterator[str]:
    """Yield the possible readings of an answer for a scorer that compares every character, the likeliest first.

    Args:
        answer: as the model wrote it.
        gold: the expected answer, if any; yielded itself if the answer is another form of it.
    """
    seen = {answer}
    yield answer
    plain = without_latex(answer)
    bold = answer.strip().removesuffix("**").removeprefix("**")  # in Python, ** is a power
    for reading in (answer.strip(), plain, plain.removesuffix(".").strip(), bold):
        if reading not in seen and reading:
            seen.add(reading)
            yield reading
    if gold is not None and gold not in seen and any(_says_the_same(reading, gold) for reading in seen):
        yield gold


def without_latex(answer: str) -> str:
    r"""Return an answer without dollars, `\text{…}` and other wrappers; a matrix becomes lines of entries."""
    text = answer.strip()
    for _ in range(8):  # nested wrappers
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
    """Return whether the braces of a text are balanced."""
    now = 0
    for char in text:
        now += (char == "{") - (char == "}")
        if now < 0:
            return False
    return now == 0


def _rows(text: str) -> str:
    """Turn the rows of a matrix, or LaTeX line breaks, into lines."""
    if not _MATRIX.search(text):
        return re.sub(r"[ \t]*\\\\[ \t]*\n?[ \t]*", "\n", text)
    bare = _MATRIX.sub("", text).strip()
    rows = [row for row in re.split(r"\\\\", bare) if row.strip()]
    return "\n".join(" ".join(cell.strip() for cell in row.split("&")) for row in rows)


def _says_the_same(answer: str, gold: str) -> bool:
    """Return whether two answers differ only in LaTeX, a final period, or spaces in lists, at commas or in columns."""
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
    """Parse a JSON or Python list or mapping; return `None` if it is neither."""
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
    """Return whether an answer is the expected yes or no, ignoring case; `None` if something else is expected."""
    if gold.casefold() not in _YES_AND_NO:
        return None
    return without_latex(answer).removesuffix(".").casefold() == gold.casefold()


def depth(text: str) -> int:
    """Return the maximum nesting of brackets."""
    deepest = now = 0
    for char in text:
        if char in "([{":
            now += 1
            deepest = max(deepest, now)
        elif char in ")]}":
            now -= 1
    return deepest


def as_expression(answer: str, names: frozenset[str] = frozenset()) -> str | None:
    """Return an answer as Python arithmetic; `None` if it is not arithmetic.

    Args:
        answer: in Python or LaTeX notation.
        names: words that may be variables, besides letters.

    Raises:
        TooLargeError: it is too long or too deep, or has too large a power.
    """
    for text in (answer, _in_python(without_latex(answer))):
        tree = _parsed(text)
        if tree is not None and _is_arithmetic(tree, names):
            return ast.unparse(tree)
    return None


def as_list(answer: str) -> str | None:
    """Return an answer as a Python list of numbers and single letters, nested or not; `None` if it is not one.

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
    """Return whether a tree holds nothing but arithmetic.

    Raises:
        TooLargeError: it has too large a power.
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
    if exponent is None:  # it contains a name, so it is not evaluated
        return
    base = _value(tree.left)
    bits = abs(base).bit_length() if isinstance(base, int) else 64
    if abs(exponent) > MAX_EXPONENT or (base is not None and bits * abs(exponent) > MAX_BITS):
        raise TooLargeError


def _value(tree: ast.expr) -> int | float | None:
    """Return the value of an expression, checking its powers; `None` if it contains names."""
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
    """Translate LaTeX arithmetic to Python, as far as scorers need it."""
    for _ in range(20):  # nested fractions
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
