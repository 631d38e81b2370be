"""`rl:` among the other sections: what a recipe may be, its stages, and what is refused before anything starts."""

import pytest

from distill.recipe.expand import expand, steps_in
from distill.recipe.lineage import settings_of
from distill.recipe.model import Recipe, published_round
from distill.recipe.rl_faults import judge_of, rl_warnings

JUDGE = {"model": "j", "compute": {"base_urls": ["http://localhost:8000/v1"]}}
RL = {"prompts_per_step": 4, "probe": {"problems": 4}}
SUMS = {"source": "gym:chain_sum", "limit": 40}


def tree(**sections):
    base = {
        "name": "small",
        "student": "smollm2-135m",
        "problems": [SUMS],
        "rl": RL,
        "eval": {"held_out": 8},
    }
    return {key: value for key, value in {**base, **sections}.items() if value is not None}


def make(**sections):
    return Recipe.model_validate(tree(**sections))


def generating(**sections):
    return make(generate={"teacher": "smollm2-135m", "sampling": {"max_tokens": 100}}, **sections)


def rounds(*several, **sections):
    return make(rounds=list(several), rl=None, **sections)


def test_rl_stands_between_sft_and_eval_and_makes_the_final_model():
    recipe = generating(push={"repo": "me/small"})
    assert recipe.stage_names == ["generate", "filter", "sft", "rl", "eval", "push"]
    assert recipe.making_stage == "rl"
    assert generating(rl=None).making_stage == "sft"
    assert steps_in(recipe.model_dump(mode="json")) == recipe.stage_names


def test_rl_alone_trains_the_base():
    recipe = make(push={"repo": "me/small"})
    assert recipe.stage_names == ["rl", "eval", "push"]
    assert not recipe.trains
    assert recipe.row_rounds == []
    assert steps_in(recipe.model_dump(mode="json")) == recipe.stage_names
    assert make(eval=None, rl={**RL, "probe": {"problems": 0}}).stage_names == ["rl"]


def test_traces_made_elsewhere_and_problems_to_reinforce_on():
    traces = [{"source": "file:made.jsonl", "teacher": "org/big"}]
    assert make(traces=traces).stage_names == ["import", "filter", "sft", "rl", "eval"]
    with pytest.raises(ValueError, match="problems: is missing: rl: needs problems"):
        make(traces=traces, problems=None, eval=None, rl={"probe": {"problems": 0}})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"eval": None}, r"rl.probe.problems \(4\) are taken from eval.held_out, which is not set"),
        ({"eval": {"held_out": 2}}, r"rl.probe.problems \(4\) exceeds eval.held_out \(2\)"),
        ({"rl": {**RL, "prompts_per_step": 33}}, r"rl.prompts_per_step \(33\) exceeds .* at most 32"),
        ({"rl": {**RL, "max_tokens": 9_000}}, r"rl.max_tokens \(9000\) leaves no room .* Lower rl.max_tokens\."),
        ({"problems": [{"source": "file:a.jsonl", "task": "judge"}], "eval": None}, "task: judge: no rule grades"),
        ({"rl": {**RL, "reward": {"judge": 1}}}, "rl.reward.judge needs a judge: set filter.judge"),
        ({"problems": None}, "problems: is missing: rl: needs problems to train on"),
    ],
)
def test_what_conflicts_with_other_sections_is_said_with_the_way_out(sections, said):
    with pytest.raises(ValueError, match=said):
        make(**sections)


TAUGHT = {"algorithm": "distill", "teachers": ["org/teacher"], "kl": 0, "divergence": "reverse"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithm": "grpo", "teachers": []}, "divergence: reverse is for algorithm: distill"),
        ({"kl": 0.001}, "divergence: reverse goes without a reference model. Set kl: 0"),
        ({"task_weight": 0.5}, "divergence: reverse has no advantages that task_weight could be added to"),
        ({"loss": "gspo"}, "divergence: reverse has no ratio for loss: gspo to limit. Use one of grpo, dapo, dr_grpo"),
        ({"divergence": "sampled", "temperature": 0.7}, "temperature: with algorithm: distill .* are those at 1"),
        ({"resample": 1}, "resample looks at rewards, which algorithm: distill does not use"),
    ],
)
def test_a_divergence_over_the_whole_vocabulary_goes_without_rewards_and_references(changes, said):
    with pytest.raises(ValueError, match=said):
        make(rl={**RL, **TAUGHT, **changes})


def test_a_divergence_over_the_whole_vocabulary_takes_answers_at_any_temperature():
    assert make(rl={**RL, **TAUGHT, "temperature": 0.7, "loss": "dapo"}).rl.divergence == "reverse"


