r"""Backslashes that escapes have eaten: `"\boxed"` in double quotes is a backspace and `oxed`."""

import pytest

from distill.errors import RecipeError
from distill.recipe.loading import load_recipe, recipe_of_dict
from distill.recipe.lost_backslashes import eaten_in_source, eaten_in_text

TREE = {
    "name": "tiny",
    "student": "smollm2-135m",
    "problems": [{"source": "gym:chain_sum"}],
    "generate": {"teacher": "smollm2-135m", "sampling": {"max_tokens": 512}},
    "filter": {"max_tokens": 512},
    "sft": {"max_length": 1024},
}


@pytest.fixture
def write(tmp_path):
    """A function that writes a recipe whose `generate.system` stands in line 5 as given; its path."""

    def write_recipe(value, encoding="utf-8", more=""):
        path = tmp_path / "recipe.yaml"
        text = (
            "name: tiny\nstudent: smollm2-135m\nproblems: [{source: 'gym:chain_sum'}]\n"
            f"generate:\n  system: {value}\n  teacher: smollm2-135m\n  sampling: {{max_tokens: 512}}\n"
            f"filter: {{max_tokens: 512}}\nsft: {{max_length: 1024}}\n{more}"
        )
        path.write_bytes(text.encode(encoding))
        return path

    return write_recipe


def refusal(path, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    "command",
    ["boxed", "beta", "begin", "frac", "forall", "alpha", "angle", "vec", "varepsilon", "right", "rho", "eta", "end",
     "text", "textbf", "times", "theta", "tan", "to", "tfrac", "nabla", "neq", "notin", "Pi", "Phi", "Lambda"],
)  # fmt: skip
@pytest.mark.parametrize("around", ["Answer in \\{}{{}}.", "\\{}", "é $\\{} x$", "\\\\ \\{}"])
def test_a_command_in_double_quotes_is_refused_with_place_key_and_hint(write, command, around):
    path = write(f'"{around.format(command)}"')
    message = refusal(path)
    assert message.startswith(f"{path}:5: generate.system: \\{command[0]} was read as a")
    assert f"\\{command} has become {command[1:]!r}" in message
    assert "single quotes" in message
    assert message.isprintable()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_in_every_encoding(write, encoding):
    assert ":5: generate.system: \\b was read as a backspace" in refusal(write('"é \\boxed"', encoding))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ('"a\\nReason, and\\tso on\\n"', "a\nReason, and\tso on\n"),
        ('"\\\\boxed \\\\text \\\\\\\\n"', "\\boxed \\text \\\\n"),
        ("'\\boxed \\text'", "\\boxed \\text"),
        ("\\boxed \\text", "\\boxed \\text"),
        ("|-\n    \\boxed\n    \\text", "\\boxed\n\\text"),
        ('"\\x09imes"', "\times"),
        ('"a\\ne is 2.718"', "a\ne is 2.718"),
        ('"a\\nu\\nto\\nnot"', "a\nu\nto\nnot"),
        ('"\\u00e9\\u2028\\/"', "é\u2028/"),
        ('"a\\_ b"', "a\u00a0 b"),
    ],
)
def test_what_is_meant_is_read(write, value, read):
    assert load_recipe(write(value)).generate.system == read


@pytest.mark.parametrize("formula", ["$a \\ne b$", "$\\nu$", "so $x$ and $a \\ni b$"])
def test_in_a_formula_a_line_break_before_a_letter_is_a_command(write, formula):
    assert "\\n was read as a line break" in refusal(write(f'"{formula}"'))


def test_an_underscore_between_letters(write):
    assert "\\_ was read as a no-break space, so that \\_b has become 'b'" in refusal(write('"a\\_b"'))


@pytest.mark.parametrize("command", ["sqrt", "pi", "xi", "upsilon", "Delta", "cdot", "mathbb"])
def test_an_escape_that_yaml_does_not_know_gets_the_hint_too(write, command):
    path = write(f'"\\{command}"')
    assert refusal(path).startswith(f"{path}:5: not valid YAML")
    assert "single quotes" in refusal(path)
    assert "single quotes" in refusal(write("x"), f'generate.system="\\{command}"')


@pytest.mark.parametrize("char", ["\x01", "\x07", "\x08", "\x0b", "\x0c", "\r", "\x1b", "\x7f", "\x9b"])
def test_a_control_character_is_refused_whoever_wrote_it(write, char):
    message = refusal(write(f'"a\\x{ord(char):02x}b"'))
    assert ":5: generate.system:" in message
    assert message.isprintable()
    with pytest.raises(RecipeError, match=r"the dict: generate\.system: .*"):
        recipe_of_dict({**TREE, "generate": {**TREE["generate"], "system": f"a{char}b"}})
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("x"), [f"generate.system=a{char}b"])
    assert str(caught.value).startswith("--set generate.system: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["\boxed{}", "\frac", "\text{a}", "\times", "\nabla", "\neq", "\alpha"])
def test_what_python_or_a_shell_has_eaten(write, value):
    with pytest.raises(RecipeError, match="has become"):
        recipe_of_dict({**TREE, "problems": [{"source": "gym:chain_sum", "template": "{problem} " + value}]})
    assert "has become" in refusal(write("x"), f"generate.system=a{value}")


def test_in_a_value_of_set(write):
    assert "\\boxed has become 'oxed'" in refusal(write("x"), 'generate.system="\\boxed"')
    assert load_recipe(write("x"), ["generate.system=\\boxed"]).generate.system == "\\boxed"


def test_in_a_key_and_in_a_list(write):
    assert "\\b was read as" in refusal(write("x", more='"\\boxed": 1\n'))
    more = 'eval: {held_out: 1, benchmarks: [{source: "gym:chain_sum", template: "{problem} \\boxed"}]}\n'
    assert ":10: eval.benchmarks.0.template: \\b was read as" in refusal(write("x", more=more))


@pytest.mark.parametrize("text", ["\tan apple", "a\nnot b", "\ttext", "\n", "\u2028", "\u0085", "tab\there"])
def test_tabs_and_line_breaks_in_prose(text):
    assert eaten_in_text(text) is None


def test_a_source_without_escapes():
    assert eaten_in_source('"plain $ text"') is None
    assert eaten_in_source('"\\\\"') is None
