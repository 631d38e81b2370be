"""Groups by which a benchmark's score is split, from what is kept of its rows.

    {"group": "Algebra"}                                       ->  ["Algebra"]
    {"month": "2024-08-03T00:00:00", "difficulty": "easy"}     ->  ["2024-08", "easy"]
    {"month": 1734618900, "difficulty": 1300}                  ->  ["2024-12", "1200 to 1599"]

A score that falls at some month tells that a model has seen the problems before it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from distill.core.formatting import number
from distill.core.records import Problem

BAND = 400
"""Width of a band of difficulty, in points of a rating: ten to one odds."""
LEVELS = ("easy", "medium", "hard")
KEYS = ("group", "month", "difficulty")
"""Keys of a problem's metadata by which scores are split, in the order in which groups are shown."""


class GroupScores(NamedTuple):
    """What a score is in each group, in the order in which groups are shown."""

    scores: dict[str, float]
    num_problems: dict[str, int]
    """Problems of the group with a score."""


def group_scores(
    names: Sequence[str], scores: Mapping[str, Sequence[float]], problems: Mapping[str, Problem]
) -> GroupScores:
    """Return the score in each group; a key with one group only splits nothing, and is left out.

    Args:
        names: ids of the benchmark's problems.
        scores: problem -> scores of its graded samples.
        problems: by id.
    """
    found: dict[str, float] = {}
    counts: dict[str, int] = {}
    for key in KEYS:
        by_group: dict[tuple[Any, str], list[float]] = defaultdict(list)
        for name in names:
            group = group_of(key, problems[name].metadata.get(key))
            if group is not None and name in scores:
                by_group[group].append(sum(scores[name]) / len(scores[name]))
        if len(by_group) < 2:
            continue
        for (_, label), values in sorted(by_group.items()):
            found[label], counts[label] = sum(values) / len(values), len(values)
    return GroupScores(found, counts)


def group_of(key: str, value: Any) -> tuple[Any, str] | None:
    """Return the group that a value belongs to: by what it is sorted, and its name; `None` if to none."""
    if key == "month":
        month = _month(value)
        return None if month is None else (month, month)
    if key == "difficulty" and (rating := number(value)) is not None:
        low = int(rating // BAND) * BAND
        return (len(LEVELS) + low, ""), f"{low} to {low + BAND - 1}"
    if not isinstance(value, str) or not value.strip():
        return None
    name = value.strip()
    if key == "difficulty":
        at = LEVELS.index(name.casefold()) if name.casefold() in LEVELS else len(LEVELS)
        return (at, name), name
    return name, name


def _month(value: Any) -> str | None:
    """Return the month of a date in ISO 8601, or of a number of seconds since 1970 (UTC)."""
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value.strip()).strftime("%Y-%m")
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m")
    except (ValueError, OverflowError, OSError):
        pass
    return None
