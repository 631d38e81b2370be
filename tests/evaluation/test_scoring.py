"""From verdicts to scores: a sample that is missing or ungraded is never a zero."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.core.records import Problem, Trace, Verdict
from distill.evaluation.answers import Answers
from distill.evaluation.scoring import (
    common_protocol,
    difference,
    overall_score,
    sample_score,
    score_answers,
    score_set,
    wanted_of,
)
from distill.results.eval import Protocol, of_one_metric

SIGNS = {"+": True, "-": False, "?": None, "!": None}


def answered(num_tokens=10, model="org/m", **signs):
    """Answers: `+` right, `-` wrong, `?` ungraded, `!` failed; a blank was not drawn."""
    keys = [(name, index, sign) for name, own in signs.items() for index, sign in enumerate(own) if sign != " "]
    traces = [
        Trace(name, index, model, "r", "x", "", "x", "error" if sign == "!" else "stop", 1, num_tokens + index, 0)
        for name, index, sign in keys
    ]
    verdicts = [Verdict(name, index, SIGNS[sign], "4" if sign == "+" else "5") for name, index, sign in keys]
    return Answers(model, traces, verdicts)


def problems_of(answers, **groups):
    names = {trace.problem_id for trace in answers.traces}
    return {
        name: Problem(
            name, [{"role": "user", "content": name}], "4", "math", "s", {"group": groups[name]} if groups else {}
        )
        for name in names
    }


@pytest.mark.parametrize("gap", [" ", "!", "?"])
def test_a_run_that_was_killed_at_half_is_incomplete_and_not_halved(gap):
    """open-r1#655: 43.8, 21.9, 10.9, 5.5 at n = 8, 16, 32, 64, because missing samples were divided by n."""
    right, wrong = "++++", "----"
    whole = answered(a=right, b=wrong, c="++--")
    half = answered(a=right + 4 * gap, b=wrong + 4 * gap, c="++--" + 4 * gap)
    complete = score_answers(whole, dict.fromkeys("abc", 4))
    found = score_answers(half, dict.fromkeys("abc", 8))
    assert found.pass_at_1 == complete.pass_at_1 == 0.5
    assert complete.is_complete
    assert not found.is_complete
    assert found.num_missing + found.num_ungraded == 12
    assert found.num_ungraded == (12 if gap == "?" else 0)
    assert found.bounds == pytest.approx(((4 + 0 + 2) / 24, (8 + 4 + 6) / 24))


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.text(st.sampled_from("+-?! "), min_size=1, max_size=6), min_size=1),
    st.integers(0, 3),
)
def test_the_score_is_within_its_bounds_whatever_is_missing(signs, num_more):
    wanted = {name: len(own) + num_more for name, own in signs.items()}
    found = score_answers(answered(**signs), wanted)
    num_graded = sum(sign in "+-" for own in signs.values() for sign in own)
    assert num_graded + found.num_missing + found.num_ungraded == sum(wanted.values())
    assert found.is_complete == (num_graded == sum(wanted.values())) == (found.bounds is None)
    low, high = found.interval_95
    assert 0 <= low <= high <= 1
    assert (found.pass_at_1 is None) == (num_graded == 0)
    assert found.pass_at_1 is None or low <= found.pass_at_1 <= high
    if found.bounds is not None:
        assert 0 <= found.bounds[0] <= found.bounds[1] <= 1


def test_without_a_single_grade_nothing_is_known():
    for signs in ("??", "!!", "  "):
        found = score_answers(answered(a=signs), {"a": 2})
        assert found.bounds == (0.0, 1.0)
        assert found.interval_95 == (0.0, 1.0)
        assert (found.pass_at_1, found.text) == (None, "not known")
    assert score_answers(answered(a="-?"), {"a": 2}).pass_at_1 == 0.0


def test_samples_that_failed_have_no_length_and_were_not_cut_off():
    found = score_answers(answered(a="+!", num_tokens=100), {"a": 3})
    assert (found.mean_completion_tokens, found.truncated_share) == (100, 0.0)
    assert found.num_answers * found.mean_completion_tokens == 100


def test_partial_credit_is_the_score_of_a_sample():
    half = Verdict("a", 0, False, None, (), "judge", {"score": "0.25"})
    assert sample_score(half) == 0.25
    assert sample_score(Verdict("a", 0, True, "4")) == 1.0
    assert sample_score(Verdict("a", 0, None, None, ("error",))) is None


