"""A run in one sentence and a few large figures.

Example: "The student solves 43.5% of 200 held-out problems; …".
"""

from collections.abc import Sequence
from typing import Any

from distill.core.formatting import (
    Row,
    count,
    duration,
    interval,
    mapping,
    number,
    percent,
    percent_range,
    points,
    points_range,
)
from distill.core.plurals import counted
from distill.report.metrics import filtered, measured, models_measured, only_measures
from distill.report.score_words import incomplete_words
from distill.results.eval import of_one_metric
from distill.storage.run_files import MEASURED

MAX_BENCHMARKS = 3
"""Benchmarks that the sentence about measured models names."""


def headline(facts: Row, benchmarks: Sequence[Row]) -> str:
    """Return the run's result in one sentence, with a second one if the result may be chance."""
    stages = mapping(facts.get("stages"))
    evaluation = measured(facts)
    student, base, difference = (mapping(evaluation.get(key)) for key in ("student", "base", "difference"))
    if models_measured(facts) and only_measures(facts):
        return _measured_models(benchmarks)
    if number(student.get("pass_at_1")) is None:
        return _progress(facts, stages)
    names = [row["name"] for row in benchmarks if row["name"]]
    pooled = of_one_metric({row["name"]: row["protocol"].get("metric") for row in benchmarks[1:]})
    problems = f"problems from {counted(len(pooled), 'benchmark')}" if len(names) > 1 else "problems"
    if len(names) == 1:
        problems = "held-out problems" if names == ["held-out"] else f"problems of {names[0]}"
    k = number(student.get("samples_per_problem")) or 1
    mean = f" (mean of {count(k)} samples each)" if k > 1 else ""
    problems = f"{count(student.get('num_problems'))} {problems}{mean}"
    text = f"The student solves {percent(student['pass_at_1'])} of {problems}{_incomplete(student)}"
    if number(base.get("pass_at_1")) is None:
        return f"{text}; the base has no score to compare with."
    text += f"; the base solved {percent(base['pass_at_1'])}{_incomplete(base)}"
    if number(difference.get("pass_at_1")) is None:
        return f"{text}."
    text += f": {points(difference['pass_at_1'])} points"
    if (limits := interval(difference.get("interval_95"))) is None:
        return f"{text}."
    text += f" (95% interval {points_range(limits)})."
    return f"{text} The interval includes zero, so this may be chance." if limits[0] <= 0 <= limits[1] else text


def _incomplete(scores: Row) -> str:
    why = incomplete_words(scores)
    return f" (incomplete, {why})" if why else ""


def _measured_models(benchmarks: Sequence[Row]) -> str:
    """Return the scores of models that nobody trained here: of one model each, of several the highest."""
    told = []
    for row in benchmarks[:MAX_BENCHMARKS]:
        scored = [model for model in row["models"] if model["dot"] is not None]
        if scored:
            best = max(scored, key=lambda model: model["dot"])
            scores = best["scores"]
            limits = f"95% interval {percent_range(scores.get('interval_95'))}"
            why = f"; incomplete, {best['incomplete']}" if best["incomplete"] else ""
            of = f" by {best['label']}" if len(scored) > 1 else ""
            told.append(f"{row['name']} {percent(scores['pass_at_1'])}{of} ({limits}{why})")
    labels = list(dict.fromkeys(model["label"] for row in benchmarks for model in row["models"]))
    if not told:
        return "The models were measured, and have no score."
    rest = len(benchmarks) - MAX_BENCHMARKS
    more = f"; and {count(rest)} more {'benchmark' if rest == 1 else 'benchmarks'}" if rest > 0 else ""
    if len(labels) == 1:
        return f"{labels[0]} scores: {'; '.join(told)}{more}."
    return f"{count(len(labels))} models were measured. The highest scores: {'; '.join(told)}{more}."


def _progress(facts: Row, stages: Row) -> str:
    """Return the progress of a run whose student has no score."""
    names = facts.get("stage_names") or ()
    done, to_do = [name for name in names if name in stages], [name for name in names if name not in stages]
    if not to_do:
        why = "has no score" if MEASURED in names else "has no score, as the recipe has no eval section"
        if incomplete := incomplete_words(mapping(measured(facts).get("student"))):
            why += f" ({incomplete})"
        return f"The run is complete; its student {why}."
    stage = mapping(facts.get("stopped")).get("stage") or mapping(facts.get("begun")).get("stage")
    state = facts.get("state")
    begin = f"The run stopped in {stage}" if state == "stopped" and stage else "The run is not complete"
    if state == "running":
        begin = f"The run is at work on {stage}" if stage else "The run is at work"
    verb = "is" if len(done) == 1 else "are"
    complete = f"{_listed(done)} {verb} complete" if done else "no stage is complete"
    return f"{begin}: {complete}; still to do: {', '.join(to_do)}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def figures(facts: Row, benchmarks: Sequence[Row]) -> list[dict[str, Any]]:
    """Return at most four figures, without those that are not known yet."""
    stages = mapping(facts.get("stages"))
    evaluation, kept = measured(facts), filtered(facts)
    found = []
    for role, name in (("base", "Base"), ("student", "Student")):
        scores = mapping(evaluation.get(role))
        if number(scores.get("pass_at_1")) is not None:
            why = "incomplete" if incomplete_words(scores) else percent_range(scores.get("interval_95"))
            found.append({"kind": role, "name": f"{name}, pass@1", "value": percent(scores["pass_at_1"]), "why": why})
    if only_measures(facts):
        found += _figures_of_models(benchmarks)
    if (num := number(kept.get("num_kept"))) is not None:
        why = f"of {count(kept.get('num_traces'))} traces"
        found.append({"kind": "kept", "name": "Training rows", "value": count(num), "why": why})
    seconds = [number(mapping(stage).get("seconds")) for stage in stages.values()]
    if found and any(seconds):
        longest = max(stages, key=lambda name: number(mapping(stages[name]).get("seconds")) or 0)
        why = f"most of it in {longest}" if len(stages) > 1 else f"in {longest}"
        found.append({"kind": "time", "name": "Time", "value": duration(sum(s or 0 for s in seconds)), "why": why})
    return found


def _figures_of_models(benchmarks: Sequence[Row]) -> list[dict[str, Any]]:
    models = [(row["name"], model) for row in benchmarks for model in row["models"] if model["dot"] is not None]
    return [
        {
            "kind": "student",
            "name": f"{name}, {model['label']}",
            "value": percent(model["scores"]["pass_at_1"]),
            "why": "incomplete" if model["incomplete"] else percent_range(model["scores"].get("interval_95")),
        }
        for name, model in models[:MAX_BENCHMARKS]
    ]
