"""Read the tests of code problems from rows of the usual data sets.

    {"tests": [{"kind": "stdin", "stdin": "1 2", "expected": "3"}], "time_limit": 2}           distill's own
    {"prompt": "def add(a, b):…", "entry_point": "add", "test": "def check(candidate):…"}      HumanEval
    {"text": "…", "test_list": ["assert add(1, 2) == 3"], "test_setup_code": ""}               MBPP
    {"input_output": "{\\"inputs\\": [\\"1 2\\"], \\"outputs\\": [\\"3\\"]}"}                       TACO, APPS
    {"test": "[{\\"input\\": {\\"stdin\\": …}, \\"output\\": {\\"stdout\\": …}}]"}                    SandboxFusion
    {"prompt": "long add(long a, long b) {", "tests": "}\\nint main() {…", "language": "cpp"}   MultiPL-E
    {"public_test_cases": "[…]", "private_test_cases": "eJ…", "metadata": "{…}"}               LiveCodeBench

Cases are made one at a time (`CodeTests` has their shapes), and those of a file beside the source are streamed.
"""

import ast
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distill.core.records import CodeTests, Language
from distill.errors import ProblemError
from distill.grading.code.cpp_text import asserts_in
from distill.recipe.problems import CodeSettings
from distill.sources.contest_rows import PACKED, PRELUDE, checker_of, read_packed, unpacked_tests
from distill.sources.plain_pickle import NotPlainDataError
from distill.sources.tables import MAX_LONG_LINE_BYTES, file_rows
from distill.storage.case_files import pack_tests

Case = dict[str, Any]

SUITES = ("tests", "test", "unit_tests", "test_cases", "input_output", "official_tests")
"""Columns that hold all tests of a problem, in whatever of the shapes."""
SPLIT = ("public_tests", "private_tests", "generated_tests")
"""Columns that hold a part of the tests each, as in CodeContests."""
KINDS = {"stdin": ("stdin",), "call": ("function", "arguments"), "asserts": ("code",)}
"""Kind of a case -> keys that it needs."""
LANGUAGES: dict[str, Language] = {
    **dict.fromkeys(("python", "python3", "py"), "python"),
    **dict.fromkeys(("cpp", "c++", "cc", "cxx"), "cpp"),
}
MAX_TIME_S, MAX_MEMORY_MIB = 600.0, 65_536
MIB = 1 << 20


class UnreadableTestsError(ValueError):
    """Tests that cannot be read. The text completes a sentence: `is not JSON`."""


def read_tests(
    row: Mapping[str, Any],
    column: str | None = None,
    settings: CodeSettings | None = None,
    folder: Path | None = None,
    store: Path | None = None,
) -> CodeTests | None:
    """Return the tests of a row; `None` if it has none.

    Args:
        row: the row.
        column: the column that holds them; `None`: find the usual ones.
        settings: what counts before the row's columns, and after what its tests say themselves.
        folder: of the source's file, beside which `file:` tests may lie; `None`: they may not.
        store: see `pack_tests`.

    Raises:
        UnreadableTestsError: there are tests, and they cannot be read.
        StoreError: the disk is full or not writable.
    """
    settings = settings or CodeSettings()
    try:
        found = _of_column(row, column, folder) if column is not None else _usual(row, settings, folder)
        if found is None:
            return None
        cases, more = found
        tests = pack_tests(map(checked_case, cases), store, **{**_limits(row, settings), **more})
    except NotPlainDataError as error:
        raise UnreadableTestsError(str(error)) from None
    except (TypeError, RecursionError) as error:
        raise UnreadableTestsError(f"is not plain JSON ({error})") from None
    return tests if tests.num else None


Found = tuple[Iterable[Case], dict[str, Any]] | None
"""The cases, and further fields of `CodeTests`."""


