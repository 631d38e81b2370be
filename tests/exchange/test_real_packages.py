"""Our exports open in the real Inspect and the real lighteval, in environments of their own that are made once.

Where an environment cannot be made (no network), its tests are skipped. `DISTILL_TEST_ENVIRONMENTS` says where they are
kept; default: the user's cache.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.exchange.child_server import answers, child_server, free_port
from distill.exchange.inspect_import import read_inspect_log
from distill.exchange.inspect_log import write_inspect_logs
from distill.exchange.inspect_task import InspectRun, run_inspect_task
from distill.exchange.lighteval_details import write_lighteval_details
from distill.exchange.model_server import Endpoint

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
KEY = "key-of-the-server"

READ = """
import json, math, sys
from pathlib import Path
from inspect_ai.analysis import evals_df, samples_df
from inspect_ai.log import list_eval_logs, read_eval_log, write_eval_log
from inspect_ai import score
from inspect_ai.scorer import match
folder, converted = sys.argv[1], Path(sys.argv[2])
found = {}
for entry in list_eval_logs(folder):
    log = read_eval_log(entry)
    assert read_eval_log(entry, header_only=True).status == log.status
    name = f"{log.eval.metadata['run']} {log.eval.task} {log.eval.metadata['role']}"
    found[name] = {
        "status": log.status,
        "error": log.error and log.error.message,
        "model": log.eval.model,
        "epochs": log.eval.config.epochs,
        "accuracy": (m := log.results.scores[0].metrics) and m["accuracy"].value,
        "headline": log.results.headline.metric,
        "values": [one.scores["distill"].as_str() if one.scores else None for one in log.samples],
        "completions": [one.output.completion for one in log.samples],
        "stops": [one.output.choices[0].stop_reason if one.output.choices else None for one in log.samples],
        "tokens": sum(one.output.usage.output_tokens for one in log.samples if one.output.usage),
    }
    write_eval_log(log, str(converted / f"{log.eval.task_id}.eval"))
    if name == "small sums base":
        again = score(log, match(numeric=True), action="overwrite", model="none/none", display="none")
        found["scored"] = [one.scores["match"].as_str() for one in again.samples]
