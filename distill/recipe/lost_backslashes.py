r"""Detection of backslashes lost to string escapes: `"\boxed"` in double quotes is a backspace and `oxed`."""

import re

_NAMES = {
    0x00: "NUL", 0x07: "a bell", 0x08: "a backspace", 0x09: "a tab", 0x0A: "a line break", 0x0B: "a vertical tab",
    0x0C: "a form feed", 0x0D: "a carriage return", 0x1B: "an escape character", 0x7F: "a delete character",
    0x85: "a next-line character", 0xA0: "a no-break space", 0x2028: "a line separator",
    0x2029: "a paragraph separator",
}  # fmt: skip
_ESCAPES = {
    "0": 0x00, "a": 0x07, "b": 0x08, "t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D, "e": 0x1B, "N": 0x85,
    "_": 0xA0, "L": 0x2028, "P": 0x2029,
}  # fmt: skip
"""YAML's escapes for non-printing characters. Source: https://yaml.org/spec/1.2.2/#57-escaped-characters"""
_LETTERS = {code: letter for letter, code in _ESCAPES.items()}
_WANTED = "tnNLP"
"""Escapes that may be intended: they count only in place of a LaTeX command."""

_TAB_COMMANDS = (
    "text", "textbf", "textit", "texttt", "textrm", "textsf", "textsc", "textup", "textnormal", "textstyle",
    "textcolor", "textsuperscript", "textsubscript", "times", "theta", "tfrac", "tau", "tan", "tanh", "to", "top",
    "tag", "tilde", "triangle", "triangleq", "triangleleft", "triangleright", "therefore", "thickapprox", "thicksim",
    "thinspace", "thickspace", "tbinom", "twoheadrightarrow", "tiny", "toprule",
)  # fmt: skip
_LINE_COMMANDS = (
    "nabla", "neq", "not", "notin", "newline", "newcommand", "newpage", "nonumber", "notag", "nolimits", "nleq", "ngeq",
    "nless", "ngtr", "nmid", "nparallel", "nsim", "ncong", "nsubseteq", "nsupseteq", "nrightarrow", "nleftarrow",
    "nearrow", "nwarrow", "nexists", "normalsize", "natural", "noindent",
)  # fmt: skip
_OTHER_COMMANDS = (
    "Lambda", "Leftarrow", "Leftrightarrow", "Longrightarrow", "Longleftarrow", "Large", "LaTeX", "Pi", "Phi", "Psi",
    "Pr",
)  # fmt: skip
_COMMANDS = frozenset((*_TAB_COMMANDS, *_LINE_COMMANDS, *_OTHER_COMMANDS))
_IN_FORMULAS = frozenset(("ne", "nu", "ni", "neg"))
"""Commands whose remaining letters may begin a line of prose, so they count only between dollar signs."""
_SPOKEN = frozenset(("tan", "tag", "top", "to", "tau"))
"""Commands whose remaining letters may follow a real tab, so they count only if the file itself says `\\t`."""

_ESCAPE = re.compile(r"\\(?:[^0abtnvfreNLP_]|(?P<letter>.)(?P<rest>[A-Za-z]*))", re.DOTALL)
_CONTROL = re.compile(r"(?P<char>[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f])(?P<rest>[A-Za-z]*)")
_RESTS = "|".join(name[1:] for name in _TAB_COMMANDS if name not in _SPOKEN)
_LINE_RESTS = "|".join(name[1:] for name in _LINE_COMMANDS)
_EATEN = re.compile(rf"\t(?P<tab>{_RESTS})(?![A-Za-z])|\n(?P<line>{_LINE_RESTS})(?![A-Za-z])")


def eaten_in_source(source: str) -> str | None:
    """Return what escapes have removed from a double-quoted text, or `None`.

    Args:
        source: the text as in the file, quotes included.
    """
    for match in _ESCAPE.finditer(source):
        letter = match["letter"]
        if letter is None:
            continue
        word = letter + match["rest"]
        in_formula = source.count("$", 0, match.start()) % 2 == 1
        if letter in _WANTED and not (word in _COMMANDS or (in_formula and word in _IN_FORMULAS)):
            continue
        if letter == "_" and not (source[match.start() - 1].isalnum() and source[match.start() + 2].isalnum()):
            continue
        return _read_as(letter, match["rest"]) + _quoted(letter, match["rest"])
    return None


def _quoted(letter: str, rest: str) -> str:
    command = f"\\{letter}{rest}"
    code = _ESCAPES[letter]
    escape = f"\\x{code:02X}" if code < 1 << 8 else f"\\u{code:04X}"
    meant = f" If it is meant, write {escape}." if letter in _WANTED else ""
    return f"Write it in single quotes ('… {command}') or as a block (|), or double the backslash.{meant}"


def eaten_in_text(text: str) -> str | None:
    """Return what an escape has removed from a parsed text, or `None`.

    A control character always counts; a tab or line break only in place of a LaTeX command.
    """
    if (found := control_in_text(text)) is not None:
        return found
    match = _EATEN.search(text)
    if match is None:
        return None
    return (_read_as("t", match["tab"]) if match["tab"] else _read_as("n", match["line"])) + _RAW


def control_in_text(text: str) -> str | None:
    """Return the first control character in a text and what it may have been; tabs and line feeds are allowed."""
    match = _CONTROL.search(text)
    if match is None:
        return None
    letter = _LETTERS.get(ord(match["char"]))
    if letter is None:
        return f"it holds the control character U+{ord(match['char']):04X}. Remove it."
    return _read_as(letter, match["rest"]) + _RAW


def _read_as(letter: str, rest: str) -> str:
    kept = f", so that \\{letter}{rest} has become {rest!r}" if rest else ""
    return f"\\{letter} was read as {_NAMES[_ESCAPES[letter]]}{kept}. "


_RAW = "Double the backslash, or in Python write a raw string (r'…')."

ESCAPE_HINT = (
    "In double quotes a backslash begins an escape: write LaTeX in single quotes ('\\sqrt{2}'), or double the backslash"
)
"""Hint for escapes that YAML does not know."""
