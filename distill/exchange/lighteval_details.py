"""Write an evaluation as lighteval saves its own: results and details, in its folders.

    results/org/student/results_2026-11-27T03-54-26.json
    details/org/student/2026-11-27T03-54-26/details_gsm8k|0_2026-11-27T03-54-26.parquet

A row of the details is a problem with all its samples. The columns are those of lighteval 0.13 (`DetailsLogger.Detail`
in `lighteval/logging/info_loggers.py`): `doc`, `metric` and `model_response`, of its classes `Doc` and `ModelResponse`.
Its `EvaluationTracker.load_details_datasets` reads them, and its pipeline grades the answers again by its own rules
(`--load-responses-from-details-date-id`).

    {"doc": {"query": "What is 3 + 4?", "choices": ["7"], "gold_index": 0, …},
     "metric": {"avg@n:n=2": 0.5},
     "model_response": {"text": ["<think>…</think>7", "8"], "text_post_processed": ["7", "8"], …}}

lighteval has no word for a sample that is missing or failed. It is left out of `text`, and of the metric, which is null
if nothing is left; `doc.specific` and the key `distill` of the results count such samples.
"""

import math
from collections.abc import Collection, Mapping
from datetime import UTC
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from distill.core.records import Problem
from distill.core.thinking import whole_characters
from distill.exchange.evaluated import Evaluated, Sample, file_slug, read_evaluations
from distill.exchange.inspect_log import WITHHELD
from distill.grading.options import options_of
from distill.storage.files import disk_errors, write_json

NUM_FEWSHOT = 0
MAX_ROW_GROUP_CHARS = 32 << 20
"""Characters of answers after which rows are written out."""


def write_lighteval_details(folder: Path, target: Path, withheld: Collection[str] = ()) -> list[Path]:
    """Write the results of each model, and its details on each benchmark.

    Args:
        folder: the `eval` folder of a run, complete or interrupted.
        target: the folder to write into, lighteval's `output_dir`; made if it does not exist.
        withheld: benchmarks whose texts must not be published: their details have scores alone.

    Returns:
        Each model's results, followed by its details.

    Raises:
        ExchangeError: no model's answers are in the folder.
        StoreError: a file of the evaluation is damaged.
        DiskError: the disk is full or not writable.
    """
    by_model: dict[str, list[Evaluated]] = {}
    for one in read_evaluations(folder):
        by_model.setdefault(one.model, []).append(one)
    written = []
    for model, evaluations in by_model.items():
        place = "/".join(file_slug(part) for part in model.split("/"))
        date = evaluations[0].finished_at.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%S")
        results = target / "results" / place / f"results_{date}.json"
        write_json(results, results_of(evaluations))
        written.append(results)
        for one in evaluations:
            path = target / "details" / place / date / f"details_{task_name(one)}_{date}.parquet"
            _write_parquet(path, one, one.benchmark in withheld)
            written.append(path)
    return written


def task_name(evaluated: Evaluated) -> str:
    """Return lighteval's name of a benchmark: its own and the number of worked examples in the prompt."""
    return f"{file_slug(evaluated.benchmark)}|{NUM_FEWSHOT}"


def metric_name(evaluated: Evaluated) -> str:
    """Return lighteval's name of the mean over k samples: its `avg@n`, which equals pass@1."""
    return f"avg@n:n={evaluated.samples_per_problem}"


def results_of(evaluations: Collection[Evaluated]) -> dict[str, Any]:
    """Return the results of one model with the keys of lighteval's `EvaluationTracker.results`."""
    first = next(iter(evaluations))
    scores = {task_name(one): _aggregated(one) for one in evaluations}
    return {
        "config_general": {
            "lighteval_sha": "?",
            "num_fewshot_seeds": 1,
            "max_samples": None,
            "job_id": "",
            "start_time": 0.0,
            "end_time": first.seconds,
            "total_evaluation_time_secondes": str(first.seconds),
            "model_config": {
                "model_name": first.model,
                "generation_parameters": _generation_parameters(first.protocol),
                "system_prompt": None,
            },
            "model_name": first.model,
        },
        "results": scores | {"all": _mean_over_tasks(list(scores.values()))},
        "versions": {task_name(one): str(one.protocol.get("hash", "0")) for one in evaluations},
        "config_tasks": {task_name(one): _task_config(one) for one in evaluations},
        "summary_tasks": {},
        "summary_general": {},
        "distill": {task_name(one): _account(one) for one in evaluations},
    }


