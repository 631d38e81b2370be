import json

import pytest

from distill.ledger import read_ledger
from distill.records import Problem
from distill.sampling import SamplingJob, missing_requests, run_sampling, sample_seed
from distill.store import write_jsonl

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


def test_a_seed_follows_from_identity_not_position(tmp_path):
    forward = missing_requests(job(tmp_path, []), [problem(1), problem(2)], set())
    backward = missing_requests(job(tmp_path, []), [problem(2), problem(1)], {("p2", 0)})
    seeds = {r.key: r.seed for r in forward}
    assert all(seeds[r.key] == r.seed for r in backward)
    assert len(set(seeds.values())) == 4
    assert all(0 <= sample_seed(s, ("p", 0)) < 2**31 for s in range(100))


def test_the_teacher_sees_its_system_prompt_and_examples(tmp_path):
    shown = job(tmp_path, [], system="Think.", examples=(("1+1?", "one and one", "2"),))
    (request, _) = missing_requests(shown, [problem(1)], set())
    assert [m["role"] for m in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[2]["content"] == "<think>\none and one\n</think>\n\n2"
    assert request.messages[-1]["content"] == "What is 1?"


def test_a_job_survives_the_way_through_json(tmp_path):
    from dataclasses import asdict

    shown = job(tmp_path, [], examples=(("q", "r", "a"),))
    again = SamplingJob(**json.loads(json.dumps(asdict(shown))))
    assert missing_requests(again, [problem(1)], set()) == missing_requests(shown, [problem(1)], set())
