"""Rounds of a recipe: merged sections, lengths, references to earlier rounds, and mistakes with file and line."""

import pytest
import yaml

from distill.errors import RecipeError
from distill.recipe.diff import recipe_differences
from distill.recipe.expand import expand
from distill.recipe.loading import load_recipe, recipe_of_dict
from distill.recipe.model import Recipe, recipe_of_tree, with_parts

PROBLEMS = [{"source": "gym:chain_sum", "limit": 50}]


def tree(*rounds, **sections):
    return {"name": "two", "student": "smollm2-135m", "problems": PROBLEMS, "rounds": list(rounds), **sections}


COLD = {"name": "cold", "generate": {"teacher": "org/teacher"}, "sft": {}}
AGAIN = {"name": "again", "generate": {"teacher": "round:cold"}, "sft": {"rows": ["this", "round:cold"]}}


def test_a_round_has_the_stages_of_its_sections_and_the_top_level_holds_their_defaults():
    recipe = recipe_of_dict(
        tree(
            COLD | {"generate": {"sampling": {"top_p": 0.9}}},
            AGAIN | {"sft": None},
            {"name": "rows", "traces": [{"source": "hf:org/traces"}], "filter": {"readability": {"language": None}}},
            {"name": "last", "student": "round:cold", "sft": {"rows": ["round:rows"], "epochs": 1}},
            generate={"teacher": "org/teacher", "sampling": {"temperature": 0.5, "top_p": 0.8}},
            sft={"method": "lora", "epochs": 2},
            filter={"unanswered": "keep", "readability": {"language": "de", "code_blocks": True}},
            eval={"held_out": 10},
        )
    )
    assert [step.id for step in expand(recipe)] == [
        *("cold/generate", "cold/filter", "cold/sft", "cold/eval"),
        *("again/generate", "again/filter", "again/sft", "again/eval"),
        *("rows/import", "rows/filter"),
        *("last/sft", "last/eval"),
    ]
    cold, again, rows, last = recipe.parts
    assert (cold.generate.sampling.temperature, cold.generate.sampling.top_p) == (0.5, 0.9)
    assert again.sft.method == "lora"
    assert (last.sft.method, last.sft.epochs) == ("lora", 1)
    assert rows.filter.unanswered == "keep"
    assert (cold.filter.readability.language, rows.filter.readability.language) == ("de", None)
    assert rows.filter.readability.code_blocks
    assert (again.teacher_round, again.generate.teacher) == ("cold", "smollm2-135m")
    assert (last.student_round, last.student, last.row_rounds) == ("cold", "smollm2-135m", ["rows"])


def test_lengths_follow_each_rounds_student_and_the_answers_fit_all():
    recipe = recipe_of_dict(tree(COLD, COLD | {"name": "big", "student": "qwen-1.5b"}, eval={"held_out": 5}))
    small, big = recipe.parts
    assert small.sft.max_length < big.sft.max_length
    assert small.generate.sampling.max_tokens < big.generate.sampling.max_tokens
    assert small.eval.sampling.max_tokens == big.eval.sampling.max_tokens < small.sft.max_length


def test_a_recipe_with_rounds_and_each_of_its_rounds_are_read_back_as_written():
    recipe = recipe_of_dict(tree(COLD, AGAIN, sft={"epochs": 1}, eval={"held_out": 5}))
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    for part in recipe.parts:
        assert recipe_of_tree(part.model_dump(mode="json")) == part
    assert with_parts(recipe, {part.round_name: part for part in recipe.parts}) == recipe
    assert "rounds" not in recipe_of_dict({**tree(), "rounds": [], "generate": {"teacher": "t"}}).model_dump()


def test_differences_name_the_round_and_a_gate_changes_no_result():
    before = recipe_of_dict(tree(COLD, AGAIN))
    after = recipe_of_dict(tree(COLD | {"sft": {"epochs": 1}}, AGAIN | {"gate": {"num_kept": "> 3"}}))
    found = {one.key: one.effect for one in recipe_differences(before, after)}
    assert found == {"rounds.cold.sft.epochs": "result", "rounds.again.gate.num_kept": "neither"}


