"""Every drop has its reasons, and what is kept trains anywhere."""

import shutil
from dataclasses import replace

import pytest

from distill.core.records import Problem, Trace, Verdict
from distill.core.thinking import split_reasoning
from distill.errors import ProblemError, StoreError, UserError
from distill.recipe.model import Recipe
from distill.runs.explain import explain, story
from distill.stages import RunContext, filter, generate
from distill.storage.files import read_json, read_jsonl, write_json, write_jsonl
from distill.storage.ledger import Ledger
from distill.storage.run_folder import describe_outputs
from distill.storage.trace_store import finalise

THOUGHT = "<think>\nTwo and two make four.\n</think>\n\n"
ONE_WORKER = {"workers": 1}


def trace(text=THOUGHT + "\\boxed{4}", finish_reason="stop", opened=False, problem_id="p", index=0, num_tokens=10):
    """A trace as the generate stage makes it."""
    split = split_reasoning(text, opened)
    return Trace(
        problem_id,
        index,
        "org/teacher",
        "f48b",
        text,
        split.reasoning,
        split.content,
        finish_reason,
        num_prompt_tokens=5,
        num_completion_tokens=num_tokens,
        seed=index,
        sampling={"temperature": 0.6},
        error="the prompt is too long" if finish_reason == "error" else "",
    )


def problem(answer="4", name="p"):
    return Problem(name, [{"role": "user", "content": f"What makes {answer}?"}], answer, "math", "file:sums.jsonl")


PROBLEMS = {name: problem(answer, name) for name, answer in [("p", "4"), ("q", "\\frac{1}{2}"), ("r", "$$")]}
TRACES = [
    trace(index=0),
    trace(index=1, text=THOUGHT + "\\boxed{5}"),
    trace(index=2),  # as the first one
    trace(index=3, text=THOUGHT + "The answer is 4.", num_tokens=9),
    trace(index=4, text="<think>\nTwo and", finish_reason="length"),
    trace(index=5, text="", finish_reason="error"),
    trace(index=6, text=THOUGHT + "\\boxed{\\sqrt{16}}", num_tokens=11),
    trace(index=7, text=THOUGHT + "\\boxed{5}"),  # a wrong one twice is not a duplicate, but wrong
    trace(problem_id="q", index=0, text=THOUGHT + "\\boxed{0.5}"),
    trace(problem_id="q", index=1, text=THOUGHT + "Half."),
    trace(problem_id="r", index=0),
]
EXPECTED = [
    (True, ()),
    (False, ("wrong_answer",)),
    (True, ("duplicate",)),
    (True, ()),
    (False, ("truncated", "unclosed_think", "no_answer")),
    (None, ("error",)),
    (True, ()),
    (False, ("wrong_answer",)),
    (True, ()),
    (False, ("no_answer",)),
    (None, ("ungraded_gold",)),
]


FUNNEL = {
    "num_traces": 11,
    "num_kept": 4,
    "num_problems": 3,
    "num_problems_kept": 2,
    "correct_share": 5 / 9,
    "num_ungraded": 2,
    "num_kept_tokens": 40,
    "tokens_counted_by": "teacher",
    # each trace once, under its first reason
    "dropped": {"error": 1, "truncated": 1, "no_answer": 1, "wrong_answer": 2, "ungraded_gold": 1, "duplicate": 1},
    "reasons": {
        "error": 1,
        "truncated": 1,
        "unclosed_think": 1,
        "no_answer": 2,
        "wrong_answer": 2,
        "ungraded_gold": 1,
        "duplicate": 1,
    },
    "graded_by": {"rule": 9},
    "by_source": {"file:sums.jsonl": {"num_problems": 3, "num_traces": 11, "num_correct": 5, "num_kept": 4}},
    "by_pass_rate": {
        "up to 50%": {"num_problems": 1, "num_traces": 2, "num_correct": 1, "num_kept": 1},
        "up to 75%": {"num_problems": 1, "num_traces": 8, "num_correct": 4, "num_kept": 3},
        "ungraded": {"num_problems": 1, "num_traces": 1, "num_correct": 0, "num_kept": 0},
    },
}


@pytest.fixture
def recipe():
    return Recipe.model_validate(
        {
            "name": "tiny",
            "student": "smollm2-135m",
            "problems": [{"source": "file:sums.jsonl"}],
            "generate": {"teacher": "org/teacher", "sampling": {"max_tokens": 1_024}},
            "sft": {"max_length": 2_048},
            "filter": {"compute": ONE_WORKER, "grade_timeout_s": 30.0},
        }
    )