def _usual(row: Mapping[str, Any], settings: CodeSettings, folder: Path | None) -> Found:
    """Return the tests in a row of a usual data set."""
    entry_point, test = row.get("entry_point"), row.get("test")
    if isinstance(row.get("test_list"), list | tuple):
        return _mbpp(row, settings)
    if isinstance(entry_point, str) and entry_point and isinstance(test, str) and "def check(" in test:
        return _human_eval(row, entry_point, test)
    if isinstance(row.get("tests"), str) and "int main(" in row["tests"]:
        return _multipl_e(row)
    if (tests := unpacked_tests(row)) is not None:
        return (_case(item, row) for item in tests), {"prompt": PRELUDE}
    for name in SUITES:
        if row.get(name) not in (None, "", [], {}):
            return _of_column(row, name, folder)
    if any(row.get(name) for name in SPLIT):
        return (case for name in SPLIT for case in _cases(row.get(name) or [], row, folder)[0]), {}
    if isinstance(row.get("inputs"), list) and isinstance(row.get("outputs"), list):
        return _pairs(row), {}
    nested = row.get("verifier_metadata")
    if isinstance(nested, Mapping) and nested.get("unit_tests"):
        return _cases(nested["unit_tests"], row, folder)
    return None


def _of_column(row: Mapping[str, Any], column: str, folder: Path | None) -> Found:
    value = row.get(column)
    return None if value in (None, "", [], {}) else _cases(value, row, folder)


def _human_eval(row: Mapping[str, Any], entry_point: str, test: str) -> Found:
    prompt = row.get("prompt")
    code = f"{test.rstrip()}\n\ncheck({entry_point})\n"
    more = {"entry_point": entry_point, "prompt": prompt if isinstance(prompt, str) else ""}
    return [{"kind": "asserts", "code": code}], more


def _mbpp(row: Mapping[str, Any], settings: CodeSettings) -> Found:
    setup = "\n".join([*_texts(row.get("test_imports")), *_texts([row.get("test_setup_code") or ""])]).strip()
    asserts = _texts(row["test_list"]) + (_texts(row.get("challenge_test_list")) if settings.hard else [])
    return [{"kind": "asserts", "code": code, **({"setup": setup} if setup else {})} for code in asserts], {}


def _multipl_e(row: Mapping[str, Any]) -> Found:
    """Return C++ tests: a case an assertion, with the function that they call `candidate`."""
    text = row["tests"]
    called = re.search(r"auto\s+candidate\s*=\s*(\w+)\s*;", text)
    asserts = [{"kind": "asserts", "code": code} for code in asserts_in(text)]
    if called is None or not asserts:
        raise UnreadableTestsError("holds a `main` that is not a list of assertions about `candidate`")
    more = {"language": "cpp", "entry_point": called[1], "prompt": str(row.get("prompt") or "")}
    return asserts, more


def _cases(value: Any, row: Mapping[str, Any], folder: Path | None) -> tuple[Iterable[Case], dict[str, Any]]:
    """Return the cases in a column's value, with the settings that it brings along.

    Raises:
        UnreadableTestsError: it is of none of the known shapes.
    """
    if isinstance(value, str) and value.startswith("file:"):
        return _from_file(value.removeprefix("file:"), row, folder), {}
    if isinstance(value, str) and value.startswith(PACKED):
        return (_case(item, row) for item in read_packed(value)), {"prompt": PRELUDE}
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping) and "cases" in value:
        return _cases(value["cases"], row, folder)[0], _own_settings(value)
    if isinstance(value, Mapping) and ("inputs" in value or "input" in value):
        return _pairs(value), {}
    if isinstance(value, list | tuple):
        return (_case(item, row) for item in value), {}
    raise UnreadableTestsError(f"holds a {type(value).__name__}, not a list of tests")


