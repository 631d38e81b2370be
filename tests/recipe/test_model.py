"""What a recipe may say: the checks that span stages, and a schema that explains itself."""

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from distill.errors import ModelError
from distill.models.students import STUDENTS, find_student
from distill.recipe.loading import load_recipe
from distill.recipe.model import Recipe, cross_stage_problems
from distill.recipe.problems import ProblemSource
from distill.recipe.sampling import Sampling
from distill.recipe.sft import OWNED_TRL_KEYS, SftConfig

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
FULL = {
    "name": "full",
    "student": "qwen-14b",
    "student_revision": "main",
    "problems": [
        {"source": "gym:chain_sum", "options": {"min_terms": 2}, "limit": 5, "seed": 1},
        {"source": "hf:org/set", "config": "main", "split": "test", "revision": "v1", "columns": {"id": "uid"}},
    ],
    "generate": {
        "teacher": "org/teacher",
        "examples": [{"problem": "1?", "reasoning": "one", "answer": "\\boxed{1}"}],
        "sampling": {"max_tokens": 200},
        "compute": {"engine": "vllm", "kv_cache_gib": 1.5},
    },
    "filter": {"max_tokens": 150, "select": {"per_problem": 1, "policy": "longest"}},
    "sft": {"method": "lora", "lora": {"target_modules": ["q_proj"]}, "max_length": 256, "trl": {"optim": "sgd"}},
    "eval": {"held_out": 3, "benchmarks": [{"source": "file:/x.jsonl"}], "samples_per_problem": 8},
}


def recipe(**sections):
    """A small recipe; keyword arguments replace its keys."""
    base = {
        "name": "small",
        "student": "smollm2-135m",
        "problems": [{"source": "gym:chain_sum"}],
        "generate": {"teacher": "org/teacher", "sampling": {"max_tokens": 100}},
        "sft": {"max_length": 512},
    }
    return Recipe.model_validate(base | sections)


def refusal(**sections):
    """What pydantic says of a recipe that is refused: one message a mistake."""
    with pytest.raises(ValidationError) as caught:
        recipe(**sections)
    return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in caught.value.errors()]


# --- what one stage cannot do with another


def test_the_quickstart_recipe_agrees_with_itself():
    quickstart = load_recipe(QUICKSTART)
    assert cross_stage_problems(quickstart) == []
    assert quickstart.name == "quickstart"
    assert quickstart.eval is not None


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        pytest.param(
            {"filter": {"max_tokens": 600}, "generate": {"teacher": "t", "sampling": {"max_tokens": 600}}},
            ["filter.max_tokens (600)", "sft.max_length (512)", "would be cut", "Raise sft.max_length or lower filter"],
            id="kept traces longer than a row",
        ),
        pytest.param(
            {"generate": {"teacher": "t", "sampling": {"max_tokens": 600}}},
            ["generate.sampling.max_tokens (600)", "sft.max_length (512)", "Set filter.max_tokens or raise"],
            id="any length kept",
        ),
        pytest.param(
            {"sft": {"max_length": 8193}},
            ["sft.max_length (8193)", "context of smollm2-135m (8192 tokens)", "Lower sft.max_length to 8192"],
            id="rows longer than the student's context",
        ),
        pytest.param(
            {"student": "qwen-1.5b", "sft": {"max_length": 40_000}},
            ["sft.max_length (40000)", "qwen-1.5b (32768 tokens)", "or set sft.rope_theta"],
            id="rows longer than the table's theta reaches",
        ),
        pytest.param(
            {
                "student": "qwen-1.5b",
                "sft": {"max_length": 4_096},
                "eval": {"held_out": 1, "sampling": {"max_tokens": 32_768}},
            },
            ["eval.sampling.max_tokens (32768)", "qwen-1.5b (4096 tokens)", "or raise sft.max_length above 4096"],
            id="answers longer than a student trained on short rows reaches",
        ),
        pytest.param(
            {"eval": {"held_out": 1, "sampling": {"max_tokens": 8192}}},
            ["eval.sampling.max_tokens (8192)", "no room for a prompt", "smollm2-135m (8192 tokens)", "Lower eval"],
            id="no room for a prompt",
        ),
    ],
)
def test_what_contradicts_another_stage_is_told_with_its_keys_and_the_way_out(sections, words):
    (message,) = refusal(**sections)
    for word in words:
        assert word in message


