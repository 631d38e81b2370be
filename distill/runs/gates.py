"""Checks the gate of a round, and records the result in `<round>/gate.json`:

    {"schema_version": 1, "passed": false, "waived": false,
     "limits": [{"metric": "format_share", "wanted": ">= 0.9", "measured": 0.81, "passed": false}]}

A gate is no part of any fingerprint: another limit changes nothing that was made.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.errors import GateError, StoreError
from distill.recipe.gates import BASE, CLEAR_GAIN_OVER, COMPARING, GATE_METRICS, read_limit
from distill.recipe.model import Recipe
from distill.recipe.rounds import round_in
from distill.recipe.steps import PUBLISHING
from distill.report.round_scores import difference_of
from distill.results.eval import EvalMetrics
from distill.results.filter import FilterMetrics
from distill.results.generate import GenerateMetrics
from distill.results.import_traces import ImportMetrics
from distill.results.kinds import recorded
from distill.results.rl import RlMetrics
from distill.results.sft import SftMetrics
from distill.storage.files import read_object, write_json
from distill.storage.layout import GATE
from distill.storage.run_folder import StageFolder

SCHEMA_VERSION = 1


def check_gate(recipe: Recipe, run_dir: Path, name: str, waived: bool = False) -> dict[str, Any] | None:
    """Check and record the gate of a round whose steps are all complete.

    Args:
        recipe: the whole recipe.
        run_dir: `runs/<name>`.
        name: of the round.
        waived: go on although a limit does not hold.

    Returns:
        The record; `None` if the round has no gate, or is not complete.

    Raises:
        GateError: a limit does not hold, and the gate is not waived.
    """
    one = next(found for found in recipe.rounds if found.name == name)
    if not one.gate:
        (run_dir / name / GATE).unlink(missing_ok=True)  # of an earlier recipe
        return None
    stages = [stage for stage in recipe.part(name).stage_names if stage != PUBLISHING]
    manifests = {stage: StageFolder(run_dir / name / stage).manifest for stage in stages}
    complete = {stage: found for stage, found in manifests.items() if found is not None}
    if len(complete) < len(manifests):
        return None
    limits = [_limit(recipe, run_dir, name, metric, wanted, complete) for metric, wanted in one.gate.items()]
    passed = all(limit["passed"] for limit in limits)
    before = gate_record(run_dir / name)
    # A waiver holds for these limits and values, not for what another recipe or another training brings.
    waived = not passed and (waived or (bool(before.get("waived")) and before.get("limits") == limits))
    record = {"schema_version": SCHEMA_VERSION, "passed": passed, "waived": waived, "limits": limits}
    if record != before:
        write_json(run_dir / name / GATE, record)
    if not passed and not waived:
        raise GateError(_explanation(name, limits))
    return record


def gate_record(round_dir: Path) -> dict[str, Any]:
    """Return the record of a round's gate; empty if there is none."""
    with contextlib.suppress(StoreError):
        return read_object(round_dir / GATE) or {}
    return {}


def _limit(
    recipe: Recipe, run_dir: Path, name: str, metric: str, wanted: str, manifests: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    found: dict[str, Any] = {"metric": metric, "wanted": wanted}
    if metric in COMPARING:
        gain = difference_of(run_dir, name, round_in(wanted) or BASE)
        measured = None if gain is None else gain["pass_at_1"]
        least = measured if metric != CLEAR_GAIN_OVER or gain is None else gain["interval_95"][0]
        holds = least is not None and least > 0
        return {**found, "measured": measured, "interval_95": gain and gain["interval_95"], "passed": holds}
    limit, measured = read_limit(wanted), _measured(metric, manifests)
    return {
        **found,
        "measured": measured,
        "passed": limit is not None and measured is not None and limit.holds(measured),
    }


def _measured(metric: str, manifests: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return a metric of a round; `None` if it could not be computed, such as a share of no traces."""
    traces = recorded(manifests, GenerateMetrics) or recorded(manifests, ImportMetrics)
    kept, trained = recorded(manifests, FilterMetrics), recorded(manifests, SftMetrics)
    scores, reinforced = recorded(manifests, EvalMetrics), recorded(manifests, RlMetrics)

    def share(num: float | None, of: float) -> float | None:
        return num / of if of and num is not None else None

    values: dict[str, float | None] = {
        "num_samples": traces.num_samples if traces else None,
        "truncated_share": share(traces.finish_reasons.get("length", 0), traces.num_samples) if traces else None,
        "num_kept": kept.num_kept if kept else None,
        "kept_share": share(kept.num_kept, kept.num_traces) if kept else None,
        "correct_share": kept.correct_share if kept else None,
        "format_share": share(kept.num_well_formed, kept.num_traces) if kept else None,
        "final_loss": trained.final_loss if trained else None,
        "mean_reward": reinforced.mean_reward if reinforced else None,
        "pass_at_1": scores.student.pass_at_1 if scores else None,
        "gain": scores.difference.pass_at_1 if scores else None,
    }
    return values[metric]


def _explanation(name: str, limits: list[dict[str, Any]]) -> str:
    lines = [f"round {name}: its gate does not hold, so the run stops here; everything is kept."]
    for limit in limits:
        metric, measured = limit["metric"], limit["measured"]
        value = "unknown" if measured is None else f"{measured:.4g}"
        if metric in COMPARING:
            about = f"gain in pass@1 over {limit['wanted']}: {value}, wanted more than 0"
            if metric == CLEAR_GAIN_OVER and (interval := limit["interval_95"]):
                about += f" in all of its 95% interval ({interval[0]:.4g} to {interval[1]:.4g})"
        else:
            about = f"{metric}: {value}, wanted {limit['wanted']} ({GATE_METRICS[metric].about})"
        lines.append(f"  {'holds' if limit['passed'] else 'FAILS'}  {about}")
    lines.append(
        f"Change the round, its limits (no result depends on them), or go on all the same: --past-gate {name}."
    )
    return "\n".join(lines)
