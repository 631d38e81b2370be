"""Mistakes are told in sentences of our own, with the place and the likely key, whatever the validator calls them."""

import contextlib
import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError
from pydantic_core._pydantic_core import list_all_errors

from distill.errors import RecipeError, UserError
from distill.estimates.prices import load_prices
from distill.recipe.loading import load_recipe, recipe_of_dict
from distill.recipe.mistakes import known_keys
from distill.recipe.model import Recipe
from distill.recipe.value_errors import ANOTHER_FORM, FORMS, sentence

BASE = {
    "name": "tiny",
    "student": "smollm2-135m",
    "problems": [{"source": "gym:chain_sum"}],
    "generate": {"teacher": "org/teacher"},
}
VALIDATOR_WORDS = ("String should", "Input should", "unable to parse", "pydantic", "validation error", "Value error")


@pytest.fixture
def refusal(tmp_path):
    def told(text, *overrides):
        path = tmp_path / "recipe.yaml"
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(BASE | text, sort_keys=False))
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, overrides)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return told


# --- the likely key, wherever it is


@pytest.mark.parametrize(
    ("sections", "meant"),
    [
        ({"generate": {"teacher": "t", "base_url": "http://x/v1"}}, "generate.compute.base_urls"),
        ({"generate": {"teacher": "t", "temperature": 1}}, "generate.sampling.temperature"),
        ({"eval": {"held_out": 1, "max_tokens": 9}}, "eval.sampling.max_tokens"),
        ({"sft": {"per_device_batch_size": 1}}, "sft.compute.per_device_batch_size"),
        ({"sft": {"rank": 8, "lora_alpha": 3}}, None),
        ({"filter": {"per_problem": 1}}, "filter.select.per_problem"),
        ({"max_length": 512}, "sft.max_length"),
        ({"Sft": {"epochs": 1}}, "sft"),
        ({"sft": {"Epochs": 1}}, "epochs"),
        ({"zzz": 1}, None),
    ],
)
def test_a_key_in_the_wrong_section_is_found_in_the_whole_recipe(refusal, sections, meant):
    message = refusal(sections)
    assert "unknown key" in message
    if meant is None:
        assert "Did you mean" not in message
    else:
        assert f"Did you mean {meant!r}?" in message


def test_the_meant_keys_are_keys_of_the_recipe():
    keys = set(known_keys())
    assert {"generate.compute.base_urls", "sft.max_length", "traces.columns.text", "name"} <= keys


# --- what to write instead


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"name": 123}, 'name: must be text, not 123. Put it in quotes: "123".'),
        ({"name": True}, 'name: must be text, not True. Put it in quotes: "true".'),
        ({"description": 1.5}, 'Put it in quotes: "1.5".'),
        ({"name": "two words"}, "name: must be made of letters, digits, '.', '_' and '-', beginning with"),
        ({"problems": {"source": "gym:chain_sum"}}, "problems: must be a list, not {"),
        ({"problems": "gym:chain_sum"}, "Write [gym:chain_sum]."),
        (
            {"generate": {"teacher": "t", "compute": {"base_urls": "http://h:8000/v1"}}},
            "must be a list, not 'http://h:8000/v1'. Write [http://h:8000/v1].",
        ),
        ({"generate": {"teacher": "t", "compute": {"base_urls": ["ftp://h"]}}}, "must be addresses such as http://"),
        ({"generate": {"teacher": "t", "samples_per_problem": "lots"}}, "must be a whole number, not 'lots'."),
        ({"generate": {"teacher": "t", "samples_per_problem": 2.5}}, "must be a whole number, not 2.5."),
        ({"generate": {"teacher": "t", "samples_per_problem": 0}}, "must be greater than 0, not 0."),
        ({"generate": {"teacher": "t", "sampling": {"temperature": "hot"}}}, "must be a number, not 'hot'."),
        ({"generate": {"teacher": "t", "sampling": {"temperature": 6}}}, "must be at most 5, not 6."),
        ({"filter": {"require_think": "maybe"}}, "must be true or false, not 'maybe'."),
        ({"sft": {"method": "dora"}}, "must be 'full', 'lora' or 'qlora', not 'dora'."),
        ({"sft": []}, "sft: must be keys and values, not []."),
        ({"sft": {"lora": {"target_modules": 3}}}, "must be 'all-linear' or a list, not 3."),
        ({"seed": None}, "seed: is empty, and must be a whole number. Give it a value or remove the key."),
        (
            {"traces": [{"source": "t.jsonl"}]},
            "traces.0.source: must be hf:org/dataset, file:path or round:NAME, not 't.jsonl'.",
        ),
        ({"problems": [{"source": "t.jsonl"}]}, "must be hf:org/dataset, file:path or gym:task, not 't.jsonl'."),
        ({"sft": {"chat_template": "mine"}}, "must be chatml, llama3 or file:path, not 'mine'."),
        ({"push": {"repo": "mine"}}, "push.repo: must be org/name"),
    ],
)
def test_a_wrong_value_is_told_in_a_sentence_with_what_to_write(refusal, sections, told):
    assert told in refusal(sections)


@pytest.mark.parametrize(
    "address", ["https://user:hunter2@host/x", "http://hunter2@host", "git+ssh://a:hunter2@h/r and more"]
)
def test_a_login_in_an_address_is_not_shown(refusal, address):
    for sections in ({"push": {"repo": address}}, {"generate": {"teacher": "t", "compute": {"base_urls": [address]}}}):
        assert "hunter2" not in refusal(sections)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing yet\n", "---\n", "null\n"])
def test_an_empty_recipe_is_said_to_be_empty(refusal, text):
    message = refusal(text)
    assert ("the file is empty" in message) == (text not in ("---\n", "null\n"))
    assert "distill recipes cp quickstart" in message


