"""Samples that end in errors: quoted at once, a reason to stop where they are too many, and asked for again."""

import time
from types import SimpleNamespace

import pytest

from distill.core.records import Problem
from distill.engines.base import Completion
from distill.errors import StageError
from distill.sampling.errors import EARLY_ERRORS, NEW_WORDS_EVERY_S, TROUBLE_EVERY_S, ErrorWatch
from distill.sampling.job import SamplingJob
from distill.sampling.loop import run_sampling
from distill.sampling.status import status_lines
from distill.storage.files import read_json, write_jsonl
from distill.storage.ledger import Tally, index_ledger

ANSWERS = ["<think>\n6 and 3\n</think>\n\n9"]
SAID = "HTTP 500: the model is sleeping"


@pytest.fixture
def broken(fake_engine):
    """A function that makes an engine whose samples end in errors where `is_broken(key)` says so."""

    def make(is_broken=lambda key: True, said=SAID, trouble=""):
        class Broken(fake_engine):
            def step(self):
                return [
                    Completion(c.key, "", "error", 0, 0, error=said) if is_broken(c.key) else c for c in super().step()
                ]

        engine = Broken(ANSWERS)
        engine.trouble = trouble
        return engine

    return make


def problems(num):
    return [Problem(f"p{i}", [{"role": "user", "content": f"What is {i}?"}], "9", "math", "test") for i in range(num)]


def job(tmp_path, problems, samples=2, compute=None, retry_errors=False):
    write_jsonl(tmp_path / "problems.jsonl", (problem.to_json() for problem in problems))
    return SamplingJob(
        title="test",
        model_name="fake/teacher",
        model_path="nowhere",
        model_revision="r1",
        chat_format=None,
        problems=str(tmp_path / "problems.jsonl"),
        ledger=str(tmp_path / "ledger.jsonl"),
        samples_per_problem=samples,
        seed=7,
        sampling={"temperature": 0.6},
        compute=compute or {},
        retry_errors=retry_errors,
    )


def stop(*args):
    with pytest.raises(StageError) as caught:
        run_sampling(*args)
    return str(caught.value)


def test_nothing_but_errors_is_an_error_with_the_engines_words(tmp_path, broken):
    message = stop(job(tmp_path, problems(2)), broken())
    assert "4 of 4 samples ended in errors" in message
    assert f"{SAID} (4 times)" in message
    assert "the same command retries" in message
    assert StageError.exit_code == 1


def test_the_same_call_asks_again_for_what_made_an_earlier_one_stop(tmp_path, broken, fake_engine):
    stop(job(tmp_path, problems(3)), broken())
    again = broken(lambda key: key == ("p0", 0))
    run_sampling(job(tmp_path, problems(3)), again)
    assert again.num_requests == 6
    index = index_ledger(tmp_path / "ledger.jsonl")
    assert index.errors == {("p0", 0)}
    settled = fake_engine(ANSWERS)
    run_sampling(job(tmp_path, problems(3)), settled)
    assert settled.num_requests == 0


@pytest.mark.parametrize(
    ("num_broken", "max_share", "stops"), [(5, 0.5, False), (6, 0.5, True), (1, 0.0, True), (10, 1.0, False)]
)
def test_the_share_of_errors_decides(tmp_path, broken, num_broken, max_share, stops):
    names = {f"p{i}" for i in range(num_broken)}
    wanted = job(tmp_path, problems(10), samples=1, compute={"max_error_share": max_share})
    engine = broken(lambda key: key[0] in names)
    if stops:
        assert f"{num_broken} of 10 samples" in stop(wanted, engine)
    else:
        assert run_sampling(wanted, engine)["num_sampled"] == 10


def test_a_higher_share_accepts_what_is_there_without_an_engine(tmp_path, broken):
    stop(job(tmp_path, problems(2)), broken())
    assert run_sampling(job(tmp_path, problems(2), compute={"max_error_share": 1.0}))["num_sampled"] == 0


def test_a_large_job_stops_early_and_goes_on_where_it_was(tmp_path, broken, fake_engine):
    run_sampling(job(tmp_path, problems(40), samples=1), fake_engine(ANSWERS))
    engine = broken()
    message = stop(job(tmp_path, problems(40), samples=9), engine)
    assert f"the first {EARLY_ERRORS} samples all ended in errors" in message
    assert engine.num_requests < EARLY_ERRORS + 2 * engine.max_in_flight
    again = fake_engine(ANSWERS)
    run_sampling(job(tmp_path, problems(40), samples=9), again)
    assert again.num_requests == 40 * 8
    assert not index_ledger(tmp_path / "ledger.jsonl").errors


def test_errors_after_an_answer_do_not_stop_early(tmp_path, broken):
    names = {f"p{i}" for i in range(10, 60)}
    wanted = job(tmp_path, problems(100), samples=1)
    assert run_sampling(wanted, broken(lambda key: key[0] in names))["num_sampled"] == 100


