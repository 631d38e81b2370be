"""Writes what a run shows after each step: `summary.json`, the lock and `report.html`, of each round and of the whole.

`<run>/<round>/summary.json` has the shape of a run without rounds.
"""

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill import __version__
from distill.core.formatting import mapping
from distill.errors import DistillError, StoreError
from distill.publish.lock import write_lock, write_lock_of_rounds
from distill.recipe.expand import Step
from distill.recipe.lineage import recipe_as_run
from distill.recipe.model import Recipe, with_parts
from distill.recipe.steps import STAGE_NAMES
from distill.report.round_scores import round_scores
from distill.results.kinds import metrics_of
from distill.runs.gates import check_gate, gate_record
from distill.stages import RunContext
from distill.storage.files import read_object, write_json
from distill.storage.layout import REPORT, SUMMARY

SUMMARY_VERSION = 1

Say = Callable[[str], None]

StopRecord = dict[str, str]
"""Where a run stopped: `{"stage": …, "error": "…", "at": "2026-11-24T18:40:00+00:00"}`."""


@dataclass(frozen=True)
class WholeRun:
    """A recipe with its run folder, with or without rounds."""

    recipe: Recipe
    run_dir: Path
    contexts: Sequence[RunContext]
    """One for each round."""
    past_gates: Sequence[str] = ()
    """Rounds whose gates do not stop the run."""

    def context(self, step: Step) -> RunContext:
        """Return the context of a step's round; that of the recipe itself for a stage that the recipe lacks."""
        return next(run for run in self.contexts if run.recipe.round_name == step.round)

    def check_gates(self, before: str | None = None, until: str | None = None) -> None:
        """Check the gates of the complete rounds before a round, or until and including one.

        Raises:
            GateError: a limit does not hold.
        """
        for one in self.recipe.rounds if before or until else ():
            if one.name == before != until:
                return
            check_gate(self.recipe, self.run_dir, one.name, one.name in self.past_gates)
            if one.name == until:
                return

    def write_summary(
        self, run: RunContext, forget_stop_in: Step | None = None, stopped: tuple[Step, StopRecord] | None = None
    ) -> dict[str, Any]:
        """Write the summaries and the lock after a change in one round, and return that of the whole run.

        Args:
            run: the round, or the recipe itself.
            forget_stop_in: the step that begins now; an earlier stop in it is dropped.
            stopped: where this call stopped; left out: an earlier stop is kept until its stage is complete.
        """
        summary = write_summary(run, None if forget_stop_in is None else forget_stop_in.stage, stopped and stopped[1])
        if not self.recipe.rounds:
            return summary
        here = None if stopped is None else {**stopped[1], "stage": stopped[0].id}
        return self._write_whole(here, None if forget_stop_in is None else forget_stop_in.id)

    def write(self, run: RunContext, say: Say) -> dict[str, Any]:
        """Write summaries, lock and reports after a step of one round."""
        summary = self.write_summary(run)
        self._write_reports(run, say)
        return summary

    def record_stop(self, step: Step, run: RunContext, error: BaseException, say: Say) -> None:
        """Record where and why the run stopped, and write the report; the caller re-raises the error."""
        from distill.core.redaction import scrub_text

        if isinstance(error, Exception):
            why = str(error) if isinstance(error, DistillError) else f"{type(error).__name__}: {error}"
        else:
            why = "stopped by Ctrl-C" if isinstance(error, KeyboardInterrupt) else "stopped by a signal"
        at = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self.write_summary(run, stopped=(step, {"stage": step.stage, "error": scrub_text(why), "at": at}))
        except Exception as another:  # such as a full disk, which may have stopped the run
            say(f"{self.run_dir / SUMMARY}: could not be written ({another}).")
            return
        self._write_reports(run, say)

    def _write_reports(self, run: RunContext, say: Say) -> None:
        write_report(run.run_dir, say)
        if self.recipe.rounds:
            write_report(self.run_dir, say)

    def _write_whole(self, stopped: StopRecord | None, forget_stop_in: str | None) -> dict[str, Any]:
        """Write `summary.json` and the lock of a run with rounds."""
        manifests = {str(run.recipe.round_name): _manifests(run) for run in self.contexts}
        parts = {name: recipe_as_run(self.recipe.part(name), found) for name, found in manifests.items()}
        recipe = with_parts(self.recipe, parts)
        rounds: dict[str, Any] = {}
        for one, run in zip(recipe.rounds, self.contexts, strict=True):
            own = _stored(run.run_dir)
            told = {stage: mapping(own.get(stage)).get("fingerprint") for stage in manifests[one.name]}
            if told != {stage: manifest["fingerprint"] for stage, manifest in manifests[one.name].items()}:
                own = write_summary(run)  # a call was killed after the manifest
            rounds[one.name] = {key: own[key] for key in ("student", *STAGE_NAMES, "problems") if key in own}
            rounds[one.name]["made_from"] = {
                "student": one.student or recipe.student,
                "teacher": one.generate.teacher if one.generate is not None else None,
                "rollouts": recipe.part(one.name).rollout_rounds,
                "rows": one.row_rounds,
            }
            if gate := gate_record(self.run_dir / one.name):
                rounds[one.name]["gate"] = {key: gate[key] for key in ("passed", "waived", "limits")}
        scores = round_scores(self.run_dir, list(rounds))
        summary = {**_head(recipe), "rounds": rounds, "scores": scores}
        stopped = stopped or _earlier_stop(self.run_dir)
        done = {f"{name}/{stage}" for name, found in manifests.items() for stage in _done(found)}
        if stopped is not None and stopped["stage"] != forget_stop_in and not _is_over(stopped, done, rounds):
            summary["stopped"] = stopped
        write_json(self.run_dir / SUMMARY, summary)
        write_lock_of_rounds(recipe, self.run_dir, parts, manifests)
        return summary


