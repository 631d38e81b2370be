"""Records a run's estimate in `runs/<name>/plan.json`, and compares it with the actual values for the summary:

    {"currency": "USD", "prices_dated": "2026-03-10",
     "stages": {"<stage>": {"seconds": {"low": 133.6, "high": 821.2, "actual": 151.3}, "tokens": {…}}}}

A stage's first estimate is kept when the run resumes; a changed recipe replaces those of stages that have not begun.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import StoreError
from distill.estimates.machine import this_machine
from distill.estimates.prices import load_prices
from distill.estimates.stage import COST, CPU_HOURS, GPU_HOURS, MEMORY, SECONDS, TOKENS
from distill.recipe.steps import PUBLISHING
from distill.results.generate import GenerateMetrics
from distill.results.kinds import metrics_of
from distill.results.sft import SftMetrics
from distill.runs.plan import Plan, plan_recipe
from distill.stages import RunContext
from distill.storage.files import read_json, write_json
from distill.storage.fingerprints import fingerprint
from distill.storage.layout import ESTIMATE

SCHEMA_VERSION = 1
NOT_PLANNED = {"name", "description", PUBLISHING}
"""Parts of a recipe whose change keeps recorded estimates."""


def record_estimate(run: RunContext, stages: Sequence[str], force: bool = False) -> None:
    """Record estimates of stages that have no recorded one.

    Args:
        run: the run, whose models and problems are loaded.
        stages: those that are about to run.
        force: whether results of another recipe are moved aside.
    """
    recipe = run.recipe
    kept = _stored(run.run_dir)
    made_for = fingerprint({k: v for k, v in recipe.model_dump(mode="json").items() if k not in NOT_PLANNED})
    wanted = [
        name
        for name in stages
        if not _is_kept(kept["stages"].get(name), made_for, run.folder(name).identity is not None, force)
        # An estimate of a finished stage would use its own results.
        and (force or run.folder(name).manifest is None)
    ]
    if not wanted:
        return
    plan = plan_recipe(recipe, run.run_dir.parent, this_machine(), load_prices(), run, quick=True)
    entries = {name: entry for name, entry in _entries(plan, made_for).items() if name in wanted}
    write_json(
        run.run_dir / ESTIMATE,
        {
            "schema_version": SCHEMA_VERSION,
            "currency": plan.prices.currency,
            "prices_dated": plan.prices.dated,
            "stages": {**kept["stages"], **entries},
        },
        sync=False,
    )


def note_going_on(run_dir: Path, stage: str) -> None:
    """Record that a stage resumes earlier work, so that its manifest's seconds cover only part of it."""
    stored = _stored(run_dir)
    entry = stored["stages"].get(stage)
    if isinstance(entry, dict) and not entry.get("goes_on"):
        entry["goes_on"] = True
        write_json(run_dir / ESTIMATE, stored, sync=False)


def _stored(run_dir: Path) -> dict[str, Any]:
    try:
        stored = read_json(run_dir / ESTIMATE)
    except (StoreError, OSError):
        stored = None
    is_ours = isinstance(stored, dict) and stored.get("schema_version") == SCHEMA_VERSION
    return stored if is_ours and isinstance(stored.get("stages"), dict) else {"stages": {}}


def _is_kept(entry: Mapping[str, Any] | None, made_for: str, has_begun: bool, force: bool) -> bool:
    return entry is not None and (entry.get("made_for") == made_for or (has_begun and not force))


def _entries(plan: Plan, made_for: str) -> dict[str, dict[str, Any]]:
    return {
        stage.stage: {
            "made_for": made_for,
            "machine": plan.machine.name,
            "num_gpus": stage.num_gpus,
            "num_cores": plan.machine.num_cores,
            "hour_price": _hour_price(plan, stage.num_gpus),
            "quantities": {name: r.to_json() for name, r in stage.quantities.items()},
        }
        for stage in plan.stages
    }


def _hour_price(plan: Plan, num_gpus: int) -> float | None:
    """Return the price per hour of what the stage uses, at the middle of the price table's range."""
    price = plan.prices.gpu(plan.machine.kinds) if num_gpus else None
    if price is not None:
        return price.middle * num_gpus
    per_core = plan.prices.cpu_core_hour
    is_on_cpu = not plan.machine.num_gpus and per_core is not None
    return per_core.range("").middle * plan.machine.num_cores if is_on_cpu and per_core else None


def estimate_and_actual(run_dir: Path, manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the recorded estimate with the actual values, for `summary.json`.

    Args:
        run_dir: `runs/<name>`.
        manifests: of the stages that are complete.

    Returns:
        `None` if no estimate was recorded, or the file does not have the expected shape.
    """
    stored = _stored(run_dir)
    if not stored["stages"]:
        return None
    try:
        return _compared(stored, manifests)
    except (KeyError, TypeError, AttributeError):
        return None


def _compared(stored: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    stages = {}
    for name, entry in stored["stages"].items():
        actual = _actual(name, entry, manifests.get(name))
        stages[name] = {
            quantity: {
                "low": bounds["low"],
                "high": bounds["high"],
                "basis": bounds["basis"],
                "actual": actual.get(quantity),
            }
            for quantity, bounds in entry["quantities"].items()
        }
    return {"currency": stored["currency"], "prices_dated": stored["prices_dated"], "stages": stages}


def _actual(name: str, entry: Mapping[str, Any], manifest: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what a finished stage took, as far as its manifest has it.

    Times are missing for a resumed stage: its manifest has those of the last call, but the estimate is for the whole.
    """
    if manifest is None:
        return {}
    metrics = metrics_of(name, manifest)
    found = {}
    if metrics.tokens_spent is not None:
        found[TOKENS] = float(metrics.tokens_spent)
    # The manifest's peak is of host memory, while the estimate of a GPU stage is per GPU.
    on_gpu = metrics.gpu_peak_gib if isinstance(metrics, SftMetrics) else None
    memory = on_gpu if entry["num_gpus"] else manifest["peak_memory_gib"]
    if memory is not None:
        found[MEMORY] = memory
    if isinstance(metrics, GenerateMetrics) and metrics.cost is not None:
        found[COST] = metrics.cost.amount
    if not entry.get("goes_on"):
        seconds = manifest["seconds"]
        found[SECONDS] = seconds
        found[GPU_HOURS] = round(seconds * entry["num_gpus"] / 3_600, 4)
        found[CPU_HOURS] = round(seconds * entry["num_cores"] / 3_600, 4)
        if entry["hour_price"] is not None and COST not in found:
            found[COST] = round(seconds / 3_600 * entry["hour_price"], 4)
    return found
