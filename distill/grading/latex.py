"""Compare single LaTeX values with math-verify.

Hostile text is rejected by its form before sympy sees it. The limits of the pool (`distill.grading.pool`) stop what
still takes too much time or memory.
"""

import re
from typing import Any

MAX_ANSWER_CHARS = 2_000
"""Longer answers are not parsed: no real final answer is that long, and long ones can stall a parser."""

MAX_NESTING = 50
MAX_EXPONENT_DIGITS = 4
MAX_EXPONENT = 9_999
MAX_FACTORIAL_DIGITS = 3
MAX_BINOMIAL_DIGITS = 4

RELATIVE_ERROR = 1e-6
"""math-verify rounds decimals to six places, which makes all tiny numbers equal, so a relative check is added."""

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LETTER = re.compile(r"[a-zA-Z]")
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*")
_DIGITS = re.compile(r"\d+")
_POWER_OF_DIGITS = re.compile(r"\{?(\d)\}?\^\{?(\d)\}?")
_FACTORIAL = re.compile(r"(.)\s*!", re.DOTALL)
_DROPPED = re.compile(
    r"'|\\(?:prime|top|dagger|intercal|angle|triangle|vec|hat|bar|tilde|overline|widehat|overrightarrow|dot|ddot|gcd|lcm|"
    r"partial|nabla|mathbf|mathcal|mathbb|perp|parallel|star|circ|operatorname|det)(?![a-zA-Z])|\^\{?T\b|"
    r"\\frac\{\s*d\b|\\frac\{\s*\\mathrm"
)
_CLOSING = {"{": "}", "(": ")", "[": "]"}


_EATEN = re.compile(
    r"\x07(?:lpha|ngle|pprox|rc|st)|\x08(?:oxed|eta|inom|ar|ig|egin|mod|ot|ullet|f)|\x0b(?:ec|ert|arphi|ee|dots)|"
    r"\x0c(?:rac|box|lat|orall|loor)|\t(?:ext|imes|heta|frac|binom|an\b|au\b|riangle|ilde|op\b|o\b|anh)|"
    r"\r(?:ight|m\b|ho\b|angle|ceil|floor|vert)|\n(?:eq?\b|u\b|abla|ot|mid|eg\b)"
)
"""Matches a command whose backslash and first letter were read as one control character."""

_LETTER_OF = {"\x07": "a", "\x08": "b", "\x0b": "v", "\x0c": "f", "\t": "t", "\r": "r", "\n": "n"}


def is_damaged(gold: str) -> bool:
    r"""Return whether a YAML or JSON escape damaged a command: `\frac{1}{2}` became a form feed and `rac{1}{2}`."""
    return _EATEN.search(gold) is not None


def repaired(answer: str) -> str:
    """Restore commands that were damaged by an escape."""
    return _EATEN.sub(lambda found: f"\\{_LETTER_OF[found[0][0]]}{found[0][1:]}", answer)


def stripped(answer: str) -> str:
    """Strip the brackets around a whole text."""
    closing = {"(": ")", "{": "}", "[": "]"}
    start, end = 0, len(answer)
    while start < end - 1 and closing.get(answer[start]) == answer[end - 1]:
        start, end = start + 1, end - 1
    return answer[start:end]


def is_tame(answer: str) -> bool:
    """Return whether a text is safe to parse: short, shallow, without exponent towers, huge factorials or binomials."""
    if len(answer) > MAX_ANSWER_CHARS or _depth(answer) > MAX_NESTING:
        return False
    text = re.sub(r"\\(?:left|right|big|Big|,|;|!|:)(?![a-zA-Z])", "", answer)
    return all(_is_tame_exponent(text, m.end()) for m in _EXPONENT.finditer(text)) and _has_tame_factorials(text)


