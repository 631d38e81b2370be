"""Runs on this disk: listing, describing and removing them, from their files alone.

Each run folder stores the command that began it, from which the command that resumes it is derived:

    {"schema_version": 1, "stage": null, "arguments": ["recipe.yaml", "--set", "seed=4"], "folder": "/home/me/work",
     "name": "quickstart", "student": "qwen-1.5b", "stages": […],
     "started_at": "2026-11-01T09:00:00+00:00"}
"""

import contextlib
import difflib
import glob
import os
import shlex
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill.core.formatting import mapping
from distill.core.json_shape import OBJECT, TEXT, Shape, fault
from distill.core.records import REASONS
from distill.errors import StoreError, UserError
from distill.filters.funnel import funnel_steps
from distill.recipe.expand import expand, steps_in
from distill.recipe.model import Recipe
from distill.recipe.steps import STAGE_NAMES, stage_of
from distill.report.metrics import MODELS_MEASURED
from distill.report.next_step import next_command, noted_command
from distill.report.progress_on_disk import run_state
from distill.results.eval import EvalMetrics
from distill.results.filter import FilterMetrics
from distill.results.generate import GenerateMetrics
from distill.results.import_traces import ImportMetrics
from distill.results.kinds import Metrics, metrics_of, stage_with
from distill.results.push import PushMetrics
from distill.runs.gates import gate_record
from distill.stages.table import STAGES
from distill.storage.files import disk_errors, read_object, write_json
from distill.storage.layout import COMMAND, IDENTITY, REPORT, SUMMARY, TRACES, WRITER_LOCK
from distill.storage.layout import ESTIMATE as PLAN
from distill.storage.run_files import IMPORTED, MEASURED, SAMPLED, RunFiles
from distill.storage.run_folder import StageFolder, is_run, only_writer, writer_of

SCHEMA_VERSION = 1
_SUMMARY_SHAPE = {
    "description?": TEXT,
    "student?": TEXT,
    "recipe?": OBJECT,
    "rounds?": OBJECT,
    "stopped?": {"stage": TEXT, "error": TEXT, "at": TEXT},
}
REMOVING = ".removing-"
"""In the name of a folder that is being deleted: a run is renamed first, so that a kill leaves no partial run."""


