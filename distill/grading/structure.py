r"""Split answers into parts: lists, sets, tuples, matrices, and the sides of an equals sign.

Examples: `"x=1, y=2"`, `"\{1, 2\}"`, `"(1, 2]"`, `"8=x"`.
"""

import itertools
import re
from typing import NamedTuple

from distill.grading.quantities import read_quantity

MAX_PARTS = 50
"""Longer lists are compared as a whole."""

MAX_SIGNS = 3
"""Maximum number of plus-or-minus signs that are expanded in one part."""

_LETTER = r"(?:[a-zA-Z]|\\[a-zA-Z]+)"
_NAME = re.compile(
    r"(?:\\(?:text|mathrm)\s*\{[^{}]*\}|(?:\\(?:angle|triangle|overline|vec|mathbf|bar|hat|tilde|dot|boldsymbol)\s*)?"
    r"\{?(?:[a-zA-Z]|[A-Z]{2,4}|\\(?!infty|pi\b|emptyset|varnothing)[a-zA-Z]+)\}?)"
    r"'*(?:_(?:\w|\\[a-zA-Z]+|\{[\w,+\-\\]+\}))?'*(?:\([^()=]{1,20}\))?"
)
_NAMES = re.compile(rf"\(\s*{_LETTER}(?:_\w)?(?:\s*,\s*{_LETTER}(?:_\w)?)+\s*\)")
EQUALS = re.compile(r"(?<![\\<>!:=])=(?!=)|\\(?:approx|simeq|equiv)(?![a-zA-Z])|≈")
RELATION = re.compile(
    r"[<>=≤≥≠≈]|\\(?:leq?|geq?|leqslant|geqslant|lt|gt|neq?|in|subset|approx|simeq|equiv|sim)(?![a-zA-Z])"
)
_INEQUALITY = re.compile(r"[<>≤≥≠]|\\(?:leq?|geq?|leqslant|geqslant|lt|gt|neq?)(?![a-zA-Z])")
_SEPARATOR = re.compile(
    r"\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|,?\s\b(?:and|or)\b\s|\\(?:lor|land|vee|wedge)(?![a-zA-Z])|"
    r"\\(?:begin|end|.)|[,;{}()\[\]]",
    re.DOTALL,
)
_BREAK = re.compile(r"\\(?:begin|end)|\\[{}]|[{}()\[\]]|(?:\\\\(?:\[[^\]]*\])?|\\q?quad(?![a-zA-Z])|\n)+", re.DOTALL)
_RUN_ON = re.compile(r"(=\s*[-+]?[\d./]+)\s+(?=[a-zA-Z](?:_(?:\w|\{\w+\}))?\s*=)")
_NUMERIC = re.compile(
    r"\\(?:text|mathrm)\s*\{[^{}]*\}|\\(?:[dtc]?frac|sqrt|[dt]?binom|cdot|times|div|pi|circ|degree|infty|log|ln|exp|"
    r"(?:arc)?(?:sin|cos|tan)|pm|mp|overline|begin\{\w+\}|end\{\w+\})(?![a-zA-Z])"
)
"""Matches commands that may occur in a number without variables."""
_OPENING, _CLOSING = "{([", "})]"
_SYSTEM = re.compile(
    r"\s*(?:\\left\s*\\\{)?\s*\\begin\{(?:cases|aligned|align\*?|gathered|array)\}(?:\{[lcr]*\})?(.*)"
    r"\\end\{\w+\*?\}\s*(?:\\right\s*\.)?\s*",
    re.DOTALL,
)
_MATRIX = re.compile(
    r"\\begin\{(p|b|B|v|V|small)?(matrix|array)\}(?:\{[lcr| ]*\})?((?:(?!\\begin|\\end).)*)\\end\{\w+\}", re.DOTALL
)


class Structure(NamedTuple):
    """The parts of an answer; `kind` is `one`, `list` (bare), `set`, or the two brackets of a tuple or interval."""

    kind: str
    parts: tuple[str, ...]


