"""The runner: skips, resumes, refuses or runs each stage, and writes manifests, `summary.json` and `report.html`."""

import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill.core.provenance import git_commit, hardware, package_versions
from distill.errors import DistillError, GateError, StoreError, UserError
from distill.execution.launchers import Leader
from distill.grading.code.grader import backend_of, check_sandbox
from distill.recipe.expand import Step
from distill.recipe.lineage import change_lines, changed_settings, files_of
from distill.recipe.model import Recipe
from distill.recipe.sandbox import SandboxConfig
from distill.recipe.steps import PUBLISHING
from distill.results.kinds import kind_of
from distill.runs.results import Say, WholeRun
from distill.runs.steps import Decision, chosen_steps, decide
from distill.stages import RunContext, contexts_of
from distill.stages.table import STAGES
from distill.storage.files import free_bytes, write_json
from distill.storage.fingerprints import fingerprint
from distill.storage.layout import IDENTITY, MANIFEST
from distill.storage.run_folder import Manifest, describe_outputs, only_writer

MIN_FREE_GIB = 0.05


def run_recipe(
    recipe: Recipe,
    runs_dir: Path,
    stages: Sequence[str] | None = None,
    force: bool = False,
    say: Say = lambda text: None,
    retry_errors: bool = False,
    leader: Leader | None = None,
    accepted: Callable[[], None] = lambda: None,
    rounds: Sequence[str] | None = None,
    until: str | None = None,
    past_gates: Sequence[str] = (),
) -> dict[str, Any]:
    """Run steps in order, skipping what is done.

    Args:
        recipe: the recipe.
        runs_dir: folder in which the run folder `<recipe name>/` is created.
        stages: names of stages; left out, or none: all that the recipe has.
        force: move results of another recipe aside instead of refusing, and train a damaged student again.
        say: called with one line per step.
        retry_errors: retry samples that ended in errors.
        leader: leads the other processes of a launcher (such as torchrun), if one started this process.
        accepted: called once, while the run folder is locked: when the first stage begins, or when all are done.
        rounds: names of rounds; left out: all.
        until: the last step to run, such as `sft`, `<round>/sft` or a round's name.
        past_gates: rounds whose gates do not stop the run.

    Returns:
        The summary, as written to `summary.json`.

    Raises:
        DistillError: a stage failed or a gate does not hold; finished work is kept, and the same call resumes it.
    """
    run_dir = runs_dir / recipe.name
    if unknown := [name for name in past_gates if not any(one.name == name and one.gate for one in recipe.rounds)]:
        raise UserError(f"--past-gate: there is no round {unknown[0]!r} with a gate:.")
    contexts = contexts_of(recipe, run_dir, retry_errors=retry_errors, leader=leader)
    whole = WholeRun(recipe, run_dir, contexts, past_gates)
    steps = [(step, whole.context(step)) for step in chosen_steps(recipe, stages, rounds, until)]
    _need_sandbox(steps)
    with only_writer(run_dir):
        _refuse_other_layout(run_dir, recipe)
        for step, run in steps:
            # Every model, engine and problem set that is needed is looked up before any expensive work.
            STAGES[step.stage].prepare(run, lambda: not _all_done(steps))
        for run in whole.contexts:
            if wanted := [step.stage for step, of_step in steps if of_step is run]:
                _record_estimate(run, wanted, force, say)
        at_work = AtWork(accepted)
        for step, run in steps:
            is_published = step.stage == PUBLISHING  # its round's own gate counts too
            whole.check_gates(before=step.round, until=step.round if is_published else None)
            try:
                did_something = _run_step(step, run, force, say, at_work, whole)
                STAGES[step.stage].finish(run)
                whole.check_gates(until=step.round)
                if did_something or step == steps[-1][0]:
                    summary = whole.write(run, say)
            except BaseException as error:
                if step.round is not None and isinstance(error, DistillError) and error.args:
                    error.args = (_with_round(step.round, str(error)),)
                # Another refusal before any work must not replace the record of an earlier stop.
                if at_work.has_begun or isinstance(error, GateError):
                    whole.record_stop(step, run, error, say)
                raise
        at_work.begin()  # all were skipped, which the caller wants to know too
        return summary


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