@pytest.mark.parametrize(
    ("rounds", "sections", "line", "says"),
    [
        ([COLD, AGAIN | {"student": "round:again"}], {}, "student: round:again", "this round itself"),
        ([AGAIN, COLD], {}, "teacher: round:cold", "comes later"),
        (
            [COLD, AGAIN | {"student": "round:cald"}],
            {},
            "student: round:cald",
            "no round 'cald'. There are: cold, again",
        ),
        ([COLD, COLD], {}, None, "two rounds are called 'cold'"),
        (
            [{"name": "rows", "generate": {"teacher": "org/t"}}, {"name": "b", "student": "round:rows", "sft": {}}],
            {},
            "student: round:rows",
            "makes no model",
        ),
        ([{"name": "a/b", "sft": {}}], {}, "name: a/b", "must be made of letters"),
        ([{"name": "filter", "sft": {}}], {}, None, "a stage's folder has that name"),
        ([COLD | {"name": "base"}], {}, None, "the model before any round"),
        ([COLD, {"name": "b", "sft": {}}], {}, None, "no rows of its own"),
        ([COLD], {"traces": [{"source": "hf:org/x"}]}, "traces:", "no round names this section"),
        ([COLD | {"gate": {"speed": "> 1"}}], {}, "speed:", "no metric 'speed'. There are: num_samples"),
        ([COLD | {"gate": {"gain": "> 0"}}], {}, "gain:", "has no gain, which needs eval:"),
        (
            [{"name": "rows", "generate": {"teacher": "org/t"}, "gate": {"final_loss": "< 1"}}, COLD],
            {},
            "final_loss:",
            "has no final_loss, which needs sft:",
        ),
        ([COLD | {"gate": {"kept_share": "0.9"}}], {}, "kept_share:", 'e.g. kept_share: ">= 0.9"'),
        (
            [COLD, AGAIN | {"gate": {"gain_over": "round:again"}}],
            {"eval": {"held_out": 5}},
            "gain_over: round:again",
            "this round itself",
        ),
        (
            [
                COLD | {"filter": {"max_tokens": 900}, "sft": {"max_length": 1000}},
                {"name": "b", "sft": {"max_length": 500, "rows": ["round:cold"]}},
            ],
            {},
            "max_length: 500",
            "up to 900 tokens, longer than this round's sft.max_length (500",
        ),
        (
            [COLD | {"sft": {"chat_template": "chatml"}}, {"name": "b", "sft": {"rows": ["round:cold"]}}],
            {},
            "rows:",
            "another chat template (chatml; here the model's own)",
        ),
        ([COLD | {"traces": [{"source": "hf:org/x"}]}], {}, None, "either generate: or traces:"),
        ([{"name": "idle"}], {}, None, "does nothing"),
        ([COLD], {"push": {"repo": "a/b", "round": "none"}}, "round: none", "no round 'none' makes a model"),
        ([COLD | {"sft": {"epoch": 1}}], {}, "epoch: 1", "Did you mean"),
        (
            [COLD | {"gate": {"clear_gain_over": "round:cold"}}],
            {"eval": {"held_out": 5}},
            "clear_gain_over: round:cold",
            "this round itself",
        ),
        (
            [COLD],
            {"problems": [*PROBLEMS, {"source": "hf:org/chat", "rounds": ["cald"]}]},
            "- cald",
            "there is no round 'cald'. There are: cold.",
        ),
        (
            [COLD, {"name": "b", "sft": {"rows": ["round:cold"]}}],
            {"problems": [*PROBLEMS, {"source": "hf:org/chat", "rounds": ["b"]}]},
            "- b",
            "round 'b' asks no problems: it has neither generate: nor rl:. Rounds that do: cold.",
        ),
        (
            [COLD, AGAIN],
            {"problems": [{**PROBLEMS[0], "rounds": ["cold"]}]},
            "name: again",
            "every source of problems: names other rounds",
        ),
        (
            [COLD],
            {"problems": [{**PROBLEMS[0], "rounds": ["cold"]}], "eval": {"held_out": 5}},
            "held_out: 5",
            "is taken from sources of problems: that all rounds use",
        ),
        (
            [COLD],
            {"eval": {"benchmarks": [{"suite": "math-500", "rounds": ["cold"]}]}},
            None,
            "rounds is for sources of problems: only",
        ),
    ],
)
def test_mistakes_are_refused_with_their_line_and_the_way_out(tmp_path, rounds, sections, line, says):
    text = yaml.safe_dump(tree(*rounds, **sections), sort_keys=False)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert says in message
    assert "Value error" not in message
    if line is not None:
        number = next(n for n, row in enumerate(text.splitlines(), 1) if line in row)
        assert f"recipe.yaml:{number}: " in message


