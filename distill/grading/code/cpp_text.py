"""C++ test code and programs as text: assertions, their two sides, and what a program is compiled with."""

import re
from typing import NamedTuple

_ASSERT = re.compile(r"\bassert\s*\(")
_MADE_TYPE = re.compile(r"\b(?:struct|union|class)\s+(\w+)")
_OWN_MAIN = re.compile(r"^(?:int|signed|auto|void)\s+main\s*\(", re.MULTILINE)
MAIN = "#define main distill_main_of_the_program"
"""The program's own `main`, of which answers have many, is a function like others."""


class Sides(NamedTuple):
    """Of an assertion `assert(call == expected)`."""

    call: str
    expected: str


def asserts_in(text: str) -> list[str]:
    """Return the assertions in code, each with its brackets: `assert(candidate((2)) == (1))`."""
    found = []
    for match in _ASSERT.finditer(text):
        end = closing_bracket(text, match.end() - 1)
        if end is not None:
            found.append(text[match.start() : end + 1])
    return found


def condition_of(code: str) -> str:
    """Return what an assertion says, without `assert` and its brackets."""
    match = _ASSERT.match(code.strip())
    return code if match is None else code.strip()[match.end() :].rstrip("; \n\t").removesuffix(")").strip()


def sides_of(code: str) -> Sides | None:
    """Return both sides of `assert(f(…) == …)`; `None` if it is another assertion."""
    said = condition_of(code)
    start = re.match(r"\w+\s*\(", said)
    end = None if start is None else closing_bracket(said, start.end() - 1)
    if end is None:
        return None
    rest = re.fullmatch(r"\s*==(.+)", said[end + 1 :], re.DOTALL)
    return Sides(said[: end + 1], rest[1].strip()) if rest else None


def closing_bracket(text: str, start: int) -> int | None:
    """Return the place of the bracket that closes the one at `start`, with texts left aside."""
    depth, quote, place = 0, "", start
    while place < len(text):
        char = text[place]
        if quote:
            place += char == "\\"
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if not depth:
                return place
        place += 1
    return None


def result_type(prompt: str, name: str) -> str | None:
    """Return the type that a prompt's function returns, as it is written; `None` if the prompt has no such function."""
    heads = re.findall(rf"^(?!\s*//)([^\n()]*?)\b{re.escape(name)}\s*\(", prompt, re.MULTILINE)
    return heads[-1].strip() if heads else None


def defines(program: str, name: str) -> bool:
    """Return whether a program defines a function of this name."""
    head, start = re.compile(rf"\b{re.escape(name)}\s*\("), 0
    for end in re.finditer("[;{}]", program):  # a part at a time, so that no text is searched twice
        found = head.search(program, start, end.start()) if end[0] == "{" else None
        if found and ")" in program[found.end() : end.start()]:
            return True
        start = end.end()
    return False


def whole_program(program: str, prompt: str, name: str) -> str:
    """Return a program with the prompt's includes and types before it, or as the completion of the prompt.

    Args:
        program: from the answer.
        prompt: code that the answer completes or follows; may be empty.
        name: of the function that is asked for.
    """
    own_main = _OWN_MAIN.search(program)
    if name and own_main and program.count("{") > program.count("}"):  # an answer that was cut off after its function
        program = program[: own_main.start()]
    if name and not defines(program, name):
        text = f"{prompt.rstrip()}\n{program}"
        return text + "}" * max(0, text.count("{") - text.count("}"))
    head = re.search(rf"^(?!\s*//)[^\n()]*?\b{re.escape(name)}\s*\(", prompt, re.MULTILINE) if name else None
    before = prompt[: head.start()] if head else prompt
    made = set(_MADE_TYPE.findall(before))
    if made & set(_MADE_TYPE.findall(program)):
        before = "".join(f"{line}\n" for line in before.split("\n") if line.lstrip().startswith("#include"))
    return f"{before.rstrip()}\n{program}"
