"""Requests per second of distill's server engine with 2,000 in flight, over a bare aiohttp loop; its CPU and memory.

Both send the same requests to the same server on loopback, a process of its own that answers each after a delay drawn
from the request's seed (5 to 15 s, as reasoning models need) with 8 KB of text. They take turns (ours, bare, bare,
ours), each in a process of its own. Peer: as many coroutines as may be in flight over one `aiohttp.ClientSession`, each
posting and calling `response.json()`; no retries, no checks. The share of a core is the client's CPU time over the wall
time. Then 100,000 requests with short delays: the memory (RSS) after 10,000, 50,000 and all of them. The system must
allow some 4,100 open files (`ulimit -n`).

    python benchmarks/generate_server.py [--rounds 2] [--requests 6000] [--quick] [--memory | --no-memory]

The last line is JSON: the median rates, their ratio, our share of a core, and the memory.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NUM_IN_FLIGHT = 2_000
DELAYS_S = (5.0, 15.0)
SHORT_DELAYS_S = (0.5, 1.5)
ORDER = ("ours", "bare", "bare", "ours")
MODEL = "teacher"
MARKS = (10_000, 50_000, 100_000)
"""Requests answered when memory is read."""
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}. " * 5
TEXT = "<think>\n" + "So the next term is 2 + 2 = 4, which we add. " * 170 + "\n</think>\n\nThe answer is \\boxed{4}."


def main() -> None:
    """Alternate the two, print each round, then the memory, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each (the median counts)")
    parser.add_argument("--requests", type=int, default=6_000, help="requests a round")
    parser.add_argument("--quick", action="store_true", help="a smoke run: one round, few requests, short delays")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, help="the memory part alone, or not at all")
    parser.add_argument("--child", choices=("ours", "bare", "memory", "server"), help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _allow_open_files()
        print(json.dumps(_child(options)), flush=True)
        return
    result: dict[str, Any] = {}
    if options.memory is not True:
        result |= _compare(1 if options.quick else options.rounds, options)
    if options.memory is not False:
        print("memory …", flush=True)
        result |= _with_server("memory", options)
    print(json.dumps(result))


def _compare(num_rounds: int, options: argparse.Namespace) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    for i in range(2 * num_rounds):
        which = ORDER[i % len(ORDER)]
        found = _with_server(which, options)
        rounds[which].append(found)
        print(f"{which}: {found['rate']:.1f} requests/s, {found['cores']:.2f} of a core", flush=True)
    medians = {which: statistics.median(r["rate"] for r in found) for which, found in rounds.items()}
    cores = {which: statistics.median(r["cores"] for r in found) for which, found in rounds.items()}
    return {
        "ratio": medians["ours"] / medians["bare"],
        "requests_per_second": medians,
        "cores": cores,
        "rounds": rounds,
    }


def _child(options: argparse.Namespace) -> dict[str, Any]:
    num_requests = 600 if options.quick else options.requests
    if options.child == "server":
        asyncio.run(_serve(SHORT_DELAYS_S if options.quick else DELAYS_S))
    if options.child == "memory":
        return _memory(options.url, [mark // 20 for mark in MARKS] if options.quick else MARKS)
    import aiohttp  # noqa: F401 - imports are left out of the time

    import distill.engines.server  # noqa: F401

    began_at, began_cpu = time.monotonic(), time.process_time()
    if options.child == "ours":
        for _ in _ours(options.url, num_requests):
            pass
    else:
        asyncio.run(_bare(options.url, num_requests))
    seconds = time.monotonic() - began_at
    return {"rate": num_requests / seconds, "cores": (time.process_time() - began_cpu) / seconds}


def _ours(url: str, num_requests: int) -> Iterator[int]:
    """Sample through the engine as the sampling loop does; yields how many are answered."""
    from distill.engines.base import EngineSpec, Request
    from distill.engines.server import ServerEngine
    from distill.recipe.sampling import Sampling, SamplingCompute

    compute = SamplingCompute(base_urls=[url], max_in_flight=NUM_IN_FLIGHT)
    engine = ServerEngine(EngineSpec(Path(), MODEL, Sampling(), compute, None, []))
    num_sent = num_answered = 0
    try:
        while num_answered < num_requests:
            while num_sent < num_requests and engine.num_in_flight < engine.max_in_flight:
                engine.submit(Request((str(num_sent), 0), _messages(num_sent), num_sent))
                num_sent += 1
            finished = engine.step()
            if any(c.finish_reason != "stop" or c.text != TEXT for c in finished):
                sys.exit(f"a wrong answer: {finished}"[:500])
            num_answered += len(finished)
            yield num_answered
    finally:
        engine.close()


async def _bare(url: str, num_requests: int) -> None:
    import aiohttp

    numbers = iter(range(num_requests))

    async def work(session: aiohttp.ClientSession) -> None:
        for i in numbers:
            body = {"model": MODEL, "messages": _messages(i), "temperature": 0.6, "top_p": 0.95, "max_tokens": 16_384}
            async with session.post(f"{url}/chat/completions", json={**body, "seed": i}) as response:
                answer = await response.json()
                if answer["choices"][0]["message"]["content"] != TEXT:
                    sys.exit("a wrong answer")

    connector = aiohttp.TCPConnector(limit=NUM_IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(3_600)) as session:
        await asyncio.gather(*(work(session) for _ in range(NUM_IN_FLIGHT)))


def _memory(url: str, marks: Any) -> dict[str, Any]:
    """RSS in MiB after so many answers, which are thrown away."""
    waiting, found = list(marks), {}
    for num_answered in _ours(url, marks[-1]):
        if waiting and num_answered >= waiting[0]:
            found[str(waiting.pop(0))] = round(_rss_mib(), 1)
    return {"rss_mib": found, "rss_growth": found[str(marks[-1])] / found[str(marks[0])]}


async def _serve(delays_s: tuple[float, float]) -> None:
    """Answer until killed; prints the port."""
    from aiohttp import web

    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 2_000, "total_tokens": 2_100}
    answer = json.dumps({"id": "x", "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage})

    async def chat(request: web.Request) -> web.Response:
        seed = (await request.json())["seed"]
        await asyncio.sleep(random.Random(seed).uniform(*delays_s))
        return web.Response(body=answer.encode(), content_type="application/json")

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": MODEL}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0), backlog=4_096)
    await web.SockSite(runner, listening, backlog=4_096).start()
    print(listening.getsockname()[1], flush=True)
    await asyncio.Event().wait()


def _with_server(which: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one client in a process of its own against a fresh server."""
    short = ["--quick"] if options.quick else []
    command = [sys.executable, "-W", "ignore", __file__, "--requests", str(options.requests)]
    delays = ["--quick"] if which == "memory" else short
    server = subprocess.Popen([*command, *delays, "--child", "server"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        quiet = {**os.environ, "NO_PROXY": "127.0.0.1"}
        client = [*command, *short, "--child", which, "--url", url]
        done = subprocess.run(client, capture_output=True, text=True, env=quiet)
    finally:
        server.kill()
        server.wait()
    if done.returncode:
        sys.exit(f"{which} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _messages(i: int) -> list[dict[str, str]]:
    question = f"What is the sum of the first {i} even numbers? Explain how you found it. " * 4
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
