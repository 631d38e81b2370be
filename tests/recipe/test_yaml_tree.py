"""Bad recipes: each is refused with file, line and the way out; secrets above all, which are never shown again."""

import contextlib
import random
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.core.secrets import secrets_in_text, secrets_in_tree
from distill.errors import RecipeError
from distill.recipe.loading import load_recipe

ALPHABET = string.ascii_letters + string.digits
RANDOM = "".join(random.Random(3).choices(ALPHABET, k=48))
KEYS = {
    "a Hugging Face token": "hf_" + RANDOM[:34],
    "an API key (sk-…)": "sk-proj-" + RANDOM,
    "a GitHub token": "ghp_" + RANDOM[:36],
    "a GitLab token": "glpat-" + RANDOM[:20],
    "an AWS access key": "AKIA" + "ABCDEFGHIJ234567",
    "a Google API key": "AIza" + RANDOM[:35],
    "a Slack token": "xoxb-123456789012-" + RANDOM[:12],
    "a JSON web token": f"eyJ{RANDOM[:12]}.eyJ{RANDOM[:20]}.{RANDOM[:30]}",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
}


@pytest.fixture
def write(tmp_path, theirs):
    """A function that writes a recipe with more lines at its end; its path and the number of the first of them."""

    def write_recipe(more, text=theirs):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(more if isinstance(more, bytes) else (text + more).encode())
        return path, text.count("\n") + 1

    return write_recipe


def refusal(path, *args):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, *args)
    return str(caught.value)


# --- secrets


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("line", ["description: use {}", "# my key is {}", "push: {{repo: 'org/{}'}}", "broken: [{}"])
def test_a_known_kind_of_key_is_refused_wherever_it_stands(write, kind, line):
    path, number = write(line.format(KEYS[kind]) + "\n")
    message = refusal(path)
    assert message.startswith(f"{path}:{number}: holds {kind}")
    assert "api_key_env" in message
    assert KEYS[kind] not in message


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("extra_body: {api_key: abc}", "a secret under the name 'api_key'"),
        ("extra_body: {headers: {Authorization: abc}}", "a secret under the name 'Authorization'"),
        ("extra_body: {headers: {x: 'Bearer abcdefgh12345678'}}", "a login for a server"),
        ("extra_body: {a: [{client_secret: 12345}]}", "a secret under the name 'client_secret'"),
        (f"extra_body: {{session: {RANDOM}}}", "a long random text"),
        ("extra_body: {user: me, password: 'x y'}", "a secret under the name 'password'"),
    ],
)
def test_a_secret_by_its_name_or_its_look_is_refused(write, theirs, more, what):
    served = theirs.replace("generate: {", f"generate: {{compute: {{base_urls: ['http://h/v1']}}, {more}, ")
    path, _ = write("", served)
    message = refusal(path)
    assert message.startswith(f"{path}:4: holds {what}")
    assert RANDOM not in message


def test_what_the_environment_keeps_secret_is_refused_in_a_recipe(write, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "correct horse battery staple")
    path, number = write("description: correct horse battery staple\n")
    assert refusal(path).startswith(f"{path}:{number}: holds the value of an environment variable")


@pytest.mark.parametrize(
    "override", [f"description={KEYS['a Hugging Face token']}", "sft.trl.api_key=abc", f"sft.trl.x={RANDOM}"]
)
def test_a_secret_from_the_command_line_is_refused_and_not_shown(write, override):
    path, _ = write("")
    key, _, value = override.partition("=")
    message = refusal(path, [override])
    assert message.startswith(f"--set {key}: holds ")
    assert value not in message.replace("api_key_env", "")


@pytest.mark.parametrize(
    "line",
    [
        "student_revision: 0123456789abcdef0123456789abcdef01234567",
        "description: 'max_tokens, eos_token, tokens and secrets of the trade'",
        "description: deepseek-ai/DeepSeek-R1-Distill-Qwen-32B-Instruct-2501-GGUF-Q4",
        r"description: '\boxed{\frac{123456789}{987654321}}\text{ABCDEFGHIJKLMNOPabcdefghij}'",
        "description: Bearer of good news for everyone",
        "filter: {decontaminate: [hf:HuggingFaceH4/MATH-500-Some-Long-Name2024]}",
    ],
)
def test_ordinary_texts_are_no_secrets(write, line):
    path, _ = write(line + "\n")
    assert load_recipe(path).name == "theirs"


