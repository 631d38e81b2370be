"""Traces made elsewhere take the place of sampled ones."""

import pytest

from distill.errors import ProblemError, UserError
from distill.recipe.model import Recipe
from distill.runs.runner import run_recipe
from distill.stages import RunContext, filter, import_traces
from distill.storage.files import read_json, read_jsonl, write_jsonl
from distill.storage.trace_store import stored_traces

ROWS = [
    {
        "problem": f"What is {i} + {i}?",
        "answer": str(2 * i),
        "uuid": f"u{i}",
        "generations": [
            f"<think>\nTwice {i} is {2 * i}, I think, so that is it.\n</think>\n\n\\boxed{{{2 * i}}}",
            f"<think>\nIt may be more than {i}.\n</think>\n\n\\boxed{{{2 * i + 1}}}",
        ],
    }
    for i in range(5)
]


def recipe_of(tmp_path, rows=ROWS, **sections):
    write_jsonl(tmp_path / "made.jsonl", rows)
    plain = {
        "name": "made",
        "student": "smollm2-135m",
        "traces": [{"source": f"file:{tmp_path / 'made.jsonl'}", "teacher": "org/big"}],
        "filter": {"compute": {"workers": 1}, "max_tokens": 2_000},
        "sft": {"max_length": 2_048},
    }
    return Recipe.model_validate({**plain, **sections})


def test_rows_become_problems_and_traces_that_the_filter_takes(tmp_path, documented):
    rows = [*ROWS, {"problem": "What is 9?", "answer": "9", "generations": [None]}]
    summary = run_recipe(recipe_of(tmp_path, rows), tmp_path / "runs", ["import", "filter"])
    documented("distill import --json", summary)
    assert summary["import"]["num_problems"] == 5
    assert summary["import"]["num_samples"] == 10
    assert summary["import"]["num_skipped"] == 1
    assert summary["filter"]["num_kept"] == 5
    assert summary["problems"] == [{"source": "file:made.jsonl", "num_problems": 5}]
    folder = tmp_path / "runs" / "made"
    assert {t.teacher for t in stored_traces(folder / "import")} == {"org/big"}
    assert len(read_jsonl(folder / "import" / "problems.jsonl")) == 5
    assert sum(read_json(folder / "import" / "skipped.json")["counts"].values()) == 1
    assert not list((folder / "import").glob(".*"))
    assert (folder / "report.html").exists()


def test_several_thoughts_are_a_reason_of_their_own(tmp_path):
    thought = "<think>\nTwice 5 is 10, I think, so that is it.\n</think>\n\n"
    texts = {
        "one": f"{thought}\\boxed{{10}}",
        "two": f"{thought}No.\n\n{thought}\\boxed{{10}}",
        "nested": f"<think>\n{thought}\\boxed{{10}}",
        "quoted": "<think>\nThe tag </think> would end it. Twice 5 is 10.\n</think>\n\n\\boxed{10}",
        "marks": "[THINK]Twice 5 is 10, I think, so that is it.[/THINK]\\boxed{10}",
    }
    rows = [{"id": name, "problem": f"{name} 5?", "answer": "10", "text": text} for name, text in texts.items()]
    run_recipe(recipe_of(tmp_path, rows), tmp_path / "runs", ["import", "filter"])
    verdicts = read_jsonl(tmp_path / "runs" / "made" / "filter" / "verdicts.jsonl")
    assert {v["problem_id"]: v["reasons"] for v in verdicts} == {
        "one": [],
        "two": ["several_thinks"],
        "nested": ["several_thinks"],
        "quoted": ["several_thinks"],
        "marks": [],
    }


def test_a_chats_earlier_turns_count_where_problems_are_told_apart_and_measured_on(tmp_path):
    def row(name, first):
        answer = {"role": "assistant", "content": f"{first} km"}
        last = {"role": "assistant", "content": f"<think>\nThousand times {first}.\n</think>\n\n\\boxed{{{first}000}}"}
        ask = [{"role": "user", "content": f"How far is {first} km?"}, answer]
        return {
            "id": name,
            "messages": [*ask, {"role": "user", "content": "And in metres?"}, last],
            "answer": f"{first}000",
        }

    rows = [row("a", 3), row("b", 4), row("c", 5)]
    write_jsonl(tmp_path / "exam.jsonl", [{"problem": "How far is 5 km?", "answer": "5"}])
    exam = {"benchmarks": [{"source": f"file:{tmp_path / 'exam.jsonl'}"}], "sampling": {"max_tokens": 512}}
    summary = run_recipe(recipe_of(tmp_path, rows, eval=exam), tmp_path / "runs", ["import", "filter"])
    assert (summary["import"]["num_problems"], summary["import"]["num_skipped"]) == (2, 1)
    assert summary["filter"]["dropped"] == {}