def test_a_set_has_its_curves_its_variance_and_its_thinking_budget(measured_set):
    answers = answered(a="++++", b="+---", c="----")
    one = measured_set("s", "abc", 4)
    found = score_set(one, answers, problems_of(answers), 0)
    assert [at.k for at in found.at_k] == [1, 2, 4]
    assert [at.pass_at for at in found.at_k] == pytest.approx([5 / 12, (1 + 0.5 + 0) / 3, 2 / 3])
    assert found.at_k[-1].cons_at == pytest.approx(1 / 3)  # the majority of b says 5
    assert found.variance.between_samples > 0
    assert found.budget[-1].max_tokens <= 64
    assert found.budget[-1].pass_at_1 == found.pass_at_1
    assert found.tokens_per_right == pytest.approx(3 * (10 + 11 + 12 + 13) / 5)
    assert found.contamination is None


def test_figures_from_subsamples_are_told_from_exact_ones(measured_set):
    answers = answered(a="+-" * 64)
    found = score_set(measured_set("s", "a", 128), answers, problems_of(answers), 0)
    assert [at.cons_is_exact for at in found.at_k] == [at.k <= 32 for at in found.at_k]


def test_free_texts_do_not_vote(measured_set):
    answers = answered(a="+-", b="++")
    found = score_set(measured_set("s", "ab", 2, metric="instructions"), answers, problems_of(answers), 0)
    assert [at.cons_at for at in found.at_k] == [None, None]


def test_groups_have_scores_of_their_own(measured_set):
    answers = answered(a="++", b="+-", c="--", d="??")
    problems = problems_of(answers, a="algebra", b="algebra", c="geometry", d="number theory")
    found = score_set(measured_set("s", "abcd", 2), answers, problems, 0)
    assert found.groups == {"algebra": 0.75, "geometry": 0.0}  # nothing is known of number theory
    assert found.group_problems == {"algebra": 2, "geometry": 1}
    one_group = problems_of(answers, **dict.fromkeys("abcd", "algebra"))
    assert score_set(measured_set("s", "abcd", 2), answers, one_group, 0).groups == {}


def test_an_adaptive_set_is_complete_when_it_stopped_early(measured_set):
    one = measured_set("s", "abc", 16, adaptive={"width": 0.8, "min_samples": 2})
    answers = answered(a="++++", b="----", c="+-+-")
    found = score_set(one, answers, problems_of(answers), 0)
    assert (found.samples_per_problem, found.samples_range) == (4, (4, 4))
    assert found.is_complete
    low, high = found.sequence_95
    assert low < found.pass_at_1 < high < low + 0.8
    uneven = answered(a="++++++", b="----", c="+-+-+-")
    assert wanted_of(one, uneven) == dict.fromkeys("abc", 6)
    found = score_set(one, uneven, problems_of(uneven), 0)
    assert (found.samples_range, found.num_missing, found.is_complete) == ((4, 6), 2, False)


def test_an_adaptive_set_that_was_killed_between_two_waves_is_incomplete(measured_set):
    one = measured_set("s", "ab", 16, adaptive={"width": 0.05, "min_samples": 4})
    answers = answered(a="++++", b="----")
    found = score_set(one, answers, problems_of(answers), 0)
    assert (found.samples_per_problem, found.num_missing, found.is_complete) == (16, 24, False)
    assert found.bounds == pytest.approx((4 / 32, 28 / 32))
    whole = answered(a="+" * 16, b="-" * 16)
    assert score_set(one, whole, problems_of(whole), 0).is_complete


def test_wrong_answers_that_are_one_vote_together_however_they_are_written(measured_set):
    def at_k(*wrong):
        said = ["3", "3", *wrong]
        traces = [Trace("a", i, "m", "r", text, "", text, "stop", 1, 9, 0) for i, text in enumerate(said)]
        verdicts = [Verdict("a", i, text == "3", text) for i, text in enumerate(said)]
        answers = Answers("m", traces, verdicts)
        return score_set(measured_set("s", "a", len(said)), answers, problems_of(answers), 0).at_k

    once = at_k(*["0.5"] * 4)
    assert once[-1].cons_at == 0.0  # four against two
    assert at_k("0.5", "1/2", "\\frac{1}{2}", "\\dfrac12") == once
    assert at_k("0.5", "1/3", "\\frac{1}{4}", "\\dfrac15")[-1].cons_at == 1.0


