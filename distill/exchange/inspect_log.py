"""Write an evaluation as logs of Inspect (`inspect_ai`), one a model and benchmark, in its JSON format.

    2026-11-27T03-53-26-00-00_gsm8k_<id>.json

`inspect_ai.log.read_eval_log`, its viewer and `inspect_ai.analysis` read them. The format is version 2 of the models in
`inspect_ai/log/_log.py` (0.3.285). A sample's epoch is its index plus one. Scores are "C", "I", the share of credit of
an answer with partial credit or, for an answer that could not be graded, NaN: Inspect's mark of "not scored", which its
metrics leave out. A log that lacks samples has the status "cancelled", one with failed samples "error".
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, timedelta
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from distill.core.plurals import counted
from distill.core.records import REASONS, FinishReason, Message, Problem, Trace, Verdict
from distill.core.thinking import join_reasoning, whole_characters
from distill.evaluation.scoring import sample_score
from distill.exchange.evaluated import Evaluated, Sample, file_slug, read_evaluations
from distill.grading.options import options_of
from distill.storage.files import disk_errors

FORMAT_VERSION = 2
SCORER = "distill"
STOP_REASONS: dict[FinishReason, str] = {"stop": "stop", "length": "max_tokens", "loop": "unknown", "error": "unknown"}
WITHHELD = "(withheld: the benchmark's text must not be published)"
_GENERATE = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_tokens": "max_tokens"}
"""Name in Inspect's GenerateConfig -> name in a protocol."""
_WHOLE_CREDIT: dict[float, str | float] = {1.0: "C", 0.0: "I"}
"""Score -> Inspect's value. Partial credit is written as the score itself, which its metrics average."""


def write_inspect_logs(folder: Path, target: Path, withheld: Collection[str] = ()) -> list[Path]:
    """Write a log of each model on each benchmark.

    Args:
        folder: the `eval` folder of a run, complete or interrupted.
        target: the folder of the logs; made if it does not exist.
        withheld: benchmarks whose texts must not be published: their logs have scores and token counts alone.

    Returns:
        The logs, in the order of models and benchmarks. The same evaluation gives the same files.

    Raises:
        ExchangeError: no model's answers are in the folder.
        StoreError: a file of the evaluation is damaged.
        DiskError: the disk is full or not writable.
    """
    return [write_log(one, target, one.benchmark in withheld) for one in read_evaluations(folder)]


def write_log(evaluated: Evaluated, target: Path, withhold: bool = False) -> Path:
    """Write one log, holding one problem's answers in memory at a time. Raises as `write_inspect_logs`."""
    header = log_header(evaluated)
    created = str(header["eval"]["created"]).replace(":", "-").replace("+", "-")
    name = f"{created}_{file_slug(evaluated.benchmark)}_{header['eval']['task_id']}.json"
    path, part = target / name, target / f".{name}.part"
    with disk_errors(path):
        target.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w", encoding="ascii") as stream:
                # Readers of the header stop at "samples", so that it comes last.
                stream.write(json.dumps(header, indent=1)[:-2] + ',\n "samples": [')
                for place, sample in enumerate(log_samples(evaluated, withhold)):
                    stream.write(("," if place else "") + "\n  " + json.dumps(sample))
                stream.write("\n ]\n}\n")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def log_header(evaluated: Evaluated) -> dict[str, Any]:
    """Return a log without its samples."""
    scores = {name: score for name, score in evaluated.scores_by_problem().items() if score is not None}
    usage = _usage_of_all(evaluated)
    status, why = _status(evaluated)
    started = evaluated.finished_at - timedelta(seconds=evaluated.seconds)
    header: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "status": status,
        "eval": _spec(evaluated),
        "plan": {
            "name": "plan",
            "steps": [{"solver": "generate", "params": {}, "params_passed": {}}],
            "config": _generate_config(evaluated.protocol),
        },
        "results": _results(evaluated, scores),
        "stats": {
            "started_at": _utc(started),
            "completed_at": _utc(evaluated.finished_at),
            "model_usage": {evaluated.model: usage} if usage else {},
            "role_usage": {},
        },
        "invalidated": False,
        "reductions": [
            {
                "scorer": SCORER,
                "reducer": "mean",
                "samples": [{"value": value, "history": [], "sample_id": name} for name, value in scores.items()],
            }
        ],
    }
    if why:
        header["error"] = _error(why)
    return header


