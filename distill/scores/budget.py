"""The thinking budget: what a model would score with fewer tokens, told from one run with many.

What enters is one inner sequence a problem with `(num_completion_tokens, correct)` of its samples.

    budget_scores([[(900, True), (3000, True)]], max_tokens=4096)
        ->  1024: 0.5, 2048: 0.5, 4096: 1.0
"""

from collections.abc import Sequence
from dataclasses import dataclass

from distill.scores.intervals import mean_interval, means

FIRST_BUDGET_TOKENS = 1024

Spent = Sequence[Sequence[tuple[int, bool]]]
"""A problem -> its samples -> (completion tokens, right)."""


@dataclass(frozen=True, slots=True)
class BudgetScore:
    """The score if every answer were cut at a budget."""

    budget_tokens: int
    score: float
    interval_95: tuple[float, float]
    cut_share: float
    """Share of samples that are longer than the budget."""


def budgets_up_to(max_tokens: int) -> list[int]:
    """Return 1,024, 2,048, 4,096, … below a number of tokens, and that number."""
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}, which is below 1")
    budgets = []
    budget = FIRST_BUDGET_TOKENS
    while budget < max_tokens:
        budgets.append(budget)
        budget *= 2
    return [*budgets, max_tokens]


def budget_scores(samples: Spent, max_tokens: int) -> list[BudgetScore]:
    """Return the score under each budget up to the one that the samples were drawn with.

    An answer longer than the budget counts as wrong: it would have been cut before its end. A model that is told its
    budget may do better, so that this is a lower bound on what it can do.

    Args:
        samples: of each problem, the completion tokens of each sample (thinking and answer) and whether it is right.
        max_tokens: budget of the run, in completion tokens.

    Raises:
        ValueError: there is no problem, a problem has no sample, or `max_tokens` is below 1.
    """
    scores = []
    lengths = [num_tokens for answers in samples for num_tokens, _ in answers]
    for budget in budgets_up_to(max_tokens):
        rights = [[float(right and num_tokens <= budget) for num_tokens, right in answers] for answers in samples]
        interval = mean_interval(rights)
        cut = sum(num_tokens > budget for num_tokens in lengths)
        scores.append(BudgetScore(budget, sum(means(rights)) / len(rights), interval, cut / len(lengths)))
    return scores


def tokens_per_right(samples: Spent) -> float | None:
    """Return all completion tokens, those of wrong answers too, over the number of right answers; `None` if none is."""
    num_right = sum(right for answers in samples for _, right in answers)
    num_tokens = sum(spent for answers in samples for spent, _ in answers)
    return num_tokens / num_right if num_right else None
