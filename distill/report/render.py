"""Renders a finished or unfinished run as one HTML page that needs no network and no JavaScript.

Enters: the run's summary (its stages may be missing, and so may any field of a stage), the funnel in counting order

    [("sampled", 1200), ("truncated", 10), ("wrong_answer", 880), ("kept", 310)]

and the traces to read, each with its verdict. Leaves: the page's text, always encodable as UTF-8. The teacher wrote the
traces, so every value counts as hostile: the template escapes all of them, and none is marked safe.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.records import REASONS

Row = Mapping[str, Any]

STAGES = {
    "generate": "Sample traces",
    "import": "Take in traces",
    "filter": "Grade and filter",
    "sft": "Fine-tune",
    "eval": "Evaluate",
    "push": "Publish",
}
"""The stages in running order, each with what it does; a run has `generate` or `import`, and `push` on request."""

MAX_TRACES = 10
MAX_POINTS = 300
"""A longer history is drawn as the means of this many equal stretches."""

MISSING, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

# Lone surrogates cannot be encoded, and control characters are not allowed in HTML; tab and line breaks are.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def render_report(summary: Row, funnel: Sequence[tuple[str, int]], traces: Sequence[Row]) -> str:
    """The report page of one run; what is not there yet reads "not run yet", or a dash."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        finalize=lambda value: MISSING if value is None or isinstance(value, jinja2.Undefined) else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"count": count, "percent": percent, "points": points, "plain": plain, "duration": duration}
    environment.filters |= {"percent_range": percent_range, "points_range": points_range, "engine": engine_name}
    template = environment.from_string(Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8"))
    benchmarks = benchmark_rows(mapping(summary.get("eval")))
    html = template.render(
        summary=summary,
        source="import" if imports(summary) else "generate",
        stages=[(name, STAGES[name], summary.get(name)) for name in stage_names(summary)],
        total_seconds=sum(number(mapping(summary.get(name)).get("seconds")) or 0.0 for name in STAGES),
        headline=headline(summary, benchmarks),
        funnel=funnel_rows(funnel),
        loss=step_chart(mapping(summary.get("sft")).get("history"), "loss"),
        speed=step_chart(mapping(summary.get("sft")).get("history"), "tokens_per_second"),
        benchmarks=benchmarks,
        axis=score_axis(benchmarks),
        traces=[trace_card(trace) for trace in traces[:MAX_TRACES]],
        num_traces_given=len(traces),
    )
    return UNPRINTABLE.sub("\ufffd", html)


def imports(summary: Row) -> bool:
    """Whether the run's traces were made elsewhere."""
    return bool(mapping(summary.get("recipe")).get("traces"))


def stage_names(summary: Row) -> list[str]:
    """The stages of a run, done or not, in running order."""
    absent = {"generate" if imports(summary) else "import"}
    if not mapping(summary.get("recipe")).get("push") and "push" not in summary:
        absent.add("push")
    return [name for name in STAGES if name not in absent]


def headline(summary: Row, benchmarks: Sequence[Row]) -> str:
    """The run's result in one sentence, and a second one where that result may be chance."""
    evaluation = mapping(summary.get("eval"))
    student, base, difference = (mapping(evaluation.get(key)) for key in ("student", "base", "difference"))
    if number(student.get("pass_at_1")) is None:
        done = [name for name in STAGES if summary.get(name) is not None]
        to_do = [name for name in stage_names(summary) if name not in done]
        progress = f"{', '.join(done) or 'no stage'} done" + (f"; {', '.join(to_do)} still to run" if to_do else "")
        return f"The student has no score yet ({progress})."
    names = [row["name"] for row in benchmarks if row["name"]]
    problems = f"problems from {len(names) - 1} benchmarks" if len(names) > 1 else "problems"
    if len(names) == 1:
        problems = "held-out problems" if names == ["held-out"] else f"problems of {names[0]}"
    k = number(student.get("samples_per_problem")) or 1
    mean = f" (mean of {count(k)} samples each)" if k > 1 else ""
    problems = f"{count(student.get('num_problems'))} {problems}{mean}"
    text = f"The student solves {percent(student['pass_at_1'])} of {problems}"
    if number(base.get("pass_at_1")) is None:
        return f"{text}; the base has no score to compare with."
    text += f"; the base solved {percent(base['pass_at_1'])}"
    if number(difference.get("pass_at_1")) is None:
        return f"{text}."
    text += f": {points(difference['pass_at_1'])} points"
    if (limits := interval(difference.get("interval_95"))) is None:
        return f"{text}."
    text += f" (95% interval {points_range(limits)})."
    return f"{text} The interval includes zero, so this may be chance." if limits[0] <= 0 <= limits[1] else text


def funnel_rows(funnel: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """The funnel's rows, each with the bar of what is left after it and of what it dropped, in percent of all."""
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


def step_chart(history: Any, key: str) -> dict[str, Any]:
    """A curve over training's steps in a box of 100 x 100, y downwards; `num_not_finite` values cannot be drawn."""
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
        "ticks": [f"{tick:.4g}" for tick in reversed(ticks)],
        "steps": [count(first), count(last)],
        "ends": [plain(drawn[0][1]), plain(drawn[-1][1])],
        "stretch": stretch,
        "num_not_finite": len(logged) - len(curve),
    }


def nice_ticks(low: float, high: float) -> list[float]:
    """Evenly spaced round numbers, about five, that enclose `low` and `high`."""
    rough = (high - low) / 4 or abs(low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((f * power for f in (1, 2, 2.5, 5) if f * power >= rough), 10 * power)
    start, end = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(start, max(end, start + 1) + 1)]


def benchmark_rows(evaluation: Row) -> list[dict[str, Any]]:
    """One row a benchmark; before several of them a row over all problems, and without any that row alone."""
    given = evaluation.get("benchmarks")
    rows = [mapping(row) for row in given] if isinstance(given, Sequence) else []
    if len(rows) != 1 and (evaluation.get("base") or evaluation.get("student")):
        rows.insert(0, {**evaluation, "name": "All benchmarks" if rows else None})
    return [
        {
            "name": row.get("name"),
            "num_problems": mapping(row.get("student") or row.get("base")).get("num_problems"),
            "difference": mapping(row.get("difference")),
            "models": [model_score(model, mapping(row.get(model))) for model in ("base", "student")],
        }
        for row in rows
    ]


def model_score(model: str, scores: Row) -> dict[str, Any]:
    """One model's scores with its dot and interval, in percent of solved problems."""
    score, limits = number(scores.get("pass_at_1")), interval(scores.get("interval_95"))
    dot = None if score is None else 100 * score
    return {"model": model, "scores": scores, "dot": dot, "interval": limits and [100 * limit for limit in limits]}


def score_axis(benchmarks: Sequence[Row]) -> list[int]:
    """Five ticks from 0 to 100%, or to a lower end where no score or interval reaches so far."""
    models = [model for row in benchmarks for model in row["models"]]
    highest = max((top for m in models for top in (m["dot"], *(m["interval"] or ())) if top is not None), default=0)
    end = next((end for end in (4, 8, 20, 40, 60, 80) if highest <= end), 100)
    return [end * i // 4 for i in range(5)]


def trace_card(trace: Row) -> dict[str, Any]:
    """A trace with its verdict: kept, dropped, or ungraded, which is not the same as wrong."""
    reasons = trace.get("reasons") or ()
    correct = trace.get("correct")
    if trace.get("kept"):
        verdict = "kept"
    elif correct is None and all(reason.startswith("ungraded") for reason in reasons):
        verdict = "could not be graded"
    else:
        verdict = "dropped"
    return {
        **trace,
        "verdict": verdict,
        "grade": "not graded" if correct is None else "correct" if correct else "wrong",
        "reasons": [(reason, REASONS.get(reason, reason)) for reason in reasons],
        "raw_text": None if trace.get("reasoning") or trace.get("content") else trace.get("text"),
    }


def mapping(value: Any) -> Row:
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """The value as a finite number, or `None`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def interval(value: Any) -> tuple[float, float] | None:
    limits = [number(limit) for limit in value] if isinstance(value, Sequence) else []
    return (limits[0], limits[1]) if len(limits) == 2 and None not in limits else None  # type: ignore[return-value]


def count(value: Any) -> str:
    return MISSING if (n := number(value)) is None else f"{n:,.0f}"


def percent(value: Any) -> str:
    return MISSING if (n := number(value)) is None else f"{100 * n:.1f}%"


def points(value: Any) -> str:
    """A difference of shares in percentage points, with its sign."""
    if (n := number(value)) is None:
        return MISSING
    return f"{100 * n:+.1f}".replace("-", MINUS) if round(100 * n, 1) else "0.0"


def percent_range(value: Any) -> str:
    return MISSING if (limits := interval(value)) is None else f"{100 * limits[0]:.1f} to {percent(limits[1])}"


def points_range(value: Any) -> str:
    return MISSING if (limits := interval(value)) is None else f"{points(limits[0])} to {points(limits[1])}"


def plain(value: Any) -> str:
    """A number at four significant digits."""
    return MISSING if (n := number(value)) is None else f"{n:.4g}"


def duration(value: Any) -> str:
    if (seconds := number(value)) is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def engine_name(value: Any) -> str:
    """`{"name": "vllm", "version": "0.31.0", …}` or a plain text as "vllm 0.31.0"."""
    parts = [value.get("name"), value.get("version")] if isinstance(value, Mapping) else [value]
    return " ".join(part for part in parts if isinstance(part, str)) or MISSING
