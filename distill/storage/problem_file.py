"""A file of problems that is read one at a time, so that a million of them need not be in memory."""

import json
from collections.abc import Iterator
from pathlib import Path

from distill.core.json_shape import PROBLEM, fault
from distill.core.records import Problem
from distill.errors import StoreError
from distill.storage.case_files import at_home
from distill.storage.files import Closing


class ProblemFile(Closing):
    """Problems by id, from a JSONL file that distill wrote. Use it as a context manager.

    Raises:
        StoreError: the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}). {self._way}") from None
        self._offsets: dict[str, int] = {}
        offset = 0
        for line in self._stream:
            self._offsets[self._problem(line).id] = offset
            offset += len(line)

    @property
    def _way(self) -> str:
        return f"`distill {self._path.parent.name}` writes it again."

    def _problem(self, line: bytes) -> Problem:
        """Return a line's problem.

        Raises:
            StoreError: the line is damaged.
        """
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self._path}: damaged ({error}). {self._way}") from None
        if what := fault(row, PROBLEM):
            raise StoreError(f"{self._path}: damaged ({what}). {self._way}")
        return at_home(Problem.from_json(row), self._path.parent)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, name: str) -> Problem:
        """Return the problem with this id.

        Raises:
            StoreError: there is none.
        """
        try:
            self._stream.seek(self._offsets[name])
        except KeyError:
            raise StoreError(
                f"{self._path}: has no problem {name}, which a trace answers. Run the previous stage again."
            ) from None
        return self._problem(self._stream.readline())

    def get(self, name: str) -> Problem | None:
        """Return the problem with this id, or `None`."""
        return self[name] if name in self._offsets else None

    def sorted(self) -> Iterator[Problem]:
        """Yield all problems, ordered by id."""
        return (self[name] for name in sorted(self._offsets))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
