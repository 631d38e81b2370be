"""What is known of problems before their traces are looked at: evaluation items among them, and repeats.

Enters: problems in the order of their ids, evaluation sets. Leaves: notes on those that are to be dropped, and the
certificate of what was checked.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from distill.filters.decide import ProblemNotes
from distill.filters.decontaminate import Decontaminator, Hit, certificate
from distill.filters.dedup import near_duplicates, number_key, signatures
from distill.filters.packs import Pack
from distill.recipe import Duplicates
from distill.records import Problem

BATCH = 1_024


def notes_on_problems(
    problems: Iterable[Problem], packs: Sequence[Pack], duplicates: Duplicates | None
) -> tuple[dict[str, ProblemNotes], dict[str, Any]]:
    """Which problems are in an evaluation set, and which of the others repeat an earlier one.

    Args:
        problems: in the order of their ids, each once.
        packs: evaluation sets.
        duplicates: thresholds; `None`: repeats are not looked for.

    Returns:
        Notes by problem id, and the certificate as a JSON-ready dict.
    """
    decontaminator = Decontaminator(packs)
    threshold = duplicates.problems if duplicates else None
    names: list[str] = []
    parts: list[Any] = []
    keys: list[int] = []
    hits: dict[str, list[Hit]] = {}
    num_problems = 0
    rest = iter(problems)
    while some := list(islice(rest, BATCH)):
        num_problems += len(some)
        found = decontaminator.hits_of_all(problem.questions for problem in some)
        hits |= {problem.id: its for problem, its in zip(some, found, strict=True) if its}
        clean = [problem for problem in some if problem.id not in hits]
        if threshold is not None and clean:
            names += [problem.id for problem in clean]
            keys += [number_key(problem.questions) for problem in clean]
            parts.append(signatures([problem.questions for problem in clean]))
    notes = {name: ProblemNotes(contamination=_in_words(found)) for name, found in hits.items()}
    if threshold is not None and names:
        repeated = near_duplicates(np.concatenate(parts), threshold, keys)
        notes |= {names[i]: ProblemNotes(repeats=names[first]) for i, first in repeated.items()}
    return notes, certificate(packs, num_problems, hits)


def _in_words(hits: Sequence[Hit]) -> str:
    first = hits[0]
    more = f", and {len(hits) - 1} more" if len(hits) > 1 else ""
    return f"{first.set_name} item {first.item_id}, {first.kind}: {first.matched[:120]}{more}"
