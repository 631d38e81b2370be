"""The tests of code problems: few and short ones in a problem's record, others a file a problem beside the problems.

    generate/problems.jsonl             … "tests": {"sha256": "9f2c…", "num": 120, "file": "9f2c….jsonl", …}
    generate/tests/9f2c….jsonl          {"kind": "stdin", "stdin": "1 2\\n", "expected": "3\\n"}

A file's name is the SHA-256 of its content, which is checked before it is used. Cases are read one at a time.
"""

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.core.records import CodeTests, Problem
from distill.errors import StoreError
from distill.storage.files import PARTIAL, copy_file, disk_errors, write_jsonl
from distill.storage.layout import TESTS

INLINE_BYTES = 16 << 10
"""Tests of at most this size, as JSON, are in the problem's record."""


def pack_tests(cases: Iterable[Mapping[str, Any]], store: Path | None = None, **more: Any) -> CodeTests:
    """Return the tests of a problem, with its cases in a file if they are long.

    Args:
        cases: JSON objects, see `CodeTests`; taken one at a time.
        store: folder for the file; `None`: a temporary one, removed when this process ends.
        more: further fields of `CodeTests`.

    Raises:
        ValueError: a case is not JSON.
        StoreError: the disk is full or not writable.
    """
    digest, num, size = hashlib.sha256(), 0, 0
    lines: list[bytes] = []
    spool = None
    try:
        for case in cases:
            line = json.dumps(case, sort_keys=True, separators=(",", ":")).encode() + b"\n"
            digest.update(line)
            num, size = num + 1, size + len(line)
            lines.append(line)
            if size > INLINE_BYTES:
                spool = spool or _Spool(store or _temporary())
                spool.write(lines)
                lines.clear()
        name = digest.hexdigest()
        if spool is None:
            return CodeTests(sha256=name, num=num, cases=[json.loads(line) for line in lines], **more)
        spool.write(lines)
        return CodeTests(sha256=name, num=num, file=str(spool.keep(f"{name}.jsonl")), **more)
    finally:
        if spool is not None:
            spool.close()


class _Spool:
    """A file that gets its name once its content is known."""

    def __init__(self, folder: Path) -> None:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=PARTIAL)
        self._folder, self._path, self._stream = folder, Path(name), os.fdopen(handle, "wb")

    def write(self, lines: Iterable[bytes]) -> None:
        with disk_errors(self._path):
            self._stream.writelines(lines)

    def keep(self, name: str) -> Path:
        """Give the file its name."""
        with disk_errors(self._path):
            self._stream.close()
            return self._path.replace(self._folder / name).absolute()

    def close(self) -> None:
        """Remove the file, unless it was kept."""
        self._stream.close()
        self._path.unlink(missing_ok=True)


@functools.cache
def _own_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="distill-tests-", ignore_cleanup_errors=True)


def _temporary() -> Path:
    return Path(_own_folder().name)


def iter_cases(tests: CodeTests) -> Iterator[dict[str, Any]]:
    """Yield the cases, one at a time.

    Raises:
        StoreError: their file is missing or damaged.
    """
    if tests.cases is not None:
        yield from tests.cases
        return
    path = Path(tests.file)
    try:
        if not _is_whole(path, tests):
            raise StoreError(f"{path}: damaged. {_way(path)}")
        with path.open("rb") as stream:
            for line in stream:
                yield json.loads(line)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}). {_way(path)}") from None


def _is_whole(path: Path, tests: CodeTests) -> bool:
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns) == tests.sha256


def _way(path: Path) -> str:
    return f"`distill {path.parent.parent.name}` writes it again."


@functools.lru_cache(maxsize=4_096)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """Return the SHA-256 (hex) of a file, which is read again if its size or its time has changed."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tests_identity(tests: CodeTests) -> dict[str, Any]:
    """Return everything that decides a verdict about a program; the cases by their hash."""
    return {key: value for key, value in tests.to_json().items() if key not in ("cases", "file")}


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Write a file of problems, and beside it the files of their tests.

    Raises:
        StoreError: the disk is full or not writable, or a file of tests is gone.
    """
    write_jsonl(path, (problem_row(problem, path.parent) for problem in problems))


def problem_row(problem: Problem, folder: Path) -> dict[str, Any]:
    """Return the row of a problem in a file in this folder, after putting the file of its tests there too."""
    if problem.tests is not None and problem.tests.file:
        source = Path(problem.tests.file)
        target = folder / TESTS / source.name
        with disk_errors(target):
            if not (target.exists() and _is_whole(target, problem.tests)):
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source, target)
    return problem.to_json()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        copy_file(source, target)


def at_home(problem: Problem, folder: Path) -> Problem:
    """Return a problem that was read from a file in this folder, with the path of its tests."""
    tests = problem.tests
    if tests is None or not tests.file:
        return problem
    return replace(problem, tests=replace(tests, file=str((folder / TESTS / Path(tests.file).name).absolute())))


def without_cases(problem: Problem) -> Problem:
    """Return a problem for a process that does not test programs."""
    return problem if problem.tests is None else replace(problem, tests=replace(problem.tests, cases=None))
