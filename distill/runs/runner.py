"""The runner: skips, resumes, refuses or runs each stage, and writes manifests, `summary.json` and `report.html`."""

import resource
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill import __version__
from distill.core.provenance import git_commit, hardware, package_versions
from distill.errors import DistillError, StoreError, UserError
from distill.execution.launchers import Leader
from distill.filters.nothing_kept import has_kept_nothing
from distill.publish.lock import write_lock
from distill.recipe.lineage import PARTS, change_lines, changed_settings, files_of, recipe_as_run
from distill.recipe.model import Recipe
from distill.runs.steps import STAGES, Decision, decide, stages_of
from distill.stages import RunContext
from distill.storage.files import free_bytes, read_object, write_json
from distill.storage.fingerprints import fingerprint
from distill.storage.layout import MANIFEST, REPORT, SUMMARY
from distill.storage.run_folder import Manifest, describe_outputs, only_writer

MIN_FREE_GIB = 0.05
SUMMARY_VERSION = 1

Say = Callable[[str], None]

StopRecord = dict[str, str]
"""Where a run stopped: `{"stage": "sft", "error": "…", "at": "2026-11-24T18:40:00+00:00"}`."""


def run_recipe(
    recipe: Recipe,
    runs_dir: Path,
    stages: Sequence[str] | None = None,
    force: bool = False,
    say: Say = lambda text: None,
    retry_errors: bool = False,
    leader: Leader | None = None,
    accepted: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run stages in order, skipping what is done.

    Args:
        recipe: the recipe.
        runs_dir: folder in which the run folder `<recipe name>/` is created.
        stages: names of stages; left out, or none: all that the recipe has.
        force: move results of another recipe aside instead of refusing, and train a damaged student again.
        say: called with one line per step.
        retry_errors: retry samples that ended in errors.
        leader: leads the other processes of a launcher (such as torchrun), if one started this process.
        accepted: called once, while the run folder is locked: when the first stage begins, or when all are done.

    Returns:
        The summary, as written to `summary.json`.

    Raises:
        DistillError: a stage failed; finished work is kept, and the same call resumes it.
    """
    run = RunContext(recipe, runs_dir / recipe.name, retry_errors, leader)
    asked = stages or stages_of(recipe)
    if unknown := [name for name in asked if name not in STAGES]:
        raise UserError(f"stages: there is no stage {unknown[0]!r}. There are: {', '.join(STAGES)}.")
    wanted = [name for name in STAGES if name in asked]
    with only_writer(run.run_dir):
        _prepare(run, wanted)
        _record_estimate(run, wanted, force, say)
        at_work = AtWork(accepted)
        for name in wanted:
            try:
                did_something = _run_stage(run, name, force, say, at_work)
                STAGES[name].finish(run)
            except BaseException as error:
                # A refusal before any work must not replace the record of an earlier stop.
                if at_work.has_begun:
                    _record_stop(run, name, error, say)
                raise
            if did_something or name == wanted[-1]:
                summary = write_summary(run)
                write_report(run, say)
        at_work.begin()  # all were skipped, which the caller wants to know too
        return summary


def _prepare(run: RunContext, wanted: Sequence[str]) -> None:
    """Load or check every model, engine and problem set that the stages need, before any expensive work."""
    for name in wanted:
        STAGES[name].prepare(run, lambda: not _all_done(run, wanted))


def _record_estimate(run: RunContext, wanted: Sequence[str], force: bool, say: Say) -> None:
    """Record the estimate; an error there does not stop the run."""
    from distill.runs.plan_record import record_estimate

    with _tolerating_estimate_errors(say):
        record_estimate(run, wanted, force)


@contextmanager
def _tolerating_estimate_errors(say: Say) -> Iterator[None]:
    """Report an error of the estimate instead of raising it."""
    try:
        yield
    except Exception as error:
        say(f"estimate: not recorded ({type(error).__name__}: {str(error).partition(chr(10))[0][:200]})")


def _all_done(run: RunContext, wanted: Sequence[str]) -> bool:
    """Return whether every stage would be skipped, unless one of its outputs turns out damaged."""
    try:
        return all(decide(run.folder(n), STAGES[n].identity(run), STAGES[n].grows).action == "skip" for n in wanted)
    except UserError:  # an earlier stage is not complete
        return False


@dataclass(slots=True)
class AtWork:
    """Whether this call has begun any work, and the callback for that moment."""

    accepted: Callable[[], None]
    has_begun: bool = False

    def begin(self) -> None:
        """Call `accepted`, the first time only."""
        if not self.has_begun:
            self.has_begun = True
            self.accepted()


def _run_stage(run: RunContext, name: str, force: bool, say: Say, at_work: AtWork) -> bool:
    """Run a stage unless it is done; return whether it ran."""
    from distill.runs.plan_record import note_going_on

    stage, folder = STAGES[name], run.folder(name)
    identity = stage.identity(run)
    # `check` may reopen the folder, so it comes before the decision.
    for found in stage.check(run):
        say(f"{name}: {found}")
    decision = decide(folder, identity, stage.grows)
    if decision.action == "skip" and not _reopen_if_lost(run, name, force, say):
        _note_recipe(run, name)
        say(f"{name}: done already, skipped (fingerprint {fingerprint(identity)[:12]})")
        return False
    goes_on = folder.identity is not None
    if decision.action == "refuse":
        if stage.forget(run):
            goes_on = False
        elif not force:
            raise StoreError(_refusal(run, name, decision))
        else:
            aside = folder.set_aside()
            goes_on = False
            say(f"{name}: the recipe has changed; the old results are in {aside}")
    stage.ready(run)
    if goes_on:
        say(f"{name}: resuming from existing results")
        with _tolerating_estimate_errors(say):
            note_going_on(run.run_dir, name)
    _check_disk(run.run_dir)
    folder.reopen()
    folder.claim(identity)
    at_work.begin()
    # Written before the work, so that the summary of a killed run has the recipe and no outdated stop.
    write_summary(run, forget_stop_in=name)
    started = time.monotonic()
    summary = stage.run(run)
    seconds = time.monotonic() - started
    recipe = run.recipe.model_dump(mode="json")
    own_peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    folder.complete(
        Manifest(
            stage=name,
            fingerprint=fingerprint(identity),
            identity=identity,
            config=recipe[stage.SECTION],
            outputs=describe_outputs(folder.path, summary.outputs),
            metrics=summary.metrics,
            versions=package_versions(),
            hardware=hardware(),
            git_commit=git_commit(),
            seconds=round(seconds, 3),
            peak_memory_gib=round(own_peak_gib + summary.peak_memory_gib, 3),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=recipe,
            files=files_of(run.recipe),
        )
    )
    for scratch in summary.scratch:
        shutil.rmtree(folder.path / scratch, ignore_errors=True)
    say(f"{name}: {stage.headline(summary.metrics)} ({seconds:.0f} s)")
    return True


def _reopen_if_lost(run: RunContext, name: str, force: bool, say: Say) -> bool:
    """Return whether a finished stage must run again because outputs are missing or damaged."""
    lost = STAGES[name].reopen_if_lost(run, force)
    if lost is not None:
        say(f"{name}: {lost}")
    return lost is not None


def _note_recipe(run: RunContext, name: str) -> None:
    """Update the recipe in a skipped stage's manifest if it is now written differently but means the same.

    Examples: a default is written out, or a file has moved.
    """
    folder = run.folder(name)
    manifest = folder.manifest
    if manifest is None or name not in PARTS:
        return
    if not manifest.get("recipe") or changed_settings(run.recipe, name, manifest):
        said = {"recipe": run.recipe.model_dump(mode="json"), "files": files_of(run.recipe)}
        write_json(folder.path / MANIFEST, {**manifest, **said})


def _refusal(run: RunContext, name: str, decision: Decision) -> str:
    return (
        f"{name}: {run.run_dir / name} was made from something else. What changed:\n{change_lines(decision.changed)}\n"
        "Give the new run a name of its own (--set name=…), or move the old results aside with --force."
    )


def _check_disk(run_dir: Path) -> None:
    free_gib = free_bytes(run_dir) / 2**30
    if free_gib < MIN_FREE_GIB:
        raise StoreError(
            f"{run_dir}: only {free_gib * 1024:.0f} MiB free on its disk, and {MIN_FREE_GIB * 1024:.0f} MiB are needed "
            "to begin. Free some space, or give a --run-dir on another disk; `distill plan` says what the run takes."
        )


def write_summary(
    run: RunContext, forget_stop_in: str | None = None, stopped: StopRecord | None = None
) -> dict[str, Any]:
    """Write `summary.json` and the lock from the manifests, and return the summary.

    Args:
        run: the recipe and its folder.
        forget_stop_in: the stage that begins now; an earlier stop in it is dropped.
        stopped: where this call stopped; left out: an earlier stop is kept until its stage is complete.
    """
    from distill.runs.plan_record import estimate_and_actual

    manifests = {name: found for name in STAGES if (found := run.folder(name).manifest) is not None}
    recipe = recipe_as_run(run.recipe, manifests)
    summary: dict[str, Any] = {
        "schema_version": SUMMARY_VERSION,
        "distill_version": __version__,
        "name": recipe.name,
        "description": recipe.description,
        "student": recipe.student,
        "seed": recipe.seed,
        "recipe": recipe.model_dump(mode="json"),
    }
    for name, manifest in manifests.items():
        facts = {key: manifest[key] for key in ("fingerprint", "seconds", "peak_memory_gib", "finished_at")}
        summary[name] = {**facts, **manifest["metrics"]}
    estimate = estimate_and_actual(run.run_dir, manifests)
    if estimate is not None:
        summary["estimate"] = estimate
    by_source = summary.get(run.recipe.traces_stage, {}).get("num_problems_by_source", {})
    summary["problems"] = [{"source": source, "num_problems": num} for source, num in by_source.items()]
    stopped = stopped or _earlier_stop(run)
    done = {name for name, found in manifests.items() if not has_kept_nothing(name, found["metrics"])}
    if stopped is not None and stopped["stage"] not in {forget_stop_in, *done}:
        summary["stopped"] = stopped
    write_json(run.run_dir / SUMMARY, summary)
    write_lock(recipe, run.run_dir, manifests)
    return summary


def _earlier_stop(run: RunContext) -> StopRecord | None:
    """Return where an earlier call stopped, or `None` if there is no valid record."""
    try:
        stopped = (read_object(run.run_dir / SUMMARY) or {}).get("stopped")
    except StoreError:  # damaged; it is about to be rewritten
        return None
    is_ours = isinstance(stopped, dict) and all(isinstance(stopped.get(key), str) for key in ("stage", "error", "at"))
    return stopped if is_ours else None


def _record_stop(run: RunContext, stage: str, error: BaseException, say: Say) -> None:
    """Record where and why the run stopped, and write the report; the caller re-raises the error."""
    from distill.core.redaction import scrub_text

    if isinstance(error, Exception):
        why = str(error) if isinstance(error, DistillError) else f"{type(error).__name__}: {error}"
    else:
        why = "stopped by Ctrl-C" if isinstance(error, KeyboardInterrupt) else "stopped by a signal"
    stopped = {"stage": stage, "error": scrub_text(why), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        write_summary(run, stopped=stopped)
    except Exception as another:  # such as a full disk, which may have stopped the run
        say(f"{run.run_dir / SUMMARY}: could not be written ({another}).")
        return
    write_report(run, say)


def write_report(run: RunContext, say: Say) -> None:
    """Write `report.html`; an error is reported but does not stop the run."""
    from distill.report import gather_run, render_report
    from distill.storage.files import atomic_write

    try:
        atomic_write(run.run_dir / REPORT, render_report(gather_run(run.run_dir)))
    except Exception as error:
        again = f"distill report {shlex.quote(str(run.run_dir))}"
        say(f"{run.run_dir / REPORT}: could not be written ({error}). `{again}` tries again.")
