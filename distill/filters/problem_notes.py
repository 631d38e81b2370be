"""Checks on problems before their traces are examined: contamination by evaluation items, and repeated problems."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from distill.core.records import Problem
from distill.filters.decide import ProblemNotes
from distill.filters.decontaminate import Decontaminator, Hit, certificate
from distill.filters.dedup import near_duplicates, number_key, signatures
from distill.recipe.filter import Duplicates
from distill.sources.evaluation_sets import Pack

BATCH = 1_024


def notes_on_problems(
    problems: Iterable[Problem], packs: Sequence[Pack], duplicates: Duplicates | None
) -> tuple[dict[str, ProblemNotes], dict[str, Any]]:
    """Find the problems that are in an evaluation set, and those among the others that repeat an earlier one.

    Args:
        problems: in the order of their ids, each once.
        packs: evaluation sets.
        duplicates: thresholds; `None`: do not look for repeats.

    Returns:
        Notes by problem id on the problems to drop, and the certificate as a JSON-ready dict.
    """
    search = Decontaminator(packs).search()
    threshold = duplicates.problems if duplicates else None
    names: list[str] = []
    parts: list[Any] = []
    keys: list[int] = []
    rest = iter(problems)
    while some := list(islice(rest, BATCH)):
        names += [problem.id for problem in some]
        questions = [problem.questions for problem in some]
        search.add(questions)
        if threshold is not None:
            keys += [number_key(question) for question in questions]
            parts.append(signatures(questions))
    findings = search.finish()
    notes = {names[number]: ProblemNotes(contamination=_in_words(hits)) for number, hits in findings.hits.items()}
    if threshold is not None and names:
        clean = [number for number in range(len(names)) if number not in findings.hits]
        repeated = near_duplicates(np.concatenate(parts)[clean], threshold, [keys[number] for number in clean])
        notes |= {names[clean[i]]: ProblemNotes(repeats=names[clean[first]]) for i, first in repeated.items()}
    return notes, certificate(packs, names, findings)


def _in_words(hits: Sequence[Hit]) -> str:
    first = hits[0]
    more = f", and {len(hits) - 1} more" if len(hits) > 1 else ""
    return f"{first.set_name} item {first.item_id}, {first.kind}: {first.matched[:120]}{more}"
