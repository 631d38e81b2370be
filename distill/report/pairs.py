"""Problems with the answers of several models, for showing side by side.

On the page, a problem of which the second of two models has three of four samples right, and the first one of four:

    {"problem": 0, "stage": "aime24", "sides": [[trace, …], [trace, …]], "tallies": [[0.25, 1, 4, 0], [0.75, 3, 4, 0]]}

A tally is the mean score of the graded samples (null: none is), the numbers of right and of all samples, and the number
of those without a verdict.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from distill.core.records import SampleKey, Verdict
from distill.report.cards import LIMITS, Card, Shown, answer_card, how_long, num_encoded
from distill.report.damage import Damage
from distill.report.evaluated import Asked, EvaluatedModel, SampleScores, Verdicts, sample_scores, verdicts_of
from distill.storage.layout import LEDGER
from distill.storage.ledger import read_ledger

MAX_ITEMS = 2_000
"""Evaluation problems on a page at most; others are only counted."""
MAX_SAMPLES = 8
"""Answers to a problem on a page, of all models together; at least one and at most four of each."""
MAX_CARDS = 4_000
"""Answers that are read for a page at most: of many problems, one of each model."""
MAX_CHARS = 64_000_000
"""Characters of all these answers in memory at most, unless each has 5,000 or less: a page has room for fewer."""
MIN_PAIRS = 200
"""Texts are shortened to 5,000 characters before problems are left out, and further once so few are left."""
EVALUATION = "evaluation"
"""Stage of the problems of a run whose benchmarks are not recorded."""


class Tally(NamedTuple):
    """How one model does on one problem."""

    score: float | None
    """Mean over graded samples; `None` if there are none."""
    num_right: int
    num_samples: int
    num_ungraded: int


@dataclass(frozen=True, slots=True)
class Pair:
    """One problem with the traces of each side: a run, or a model. A side may have none."""

    stage: str
    """`training`, or the benchmark."""
    sides: tuple[list[Card], ...]
    tallies: tuple[Tally, ...]

    @property
    def problem(self) -> dict[str, Any]:
        """Return the problem, as `distill.report.cards.problem_entry` does."""
        return next(card.problem for side in self.sides for card in side)

    def num_bytes(self, limit: int) -> int:
        """Return the approximate size on the page."""
        return sum(card.num_bytes(limit) for side in self.sides for card in side)

    def to_json(self, problem: int, limit: int) -> dict[str, Any]:
        """Return the pair for the page, with at most `limit` characters in each text."""
        sides = [[card.within(limit).to_json(problem) for card in side] for side in self.sides]
        return {"problem": problem, "stage": self.stage, "sides": sides, "tallies": self.tallies}


@dataclass(slots=True)
class SideBySide:
    """The evaluation answers of a run's models."""

    names: list[str] = field(default_factory=list)
    """Of the models, in the order of the sides."""
    pairs: list[Pair] = field(default_factory=list)
    """In order of preference."""
    num_all: int = 0
    """Problems that are answered, shown or not."""
    num_hidden: int = 0
    """Of the pairs: problems whose texts stay hidden."""


def answers_side_by_side(models: Sequence[EvaluatedModel], asked: Asked, damage: Damage) -> SideBySide:
    """Return the answers of several models to the same problems.

    Those on which the first two differ come first, gained and lost ones by turns, then those on which others differ,
    then the rest; each in the order of the SHA-256 of the problem's id.
    """
    verdicts = [verdicts_of(model, damage) for model in models]
    scores = [sample_scores(given) for given in verdicts]
    names = asked.problems.keys() & {name for given in verdicts for name in given}
    chosen = _by_preference(names, scores)[:MAX_ITEMS]
    pairs = answer_pairs(chosen, models, verdicts, asked, damage)
    num_hidden = len(asked.hidden.intersection(chosen))
    return SideBySide([model.label for model in models], pairs, len(names), num_hidden)


def _by_preference(names: Iterable[str], scores: Sequence[SampleScores]) -> list[str]:
    gained: list[str] = []
    lost: list[str] = []
    others: list[str] = []
    rest: list[str] = []
    for name in sorted(names, key=order_of):
        means = [_mean(own.get(name, ())) for own in scores]
        known = [mean for mean in means if mean is not None]
        first, second = means[0], means[1] if len(means) > 1 else None
        if first is not None and second is not None and first != second:
            (gained if second > first else lost).append(name)
        else:
            (others if len(set(known)) > 1 else rest).append(name)
    return [*_by_turns(gained, lost), *others, *rest]


