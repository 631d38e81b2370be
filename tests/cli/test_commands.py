"""The command line: exit codes that scripts can rely on, messages without a traceback, and clean standard output."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from distill import __version__
from distill.recipe.loading import load_recipe
from distill.stages import RunContext, generate
from distill.storage.files import read_json
from distill.storage.ledger import Ledger
from distill.storage.run_folder import StageFolder
from distill.storage.trace_store import stored_traces

COMMANDS = ["run", "generate", "filter", "sft", "eval", "push"]
pytestmark = pytest.mark.usefixtures("here")


def refused(result):
    """The message of a command that ended as the user's mistake: one, on standard error, without a traceback."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    assert err.count("Error") == 1
    return err


# --- help


def test_version(distill):
    assert distill("--version") == (0, f"distill {__version__}\n", "")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_the_commands(distill, option):
    code, out, err = distill(option)
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^\W*{command} ", out, re.MULTILINE), command


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_its_options(distill, command):
    code, out, _ = distill(command, "--help")
    assert code == 0
    for option in ["RECIPE", "--set", "--student", "--teacher", "--run-dir", "--force", "--json", "--quiet"]:
        assert option in out
    assert "recipe.yaml" in out


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--nope"], "--nope"),
        (["nope"], "nope"),
        (["run", "--nope"], "--nope"),
        (["run", "--set"], "--set"),
        (["run", "a.yaml", "b.yaml"], "b.yaml"),
    ],
)
def test_a_mistyped_command_is_the_users_mistake(distill, args, word):
    code, out, err = distill(*args)
    assert code == 2
    assert out == ""
    assert word in err
    assert "Traceback" not in err


def test_without_a_command_the_help_is_shown(distill):
    code, out, err = distill()
    assert code in (0, 2)
    assert "generate" in out + err


