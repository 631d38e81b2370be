"""Progress on a terminal, in a log file, and not at all."""

import os
import re
import select
import time

import pytest

from distill.core.progress import LINE_EVERY_S, PROGRESS_FD, QUIET, ProgressBar

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in (QUIET, PROGRESS_FD, "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told to go on."""
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def forward(seconds):
        now[0] += seconds

    return forward


def test_first_and_last_line_where_there_is_no_terminal(capsys):
    with ProgressBar("filter", 500, "traces") as progress:
        for _ in range(500):
            progress.advance()
    first, last = capsys.readouterr().err.splitlines()
    assert first == "filter: 500 traces"
    assert last == "filter: 500/500 traces in 0 s"


def test_a_line_every_so_often(capsys, clock):
    with ProgressBar("eval base", 100, "samples") as progress:
        for _ in range(10):
            clock(LINE_EVERY_S / 5)
            progress.advance(10, "7 truncated")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "eval base: 100 samples",
        "eval base: 50/100 samples, 3.3/s, 7 truncated, 15 s left",
        "eval base: 100/100 samples, 3.3/s, 7 truncated, 0 s left",
        "eval base: 100/100 samples in 30 s",
    ]


def test_what_was_done_before_counts_but_not_for_the_rate(capsys, clock):
    with ProgressBar("generate", 1_000, "samples", done=900) as progress:
        clock(20.0)
        progress.advance(20)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "generate: 1000 samples, 900 done before",
        "generate: 920/1000 samples, 1.0/s, 1 min 20 s left",
        "generate: 920/1000 samples in 20 s",
    ]


def test_a_note_alone_moves_nothing(capsys, clock):
    with ProgressBar("sft", 10, "steps") as progress:
        clock(20.0)
        progress.advance(0, "loss 0.43")
        assert progress.num_done == 0
    assert capsys.readouterr().err.splitlines() == ["sft: 10 steps", "sft: 0/10 steps, 0.0/s, loss 0.43"]


def test_hours(capsys, clock):
    with ProgressBar("generate", 2, "samples") as progress:
        clock(3_725.0)
        progress.advance()
    assert "1/2 samples in 1 h 02 min" in capsys.readouterr().err


def test_nothing_is_said_to_be_finished_after_an_error(capsys):
    def stop_half_way():
        with ProgressBar("filter", 2, "traces") as progress:
            progress.advance()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert capsys.readouterr().err.splitlines() == ["filter: 2 traces"]


def test_quiet(capsys, monkeypatch):
    monkeypatch.setenv(QUIET, "1")
    with ProgressBar("filter", 2, "traces") as progress:
        progress.advance(2, "note")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert progress.num_done == 2


def test_the_parents_file_descriptor_comes_first(capsys, monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setenv(PROGRESS_FD, str(writer))
    with ProgressBar("filter", 2, "traces") as progress:
        progress.advance(2)
    assert _waiting(reader) == "filter: 2 traces\nfilter: 2/2 traces in 0 s\n"
    os.close(reader)
    os.close(writer)
    assert capsys.readouterr().err == ""


def test_the_bars_own_descriptor_is_given_back(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setenv(PROGRESS_FD, str(writer))
    with ProgressBar("filter", 2, "traces") as progress:
        progress.advance(2)
    os.close(writer)
    assert len(_waiting(reader).splitlines()) == 2
    assert select.select([reader], [], [], 0)[0], "somebody is left who could write"
    os.close(reader)
    assert progress.num_done == 2


def test_live_bar_on_a_terminal(monkeypatch):
    shown = _on_a_terminal(monkeypatch, _three_steps)
    assert shown.count("sft") > 1  # drawn again and again
    assert re.search(r"0/3\s+steps", shown)
    last = shown.rstrip().rsplit("sft", 1)[1]
    assert re.search(r"3/3\s+steps\s+loss 0.43", last)


def test_quiet_on_a_terminal(monkeypatch):
    monkeypatch.setenv(QUIET, "1")
    assert _on_a_terminal(monkeypatch, _three_steps) == ""


def _three_steps():
    with ProgressBar("sft", 3, "steps") as progress:
        for _ in range(3):
            time.sleep(0.15)
            progress.advance(1, "loss 0.43")


def _on_a_terminal(monkeypatch, action):
    """What `action` shows on a terminal of its own."""
    ours, theirs = os.openpty()
    monkeypatch.setenv(PROGRESS_FD, str(theirs))
    action()
    shown = _waiting(ours)
    os.close(theirs)
    os.close(ours)
    return ESCAPES.sub("", shown)


def _waiting(descriptor):
    """What can be read without waiting for more."""
    found = b""
    while select.select([descriptor], [], [], 0.2)[0] and (chunk := os.read(descriptor, 65_536)):
        found += chunk
    return found.decode()
