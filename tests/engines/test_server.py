"""The server engine against real HTTP servers on loopback that answer, stall, break off and die as scripted."""

import asyncio
import contextlib
import json
import resource
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.thinking import split_reasoning
from distill.engines import server, server_pool
from distill.engines.base import Completion, EngineSpec, Request
from distill.engines.server import ServerEngine
from distill.engines.server_answers import (
    RedirectedError,
    TroubleError,
    read_answer,
    refuse_other_server,
    repetition_detection,
    retry_after_s,
    told_status,
    unknown_finish_reason,
)
from distill.errors import DistillError, ModelError, StageError
from distill.recipe.sampling import LoopStop, Sampling, SamplingCompute

CANARY = "sk-canary-4242"
MODEL = "org/teacher"


def reply(content: Any = "4", finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion as a server sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def refusal(status: int, message: str, headers: dict[str, str] | None = None, **error: Any) -> web.Response:
    return web.json_response({"error": {"message": message, **error}}, status=status, headers=headers)


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


class FakeServer:
    """An OpenAI-compatible server in a thread; `script` makes of each request's body a response or a payload.

    The engine's own probes (they say "Hi") go through the script too, but are not among `asked`.
    """

    def __init__(self, script: Callable[[dict[str, Any]], Any] = lambda body: reply(), **model: Any) -> None:
        self.script = script
        self.models: Any = {"data": [{"id": MODEL, "owned_by": "fake", **model}]}
        self.asked: list[dict[str, Any]] = []
        self.authorizations: set[str | None] = set()
        self.num_open = self.peak = self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        """End at once: open connections are reset."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()

    def _run(self, started: threading.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        self._ended = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._list)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True, backlog=4096)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        started.set()
        await self._ended.wait()
        for connection in list(runner.server.connections):  # type: ignore[union-attr]
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def _list(self, request: web.Request) -> web.StreamResponse:
        return await self._respond(request, self.models)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.authorizations.add(request.headers.get("Authorization"))
        body = await request.json()
        if question(body) != "Hi":
            self.asked.append(body)
        self.num_open += 1
        self.peak = max(self.peak, self.num_open)
        try:
            return await self._respond(request, self.script(body))
        finally:
            self.num_open -= 1

    async def _respond(self, request: web.Request, made: Any) -> web.StreamResponse:
        if asyncio.iscoroutine(made):
            made = await made
        if made == "reset in mid-body":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"choices": [')
            request.transport.abort()  # type: ignore[union-attr]
            return response
        if isinstance(made, str):
            return web.Response(text=made, content_type="text/html")
        return made if isinstance(made, web.StreamResponse) else web.json_response(made)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of hundredths of a second, a key that must not be seen, and no proxy."""
    monkeypatch.setattr(server_pool, "COOL_DOWN_S", 0.05)
    monkeypatch.setattr(server_pool, "MAX_COOL_DOWN_S", 0.2)
    monkeypatch.setattr(server, "BACKOFF_S", 0.02)
    monkeypatch.setattr(server, "MAX_BACKOFF_S", 0.1)
    monkeypatch.setattr(server, "PROBE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(server, "LOOK_TIMEOUT_S", 2.0)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    servers = []

    def make(*args: Any, **kwargs: Any) -> FakeServer:
        servers.append(FakeServer(*args, **kwargs))
        return servers[-1]

    yield make
    for fake in servers:
        fake.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., ServerEngine]]:
    engines = []

    def make(*servers: FakeServer | str, spec: dict[str, Any] | None = None, **compute: Any) -> ServerEngine:
        engines.append(ServerEngine(make_spec(*servers, spec=spec, **compute)))
        return engines[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield make
        for engine in engines:
            engine.close()


def make_spec(*servers: FakeServer | str, spec: dict[str, Any] | None = None, **compute: Any) -> EngineSpec:
    urls = [s if isinstance(s, str) else s.url for s in servers]
    fields: dict[str, Any] = {"sampling": Sampling(max_tokens=64), "model_name": MODEL} | (spec or {})
    compute = {"give_up_after_s": 20.0, "request_timeout_s": 20.0} | compute
    return EngineSpec(
        model_path=Path(),
        compute=SamplingCompute(base_urls=urls, **compute),
        chat_format=None,
        longest_messages=[],
        **fields,
    )


def ask(text: str, index: int = 0) -> Request:
    return Request((text, index), [{"role": "user", "content": text}], seed=1_000 + index)


def drain(engine: ServerEngine, requests: list[Request], limit_s: float = 20.0) -> list[Completion]:
    """All answers, with the engine kept full, as sampling does it."""
    waiting, finished, deadline = list(reversed(requests)), [], time.monotonic() + limit_s
    while waiting or engine.num_in_flight:
        while waiting and engine.num_in_flight < engine.max_in_flight:
            assert engine.submit(waiting.pop()) is None
        finished += engine.step()
        assert time.monotonic() < deadline, f"{len(finished)} of {len(requests)} answered"
    return finished


def questions(num: int) -> list[Request]:
    return [ask(f"q{i}", i) for i in range(num)]


def assert_each_answered_once(completions: list[Completion], requests: list[Request]) -> None:
    assert Counter(c.key for c in completions) == Counter(r.key for r in requests)
    assert {c.finish_reason for c in completions} == {"stop"}


def test_request_carries_sampling_and_answer_comes_back(serve, connect):
    fake = serve(lambda body: reply(f"seed {body['seed']}"))
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=20, max_tokens=33)
    extra = {"chat_template_kwargs": {"enable_thinking": True}}
    engine = connect(fake, spec={"sampling": sampling, "extra_body": extra})
    by_key = {c.key: c for c in drain(engine, questions(5))}
    assert by_key[("q3", 3)] == Completion(("q3", 3), "seed 1003", "stop", 7, 3)
    body = next(b for b in fake.asked if question(b) == "q3")
    assert body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "q3"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 20,
        "max_tokens": 33,
        "seed": 1003,
        "chat_template_kwargs": {"enable_thinking": True},
    }
    assert fake.authorizations == {f"Bearer {CANARY}"}
    assert engine.settings["name"] == "server"
    assert engine.settings["servers"] == [{"url": fake.url, "owned_by": "fake"}]
    assert CANARY not in json.dumps(engine.settings)