def test_the_installed_recipes_and_environment_names_are_no_secrets(write, theirs):
    served = theirs.replace("generate: {", "generate: {compute: {base_urls: ['http://h/v1'], api_key_env: MY_TOKEN}, ")
    assert load_recipe(write("", served)[0]).generate.compute.api_key_env == "MY_TOKEN"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=200))
def test_any_text_can_be_looked_through(text):
    for line, kind in secrets_in_text(text):
        assert 1 <= line <= len(text.splitlines())
        assert kind
    list(secrets_in_tree({text: [text, {"a": text}], "b": 3}))


# --- versions


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (2, "schema_version 2 is not one that this distill (0.1.0) reads: 1 (distill 0.1.0 and later)"),
        (0, "The first version is 1."),
    ],
)
def test_an_unknown_schema_version_says_who_reads_it_and_nothing_else(write, version, says):
    path, number = write(f"schema_version: {version}\nnew_section: {{of: another, version: 2}}\n")
    message = refusal(path)
    assert message.startswith(f"{path}:{number}: ")
    assert says in message
    assert ("git pull" in message) is (version > 1)
    assert "pip install" not in message
    assert "new_section" not in message


# --- files that are no recipes


def test_a_tab_is_called_a_tab(write):
    path, number = write("filter:\n\tmax_tokens: 3\n")
    message = refusal(path)
    assert message.startswith(f"{path}:{number + 1}: not valid YAML: the line begins with a tab")
    assert "spaces" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name: a\nstudent: \xe4\xf6\xfc\n", "it is not UTF-8 in line 2"),
        ("name: a\ndescription: ä\n".encode("latin-1"), "it is not UTF-8 in line 2"),
        (b"name: a\n\x01\n", "U+0001 is not allowed in line 2"),
    ],
)
def test_what_is_no_text_is_told_with_its_line(write, content, says):
    path, _ = write(content)
    message = refusal(path)
    assert message.startswith(f"{path}: not valid YAML: ")
    assert says in message


def test_utf_16_is_read_as_its_mark_says(tmp_path, theirs):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(theirs.encode("utf-16"))
    assert load_recipe(path).name == "theirs"


def test_a_folder_is_told_to_name_the_recipe_in_it(tmp_path):
    assert f"{tmp_path}: is a directory. Name the recipe in it" in refusal(tmp_path)


@pytest.mark.parametrize(("name", "meant"), [("quikstart", "quickstart"), ("r1_lora", "r1-lora")])
def test_a_mistyped_name_gets_a_suggestion(name, meant):
    message = refusal(name)
    assert f"Did you mean {meant!r}?" in message
    assert "Installed: quickstart, code-mbpp, grpo-gsm8k, gsm8k" in message


def test_a_file_without_suffix_is_found_where_no_recipe_is_called_so(tmp_path, theirs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text(theirs)
    (tmp_path / "quickstart").write_text(theirs)
    assert load_recipe("mine").name == "theirs"
    assert load_recipe("quickstart").name == "quickstart"
    assert load_recipe("./quickstart").name == "theirs"


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(reference=st.text(max_size=30) | st.from_regex(r"(hf:|git\+[a-z]*:)[\w/@#.-]{0,20}", fullmatch=True))
def test_any_reference_gives_a_recipe_or_a_message(reference, monkeypatch):
    from distill.errors import UserError
    from distill.recipe import git_files, hub_files

    monkeypatch.setattr(git_files, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(hub_files.HubFiles, "_about", _unreachable)
    with contextlib.suppress(UserError):
        assert load_recipe(reference).name


def _unreachable(self, kind):
    import httpx

    raise httpx.ConnectError("no route")
