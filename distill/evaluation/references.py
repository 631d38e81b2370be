"""Check the harness itself: does a reference model's published score come out?"""

from typing import Literal, NamedTuple

from distill.recipe.suites import Reference
from distill.results.eval import EvalResult

PUBLISHED = {"win-rate": "length_controlled", "arena": "arena_score", "rating": "rating_by_rank"}
"""Metric -> the figure that is published under its name, where that is not the score itself."""
MAX_WIDTH = 30.0
"""Widest interval of ours, from end to end in points, that can confirm a published score; that of 30 problems with 64
samples each is a little narrower."""
MAX_RATING_WIDTH = 300.0
"""The same of a rating."""

Outcome = Literal["inside", "outside", "unknown"]


class Checked(NamedTuple):
    """Whether a published score is compatible with ours."""

    outcome: Outcome
    """`unknown`: it cannot be told."""
    text: str


def check_reference(
    suite: str, score: EvalResult, reference: Reference, metric: str = "pass@1", is_limited: bool = False
) -> Checked:
    """Compare our score of a reference model with the published one.

    It lies inside if both intervals overlap; a published score without an interval, if it lies within ours. It cannot
    be told from some of the problems, from an incomplete score, or inside an interval that nearly every score is in.

    Args:
        suite: the suite's name.
        score: ours.
        reference: the published score, in percent, or a rating.
        metric: the suite's, see `PUBLISHED`.
        is_limited: whether only some of the suite's problems were measured.
    """
    named = f"{suite}, {reference.model}"
    if reference.figure == "rating" and "rating_by_rank" not in score.figures:
        said = f"{named}: published a rating of {reference.score:g} ({reference.source}), here none: set contests"
        return Checked("unknown", said)
    ours, low, high = _published_figure(score, reference.figure or metric)
    published = reference.interval or (reference.score, reference.score)
    meets = published[0] <= high and published[1] >= low
    span = "" if reference.interval is None else f" ({published[0]:g} to {published[1]:g})"
    widest = MAX_RATING_WIDTH if reference.figure == "rating" else MAX_WIDTH
    unknown = ""
    if not score.is_complete:
        unknown = "the score is incomplete"
    elif is_limited:
        unknown = "only some of the suite's problems were measured (without --limit, in a run of its own, all are)"
    elif meets and high - low > widest:
        unknown = f"our interval is wider than {widest:g} points, which says too little"
    outcome: Outcome = "unknown" if unknown else "inside" if meets else "outside"
    verdict = f"cannot be told: {unknown}" if unknown else "inside" if meets else "OUTSIDE"
    return Checked(
        outcome,
        f"{named}: published {reference.score:g}{span} ({reference.source}), here "
        f"{ours:.1f} ({low:.1f} to {high:.1f}) on {score.num_problems} problems, k = "
        f"{score.samples_per_problem}: {verdict}",
    )


def _published_figure(score: EvalResult, metric: str) -> tuple[float, float, float]:
    """Return the figure that is published under a metric's name, with its interval, in percent."""
    figure = score.figures.get(PUBLISHED.get(metric, ""))
    scale = 1 if metric == "rating" else 100
    value = score.pass_at_1 if figure is None else figure.value
    low, high = score.interval_95 if figure is None else figure.interval_95 or (figure.value, figure.value)
    return scale * (value or 0.0), scale * low, scale * high