def generated(run_dir, recipe, traces=TRACES, problems=PROBLEMS):
    """A run folder in which the generate stage is finished."""
    run = RunContext(recipe, run_dir)
    folder = run.folder("generate").path
    write_jsonl(folder / generate.PROBLEMS, [p.to_json() for p in problems.values()])
    shutil.rmtree(folder / "traces", ignore_errors=True)
    (folder / "shards.json").unlink(missing_ok=True)
    with Ledger(folder / generate.LEDGER) as ledger:
        ledger.append(traces)
    outputs, _ = finalise(folder, lambda key: True)
    manifest = {
        "stage": "generate",
        "fingerprint": "f1",
        "identity": {},
        "outputs": describe_outputs(folder, {generate.PROBLEMS: None, **outputs}),
        "metrics": {
            "teacher": "org/teacher",
            "teacher_revision": "r1",
            "samples_per_problem": 1,
            "num_prompt_tokens": 1,
            "num_completion_tokens": 1,
            "num_samples": len(traces),
            "num_problems": len(problems),
            "num_problems_by_source": {},
            "finish_reasons": {},
        },
        "seconds": 1.0,
        "peak_memory_gib": 1.0,
        "finished_at": "2026-01-01T00:00:00+00:00",
    }
    write_json(folder / "manifest.json", manifest)
    return run


def test_a_row_with_a_secret_is_dropped_for_it_and_another_is_chosen(tmp_path, recipe, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "opensesame-4711")
    key = "hf_" + "QwzTnVbKpLmRsXcYdFgHjEuAoiWvBzNtMq"
    problems = {**PROBLEMS, "s": Problem("s", [{"role": "user", "content": f"My key is {key}."}], "4", "math", "x")}
    traces = [
        trace(index=0, text="<think>\nIt is opensesame-4711.\n</think>\n\n\\boxed{4}", num_tokens=3),
        trace(index=1, text=f"<think>\nBy {key}.\n</think>\n\n\\boxed{{4}}", num_tokens=2),
        trace(index=2, num_tokens=10),
        trace(problem_id="s", index=0),
    ]
    config = recipe.filter.model_copy(update={"select": recipe.filter.select.model_copy(update={"per_problem": 1})})
    run = generated(tmp_path, recipe.model_copy(update={"filter": config}), traces, problems)
    filter.run(run)
    verdicts = [Verdict.from_json(row) for row in read_jsonl(tmp_path / "filter" / "verdicts.jsonl")]
    assert [(v.reasons, v.details.get("secret")) for v in verdicts] == [
        (("secret",), "the value of an environment variable that holds a secret"),
        (("secret",), "a Hugging Face token"),
        ((), None),
        (("secret",), "a Hugging Face token"),
    ]
    for file in ("verdicts.jsonl", "decontamination.json"):
        assert "opensesame" not in (tmp_path / "filter" / file).read_text()


def test_a_secret_in_any_text_that_is_published_drops_its_row(tmp_path, recipe):
    key = "hf_" + "QwzTnVbKpLmRsXcYdFgHjEuAoiWvBzNtMq"
    ask = [{"role": "user", "content": "2 + 2?"}]
    problems = {
        "id": Problem(f"of {key}", ask, "4", "math", "x"),
        "source": Problem("b", ask, "4", "math", f"file:{key}.jsonl"),
        "metadata": Problem("c", ask, "4", "math", "x", {"log": {"line": [f"a\n{key}"]}}),
        "plain": Problem("d", ask, "4", "math", "x"),
    }
    traces = [trace(problem_id=one.id, index=0) for one in problems.values()]
    traces.append(replace(trace(problem_id="d", index=1), teacher=f"org/{key}"))
    run = generated(tmp_path, recipe, traces, {one.id: one for one in problems.values()})
    filter.run(run)
    verdicts = [Verdict.from_json(row) for row in read_jsonl(tmp_path / "filter" / "verdicts.jsonl")]
    secret = {(v.problem_id, v.sample_index) for v in verdicts if "secret" in v.reasons}
    assert secret == {(f"of {key}", 0), ("b", 0), ("c", 0), ("d", 1)}


