"""What the rewards of a recipe may say."""

import pytest
from pydantic import ValidationError

from distill.recipe.rewards import PARTS, RewardConfig

SERVED = {"model": "m", "compute": {"base_urls": ["http://localhost:8000/v1"]}}


def refusal(**keys):
    """The messages with which a reward is refused, each with its key."""
    with pytest.raises(ValidationError) as caught:
        RewardConfig(**keys)
    return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in caught.value.errors()]


def test_the_default_is_r1_zeros_and_one_more_key_makes_it_r1s():
    assert RewardConfig().weights == {"accuracy": 1.0, "format": 1.0}
    assert RewardConfig(language=1).weights == {"accuracy": 1.0, "format": 1.0, "language": 1.0}


@pytest.mark.parametrize("part", PARTS)
def test_a_number_is_the_weight_of_every_part(part):
    assert RewardConfig(**{part: 0.5}).weights[part] == 0.5
    assert part not in RewardConfig(**{"accuracy": 1, "format": 1, part: 0}).weights


def test_a_number_and_the_section_it_stands_for_are_the_same_recipe():
    assert RewardConfig(overlong=2).model_dump() == RewardConfig(overlong={"weight": 2}).model_dump()
    assert RewardConfig(overlong={"buffer_tokens": 64}).weights["overlong"] == 1.0


def test_editors_are_told_that_a_number_will_do():
    kinds = RewardConfig.model_json_schema()["properties"]["overlong"]["anyOf"]
    assert {"number", "null"} <= {kind.get("type") for kind in kinds}
    assert any("$ref" in kind for kind in kinds)


def test_shaping_counts_where_the_answer_is_right_unless_told_otherwise():
    shaped = {"language": 1, "overlong": 1, "cosine": 1, "length": 1, "repetition": 1}
    assert RewardConfig(**shaped).gated == {"overlong", "cosine", "length", "repetition"}
    assert RewardConfig(overlong={"when": "always"}, language={"when": "right"}).gated == {"language"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"accuracy": 0, "format": 0}, "no part of the reward has a weight"),
        ({"accuracy": 0, "format": 0, "cosine": {"right_short": 0, "right_long": 0}}, "no part of the reward can vary"),
        ({"format": -1}, "format: "),
        ({"language": -1}, "language.weight: "),
        ({"lenght": 1}, "lenght: Extra inputs"),
        ({"overlong": {"max_tokens": 10, "buffer_tokens": 20}}, r"buffer_tokens (20) exceeds max_tokens (10)"),
        ({"judge": {"by": SERVED | {"role": "veto"}}}, "a judge rewards only what no rule can grade"),
    ],
)
def test_a_reward_that_cannot_work_is_refused_in_words(keys, message):
    [said] = refusal(**keys)
    assert message in said


def test_a_reward_by_a_judge_alone_is_told():
    assert RewardConfig(accuracy=0, judge={"by": SERVED}).only_judged
    assert not RewardConfig(judge=1).only_judged
    assert not RewardConfig(accuracy=0, code=1, judge=1).only_judged
    assert not RewardConfig().only_judged


def test_which_parts_can_vary_depends_on_the_tasks():
    rules = ("math", "code")
    assert RewardConfig(code=1).varying(["math"], rules) == ["accuracy", "format"]
    assert RewardConfig(accuracy=1, format=0).varying(["judge"], rules) == []
    assert RewardConfig(accuracy=0, format=0, code=1).varying(["code"], rules) == ["code"]
    assert RewardConfig(format=0, judge=1).varying(["math", "judge"], rules) == ["accuracy", "judge"]
    assert RewardConfig(accuracy=0, format=0, judge=1).varying(["math"], rules) == []


def test_a_grade_is_needed_unless_form_and_language_alone_count():
    assert RewardConfig().needs_grade
    assert not RewardConfig(accuracy=0, language=1).needs_grade
    assert RewardConfig(accuracy=0, overlong=1).needs_grade
    assert not RewardConfig(accuracy=0, overlong={"when": "always"}).needs_grade
