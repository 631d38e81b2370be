"""Pick the traces that the report shows. Enters: a run folder. Leaves: up to ten dicts, kept and dropped ones."""

from pathlib import Path
from typing import Any

from distill.records import Problem
from distill.store import read_jsonl
from distill.trace_store import stored_traces

NUM_TRACES = 10
NUM_KEPT = 5
NUM_PER_REASON = 2


def traces_to_read(run_dir: Path, source: str) -> list[dict[str, Any]]:
    """Some kept traces, then some of each reason for a drop; none before the filter has run."""
    verdict_file = run_dir / "filter" / "verdicts.jsonl"
    if not (run_dir / "filter" / "manifest.json").exists():
        return []
    picked: dict[tuple[str, int], dict[str, Any]] = {}
    num_by_reason: dict[str, int] = {}
    for verdict in read_jsonl(verdict_file):
        reason = verdict["reasons"][0] if verdict["reasons"] else "kept"
        most = NUM_KEPT if reason == "kept" else NUM_PER_REASON
        if num_by_reason.get(reason, 0) < most:
            num_by_reason[reason] = num_by_reason.get(reason, 0) + 1
            picked[(verdict["problem_id"], verdict["sample_index"])] = verdict
    problems = {row["id"]: Problem.from_json(row) for row in read_jsonl(run_dir / source / "problems.jsonl")}
    rows = []
    for trace in stored_traces(run_dir / source):
        # A problem set that has changed since the filter ran may lack some of its problems.
        if trace.key in picked and trace.problem_id in problems:
            problem, verdict = problems[trace.problem_id], picked[trace.key]
            texts = {"prompt": problem.question, "answer": problem.answer}
            rows.append({**trace.to_json(), **verdict, **texts, "kept": not verdict["reasons"]})
    rows.sort(key=lambda row: (not row["kept"], row["problem_id"], row["sample_index"]))
    return rows[:NUM_TRACES]