def test_a_request_may_have_a_sampling_of_its_own(serve, connect):
    fake = serve(lambda body: reply("4"))
    engine = connect(fake, spec={"sampling": Sampling(temperature=0.7, top_k=20, max_tokens=90)})
    own = replace(ask("own"), sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=8))
    assert len(drain(engine, [own, ask("engine's")])) == 2
    names = ("temperature", "top_p", "top_k", "max_tokens")
    sent = {question(body): [body.get(name) for name in names] for body in fake.asked}
    assert sent == {"own": [0.0, 1.0, None, 8], "engine's": [0.7, 0.95, 20, 90]}


def test_without_a_key_a_dummy_is_sent(serve, connect, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    fake = serve()
    drain(connect(fake), questions(1))
    assert fake.authorizations == {"Bearer EMPTY"}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "4", "reasoning": "2 + 2"},
        {"content": "4", "reasoning_content": "2 + 2"},
        {"content": "<think>\n2 + 2\n</think>\n\n4"},
        {"content": "2 + 2\n</think>\n\n4"},
        {"content": "<think>2 + 2</think>4", "reasoning": "2 + 2"},
    ],
)
def test_thinking_is_found_in_whichever_field_it_comes(serve, connect, message):
    [completion] = drain(connect(serve(lambda body: reply(**message))), questions(1))
    assert split_reasoning(completion.text) == ("2 + 2", "4", "closed")


@pytest.mark.parametrize(("finish", "reason"), [("length", "length"), ("repetition", "loop")])
def test_thought_that_was_cut_off_stays_open(finish, reason):
    completion = read_answer(("q", 0), reply(None, finish, reasoning="2 + 2 + 2"))
    assert completion.finish_reason == reason
    assert split_reasoning(completion.text) == ("2 + 2 + 2", "", "unclosed")


def test_text_can_always_be_stored(serve, connect):
    raw = json.dumps(reply("PLACE")).replace("PLACE", r"a\ud83d\ude00b\ud83dc")
    [completion] = drain(connect(serve(lambda body: web.Response(text=raw))), questions(1))
    assert completion.text == "a\N{GRINNING FACE}b\N{REPLACEMENT CHARACTER}c"
    split = read_answer(("q", 0), reply("\ud83d" + "\ude00"))
    assert split.text == "\N{GRINNING FACE}"


def test_other_finish_reasons_are_errors_with_that_reason(serve, connect):
    [completion] = drain(connect(serve(lambda body: reply("", "content_filter"))), questions(1))
    assert completion.finish_reason == "error"
    assert "content_filter" in completion.error


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]},
                     {"type": "text", "text": "4"}]},
        {"content": [{"type": "reasoning", "text": "2 + 2"}, {"type": "text", "text": "4"}]},
        {"content": {"parts": [{"text": "2 + 2", "thought": True}, {"text": "4"}]}},
        {"content": ["4"], "reasoning_details": [{"type": "reasoning.text", "text": "2 + 2"}]},
        {"content": "<thought>2 + 2</thought>4"},
        {"content": "[THINK]2 + 2[/THINK]4"},
    ],
)  # fmt: skip
def test_parts_and_other_marks(message):
    completion = read_answer(("q", 0), reply(**message))
    assert completion.finish_reason == "stop"
    assert split_reasoning(completion.text) == ("2 + 2", "4", "closed")


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("eos_token", "stop"), ("end_turn", "stop"), ("STOP", "stop"), ("", "stop"), (None, "stop"),
     ({"type": "stop"}, "stop"), ("MAX_TOKENS", "length"), ("max_tokens", "length"), ("SAFETY", "error"),
     ("tool_calls", "error"), ("wandered_off", "stop")],
)  # fmt: skip
def test_finish_reasons_of_all_servers(serve, connect, finish, reason):
    engine = connect(serve(lambda body: reply("4", finish)))
    [completion] = drain(engine, questions(1))
    assert completion.finish_reason == reason
    assert completion.error == (f"finish_reason is {finish}" if reason == "error" else "")
    unknown = {"wandered_off": 1} if finish == "wandered_off" else None
    assert engine.settings.get("unknown_finish_reasons") == unknown


