"""Charts as numbers that a template draws in a box of 100 x 100, y downwards.

Example of a funnel bar:

    {"name": "wrong_answer", "kind": "dropped", "num": 880, "total": 1200, "left": 25.8, "dropped": 73.3, …}
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distill.core.formatting import Row, count, interval, mapping, number, plain
from distill.core.records import REASONS
from distill.report.score_words import incomplete_words, samples_words

MAX_ROWS = 40
"""Rows of a yield table at most, besides one for all others."""
MAX_POINTS = 300
"""Points of a curve at most; a longer history is averaged over equal stretches."""


def funnel_rows(funnel: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return the funnel's rows, each with bars for what is left after it and what it dropped, in percent of all."""
    if not funnel:
        return []
    total = left = funnel[0][1]
    rows = []
    for name, num in funnel:
        kind = name if name in ("sampled", "kept") else "dropped"
        left -= num if kind == "dropped" else 0
        bars = {"left": 100 * max(left, 0) / max(total, 1), "dropped": 100 * num / max(total, 1)}
        rows.append({"name": name, "why": REASONS.get(name, name), "kind": kind, "num": num, "total": total} | bars)
    return rows


def yield_rows(by_name: Any) -> list[dict[str, Any]]:
    """Return the yield of each difficulty, source, language or teacher; `right` and `kept` are shares of its traces.

    Beyond `MAX_ROWS`, those with the fewest traces are combined in a last row.
    """
    found = []
    rows = {name: mapping(value) for name, value in mapping(by_name).items()}
    if len(rows) > MAX_ROWS:
        ordered = sorted(rows, key=lambda name: -(number(rows[name].get("num_traces")) or 0))
        shown, others = set(ordered[:MAX_ROWS]), ordered[MAX_ROWS:]
        sums = {key: sum(int(number(rows[name].get(key)) or 0) for name in others) for key in _COUNTS}
        rows = {name: row for name, row in rows.items() if name in shown} | {f"{len(others):,} others": sums}
    for name, row in rows.items():
        num = number(row.get("num_traces")) or 0.0
        shares = {key: (number(row.get(f"num_{of}")) or 0.0) / num if num else None for key, of in _YIELDS.items()}
        found.append({"name": name, **row, **shares})
    return found


_YIELDS = {"right": "correct", "kept": "kept"}
_COUNTS = ("num_problems", "num_traces", "num_correct", "num_kept")


def histogram(lengths: Row) -> dict[str, Any] | None:
    """Return bars for kept (up) and dropped (down) traces by length, each as shares of its own total.

    Args:
        lengths: `{"unit": …, "edges": [E edges], "kept": [E counts], "dropped": [E counts]}`; the last bin is open.

    Returns:
        `None` if there are no traces.
    """
    kept, dropped, edges = lengths.get("kept") or [], lengths.get("dropped") or [], lengths.get("edges") or []
    if not edges or not sum(kept) + sum(dropped):
        return None
    shares = [[num / max(1, sum(counts)) for num in counts] for counts in (kept, dropped)]
    top = max(max(share) for share in shares)
    width = 100 / len(kept)
    bars = [
        {
            "x": width * place + width * 0.06,
            "width": width * 0.88,
            "kept": 50 * shares[0][place] / top,
            "dropped": 50 * shares[1][place] / top,
            "num_kept": kept[place],
            "num_dropped": dropped[place],
            "share_kept": shares[0][place],
            "share_dropped": shares[1][place],
            "label": _bin_label(edges, place),
        }
        for place in range(len(kept))
    ]
    ticks = [{"x": width * place, "label": count(edges[place])} for place in _some(len(edges))]
    return {
        "bars": bars,
        "ticks": ticks,
        "unit": lengths.get("unit") or "tokens",
        "counted_by": lengths.get("counted_by"),
        "num_kept": sum(kept),
        "num_dropped": sum(dropped),
        "median_kept": lengths.get("median_kept"),
        "median_dropped": lengths.get("median_dropped"),
    }


def _bin_label(edges: Sequence[float], place: int) -> str:
    if place == len(edges) - 1:
        return f"{count(edges[place])} and more"
    return f"{count(edges[place])} to {count(edges[place + 1] - 1)}"


def _some(num: int) -> list[int]:
    """Return at most six evenly spaced indices below `num`, starting at 0."""
    step = max(1, math.ceil(num / 6))
    return list(range(0, num, step))


