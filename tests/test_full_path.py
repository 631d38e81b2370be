"""The whole job on a small real model, with vLLM and TRL, through the command line and through kills."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from distill.storage.files import read_json
from distill.storage.layout import CHECKPOINTS, SEAL
from distill.storage.ledger import read_ledger
from distill.storage.trace_store import stored_traces

pytestmark = pytest.mark.slow

NUM_TRAIN, NUM_HELD_OUT, NUM_SAMPLES = 40, 10, 2
RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
SETTINGS = [
    "name=tiny",
    f"problems.0.limit={NUM_TRAIN + NUM_HELD_OUT + 4}",  # chain_sum repeats itself now and then
    f"generate.samples_per_problem={NUM_SAMPLES}",
    "generate.compute.max_num_seqs=16",
    "sft.batch_size=4",
    "sft.epochs=4",
    "sft.compute.save_every_steps=2",
    f"eval.held_out={NUM_HELD_OUT}",
    "eval.sampling.max_tokens=64",
]


def command(runs, *more, recipe=RECIPE, settings=SETTINGS):
    overrides = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "distill", "run", str(recipe), "--run-dir", str(runs), *overrides, *more]


def run_until(runs, reached, log, args=None):
    """Start the job, kill it (SIGKILL) as soon as `reached()`; `False` where it ended before."""
    with log.open("w") as stream:
        process = subprocess.Popen(args or command(runs), stdout=stream, stderr=stream, start_new_session=True)
        try:
            while process.poll() is None and not reached():
                time.sleep(0.02)
            still_running = process.poll() is None
        finally:
            process.kill()  # the parent alone: its children have to follow by themselves
            process.wait()
    deadline = time.monotonic() + 10
    while children_in_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children_in_session(process.pid) == []
    return still_running


def children_in_session(session):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(stat.parent.name)
    return found


def num_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def finished(smollm2, tmp_path_factory):
    """A run that was killed while it generated, while it trained, and just before a manifest got its name."""
    runs = tmp_path_factory.mktemp("runs")
    folder, log = runs / "tiny", runs / "log"
    ledger, steps = folder / "generate" / "ledger.jsonl", folder / "sft" / "metrics.jsonl"
    assert run_until(runs, lambda: num_lines(ledger) >= 20, log), log.read_text()[-2000:]
    drawn_before = {trace.key: trace for trace in read_ledger(ledger)}
    assert not (folder / "generate" / "manifest.json").exists()
    # A checkpoint is hashed beside the next steps and counts from its seal on.
    sealed = folder / "sft" / CHECKPOINTS
    assert run_until(runs, lambda: num_lines(steps) >= 3 and any(sealed.glob(f"checkpoint-*/{SEAL}")), log), (
        log.read_text()[-2000:]
    )
    stored = {trace.key: trace for trace in stored_traces(ledger.parent)}
    assert {key: stored[key] for key in drawn_before} == drawn_before
    # What a kill inside the writing of a manifest leaves: a temporary file, and no manifest.
    manifest = folder / "filter" / "manifest.json"
    manifest.rename(folder / "filter" / ".manifest.json.k1ll3d")
    done = subprocess.run([*command(runs), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout), done.stderr


def test_no_sample_is_drawn_twice_and_none_is_lost(finished):
    folder, summary, _ = finished
    keys = [trace.key for trace in stored_traces(folder / "generate")]
    num_problems = summary["generate"]["num_problems"]
    assert num_problems >= NUM_TRAIN
    assert Counter(index for _, index in keys) == dict.fromkeys(range(NUM_SAMPLES), num_problems)
    assert len(keys) == len(set(keys)) == summary["generate"]["num_samples"]


def test_training_went_on_from_a_checkpoint(finished):
    _, summary, _ = finished
    assert summary["sft"]["resumed_from_step"] >= 2
    steps = [line["step"] for line in summary["sft"]["history"]]
    assert steps == list(range(1, summary["sft"]["num_steps"] + 1))
    assert summary["sft"]["history"][-1]["loss"] < summary["sft"]["history"][0]["loss"]


def test_what_the_command_prints_is_as_documented(finished, documented):
    folder, summary, _ = finished
    documented("distill run --json", summary)
    words = command(folder.parent)
    words[words.index("run")] = "sft"
    done = subprocess.run([*words, "--check", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    documented("distill sft --check --json", json.loads(done.stdout))


def test_the_summary_has_scores_with_intervals_and_their_protocol(finished):
    folder, summary, _ = finished
    assert summary == read_json(folder / "summary.json")
    scores = summary["eval"]
    for role in ("base", "student"):
        low, high = scores[role]["interval_95"]
        assert 0 <= low <= scores[role]["pass_at_1"] <= high <= 1
        assert scores[role]["num_problems"] == NUM_HELD_OUT
    difference = scores["student"]["pass_at_1"] - scores["base"]["pass_at_1"]
    assert scores["difference"]["pass_at_1"] == pytest.approx(difference)
    assert scores["protocol"]["temperature"] == 0.6
    assert scores["protocol"]["engine"].startswith("vllm")


def test_held_out_problems_are_not_trained_on(finished):
    import pyarrow.parquet as pq

    folder, _, _ = finished
    measured = {json.loads(line)["id"] for line in (folder / "eval" / "problems.jsonl").open()}
    kept = pq.read_table(folder / "filter" / "kept").to_pylist()
    assert measured.isdisjoint(row["problem_id"] for row in kept)
    assert len(measured) == NUM_HELD_OUT
    assert all(row["completion"][0]["content"].startswith("<think>\n") for row in kept)
    assert all("4 + 3 + 8" not in json.dumps(row["prompt"]) for row in kept)  # no worked example reaches the student


def test_the_student_loads_in_transformers_and_stops_by_itself(finished):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _, _ = finished
    student = folder / "sft" / "student"
    tokenizer, model = AutoTokenizer.from_pretrained(student), AutoModelForCausalLM.from_pretrained(student)
    question = [{"role": "user", "content": "State the final answer to the following arithmetic problem: 2 + 3 + 4 ="}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        output = model.generate(**prompt, max_new_tokens=120, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert output[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    text = tokenizer.decode(output)
    assert text.startswith("<think>")
    assert "</think>" in text


def test_the_manifests_say_how_and_where(finished):
    folder, _, _ = finished
    for stage in ("generate", "filter", "sft", "eval"):
        manifest = read_json(folder / stage / "manifest.json")
        assert len(manifest["fingerprint"]) == 64
        assert manifest["versions"]["torch"].startswith("2.13")
        assert manifest["hardware"]["num_cores"] >= 1
        assert all(len(output["sha256"]) == 64 for output in manifest["outputs"].values())
    assert not (folder / "sft" / "checkpoints").exists()
    picked = read_json(folder / "generate" / "manifest.json")["metrics"]["engine"]
    assert picked["max_num_seqs"] == 16


def test_another_run_skips_everything(finished):
    folder, summary, _ = finished
    done = subprocess.run([*command(folder.parent), "--json"], capture_output=True, text=True, timeout=60)
    assert [line.split(",")[0] for line in done.stderr.splitlines()] == [
        f"{stage}: done already" for stage in ("generate", "filter", "sft", "eval")
    ]
    assert json.loads(done.stdout) == summary


def test_ctrl_c_stops_with_130_and_keeps_what_is_finished(smollm2, tmp_path):
    ledger = tmp_path / "tiny" / "generate" / "ledger.jsonl"
    process = subprocess.Popen(
        command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and num_lines(ledger) < 10:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said[-2000:]
    assert said.endswith(f"Continue with:\n  distill {shlex.join(command(tmp_path)[3:])}\n")
    assert len(list(read_ledger(ledger))) >= 10
