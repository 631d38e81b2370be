"""Sampling from servers with OpenAI's chat completions API: vLLM, SGLang, DeepSeek, OpenAI.

Completions hold the thinking inside `<think>` … `</think>`, wherever the server put it:
`{"message": {"reasoning": "2 + 2 = 4", "content": "4"}, "finish_reason": "stop"}` becomes

    Completion(key, "<think>\\n2 + 2 = 4\\n</think>\\n\\n4", "stop", 31, 19)

All traffic runs in one event loop in its own thread, with one coroutine per request in flight. A server's failures are
not counted against a sample, which waits or moves to another server (`server_pool`). A sample ends in `error` only if
its server refuses it, or if it keeps failing while others succeed.
"""

import asyncio
import contextlib
import difflib
import json
import os
import queue
import random
import resource
import threading
from collections import deque
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import aiohttp
import httpx2
import openai

from distill.engines.base import STEP_S, Completion, EngineSpec, Request, check_room
from distill.engines.server_answers import (
    MAX_ERROR_CHARS,
    RedirectedError,
    RefusedError,
    ThrottledError,
    TroubleError,
    error_completion,
    error_text,
    first_cause,
    is_about_key,
    names_no_model,
    page_words,
    read_answer,
    refuse_other_server,
    repetition_detection,
    retry_after_s,
    root_cause,
    told_error,
    told_status,
    unknown_finish_reason,
    wants_other_key,
)
from distill.engines.server_pool import Pool, Server
from distill.errors import DistillError, ModelError, StageError
from distill.recipe.sampling import Sampling

IN_FLIGHT_PER_URL = 256
"""Requests in flight per server, if the recipe sets no number."""
NUM_TAKEN_IN = 32
"""Requests started per turn of the event loop: else the first of thousands is sent only once the last is built."""
CONNECT_TIMEOUT_S = 30.0
LOOK_TIMEOUT_S = 10.0
"""A server that does not list its models within this time counts as down, in seconds."""
PROBE_TIMEOUT_S = 60.0
"""A server that was taken out of use must write one token within this time to return, in seconds."""
KEEP_ALIVE_S = 4.0
"""Idle connections are closed after this time: before uvicorn does (5 s), which would fail the next request."""
BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0
"""Upper limit in seconds of the wait before the first retry, doubled for each further one up to the maximum."""
NUM_OTHER_FILES = 256
"""Files and sockets that the process needs besides connections to servers."""
MIN_SECRET_CHARS = 4
"""A shorter key (`x`, for a server that wants none) is not secret, and masking it would garble messages."""

NO_CONNECTION = (
    openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, RedirectedError, aiohttp.ClientError, OSError
)  # fmt: skip
"""Exceptions of the client when there is no answer."""
TROUBLE_STATUSES = frozenset({408, 409, 425})
"""Statuses besides 5xx after which the same request may succeed later."""
GREETING = [{"role": "user", "content": "Hi"}]
"""A request that no server has reason to refuse, to tell a server's failures from a sample's."""