def _by_turns(gained: Sequence[str], lost: Sequence[str]) -> list[str]:
    """Return both in an order in which every prefix has gained and lost ones in the overall proportion."""
    shares = [(place / len(names), kind, name) for kind, names in enumerate((gained, lost)) for place, name in
              enumerate(names)]  # fmt: skip
    return [name for *_, name in sorted(shares)]


def order_of(name: str) -> str:
    """Return what problems are ordered by."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()


def answer_pairs(
    names: Sequence[str],
    models: Sequence[EvaluatedModel],
    verdicts: Sequence[Verdicts],
    asked: Asked,
    damage: Damage,
) -> list[Pair]:
    """Return problems with the answers of each model, in the order of `names`; those without any answer are left out.

    Args:
        names: ids of the problems.
        models: whose answers.
        verdicts: of each model.
        asked: the problems.
        damage: records what cannot be read.
    """
    num_each = max(1, len(models))
    num = max(1, min(4, MAX_SAMPLES // num_each, MAX_CARDS // (num_each * max(1, len(names)))))
    limit = max(LIMITS[-1], MAX_CHARS // (num_each * num * max(1, len(names))))
    scores = [sample_scores({name: given[name] for name in names if name in given}) for given in verdicts]
    sides: list[dict[str, list[Card]]] = []
    for place, (model, given) in enumerate(zip(models, verdicts, strict=True)):
        wanted = {name: _telling(given[name], _is_better(name, place, scores))[:num] for name in names if name in given}
        sides.append(_cards(model, wanted, asked, limit, damage))
    found = []
    for name in names:
        cards = tuple(side.get(name, []) for side in sides)
        tallies = tuple(tally_of(given.get(name, ()), own) for given, own in zip(verdicts, scores, strict=True))
        if any(cards):
            found.append(Pair(asked.benchmark_of.get(name, EVALUATION), cards, tallies))
    return found


def tally_of(verdicts: Sequence[Verdict], scores: SampleScores) -> Tally:
    """Return the tally of one model on one problem."""
    name = verdicts[0].problem_id if verdicts else ""
    num_right = sum(verdict.correct is True for verdict in verdicts)
    return Tally(_mean(scores.get(name, ())), num_right, len(verdicts), sum(one.correct is None for one in verdicts))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _is_better(name: str, place: int, scores: Sequence[SampleScores]) -> bool | None:
    """Return whether a model does better than the mean of all; `None` if it does as well."""
    means = [_mean(own.get(name, ())) for own in scores]
    known, own = [mean for mean in means if mean is not None], means[place]
    if own is None or len(set(known)) < 2:
        return None
    return own > sum(known) / len(known)


def _telling(verdicts: Sequence[Verdict], is_better: bool | None) -> list[Verdict]:
    """Return the samples with one first that shows how the model differs: a right one if it is better, else a wrong."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.sample_index)
    if is_better is None:
        return ordered
    first = next((one for one in ordered if one.correct is is_better), None)
    return ordered if first is None else [first, *(one for one in ordered if one is not first)]


def _cards(
    model: EvaluatedModel, wanted: Mapping[str, Sequence[Verdict]], asked: Asked, limit: int, damage: Damage
) -> dict[str, list[Card]]:
    """Read the chosen answers in one pass over a model's ledger; of a sample that was drawn twice, the answer.

    Args:
        model: whose answers.
        wanted: problem -> the samples.
        asked: the problems.
        limit: characters of a text that are kept.
        damage: records what cannot be read.
    """
    by_key = {verdict.key: verdict for some in wanted.values() for verdict in some}
    read: dict[SampleKey, Card] = {}
    with damage.tolerate(model.folder / LEDGER):
        for trace in read_ledger(model.folder / LEDGER):
            verdict = by_key.get(trace.key)
            if verdict is not None and (trace.key not in read or trace.finish_reason != "error"):
                is_hidden = trace.problem_id in asked.hidden
                problem = asked.problems[trace.problem_id]
                read[trace.key] = answer_card(trace, verdict, problem, is_hidden).within(limit)
    cards: dict[str, list[Card]] = defaultdict(list)
    for verdict in by_key.values():
        if verdict.key in read:
            cards[verdict.problem_id].append(read[verdict.key])
    return cards


def fit_pairs(pairs: Sequence[Pair], budget: int) -> Shown:
    """Return as many pairs as fit into `budget` bytes, with texts as long as possible.

    Args:
        pairs: in order of preference.
        budget: bytes on the page.
    """
    chosen, limit = how_long(pairs, budget, MIN_PAIRS)
    found = Shown(num_traces=len(pairs))
    for pair in chosen:
        problem = pair.problem
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
