"""What measuring takes: each benchmark with its own samples and lengths, each model in turn."""

import json

import pytest

from distill.core.records import Trace
from distill.estimates.machine import Machine, chosen_machine
from distill.estimates.prices import load_prices
from distill.runs.plan import plan_recipe
from distill.stages import RunContext, measure
from distill.storage.files import write_json
from distill.storage.ledger import Ledger

TWO_CORES = Machine((), "2 CPU cores", 0, 0.0, 2, 24.0, False)
H100 = chosen_machine(1, "h100", None)
KNOWN, LARGE = "smollm2-135m", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"


@pytest.fixture
def planned(tmp_path):
    """A function that plans a recipe that only measures; the plan and its only stage."""

    def plan(recipe, machine=TWO_CORES):
        found = plan_recipe(recipe, tmp_path / "runs", machine, load_prices())
        (stage,) = found.stages
        return found, stage

    return plan


def test_each_benchmark_counts_with_its_own_samples_and_longest_answer(measuring, sums, planned):
    few = sums("few", 10, samples_per_problem=1, sampling={"max_tokens": 10})
    many = sums("many", 10, samples_per_problem=64, sampling={"max_tokens": 100})
    _, stage = planned(measuring(few, many, models=[KNOWN]))
    assert (stage.stage, stage.samples, stage.section) == ("measure", "model", "eval")
    tokens = stage.quantities["tokens"]
    # answers of 150 tokens and more run into either limit, or stop at half of it
    assert tokens.low == pytest.approx(10 * 5 + 640 * 50, rel=0.01)
    assert tokens.high == pytest.approx(10 * 10 + 640 * 100, rel=0.01)
    assert {"seconds", "cpu_hours", "memory_gib", "disk_gib"} <= stage.quantities.keys()


def test_adaptive_sampling_may_stop_early(measuring, sums, planned):
    whole = sums(num=10, samples_per_problem=64)
    early = {**whole, "adaptive": {"width": 0.1, "min_samples": 4}}
    (_, fixed), (_, adaptive) = planned(measuring(whole, models=[KNOWN])), planned(measuring(early, models=[KNOWN]))
    assert fixed.quantities["tokens"].low < adaptive.quantities["tokens"].high <= fixed.quantities["tokens"].high
    assert adaptive.quantities["tokens"].low < fixed.quantities["tokens"].low / 2


def test_models_are_measured_one_after_another(measuring, sums, planned):
    alone = [planned(measuring(sums(), models=[name]), H100)[1] for name in (KNOWN, LARGE)]
    plan, both = planned(measuring(sums(), models=[KNOWN, LARGE]), H100)
    for name in ("tokens", "seconds", "gpu_hours", "cost", "disk_gib"):
        assert both.quantities[name].low == pytest.approx(sum(one.quantities[name].low for one in alone)), name
        assert both.quantities[name].high == pytest.approx(sum(one.quantities[name].high for one in alone)), name
    assert both.quantities["memory_gib"].high == max(one.quantities["memory_gib"].high for one in alone)
    assert LARGE in plan.downloads


def test_what_is_unknown_of_one_model_is_unknown_of_all(measuring, sums, planned):
    _, stage = planned(measuring(sums(), models=[KNOWN, "org/mystery"]))
    assert "seconds" not in stage.quantities
    assert stage.is_unknown("seconds")
    assert "tokens" in stage.quantities
    assert any("org/mystery: its size is not known" in note for note in stage.notes)


def test_a_reasoner_is_expected_to_think(measuring, sums, planned):
    long = {"sampling": {"max_tokens": 30_000}}
    _, short = planned(measuring(sums(), models=["Qwen/Qwen2.5-7B-Instruct"], **long), H100)
    _, thinks = planned(measuring(sums(), models=[LARGE], **long), H100)
    assert thinks.quantities["tokens"].low > short.quantities["tokens"].high