def test_a_default_that_is_wrong_is_told_once_and_at_its_own_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree(COLD, AGAIN, sft={"epochs": "lots"}), sort_keys=False))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    number = next(n for n, row in enumerate(path.read_text().splitlines(), 1) if "lots" in row)
    assert str(caught.value).splitlines() == [f"{path}:{number}: sft.epochs: must be a number, not 'lots'."]


def test_rows_and_a_published_round_need_rounds():
    flat = {"name": "one", "student": "smollm2-135m", "problems": PROBLEMS, "generate": {"teacher": "org/t"}}
    with pytest.raises(RecipeError, match="rows names rounds"):
        recipe_of_dict(flat | {"sft": {"rows": ["round:a"]}})
    with pytest.raises(RecipeError, match="round names a round"):
        recipe_of_dict(flat | {"push": {"repo": "a/b", "round": "x"}})


JUDGE = {"model": "judge", "compute": {"base_urls": ["http://localhost:8000/v1"]}}


def judged_tree(**chat):
    """Reasoning for all rounds, and for the last one questions that only a judge can grade."""
    return tree(
        COLD,
        {"name": "rl-1", "student": "round:cold", "rl": {}},
        {"name": "rl-2", "student": "round:rl-1", "rl": {"reward": {"judge": {"by": JUDGE}}}},
        problems=[*PROBLEMS, {"source": "hf:org/chat", "task": "judge", **chat}],
        rl={"probe": {"problems": 5}, "max_tokens": 100},
        eval={"held_out": 5},
    )


def test_a_source_of_problems_may_be_for_some_rounds_alone():
    recipe = recipe_of_dict(judged_tree(rounds=["rl-2"]))
    assert [[source.source for source in part.problems] for part in recipe.parts] == [
        ["gym:chain_sum"],
        ["gym:chain_sum"],
        ["gym:chain_sum", "hf:org/chat"],
    ]
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    pinned = {part.round_name: _pinned(part) for part in recipe.parts}
    assert [source.revision for source in with_parts(recipe, pinned).problems] == [None, "a" * 40]


def _pinned(part):
    """A part as the lock has it: with the commits of what it has read from the Hub."""
    changed = [
        source.model_copy(update={"revision": "a" * 40 if source.source.startswith("hf:") else None})
        for source in part.problems
    ]
    return part.model_copy(update={"problems": changed})


def test_what_only_a_judge_can_grade_is_refused_where_no_judge_is():
    with pytest.raises(RecipeError, match=r"rounds.0: task: judge needs a judge(?s:.*)give their source rounds: of"):
        recipe_of_dict(judged_tree())


def test_sources_for_some_rounds_need_rounds():
    flat = {"name": "one", "student": "smollm2-135m", "generate": {"teacher": "org/t"}}
    with pytest.raises(RecipeError, match="problems: rounds names rounds, but the recipe has none"):
        recipe_of_dict(flat | {"problems": [{**PROBLEMS[0], "rounds": ["a"]}]})


def test_a_changed_copy_has_changed_rounds():
    recipe = recipe_of_dict(tree(COLD, AGAIN))
    assert recipe.parts[0].seed == 0
    assert [part.seed for part in recipe.model_copy(update={"seed": 7}).parts] == [7, 7]


def test_an_override_reaches_rounds_that_set_the_key_themselves_but_no_teacher_that_a_round_makes(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree(COLD | {"sft": {"epochs": 2}}, AGAIN), sort_keys=False))
    cold, again = load_recipe(path, ["sft.epochs=7"], {"generate.teacher": "org/other"}).rounds
    assert (cold.sft.epochs, again.sft.epochs) == (7, 7)
    assert (cold.generate.teacher, again.generate.teacher) == ("org/other", "round:cold")


def test_a_pinned_student_of_a_round_is_the_base_of_what_is_made_of_it():
    first = {"name": "a", "student": "org/s", "student_revision": "abc", "generate": {"teacher": "org/t"}, "sft": {}}
    recipe = recipe_of_dict(tree(first, {"name": "b", "student": "round:a", "sft": {"rows": ["round:a"]}}))
    assert [(part.student, part.student_revision) for part in recipe.parts] == [("org/s", "abc")] * 2


def test_a_round_made_in_python_keeps_sections_without_keys():
    from distill.recipe.generate import GenerateConfig
    from distill.recipe.rounds import Round
    from distill.recipe.sft import SftConfig

    one = Round(name="a", generate=GenerateConfig(teacher="org/t"), sft=SftConfig())
    assert [step.id for step in expand(Recipe.model_validate(tree(one)))] == ["a/generate", "a/filter", "a/sft"]
