"""What `--json` prints is what docs/ says: each command's real output is held to its table there."""

import json
from dataclasses import replace

import pytest
import typer

from distill.cli import app
from distill.recipe.loading import load_recipe
from distill.stages import RunContext, generate
from distill.storage.ledger import Ledger
from distill.storage.run_folder import StageFolder
from distill.storage.trace_store import stored_traces

pytestmark = pytest.mark.usefixtures("here")

CASES = {
    "distill generate --json": ["generate"],
    "distill filter --json": ["filter"],
    "distill generate --status --json": ["generate", "--status"],
    "distill filter --explain ID --json": ["filter", "--explain", "{problem}"],
    "distill sft --plan --json": ["sft", "--plan", "--student", "all", "--gpus", "2", "--gpu-memory", "24"],
    "distill students --json": ["students"],
    "distill suites ls --json": ["suites", "ls"],
    "distill suites show SUITE --json": ["suites", "show", "aime24"],
    "distill plan --json": ["plan"],
    "distill grade ANSWER --gold GOLD --json": ["grade", "Answer: 3. The answer is rounded.", "--gold", "3"],
    "distill recipes ls --json": ["recipes", "ls"],
    "distill recipes show RECIPE --json": ["recipes", "show", "r1"],
    "distill recipes cp RECIPE --json": ["recipes", "cp", "r1-lora", "copy.yaml"],
    "distill recipes validate RECIPE --json": ["recipes", "validate", "r1", "recipe.yaml"],
    "distill recipes diff A B --json": ["recipes", "diff", "r1", "r1-lora"],
    "distill recipes schema --json": ["recipes", "schema"],
    "distill report RUN --json": ["report", "small"],
    "distill runs ls --json": ["runs", "ls"],
    "distill runs show RUN --json": ["runs", "show", "small"],
    "distill runs rm RUN --json": ["runs", "rm", "small", "--dry-run"],
    "error": ["sft"],
}
"""Heading in docs/ -> a command line that prints it, in a folder whose run is generated and filtered."""
ELSEWHERE = {
    "distill run --json": "tests/test_full_path.py",
    "distill sft --json": "tests/test_full_path.py",
    "distill eval --json": "tests/test_full_path.py",
    "distill eval --from SOURCE --json": "tests/cli/test_evaluation.py",
    "distill eval --from SOURCE --as HARNESS --json": "tests/cli/test_evaluation.py",
    "distill eval --from SOURCE --audit --json": "tests/cli/test_evaluation.py",
    "distill eval --from RUN --export FORMAT:DIR --json": "tests/cli/test_evaluation.py",
    "distill eval --check-harness --json": "tests/cli/test_evaluation.py",
    "distill eval --via inspect:TASK --json": "tests/cli/test_evaluation.py",
    "distill sft --check --json": "tests/test_full_path.py",
    "distill rl --json": "tests/stages/test_rl.py",
    "distill rl --check --json": "tests/stages/test_rl.py",
    "distill import --json": "tests/stages/test_import_traces.py",
    "distill filter --check-tests --json": "tests/stages/test_programs.py",
    "distill doctor --json": "tests/runs/test_doctor.py",
    "distill recipes pull REFERENCE --json": "tests/recipe/test_sharing.py",
    "distill recipes push RECIPE --repo ORG/NAME --json": "tests/recipe/test_sharing.py",
    "distill push --json": "tests/publish/test_upload.py",
    "distill push --dry-run --json": "tests/publish/test_plan.py",
}
"""What needs a model, a Hub or foreign traces, and where it is held to its table."""


@pytest.fixture
def filtered(distill, generated):
    assert distill("filter", "--quiet")[0] == 0
    return generated


@pytest.mark.parametrize("command", CASES)
def test_the_output_is_as_documented(distill, filtered, documented, command, tmp_path):
    first = (tmp_path / "runs/small/generate/problems.jsonl").read_text().partition("\n")[0]
    words = [word.format(problem=json.loads(first)["id"]) for word in CASES[command]]
    if command == "error":
        (tmp_path / "runs/small/filter/manifest.json").unlink()
    code, out, _ = distill(*words, "--json")
    assert code == (2 if command == "error" else 0)
    documented(command, json.loads(out))


def test_the_status_of_a_running_stage_is_as_documented(distill, generated, documented, tmp_path):
    folder = tmp_path / "runs" / "small" / "generate"
    (folder / "manifest.json").unlink()
    price = "generate.price={input_per_million: 1, output_per_million: 2}"
    run = RunContext(load_recipe(generated, ["generate.samples_per_problem=3"]), folder.parent)
    StageFolder(folder).claim(generate.identity(run))
    live = {"pid": 1, "updated_at": 1.5, "samples_per_second": 2.0, "tokens_per_second": 9.0, "seconds_left": None}
    (folder / "live.json").write_text(json.dumps({**live, "num_graded": 2, "num_correct": 1, "trouble": ""}))
    with Ledger(folder / "ledger.jsonl") as ledger:
        ledger.append([replace(next(stored_traces(folder)), sample_index=2)])
        status = json.loads(distill("generate", "--status", "--set", price, "--json")[1])
    assert status["live"] is not None
    assert status["cost"] is not None
    documented("distill generate --status --json", status)


def test_every_command_has_json_and_it_is_documented(documented):
    def commands(group, path):
        for name, member in group.commands.items():
            if hasattr(member, "commands"):
                yield from commands(member, f"{path} {name}")
            else:
                assert any("--json" in param.opts for param in member.params), f"{path} {name} takes no --json"
                yield f"{path} {name}"

    for command in commands(typer.main.get_command(app), "distill"):
        tables = [name for name in documented.commands if name.startswith(f"{command} ")]
        assert tables, f"{command} --json has no table in docs/*.md: add `### `{command} --json``, and a case above"


def test_every_table_is_held_to_reality(documented):
    tables = {name for name in documented.commands if "--json" in name}
    assert tables <= CASES.keys() | ELSEWHERE.keys()
    assert CASES.keys() | ELSEWHERE.keys() <= tables | {"error"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda value: value.pop("students"), "lacks"),
        (lambda value: value["students"][0].update(more=1), "more is not documented"),
        (lambda value: value["students"][0].update(context="4k"), "context is string"),
        (lambda value: value["students"][0]["layouts"]["full"]["1"].pop("fits"), "Choice"),
    ],
)
def test_the_check_itself_can_fail(distill, documented, change, complaint):
    value = json.loads(distill("students", "--json")[1])
    documented("distill students --json", value)
    change(value)
    with pytest.raises(AssertionError, match=complaint):
        documented("distill students --json", value)
