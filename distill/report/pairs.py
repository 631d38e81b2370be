"""The problems that two runs share, for showing side by side: traces of training problems, answers in evaluations."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.core.formatting import mapping
from distill.core.records import Problem
from distill.report.cards import LIMITS, SMALL_LIMITS, Card, Shown, answer_card, filtered_card, num_encoded
from distill.report.gather import Run, language_wanted, trace_source
from distill.report.metrics import filtered
from distill.report.outcomes import outcomes_of, problem_names, texts_of
from distill.report.questions import Verdicts, read_verdicts, share_right
from distill.storage.layout import LEDGER
from distill.storage.ledger import read_ledger
from distill.storage.run_files import RunFiles

MAX_PROBLEMS = 300
"""Of each kind: training and evaluation."""
MAX_TRACES = 4
"""Per problem and run."""

RULE = (
    "Evaluation questions on which the students differ come first. Of training problems that both runs have, at most "
    f"{MAX_PROBLEMS} are taken in the order of the SHA-256 of their id, each with at most {MAX_TRACES} traces of a run."
)

Measured = Mapping[str, Problem]
"""Evaluation problems by id."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One problem with its traces in each run."""

    stage: str
    """`evaluation` or `training`."""
    sides: tuple[list[Card], list[Card]]

    def to_json(self, problem: int, limit: int) -> dict[str, Any]:
        """Return the pair for the page, with at most `limit` characters in each text."""
        sides = [[card.within(limit).to_json(problem) for card in side] for side in self.sides]
        return {"problem": problem, "stage": self.stage, "sides": sides}


def measured_problems(run: Run) -> dict[str, Problem]:
    """Return a run's evaluation problems by id; empty if there are none."""
    file = RunFiles(run.folder).questions
    found: dict[str, Problem] = {}
    if file.is_file():
        with run.damage.tolerate(file), file.open() as stream:
            for line in stream:
                problem = Problem.from_json(json.loads(line))
                found[problem.id] = problem
    return found


def student_verdicts(run: Run) -> Verdicts:
    """Return the verdicts on the student's answers; empty if they cannot be read."""
    folder = RunFiles(run.folder).answers("student")
    with run.damage.tolerate(folder / "verdicts.jsonl"):
        return read_verdicts(folder)
    return {}


def shared_problems(first: Measured, second: Measured) -> list[str]:
    """Return the ids of problems with equal prompt, expected answer and task in both."""

    def key(problem: Problem) -> tuple[Any, ...]:
        return problem.prompt, problem.answer, problem.task

    return sorted(name for name in first.keys() & second.keys() if key(first[name]) == key(second[name]))


def all_pairs(first: Run, second: Run) -> list[Pair]:
    """Return all pairs in order of preference: evaluation problems, then training problems."""
    return [*_evaluation_pairs(first, second), *_training_pairs(first, second)]


def _evaluation_pairs(first: Run, second: Run) -> list[Pair]:
    problems, others = measured_problems(first), measured_problems(second)
    verdicts = [student_verdicts(run) for run in (first, second)]
    shared = [name for name in shared_problems(problems, others) if all(name in of for of in verdicts)]

    def is_the_same(name: str) -> bool:
        return share_right(verdicts[0][name]) == share_right(verdicts[1][name])

    names = sorted(shared, key=lambda name: (is_the_same(name), _order(name)))[:MAX_PROBLEMS]
    wanted = set(names)
    sides: list[dict[str, list[Card]]] = []
    for run, given in zip((first, second), verdicts, strict=True):
        by_key = {verdict.key: verdict for name in names for verdict in given[name][:MAX_TRACES]}
        cards: dict[str, list[Card]] = defaultdict(list)
        for trace in read_ledger(RunFiles(run.folder).answers("student") / LEDGER):
            if trace.problem_id in wanted and (verdict := by_key.pop(trace.key, None)) is not None:
                cards[trace.problem_id].append(answer_card(trace, verdict, problems[trace.problem_id]))
        sides.append(cards)
    return list(_paired("evaluation", names, sides))


def _training_pairs(first: Run, second: Run) -> list[Pair]:
    runs = (first, second)
    if not all(filtered(run.facts) for run in runs):
        return []
    both = [problem_names(RunFiles(run.folder).graded, run.damage) for run in runs]
    names = sorted(both[0] & both[1], key=_order)[:MAX_PROBLEMS]
    sides: list[dict[str, list[Card]]] = []
    for run in runs:
        source = trace_source(run.folder, run.facts)
        counts = mapping(run.facts["lengths"]).get("counted_by")
        language_of = language_wanted(mapping(run.facts["recipe"]))
        outcomes = outcomes_of(run.folder, source, set(names), counts, run.damage)
        cards: dict[str, list[Card]] = defaultdict(list)
        for outcome, row in texts_of(RunFiles(run.folder).graded, outcomes, run.damage):
            if len(cards[outcome.verdict["problem_id"]]) < 2 * MAX_TRACES:
                cards[outcome.verdict["problem_id"]].append(filtered_card(outcome, row, language_of))
        sides.append({name: sorted(some, key=lambda card: card.key)[:MAX_TRACES] for name, some in cards.items()})
    return [
        pair
        for pair in _paired("training", names, sides)
        if pair.sides[0][0].problem["question"] == pair.sides[1][0].problem["question"]
    ]


def _paired(stage: str, names: Sequence[str], sides: Sequence[Mapping[str, list[Card]]]) -> Iterator[Pair]:
    for name in names:
        if sides[0].get(name) and sides[1].get(name):
            yield Pair(stage, (sides[0][name], sides[1][name]))


def _order(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()


def fit_pairs(pairs: Sequence[Pair], budget: int) -> Shown:
    """Return as many pairs as fit into `budget` bytes, with texts as long as possible."""
    cards = [card for pair in pairs for side in pair.sides for card in side]
    limits = (*LIMITS, *SMALL_LIMITS)
    limit = next((one for one in limits if sum(card.num_bytes(one) for card in cards) <= budget), limits[-1])
    found = Shown(num_traces=len(pairs))
    for pair in pairs:
        problem = pair.sides[0][0].problem
        entry = pair.to_json(len(found.problems), limit)
        cost = num_encoded(entry) + num_encoded(problem) + 2
        if cost > budget:
            continue
        budget -= cost
        found.problems.append(problem)
        found.pairs.append(entry)
        found.num_cut += any(text.length > limit for side in pair.sides for c in side for text in (c.thinking, c.text))
    found.limit = limit if found.num_cut else None
    return found