def _is_over(stopped: StopRecord, done: Collection[str], rounds: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a stop of an earlier call no longer holds: its step is complete, and no gate is shut there."""
    gate = rounds.get(stopped["stage"].partition("/")[0], {}).get("gate")
    is_shut = gate is not None and not gate["passed"] and not gate["waived"]
    return stopped["stage"] in done and not is_shut


def write_summary(
    run: RunContext, forget_stop_in: str | None = None, stopped: StopRecord | None = None
) -> dict[str, Any]:
    """Write `summary.json`, and the lock if there are no rounds, from the manifests; return the summary.

    Args:
        run: a round, or the recipe itself.
        forget_stop_in: the stage that begins now; an earlier stop in it is dropped.
        stopped: where this call stopped; left out: an earlier stop is kept until its stage is complete.
    """
    from distill.runs.plan_record import estimate_and_actual

    manifests = _manifests(run)
    recipe = recipe_as_run(run.recipe, manifests)
    summary = _head(recipe)
    for name, manifest in manifests.items():
        facts = {key: manifest[key] for key in ("fingerprint", "seconds", "peak_memory_gib", "finished_at")}
        summary[name] = {**facts, **manifest["metrics"]}
    estimate = estimate_and_actual(run.run_dir, manifests)
    if estimate is not None:
        summary["estimate"] = estimate
    by_source = summary.get(run.recipe.traces_stage, {}).get("num_problems_by_source", {})
    summary["problems"] = [{"source": source, "num_problems": num} for source, num in by_source.items()]
    stopped = stopped or _earlier_stop(run.run_dir)
    if stopped is not None and stopped["stage"] not in {forget_stop_in, *_done(manifests)}:
        summary["stopped"] = stopped
    write_json(run.run_dir / SUMMARY, summary)
    if recipe.round_name is None:
        write_lock(recipe, run.run_dir, manifests)
    return summary


def _head(recipe: Recipe) -> dict[str, Any]:
    """Return what a summary says of the recipe, with or without rounds."""
    return {
        "schema_version": SUMMARY_VERSION,
        "distill_version": __version__,
        "name": recipe.name,
        "description": recipe.description,
        "student": recipe.student,
        "seed": recipe.seed,
        "recipe": recipe.model_dump(mode="json"),
    }


def _manifests(run: RunContext) -> dict[str, dict[str, Any]]:
    return {name: found for name in STAGE_NAMES if (found := run.folder(name).manifest) is not None}


def _done(manifests: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the stages that are complete and leave something to go on with."""
    return (name for name, found in manifests.items() if not metrics_of(name, found).is_empty)


def _stored(run_dir: Path) -> dict[str, Any]:
    try:
        return read_object(run_dir / SUMMARY) or {}
    except StoreError:  # damaged; it is rewritten when the round goes on
        return {}


def _earlier_stop(run_dir: Path) -> StopRecord | None:
    """Return where an earlier call stopped, or `None` if there is no valid record."""
    stopped = _stored(run_dir).get("stopped")
    is_ours = isinstance(stopped, dict) and all(isinstance(stopped.get(key), str) for key in ("stage", "error", "at"))
    return stopped if is_ours else None


def write_report(run_dir: Path, say: Say) -> None:
    """Write `report.html`; an error is reported but does not stop the run."""
    from distill.report import gather_any, render_any
    from distill.storage.files import atomic_write

    try:
        atomic_write(run_dir / REPORT, render_any(gather_any(run_dir)))
    except Exception as error:
        again = f"distill report {shlex.quote(str(run_dir))}"
        say(f"{run_dir / REPORT}: could not be written ({error}). `{again}` tries again.")