def log_samples(evaluated: Evaluated, withhold: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the samples that have been answered or have failed, problem after problem."""
    for sample in evaluated.samples():
        if sample.trace is not None:
            found = _sample(sample, sample.trace, evaluated.model, withhold)
            # Data frames of several logs keep one sample a name, and two runs may ask one model the same.
            yield found | {"uuid": _id(_run_id(evaluated), evaluated.benchmark, found["id"], str(found["epoch"]))}


def _spec(evaluated: Evaluated) -> dict[str, Any]:
    protocol = dict(evaluated.protocol)
    run_id = _run_id(evaluated)
    return {
        "eval_id": _id(run_id, evaluated.benchmark, "eval"),
        "run_id": run_id,
        "created": _utc(evaluated.finished_at),
        "task": evaluated.benchmark,
        "task_id": _id(run_id, evaluated.benchmark),
        "task_version": str(protocol.get("hash", "0"))[:64],
        "task_args": {},
        "task_args_passed": {},
        "tags": ["distill", evaluated.role],
        "dataset": {
            "name": evaluated.benchmark,
            "samples": len(evaluated.problems),
            "sample_ids": [problem.id for problem in evaluated.problems],
            "shuffled": False,
        },
        "model": evaluated.model,
        "model_generate_config": _generate_config(protocol),
        "model_args": {},
        "config": {
            "epochs": evaluated.samples_per_problem,
            "epochs_reducer": ["mean"],
            "fail_on_error": False,
            "log_samples": True,
        },
        "packages": {"distill": metadata.version("distill")},
        "metadata": {"run": evaluated.run, "role": evaluated.role, "protocol": protocol},
        "scorers": [{"name": SCORER, "metrics": [{"name": "accuracy"}, {"name": "stderr"}]}],
    }


def _results(evaluated: Evaluated, scores: Mapping[str, float]) -> dict[str, Any]:
    """Return the metrics as Inspect works them out from the samples, and distill's own score beside them."""
    values = list(scores.values())
    metrics: dict[str, Any] = {}
    if values:
        metrics["accuracy"] = {"name": "accuracy", "value": fmean(values), "params": {}}
        # Of the mean over problems: their standard deviation over the root of their number, as Inspect's `stderr`.
        error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        metrics["stderr"] = {"name": "stderr", "value": error, "params": {}}
    if evaluated.pass_at_1 is not None:
        low_and_high = {"interval_95": list(evaluated.interval_95)} if evaluated.interval_95 else {}
        metrics["distill_pass_at_1"] = {
            "name": "distill_pass_at_1",
            "value": evaluated.pass_at_1,
            "params": {},
            "metadata": low_and_high,
        }
    score = {
        "name": SCORER,
        "scorer": SCORER,
        "reducer": "mean",
        "scored_samples": len(values),
        "unscored_samples": len(evaluated.problems) - len(values),
        "params": {},
        "metrics": metrics,
    }
    return {
        "total_samples": evaluated.num_wanted,
        "completed_samples": evaluated.num_wanted - evaluated.num_missing - evaluated.num_failed,
        "scores": [score],
        "headline": {"scorer": SCORER, "score": SCORER, "metric": "accuracy"},
        "metadata": {
            "num_missing": evaluated.num_missing,
            "num_failed": evaluated.num_failed,
            "num_ungraded": evaluated.num_ungraded,
        },
    }


def _status(evaluated: Evaluated) -> tuple[str, str]:
    """Return Inspect's word for the state of the evaluation, and why it is not "success"."""
    missing, failed = evaluated.num_missing, evaluated.num_failed
    if not missing and not failed:
        return "success", ""
    why = (
        f"incomplete: of {counted(evaluated.num_wanted, 'sample')}, {missing} are missing and {failed} failed. "
        "The metrics are over the others."
    )
    return ("cancelled" if missing else "error"), why


def _sample(sample: Sample, trace: Trace, model: str, withhold: bool) -> dict[str, Any]:
    problem, failed = sample.problem, trace.finish_reason == "error"
    prompt = [{"role": "user", "content": WITHHELD}] if withhold else problem.prompt
    messages = [_message(trace.problem_id, sample.sample_index, place, one) for place, one in enumerate(prompt)]
    output, answer = _output(sample, trace, model, withhold)
    usage = _usage(trace)
    found: dict[str, Any] = {
        "id": problem.id,
        "epoch": sample.sample_index + 1,
        "input": messages[0]["content"] if [one["role"] for one in prompt] == ["user"] else messages,
        "target": WITHHELD if withhold else whole_characters(problem.answer or ""),
        "messages": messages + answer,
        "output": output,
        "scores": {} if failed or sample.verdict is None else {SCORER: _score(sample.verdict, withhold)},
        "metadata": _metadata(problem, trace, withhold),
        "store": {},
        "events": [],
        "model_usage": {model: usage},
        "role_usage": {},
        "attachments": {},
    }
    if problem.task == "choice" and not withhold:
        found["choices"] = [whole_characters(option) for option in options_of(problem)]
    if failed:
        found["error"] = _error(trace.error or "the engine could not answer")
    return found


def _output(sample: Sample, trace: Trace, model: str, withhold: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the model's output, and the messages that it adds to the conversation: one, or none after an error."""
    if trace.finish_reason == "error":
        return {"model": model, "choices": [], "completion": "", "error": whole_characters(trace.error)}, []
    content = WITHHELD if withhold else whole_characters(trace.content)
    parts: str | list[dict[str, Any]] = content
    if trace.reasoning and not withhold:
        thought = {"type": "reasoning", "reasoning": whole_characters(trace.reasoning), "redacted": False}
        parts = [thought, {"type": "text", "text": content}]
    message = {
        "id": _id(trace.problem_id, str(sample.sample_index), "answer"),
        "content": parts,
        "source": "generate",
        "role": "assistant",
        "model": model,
    }
    choice = {"message": message, "stop_reason": STOP_REASONS[trace.finish_reason]}
    return {"model": model, "choices": [choice], "completion": content, "usage": _usage(trace)}, [message]


def _message(problem: str, sample_index: int, place: int, message: Message) -> dict[str, Any]:
    found = {
        "id": _id(problem, str(sample_index), str(place)),
        "content": whole_characters(message["content"]),
        "role": message["role"],
    }
    return found | ({"source": "input"} if message["role"] == "user" else {})


def _score(verdict: Verdict, withhold: bool) -> dict[str, Any]:
    score = sample_score(verdict)
    value = math.nan if score is None else _WHOLE_CREDIT.get(score, score)
    found: dict[str, Any] = {"value": value, "history": []}
    if verdict.extracted_answer is not None and not withhold:
        found["answer"] = whole_characters(verdict.extracted_answer)
    if words := "; ".join(REASONS[reason] for reason in verdict.reasons):
        found["explanation"] = words
    if verdict.correct is None:
        found["explanation"] = f"not graded: {words}" if words else "not graded"
        found["reason"] = "grader_failed" if "ungraded_judge" in verdict.reasons else "scoring_failed"
    details = {} if withhold else {key: whole_characters(text) for key, text in verdict.details.items()}
    found["metadata"] = {"reasons": list(verdict.reasons), "graded_by": verdict.graded_by, **details}
    return found


def _metadata(problem: Problem, trace: Trace, withhold: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "task": problem.task,
        "source": problem.source,
        "finish_reason": trace.finish_reason,
        "seed": trace.seed,
    }
    if withhold:
        return found
    if trace.finish_reason != "error" and join_reasoning(trace.reasoning, trace.content) != trace.text.strip():
        found["text"] = whole_characters(trace.text)  # what reasoning and answer alone do not tell
    if problem.metadata:
        found["problem"] = _whole(problem.metadata)
    return found


def _usage(trace: Trace) -> dict[str, int]:
    total = trace.num_prompt_tokens + trace.num_completion_tokens
    return {
        "input_tokens": trace.num_prompt_tokens,
        "output_tokens": trace.num_completion_tokens,
        "total_tokens": total,
    }


def _usage_of_all(evaluated: Evaluated) -> dict[str, int]:
    total: Counter[str] = Counter()
    for sample in evaluated.samples():
        if sample.trace is not None:
            total.update(_usage(sample.trace))
    return dict(total)


def _generate_config(protocol: Mapping[str, Any]) -> dict[str, Any]:
    found = {theirs: protocol[ours] for theirs, ours in _GENERATE.items() if protocol.get(ours) is not None}
    # vLLM's -1 and 0 mean "all tokens", which Inspect expresses by leaving it out.
    return {key: value for key, value in found.items() if key != "top_k" or value > 0}


def _error(message: str) -> dict[str, str]:
    text = whole_characters(message)
    return {"message": text, "traceback": text, "traceback_ansi": text}


def _whole(value: Any) -> Any:
    """Return a JSON value whose texts UTF-8 can encode and whose numbers are finite."""
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, Mapping):
        return {whole_characters(str(key)): _whole(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run_id(evaluated: Evaluated) -> str:
    return _id(evaluated.run, evaluated.role, evaluated.finished_at.isoformat())


def _id(*parts: str) -> str:
    """Return a name made of what it names, so that a repeated export gives the same one."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:22]


def _utc(moment: Any) -> str:
    return str(moment.astimezone(UTC).isoformat(timespec="seconds"))
