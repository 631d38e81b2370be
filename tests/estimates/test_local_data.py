"""The recipe's own files are counted by reading them as the run does, and what is wrong with them stops the plan."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import ProblemError
from distill.estimates import local_data
from distill.estimates.counts import workload
from distill.estimates.local_data import FirstRows, is_small, read_traces
from distill.estimates.models import model_facts
from distill.estimates.text_tokens import TokenRate
from distill.recipe.model import Recipe
from distill.recipe.problems import ProblemSource
from distill.recipe.traces import TraceSource
from distill.runs.recipe_checks import recipe_probes
from distill.sources.imported_traces import Skipped
from distill.sources.problems import load_problem_sets
from distill.stages import RunContext
from distill.stages.import_traces import _pairs

THOUGHT = "<think>\n" + "Add the numbers one by one. " * 20 + "\n</think>\n\nThe answer is \\boxed{3}."


def row(number, sample=0, **more):
    return {"problem": f"What is {number} + 1?", "answer": "3", "response": f"{THOUGHT} ({sample})", **more}


SHAPES = {
    "one row a sample, the samples of a problem together": (
        [row(number, sample) for number in range(30) for sample in range(8)], 240, 30,
    ),
    "one row a sample, the samples of a problem apart": (
        [row(number, sample) for sample in range(8) for number in range(30)], 240, 30,
    ),
    "one row a problem": ([row(number) for number in range(50)], 50, 50),
    "a list of traces a row": (
        [{"problem": f"{number}?", "answer": "3", "generations": [THOUGHT] * 3} for number in range(40)], 120, 40,
    ),
    "lists of several lengths": (
        [{"problem": f"{number}?", "answer": "3", "generations": [THOUGHT] * (number % 4)} for number in range(40)],
        60, 30,
    ),
    "rows that cannot be used between": (
        [row(number) if number % 2 else {"problem": f"{number}?", "gt": "3"} for number in range(40)], 20, 20,
    ),
    "chats": (
        [
            {"messages": [{"role": "user", "content": f"{n % 5}?"}, {"role": "assistant", "content": THOUGHT}]}
            for n in range(25)
        ],
        25, 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "num_traces", "num_problems"), SHAPES.values(), ids=list(SHAPES))
def test_traces_are_counted_as_the_import_counts_them(rows_file, rows, num_traces, num_problems, tmp_path):
    recipe = Recipe.model_validate({"name": "x", "student": "smollm2-135m", "traces": [{"source": rows_file(rows)}]})
    found = workload(recipe)
    assert (found.train.low, found.train.high) == (num_traces, num_traces)
    assert (found.num_problems.low, found.num_problems.high) == (num_problems, num_problems)
    assert not found.faults
    assert sum(1 for _ in _pairs(RunContext(recipe, tmp_path / "runs/x"), Skipped())) == num_traces


@pytest.mark.parametrize("rows", [shape[0] for shape in SHAPES.values()], ids=list(SHAPES))
def test_of_a_large_file_the_first_rows_tell_how_many_traces_a_row_holds(rows_file, rows, monkeypatch):
    monkeypatch.setattr(local_data, "MAX_FILE_BYTES", 1_000)
    monkeypatch.setattr(local_data, "FIRST_ROWS", 20)
    many = rows * 10
    source = TraceSource(source=rows_file(many))
    found = read_traces(source, TokenRate())
    texts = [one.get("generations", [one.get("response") or one.get("messages")]) for one in many]
    true = sum(1 for some in texts for text in some if text)
    assert not found.is_whole
    assert found.num_read == 20
    assert found.num.low <= true * 1.1
    assert found.num.high >= true * 0.9
    assert found.num_problems.low <= len({one.get("problem", str(one.get("messages"))) for one in many}) * 1.01
    assert "first 20 rows" in found.num.basis


@pytest.mark.parametrize("limit", [1, 7, 100, 1_000])
def test_a_limit_on_traces_counts_traces(rows_file, limit):
    found = read_traces(TraceSource(source=rows_file(SHAPES["a list of traces a row"][0]), limit=limit), TokenRate())
    assert found.num.high == min(limit, 120)


def test_traces_of_measured_problems_are_left_out(rows_file):
    source = rows_file([row(number, sample) for number in range(10) for sample in range(4)])
    bench = rows_file([{"problem": f"What is {number} + 1?", "answer": "3"} for number in range(3)], "bench.jsonl")
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "student": "smollm2-135m",
            "traces": [{"source": source}],
            "eval": {"benchmarks": [{"source": bench}]},
        }
    )
    assert workload(recipe, load_problem_sets(recipe)).train.high == 28


def test_a_plan_of_imported_samples_neither_multiplies_them_nor_forgets_the_limit_for_each_problem(rows_file, plan_of):
    rows, _, num_problems = SHAPES["one row a sample, the samples of a problem together"]
    traces = [{"source": rows_file(rows)}]
    stages = {stage.stage: stage for stage in plan_of(traces=traces).stages}
    tokens = stages["import"].quantities["tokens"]
    num_chars = sum(len(one["response"]) for one in rows)
    student = model_facts("smollm2-135m").local
    true = TokenRate(student.path if student else None).of([rows[0]["response"]])
    assert tokens.low <= true.middle * num_chars <= tokens.high
    assert num_chars / 7 < tokens.low <= tokens.high < num_chars / 2
    few = plan_of(traces=traces, filter={"select": {"per_problem": 2}}, sft={"epochs": 1})
    most = next(stage for stage in few.stages if stage.stage == "sft").quantities["tokens"].high
    assert most < 2 * num_problems * (max(len(one["response"]) for one in rows) / 2)


BROKEN = {
    "no question column": (b'{"frage": "1+1?", "answer": "2"}\n', "none of the columns problem, question"),
    "line 2 is broken": (b'{"question": "1+1?", "answer": "2"}\n{"question": oh\n', "rows.jsonl:2: not valid JSON"),
    "empty": (b"", "is empty"),
    "blank lines": (b"\n\n\n", "is empty"),
    "not UTF-8": (b'{"question": "caf\xe9", "answer": "2"}\n', "rows.jsonl:1: not UTF-8"),
    "no answer": (b'{"question": "1+1?", "answer": null}\n', "1 rows have no answer"),
    "a list": (b"[1, 2]\n", "expected an object with columns"),
}


@pytest.mark.parametrize(("content", "told"), BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize("place", ["problems", "eval"])
def test_a_broken_file_stops_the_plan_and_the_doctor_with_the_runs_own_words(
    rows_file, plan_of, content, told, place, tmp_path
):
    good = rows_file([{"question": f"{number}?", "answer": "2"} for number in range(9)], "good.jsonl")
    bad = rows_file(content)
    sections = {
        "problems": [{"source": bad if place == "problems" else good}],
        "generate": {"teacher": "org/teacher"},
        "eval": {"benchmarks": [{"source": bad}]} if place == "eval" else {"held_out": 1},
    }
    (stop,) = [tight for tight in plan_of(**sections).limits if tight.stops and tight.kind == "data"]
    assert told in stop.message
    recipe = Recipe.model_validate({"name": "x", "student": "smollm2-135m", **sections})
    checks = [check for probe in recipe_probes(recipe, tmp_path, "r.yaml") if probe.name in ("dataset", "problems")
              for check in probe.look()]  # fmt: skip
    (missing,) = [check for check in checks if check.status == "missing"]
    assert told in missing.said
    key = "problems.0.source" if place == "problems" else "eval.benchmarks.0.source"
    assert missing.mend.startswith(f"distill doctor r.yaml --set {key}=file:")


BROKEN_TRACES = {
    "missing": (None, "no such file"),
    "empty": (b"", "there are no rows"),
    "no text": (b'{"problem": "1+1?", "gt": "2"}\n', "none of the 1 rows is usable"),
    "not UTF-8": (b'{"problem": "caf\xe9"}\n', "not UTF-8"),
    "not a Parquet file": (b"PAR1 it is not", "not a Parquet file"),
}


@pytest.mark.parametrize(("content", "told"), BROKEN_TRACES.values(), ids=list(BROKEN_TRACES))
def test_broken_traces_stop_the_plan_too(rows_file, plan_of, tmp_path, content, told):
    name = "t.parquet" if content and content.startswith(b"PAR1") else "t.jsonl"
    source = rows_file(content, name) if content is not None else f"file:{tmp_path / 'nowhere.jsonl'}"
    traces = [{"source": source}]
    (stop,) = [tight for tight in plan_of(traces=traces).limits if tight.stops and tight.kind == "data"]
    assert told in stop.message
    recipe = Recipe.model_validate({"name": "x", "student": "smollm2-135m", "traces": traces})
    (check,) = next(probe for probe in recipe_probes(recipe, tmp_path, "recipe.yaml") if probe.name == "dataset").look()
    assert (check.status, check.mend.partition("=")[0]) == ("missing", "distill doctor --set traces.0.source")


def test_a_column_that_the_recipe_names_and_the_rows_lack_stops_the_plan(rows_file, plan_of):
    traces = [{"source": rows_file([row(1)]), "columns": {"text": "trace"}}]
    assert any("no column 'trace'" in tight.message for tight in plan_of(traces=traces).limits if tight.stops)


def test_a_decontamination_file_is_read_as_the_run_reads_it(rows_file, plan_of, tmp_path):
    traces = [{"source": rows_file([row(1)])}]
    entry = f"file:{tmp_path / 'nowhere.jsonl'}"
    plan = plan_of(traces=traces, filter={"decontaminate": [entry]})
    assert any("no such file" in tight.message for tight in plan.limits if tight.stops)
    assert not [t for t in plan_of(traces=traces, filter={"decontaminate": [entry]}, quick=True).limits if t.stops]


def test_a_good_file_stops_nothing(rows_file, plan_of):
    problems = [{"source": rows_file([{"question": f"{number}?", "answer": "2"} for number in range(40)])}]
    plan = plan_of(problems=problems, generate={"teacher": "org/teacher-1B"}, eval={"held_out": 5})
    assert not [tight for tight in plan.limits if tight.kind == "data"]
    sections = {"problems": problems, "generate": {"teacher": "t"}, "eval": {"held_out": 5}}
    assert workload(Recipe.model_validate({"name": "x", "student": "smollm2-135m", **sections})).train.high == 35


def test_a_parquet_file_that_unpacks_to_much_is_read_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(local_data, "MAX_CHARS", 100_000)
    path = tmp_path / "bomb.parquet"
    table = pa.table({"problem": ["x" * 20_000] * 500, "answer": ["1"] * 500, "response": ["y"] * 500})
    pq.write_table(table, path)
    assert path.stat().st_size < 20_000
    rows = FirstRows(path)
    assert sum(1 for _ in rows) < 10
    assert not rows.is_whole
    assert not is_small(ProblemSource(source=f"file:{path}"))
    found = read_traces(TraceSource(source=f"file:{path}"), TokenRate())
    assert not found.is_whole
    assert found.num.high <= 600


def test_a_file_of_problems_beside_the_traces_is_bounded_too(tmp_path, rows_file, monkeypatch):
    monkeypatch.setattr(local_data, "MAX_CHARS", 100_000)
    table = pa.table({"id": [str(i) for i in range(500)], "prompt": ["x" * 20_000] * 500})
    pq.write_table(table, tmp_path / "problems.parquet")
    source = TraceSource(source=rows_file([row(1)]), problems=f"file:{tmp_path / 'problems.parquet'}")
    assert read_traces(source, TokenRate()) is None
    missing = TraceSource(source=rows_file([row(1)]), problems=f"file:{tmp_path / 'nowhere.jsonl'}")
    with pytest.raises(ProblemError, match="no such file"):
        read_traces(missing, TokenRate())


def test_a_large_json_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(local_data, "MAX_FILE_BYTES", 10)
    (tmp_path / "t.json").write_text(json.dumps([row(1)]))
    assert read_traces(TraceSource(source=f"file:{tmp_path / 't.json'}"), TokenRate()) is None


def test_first_rows_without_a_usable_one_are_no_reason_to_stop(rows_file, monkeypatch):
    monkeypatch.setattr(local_data, "MAX_FILE_BYTES", 10)
    monkeypatch.setattr(local_data, "FIRST_ROWS", 5)
    rows = [{"problem": "1?", "gt": "2"}] * 10 + [row(1)]
    assert read_traces(TraceSource(source=rows_file(rows)), TokenRate()) is None


def test_traces_are_counted_though_there_are_problems_for_rl_beside_them(rows_file):
    problems = [{"source": rows_file([{"question": f"{n}?", "answer": "2"} for n in range(40)], "problems.jsonl")}]
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "student": "smollm2-135m",
            "problems": problems,
            "traces": [{"source": rows_file([row(1), row(2)])}],
            "rl": {"steps": 1, "prompts_per_step": 2, "group_size": 2, "probe": {"problems": 2}},
            "eval": {"held_out": 5},
        }
    )
    assert workload(recipe).train.high == 2
    assert workload(recipe, load_problem_sets(recipe)).train.high == 2