def detail_of(evaluated: Evaluated, problem: Problem, withhold: bool = False) -> dict[str, Any]:
    """Return a row of the details: a problem with its samples."""
    samples = evaluated.samples_of(problem)
    graded = [sample.score for sample in samples if sample.score is not None]
    return {
        "doc": _doc(evaluated, problem, samples, withhold),
        "metric": {metric_name(evaluated): sum(graded) / len(graded) if graded else None},
        "model_response": _response(problem, samples, withhold),
    }


def _doc(evaluated: Evaluated, problem: Problem, samples: list[Sample], withhold: bool) -> dict[str, Any]:
    golds, gold_index = _golds(problem)
    system = next((m["content"] for m in problem.prompt if m["role"] == "system"), None)
    return {
        "query": WITHHELD if withhold else whole_characters(problem.questions),
        "choices": [WITHHELD] if withhold else [whole_characters(gold) for gold in golds],
        "gold_index": 0 if withhold else gold_index,
        "instruction": None if withhold or system is None else whole_characters(system),
        "specific": {
            "task": problem.task,
            "source": problem.source,
            "sample_indices": [sample.sample_index for sample in samples if sample.is_answered],
            "num_missing": sum(sample.trace is None for sample in samples),
            "num_failed": sum(sample.trace is not None and not sample.is_answered for sample in samples),
            "num_ungraded": sum(sample.is_answered and sample.score is None for sample in samples),
        },
        "id": problem.id,
        "task_name": task_name(evaluated),
        "fewshot_samples": [],
        "sampling_methods": ["GENERATIVE"],
        "generation_size": evaluated.protocol.get("max_tokens"),
        "use_logits": False,
        "num_samples": evaluated.samples_per_problem,
    }


def _golds(problem: Problem) -> tuple[list[str], int]:
    """Return the choices, and which of them is right: the options, else the expected answer alone."""
    options = options_of(problem) if problem.task == "choice" else []
    letter = (problem.answer or "").strip().upper()
    place = ord(letter) - ord("A") if len(letter) == 1 else -1
    if 0 <= place < len(options):
        return options, place
    if problem.answer in options:
        return options, options.index(problem.answer)
    return ([] if problem.answer is None else [problem.answer]), 0


def _response(problem: Problem, samples: list[Sample], withhold: bool) -> dict[str, Any]:
    traces = [sample.trace for sample in samples if sample.trace is not None and sample.is_answered]

    def shown(text: str) -> str:
        return WITHHELD if withhold else whole_characters(text)

    return {
        "input": [{"role": m["role"], "content": shown(m["content"])} for m in problem.prompt],
        "input_tokens": [],
        "text": [shown(trace.text) for trace in traces],
        "output_tokens": [],
        "text_post_processed": [shown(trace.content) for trace in traces],
        "reasonings": [shown(trace.reasoning) if trace.reasoning else None for trace in traces],
        "logprobs": [],
        "argmax_logits_eq_gold": [],
        "truncated_tokens_count": 0,
        "padded_tokens_count": 0,
    }


