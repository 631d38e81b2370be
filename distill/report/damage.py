"""Collects files of a run that are missing or unreadable. The page is made from the rest and lists them:

[{"file": "filter/kept/train-00000-of-00001.parquet", "problem": "cannot be read: Parquet magic bytes not found"}]
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distill.core.redaction import scrub_text

MISSING = "missing"
MAX_CHARS = 200


@dataclass(slots=True)
class Damage:
    """The missing and unreadable files of one run."""

    folder: Path
    """`runs/<name>`."""
    _problems: dict[str, str] = field(default_factory=dict)

    def note(self, path: Path, problem: str) -> None:
        """Record a problem; only the first of each file is kept."""
        name = path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else path.name
        self._problems.setdefault(name, problem)

    def add(self, other: "Damage") -> None:
        """Take over the problems of a part of the run, such as one round."""
        for name, problem in other._problems.items():
            self.note(other.folder / name, problem)

    @contextmanager
    def tolerate(self, path: Path) -> Iterator[None]:
        """Record any error of the block instead of raising it; the rest of the block is skipped."""
        try:
            yield
        except FileNotFoundError:
            self.note(path, MISSING)
        except Exception as error:  # a damaged file can make its reader raise anything
            self.note(path, f"cannot be read: {_first_line(error)}")

    def to_json(self) -> list[dict[str, str]]:
        """Return the files with their problems, sorted by name."""
        return [{"file": name, "problem": problem} for name, problem in sorted(self._problems.items())]


def _first_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = scrub_text(next(iter(text.splitlines()), "")) or type(error).__name__
    return first if len(first) <= MAX_CHARS else f"{first[:MAX_CHARS]}…"
