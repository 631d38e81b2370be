"""`distill filter --explain`: one trace in detail: its text, its grade, and why it was kept or dropped."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.core.json_shape import VERDICT, fault
from distill.core.records import REASON_KEYS, REASONS, Verdict
from distill.core.terminal import printable
from distill.errors import StoreError, UserError
from distill.grading.code.verdicts import FAILED_TEST, OUTPUTS
from distill.report.on_page import address_of, traces_on
from distill.storage.files import iter_jsonl
from distill.storage.layout import PROBLEMS, REPORT
from distill.storage.problem_file import ProblemFile
from distill.storage.run_files import RunFiles
from distill.storage.run_folder import StageFolder
from distill.storage.trace_store import traces_of

SCHEMA_VERSION = 1
NUM_SHOWN_CHARS = 1_500
NUM_NEAR = 5


def explain(run_dir: Path, source: str, wanted: str) -> dict[str, Any]:
    """Return the filter's verdict on a trace, or on all traces of a problem, as a JSON-ready dict.

    Args:
        run_dir: `runs/<name>`.
        source: the stage that the traces come from.
        wanted: `problem_id` or `problem_id/sample_index`; a unique prefix of the problem's id is enough.

    Raises:
        UserError: the filter has not finished, or there is no such id.
    """
    folder = RunFiles(run_dir).graded
    if not StageFolder(folder).is_complete:
        raise UserError(f"{folder}: the filter has not finished here. Run `distill filter` first.")
    name, index, verdicts = _find(folder / "verdicts.jsonl", wanted)
    if index and int(index) not in {verdict.sample_index for verdict in verdicts}:
        there = ", ".join(str(verdict.sample_index) for verdict in verdicts)
        raise UserError(f"--explain: problem {name} has no trace {index}; there are {there}. Give one of these.")
    problem_id = verdicts[0].problem_id
    texts = {trace.sample_index: trace for trace in traces_of(run_dir / source, problem_id)}
    with ProblemFile(run_dir / source / PROBLEMS) as problems:
        problem = problems[problem_id]
    shown = traces_on(run_dir / REPORT)
    traces = []
    for verdict in verdicts:
        trace = texts.get(verdict.sample_index)
        if trace is None:
            raise UserError(f"--explain: {run_dir / source} changed after filtering. Run `distill filter` again.")
        about = {
            "finish_reason": trace.finish_reason,
            "num_completion_tokens": trace.told_tokens,
            "teacher": trace.teacher,
            "address": address_of(run_dir / REPORT, verdict.key) if shown and verdict.key in shown else None,
        }
        traces.append({**verdict.to_json(), "kept": verdict.kept, **about, "text": trace.text})
    return {
        "schema_version": SCHEMA_VERSION,
        "problem": problem.to_json(),
        "wanted": int(index) if index else None,
        "num_in_report": None if shown is None else len(shown),
        "traces": traces,
    }


def story(found: dict[str, Any]) -> list[str]:
    """Return the result of `explain` as lines for a terminal."""
    return [printable(line) for line in _lines(found)]


def _lines(found: dict[str, Any]) -> list[str]:
    problem = found["problem"]
    lines = [f"Problem {problem['id']} ({problem['source']}, {problem['task']})"]
    lines += [f"  {line}" for line in printable(problem["prompt"][-1]["content"]).splitlines()]
    lines.append(f"  expected answer: {problem['answer'] if problem['answer'] is not None else 'none'}")
    for trace in found["traces"]:
        if found["wanted"] in (None, trace["sample_index"]):
            lines += ["", *_trace_lines(trace, found["num_in_report"], whole=found["wanted"] is not None)]
    others = [trace for trace in found["traces"] if found["wanted"] not in (None, trace["sample_index"])]
    if others:
        lines += ["", "Its other traces"]
        lines += [f"  {t['sample_index']:>3}  {_grade(t)}, {_fate(t)}" for t in others]
    return lines


def _trace_lines(trace: dict[str, Any], num_in_report: int | None, whole: bool) -> list[str]:
    lines = [
        f"Trace {trace['problem_id']}/{trace['sample_index']}: {'kept' if trace['kept'] else 'dropped'}",
        f"  by {trace['teacher']}, {_length(trace)}, ended by {trace['finish_reason']}",
        f"  {_grade(trace)}",
    ]
    for reason in trace["reasons"]:
        detail = trace["details"].get(reason)
        keys = f" ({', '.join(REASON_KEYS[reason])})" if REASON_KEYS.get(reason) else ""
        lines.append(f"  {reason}: {REASONS[reason]}" + (f" [{detail}]" if detail else "") + keys)
    told = {*trace["reasons"], FAILED_TEST, OUTPUTS}  # its reason tells of the test in words
    lines += [f"  {name}: {detail}" for name, detail in trace["details"].items() if name not in told]
    if trace["address"] is not None:
        lines.append(f"  in the report: {trace['address']}")
    elif num_in_report is not None:
        lines.append(f"  not in the report, which shows {num_in_report:,} traces")
    if whole:
        text = printable(trace["text"])
        middle = f"\n… {len(text) - 2 * NUM_SHOWN_CHARS:,} characters …\n"
        if len(text) > 2 * NUM_SHOWN_CHARS:
            text = text[:NUM_SHOWN_CHARS] + middle + text[-NUM_SHOWN_CHARS:]
        lines += ["  text:", *(f"    {line}" for line in text.splitlines())]
    return lines


def _length(trace: dict[str, Any]) -> str:
    """Return the length in the student's tokens, else in the teacher's; a dash if neither is known."""
    if trace["num_student_tokens"] is not None:
        return f"{trace['num_student_tokens']:,} tokens of the student"
    told = trace["num_completion_tokens"]
    return "\N{EN DASH} tokens" if told is None else f"{told:,} tokens"


def _grade(trace: dict[str, Any]) -> str:
    extracted = trace["extracted_answer"]
    answer = "no answer found" if extracted is None else f"answer {printable(extracted)}"
    grade = {True: "right", False: "wrong", None: "not graded"}[trace["correct"]]
    by = f" (by {trace['graded_by']})" if trace["graded_by"] not in ("", "rule") else ""
    return f"{answer}, {grade}{by}"


def _fate(trace: dict[str, Any]) -> str:
    return "kept" if trace["kept"] else f"dropped: {', '.join(trace['reasons'])}"


def _find(file: Path, wanted: str) -> tuple[str, str, list[Verdict]]:
    """Return the problem's id as given, the sample's index or "", and the verdicts on the problem's traces.

    Raises:
        UserError: see `_verdicts_of`.
    """
    name, slash, index = wanted.rpartition("/")
    if slash and index.isdigit():
        with contextlib.suppress(UserError):  # a problem's id may itself end in a slash and digits
            return wanted, "", _verdicts_of(file, wanted)
        return name, index, _verdicts_of(file, name)
    return wanted, "", _verdicts_of(file, wanted)


def _verdicts_of(file: Path, name: str) -> list[Verdict]:
    """Return the verdicts on one problem's traces.

    Raises:
        UserError: no problem has this id, and none or several have ids that begin with it.
    """
    found = list(_verdicts(file, name))
    exact = [verdict for verdict in found if verdict.problem_id == name]
    ids = sorted({verdict.problem_id for verdict in found})
    if exact or len(ids) == 1:
        return exact or found
    if ids:
        more = f" and {len(ids) - NUM_NEAR} more" if len(ids) > NUM_NEAR else ""
        raise UserError(
            f"--explain: {name} is the beginning of several problem ids: {', '.join(ids[:NUM_NEAR])}{more}. "
            "Give more of the id."
        )
    raise UserError(f"--explain: {file} has no problem {name}. Give problem_id or problem_id/sample_index of a row.")


def _verdicts(file: Path, start: str) -> Iterator[Verdict]:
    """Yield the verdicts on problems whose ids begin with `start`.

    Raises:
        StoreError: the file is gone or damaged.
    """
    for row in iter_jsonl(file):
        what = fault(row, VERDICT)
        try:
            if not what and row["problem_id"].startswith(start):
                yield Verdict.from_json(row)
        except ValueError as error:  # an unknown reason
            what = str(error)
        if what:
            raise StoreError(f"{file}: damaged ({what}). `distill filter` makes it again.")
