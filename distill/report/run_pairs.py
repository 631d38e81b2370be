"""The problems that two runs share, for showing side by side: traces of training problems, answers in evaluations."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from distill.core.formatting import mapping
from distill.report.cards import Card, filtered_card
from distill.report.evaluated import Asked, EvaluatedModel, sample_scores, shared_problems, verdicts_of
from distill.report.gather import Run, language_wanted, trace_source
from distill.report.metrics import filtered
from distill.report.outcomes import outcomes_of, problem_names, texts_of
from distill.report.pairs import Pair, Tally, answer_pairs, order_of
from distill.storage.run_files import RunFiles

MAX_PROBLEMS = 300
"""Of each kind: training and evaluation."""
MAX_TRACES = 4
"""Per training problem and run."""

RULE = (
    "Evaluation questions on which the models differ come first. Of training problems that both runs have, at most "
    f"{MAX_PROBLEMS} are taken in the order of the SHA-256 of their id, each with at most {MAX_TRACES} traces of a run."
)


def evaluation_pairs(
    first: Run, second: Run, models: Sequence[EvaluatedModel], asked: Sequence[Asked]
) -> Iterator[Pair]:
    """Yield the evaluation problems that a model of each run has answered; those on which they differ come first.

    Args:
        first: one run.
        second: the other.
        models: of each run, the model that is compared.
        asked: of each run, what its models were asked.
    """
    verdicts = [verdicts_of(model, run.damage) for model, run in zip(models, (first, second), strict=True)]
    names = [name for name in shared_problems(*asked) if all(name in given for given in verdicts)]
    scores = [sample_scores({name: given[name] for name in names}) for given in verdicts]
    shares = {name: [sum(own[name]) / len(own[name]) if name in own else None for own in scores] for name in names}
    names.sort(key=lambda name: (shares[name][0] == shares[name][1], order_of(name)))
    both = Asked(asked[0].problems, asked[0].benchmark_of, asked[0].hidden | asked[1].hidden)
    for pair in answer_pairs(names[:MAX_PROBLEMS], models, verdicts, both, first.damage):
        if all(pair.sides):
            yield pair


def training_pairs(first: Run, second: Run) -> Iterator[Pair]:
    """Yield training problems that both runs have traces of."""
    runs = (first, second)
    if not all(filtered(run.facts) for run in runs):
        return
    both = [problem_names(RunFiles(run.folder).graded, run.damage) for run in runs]
    names = sorted(both[0] & both[1], key=order_of)[:MAX_PROBLEMS]
    sides: list[Mapping[str, list[Card]]] = []
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
    for name in names:
        one, other = sides[0].get(name), sides[1].get(name)
        if one and other and one[0].problem["question"] == other[0].problem["question"]:
            yield Pair("training", (one, other), (_tally(one), _tally(other)))


def _tally(cards: Sequence[Card]) -> Tally:
    grades = [card.facts["correct"] for card in cards]
    known = [float(grade) for grade in grades if grade is not None]
    score = sum(known) / len(known) if known else None
    return Tally(score, grades.count(True), len(grades), grades.count(None))
