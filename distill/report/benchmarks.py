"""A run's scores by benchmark and model, for the page's tables, charts and sentences.

[{"name": "gsm8k", "num_problems": 50, "difference": {…}, "hash": "6d0c…",
  "models": [{"model": "student", "label": "Student", "kind": "student", "scores": {…}, "dot": 43.5, …}]}]
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.core.formatting import Row, mapping, number
from distill.report import charts
from distill.report.evaluated import ROLES, model_labels
from distill.report.metrics import measured, models_measured
from distill.report.score_curves import MAX_SERIES, at_k_charts, budget_chart
from distill.report.score_words import contamination_words, figures_words, metric_words, protocol_rows
from distill.results.eval import of_one_metric

MAX_GROUPS = 100
"""Rows of a table of groups at most."""


def benchmark_rows(facts: Row) -> list[dict[str, Any]]:
    """Return one row per benchmark; first a row over all problems, unless base and student have exactly one benchmark.

    Models that were only measured stand beside base and student where the protocol is the same, else in a row of
    their own.
    """
    evaluation = measured(facts)
    given = evaluation.get("benchmarks")
    rows = [_paired_row(mapping(row)) for row in given] if isinstance(given, Sequence) else []
    if len(rows) != 1 and (evaluation.get("base") or evaluation.get("student")):
        alike = of_one_metric({str(row["name"]): row["protocol"].get("metric") for row in rows})
        of = "All benchmarks" if len(alike) == len(rows) else f"All benchmarks of one metric ({', '.join(alike)})"
        rows.insert(0, _paired_row({**evaluation, "protocol": None, "name": of if rows else None}))
    labels = model_labels(facts)
    for benchmark in map(mapping, models_measured(facts).get("benchmarks") or ()):
        protocol = mapping(benchmark.get("protocol"))
        scores = mapping(benchmark.get("models"))
        # Numbered over all models, so that each looks the same in every benchmark.
        styles = {role: f"m{number % MAX_SERIES + 1}" for number, role in enumerate(labels)}
        models = [
            _model_row(role, labels[role], styles[role], mapping(scores[role])) for role in labels if role in scores
        ]
        same = next((row for row in rows if row["name"] == benchmark.get("name") and _same(row, protocol)), None)
        if same is not None:
            same["models"] += models
        else:
            rows.append(_row(benchmark.get("name"), protocol, models, {}))
    return rows


def _same(row: Mapping[str, Any], protocol: Row) -> bool:
    return bool(row["hash"]) and row["hash"] == protocol.get("hash")


def _paired_row(row: Row) -> dict[str, Any]:
    models = [_model_row(role, ROLES[role], role, mapping(row.get(role))) for role in ROLES]
    return _row(row.get("name"), mapping(row.get("protocol")), models, mapping(row.get("difference")))


def _row(name: Any, protocol: Row, models: list[dict[str, Any]], difference: Row) -> dict[str, Any]:
    # The student's if there is one: an older base may lack scores.
    problems = [model["scores"].get("num_problems") for model in reversed(models)]
    return {
        "name": name,
        "num_problems": next((num for num in problems if num is not None), None),
        "protocol": protocol,
        "hash": protocol.get("hash") or "",
        "difference": difference,
        "models": models,
    }


def _model_row(role: str, label: str, kind: str, scores: Row) -> dict[str, Any]:
    return {**charts.model_score(role, scores), "label": label, "kind": kind}


def score_values(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the template shows of the rows of `benchmark_rows`."""
    return {
        "benchmarks": [{**row, **_told(row)} for row in rows],
        "axis": charts.score_axis(rows),
        "are_incomplete": any(model["incomplete"] for row in rows for model in row["models"]),
    }


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    models = row["models"]
    metrics = metric_words(row["protocol"].get("metric"))
    return {
        "metric": metrics if row["protocol"].get("metric") != "pass@1" else "",
        "comparable_with": row["protocol"].get("comparable_with") or "",
        "protocol_rows": protocol_rows(row["protocol"]) if row["protocol"] else [],
        "at_k": at_k_charts(models),
        "budget": budget_chart(models),
        "groups": _groups(models),
        "told": [told for model in models if (told := _told_of(model))["has_any"]],
    }


def _told_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what else is to be told of one model's score."""
    scores = model["scores"]
    found: dict[str, Any] = {
        "figures": figures_words(scores.get("figures")),
        "flags": [flag for flag in scores.get("flags") or () if isinstance(flag, str)],
        "narrows": mapping(scores.get("variance")).get("narrows") or "",
        "contamination": contamination_words(scores),
        "hit_items": mapping(scores.get("contamination")).get("items") or [],
    }
    return {"label": model["label"], "has_any": any(found.values()), **found}


def _groups(models: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any, list[Any]]]:
    """Return each group's name, its number of problems and the score of each model; empty without groups."""
    given = [mapping(model["scores"].get("groups")) for model in models]
    names = list(dict.fromkeys(name for groups in given for name in groups))
    counts = [mapping(model["scores"].get("group_problems")) for model in models]
    nums = {name: max((int(number(one.get(name)) or 0) for one in counts), default=0) for name in names}
    return [(name, nums[name] or None, [groups.get(name) for groups in given]) for name in names[:MAX_GROUPS]]
