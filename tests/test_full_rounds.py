"""Two rounds on a small real model: the second samples the first one's student, and is killed in the middle."""

import importlib.util
import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from distill.publish.lock import read_lock
from distill.recipe.loading import load_recipe
from distill.storage.files import read_json, read_jsonl
from distill.storage.trace_store import stored_traces

HELPERS = importlib.util.spec_from_file_location("full_path", Path(__file__).with_name("test_full_path.py"))
full_path = importlib.util.module_from_spec(HELPERS)
HELPERS.loader.exec_module(full_path)
pytestmark = [pytest.mark.slow, pytest.mark.long]

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart-rounds.yaml"
SETTINGS = [
    "name=rounds",
    "problems.0.limit=70",
    "generate.samples_per_problem=2",
    "sft.batch_size=4",
    "sft.epochs=4",
    "eval.held_out=10",
    "eval.sampling.max_tokens=64",
    "rounds.0.gate={num_kept: '>= 1'}",  # ten questions are too few for a gain
]


@pytest.fixture(scope="module")
def finished(smollm2, tmp_path_factory):
    """A run that was killed while its second round sampled, and finished by the same command."""
    runs = tmp_path_factory.mktemp("rounds")
    ledger = runs / "rounds/second/generate/ledger.jsonl"
    args = full_path.command(runs, recipe=RECIPE, settings=SETTINGS)
    assert full_path.run_until(runs, lambda: full_path.num_lines(ledger) >= 10, runs / "log", args), (
        runs / "log"
    ).read_text()[-2000:]
    first = read_json(runs / "rounds/first/sft/manifest.json")
    done = subprocess.run([*args, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return runs / "rounds", json.loads(done.stdout), first


def test_the_second_round_samples_the_first_ones_student_and_trains_the_base_on_the_rows_of_both(finished):
    folder, summary, first = finished
    assert read_json(folder / "first/sft/manifest.json") == first  # done before the kill, and not again
    weights = first["outputs"]["student"]["sha256"]
    traces = list(stored_traces(folder / "second/generate"))
    assert {trace.teacher for trace in traces} == {"round:first"}
    assert {trace.teacher_revision for trace in traces} == {f"round:first@{weights}"}
    assert Counter(trace.key for trace in traces).most_common(1)[0][1] == 1
    rounds = summary["rounds"]
    kept = [rounds[name]["filter"]["num_kept"] for name in ("first", "second")]
    assert rounds["second"]["sft"]["num_rows"] == sum(kept)
    assert rounds["second"]["sft"]["student"] == rounds["first"]["sft"]["student"]


def test_three_models_are_measured_on_problems_that_no_round_was_trained_on(finished, documented):
    folder, summary, _ = finished
    documented("RoundsSummary", summary)
    assert list(summary["scores"]["models"]) == ["base", "first", "second"]
    assert [(pair["of"], pair["over"]) for pair in summary["scores"]["pairs"]] == [
        ("first", "base"),
        ("second", "base"),
        ("second", "first"),
    ]
    measured = {row["id"] for row in read_jsonl(folder / "second/eval/problems.jsonl")}
    for name in ("first", "second"):
        assert {row["id"] for row in read_jsonl(folder / name / "eval/problems.jsonl")} == measured
        assert measured.isdisjoint(row["id"] for row in read_jsonl(folder / name / "generate/problems.jsonl"))
    # The base is measured once: the second round has its answers from the first.
    answers = [(folder / name / "eval/base/ledger.jsonl").read_bytes() for name in ("first", "second")]
    assert answers[0] == answers[1]


def test_the_lock_repeats_all_rounds_under_another_name(finished):
    folder, _, _ = finished
    lock = read_lock(folder / "recipe.lock.yaml")
    assert {name.partition("/")[0] for name in lock["stages"]} == {"first", "second"}
    again = load_recipe(folder / "recipe.lock.yaml")
    assert again.name == "rounds-repeat"
    assert [one.name for one in again.rounds] == ["first", "second"]
    assert again.rounds[1].generate.teacher == "round:first"
    assert len(again.student_revision) == 40
