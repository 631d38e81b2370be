"""Each installed recipe passes its own plan on what it says that it runs on, and what a plan advises makes it fit."""

import re

import pytest

from distill.estimates.machine import Machine, chosen_machine
from distill.estimates.prices import load_prices
from distill.estimates.quantities import span
from distill.recipe.installed import installed_folder, installed_names, notes_of
from distill.recipe.loading import load_recipe
from distill.runs.plan import plan_recipe
from distill.runs.rounds_plan import plan_rounds
from distill.stages import contexts_of

NOTES = {name: notes_of((installed_folder() / f"{name}.yaml").read_text()) for name in installed_names()}
ADVERTISED = [(name, *layout) for name, said in NOTES.items() for layout in said.layouts]
TOO_SMALL = [
    (name, student, number, kind)
    for name, student, least, kind in ADVERTISED
    for number in {1, least // 2}
    # Keys at the top level of a recipe with rounds are those of every round; its students are those of r1.
    if kind != "cpu" and 0 < number < least and not load_recipe(name).rounds
] + [("r1", "llama-70b", 8, "4090"), ("r1", "qwen-7b", 1, "4090"), ("one-gpu", "qwen-14b", 1, "4090")]
ADVICE = re.compile(r"((?:sft|rl|eval|generate)\.[a-z_.]+): (\w+)|(\d+) such GPUs")


def machine_of(number, kind):
    return (
        Machine((), "CPU cores", 0, 0.0, number, 24.0, False) if kind == "cpu" else chosen_machine(number, kind, None)
    )


def planned(tmp_path, name, student, machine, overrides=()):
    """The plan of a recipe, or of its first round that trains the student."""
    return next(all_planned(tmp_path, name, student, machine, overrides))


def all_planned(tmp_path, name, student, machine, overrides=()):
    """The plan of a recipe, or of each of its rounds that train the student."""
    runs = tmp_path / "runs"
    for run in contexts_of(load_recipe(name, overrides, {"student": student}), runs / name, needs_weights=False):
        if run.recipe.making_stage and run.recipe.student == student:
            yield plan_recipe(run.recipe, runs, machine, load_prices(), run)


@pytest.mark.parametrize("name", NOTES)
def test_every_student_that_is_named_has_a_layout(name):
    students = [
        part.split()[0] for part in NOTES[name].students.split(";")[0].replace(" or ", ", ").split(",") if part.strip()
    ]
    with_layout = [student for student, _, _ in NOTES[name].layouts]
    assert with_layout == [student for student in students if student in with_layout]
    assert set(students) - set(with_layout) <= {"any"}


@pytest.mark.parametrize(("name", "student", "number", "kind"), ADVERTISED)
def test_an_installed_recipe_passes_its_plan_where_it_says_that_it_runs(tmp_path, name, student, number, kind):
    for more in {number, max(number, 8), max(number, 32)} if name.startswith("r1") else {number}:
        plans = list(all_planned(tmp_path, name, student, machine_of(more, kind)))
        assert plans
        for plan in plans:
            assert [tight.message for tight in plan.limits if tight.stops] == []
            for stage in plan.stages:
                assert not stage.is_unknown("seconds"), stage.stage
                assert not stage.is_unknown("gpu_hours"), stage.stage
            if kind != "cpu":
                assert plan.totals["cost"].low > 0


@pytest.mark.parametrize(("name", "student", "number", "kind"), TOO_SMALL)
def test_what_a_plan_advises_where_a_stage_does_not_fit_makes_it_fit(tmp_path, name, student, number, kind):
    plan = planned(tmp_path, name, student, machine_of(number, kind))
    for message in [tight.message for tight in plan.limits if tight.kind == "memory"]:
        stage = message.split()[0]
        for key, value, gpus in ADVICE.findall(message):
            overrides = [f"{key}={value}"] if key else []
            if key == "sft.max_length":
                others = [
                    "filter.max_tokens",
                    *(["generate.sampling.max_tokens"] if name in ("r1", "r1-lora") else []),
                ]
                overrides += [f"{other}={int(value) - 256}" for other in others]
            machine = machine_of(int(gpus), kind) if gpus else machine_of(number, kind)
            again = planned(tmp_path, name, student, machine, overrides).limits
            assert not [one.message for one in again if one.stops and one.message.startswith(stage)], (key, value, gpus)


@pytest.mark.parametrize(("name", "student", "number", "kind"), [one for one in ADVERTISED if one[3] != "cpu"])
def test_more_copies_are_advised_only_where_they_fit(tmp_path, name, student, number, kind):
    machine = machine_of(max(8, number), kind)
    for tight in planned(tmp_path, name, student, machine).limits:
        for key, value in re.findall(r"(\w+\.compute\.replicas): (\d+)", tight.message):
            again = planned(tmp_path, name, student, machine, [f"{key}={value}"])
            assert not [one.message for one in again.limits if one.stops]


def test_lora_is_not_advised_where_it_is_lora_nor_a_smaller_batch_for_weights_that_do_not_fit(tmp_path):
    for machine in (machine_of(1, "h100"), machine_of(2, "cpu")):
        plan = planned(tmp_path, "r1-lora", "llama-70b", machine)
        text = " ".join(tight.message for tight in plan.limits if tight.stops)
        assert "sft.method: lora" not in text
        assert "per_device_batch_size" not in text
        assert "replicas" not in " ".join(tight.message for tight in plan.limits)
    assert "it takes GPUs" in text


def test_time_that_cannot_be_told_is_said_to_be_unknown(tmp_path, capsys):
    from rich.console import Console

    from distill.runs.plan_table import print_plan

    plan = planned(tmp_path, "r1-lora", "llama-70b", machine_of(1, "h100"))
    print_plan(plan, Console(width=120), "r1-lora")
    shown = capsys.readouterr().out
    assert re.search(r"^ eval +unknown ", shown, re.MULTILINE)
    assert re.search(r"^ left in all +over ", shown, re.MULTILINE)
    assert "unknown: meta-llama/Llama-3.3-70B-Instruct: 131 GiB of weights do not fit into 1 x 80 GiB" in shown
    assert plan.to_json()["stages"]["eval"]["unknown"] == ["seconds", "gpu_hours", "cost"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The plan of r1-pipeline on one node of eight GPUs, round by round."""
    recipe = load_recipe("r1-pipeline")
    return plan_rounds(recipe, tmp_path_factory.mktemp("runs"), machine_of(8, "h100"), load_prices())


def quantity(pipeline, place, name):
    name_of_round, stage = place.split("/")
    return next(one for one in pipeline.rounds[name_of_round].stages if one.stage == stage).quantities[name]


def test_only_the_largest_student_of_the_pipeline_needs_more_than_a_node(pipeline):
    stops = [one.message for one in pipeline.whole.limits if one.stops]
    assert [message.partition(":")[0] for message in stops] == ["round llama-70b"]
    assert "32 such GPUs" in stops[0]
    assert pipeline.whole.notes == []


def test_a_model_that_a_round_makes_answers_like_the_rows_that_it_learnt_from(pipeline):
    chains = quantity(pipeline, "cold-start/sft", "tokens").basis
    assert "3.0k to 9.5k rows of 1.5k to 10k tokens" in chains
    for place, basis in (
        ("rl-1/rl", "1.5k to 9.6k tokens: answers like the traces"),
        ("sft-2/generate", "as the rows that the teacher learnt from, or longer"),
        # The 200,000 short ones are not what an answer to a problem is like.
        ("rl-2/rl", "1.0k to 7.5k tokens"),
        ("sft-2/sft", "2 rounds: 160k to 720k rows"),
        ("general/import", "answers of 150 to 900 tokens"),
    ):
        found = quantity(pipeline, place, "tokens").basis
        if place != "rl-2/rl":
            assert basis in found, place
    low, high = (getattr(quantity(pipeline, "rl-2/rl", "tokens"), end) / (400 * 32 * 16) for end in ("low", "high"))
    assert low > 700  # longer than replies are
    assert high < 12_000


def test_a_step_of_the_pipeline_costs_what_r1_zero_s_did_scaled_to_its_size(pipeline):
    """512 GPUs for 198 hours and 10,400 steps of 512 answers; 37 billion parameters were active."""
    published = 512 * 198 / 10_400 * 7.6 / 37
    assert 1.9 < published < 2.1
    hours = quantity(pipeline, "rl-1/rl", "gpu_hours")
    # Its answers had up to 32,768 tokens and later 65,536, and these have a tenth of that.
    assert 0.05 * published < hours.low / 1_000 < published
    assert 0.3 * published < hours.high / 1_000 < 2 * published


def test_the_numbers_in_the_comment_of_the_pipeline_are_those_of_the_planner(pipeline):
    totals = pipeline.whole.totals
    told = NOTES["r1-pipeline"].costs
    assert f"{span(totals['gpu_hours'], ' to ')} GPU-hours" in told
    assert f"{span(totals['cost'], ' to ')} USD" in told