def _all_done(steps: Sequence[tuple[Step, RunContext]]) -> bool:
    """Return whether every step would be skipped, unless one of its outputs turns out damaged."""
    try:
        return all(
            decide(run.folder(step.stage), STAGES[step.stage].identity(run), STAGES[step.stage].keeps_results).action
            == "skip"
            for step, run in steps
        )
    except UserError:  # an earlier stage is not complete
        return False


def _need_sandbox(steps: Sequence[tuple[Step, RunContext]]) -> None:
    """Refuse to begin if answers are programs and no sandbox can be had, unless all of it is done.

    Raises:
        StageError: that is so.
    """
    wanted: dict[str, SandboxConfig] = {}
    for step, run in steps:
        keys = getattr(STAGES[step.stage], "runs_programs", lambda recipe: ())(run.recipe)
        if not run.folder(step.stage).is_complete:
            wanted |= dict.fromkeys(keys, run.recipe.sandbox)
    for key, config in wanted.items():
        check_sandbox(backend_of(config), key)


def _refuse_other_layout(run_dir: Path, recipe: Recipe) -> None:
    """Raise if the folder holds a run without rounds and the recipe has some, or the other way round."""
    folders = [file.parent.relative_to(run_dir) for file in run_dir.glob(f"*/{IDENTITY}")]
    stages = [str(folder) for folder in folders if str(folder) in STAGES]
    rounds = [file.parent.parent.name for file in run_dir.glob(f"*/*/{IDENTITY}") if file.parent.name in STAGES]
    there = stages if recipe.rounds else rounds
    if there:
        now, then = ("has rounds:", "without") if recipe.rounds else ("has no rounds:", "with")
        raise StoreError(
            f"{run_dir}: the recipe {now}, but this folder holds a run {then} rounds ({there[0]}/). Give the new run a "
            "name of its own (--set name=…)."
        )


def _with_round(name: str, text: str) -> str:
    """Return an error's text with the round that it is about."""
    return text if text.startswith(f"round {name}:") else f"round {name}: {text}"


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


def _run_step(step: Step, run: RunContext, force: bool, say_line: Say, at_work: AtWork, whole: WholeRun) -> bool:
    """Run a step unless it is done; return whether it ran."""
    from distill.runs.plan_record import note_going_on

    name = step.stage
    stage, folder = STAGES[name], run.folder(name)

    def say(text: str) -> None:
        say_line(text if step.round is None else f"{step.round}/{text}")

    identity = stage.identity(run)
    # `check` may reopen the folder, so it comes before the decision.
    for found in stage.check(run):
        say(f"{name}: {found}")
    decision = decide(folder, identity, stage.keeps_results)
    if decision.action == "skip" and not _reopen_if_lost(run, name, force, say):
        _note_recipe(run, name)
        say(f"{name}: done already, skipped (fingerprint {fingerprint(identity)[:12]})")
        return False
    goes_on = folder.identity is not None
    if decision.action == "refuse":
        if stage.discard_if_empty(run):
            goes_on = False
        elif not force:
            raise StoreError(_refusal(run, name, decision))
        else:
            aside = folder.set_aside()
            goes_on = False
            say(f"{name}: the recipe has changed; the old results are in {aside}")
    stage.verify_inputs(run)
    if goes_on:
        say(f"{name}: resuming from existing results")
        with _tolerating_estimate_errors(say):
            note_going_on(run.run_dir, name)
    _check_disk(run.run_dir)
    folder.reopen()
    folder.claim(identity)
    at_work.begin()
    # Written before the work, so that the summary of a killed run has the recipe and no outdated stop.
    whole.write_summary(run, forget_stop_in=step)
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
    say(f"{name}: {stage.headline(kind_of(step.stage).metrics.from_json(summary.metrics))} ({seconds:.0f} s)")
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
    if manifest is None or name == PUBLISHING:
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
