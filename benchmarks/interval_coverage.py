"""How often the intervals of `distill.scores.intervals` hold the true value, by simulation; 95% is asked for.

Problems are drawn from a population: each with the same rate, or with rates from a Beta of that mean and a
concentration (0.5: nearly always or never solved; 10: alike). Each has k binary samples. What must be inside is the
population's mean.

    python benchmarks/interval_coverage.py [--repetitions 2000] [--spread 0.5]

Binary results of 30 problems have few outcomes, so that no interval covers 95% at each rate: at rate 0.02 and k = 1,
87.9% of results have at most one right answer and 97.8% at most two, and an interval holds 0.02 for either or for both.
Hence two figures a cell: at the rate itself, and on average over rates around it (log-odds within +-`--spread`,
uniform), as is usual for discrete results (Brown, Cai and DasGupta, 2001). The paired difference is simulated at the
rates of two models, each problem's two rates independent or tied to each other. The peer is the normal interval of the
problems' means, which a percentile bootstrap over problems comes close to. The last line is JSON: the least and the
greatest coverage of each table, in percent.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distill.scores.intervals import interval_of_gains, interval_of_means

Array: TypeAlias = NDArray[np.float64]

Interval: TypeAlias = Callable[[Array, float], tuple[Array, Array]]

RATES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.9, 0.98)
PAIRS = ((0.02, 0.02), (0.1, 0.1), (0.5, 0.5), (0.98, 0.98), (0.02, 0.1), (0.3, 0.5), (0.3, 0.7), (0.9, 0.95))
NUM_PROBLEMS = (30, 100, 500)
NUM_SAMPLES = (1, 4, 16)
CONCENTRATIONS = (None, 0.5, 2.0, 10.0)
"""Of the Beta of problems' rates; `None`: all the same."""

# R = repetitions, N = problems


