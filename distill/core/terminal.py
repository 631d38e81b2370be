"""Make untrusted text safe to show on a terminal.

A model, a server, a recipe or a file name may hold characters that a terminal obeys, or that hide or reorder the text
beside them. They are escaped:

    "a\\x1b[2Jb" -> "a\\\\x1b[2Jb"
"""

import re
import unicodedata

HIDING = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Unicode categories: control and format characters (directional and zero-width ones included), private use,
surrogates, line and paragraph separators."""
BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks that are displayed as nothing: Hangul and Khmer fillers, and the grapheme joiner."""
_NOT_PLAIN = re.compile(r"[^\n\t -~]")


def printable(text: str) -> str:
    """Escape the characters of a text that would move the cursor, or hide or reorder text. Line breaks stay."""
    return _NOT_PLAIN.sub(_shown, text)


def printable_line(text: str) -> str:
    """Escape line breaks too: after one, a text could imitate a line of distill's own output."""
    return printable(text).replace("\n", "\\n")


def _shown(found: re.Match[str]) -> str:
    char = found[0]
    is_hiding = unicodedata.category(char) in HIDING or char in BLANK_LETTERS
    return f"{char!a}"[1:-1] if is_hiding else char
