"""Which scores of two runs may stand side by side: those of one benchmark by one protocol.

{"name": "gsm8k", "why_not": null, "protocols": [], "num_shared": 50, "scores": [{…}, {…}], "difference": {…}}
{"name": "aime24", "why_not": "only a was measured on it", "protocols": [], "num_shared": 0, "scores": null, …}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.core.formatting import Row, mapping
from distill.report.evaluated import (
    WHOLE,
    Asked,
    EvaluatedModel,
    SampleScores,
    asked_of,
    evaluated_models,
    sample_scores,
    shared_problems,
    verdicts_of,
)
from distill.report.gather import Run
from distill.report.metrics import measured, models_measured
from distill.report.score_words import PROTOCOL, incomplete_words
from distill.results.eval import Protocol, of_one_metric, protocol_difference
from distill.scores.intervals import mean_interval, mean_score, paired_difference


@dataclass(frozen=True, slots=True)
class Side:
    """What of one run is compared."""

    run: Run
    name: str
    """Of the run."""
    model: EvaluatedModel | None
    """The student, or a model that was measured; `None`: there are no scores."""
    num_models: int
    """How many models the run has scores of."""
    asked: Asked
    protocols: Mapping[str, Row]
    """By benchmark; empty if an older version did not record them."""
    results: Mapping[str, Row]
    """The model's recorded score on each benchmark."""

    @property
    def who(self) -> str:
        """Return the model in words."""
        if self.model is None or self.model.is_student:
            return f"the student of {self.name}"
        return f"{self.model.label} in {self.name}"


def sides_of(first: Run, second: Run, names: Sequence[str]) -> tuple[Side, Side]:
    """Return what of two runs is compared: their students; of measured models one that both have, else the first."""
    models = [evaluated_models(run.folder, run.facts) for run in (first, second)]
    one, other = ({model.label for model in some} for some in models)
    chosen = [_chosen(some, one & other) for some in models]
    return _side(first, names[0], models[0], chosen[0]), _side(second, names[1], models[1], chosen[1])


def _chosen(models: Sequence[EvaluatedModel], shared: set[str]) -> EvaluatedModel | None:
    student = next((model for model in models if model.is_student), None)
    return student or next((model for model in models if model.label in shared), None) or next(iter(models), None)


def _side(run: Run, name: str, models: Sequence[EvaluatedModel], model: EvaluatedModel | None) -> Side:
    evaluation = measured(run.facts)
    rows = (evaluation or models_measured(run.facts)).get("benchmarks") or ()
    protocols, results = {}, {}
    for row in map(mapping, rows):
        if mapping(row.get("protocol")).get("hash"):
            protocols[str(row.get("name"))] = mapping(row["protocol"])
        role = model.role if model else ""
        results[str(row.get("name"))] = mapping(row.get(role)) or mapping(mapping(row.get("models")).get(role))
    if len(protocols) < len(rows):
        protocols = {}
    if model is not None:
        results[WHOLE] = mapping(evaluation.get(model.role))
    asked = asked_of([model] if model else [], run.damage)
    return Side(run, name, model, len(models), asked, protocols, results)


def are_recorded(sides: Sequence[Side]) -> bool:
    """Return whether both runs recorded the protocol of each benchmark."""
    return all(side.protocols for side in sides)


def compared_benchmarks(sides: tuple[Side, Side]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return each benchmark of either run, compared problem by problem or with the reason why not; and all together.

    Where a run is of a version that did not record the protocols, all problems together are one benchmark, by what the
    runs say of their whole evaluations.

    Returns:
        The benchmarks, and `num_shared`, `scores` and `difference` over those of one metric that are compared, each
        problem once.
    """
    protocols: list[Mapping[str, Row]] = [side.protocols for side in sides]
    if not are_recorded(sides):
        protocols = [{WHOLE: _common(side)} for side in sides]
    scores = [sample_scores(verdicts_of(side.model, side.run.damage)) if side.model else {} for side in sides]
    graded = [
        name for name in shared_problems(sides[0].asked, sides[1].asked) if all(name in own for own in scores)
    ]  # fmt: skip
    rows, compared = [], dict[str, None]()
    for name in dict.fromkeys([*protocols[0], *protocols[1]]):
        why_not, differs = _why_not(sides, *(own.get(name) for own in protocols))
        problems = [one for one in graded if name == WHOLE or sides[0].asked.benchmark_of.get(one) == name]
        if not why_not and not problems:
            why_not = "no problem is in both evaluations, word for word, with graded answers"
        row = {"name": name, "why_not": why_not or None, "protocols": differs}
        rows.append({**row, **_paired([] if why_not else problems, scores)})
        if not why_not:
            compared |= dict.fromkeys(problems)
            for side, score in zip(sides, rows[-1]["scores"], strict=True):
                score["incomplete"] = incomplete_words(side.results.get(name, {}))
    names = {sides[0].asked.benchmark_of.get(one, WHOLE) for one in compared}
    alike = of_one_metric({name: protocols[0].get(name, {}).get("metric") for name in protocols[0] if name in names})
    pooled = [one for one in compared if WHOLE in names or sides[0].asked.benchmark_of.get(one) in alike]
    return rows, _paired(pooled, scores)


def _common(side: Side) -> Row:
    """Return what the protocols of all benchmarks of a run have in common."""
    return mapping(measured(side.run.facts).get("protocol")) or next(iter(side.protocols.values()), {})


def _why_not(sides: Sequence[Side], one: Row | None, other: Row | None) -> tuple[str, list[dict[str, Any]]]:
    """Return why two scores are not comparable, empty if they are; and the fields that differ."""
    if one is None or other is None:
        return f"only {(sides[0] if other is None else sides[1]).name} was measured on it", []
    differs = protocol_difference(Protocol.from_json(one), Protocol.from_json(other))
    return (f"the protocols differ ({differs})", differing_fields(one, other)) if differs else ("", [])


def _paired(problems: Sequence[str], scores: Sequence[SampleScores]) -> dict[str, Any]:
    """Return both models' scores on some problems, and their difference problem by problem."""
    if not problems:
        return {"num_shared": 0, "scores": None, "difference": None}
    values = [{problem: own[problem] for problem in problems} for own in scores]
    gain = paired_difference(values[0], values[1])
    return {
        "num_shared": len(problems),
        "scores": [
            {
                "pass_at_1": mean_score([*given.values()]),
                "interval_95": mean_interval(list(given.values())),
            }
            for given in values
        ],
        "difference": {
            "pass_at_1": gain.mean_gain,
            "interval_95": gain.interval_95,
            "num_better": gain.num_gained,
            "num_worse": gain.num_lost,
        },
    }


def differing_fields(one: Row, other: Row) -> list[dict[str, Any]]:
    """Return the fields that make two protocols differ; where one has no hash, of those that both state."""
    is_whole = bool(one.get("hash") and other.get("hash"))
    return [
        {"key": key, "first": one.get(key), "second": other.get(key)}
        for key in PROTOCOL
        if one.get(key) != other.get(key)
        and (is_whole or (one.get(key) is not None and other.get(key) is not None))
    ]  # fmt: skip