def test_several_contradictions_are_told_together():
    (message,) = refusal(
        sft={"max_length": 9000},
        filter={"max_tokens": 9500},
        eval={"held_out": 1, "sampling": {"max_tokens": 9000}},
    )
    lines = message.splitlines()
    assert len(lines) == 3
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize(
    "sections",
    [
        {"filter": {"max_tokens": 512}, "generate": {"teacher": "t", "sampling": {"max_tokens": 512}}},
        {"generate": {"teacher": "t", "sampling": {"max_tokens": 512}}},
        {"filter": {"max_tokens": 100}},
        {"sft": {"max_length": 8192}},
        {"eval": {"held_out": 1, "sampling": {"max_tokens": 8191}}},
        {"student": "qwen-1.5b", "sft": {"max_length": 32_768}},
        {
            "student": "qwen-1.5b",
            "sft": {"max_length": 8_192},
            "eval": {"held_out": 1, "sampling": {"max_tokens": 32_767}},
        },
        {"sft": {"max_length": 20_000, "rope_theta": 500_000}},
        {
            "sft": {"max_length": 20_000, "rope_theta": 500_000},
            "eval": {"held_out": 1, "sampling": {"max_tokens": 16_000}},
        },
        {"student": "org/any-model", "sft": {"max_length": 10**6}},
        {"student": "org/any-model", "eval": {"held_out": 1, "sampling": {"max_tokens": 10**6}}},
    ],
)
def test_just_inside_the_limits_is_allowed(sections):
    assert recipe(**sections)


# --- lengths that a recipe leaves out


def lengths(**sections):
    """(generate, filter, sft, eval) in tokens of a recipe that leaves out all lengths but those given."""
    base = {"name": "small", "student": "smollm2-135m"}
    found = Recipe.model_validate(base | sections)
    generated = found.generate.sampling.max_tokens if found.generate else None
    measured = found.eval.sampling.max_tokens if found.eval else None
    return generated, found.filter.max_tokens, found.sft.max_length, measured


TRACES = {"traces": [{"source": "file:t.jsonl"}]}
TEACHER = {"problems": [{"source": "gym:chain_sum"}], "generate": {"teacher": "org/teacher"}}
MEASURED = {"eval": {"benchmarks": [{"source": "gym:chain_sum"}]}}


@pytest.mark.parametrize(
    ("sections", "found"),
    [
        (TRACES | MEASURED, (None, 7_168, 8_192, 7_168)),
        (TEACHER | MEASURED, (7_168, None, 8_192, 7_168)),
        (TRACES | {"sft": {"max_length": 4_096}}, (None, 3_072, 4_096, None)),
        (TEACHER | {"sft": {"max_length": "512"}}, (384, None, 512, None)),
        (TRACES | {"filter": {"max_tokens": 100}}, (None, 100, 8_192, None)),
        (TEACHER | {"filter": {"max_tokens": 100}}, (16_384, 100, 8_192, None)),
        (TEACHER | {"generate": {"teacher": "smollm2-135m"}, "filter": {"max_tokens": 100}}, (7_168, 100, 8_192, None)),
        (TEACHER | {"generate": {"teacher": "t", "sampling": {"temperature": 1.0}}}, (7_168, None, 8_192, None)),
        (TEACHER | MEASURED | {"student": "qwen-14b"}, (16_384, None, 16_384, 32_768)),
        (TEACHER | MEASURED | {"student": "qwen-1.5b"}, (16_384, None, 16_384, 31_744)),
        (TEACHER | MEASURED | {"student": "qwen-1.5b", "sft": {"max_length": 4_000}}, (3_000, None, 4_000, 3_072)),
        (TRACES | MEASURED | {"student": "org/any-model"}, (None, 15_360, 16_384, 32_768)),
        (TEACHER | {"sft": {"rope_theta": 1e6}}, (16_384, None, 16_384, None)),
        (TRACES | {"sft": SftConfig(epochs=1)}, (None, 7_168, 8_192, None)),
    ],
)
def test_lengths_that_are_left_out_follow_the_context_and_those_that_are_given(sections, found):
    assert lengths(**sections) == found


