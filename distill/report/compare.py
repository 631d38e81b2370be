"""Comparison of two runs, as JSON-ready data and as a page: funnels, scores on shared problems, recipe differences."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.core.formatting import Row, count, duration, mapping, number, percent, plain, points, points_range
from distill.core.records import REASONS
from distill.core.statistics import bootstrap_interval
from distill.report import charts
from distill.report.gather import Run
from distill.report.metrics import filtered, imported, measured, sampled, trained
from distill.report.pairs import RULE, all_pairs, fit_pairs, measured_problems, shared_problems, student_verdicts
from distill.report.questions import share_right
from distill.report.recipe_keys import plain_keys
from distill.report.render import have_formulas, page, teacher_names
from distill.storage.fingerprints import differences

COMPARISON_VERSION = 1

PROTOCOL = {
    "samples_per_problem": "samples a problem",
    "temperature": "temperature",
    "top_p": "top-p",
    "top_k": "top-k",
    "max_tokens": "longest answer, in tokens",
    "extraction": "answer extraction",
}
"""What must be equal for two scores to be comparable. The engine is only mentioned: it affects speed."""

NOT_COMPARED = ("name", "description", "schema_version")


def compare_runs(first: Run, second: Run) -> dict[str, Any]:
    """Return the differences between two runs, JSON-ready."""
    return {
        "schema_version": COMPARISON_VERSION,
        "names": labels(first, second),
        "funnel": funnels(first.facts, second.facts),
        "scores": scores(first, second),
        "recipes": [
            {"key": key, "first": one, "second": other}
            for key, (one, other) in differences(
                mapping(first.facts["recipe"]), mapping(second.facts["recipe"])
            ).items()
            if key not in NOT_COMPARED and ".compute." not in f".{key}."
        ],
    }


def labels(first: Run, second: Run) -> list[str]:
    """Return distinct names for the two runs."""
    names = [str(run.facts.get("name") or run.folder.name) for run in (first, second)]
    if names[0] != names[1]:
        return names
    folders = [run.folder.resolve() for run in (first, second)]
    at = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    return (
        at if at[0] != at[1] else [f"{name} ({place})" for name, place in zip(names, ("first", "second"), strict=True)]
    )


def funnels(first: Row, second: Row) -> list[dict[str, Any]]:
    """Return each step of both funnels; `sides` has each run's count and share of all its samples."""
    steps = [dict(map(tuple, facts["funnel"])) for facts in (first, second)]
    totals = [found.get("sampled", 0) for found in steps]
    rows = []
    for name in ("sampled", *REASONS, "kept"):
        if any(found.get(name) for found in steps) or (name in ("sampled", "kept") and any(steps)):
            sides = [
                {"num": found.get(name, 0), "share": found.get(name, 0) / total if total else None}
                for found, total in zip(steps, totals, strict=True)
            ]
            kind = name if name in ("sampled", "kept") else "dropped"
            rows.append({"name": name, "kind": kind, "why": REASONS.get(name, name), "sides": sides})
    return rows


def scores(first: Run, second: Run) -> dict[str, Any]:
    """Return both students' scores on the problems they share; `why_not` says why they cannot be compared."""
    metrics = [measured(run.facts) for run in (first, second)]
    found: dict[str, Any] = {
        "num_problems": [mapping(one.get("student")).get("num_problems") for one in metrics],
        "overall": [mapping(one.get("student")) or None for one in metrics],
        "num_shared": 0,
        "protocols": [],
        "engines": [mapping(one.get("protocol")).get("engine") for one in metrics],
        "shared": None,
        "difference": None,
        "why_not": None,
    }
    missing = [name for name, one in zip(labels(first, second), metrics, strict=True) if not one]
    if missing:
        return {**found, "why_not": f"{' and '.join(missing)} {'has' if len(missing) == 1 else 'have'} no scores yet."}
    found["protocols"] = protocol_differences(metrics)
    names = shared_problems(measured_problems(first), measured_problems(second))
    verdicts = [student_verdicts(run) for run in (first, second)]
    names = [name for name in names if all(name in given for given in verdicts)]
    found["num_shared"] = len(names)
    if found["protocols"]:
        words = ", ".join(PROTOCOL.get(row["key"], row["key"]) for row in found["protocols"])
        return {**found, "why_not": f"The students were measured under different protocols ({words})."}
    if not names:
        return {**found, "why_not": "The students were measured on different problems; none is in both sets."}
    seed = int(number(first.facts.get("seed")) or 0)
    values = [[share_right(given[name]) for name in names] for given in verdicts]
    gains = [after - before for before, after in zip(*values, strict=True)]
    found["shared"] = [
        {"pass_at_1": sum(one) / len(one), "interval_95": bootstrap_interval(one, seed)} for one in values
    ]
    found["difference"] = {
        "pass_at_1": sum(gains) / len(gains),
        "interval_95": bootstrap_interval(gains, seed),
        "num_better": sum(gain > 0 for gain in gains),
        "num_worse": sum(gain < 0 for gain in gains),
    }
    return found


