"""The functions that test code calls, found in its text."""

import builtins
import keyword
import re

_CALLED = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\s*\(")
_TEXT = re.compile(r"\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*", re.DOTALL)
_MADE = re.compile(
    r"^\s*(?:async\s+)?(?:def|class)\s+(\w+)|^\s*(?:from\s+[\w.]+\s+)?import\s+(.+)$|^\s*(\w+)\s*=(?!=)", re.MULTILINE
)


def called_names(code: str, trusted: str = "") -> tuple[str, ...]:
    """Return the names that test code calls and that neither it, nor the code before it, nor Python defines.

    Where there are none, the first name that is called belongs to the program, though Python has one like it.

    Args:
        code: test code such as `assert add(1, 2) == 3`.
        trusted: what is executed before it.
    """
    own = {name for text in (code, trusted) for name in _made_names(_TEXT.sub("''", text))}
    called = [
        name for name in _CALLED.findall(_TEXT.sub("''", code)) if name not in own and not keyword.iskeyword(name)
    ]
    found = [name for name in called if not hasattr(builtins, name)]
    return tuple(dict.fromkeys(found or called[:1]))


def _made_names(text: str) -> set[str]:
    """Return the names that code defines, imports or assigns."""
    found: set[str] = set()
    for defined, imported, assigned in _MADE.findall(text):
        found |= {name for name in (defined, assigned) if name}
        found |= {part.split(" as ")[-1].strip().partition(".")[0] for part in imported.strip("()").split(",")}
    return found