def test_run_writes_what_is_kept_for_plain_trl(tmp_path, recipe):
    from datasets import load_dataset

    run = generated(tmp_path / "run", recipe)
    summary = filter.run(run)
    folder = run.folder("filter").path
    assert summary.outputs == {filter.KEPT: 4, filter.DROPPED: 7, filter.VERDICTS: 11, filter.CERTIFICATE: None}
    verdicts = [Verdict.from_json(row) for row in read_jsonl(folder / filter.VERDICTS)]
    assert [v.key for v in verdicts] == [t.key for t in TRACES]
    assert [(v.correct, v.reasons) for v in verdicts] == EXPECTED
    assert [v.extracted_answer for v in verdicts[:4]] == ["4", "5", "4", "4"]
    assert {name: summary.metrics[name] for name in FUNNEL} == FUNNEL
    assert not list(folder.glob(".*"))

    kept = load_dataset(
        "parquet", data_files=str(folder / filter.KEPT / "*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert kept.num_rows == 4
    assert kept[0]["prompt"] == [{"role": "user", "content": "What makes 4?"}]
    assert kept[0]["completion"] == [{"role": "assistant", "content": THOUGHT + "\\boxed{4}"}]
    assert [(row["problem_id"], row["sample_index"]) for row in kept] == [("p", 0), ("p", 3), ("p", 6), ("q", 0)]
    assert kept[3]["answer"] == "\\frac{1}{2}"
    assert kept[3]["extracted_answer"] == "0.5"
    assert {row["teacher"] for row in kept} == {"org/teacher"}

    dropped = load_dataset(
        "parquet", data_files=str(folder / filter.DROPPED / "*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert [tuple(row["reasons"]) for row in dropped] == [reasons for _, reasons in EXPECTED if reasons]
    assert dropped[2]["text"] == "<think>\nTwo and"
    assert dropped[3]["error"] == "the prompt is too long"
    assert dropped[0]["correct"] is False
    assert dropped[3]["correct"] is None


def test_trl_takes_the_kept_rows_for_conversations(tmp_path, recipe):
    from datasets import load_dataset
    from trl import is_conversational

    run = generated(tmp_path / "run", recipe)
    filter.run(run)
    path = run.folder("filter").path / filter.KEPT
    kept = load_dataset("parquet", data_files=str(path / "*.parquet"), split="train", cache_dir=str(tmp_path))
    assert all(is_conversational(row) for row in kept)


def test_tables_have_their_columns_even_if_they_are_empty(tmp_path, recipe):
    import pyarrow.parquet as pq

    for name, traces, empty in (("good", TRACES[:1], filter.DROPPED), ("bad", TRACES[1:2], filter.KEPT)):
        run = generated(tmp_path / name, recipe, traces)
        assert filter.run(run).outputs[empty] == 0
        table = pq.read_table(run.folder("filter").path / empty)
        assert table.num_rows == 0
        assert {"prompt", "problem_id", "sample_index", "answer"} <= set(table.column_names)
        assert ("completion" if empty == filter.KEPT else "reasons") in table.column_names


def test_a_second_run_writes_the_same_bytes(tmp_path, recipe):
    run = generated(tmp_path / "run", recipe)
    first = describe_outputs(run.folder("filter").path, filter.run(run).outputs)
    second = describe_outputs(run.folder("filter").path, filter.run(run).outputs)
    assert first == second


def test_identity_is_what_decides_the_verdicts(tmp_path, recipe):
    def identity(**section):
        changed = {**recipe.model_dump(), "filter": {**recipe.filter.model_dump(), **section}}
        return filter.identity(RunContext(Recipe.model_validate(changed), tmp_path / "run"))

    generated(tmp_path / "run", recipe)
    before = identity()
    assert identity(compute={"workers": 7}) == before
    assert identity(max_tokens=100) != before
    assert identity(readability={"language": "fr"}) != before
    generated(tmp_path / "run", recipe, TRACES[:3])
    assert identity() != before


def test_without_traces_there_is_nothing_to_filter(tmp_path, recipe):
    with pytest.raises(UserError, match="Run `distill generate` first"):
        filter.identity(RunContext(recipe, tmp_path))


def test_a_damaged_shard_is_not_filtered_but_named(tmp_path, recipe):
    run = generated(tmp_path / "run", recipe)
    (shard,) = (run.folder("generate").path / "traces").glob("*.parquet")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=r"(?s)damaged \(checksum\).*\nRun `distill generate`"):
        filter.verify_inputs(run)
    assert run.folder("generate").manifest is None
    assert len(list((run.folder("generate").path / "damaged").iterdir())) == 1


def with_filter(recipe, **section):
    return Recipe.model_validate({**recipe.model_dump(), "filter": {**recipe.filter.model_dump(), **section}})


def test_a_problem_of_an_evaluation_set_is_dropped_and_certified(tmp_path, recipe):
    pack = tmp_path / "exam.jsonl"
    write_jsonl(pack, [{"id": "first", "problem": "What makes 4?"}])
    recipe = with_filter(recipe, decontaminate=[f"file:{pack}"])
    run = generated(tmp_path / "run", recipe)
    filter.run(run)
    folder = run.folder("filter").path
    verdicts = [Verdict.from_json(row) for row in read_jsonl(folder / filter.VERDICTS)]
    assert all("contaminated" in v.reasons for v in verdicts if v.problem_id == "p" and v.reasons != ("error",))
    assert not any("contaminated" in v.reasons for v in verdicts if v.problem_id == "q")
    certificate = read_json(folder / filter.CERTIFICATE)
    assert certificate["num_problems_removed"] == 1
    assert "p" in certificate["hits"]


def test_an_evaluation_set_that_cannot_be_loaded_is_refused(tmp_path, recipe):
    run = generated(tmp_path / "run", with_filter(recipe, decontaminate=["file:/nowhere/exam.jsonl"]))
    with pytest.raises(ProblemError, match="no such file"):
        filter.identity(run)
    run = generated(tmp_path / "run", with_filter(recipe, decontaminate=["aime42"]))
    with pytest.raises(ProblemError, match="Did you mean 'aime2"):
        filter.identity(run)


def test_the_budget_of_the_whole_set_comes_last(tmp_path, recipe):
    run = generated(tmp_path / "run", with_filter(recipe, select={"token_budget": 20}))
    metrics = filter.run(run).metrics
    assert metrics["num_kept_tokens"] <= 20
    assert metrics["num_kept"] == 2
    assert metrics["dropped"]["over_budget"] == 2
    run = generated(tmp_path / "run", with_filter(recipe, select={"per_source": 3}))
    assert filter.run(run).metrics["dropped"]["over_source_cap"] == 1


def test_lengths_are_counted_in_the_students_tokens(tmp_path, recipe, tiny_llama):
    recipe = with_filter(recipe, min_tokens=18, max_tokens=60)
    run = generated(tmp_path / "run", recipe.model_copy(update={"student": str(tiny_llama)}))
    filter.run(run)
    verdicts = read_jsonl(run.folder("filter").path / filter.VERDICTS)
    assert verdicts[0]["reasons"] == []
    assert all(
        row["details"]["too_short"].endswith("tokens, minimum 18") for row in verdicts if "too_short" in row["reasons"]
    )
    assert "too_short" in verdicts[4]["reasons"]


def test_a_traces_story_is_told(tmp_path, recipe):
    run = generated(tmp_path / "run", recipe)
    filter.run(run)
    write_json(run.folder("filter").path / "manifest.json", {})

    def told(wanted):
        return "\n".join(story(explain(tmp_path / "run", "generate", wanted)))

    assert "Trace p/2: dropped" in told("p/2")
    assert "duplicate: same text as another good trace of the problem [of trace 0]" in told("p/2")
    assert "Two and two make four." in told("p/2")
    assert "  1  answer 5, wrong, dropped: wrong_answer" in told("p/0")
    assert told("q").count("Trace q/") == 2
    assert "expected answer: \\frac{1}{2}" in told("q")
    for wrong, why in (("p/99", "no trace 99"), ("zz", "has no problem zz"), ("", "is the beginning of several")):
        with pytest.raises(UserError, match=why):
            told(wrong)
    with pytest.raises(UserError, match="Run `distill filter` first"):
        explain(tmp_path, "generate", "p")


def test_hostile_rows_cost_themselves_only(tmp_path, recipe):
    texts = [
        THOUGHT + "\\boxed{4}",
        "<think>\nx\x00\ufffd\n</think>\n\n\\boxed{9^{9^{9^9}}}",
        "<think>\n" + "So we go on. " * 800_000 + "\n</think>\n\n\\boxed{4}",  # 10 MB
        "<think>\n" + "\\boxed{" * 100_000 + "\n</think>\n\n4",
        "<think>a</think>\\boxed{\\frac{x^{800}-1}{x-1}-(1+x)}",
    ]
    traces = [trace(text, index=i) for i, text in enumerate(texts)]
    run = generated(tmp_path / "run", with_filter(recipe, grade_timeout_s=5.0), traces)
    metrics = filter.run(run).metrics
    assert (metrics["num_traces"], metrics["num_kept"]) == (5, 1)


def test_a_problem_that_repeats_one_of_which_nothing_is_kept_stays(tmp_path, recipe):
    words = "A farmer who has many sheep sells most of them on the market and counts those that are left to him at home"
    names = ("a", "b", "c")
    problems = {n: Problem(n, [{"role": "user", "content": f"{words} {n}."}], "4", "math", "s") for n in names}
    right, wrong = THOUGHT + "\\boxed{4}", THOUGHT + "\\boxed{5}"
    traces = [trace(text, problem_id=n) for n, text in (("a", wrong), ("b", right), ("c", right))]
    run = generated(tmp_path / "run", with_filter(recipe, duplicates={"problems": 0.8}), traces, problems)
    filter.run(run)
    verdicts = read_jsonl(run.folder("filter").path / filter.VERDICTS)
    assert [row["reasons"] for row in verdicts] == [["wrong_answer"], [], ["duplicate_problem"]]
