"""Rows of LiveCodeBench and of open-r1/codeforces, which keep a question and its tests in several columns.

    {"question_content": …, "starter_code": …, "public_test_cases": "[…]", "private_test_cases": "eJ…", …}
    {"description": …, "input_format": …, "output_format": …, "examples": […], "official_tests": […],
     "generated_checker": …, "time_limit": 2.0, "memory_limit": 256.0}

Enter rows; leave the whole statement, and the tests as `distill.sources.code_tests` reads them.
"""

from collections.abc import Mapping
from typing import Any

from distill.sources.plain_pickle import NotPlainDataError, open_packed, read_json

LIVE_CODE_BENCH = ("public_test_cases", "private_test_cases")
PACKED = ("eA", "eF", "eJ", "eN")
"""Beginnings of what zlib compresses, in base64."""
_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
"""In the order in which later names hide earlier ones: `pow` is Python's own, not that of `math` or `operator`."""
PRELUDE = "\n".join(
    [f"from {name} import *" for name in _MODULES]
    + [f"import {name}" for name in _MODULES]
    + ["sys.setrecursionlimit(50_000)", ""]
)
"""Code before a program: LiveCodeBench's own runner imports all of this, and its answers rely on it."""
CHECKER = """\
_SOURCE = {source!r}


def check(stdin, output, expected):
    import contextlib
    import io
    import os
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("input", "expected", "output")]
        for path, text in zip(paths, (stdin, expected, output)):
            with open(path, "w") as stream:
                stream.write(text)
        before, said = sys.argv, io.StringIO()
        sys.argv = ["checker.py", *paths]
        try:
            with contextlib.redirect_stdout(said):
                exec(compile(_SOURCE, "checker.py", "exec"), {{"__name__": "__main__"}})
        except SystemExit as end:
            if end.code not in (None, 0):
                return False
        finally:
            sys.argv = before
    words = said.getvalue().split()
    return bool(words) and words[-1] in ("1", "1.0", "True")
"""
"""A checker of open-r1/codeforces, `checker.py input expected output`, which prints 1 or 0 last."""


def full_statement(row: Mapping[str, Any], question: str) -> str:
    """Return a question with what the row keeps in further columns: formats, examples, code to start from.

    Args:
        row: of any data set.
        question: the text of its question column.
    """
    if all(name in row for name in LIVE_CODE_BENCH):
        starter = _text(row, "starter_code")
        if starter.strip():
            return f"{question}\n\nUse this code to start from:\n\n```python\n{starter.rstrip()}\n```"
        return f"{question}\n\nThe program reads from standard input and writes to standard output."
    if "input_format" not in row or "output_format" not in row:
        return question
    title, limits = _text(row, "title"), _limits(row)
    parts = [title and f"# {title}", limits, question]
    for heading, name in (
        ("Input", "input_format"),
        ("Output", "output_format"),
        ("Interaction", "interaction_format"),
    ):
        parts.append(_text(row, name) and f"## {heading}\n\n{_text(row, name)}")
    parts += [_examples(row.get("examples")), _text(row, "note") and f"## Note\n\n{_text(row, 'note')}"]
    return "\n\n".join(part for part in parts if part)


def unpacked_tests(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the public and private tests of a row of LiveCodeBench; `None` for another row.

    Raises:
        NotPlainDataError: they cannot be read, or are a pickle of more than plain data.
    """
    if not all(name in row for name in LIVE_CODE_BENCH):
        return None
    metadata = row.get("metadata") or {}
    told = _read(metadata) if isinstance(metadata, str) else metadata
    function = told.get("func_name") if isinstance(told, Mapping) else None
    found: list[dict[str, Any]] = []
    for name in LIVE_CODE_BENCH:
        value = row[name]
        items = _read(value) if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            raise NotPlainDataError(f"({name}) holds no list of tests")
        found += [{"fn_name": function, **item} for item in items]
    return found


def read_packed(text: str) -> list[dict[str, Any]]:
    """Return the tests that SandboxFusion packs as LiveCodeBench does: `{"input_output": JSON of APPS}`.

    Raises:
        NotPlainDataError: they cannot be read, or are a pickle of more than plain data.
    """
    found = open_packed(text)
    if isinstance(found, list):
        return found
    inside = found.get("input_output") if isinstance(found, Mapping) else None
    told = read_json(inside) if isinstance(inside, str) else inside
    if not isinstance(told, Mapping):
        raise NotPlainDataError("holds no tests")
    inputs, outputs, function = told.get("inputs"), told.get("outputs"), told.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise NotPlainDataError("has no lists of as many inputs as outputs")
    kind = "functional" if function else "stdin"
    return [
        {"input": given, "output": expected, "testtype": kind, "fn_name": function}
        for given, expected in zip(inputs, outputs, strict=True)
    ]


def checker_of(row: Mapping[str, Any]) -> str:
    """Return the code that checks outputs of a row of open-r1/codeforces; empty where they are compared."""
    source = row.get("generated_checker")
    return CHECKER.format(source=source) if isinstance(source, str) and source.strip() else ""


def _read(text: str) -> Any:
    return read_json(text) if text.lstrip()[:1] in ("[", "{") else open_packed(text)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value.strip("\n") if isinstance(value, str) else ""


def _limits(row: Mapping[str, Any]) -> str:
    told = (("Time limit: {:g} seconds", "time_limit"), ("Memory limit: {:g} MB", "memory_limit"))
    return "\n".join(text.format(row[name]) for text, name in told if isinstance(row.get(name), int | float))


def _examples(value: Any) -> str:
    pairs = [one for one in value or () if isinstance(one, Mapping)] if isinstance(value, list) else []
    blocks = [f"Input:\n```\n{one.get('input', '')}\n```\nOutput:\n```\n{one.get('output', '')}\n```" for one in pairs]
    return "## Examples\n\n" + "\n\n".join(blocks) if blocks else ""