def equal_values(given: str, expected: str) -> bool | None:
    """Compare two single values with math-verify; `None` if the expected one cannot be parsed.

    May hang or exhaust the memory: run it in the pool.

    Raises:
        MemoryError, RecursionError: the worker's limits were reached.
    """
    from math_verify import verify

    gold = parse_latex(expected)
    if gold is None:
        return None
    if _dropped_signs(given) != _dropped_signs(expected):
        return False
    value = parse_latex(given)
    if value is None:
        return False
    try:
        # math-verify's own time limits use SIGALRM; the pool kills the worker from outside instead.
        equal = verify(gold, value, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # sympy cannot compare the two, such as a set and a matrix
        return False
    return bool(equal) and _really_equal(gold, value)


def parse_latex(latex: str) -> Any:
    """Parse one LaTeX value into a sympy object with math-verify's own parser; return `None` if that fails."""
    from latex2sympy2_extended import (  # type: ignore[import-untyped]
        NormalizationConfig,
        latex2sympy,
        normalize_latex,
    )
    from math_verify.grader import should_treat_as_complex

    # Units are removed earlier (`distill.grading.quantities`): the parser's own list reads 3t as 3 tons.
    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    try:
        text = normalize_latex(latex.replace("**", "^"), config)
        return latex2sympy(
            text, is_real=not should_treat_as_complex(text), convert_degrees=False, normalization_config=None
        )
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the generated parser may raise anything on text that it cannot read
        return None


def _dropped_signs(text: str) -> list[str]:
    """Return the signs that math-verify's parser drops or reads as letters; both texts must have the same ones."""
    return sorted(_DROPPED.findall(text))


def _really_equal(gold: Any, value: Any) -> bool:
    """Check again what math-verify calls equal, in the two cases where it is known to be too lenient."""
    from sympy import Eq, Expr  # type: ignore[import-untyped]

    if isinstance(gold, Eq) and isinstance(value, Eq):
        return _same_equation(gold, value)
    if not (isinstance(gold, Expr) and isinstance(value, Expr)) or gold.free_symbols or value.free_symbols:
        return True
    left, right = _in_floating_point(gold), _in_floating_point(value)
    if left is None or right is None:
        return True
    return bool(left == right) or abs(left - right) <= RELATIVE_ERROR * max(abs(left), abs(right))


def _same_equation(gold: Any, value: Any) -> bool:
    """Return whether the differences of the sides are multiples of each other."""
    from sympy import simplify

    # math-verify compares solutions, and both equations may have none.
    left, right = gold.lhs - gold.rhs, value.lhs - value.rhs
    if left == right:
        return True
    ratio = simplify(left / right)
    return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)


def _in_floating_point(expression: Any) -> complex | None:
    try:
        return complex(expression.doit())
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char in "{([") - (char in "})]")
        deepest = max(deepest, depth)
    return deepest


def _is_tame_exponent(text: str, start: int) -> bool:
    """Return whether an exponent is cheap; one without letters is evaluated at once, so it must be small."""
    exponent = _exponent_at(text, start)
    if any(len(digits) > MAX_EXPONENT_DIGITS for digits in _DIGITS.findall(exponent)):
        return False
    if _LETTER.search(_COMMAND.sub("", exponent)):  # symbolic: its own exponents are checked separately
        return True
    inner = exponent.strip().removeprefix("{").removesuffix("}").replace(" ", "")
    if "^" not in inner and "**" not in inner and "!" not in inner:
        return not re.search(r"\\(?:binom|choose|prod|sum)", inner)
    small = _POWER_OF_DIGITS.fullmatch(inner.replace("**", "^"))
    return small is not None and int(small[1]) ** int(small[2]) <= MAX_EXPONENT


def _exponent_at(text: str, start: int) -> str:
    """Return the exponent at `start`: one piece, its own power or factorial, and a `^` if yet another follows."""
    end = _piece_end(text, start)
    if following := _EXPONENT.match(text, end):
        upper = _piece_end(text, following.end())
        more = "^" if _EXPONENT.match(text, upper) else ""
        return f"{text[start:end]}^{text[following.end() : upper]}{more}"
    if following := re.compile(r"\s*!").match(text, end):
        end = following.end()
    return text[start:end]


def _piece_end(text: str, start: int) -> int:
    """Return the end of the bracketed group, the command with its groups, or the number at `start`."""
    end = start
    if text.startswith("\\", end) and (command := _COMMAND.match(text, end)):
        end = command.end()
    elif end < len(text) and text[end] not in "{([":
        number = re.compile(r"[-+]?(?:\d+|.)", re.DOTALL).match(text, end)
        end = number.end() if number else end
    while end < len(text) and text[end] in "{([":
        end = _closing(text, end)
    return end


def _closing(text: str, start: int) -> int:
    """Return the end of the bracket that opens at `start`, or of the text if it is never closed."""
    opened = []
    for place in range(start, len(text)):
        if text[place] in _CLOSING:
            opened.append(_CLOSING[text[place]])
        elif opened and text[place] == opened[-1]:
            opened.pop()
            if not opened:
                return place + 1
    return len(text)


def _has_tame_factorials(text: str) -> bool:
    longest = max((len(digits) for digits in _DIGITS.findall(text)), default=0)
    if re.search(r"\\[dt]?binom|\\choose|\\prod|\\sum", text) and (
        longest > MAX_BINOMIAL_DIGITS or re.search(r"(?:\^|\*\*)\s*\{?\s*\d{3}", text)
    ):
        return False
    binomials = [text[m.start() : _piece_end(text, m.start())] for m in re.finditer(r"\\[dt]?binom(?![a-zA-Z])", text)]
    if any("^" in binomial or "!" in binomial for binomial in binomials) or ("\\choose" in text and "^" in text):
        return False
    before = _FACTORIAL.findall(text)
    if not before:
        return True
    if "!" in before or re.search(r"!\s*!", text):
        return False
    if any(char in ")}]" for char in before) and not _LETTER.search(_COMMAND.sub("", text)):
        return False
    return all(len(d) <= MAX_FACTORIAL_DIGITS for d in re.findall(r"(\d+)\s*!", text)) and longest <= 6
