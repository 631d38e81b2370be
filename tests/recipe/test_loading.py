"""From YAML to a recipe: what overrules what, and errors that name the place and the likely key."""

import json
import time

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distill.errors import RecipeError, UserError
from distill.recipe.loading import load_recipe
from distill.recipe.model import Recipe

MINIMAL = """\
name: tiny
student: smollm2-135m
problems:
  - source: gym:chain_sum
generate:
  teacher: org/teacher
  sampling: {max_tokens: 100}
sft: {max_length: 512}
"""
NUM_LINES = MINIMAL.count("\n")


@pytest.fixture
def write(tmp_path):
    """A function that writes a recipe into the test's folder."""

    def write_recipe(text, name="recipe.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_recipe


def refusal(path, *args):
    """What the reader is told."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, *args)
    return str(caught.value)


# --- what overrules what


def test_a_minimal_recipe_has_the_defaults(write):
    recipe = load_recipe(write(MINIMAL))
    assert recipe.name == "tiny"
    assert recipe.generate.samples_per_problem == 4
    assert recipe.sft.method == "full"
    assert recipe.eval is None


def test_each_way_of_setting_a_value_overrules_the_one_before(write):
    write(MINIMAL + "seed: 1\ndescription: parent\nstudent_revision: parent\n", "parent.yaml")
    child = write("extends: parent.yaml\ndescription: child\nstudent_revision: child\nstudent: org/child\n")
    recipe = load_recipe(child, ["student_revision=set", "student=org/set"], {"student": "org/flag"})
    assert recipe.filter.grade_timeout_s == 10.0
    assert (recipe.seed, recipe.description, recipe.student_revision) == (1, "child", "set")
    assert recipe.student == "org/flag"


PINNED = MINIMAL.replace("teacher: org/teacher", "teacher: org/teacher\n  revision: tpin") + "student_revision: spin\n"


@pytest.mark.parametrize(
    ("overrides", "flags", "revisions"),
    [
        ([], {}, ("spin", "tpin")),
        ([], {"student": None, "generate.teacher": None}, ("spin", "tpin")),
        ([], {"student": "qwen-1.5b"}, (None, "tpin")),
        ([], {"generate.teacher": "org/other"}, ("spin", None)),
        (["student=org/other", "generate.teacher=org/other"], {}, (None, None)),
        (["student_revision=v2", "generate.revision=v3"], {"student": "a/b", "generate.teacher": "a/b"}, ("v2", "v3")),
        (["student_revision=v2"], {}, ("v2", "tpin")),
        ([], {"student": "smollm2-135m", "generate.teacher": "org/teacher"}, ("spin", "tpin")),  # the same models
        (["generate={teacher: a/b, revision: v4, sampling: {max_tokens: 9}}"], {}, ("spin", "v4")),
    ],
)
@pytest.mark.parametrize("in_lock", [False, True])
def test_another_model_has_not_the_revision_of_the_one_it_replaces(write, overrides, flags, revisions, in_lock):
    text = PINNED
    if in_lock:
        text = yaml.safe_dump({"lock_version": 1, "recipe": yaml.safe_load(PINNED)})
    recipe = load_recipe(write(text), overrides, flags)
    assert (recipe.student_revision, recipe.generate.revision) == revisions


def test_a_flag_that_was_not_given_overrules_nothing(write):
    recipe = load_recipe(write(MINIMAL), [], {"student": None, "generate.teacher": "org/other"})
    assert (recipe.student, recipe.generate.teacher) == ("smollm2-135m", "org/other")


def test_of_two_overrides_of_a_key_the_later_counts(write):
    assert load_recipe(write(MINIMAL), ["seed=1", "seed=2"]).seed == 2


def test_extends_merges_sections_deeply_and_replaces_lists(write):
    write(
        MINIMAL.replace("gym:chain_sum", "gym:chain_sum\n    limit: 7\n  - source: gym:leg_counting")
        + "filter:\n  max_tokens: 50\n  readability: {language: de, min_language_share: 0.5}\n",
        "parent.yaml",
    )
    recipe = load_recipe(
        write(
            "extends: parent.yaml\nname: child\nproblems: [{source: 'gym:basic_arithmetic'}]\n"
            "filter: {readability: {language: fr}}\n"
        )
    )
    assert recipe.name == "child"
    assert [(p.source, p.limit) for p in recipe.problems] == [("gym:basic_arithmetic", None)]
    assert recipe.filter.max_tokens == 50
    assert recipe.filter.readability.language == "fr"
    assert recipe.filter.readability.min_language_share == 0.5


def test_extends_goes_over_several_generations(write):
    write(MINIMAL + "seed: 1\ndescription: oldest\n", "a/oldest.yaml")
    write("extends: ../a/oldest.yaml\ndescription: middle\n", "b/middle.yaml")
    recipe = load_recipe(write("extends: b/middle.yaml\nname: youngest\n"))
    assert (recipe.seed, recipe.description, recipe.name) == (1, "middle", "youngest")


def test_a_section_can_be_taken_out_of_a_parent_and_set_again(write):
    write(MINIMAL + "eval: {held_out: 3, sampling: {max_tokens: 50}}\n", "parent.yaml")
    child = write("extends: parent.yaml\neval: null\n")
    assert load_recipe(child).eval is None
    assert load_recipe(child, ["eval.held_out=5", "eval.sampling.max_tokens=60"]).eval.held_out == 5


@pytest.mark.parametrize("texts", [["extends: recipe.yaml\n"], ["extends: b.yaml\n", "extends: ./recipe.yaml\n"]])
def test_extends_in_a_circle_is_refused_with_the_way_round(write, texts):
    paths = [write(text, name) for text, name in zip(texts, ["recipe.yaml", "b.yaml"], strict=False)]
    message = refusal(paths[0])
    assert "circle" in message
    assert all(path.name in message for path in paths)


def test_a_missing_parent_is_named_with_who_names_it(write):
    path = write("extends: no/such.yaml\n")
    message = refusal(path)
    assert "such.yaml: no such recipe" in message
    assert f"named by extends in {path}" in message


@pytest.mark.parametrize("value", ["3", "[a.yaml]", "{a: b}"])
def test_extends_takes_one_path(write, value):
    path = write(MINIMAL + f"extends: {value}\n")
    assert refusal(path).startswith(f"{path}:{NUM_LINES + 1}: extends takes one path")


@pytest.mark.parametrize("parent", ["''", ".", "'a\\0b'", '"a\\0b"', '"\\uD800"', "~nobody-of-this-name/x.yaml"])
def test_a_parent_that_is_no_file_is_refused(write, parent):
    refusal(write(MINIMAL + f"extends: {parent}\n"))


@pytest.mark.parametrize("parent", ["lock.yaml", "between.yaml"])
def test_a_lock_is_run_and_not_extended(write, parent):
    lock = write("lock_version: 1\nrecipe: {name: tiny}\n", "lock.yaml")
    between = write("extends: lock.yaml\n", "between.yaml")
    path = write(f"name: child\nextends: {parent}\nsft: {{epochs: 7}}\nnonsense: 3\n")
    where = f"{path}:2" if parent == "lock.yaml" else f"{between}:1"
    assert refusal(path).startswith(f"{where}: {lock} is a lock, which repeats a run and cannot be extended.")


def test_a_lock_extends_nothing(write):
    write(MINIMAL, "parent.yaml")
    path = write("extends: parent.yaml\nlock_version: 1\nrecipe: {name: tiny}\n")
    assert refusal(path).startswith(f"{path}:2: a lock is complete and cannot extend anything.")


# --- file: sources


def test_a_file_source_is_relative_to_the_recipe_that_names_it(write, tmp_path, monkeypatch):
    write(MINIMAL.replace("gym:chain_sum", "file:rows.jsonl"), "base/parent.yaml")
    path = write(
        "extends: base/parent.yaml\n"
        "eval:\n  benchmarks: [{source: 'file:../test.jsonl'}, {source: 'file:/abs/x.json'}]\n"
        "  sampling: {max_tokens: 9}\n",
        "mine/../recipe.yaml",
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe(path)
    assert recipe.problems[0].source == f"file:{tmp_path / 'base' / 'rows.jsonl'}"
    assert [s.source for s in recipe.eval.benchmarks] == [f"file:{tmp_path.parent / 'test.jsonl'}", "file:/abs/x.json"]


def test_a_file_source_in_the_home_folder(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recipe = load_recipe(write(MINIMAL.replace("gym:chain_sum", "file:~/rows.jsonl")))
    assert recipe.problems[0].source == f"file:{tmp_path / 'home' / 'rows.jsonl'}"


def test_a_file_source_from_the_command_line_is_relative_to_the_current_folder(write, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    recipe = load_recipe(write(MINIMAL), ["problems.0.source=file:rows.jsonl"])
    assert recipe.problems[0].source == f"file:{here / 'rows.jsonl'}"


def test_a_chat_template_of_ones_own_is_relative_to_the_recipe_that_names_it(write, tmp_path, monkeypatch):
    path = write(MINIMAL.replace("max_length: 512", "max_length: 512, chat_template: 'file:mine.jinja'"))
    monkeypatch.chdir("/")
    assert load_recipe(path).sft.chat_template == f"file:{path.parent / 'mine.jinja'}"
    assert load_recipe(path, ["sft.chat_template=chatml"]).sft.chat_template == "chatml"
    assert load_recipe(path, ["sft.chat_template=file:x.jinja"]).sft.chat_template == "file:/x.jinja"


def test_a_file_source_of_nobody_is_refused(write):
    refusal(write(MINIMAL.replace("gym:chain_sum", "file:~nobody-of-this-name/x.jsonl")))


# --- scalars


def scalar(write, text):
    """What a plain YAML scalar becomes where anything is allowed."""
    return load_recipe(write(MINIMAL.replace("max_length: 512", f"max_length: 512, trl: {{x: {text}}}"))).sft.trl["x"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("-3", -3),
        ("12_000", 12000),
        ("017", 17),
        ("0o17", "0o17"),
        ("1.2.3", "1.2.3"),
        ("'1e-4'", "1e-4"),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(write, text, value):
    found = scalar(write, text)
    assert found == value
    assert type(found) is type(value)


def test_norwegian_stays_a_language(write):
    path = write(MINIMAL + "filter: {readability: {language: no}}\n")
    assert load_recipe(path).filter.readability.language == "no"
    assert load_recipe(path, ["name=on"]).name == "on"


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "1e999"])
def test_numbers_that_no_json_can_hold_are_refused(write, text):
    """A fingerprint is taken over JSON, which has no infinity."""
    refusal(write(MINIMAL.replace("max_length: 512", f"max_length: 512, epochs: {text}")))
    refusal(write(MINIMAL.replace("max_length: 512", f"max_length: 512, trl: {{x: {text}}}")))


@pytest.mark.parametrize("text", ["inf", "nan", "Infinity"])
def test_infinity_in_words_is_no_number(write, text):
    assert "sft.epochs" in refusal(write(MINIMAL), [f"sft.epochs={text}"])


@pytest.mark.parametrize(
    "text",
    ["!!int x", "!!float x", "!!bool maybe", "!!timestamp x", "!!binary é", "!!python/name:os.system", "9" * 5000],
)
def test_a_scalar_that_is_not_what_it_claims_is_refused_with_its_line(write, text):
    path = write(MINIMAL + f"seed: {text}\n")
    message = refusal(path)
    assert message.startswith(f"{path}:{NUM_LINES + 1}: ")
    assert len(message) < 500


@pytest.mark.parametrize("text", ['"a\\0b"', '"\\uD800"'])
def test_text_that_no_file_can_hold_is_refused(write, text):
    path = write(MINIMAL + f"description: {text}\n")
    assert refusal(path).startswith(f"{path}:{NUM_LINES + 1}: ")


# --- files that are no recipes


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "null\n", "- a\n- b\n", "just words\n", "42\n", "--- {}\n"])
def test_a_file_that_is_no_mapping_is_told_what_a_recipe_is(write, text):
    path = write(text)
    message = refusal(path)
    assert message.startswith(str(path))
    assert "name" in message
    assert "student" in message


@pytest.mark.parametrize(
    "content",
    [bytes(range(256)), b"\0\0\0\0", b"name: \xff\xfe\n", b"\xff\xfex", b"\x89PNG\r\n\x1a\n\0\0", b"\x80abc"],
)
def test_binary_is_no_recipe(write, content):
    path = write(content)
    assert refusal(path).startswith(f"{path}: not valid YAML")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(write):
    path = write(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_recipe(path) == load_recipe(write(MINIMAL, "plain.yaml"))


def test_a_missing_file_a_folder_and_a_huge_file(write, tmp_path):
    assert "no such recipe" in refusal(tmp_path / "none.yaml")
    assert "directory" in refusal(tmp_path)
    assert "at most" in refusal(write(b"a" * 1_000_001))


@pytest.mark.parametrize(
    ("more", "line", "what"),
    [
        ("name: other\n", NUM_LINES + 1, "duplicate key 'name' (first at {path}:1)"),
        ("filter:\n  max_tokens: 3\n  max_tokens: 4\n", NUM_LINES + 3, "duplicate key 'max_tokens'"),
        ("filter:\n\tmax_tokens: 3\n", NUM_LINES + 2, "not valid YAML"),
        ("description: 'open\n", NUM_LINES + 1, "not valid YAML"),
        ("filter: {max_tokens: 3\n", NUM_LINES + 1, "not valid YAML"),
        ("description: *nowhere\n", NUM_LINES + 1, "undefined alias"),
        ("[a, b]: c\n", NUM_LINES + 1, "a key must be plain text"),
        ("---\nname: second\n", NUM_LINES + 1, "another document"),
    ],
)
def test_broken_yaml_is_shown_with_its_line(write, more, line, what):
    path = write(MINIMAL + more)
    message = refusal(path)
    found = int(message.removeprefix(f"{path}:").partition(":")[0])
    assert found in (line, line + 1)  # a text that is never closed is noticed at the end
    assert what.format(path=path) in message


# --- aliases


def test_an_alias_stands_for_what_it_names(write):
    text = MINIMAL.replace("sampling: {max_tokens: 100}", "sampling: &drawn {temperature: 0.5, max_tokens: 100}")
    recipe = load_recipe(write(text + "eval: {held_out: 3, sampling: *drawn}\n"))
    assert recipe.eval.sampling.model_dump() == recipe.generate.sampling.model_dump()
    assert recipe.eval.sampling.temperature == 0.5


@pytest.mark.parametrize("more", ["filter: &a {x: *a}\n", "description: &a [*a]\n", "sft2: &a {x: [{y: *a}]}\n"])
def test_an_alias_inside_itself_is_refused(write, more):
    assert refusal(write(MINIMAL + more))


def test_a_billion_laughs_are_refused_at_once(write):
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 7)]
    started = time.process_time()
    message = refusal(write("\n".join(lines)))
    assert time.process_time() - started < 20  # all of it would be half a million words
    assert len(message) < 5_000


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 3000 + "]" * 3000,
        "a: " + "{a: " * 3000 + "}" * 3000,
        "".join(" " * i + "a:\n" for i in range(1200)),
    ],
    ids=["lists", "mappings", "blocks"],
)
def test_deep_nesting_is_refused(write, text):
    assert refusal(write(text))


# --- typos


@pytest.mark.parametrize(
    ("text", "line", "shown", "meant"),
    [
        (MINIMAL + "evall: {}\n", NUM_LINES + 1, "evall", "eval"),
        (MINIMAL.replace("max_length", "max_lenght"), 8, "sft.max_lenght", "max_length"),
        (MINIMAL.replace("chain_sum", "chain_sum\n    limitt: 4"), 5, "problems.0.limitt", "limit"),
        (
            MINIMAL.replace("chain_sum", "chain_sum\n    columns:\n      answr: x"),
            6,
            "problems.0.columns.answr",
            "answer",
        ),
        (MINIMAL.replace("512}", "512, method: lora,\n  lora: {\n   alhpa: 3}}"), 10, "sft.lora.alhpa", "alpha"),
        (
            MINIMAL
            + "eval:\n  sampling: {max_tokens: 9}\n  benchmarks:\n  - source: gym:leg_counting\n    tsak: gym\n",
            NUM_LINES + 5,
            "eval.benchmarks.0.tsak",
            "task",
        ),
    ],
)
def test_a_typo_gets_file_line_and_a_suggestion(write, text, line, shown, meant):
    path = write(text)
    message = refusal(path)
    assert message.startswith(f"{path}:{line}: unknown key {shown!r}. Did you mean {meant!r}?")
    assert "Known here: " in message


def test_a_key_like_nothing_known_gets_the_list_alone(write):
    message = refusal(write(MINIMAL + "zzzzzz: 1\n"))
    assert "Did you mean" not in message
    assert "Known here: description, eval, filter" in message


def test_a_typo_in_a_parent_is_shown_in_the_parent(write):
    parent = write(MINIMAL + "filter:\n  max_tokenz: 50\n", "parent.yaml")
    child = write("extends: parent.yaml\nfilter: {duplicates: null}\n")
    assert refusal(child).startswith(f"{parent}:{NUM_LINES + 2}: unknown key 'filter.max_tokenz'")


def test_a_mistake_in_a_replaced_list_is_shown_in_the_child(write):
    write(MINIMAL.replace("chain_sum", "chain_sum\n    limit: 4"), "parent.yaml")
    child = write("extends: parent.yaml\nname: x\nproblems:\n  -\n    source: gym:leg_counting\n    limit: -1\n")
    assert refusal(child).startswith(f"{child}:6: problems.0.limit")


def test_all_mistakes_are_told_at_once(write):
    path = write(MINIMAL.replace("tiny", "'not a name'") + "seed: -1\nsede: 3\n")
    lines = refusal(path).splitlines()
    places = [line.removeprefix(f"{path}:").partition(":")[0] for line in lines]
    assert places == ["1", str(NUM_LINES + 1), str(NUM_LINES + 2)]


def test_what_is_missing_is_named(write):
    path = write("name: x\nproblems:\n- limit: 3\n")
    message = refusal(path)
    assert f"{path}: 'student' is missing." in message
    assert f"{path}:3: 'problems.0.source' is missing." in message


def test_an_unknown_student_is_shown_where_it_was_named(write):
    path = write(MINIMAL.replace("smollm2-135m", "qwen-1.5"))
    assert refusal(path).startswith(f"{path}:2: student: unknown student 'qwen-1.5'. Did you mean 'qwen-1.5b'?")
    assert refusal(path, [], {"student": "lama-8b"}).startswith("--student: student: unknown student 'lama-8b'.")


def test_a_student_with_an_endless_name_is_only_unknown(write):
    refusal(write(MINIMAL.replace("smollm2-135m", "a" * 5000)))


def test_an_empty_section_is_told_in_plain_words(write):
    path = write(MINIMAL + "filter:\n  # max_tokens: 50\n")
    message = refusal(path)
    assert message.startswith(f"{path}:{NUM_LINES + 1}: filter")
    assert "instance of" not in message


def test_a_value_of_several_kinds_is_shown_under_its_own_key(write):
    message = refusal(write(MINIMAL.replace("512}", "512, method: lora, lora: {target_modules: 3}}")))
    assert "sft.lora.target_modules: " in message
    assert "literal[" not in message


def test_a_long_wrong_value_is_not_shown_whole(write):
    assert len(refusal(write(MINIMAL + f"seed: {'x' * 10_000}\n"))) < 500


# --- --set


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("sft.epochs=2", ("sft", "epochs"), 2.0),
        ("problems.0.limit=5", ("problems", 0, "limit"), 5),
        ("description=a=b", ("description",), "a=b"),
        ("description='a: b'", ("description",), "a: b"),
        ("student_revision=", ("student_revision",), None),
        ("filter.readability={language: de}", ("filter", "readability", "language"), "de"),
        ("filter.readability.language=null", ("filter", "readability", "language"), None),
        ("problems=[{source: gym:a}, {source: gym:b}]", ("problems", 1, "source"), "gym:b"),
        ("problems.0={source: gym:c}", ("problems", 0, "source"), "gym:c"),
        ("sft.trl.optim=sgd", ("sft", "trl", "optim"), "sgd"),
        ("sft.trl.7=seven", ("sft", "trl", "7"), "seven"),
        ("problems.0.options.min_terms=3", ("problems", 0, "options", "min_terms"), 3),
    ],
)
def test_set_reaches_every_place(write, override, key, value):
    found = load_recipe(write(MINIMAL), [override]).model_dump()
    for part in key:
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    "override",
    [
        "sft.epochs",
        "=3",
        "",
        ".",
        ".=3",
        "sft..epochs=3",
        "sft.=3",
        "problems.1.limit=5",
        "problems.-1.limit=5",
        "problems.x.limit=5",
        "problems.limit=5",
        "problems.1={source: 'gym:x'}",
        "problems.\u00b2.limit=5",
        "problems.99999999999999999999.limit=5",
        "name.first=5",
        "sft.epochs=[",
        "sft.epochs=--- 1\n--- 2",
        "sft={epochs: 1, epochs: 2}",
        "extends=other.yaml",
        "description=\x00",
        "description=" + "[" * 3000,
        "sft.epochss=3",
    ],
)
def test_a_set_that_cannot_be_done_is_named(write, override):
    """The reader finds the option again in the message, and not the file, which is right."""
    path = write(MINIMAL)
    message = refusal(path, [override])
    assert message.startswith("--set")
    assert str(path) not in message
    assert len(message) < 5_000


def test_a_typo_in_set_gets_a_suggestion(write):
    message = refusal(write(MINIMAL), ["problems.0.limitt=5"])
    assert message.startswith("--set problems.0.limitt: unknown key 'problems.0.limitt'. Did you mean 'limit'?")


@pytest.mark.parametrize(
    "override", ["sft={max_length: -1}", "problems=[{source: bad}]", "problems.0={source: bad}", "sft.max_length=-1"]
)
def test_a_wrong_value_from_set_is_not_blamed_on_the_file(write, override):
    assert refusal(write(MINIMAL), [override]).startswith(f"--set {override.partition('=')[0]}: ")


# --- whatever the file holds, the answer is a recipe or a message

PLAIN = "name student problems generate sft eval extends source trl gym:chain_sum smollm2-135m no 0 1e-4 .nan ~ ~/x é"
MARKS = "&a *a << !!int !!set - ? | > % --- ... { } [ ] : # ' \" \\"
SPACES = ["\n", "\n  ", "\n- ", ": ", "\t", "\x00", "\u2028", "\ufeff"]
WORDS = st.sampled_from([*PLAIN.split(), *MARKS.split(), *SPACES])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
KEYS = st.sampled_from([*Recipe.model_fields, "extends"])
RECIPE_TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(WORDS, max_size=25).map("".join),
    st.dictionaries(KEYS, TREES, max_size=4).map(yaml.safe_dump),
    st.builds(lambda key, tree: MINIMAL.replace(f"{key}:", "x:") + f"{key}: {json.dumps(tree)}\n", KEYS, TREES),
    st.builds(
        lambda start, length, words: MINIMAL[:start] + "".join(words) + MINIMAL[start + length :],
        st.integers(0, len(MINIMAL)),
        st.integers(0, 12),
        st.lists(WORDS, max_size=3),
    ),
)
SET_KEYS = st.one_of(
    st.text(max_size=10),
    st.lists(st.sampled_from(["problems", "sft", "trl", "0", "1", "-1", "", "epochs", "x"]), max_size=4).map(".".join),
)
SET_VALUES = st.one_of(st.text(max_size=10), st.lists(WORDS, max_size=6).map("".join), TREES.map(json.dumps))
PROPERTY = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def message_or_none(path, overrides=()):
    """What the reader is told, `None` where all is well; an exception that is not for readers goes through."""
    try:
        assert isinstance(load_recipe(path, overrides), Recipe)
    except UserError as error:
        return str(error).strip()
    return None


@settings(max_examples=300, **PROPERTY)
@given(text=RECIPE_TEXTS)
@example("a: &a [*a]")
@example("name: !!int x")
@example("extends: ~x")
def test_any_text_gives_a_recipe_or_a_message(write, text):
    assert message_or_none(write(text.encode("utf-8", "surrogatepass"))) != ""


@settings(max_examples=150, **PROPERTY)
@given(key=SET_KEYS, value=SET_VALUES)
def test_any_override_gives_a_recipe_or_a_message(write, key, value):
    assert message_or_none(write(MINIMAL), [f"{key}={value}"]) != ""


@pytest.mark.parametrize("key", ["problems.1", "problems.1.limit"])
def test_an_entry_beyond_the_end_of_a_list_is_told_with_its_length(tmp_path, key):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: a\nstudent: smollm2-135m\nproblems: [{source: 'gym:chain_sum', size: 2}]\n")
    with pytest.raises(RecipeError, match=r"there is no such entry; the list has 1 entry, counted from 0\."):
        load_recipe(path, [f"{key}=1"])
