"""Sets of problems with their own k and sampling in one job: order, requests, records, resuming, ends by wave."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.core.forecast import Drawn
from distill.core.records import Problem
from distill.engines.base import Request
from distill.errors import UserError
from distill.recipe.sampling import Sampling
from distill.sampling.call_counts import CallCounts
from distill.sampling.job import SamplingJob, engine_spec, sample_sets
from distill.sampling.loop import make_trace, run_sampling
from distill.sampling.sample_queue import SampleQueue
from distill.sampling.sets import Adaptive, SampleSet, in_order, num_wanted
from distill.storage.files import write_jsonl
from distill.storage.ledger import index_ledger, read_ledger

SHORT = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_tokens": 100}
LONG = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 9_000}
RIGHT, WRONG = "<think>\n2+2\n</think>\n\n\\boxed{4}", "<think>\n2+2\n</think>\n\n\\boxed{5}"


def make_set(problems, k=2, sampling=SHORT, **adaptive):
    row = {"problems": problems.split(), "samples_per_problem": k, "sampling": sampling}
    return row | ({"adaptive": adaptive} if adaptive else {})


def make_job(tmp_path, *sets, names="a b c d", **changes):
    problems = [Problem(name, [{"role": "user", "content": name}], "4", "math", "test") for name in names.split()]
    write_jsonl(tmp_path / "problems.jsonl", (p.to_json() for p in problems))
    fields = {
        "title": "test",
        "model_name": "fake/model",
        "model_path": "nowhere",
        "model_revision": "r1",
        "chat_format": None,
        "problems": str(tmp_path / "problems.jsonl"),
        "ledger": str(tmp_path / "ledger.jsonl"),
        "samples_per_problem": 1,
        "seed": 7,
        "sampling": {"max_tokens": 5},
        "compute": {},
        "sets": sets,
    }
    return SamplingJob(**(fields | changes))


def keys(tmp_path):
    return {t.key for t in read_ledger(tmp_path / "ledger.jsonl")}


def test_each_set_is_drawn_by_its_own_settings_the_longest_first(tmp_path, fake_engine):
    engine = fake_engine(["5"])
    job = make_job(tmp_path, make_set("a b", 1), make_set("d", 3, LONG))
    assert run_sampling(job, engine)["num_sampled"] == 5
    assert [r.key for r in engine.requests] == [("d", 0), ("d", 1), ("d", 2), ("a", 0), ("b", 0)]
    assert [r.sampling for r in engine.requests] == [Sampling(**LONG)] * 3 + [Sampling(**SHORT)] * 2
    traces = list(read_ledger(tmp_path / "ledger.jsonl"))
    assert {t.problem_id: t.sampling for t in traces} == {"d": LONG, "a": SHORT, "b": SHORT}


def test_without_sets_a_request_has_no_sampling_of_its_own_and_the_trace_that_of_the_job(tmp_path, fake_engine):
    engine = fake_engine(["5"])
    run_sampling(make_job(tmp_path, names="a"), engine)
    assert [r.sampling for r in engine.requests] == [None]
    assert [t.sampling for t in read_ledger(tmp_path / "ledger.jsonl")] == [{"max_tokens": 5}]


def test_a_resumed_call_draws_what_is_missing_of_each_set(tmp_path, fake_engine):
    job = make_job(tmp_path, make_set("a b", 2), make_set("c d", 4, LONG))
    with pytest.raises(KeyboardInterrupt):
        run_sampling(job, fake_engine(["5"], die_after=9))
    done = keys(tmp_path)
    assert 0 < len(done) < 12
    engine = fake_engine(["5"])
    run_sampling(SamplingJob(**json.loads(json.dumps(asdict(job)))), engine)
    wanted = {(name, i) for name, k in (("a", 2), ("b", 2), ("c", 4), ("d", 4)) for i in range(k)}
    assert {r.key for r in engine.requests} == wanted - done
    assert keys(tmp_path) == wanted
    assert run_sampling(job)["num_sampled"] == 0  # no engine: nothing is missing


def test_the_engine_starts_with_the_longest_sampling_that_is_still_asked_for(tmp_path):
    job = make_job(tmp_path, make_set("a b"), make_set("c", 2, LONG))
    problems = {name: Problem(name, [{"role": "user", "content": name}], "4", "math", "s") for name in "abcd"}
    assert engine_spec(job, problems, [("a", 0), ("c", 1)]).sampling == Sampling(**LONG)
    assert engine_spec(job, problems, [("a", 0), ("b", 1)]).sampling == Sampling(**SHORT)


def test_sets_of_equal_length_are_ordered_by_size():
    small, large = (SampleSet(tuple(names), 1, Sampling(**SHORT)) for names in ("x", "abc"))
    long = SampleSet(tuple("defgh"), 1, Sampling(**LONG))
    assert in_order([large, small, long]) == [long, small, large]


def test_a_shared_problem_is_drawn_once_with_the_larger_k(tmp_path, fake_engine):
    engine = fake_engine(["5"])
    job = make_job(tmp_path, make_set("a", 2), make_set("a b", 3))
    run_sampling(job, engine)
    assert sorted(r.key for r in engine.requests) == [(name, i) for name in "ab" for i in range(3)]
    assert num_wanted(sample_sets(job, "abcd")) == 6


@pytest.mark.parametrize("other", [make_set("a", 2, LONG), make_set("a", 2, width=0.1)])
def test_a_problem_cannot_be_in_two_sets_that_sample_it_differently(tmp_path, other):
    with pytest.raises(UserError, match="problem a is in two sets"):
        sample_sets(make_job(tmp_path, make_set("a b"), other, grade_timeout_s=9.0), "abcd")


def test_what_a_job_with_sets_cannot_have(tmp_path):
    for job, why in (
        (make_job(tmp_path, make_set("a z")), "not in .*'z'"),
        (make_job(tmp_path, make_set("a"), stop_after_correct=1), "stop_after_correct"),
        (make_job(tmp_path, make_set("a", width=0.1)), "needs grades"),
    ):
        with pytest.raises(ValueError, match=why):
            sample_sets(job, "abcd")


GRADED = {"grade_timeout_s": 20.0}


def narrow_after(num, seen=None):
    """A rule that is content once each problem has so many scores; what it was asked is kept in `seen`."""

    def is_narrow_enough(scores, width):
        if seen is not None:
            seen.append(([list(row) for row in scores], width))
        return min(map(len, scores)) >= num

    return is_narrow_enough


def test_an_adaptive_set_ends_after_the_wave_that_suffices_and_the_ledger_says_why(tmp_path, fake_engine):
    seen = []
    job = make_job(tmp_path, make_set("a b", 8, width=0.2, min_samples=2), **GRADED)
    engine = fake_engine([RIGHT, WRONG])
    run_sampling(job, engine, narrow_after(3, seen))
    assert keys(tmp_path) == {(name, i) for name in "ab" for i in range(3)}
    assert seen == [([[1.0, 0.0]] * 2, 0.2), ([[1.0, 0.0, 1.0]] * 2, 0.2)]
    skipped = index_ledger(tmp_path / "ledger.jsonl").skipped
    assert skipped.keys() == {(name, i) for name in "ab" for i in range(3, 8)}
    assert set(skipped.values()) == {"adaptive: 3 samples a problem already give an interval narrower than 0.2"}


def test_a_set_that_never_gets_narrow_has_all_its_samples(tmp_path, fake_engine):
    run_sampling(make_job(tmp_path, make_set("a b", 5, width=0.2), **GRADED), fake_engine([RIGHT]), narrow_after(99))
    assert keys(tmp_path) == {(name, i) for name in "ab" for i in range(5)}
    assert not index_ledger(tmp_path / "ledger.jsonl").skipped


def test_an_answer_that_has_no_grade_is_left_out_of_the_scores(tmp_path, fake_engine):
    """One prompt is refused, so its samples are errors; they hold nothing up and count as nothing."""
    seen = []
    job = make_job(tmp_path, make_set("a bb", 3, width=0.2, min_samples=1), names="a bb", **GRADED)
    problems = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    problems[1]["prompt"][0]["content"] = "too long"
    write_jsonl(tmp_path / "problems.jsonl", problems)
    run_sampling(job, fake_engine([RIGHT]), lambda scores, _: seen.append([*map(list, scores)]))
    assert seen == [[[1.0]], [[1.0, 1.0]]]


def test_without_any_grade_there_is_nothing_to_decide(tmp_path, fake_engine):
    def never(scores, width):
        raise AssertionError("asked about nothing")

    job = make_job(tmp_path, make_set("a", 3, width=0.2, min_samples=1), **GRADED)
    problems = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "problems.jsonl", [{**row, "answer": None} for row in problems])
    run_sampling(job, fake_engine([RIGHT]), never)
    assert keys(tmp_path) == {("a", i) for i in range(3)}


def test_the_samples_of_other_sets_are_drawn_while_a_wave_is_graded(tmp_path, fake_engine):
    engine = fake_engine([RIGHT])
    job = make_job(tmp_path, make_set("a", 4, LONG, width=0.2, min_samples=1), make_set("c d", 4), **GRADED)
    run_sampling(job, engine, narrow_after(99))
    first = [r.key for r in engine.requests][: engine.max_in_flight]
    assert first == [("a", 0), ("c", 0), ("c", 1)]
    assert len(keys(tmp_path)) == 12


@pytest.mark.parametrize("die_after", range(1, 8))
def test_a_killed_adaptive_set_ends_where_it_would_have_ended(tmp_path, fake_engine, die_after):
    sets = make_set("a b c", 6, width=0.2, min_samples=1), make_set("d", 1)
    job = make_job(tmp_path, *sets, **GRADED)
    with pytest.raises(KeyboardInterrupt):
        run_sampling(job, fake_engine([RIGHT, WRONG], die_after=die_after), narrow_after(3))
    run_sampling(job, fake_engine([RIGHT, WRONG]), narrow_after(3))
    assert keys(tmp_path) == {(name, i) for name in "abc" for i in range(3)} | {("d", 0)}
    run_sampling(job, None, narrow_after(3))  # no engine: the grades of what is stored say that it is enough


def test_a_stricter_width_goes_on_from_what_is_there(tmp_path, fake_engine):
    run_sampling(
        make_job(tmp_path, make_set("a b", 6, width=0.2, min_samples=1), **GRADED),
        fake_engine([RIGHT]),
        narrow_after(2),
    )
    engine = fake_engine([RIGHT])
    run_sampling(make_job(tmp_path, make_set("a b", 6, width=0.1, min_samples=1), **GRADED), engine, narrow_after(4))
    assert {r.key for r in engine.requests} == {(name, i) for name in "ab" for i in (2, 3)}


def test_the_counts_of_the_sets_add_up_to_those_of_the_call(fake_engine):
    sets = [SampleSet(("a",), 4, Sampling(**LONG)), SampleSet(("b", "c"), 3, Sampling(**SHORT))]
    queue, engine = SampleQueue(sets, {("b", 0)}), fake_engine([""])
    counts, engine.max_in_flight = CallCounts(sets, queue), 6
    job = SamplingJob("t", "m", "m", "r", None, "p", "l", 1, 1, {}, {})
    for _ in range(6):
        key = queue.pop()
        counts.request(queue.set_of[key[0]])
        engine.submit(Request(key, [{"role": "user", "content": "?"}], 0))
    for text, reason in (("1 2 3", "stop"), ("", "error")):
        (done,) = engine.step()
        trace = make_trace(job, replace(done, text=text, finish_reason=reason, num_completion_tokens=len(text.split())))
        counts.add(queue.set_of[done.key[0]], trace)
    engine.__class__ = type("Known", (fake_engine,), {"num_tokens_in_flight": 400})
    drawn = counts.drawn(engine)
    assert drawn == Drawn(1, 1, 3, 4, 400, 3)
    parts = counts.drawn_by_set(drawn)
    assert parts == [(Drawn(0, 0, 0, 4, 400, 0), 9_000), (Drawn(1, 1, 3, 0, 0, 3), 100)]


samples = st.integers(1, 5)


@given(
    ks=st.lists(samples, min_size=1, max_size=4),
    first=samples,
    enough=st.integers(1, 6),
    done=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 4))),
    order=st.randoms(use_true_random=False),
)
def test_in_whatever_order_grades_come_each_sample_is_asked_for_or_needless(ks, first, enough, done, order):
    """Set i has two problems and k samples of each; grades arrive in any order, each some time after its request."""
    sets = [
        SampleSet((f"{i}x", f"{i}y"), k, Sampling(max_tokens=10 - i), Adaptive(0.1, first)) for i, k in enumerate(ks)
    ]
    stored = {(f"{i}{c}", index) for i, index in done for c in "xy" if i < len(ks) and index < ks[i]}
    queue = SampleQueue(sets, stored, None, narrow_after(enough))
    queue.settle_ungraded(())
    flying, asked, needless = sorted(stored), [], []
    for _ in range(200):
        if (key := queue.pop()) is not None and order.random() < 0.9:
            asked.append(key)
            flying.append(key)
        elif key is not None:
            asked.append(key)
            queue.settle(key, correct=True)
        if flying and (order.random() < 0.5 or key is None):
            queue.settle(flying.pop(order.randrange(len(flying))), correct=True)
        needless += [key for key, _ in queue.take_needless()]
    assert not flying
    assert len(queue) == 0
    everything = [(name, i) for one in sets for name in one.problems for i in range(one.samples_per_problem)]
    assert sorted([*asked, *needless, *stored]) == sorted(everything)
    for one in sets:
        num = min(one.samples_per_problem, max(enough, min(first, one.samples_per_problem)))
        assert {(name, i) for name in one.problems for i in range(num)} <= {*asked, *stored}
        assert {(name, i) for name in one.problems for i in range(num, one.samples_per_problem)} <= {
            *needless,
            *stored,
        }
