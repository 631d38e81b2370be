"""Progress of sampling, from the files of a run folder alone: no process is contacted and nothing is written."""

import time
from pathlib import Path
from typing import Any

from distill.core.formatting import duration, mapping, number
from distill.core.json_shape import COUNT, TEXT, fault
from distill.errors import StoreError, UserError
from distill.recipe.sampling import Price
from distill.results.generate import GenerateMetrics
from distill.sampling.job import num_lines
from distill.sampling.loop import LIVE, cost
from distill.storage.files import num_whole_lines, read_json, read_object
from distill.storage.layout import IDENTITY, LEDGER, PROBLEMS, SUMMARY
from distill.storage.ledger import Tally, index_ledger, is_being_written
from distill.storage.run_folder import StageFolder
from distill.storage.trace_store import stored_without_repair

SCHEMA_VERSION = 1


def sampling_status(folder: Path, price: Price | None = None) -> dict[str, Any]:
    """Return the progress of the generate stage in `folder`, JSON-ready.

    Args:
        folder: `runs/<name>/generate`.
        price: prices for the cost; default: no cost.

    Raises:
        UserError: nothing has been generated there.
        StoreError: a file in it is damaged.
    """
    stage = StageFolder(folder)
    identity = stage.identity
    if identity is None or not (folder / PROBLEMS).is_file():
        raise UserError(f"{folder}: nothing has been generated here yet. Start with `distill generate`.")
    manifest = stage.manifest
    index = index_ledger(folder / LEDGER)
    found = stored_without_repair(folder).with_ledger(index)
    tally = found.tally
    num_problems = num_lines(folder / PROBLEMS)
    if what := fault(identity, {"samples_per_problem": COUNT, "teacher": TEXT}):
        raise StoreError(f"{folder / IDENTITY}: damaged ({what}). Remove the file and run `distill generate` again.")
    num_wanted = num_problems * identity["samples_per_problem"]
    metrics = GenerateMetrics.from_json(manifest["metrics"]) if manifest else None
    skipped = metrics.num_not_needed if metrics else len(index.skipped)
    running = is_being_written(folder / LEDGER)
    stop = (read_object(folder.parent / SUMMARY) or {}).get("stopped")
    is_stopped = isinstance(stop, dict) and stop.get("stage") == folder.name
    live = read_object(folder / LIVE) if running else None
    return {
        "schema_version": SCHEMA_VERSION,
        "folder": str(folder),
        "state": "complete" if manifest else "running" if running else "stopped" if is_stopped else "unfinished",
        "teacher": identity["teacher"],
        "num_problems": num_problems,
        "num_wanted": num_wanted,
        "num_done": metrics.num_samples if metrics else min(len(found.keys), num_wanted),
        "num_not_needed": skipped,
        "finish_reasons": dict(+tally.finish_reasons),
        "num_prompt_tokens": tally.num_prompt_tokens,
        "num_completion_tokens": tally.num_completion_tokens,
        "num_damaged_records": len(index.damaged),
        "cost": _cost(tally, price),
        "live": live,
    }


def sampling_progress(folder: Path) -> dict[str, Any]:
    """Return how many samples, or imported traces, an unfinished stage has stored."""
    found = stored_without_repair(folder).with_ledger(index_ledger(folder / LEDGER))
    per_problem = number(mapping(read_json(folder / IDENTITY)).get("samples_per_problem"))
    num_wanted = None if per_problem is None else int(per_problem) * num_whole_lines(folder / PROBLEMS)
    return {"num_done": len(found.keys), "num_wanted": num_wanted, "unit": "samples"}


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return a status as lines of text."""
    settled = status["num_done"] + status["num_not_needed"]
    lines = [
        f"{status['folder']}: {status['state']}",
        f"  teacher   {status['teacher']}",
        f"  samples   {status['num_done']:,} of {status['num_wanted']:,}"
        + (f" ({status['num_not_needed']:,} more not needed)" if status["num_not_needed"] else "")
        + f", {settled / max(1, status['num_wanted']):.1%}",
        f"  tokens    {status['num_completion_tokens']:,} completion, {status['num_prompt_tokens']:,} prompt",
    ]
    if status["finish_reasons"]:
        counts = ", ".join(f"{reason} {num:,}" for reason, num in sorted(status["finish_reasons"].items()))
        lines.append(f"  ended by  {counts}")
    if status["num_damaged_records"]:
        lines.append(f"  damaged   {status['num_damaged_records']:,} ledger records; their samples are drawn again")
    if status["cost"]:
        lines.append(f"  cost      {status['cost']['amount']:,.2f} {status['cost']['currency']}")
    live = status["live"]
    if live:
        left = f", {duration(round(live['seconds_left']))} left" if live["seconds_left"] is not None else ""
        lines.append(
            f"  now       {live['samples_per_second']:.1f} samples/s, {live['tokens_per_second']:,.0f} tokens/s{left} "
            f"(process {live['pid']}, {max(0.0, time.time() - live['updated_at']):.0f} s ago)"
        )
        if live.get("trouble"):
            lines.append(f"  trouble   {live['trouble']}")
        if live["num_graded"]:
            lines.append(f"  right     {live['num_correct'] / live['num_graded']:.0%} of {live['num_graded']:,} graded")
    if status["state"] in ("stopped", "unfinished"):
        lines.append("  `distill generate` resumes from here.")
    return lines


def _cost(tally: Tally, price: Price | None) -> dict[str, Any] | None:
    return None if price is None else {"amount": cost(tally, price), "currency": price.currency}
