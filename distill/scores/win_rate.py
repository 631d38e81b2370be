"""AlpacaEval 2's win rate and its length-controlled win rate (Dubois et al. 2024, arXiv:2404.04475).

Enters rows such as `Comparison("How did …?", baseline_chars=2104, model_chars=872, preference=1.99)`, with a preference
between 1 (the baseline's answer is better) and 2 (the model's is); leaves percentages of wins.

The length-controlled rate is what a logistic regression expects at equal lengths. Its terms are those of the reference
(`glm_winrate.py` in tatsu-lab/alpaca_eval): the model, tanh of the standardised difference of lengths, and the
difficulty of the instruction. Two things that the reference takes from files that it downloads are replaced:

- Difficulty comes from all models of its leaderboard. Here it is estimated from the baseline's answers alone: an
  instruction that got a long one counts as hard to win. On five models of the leaderboard, leaving difficulty out
  would raise the rate by 1 to 6 points.
- Its regression also sees answers of the baseline model told to be verbose or concise, with a tenth of the weight each.
  Here a prior stands for these rows: a coefficient of length near -1.6, as was fitted to these answers (-1.58, -1.64).

The strength of that prior and the prior of difficulty were chosen to agree with the leaderboard on five models. Four
agree within 0.5 points. gpt35_turbo_instruct gets 1.7 points less, because its wins follow difficulty half as much as
others' do (0.45 in the leaderboard's weights, against 0.9 to 1.1), which the baseline's lengths cannot tell. For
another model, expect a difference of up to 2 points: priors chosen without one of the five miss that one by 0.2 to 2.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.scores.logistic import fit_logistic, logistic

NUM_RESAMPLES = 400
LENGTH_PRIOR = (-1.6, 20.0)
"""Mean and inverse variance of the coefficient of length (baseline minus model)."""
DIFFICULTY_PRIOR = (-0.5, 40.0)
"""Mean and inverse variance of the coefficient of the baseline's standardised length."""
MODEL_PRIOR = (0.0, 1e-6)
"""Flat, and finite for a model that wins or loses all."""

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model's answer against the baseline's; lengths in characters."""

    instruction: str
    baseline_chars: int
    model_chars: int
    preference: float | None
    """From 1 (baseline) to 2 (model); `None`: the judge gave no verdict."""


@dataclass(frozen=True, slots=True)
class WinRate:
    """Win rates in per cent. Unjudged comparisons count only in the bounds."""

    win_rate: float | None
    """Mean preference minus 1; `None`: nothing was judged."""
    standard_error: float | None
    """Clustered by instruction; `None`: fewer than two instructions."""
    win_rate_bounds: Bounds
    length_controlled: float | None
    """`None`: fewer than two comparisons were judged."""
    length_controlled_error: float | None
    """Standard error by resampling instructions."""
    length_controlled_bounds: Bounds | None


def win_rate(comparisons: Sequence[Comparison], seed: int = 0) -> WinRate:
    """Return a model's win rate against the baseline, as it is and at equal lengths.

    Args:
        comparisons: one row an answer. Several of one instruction count as one cluster in the errors.
        seed: seed of the resampling.

    Raises:
        ValueError: a preference is not between 1 and 2.
    """
    judged = [row for row in comparisons if row.preference is not None]
    num_missing = len(comparisons) - len(judged)
    wins = [_win(row, 0.0) for row in judged]
    total = sum(wins)
    is_enough = len(judged) > 1
    return WinRate(
        win_rate=100 * total / len(judged) if judged else None,
        standard_error=_clustered_error(judged, wins),
        win_rate_bounds=(
            (100 * total / len(comparisons), 100 * (total + num_missing) / len(comparisons))
            if comparisons
            else (0.0, 100.0)
        ),
        length_controlled=_controlled(*_features(judged), [1.0] * len(judged)) if is_enough else None,
        length_controlled_error=_controlled_error(judged, seed) if is_enough else None,
        length_controlled_bounds=_controlled_bounds(comparisons) if is_enough else None,
    )


def _win(row: Comparison, missing: float) -> float:
    if row.preference is None:
        return missing
    if not 1.0 <= row.preference <= 2.0:
        raise ValueError(f"a preference lies between 1 and 2, not at {row.preference}")
    return row.preference - 1.0


def _clustered_error(judged: Sequence[Comparison], wins: Sequence[float]) -> float | None:
    """Return the error of a mean from sums of deviations by instruction (Liang and Zeger, 1986)."""
    mean = sum(wins) / max(len(wins), 1)
    deviations: dict[str, float] = {}
    for row, win in zip(judged, wins, strict=True):
        deviations[row.instruction] = deviations.get(row.instruction, 0.0) + win - mean
    num = len(deviations)
    if num < 2:
        return None
    return float(100 * (num / (num - 1) * sum(value**2 for value in deviations.values())) ** 0.5 / len(wins))


def _features(rows: Sequence[Comparison], missing: float = 0.0) -> tuple[Any, Any]:
    """Return the features (length, difficulty, model) and the wins of N rows."""
    import numpy as np

    baseline_N = np.array([row.baseline_chars for row in rows], dtype=float)
    difference_N = baseline_N - np.array([row.model_chars for row in rows], dtype=float)
    # Lengths that do not vary say nothing: 0, for which the deviation of 0 is replaced by 1.
    spread = difference_N.std(ddof=1)
    length_N = np.tanh(difference_N / spread) if spread else np.zeros(len(rows))
    difficulty_N = (baseline_N - baseline_N.mean()) / (baseline_N.std() or 1.0)
    features_N3 = np.stack([length_N, difficulty_N, np.ones(len(rows))], axis=1)
    return features_N3, np.array([_win(row, missing) for row in rows])


def _controlled(features_N3: Any, wins_N: Any, weights: Sequence[float]) -> float:
    """Return the win rate (per cent) that the regression expects of all rows at equal lengths."""
    import numpy as np

    means, precisions = zip(LENGTH_PRIOR, DIFFICULTY_PRIOR, MODEL_PRIOR, strict=True)
    weights_N = np.asarray(weights, dtype=float)
    found_3 = fit_logistic(features_N3, wins_N, weights_N, means, precisions)
    return float(100 * np.average(logistic(features_N3[:, 1:] @ found_3[1:]), weights=weights_N))


def _controlled_error(judged: Sequence[Comparison], seed: int) -> float | None:
    import numpy as np

    names = {name: place for place, name in enumerate(dict.fromkeys(row.instruction for row in judged))}
    if len(names) < 2:
        return None
    cluster_N = np.array([names[row.instruction] for row in judged])
    features_N3, wins_N = _features(judged)
    rng = np.random.default_rng(seed)
    rates = []
    for _ in range(NUM_RESAMPLES):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        kept = times[cluster_N] > 0
        rates.append(_controlled(features_N3[kept], wins_N[kept], times[cluster_N][kept]))
    return float(np.std(rates, ddof=1))


def _controlled_bounds(comparisons: Sequence[Comparison]) -> Bounds:
    ones = [1.0] * len(comparisons)
    low, high = (_controlled(*_features(comparisons, missing), ones) for missing in (0.0, 1.0))
    return low, high
