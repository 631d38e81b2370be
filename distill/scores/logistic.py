"""Logistic regression on outcomes between 0 and 1, with a Gaussian prior on each coefficient."""

from collections.abc import Sequence
from typing import Any

MAX_STEPS = 100
MAX_HALVINGS = 40
TOLERANCE = 1e-10
"""The fit ends when no coefficient moves by more."""


def fit_logistic(
    features_NP: Any, outcomes_N: Any, weights_N: Any, means: Sequence[float], precisions: Sequence[float]
) -> Any:
    """Return the coefficients (P numbers) that are most likely after the data, by Newton's method.

    N = rows, P = coefficients. The likelihood of an outcome y in [0, 1] is p^y (1 - p)^(1 - y).

    Args:
        features_NP: the features; a constant is one of them if wanted.
        outcomes_N: the outcomes.
        weights_N: weight of each row.
        means: mean of each coefficient's prior.
        precisions: inverse variance of each coefficient's prior; positive, so that separable data have a finite
            optimum.
    """
    import numpy as np

    means_P, precisions_P = np.asarray(means, dtype=float), np.asarray(precisions, dtype=float)

    def log_posterior(coefficients_P: Any) -> Any:
        scores_N = features_NP @ coefficients_P
        fit = weights_N @ (outcomes_N * scores_N - np.logaddexp(0.0, scores_N))
        return fit - precisions_P @ (coefficients_P - means_P) ** 2 / 2

    found_P, reached = means_P, log_posterior(means_P)
    for _ in range(MAX_STEPS):
        expected_N = logistic(features_NP @ found_P)
        slope_P = features_NP.T @ (weights_N * (outcomes_N - expected_N)) - precisions_P * (found_P - means_P)
        variances_N = weights_N * expected_N * (1 - expected_N)
        curvature_PP = (features_NP * variances_N[:, None]).T @ features_NP + np.diag(precisions_P)
        step_P = np.linalg.solve(curvature_PP, slope_P)
        # Newton's full step may overshoot, but the objective is concave: some fraction of it always leads upwards.
        for _ in range(MAX_HALVINGS):
            if log_posterior(found_P + step_P) >= reached or np.abs(step_P).max() < TOLERANCE:
                break
            step_P = step_P / 2
        found_P = found_P + step_P
        reached = log_posterior(found_P)
        if np.abs(step_P).max() < TOLERANCE:
            break
    return found_P


def logistic(values: Any) -> Any:
    """Return 1 / (1 + exp(-x)) of each value, without overflow."""
    import numpy as np

    return 0.5 * (1.0 + np.tanh(0.5 * values))
