"""Any question to a judge: what is kept, what is asked again, and why there is no verdict."""

import pytest

from distill.engines.base import Completion
from distill.engines.server_answers import read_answer
from distill.errors import StageError
from distill.grading.comparisons import comparison_messages, mean_preference, short_answer_messages
from distill.recipe.filter import Judge
from distill.sampling.judging import Answer, Asked, ask, comparison_reading
from distill.storage.fact_cache import FactCache

JUDGE = Judge.model_validate(
    {"model": "judge", "compute": {"base_urls": ["http://localhost:1/v1"], "max_error_share": 1.0}}
)
CORRECT, NOT_ATTEMPTED = "It matches.\nVERDICT: CORRECT", "It says that it does not know.\nVERDICT: NOT_ATTEMPTED"
NONSENSE, REFUSAL = "A nice day, is it not?", "I'm sorry, but I can't help with that."
SHORT = comparison_reading("short_answer")


def asked(index, answer="Paris"):
    return Asked(("q", index), short_answer_messages(f"Capital of France? ({index})", "Paris", answer))


@pytest.fixture
def cache(tmp_path):
    with FactCache(tmp_path / "facts.sqlite", write=True) as cache:
        yield cache


def ending(fake_engine, **completion):
    """An engine whose every request ends in an error."""

    class Failing(fake_engine):
        def step(self):
            return [Completion(c.key, "", "error", 0, 0, **completion) for c in super().step()]

    return Failing([CORRECT])


def test_each_question_is_asked_once_and_its_answer_kept(cache, fake_engine):
    questions = [asked(index) for index in range(600)]
    engine = fake_engine([CORRECT, NOT_ATTEMPTED, NONSENSE, REFUSAL])
    found = dict(ask(questions, JUDGE, cache, SHORT, engine))
    expected = [Answer("correct"), Answer("not_attempted"), Answer(None, "nonsense"), Answer(None, "refused")]
    assert found == {("q", index): expected[index % 4] for index in range(600)}
    again = fake_engine([CORRECT])
    assert dict(ask(questions, JUDGE, cache, SHORT, again)) == found
    assert again.num_requests == 0


def test_what_has_no_verdict_is_asked_again_on_request(cache, fake_engine):
    questions = [asked(index) for index in range(4)]
    dict(ask(questions, JUDGE, cache, SHORT, fake_engine([CORRECT, NOT_ATTEMPTED, NONSENSE, REFUSAL])))
    again = fake_engine([CORRECT])
    found = dict(ask(questions, JUDGE, cache, SHORT, again, retry_errors=True))
    assert [found["q", index].verdict for index in range(4)] == ["correct", "not_attempted", "correct", "correct"]
    assert {request.key for request in again.requests} == {("q", 2), ("q", 3)}
    assert dict(ask(questions, JUDGE, cache, SHORT, again)) == found


def test_a_known_verdict_is_not_asked_for(cache, fake_engine):
    engine = fake_engine([CORRECT])
    found = dict(ask([Asked(("q", 0), [], known="not_attempted")], JUDGE, cache, SHORT, engine))
    assert found == {("q", 0): Answer("not_attempted")}
    assert engine.num_requests == 0


def test_another_kind_of_reading_or_other_labels_are_another_question(cache, fake_engine):
    engine = fake_engine(["A"])
    assert dict(ask([asked(0)], JUDGE, cache, SHORT, engine)) == {("q", 0): Answer(None, "nonsense")}
    letters = comparison_reading("short_answer", {"A": "correct", "B": "incorrect", "C": "not_attempted"})
    assert dict(ask([asked(0)], JUDGE, cache, letters, engine)) == {("q", 0): Answer("correct")}
    assert dict(ask([asked(0)], JUDGE, cache, comparison_reading("arena"), engine)) == {
        ("q", 0): Answer(None, "nonsense")
    }
    assert engine.num_requests == 3


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        ({"error": "no answer in 600 s (5 times)"}, "error"),
        ({"error": "HTTP 500: asleep"}, "error"),
        ({"error": "finish_reason is content_filter", "is_refusal": True}, "refused"),
    ],
)
def test_a_failure_of_the_server_is_no_verdict_and_is_asked_again(cache, fake_engine, completion, why):
    questions = [asked(index) for index in range(50)]
    found = dict(ask(questions, JUDGE, cache, SHORT, ending(fake_engine, **completion)))
    assert found == {("q", index): Answer(None, why) for index in range(50)}
    engine = fake_engine([CORRECT])
    assert set(dict(ask(questions, JUDGE, cache, SHORT, engine)).values()) == {Answer("correct")}
    assert engine.num_requests == 50


def test_too_many_failures_stop_the_call_if_the_recipe_says_so(cache, fake_engine):
    strict = JUDGE.model_copy(update={"compute": JUDGE.compute.model_copy(update={"max_error_share": 0.5})})
    with pytest.raises(StageError, match="HTTP 500"):
        dict(ask([asked(0), asked(1)], strict, cache, SHORT, ending(fake_engine, error="HTTP 500")))


def test_two_games_of_equal_answers_share_one_verdict_and_come_out_even(cache, fake_engine):
    reading = comparison_reading("preference")
    games = [Asked(("q", n), comparison_messages("preference", "Hi", "Hello", "Hello", bool(n))) for n in range(2)]
    engine = fake_engine(["VERDICT: FIRST"])
    for _ in range(2):
        found = dict(ask(games, JUDGE, cache, reading, engine))
        assert mean_preference(found["q", 0].verdict, found["q", 1].verdict) == 1.5
    assert engine.num_requests == 2


@pytest.mark.parametrize(
    ("reason", "is_refusal"), [("content_filter", True), ("refusal", True), ("stop", False), ("length", False)]
)
def test_a_server_that_declines_says_so(reason, is_refusal):
    payload = {"choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": reason}]}
    assert read_answer(("q", 0), payload).is_refusal is is_refusal