@pytest.mark.parametrize(
    ("parent", "meant"), [("quickstat", "quickstart"), ("r1lora", "r1-lora"), ("gsm8", "gsm8k"), ("none-of-them", None)]
)
def test_a_parent_that_is_not_there_gets_a_suggestion(refusal, parent, meant):
    message = refusal(f"extends: {parent}\n")
    assert (f"Did you mean {meant!r}?" if meant else "or an installed name") in message


# --- options are blamed for what they say


@pytest.mark.parametrize(
    "override",
    ["SFT.epochs=2", "sft.epochs.x=2", "generate.compute.base_urls=http://h/v1", "seed.a.b=1", "evall.held_out=3"],
)
def test_an_option_is_blamed_and_not_the_file(refusal, override):
    assert refusal({}, override).startswith(f"--set {override.partition('=')[0]}: ")


@pytest.mark.parametrize("override", [" sft.epochs = 2", "sft.epochs =2", "\tsft.epochs=2"])
def test_spaces_around_an_options_key_are_told_with_the_right_form(refusal, override):
    message = refusal({}, override)
    assert message.startswith(f"--set {override}")
    assert message.endswith("Write --set sft.epochs=2")


@pytest.mark.parametrize("value", ["!!python/name:os.system x", "!!set {a}", "{a: 1, a: 2}"])
def test_a_value_that_is_refused_names_its_option(refusal, value):
    assert refusal({}, f"sft.trl.optim={value}").startswith("--set sft.trl.optim: ")


# --- one number against another


def test_the_key_that_is_set_is_blamed_and_a_default_is_said_to_be_one(refusal):
    message = refusal({"filter": {"max_tokens": 9_000}})
    assert message.startswith("recipe.yaml:8: filter.max_tokens (9000) exceeds sft.max_length (8192, the default): ")


def test_both_places_are_told_where_both_are_set(refusal):
    message = refusal({"filter": {"max_tokens": 600}, "sft": {"max_length": 512}})
    assert message.startswith(
        "recipe.yaml:8: filter.max_tokens (600) exceeds sft.max_length (512, set at recipe.yaml:10)"
    )
    message = refusal({"filter": {"max_tokens": 600}}, "sft.max_length=512")
    assert "sft.max_length (512, set at --set sft.max_length)" in message


def test_a_section_that_contradicts_itself_says_what_is_a_default(refusal):
    message = refusal({"generate": {"teacher": "t", "stop_after_correct": 4}})
    assert message.startswith(
        "recipe.yaml:7: generate: stop_after_correct (4) can never apply: samples_per_problem is 4 ("
    )
    assert "samples_per_problem is 4 (the default). Lower" in message


def test_each_of_several_contradictions_has_its_place(refusal):
    message = refusal({"filter": {"max_tokens": 9_500}, "sft": {"max_length": 9_000}})
    assert [line.partition(": ")[0] for line in message.splitlines()] == ["recipe.yaml:8", "recipe.yaml:10"]


# --- whatever is wrong, the words are ours

SCALARS = st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats(-1, 3, width=16) | st.text("ab:/.", max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=2)
)
KEYS = sorted(known_keys())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=4))
def test_no_message_has_the_validators_words(changes):
    tree = json.loads(json.dumps(BASE))
    for key, value in changes:
        at = tree
        *sections, last = key.split(".")
        for section in sections:
            below = at.get(section) if isinstance(at, dict) else None
            if isinstance(below, list) and below and isinstance(below[0], dict):
                at = below[0]
                continue
            if not isinstance(below, dict):
                at[section] = {}
            at = at[section]
        at[last] = value
    with contextlib.suppress(UserError), told_in_our_words():
        recipe_of_dict(tree)


@contextlib.contextmanager
def told_in_our_words():
    """Fails where an error has the validator's words."""
    try:
        yield
    except UserError as error:
        if found := [word for word in VALIDATOR_WORDS if word in str(error)]:
            pytest.fail(f"{found} in: {error}")
        raise


def test_every_pattern_of_a_recipe_has_its_form_in_words():
    patterns = {
        key for model in Recipe.model_json_schema()["$defs"].values() for key, of in model["properties"].items()
        if '"pattern"' in json.dumps(of)
    }  # fmt: skip
    assert patterns - {"problems"} <= FORMS.keys()
    assert "traces.problems" in FORMS


@pytest.mark.parametrize("kind", [one["type"] for one in list_all_errors()])
def test_every_kind_of_error_gives_a_sentence(kind):
    one = next(one for one in list_all_errors() if one["type"] == kind)
    details = {
        "type": kind,
        "loc": ("x",),
        "msg": one["example_message_python"],
        "input": 3,
        "ctx": one["example_context"] or {},
    }
    text = sentence([details])
    assert text.startswith(("must be ", "is ")) or kind in ("value_error", "assertion_error")
    assert not [word for word in VALIDATOR_WORDS if word in text]


def test_an_error_of_a_kind_that_nobody_knows_has_no_foreign_words():
    error = PydanticCustomError("new_kind", "Input should be something")
    text = sentence([{"type": error.type, "loc": ("x",), "msg": error.message(), "input": 1}])
    assert text == f"must be {ANOTHER_FORM}, not 1."


def test_a_price_file_is_refused_in_the_same_words(tmp_path):
    (tmp_path / "p.yaml").write_text('dated: "2026-05-01"\ngpu_hour: {h100: cheap}\n')
    with pytest.raises(UserError) as caught:
        load_prices(tmp_path / "p.yaml")
    assert not [word for word in VALIDATOR_WORDS if word in str(caught.value)]