def _parsed(text: str) -> Any:
    """Return the value of a text: JSON, or Python's literals, which some data sets have in its place."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = error
    if len(text) < MIB and text.lstrip()[:1] in ("[", "{"):
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pass
    raise UnreadableTestsError(f"is not JSON ({why})")


def _from_file(name: str, row: Mapping[str, Any], folder: Path | None) -> Iterator[Case]:
    """Yield the cases of a JSONL file beside the source's.

    Raises:
        UnreadableTestsError: it is elsewhere, or cannot be read.
    """
    path = None if folder is None or "\0" in name else (folder / name).resolve()
    if path is None or folder is None or not path.is_relative_to(folder.resolve()):
        raise UnreadableTestsError(
            f"names {name!r:.80}, and tests in files lie beside a file: source, in its folder or below"
        )
    try:
        for _, item in file_rows(path, max_line_bytes=MAX_LONG_LINE_BYTES):
            yield _case(item, row)
    except ProblemError as error:
        raise UnreadableTestsError(f"names a file that cannot be read: {error}") from None


def _own_settings(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tests in distill's own shape say besides their cases."""
    found: dict[str, Any] = {key: value[key] for key in ("entry_point", "prompt", "checker") if value.get(key)}
    if wrong := [key for key, one in found.items() if not isinstance(one, str)]:
        raise UnreadableTestsError(f"has a {wrong[0]} that is not text")
    if (language := _language(value.get("language"))) is not None:
        found["language"] = language
    if value.get("time_s") is not None:
        found["time_s"] = _time_s(value["time_s"])
    if value.get("memory_mib") is not None:
        found["memory_mib"] = _memory_mib(value["memory_mib"])
    return found


def _pairs(value: Mapping[str, Any]) -> Iterator[Case]:
    """Yield the cases of {inputs, outputs, fn_name} (TACO, APPS) or {input, output} (CodeContests)."""
    inputs, outputs = (value.get(f"{name}s", value.get(name)) for name in ("input", "output"))
    function = value.get("fn_name")
    if not isinstance(inputs, list | tuple) or not isinstance(outputs, list | tuple):
        raise UnreadableTestsError("has no lists of inputs and outputs")
    if len(inputs) != len(outputs):
        raise UnreadableTestsError(f"has {len(inputs)} inputs and {len(outputs)} outputs")
    for given, expected in zip(inputs, outputs, strict=True):
        if isinstance(function, str) and function:
            yield _call(function, given, expected)
        else:
            yield {"kind": "stdin", "stdin": _lines(given), "expected": _lines(expected)}


def _call(function: str, given: Any, expected: Any) -> Case:
    """Return a call as APPS writes it: its result may stand in a list of one; or as LiveCodeBench does, as JSON."""
    if isinstance(given, str) and isinstance(expected, str):
        return _json_call(function, given, expected)
    arguments = given if isinstance(given, list | tuple) else [given]
    case: Case = {"kind": "call", "function": function, "arguments": list(arguments), "expected": expected}
    if isinstance(expected, list) and len(expected) == 1:
        del case["expected"]
        case["accepted"] = [expected[0], expected]
    return case


def _json_call(function: str, given: str, expected: str) -> Case:
    """Return a call whose arguments are JSON, a line each."""
    arguments = [_parsed(line) for line in given.split("\n") if line.strip()]
    return {"kind": "call", "function": function, "arguments": arguments, "expected": _parsed(expected)}


def _case(item: Any, row: Mapping[str, Any]) -> Case:
    """Return one case, from distill's own shape or another's.

    Raises:
        UnreadableTestsError: it is of none of the known shapes.
    """
    if isinstance(item, str):
        return {"kind": "asserts", "code": item}
    if not isinstance(item, Mapping):
        raise UnreadableTestsError(f"has a test that is a {type(item).__name__}")
    if "kind" in item:
        return dict(item)
    given, expected = item.get("input", item.get("stdin")), item.get("output", item.get("stdout", item.get("expected")))
    if isinstance(given, Mapping) and isinstance(expected, Mapping):  # SandboxFusion
        given, expected = given.get("stdin"), expected.get("stdout")
    if item.get("testtype") == "functional":  # LiveCodeBench
        function = item.get("fn_name") or row.get("fn_name")
        if not isinstance(function, str):
            raise UnreadableTestsError("has a functional test without the name of its function")
        return _json_call(function, str(given), str(expected))
    if given is None:
        raise UnreadableTestsError(f"has a test with the keys {', '.join(map(str, item))}, which say no input")
    return {"kind": "stdin", "stdin": _lines(given), "expected": None if expected is None else _lines(expected)}