def protocol_differences(metrics: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the differences between two evaluation protocols."""
    one, other = (mapping(each.get("protocol")) for each in metrics)
    return [
        {"key": key, "first": one.get(key), "second": other.get(key)}
        for key in PROTOCOL
        if one.get(key) != other.get(key)
    ]


def render_comparison(first: Run, second: Run, comparison: Mapping[str, Any]) -> str:
    """Return the self-contained page that compares two runs."""
    names = comparison["names"]
    pairs = all_pairs(first, second)
    found = mapping(comparison["scores"])
    models = [
        {**charts.model_score(name, mapping(one)), "label": name, "kind": kind}
        for name, one, kind in zip(names, found["shared"] or found["overall"], ("base", "student"), strict=True)
    ]
    widest = max((side["share"] or 0 for row in comparison["funnel"] for side in row["sides"]), default=0) or 1
    values = {
        "names": names,
        "comparison": comparison,
        "headline": headline(comparison),
        "glance": glance(first.facts, second.facts),
        "models": models,
        "axis": charts.score_axis([{"models": models}]),
        "widest": widest,
        "rule": RULE,
        "damaged": [(name, run.damage.to_json()) for name, run in zip(names, (first, second), strict=True)],
    }
    sections = [("glance", "At a glance"), ("funnel", "Funnels"), ("scores", "Scores"), ("traces", "Traces")]
    title = f"{names[0]} and {names[1]}"
    return page(
        "compare.html.jinja",
        title,
        sections,
        values,
        lambda budget: fit_pairs(pairs, budget),
        {"names": names, "keys": plain_keys()},
        with_formulas=have_formulas([card for pair in pairs for side in pair.sides for card in side], ()),
    )


def headline(comparison: Mapping[str, Any]) -> str:
    """Return in words which student is better, or why the scores are not compared."""
    found = mapping(comparison["scores"])
    if found["why_not"]:
        return f"The scores are not compared: {found['why_not'][0].lower()}{found['why_not'][1:]}"
    names, gain = comparison["names"], found["difference"]
    low, high = gain["interval_95"]
    before, after = (percent(one["pass_at_1"]) for one in found["shared"])
    text = (
        f"On the {count(found['num_shared'])} problems that both were measured on, the student of {names[1]} solves "
        f"{after} and that of {names[0]} {before}: {points(gain['pass_at_1'])} points "
        f"(95% interval {points_range(gain['interval_95'])})."
    )
    return f"{text} The interval includes zero, so this may be chance." if low <= 0 <= high else text


def glance(first: Row, second: Row) -> list[dict[str, Any]]:
    """Return the runs' main facts in two columns, without those that neither run has."""

    def rows(facts: Row) -> dict[str, str]:
        stages = mapping(facts["stages"])
        made, kept, sft = sampled(facts) or imported(facts), filtered(facts), trained(facts)
        evaluation = measured(facts)
        seconds = [number(mapping(stage).get("seconds")) or 0.0 for stage in stages.values()]
        return {
            "State": facts["state"],
            "Student": str(sft.get("student") or facts.get("student") or ""),
            "Teacher": str(made.get("teacher") or teacher_names(mapping(facts.get("teachers")))),
            "Traces": count(kept.get("num_traces") or made.get("num_samples")),
            "Training rows": count(kept.get("num_kept")),
            "Problems with a row": count(kept.get("num_problems_kept")),
            "Tokens of the rows": count(kept.get("num_kept_tokens") or None),
            "Steps": count(sft.get("num_steps")),
            "Final loss": plain(sft.get("final_loss")),
            "pass@1": percent(mapping(evaluation.get("student")).get("pass_at_1")),
            "Base’s pass@1": percent(mapping(evaluation.get("base")).get("pass_at_1")),
            "Time": duration(sum(seconds)) if any(seconds) else "",
        }

    one, other = rows(first), rows(second)
    return [
        {"name": name, "sides": [one[name] or "–", other[name] or "–"]}
        for name in one
        if {one[name], other[name]} - {"", "–"}
    ]