class Matrix(NamedTuple):
    """The rows of a matrix or determinant, and the factor before it (`2` in 2 times a matrix)."""

    rows: tuple[tuple[str, ...], ...]
    factor: str
    is_determinant: bool


def usual_brackets(answer: str) -> str:
    """Rewrite `]1, 2]` as `(1, 2]`."""
    found = re.fullmatch(r"\s*([\[\]])([^\[\]]*[,;][^\[\]]*)([\[\]])\s*", answer)
    if not found or found[1] + found[3] == "[]":
        return answer
    return ("[" if found[1] == "[" else "(") + found[2] + ("]" if found[3] == "]" else ")")


def separate(answer: str) -> str:
    r"""Insert commas between relations separated only by line breaks, `\quad` or a space: `x=4 \quad y=9`."""
    if "=" not in answer and not RELATION.search(answer):
        return answer
    if found := _SYSTEM.fullmatch(answer):
        rows = [row.replace("&", " ").strip().strip(",;.") for row in re.split(r"\\\\", found[1]) if row.strip()]
        if all(RELATION.search(row) and not re.search(r"[<>]|\\[gl]e|\\text|\bif\b", row) for row in rows):
            return ", ".join(rows)
    answer = _RUN_ON.sub(r"\1, ", answer)
    pieces, start, depth = [], 0, 0
    for match in _BREAK.finditer(answer):
        sign = match[0]
        if sign in ("\\begin", "{", "(", "[", "\\{"):
            depth += 1
        elif sign in ("\\end", "}", ")", "]", "\\}"):
            depth -= 1
        elif depth == 0:
            pieces.append(answer[start : match.start()])
            start = match.end()
    pieces.append(answer[start:])
    pieces = [piece.strip().strip(",;&$").strip() for piece in pieces]
    whole = [piece for piece in pieces if piece]
    if len(whole) < 2 or not all(RELATION.search(piece) and not RELATION.match(piece) for piece in whole):
        return answer
    return ", ".join(whole)


def assigned(answer: str) -> tuple[str, tuple[str, ...]]:
    r"""Return (name, values) of `x = 5`, `5 = x`, `S = 2 + 3 = 5` and `x \in [1, 2]`; `2 + 3 = 5` has the name `""`.

    A chain returns all its values, the last one first; they should be equal.
    """
    parts = [part.strip() for part in EQUALS.split(answer)]
    if len(parts) > 1 and not _INEQUALITY.search(answer) and (len(split_list(answer)) == 1 or _NAMES.match(answer)):
        if _NAME.fullmatch(parts[0]) or _NAMES.fullmatch(parts[0]):
            return parts[0], tuple(parts[:0:-1])
        if len(parts) == 2 and _NAME.fullmatch(parts[1]) and not _has_letters(parts[0]):
            return parts[1], (parts[0],)
        if not any(_has_letters(part) for part in parts):
            return "", tuple(parts[::-1])
    if (member := re.match(r"\s*(\\?[a-zA-Z]+)\s*\\in(?![a-zA-Z])", answer)) and _NAME.fullmatch(member[1]):
        return member[1], (answer[member.end() :].strip(),)
    return "", (answer,)


def _has_letters(text: str) -> bool:
    return re.search(r"[a-zA-Z]", _NUMERIC.sub("", text)) is not None


