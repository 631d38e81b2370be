"""Read rated rounds of Codeforces, in which a model is to have a place.

    {"contest": "2040", "problems": {"A": 500, …}, "rows": [{"points": 1250, "penalty": 0, "old_rating": 1873}, …]}

One JSON object a round, with all its rated contestants. A problem's points are null where solved problems are counted.
`scripts/codeforces_rounds.py` asks Codeforces for them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.core.formatting import number
from distill.core.table_cells import answer_text
from distill.errors import ProblemError
from distill.recipe.sources import FILE
from distill.scores.rated_round import RatedRound
from distill.sources.tables import file_rows


@dataclass(frozen=True, slots=True)
class ContestFile:
    """The rounds in a file."""

    rounds: dict[str, RatedRound]
    """By the contest's id."""
    points: dict[str, dict[str, float | None]]
    """Contest -> problem -> what solving it is worth; `None`: solved problems are counted."""
    sha256: str
    """Of the rounds as read, in any order."""


def load_contests(source: str) -> ContestFile:
    """Return the rounds in a file, `file:path` of JSONL or JSON.

    Raises:
        ProblemError: it cannot be read, or a row is no rated round.
    """
    rounds: dict[str, RatedRound] = {}
    points: dict[str, dict[str, float | None]] = {}
    hashes = []
    for place, row in file_rows(Path(source.removeprefix(FILE))):
        name = answer_text(row.get("contest"))
        if not name or name in rounds:
            raise ProblemError(f"{place}: `contest` is missing, or that of an earlier round. Give each round its id.")
        points[name] = _points(place, row.get("problems"))
        lists = _contestants(place, row.get("rows"))
        try:
            rounds[name] = RatedRound(*lists)
        except ValueError as error:
            raise ProblemError(f"{place}: is no rated round ({error}). Fix or remove it.") from None
        told = [name, points[name], sorted(zip(*lists, strict=True))]
        hashes.append(hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest())
    if not rounds:
        raise ProblemError(f"{source}: there are no rounds in it, so that no rating can be told.")
    return ContestFile(rounds, points, hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest())


def _points(place: str, value: Any) -> dict[str, float | None]:
    if not isinstance(value, Mapping) or not value:
        raise ProblemError(f'{place}: `problems` is no object of problems and their points: {{"A": 500, "B": null}}.')
    found = {str(name): number(worth) for name, worth in value.items()}
    if any(found[str(name)] is None and worth is not None for name, worth in value.items()):
        raise ProblemError(f"{place}: a problem's points are neither a number nor null.")
    if len({worth is None for worth in found.values()}) > 1:
        raise ProblemError(f"{place}: some problems have points and others none. A round counts points or problems.")
    return found


def _contestants(place: str, rows: Any) -> tuple[list[int], list[float], list[float]]:
    """Return ratings, points and penalties."""
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ProblemError(f"{place}: `rows` is no list of contestants.")
    ratings, points, penalties = ([number(row.get(key)) for row in rows] for key in ("old_rating", "points", "penalty"))
    for key, values in (("old_rating", ratings), ("points", points), ("penalty", penalties)):
        if None in values:
            raise ProblemError(f"{place}: contestant {values.index(None) + 1} has no number as `{key}`.")
    return [int(one) for one in ratings if one is not None], [*map(float, points)], [*map(float, penalties)]  # type: ignore[arg-type]
