"""Help: every command has it, with examples that work, in any terminal; and what a shell offers after TAB."""

import os
import re
import shlex
import subprocess
import sys

import pytest
import typer

from distill.cli import app
from distill.models.students import STUDENTS
from distill.recipe.model import Recipe

pytestmark = pytest.mark.usefixtures("here")


def commands_in(group, path=()):
    """Every command with the words that lead to it, groups too."""
    for name, member in group.commands.items():
        yield (*path, name), member
        if hasattr(member, "commands"):
            yield from commands_in(member, (*path, name))


COMMANDS = dict(commands_in(typer.main.get_command(app)))
EXAMPLES = [(" ".join(path), line) for path, one in COMMANDS.items() for line in (one.epilog or "").splitlines()]


def parse(line):
    """Take a command line apart as the command would, without running it.

    Raises:
        typer.TyperException: an unknown command or option, or a value that does not fit.
    """
    words = shlex.split(line.partition(" > ")[0], comments=True)
    assert words.pop(0) == "distill", line
    command = typer.main.get_command(app)
    context = command.make_context("distill", words)
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_helps(distill, path):
    short, long = distill(*path, "-h"), distill(*path, "--help")
    assert short == long
    code, out, err = short
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: distill {' '.join(path)} ")
    assert not re.search(r"[{}]|(?:…|\.\.\.){2}", out.partition("\n\n")[0])
    assert "}" not in out
    about = COMMANDS[path].help or ""
    assert re.fullmatch(r"[A-Z].{15,}\.", about), f"{path}: {about!r} is no sentence"
    assert "Examples:\n" in out
    assert any(line.startswith(f"distill {' '.join(path)}") for line in COMMANDS[path].epilog.splitlines())
    for param in COMMANDS[path].params:
        assert param.help, f"{path}: {param.name} is not explained"


@pytest.mark.parametrize(("path", "line"), EXAMPLES, ids=[line.partition("  #")[0] for _, line in EXAMPLES])
def test_every_example_parses(path, line):
    parse(line)


@pytest.mark.parametrize("line", ["distill sft --chekc", "distill nope", "distill sft --gpus many"])
def test_the_parser_of_examples_can_fail(line):
    with pytest.raises(typer.TyperException):
        parse(line)


@pytest.mark.parametrize("path", [(), *COMMANDS], ids=lambda path: " ".join(path) or "distill")
@pytest.mark.parametrize("width", [60, 100])
def test_help_fits_and_has_no_colour_in_a_pipe(distill, path, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.delenv("NO_COLOR")
    out = distill(*path, "-h")[1]
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= width


def test_examples_that_are_broken_to_fit_still_work_when_copied(distill, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = distill("sft", "-h")[1]
    assert "\\\n" in out
    joined = re.sub(r" \\\n +", " ", out)
    assert "  distill sft --plan --gpus 8 --gpu-memory 80 --student all\n" in joined


# --- completion


def offers(line, cwd):
    """What zsh, fish and bash are offered at the end of a line, each by its own protocol."""
    words = line.split(" ")
    protocols = {
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
    }
    found = {}
    for shell, variables in protocols.items():
        environ = os.environ | variables | {"_DISTILL_COMPLETE": f"complete_{shell}"}
        done = subprocess.run([sys.executable, "-m", "distill"], env=environ, capture_output=True, text=True, cwd=cwd)
        assert done.stderr == ""
        if shell == "zsh":
            found[shell] = re.findall(r'(?:^|\()"([^"]+)"', done.stdout, re.MULTILINE)
        else:
            found[shell] = [one.partition("\t")[0] for one in done.stdout.splitlines() if one]
    assert found["zsh"] == found["fish"] == found["bash"]
    return found["bash"]


def test_shells_complete_commands_and_options(tmp_path):
    assert offers("distill gen", tmp_path) == ["generate"]
    assert {"ls", "show", "rm"} <= set(offers("distill runs ", tmp_path))
    assert offers("distill sft --gpu-", tmp_path) == ["--gpu-memory"]


def test_shells_complete_recipes_and_students(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "small.yaml").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert offers("distill run re", tmp_path) == ["recipes/"]
    assert offers("distill sft --student qwen3-4", tmp_path) == ["qwen3-4b"]
    assert "recipes/small.yaml" in offers("distill run recipes/", tmp_path)
    assert offers("distill recipes show quicks", tmp_path) == [
        "quickstart",
        "quickstart-on-policy",
        "quickstart-rl",
        "quickstart-rounds",
    ]


def test_shells_complete_runs_of_the_given_folder(tmp_path):
    for name in ("one", "other"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "summary.json").write_text("{}")
    (tmp_path / "mine" / "onyx").mkdir()
    assert offers("distill runs show --run-dir mine o", tmp_path) == ["one", "other"]
    assert offers("distill runs rm --run-dir mine one o", tmp_path) == ["other"]
    assert offers("distill runs show o", tmp_path) == []
    assert offers("distill report --run-dir mine on", tmp_path) == ["one"]


def settings(line):
    """What `--set` offers, without a process of its own."""
    from distill.cli.completion import complete_setting

    return [word for word, _ in complete_setting(line)]


def test_keys_of_a_recipe_are_completed_down_to_their_values(tmp_path):
    assert "sft.epochs=" in offers("distill sft --set sft.ep", tmp_path)
    assert settings("sft.compute.pack") == ["sft.compute.packing="]
    assert settings("sft.method=") == ["sft.method=full", "sft.method=lora", "sft.method=qlora"]
    assert settings("push.private=t") == ["push.private=true"]
    assert settings("prob") == ["problems.0."]
    assert settings("problems.0.lim") == ["problems.0.limit="]
    assert settings("nonsense.x") == []
    assert settings("sft.epochs=") == []
    assert len(settings("")) == len(Recipe.model_fields)


def test_students_are_all_offered():
    from distill.cli.completion import complete_student

    assert [name for name, _ in complete_student("")] == list(STUDENTS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_can_be_shown(shell):
    environ = os.environ | {"_DISTILL_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-m", "distill"], env=environ, capture_output=True, text=True)
    assert done.returncode == 0
    assert "_DISTILL_COMPLETE" in done.stdout
