"""What may change without losing samples, what is refused, and what a damaged file costs."""

import json
from dataclasses import replace

import pytest

from distill.core.records import Trace
from distill.errors import UserError
from distill.stages import RunContext, generate
from distill.storage.files import read_json, read_jsonl
from distill.storage.fingerprints import differences
from distill.storage.ledger import Ledger
from distill.storage.trace_store import stored, stored_traces

ANSWERS = ["<think>\n1\n</think>\n\n\\boxed{1}", "<think>\nhm"]


def run_of(recipe, tmp_path):
    return RunContext(recipe, tmp_path / "run")


def changed(recipe, **sections):
    return recipe.model_copy(update={"generate": recipe.generate.model_copy(update=sections)})


@pytest.mark.parametrize(
    ("sections", "allowed"),
    [
        ({"samples_per_problem": 9}, True),
        ({"stop_after_correct": 1}, True),
        ({"system": "Think hard."}, False),
        ({"loops": None}, False),
        ({"extra_body": {"x": 1}}, False),
    ],
)
def test_what_a_change_of_the_recipe_does(make_recipe, tmp_path, sections, allowed):
    recipe = make_recipe()
    before = generate.identity(run_of(recipe, tmp_path))
    after = generate.identity(run_of(changed(recipe, **sections), tmp_path))
    found = differences(before, after)
    assert found
    assert generate.keeps_results(found) == allowed


def test_another_prompt_for_the_same_source_is_no_growth_but_another_source_is(make_recipe, tmp_path):
    recipe = make_recipe()
    source = recipe.problems[0]
    other = make_recipe(num_problems=7).problems[0]
    before = generate.identity(run_of(recipe, tmp_path))

    def keeps_results(problems):
        after = generate.identity(run_of(recipe.model_copy(update={"problems": problems}), tmp_path))
        return generate.keeps_results(differences(before, after))

    assert keeps_results([source, other])
    assert not keeps_results([source.model_copy(update={"template": "Solve: {problem}"})])


def test_a_changed_prompt_under_the_same_id_is_refused_and_a_changed_answer_is_not(make_recipe, tmp_path, fake_engine):
    file = tmp_path / "own-ids.jsonl"

    def recipe(question, answer="3"):
        rows = [{"problem": question, "answer": answer, "id": "one"}]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return make_recipe(problems=[{"source": f"file:{file}", "columns": {"id": "id"}}])

    generate.run(run_of(recipe("What is 1 + 2?"), tmp_path), fake_engine(ANSWERS))
    assert generate.check(run_of(recipe("What is 1 + 2?", answer="4"), tmp_path)) == []
    with pytest.raises(UserError) as caught:
        generate.check(run_of(recipe("What is 2 + 2?"), tmp_path))
    assert "one: " in str(caught.value)
    assert "1 + 2" in str(caught.value)
    assert "2 + 2" in str(caught.value)
    assert "--set name=" in str(caught.value)


def test_a_damaged_shard_is_named_and_only_its_samples_are_drawn_again(make_recipe, tmp_path, fake_engine):
    run = run_of(make_recipe(), tmp_path)
    summary = generate.run(run, fake_engine(ANSWERS))
    (shard,) = [run.folder("generate").path / name for name in summary.outputs if name.startswith("traces/")]
    before = list(stored_traces(run.folder("generate").path))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (said,) = generate.check(run)
    assert "damaged (checksum)" in said
    engine = fake_engine(ANSWERS)
    generate.run(run, engine)
    assert engine.num_requests == 12
    assert list(stored_traces(run.folder("generate").path)) == before


def test_skipped_samples_and_all_ends_are_counted(make_recipe, tmp_path, fake_engine):
    recipe = changed(make_recipe(num_problems=1), samples_per_problem=6, stop_after_correct=1)
    run = run_of(recipe, tmp_path)
    summary = generate.run(run, fake_engine(ANSWERS))
    skipped = read_jsonl(run.folder("generate").path / "skipped.jsonl")
    assert summary.metrics["num_samples"] + len(skipped) == 6
    assert summary.metrics["num_not_needed"] == len(skipped) > 0
    assert all("stop_after_correct: 1" in row["why"] for row in skipped)
    reasons = summary.metrics["finish_reasons"]
    assert set(reasons) == {"stop", "length", "loop", "error"}
    assert sum(reasons.values()) == summary.metrics["num_samples"]


