"""From the text of an answer to the program that is tested.

    "First …\\n```python\\nprint(6 * 7)\\n```\\nThis multiplies."  ->  "print(6 * 7)\\n"

Everything here is text: no code from an answer is parsed in this process.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from distill.core.records import CodeTests, Language
from distill.grading.code import cpp_text

TAGS: dict[Language, frozenset[str]] = {
    "python": frozenset({"python", "py"}),
    "cpp": frozenset({"cpp", "c++", "cc", "cxx", "c"}),
}
"""Names after the mark that opens a block of this language, without a version."""
MAX_SHOWN_CHARS = 100_000
"""A longer program is tested whole and recorded cut."""

_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([^\s`]*)")
"""The beginning of a line that opens or closes a block, if no more backticks follow."""
_ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+")
_TAG = re.compile(r"\{?\.?([a-z]+(?:\+\+)?)[\d.]*(?:[,:{}]|$)")
"""What follows a mark: `python`, `python3.11`, `c++17`, `{.python}`."""
MAX_INDENT = 3
"""Spaces before a mark, besides those of the list item that it is in."""
_STARTS: dict[Language, re.Pattern[str]] = {
    "python": re.compile(
        r"(?:from\s+[\w.]+\s+import\b|import\s+\w|(?:async\s+)?def\s+\w+\s*\(|class\s+\w+\s*[:(]|@\w|#|if __name__\b"
        r"|\"\"\"|print\s*\(|\w[\w, ]*=\s*\S)"
    ),
    "cpp": re.compile(
        r"(?:#\s*include\b|using\s+namespace\b|//|/\*|template\s*<|(?:[\w:<>&*,]+\s+)+\w+\s*\([^)]*\)\s*\{)"
    ),
}
"""How the first line of an answer begins that is a program without a mark around it."""
_STATEMENT = re.compile(r"(?:return|for|while|if|with|try|yield|raise|assert|nonlocal|global)\b")
_FUTURE = re.compile(r"^from\s+__future__\s+import\b[^\n]*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a text."""

    tag: str
    """The word after the opening mark, in lower case and without a version; empty if there is none."""
    code: str
    is_closed: bool
    start: int
    """Number of lines before the opening mark."""


def fenced_blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a text in order. A last one that is never closed reaches to the end."""
    mark, indent, tag, start, lines = "", "", "", 0, list[str]()
    depth = 0  # of what belongs to the list item before
    for number, line in enumerate(text.split("\n")):
        match = _FENCE.match(line)
        if match and "`" in line[match.end() :]:
            match = None
        if not mark:
            item = _ITEM.match(line)
            depth = len(item[0]) if item else depth if not line.strip() or line[:depth].isspace() else 0
        if match and len(match[1].expandtabs(4)) > depth + MAX_INDENT:
            match = None
        if mark and match and match[2].startswith(mark) and not match[3]:
            yield Block(tag, _joined(lines, indent), True, start)
            mark = ""
        elif mark:
            lines.append(line)
        elif match:
            indent, mark, tag, start, lines = match[1], match[2], _language(match[3].casefold()), number, []
    if mark:
        yield Block(tag, _joined(lines, indent), False, start)


def _language(tag: str) -> str:
    """Return the name in a tag, without a version; another tag as it is."""
    match = _TAG.match(tag)
    return match[1] if match else tag


def _joined(lines: list[str], indent: str) -> str:
    """Return the lines of a block, without its indentation if all have it."""
    if all(line.startswith(indent) or not line.strip() for line in lines):
        lines = [line.removeprefix(indent) for line in lines]
    return "\n".join([*lines, ""])


def program_in(text: str, tests: CodeTests | None) -> str | None:
    """Return the program of an answer; `None` if it has none.

    It is the last fenced block in the tests' language, or else the last without a language; of several, the last that
    defines the function that is asked for. An answer without any block counts as a program if it begins like one.

    Args:
        text: the answer without the thought.
        tests: how it will be tested; `None`: as Python.
    """
    language: Language = tests.language if tests else "python"
    blocks = [block for block in fenced_blocks(text) if block.code.strip()]
    if not blocks:
        return _bare_program(text, tests, language)
    own = [one for one in blocks if one.tag in TAGS[language]] or [one for one in blocks if not one.tag]
    if not own:
        return None
    defining = [one for one in own if tests and tests.entry_point and _defines(one.code, tests.entry_point, language)]
    return (defining or own)[-1].code


def _bare_program(text: str, tests: CodeTests | None, language: Language) -> str | None:
    """Return a text without blocks if it is a program itself, or goes on where the prompt ends."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    if tests is not None and tests.prompt and language == "python":
        if first[:1] in (" ", "\t"):
            return text
        if _STATEMENT.match(first):  # an answer has lost the spaces at its beginning
            return f"    {text}"
    return text if _STARTS[language].match(first.strip()) else None


def whole_blocks(text: str) -> str:
    """Return an answer that was cut off without the block in which it was: an unfinished program is none."""
    blocks = list(fenced_blocks(text))
    if not blocks or blocks[-1].is_closed:
        return text if blocks else ""
    return "\n".join(text.split("\n")[: blocks[-1].start])


def _defines(code: str, name: str, language: Language) -> bool:
    """Return whether code defines a function of this name, at the outermost level in Python."""
    if language == "cpp":
        return cpp_text.defines(code, name)
    named = re.escape(name)
    return re.search(rf"^(?:async\s+)?(?:def|class)\s+{named}\b|^{named}\s*[:=]", code, re.MULTILINE) is not None


def python_source(program: str, tests: CodeTests) -> str:
    """Return the Python code that is run for a program.

    A program that defines the function that is asked for follows the prompt's imports and helpers; any other one
    completes the prompt. A function that only a class `Solution` has is put in the module.
    """
    if not tests.prompt:
        return program
    if not tests.entry_point or _defines(program, tests.entry_point, "python"):
        early = "".join(match[0].rstrip("\n") + "\n" for match in _FUTURE.finditer(program))  # must come first
        return f"{early}{prompt_module(tests.prompt)}\n{_FUTURE.sub(_blank, program) if early else program}"
    first = next((line for line in program.split("\n") if line.strip()), "")
    body = program if first[:1] in (" ", "\t") else textwrap.indent(program, "    ")
    return f"{tests.prompt.rstrip()}\n{body}"


def _blank(match: re.Match[str]) -> str:
    return "\n" if match[0].endswith("\n") else ""


def prompt_module(prompt: str) -> str:
    """Return a prompt as a module of its own: a function of which it has only the head does nothing."""
    lines = [line for line in prompt.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    return f"{prompt.rstrip()}\n    pass\n" if lines and lines[-1].rstrip().endswith(":") else f"{prompt.rstrip()}\n"


def with_methods(source: str, functions: frozenset[str]) -> str:
    """Return code in which functions that only a class `Solution` defines can be called, each with a fresh instance."""
    if re.search(r"^class\s+Solution\b", source, re.MULTILINE) is None:
        return source
    missing = sorted(name for name in functions if name.isidentifier() and not _defines(source, name, "python"))
    made = "".join(
        f"\n\ndef {name}(*args, **kwargs):\n    return Solution().{name}(*args, **kwargs)\n" for name in missing
    )
    return f"{source}{made}"