def checked_case(case: Case) -> Case:
    """Return a case after checking its keys.

    Raises:
        UnreadableTestsError: its kind is unknown, or it lacks a key.
    """
    kind = case.get("kind")
    if kind not in KINDS:
        raise UnreadableTestsError(f"has a test of the kind {kind!r:.40}; there are {', '.join(KINDS)}")
    if lacking := [key for key in KINDS[kind] if key not in case]:
        raise UnreadableTestsError(f"has a test of the kind {kind} without {lacking[0]!r}")
    texts = {"stdin": "stdin", "call": "function", "asserts": "code"}
    if not isinstance(case[texts[kind]], str) or not isinstance(case.get("setup", ""), str):
        raise UnreadableTestsError(f"has a test of the kind {kind} whose {texts[kind]} is not text")
    if kind == "call" and not isinstance(case["arguments"], list | tuple):
        raise UnreadableTestsError("has a call whose arguments are not a list")
    if kind == "call" and "expected" not in case and "accepted" not in case:
        raise UnreadableTestsError("has a call without an expected result")
    if "accepted" in case and not (isinstance(case["accepted"], list | tuple) and case["accepted"]):
        raise UnreadableTestsError("has a test whose accepted results are not a list")
    if kind == "stdin":
        wanted = case["accepted"] if "accepted" in case else [case.get("expected")]
        if not all(one is None or isinstance(one, str) for one in wanted):
            raise UnreadableTestsError("has a test whose expected output is not text")
    return case


def _limits(row: Mapping[str, Any], settings: CodeSettings) -> dict[str, Any]:
    """Return language and limits of a row's programs, as far as they are told."""
    found: dict[str, Any] = {"language": settings.language or _language(row.get("language"))}
    if settings.time_s is not None or row.get("time_limit") is not None:
        found["time_s"] = settings.time_s or _time_s(row["time_limit"])
    if settings.memory_mib is not None or row.get("memory_limit") is not None:
        found["memory_mib"] = settings.memory_mib or _memory_mib(row["memory_limit"])
    elif row.get("memory_limit_bytes") is not None:
        found["memory_mib"] = _memory_mib(_number(row["memory_limit_bytes"]) / MIB)
    checker = row.get("checker")
    found["checker"] = (checker if isinstance(checker, str) else "") or checker_of(row) or None
    return {key: value for key, value in found.items() if value is not None}


def _language(value: Any) -> Language | None:
    """Return a language by one of its names; `None` for an unknown one, such as that of the question."""
    return LANGUAGES.get(value.strip().casefold()) if isinstance(value, str) else None


def _time_s(value: Any) -> float:
    if isinstance(value, Mapping):  # a protocol buffer's duration, as in CodeContests
        value = _number(value.get("seconds") or 0) + _number(value.get("nanos") or 0) / 1e9
    return min(MAX_TIME_S, max(0.1, _number(value)))


def _memory_mib(value: Any) -> int:
    return min(MAX_MEMORY_MIB, max(16, round(_number(value))))


def _number(value: Any) -> float:
    """Return a number, which may be the first of a text such as `2 seconds`.

    Raises:
        UnreadableTestsError: it is none.
    """
    if isinstance(value, str) and (match := re.match(r"\s*(\d+(?:\.\d+)?)", value)):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UnreadableTestsError(f"has a limit that is no number ({value!r:.40})")
    return float(value)


def _lines(value: Any) -> str:
    """Return an input or an output as text; some data sets have lists of lines."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return "\n".join(map(_lines, value))
    if isinstance(value, bool | int | float):
        return str(value)
    raise UnreadableTestsError(f"has an input or an output that is a {type(value).__name__}")


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise UnreadableTestsError("has assertions that are not texts")
    return [one for one in value if one.strip()]
