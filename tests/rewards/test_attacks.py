"""The gate: what attacks and honest rollouts are worth, by the graders as they are."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

from distill.recipe.rewards import RewardConfig
from distill.rewards.grader import RolloutGrader
from distill.rewards.rollouts import Rollout
from distill.rewards.scores import reward

spec = importlib.util.spec_from_file_location("reward_attacks", Path(__file__).with_name("attacks.py"))
attacks = importlib.util.module_from_spec(spec)
sys.modules["reward_attacks"] = attacks
spec.loader.exec_module(attacks)
CASES = attacks.CASES
R1_ZERO, R1 = RewardConfig(), RewardConfig(language=1)
EOS = 2


@pytest.fixture(scope="module")
def facts():
    """What is known of each case, by kind and name."""
    rollouts = [Rollout(c.problem, c.text, c.finish_reason, c.opened, c.token_ids, 100) for c in CASES]
    with RolloutGrader(R1, max_tokens=1_000, special_ids=frozenset({EOS})) as grader:
        return dict(zip(((c.kind, c.name) for c in CASES), grader.facts(rollouts), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}"[:80])
def test_a_rollout_is_worth_what_it_deserves(case, facts):
    known = facts[case.kind, case.name]
    zero, r1 = reward(known, R1_ZERO), reward(known, R1)
    assert (zero.parts["accuracy"], zero.parts["format"]) == (case.accuracy, case.format), known
    assert zero.total == case.r1_zero
    if case.language is None:
        assert r1.parts["language"] is None
    else:
        low, high = case.language if isinstance(case.language, tuple) else (case.language, case.language)
        assert low <= r1.parts["language"] <= high
    if case.r1 is None:
        assert r1.total is None
    else:
        assert case.r1[0] - 1e-9 <= r1.total <= case.r1[1] + 1e-9


def test_there_are_enough_of_every_kind():
    kinds = Counter(case.kind for case in CASES)
    assert sum(kinds.values()) - kinds["honest"] >= 60
    assert min(kinds.values()) >= 2
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES)
