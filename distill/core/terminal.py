"""Text that others wrote, made safe to show on a terminal.

Enters: text with whatever a model, a server, a recipe or a file name holds. Leaves: the same with every character
written out that a terminal would obey, or that would hide or reorder what stands beside it:

    "a\\x1b[2Jb" -> "a\\\\x1b[2Jb"
"""

import re
import unicodedata

HIDING = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Unicode's categories of control and format characters (directions and zero widths among them), private use,
surrogates, line and paragraph separators."""
BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks that are shown as nothing: fillers of Hangul and Khmer, and the grapheme joiner."""
_NOT_PLAIN = re.compile(r"[^\n\t -~]")


def printable(text: str) -> str:
    """Write out the characters of a text that would move the cursor, hide or reorder something; line breaks stay."""
    return _NOT_PLAIN.sub(_shown, text)


def printable_line(text: str) -> str:
    """The same on one line: a line break could begin a line that looks like another of ours."""
    return printable(text).replace("\n", "\\n")


def _shown(found: re.Match[str]) -> str:
    char = found[0]
    is_hiding = unicodedata.category(char) in HIDING or char in BLANK_LETTERS
    return f"{char!a}"[1:-1] if is_hiding else char