def test_r1_zero_s_prompts_are_for_a_base_or_what_was_trained_on_them():
    zero = {**RL, "prompt_format": "r1-zero"}
    assert make(rl=zero).rl.prompt_format == "r1-zero"
    with pytest.raises(ValueError, match=r"r1-zero is for a base model, and sft: trains .* its own chat template"):
        generating(rl=zero)
    assert generating(rl=zero, sft={"chat_template": "r1-zero"}).making_stage == "rl"


def test_a_student_that_was_taught_nothing_is_no_good_start_for_distillation():
    wanted = {**RL, "algorithm": "distill", "teachers": ["org/teacher"]}
    assert "Train it with sft:" in rl_warnings(make(rl=wanted))[0]
    assert rl_warnings(generating(rl=wanted)) == []


def test_the_judge_of_the_filter_rewards_and_only_fills():
    judged = [{"source": "file:a.jsonl", "task": "judge"}]
    rl = {**RL, "probe": {"problems": 0}, "reward": {"accuracy": 0, "judge": 1}}
    recipe = make(problems=judged, eval=None, rl=rl, filter={"judge": {**JUDGE, "role": "both"}})
    assert judge_of(recipe).role == "fill"
    assert "a judge alone decides" in rl_warnings(recipe)[0]
    assert rl_warnings(make()) == []
    assert settings_of(recipe, "rl", {})["filter"].keys() == {"decontaminate", "gym_min_score", "judge"}
    assert settings_of(make(), "rl", {})["filter"].keys() == {"decontaminate", "gym_min_score"}


COLD = {"name": "cold", "generate": {"teacher": "smollm2-135m", "sampling": {"max_tokens": 100}}, "sft": {}}


def test_a_round_may_reinforce_what_an_earlier_one_made():
    recipe = rounds(
        COLD,
        {"name": "rl-1", "student": "round:cold", "rl": RL},
        {"name": "again", "generate": {"teacher": "round:rl-1"}, "sft": {}, "rl": {**RL, "steps": 7}},
        push={"repo": "me/small"},
    )
    assert [step.id for step in expand(recipe)] == [
        *("cold/generate", "cold/filter", "cold/sft", "cold/eval", "rl-1/rl", "rl-1/eval"),
        *("again/generate", "again/filter", "again/sft", "again/rl", "again/eval", "again/push"),
    ]
    assert published_round(recipe) == "again"
    assert recipe.part("rl-1").making_stage == "rl"
    assert recipe.part("rl-1").row_rounds == []
    assert recipe.part("again").teacher_round == "rl-1"
    assert recipe.part("again").rl.steps == 7
    assert recipe.part("cold").rl is None
    assert steps_in(recipe.model_dump(mode="json")) == [step.id for step in expand(recipe)]
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_rl_beside_rounds_gives_the_defaults_of_those_that_name_it():
    recipe = make(rounds=[COLD, {"name": "rl-1", "student": "round:cold", "rl": {"steps": 9}}])
    assert recipe.part("rl-1").rl.steps == 9
    assert recipe.part("rl-1").rl.prompts_per_step == RL["prompts_per_step"]
    with pytest.raises(ValueError, match="rl: no round names this section"):
        make(rounds=[COLD])


def test_rounds_refuse_other_prompts_and_models_that_nobody_makes():
    zero = {**RL, "prompt_format": "r1-zero"}
    with pytest.raises(ValueError, match=r"rounds.1.rl.prompt_format: r1-zero is for a base model"):
        rounds(COLD, {"name": "rl-1", "student": "round:cold", "rl": zero})
    first = {"name": "zero", "rl": zero}
    assert rounds(first, {"name": "rl-2", "student": "round:zero", "rl": zero}).part("rl-2").making_stage == "rl"
    only_rows = {key: value for key, value in COLD.items() if key != "sft"}
    with pytest.raises(ValueError, match=r"round:cold makes no model \(it has neither sft: nor rl:\)"):
        rounds(only_rows, {"name": "rl-1", "student": "round:cold", "rl": RL})
    with pytest.raises(ValueError, match="this round does nothing: give it generate:, traces:, sft: or rl:"):
        rounds({"name": "nothing"})


def test_a_longer_context_of_an_earlier_round_leaves_room_for_long_answers():
    cold = {**COLD, "sft": {"max_length": 16_384}}
    student = "qwen-1.5b"
    recipe = rounds(cold, {"name": "rl-1", "student": "round:cold", "rl": {**RL, "max_tokens": 8_000}}, student=student)
    assert recipe.part("rl-1").rl.max_tokens == 8_000
    with pytest.raises(ValueError, match=r"rl.max_tokens \(8000\) leaves no room"):
        make(student=student, rl={**RL, "max_tokens": 8_000})
