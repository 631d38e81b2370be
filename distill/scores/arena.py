"""ArenaHard v0.1's score: the win rate against a baseline, two games a question (Li et al. 2024, arXiv:2406.11939).

Enters `Battle("q1", "student", "A>B", "A>>B")`: in the first game the baseline is A, in the swapped one the model is.
Leaves the win rate in per cent with its interval. A clear verdict (`>>`) counts as three wins and a tie as half a one,
as in `show_result.py` of lmarena/arena-hard-auto at v0.1. There a Bradley-Terry model gives the rate; when all games
are against one baseline, its maximum is each model's own share of (weighted) wins.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distill.grading.comparisons import ArenaVerdict
from distill.scores.logistic import fit_logistic, logistic
from distill.scores.style import Style, style_difference

CLEAR_WEIGHT = 3
NUM_RESAMPLES = 1_000
NUM_STYLE_RESAMPLES = 200
STYLE_PRECISION = 1.0
"""Inverse variance of a coefficient's prior, as weak beside a thousand games as the penalty of the reference's fit."""

Bounds = tuple[float, float]

_WINS_OF_A: Final[dict[ArenaVerdict, tuple[float, int]]] = {
    "A>>B": (1.0, CLEAR_WEIGHT),
    "A>B": (1.0, 1),
    "A=B": (0.5, 1),
    "B>A": (0.0, 1),
    "B>>A": (0.0, CLEAR_WEIGHT),
}


@dataclass(frozen=True, slots=True)
class Battle:
    """Both games of a model against the baseline on one question; `None`: the judge gave no verdict."""

    question: str
    model: str
    game: ArenaVerdict | None
    """The baseline is A."""
    swapped: ArenaVerdict | None
    """The model is A."""
    baseline_style: Style | None = None
    model_style: Style | None = None


@dataclass(frozen=True, slots=True)
class ArenaScore:
    """One model's score in per cent."""

    score: float | None
    """Win rate against the baseline; `None`: no game was judged."""
    interval_95: Bounds | None
    """By resampling questions, so that the two games of a question are not taken for independent ones."""
    bounds: Bounds
    """The score if all unjudged games were clear losses, and if all were clear wins (without style control)."""
    is_style_controlled: bool


def outcome(verdict: ArenaVerdict, is_swapped: bool) -> tuple[float, int]:
    """Return the model's share of a win (0, 0.5 or 1) and the weight of the game.

    Args:
        verdict: what the judge said of A and B.
        is_swapped: whether the model was A.
    """
    wins, weight = _WINS_OF_A[verdict]
    return (wins if is_swapped else 1.0 - wins), weight


def arena_scores(battles: Iterable[Battle], seed: int = 0, controls_style: bool = False) -> dict[str, ArenaScore]:
    """Return each model's score.

    Args:
        battles: the games of all models against one baseline.
        seed: seed of the resampling.
        controls_style: give the win rate at equal length and Markdown. Length, headers, list items and bold passages
            are covariates of one regression over all models, as differences scaled to a deviation of 1. The reference
            subtracts their mean as well, which for a single model would put its own style in place of an equal one.

    Raises:
        ValueError: styles are to be controlled, and a judged battle has none.
    """
    listed = list(battles)
    models = sorted({battle.model for battle in listed})
    by_model = {model: [battle for battle in listed if battle.model == model] for model in models}
    controlled = _controlled(listed, models, seed) if controls_style else {}
    return {
        model: _score(by_model[model], seed, controlled.get(model, (None, None)) if controls_style else None)
        for model in models
    }


def _games(battle: Battle) -> list[tuple[float, int]]:
    sides = ((battle.game, False), (battle.swapped, True))
    return [outcome(verdict, is_swapped) for verdict, is_swapped in sides if verdict is not None]