def test_errors_that_stay_errors_may_be_asked_for_again_and_stop_nothing(tmp_path, broken):
    names = {f"p{i}" for i in range(100 - EARLY_ERRORS - 8, 100)}
    wanted = {"samples": 1, "compute": {"max_error_share": 0.5}}
    run_sampling(job(tmp_path, problems(100), **wanted), broken(lambda key: key[0] in names))
    engine = broken(lambda key: key[0] in names)
    run_sampling(job(tmp_path, problems(100), retry_errors=True, **wanted), engine)
    assert engine.num_requests == len(names)


def test_a_share_of_one_accepts_any_number_of_errors(tmp_path, broken):
    wanted = job(tmp_path, problems(50), samples=1, compute={"max_error_share": 1.0})
    assert run_sampling(wanted, broken())["num_sampled"] == 50


def test_different_errors_are_counted_and_the_most_frequent_quoted(tmp_path, broken, fake_engine):
    class Various(fake_engine):
        def step(self):
            return [
                Completion(c.key, "", "error", 0, 0, error=f"error {min(int(c.key[0][1:]), 4)}") for c in super().step()
            ]

    message = stop(job(tmp_path, problems(9), samples=1), Various(ANSWERS))
    assert "error 4 (5 times)" in message
    assert "and 2 other errors" in message


def test_the_engines_trouble_is_shown_at_once_and_kept_for_status(tmp_path, broken, capsys, monkeypatch):
    monkeypatch.setenv("DISTILL_QUIET", "")
    lives = []

    class Silent(type(broken())):
        trouble = "http://host/v1: HTTP 503: loading"

        def step(self):
            lives.append(read_json(tmp_path / "live.json"))
            self.trouble = "" if len(lives) > 2 else self.trouble
            return super().step() if len(lives) > 2 else []

    stop(job(tmp_path, problems(1)), Silent(ANSWERS))
    assert "Nothing has been answered yet: http://host/v1: HTTP 503: loading" in capsys.readouterr().err
    assert next(live for live in lives if live)["trouble"] == "http://host/v1: HTTP 503: loading"


class Scripted:
    """An engine as an `ErrorWatch` sees it."""

    trouble = ""


@pytest.fixture
def watch(monkeypatch):
    """A function: what is said when the engine says that, so many seconds later."""
    now, engine, said = [1_000.0], Scripted(), []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watched = ErrorWatch("test", 0.5, Tally())
    progress = SimpleNamespace(say=said.append)

    def show(trouble="", later_s=0.0, ended=()):
        now[0] += later_s
        engine.trouble = trouble
        for reason, error in ended:
            watched.add(reason, error)
        said.clear()
        watched.show(engine, progress)
        return list(said)

    return show


def test_trouble_that_comes_and_goes_is_not_repeated_at_each_turn(watch):
    assert watch("HTTP 503") == ["Nothing has been answered yet: HTTP 503"]
    assert watch("HTTP 503", 5) == watch("", 5) == watch("HTTP 503", 5) == watch("", 5) == []
    assert watch("HTTP 503", TROUBLE_EVERY_S) == ["Nothing has been answered yet: HTTP 503"]


def test_other_words_are_shown_soon_but_not_each_of_many(watch):
    assert watch("HTTP 500: request 1")
    assert not watch("HTTP 500: request 2", 1)
    assert watch("out of memory", NEW_WORDS_EVERY_S) == ["Nothing has been answered yet: out of memory"]


def test_errors_in_a_row_after_answers_are_quoted_once_they_are_many(watch):
    refused = [("error", "HTTP 403: account suspended")]
    assert not watch(ended=[("stop", "")] * 3 + refused * (EARLY_ERRORS - 1))
    assert watch(ended=refused)[0].endswith("HTTP 403: account suspended")
    assert not watch(ended=[("stop", ""), *refused], later_s=2 * TROUBLE_EVERY_S)


def test_the_first_error_is_quoted_at_once(tmp_path, broken, capsys, monkeypatch):
    monkeypatch.setenv("DISTILL_QUIET", "")
    stop(job(tmp_path, problems(1)), broken())
    assert f"Nothing has been answered yet: {SAID}" in capsys.readouterr().err
    run_sampling(job(tmp_path, problems(1)), broken(lambda key: False))
    assert SAID not in capsys.readouterr().err


@pytest.mark.parametrize("trouble", ["", "http://host/v1: HTTP 503: loading"])
def test_the_status_quotes_a_server_that_does_not_answer(trouble):
    live = {"pid": 1, "updated_at": 1.5, "samples_per_second": 0.0, "tokens_per_second": 0.0, "seconds_left": None}
    status = {
        "folder": "runs/x/generate",
        "state": "running",
        "teacher": "far/away",
        "num_wanted": 4,
        "num_done": 0,
        "num_not_needed": 0,
        "finish_reasons": {},
        "num_prompt_tokens": 0,
        "num_completion_tokens": 0,
        "num_damaged_records": 0,
        "cost": None,
        "live": {**live, "num_graded": 0, "num_correct": 0, "trouble": trouble},
    }
    assert [line for line in status_lines(status) if "trouble" in line] == (
        [f"  trouble   {trouble}"] if trouble else []
    )
