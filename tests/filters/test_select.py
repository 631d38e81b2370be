"""Which good traces of a problem go on."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.select import duplicates, surplus
from distill.recipe import Select
from distill.records import Trace


def trace(problem_id="p", sample_index=0, num_tokens=10, reasoning="2 + 2", content="4"):
    text = f"<think>{reasoning}</think>{content}"
    return Trace(problem_id, sample_index, "t", "r", text, reasoning, content, "stop", 5, num_tokens, 0)


@st.composite
def many_traces(draw):
    """Traces with distinct keys, of few problems, texts and lengths."""
    keys = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), unique=True, max_size=20))
    return [
        trace(name, index, draw(st.integers(1, 4)), draw(st.sampled_from(["x", "y", "x  \n"]))) for name, index in keys
    ]


policies = st.sampled_from(["shortest", "longest", "random"])


def test_the_first_of_equal_traces_is_not_a_duplicate():
    assert duplicates([trace(sample_index=2), trace(sample_index=0), trace(sample_index=1)]) == {("p", 1), ("p", 2)}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"reasoning": "3 + 1"}, id="another thought"),
        pytest.param({"content": "It is 4."}, id="another answer"),
        pytest.param({"problem_id": "q"}, id="another problem"),
        pytest.param({"reasoning": "2 + 2 4", "content": ""}, id="another place for the answer"),
        pytest.param({"reasoning": "2 + 2".upper() + "A"}, id="other letters"),
    ],
)
def test_what_differs_is_no_duplicate(other):
    assert duplicates([trace(), trace(**{"sample_index": 1, **other})]) == set()


def test_spaces_make_no_difference():
    assert duplicates([trace(), trace(sample_index=1, reasoning=" 2\n+ 2  ", content="\t4 ")]) == {("p", 1)}


def test_no_traces():
    assert duplicates([]) == set()
    assert surplus([], Select(per_problem=1), seed=0) == set()


def test_without_a_limit_nothing_is_too_much():
    assert surplus([trace(sample_index=n) for n in range(9)], Select(), seed=0) == set()


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("shortest", {("p", 1), ("p", 3)}), ("longest", {("p", 0), ("p", 2)})],
)
def test_shortest_and_longest(policy, kept):
    traces = [trace(sample_index=n, num_tokens=length) for n, length in enumerate([40, 10, 30, 20])]
    over = surplus(traces, Select(per_problem=2, policy=policy), seed=0)
    assert {t.key for t in traces} - over == kept


def test_of_equal_lengths_the_lower_sample_index_goes_on():
    traces = [trace(sample_index=n) for n in (3, 1, 2)]
    for policy in ("shortest", "longest"):
        assert surplus(traces, Select(per_problem=1, policy=policy), seed=0) == {("p", 2), ("p", 3)}


def test_the_share_is_counted_by_problem():
    traces = [trace("a", 0), trace("a", 1), trace("b", 0)]
    assert surplus(traces, Select(per_problem=1), seed=0) == {("a", 1)}


def test_the_random_draw_depends_on_the_seed_alone():
    traces = [trace(name, index) for name in "abcdefgh" for index in range(8)]
    select = Select(per_problem=2, policy="random")
    assert surplus(traces, select, seed=1) == surplus(traces, select, seed=1)
    assert surplus(traces, select, seed=1) != surplus(traces, select, seed=2)


def test_the_random_draw_is_fair():
    traces = [trace(str(name), index) for name in range(1_000) for index in range(4)]
    over = surplus(traces, Select(per_problem=1, policy="random"), seed=0)
    kept = [t.sample_index for t in traces if t.key not in over]
    assert len(kept) == 1_000
    assert all(200 < kept.count(index) < 300 for index in range(4))


def test_a_draw_does_not_change_when_other_problems_join():
    ours = [trace("a", index) for index in range(8)]
    others = [trace("b", index) for index in range(8)]
    select = Select(per_problem=2, policy="random")
    assert surplus(ours, select, seed=0) == {k for k in surplus(ours + others, select, seed=0) if k[0] == "a"}


@settings(deadline=None)
@given(many_traces(), policies, st.integers(1, 3), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_says_nothing(traces, policy, per_problem, seed, shuffler: random.Random):
    shuffled = list(traces)
    shuffler.shuffle(shuffled)
    select = Select(per_problem=per_problem, policy=policy)
    assert duplicates(shuffled) == duplicates(traces)
    assert surplus(shuffled, select, seed) == surplus(traces, select, seed)


@settings(deadline=None)
@given(many_traces(), policies, st.integers(1, 3), st.integers(0, 5))
def test_each_problem_keeps_its_share(traces, policy, per_problem, seed):
    over = surplus(traces, Select(per_problem=per_problem, policy=policy), seed)
    for name in "abc":
        group = [t for t in traces if t.problem_id == name]
        kept = [t for t in group if t.key not in over]
        assert len(kept) == min(per_problem, len(group))
        lengths = sorted(t.num_completion_tokens for t in group)
        if policy == "shortest":
            assert sorted(t.num_completion_tokens for t in kept) == lengths[: len(kept)]
        if policy == "longest":
            assert sorted(t.num_completion_tokens for t in kept) == lengths[len(lengths) - len(kept) :]


@settings(deadline=None)
@given(many_traces())
def test_one_of_each_text_is_left(traces):
    found = duplicates(traces)
    left = [(t.problem_id, t.reasoning.split(), t.content) for t in traces if t.key not in found]
    everything = [(t.problem_id, t.reasoning.split(), t.content) for t in traces]
    assert len(left) == len({str(text) for text in everything})
    assert {str(text) for text in left} == {str(text) for text in everything}