def test_an_adaptive_set_that_was_killed_early_lacks_what_it_needs_in_any_case(measured_set):
    one = measured_set("s", "abc", 16, adaptive={"width": 0.2, "min_samples": 4})
    assert wanted_of(one, answered(a="+", b="-")) == dict.fromkeys("abc", 16)
    few = measured_set("s", "abc", 2, adaptive={"width": 0.2, "min_samples": 4})
    assert wanted_of(few, answered(a="+", b="-")) == dict.fromkeys("abc", 2)


def test_the_score_without_the_items_that_were_trained_on(measured_set):
    answers = answered(a="++", b="+-", c="--")
    one = measured_set("s", "abc", 2)
    found = score_set(one, answers, problems_of(answers), 0, {"a": "equal: What"}).contamination
    assert (found.num_hit, found.items) == (1, ["a"])
    assert found.pass_at_1 == pytest.approx((0.5 + 0) / 2)
    assert found.interval_95[0] < found.pass_at_1 < found.interval_95[1]
    clean = score_set(one, answers, problems_of(answers), 0, {}).contamination
    assert (clean.num_hit, clean.pass_at_1) == (0, pytest.approx(0.5))
    everything = score_set(one, answers, problems_of(answers), 0, dict.fromkeys("abc", "x")).contamination
    assert (everything.num_hit, everything.pass_at_1, everything.interval_95) == (3, None, None)


def test_items_of_a_set_with_a_canary_are_counted_and_not_listed(measured_set):
    answers = answered(a="++", b="+-")
    one = measured_set("s", "ab", 2, canary=True)
    found = score_set(one, answers, problems_of(answers), 0, {"a": "equal: secret"}).contamination
    assert (found.num_hit, found.items) == (1, [])


def compared(before, after):
    names = dict.fromkeys("abc" if any(t.problem_id == "c" for t in before.traces) else "ab", 2)
    return difference(*((answers, score_answers(answers, names)) for answers in (before, after)))


def test_a_difference_is_over_the_problems_that_both_have_grades_of():
    found = compared(answered(a="--", b="??", c="+-"), answered(a="++", b="++", c="--", model="student"))
    assert (found.num_problems, found.bounds) == (2, pytest.approx((2 / 3 - 3.0 / 6 + 0.0, 2 / 3 - 1 / 6)))
    assert found.pass_at_1 == pytest.approx((1 - 0.5) / 2)
    assert (found.num_gained, found.num_lost) == (1, 1)
    assert found.interval_95[0] < found.pass_at_1 < found.interval_95[1]


def test_a_difference_of_nothing_is_unknown_and_no_crash():
    found = compared(answered(a="??", b="++"), answered(a="++", b="!!"))
    assert (found.pass_at_1, found.interval_95, found.num_gained, found.num_lost) == (None, (-1.0, 1.0), 0, 0)
    assert (found.text, found.bounds) == ("not known", (-0.5, 0.5))


def test_a_difference_of_complete_scores_has_no_bounds():
    found = compared(answered(a="--", b="+-"), answered(a="++", b="+-"))
    assert (found.num_problems, found.bounds) == (2, None)
    assert "incomplete" not in found.text


def test_scores_of_several_metrics_are_not_averaged():
    assert of_one_metric({"a": "pass@1", "b": "arena", "c": None}) == ["a", "c"]
    assert of_one_metric({"b": "arena", "c": "win-rate", "d": "arena"}) == ["b", "d"]
    assert of_one_metric({}) == []


def test_over_all_benchmarks_each_problem_counts_once(measured_set):
    sets = [measured_set("one", "ab", 1), measured_set("two", "bc", 1)]
    found = overall_score(sets, answered(a="+", b="+", c="-"))
    assert (found.num_problems, found.pass_at_1) == (3, pytest.approx(2 / 3))


def test_what_the_protocols_of_all_benchmarks_have_in_common(measured_set):
    def with_protocol(**fields):
        return measured_set(protocol=Protocol(samples_per_problem=4, temperature=0.6, **fields).with_hash())

    sets = [with_protocol(max_tokens=9, suite="a"), with_protocol(max_tokens=8, suite="b")]
    found = common_protocol(sets, {"name": "vllm", "version": "1"})
    assert (found.samples_per_problem, found.temperature, found.max_tokens) == (4, 0.6, None)
    assert (found.engine, found.suite) == ("vllm 1", None)
    assert common_protocol(sets, None).engine is None
