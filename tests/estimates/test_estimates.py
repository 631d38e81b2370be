"""Estimates: the figures that are known are inside their ranges, and what is known better counts for more."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import UserError
from distill.estimates.counts import UNKNOWN_ROWS, workload
from distill.estimates.limits import half_width_points
from distill.estimates.machine import KINDS, Machine, chosen_machine, kinds_of
from distill.estimates.models import is_reasoner, model_facts
from distill.estimates.prices import load_prices
from distill.estimates.quantities import Range, duration_span, number_of, short, span
from distill.estimates.sampling_cost import SamplingLoad, decoding_speed
from distill.recipe.loading import load_recipe
from distill.recipe.model import Recipe
from distill.recipe.sampling import SamplingCompute
from distill.runs.plan import plan_recipe
from distill.scores.intervals import mean_interval

EPYC = Machine((), "2 CPU cores", 0, 0.0, 2, 24.0, False)
H100 = chosen_machine(1, "h100", None)


def recipe(**sections):
    base = {
        "name": "r1",
        "student": "qwen-7b",
        "problems": [{"source": "hf:some/where", "limit": 10_000}],
        "generate": {"teacher": "Qwen/QwQ-32B", "samples_per_problem": 4, "sampling": {"max_tokens": 16_384}},
        "filter": {"max_tokens": 15_000},
        "sft": {"max_length": 16_384},
    }
    merged = {key: value for key, value in (base | sections).items() if value is not None}
    return Recipe.model_validate(merged)


def planned(recipe, tmp_path, machine=H100, **prices):
    return plan_recipe(recipe, tmp_path / "runs", machine, load_prices(**prices))


def by_name(plan):
    return {stage.stage: stage for stage in plan.stages}


def test_the_quickstart_on_two_cores_holds_what_was_measured(tmp_path):
    stages = by_name(planned(load_recipe("recipes/quickstart.yaml"), tmp_path, EPYC))
    held = {
        ("generate", "tokens"): 47_660,
        ("sft", "tokens"): 31_832,
        ("eval", "tokens"): 13_176,
        ("generate", "memory_gib"): 3.7,
        ("sft", "memory_gib"): 4.3,
        ("eval", "memory_gib"): 2.8,
    }
    for (stage, quantity), value in held.items():
        found = stages[stage].quantities[quantity]
        assert found.low <= value <= found.high, (stage, quantity, found)
    whole = planned(load_recipe("recipes/quickstart.yaml"), tmp_path, EPYC).totals["seconds"]
    assert whole.low <= 7 * 60
    assert whole.high >= 10 * 60
    assert whole.high / whole.low < 10


def test_a_fifth_of_the_quickstart_on_two_cores_holds_what_was_measured(tmp_path):
    fifth = load_recipe("recipes/quickstart.yaml", ["problems.0.limit=120", "eval.held_out=40"])
    stages = by_name(planned(fifth, tmp_path, EPYC))
    seconds = {"generate": 42.6, "filter": 1.3, "sft": 72.3, "eval": 28.4}
    memory_gib = {"generate": 3.63, "filter": 0.25, "sft": 4.22, "eval": 2.63}
    for name, stage in stages.items():
        found = stage.quantities
        assert found["seconds"].low <= seconds[name] <= found["seconds"].high, name
        assert found["memory_gib"].low <= memory_gib[name] <= found["memory_gib"].high, name


def test_sampling_smollm2_on_two_cores_is_as_fast_as_it_was():
    asked = SamplingLoad(Range.exact(1_000), Range.exact(400), Range.exact(40), Range.exact(45))
    speed = decoding_speed(model_facts("smollm2-135m"), SamplingCompute(engine="vllm"), EPYC, asked)
    assert speed.low <= 400
    assert speed.high >= 550


def test_an_8b_model_on_an_h100_decodes_some_thousand_tokens_a_second():
    asked = SamplingLoad(Range.exact(10_000), Range.exact(200), Range.exact(200), Range.exact(2_000))
    speed = decoding_speed(model_facts("llama-8b"), SamplingCompute(), H100, asked)
    assert 2_000 < speed.low < 8_000 < speed.high < 15_000


def test_r1s_32b_student_on_800k_rows_takes_thousands_of_gpu_hours(tmp_path):
    # 800,000 rows of 6,000 tokens twice: 9.6e9 tokens x 6 x 32.8e9 = 1.9e21 operations, 1,300 hours at 40% of 989e12
    # and more for attention.
    traces = [{"source": "hf:some/traces", "limit": 1_000_000}]
    sections = {"traces": traces, "problems": None, "generate": None, "student": "qwen-32b"}
    sections |= {"filter": {"max_tokens": 32_000}, "sft": {"max_length": 32_768, "epochs": 2}}
    hours = by_name(planned(recipe(**sections), tmp_path, chosen_machine(64, "h100", None)))["sft"].quantities[
        "gpu_hours"
    ]
    assert hours.low < 1_500 < hours.high
    assert hours.low > 100
    assert hours.high < 20_000


def test_served_teachers_cost_their_tokens_and_the_recipes_own_price_counts_first(tmp_path):
    served = {"teacher": "deepseek-ai/DeepSeek-R1", "compute": {"base_urls": ["http://host:8000/v1"]}}
    cost = by_name(planned(recipe(generate=served), tmp_path))["generate"].quantities["cost"]
    assert "2026-" in cost.basis
    own = {**served, "price": {"input_per_million": 0.0, "output_per_million": 1.0}}
    stage = by_name(planned(recipe(generate=own), tmp_path))["generate"]
    tokens, cost = stage.quantities["tokens"], stage.quantities["cost"]
    assert cost.low == pytest.approx(tokens.low / 1e6)
    assert cost.high == pytest.approx(tokens.high / 1e6)
    assert "gpu_hours" not in stage.quantities


def test_money_follows_the_price_of_an_hour(tmp_path):
    stage = by_name(planned(recipe(), tmp_path, gpu_price=2.0))["sft"]
    assert stage.quantities["cost"].high == pytest.approx(2 * stage.quantities["gpu_hours"].high)
    assert "cost" not in by_name(planned(recipe(), tmp_path, chosen_machine(1, "a100-40", None)))["sft"].quantities


def test_own_prices_lie_over_the_table(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text('dated: "2026-05-01"\ngpu_hour: {h100: 2.5, 4090: [0.3, 0.4]}\ncpu_core_hour: 0.02\n')
    prices = load_prices(mine)
    assert prices.dated == "2026-05-01"
    assert prices.gpu(("h100",)).low == prices.gpu(("h100",)).high == 2.5
    assert prices.gpu(("4090",)).high == 0.4
    assert prices.gpu(("h200",)) == load_prices().gpu(("h200",)).because(prices.gpu(("h200",)).basis)
    assert by_name(planned(recipe(), tmp_path, EPYC, own=mine))["sft"].quantities["cost"].low > 0


def test_prices_in_another_currency_are_not_added_up_with_the_tables(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text('dated: "2026-05-01"\ncurrency: EUR\ngpu_hour: {h100: 1.9}\n')
    assert set(load_prices(mine).gpu_hour) == {"h100"}
    price = {"input_per_million": 1, "output_per_million": 2, "currency": "EUR"}
    served = {"teacher": "deepseek-ai/DeepSeek-R1", "compute": {"base_urls": ["http://host:8000/v1"]}, "price": price}
    in_usd = by_name(planned(recipe(generate=served), tmp_path))["generate"]
    assert "cost" not in in_usd.quantities
    assert "EUR by generate.price" in in_usd.notes[0]
    assert "cost" in by_name(planned(recipe(generate=served), tmp_path, own=mine))["generate"].quantities


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpu_hour: {h100: 2}", "dated is missing"),
        ('dated: "2026-05-01"\ngpu_hours: {h100: 2}', "gpu_hours"),
        ('dated: "2026-05-01"\ngpu_hour: {h100: [3, 2]}', "exceeds"),
        ('dated: "2026-05-01"\ngpu_hour: {h100: -1}', "gpu_hour.h100.low: must be at least 0, not -1"),
        ("- 1", "mapping"),
        ("a: &a [1]\nb: *a", "aliases"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_price_file_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_prices(path)
    assert said in str(caught.value)
    assert "bad.yaml" in str(caught.value)


def test_a_dataset_that_is_not_here_is_said_and_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "nothing"))
    unknown = recipe(problems=[{"source": "hf:some/where"}])
    assert workload(unknown).train.low == UNKNOWN_ROWS.low
    plan = planned(unknown, tmp_path)
    assert any(tight.kind == "unknown_size" and "hf:some/where" in tight.message for tight in plan.limits)
    assert by_name(plan)["generate"].quantities["tokens"].high > 0


def test_the_datasets_cache_tells_how_many_rows_a_split_has(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    folder = tmp_path / "some___where" / "default" / "0.0.0" / "abc"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"splits": {"train": {"num_examples": 321}}}')
    work = workload(recipe(problems=[{"source": "hf:some/where"}]))
    assert (work.train.low, work.train.high) == (321, 321)
    assert not work.unknown


def test_tight_limits_are_named_with_their_numbers(tmp_path):
    tight = recipe(
        problems=[{"source": "hf:some/where", "limit": 1_000}],
        filter={"max_tokens": 16_380},
        eval={"benchmarks": [{"source": "hf:HuggingFaceH4/aime_2024"}], "sampling": {"max_tokens": 4_000}},
        generate={"teacher": "Qwen/QwQ-32B", "sampling": {"max_tokens": 8_000}, "compute": {"tensor_parallel": 1}},
    )
    plan = planned(tight, tmp_path, chosen_machine(8, "h100", None))
    found = {limit.kind: limit.message for limit in plan.limits}
    assert "filter.max_tokens (16,380)" in found["row_length"]
    assert "8,000" in found["cut_off"]
    assert "eval.sampling.max_tokens (4,000)" in found["eval_cut_off"]
    assert "30 problems" in found["wide_interval"]
    assert any("generate.compute.replicas: 8" in limit.message for limit in plan.limits if limit.kind == "idle_gpus")


def test_a_model_too_large_for_the_gpu_stops_the_plan(tmp_path):
    plan = planned(recipe(student="qwen-32b"), tmp_path, chosen_machine(1, "4090", None))
    stopping = {limit.kind for limit in plan.limits if limit.stops}
    assert "memory" in stopping
    assert any("do not fit" in note for note in plan.notes)


def test_half_widths_are_those_of_a_share_of_a_half():
    least, most = half_width_points(100, 4)
    agreeing = mean_interval([[1.0] * 4] * 50 + [[0.0] * 4] * 50)
    assert most == pytest.approx(100 * (agreeing[1] - agreeing[0]) / 2, rel=0.01)
    independent = mean_interval([[1.0]] * 200 + [[0.0]] * 200)
    assert least == pytest.approx(100 * (independent[1] - independent[0]) / 2, rel=0.01)
    assert (round(least, 1), round(most, 1)) == (4.9, 9.6)


def test_a_gpu_that_nobody_knows_has_no_speed_but_memory(tmp_path):
    odd = Machine((), "1 x Odd", 1, 80.0, 8, math.inf, False)
    stage = by_name(planned(recipe(), tmp_path, odd))["sft"]
    assert "seconds" not in stage.quantities
    assert stage.quantities["memory_gib"].low > 10
    assert any("not in the table of GPUs" in note for note in stage.notes)


@pytest.mark.parametrize(
    ("name", "gib", "kinds"),
    [
        ("NVIDIA H100 80GB HBM3", 79.6, ["h100"]),
        ("NVIDIA A100-SXM4-80GB", 80.0, ["a100-80"]),
        ("NVIDIA A100-PCIE-40GB", 39.6, ["a100-40"]),
        ("NVIDIA GeForce RTX 4090", 24.0, ["4090"]),
        ("NVIDIA L40S", 45.0, ["l40s"]),
        ("NVIDIA L4", 22.5, ["l4"]),
        ("Tesla K80", 11.0, []),
    ],
)
def test_gpus_are_known_by_the_names_that_nvidia_smi_gives(name, gib, kinds):
    assert kinds_of(name, gib) == kinds


def test_machines_are_named_by_options():
    assert chosen_machine(8, "H200", None).num_gpus == 8
    assert chosen_machine(None, "rtx4090", None).kinds == ("4090",)
    assert set(chosen_machine(1, None, 80.0).kinds) == {"h100", "a100-80"}
    assert chosen_machine(16, "cpu", None).num_cores == 16
    with pytest.raises(UserError, match="Did you mean 'h100'"):
        chosen_machine(1, "h10", None)
    assert all(chosen_machine(1, kind, None).tflops for kind in KINDS)


@pytest.mark.parametrize(
    ("name", "billions", "active", "thinks"),
    [
        ("deepseek-ai/DeepSeek-R1", 671, 37, True),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", 32, 32, True),
        ("Qwen/Qwen3-235B-A22B-Thinking-2507", 235, 22, True),
        ("Qwen/Qwen2.5-Coder-0.5B-Instruct", 0.5, 0.5, False),
        ("org/model-360M", 0.36, 0.36, False),
        ("org/unnamed", None, None, False),
    ],
)
def test_a_models_size_is_read_from_its_name(name, billions, active, thinks, monkeypatch):
    monkeypatch.setattr("distill.estimates.models._snapshot", lambda *_: None)  # whatever lies in this machine's cache
    facts = model_facts(name)
    assert facts.num_parameters == (billions and pytest.approx(billions * 1e9))
    assert facts.active_parameters == (active and pytest.approx(active * 1e9))
    assert is_reasoner(name) is thinks


positive = st.floats(1e-6, 1e12)


@given(positive, positive, positive, positive)
def test_a_product_lies_between_the_extremes_and_is_never_wider(a, b, c, d):
    one, two = Range(min(a, b), max(a, b)), Range(min(c, d), max(c, d))
    found = one.by(two)
    slack = 1 + 1e-9
    assert one.low * two.low <= found.low * slack
    assert found.low <= found.high * slack
    assert found.high <= one.high * two.high * slack
    assert found.high / found.low * slack >= max(one.high / one.low, two.high / two.low)


@given(st.floats(0, 1e15))
def test_numbers_are_short_for_people(value):
    assert len(short(value)) <= 6


def test_ranges_read_well():
    assert span(Range(1_234, 8_100)) == "1.2k to 8.1k"
    assert span(Range(999.7, 999.9)) == "1.0k"
    assert duration_span(Range(180, 600)) == "3 to 10 min"
    assert duration_span(Range(40, 600)) == "40 s to 10 min"


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (4.0, 4.0, "4 rows"),
        (1, 1, "1 row"),
        (1.0, 2.4, "1 to 2 rows"),
        (0.6, 1.4, "1 row"),
        (12.3, 999.4, "12 to 999 rows"),
        (800, 2_400, "800 to 2.4k rows"),
    ],
)
def test_things_are_counted_in_whole_numbers(low, high, told):
    assert number_of(Range(low, high), "row") == told


def test_rows_that_hold_several_traces_count_as_many(tmp_path):
    rows = [{"problem": f"What is {i} + 1?", "answer": str(i + 1), "generations": ["a", "b", "c"]} for i in range(500)]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    traces = [{"source": f"file:{tmp_path / 'traces.jsonl'}"}]
    counted = workload(recipe(traces=traces, problems=None, generate=None)).train
    assert counted.low == pytest.approx(1_500, rel=0.02)
    assert counted.high == pytest.approx(1_500, rel=0.02)
    limited = workload(recipe(traces=[traces[0] | {"limit": 700}], problems=None, generate=None)).train
    assert (limited.low, limited.high) == (700, 700)
