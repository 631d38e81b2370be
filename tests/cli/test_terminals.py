"""What is printed is whole and plain in any terminal: narrow, without colour, or none at all."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from distill.cli.output import PIPE_COLUMNS, console
from distill.cli.tables import print_table

pytestmark = pytest.mark.usefixtures("here")
OUTPUTS = {
    "students": ["students"],
    "plan": ["sft", "--plan", "--student", "qwen-7b", "--gpus", "8", "--gpu-memory", "80"],
    "status": ["generate", "--status"],
    "explain": ["filter", "--explain", "{problem}"],
    "runs ls": ["runs", "ls"],
    "runs show": ["runs", "show", "small"],
    "runs rm": ["runs", "rm", "small", "--dry-run"],
}


@pytest.fixture
def filtered(distill, generated):
    assert distill("filter", "--quiet")[0] == 0
    return generated


@pytest.fixture
def words(filtered, tmp_path):
    """A function that fills in the id of a problem."""
    first = (tmp_path / "runs/small/generate/problems.jsonl").read_text().partition("\n")[0]
    return lambda what: [word.format(problem=json.loads(first)["id"]) for word in OUTPUTS[what]]


def facts(text):
    """Every number and name in a text, however it is laid out."""
    return {fact.strip(".,") for fact in re.findall(r"[\w.,%+-]*\w[\w.,%+-]*", text.replace("->", " "))}


@pytest.mark.parametrize("what", ["students", "plan", "runs ls", "runs show"])
def test_a_narrow_terminal_shows_all_that_a_wide_one_shows(distill, words, what, monkeypatch, model):
    monkeypatch.setenv("COLUMNS", "120")
    wide = distill(*words(what))[1]
    monkeypatch.setenv("COLUMNS", "60")
    narrow = distill(*words(what))[1]
    assert max(map(len, narrow.splitlines())) <= 60
    # The list of runs leaves the students out, and here the student is a path longer than a line, which is broken at
    # different places; `alias` is the head of a column of names.
    lost = facts(wide) - facts(narrow)
    assert {fact for fact in lost if fact not in str(model)} <= {"alias", "student"}


@pytest.mark.parametrize("what", OUTPUTS)
def test_a_pipe_gets_plain_text(words, what, tmp_path):
    environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    command = [sys.executable, "-m", "distill", *words(what)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def on_a_terminal(command, **variables):
    """What a command prints where its standard output is a terminal."""
    leader, follower = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | variables
    environ["TERM"] = "xterm-256color"
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=environ) as process:
        os.close(follower)
        output = b""
        while True:
            try:
                piece = os.read(leader, 1 << 16)
            except OSError:  # the terminal is gone with the process
                break
            if not piece:
                break
            output += piece
    os.close(leader)
    assert process.returncode == 0, output
    return output.decode()


@pytest.mark.parametrize("words", [["sft", "-h"], ["students"]], ids=["help", "students"])
def test_colour_is_for_terminals_that_want_it(words, tmp_path):
    command = [sys.executable, "-m", "distill", *words]
    assert "\x1b[" in on_a_terminal(command)
    colours = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert not colours.search(on_a_terminal(command, NO_COLOR="1"))


def test_progress_without_a_terminal_is_lines_on_standard_error(generated):
    done = subprocess.run([sys.executable, "-m", "distill", "filter", "--json"], capture_output=True, text=True)
    assert json.loads(done.stdout)["filter"]["num_kept"] == 1
    assert "filter: examine: 4/4 traces" in done.stderr
    assert "\r" not in done.stderr


def test_a_table_that_fits_is_a_table(capsys, monkeypatch):
    from rich.table import Table

    table = Table("name", "size", title="Things")
    table.add_row("one", "1 GiB")
    table.add_row("", "2 GiB")
    monkeypatch.setenv("COLUMNS", "40")
    print_table(table)
    assert "│" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "10")
    print_table(table)
    assert capsys.readouterr().out.splitlines()[:2] == ["Things", "  one:"]


@pytest.mark.parametrize(("columns", "width"), [(None, PIPE_COLUMNS), ("", PIPE_COLUMNS), ("60", 60), ("200", 200)])
def test_nothing_is_wrapped_into_a_pipe_unless_a_width_is_set(monkeypatch, capsys, columns, width):
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    shown = console()
    assert shown.width == width
    shown.print("a name of many words " * 20, markup=False)
    assert (capsys.readouterr().out.count("\n") == 1) == (width == PIPE_COLUMNS)