evals = evals_df(folder, strict=True)
samples = samples_df(folder, strict=True)
found["evals"] = {"rows": len(evals), "status": sorted(evals["status"])}
found["samples"] = {"rows": len(samples), "scores": sorted(map(str, samples["score_distill"]))}
print(json.dumps(found))
"""


def run_python(python, script, *arguments, cwd):
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [str(python), "-c", script, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_inspect_reads_our_logs_and_scores_them(inspect_python, evaluation, incomplete, tmp_path):
    logs, converted = tmp_path / "logs", tmp_path / "converted"
    converted.mkdir()
    write_inspect_logs(evaluation, logs)
    write_inspect_logs(incomplete, logs, withheld=["zoo"])
    found = run_python(inspect_python, READ, logs, converted, cwd=tmp_path)
    sums, cut, failed = found["small sums base"], found["cut sums base"], found["cut zoo base"]
    assert (sums["status"], sums["epochs"], sums["accuracy"]) == ("success", 2, 0.75)
    assert sums["values"] == ["C", "I", "nan", "C"]
    assert sums["stops"] == ["stop", "stop", "max_tokens", "unknown"]
    assert sums["completions"][0] == "It is \\boxed{3}."
    assert found["small zoo student"]["model"] == "small/student"
    assert (cut["status"], failed["status"], failed["values"]) == ("cancelled", "error", [None])
    assert "1 are missing" in cut["error"]
    assert found["evals"] == {"rows": 8, "status": ["cancelled"] * 2 + ["error"] * 2 + ["success"] * 4}
    assert found["samples"]["rows"] == 18
    assert {value: found["samples"]["scores"].count(value) for value in "CI"} == {"C": 8, "I": 4}
    assert len(found["scored"]) == 4
    # What Inspect has read and written again is still what we wrote.
    for path in converted.iterdir():
        original = read_inspect_log(next(logs.glob(f"*{path.stem}*")))
        again = read_inspect_log(path)
        assert {one.key: one.to_json() for one in again.traces} == {one.key: one.to_json() for one in original.traces}
        assert [one.correct for one in again.verdicts] == [one.correct for one in original.verdicts]


def test_the_viewer_bundles_our_logs(inspect_python, evaluation, incomplete, tmp_path):
    logs, bundle = tmp_path / "logs", tmp_path / "bundle"
    write_inspect_logs(evaluation, logs)
    write_inspect_logs(incomplete, logs)
    command = [inspect_python, "-m", "inspect_ai", "view", "bundle", "--log-dir", logs, "--output-dir", bundle]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (bundle / "index.html").exists()
    listing = json.loads((bundle / "logs" / "listing.json").read_text())
    assert len(listing) == 8
    statuses = {one["task"]: set() for one in listing.values()}
    for one in listing.values():
        statuses[one["task"]].add(one["status"])
    assert statuses == {"sums": {"success", "cancelled"}, "zoo": {"success", "error"}}


@contextlib.contextmanager
def served(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    command = [sys.executable, str(HERE / "openai_server.py"), str(port)]
    with child_server(command, os.environ, tmp_path / "server.log", lambda: answers(f"{url}/models", KEY), 30.0):
        yield Endpoint(url, "student", KEY)


def test_a_task_of_the_real_inspect_runs_against_a_server(inspect_python, tmp_path):
    task = f"{HERE / 'inspect_tasks.py'}@sums"
    run = InspectRun(task, inspect_python, samples_per_problem=3, temperature=0.6, max_tokens=64)
    log = run_inspect_task(run, served(tmp_path), tmp_path / "out")
    assert (log.task, log.status, log.why_incomplete, log.scorer) == ("sums", "success", "", "match")
    assert [one.correct for one in log.verdicts].count(True) == 3
    assert len(log.traces) == log.num_wanted == 6
    assert {(one.reasoning, one.content) for one in log.traces} == {("Let me see.", "The answer is 3")}
    requests = [json.loads(line) for line in (tmp_path / "server.log").read_text().splitlines()]
    assert len(requests) == 6
    assert {one["key"] for one in requests} == {f"Bearer {KEY}"}
    assert {(one["model"], one["temperature"], one["max_tokens"]) for one in requests} == {("student", 0.6, 64)}


DETAILS = """
import json, sys
from lighteval.logging.evaluation_tracker import EvaluationTracker
from lighteval.models.abstract_model import ModelConfig
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.requests import Doc
from lighteval.tasks.tasks.aime import aime24
tracker = EvaluationTracker(sys.argv[1])
tracker.general_config_logger.log_model_info(ModelConfig(model_name="org/base-model"))
datasets = tracker.load_details_datasets("last", ["sums", "zoo"])
metric = next(one.value for one in aime24.metrics) if hasattr(aime24.metrics[0], "value") else aime24.metrics[0]
found = {}
for name, rows in datasets.items():
    docs, responses = [Doc(**row["doc"]) for row in rows], [ModelResponse(**row["model_response"]) for row in rows]
    found[name] = {
        "golds": [doc.get_golds() for doc in docs],
        "texts": [response.final_text for response in responses],
        "metric": [row["metric"] for row in rows],
    }
metric.sample_level_fn.n = 2
rows = datasets["sums|0"]
found["by_its_rules"] = [
    metric.sample_level_fn.compute(Doc(**row["doc"]), ModelResponse(**row["model_response"])) for row in rows
]
print(json.dumps(found))
"""


@pytest.mark.long
def test_lighteval_reads_our_details_and_grades_them_itself(lighteval_python, evaluation, tmp_path):
    write_lighteval_details(evaluation, tmp_path / "out")
    found = run_python(lighteval_python, DETAILS, tmp_path / "out", cwd=tmp_path)
    assert found["sums|0"]["golds"] == [["3"], ["5"]]
    assert found["sums|0"]["texts"][0] == ["It is \\boxed{3}.", "It is 4."]
    assert found["sums|0"]["metric"] == [{"avg@n:n=2": 0.5}, {"avg@n:n=2": 1.0}]
    assert found["zoo|0"]["golds"] == [["There"]]
    assert found["by_its_rules"][0] == 0.5
