"""What `eval` records."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from distill.results.base import Count, Interval, Numbers, Recorded, sometimes

TITLE = "Evaluate"
DOES = "evaluate"
PASS_AT_1 = "pass@1"  # noqa: S105 - a score
METRICS = {
    PASS_AT_1: "the share of problems solved by one sample",
    "instructions": "the share of answers that strictly follow all instructions of their question",
    "short-answers": "the share of answers that the judge calls correct",
    "win-rate": "the share of a question's games won against the baseline's answer, a draw half, mean over questions",
    "arena": "the share of a question's games won against the baseline's answer, clear wins and losses counting three "
    "times, mean over questions; ArenaHard's own score, beside it, pools all games",
}
"""Metric -> what the score is."""

WEAK = "problems_with_weak_tests"
Unit = Literal["share", "count", "rating"]
_UNITS: dict[str, Unit] = {
    **dict.fromkeys(("rating_by_rank", "rating_zero_delta"), "rating"),
    **dict.fromkeys((WEAK, "rating_contests", "rating_contests_left_out", "rating_problems_not_asked"), "count"),
}
"""Further figures that are no share."""

_LOCKED_OF_SCORE = ("num_problems", "samples_per_problem", "pass_at_1", "interval_95")


class AtK(Recorded):
    """What k samples of each problem give."""

    k: Count
    pass_at: float
    """Share of problems of which at least one of k samples is right (unbiased, arXiv:2107.03374)."""
    pass_interval: Interval
    cons_at: float | None = None
    """Share of problems of which the majority of k samples is right; null where answers cannot vote."""
    cons_interval: Interval | None = None
    cons_is_exact: bool = True
    """False if `cons_at` comes from random subsamples, as it does for many samples."""


class Variance(Recorded):
    """Where the uncertainty of a score comes from."""

    between_problems: float | None = None
    """Variance of the problems' own rates of success; null if no problem has two samples."""
    between_samples: float | None = None
    """Variance of a sample around its problem's rate; null if no problem has two samples."""
    narrows: str
    """What would narrow the interval, in a sentence."""


class BudgetPoint(Recorded):
    """The score if answers had been cut earlier."""

    TABLE = "ThinkingBudget"

    max_tokens: Count
    pass_at_1: float
    """Answers longer than `max_tokens` count as wrong."""
    interval_95: Interval
    cut_share: float
    """Share of the answers that are longer."""


class Contamination(Recorded):
    """The score without the items that are among the training rows."""

    num_hit: Count
    """Items that are."""
    pass_at_1: float | None
    """Score on the other items; null if there are none."""
    interval_95: Interval | None
    items: list[str] = []
    """Their ids, at most 100."""


class Figure(Recorded):
    """A further figure of a suite's metric."""

    value: float
    """A share, from 0 to 1; a rating, or a number of rounds or problems, where the name says so."""
    interval_95: Interval | None = sometimes()
    bounds: Interval | None = sometimes()
    """If the score is incomplete: what the figure could be."""


def unit_of(key: str) -> Unit:
    """Return what the further figure of this name is counted in."""
    return _UNITS.get(key, "share")


class EvalResult(Recorded):
    """One model's score on one set of problems."""

    TABLE = "Score"

    model: str
    """Hub id or folder."""
    num_problems: Count
    samples_per_problem: Count
    """K, as asked for."""
    pass_at_1: float | None
    """Share of right answers: the mean over samples, then over problems. Missing and ungraded samples are left out;
    null if there are no others."""
    interval_95: Interval
    """Lower and upper bound."""
    truncated_share: float
    """Of the answers: cut off at `max_tokens`."""
    num_ungraded: Count = 0
    """Answers without a verdict."""
    num_missing: Count = 0
    """Samples that failed, or were not drawn."""
    bounds: Interval | None = sometimes()
    """If any are ungraded or missing, the score is incomplete: what it could be if all of them were wrong, or right."""
    mean_completion_tokens: float
    tokens_per_right: float | None = sometimes()
    """All completion tokens, divided by the number of right answers."""
    samples_range: Numbers | None = sometimes()
    """Fewest and most samples of a problem, where sampling stopped early because the score was known well enough."""
    sequence_95: Interval | None = sometimes()
    """Where sampling may stop early: an interval of the score on these very problems, which holds at every time."""
    at_k: list[AtK] = sometimes([])
    """For k = 1, 2, 4, … samples."""
    shown: dict[str, float] = sometimes({})
    """The figures at k samples that the recipe asks for (`show`)."""
    variance: Variance | None = sometimes()
    budget: list[BudgetPoint] = sometimes([])
    groups: dict[str, float] = sometimes({})
    """Score by group (subject, month of release, difficulty), where the suite has groups."""
    group_problems: dict[str, int] = sometimes({})
    """Problems with a score in each group."""
    figures: dict[str, Figure] = sometimes({})
    """Further figures of the suite's metric, such as `instruction_strict` or `f_score`."""
    flags: list[str] = sometimes([])
    """What a reader should know of these answers, in sentences."""
    contamination: Contamination | None = sometimes()

    @property
    def is_complete(self) -> bool:
        """Return whether every sample was drawn and graded."""
        return not (self.num_missing or self.num_ungraded)

    @property
    def num_answers(self) -> int:
        """Return the number of samples that did not fail."""
        return self.num_problems * self.samples_per_problem - self.num_missing

    @property
    def text(self) -> str:
        """Return the score in percent; one that is not complete is marked."""
        if self.pass_at_1 is None:
            return "not known"
        return f"{self.pass_at_1:.1%}{'' if self.is_complete else ' (incomplete)'}"


