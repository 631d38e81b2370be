"""The same answers by the rules of others, and the answers that are disputed."""

import pytest

from distill.core.records import Problem, Trace
from distill.errors import UserError
from distill.evaluation.answers import Evaluation
from distill.evaluation.other_rules import audit_lines, audit_stored, compare_rules, gaps_text
from distill.evaluation.replay import StoredAnswers
from distill.recipe.eval import EvalConfig
from distill.recipe.filter import Judge

CONFIG = EvalConfig.model_validate({"held_out": 1, "grade_timeout_s": 30.0, "sampling": {"max_tokens": 64}})
SECRET = "QUOKKA"


def problem(name, task="math", answer="4", options=()):
    content = f"Question {name}?"
    return Problem(name, [{"role": "user", "content": content}], answer, task, "s", {"options": list(options)})


@pytest.fixture
def stored(measured_set, tmp_path):
    """A function that stores one answer to each problem of these sets."""

    def make(*sets, problems, **texts):
        by_id = {one.id: one for one in problems}
        traces = [
            Trace(name, 0, "m", "r", text, "", text, "error" if text is None else "stop", 1, 1, 0)
            for name, text in texts.items()
        ]
        evaluation = Evaluation(tmp_path, sets, by_id, CONFIG, 0, tmp_path / "facts.sqlite")
        return StoredAnswers(evaluation, {"m": traces})

    return make


def test_a_gap_is_split_into_extraction_and_comparison(stored, measured_set):
    one = measured_set("s", ["a", "b"])
    # simple-evals reads the first "Answer:", and a box without it not at all
    found = stored(
        one, problems=[problem("a"), problem("b")], a="Answer: 4\n\nSo it is \\boxed{4}.", b="It is \\boxed{4}."
    )
    (gap,) = compare_rules(found, "simple-evals")
    assert (gap.benchmark, gap.model, gap.gap.ours, gap.gap.theirs) == ("s", "m", 100.0, 50.0)
    assert (gap.gap.extraction.num_lost, gap.gap.extraction.points, gap.gap.comparison.points) == (1, -50.0, 0.0)
    text = gaps_text([gap])
    assert "ours 100.0, by the rules of simple-evals 50.0: -50.0 points" in text
    assert "for example b/0" in text


def test_only_benchmarks_that_rules_grade_are_compared(stored, measured_set):
    judged = measured_set("j", ["a"], metric="win-rate")
    with pytest.raises(UserError, match="none of the benchmarks is of these tasks"):
        compare_rules(stored(judged, problems=[problem("a", "judge", None)], a="x"), "lighteval")
    regex = measured_set("r", ["a"])
    with pytest.raises(UserError, match="none of the benchmarks is of these tasks"):
        compare_rules(stored(regex, problems=[problem("a", "regex")], a="4"), "lighteval")
    with pytest.raises(UserError, match="no such harness"):
        compare_rules(stored(regex, problems=[problem("a")], a="4"), "heavyeval")


def test_failed_samples_are_no_answers(stored, measured_set):
    one = measured_set("s", ["a", "b"])
    found = stored(one, problems=[problem("a"), problem("b")], a="\\boxed{4}", b="\\boxed{5}")
    found.traces["m"][1] = Trace("b", 0, "m", "r", "", "", "", "error", 1, 0, 0, error="out of order")
    (gap,) = compare_rules(found, "evalchemy")
    assert gap.gap.num_answers == 1
    (audit,) = audit_stored(found)
    assert audit.audit.num_answers == 1


def test_disputed_answers_are_listed_those_that_decide_first(stored, measured_set):
    one = measured_set("s", ["a", "b", "c"])
    found = stored(
        one,
        problems=[problem(name) for name in "abc"],
        a="\\boxed{4}",
        b="Answer: 5\n\nNo. Answer: 4",  # the first is wrong, the last is right
        c="Answer: 6\n\nNo. Answer: 7",  # both are wrong
    )
    (audit,) = audit_stored(found)
    assert {answer.key[0] for answer in audit.disputed} >= {"b"}
    lines = audit_lines(audit, 20)
    assert "of 3 answers disputed" in lines[0]
    assert "score 66.7%; if all disputes went one way or the other, 33.3% to" in lines[1]
    assert lines[2].strip().startswith("b/0 (extraction")
    assert any("right '4'" in line for line in lines)
    assert audit_lines(audit, 0)[-1].strip().startswith("… and")


def test_answers_on_which_rule_and_judge_disagree_are_disputed(stored, measured_set, judged_by):
    one = measured_set("s", ["a", "b", "c"])
    judged = measured_set("j", ["d"], metric="short-answers")
    items = [*(problem(name) for name in "abc"), problem("d", "judge")]
    found = stored(one, judged, problems=items, a="\\boxed{4}", b="\\boxed{5}", c="\\boxed{4} or so", d="4")
    wrong = "VERDICT: WRONG"
    engine = judged_by(lambda request: "Hm." if request.key[0] == "c" else wrong)
    judge = Judge.model_validate({"model": "judge", "compute": {"base_urls": ["http://localhost:1/v1"]}})
    (audit,) = audit_stored(found, judge)
    assert sorted(request.key[0] for request in engine.requests) == ["a", "b", "c"]
    assert [(answer.key, answer.judge, answer.disputes) for answer in audit.disputed] == [(("a", 0), False, ("judge",))]
    assert (audit.audit.num_by_dispute["judge"], audit.audit.num_right) == (1, 2)
    assert (audit.audit.low, audit.audit.high) == pytest.approx((1 / 3, 2 / 3))
    assert "    wrong: the judge" in audit_lines(audit, 20)
    assert not audit_stored(found)[0].disputed  # without a judge nobody is asked
    assert engine.num_requests == 3


def test_the_text_of_a_benchmark_with_a_canary_is_not_shown(stored, measured_set):
    options = [f"the {SECRET}", "a cat"]
    items = [problem("a", "choice", "A", options)]
    text = f"Answer: B\n\nNo, the answer is the {SECRET}.\nAnswer: A"
    for canary in (True, False):
        one = measured_set("s", ["a"], canary=canary)
        (audit,) = audit_stored(stored(one, problems=items, a=text))
        shown = str(audit.to_json()) + "\n".join(audit_lines(audit, 20))
        assert audit.disputed
        answers = {said["extracted_answer"] for row in audit.to_json()["disputed"] for said in row["said"].values()}
        assert (answers == {None}) is canary
        assert SECRET not in shown or not canary