@pytest.mark.parametrize("finish", [None, "", "wandered_off"])
def test_an_answer_that_fills_its_tokens_was_cut_off_where_no_known_reason_says_otherwise(finish):
    payload = reply("4", finish) | {"usage": {"prompt_tokens": 7, "completion_tokens": 64}}
    assert read_answer(("q", 0), payload, max_tokens=64).finish_reason == "length"
    assert read_answer(("q", 0), payload, max_tokens=65).finish_reason == "stop"


def test_a_finish_reason_under_another_name():
    payload = reply("4")
    choice = payload["choices"][0]
    choice["stop_reason"] = choice.pop("finish_reason") and "max_tokens"
    assert read_answer(("q", 0), payload).finish_reason == "length"
    assert read_answer(("q", 0), {"choices": [{"text": "4", "finish_reason": "eos"}]}).text == "4"


@pytest.mark.parametrize(
    "payload",
    [
        {"content": [{"type": "thinking", "thinking": "2 + 2"}, {"type": "text", "text": "4"}],
         "stop_reason": "end_turn", "usage": {"input_tokens": 7, "output_tokens": 3}},
        {"candidates": [{"content": {"parts": [{"text": "2 + 2", "thought": True}, {"text": "4"}], "role": "model"},
                         "finishReason": "STOP"}],
         "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3}},
        {"message": {"role": "assistant", "content": "4", "thinking": "2 + 2"}, "done_reason": "stop",
         "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
    ],
    ids=["Anthropic", "Google", "Ollama"],
)  # fmt: skip
def test_answers_in_the_servers_own_api(payload):
    completion = read_answer(("q", 0), payload)
    assert completion == Completion(("q", 0), "<think>\n2 + 2\n</think>\n\n4", "stop", 7, 3)


@pytest.mark.parametrize("message", [{}, {"message": None}])
def test_a_choice_without_a_message_has_its_reason(message):
    assert (
        read_answer(("q", 0), {"choices": [{**message, "finish_reason": "SAFETY"}]}).error == "finish_reason is SAFETY"
    )
    assert read_answer(("q", 0), {"choices": [{**message, "finish_reason": "length"}]}).finish_reason == "length"


@pytest.mark.parametrize(
    ("message", "finish", "said"),
    [
        ({"refusal": "I cannot help with that."}, "content_filter", "content_filter: I cannot help with that."),
        ({"content": [{"type": "image_url"}]}, "stop", "the answer holds a part of type 'image_url'"),
        ({"content": [{"type": "tool_use", "input": {}}]}, "tool_use", "finish_reason is tool_use"),
    ],
)
def test_no_answer_has_the_servers_words(message, finish, said):
    payload = reply(message.pop("content", None), finish, **message)
    completion = read_answer(("q", 0), payload)
    assert completion.finish_reason == "error"
    assert said in completion.error
    assert completion.num_completion_tokens == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "model is sleeping", "type": "server_error"}}, "with an error: model is sleeping"),
        ({"error": "model is sleeping"}, "model is sleeping"),
        ({"choices": None, "error": {"detail": "model is sleeping"}}, "model is sleeping"),
        ({"choices": [], "message": "model is sleeping"}, "model is sleeping"),
        ({"object": "error", "message": "model is sleeping", "code": 50001}, "model is sleeping"),
        ({"detail": [{"msg": "model is sleeping"}]}, "model is sleeping"),
        ({"base_resp": {"status_code": 1002, "status_msg": "model is sleeping"}}, "model is sleeping"),
        ({"choices": [{"error": {"message": "model is sleeping"}, "finish_reason": "error"}]}, "model is sleeping"),
        ({"choices": [{"message": {"content": "x"}, "error": {"message": "model is sleeping"}}]}, "model is sleeping"),
        ("<!doctype html><html><head><title>Model is sleeping</title></head><body>x</body></html>",
         "the answer is not JSON: Model is sleeping"),
        ("<html><style>x{}</style><h1>Model</h1> is sleeping</html>", "the answer is not JSON: Model is sleeping"),
        ("model is sleeping", "the answer is not JSON: model is sleeping"),
        ('{"choices": [{"mess', 'the answer is not JSON: {"choices": [{"mess'),
        ({"choices": []}, "not a chat completion"),
        ([], "not a chat completion"),
        (None, "not a chat completion"),
        (reply(None, None), "the answer is empty and has no finish_reason"),
        (reply("", ""), "the answer is empty and has no finish_reason"),
    ],
    ids=range(18),
)  # fmt: skip
def test_an_error_with_status_200_is_told_in_the_servers_words(serve, connect, body, said):
    fake = serve(lambda asked: web.json_response(None) if body is None else body)
    engine = connect(fake, max_attempts=2, max_in_flight=1)
    [completion] = drain(engine, questions(1))
    assert completion.finish_reason == "error"
    assert said in completion.error
    assert completion.error.endswith("(2 times)")
    assert said in engine.trouble


