"""Scores in words: what a score is, why it is incomplete, what else a suite's metric tells.

Any key may be missing, since a run may be damaged or of an older version.
"""

from typing import Any

from distill.core.formatting import MISSING, Row, count, interval, mapping, number, percent, percent_range, plain
from distill.results.eval import METRICS, WEAK, unit_of

PROTOCOL = {
    "suite": "suite",
    "problems_sha256": "questions, options and expected answers (SHA-256)",
    "prompt": "prompt",
    "options": "order of options",
    "metric": "metric",
    "contests": "rated rounds",
    "grader": "grader",
    "temperature": "temperature",
    "top_p": "top-p",
    "top_k": "top-k",
    "max_tokens": "longest answer, in tokens",
    "judge": "judge",
    "extraction": "answer extraction",
}
"""What must be equal for two scores to be comparable, in words."""
MENTIONED = {
    "hash": "hash of all that decides a score",
    "named": "named protocol",
    "samples_per_problem": "samples a problem (k)",
    "engine": "engine",
    "interval": "interval",
    "comparable_with": "comparable with",
}
"""What is only mentioned: more samples narrow the interval, and an engine affects speed."""

ERROR = "_error"
"""Ending of the key of a figure's standard error."""
_FIGURES = {
    "arena_score": "ArenaHard’s score (all games pooled)",
    "style_controlled": "score at equal style (length and formatting)",
    "win_rate": "win rate",
    "length_controlled": "length-controlled win rate",
    "f_score": "F-score (harmonic mean of correct, and of correct among those attempted)",
    "correct": "correct",
    "incorrect": "incorrect",
    "not_attempted": "not attempted",
    "correct_given_attempted": "correct among those attempted",
    "prompt_strict": "all instructions of a question followed, strictly",
    "prompt_loose": "all instructions of a question followed, loosely",
    "instruction_strict": "single instructions followed, strictly",
    "instruction_loose": "single instructions followed, loosely",
    "tests_passed": "tests that a program passes, on average",
}

_RATINGS = {
    "rating_by_rank": "rating on Codeforces, by expected place (CodeElo, rLLM)",
    "rating_zero_delta": "rating on Codeforces, at which the round changes nothing (zero delta)",
}
_RATED = {
    "rating_problems_not_asked": "{} of their problems were not asked, and count as not solved",
    "rating_contests_left_out": "{} more left out, whose answers could not be graded",
    "rating_first_share": "first in {}: it may be rated higher",
    "rating_last_share": "last in {}: it may be rated lower",
}


def metric_words(metric: Any) -> str:
    """Return what a score is; empty if the metric is not known."""
    return METRICS.get(metric, "").replace("'", "’") if isinstance(metric, str) else ""


def incomplete_words(score: Row) -> str:
    """Return why a score is incomplete and what it could be; empty if it is complete."""
    missing, ungraded = (int(number(score.get(key)) or 0) for key in ("num_missing", "num_ungraded"))
    told = [f"{count(missing)} {_plural('sample', missing)} missing"] if missing else []
    told += [f"{count(ungraded)} {_plural('answer', ungraded)} not graded"] if ungraded else []
    if not told:
        return ""
    limits = interval(score.get("bounds"))
    between = "" if limits is None else f"between {percent(limits[0])} and {percent(limits[1])}: "
    return between + " and ".join(told)


def samples_words(score: Row) -> str:
    """Return the number of samples of a problem: `4`, or `4 to 16` where sampling stopped early."""
    drawn = interval(score.get("samples_range"))
    if drawn is None or drawn[0] == drawn[1]:
        return count(score.get("samples_per_problem"))
    return f"{count(drawn[0])} to {count(drawn[1])}"


def figures_words(figures: Any) -> list[tuple[str, str]]:
    """Return a suite's further figures, each with its name; standard errors stand beside what they belong to."""
    given = {key: mapping(figure) for key, figure in mapping(figures).items()}
    names = [*(key for key in _FIGURES if key in given), *(key for key in given if key not in _FIGURES)]
    found = []
    for key in names:
        figure = given[key]
        if key == WEAK or key.startswith("rating_") or (key.endswith(ERROR) and key.removesuffix(ERROR) in given):
            continue
        limits, bounds = interval(figure.get("interval_95")), interval(figure.get("bounds"))
        told = [] if limits is None else [f"95% interval {percent_range(limits)}"]
        if (error := mapping(given.get(f"{key}{ERROR}")).get("value")) is not None:
            told.append(f"standard error {percent(error)}")
        if bounds is not None:
            told.append(f"incomplete, between {percent(bounds[0])} and {percent(bounds[1])}")
        shown = f" ({'; '.join(told)})" if told else ""
        found.append((_FIGURES.get(key, key.replace("_", " ")), f"{percent(figure.get('value'))}{shown}"))
    if weak := _value(given, WEAK):
        found.append(("problems with tests that a program could cheat", count(weak)))
    return found + rating_words(given)


def rating_words(figures: Row) -> list[tuple[str, str]]:
    """Return a rating by both definitions, each with its name, and what it rests on; empty if there is none."""
    if _value(figures, "rating_by_rank") is None:
        return []
    found = []
    for key, name in _RATINGS.items():
        if (rating := _value(figures, key)) is not None:
            limits = interval(mapping(figures.get(key)).get("interval_95"))
            span = "" if limits is None else f" (95% interval {limits[0]:.0f} to {limits[1]:.0f})"
            found.append((name, f"{rating:.0f}{span}"))
    if (ahead := _value(figures, "rating_ahead_of")) is not None:
        found.append(("ahead of these contestants", percent(ahead)))
    num_rounds = _value(figures, "rating_contests") or 0
    told = [f"{count(num_rounds)} {_plural('round', num_rounds)}"]
    for key, words in _RATED.items():
        num = _value(figures, key) or 0
        told += [words.format(percent(num) if unit_of(key) == "share" else count(num))] if num else []
    return [*found, ("the rating rests on", "; ".join(told))]


def _value(figures: Row, key: str) -> float | None:
    return number(mapping(figures.get(key)).get("value"))


def contamination_words(score: Row) -> str:
    """Return how many items are among the training rows, and the score without them; empty if it was not checked."""
    found = mapping(score.get("contamination"))
    num = number(found.get("num_hit"))
    if num is None:
        return ""
    if not num:
        return "No item is among the training rows."
    verb = f"{count(num)} {_plural('item', num)} {'is' if num == 1 else 'are'} among the training rows"
    if number(found.get("pass_at_1")) is None:
        return f"{verb}, and there are no others: the score tells nothing."
    without = percent(found["pass_at_1"])
    limits = interval(found.get("interval_95"))
    of = "" if limits is None else f" (95% interval {percent_range(limits)})"
    return f"{verb}; without {'it' if num == 1 else 'them'} {without}{of}."


def protocol_rows(protocol: Row) -> list[tuple[str, str]]:
    """Return all fields of a protocol, each with its name; a dash for those that say nothing."""
    words = {**MENTIONED, **PROTOCOL}
    keys = ["hash", "named", *PROTOCOL, "samples_per_problem", "engine", "interval", "comparable_with"]
    keys += [key for key in protocol if key not in words]
    return [(words.get(key, key), value_words(protocol.get(key))) for key in keys]


def value_words(value: Any) -> str:
    """Return a protocol's value as text."""
    if value is None or value == "":
        return MISSING
    return value if isinstance(value, str) else plain(value) if number(value) is not None else str(value)


def _plural(noun: str, num: float) -> str:
    return noun if num == 1 else f"{noun}s"