class Difference(Recorded):
    """The student's score less the base's, on the same problems."""

    pass_at_1: float | None
    """Student less base; null if no problem has graded answers of both."""
    interval_95: Interval
    """Paired by problem."""
    num_problems: Count | None = sometimes()
    """Problems with graded answers of both; the others are left out."""
    bounds: Interval | None = sometimes()
    """If one of the scores is incomplete: what the difference could be."""
    num_gained: Count
    """Problems solved more often."""
    num_lost: Count
    """Problems solved less often."""

    @property
    def text(self) -> str:
        """Return the difference in points with its interval; one that is not complete is marked."""
        if self.pass_at_1 is None:
            return "not known"
        low, high = self.interval_95
        mark = "" if self.bounds is None else ", incomplete"
        return f"{100 * self.pass_at_1:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}{mark})"


class Scores(Recorded):
    """Both models' scores on the same problems."""

    base: EvalResult
    student: EvalResult
    difference: Difference


class Protocol(Recorded):
    """The conditions under which scores are comparable."""

    hash: str = sometimes("")
    """First 16 digits of the SHA-256 of the fields that decide a score: all but k, engine, interval and the notes."""
    suite: str | None = sometimes()
    """The suite, as its file or its name says."""
    named: str | None = sometimes()
    """The named protocol, such as `r1-paper`."""
    problems_sha256: str | None = sometimes()
    """Of the questions as asked, with their options and expected answers."""
    prompt: str | None = sometimes()
    """Template of the user's message."""
    options: str | None = sometimes()
    """How options are ordered, if not as in the data."""
    metric: str | None = sometimes()
    """What the score is."""
    contests: str | None = sometimes()
    """The rated rounds of which a rating is worked out: their number and hash."""
    grader: str | None = sometimes()
    """The task's grader and its version."""
    samples_per_problem: Count = 1
    """K; 0 where benchmarks differ."""
    temperature: float | None = sometimes()
    top_p: float | None = sometimes()
    top_k: int | None = sometimes()
    max_tokens: Count | None = sometimes()
    judge: str | None = sometimes()
    """The judge's name, sampling and the SHA-256 of its wording."""
    comparable_with: str | None = sometimes()
    """What the score may be compared with, and what not."""
    engine: str | None = sometimes()
    extraction: str = ""
    """How an answer is found."""
    interval: str = ""
    """How the interval is worked out."""

    def with_hash(self) -> "Protocol":
        """Return the protocol with its hash."""
        fields = {key: value for key, value in self.to_json().items() if key not in _NOT_HASHED}
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
        return self.model_copy(update={"hash": digest[:16]})


_MAX_CHARS = 60
"""Longest value that is shown in a difference."""
_BEFORE_CHARS = 20
"""Characters that are shown before the first that differs."""
_NOT_HASHED = {"hash", "named", "samples_per_problem", "comparable_with", "engine", "interval"}
"""More samples only narrow the interval; an engine does not change what is asked."""


def protocol_difference(one: Protocol, other: Protocol) -> str:
    """Return how two protocols differ, naming each field and both values; empty if their scores are comparable.

    A protocol of an older version has no hash: then only the fields that both state are compared.
    """
    if one.hash and one.hash == other.hash:
        return ""
    before, after = one.to_json(), other.to_json()
    keys = [key for key in Protocol.model_fields if key not in _NOT_HASHED]
    if not (one.hash and other.hash):
        keys = [key for key in keys if before.get(key) is not None and after.get(key) is not None]
    found = [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
    return "; ".join(f"{key}: {' and '.join(_short(was, now))}" for key, was, now in found)


def _short(*values: Any) -> list[str]:
    """Return values as texts of which each is short and shows where they begin to differ."""
    texts = [repr(value) for value in values]
    pairs = enumerate(zip(*texts, strict=False))
    same = next((place for place, chars in pairs if len(set(chars)) > 1), min(map(len, texts)))
    start = max(0, same - _BEFORE_CHARS) if max(map(len, texts)) > _MAX_CHARS else 0
    shown = [f"{'…' if start else ''}{text[start:]}" for text in texts]
    return [text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 1]}…" for text in shown]


def of_one_metric(metrics: Mapping[str, str | None]) -> list[str]:
    """Return the benchmarks whose scores may be averaged: those of one metric, pass@1 if any has it.

    Args:
        metrics: benchmark -> its metric; an older version, which did not record it, had pass@1 alone.
    """
    found = {name: metric or PASS_AT_1 for name, metric in metrics.items()}
    first = next(iter(found.values()), PASS_AT_1)
    main = PASS_AT_1 if PASS_AT_1 in found.values() else first
    return [name for name, metric in found.items() if metric == main]


class Benchmark(Scores):
    """Both models' scores on one benchmark."""

    name: str
    protocol: Protocol | None = sometimes()


class EvalMetrics(Scores):
    """Metrics of `eval`.

    The scores at the top are over all benchmarks of one metric: pass@1 if any has it, else that of the first.
    """

    LOCKED = ("base", "student", "difference")

    benchmarks: list[Benchmark]
    protocol: Protocol
    """What all benchmarks have in common; each has its own beside its scores."""
    engine: dict[str, Any] = {}
    """Settings of the engines of `base` and `student`."""

    @property
    def tokens_spent(self) -> float | None:
        several: list[Scores] = [*self.benchmarks] or [self]
        scores = [score for one in several for score in (one.base, one.student)]
        return sum(one.mean_completion_tokens * one.num_answers for one in scores)

    def locked(self) -> dict[str, Any]:
        """Return the scores alone, without the models' names."""
        found = super().locked()
        return {role: {key: one[key] for key in _LOCKED_OF_SCORE if key in one} for role, one in found.items()}


class EvalInputs(Recorded):
    """The parts of the identity that others look at."""

    student: str | None = None