def _score(battles: Sequence[Battle], seed: int, controlled: tuple[float | None, Bounds | None] | None) -> ArenaScore:
    games = [game for battle in battles for game in _games(battle)]
    num_unjudged = 2 * len(battles) - len(games)
    wins, total = sum(share * weight for share, weight in games), sum(weight for _, weight in games)
    score, interval = controlled or (100 * wins / total if total else None, _interval(battles, seed))
    most = total + CLEAR_WEIGHT * num_unjudged
    return ArenaScore(
        score=score,
        interval_95=interval,
        bounds=(100 * wins / most, 100 * (most - total + wins) / most) if most else (0.0, 100.0),
        is_style_controlled=controlled is not None,
    )


def _interval(battles: Sequence[Battle], seed: int) -> Bounds | None:
    import numpy as np

    sums: dict[str, tuple[float, int]] = {}
    for battle in battles:
        for share, weight in _games(battle):
            wins, total = sums.get(battle.question, (0.0, 0))
            sums[battle.question] = wins + share * weight, total + weight
    if not sums:
        return None
    # Q = questions: wins and weights. Sorted, because the resampling depends on the order.
    sums_Q2 = np.array([sums[name] for name in sorted(sums)], dtype=float)
    won, weighed = sums_Q2.sum(axis=0)
    if won in (0, weighed):
        # Resamples of a clean sweep are all alike; what 95% of luck could hide is known (Clopper and Pearson, 1934).
        hidden = 100 * (1 - 0.025 ** (1 / len(sums_Q2)))
        return (0.0, hidden) if won == 0 else (100 - hidden, 100.0)
    rng = np.random.default_rng(seed)
    rates = []
    for _ in range(NUM_RESAMPLES):
        wins, total = sums_Q2[rng.integers(len(sums_Q2), size=len(sums_Q2))].sum(axis=0)
        rates.append(100 * wins / total)
    return float(np.quantile(rates, 0.025)), float(np.quantile(rates, 0.975))


def _controlled(
    battles: Sequence[Battle], models: Sequence[str], seed: int
) -> dict[str, tuple[float | None, Bounds | None]]:
    """Return each judged model's score and interval at equal style."""
    import numpy as np

    rows = [(battle, *game) for battle in battles for game in _games(battle)]
    if not rows:
        return {}
    # N = judged games, S = styles, M = models with games.
    styles_NS = np.array([_style(battle) for battle, _, _ in rows])
    spread_S = styles_NS.std(axis=0)
    styles_NS = styles_NS / np.where(spread_S > 0, spread_S, 1.0)
    played = [model for model in models if any(battle.model == model for battle, _, _ in rows)]
    models_NM = np.array([[float(battle.model == model) for model in played] for battle, _, _ in rows])
    features = np.concatenate([models_NM, styles_NS], axis=1)
    wins_N = np.array([share for _, share, _ in rows])
    weights_N = np.array([weight for _, _, weight in rows], dtype=float)
    questions = {name: place for place, name in enumerate(dict.fromkeys(battle.question for battle, _, _ in rows))}
    question_N = np.array([questions[battle.question] for battle, _, _ in rows])
    num = features.shape[1]

    def rates(times_N: Any) -> Any:
        found = fit_logistic(features, wins_N, weights_N * times_N, [0.0] * num, [STYLE_PRECISION] * num)
        return 100 * logistic(found[: len(played)])

    rng = np.random.default_rng(seed)
    resampled = np.array(
        [
            rates(np.bincount(rng.integers(len(questions), size=len(questions)), minlength=len(questions))[question_N])
            for _ in range(NUM_STYLE_RESAMPLES)
        ]
    )
    low, high = np.quantile(resampled, 0.025, axis=0), np.quantile(resampled, 0.975, axis=0)
    whole = rates(np.ones(len(rows)))
    return {model: (float(whole[i]), (float(low[i]), float(high[i]))) for i, model in enumerate(played)}


def _style(battle: Battle) -> tuple[float, ...]:
    if battle.baseline_style is None or battle.model_style is None:
        raise ValueError(f"style control needs the styles of both answers to {battle.question}")
    return style_difference(battle.baseline_style, battle.model_style)