def test_a_second_run_skips_and_a_changed_file_is_refused(tmp_path):
    said = []
    run_recipe(recipe_of(tmp_path), tmp_path / "runs", ["import"])
    run_recipe(recipe_of(tmp_path), tmp_path / "runs", ["import"], say=said.append)
    assert "done already" in said[0]
    with pytest.raises(UserError, match="traces"):
        run_recipe(recipe_of(tmp_path, ROWS[:3]), tmp_path / "runs", ["import"])


def test_an_interrupted_import_starts_again(tmp_path):
    run = RunContext(recipe_of(tmp_path), tmp_path / "run")
    folder = run.folder("import").path
    folder.mkdir(parents=True)
    (folder / "ledger.jsonl").write_text('{"crc32": "half')
    assert import_traces.run(run).metrics["num_samples"] == 10


def test_a_damaged_shard_is_read_again(tmp_path):
    run = RunContext(recipe_of(tmp_path), tmp_path / "run")
    import_traces.run(run)
    before = list(stored_traces(run.folder("import").path))
    (shard,) = (run.folder("import").path / "traces").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (said,) = import_traces.check(run)
    assert "damaged (checksum)" in said
    import_traces.run(run)
    assert list(stored_traces(run.folder("import").path)) == before


def test_what_is_measured_on_is_not_taken_in(tmp_path):
    write_jsonl(tmp_path / "exam.jsonl", [{"problem": "what is  1 + 1?", "answer": "2"}])
    exam = {"benchmarks": [{"source": f"file:{tmp_path / 'exam.jsonl'}"}], "sampling": {"max_tokens": 512}}
    run = RunContext(recipe_of(tmp_path, eval=exam), tmp_path / "run")
    metrics = import_traces.run(run).metrics
    assert (metrics["num_problems"], metrics["num_skipped"]) == (4, 2)
    write_jsonl(tmp_path / "all.jsonl", [{"problem": row["problem"], "answer": row["answer"]} for row in ROWS])
    everything = {"benchmarks": [{"source": f"file:{tmp_path / 'all.jsonl'}"}], "sampling": {"max_tokens": 512}}
    with pytest.raises(UserError, match="every problem is in an evaluation set"):
        import_traces.run(RunContext(recipe_of(tmp_path, eval=everything), tmp_path / "other"))


def test_rows_without_text_are_told(tmp_path):
    with pytest.raises(ProblemError, match="none of the 1 rows is usable"):
        import_traces.run(RunContext(recipe_of(tmp_path, [{"problem": "What?"}]), tmp_path / "run"))


def test_the_filter_asks_for_the_import_first(tmp_path):
    with pytest.raises(UserError, match="Run `distill import` first"):
        filter.identity(RunContext(recipe_of(tmp_path), tmp_path / "run"))


def test_sources_share_no_identities(tmp_path):
    one = [{"id": i, "problem": f"One {i}?", "answer": "1", "text": f"<think>a {i}</think>1"} for i in range(3)]
    two = [{"id": i, "problem": f"Two {i}?", "answer": "2", "text": f"<think>b {i}</think>2"} for i in range(3)]
    again = [{**row, "text": row["text"] + " again"} for row in one]
    files = {name: tmp_path / f"{name}.jsonl" for name in ("one", "two", "again")}
    for name, rows in (("one", one), ("two", two), ("again", again)):
        write_jsonl(files[name], rows)
    sources = [{"source": f"file:{file}"} for file in files.values()]
    run = RunContext(recipe_of(tmp_path, traces=sources), tmp_path / "run")
    metrics = import_traces.run(run).metrics
    assert (metrics["num_problems"], metrics["num_samples"]) == (6, 9)
    prompts = {
        row["id"]: row["prompt"][0]["content"] for row in read_jsonl(run.folder("import").path / "problems.jsonl")
    }
    for trace in stored_traces(run.folder("import").path):
        assert ("One" in prompts[trace.problem_id]) == trace.reasoning.startswith("a")


def test_templates_do_not_hide_what_is_measured_on(tmp_path):
    write_jsonl(tmp_path / "exam.jsonl", [{"problem": "What is 1 + 1?", "answer": "2"}])
    exam = {
        "benchmarks": [{"source": f"file:{tmp_path / 'exam.jsonl'}", "template": "{problem}\nReason step by step."}],
        "sampling": {"max_tokens": 512},
    }
    traces = [{"source": f"file:{tmp_path / 'made.jsonl'}", "template": "Solve: {problem}"}]
    run = RunContext(recipe_of(tmp_path, eval=exam, traces=traces), tmp_path / "run")
    assert import_traces.run(run).metrics["num_problems"] == 4


def test_a_moved_file_is_the_same_and_another_of_its_name_is_not(tmp_path):
    def identity(folder, rows):
        (tmp_path / folder).mkdir()
        return import_traces.identity(RunContext(recipe_of(tmp_path / folder, rows), tmp_path / "run"))

    assert identity("a", ROWS) == identity("b", ROWS)
    assert identity("c", ROWS[:2]) != identity("d", ROWS)
