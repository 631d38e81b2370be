"""What others wrote cannot command a terminal: written out by one function, which all output goes through."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from distill.cli.safe_console import SafeConsole
from distill.core.progress import QUIET, ProgressBar, note
from distill.core.terminal import HIDING, printable, printable_line
from distill.publish.plan import Plan
from distill.publish.preview import plan_text
from distill.results.push import Flag

HOSTILE = (
    "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\x90q\x9c", "\r", "\b", "\x7f", "\u202e", "\u2066", "\u200e", "\u200f",
    "\u061c", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u180e", "\u2028", "\u2029", "\U000e0041", "\ue000",
    "\ud800", "\u3164", "\u115f", "\x85",
)  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_moves_hides_or_reorders_is_written_out(hostile):
    shown = printable(f"a{hostile}b")
    assert shown.startswith("a\\")
    assert not set(shown) & set("".join(HOSTILE)) - set("[2J]0;title31mq")


@given(st.text(st.characters()))
def test_what_is_shown_is_printable_and_stays_so(text):
    shown = printable(text)
    assert all(char in "\n\t" or unicodedata.category(char) not in HIDING for char in shown)
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["naïve café", "中文 日本語", "Привет", "∑ x² ≤ 3\n\tπ", "👍🏽", "עברית", "हिन्दी"])
def test_ordinary_text_of_any_language_stays(text):
    assert printable(text) == text
    assert "\n" not in printable_line(text)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_tables_and_texts_of_the_console_are_safe(hostile):
    stream = io.StringIO()
    console = SafeConsole(file=stream, width=60, force_terminal=False)
    table = Table(title=f"t{hostile}")
    table.add_column(f"h{hostile}")
    table.add_row(Text(f"c{hostile}"))
    console.print(table)
    console.print(f"x{hostile}y", markup=False, soft_wrap=True)
    assert hostile not in stream.getvalue()
    assert "x" in stream.getvalue()


def test_progress_is_safe(capsys, monkeypatch):
    monkeypatch.delenv(QUIET, raising=False)  # a command that ran in this process may have set it
    note("a\x1b[2Jb")
    with ProgressBar("sample", 2, "samples") as bar:
        bar.say("server says \u202e\x1b]0;x\x07")
    err = capsys.readouterr().err
    assert "a\\x1b[2Jb" in err
    assert not {"\x1b", "\u202e", "\x07"} & set(err)


def test_a_dry_run_names_what_others_called_themselves_on_one_line():
    plan = Plan((), (Flag(level="warning", text="teacher a\nTo look at:\n  all is well\u202e: unknown"),), ("x\ny",))
    assert "teacher a To look at: all is well : unknown" in plan_text(plan)
    assert "  x y" in plan_text(plan)
