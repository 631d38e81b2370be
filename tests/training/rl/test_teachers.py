"""Teachers of on-policy distillation: whose tokens are the student's, and what a server is asked and may answer."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.errors import ModelError, StageError
from distill.models.tokenizers import check_same_tokens
from distill.recipe.sampling import SamplingCompute
from distill.training.rl import teachers
from distill.training.rl.rollouts import Rollout
from distill.training.rl.teachers import LocalTeacher, ServedTeacher, start_teachers

COMPUTE = SamplingCompute(request_timeout_s=5, api_key_env="TEACHER_KEY")


class Words:
    """A tokenizer of whole words."""

    def __init__(self, *words):
        self.words = words

    def get_vocab(self):
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self):
        return len(self.words)

    def decode(self, ids, skip_special_tokens=True):
        return " ".join(self.words[one] for one in ids)


STUDENT = Words("a", "b", "c")


def test_a_teacher_may_have_more_tokens_and_no_other_ones():
    check_same_tokens(Words("a", "b", "c", "<pad>"), STUDENT, "org/big")
    with pytest.raises(ModelError, match=r"org/big has another tokenizer .* token 1 is 'x' there and 'b' here"):
        check_same_tokens(Words("a", "x", "c"), STUDENT, "org/big")
    with pytest.raises(
        ModelError, match=r"token 2 is None there and 'c' here. Choose a teacher of the student's family"
    ):
        check_same_tokens(Words("a", "b"), STUDENT, "org/small")


class Server:
    """Answers as vLLM does: /v1/completions with prompt log-probabilities, /detokenize with texts."""

    def __init__(self):
        self.words, self.asked, self.failures, self.status = STUDENT.words, [], 0, 500
        self.logprobs, self.more = True, {}

    def answer(self, path, body, headers):
        self.asked.append((path, body, headers.get("Authorization")))
        if self.failures:
            self.failures -= 1
            return self.status, {"error": "busy"}
        if path == "/detokenize":
            return 200, {"prompt": " ".join(self.words[one] for one in body["tokens"])}
        # As vLLM: nothing for the first token, and the token's own entry for each other one.
        told = [None, *(self.more | {str(one): {"logprob": -one / 10, "rank": 1}} for one in body["prompt"][1:])]
        return 200, {"choices": [{"prompt_logprobs": told} if self.logprobs else {"text": "b"}]}


@pytest.fixture
def served(monkeypatch):
    """A server, and its URL."""
    monkeypatch.setattr(teachers, "WAITS_S", (0.0, 0.0, 0.0))
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, told = server.answer(self.path, body, self.headers)
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *ignored):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield server, f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    http.server_close()
    thread.join()


def rollout(prompt_ids, ids):
    return Rollout(0, 0, 0, 0, "p", 0, 0, "x", prompt_ids=prompt_ids, ids=ids)


def test_a_server_tells_the_log_probabilities_of_the_answers_alone(served, monkeypatch):
    server, url = served
    monkeypatch.setenv("TEACHER_KEY", "secret")
    (teacher,) = start_teachers([{"name": "big", "url": url, "path": None}], STUDENT, COMPUTE)
    assert teacher.log_probs([rollout([0, 1], [2, 1]), rollout([2], [1])], [[0, 1], [2]]) == [[-0.2, -0.1], [-0.1]]
    assert [path for path, _, _ in server.asked] == ["/detokenize", "/v1/completions", "/v1/completions"]
    assert {key for _, _, key in server.asked} == {"Bearer secret"}
    asked = next(body for path, body, _ in server.asked if path == "/v1/completions" and len(body["prompt"]) == 4)
    assert asked == {"model": "big", "prompt": [0, 1, 2, 1], "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}


def test_a_server_with_other_tokens_or_that_does_not_tell_them_is_refused(served):
    server, url = served
    server.words = ("a", "x", "c")
    with pytest.raises(ModelError, match=r"big at .* has another tokenizer than the student: tokens 0 to 2 are other"):
        ServedTeacher(url, "big", STUDENT, COMPUTE)
    server.failures, server.status = 1, 404
    with pytest.raises(ModelError, match="does not tell its tokens"):
        ServedTeacher(url, "big", STUDENT, COMPUTE)
    assert len(server.asked) == 2  # a refusal is not asked again


def test_a_server_without_prompt_log_probabilities_is_named(served):
    server, url = served
    server.logprobs = False
    with pytest.raises(StageError, match="gave no prompt log-probabilities"):
        ServedTeacher(url, "big", STUDENT, COMPUTE).log_probs([rollout([0], [1])], [[0]])


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_fails_for_a_while_is_asked_again(served, status):
    server, url = served
    teacher = ServedTeacher(url, "big", STUDENT, COMPUTE)
    server.failures, server.status = 3, status
    assert teacher.log_probs([rollout([0], [1])], [[0]]) == [[-0.1]]
    server.failures = 4
    with pytest.raises(StageError, match=rf"does not answer: HTTP Error {status}.*The same command goes on"):
        teacher.log_probs([rollout([0], [1])], [[0]])


def test_a_server_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(teachers, "WAITS_S", (0.0,))
    with pytest.raises(ModelError, match="does not tell its tokens"):
        start_teachers([{"name": "big", "url": "http://127.0.0.1:9/v1", "path": None}], STUDENT, COMPUTE)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize(
    "prompts",
    [
        pytest.param([[5, 6, 7], [5], [5, 6, 7]], id="by prompt"),
        pytest.param([[5, 6, 7, 8, 9, 3], [5, 6, 7, 8, 9, 4, 4], [5, 6, 7, 8, 9, 3]], id="all begin alike"),
    ],
)
def test_a_teacher_on_this_machine_agrees_with_its_own_softmax(tiny_llama, packs, prompts):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    # The student's own prompt is another one.
    answers = [rollout([1], [8, 9, 10]), rollout([1], [11]), rollout([1], [12, 13])]
    teacher = LocalTeacher(tiny_llama, "tiny", tokenizer)
    assert teacher._packs
    teacher._packs = packs
    found = teacher.log_probs(answers, prompts)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    whole = []
    for one, prompt, told in zip(answers, prompts, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + one.ids])).logits[0]
        rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
        whole.append(rows)
        expected = [float(row[token]) for row, token in zip(rows, one.ids, strict=True)]
        assert told == pytest.approx(expected, abs=1e-4)
        assert all(math.isfinite(value) and value < 0 for value in told)
    # Against a student that finds every token as likely as any other.
    rows = torch.cat(whole)
    even = torch.full_like(rows, -math.log(rows.shape[1]))
    told = teacher.targets(answers, prompts).divergence(even, slice(0, 6), "forward")
    torch.testing.assert_close(told, (rows.exp() * (rows - even)).sum(-1), atol=1e-4, rtol=1e-4)


def test_a_teacher_with_other_tokens_is_not_loaded(tiny_llama):
    with pytest.raises(ModelError, match=r"rl.teachers: tiny has another tokenizer than the student"):
        LocalTeacher(tiny_llama, "tiny", STUDENT)


def test_a_served_teacher_tells_its_likeliest_tokens(served):
    server, url = served
    teacher = ServedTeacher(url, "big", STUDENT, COMPUTE)
    server.more = {"0": {"logprob": -3.0, "rank": 2}}
    targets = teacher.targets([rollout([0, 1], [2, 1]), rollout([2], [2])], [[0, 1], [2]])
    assert [body["prompt_logprobs"] for path, body, _ in server.asked if path == "/v1/completions"] == [20, 20]
    # Of three tokens it tells two each time, so that the third is all others together.
    expected = []
    for own in (-0.2, -0.1, -0.2):
        told = [own, -3.0, math.log(1 - math.exp(own) - math.exp(-3.0))]
        expected.append(sum(math.exp(one) * (one + math.log(3)) for one in told))
    even = torch.full((3, 3), -math.log(3))
    assert targets.divergence(even, slice(0, 3), "forward").tolist() == pytest.approx(expected, rel=1e-4)