def main() -> None:
    """Print a table of means and one of paired differences, then the extremes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2_000, help="simulated benchmarks a cell")
    parser.add_argument("--spread", type=float, default=0.5, help="half width of the neighbourhood, in log-odds")
    options = parser.parse_args()
    began = time.perf_counter()
    found: dict[str, Any] = {}
    for name, spread, interval in (
        ("mean_at_rate", 0.0, interval_of_means),
        ("mean_around_rate", options.spread, interval_of_means),
        ("peer_around_rate", options.spread, normal_interval),
    ):
        found[name] = mean_table(name, options.repetitions, spread, interval)
    found["paired"] = paired_table(options.repetitions)
    print(json.dumps({**found, "repetitions": options.repetitions, "seconds": round(time.perf_counter() - began, 1)}))


def settings() -> Iterator[tuple[int, int, float | None]]:
    """Yield (problems, samples, concentration); with one sample a problem the concentration makes no difference."""
    for num, k, concentration in itertools.product(NUM_PROBLEMS, NUM_SAMPLES, CONCENTRATIONS):
        if k > 1 or concentration is None:
            yield num, k, concentration


def mean_table(name: str, repetitions: int, spread: float, interval: Interval) -> dict[str, Any]:
    """Print coverage of the mean in each cell, and return its extremes."""
    print(f"\n{name}: coverage in % by rate; then half widths in points")
    print(f"{'n':>4} {'k':>3} {'Beta':>5} " + " ".join(f"{rate:>6}" for rate in RATES))
    cells = {}
    for num, k, concentration in settings():
        row = [mean_coverage(rate, num, k, concentration, repetitions, spread, interval) for rate in RATES]
        cells.update({(num, k, concentration, rate): cell[0] for rate, cell in zip(RATES, row, strict=True)})
        covered = " ".join(f"{100 * cell[0]:6.1f}" for cell in row)
        print(
            f"{num:4} {k:3} {concentration or '-':>5} {covered} | " + " ".join(f"{50 * cell[1]:4.1f}" for cell in row)
        )
    return extremes(cells)


def mean_coverage(
    rate: float,
    num: int,
    k: int,
    concentration: float | None,
    repetitions: int,
    spread: float = 0.0,
    interval: Interval = interval_of_means,
    seed: int = 0,
) -> tuple[float, float]:
    """Return how often the interval of the mean holds the rate, and its mean width."""
    rng = np.random.default_rng([seed, num, k, round(10 * (concentration or 0)), round(1_000 * rate)])
    covered = width = 0.0
    for size in chunks(repetitions, num):
        odds_R = np.log(rate / (1 - rate)) + spread * rng.uniform(-1, 1, size=size)
        rates_R = 1 / (1 + np.exp(-odds_R))
        means_RN = rng.binomial(k, problem_rates(rates_R, num, concentration, rng)) / k
        low_R, high_R = interval(means_RN, 1 / k)
        covered += float(((low_R <= rates_R) & (rates_R <= high_R)).sum())
        width += float((high_R - low_R).sum())
    return covered / repetitions, width / repetitions


def normal_interval(means_RN: Array, _smallest_effect: float) -> tuple[Array, Array]:
    """Return the mean of problems, and 1.96 standard errors on both sides."""
    mean_R, half_R = means_RN.mean(axis=1), 1.96 * means_RN.std(axis=1, ddof=1) / np.sqrt(means_RN.shape[1])
    return mean_R - half_R, mean_R + half_R


def paired_table(repetitions: int) -> dict[str, Any]:
    """Print coverage of the paired difference in each cell, and return its extremes."""
    print("\npaired difference: coverage in % by the rates of the two models")
    print(f"{'n':>4} {'k':>3} {'Beta':>5} {'rates':>11} " + " ".join(f"{one}/{other}".rjust(9) for one, other in PAIRS))
    cells = {}
    for num, k, concentration in settings():
        for together in (True, False) if k > 1 and concentration else (True,):
            row = [paired_coverage(pair, num, k, concentration, together, repetitions) for pair in PAIRS]
            cells.update({(num, k, concentration, together, *p): c for p, c in zip(PAIRS, row, strict=True)})
            kind = "together" if together else "independent"
            covered = " ".join(f"{100 * cell:9.1f}" for cell in row)
            print(f"{num:4} {k:3} {concentration or '-':>5} {kind:>11} {covered}")
    return extremes(cells)


def paired_coverage(
    pair: tuple[float, float],
    num: int,
    k: int,
    concentration: float | None,
    together: bool,
    repetitions: int,
    seed: int = 0,
) -> float:
    """Return how often the interval of the paired difference holds the difference of the rates."""
    rng = np.random.default_rng([seed, num, k, round(10 * (concentration or 0)), *(round(1_000 * r) for r in pair)])
    covered = 0
    for size in chunks(repetitions, num):
        one_RN, other_RN = (problem_rates(np.full(size, rate), num, concentration, rng) for rate in pair)
        if together:  # every problem's failures shrink by the same factor
            other_RN = 1 - (1 - one_RN) * (1 - pair[1]) / (1 - pair[0])
        gains_RN = (rng.binomial(k, other_RN) - rng.binomial(k, one_RN)) / k
        low_R, high_R = interval_of_gains(gains_RN)
        gain = pair[1] - pair[0]
        covered += int(((low_R <= gain + 1e-12) & (gain - 1e-12 <= high_R)).sum())
    return covered / repetitions


def problem_rates(rates_R: Array, num: int, concentration: float | None, rng: np.random.Generator) -> Array:
    """Return the rates of a benchmark's problems, drawn from the population that has these mean rates."""
    rates_RN = np.broadcast_to(rates_R[:, None], (len(rates_R), num))
    if concentration is None:
        return rates_RN
    return rng.beta(rates_RN * concentration, (1 - rates_RN) * concentration)


def chunks(repetitions: int, num: int) -> Iterator[int]:
    """Yield numbers of repetitions that fit into memory together."""
    size = max(1, 1_000_000 // num)
    for start in range(0, repetitions, size):
        yield min(size, repetitions - start)


def extremes(cells: dict[Any, float]) -> dict[str, Any]:
    """Return the least and greatest coverage in percent, and how many cells are outside 93% to 97%."""
    values = list(cells.values())
    return {
        "min": round(100 * min(values), 2),
        "max": round(100 * max(values), 2),
        "cells": len(values),
        "below_93": sum(value < 0.93 for value in values),
        "above_97": sum(value > 0.97 for value in values),
    }


if __name__ == "__main__":
    main()