@pytest.mark.parametrize("alias", STUDENTS)
@pytest.mark.parametrize("source", [TRACES, TEACHER], ids=["traces", "teacher"])
def test_a_minimal_recipe_works_for_every_student(alias, source):
    found = Recipe.model_validate({"name": "small", "student": alias, **source, **MEASURED})
    assert cross_stage_problems(found) == []
    assert Recipe.model_validate(found.model_dump(mode="json")) == found


@pytest.mark.parametrize("row", [1, 2, 3, 7, 100, 1_024, 4_096, 8_192])
def test_a_row_of_any_length_leaves_room_for_a_prompt(row):
    _, kept, _, _ = lengths(**TRACES, sft={"max_length": row})
    assert 1 <= kept <= row


def test_lengths_that_are_given_are_never_changed():
    assert (
        "filter.max_tokens is not set" in refusal(**TRACES, problems=[], generate=None, filter={"max_tokens": None})[0]
    )
    (message,) = refusal(generate={"teacher": "t", "sampling": {"max_tokens": 20_000}}, sft={})
    assert "generate.sampling.max_tokens (20000) exceeds sft.max_length (8192)" in message


def test_the_context_of_a_student_named_by_its_hub_id_is_known_too():
    (message,) = refusal(student=STUDENTS["smollm2-135m"].hub_id, sft={"max_length": 9000})
    assert "sft.max_length (9000)" in message


def test_every_student_of_the_table_can_be_named():
    for alias, student in STUDENTS.items():
        assert find_student(alias) is student
        assert find_student(student.hub_id) is student
        assert recipe(student=alias, sft={"max_length": student.context}).student == alias


def test_an_unknown_student_gets_a_suggestion_and_the_list():
    with pytest.raises(ModelError, match=r"unknown student 'qwen-7'\. Did you mean 'qwen-7b'\? Known: qwen-1\.5b, "):
        recipe(student="qwen-7")


def test_a_local_folder_is_a_student(tmp_path, monkeypatch):
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_student("my-model").hub_id == "my-model"
    assert find_student("my-model").context is None


# --- what a section cannot do by itself


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        pytest.param(
            {"generate": {"teacher": "t", "samples_per_problem": 3, "sampling": {"temperature": 0, "max_tokens": 100}}},
            ["generate: ", "sampling.temperature 0", "all 3 samples", "samples_per_problem to 1"],
            id="greedy samples",
        ),
        pytest.param(
            {"eval": {"held_out": 1, "samples_per_problem": 2, "sampling": {"temperature": 0.0, "max_tokens": 100}}},
            ["eval: ", "sampling.temperature 0", "samples_per_problem to 1"],
            id="greedy evaluation",
        ),
        pytest.param(
            {"eval": {"sampling": {"max_tokens": 100}}},
            ["eval: ", "nothing to measure on", "held_out or benchmarks"],
            id="nothing measured",
        ),
        pytest.param(
            {"sft": {"max_length": 512, "lora": {"r": 8}}},
            ["sft: ", "method is full", "Set method: lora or remove lora:"],
            id="an adapter without lora",
        ),
        pytest.param(
            {"problems": [{"source": "gym:chain_sum", "template": "Answer this"}]},
            ["problems.0: ", "template must hold {problem}"],
            id="template without the question",
        ),
        pytest.param(
            {"problems": [{"source": "file:x.jsonl", "options": {"min_terms": 2}}]},
            ["problems.0: ", "options are for gym: sources"],
            id="options of a file",
        ),
        pytest.param(
            {"problems": [{"source": "hf:org/set", "task": "gym"}]},
            ["problems.0: ", "task: gym needs a gym: source", "task: math"],
            id="gym grading of a dataset",
        ),
        pytest.param(
            {"problems": [{"source": "file:x.jsonl", "answer_after": ""}]},
            ["problems.0.answer_after"],
            id="an empty marker",
        ),
        pytest.param({"problems": []}, ["problems: is missing"], id="no problems"),
        pytest.param({"traces": [{"source": "file:t.jsonl"}]}, ["either generate: ", "or traces: "], id="both"),
        pytest.param({"generate": None}, ["either generate: ", "or traces: "], id="neither"),
        pytest.param(
            {"generate": None, "traces": [{"source": "file:t.jsonl"}]}, ["come with their own"], id="problems twice"
        ),
        pytest.param(
            {"generate": None, "problems": [], "traces": [{"source": "gym:x"}]}, ["traces.0.source"], id="gym traces"
        ),
        pytest.param(
            {"problems": [{"source": "file:x.jsonl", "task": "judge"}]},
            ["task: judge needs", "filter.judge"],
            id="no judge",
        ),
        pytest.param(
            {"filter": {"select": {"min_pass_rate": 0.9, "max_pass_rate": 0.1}}}, ["min_pass_rate (0.9)"], id="band"
        ),
        pytest.param({"filter": {"min_tokens": 9, "max_tokens": 8}}, ["min_tokens (9)"], id="no length fits"),
        pytest.param({"filter": {"judge": {"model": "m", "compute": {}}}}, ["compute.base_urls"], id="judge nowhere"),
        pytest.param({"name": "../elsewhere"}, ["name: "], id="a name that is a path"),
        pytest.param({"name": ""}, ["name: "], id="no name"),
        pytest.param({"name": "a\nb"}, ["name: "], id="a name of two lines"),
        pytest.param({"schema_version": 2}, ["schema_version: "], id="another schema"),
    ],
)
def test_what_a_section_contradicts_is_told_with_its_keys_and_the_way_out(sections, words):
    (message,) = refusal(**sections)
    for word in words:
        assert word in message


