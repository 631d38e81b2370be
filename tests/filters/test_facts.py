"""What is known about a text is not worked out again, and what hangs costs its own row."""

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from distill.core.records import Problem, Trace
from distill.core.thinking import split_reasoning
from distill.errors import StageError
from distill.filters.facts import (
    FULL,
    GRADED,
    PIECE_ROWS,
    RowRange,
    Settings,
    examine,
    examine_piece,
    pieces,
    read_facts,
)
from distill.grading.cached import Versions
from distill.grading.pool import CRASHED, FIRST_LIMIT_S, TIMED_OUT
from distill.storage.fact_cache import FactCache
from distill.storage.files import write_jsonl
from distill.storage.layout import PROBLEMS
from distill.storage.ledger import Ledger
from distill.storage.problem_file import ProblemFile
from distill.storage.trace_store import finalise, shard_files

TEXTS = [
    "<think>\nFirst two, then two more, makes four.\n</think>\n\nThe answer is \\boxed{4}.",
    "<think>\nTwo and two.\n</think>\n\n\\boxed{\\sqrt{16}}",
    "<think>\nI guess.\n</think>\n\n\\boxed{5}",
    "<think>\nIt goes on",
]


def trace(name, index, text):
    split = split_reasoning(text)
    reason = "stop" if split.state == "closed" else "length"
    return Trace(name, index, "t", "r", text, split.reasoning, split.content, reason, 5, len(text) // 4, index)


@pytest.fixture
def source(tmp_path):
    """A folder of finished traces: 200 problems, four traces each."""
    folder = tmp_path / "generate"
    problems = [
        Problem(f"p{i:03d}", [{"role": "user", "content": f"{i}: 2 + 2?"}], "4", "math", "s") for i in range(200)
    ]
    with Ledger(folder / "ledger.jsonl") as ledger:
        ledger.append(trace(p.id, i, f"{text} {p.id}") for p in problems for i, text in enumerate(TEXTS))
    write_jsonl(folder / PROBLEMS, [p.to_json() for p in problems])
    finalise(folder, lambda key: True)
    return folder


def settings_of(tmp_path, **changes):
    plain = Settings(str(tmp_path / "facts.sqlite"), "en", (), None, "", Versions("", ""), 1.0, 20.0, 4.0)
    return replace(plain, **changes)


def pieces_of(source, settings):
    with ProblemFile(source / PROBLEMS) as problems:
        return list(pieces(shard_files(source), problems, settings))


class InThisProcess:
    """Runs the pool's tasks here; those that `fails` names an outcome for end in it."""

    def __init__(self, fails=lambda task: None):
        self.fails, self.functions = fails, []

    def run(self, next_task):
        while (task := next_task()) is not None:
            self.functions.append(task.function)
            outcome = self.fails(task)
            yield task.tag, task.function(task.argument) if outcome is None else outcome


def examined(source, tmp_path, pool, settings, name="facts"):
    folder = tmp_path / name
    folder.mkdir()
    with FactCache(tmp_path / "facts.sqlite", write=True) as cache:
        num = examine(iter(pieces_of(source, settings)), pool, cache, folder, lambda facts: None)
    return list(read_facts(folder, num))


def test_facts_come_in_the_traces_order_with_their_grades(source, tmp_path):
    facts = examined(source, tmp_path, InThisProcess(), settings_of(tmp_path))
    assert [f.key for f in facts] == [(f"p{i:03d}", index) for i in range(200) for index in range(4)]
    assert [f.grade.correct for f in facts[:4]] == [True, True, False, False]
    assert [f.think for f in facts[:4]] == ["closed", "closed", "closed", "unclosed"]
    assert all(f.measures is not None and f.signature for f in facts)
    assert facts[0].text_hash != facts[4].text_hash  # each text ends in its problem's name


def test_nothing_is_worked_out_twice(source, tmp_path):
    settings = settings_of(tmp_path)
    first = examined(source, tmp_path, InThisProcess(), settings)
    with FactCache(tmp_path / "facts.sqlite"):
        again = [examine_piece(piece) for piece in pieces_of(source, settings)]
    assert [(e.fresh, e.ungraded) for e in again] == [([], [])] * len(again)
    assert [fact for e in again for fact in e.facts] == first
    # other thresholds are no other facts; another language is
    other = [examine_piece(piece) for piece in pieces_of(source, replace(settings, language="fr"))]
    assert sum(len(e.fresh) for e in other) == 800
    assert all(not e.ungraded for e in other)


@pytest.mark.parametrize(("least", "graded"), [(FULL, True), (GRADED, False)])
def test_a_piece_in_which_something_hangs_costs_its_own_row(source, tmp_path, least, graded):
    def fails(task):
        piece = task.argument
        if (
            isinstance(piece, RowRange)
            and piece.effort >= least
            and piece.start <= 300 < piece.stop
            and piece.number == 1
        ):
            return TIMED_OUT
        return None

    pool = InThisProcess(fails)
    facts = examined(source, tmp_path, pool, settings_of(tmp_path))
    whole = examined(source, tmp_path, InThisProcess(), settings_of(tmp_path), "again")
    assert facts[300].measures is None
    assert (facts[300].grade == whole[300].grade) is graded
    assert [f for i, f in enumerate(facts) if i != 300] == [f for i, f in enumerate(whole) if i != 300]
    assert sum(function is examine_piece for function in pool.functions) < 5 + 2 * PIECE_ROWS.bit_length()


@pytest.mark.parametrize(
    ("outcome", "reason", "remembered"), [(TIMED_OUT, "ungraded_timeout", True), (CRASHED, "ungraded_crash", False)]
)
def test_a_grading_that_ran_out_of_time_is_tried_again_under_wider_limits(
    source, tmp_path, outcome, reason, remembered
):
    settings = settings_of(tmp_path)
    stopped = InThisProcess(lambda task: None if isinstance(task.argument, RowRange) else outcome)
    slow = [f.grade for f in examined(source, tmp_path, stopped, settings) if f.grade.reason == reason]
    assert slow
    assert {g.correct for g in slow} == {None}
    same = [examine_piece(piece) for piece in pieces_of(source, settings)]
    assert any(e.ungraded for e in same) is not remembered  # a crash may have been the machine's
    wider = [examine_piece(piece) for piece in pieces_of(source, replace(settings, timeout_s=30.0))]
    assert any(e.ungraded for e in wider)


def test_a_slow_grading_gets_its_whole_limit_after_all_pieces(source, tmp_path):
    limits = []

    def fails(task):
        if isinstance(task.argument, RowRange):
            limits.append("piece")
            return None
        limits.append(task.timeout_s)
        return TIMED_OUT if task.timeout_s == FIRST_LIMIT_S else None

    facts = examined(source, tmp_path, InThisProcess(fails), settings_of(tmp_path))
    assert facts == examined(source, tmp_path, InThisProcess(), settings_of(tmp_path), "at once")
    num_slow = limits.count(FIRST_LIMIT_S)
    assert num_slow == limits.count(None) > 0
    assert None not in limits[: len(limits) - limits[::-1].index("piece")]


def test_what_fails_for_every_trace_stops_the_stage(source, tmp_path):
    def fails(task):
        return CRASHED if isinstance(task.argument, RowRange) and task.argument.effort == FULL else None

    with pytest.raises(StageError, match="cannot be examined"):
        examined(source, tmp_path, InThisProcess(fails), settings_of(tmp_path))


def test_a_damaged_cache_costs_time_only(source, tmp_path):
    settings = settings_of(tmp_path)
    first = examined(source, tmp_path, InThisProcess(), settings)
    content = bytearray((tmp_path / "facts.sqlite").read_bytes())
    content[5_000:-5_000] = b"x" * (len(content) - 10_000)
    (tmp_path / "facts.sqlite").write_bytes(content)
    again = [fact for piece in pieces_of(source, settings) for fact in examine_piece(piece).facts]
    assert [f.measures for f in again] == [f.measures for f in first]


SCRIPT = """
import sys; from pathlib import Path
from distill.recipe.model import Recipe
from distill.stages import RunContext, filter
from distill.storage.run_folder import only_writer
recipe = Recipe.model_validate({
    "name": "n", "student": "smollm2-135m", "problems": [{"source": "file:x.jsonl"}], "sft": {"max_length": 2048},
    "generate": {"teacher": "org/t", "sampling": {"max_tokens": 1024}},
    "filter": {"compute": {"workers": int(sys.argv[2])}, "grade_timeout_s": 60.0},
})
with only_writer(Path(sys.argv[1])):
    filter.run(RunContext(recipe, Path(sys.argv[1])))
"""


def filtered(run_dir, workers=1, kill_after_s=None):
    command = [sys.executable, "-c", SCRIPT, str(run_dir), str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        process.kill()
        process.communicate()
        return None
    _, said = process.communicate()
    assert process.returncode == 0, said[-2000:]
    folder = run_dir / "filter"
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    assert not [p for p in files if p.relative_to(folder).parts[0].startswith(".")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.slow
def test_kills_and_other_numbers_of_workers_change_no_byte(source, tmp_path):
    (source / "manifest.json").write_text('{"outputs": {}}')
    expected = filtered(tmp_path, workers=3)
    assert set(expected) >= {"verdicts.jsonl", "decontamination.json"}
    (tmp_path / "facts.sqlite").unlink()
    dice = random.Random(signal.SIGKILL)
    for _ in range(6):
        filtered(tmp_path, kill_after_s=dice.uniform(0.5, 6.0))
    assert filtered(tmp_path) == expected
