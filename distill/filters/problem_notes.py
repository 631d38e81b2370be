"""What is known of problems before their traces are looked at: evaluation items among them, and repeats.

Enters: problems in the order of their ids, evaluation sets. Leaves: notes on those that are to be dropped, and the
certificate of what was checked.
"""

from collections.abc import Iterable, Sequence
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
    names: list[str] = []
    parts: list[Any] = []
    keys: list[int] = []
    hits: dict[str, list[Hit]] = {}
    num_problems = 0
    questions: list[str] = []

    def sign() -> None:
        parts.append(signatures(questions))
        questions.clear()

    threshold = duplicates.problems if duplicates else None
    for problem in problems:
        num_problems += 1
        if found := decontaminator.hits(problem.question):
            hits[problem.id] = found
        elif threshold is not None:
            names.append(problem.id)
            keys.append(number_key(problem.question))
            questions.append(problem.question)
            if len(questions) >= BATCH:
                sign()
    notes = {name: ProblemNotes(contamination=_in_words(found)) for name, found in hits.items()}
    if threshold is not None and names:
        sign()
        repeated = near_duplicates(np.concatenate(parts), threshold, keys)
        notes |= {names[i]: ProblemNotes(repeats=names[first]) for i, first in repeated.items()}
    return notes, certificate(packs, num_problems, hits)


def _in_words(hits: Sequence[Hit]) -> str:
    first = hits[0]
    more = f", and {len(hits) - 1} more" if len(hits) > 1 else ""
    return f"{first.set_name} item {first.item_id}, {first.kind}: {first.matched[:120]}{more}"
