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
from distill.report.metrics import filtered, measured
from distill.storage.run_files import MEASURED


def headline(facts: Row, benchmarks: Sequence[Row]) -> str:
    """Return the run's result in one sentence, with a second one if the result may be chance."""
    stages = mapping(facts.get("stages"))
    evaluation = measured(facts)
    student, base, difference = (mapping(evaluation.get(key)) for key in ("student", "base", "difference"))
    if number(student.get("pass_at_1")) is None:
        return _progress(facts, stages)
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


def _progress(facts: Row, stages: Row) -> str:
    """Return the progress of a run whose student has no score."""
    names = facts.get("stage_names") or ()
    done, to_do = [name for name in names if name in stages], [name for name in names if name not in stages]
    if not to_do:
        why = "has no score" if MEASURED in names else "has no score, as the recipe has no eval section"
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


def figures(facts: Row) -> list[dict[str, Any]]:
    """Return at most four figures, without those that are not known yet."""
    stages = mapping(facts.get("stages"))
    evaluation, kept = measured(facts), filtered(facts)
    found = []
    for role, name in (("base", "Base"), ("student", "Student")):
        scores = mapping(evaluation.get(role))
        if number(scores.get("pass_at_1")) is not None:
            why = percent_range(scores.get("interval_95"))
            found.append({"kind": role, "name": f"{name}, pass@1", "value": percent(scores["pass_at_1"]), "why": why})
    if (num := number(kept.get("num_kept"))) is not None:
        why = f"of {count(kept.get('num_traces'))} traces"
        found.append({"kind": "kept", "name": "Training rows", "value": count(num), "why": why})
    seconds = [number(mapping(stage).get("seconds")) for stage in stages.values()]
    if found and any(seconds):
        longest = max(stages, key=lambda name: number(mapping(stages[name]).get("seconds")) or 0)
        why = f"most of it in {longest}" if len(stages) > 1 else f"in {longest}"
        found.append({"kind": "time", "name": "Time", "value": duration(sum(s or 0 for s in seconds)), "why": why})
    return found
