"""Logs of Inspect that are written: each kind of sample, what is incomplete, and what must not be published."""

import json
import math

import pytest

from distill.errors import ExchangeError, StoreError
from distill.exchange.inspect_import import read_inspect_log
from distill.exchange.inspect_log import write_inspect_logs
from distill.storage.ledger import Ledger

SECRET_TEXT = "the aardvark of Zanzibar"


def logs_of(folder, target, **options):
    paths = write_inspect_logs(folder, target, **options)
    return {(log["eval"]["task"], log["eval"]["metadata"]["role"]): log for log in map(_load, paths)}


def _load(path):
    return json.loads(path.read_text())


def test_each_sample_is_told_as_inspect_tells_it(evaluation, tmp_path):
    log = logs_of(evaluation, tmp_path / "logs")["sums", "base"]
    samples = {(one["id"], one["epoch"]): one for one in log["samples"]}
    right, wrong, cut, loop = (samples[f"{i:016x}", epoch] for i in (1, 2) for epoch in (1, 2))
    assert right["input"] == "What is 1 + 2?"
    assert right["target"] == "3"
    assert right["scores"]["distill"]["value"] == "C"
    assert right["scores"]["distill"]["answer"] == "3"
    assert [part["type"] for part in right["messages"][-1]["content"]] == ["reasoning", "text"]
    assert right["output"]["completion"] == "It is \\boxed{3}."
    assert right["output"]["usage"]["input_tokens"] == 9
    assert wrong["scores"]["distill"]["value"] == "I"
    assert "not the expected one" in wrong["scores"]["distill"]["explanation"]
    assert math.isnan(cut["scores"]["distill"]["value"])
    assert cut["scores"]["distill"]["explanation"].startswith("not graded: grading took longer")
    assert cut["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert loop["output"]["choices"][0]["stop_reason"] == "unknown"
    assert log["status"] == "success"


def test_metrics_are_over_graded_answers_by_problem(evaluation, tmp_path):
    log = logs_of(evaluation, tmp_path / "logs")["sums", "base"]
    metrics = log["results"]["scores"][0]["metrics"]
    assert metrics["accuracy"]["value"] == 0.75  # 1 of 2, and 1 of the only graded one
    assert metrics["stderr"]["value"] == pytest.approx(0.25)
    assert log["results"]["metadata"]["num_ungraded"] == 1
    assert log["eval"]["config"]["epochs"] == 2
    assert log["eval"]["metadata"]["protocol"]["hash"] == "5f0c" * 16


def test_options_and_a_conversation(evaluation, tmp_path):
    (sample,) = logs_of(evaluation, tmp_path / "logs")["zoo", "base"]["samples"]
    assert sample["choices"] == ["Here", "There"]
    assert [one["role"] for one in sample["input"]] == ["system", "user"]
    assert sample["metadata"]["problem"]["share"] is None  # infinity is not JSON


def test_the_manifests_score_stands_beside_inspects(evaluation, tmp_path):
    score = {"pass_at_1": 0.5, "interval_95": [0.25, 0.75]}
    metrics = {"benchmarks": [{"name": "sums", "base": score, "student": score}]}
    manifest = {"metrics": metrics, "finished_at": "2026-01-02T03:04:05+00:00", "seconds": 65.0}
    (evaluation / "manifest.json").write_text(json.dumps(manifest))
    log = logs_of(evaluation, tmp_path / "logs")["sums", "student"]
    ours = log["results"]["scores"][0]["metrics"]["distill_pass_at_1"]
    assert (ours["value"], ours["metadata"]) == (0.5, {"interval_95": [0.25, 0.75]})
    assert log["stats"]["started_at"] == "2026-01-02T03:03:00+00:00"
    assert log["eval"]["created"] == log["stats"]["completed_at"] == "2026-01-02T03:04:05+00:00"


def test_the_score_of_a_model_that_was_only_measured_stands_there_too(evaluation, tmp_path):
    score = {"pass_at_1": 0.5, "interval_95": [0.25, 0.75]}
    metrics = {"benchmarks": [{"name": "sums", "models": {"base": score}}]}
    (evaluation / "manifest.json").write_text(json.dumps({"metrics": metrics}))
    log = logs_of(evaluation, tmp_path / "logs")["sums", "base"]
    ours = log["results"]["scores"][0]["metrics"]["distill_pass_at_1"]
    assert (ours["value"], ours["metadata"]) == (0.5, {"interval_95": [0.25, 0.75]})


def test_partial_credit_is_exported_as_it_is(evaluation, credit, tmp_path):
    credit(evaluation / "base", 0.5, 0.0)
    log = logs_of(evaluation, tmp_path / "logs")["sums", "base"]
    values = [sample["scores"]["distill"]["value"] for sample in log["samples"]][:2]
    assert values == [0.5, "I"]
    assert [one["value"] for one in log["reductions"][0]["samples"]] == [0.25, 1.0]
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 0.625


def test_samples_that_an_adaptive_benchmark_did_not_need_are_not_missing(evaluation, tmp_path):
    rows = [json.loads(line) for line in (evaluation / "benchmarks.jsonl").read_text().splitlines()]
    rows[0]["protocol"]["samples_per_problem"] = 8
    (evaluation / "benchmarks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert logs_of(evaluation, tmp_path / "before")["sums", "base"]["status"] == "cancelled"
    with Ledger(evaluation / "base" / "ledger.jsonl") as ledger:
        ledger.skip([(name, index) for name in rows[0]["problems"] for index in range(2, 8)], "narrow enough")
    log = logs_of(evaluation, tmp_path / "after")["sums", "base"]
    assert (log["status"], log["eval"]["config"]["epochs"]) == ("success", 2)
    assert log["results"]["total_samples"] == log["results"]["completed_samples"] == 4


def test_what_is_incomplete_is_never_a_success_nor_a_zero(incomplete, tmp_path):
    logs = logs_of(incomplete, tmp_path / "logs")
    sums, zoo = logs["sums", "base"], logs["zoo", "base"]
    assert sums["status"] == "cancelled"
    assert "of 4 samples, 1 are missing and 0 failed" in sums["error"]["message"]
    assert (sums["results"]["total_samples"], sums["results"]["completed_samples"]) == (4, 3)
    assert sums["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 0.5
    assert sums["results"]["scores"][0]["unscored_samples"] == 1
    assert zoo["status"] == "error"
    assert zoo["results"]["scores"][0]["metrics"] == {}
    assert zoo["samples"][0]["error"]["message"] == "no room"
    assert zoo["samples"][0]["scores"] == {}


def test_a_local_models_folder_is_not_told(evaluation, tmp_path):
    logs = logs_of(evaluation, tmp_path / "logs")
    assert logs["sums", "base"]["eval"]["model"] == "org/base-model"
    assert logs["sums", "student"]["eval"]["model"] == "small/student"
    assert "somewhere" not in json.dumps(list(logs.values()), default=str)


def test_withheld_texts_are_in_no_file(evaluation, tmp_path):
    open_paths = write_inspect_logs(evaluation, tmp_path / "open")
    assert sum(SECRET_TEXT in path.read_text() for path in open_paths) == 2
    paths = write_inspect_logs(evaluation, tmp_path / "logs", withheld=["zoo"])
    assert not any(SECRET_TEXT in path.read_text() or "There" in path.read_text() for path in paths)
    withheld = next(log for log in map(_load, paths) if log["eval"]["task"] == "zoo")
    assert withheld["samples"][0]["scores"]["distill"]["value"] == "C"


def test_the_same_evaluation_gives_the_same_bytes(evaluation, tmp_path):
    first, second = (write_inspect_logs(evaluation, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len({path.name for path in first}) == 4


def test_a_log_comes_back_as_the_records_it_was_made_from(evaluation, tmp_path):
    paths = write_inspect_logs(evaluation, tmp_path / "logs")
    log = next(log for log in map(read_inspect_log, paths) if (log.task, log.model) == ("sums", "org/base-model"))
    assert [problem.id for problem in log.problems] == [f"{1:016x}", f"{2:016x}"]
    assert log.problems[0].task == "math"
    assert [one.correct for one in log.verdicts] == [True, False, None, True]
    assert [one.finish_reason for one in log.traces] == ["stop", "stop", "length", "loop"]
    assert log.traces[0].text == "<think>\n1 + 2 = 3\n</think>\n\nIt is \\boxed{3}."
    assert log.traces[2].text == "<think>\nhm \ufffd"  # an open thought stays open; UTF-8 has no lone surrogate
    assert log.why_incomplete == ""
    assert log.num_ungraded == 1


def test_an_incomplete_log_comes_back_as_incomplete(incomplete, tmp_path):
    logs = {log.task: log for log in map(read_inspect_log, write_inspect_logs(incomplete, tmp_path / "logs"))}
    assert (logs["sums"].num_missing, logs["sums"].num_failed) == (1, 0)
    assert logs["sums"].why_incomplete.startswith("status cancelled: of 4 samples, 1 are missing")
    assert logs["zoo"].num_failed == 1
    assert logs["zoo"].verdicts[0].correct is None


def test_a_folder_without_benchmarks_cannot_be_read(evaluation, tmp_path):
    (evaluation / "benchmarks.jsonl").unlink()
    with pytest.raises(StoreError, match=r"benchmarks\.jsonl: cannot be read"):
        write_inspect_logs(evaluation, tmp_path / "logs")


def test_a_folder_without_answers(tmp_path):
    with pytest.raises(ExchangeError, match="no model's answers are there"):
        write_inspect_logs(tmp_path, tmp_path / "logs")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"name": "sums", "protocol": {"samples_per_problem": 1}, "problems": ["gone"]}, "names the problem 'gone'"),
        ({"name": "sums", "protocol": {}, "problems": []}, "samples_per_problem is missing"),
        ({"protocol": {"samples_per_problem": 1}, "problems": []}, "name is missing"),
    ],
)
def test_a_damaged_table_of_benchmarks(evaluation, tmp_path, row, words):
    (evaluation / "benchmarks.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ExchangeError, match=f"benchmarks.jsonl:1: .*{words}"):
        write_inspect_logs(evaluation, tmp_path / "logs")


def test_nothing_half_written_is_left(evaluation, tmp_path):
    ledger = evaluation / "base" / "ledger.jsonl"
    target = tmp_path / "logs"
    target.write_text("a file is in the way")
    with pytest.raises(StoreError):
        write_inspect_logs(evaluation, target)
    assert ledger.exists()
    assert target.read_text() == "a file is in the way"