def test_a_damaged_ledger_line_costs_its_own_sample(make_recipe, tmp_path, fake_engine):
    run = run_of(make_recipe(num_problems=3), tmp_path)
    folder = run.folder("generate").path
    names = [problem.id for problem in run.problem_sets.train]
    with Ledger(folder / "ledger.jsonl") as ledger:
        ledger.append(Trace(n, i, "t", "r", "x", "", "x", "stop", 1, 1, 0) for n in names for i in range(2))
    content = bytearray((folder / "ledger.jsonl").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "ledger.jsonl").write_bytes(content)
    engine = fake_engine(ANSWERS)
    summary = generate.run(run, engine)
    assert engine.num_requests == 1
    assert (summary.metrics["num_samples"], summary.metrics["num_damaged_records"]) == (6, 1)


class Unwell:
    """Wraps an engine: some samples end in errors."""

    def __init__(self, engine, is_unwell):
        self._engine, self._is_unwell = engine, is_unwell

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def step(self):
        return [replace(c, text="", finish_reason="error", error="HTTP 500") if self._is_unwell(c.key) else c
                for c in self._engine.step()]  # fmt: skip


def test_samples_that_ended_in_errors_are_asked_again_only_where_that_is_wanted(make_recipe, tmp_path, fake_engine):
    recipe = make_recipe(num_problems=6)
    folder = tmp_path / "run"
    summary = generate.run(RunContext(recipe, folder), Unwell(fake_engine(ANSWERS), lambda key: key[1] == 0))
    assert summary.metrics["finish_reasons"]["error"] == 6
    before = {t.key: t for t in stored_traces(folder / "generate")}

    engine = fake_engine(ANSWERS)
    generate.run(RunContext(recipe, folder), engine)
    assert engine.num_requests == 0

    again = RunContext(recipe, folder, retry_errors=True)
    unwell = sorted({name for name, _ in before})[0]
    engine = fake_engine(ANSWERS)
    summary = generate.run(again, Unwell(engine, lambda key: key[0] == unwell))
    assert engine.num_requests == 6
    reasons = summary.metrics["finish_reasons"]
    assert (reasons["error"], summary.metrics["num_samples"]) == (1, 12)
    after = {t.key: t for t in stored_traces(folder / "generate")}
    assert after.keys() == before.keys()
    assert {key for key, t in after.items() if t.finish_reason == "error"} == {(unwell, 0)}
    assert all(after[key] == t for key, t in before.items() if t.finish_reason != "error")


def test_a_kill_while_errors_are_asked_again_loses_nothing_and_counts_right(make_recipe, tmp_path, fake_engine):
    recipe = make_recipe(num_problems=6)
    folder = tmp_path / "run"
    generate.run(RunContext(recipe, folder), Unwell(fake_engine(ANSWERS), lambda key: key[1] == 0))
    first = next(t for t in stored_traces(folder / "generate") if t.finish_reason == "error")
    with Ledger(folder / "generate" / "ledger.jsonl") as ledger:  # what the killed process had got
        ledger.append([replace(first, error="HTTP 500 again")])
        ledger.append([replace(first, text="x", content="x", finish_reason="stop", error="")])
        found = stored(folder / "generate").with_ledger(ledger.index)
    assert (len(found.keys), len(found.errors), found.tally.num_samples) == (12, 5, 12)
    engine = fake_engine(ANSWERS)
    summary = generate.run(RunContext(recipe, folder), engine)
    assert engine.num_requests == 0
    assert summary.metrics["finish_reasons"]["error"] == 5
    kept = {t.key: t for t in stored_traces(folder / "generate")}
    assert kept[first.key].text == "x"


def test_a_price_gives_the_cost_of_everything_in_the_folder(make_recipe, tmp_path, fake_engine):
    recipe = make_recipe()
    priced = {"price": {"input_per_million": 1_000_000, "output_per_million": 0, "currency": "EUR"}}
    priced = recipe.generate.model_validate({**recipe.generate.model_dump(), **priced})
    run = run_of(recipe.model_copy(update={"generate": priced}), tmp_path)
    summary = generate.run(run, fake_engine(ANSWERS))
    assert summary.metrics["cost"] == {"amount": 120.0, "currency": "EUR"}


def test_a_served_teacher_needs_nothing_of_it_on_this_machine(make_recipe, tmp_path):
    recipe = make_recipe()
    served = {**recipe.generate.model_dump(), "teacher": "org/far-away", "compute": {"base_urls": ["http://host:1/v1"]}}
    run = run_of(make_recipe(generate=served), tmp_path)
    identity = generate.identity(run)
    assert (identity["teacher"], identity["teacher_revision"]) == ("org/far-away", "served")
    assert read_json(run.folder("generate").path / "identity.json") is None