@pytest.mark.parametrize("body", [{"error": "sleepy"}, "<html>sleepy</html>", {"choices": None, "msg": "sleepy"}])
def test_a_server_that_never_answers_properly_is_not_waited_for(serve, connect, body):
    engine = connect(serve(lambda asked: body), give_up_after_s=600.0)
    completions = drain(engine, questions(60))
    assert all("sleepy (6 times)" in c.error for c in completions)
    assert engine.num_servers_out == 0


def test_of_two_servers_the_one_that_answers_properly_gets_the_work(serve, connect):
    sleepy, well = serve(lambda asked: {"error": "sleepy"}), serve(lambda asked: asyncio.sleep(0.01, reply()))
    requests = questions(200)
    assert_each_answered_once(drain(connect(sleepy, well, max_in_flight=8), requests), requests)
    assert len(sleepy.asked) < 100


def test_nothing_is_said_of_others_where_there_were_none(serve, connect):
    def script(body: dict[str, Any]) -> Any:
        return {"error": "sleepy"} if question(body) == "q0" else asyncio.sleep(0.01, reply())

    completions = drain(connect(serve(script), max_in_flight=2, max_attempts=3), questions(9))
    assert [c.error for c in completions if c.error] == [
        "the server answers with an error: sleepy (3 times, while others were answered)"
    ]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ({"code": 401, "message": "no such user"}, ModelError, "OPENAI_API_KEY"),
        ({"code": "402", "message": "buy credits"}, StageError, "quota is used up"),
        ({"code": 400, "message": "seed is not supported"}, ModelError, "refuses every request: HTTP 400: seed"),
    ],
)
def test_a_status_in_the_body_counts_as_one(serve, connect, error, kind, said):
    with pytest.raises(kind, match=said):
        drain(connect(serve(lambda body: {"error": error})), questions(2))


def test_a_throttle_in_the_body_is_waited_for(serve, connect):
    seen: Counter[str] = Counter()

    def script(body: dict[str, Any]) -> Any:
        seen[question(body)] += 1
        return {"error": {"code": 429, "message": "slow"}} if seen["q0"] == 1 else reply()

    requests = questions(2)
    assert_each_answered_once(drain(connect(serve(script), max_in_flight=1, max_attempts=1), requests), requests)


def test_a_403_about_one_sample_costs_that_sample(serve, connect):
    fake = serve(lambda body: refusal(403, "Your input was flagged") if question(body) == "q1" else reply())
    completions = {c.key[0]: c for c in drain(connect(fake, max_in_flight=1), questions(3))}
    assert completions["q1"].error == "HTTP 403: Your input was flagged"
    assert {c.finish_reason for name, c in completions.items() if name != "q1"} == {"stop"}


def test_a_403_about_everything_stops_with_the_servers_words_and_no_guess_about_the_key(serve, connect):
    fake = serve(lambda body: refusal(403, "Not available in your country"))
    with pytest.raises(ModelError, match="refuses every request: HTTP 403: Not available in your country") as caught:
        drain(connect(fake), questions(2))
    assert "OPENAI_API_KEY" not in str(caught.value)


def test_trouble_is_the_servers_words_until_something_is_answered(serve, connect):
    stormy = threading.Event()
    stormy.set()
    fake = serve(lambda body: refusal(500, "storm \x1b[31m") if stormy.is_set() else reply())
    engine, requests = connect(fake, max_attempts=1), questions(2)
    assert engine.trouble == ""
    for request in requests:
        engine.submit(request)
    while not engine.trouble:
        engine.step()
    assert engine.trouble == f"{fake.url}: HTTP 500: storm \N{REPLACEMENT CHARACTER}[31m"
    stormy.clear()
    while engine.num_in_flight:
        engine.step()
    assert engine.trouble == ""


def test_nobody_knows_the_tokens_of_an_answer_that_has_not_come(serve, connect):
    engine = connect(serve())
    assert engine.num_tokens_in_flight is None


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_stops_answering_is_quoted_while_it_is_retried(serve, connect, monkeypatch, status):
    monkeypatch.setattr(server_pool, "SILENT_S", 0.3)
    stormy = threading.Event()
    headers = {"Retry-After": "0.05"}
    fake = serve(lambda body: refusal(status, "too much for me", headers) if stormy.is_set() else reply())
    engine = connect(fake, max_attempts=1_000, max_in_flight=2)
    drain(engine, questions(4))
    assert engine.trouble == ""
    stormy.set()
    began = time.monotonic()
    for request in questions(2):
        engine.submit(request)
    while not engine.trouble:
        assert not engine.step()
        assert time.monotonic() - began < 5
    assert engine.trouble == f"{fake.url}: HTTP {status}: too much for me"
    stormy.clear()
    while engine.num_in_flight:
        engine.step()
    assert engine.trouble == ""


