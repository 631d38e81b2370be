"""The installed set: each recipe reads, says what it costs, plans, and runs up to where a model would be loaded."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from distill.core.thinking import opens_thinking
from distill.estimates.rl_cost import trained_as
from distill.estimates.training_layouts import setting_of, smallest_layout
from distill.estimates.training_report import known_shape
from distill.grading.sandbox import sandbox_fails
from distill.models.students import STUDENTS, find_student
from distill.models.tokenizers import load_tokenizer, render_prompt, template_text
from distill.recipe.copying import copy_recipe
from distill.recipe.installed import installed_folder, installed_names, installed_path, notes_of
from distill.recipe.loading import load_recipe, read_recipe
from distill.recipe.sandbox import trained_programs
from distill.recipe.steps import stage_of
from distill.rewards.grader import RolloutGrader
from distill.rewards.rollouts import Rollout
from distill.runs.runner import run_recipe
from distill.stages import contexts_of, generate, rl
from distill.storage.fingerprints import fingerprint
from distill.storage.run_folder import Manifest, describe_outputs

NAMES = installed_names()
R1 = ["qwen-1.5b", "qwen-7b", "llama-8b", "qwen-14b", "qwen-32b", "llama-70b"]
MOST_GPUS = {
    "none": 0,
    "a CPU": 0,
    "one GPU of 24 GB": 1,
    "1 to 2 GPUs": 2,
    "1 to 4 GPUs": 4,
    "one node of eight GPUs": 8,
    "8 to 32 GPUs": 32,
    "1 to 32 GPUs": 32,
}


def notes(name):
    return notes_of(installed_path(name).read_text())


def students_of(name):
    """The aliases that a recipe's comment names."""
    return [alias for alias in re.findall(r"[\w.-]+", notes(name).students.partition(";")[0]) if alias in STUDENTS]


VARIANTS = [(name, student) for name in NAMES for student in students_of(name)]
LORA_VARIANTS = [(name, s) for name in ("r1", "r1-openr1", "r1-mixture") for s in R1 if s != "llama-8b"]


def test_there_is_what_was_promised():
    assert set(R1) <= set(students_of("r1"))
    for name in ("r1-openr1", "r1-mixture"):
        assert students_of(name) == R1
        assert load_recipe(name).generate is None
    assert students_of("r1-lora") == [alias for alias in R1 if alias != "llama-8b"]
    assert load_recipe("r1").generate.compute.base_urls
    assert load_recipe("r1-mixture").traces[0].source == "hf:open-r1/Mixture-of-Thoughts"
    assert load_recipe("r1-openr1").traces[0].source == "hf:open-r1/OpenR1-Math-220k"
    itself = load_recipe("self-distill")
    assert itself.student == itself.generate.teacher
    assert "Qwen" in load_recipe("gsm8k").generate.teacher


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_is_for_what_it_costs_and_what_to_expect(name):
    said, recipe = notes(name), load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert all(len(text) > 10 for text in (said.about, said.students, said.cost_class, said.expect))
    assert "measured" in said.costs or "have not run this" in said.costs or "not this" in said.costs


@pytest.mark.parametrize(("name", "student"), VARIANTS)
def test_each_student_that_is_named_fits_the_recipe_and_the_gpus_that_are_named(name, student):
    parts = [part for part in load_recipe(name, [], {"student": student}).parts if part.making_stage]
    part = next((part for part in parts if part.student == student), parts[0])
    trained = ([part.sft] if part.trains else []) + ([trained_as(part.rl)] if part.rl else [])
    assert trained
    most = next(num for words, num in MOST_GPUS.items() if words in notes(name).cost_class)
    if most == 0:
        return
    gib = 24 if "24 GB" in notes(name).cost_class else 80
    shape, context = known_shape(find_student(student))
    for config in trained:
        setting = setting_of(config, min(config.max_length, context), most)
        choice = smallest_layout(shape, setting, config.batch_size, gib)
        assert choice is not None
        assert choice.num_gpus <= most


