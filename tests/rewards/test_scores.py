"""What facts are worth: the papers' formulas, and what holds for any facts and any weights."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.grading import Grade
from distill.recipe.rewards import CosinePart, OverlongPart, RepetitionPart, RewardConfig
from distill.rewards.parts import cosine, group_lengths, overlong, repeated_share, repetition
from distill.rewards.rollouts import RULED, RolloutFacts
from distill.rewards.scores import group_scores, reward

RIGHT, WRONG = Grade(True, "4", None), Grade(False, "5", "wrong_answer")
UNGRADED = Grade(None, "4", "ungraded_timeout")
ALL = {"language": 1, "overlong": 1, "cosine": 1, "length": 1, "repetition": 1, "judge": 1, "code": 1}


def facts(grade=RIGHT, **changes):
    """Facts of a rollout of 100 of at most 1,000 tokens, in good form."""
    plain = RolloutFacts("math", True, "stop", "", 100, 1_000, grade, language_share=1.0, is_repetitive=False)
    return replace(plain, **changes)


def program(passed, correct=False):
    return facts(Grade(correct, "print(4)", None, {"tests_passed": passed}), task="code")


any_grade = st.sampled_from([RIGHT, WRONG, UNGRADED, None])
any_facts = st.builds(
    RolloutFacts,
    task=st.sampled_from([*sorted(RULED), "judge"]),
    has_rule=st.booleans(),
    finish_reason=st.sampled_from(["stop", "length", "loop", "error"]),
    fault=st.sampled_from(["", "no_think", "unmeasured"]),
    num_tokens=st.integers(0, 300),
    max_tokens=st.integers(1, 200),
    grade=any_grade,
    is_unclosed=st.booleans(),
    is_guess=st.booleans(),
    is_echo=st.booleans(),
    judged=st.sampled_from([True, False, None]),
    language_share=st.none() | st.floats(0, 1),
    is_repetitive=st.sampled_from([True, False, None]),
    token_ids=st.lists(st.integers(0, 5), max_size=60),
)
weight = st.floats(0, 3)
shaping = st.fixed_dictionaries({}, optional={"weight": weight, "when": st.sampled_from(["right", "always"])})
any_config = st.builds(
    RewardConfig,
    accuracy=weight,
    format=st.floats(0.1, 3),
    language=st.none() | shaping,
    overlong=st.none() | shaping,
    cosine=st.none() | shaping,
    length=st.none() | shaping,
    repetition=st.none() | shaping,
    judge=st.none() | weight,
    code=weight,
)


# --- the sums of the papers


def test_r1_zero_adds_accuracy_and_format_and_r1_the_language():
    assert reward(facts(), RewardConfig()).total == 2.0
    assert reward(facts(WRONG), RewardConfig()).total == 1.0
    assert reward(facts(WRONG, fault="no_think"), RewardConfig()).total == 0.0
    r1 = reward(facts(WRONG, language_share=0.25), RewardConfig(language=1))
    assert (r1.total, r1.parts) == (1.25, {"accuracy": 0.0, "format": 1.0, "language": 0.25})


def test_what_could_not_be_graded_has_no_reward_and_is_not_wrong():
    assert reward(facts(UNGRADED), RewardConfig()).total is None
    assert reward(facts(UNGRADED), RewardConfig()).parts == {"accuracy": None, "format": 1.0}
    assert reward(facts(UNGRADED), RewardConfig(accuracy=0)).total == 1.0
    assert reward(facts(UNGRADED), RewardConfig(accuracy=0, overlong=1)).total is None
    assert reward(facts(None, finish_reason="error", fault="error"), RewardConfig(accuracy=0)).total is None
    assert reward(facts(UNGRADED, is_unclosed=True, fault="unclosed_think"), RewardConfig()).total == 0.0


def test_a_thought_without_words_gets_nothing_for_its_language():
    score = reward(facts(language_share=None), RewardConfig(language=1))
    assert (score.total, score.parts["language"]) == (2.0, None)


@pytest.mark.parametrize(
    ("num_tokens", "penalty"), [(0, 0.0), (800, 0.0), (801, -0.005), (900, -0.5), (1_000, -1.0), (5_000, -1.0)]
)
def test_dapos_penalty_grows_over_the_buffer(num_tokens, penalty):
    assert overlong(facts(num_tokens=num_tokens), OverlongPart(buffer_tokens=200)) == pytest.approx(penalty)
    assert overlong(facts(num_tokens=num_tokens), OverlongPart()) == pytest.approx(penalty)  # a fifth


def test_the_cosine_goes_from_short_to_long():
    curve = CosinePart()
    assert cosine(facts(num_tokens=0), curve) == 2.0
    assert cosine(facts(num_tokens=500), curve) == pytest.approx(1.5)
    assert cosine(facts(num_tokens=999), curve) == pytest.approx(1.0, abs=1e-5)
    assert cosine(facts(num_tokens=1_000), curve) == -10.0
    assert cosine(facts(WRONG, num_tokens=0), curve) == -10.0
    assert cosine(facts(WRONG, num_tokens=500), curve) == pytest.approx(-5.0)
    assert cosine(facts(UNGRADED), curve) is None


def test_kimis_length_is_within_the_group_and_never_pays_for_a_wrong_answer():
    group = [facts(num_tokens=100), facts(num_tokens=300), facts(WRONG, num_tokens=100), facts(WRONG, num_tokens=200)]
    assert group_lengths(group) == [0.5, -0.5, 0.0, 0.0]
    assert group_lengths([*group, facts(UNGRADED, num_tokens=9_000)]) == [0.5, -0.5, 0.0, 0.0, None]
    assert group_lengths([facts(WRONG, num_tokens=300), facts(num_tokens=100)]) == [-0.5, 0.5]
    assert group_lengths([facts(), facts()]) == [0.0, 0.0]


def test_repetition_is_the_share_of_ngrams_seen_before():
    assert repeated_share(range(100), 40) == 0.0
    assert repeated_share([7] * 100, 40) == 60 / 61
    assert repeated_share([1, 2] * 5, 2) == 7 / 9
    assert repeated_share([1], 40) == 0.0
    looping = facts(token_ids=(7,) * 100, is_repetitive=False)
    assert repetition(looping, RepetitionPart(measure="filter")) == 0.0
    assert repetition(looping, RepetitionPart()) == -60 / 61
    assert repetition(facts(is_repetitive=True), RepetitionPart()) == -1.0
    assert repetition(facts(is_repetitive=None), RepetitionPart()) is None


def test_shaping_counts_where_the_answer_is_right():
    long = {"num_tokens": 1_000}
    gated, always = RewardConfig(overlong=1), RewardConfig(overlong={"when": "always"})
    assert reward(facts(**long), gated).total == 1.0
    assert reward(facts(WRONG, **long), gated).total == 1.0
    assert reward(facts(WRONG, **long), gated).parts["overlong"] == 0.0
    assert reward(facts(WRONG, **long), always).total == 0.0


def test_a_judge_decides_only_where_no_rule_applies():
    config = RewardConfig(judge=1)
    opened = {"task": "judge", "has_rule": False, "grade": Grade(None, "a", "ungraded_judge")}
    assert reward(facts(UNGRADED, judged=True), config).total is None
    assert reward(facts(WRONG, judged=True), config).parts == {"accuracy": 0.0, "format": 1.0, "judge": None}
    assert reward(facts(**opened, judged=True), config).total == 2.0
    assert reward(facts(**opened, judged=False), config).total == 1.0
    assert reward(facts(**opened), config).total is None
    assert reward(facts(**opened, judged=True), RewardConfig()).total is None
    shaped = RewardConfig(judge=1, overlong=1)
    assert reward(facts(**opened, judged=True, num_tokens=1_000), shaped).total == 1.0


def test_programs_are_worth_the_share_of_their_tests():
    config = RewardConfig(accuracy=0, code=1)
    assert reward(program("3 of 4"), config).total == 1.75
    assert reward(program("4 of 4", correct=True), config).total == 2.0
    assert reward(facts(Grade(False, None, "no_answer"), task="code"), config).total == 1.0
    assert reward(facts(Grade(None, "", "ungraded_sandbox"), task="code"), config).total is None
    assert reward(facts(), config).parts == {"format": 1.0, "code": None}


# --- what holds for all


@given(any_facts, any_config)
def test_a_total_is_the_weighted_sum_of_its_parts(one, config):
    score = reward(one, config)
    assert score.parts.keys() == config.weights.keys()
    if score.total is not None:
        known = {name: value for name, value in score.parts.items() if value is not None}
        assert score.total == pytest.approx(sum(config.weights[name] * value for name, value in known.items()))
        assert math.isfinite(score.total)


@given(any_facts, any_config)
def test_parts_keep_their_bounds(one, config):
    bounds = {"overlong": (-1, 0), "repetition": (-1, 0), "length": (-0.5, 0.5), "cosine": (-10, 2)}
    for name, value in reward(one, config).parts.items():
        low, high = bounds.get(name, (0, 1))
        assert value is None or low <= value <= high


@given(any_facts, any_config)
def test_a_rollout_without_its_accuracy_has_no_total(one, config):
    score = reward(one, config)
    if "accuracy" in score.parts and score.parts["accuracy"] is None and (one.has_rule or "judge" not in score.parts):
        assert score.total is None


@given(any_facts, st.integers(0, 300), st.integers(1, 250))
def test_more_tokens_never_cost_less(one, more, buffer):
    part = OverlongPart(buffer_tokens=buffer)
    assert overlong(replace(one, num_tokens=one.num_tokens + more), part) <= overlong(one, part)


@given(st.lists(any_facts, max_size=6), any_config)
def test_ungraded_rollouts_change_nothing_for_the_others(group, config):
    scores = group_scores(group, config)
    graded = [one for one, score in zip(group, scores, strict=True) if score.total is not None]
    kept = [score for score in scores if score.total is not None]
    if "length" in config.weights:
        assert group_scores(graded, config) == kept


@given(any_facts, any_config)
def test_a_right_answer_is_never_worth_less_than_the_same_one_wrong_without_penalties(one, config):
    plain = RewardConfig(accuracy=config.accuracy, format=config.format, code=config.code)
    right, wrong = (reward(replace(one, grade=grade), plain).total for grade in (RIGHT, WRONG))
    assert (right is None) == (wrong is None)
    assert right is None or right >= wrong


def test_every_part_has_its_place_in_the_table():
    config = RewardConfig(**ALL)
    assert list(reward(facts(), config).parts) == list(config.weights)