def test_a_server_that_now_and_then_refuses_is_no_trouble(serve, connect, monkeypatch):
    monkeypatch.setattr(server_pool, "SILENT_S", 0.3)
    turns = Counter()

    def script(body):
        turns["asked"] += 1
        return refusal(429, "too fast", {"Retry-After": "0.01"}) if turns["asked"] % 3 == 0 else reply()

    engine, said = connect(serve(script), max_in_flight=4), set()
    drain(engine, questions(1))
    for request in questions(40):
        engine.submit(request)
    while engine.num_in_flight:
        engine.step()
        said.add(engine.trouble)
    assert said == {""}


@pytest.mark.parametrize("usage", [None, [], "x", {"completion_tokens": "many"}, {"completion_tokens": -3}, {"a": 1}])
def test_counts_that_are_none_lose_no_answer(usage):
    assert read_answer(("q", 0), reply("4") | {"usage": usage}) == Completion(("q", 0), "4", "stop", 0, 0)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["stop", "text"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "candidates",
                    "message",
                    "content",
                    "finish_reason",
                    "error",
                    "usage",
                    "text",
                    "type",
                    "code",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ANYTHING, ANYTHING)
def test_any_body_is_an_answer_or_trouble(payload, message):
    for body in (payload, {"choices": [message]}, {"choices": [{"message": message, "finish_reason": payload}]}):
        told_status(body)
        try:
            completion = read_answer(("q", 0), body)
        except TroubleError as trouble:
            assert trouble.of_answer  # noqa: PT017 - it may be either
        else:
            unknown_finish_reason(body)
            completion.text.encode()


def test_missing_usage_counts_no_tokens():
    payload = reply("4")
    del payload["usage"]
    assert read_answer(("q", 0), payload) == Completion(("q", 0), "4", "stop", 0, 0)


def test_vllm_is_asked_to_stop_loops_and_others_are_not(serve, connect):
    vllm, other = serve(owned_by="vllm", root="/models/teacher"), serve()
    for fake in (vllm, other):
        drain(connect(fake, spec={"loops": LoopStop()}), questions(1))
    assert vllm.asked[0]["repetition_detection"] == {"max_pattern_size": 64, "min_pattern_size": 32, "min_count": 8}
    assert "repetition_detection" not in other.asked[0]


@pytest.mark.parametrize("period", [1, 2, 31, 32, 33, 47, 64])
@pytest.mark.parametrize("loops", [LoopStop(), LoopStop(min_tokens=2_000), LoopStop(min_repeats=3, min_tokens=16)])
def test_vllms_parameters_stop_every_loop_and_none_below_min_tokens(period, loops):
    wanted = repetition_detection(loops)
    sizes = range(wanted["min_pattern_size"], wanted["max_pattern_size"] + 1)
    assert any(size % period == 0 for size in sizes)
    assert wanted["min_pattern_size"] * wanted["min_count"] >= loops.min_tokens
    assert wanted["min_count"] >= loops.min_repeats


def test_max_in_flight_bounds_what_the_server_sees(serve, connect):
    async def slowly() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return reply()

    fake = serve(lambda body: slowly())
    requests = questions(500)
    assert_each_answered_once(drain(connect(fake, max_in_flight=16), requests), requests)
    assert fake.peak == 16


def test_more_connections_than_the_transports_default(serve, connect):
    async def all_at_once() -> dict[str, Any]:
        while fake.peak < 300:
            await asyncio.sleep(0.01)
        return reply()

    fake = serve(lambda body: all_at_once())
    drain(connect(fake, max_in_flight=300), questions(300))
    assert fake.peak == 300


def test_limit_of_open_files_is_raised_or_named(serve, connect):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        connect(serve(), max_in_flight=200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 400
        with pytest.raises(ModelError, match=r"open files.*Set compute.max_in_flight to \d+ or less"):
            connect(serve(), max_in_flight=hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("header", ["seconds", "date", "milliseconds"])
def test_retry_after_is_honoured(serve, connect, header):
    times: list[float] = []
    value = {
        "seconds": {"Retry-After": "1"},
        "date": {"Retry-After": formatdate(time.time() + 2, usegmt=True)},
        "milliseconds": {"retry-after-ms": "1000", "Retry-After": "30"},
    }[header]

    def script(body: dict[str, Any]) -> Any:
        times.append(time.monotonic())
        return refusal(429, "slow down", headers=value) if len(times) == 1 else reply()

    engine = connect(serve(script), max_in_flight=1, max_attempts=1)
    requests = questions(3)
    assert_each_answered_once(drain(engine, requests), requests)
    assert times[1] - times[0] >= 0.9
    assert len(times) == 4
    assert engine.num_retries == 1


def test_retry_after_that_is_no_number_is_left_aside():
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "inf"}) is None
    assert retry_after_s({"retry-after": "-3"}) == 0.0
    assert retry_after_s({}) is None


