"""Answers of one model: each benchmark by its own settings, what is missing, and grades."""

import pytest

from distill.core.records import Problem, Trace
from distill.engines.base import Completion
from distill.evaluation.answers import Answers, Evaluation, grade, sample, stored_traces
from distill.models.hub import Model
from distill.recipe.eval import EvalConfig
from distill.recipe.sampling import Sampling
from distill.storage.files import read_jsonl, write_jsonl
from distill.storage.layout import PROBLEMS
from distill.storage.ledger import Ledger

LONG = {"temperature": 0.6, "top_p": 1.0, "top_k": 0, "max_tokens": 90}
SHORT = {"temperature": 1.0, "top_p": 0.9, "top_k": 3, "max_tokens": 9}


def problem(name, answer="4"):
    return Problem(name, [{"role": "user", "content": f"Question {name}"}], answer, "math", "s")


@pytest.fixture
def evaluation_of(tmp_path):
    """A function that makes an evaluation of these sets, its problems stored."""

    def make(*sets, **problems):
        names = [name for one in sets for name in one.problems]
        by_id = {name: problems.get(name) or problem(name) for name in names}
        write_jsonl(tmp_path / "eval" / PROBLEMS, (one.to_json() for one in by_id.values()))
        config = EvalConfig.model_validate({"held_out": 1, "sampling": {"max_tokens": 64}, "grade_timeout_s": 30.0})
        return Evaluation(tmp_path / "eval", sets, by_id, config, 5, tmp_path / "facts.sqlite")

    return make


@pytest.fixture
def answered(tmp_path, sampled_by, answering_engine):
    """A function that samples an evaluation with these answers and grades them; the requests, and the answers."""

    def run(evaluation, answer, role="m"):
        engines = sampled_by(lambda job: answering_engine(answer))
        sample(evaluation, role, Model("org/m", tmp_path, "r"), None)
        return engines[-1].requests, grade(evaluation, role, "org/m")

    return run


def test_one_job_asks_all_benchmarks_each_by_its_own_settings(evaluation_of, measured_set, answered):
    short = measured_set("short", ["a", "b"], 2, sampling=SHORT)
    long = measured_set("long", ["c"], 3, sampling=LONG)
    requests, answers = answered(evaluation_of(short, long), lambda request: "\\boxed{4}")
    asked = {request.key: request.sampling for request in requests}
    assert asked == {
        **{("c", index): Sampling(**LONG) for index in range(3)},
        **{(name, index): Sampling(**SHORT) for name in "ab" for index in range(2)},
    }
    assert [request.key[0] for request in requests[:3]] == ["c"] * 3  # the longest first
    assert {trace.problem_id: trace.sampling for trace in answers.traces} == {"a": SHORT, "b": SHORT, "c": LONG}
    assert all(verdict.correct for verdict in answers.verdicts)


def test_the_seed_is_not_that_of_the_teacher(evaluation_of, measured_set, sampled_by, answering_engine, tmp_path):
    seeds = []
    sampled_by(lambda job: seeds.append(job.seed) or answering_engine(lambda request: "4"))
    sample(evaluation_of(measured_set("one", ["a"])), "m", Model("org/m", tmp_path, "r"), None)
    assert seeds == [6]


def test_only_what_is_missing_is_drawn(evaluation_of, measured_set, answered):
    one = evaluation_of(measured_set("one", ["a", "b"], 1))
    assert len(answered(one, lambda request: "4")[0]) == 2
    more = evaluation_of(measured_set("one", ["a", "b"], 2), measured_set("two", ["c"], 1))
    requests, answers = answered(more, lambda request: "5")
    assert {request.key for request in requests} == {("a", 1), ("b", 1), ("c", 0)}
    assert [verdict.correct for verdict in answers.verdicts] == [True, False, True, False, False]


def test_fewer_samples_than_there_are_give_a_score_of_the_first(evaluation_of, measured_set, answered):
    answered(evaluation_of(measured_set("one", ["a"], 4)), lambda request: f"\\boxed{{{4 + request.key[1]}}}")
    fewer = grade(evaluation_of(measured_set("one", ["a"], 2)), "m", "org/m")
    assert [verdict.correct for verdict in fewer.verdicts] == [True, False]


def test_a_failed_sample_has_no_verdict(evaluation_of, measured_set, answered):
    def failing(request):
        return Completion(request.key, "", "error", 5, 0, error="out of order") if request.key[1] else "\\boxed{4}"

    _, answers = answered(evaluation_of(measured_set("one", ["a", "b"], 2)), failing)
    assert [(v.correct, v.reasons) for v in answers.verdicts] == [(True, ()), (None, ("error",))] * 2


def test_verdicts_are_stored_with_the_answers_that_were_found(evaluation_of, measured_set, answered):
    evaluation = evaluation_of(measured_set("one", ["a"], 1))
    answered(evaluation, lambda request: "<think>\nMaybe 5.\n</think>\n\nSo \\boxed{4}.")
    (row,) = read_jsonl(evaluation.folder / "m" / "verdicts.jsonl")
    assert (row["problem_id"], row["sample_index"], row["correct"], row["extracted_answer"]) == ("a", 0, True, "4")


def test_stored_answers_come_in_the_order_of_their_identities_and_once_each(tmp_path):
    def trace(name, index, text, reason="stop"):
        return Trace(name, index, "m", "r", text, "", text, reason, 1, 1, 0)

    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append([trace("b", 0, "", "error"), trace("a", 1, "x"), trace("a", 0, "y"), trace("b", 0, "new")])
        ledger.append([trace("a", 2, "too many"), trace("z", 0, "not asked")])
    found = stored_traces(tmp_path / "ledger.jsonl", {"a": 2, "b": 1, "c": 1})
    assert [(one.problem_id, one.sample_index) for one in found] == [("a", 0), ("a", 1), ("b", 0)]
    assert found[-1].text == "new"
    assert stored_traces(tmp_path / "nowhere.jsonl", {"a": 2}) == []


def test_answers_to_some_problems_keep_their_verdicts(evaluation_of, measured_set, answered):
    sets = measured_set("one", ["a", "b"], 1), measured_set("two", ["c"], 2)
    _, answers = answered(evaluation_of(*sets), lambda request: "\\boxed{4}" if request.key[0] == "c" else "5")
    two = answers.of(["c"])
    assert isinstance(two, Answers)
    assert {trace.problem_id for trace in two.traces} == {"c"}
    assert [verdict.correct for verdict in two.verdicts] == [True, True]
    assert answers.of([]).traces == []