def test_greedy_is_fine_for_one_sample():
    greedy = {"temperature": 0, "max_tokens": 100}
    assert recipe(
        generate={"teacher": "t", "samples_per_problem": 1, "sampling": greedy},
        eval={"held_out": 1, "samples_per_problem": 1, "sampling": greedy},
    )


@pytest.mark.parametrize("source", ["chain_sum", "http://x.org/a.jsonl", "gym:", "HF:org/set", "", " gym:chain_sum"])
def test_a_source_says_its_kind(source):
    (message,) = refusal(problems=[{"source": source}])
    assert message.startswith("problems.0.source: ")


@pytest.mark.parametrize("key", sorted(OWNED_TRL_KEYS))
def test_trl_arguments_that_a_field_sets_are_refused(key):
    (message,) = refusal(sft={"max_length": 512, "trl": {key: 1, "optim": "sgd"}})
    assert message.startswith("sft: ")
    assert f"trl: {key} is set by distill itself" in message


def test_all_owned_trl_arguments_are_told_at_once():
    (message,) = refusal(sft={"max_length": 512, "trl": {"seed": 1, "bf16": True}})
    assert "trl: bf16, seed " in message


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("sft", "epochs", 0),
        ("sft", "epochs", float("inf")),
        ("sft", "learning_rate", float("nan")),
        ("sft", "warmup_share", 1.1),
        ("sft", "weight_decay", -0.1),
        ("sft", "batch_size", 2.5),
        ("sft", "method", "dora"),
        ("filter", "max_tokens", 0),
        ("filter", "grade_timeout_s", 0),
        ("filter", "grade_timeout_s", float("inf")),
    ],
)
def test_values_out_of_range_are_refused_under_their_key(section, key, value):
    (message,) = refusal(**{section: {"max_length": 512, key: value} if section == "sft" else {key: value}})
    assert message.startswith(f"{section}.{key}: ")


@pytest.mark.parametrize(
    ("key", "value"), [("temperature", -0.1), ("temperature", 5.1), ("top_p", 0), ("top_p", 1.1), ("top_k", -1)]
)
def test_sampling_out_of_range_is_refused(key, value):
    with pytest.raises(ValidationError) as caught:
        Sampling.model_validate({key: value})
    assert [e["loc"] for e in caught.value.errors()] == [(key,)]


# --- the schema