def note_command(run_dir: Path, recipe: Recipe, stage: str | None, arguments: Sequence[str]) -> None:
    """Store the command in a run's folder. The caller must hold the folder.

    Args:
        run_dir: `runs/<name>`.
        recipe: of the run.
        stage: the requested stage; `None`: all.
        arguments: arguments after the stage: the recipe's path and the settings.
    """
    note = {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "arguments": list(arguments),
        "folder": str(Path.cwd()),
        "name": recipe.name,
        "student": recipe.student,
        "stages": [step.id for step in expand(recipe)],
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with contextlib.suppress(StoreError):  # the run reports problems with its folder itself
        write_json(run_dir / COMMAND, note)


def list_runs(runs_dir: str | Path) -> list[dict[str, Any]]:
    """Return an overview of every run in a folder, last changed first; empty if the folder does not exist.

    Raises:
        UserError: the folder cannot be read.
    """
    return sorted(
        (_overview(folder) for folder in run_folders(Path(runs_dir))), key=lambda run: run["changed_at"], reverse=True
    )


def find_run(runs_dir: Path, name: str) -> Path:
    """Return the folder of a run, given its name or its path.

    Raises:
        UserError: there is no such run; the message names those that exist.
    """
    folder = Path(name.rstrip("/") or "/") if "/" in name else runs_dir / name
    if folder.name not in ("", ".", "..") and is_run(folder):
        return folder
    there = [run.name for run in run_folders(folder.parent if "/" in name else runs_dir)]
    near = difflib.get_close_matches(folder.name, there, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    others = (
        f" There are: {', '.join(sorted(there)[:10])}."
        if there
        else f" {folder.parent} has no runs; `distill run` makes one."
    )
    raise UserError(f"{folder}: no run is here.{hint}{others} Runs elsewhere: --run-dir.")


def run_folders(runs_dir: Path) -> list[Path]:
    """Return the run folders in a folder, in no order; empty if the folder does not exist.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        return [folder for folder in runs_dir.iterdir() if is_run(folder) and not folder.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{runs_dir}: cannot be read ({error.strerror}). Give another folder with --run-dir.") from None


def _overview(folder: Path) -> dict[str, Any]:
    summary, note = _read(folder / SUMMARY, _SUMMARY_SHAPE), noted_command(folder)
    process = writer_of(folder)
    stopped = _stop_of(summary, folder)
    stages = [
        {"stage": name, "state": _stage_state(folder, name, process, stopped)}
        for name in _stages(folder, summary, note)
    ]
    is_complete = bool(stages) and all(one["state"] == "complete" for one in stages)
    num_bytes, changed_at = _size_and_change(folder)
    return {
        "name": folder.name,
        "folder": str(folder),
        "description": summary.get("description", ""),
        "student": None if _only_measures(stages) else summary.get("student") or note.get("student"),
        "state": run_state(is_complete, stopped is not None, process),
        "process": process,
        "stages": stages,
        "score": _last_score(folder, [one["stage"] for one in stages]),
        "num_bytes": num_bytes,
        "changed_at": datetime.fromtimestamp(changed_at, UTC).isoformat(timespec="seconds"),
    }


def _only_measures(stages: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a run trains no student, but evaluates other models."""
    return bool(stages) and all(stage_of(one["stage"]) == MODELS_MEASURED for one in stages)


def _stages(folder: Path, summary: dict[str, Any], note: dict[str, Any]) -> list[str]:
    """Return a run's steps, done or not: those of its recipe, and any that has been started."""
    recipe = mapping(summary.get("recipe"))
    rounds = recipe.get("rounds") or ()
    if rounds:
        return steps_in(recipe)
    wanted = list(note.get("stages", ()))
    if any("/" in name for name in wanted):
        return wanted
    wanted += steps_in(recipe)
    return [name for name in STAGE_NAMES if name in wanted or (folder / name / IDENTITY).exists()]


def _read(file: Path, shape: Shape = OBJECT) -> dict[str, Any]:
    """Return a JSON object; empty if the file is missing, damaged or of another shape."""
    # Never an error: one bad file must not hide the other runs.
    with contextlib.suppress(StoreError):
        found = read_object(file)
        return found if found is not None and not fault(found, shape) else {}
    return {}


def _manifest(folder: Path, stage: str) -> dict[str, Any]:
    """Return a stage's manifest; empty if the stage is not complete or the file is damaged."""
    with contextlib.suppress(StoreError):
        return StageFolder(folder / stage).manifest or {}
    return {}


def _metrics(folder: Path, model: type[Metrics]) -> Metrics | None:
    """Return the metrics of one stage of a run or round; `None` if it is not complete or its manifest is damaged."""
    stage = stage_with(model)
    manifest = _manifest(folder, stage)
    return model.from_json(manifest["metrics"]) if manifest else None


def _stage_state(folder: Path, name: str, process: int | None, stopped: dict[str, Any] | None) -> str:
    """Return a stage's state: as of a run, or `waiting` (not begun). A filter that kept nothing is `stopped`."""
    manifest = _manifest(folder, name)
    is_empty = bool(manifest) and metrics_of(stage_of(name), manifest).is_empty
    is_complete = bool(manifest) and not is_empty
    is_stopped = is_empty or (stopped is not None and stopped.get("stage") == name)
    if is_complete:
        return "complete"
    if not (folder / name / IDENTITY).exists() and (process is not None or not is_stopped):
        return "waiting"
    return run_state(is_complete, is_stopped, process)


def _stop_of(summary: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """Return where and why the run stopped; `None` if it did not, or that stage is complete now."""
    stopped: dict[str, Any] | None = summary.get("stopped")
    if stopped is None:
        return None
    name, stage = stopped["stage"], stage_of(stopped["stage"])
    gate = gate_record((folder / name).parent) if "/" in name else {}
    if gate and not gate.get("passed") and not gate.get("waived"):
        return stopped
    manifest = _manifest(folder, name) if stage in STAGES else {}
    return None if manifest and not metrics_of(stage, manifest).is_empty else stopped


def _last_score(folder: Path, steps: Sequence[str]) -> dict[str, Any] | None:
    """Return the scores of the last step that measured, or `None`."""
    measured = [folder / step for step in reversed(steps) if stage_of(step) == MEASURED]
    found = (_metrics(stage.parent, EvalMetrics) for stage in measured)
    last = next((scores for scores in found if scores is not None), None)
    return None if last is None else {key: last.to_json()[key] for key in ("base", "student", "difference")}


def _files(folder: Path) -> Iterator[os.stat_result]:
    """Yield the stat result of everything below a folder; links are not followed."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                yield found
                if stat.S_ISDIR(found.st_mode):
                    yield from _files(Path(entry.path))
    except OSError:  # unreadable, or removed meanwhile
        return


def _size_and_change(folder: Path) -> tuple[int, float]:
    """Return the bytes in the files, counting hard links once, and the time of the last change."""
    sizes: dict[tuple[int, int], int] = {}
    changed_at = folder.stat().st_mtime
    for found in _files(folder):
        if stat.S_ISREG(found.st_mode):
            sizes[(found.st_dev, found.st_ino)] = found.st_size
            changed_at = max(changed_at, found.st_mtime)
    return sum(sizes.values()), changed_at


def describe_run(folder: str | Path) -> dict[str, Any]:
    """Return a run in detail.

    Args:
        folder: `runs/<name>`.

    Raises:
        UserError: there is no such run.
    """
    folder = find_run(Path(folder).parent, f"{Path(folder).parent}/{Path(folder).name}")
    overview = _overview(folder)
    summary = _read(folder / SUMMARY, _SUMMARY_SHAPE)
    stages = [{**one, **_stage_story(folder, one["stage"])} for one in overview["stages"]]
    steps = funnel_steps(_metrics(folder, FilterMetrics))
    return {
        "schema_version": SCHEMA_VERSION,
        **overview,
        "stages": stages,
        "stopped": None if overview["process"] is not None else _stop_of(summary, folder),
        "funnel": [{"step": step, "num_traces": num, "about": REASONS.get(step, "")} for step, num in steps],
        "places": _places(folder),
        "next_command": _next_command(folder, overview),
    }


def _stage_story(folder: Path, name: str) -> dict[str, Any]:
    manifest = _manifest(folder, name)
    known: dict[str, Any] = dict.fromkeys(("seconds", "peak_memory_gib", "finished_at", "result"))
    if manifest:
        known |= {key: manifest[key] for key in ("seconds", "peak_memory_gib", "finished_at")}
        known["result"] = STAGES[stage_of(name)].headline(metrics_of(stage_of(name), manifest))
    return {**known, "num_bytes": _size_and_change(folder / name)[0] if (folder / name).is_dir() else 0}


def _places(folder: Path) -> dict[str, str]:
    """Return the paths of a run's main results that exist, and its URL on the Hub; of each round with its name."""
    places = {"report": str(folder / REPORT)} if (folder / REPORT).exists() else {}
    for name in _round_names(folder) or [""]:
        files = RunFiles(folder / name)
        source = files.imported if files.imported.is_dir() and not files.sampled.is_dir() else files.sampled
        known = {
            "student": files.student,
            "kept_rows": files.kept,
            "dropped_rows": files.dropped,
            "traces": source / TRACES,
        }
        prefix = f"{name}/" if name else ""
        places |= {f"{prefix}{key}": str(path) for key, path in known.items() if path.exists()}
        pushed = _metrics(folder / name, PushMetrics)
        places |= {"hub": pushed.url} if pushed else {}
    return places


def _round_names(folder: Path) -> list[str]:
    """Return the names of a run's rounds, those of its recipe first; empty if it has none."""
    told = list(mapping(_read(folder / SUMMARY, _SUMMARY_SHAPE).get("rounds")))
    # Whatever the summary says: a round of an earlier recipe has traces too, and the summary may be gone.
    there = {path.parent.name for path in folder.glob("*/*") if path.name.partition(".")[0] in STAGES and path.is_dir()}
    return told + sorted(there - {*told, *STAGES} - {name for name in there if name.partition(".")[0] in STAGES})


def _next_command(folder: Path, overview: dict[str, Any]) -> str | None:
    """Return the command that resumes a run; `None` if it is done, running or was not begun on the command line."""
    note = noted_command(folder)
    to_do = [one["stage"] for one in overview["stages"] if one["state"] != "complete"]
    command = next_command(note, to_do, folder)
    if command is None or overview["process"] is not None:
        return None
    return command if Path(note["folder"]) == Path.cwd() else f"cd {shlex.quote(note['folder'])} && {command}"


def what_would_go(folder: Path, keep_traces: bool = False) -> dict[str, Any]:
    """Return what removing a run would delete.

    Args:
        folder: `runs/<name>`.
        keep_traces: keep the traces (`generate/` or `import/`).

    Raises:
        StoreError: the folder is a link, is in use, or does not look like a run.
    """
    if folder.is_symlink():
        raise StoreError(f"{folder}: a link to {folder.resolve()}; links are not followed. Name the folder itself.")
    if (process := writer_of(folder)) is not None:
        raise StoreError(
            f"{folder}: distill (process {process or 'unknown'}) is working here. Wait for it, or stop it first "
            f"(kill {process or 'its id'}); what is finished is kept."
        )
    if not _is_ours(folder):
        raise StoreError(f"{folder}: does not look like a run of distill, so it is not removed.")
    entries = _removable(folder, keep_traces)
    parts = [{"path": str(entry.relative_to(folder)), "num_bytes": _bytes_of(entry)} for entry in entries]
    roots = [folder / name for name in _round_names(folder)] or [folder]
    sources: tuple[type[GenerateMetrics | ImportMetrics], ...] = (GenerateMetrics, ImportMetrics)
    traces = [found for root in roots for one in sources if (found := _metrics(root, one)) is not None]
    begun = [root / name for root in roots for name in (SAMPLED, IMPORTED) if (root / name).is_dir()]
    students = [root for root in roots if RunFiles(root).student.exists()]
    unpublished = bool(students) and not any(_metrics(root, PushMetrics) for root in students)
    return {
        "name": folder.name,
        "folder": str(folder),
        "parts": parts,
        "num_bytes": sum(part["num_bytes"] for part in parts),
        "num_traces": 0 if keep_traces else sum(found.num_samples for found in traces),
        "traces_are_whole": bool(traces) or not begun,
        "has_unpublished_student": unpublished,
        "keeps_traces": keep_traces,
    }


def _is_ours(folder: Path) -> bool:
    """Return whether a folder holds something that only distill writes."""
    # Stricter than `is_run`: many programs write files called `.lock` or `summary.json`.
    if mapping(_read(folder / SUMMARY).get("recipe")) or "arguments" in noted_command(folder):
        return True
    files = [*folder.glob(f"*/{IDENTITY}"), *folder.glob(f"*/*/{IDENTITY}")]
    if any(file.parent.name.partition(".")[0] in STAGES for file in files):
        return True
    return {entry.name for entry in folder.iterdir()} <= {WRITER_LOCK, PLAN}  # refused before its first stage


def _removable(folder: Path, keep_traces: bool) -> list[Path]:
    """Return what a removal deletes, in order: whole entries, or with `keep_traces` the parts of rounds."""
    if not keep_traces:
        return sorted(folder.iterdir())
    rounds = {folder / name for name in _round_names(folder)}
    entries = [entry for one in folder.iterdir() for entry in (one.iterdir() if one in rounds else (one,))]
    return sorted(entry for entry in entries if not _is_kept(entry))


def _is_kept(entry: Path) -> bool:
    """Return whether `keep_traces` keeps an entry of a run's folder.

    It keeps traces, including those of an older recipe (`generate.replaced-1`), and the files by which the folder
    remains a run that can be resumed.
    """
    return entry.name.partition(".")[0] in (SAMPLED, IMPORTED) or entry.name in (WRITER_LOCK, COMMAND)


def _bytes_of(entry: Path) -> int:
    return _size_and_change(entry)[0] if entry.is_dir() and not entry.is_symlink() else entry.lstat().st_size


def remove_run(folder: Path, keep_traces: bool = False) -> None:
    """Delete a run permanently. Links in it are deleted, not their targets.

    Args:
        folder: `runs/<name>`.
        keep_traces: keep the traces (`generate/` or `import/`).

    Raises:
        StoreError: see `what_would_go`; or a file cannot be deleted.
    """
    what_would_go(folder, keep_traces)
    with only_writer(folder), disk_errors(folder):
        out = folder.with_name(f".{folder.name}{REMOVING}{os.getpid()}")
        if not keep_traces:
            folder.rename(out)
        else:
            out.mkdir()
            for entry in _removable(folder, keep_traces):
                aside = out / entry.relative_to(folder)
                aside.parent.mkdir(exist_ok=True)
                entry.rename(aside)
        shutil.rmtree(out)


def finish_removal(runs_dir: Path, name: str) -> bool:
    """Delete what an interrupted removal left; return whether there was anything.

    Raises:
        StoreError: a file cannot be deleted.
    """
    left = list(runs_dir.glob(f".{glob.escape(name)}{REMOVING}*")) if "/" not in name else []
    with disk_errors(runs_dir):
        for folder in left:
            shutil.rmtree(folder)
    return bool(left)