def take_apart(answer: str) -> Structure:
    """Split a list, set, tuple or interval into its parts; an answer with one part, or too many, is `one`."""
    if re.search(r"\\(?:cup|cap|setminus|mid)(?![a-zA-Z])", answer) or (
        "\\begin" in answer and _MATRIX.fullmatch(answer)
    ):
        return Structure("one", (answer,))
    text = answer.strip()
    kind, inner = "list", text
    if text.startswith("\\{") and text.endswith("\\}") and _is_bracketed(text.replace("\\", "")):
        kind, inner = "set", text[2:-2]
    elif text.startswith("{") and text.endswith("}") and _is_bracketed(text):
        inner = text[1:-1]
        if len(split_list(inner)) == 1:
            return take_apart(inner) if inner.strip() else Structure("one", (answer,))
        kind = "set"
    elif text[:1] in ("(", "[") and text[-1:] in (")", "]") and _is_bracketed(text):
        kind, inner = text[0] + text[-1], text[1:-1]
    elif found := re.fullmatch(r"\\langle(?![a-zA-Z])(.*)\\rangle", text, re.DOTALL):
        kind, inner = "()", found[1]
    parts = [part for one in split_list(inner) for part in _both_signs(one)]
    if len(parts) > MAX_PARTS or (len(parts) == 1 and kind != "set") or (kind == "set" and re.search("[|:]", inner)):
        return Structure("one", (answer,))
    return Structure(kind, tuple(parts))


def _is_bracketed(text: str) -> bool:
    """Return whether the first bracket closes at the last character; `(1, 2), (3, 4)` is a list."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth == 0:
            return place == len(text) - 1
    return False


def split_list(text: str) -> list[str]:
    """Split at commas, semicolons, "and" and "or" outside brackets, but not at thousands separators."""
    if not re.search(r"[\[({]", text) and read_quantity(text) is not None:
        return [text]
    parts, depth, start = [], 0, 0
    for match in _SEPARATOR.finditer(text):
        piece = match[0]
        if piece in ("\\{", "\\}"):
            piece = piece[1]
        if piece == "\\begin" or piece in _OPENING:
            depth += 1
        elif piece == "\\end" or piece in _CLOSING:
            depth -= 1
        elif depth == 0 and (piece in ",;" or re.search("and|or|vee|wedge", piece)):
            parts.append(text[start : match.start()])
            start = match.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _both_signs(part: str) -> list[str]:
    part = part.replace("±", "\\pm ")
    pieces = re.split(r"\\pm(?![a-zA-Z])\s*", part)
    if not 1 < len(pieces) <= MAX_SIGNS + 1 or "\\mp" in part:
        return [part]
    # The signs are independent of one another.
    return [
        "".join(a + b for a, b in zip(pieces, (*signs, ""), strict=True)).strip().removeprefix("+")
        for signs in itertools.product("+-", repeat=len(pieces) - 1)
    ]


def read_matrix(text: str) -> Matrix | None:
    """Read a matrix, alone or after a factor; return `None` if the text is anything else."""
    found = _MATRIX.search(text)
    if found is None:
        return None
    factor, after = re.sub(r"\\cdot|\\times|\*", "", text[: found.start()]).strip(), text[found.end() :].strip()
    brackets = factor[-1:] + after
    if after and brackets not in ("()", "[]", "||"):
        return None
    if after:
        factor = factor[:-1].strip()
    if factor and (RELATION.search(factor) or _has_letters(factor) or factor[-1:] in "([|"):
        return None
    rows = [
        row for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr(?![a-zA-Z])", found[3].replace("\\hline", "")) if row.strip()
    ]
    cells = tuple(tuple(cell.strip() for cell in row.split("&")) for row in rows)
    if not cells or len({len(row) for row in cells}) != 1:
        return None
    return Matrix(cells, factor, found[1] in ("v", "V") or brackets == "||")


def determinant(rows: tuple[tuple[str, ...], ...]) -> str:
    """Return the expansion of a determinant, as an expression."""
    if len(rows) == 1:
        return f"({rows[0][0]})"
    terms = []
    for place, cell in enumerate(rows[0]):
        minor = tuple(row[:place] + row[place + 1 :] for row in rows[1:])
        terms.append(f"{'-' if place % 2 else '+'}({cell}){determinant(minor)}")
    return f"({' '.join(terms).removeprefix('+')})"