class ServerEngine:
    """Engine on OpenAI-compatible servers. Implements `distill.engines.base.Engine`.

    Raises:
        ModelError: no server can be reached, or one refuses the key or does not have the model.
    """

    def __init__(self, spec: EngineSpec) -> None:
        compute = spec.compute
        if spec.logprobs:
            raise ModelError(
                "a server gives no log-probabilities of exact tokens: use compute.engine vllm or transformers."
            )
        self._spec, self._compute = spec, compute
        self._key = os.environ.get(compute.api_key_env, "").strip()
        if not self._key.isprintable() or not self._key.isascii():
            raise ModelError(
                f"the value of {compute.api_key_env} is not a valid key: it holds characters that a "
                "header cannot contain. Set it again, without line breaks."
            )
        self.max_in_flight: int = compute.max_in_flight or IN_FLIGHT_PER_URL * len(compute.base_urls)
        _allow_connections(self.max_in_flight)
        self.num_retries = 0
        """Failed requests that were retried."""
        self._num_in_flight = 0
        self._num_open = 0  # the same count, kept by the event loop's thread
        self._fatal: BaseException | None = None
        self._finished: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        self._inbox: deque[Request] = deque()
        self._woken = self._stopping = False
        self._main_task: asyncio.Task[None] | None = None
        self._ready: Future[Pool] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="server-engine", daemon=True)
        self._thread.start()
        try:
            self._pool = self._ready.result()
        except BaseException:
            self.close()
            raise
        self.settings: dict[str, Any] = {
            "name": "server",
            "version": openai.__version__,
            "base_urls": list(compute.base_urls),
            "max_in_flight": self.max_in_flight,
            "request_timeout_s": compute.request_timeout_s,
            "max_attempts": compute.max_attempts,
            "servers": [{"url": server.url, **server.settings} for server in self._pool.servers],
            **({"extra_body": spec.extra_body} if spec.extra_body else {}),
        }

    @property
    def num_in_flight(self) -> int:
        return self._num_in_flight

    @property
    def num_tokens_in_flight(self) -> None:
        """Return `None`: answers arrive whole."""
        return None

    @property
    def trouble(self) -> str:
        """Return each server's last problem while none answers; else an empty string."""
        pool = self._pool
        return pool.problems if pool.is_silent and any(server.last_problem for server in pool.servers) else ""

    @property
    def num_servers_out(self) -> int:
        """Return the number of servers out of use because they do not answer."""
        return self._pool.num_out

    def submit(self, request: Request) -> Completion | None:
        if request.prompt_ids is not None:
            raise ModelError("a server takes messages, not a prompt's tokens: use compute.engine vllm or transformers.")
        self._num_in_flight += 1
        self._inbox.append(request)
        if not self._woken:  # one wake-up for all requests submitted together
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed; `step` raises the cause
                self._loop.call_soon_threadsafe(self._take_in)
        return None

    def step(self) -> list[Completion]:
        finished = []
        with contextlib.suppress(queue.Empty):
            completion = self._finished.get(block=self._fatal is None, timeout=STEP_S)
            while True:
                if completion is not None:
                    finished.append(completion)
                completion = self._finished.get_nowait()
        self._num_in_flight -= len(finished)
        if not finished and self._fatal is not None:
            raise self._fatal
        return finished

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # already closed
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    # The methods below run in the event loop's thread.

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(self._main())

    async def _main(self) -> None:
        self._main_task = asyncio.current_task()
        if self._stopping:  # closed before it started
            return
        # Without an explicit limit, the aiohttp transport falls back to 100 connections.
        limits = httpx2.Limits(
            max_connections=self.max_in_flight + len(self._compute.base_urls) + 8, keepalive_expiry=KEEP_ALIVE_S
        )
        http = openai.DefaultAioHttpClient(
            limits=limits,
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
            event_hooks={"response": [_check_redirect]},
        )
        tasks = []
        try:
            try:
                pool = await self._connect(http)
            except BaseException as error:
                self._ready.set_exception(error)
                return
            self._pool = pool
            self._queue: asyncio.Queue[Request] = asyncio.Queue()
            self._greeting_lock = asyncio.Lock()
            tasks = [asyncio.create_task(self._guard(self._work())) for _ in range(self.max_in_flight)]
            tasks.append(asyncio.create_task(self._guard(self._watch())))
            self._ready.set_result(pool)
            await asyncio.Event().wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if tasks:
                await pool.close()
            await http.aclose()

    def _stop(self) -> None:
        if not self._stopping:  # a second cancellation would interrupt the clean-up
            self._stopping = True
            if self._main_task is not None:
                self._main_task.cancel()

    def _fail(self, error: BaseException) -> None:
        """Make `step` raise this error after it has returned all finished completions."""
        if self._fatal is None:
            self._fatal = error
            self._finished.put(None)
        self._stop()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # raised by `step`, in the caller's thread
            self._fail(error)

    def _take_in(self) -> None:
        self._woken = False  # before reading the inbox, so that later requests wake the loop again
        if self._num_open == 0:
            self._pool.note_alive(answered=False)  # without open requests, no server was silent
        for _ in range(min(len(self._inbox), NUM_TAKEN_IN)):
            self._num_open += 1
            self._queue.put_nowait(self._inbox.popleft())
        if self._inbox:
            self._woken = True
            self._loop.call_soon(self._take_in)

    async def _work(self) -> None:
        while True:
            completion = await self._sample(await self._queue.get())
            self._num_open -= 1
            self._finished.put(completion)

    def _note_finish_reason(self, payload: Any) -> None:
        """Count unknown finish reasons, for the manifest."""
        if word := unknown_finish_reason(payload):
            counts = self.settings.setdefault("unknown_finish_reasons", {})
            counts[word] = counts.get(word, 0) + 1

    async def _sample(self, request: Request) -> Completion:
        """Retry until there is an answer, or a reason to record an error."""
        pool, num_tries, num_counted = self._pool, 0, 0
        sampling = request.sampling or self._spec.sampling
        num_answered = pool.num_answered
        last: Server | None = None
        while True:
            server = await pool.acquire(avoid=last)
            began_at = self._loop.time()
            max_tokens_key = server.max_tokens_key
            try:
                payload = await self._post(server, request.messages, request.seed, sampling)
                completion = read_answer(request.key, payload, sampling.max_tokens)
                pool.succeeded(server)
                self._note_finish_reason(payload)
                return replace(completion, error=self._clean(completion.error))
            except ThrottledError as throttled:
                pool.throttled(server, began_at, throttled.wait_s, str(throttled))
                self.num_retries += 1
                continue
            except RefusedError as refused:
                if max_tokens_key == "max_tokens" and wants_other_key(str(refused)):
                    server.max_tokens_key = "max_completion_tokens"  # OpenAI's reasoning models
                    continue
                why, gives_up = str(refused), True
            except TroubleError as trouble:
                why, gives_up = self._clean(str(trouble)), False
                if trouble.of_answer and not pool.num_answered:
                    # The server is up but has never given a completion, so samples end soon, with its message.
                    server.last_problem = why
                else:
                    pool.failed(server, began_at, why)
                # Unless other samples are answered meanwhile, a missing answer says nothing about this one.
                if trouble.of_answer or pool.num_answered > num_answered:
                    num_counted += 1
            finally:
                pool.release(server)
            if gives_up:
                await self._check_refusal(server, why)
                pool.succeeded(server, answered=False)
                return error_completion(request.key, why)
            if num_counted >= self._compute.max_attempts:
                others = ", while others were answered" if pool.num_answered else ""
                return error_completion(request.key, f"{why} ({num_counted} times{others})")
            last, num_answered = server, pool.num_answered
            self.num_retries += 1
            num_tries += 1
            await asyncio.sleep(random.uniform(0, min(MAX_BACKOFF_S, BACKOFF_S * 2 ** min(num_tries - 1, 16))))

    async def _post(
        self,
        server: Server,
        messages: list[dict[str, str]],
        seed: int,
        sampling: Sampling,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Send one chat request; return the server's answer as JSON.

        Raises:
            TroubleError, ThrottledError, RefusedError: see there.
            ModelError, StageError: the problem affects every request.
        """
        body = {
            **server.extra_body,
            **self._spec.extra_body,
            "model": self._spec.model_name,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **({"top_k": sampling.top_k} if sampling.top_k else {}),
            server.max_tokens_key: max_tokens or sampling.max_tokens,
            "seed": seed,
        }
        timeout_s = timeout_s or self._compute.request_timeout_s
        try:
            # Raw bytes both ways: pydantic models of request and answer would take twice the CPU time.
            async with asyncio.timeout(timeout_s):
                content = json.dumps(body).encode()
                response = await server.client.post("/chat/completions", content=content, cast_to=httpx2.Response)
            payload = json.loads(response.content)
        except TimeoutError:
            raise TroubleError(f"no answer within {timeout_s:g} s") from None
        except openai.APIStatusError as error:
            raise self._status_error(server, error) from None
        except NO_CONNECTION as error:
            self._refuse_redirect(server, error)
            raise TroubleError(self._clean(root_cause(error))) from None
        except (ValueError, RecursionError):
            words = page_words(response.content)
            why = self._clean(f"the answer is not JSON{': ' + words if words else ''}")
            raise TroubleError(why, of_answer=True) from None
        if (status := told_status(payload)) is not None:
            raise self._meaning(server, status, None, told_error(payload), response.headers)
        return payload

    def _status_error(self, server: Server, error: openai.APIStatusError) -> Exception:
        """Return the exception for an HTTP error status."""
        return self._meaning(server, error.status_code, error.code, error_text(error), error.response.headers)

    def _meaning(
        self, server: Server, status: int, code: str | None, words: str, headers: Mapping[str, str]
    ) -> Exception:
        """Return the exception for an error whose status came by HTTP or in the answer's body."""
        why = self._clean(f"HTTP {status}: {words}")
        if status == 401 or (status == 403 and is_about_key(words)):
            return ModelError(f"{server.url} refuses the key ({why}). {self._about_key()}")
        if status == 402 or code == "insufficient_quota":
            return StageError(
                f"{server.url}: the quota is used up ({why}). Finished work is kept: once there is quota again, "
                "the same command resumes it."
            )
        if status == 429:
            return ThrottledError(why, retry_after_s(headers))
        if status == 404 and (code == "model_not_found" or names_no_model(why)):
            return ModelError(
                f"{server.url} does not have the model {self._spec.model_name} ({why}). "
                f"Name one that it serves (`curl {server.url}/models` lists them)."
            )
        if 400 <= status < 500 and status not in TROUBLE_STATUSES:
            return RefusedError(why)
        return TroubleError(why)

    def _refuse_redirect(self, server: Server, error: BaseException) -> None:
        """Raise `ModelError` if the server redirects requests to another one."""
        cause = first_cause(error)
        if isinstance(cause, RedirectedError):
            raise ModelError(
                f"{server.url} redirects requests to {self._clean(str(cause))}. Prompts go only to the servers that "
                "the recipe names: add that one to compute.base_urls if it is intended."
            ) from None

    async def _check_refusal(self, server: Server, why: str) -> None:
        """Check, before anything was answered, that the server does not refuse every request.

        Raises:
            ModelError: it refuses a greeting too.
        """
        async with self._greeting_lock:
            if self._pool.num_answered:
                return
            try:
                read_answer(("", 0), await self._post(server, GREETING, 0, self._spec.sampling))
                self._pool.note_alive(answered=True)
            except RefusedError as refused:
                hint = " Does the URL end in /v1?" if "HTTP 404" in why else ""
                raise ModelError(f"{server.url} refuses every request: {refused}.{hint}") from None
            except (TroubleError, ThrottledError):
                return

    async def _probe(self, server: Server) -> bool:
        """Return whether a server that was taken out of use answers again, when asked for one token."""
        try:
            problem = await self._look(server)  # it may have been down at the start, or may serve another model now
        except ModelError as error:
            problem = str(error)
        if problem:
            server.last_problem = problem
            return False
        try:
            sampling = self._spec.sampling
            read_answer(("", 0), await self._post(server, GREETING, 0, sampling, 1, timeout_s=PROBE_TIMEOUT_S))
            self._pool.note_alive(answered=True)
            return True
        except (RefusedError, ThrottledError):  # it is up; `_sample` handles such answers to samples
            return True
        except TroubleError as trouble:
            server.last_problem = self._clean(str(trouble))
        except DistillError as error:
            self._fail(error)
        return False

    async def _watch(self) -> None:
        """Give up once nothing has been answered for too long."""
        limit_s = self._compute.give_up_after_s
        while True:
            await asyncio.sleep(min(1.0, limit_s / 4))
            if not self._num_open or not self._pool.is_stuck(limit_s):
                continue
            looks = await asyncio.gather(*(self._look(server) for server in self._pool.at_work()))
            if "" in looks:  # long samples: the server works, but has not finished one yet
                self._pool.note_alive(answered=False)
                continue
            raise StageError(
                f"no server has answered for {limit_s:g} s (compute.give_up_after_s): {self._pool.problems}. "
                "Finished work is kept: once a server is up again, the same command resumes it."
            )

    async def _connect(self, http: httpx2.AsyncClient) -> Pool:
        """Check every server before sending requests.

        Raises:
            ModelError: all are down, or one refuses the key or does not have the model.
        """
        servers = []
        for url in self._compute.base_urls:
            try:
                # Without retries of its own: `_sample` retries, possibly on another server.
                client = openai.AsyncOpenAI(api_key=self._key or "EMPTY", base_url=url, http_client=http, max_retries=0)
            except (httpx2.InvalidURL, ValueError) as error:
                raise ModelError(
                    f"compute.base_urls: {url} is not a valid URL ({error}). It should look like http://localhost:8000/v1."
                ) from None
            servers.append(Server(url, client))
        pool = Pool(servers, self.max_in_flight, self._probe)
        problems = await asyncio.gather(*(self._look(server) for server in servers))
        if all(problems):
            down = "\n".join(f"  {server.url}: {why}" for server, why in zip(servers, problems, strict=True))
            raise ModelError(
                f"no server can be reached:\n{down}\nStart one (`vllm serve {self._spec.model_name}`) or fix "
                "compute.base_urls; a base URL usually ends in /v1."
            )
        for server, why in zip(servers, problems, strict=True):
            if why:
                server.settings["down_at_start"] = why
                pool.put_out(server, why)
        return pool

    async def _look(self, server: Server) -> str:
        """Ask a server for its models; return why it cannot be used, or an empty string.

        Raises:
            ModelError: it refuses the key, does not have the model, or its context is too small.
        """
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                response = await server.client.get("/models", cast_to=httpx2.Response)
            listed = json.loads(response.content)
        except TimeoutError:
            return f"no answer within {LOOK_TIMEOUT_S:g} s"
        except openai.APIStatusError as error:
            meaning = self._status_error(server, error)
            if error.status_code in (401, 403) and isinstance(meaning, DistillError):
                raise meaning from None
            # Not every server lists its models, so only a 5xx status means that it is unusable.
            return self._clean(f"HTTP {error.status_code}: {error_text(error)}") if error.status_code >= 500 else ""
        except NO_CONNECTION as error:
            self._refuse_redirect(server, error)
            return self._clean(root_cause(error))
        except (ValueError, RecursionError):
            return "its answer is not JSON: not an OpenAI-compatible API"
        models = listed.get("data") if isinstance(listed, dict) else None
        if isinstance(models, list):
            self._read_models(server, [m for m in models if isinstance(m, dict) and isinstance(m.get("id"), str)])
        return ""

    def _read_models(self, server: Server, models: list[dict[str, Any]]) -> None:
        """Record what the server reports about the model; raise `ModelError` if it does not have it."""
        name = self._spec.model_name
        entry = next((m for m in models if m["id"] == name), None)
        if entry is None and models:
            names = [m["id"] for m in models]
            same = [m["id"] for m in models if m.get("root") == name] or difflib.get_close_matches(name, names, 1, 0.5)
            guess = f"Did you mean {same[0]}? " if same else ""
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise ModelError(
                f"{server.url} does not have the model {name}. {guess}It serves: {', '.join(names[:10])}{more}."
            )
        if entry is None:
            return
        kept = {key: entry[key] for key in ("owned_by", "root", "max_model_len") if entry.get(key) is not None}
        server.settings.update(kept)
        if isinstance(context := kept.get("max_model_len"), int):
            check_room(self._spec, context)
        if kept.get("owned_by") == "vllm":
            server.extra_body["skip_special_tokens"] = False  # in some models <think> is one
            if self._spec.loops is not None:
                server.extra_body["repetition_detection"] = repetition_detection(self._spec.loops)

    def _about_key(self) -> str:
        name = self._compute.api_key_env
        if self._key:
            return f"The key comes from the environment variable {name}: set it to a valid one."
        return f"The environment variable {name} is not set: set it to the key, or name another in compute.api_key_env."

    def _clean(self, text: str) -> str:
        """Return text on one line, truncated, printable, and without the key, which some servers echo."""
        if len(self._key) >= MIN_SECRET_CHARS:
            text = text.replace(self._key, "***")
        text = "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))
        return text if len(text) <= MAX_ERROR_CHARS else text[: MAX_ERROR_CHARS - 1] + "…"


async def _check_redirect(response: httpx2.Response) -> None:
    """Check each response before the client follows a redirect."""
    if response.has_redirect_location:
        refuse_other_server(response.request.url, response.request.url.join(response.headers["Location"]))


def _allow_connections(num: int) -> None:
    """Raise this process's limit on open files, often 1,024, to what `num` connections need.

    Raises:
        ModelError: the system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = num + NUM_OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise ModelError(
                f"{num} requests in flight need {needed} open files; the system allows {hard}. Set "
                f"compute.max_in_flight to {max(1, hard - NUM_OTHER_FILES)} or less, or raise `ulimit -Hn`."
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