@pytest.mark.parametrize(("name", "student"), [*VARIANTS, ("self-distill", "Qwen/Qwen2.5-1.5B-Instruct")])
def test_each_is_planned_before_anything_is_fetched(name, student, distill, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    machine = (
        ["--gpu", "cpu"]
        if notes(name).cost_class.startswith("a CPU")
        else ["--gpu", "4090" if "24 GB" in notes(name).costs else "h100"]
    )
    code, out, err = distill("plan", name, "--student", student, *machine, "--json")
    assert code == 0, err
    stages = {stage_of(step) for step in json.loads(out)["stages"]}
    assert {*load_recipe(name).parts[0].stage_names} <= stages | {"push"}


@pytest.mark.parametrize(("name", "student"), LORA_VARIANTS)
def test_lora_is_one_option_away(name, student):
    recipe = load_recipe(name, ["sft.method=lora", f"name={name}-{student}"], {"student": student})
    assert recipe.sft.method == "lora"


def test_the_numbers_in_the_comment_of_r1_are_those_of_the_planner():
    from distill.estimates.training_layouts import training_hours

    shapes = [STUDENTS[alias].shape for alias in R1]
    hours = [round(training_hours(shape, 3 * 100_000 * 5_000, 1, 989.0)) for shape in shapes]
    assert f"{', '.join(map(str, hours[:-1]))} and {hours[-1]} H100-hours" in notes("r1").costs
    config = load_recipe("r1").sft
    gpus = [
        smallest_layout(s, setting_of(config, config.max_length, 8), config.batch_size, 80).num_gpus for s in shapes
    ]
    assert [number for _, number, _ in notes("r1").layouts] == gpus
    scores = [(STUDENTS[a].r1_scores.aime24_pass_at_1, STUDENTS[a].r1_scores.math500_pass_at_1) for a in R1]
    assert ", ".join(f"{aime} and {math}" for aime, math in scores) in notes("r1").expect


# --- dry runs: rows like those of the data sets, everything up to where weights would be loaded

ROWS = {
    "open-r1/OpenR1-Math-220k": {
        "problem": "What is {i} + 5?",
        "solution": "Add.",
        "answer": "{sum}",
        "uuid": "u{i}",
        "generations": ["<think>\nFirst {i}, then 5 more.\n</think>\n\nThe answer is \\boxed{{{sum}}}."] * 2,
        "finish_reasons": ["stop", "stop"],
        "correctness_math_verify": [True, True],
        "messages": [{"role": "user", "content": "What is {i} + 5?"}],
    },
    "open-r1/Mixture-of-Thoughts": {
        "messages": [
            {"role": "user", "content": "What is {i} + 5?"},
            {"role": "assistant", "content": "<think>\nFirst {i}, then 5 more.\n</think>\n\nIt is \\boxed{{{sum}}}."},
        ],
        "num_tokens": 20,
        "source": "OpenR1-Math",
    },
    "DigitalLearningGmbH/MATH-lighteval": {
        "problem": "What is ${i} + 5$?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": "Adding gives ${i} + 5 = \\boxed{{{sum}}}$.",
    },
    "openai/gsm8k": {"question": "Ann has {i} figs and 5 nuts. How many?", "answer": "{i} + 5\n#### {sum}"},
    "HuggingFaceH4/MATH-500": {
        "problem": "Find {i} times seven.",
        "answer": "{i}7",
        "unique_id": "t/{i}",
        "subject": "Algebra",
    },
    "google-research-datasets/mbpp": {
        "text": "Write a function plus_{i} that adds {i} to a number.",
        "code": "def plus_{i}(number):\n    return number + {i}",
        "task_id": "{i}",
        "test_list": ["assert plus_{i}(5) == {sum}", "assert plus_{i}(0) == {i}"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
    "allenai/tulu-3-sft-mixture": {
        "messages": [
            {"role": "user", "content": "Name {i} towns."},
            {"role": "assistant", "content": "Here are {i} towns, each of which has a river."},
        ],
        "id": "t{i}",
    },
    "databricks/databricks-dolly-15k": {
        "instruction": "Say in a sentence why {i} is a number.",
        "context": "",
        "response": "Because one can count to {i}.",
        "category": "open_qa",
    },
    "HuggingFaceH4/aime_2024": {"problem": "Find {i} to the fifth.", "answer": "{i}5", "id": "{i}"},
}


def rl_of(recipe):
    """`rl:` of the recipe, or of the first of its rounds that has one."""
    return next((part.rl for part in recipe.parts if part.rl), None)


def filled(value, i):
    if isinstance(value, str):
        return value.format(i=i, sum=i + 5)
    if isinstance(value, list):
        return [filled(one, i) for one in value]
    return {key: filled(one, i) for key, one in value.items()} if isinstance(value, dict) else value


@pytest.fixture
def local(tmp_path):
    """A function that gives `--set` options which put files like the data sets in their place."""
    files = {}
    for name, row in ROWS.items():
        for split, numbers in (("train", range(3, 14)), ("test", range(20, 24))):
            files[name, split] = tmp_path / f"{name.rpartition('/')[2]}-{split}.jsonl"
            files[name, split].write_text("".join(json.dumps(filled(row, i)) + "\n" for i in numbers))

    def options(recipe):
        found = [f"filter.decontaminate=[file:{files['HuggingFaceH4/MATH-500', 'test']}]"]
        for key, sources in (
            ("problems", recipe.problems),
            ("traces", recipe.traces),
            ("eval.benchmarks", recipe.eval.benchmarks),
            *((f"rounds.{place}.traces", one.traces) for place, one in enumerate(recipe.rounds)),
        ):
            for number, source in enumerate(sources):
                if source.source.startswith("hf:"):
                    path = files[source.source.removeprefix("hf:"), source.split]
                    found += [f"{key}.{number}.source=file:{path}", f"{key}.{number}.config=null"]
                    found += [f"{key}.{number}.sha256=null"] if key == "eval.benchmarks" else []  # made-up rows
        if recipe.eval.held_out:
            found.append("eval.held_out=2")
        if (config := rl_of(recipe)) is not None:
            found += ["rl.prompts_per_step=4", f"rl.probe.problems={min(2, config.probe.problems)}"]
        if any(source.source.startswith("gym:") for source in recipe.problems):
            found.append("problems.0.limit=12")
        return found

    return options


MAKING_ROWS = [name for name in NAMES if load_recipe(name).parts[0].has_traces]
REINFORCING = [name for name in NAMES if rl_of(load_recipe(name))]


def test_every_recipe_has_a_dry_run():
    assert {*MAKING_ROWS, *REINFORCING} == {*NAMES}


@pytest.mark.parametrize("name", MAKING_ROWS)
def test_a_dry_run_samples_filters_and_keeps(name, local, tmp_path, fake_engine, smollm2):
    """Sources, columns, templates, grading and filter for real; a list of answers stands in for the teacher."""
    if trained_programs(load_recipe(name).parts[0]) and sandbox_fails() is not None:
        pytest.skip("needs a sandbox for programs")
    model = str(smollm2.path)
    options = [*local(load_recipe(name)), "filter.compute.workers=1"]
    recipe = load_recipe(name, options, {"student": model})
    runs = tmp_path / "runs"
    if recipe.parts[0].generate is None:
        importing = [one.name for one in recipe.rounds if one.traces]
        run_recipe(recipe, runs, ["import", "filter"], rounds=importing or None, past_gates=importing)
    else:
        options.append("generate.compute={}")
        recipe = load_recipe(name, options, {"student": model, "generate.teacher": model})
        first = recipe.parts[0].round_name
        sample(contexts_of(recipe, runs / name)[0], fake_engine)
        run_recipe(recipe, runs, ["filter"], rounds=[first] if first else None)
    run = contexts_of(recipe, runs / name)[0]
    metrics = run.folder("filter").manifest["metrics"]
    assert metrics["num_traces"] >= 9
    assert metrics["num_kept"] >= 1, metrics["dropped"]
    problems = run.problem_sets.benchmarks
    assert all(len(questions) >= 2 for questions in problems.values())


@pytest.mark.parametrize("name", REINFORCING)
def test_a_dry_run_rewards_what_is_right(name, local, tmp_path, smollm2):
    """Sources, templates, graders and rewards for real; a right and a wrong answer stand in for the policy's."""
    model = str(smollm2.path)
    options = local(load_recipe(name))
    options += [f"rl.teachers=[{model}]"] if rl_of(load_recipe(name)).teachers else []
    recipe = load_recipe(name, options, {"student": model})
    run = next(run for run in contexts_of(recipe, tmp_path / name) if run.recipe.rl)
    rl.prepare(run, lambda: True)
    problems = rl.problems_of(run)
    assert len(problems) >= 5
    config = run.recipe.rl
    template = template_text("r1-zero") if config.prompt_format == "r1-zero" else None
    tokenizer = load_tokenizer(smollm2.path, None, None, template)
    opened = opens_thinking(render_prompt(tokenizer, problems[0].prompt))
    with RolloutGrader(config.reward, config.max_tokens, workers=1) as grader:
        for problem in problems:
            said = "One number, then the other.\n</think>\n\nThe answer is \\boxed{%s}."
            texts = [("" if opened else "<think>\n") + said % answer for answer in (problem.answer, "-98765")]
            rollouts = [Rollout(problem, text, "stop", opened, ()) for text in texts]
            good, bad = grader.scores([rollouts])[0]
            assert good.total > bad.total, problem


def sample(run, fake_engine):
    """The generate stage, each problem answered rightly by whoever reads its sum."""
    answers = {p.id: p.answer for p in run.problem_sets.train}
    of_code = any(problem.task == "code" for problem in run.problem_sets.train)
    form = "\n```python\n{0}\n```" if of_code else "\\boxed{{{0}}}."

    class Solver(fake_engine):
        def step(self):
            # The second sample is wrong, so that no problem is too easy.
            said = f"<think>\nOne number, then the other: {{0}}.\n</think>\n\nThe answer is {form}"
            return [
                replace(one, text=said.format(answers[one.key[0]] if one.key[1] != 1 else "0"))
                for one in super().step()
            ]

    identity = generate.identity(run)
    folder = run.folder("generate")
    folder.claim(identity)
    summary = generate.run(run, Solver(["x"]))
    folder.complete(
        Manifest(
            "generate", fingerprint(identity), identity, {}, describe_outputs(folder.path, summary.outputs),
            summary.metrics, {}, {}, None, 1.0, 1.0, "2026-01-01T00:00:00+00:00",
        )
    )  # fmt: skip


# --- ls, show, cp, validate


def test_the_list_has_every_recipe_with_what_it_costs(distill, monkeypatch):
    code, out, _ = distill("recipes", "ls", "--json")
    entries = json.loads(out)["recipes"]
    assert (code, [entry["name"] for entry in entries]) == (0, NAMES)
    assert entries[0]["cost_class"] == "a CPU, 10 minutes"
    for width in ("60", "200"):
        monkeypatch.setenv("COLUMNS", width)
        code, out, _ = distill("recipes", "ls")
        assert all(name in out for name in NAMES)
        assert max(map(len, out.splitlines())) <= int(width)


def test_show_gives_the_text_or_all_of_it(distill):
    assert distill("recipes", "show", "r1-lora")[1] == installed_path("r1-lora").read_text()
    code, out, _ = distill("recipes", "show", "r1-lora", "--resolved", "--set", "seed=5")
    assert code == 0
    assert "learning_rate: null" in out
    assert "teacher: deepseek-ai/DeepSeek-R1" in out
    assert "seed: 5" in out
    shown = json.loads(distill("recipes", "show", "quickstart", "--json")[1])
    assert (shown["schema_version"], shown["outside"]) == (1, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_means_the_same_and_finds_its_schema(distill, name):
    assert distill("recipes", "cp", name)[0] == 0
    assert Path("recipe.schema.json").is_file()
    lines = Path("recipe.yaml").read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=recipe.schema.json"
    assert lines.count(lines[0]) == 1
    assert read_recipe("recipe.yaml").recipe == load_recipe(name)
    assert distill("recipes", "diff", name, "recipe.yaml", "--exit-code")[0] == 0


def test_a_copy_overwrites_nothing_unasked(distill):
    Path("recipe.yaml").write_text("mine")
    code, _, err = distill("recipes", "cp", "quickstart")
    assert (code, "already exists" in err, Path("recipe.yaml").read_text()) == (2, True, "mine")
    assert distill("recipes", "cp", "quickstart", "--force")[0] == 0
    Path("other").mkdir()
    Path("other/recipe.schema.json").write_text("{}")
    code, _, err = distill("recipes", "cp", "quickstart", "other")
    assert (code, "not a schema of distill" in err) == (2, True)


def test_a_copy_of_ones_own_recipe_reaches_its_parent_and_files(theirs, distill):
    Path("a").mkdir()
    Path("a/base.yaml").write_text(theirs.replace('"gym:chain_sum", limit: 5', '"file:sums.jsonl"'))
    Path("a/sums.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    Path("a/child.yaml").write_text("extends: base.yaml  # the one beside it\nname: child\n")
    for name in ("base", "child"):
        copied = copy_recipe(f"a/{name}.yaml", Path(f"b/{name}.yaml"))
        assert load_recipe(copied.path) == load_recipe(f"a/{name}.yaml")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("my data.jsonl", '"file:my data.jsonl"'),
        ("my data.jsonl", "'file:my data.jsonl'"),
        ("my data.jsonl", "|-\n      file:my data.jsonl"),
        ("my data.jsonl", "file:my\n      data.jsonl  # in two lines"),
        ("my, [data]} #1.jsonl", '"file:my, [data]} #1.jsonl"'),
        ("it's.jsonl", "'file:it''s.jsonl'"),
        ('say "ä": \\.jsonl', """'file:say "ä": \\.jsonl'"""),
        ("a\u2028\x85😀.jsonl", '"file:a\\L\\N😀.jsonl"'),
        ("sums.jsonl", "&one file:sums.jsonl"),
    ],
)
def test_a_copy_reaches_files_of_any_name(theirs, name, source):
    Path("sub dir").mkdir()
    Path("sub dir", name).write_text('{"problem": "1+1?", "answer": "2"}\n')
    more = f"\n  - source: {source}\n    limit: 1\n  - {{source: 'file:/elsewhere.jsonl'}}  # file:my data.jsonl\n"
    text = theirs.replace(' [{source: "gym:chain_sum", limit: 5}]\n', more)
    assert text != theirs
    Path("sub dir/r.yaml").write_text(text)
    recipe = load_recipe("sub dir/r.yaml")
    assert recipe.problems[0].source == f"file:{Path('sub dir', name).resolve()}"
    copied = copy_recipe("sub dir/r.yaml", Path("there.yaml"))
    assert load_recipe(copied.path) == recipe
    assert copied.path.read_text().split("    limit: 1\n")[1] == text.split("    limit: 1\n")[1]
    back = copy_recipe("there.yaml", Path("sub dir/back.yaml"))
    assert load_recipe(back.path) == recipe


def test_validate_tells_each_and_fails_where_one_is_wrong(distill, theirs):
    Path("good.yaml").write_text(theirs)
    Path("bad.yaml").write_text(theirs + "sede: 3\n")
    code, out, err = distill("recipes", "validate", "good.yaml", "bad.yaml", "r1")
    assert code == 2
    assert "OK good.yaml: 4 samples a problem by smollm2-135m -> full smollm2-135m" in out
    assert "OK r1:" in out
    assert "bad.yaml:6: unknown key 'sede'. Did you mean 'seed'?" in err
    found = json.loads(distill("recipes", "validate", "good.yaml", "bad.yaml", "--json")[1])["recipes"]
    assert [one["ok"] for one in found] == [True, False]
    assert distill("recipes", "validate", "r1", "--student", "qwen-7b")[0] == 0
    assert distill("recipes", "validate")[0] == 2  # there is no recipe.yaml here


def test_the_recipes_lie_in_the_wheel():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"recipes" = "distill/recipes"' in text
    assert installed_folder().is_dir()


def test_a_pinned_model_that_is_here_needs_no_network(smollm2, monkeypatch):
    """As the lock pins it, on a machine that cannot reach the Hub."""
    from huggingface_hub import constants

    from distill.errors import ModelError
    from distill.models.hub import resolve_model

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert resolve_model(smollm2.name, smollm2.revision) == smollm2
    with pytest.raises(ModelError, match="not in the local cache"):
        resolve_model(smollm2.name, "0" * 40)
