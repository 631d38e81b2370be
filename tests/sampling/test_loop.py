import json
import os
import signal
import time

import pytest

from distill.core.formatting import duration
from distill.core.records import Problem
from distill.engines.base import Completion
from distill.grading import Grade
from distill.grading.cached import cache_entry, grade_from_cache, grade_key, versions_of
from distill.grading.pool import CRASHED, TIMED_OUT
from distill.recipe.sampling import Price
from distill.sampling.job import SamplingJob, make_request, missing_keys, sample_seed
from distill.sampling.loop import cost, run_sampling
from distill.sampling.status import status_lines
from distill.storage.fact_cache import FactCache, fact_key
from distill.storage.files import read_json, write_jsonl
from distill.storage.ledger import Tally, index_ledger, read_ledger

ANSWERS = ["<think>\n2+2\n</think>\n\n4", "5"]


def problem(i, text=None):
    return Problem(f"p{i}", [{"role": "user", "content": text or f"What is {i}?"}], "4", "math", "test")


def job(tmp_path, problems, samples=2, **changes):
    write_jsonl(tmp_path / "problems.jsonl", (p.to_json() for p in problems))
    fields = {
        "title": "test",
        "model_name": "fake/teacher",
        "model_path": "nowhere",
        "model_revision": "r1",
        "chat_format": None,
        "problems": str(tmp_path / "problems.jsonl"),
        "ledger": str(tmp_path / "ledger.jsonl"),
        "samples_per_problem": samples,
        "seed": 7,
        "sampling": {"temperature": 0.6},
        "compute": {},
    }
    return SamplingJob(**(fields | changes))


def keys(tmp_path):
    return [t.key for t in read_ledger(tmp_path / "ledger.jsonl")]


def test_every_sample_of_every_problem_is_drawn_once(tmp_path, fake_engine):
    result = run_sampling(job(tmp_path, [problem(i) for i in range(5)]), fake_engine(ANSWERS))
    assert sorted(keys(tmp_path)) == [(f"p{i}", s) for i in range(5) for s in range(2)]
    assert result["num_sampled"] == 10


def test_a_trace_keeps_the_verbatim_text_and_its_parts(tmp_path, fake_engine):
    run_sampling(job(tmp_path, [problem(0)]), fake_engine(ANSWERS))
    first = next(t for t in read_ledger(tmp_path / "ledger.jsonl") if t.sample_index == 0)
    assert (first.text, first.reasoning, first.content) == (ANSWERS[0], "2+2", "4")
    assert (first.teacher, first.teacher_revision, first.finish_reason) == ("fake/teacher", "r1", "stop")


def test_resume_samples_only_what_is_missing(tmp_path, fake_engine):
    problems = [problem(i) for i in range(8)]
    with pytest.raises(KeyboardInterrupt):
        run_sampling(job(tmp_path, problems), fake_engine(ANSWERS, die_after=9))
    done = set(keys(tmp_path))
    assert 0 < len(done) < 16
    engine = fake_engine(ANSWERS)
    run_sampling(job(tmp_path, problems), engine)
    assert engine.num_requests == 16 - len(done)
    assert sorted(keys(tmp_path)) == sorted((f"p{i}", s) for i in range(8) for s in range(2))


def test_more_samples_ask_only_for_the_new_ones(tmp_path, fake_engine):
    run_sampling(job(tmp_path, [problem(0)], samples=2), fake_engine(ANSWERS))
    engine = fake_engine(ANSWERS)
    run_sampling(job(tmp_path, [problem(0), problem(1)], samples=4), engine)
    assert sorted(r.key for r in engine.requests) == [("p0", 2), ("p0", 3), *(("p1", i) for i in range(4))]


def test_nothing_missing_needs_no_engine(tmp_path, fake_engine):
    run_sampling(job(tmp_path, [problem(0)]), fake_engine(ANSWERS))
    assert run_sampling(job(tmp_path, [problem(0)]))["num_sampled"] == 0


def test_a_request_that_can_never_be_answered_is_recorded_and_blocks_nothing(tmp_path, fake_engine):
    run_sampling(job(tmp_path, [problem(0, "too long"), problem(1)]), fake_engine(ANSWERS))
    by_key = {t.key: t for t in read_ledger(tmp_path / "ledger.jsonl")}
    assert by_key[("p0", 0)].finish_reason == "error"
    assert "9999 tokens" in by_key[("p0", 0)].error
    assert by_key[("p1", 1)].finish_reason == "stop"


