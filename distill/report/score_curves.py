"""Curves of scores over samples and over tokens, as numbers that a template draws in a box of 100 x 100, y downwards.

{"name": "pass@k", "x": "samples (k)", "ticks": [{"x": 0, "label": "1"}, …], "levels": [{"y": 100, "label": "0"}, …],
 "series": [{"label": "Base", "kind": "base", "path": "M0 81 L50 62", "band": "M0 78 …", "points": [[0, 81], …]}],
 "table": [("1", ["19.0% (12.1 to 28.5%)", …]), …]}
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from distill.core.formatting import count, interval, mapping, number, percent, percent_range

MAX_SERIES = 6
"""Curves of a chart at most, as many as there are styles; the table has all models."""
ENDS = (4, 8, 20, 40, 60, 80, 100)
"""Upper ends of the score axis, in percent; each has four equal steps of whole or half numbers."""

MIN_STEP = 9
"""Smallest distance of two labels of the x axis, in percent of its length."""

Point = tuple[float, float, tuple[float, float] | None]
"""(x, score, interval); scores are shares."""


def at_k_charts(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the curves of pass@k and cons@k over k; those with a single k, or without values, are left out.

    Args:
        models: each with `label`, `kind` and `scores`.
    """
    found = []
    for name, key in (("pass@k", "pass"), ("cons@k", "cons")):
        curves = [_points(model, "at_k", "k", f"{key}_at", f"{key}_interval") for model in models]
        if chart := _chart(models, curves):
            drawn = _subsampled(models) if key == "cons" else None
            how = "" if drawn is None else f", by subsampling from {count(drawn)}"
            found.append({"name": name, "x": f"samples of a problem (k{how})", **chart})
    return found


def _subsampled(models: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the smallest k whose cons@k comes from random subsamples."""
    several = [mapping(model.get("scores")).get("at_k") for model in models]
    rows = [mapping(row) for own in several if isinstance(own, Sequence) for row in own]
    found = [k for row in rows if row.get("cons_is_exact") is False and (k := number(row.get("k"))) is not None]
    return min(found, default=None)


def budget_chart(models: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the curve of the score over the tokens that answers are cut at, or `None` if there is none."""
    curves = [_points(model, "budget", "max_tokens", "pass_at_1", "interval_95") for model in models]
    chart = _chart(models, curves)
    return chart and {"name": "Score if answers were cut", "x": "longest answer, in tokens", **chart}


def _points(model: Mapping[str, Any], at: str, x: str, y: str, around: str) -> list[Point]:
    rows = mapping(model.get("scores")).get(at)
    found: list[Point] = []
    for row in map(mapping, rows if isinstance(rows, Sequence) else ()):
        place, score = number(row.get(x)), number(row.get(y))
        if place is not None and place > 0 and score is not None:
            found.append((place, score, interval(row.get(around))))
    return sorted(found)


def _chart(models: Sequence[Mapping[str, Any]], curves: Sequence[list[Point]]) -> dict[str, Any] | None:
    places = sorted({x for curve in curves for x, *_ in curve})
    if len(places) < 2:
        return None
    highest = max(100 * top for curve in curves for _, score, limits in curve for top in (score, *(limits or ())))
    end = next((end for end in ENDS if highest <= end), 100)
    first, span = math.log(places[0]), math.log(places[-1]) - math.log(places[0])

    def xy(x: float, score: float) -> tuple[float, float]:
        return round(100 * (math.log(x) - first) / span, 2), round(100 - 100 * 100 * score / end, 2)

    drawn = [(model, curve) for model, curve in zip(models, curves, strict=True) if curve][:MAX_SERIES]
    by_place = [{x: (score, limits) for x, score, limits in curve} for curve in curves]
    # The last has a label, and of the others those that leave room for the next.
    marked = [x for x, after in pairwise(places) if xy(after, 0)[0] - xy(x, 0)[0] >= MIN_STEP]
    return {
        "ticks": [{"x": xy(x, 0)[0], "label": short(x)} for x in [*marked, places[-1]]],
        "levels": [{"y": 100 - 25 * step, "label": f"{end * step / 4:g}"} for step in range(5)],
        "series": [
            {
                "label": model["label"],
                "kind": model["kind"],
                "path": _path([xy(x, score) for x, score, _ in curve]),
                "band": _band(curve, xy),
                "points": [xy(x, score) for x, score, _ in curve],
                "ends": [percent(curve[0][1]), percent(curve[-1][1])],
            }
            for model, curve in drawn
        ],
        "from": count(places[0]),
        "to": count(places[-1]),
        "labels": [model["label"] for model in models],
        "table": [(count(x), [_cell(*own[x]) if x in own else "" for own in by_place]) for x in places],
    }


def short(num: float) -> str:
    """Return a number for an axis: 1,024 tokens are `1k`."""
    return f"{num / 1024:g}k" if num >= 1024 and num % 1024 == 0 else count(num)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:g} {y:g}" for x, y in points)


def _band(curve: Sequence[Point], xy: Any) -> str:
    """Return the outline of the intervals; empty unless every point has one."""
    if not all(limits for *_, limits in curve):
        return ""
    upper = [xy(x, limits[1]) for x, _, limits in curve if limits]
    lower = [xy(x, limits[0]) for x, _, limits in reversed(curve) if limits]
    return f"{_path([*upper, *lower])} Z"


def _cell(score: float, limits: tuple[float, float] | None) -> str:
    return percent(score) if limits is None else f"{percent(score)} ({percent_range(limits)})"