def _schema(metric: str) -> Any:
    """Return the Arrow schema, in the order of lighteval's fields; what distill never has is of the type null."""
    import pyarrow as pa

    text, texts, whole = pa.string(), pa.list_(pa.string()), pa.int64()
    counts = [(name, whole) for name in ("num_missing", "num_failed", "num_ungraded")]
    specific = pa.struct([("task", text), ("source", text), ("sample_indices", pa.list_(whole)), *counts])
    doc = [
        *(("query", text), ("choices", texts), ("gold_index", whole), ("instruction", text), ("images", pa.null())),
        *(("specific", specific), ("unconditioned_query", pa.null()), ("original_query", pa.null()), ("id", text)),
        *(("task_name", text), ("fewshot_samples", pa.list_(pa.null())), ("sampling_methods", texts)),
        *(("fewshot_sorting_class", pa.null()), ("generation_size", whole), ("stop_sequences", pa.null())),
        *(("use_logits", pa.bool_()), ("num_samples", whole), ("generation_grammar", pa.null())),
    ]
    response = [
        *(("input", pa.list_(pa.struct([("role", text), ("content", text)]))), ("input_tokens", pa.list_(whole))),
        *(("text", texts), ("output_tokens", pa.list_(pa.list_(whole))), ("text_post_processed", texts)),
        *(("reasonings", texts), ("logprobs", pa.list_(pa.float64()))),
        *(("argmax_logits_eq_gold", pa.list_(pa.bool_())), ("logits", pa.null())),
        *(("unconditioned_logprobs", pa.null()), ("truncated_tokens_count", whole), ("padded_tokens_count", whole)),
    ]
    columns = [("doc", doc), ("metric", [(metric, pa.float64())]), ("model_response", response)]
    return pa.schema([(name, pa.struct(fields)) for name, fields in columns])


def _write_parquet(path: Path, evaluated: Evaluated, withhold: bool) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema, part = _schema(metric_name(evaluated)), path.with_name(f".{path.name}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with parquet.ParquetWriter(part, schema) as writer:
                rows: list[dict[str, Any]] = []
                num_chars = 0
                for problem in evaluated.problems:
                    rows.append(detail_of(evaluated, problem, withhold))
                    num_chars += sum(map(len, rows[-1]["model_response"]["text"]))
                    if num_chars > MAX_ROW_GROUP_CHARS:
                        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                        rows, num_chars = [], 0
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _aggregated(evaluated: Evaluated) -> dict[str, float]:
    """Return the mean over problems with a grade, and its standard error as lighteval works it out."""
    values = [score for score in evaluated.scores_by_problem().values() if score is not None]
    name = metric_name(evaluated)
    found = {name: fmean(values)} if values else {}
    return found | ({f"{name}_stderr": stdev(values) / math.sqrt(len(values))} if len(values) > 1 else {})


def _mean_over_tasks(scores: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in scores for name in one)
    return {name: fmean(one[name] for one in scores if name in one) for name in names}


def _generation_parameters(protocol: Mapping[str, Any]) -> dict[str, Any]:
    names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_new_tokens": "max_tokens"}
    return {theirs: protocol.get(ours) for theirs, ours in names.items()}


def _task_config(evaluated: Evaluated) -> dict[str, Any]:
    return {
        "name": file_slug(evaluated.benchmark),
        "metrics": [{"metric_name": metric_name(evaluated), "higher_is_better": True, "category": "GENERATIVE"}],
        "generation_size": evaluated.protocol.get("max_tokens"),
        "num_samples": evaluated.samples_per_problem,
        "original_num_docs": len(evaluated.problems),
        "effective_num_docs": len(evaluated.problems),
        "num_fewshots": NUM_FEWSHOT,
    }


def _account(evaluated: Evaluated) -> dict[str, Any]:
    """Return what lighteval has no place for: protocol, distill's own score, and what is incomplete."""
    return {
        "run": evaluated.run,
        "role": evaluated.role,
        "protocol": dict(evaluated.protocol),
        "pass_at_1": evaluated.pass_at_1,
        "interval_95": None if evaluated.interval_95 is None else list(evaluated.interval_95),
        "num_wanted": evaluated.num_wanted,
        "num_missing": evaluated.num_missing,
        "num_failed": evaluated.num_failed,
        "num_ungraded": evaluated.num_ungraded,
    }