def requests(job, problems, done=frozenset()):
    by_id = {p.id: p for p in problems}
    keys = missing_keys(list(by_id), job.samples_per_problem, set(done))
    return [make_request(job, by_id[key[0]], key) for key in keys]


def test_a_seed_follows_from_identity_not_position(tmp_path):
    forward = requests(job(tmp_path, []), [problem(1), problem(2)])
    backward = requests(job(tmp_path, []), [problem(2), problem(1)], {("p2", 0)})
    seeds = {r.key: r.seed for r in forward}
    assert all(seeds[r.key] == r.seed for r in backward)
    assert len(set(seeds.values())) == 4
    assert all(0 <= sample_seed(s, ("p", 0)) < 2**31 for s in range(100))


def test_the_teacher_sees_its_system_prompt_and_examples(tmp_path):
    shown = job(tmp_path, [], system="Think.", examples=(("1+1?", "one and one", "2"),))
    (request, _) = requests(shown, [problem(1)])
    assert [m["role"] for m in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[2]["content"] == "<think>\none and one\n</think>\n\n2"
    assert request.messages[-1]["content"] == "What is 1?"


def test_a_job_survives_the_way_through_json(tmp_path):
    from dataclasses import asdict

    shown = job(tmp_path, [], examples=(("q", "r", "a"),))
    again = SamplingJob(**json.loads(json.dumps(asdict(shown))))
    assert requests(again, [problem(1)]) == requests(shown, [problem(1)])


def test_a_problems_samples_stand_side_by_side_unless_the_later_ones_may_be_needless():
    assert missing_keys(["a", "b"], 3, {("a", 1)}) == [("a", 0), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]
    assert missing_keys(["a", "b"], 3, set(), stop_after_correct=1) == [
        ("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2),
    ]  # fmt: skip


GRADED = {"grade_timeout_s": 20.0, "stop_after_correct": 2}
RIGHT, WRONG = "<think>\n2+2\n</think>\n\n\\boxed{4}", "<think>\n2+2\n</think>\n\n\\boxed{5}"


def test_once_enough_are_right_the_rest_is_not_asked_for_and_the_ledger_says_why(tmp_path, fake_engine):
    problems = [problem(i) for i in range(30)]
    engine = fake_engine([RIGHT])
    result = run_sampling(job(tmp_path, problems, samples=8, **GRADED), engine)
    index = index_ledger(tmp_path / "ledger.jsonl")
    assert len(index.places) + len(index.skipped) == 30 * 8
    assert set(index.places) >= {(p.id, i) for p in problems for i in range(2)}
    # Only what was in flight before a grade was known may have been drawn beyond the two that were wanted.
    assert engine.num_requests == len(index.places) <= 30 * 2 + engine.max_in_flight
    assert set(index.skipped.values()) == {"stop_after_correct: 2 samples are right already"}
    assert result["num_correct"] == result["num_graded"] == len(index.places)


def test_wrong_answers_do_not_stop_anything(tmp_path, fake_engine):
    engine = fake_engine([WRONG])
    run_sampling(job(tmp_path, [problem(0)], samples=4, **GRADED), engine)
    assert engine.num_requests == 4


def test_right_answers_of_earlier_calls_count_and_more_may_be_asked_for_later(tmp_path, fake_engine):
    run_sampling(job(tmp_path, [problem(0)], samples=2), fake_engine([RIGHT]))
    engine = fake_engine([RIGHT])
    run_sampling(job(tmp_path, [problem(0)], samples=6, **GRADED), engine)
    assert engine.num_requests == 0
    assert len(index_ledger(tmp_path / "ledger.jsonl").skipped) == 4
    engine = fake_engine([RIGHT])
    run_sampling(job(tmp_path, [problem(0)], samples=6, **GRADED | {"stop_after_correct": 5}), engine)
    index = index_ledger(tmp_path / "ledger.jsonl")
    assert 3 <= engine.num_requests <= 4
    assert len(index.places) + len(index.skipped) == 6


def test_grades_are_kept_for_the_filter_and_not_made_twice(tmp_path, fake_engine):
    asked = Problem("p", [{"role": "user", "content": "Expand."}], "x^2+1", "math", "test")
    key = grade_key(asked, "\\boxed{1+x^2}", versions_of(), 1.0)
    cached = {"grade_timeout_s": 20.0, "facts": str(tmp_path / "facts.sqlite")}
    answer = "<think>\nWell.\n</think>\n\n\\boxed{1+x^2}"
    result = run_sampling(job(tmp_path, [asked], samples=1, **cached), fake_engine([answer]))
    assert result["num_correct"] == 1
    with FactCache(tmp_path / "facts.sqlite", write=True) as cache:
        entry = cache.get([key])[key]
        assert entry == {"correct": True, "extracted_answer": "1+x^2", "reason": None}
        cache.put({key: {**entry, "correct": False, "reason": "wrong_answer"}})
    result = run_sampling(job(tmp_path, [asked], samples=2, **cached), fake_engine([answer]))
    assert result["num_correct"] == 0


def test_a_damaged_cache_of_facts_holds_nothing_up(tmp_path, fake_engine):
    facts = tmp_path / "facts.sqlite"
    with FactCache(facts, write=True) as cache:
        cache.put({fact_key(str(number)): "x" * 100 for number in range(500)})
    content = bytearray(facts.read_bytes())
    content[4096:] = b"\x00" * (len(content) - 4096)  # the first page, with the schema, is whole
    facts.write_bytes(content)
    asked = Problem("p", [{"role": "user", "content": "Expand."}], "x^2+1", "math", "test")
    answer = "<think>\nWell.\n</think>\n\n\\boxed{1+x^2}"
    damaged = job(tmp_path, [asked], samples=1, grade_timeout_s=20.0, facts=str(facts))
    assert run_sampling(damaged, fake_engine([answer]))["num_correct"] == 1


def test_a_grade_under_a_tighter_limit_is_made_again():
    gave_up = cache_entry(Grade(None, "x", "ungraded_timeout"), TIMED_OUT, 5.0, 4.0)
    assert grade_from_cache(gave_up, 5.0, 4.0) == Grade(None, "x", "ungraded_timeout")
    assert grade_from_cache(gave_up, 6.0, 4.0) is grade_from_cache(gave_up, 5.0, 5.0) is None
    assert cache_entry(Grade(None, "x", "ungraded_crash"), CRASHED, 5.0, 4.0) is None


def test_answers_of_earlier_calls_are_not_counted_as_this_calls(tmp_path, fake_engine):
    run_sampling(job(tmp_path, [problem(0)], samples=2), fake_engine([RIGHT]))
    engine = fake_engine([RIGHT])
    result = run_sampling(job(tmp_path, [problem(0)], samples=6, **GRADED | {"stop_after_correct": 5}), engine)
    assert result["num_graded"] == result["num_correct"] == engine.num_requests > 0


class StoppedEngine:
    """A fake engine in whose third step the process gets a SIGTERM; the samples in flight then take `num_steps`."""

    settings = {"name": "fake", "version": "1"}  # noqa: RUF012 - a constant of the test
    max_in_flight = 4

    def __init__(self, num_steps):
        self.num_steps, self.num_done, self.in_flight, self.submitted_late = num_steps, 0, [], 0

    @property
    def num_in_flight(self):
        return len(self.in_flight)

    num_tokens_in_flight = 0

    def submit(self, request):
        self.submitted_late += self.num_done >= 3
        self.in_flight.append(request)

    def step(self):
        self.num_done += 1
        if self.num_done == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.num_done > 3 and self.num_done < 3 + self.num_steps:
            time.sleep(0.01)
            return []
        request = self.in_flight.pop()
        return [Completion(request.key, "5", "stop", 10, 1)]

    def close(self):
        pass


@pytest.mark.parametrize(("num_steps", "finished"), [(5, 3 + 3), (10**6, 3)])
def test_a_signal_lets_what_is_in_flight_finish_within_the_deadline(tmp_path, num_steps, finished):
    engine = StoppedEngine(num_steps)
    with pytest.raises(KeyboardInterrupt):
        run_sampling(job(tmp_path, [problem(i) for i in range(20)], compute={"drain_s": 0.5}), engine)
    assert len(keys(tmp_path)) == finished
    assert engine.submitted_late == 0


def test_progress_can_be_read_from_files_alone_and_ends_with_the_process(tmp_path, fake_engine):
    seen = []

    class Watched(fake_engine):
        def step(self):
            seen.append(read_json(tmp_path / "live.json"))
            return super().step()

    run_sampling(job(tmp_path, [problem(i) for i in range(5)]), Watched(ANSWERS))
    live = next(value for value in seen if value)
    assert live["pid"] == os.getpid()
    assert not (tmp_path / "live.json").exists()


class ClockedEngine:
    """Answers one sample of ten tokens in each step, which takes 15 seconds; each other one gets a token then."""

    settings = {"name": "fake", "version": "1"}  # noqa: RUF012 - a constant of the test

    def __init__(self, tmp_path, forward, max_in_flight=4, num_slow=0, text="5"):
        self.tmp_path, self.forward, self.max_in_flight, self.num_slow = tmp_path, forward, max_in_flight, num_slow
        self.in_flight, self.lives, self.statuses, self.text = [], [], [], text

    @property
    def num_in_flight(self):
        return len(self.in_flight)

    @property
    def num_tokens_in_flight(self):
        return sum(num for _, num in self.in_flight)

    def submit(self, request):
        self.in_flight.append([request, 0])

    def step(self):
        if live := read_json(self.tmp_path / "live.json"):
            self.lives.append(live)
        self.forward(15.0)
        for one in self.in_flight:
            one[1] += 1
        if self.num_slow or not self.in_flight:
            self.num_slow -= bool(self.num_slow)
            return []
        request, _ = self.in_flight.pop(0)
        return [Completion(request.key, self.text, "stop", 10, 10)]

    def close(self):
        pass


@pytest.fixture
def forward(monkeypatch):
    """A function that moves the clock, which stands still otherwise."""
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def live_status(live):
    """The line of `--status` about a running process."""
    shown = {"folder": "f", "state": "running", "teacher": "t", "num_wanted": 1, "num_done": 0, "num_not_needed": 0}
    counts = {"finish_reasons": {}, "num_prompt_tokens": 0, "num_completion_tokens": 0, "num_damaged_records": 0}
    return next(x for x in status_lines(shown | counts | {"cost": None, "live": live}) if x.startswith("  now"))


def test_the_bar_and_the_status_say_the_same_and_nothing_before_it_can_be_told(tmp_path, forward, capsys, monkeypatch):
    monkeypatch.setenv("DISTILL_QUIET", "")
    engine = ClockedEngine(tmp_path, forward, num_slow=4)
    run_sampling(job(tmp_path, [problem(i) for i in range(10)]), engine)
    lines = [line for line in capsys.readouterr().err.splitlines() if "/s" in line]
    assert len(lines) == 24
    assert len(engine.lives) == 23
    for line, live in zip(lines, engine.lives, strict=False):
        left = None if live["seconds_left"] is None else f"{duration(round(live['seconds_left']))} left"
        for told in (line, live_status(live)):
            assert left in told if left else "left" not in told
        assert f"{live['samples_per_second']:.1f}/s, {live['tokens_per_second']:,.0f} tokens/s" in line
    assert [live["seconds_left"] is None for live in engine.lives] == [True] * 4 + [False] * 19
    assert engine.lives[0]["tokens_per_second"] == pytest.approx(4 / 15)


def test_an_engine_that_cannot_tell_its_tokens_is_forecast_by_the_samples_that_have_finished(tmp_path, forward):
    class Served(ClockedEngine):
        num_tokens_in_flight = None

    engine = Served(tmp_path, forward)
    run_sampling(job(tmp_path, [problem(i) for i in range(10)]), engine)
    left = [live["seconds_left"] for live in engine.lives]
    assert left[:2] == [None, None]
    assert left[2:] == pytest.approx([15.0 * (20 - i) for i in range(3, 20)])


def test_samples_that_are_known_not_to_be_needed_take_no_time(tmp_path, forward):
    engine = ClockedEngine(tmp_path, forward, max_in_flight=1, text=RIGHT)
    problems = [problem(i) for i in range(30)]
    run_sampling(job(tmp_path, problems, samples=8, **GRADED), engine)
    # Half of the first two samples of each are drawn: 15 problems need no more of their eight.
    live = engine.lives[29]
    assert live["num_correct"] == 30
    assert live["seconds_left"] == pytest.approx(15.0 * 15 * 8, rel=0.01)


def test_cost_counts_prompt_and_completion_tokens():
    tally = Tally(num_prompt_tokens=2_000_000, num_completion_tokens=500_000)
    assert cost(tally, Price(input_per_million=0.5, output_per_million=2.0)) == pytest.approx(2.0)


def test_lone_surrogates_do_not_reach_the_trace(tmp_path, fake_engine):
    run_sampling(job(tmp_path, [problem(0)], samples=1), fake_engine(["a\ud83d\ude00b\ud800c"]))
    (trace,) = read_ledger(tmp_path / "ledger.jsonl")
    assert trace.text == "a\U0001f600b\ufffdc"
