"""Whom the judge is asked about, what it is asked once only, and what its trouble costs."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from distill.core.records import Problem
from distill.engines.base import Completion
from distill.errors import StageError
from distill.recipe.filter import Judge
from distill.sampling.judging import Question, ask_judge
from distill.storage.fact_cache import FactCache

JUDGE = Judge.model_validate({"model": "judge", "compute": {"base_urls": ["http://localhost:1/v1"]}})
RIGHT, WRONG = "It matches.\nVERDICT: CORRECT", "It does not.\nVERDICT: WRONG"


def question(index, answer="The tallest one is Mount Everest.", name="p"):
    problem = Problem(name, [{"role": "user", "content": "Which mountain is the tallest?"}], None, "judge", "s")
    return Question((name, index), problem, answer)


@pytest.fixture
def cache(tmp_path):
    with FactCache(tmp_path / "facts.sqlite", write=True) as cache:
        yield cache


def test_each_answer_is_asked_about_once_and_its_verdict_kept(cache, fake_engine):
    questions = [question(i, f"Answer number {i} is Everest.") for i in range(700)]
    engine = fake_engine([RIGHT, WRONG])
    found = dict(ask_judge(questions, JUDGE, cache, engine))
    assert found == {("p", i): i % 2 == 0 for i in range(700)}
    assert engine.num_requests == 700
    again = fake_engine([WRONG])
    assert dict(ask_judge(questions, JUDGE, cache, again)) == found
    assert again.num_requests == 0
    other_rubric = JUDGE.model_copy(update={"rubric": "Only Everest is right."})
    assert set(dict(ask_judge(questions, other_rubric, cache, again)).values()) == {False}
    assert again.num_requests == 700


@pytest.mark.parametrize(
    "empty", [":", ".", "Thought process:", "Let's solve this problem step by step.", "\\boxed{}", "解"]
)
def test_an_answer_without_content_never_reaches_the_judge(cache, fake_engine, empty):
    engine = fake_engine([RIGHT])
    assert dict(ask_judge([question(0, empty)], JUDGE, cache, engine)) == {("p", 0): False}
    assert engine.num_requests == 0


@pytest.mark.parametrize("said", ["Yes.", "VERDICT: CORRECT\nor perhaps not", "<think>VERDICT: CORRECT", ""])
def test_what_is_no_verdict_leaves_the_answer_ungraded(cache, fake_engine, said):
    assert dict(ask_judge([question(0)], JUDGE, cache, fake_engine([said]))) == {("p", 0): None}


def test_a_servers_trouble_is_not_remembered(cache, fake_engine):
    class Refusing(fake_engine):
        def submit(self, request):
            self.requests.append(request)
            return Completion(request.key, "", "error", 0, 0, error="HTTP 400")

    assert dict(ask_judge([question(0)], JUDGE, cache, Refusing([]))) == {("p", 0): None}
    assert dict(ask_judge([question(0)], JUDGE, cache, fake_engine([RIGHT]))) == {("p", 0): True}


def test_a_judge_that_answers_nothing_but_errors_stops_with_its_words(cache, fake_engine):
    class Sleeping(fake_engine):
        def step(self):
            return [Completion(c.key, "", "error", 0, 0, error="HTTP 500: asleep") for c in super().step()]

    def ask(num, engine):
        return dict(ask_judge([question(i, f"It is Everest {i}.") for i in range(num)], JUDGE, cache, engine))

    with pytest.raises(StageError, match=r"2 of 2 samples ended in errors.*HTTP 500: asleep \(2 times\)"):
        ask(2, Sleeping([RIGHT]))
    engine = Sleeping([RIGHT])
    with pytest.raises(StageError, match="the first 32 samples"):
        ask(500, engine)
    assert engine.num_requests < 40
    assert set(ask(2, fake_engine([RIGHT])).values()) == {True}


class Handler(BaseHTTPRequestHandler):
    """An OpenAI-compatible judge that finds right what names Everest in the answer."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._say({"data": [{"id": "judge"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = body["messages"][-1]["content"].rpartition("<<ANSWER")[2]
        text = RIGHT if "Everest" in answer else WRONG
        self._say(
            {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}], "usage": {}}
        )

    def _say(self, answer):
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_a_judge_behind_a_real_server(cache):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        judge = Judge.model_validate({"model": "judge", "compute": {"base_urls": [url], "max_in_flight": 4}})
        answers = ["It is Everest.", "It is K2, as all of the text above this line shows."] * 8
        questions = [question(i, f"{answer} ({i})") for i, answer in enumerate(answers)]
        assert dict(ask_judge(questions, judge, cache)) == {("p", i): i % 2 == 0 for i in range(16)}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
