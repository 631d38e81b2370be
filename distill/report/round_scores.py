"""The scores of all rounds of a run side by side: every model, and the paired difference of every two.

Only problems that two models were asked by one protocol are paired.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from distill.core.formatting import mapping
from distill.errors import DistillError
from distill.report.damage import Damage
from distill.report.evaluated import ROLES, WHOLE, EvaluatedModel, SampleScores, asked_of, read_verdicts, sample_scores
from distill.results.eval import EvalMetrics, Protocol, of_one_metric, protocol_difference
from distill.scores.intervals import paired_difference
from distill.storage.run_files import RunFiles
from distill.storage.run_folder import StageFolder

BASE, STUDENT = "base", "student"


@dataclass(frozen=True, slots=True)
class _Scored:
    """The scores of one model, and how it was measured."""

    scores: SampleScores
    problems: Mapping[str, str]
    """All that were asked, with the benchmark of each."""
    protocols: Mapping[str, Protocol]
    """By benchmark."""


def round_scores(run_dir: Path, rounds: Sequence[str]) -> dict[str, Any]:
    """Return the score of each measured model and the paired difference of each two, JSON-ready.

    Args:
        run_dir: `runs/<name>`.
        rounds: names of the rounds, in order.

    Returns:
        `models`: name (`base`, or that of a round) -> score, of a round with the name of its `base`;
        `pairs`: `{"of", "over", "pass_at_1", "interval_95", …}`;
        `not_paired`, if there are any: `{"of", "over", "why"}`, of models that were measured by other protocols.
    """
    models: dict[str, Any] = {}
    scored: dict[str, _Scored] = {}
    for name in rounds:
        manifest = _manifest(run_dir / name)
        if manifest is None:
            continue
        base = _base_label(manifest, models)
        for label, role in ((base, BASE), (name, STUDENT)):
            if label in models:
                continue
            found = _scored(run_dir / name, role)
            if found is not None:
                models[label] = dict(mapping(manifest["metrics"].get(role)))
                if role == BASE:
                    models[label]["revision"] = manifest["identity"].get("base_revision")
                else:
                    models[label]["base"] = base
                scored[label] = found
    pairs, apart = [], []
    for earlier, later in combinations(scored, 2):
        gain, why_not = _difference(scored[earlier], scored[later])
        if gain is not None:
            pairs.append({"of": later, "over": earlier, **gain})
        if why_not:
            apart.append({"of": later, "over": earlier, "why": why_not})
    return {"models": models, "pairs": pairs, **({"not_paired": apart} if apart else {})}


def difference_of(run_dir: Path, of: str, over: str) -> dict[str, Any] | None:
    """Return the paired difference of a round's model over another round's, or over its `base`; `None` if unknown."""
    after = _scored(run_dir / of, STUDENT)
    before = _scored(run_dir / (of if over == BASE else over), BASE if over == BASE else STUDENT)
    return None if after is None or before is None else _difference(before, after)[0]


def _difference(before: _Scored, after: _Scored) -> tuple[dict[str, Any] | None, str]:
    """Return the paired difference on what both were asked by one protocol, of one metric, and why not on all."""
    faults, problems = [], []
    alike = of_one_metric({name: protocol.metric for name, protocol in after.protocols.items()})
    for name in dict.fromkeys([*before.protocols, *after.protocols]):
        one, other = before.protocols.get(name), after.protocols.get(name)
        asked = [{own for own, of in scored.problems.items() if of == name} for scored in (before, after)]
        if one is None or other is None:
            faults.append(f"{name}: only one of them was measured on it")
        elif differs := protocol_difference(one, other):
            faults.append(f"{name}: {differs}")
        elif asked[0] != asked[1]:
            faults.append(f"{name}: they answered different problems")
        elif name in alike:
            problems += [own for own in sorted(asked[0]) if own in before.scores and own in after.scores]
    if not problems:
        return None, "; ".join(faults)
    gain = paired_difference(*({own: scored.scores[own] for own in problems} for scored in (before, after)))
    found = {"pass_at_1": gain.mean_gain, "interval_95": gain.interval_95}
    return {**found, "num_gained": gain.num_gained, "num_lost": gain.num_lost}, "; ".join(faults)


def _base_label(manifest: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """Return `base` for the first base, and the model's name for a different one of a later round."""
    name = mapping(manifest["metrics"].get(BASE)).get("model")
    first = models.get(BASE)
    return BASE if first is None or first.get("model") == name else str(name)


def _manifest(round_dir: Path) -> dict[str, Any] | None:
    with contextlib.suppress(DistillError):
        return StageFolder(RunFiles(round_dir).measured).manifest
    return None


def _scored(round_dir: Path, role: str) -> _Scored | None:
    """Return a model's scores, or `None` if the round is not measured."""
    manifest = _manifest(round_dir)
    if manifest is None:
        return None
    with contextlib.suppress(DistillError, OSError, ValueError, KeyError):
        metrics = EvalMetrics.from_json(manifest["metrics"])
        folder = RunFiles(round_dir).answers(role)
        verdicts = read_verdicts(folder)
        protocols = {one.name: one.protocol for one in metrics.benchmarks if one.protocol is not None}
        asked = asked_of([EvaluatedModel(ROLES[role], role, folder)], Damage(round_dir))
        if len(protocols) < len(metrics.benchmarks) or not verdicts.keys() <= asked.benchmark_of.keys():
            protocols = {WHOLE: metrics.protocol}
            return _Scored(sample_scores(verdicts), dict.fromkeys(verdicts, WHOLE), protocols)
        return _Scored(sample_scores(verdicts), {name: asked.benchmark_of[name] for name in verdicts}, protocols)
    return None