def test_answers_of_the_run_itself_say_more(measuring, sums, planned, tmp_path, model):
    recipe = measuring(sums(num=8))
    before = planned(recipe)[1].quantities["tokens"]
    run = RunContext(recipe, tmp_path / "runs" / recipe.name)
    folder = run.folder("measure")
    folder.claim(measure.identity(run))
    with Ledger(folder.path / "model" / "ledger.jsonl") as ledger:
        ledger.append(Trace(str(i), 0, "model", "r", "x", "", "x", "stop", 5, 40, 0) for i in range(8))
    _, stage = planned(recipe)
    after = stage.quantities["tokens"]
    assert (after.low, after.high) == (pytest.approx(0.8 * 32 * 40), pytest.approx(1.2 * 32 * 40))
    assert after.high - after.low < before.high - before.low
    assert stage.standing.state == "partly"


def test_the_judges_work_is_named_as_left_out(measuring, planned, tmp_path):
    (tmp_path / "facts.jsonl").write_text(json.dumps({"problem": "Who?", "answer": "She"}) + "\n")
    facts = {"source": f"file:{tmp_path}/facts.jsonl", "task": "judge", "metric": "short-answers"}
    judge = {"model": "j", "compute": {"base_urls": ["http://localhost:1/v1"]}}
    plan, _ = planned(measuring(facts, models=[KNOWN], judge=judge))
    assert any("the judge's own time and price are not part of the estimate" in note for note in plan.notes)


def test_intervals_are_as_wide_as_each_benchmarks_samples_make_them(measuring, sums, planned):
    few = sums("few", 30, samples_per_problem=1)
    many = sums("many", 30, samples_per_problem=64)
    plan, _ = planned(measuring(few, many, models=[KNOWN]))
    said = {limit.message.partition(":")[0]: limit.message for limit in plan.limits if limit.kind == "wide_interval"}
    assert "30 problems, 1 sample each" in said["few"]
    assert "±16.8 points" in said["few"]
    assert "30 problems, 64 samples each" in said["many"]
    assert "±2.2 to 16.8 points" in said["many"]


def test_answers_that_do_not_fit_a_models_context_stop_the_plan(measuring, sums, planned, model):
    write_json(model / "config.json", {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2_048})
    long = sums("long", sampling={"max_tokens": 4_000})
    plan, _ = planned(measuring(sums("short"), long))
    (tight,) = [limit for limit in plan.limits if limit.kind == "eval_context"]
    assert tight.stops
    assert "sampling.max_tokens of long (4,000)" in tight.message
    assert f"{model}'s 2,048 tokens of context" in tight.message


def test_gpus_that_stay_idle_are_told_by_the_section_that_would_use_them(measuring, sums, planned):
    plan, _ = planned(measuring(sums(), models=[KNOWN]), chosen_machine(8, "h100", None))
    (idle,) = [limit for limit in plan.limits if limit.kind == "idle_gpus"]
    assert idle.message == "measure uses 1 of 8 GPUs: eval.compute.replicas: 8 would use all of one machine."
    plan, _ = planned(measuring(sums(), models=["Qwen/Qwen2.5-72B-Instruct"]), H100)
    (tight,) = [limit for limit in plan.limits if limit.kind == "memory"]
    assert tight.stops
    assert "or a smaller model" in tight.message


def test_two_benchmarks_of_one_name_are_two(measuring, sums, planned, tmp_path):
    (tmp_path / "deeper").mkdir()
    one = sums("same", 3)
    (tmp_path / "deeper" / "same.jsonl").write_text((tmp_path / "same.jsonl").read_text())
    other = {**one, "source": f"file:{tmp_path}/deeper/same.jsonl", "samples_per_problem": 9}
    _, stage = planned(measuring(one, other, models=[KNOWN]))
    assert stage.quantities["tokens"].high == pytest.approx((3 * 4 + 3 * 9) * 64)
