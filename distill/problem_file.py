"""A file of problems, read one at a time: a million of them need not be in memory.

Enters: `problems.jsonl`. Leaves: the problem of an id, or all of them in turn.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from distill.errors import StoreError
from distill.records import Problem
from distill.store import Closing


class ProblemFile(Closing):
    """Problems by id, from a JSONL file that distill wrote; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("rb")
        self._offsets: dict[str, int] = {}
        offset = 0
        for line in self._stream:
            self._offsets[json.loads(line)["id"]] = offset
            offset += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, name: str) -> Problem:
        """The problem with this id.

        Raises:
            StoreError: there is none.
        """
        try:
            self._stream.seek(self._offsets[name])
        except KeyError:
            raise StoreError(
                f"{self._path}: has no problem {name}, which a trace answers. Run the stage before again."
            ) from None
        return Problem.from_json(json.loads(self._stream.readline()))

    def get(self, name: str) -> Problem | None:
        """The problem with this id, if there is one."""
        return self[name] if name in self._offsets else None

    def sorted(self) -> Iterator[Problem]:
        """All problems in the order of their ids."""
        return (self[name] for name in sorted(self._offsets))

    def close(self) -> None:
        """Give the file back."""
        self._stream.close()
