"""All rounds of r1-pipeline for real, and the six students', on random weights that learn one sentence by heart."""

import importlib.util
import json
import os
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from distill.estimates.machine import this_machine
from distill.estimates.prices import load_prices
from distill.recipe.loading import load_recipe
from distill.recipe.push import PushConfig
from distill.runs.rounds_plan import plan_rounds
from distill.runs.runner import run_recipe
from distill.stages import contexts_of
from distill.stages.push import dry_run
from distill.storage.files import read_jsonl
from distill.storage.trace_store import stored_traces

pytestmark = [pytest.mark.slow, pytest.mark.long]

NAME = "r1-pipeline"
STUDENTS = ["qwen-1.5b", "qwen-7b", "llama-8b", "qwen-14b", "qwen-32b", "llama-70b"]
MEASURED = ["qwen-1.5b", "llama-8b"]
"""One of each architecture; of the others only the training is run, as nothing else of them differs."""
REINFORCED = ["rl-1", "rl-2"]
SAID = "<think>\nThe two equal numbers cancel each other, so that only seven is left.\n</think>\n\nIt is \\boxed{7}."
TINY = [
    "name=tiny",
    "generate.samples_per_problem=2",
    "generate.sampling.max_tokens=100",
    "generate.compute={engine: transformers}",
    "filter.max_tokens=100",
    "filter.decontaminate=[]",
    "filter.compute.workers=1",
    "sft.max_length=200",
    "sft.batch_size=2",
    "sft.compute.tracking=[]",
    "sft.learning_rate=1.0e-2",
    "rl.steps=1",
    "rl.prompts_per_step=4",
    "rl.group_size=2",
    "rl.max_tokens=100",
    "rl.difficulty={}",  # all problems are solved always
    "rl.probe.problems=2",
    "rl.on_warning=note",
    "rl.compute={sampling: {engine: transformers}, training: {tracking: []}}",
    "rounds.0.sft.epochs=20",
    "rounds.3.sft.epochs=20",
    "eval.held_out=4",
    "eval.benchmarks=[]",
    "eval.samples_per_problem=1",
    "eval.sampling.max_tokens=100",
    "eval.compute={engine: transformers}",
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


@pytest.fixture(scope="module")
def judge():
    """A judge that finds every answer right, and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"role": "assistant", "content": "It helps.\nVERDICT: CORRECT"}
            usage = {"prompt_tokens": 7, "completion_tokens": 3}
            self.send({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})

        def do_GET(self):
            self.send({"data": [{"id": "Qwen/Qwen2.5-72B-Instruct"}]})

        def send(self, value):
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    before = os.environ.get("NO_PROXY")
    os.environ["NO_PROXY"] = "*"
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()
    if before is None:
        del os.environ["NO_PROXY"]
    else:
        os.environ["NO_PROXY"] = before


def tiny_recipe(folder, judge_url):
    """The installed recipe with its sizes made small, and files and random weights in the place of the Hub's."""
    spec = importlib.util.spec_from_file_location("models", Path(__file__).parents[1] / "benchmarks/random_models.py")
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    llama = models.save_random_model(models.TINY, folder / "llama", dtype="float32")
    qwen = models.save_random_model(replace(models.TINY, qkv_bias=True), folder / "qwen", dtype="float32")
    sums = [f"What is {i} - {i} + 7?" for i in range(10, 42)]
    problems = write(folder / "problems.jsonl", ({"problem": one, "answer": "7"} for one in sums[:16]))
    chains = write(folder / "chains.jsonl", ({"problem": one, "answer": "7", "text": SAID} for one in sums[16:]))
    talk = write(
        folder / "talk.jsonl",
        (
            {"messages": [{"role": "user", "content": f"Greet guest {i}."}, {"role": "assistant", "content": "Hello!"}]}
            for i in range(4)
        ),
    )
    wishes = write(folder / "wishes.jsonl", ({"instruction": f"Name {i} towns.", "response": "Ulm."} for i in range(3)))
    sources = [
        *(f"problems.0.{key}" for key in (f"source={problems}", "config=null", "limit=null")),
        *(f"problems.1.{key}" for key in (f"source={wishes}", "limit=null")),
        *(f"rounds.0.traces.0.{key}" for key in (f"source={chains}", "config=null", "limit=null")),
        *(f"rounds.2.traces.0.{key}" for key in (f"source={talk}", "limit=null")),
        "rounds.0.gate={num_kept: '>= 4', format_share: '>= 0.9', gain_over: base}",
        "rounds.1.gate={}",  # nothing is gained where everything is solved
        "rounds.2.gate={num_kept: '>= 1'}",
        "rounds.3.gate={num_kept: '>= 4', gain_over: base}",
        "rounds.5.gate={num_kept: '>= 4', format_share: '>= 0.9'}",
        f"rounds.4.rl.reward.judge.by.compute.base_urls=[{judge_url}]",
        *(f"rounds.{6 + n}.student={llama if one.startswith('llama') else qwen}" for n, one in enumerate(STUDENTS)),
        *(f"rounds.{6 + n}.sft.epochs={20 if one in MEASURED else 1}" for n, one in enumerate(STUDENTS)),
    ]
    return load_recipe(NAME, [*TINY, *sources], {"student": str(qwen)})


def run_all(recipe, runs):
    others = [one for one in STUDENTS if one not in MEASURED]
    run_recipe(recipe, runs, rounds=[one.name for one in recipe.rounds if one.name not in others])
    return run_recipe(recipe, runs, ["sft"], rounds=others)


@pytest.fixture(scope="module")
def recipe(judge, tmp_path_factory):
    return tiny_recipe(tmp_path_factory.mktemp("sources"), judge[0])


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return runs / "tiny", run_all(recipe, runs)


def test_every_round_makes_what_the_next_one_needs(finished, recipe, judge):
    folder, summary = finished
    done = summary["rounds"]
    assert list(done) == [one.name for one in recipe.rounds]
    base = done["cold-start"]["sft"]["student"]
    assert done["sft-2"]["sft"]["student"] == base  # the base again
    assert [done[name]["rl"]["student_revision"].partition("@")[0] for name in ("rl-1", "rl-2")] == [
        "round:cold-start",
        "round:sft-2",
    ]
    for name, teacher in (("sft-2", "round:rl-1"), ("r1-data", "round:rl-2")):
        assert {trace.teacher for trace in stored_traces(folder / name / "generate")} == {teacher}
    kept = {name: done[name]["filter"]["num_kept"] for name in ("sft-2", "general", "r1-data")}
    assert kept["general"] == 4  # without thought, and unproven
    assert done["sft-2"]["sft"]["num_rows"] == kept["sft-2"] + kept["general"]
    assert {done[name]["sft"]["num_rows"] for name in STUDENTS} == {kept["r1-data"] + kept["general"]}


def test_only_the_last_reinforcement_asks_a_judge_and_only_for_what_no_rule_grades(finished, judge):
    folder, _ = finished
    asked = {name: [row["task"] for row in read_jsonl(folder / name / "rl/problems.jsonl")] for name in REINFORCED}
    assert set(asked["rl-1"]) == {"math"}
    assert set(asked["rl-2"]) == {"math", "judge"}
    told = [body["messages"][-1]["content"] for body in judge[1] if len(body["messages"]) > 1]
    assert all("towns." in text and "cancel" not in text.partition("<<ANSWER")[0] for text in told)


def test_one_card_tells_the_whole_lineage(finished, recipe):
    folder, _ = finished
    published = recipe.model_copy(update={"push": PushConfig(repo="me/student", round="qwen-1.5b")})
    run = next(run for run in contexts_of(published, folder) if run.recipe.round_name == "qwen-1.5b")
    card = next(one.card for one in dry_run(run).publications if one.kind == "model")
    told = [line for line in card.splitlines() if re.match(r"\d+\. \*\*", line)]
    assert [line.split("**")[1] for line in told] == [
        *("cold-start", "rl-1", "general", "sft-2", "rl-2", "r1-data", "qwen-1.5b"),
    ]
    assert "is fine-tuned on" in told[0]
    assert "1 step of 4 problems with 2 answers each; reward accuracy 1, format 1, language 1" in told[1]
    assert "unproven where no answer is known" in told[2]
    assert "answers of round:rl-1" in told[3]
    assert "Qwen/Qwen2.5-72B-Instruct judges what no rule can grade" in told[4]
    assert "rows of r1-data and general" in told[6]
    assert "Its gate held." in told[6]
    assert str(folder) not in card


def test_a_plan_of_what_has_run_has_nothing_left(finished, recipe):
    folder, _ = finished
    found = plan_rounds(recipe, folder.parent, this_machine(), load_prices()).to_json()
    left = [name for name, stage in found["stages"].items() if stage["state"] != "done"]
    assert left == [f"{one}/eval" for one in STUDENTS if one not in MEASURED]
