"""What decides an evaluation: kept apart by whether it decides the answers or only their grades.

    {"asked": {"aime24": "3f0a…"}, "scored": {"aime24": "6d0c…"}, "samples_per_problem": {…}, "sampling": {…}}

Answers are kept when only the grades change, when samples are added, and when a benchmark or a model is added.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from distill.core.records import Problem
from distill.evaluation.measured_sets import MeasuredSet
from distill.recipe.eval import EvalConfig
from distill.recipe.model import Recipe
from distill.sources.problems import named_benchmarks

_GRADES = {"version", "scored", "k", "samples_per_problem", "protocol", "judge", "grade_timeout_s", "sampling"}
"""Keys that leave every answer valid. Sampling parameters that a benchmark uses are part of `asked` too."""
_GROWS = {"asked", "models"}


def asked_identity(sets: Sequence[MeasuredSet], problems: Mapping[str, Problem]) -> dict[str, Any]:
    """Return the parts of an identity that come from the benchmarks."""
    return {
        "asked": {one.name: _asked(one, problems) for one in sets},
        "scored": {one.name: _scored(one) for one in sets},
        "k": {one.name: _drawn(one.samples_per_problem, one.adaptive) for one in sets},
    }


def settings_of(config: EvalConfig) -> dict[str, Any]:
    """Return the settings of `eval:` that decide scores, besides the benchmarks."""
    excluded: Any = {"compute": True, "held_out": True, "benchmarks": True, "models": True, "judge": {"compute"}}
    found: dict[str, Any] = config.model_dump(mode="json", exclude=excluded)
    return {key: value for key, value in found.items() if value is not None}


def assumed_settings(before: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return an identity with the settings of now, if the benchmarks' problems have not changed."""
    config = recipe.eval
    assert config is not None
    dropped = {"protocol", "judge"}  # absent where they are not set
    kept = {key: value for key, value in before.items() if key not in dropped}
    drawn = {}
    for name, source in named_benchmarks(recipe).items():
        adaptive = source.adaptive.model_dump(mode="json") if source is not None and source.adaptive else None
        drawn[name] = _drawn(config.k_of(source), adaptive)
    return {**kept, **settings_of(config), "k": drawn}


def keeps_samples(changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """Return whether a change leaves all stored answers valid, so that only missing ones are sampled."""
    return all(
        key.partition(".")[0] in _GRADES or (key.partition(".")[0] in _GROWS and before is None and "." in key)
        for key, (before, _) in changed.items()
    )


def _scored(one: MeasuredSet) -> str:
    """Return the hash of what decides the score, and whether a further figure is wanted."""
    return f"{one.protocol.hash}, style control" if one.style_control else one.protocol.hash


def _drawn(samples_per_problem: int, adaptive: Mapping[str, Any] | None) -> Any:
    """Return the number of samples a problem; of an adaptive benchmark, with the rule by which sampling stops."""
    return samples_per_problem if adaptive is None else {"most": samples_per_problem, **adaptive}


def _asked(one: MeasuredSet, problems: Mapping[str, Problem]) -> str:
    """Return a hash of the questions and of how they are sampled, whatever the number of samples."""
    digest = hashlib.sha256(json.dumps(one.sampling, sort_keys=True).encode())
    for name in sorted(one.problems):
        digest.update(json.dumps([name, problems[name].prompt], sort_keys=True).encode())
    return digest.hexdigest()[:16]