def models_in(annotation, found):
    """All models that a field's type mentions, and theirs."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in found:
            found.append(annotation)
            for field in annotation.model_fields.values():
                models_in(field.annotation, found)
    else:
        for part in get_args(annotation):
            models_in(part, found)
    return found


MODELS = models_in(Recipe, [])


def test_the_walk_finds_the_models():
    names = {model.__name__ for model in MODELS}
    assert {"Recipe", "ProblemSource", "Columns", "Example", "Lora", "TrainCompute", "Readability"} <= names


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_explains_itself(model):
    assert model.__doc__
    assert model.__doc__ != BaseModel.__doc__
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name} has no docstring"
        assert field.description.rstrip().endswith((".", ")")), f"{model.__name__}.{name}: {field.description}"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_model_refuses_unknown_keys_and_stays_as_it_was_read(model):
    assert model.model_config["extra"] == "forbid"
    assert model.model_config["frozen"]


def test_a_recipe_cannot_be_changed_once_read():
    small = recipe()
    with pytest.raises(ValidationError):
        small.seed = 3
    with pytest.raises(ValidationError):
        small.generate.sampling.temperature = 1.0
    assert (small.seed, small.generate.sampling.temperature) == (0, 0.6)


def test_descriptions_are_in_the_json_schema():
    schema = Recipe.model_json_schema()
    assert schema["properties"]["seed"]["description"].startswith("Seed of everything random")
    assert set(schema["required"]) == {"name", "student"}


@pytest.mark.parametrize("tree", [FULL, None], ids=["full", "quickstart"])
def test_a_recipe_goes_through_json_unchanged(tree):
    before = load_recipe(QUICKSTART) if tree is None else Recipe.model_validate(tree)
    text = json.dumps(before.model_dump(mode="json"), allow_nan=False)
    assert Recipe.model_validate(json.loads(text)) == before
    assert Recipe.model_validate_json(before.model_dump_json()) == before


NUMBERS = st.integers(-2, 10_000) | st.floats()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    source=st.fixed_dictionaries(
        {"source": st.sampled_from(["gym:chain_sum", "file:a.jsonl"])},
        optional={
            "template": st.text(max_size=5).map(lambda text: text + "{problem}"),
            "limit": st.integers(-1, 10),
            "seed": st.integers(),
            "options": st.dictionaries(st.text(max_size=3), NUMBERS, max_size=2),
        },
    ),
    sft=st.fixed_dictionaries({}, optional={"epochs": NUMBERS, "learning_rate": NUMBERS, "max_length": NUMBERS}),
)
def test_what_is_accepted_goes_through_json_unchanged(source, sft):
    try:
        before = recipe(problems=[source], sft=sft)
    except ValidationError:
        return
    fields = before.sft
    assert fields.epochs < float("inf")
    assert Recipe.model_validate(json.loads(json.dumps(before.model_dump(mode="json")))).sft == fields


def test_columns_are_left_to_the_data_unless_they_are_named():
    assert ProblemSource(source="file:x.jsonl").columns.model_dump(exclude_defaults=True) == {}


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        ({"compute": {"engine": "server"}}, "needs base_urls"),
        ({"compute": {"engine": "vllm", "base_urls": ["http://host/v1"]}}, "base_urls is for engine: server"),
        ({"compute": {"base_urls": ["http://host/v1"], "replicas": 2}}, "list them in base_urls"),
        ({"compute": {"base_urls": ["ftp://host/v1"]}}, "base_urls"),
        ({"compute": {"base_urls": ["https://me:secret@host/v1"]}}, "base_urls"),
        ({"compute": {"base_urls": ["https://host/v1?key=secret"]}}, "base_urls"),
        ({"stop_after_correct": 4, "samples_per_problem": 4}, "can never apply"),
        ({"extra_body": {"x": 1}}, "sent to a server only"),
        ({"extra_body": {"seed": 1}, "compute": {"base_urls": ["http://host/v1"]}}, "seed is set by distill itself"),
    ],
)
def test_what_sampling_cannot_do_is_refused(generate, message):
    from distill.recipe.generate import GenerateConfig

    with pytest.raises(ValidationError, match=message):
        GenerateConfig.model_validate({"teacher": "org/teacher", **generate})
