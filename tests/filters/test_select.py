"""Which good traces of a problem go on."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.dedup import signature
from distill.filters.select import Candidate, in_band, majority, over_limits, pass_rate, per_problem, vote
from distill.recipe.filter import Majority, Select


def trace(problem_id="p", sample_index=0, num_tokens=10):
    return Candidate(problem_id, sample_index, "source", num_tokens)


def surplus(traces, select, seed):
    """What is beyond the shares of several problems."""
    names = {t.problem_id for t in traces}
    return set().union(*(per_problem([t for t in traces if t.problem_id == name], select, seed) for name in names))


@st.composite
def many_traces(draw):
    """Traces with distinct keys, of few problems and lengths."""
    keys = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), unique=True, max_size=20))
    return [trace(name, index, draw(st.integers(1, 4))) for name, index in keys]


policies = st.sampled_from(["shortest", "longest", "random"])


def test_no_traces():
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
def test_the_order_of_the_rows_says_nothing(traces, policy, share, seed, shuffler: random.Random):
    shuffled = list(traces)
    shuffler.shuffle(shuffled)
    select = Select(per_problem=share, policy=policy)
    assert surplus(shuffled, select, seed) == surplus(traces, select, seed)


@settings(deadline=None)
@given(many_traces(), policies, st.integers(1, 3), st.integers(0, 5))
def test_each_problem_keeps_its_share(traces, policy, share, seed):
    over = surplus(traces, Select(per_problem=share, policy=policy), seed)
    for name in "abc":
        group = [t for t in traces if t.problem_id == name]
        kept = [t for t in group if t.key not in over]
        assert len(kept) == min(share, len(group))
        lengths = sorted(t.num_tokens for t in group)
        if policy == "shortest":
            assert sorted(t.num_tokens for t in kept) == lengths[: len(kept)]
        if policy == "longest":
            assert sorted(t.num_tokens for t in kept) == lengths[len(lengths) - len(kept) :]


def candidate(problem_id="p", sample_index=0, source="s", num_tokens=10, text=None):
    return Candidate(problem_id, sample_index, source, num_tokens, None if text is None else signature(text))


@st.composite
def candidates(draw):
    """Candidates with distinct identities, of few problems, sources and lengths."""
    keys = draw(st.lists(st.tuples(st.sampled_from(["a", "b", "\ud800/0"]), st.integers(0, 30)), unique=True))
    return [
        candidate(name, index, draw(st.sampled_from(["gsm8k", "math", ""])), draw(st.integers(0, 50)))
        for name, index in keys
    ]


def kept_of_problem(group, **select):
    over = per_problem(group, Select(**select), seed=0)
    return [c.sample_index for c in group if c.key not in over]


@pytest.mark.parametrize(
    ("verdicts", "rate"),
    [([], None), ([None, None], None), ([True], 1), ([True, False, None, False, None, True], 0.5), ([False], 0)],
)
def test_the_pass_rate_counts_what_was_graded(verdicts, rate):
    assert pass_rate(verdicts) == rate


@pytest.mark.parametrize(
    ("rate", "inside"),
    [(0.0, False), (0.25, True), (0.5, True), (0.75, True), (0.76, False), (1.0, False), (None, True)],
)
def test_the_band_holds_its_ends_and_what_is_not_known(rate, inside):
    assert in_band(rate, Select(min_pass_rate=0.25, max_pass_rate=0.75)) is inside


def test_every_rate_is_in_the_default_band():
    assert all(in_band(rate, Select()) for rate in (0.0, 1.0))


def test_diverse_starts_from_the_shortest_and_takes_the_farthest():
    near, far = "we add two and three and get five " * 5, "suppose that the sum were six instead of that "
    group = [
        candidate(sample_index=0, num_tokens=30, text=near),
        candidate(sample_index=1, num_tokens=20, text=near + "so"),
        candidate(sample_index=2, num_tokens=90, text=far),
        candidate(sample_index=3, num_tokens=40, text=near + far),
    ]
    assert kept_of_problem(group, per_problem=1, policy="diverse") == [1]
    assert kept_of_problem(group, per_problem=2, policy="diverse") == [1, 2]
    assert kept_of_problem(group, per_problem=3, policy="diverse") == [1, 2, 3]


def test_of_equally_far_ones_the_lower_sample_index_goes_on():
    group = [candidate(sample_index=n, num_tokens=50 - n, text="the same") for n in (4, 1, 3, 2)]
    assert sorted(kept_of_problem(group, per_problem=2, policy="diverse")) == [1, 4]


def test_diverse_needs_signatures():
    with pytest.raises(ValueError, match=r"\('p', 1\) has no signature"):
        per_problem([candidate(text="x"), candidate(sample_index=1)], Select(per_problem=1, policy="diverse"), seed=0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3), st.sampled_from("xyz")), unique_by=lambda t: t[0]),
    st.sampled_from(["shortest", "longest", "random", "diverse"]),
    st.integers(1, 4),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_a_problems_share_does_not_depend_on_the_order(rows, policy, share, seed, shuffler: random.Random):
    group = [candidate(sample_index=index, num_tokens=length, text=text) for index, length, text in rows]
    select = Select(per_problem=share, policy=policy)
    over = per_problem(group, select, seed)
    assert len(over) == max(0, len(group) - share)
    shuffler.shuffle(group)
    assert per_problem(group, select, seed) == over


@pytest.mark.parametrize(
    ("finish_reason", "answer", "counts"),
    [
        ("stop", "4", True),
        ("length", "4", False),
        ("loop", "4", False),
        ("error", "4", False),
        ("stop", None, False),
        ("stop", " $ $ ", False),
        ("stop", "4" * 3_000, False),
    ],
)
def test_who_votes(finish_reason, answer, counts):
    assert vote(finish_reason, answer) == (answer if counts else None)


def refuse(left, right):
    return False


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        pytest.param(["4", "4", "4", "5"], "4", id="clear"),
        pytest.param(["4", "4", "5", "5"], None, id="tie"),
        pytest.param(["4", "4", "5", "6"], None, id="half is not enough"),
        pytest.param(["4", "4", "4"], None, id="too few votes"),
        pytest.param(["4", "4", "4", None, None], None, id="who does not vote does not count"),
        pytest.param(["4", "4", "4", "5", None, None, None], "4", id="nor against"),
        pytest.param(["0.5", "1/2", "1/2", "\\frac{1}{2}", "3"], "1/2", id="one number in several wordings"),
        pytest.param(["$4$", "4.", "5", "4", "4"], "4", id="the most frequent wording"),
        pytest.param(["red", "Red", "\\text{red}", "blue"], "Red", id="of as frequent ones the shortest"),
        pytest.param([], None, id="nobody"),
    ],
)
def test_the_majority(votes, winner):
    assert majority(votes, refuse, Majority()) == winner


def test_what_means_the_same_is_counted_together():
    asked = []

    def same(left, right):
        asked.append((left, right))
        return {left, right} <= {"x+1", "1+x"}

    assert majority(["x+1", "x+1", "1+x", "y", "1+x"], same, Majority()) in {"x+1", "1+x"}
    assert asked


def test_the_slow_comparison_is_spared_where_nothing_depends_on_it():
    def never(left, right):
        raise AssertionError("asked")

    assert majority(["4"] * 6 + ["5", "6", "7"], never, Majority()) == "4"
    assert majority(["4", "5", "6"], never, Majority()) is None


@settings(deadline=None)
@given(
    st.lists(st.none() | st.sampled_from(["1", "2", "3", "4", "x", "2*x"]), max_size=12),
    st.randoms(use_true_random=False),
    st.floats(0.51, 1.0),
)
def test_a_vote_does_not_depend_on_the_order(votes, shuffler: random.Random, min_share):
    def odd_and_even(left, right):
        return left.isdigit() and right.isdigit() and int(left) % 2 == int(right) % 2

    config = Majority(min_votes=3, min_share=min_share)
    winner = majority(votes, odd_and_even, config)
    shuffled = list(votes)
    shuffler.shuffle(shuffled)
    assert majority(shuffled, odd_and_even, config) == winner
    cast = [answer for answer in votes if answer is not None]
    sizes = [sum(a == w or odd_and_even(a, w) for a in cast) for w in cast]
    enough = len(cast) >= 3 and max(sizes) / len(cast) >= min_share
    assert (winner is not None) == enough


def test_the_cap_of_a_source():
    group = [candidate("p", n, "math" if n % 4 else "gsm8k") for n in range(40)]
    reasons = over_limits(group, Select(per_source=12), seed=1)
    assert set(reasons) == {None, "over_source_cap"}
    kept = [c.source for c, reason in zip(group, reasons, strict=True) if reason is None]
    assert (kept.count("math"), kept.count("gsm8k")) == (12, 10)


def test_the_budget_is_filled_and_never_exceeded():
    group = [candidate("p", n, num_tokens=7) for n in range(10)]
    assert over_limits(group, Select(token_budget=30), seed=0).count(None) == 4


def test_one_huge_trace_does_not_keep_the_others_out():
    group = [candidate("p", 0, num_tokens=10**12), *(candidate("p", n, num_tokens=10) for n in range(1, 6))]
    for seed in range(10):
        assert over_limits(group, Select(token_budget=50), seed) == ["over_budget"] + [None] * 5


def test_without_limits_all_go_on():
    assert over_limits((candidate(sample_index=n) for n in range(5)), Select(), seed=0) == [None] * 5
    assert over_limits([], Select(token_budget=5, per_source=1), seed=0) == []


def test_another_seed_draws_others():
    group = [candidate(str(n)) for n in range(100)]
    draws = [over_limits(group, Select(per_source=50), seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_the_two_draws_are_independent():
    """What `random` keeps of a problem is neither favoured nor disadvantaged by the source's cap."""
    groups = [[candidate(str(n), index) for index in range(4)] for n in range(1_000)]
    first = [c for g in groups for c in g if c.key not in per_problem(g, Select(per_problem=1, policy="random"), 0)]
    others = [c for g in groups for c in g if c not in first][:1_000]
    reasons = over_limits(first + others, Select(per_source=1_000), seed=0)
    assert 400 < reasons[:1_000].count(None) < 600


@settings(deadline=None)
@given(candidates(), st.none() | st.integers(1, 5), st.none() | st.integers(1, 200), st.randoms(use_true_random=False))
def test_limits_hold_are_used_and_do_not_depend_on_the_order(group, cap, budget, shuffler: random.Random):
    select = Select(per_source=cap, token_budget=budget)
    reasons = dict(zip((c.key for c in group), over_limits(group, select, seed=3), strict=True))
    kept = [c for c in group if reasons[c.key] is None]
    over_budget = [c for c in group if reasons[c.key] == "over_budget"]
    num_tokens = sum(c.num_tokens for c in kept)
    assert budget is None or num_tokens <= budget
    assert all(num_tokens + c.num_tokens > budget for c in over_budget)
    for source in {c.source for c in group}:
        size = sum(c.source == source for c in group)
        within = sum(c.source == source for c in (*kept, *over_budget))
        assert within == (size if cap is None else min(cap, size))
    shuffler.shuffle(group)
    assert dict(zip((c.key for c in group), over_limits(group, select, seed=3), strict=True)) == reasons