def test_python_m_distill_is_the_command(tmp_path):
    """In a process of its own, where nothing catches what escapes."""
    done = subprocess.run([sys.executable, "-m", "distill", "run", "none.yaml"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "Error: none.yaml: no such recipe. Name one (distill run path/to/recipe.yaml), or copy"
    )
    assert done.stderr.count("\n") == 1


# --- mistakes


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_recipe_the_reader_is_told_to_name_one(distill, command):
    message = refused(distill(command))
    assert "recipe.yaml: no such recipe" in message
    assert "distill run path/to/recipe.yaml" in message


def test_an_unknown_key_is_shown_with_its_place(distill, recipe):
    recipe.write_text(recipe.read_text() + "sfft: {}\n")
    assert "recipe.yaml:11: unknown key 'sfft'. Did you mean 'sft'?" in refused(distill("run"))


def test_an_unknown_key_in_set_is_shown_as_such(distill, recipe):
    assert "--set sft.epoch: unknown key 'sft.epoch'. Did you mean 'epochs'?" in refused(
        distill("run", "--set", "sft.epoch=2")
    )


def test_an_unknown_student_gets_a_suggestion(distill, recipe):
    assert "unknown student 'qwen-1b'. Did you mean" in refused(distill("sft", "--student", "qwen-1b"))


def test_an_empty_problem_file_is_named(distill, recipe, tmp_path):
    (tmp_path / "sums.jsonl").write_text("")
    assert f"file:{tmp_path / 'sums.jsonl'}: the problem set is empty" in refused(distill("generate"))


def test_a_missing_problem_file_is_named_wherever_the_command_is_called_from(distill, recipe, tmp_path, monkeypatch):
    (tmp_path / "sums.jsonl").unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert f"file:{tmp_path / 'sums.jsonl'}: no such file" in refused(distill("run", recipe))


@pytest.mark.parametrize(
    ("command", "first"), [("filter", "generate"), ("sft", "filter"), ("eval", "sft")], ids=["filter", "sft", "eval"]
)
def test_a_stage_before_its_turn_says_what_to_run(distill, recipe, command, first):
    recipe.write_text(recipe.read_text() + "eval: {held_out: 1, samples_per_problem: 1}\n")
    message = refused(distill(command))
    assert f"{command}: needs the results of {first}" in message
    assert f"`distill {first}`" in message


def test_eval_without_its_section_says_so(distill, recipe):
    message = refused(distill("eval"))
    assert "has no eval: section" in message
    assert "recipe.yaml" in message


def test_a_folder_that_is_no_model_is_named(distill, recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in refused(distill("generate", "--teacher", tmp_path / "empty"))


def test_a_run_folder_that_cannot_be_made_is_named(distill, recipe, tmp_path):
    (tmp_path / "taken").write_text("a file")
    message = refused(distill("run", "--run-dir", tmp_path / "taken"))
    assert f"{tmp_path / 'taken' / 'small'}: no folder can be made there (Not a directory)" in message
    assert "Continue with" not in message


def test_a_student_that_cannot_be_had_is_told_before_the_teacher_starts(recipe, tmp_path):
    """Offline, in a process of its own: huggingface_hub reads its environment on import."""
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "distill", "run", "--student", "org/no-such-model"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Error: org/no-such-model: not in the local cache")
    assert "hf download org/no-such-model" in done.stderr
    assert done.stdout == ""


def test_a_changed_recipe_is_refused_with_the_ways_out(distill, generated):
    message = refused(distill("generate", "--set", "generate.sampling.temperature=0.9"))
    assert "sampling.temperature: 0.6 -> 0.9" in message
    assert "--force" in message
    assert "--set name=" in message


# --- output


def test_notes_go_to_standard_error_and_the_closing_lines_to_standard_output(distill, generated):
    code, out, err = distill("generate")
    assert code == 0
    assert err.startswith("generate: done already, skipped")
    assert out == "Report:  runs/small/report.html\n"


def test_json_is_all_there_is_on_standard_output(distill, generated, tmp_path):
    code, out, err = distill("generate", "--json")
    assert code == 0
    assert json.loads(out) == read_json(tmp_path / "runs/small/summary.json")
    assert json.loads(out)["generate"]["num_samples"] == 4
    assert "skipped" in err


def test_a_lock_is_run_under_another_name_and_compared(distill, generated, tmp_path):
    assert distill("filter")[0] == 0
    lock = tmp_path / "runs/small/recipe.lock.yaml"
    shutil.copytree(tmp_path / "runs/small/generate", tmp_path / "runs/small-repeat/generate")  # so that no model loads
    before = (tmp_path / "runs/small/filter/manifest.json").read_bytes()
    code, out, _ = distill("filter", lock)
    assert code == 0
    assert "Compared with small, the run that the lock records:" in out
    assert "  filter: the same, to the last byte" in out
    assert (tmp_path / "runs/small/filter/manifest.json").read_bytes() == before
    _, out, _ = distill("filter", lock, "--set", "filter.require_think=false", "--force", "--json")
    repeated = json.loads(out)["repeat"]
    assert repeated == read_json(tmp_path / "runs/small-repeat/repeat.json")
    assert (repeated["of"], repeated["stages"]["filter"]["same_fingerprint"]) == ("small", False)


def test_quiet_says_nothing(distill, generated):
    assert distill("generate", "--quiet") == (0, "", "")
    assert distill("generate", "-q") == (0, "", "")


def test_quiet_json_is_json_alone(distill, generated):
    code, out, err = distill("generate", "--quiet", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["name"] == "small"


def test_a_quiet_mistake_is_told_all_the_same(distill, recipe):
    assert "distill generate" in refused(distill("filter", "--quiet"))


def test_a_mistake_is_json_too_where_json_is_asked_for(distill, recipe):
    code, out, err = distill("filter", "--quiet", "--json", "--set", "seed=4")
    assert code == 2
    error = json.loads(out)["error"]
    assert (error["type"], error["exit_code"], error["next_command"]) == ("UserError", 2, None)
    assert err == f"Error: {error['message']}\n"
    assert "`distill generate --set seed=4`" in error["message"]


def test_a_command_line_that_is_wrong_is_json_too_where_json_is_asked_for(distill):
    code, out, err = distill("sft", "--chekc", "--json")
    assert code == 2
    assert json.loads(out)["error"]["type"] == "UsageError"
    assert err == "Error: No such option: --chekc. Did you mean --check?\nSee `distill sft -h`.\n"


def test_an_option_before_the_command_is_shown_its_place(distill):
    assert "It goes after the command: distill filter --force\n" in refused(distill("--force", "filter"))


def test_an_empty_argument_is_refused(distill, recipe, tmp_path):
    """`--run-dir "$RUNS"` without RUNS would fill the current folder."""
    assert "an argument is empty" in refused(distill("run", "--run-dir", ""))
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sft", "--check", "--plan"], "give one of them"),
        (["sft", "--gpus", "8"], "go with --plan"),
        (["generate", "--status", "--retry-errors"], "give one of them"),
    ],
)
def test_options_that_do_not_go_together_are_refused(distill, recipe, words, said):
    assert said in refused(distill(*words))


def test_a_mistyped_command_gets_a_suggestion(distill):
    assert "Did you mean 'generate', 'grade'?" in refused(distill("genrate"))


def test_commands_in_messages_have_the_options_that_were_given(distill, recipe, tmp_path):
    renamed = recipe.rename(tmp_path / "my recipe.yaml")
    message = refused(distill("sft", renamed, "--run-dir", tmp_path / "r", "--set", "seed=4", "--teacher", "org/t"))
    options = f"'{renamed}' --set seed=4 --teacher org/t --run-dir {tmp_path / 'r'}"
    assert f"`distill filter {options}`" in message
    assert f"`distill run {options}`" in message


def test_a_stage_that_works_keeps_standard_output_clean(generated, tmp_path):
    """In a process of its own, whose workers could write to the same standard output."""
    command = [sys.executable, "-m", "distill", "filter", "--json", "--run-dir", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["filter"]["num_kept"] == 1
    assert "filter: kept 1 of 4; dropped: wrong_answer 2, duplicate 1" in done.stderr
    assert "Traceback" not in done.stderr


# --- stopping


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_command_says_so_and_has_its_exit_code(recipe, model, tmp_path, number, code):
    """It is stopped at work, on its way to a teacher whose config is a pipe that nobody writes into."""
    pipe = model / "config.json"
    pipe.unlink()
    os.mkfifo(pipe)
    # A shell's background job ignores Ctrl-C, and so would its children.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom distill.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "generate", "--set", "seed=4", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not (tmp_path / "runs" / "small").exists():
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    again = "distill generate --set seed=4 --json"
    assert err == f"Stopped. Finished work is kept. Continue with:\n  {again}\n"
    error = json.loads(out)["error"]
    assert (error["type"], error["exit_code"], error["next_command"]) == ("Stopped", code, again)


# --- how far generate is


def test_status_of_nothing_says_how_to_start(distill, recipe, tmp_path):
    message = refused(distill("generate", str(recipe), "--run-dir", str(tmp_path / "runs"), "--status"))
    assert "nothing has been generated here yet" in message


def test_status_of_a_finished_stage(distill, generated, tmp_path):
    arguments = ("generate", str(generated), "--run-dir", str(tmp_path / "runs"), "--status")
    code, out, err = distill(*arguments)
    assert (code, err) == (0, "")
    assert "complete" in out
    assert "samples   4 of 4, 100.0%" in out
    status = json.loads(distill(*arguments, "--json")[1])
    assert (status["state"], status["num_done"], status["live"]) == ("complete", 4, None)


def test_status_of_a_stopped_stage_counts_the_ledger(distill, generated, tmp_path):
    folder = tmp_path / "runs" / "small" / "generate"
    (folder / "manifest.json").unlink()
    arguments = ("generate", str(generated), "--run-dir", str(tmp_path / "runs"), "--status")
    run = RunContext(load_recipe(generated, ["generate.samples_per_problem=3"]), tmp_path / "runs" / "small")
    StageFolder(folder).claim(generate.identity(run))
    template = next(stored_traces(folder))
    with Ledger(folder / "ledger.jsonl") as ledger:
        ledger.append([replace(template, sample_index=2)])
        ledger.skip([("elsewhere", 2)], "enough")
        running = json.loads(distill(*arguments, "--json")[1])
    assert (running["state"], running["num_done"], running["num_wanted"]) == ("running", 5, 6)
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    code, out, _ = distill(*arguments)
    assert code == 0
    assert "unfinished" in out
    assert "resumes from here" in out
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before


# --- options that would be ignored, and what is never printed


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "--status", "--force"),
        ("filter", "--explain", "p1", "--force"),
        ("sft", "--check", "--force"),
        ("sft", "--plan", "--force"),
        ("push", "--dry-run", "--force", "--repo", "me/x"),
        ("push", "--public", "--private"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(distill, recipe, arguments):
    command, *options = arguments
    assert "give one of them" in refused(distill(command, recipe, *options))


@pytest.mark.parametrize(
    "setting",
    [
        ("--set", "push.repo=https://me:opensesame@host/x"),
        ("--set", "push={repo: 'https://me:opensesame@host/x'}"),
        ("--student", "https://me:opensesame@host/x"),
        ("--set", "https://me:opensesame@host/x"),
        ("--set", "generate.compute.base_urls=['http://me:opensesame@host/v1']"),
        ("--set", "description=see ssh://me:opensesame@host"),
    ],
)
def test_a_login_in_an_address_is_never_printed(distill, recipe, setting):
    assert "opensesame" not in refused(distill("run", recipe, *setting))


def test_a_login_in_a_recipe_is_refused_with_its_line_and_not_printed(distill, recipe):
    recipe.write_text(recipe.read_text() + "push: {repo: 'https://me:opensesame@host/x'}\n")
    message = refused(distill("run", recipe))
    assert "holds a login in an address" in message
    assert re.search(r"recipe\.yaml:\d+: ", message)
    assert "opensesame" not in message


def test_a_full_disk_says_how_much_is_needed(distill, recipe, monkeypatch):
    monkeypatch.setattr("distill.runs.runner.free_bytes", lambda path: 3 << 20)
    code, _, err = distill("generate", recipe)
    assert code != 0
    assert re.search(r"only 3 MiB free on its disk, and \d+ MiB are needed", err)


def test_a_copy_that_cannot_be_written_names_another_place(distill):
    message = refused(distill("recipes", "cp", "quickstart", "/proc/none/recipe.yaml"))
    assert "Name another file or folder" in message
    assert "--run-dir" not in message


def test_the_story_of_a_trace_cannot_command_the_terminal(distill, generated, tmp_path):
    from distill.runs.explain import story

    hostile = "\x1b[2J\u202e\u200b"
    problem = {"id": hostile, "source": hostile, "task": "math", "prompt": [{"content": hostile}], "answer": hostile}
    trace = {
        "problem_id": hostile, "sample_index": 0, "kept": False, "teacher": hostile, "num_completion_tokens": 3,
        "num_student_tokens": None, "address": None,
        "finish_reason": "stop", "extracted_answer": hostile, "correct": False, "graded_by": hostile,
        "reasons": ["wrong_answer"], "details": {"wrong_answer": hostile, "note": hostile}, "text": hostile,
    }  # fmt: skip
    told = "\n".join(story({"problem": problem, "traces": [trace], "wanted": 0, "num_in_report": None}))
    assert not set(hostile) & set(told) - set("[2J")
