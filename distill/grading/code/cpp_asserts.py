"""C++ assertions about a function: its results come out as text, and what is expected is read from the test here.

    assert(candidate((2), (3)) == (5))      the sandbox gets `candidate((2), (3))`, this process compares with 5

Where the expected side is more than a literal, or the function's type is one that the problem makes, the comparison
runs in the program's own process, and the test counts as weaker. The problem decides which way, never the program.
"""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from distill.core.records import CodeTests
from distill.grading.code.cpp_literals import NotALiteralError, literal_value
from distill.grading.code.cpp_text import MAIN, Sides, condition_of, result_type, sides_of, whole_program
from distill.grading.code.outcomes import Outcome, Shown, not_finished
from distill.grading.sandbox import Backend, Execution, Limits, submission
from distill.storage.case_files import iter_cases

MARK = "distill-result:"
MAX_SHOWN_CHARS = 1 << 20
_PLAIN_TYPE = re.compile(
    r"(?:const|bool|int|long|short|unsigned|float|double|(?:std::)?(?:string|vector|map|unordered_map|set|tuple|pair"
    r"|optional|size_t|list|deque)|[\s<>,&])+"
)
"""A type whose values the program's side can show."""


def cpp_assert_outcomes(program: str, tests: CodeTests, limits: Limits, backend: Backend) -> Iterator[Outcome]:
    """Yield the outcome of each assertion; the program is compiled once.

    Args:
        program: from the answer.
        tests: assertions in C++ about `candidate`, which stands for the problem's function, or about it by its name.
        limits: of one test.
        backend: where programs run.
    """
    codes = [case["code"] for case in iter_cases(tests)]
    whole = whole_program(program, tests.prompt, tests.entry_point)
    known = _known_results(codes, tests)
    if known is None:
        yield from _weaker(whole, codes, tests, limits, backend)
        return
    source = _source(whole, tests, [f"distill_shown::show(shown, {sides.call});" for sides, _ in known], SHOWN_MAIN)
    with submission("cpp", source, backend=backend) as one:
        for number, (sides, expected) in enumerate(known):
            done = one.run(f"{number}\n".encode(), limits)
            yield _outcome(done, sides, expected)


def _known_results(codes: Sequence[str], tests: CodeTests) -> list[tuple[Sides, Any]] | None:
    """Return the sides of all assertions with the expected values; `None` if one cannot be told."""
    made = result_type(tests.prompt, tests.entry_point) if tests.entry_point else None
    if made is None or not _PLAIN_TYPE.fullmatch(made):
        return None
    found = []
    for code in codes:
        sides = sides_of(code)
        if sides is None:
            return None
        try:
            found.append((sides, literal_value(sides.expected)))
        except NotALiteralError:
            return None
    return found


SHOWN_MAIN = """int main() {{
  int number = -1;
  if (std::scanf("%d", &number) != 1) return 1;
  std::string shown;
  switch (number) {{
{cases}
  default: return 1;
  }}
  std::printf("\\n{mark}%s\\n", shown.c_str());
  return std::fflush(stdout);
}}
"""
WEAKER_MAIN = """int main() {{
  int number = -1;
  char sign[65] = "";
  if (std::scanf("%d %64s", &number, sign) != 2) return 1;
  bool holds = false;
  switch (number) {{
{cases}
  default: return 1;
  }}
  std::printf("\\n{mark}%s\\n", holds ? sign : "");
  return std::fflush(stdout);
}}
"""


def _source(program: str, tests: CodeTests, statements: Sequence[str], main: str) -> str:
    """Return the program with a `main` that does one of these statements, by a number on standard input."""
    name = tests.entry_point
    return "\n".join(
        [
            _show(),
            MAIN,
            program,
            "#undef main",
            "#include <cstdio>",
            # Not a variable: a function of the same name in a namespace that is used would make that ambiguous.
            f"#define candidate {name}" if name and name != "candidate" else "",
            main.format(
                cases="\n".join(f"  case {number}: {{ {one} break; }}" for number, one in enumerate(statements)),
                mark=MARK,
            ),
        ]
    )


@cache
def _show() -> str:
    return (Path(__file__).parent / "show.hpp").read_text(encoding="utf-8")


def _outcome(done: Execution, sides: Sides, expected: Any) -> Outcome:
    test = Shown(*sides)
    if done.end != "finished":
        return not_finished(done, test)
    said = _marked(done)
    try:
        value = json.loads(said) if said is not None and len(said) <= MAX_SHOWN_CHARS else _NOTHING
    except (ValueError, RecursionError):
        value = _NOTHING
    passed = value is not _NOTHING and same_result(value, expected)
    return Outcome(passed, "finished", test, said or "", done.detail, said)


_NOTHING = object()


def same_result(value: Any, expected: Any) -> bool:
    """Return whether a shown result equals the expected one, exactly, as `==` in C++ compares."""
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(same_result, value, expected))
    is_number = isinstance(value, int | float) and isinstance(expected, int | float)  # true == 1 in C++
    return bool(value == expected) if is_number or type(value) is type(expected) else False


def _marked(done: Execution) -> str | None:
    """Return what the last marked line of an output says."""
    start = done.stdout.rfind(f"\n{MARK}".encode())
    if start < 0:
        return None
    return done.stdout[start + 1 + len(MARK) :].partition(b"\n")[0].decode("utf-8", "replace")


def _weaker(
    program: str, codes: Sequence[str], tests: CodeTests, limits: Limits, backend: Backend
) -> Iterator[Outcome]:
    """Yield the outcomes of assertions that are compared in the program's own process.

    The program repeats a text drawn at random where an assertion holds: ending early does not pass for that.
    """
    statements = [f"holds = static_cast<bool>({condition_of(code)});" for code in codes]
    with submission("cpp", _source(program, tests, statements, WEAKER_MAIN), backend=backend) as one:
        for number, code in enumerate(codes):
            sign = secrets.token_hex(16)
            done = one.run(f"{number} {sign}\n".encode(), limits)
            test = Shown(condition_of(code), "true")
            if done.end != "finished":
                yield not_finished(done, test)._replace(is_weaker=True)
                continue
            passed = _marked(done) == sign
            yield Outcome(passed, "finished", test, "" if passed else "false", given=passed, is_weaker=True)