def step_chart(history: Any, key: str) -> dict[str, Any]:
    """Return a curve over the training steps; `num_not_finite` counts values that cannot be drawn."""
    entries = [mapping(entry) for entry in history] if isinstance(history, Sequence) else []
    logged = [(number(row.get("step")) or i, row[key]) for i, row in enumerate(entries, 1) if key in row]
    curve = [(step, y) for step, value in logged if (y := number(value)) is not None]
    if not curve:
        return {"num_not_finite": len(logged)}
    stretch = math.ceil(len(curve) / MAX_POINTS)
    groups = [curve[i : i + stretch] for i in range(0, len(curve), stretch)]
    drawn = [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]
    first, last = drawn[0][0], drawn[-1][0]
    ticks = nice_ticks(min(y for _, y in drawn), max(y for _, y in drawn))
    span = (last - first) or 1, (ticks[-1] - ticks[0]) or 1
    xy = [(100 * (step - first) / span[0], 100 * (ticks[-1] - y) / span[1]) for step, y in drawn]
    return {
        "path": "M" + " L".join(f"{x:.2f} {y:.2f}" for x, y in xy) + " h0.01",
        "ticks": [plain(tick) for tick in reversed(ticks)],
        "steps": [count(first), count(last)],
        "ends": [plain(drawn[0][1]), plain(drawn[-1][1])],
        "stretch": stretch,
        "num_not_finite": len(logged) - len(curve),
    }


def nice_ticks(low: float, high: float) -> list[float]:
    """Return about five evenly spaced round numbers that enclose `low` and `high`."""
    rough = (high - low) / 4 or abs(low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((f * power for f in (1, 2, 2.5, 5) if f * power >= rough), 10 * power)
    start, end = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(start, max(end, start + 1) + 1)]


def model_score(model: str, scores: Row) -> dict[str, Any]:
    """Return one model's scores with its dot, interval and bounds in percent, and its other cells as text."""
    score, limits, bounds = (number(scores.get("pass_at_1")), *(interval(scores.get(k)) for k in _LIMITS))
    return {
        "model": model,
        "scores": scores,
        "dot": None if score is None else 100 * score,
        "interval": limits and [100 * limit for limit in limits],
        "bounds": bounds and [100 * limit for limit in bounds],
        "incomplete": incomplete_words(scores),
        "samples": samples_words(scores),
        "per_right": count(scores.get("tokens_per_right")),
    }


_LIMITS = ("interval_95", "bounds")


def score_axis(benchmarks: Sequence[Row]) -> list[int]:
    """Return five ticks from 0 to 100%, or to a lower end that all scores, intervals and bounds fit under."""
    models = [model for row in benchmarks for model in row["models"]]
    tops = [top for m in models for top in (m["dot"], *(m["interval"] or ()), *(m["bounds"] or ())) if top is not None]
    end = next((end for end in (4, 8, 20, 40, 60, 80) if max(tops, default=0) <= end), 100)
    return [end * i // 4 for i in range(5)]


def estimate_rows(estimate: Any) -> list[dict[str, Any]]:
    """Return for each quantity of each stage the expected range, the actual value, and how they compare."""
    found = []
    for stage, quantities in mapping(mapping(estimate).get("stages")).items():
        for name, value in mapping(quantities).items():
            row = mapping(value)
            low, high, actual = (number(row.get(key)) for key in ("low", "high", "actual"))
            if name == "tokens" and not actual:  # 0 means not counted: a complete stage has some
                actual = None
            if low is None and high is None and actual is None:
                continue
            found.append({"stage": stage, "quantity": name, "low": low, "high": high, "actual": actual})
            found[-1]["basis"] = row.get("basis")
            found[-1]["verdict"] = _against(low, high, actual)
    return found


def _against(low: float | None, high: float | None, actual: float | None) -> str:
    if actual is None:
        return "not done yet"
    if low is not None and actual < low:
        return "less than expected"
    if high is not None and actual > high:
        return "more than expected"
    return "as expected"


def time_bars(stages: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each stage's seconds, and its bar in percent of the longest stage."""
    seconds = {name: number(mapping(stage).get("seconds")) for name, stage in stages.items()}
    longest = max((s for s in seconds.values() if s), default=1.0)
    return [{"name": name, "seconds": s, "bar": 100 * (s or 0) / longest} for name, s in seconds.items()]