def test_while_one_server_is_asked_too_much_the_other_goes_on(serve, connect):
    busy = serve(lambda body: refusal(429, "slow down", headers={"Retry-After": "60"}))
    free, requests = serve(), questions(40)
    assert_each_answered_once(drain(connect(busy, free, max_in_flight=8), requests), requests)
    assert len(busy.asked) <= 8


def test_a_server_that_takes_few_at_once_is_sent_fewer(serve, connect):
    async def four_at_most() -> Any:
        if fake.num_open > 4:
            return refusal(429, "too many", headers={"retry-after-ms": "5"})
        await asyncio.sleep(0.005)
        return reply()

    fake = serve(lambda body: four_at_most())
    requests = questions(200)
    assert_each_answered_once(drain(connect(fake, max_in_flight=32, max_attempts=1), requests), requests)
    assert len(fake.asked) < 600


def test_quota_that_is_used_up_stops_the_stage(serve, connect):
    fake = serve(lambda body: refusal(429, "You exceeded your current quota", code="insufficient_quota"))
    with pytest.raises(StageError, match=r"quota is used up .*same command resumes it"):
        drain(connect(fake), questions(3))


def test_storm_of_500s_costs_no_sample(serve, connect):
    stormy = threading.Event()
    stormy.set()
    fake = serve(lambda body: refusal(500, "storm") if stormy.is_set() else reply())
    threading.Timer(1.0, stormy.clear).start()
    engine, requests = connect(fake, max_in_flight=20, max_attempts=1), questions(60)
    assert_each_answered_once(drain(engine, requests), requests)
    assert engine.num_retries >= 20
    assert engine.num_servers_out == 0


@pytest.mark.parametrize(
    "bad",
    [
        "reset in mid-body",
        '{"choices": [',
        "",
        "<html>maintenance</html>",
        "[" * 100_000,
        {"choices": []},
        {"error": "overloaded"},
        reply("half", "abort"),
        refusal,
    ],
    ids=["reset", "cut", "empty", "html", "deep", "no choices", "error", "abort", "503"],
)
def test_failure_is_retried(serve, connect, bad):
    seen: Counter[str] = Counter()

    def script(body: dict[str, Any]) -> Any:
        seen[question(body)] += 1
        if seen["q1"] == 1 and question(body) == "q1":
            return refusal(503, "loading") if bad is refusal else bad
        return reply()

    requests = questions(3)
    assert_each_answered_once(drain(connect(serve(script)), requests), requests)
    assert seen["q1"] == 2


def test_request_that_hangs_is_given_up_and_tried_again(serve, connect):
    def script(body: dict[str, Any]) -> Any:
        return asyncio.sleep(60) if question(body) == "q1" and len(fake.asked) <= 3 else reply()

    fake = serve(script)
    engine, requests = connect(fake, request_timeout_s=0.3, max_in_flight=3), questions(3)
    assert_each_answered_once(drain(engine, requests), requests)
    assert engine.num_retries == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_sample_that_is_refused_is_recorded_and_the_rest_goes_on(serve, connect, status):
    long = "context is too small, " * 50
    fake = serve(lambda body: refusal(status, long) if question(body) == "q0" else reply())
    completions = {c.key: c for c in drain(connect(fake, max_in_flight=2), questions(10))}
    poison = completions.pop(("q0", 0))
    assert poison.finish_reason == "error"
    assert poison.error.startswith(f"HTTP {status}: context is too small")
    assert len(poison.error) <= 300
    assert {c.finish_reason for c in completions.values()} == {"stop"}
    assert Counter(question(b) for b in fake.asked)["q0"] == 1


def test_server_that_refuses_every_request_stops_the_run(serve, connect):
    fake = serve(lambda body: refusal(400, "Unsupported parameter: 'seed'"))
    with pytest.raises(ModelError, match=r"refuses every request: HTTP 400: Unsupported parameter: 'seed'"):
        drain(connect(fake), questions(3))


def test_url_without_the_api_is_told_at_the_first_request(serve, connect):
    fake = serve()
    with pytest.raises(ModelError, match=r"refuses every request: HTTP 404.*end in /v1"):
        drain(connect(fake.url.removesuffix("/v1")), questions(2))


@pytest.mark.parametrize("others", [True, False], ids=["among others", "alone"])
@pytest.mark.parametrize("bad", [500, "no json"])
def test_sample_that_always_fails_is_recorded_after_max_attempts(serve, connect, bad, others):
    def script(body: dict[str, Any]) -> Any:
        if question(body) == "q0":
            return bad if isinstance(bad, str) else refusal(bad, "cannot tokenize")
        return asyncio.sleep(0.01, reply())

    requests = questions(100 if others else 1)
    completions = {c.key: c for c in drain(connect(serve(script), max_in_flight=4, max_attempts=3), requests)}
    poison = completions.pop(("q0", 0))
    assert poison.finish_reason == "error"
    assert ("cannot tokenize" if bad == 500 else "not JSON") in poison.error
    assert "3 times" in poison.error
    assert {c.finish_reason for c in completions.values()} <= {"stop"}


def test_models_that_take_max_completion_tokens_get_it(serve, connect):
    def script(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return refusal(400, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
        return reply(str(body["max_completion_tokens"]))

    fake = serve(script)
    completions = drain(connect(fake, max_in_flight=1), questions(3))
    assert {c.text for c in completions} == {"64"}
    assert len(fake.asked) == 4


def test_server_that_is_killed_and_comes_back_costs_no_sample(serve, connect):
    fake = serve(lambda body: asyncio.sleep(0.05, reply()))
    engine, requests, finished = connect(fake, max_in_flight=10, max_attempts=2), questions(60), []
    for request in requests:
        engine.submit(request)
    while len(finished) < 20:
        finished += engine.step()
    fake.stop()
    while not engine.num_servers_out:
        finished += engine.step()
    fake.start()
    assert_each_answered_once(finished + drain(engine, []), requests)


def test_one_of_four_is_dead_from_the_start(serve, connect):
    dead, *living = [serve() for _ in range(4)]
    dead.stop()
    engine, requests = connect(dead, *living), questions(50)
    assert engine.num_servers_out == 1
    assert "refused" in engine.settings["servers"][0]["down_at_start"].lower()
    assert_each_answered_once(drain(engine, requests), requests)
    assert dead.asked == []


def test_one_of_four_dies_in_the_middle_and_its_work_goes_to_the_others(serve, connect):
    servers = [serve(lambda body: asyncio.sleep(0.02, reply())) for _ in range(4)]
    engine, requests, finished = connect(*servers, max_in_flight=16), questions(200), []
    for request in requests:
        engine.submit(request)
    while len(finished) < 40:
        finished += engine.step()
    servers[0].stop()
    assert_each_answered_once(finished + drain(engine, []), requests)
    assert all(len(fake.asked) > 20 for fake in servers[1:])


@pytest.mark.parametrize("where", ["models", "chat"])
@pytest.mark.parametrize("status", [401, 403])
def test_wrong_key_is_named_by_its_variable_never_shown(serve, connect, status, where):
    wrong = refusal(status, f"Incorrect API key provided: {CANARY}")
    fake = serve(lambda body: wrong)
    if where == "models":
        fake.models = wrong
    with pytest.raises(ModelError) as raised:
        drain(connect(fake), questions(2))
    assert CANARY not in str(raised.value)
    assert "OPENAI_API_KEY" in str(raised.value)
    assert fake.url in str(raised.value)


def test_missing_key_says_that_the_variable_is_not_set(serve, connect, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    fake = serve()
    fake.models = refusal(401, "no key")
    with pytest.raises(ModelError, match="OPENAI_API_KEY is not set"):
        connect(fake)


def test_key_that_a_server_repeats_is_masked_in_a_samples_error(serve, connect):
    fake = serve(lambda body: refusal(400, f"bad: {CANARY}") if question(body) == "q0" else reply())
    errors = [c.error for c in drain(connect(fake), questions(2)) if c.error]
    assert errors == ["HTTP 400: bad: ***"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["chat", "models"])
def test_prompts_are_not_sent_on_to_another_server(serve, connect, status, where):
    thief = serve()
    away = web.Response(status=status, headers={"Location": f"http://127.0.0.1:{thief.port}/v1/chat/completions?x=1"})
    fake = serve(lambda body: away)
    if where == "models":
        fake.models = away
    with pytest.raises(ModelError, match=rf"redirects requests to http://127\.0\.0\.1:{thief.port}\. Prompts go only"):
        drain(connect(fake), questions(2))
    assert thief.asked == []
    assert thief.authorizations == set()


def test_a_redirect_on_the_same_server_is_followed(serve, connect):
    asked = []

    def once_more(body):
        asked.append(question(body))
        again = web.Response(status=307, headers={"Location": "/v1/chat/completions"})
        return reply() if asked.count(question(body)) > 1 else again

    fake = serve(once_more)
    assert [c.finish_reason for c in drain(connect(fake), questions(2))] == ["stop", "stop"]


@pytest.mark.parametrize(
    ("asked", "target", "is_followed"),
    [
        ("http://h/v1/x", "http://h/v1/x/", True),
        ("http://h/v1", "https://h/v1", True),
        ("https://h/v1", "http://h/v1", False),
        ("http://h/v1", "http://h:8001/v1", False),
        ("http://h:8000/v1", "https://h/v1", False),
        ("https://h/v1", "https://h.evil.example/v1", False),
        ("https://h/v1", "https://h:443/v2", True),
        ("http://localhost/v1", "http://127.0.0.1/v1", False),
        ("http://h/v1", "//other/v1", False),
    ],
)
def test_only_the_same_host_or_its_https_gets_a_prompt(asked, target, is_followed):
    url = httpx2.URL(asked)
    with contextlib.nullcontext() if is_followed else pytest.raises(RedirectedError):
        refuse_other_server(url, url.join(target))


def test_key_with_a_line_break_is_refused_before_it_is_sent(serve, connect, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{CANARY}\nX-Evil: 1")
    with pytest.raises(ModelError, match="OPENAI_API_KEY is not a valid key") as raised:
        connect(serve())
    assert CANARY not in str(raised.value)


def test_unknown_model_is_refused_with_a_guess(serve, connect):
    with pytest.raises(
        ModelError, match=r"not have the model org/teachr. Did you mean org/teacher\? It serves: org/te"
    ):
        connect(serve(), spec={"model_name": "org/teachr"})
    with pytest.raises(ModelError, match=r"Did you mean org/teacher\?"):
        connect(serve(root="/models/big"), spec={"model_name": "/models/big"})


def test_model_that_vanishes_stops_the_run(serve, connect):
    fake = serve(lambda body: refusal(404, "The model `org/teacher` does not exist.", code=404))
    with pytest.raises(ModelError, match="does not have the model org/teacher"):
        drain(connect(fake), questions(2))


@pytest.mark.parametrize("models", [refusal, {"data": []}, {"object": "list"}, {"data": [{"name": "x"}]}, []])
def test_server_that_lists_no_models_is_used_all_the_same(serve, connect, models):
    fake = serve()
    fake.models = refusal(404, "no such route") if models is refusal else models
    requests = questions(2)
    assert_each_answered_once(drain(connect(fake), requests), requests)


def test_completion_that_fills_the_context_is_refused(serve, connect):
    with pytest.raises(ModelError, match="leaves no room for a prompt"):
        connect(serve(owned_by="vllm", max_model_len=64))


def test_when_no_server_can_be_reached_each_is_named_with_the_reason(serve, connect):
    dead, page = serve(), serve()
    dead.stop()
    page.models = "<html>Welcome</html>"
    with pytest.raises(ModelError) as raised:
        connect(dead, page, "http://nowhere.invalid/v1", "http://127.0.0.1:port/v1")
    assert "port/v1 is not a valid URL" in str(raised.value)
    with pytest.raises(ModelError) as raised:
        connect(dead, page, "http://nowhere.invalid/v1")
    lines = str(raised.value).splitlines()
    assert dead.url in lines[1]
    assert "refused" in lines[1].lower() or "connect" in lines[1].lower()
    assert "JSON" in lines[2]
    assert "nowhere.invalid" in lines[3]
    assert "vllm serve" in lines[-1]


def test_when_all_servers_stay_dead_the_stage_stops_and_keeps_what_is_finished(serve, connect):
    servers = [serve(), serve()]
    engine = connect(*servers, give_up_after_s=1.0)
    first = questions(10)
    assert_each_answered_once(drain(engine, first), first)
    for fake in servers:
        fake.stop()
    with pytest.raises(StageError, match=r"no server has answered for 1 s .*same command resumes it"):
        drain(engine, questions(4))
    assert engine.num_in_flight == 4


def test_a_server_that_hangs_altogether_is_given_up(serve, connect):
    fake = serve(lambda body: asyncio.sleep(60))
    engine = connect(fake, give_up_after_s=1.0)
    fake.models = refusal(500, "gone")
    with pytest.raises(StageError, match="no server has answered for 1 s"):
        drain(engine, questions(2))


def test_a_server_at_work_on_long_samples_is_not_given_up(serve, connect):
    fake = serve(lambda body: asyncio.sleep(1.5, reply()))
    requests = questions(2)
    assert_each_answered_once(drain(connect(fake, give_up_after_s=0.4), requests), requests)


def test_close_breaks_off_what_is_in_flight_without_a_word(serve, caplog, capfd):
    fake = serve(lambda body: asyncio.sleep(60))
    engine = ServerEngine(make_spec(fake))
    for request in questions(20):
        engine.submit(request)
    while len(fake.asked) < 20:
        engine.step()
    engine.close()
    engine.close()
    assert "server-engine" not in {thread.name for thread in threading.enumerate()}
    assert "nclosed" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("status", [400, 402, 404, 429, 500])
def test_no_message_holds_the_key(serve, connect, caplog, capfd, status):
    caplog.set_level("DEBUG", logger="openai")
    fake = serve(lambda body: web.Response(text=f"key {CANARY}", status=status))
    engine = connect(fake, give_up_after_s=0.3)
    with pytest.raises(DistillError) as raised:
        drain(engine, questions(2))
    assert raised.value.__cause__ is None
    assert CANARY not in str(raised.value) + caplog.text + "".join(capfd.readouterr())
