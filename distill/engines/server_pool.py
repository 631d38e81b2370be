"""Which of several servers the next request goes to, and when one of them is left alone. Knows no HTTP.

Enters: the servers, and what became of each request. Leaves: the server for the next request, in good health and with
room; or word that none has answered for too long.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

NUM_FAILURES_OUT = 5
"""So many failures in a row put a server out."""
COOL_DOWN_S = 1.0
"""A server that was put out is left alone for so long; twice as long after each probe in vain, in seconds."""
MAX_COOL_DOWN_S = 60.0
"""The longest cool-down, and the longest pause of a server that says it is asked too much, in seconds."""
WINDOW_CUT, WINDOW_GROWTH = 0.8, 0.1
"""Requests that a server which is asked too much gets at once: cut to this share, grown by so much at each answer."""
SILENT_S = 10.0
"""Servers that have refused or failed, all of them, since they last answered are silent after so long, in seconds."""
QUIET_S = 120.0
"""A server with requests in flight and no failure for so long is taken to be at work on them, in seconds."""


@dataclass(eq=False, slots=True)
class Server:
    """One base URL and how it is doing. Times are those of the event loop, in seconds."""

    url: str
    client: Any
    settings: dict[str, Any] = field(default_factory=dict)
    """What it told about itself, for the manifest."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """More fields for each of its requests."""
    max_tokens_key: str = "max_tokens"
    window: float = math.inf
    """Most requests in flight that it is sent."""
    num_in_flight: int = 0
    num_failures: int = 0
    """In a row, since its last answer."""
    out: bool = False
    back_at: float = -math.inf
    cool_down_s: float = 0.0
    num_pauses: int = 0
    """In a row, since its last answer."""
    paused_at: float = -math.inf
    paused_until: float = -math.inf
    failed_at: float = -math.inf
    last_problem: str = ""


class Pool:
    """Hands out servers. Lives in one event loop; not for several threads, apart from the counters.

    Args:
        servers: where requests can go.
        most: requests in flight over all servers.
        probe: asks a server that is out for a sign of life.
    """

    def __init__(self, servers: Sequence[Server], most: int, probe: Callable[[Server], Awaitable[bool]]) -> None:
        self.servers = list(servers)
        self.num_answered = 0
        """Answers to requests, whatever they were; refusals are not among them."""
        self._most, self._probe = most, probe
        self._loop = asyncio.get_running_loop()
        self.answered_at = self._loop.time()
        """When a server last showed that it works."""
        self._sample_at: float | None = None
        """When a sample was last answered."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def num_out(self) -> int:
        return sum(server.out for server in self.servers)

    @property
    def is_silent(self) -> bool:
        """Whether no sample is answered: none has been yet, or none is likely to be now."""
        if self._sample_at is None or self.num_out == len(self.servers):
            return True
        has_failed = all(server.num_failures or server.num_pauses for server in self.servers)
        return has_failed and self._loop.time() - self._sample_at >= SILENT_S

    @property
    def problems(self) -> str:
        """What went wrong last at each server."""
        return "; ".join(f"{server.url}: {server.last_problem or 'no answer'}" for server in self.servers)

    async def acquire(self, avoid: Server | None = None) -> Server:
        """The server with the fewest requests in flight, as soon as one has room.

        Args:
            avoid: the server that failed just now; chosen only where no other one has room.
        """
        while (server := self._pick(avoid)) is None:
            place = self._loop.create_future()
            self._waiting.append(place)
            await place
        server.num_in_flight += 1
        return server

    def release(self, server: Server) -> None:
        """The request to `server` is over, well or not."""
        server.num_in_flight -= 1
        self._wake()

    def note_alive(self, answered: bool) -> None:
        """Some server works: it answered, or (`answered` false) it showed a sign of life."""
        self.answered_at = self._loop.time()
        self.num_answered += answered

    def succeeded(self, server: Server, answered: bool = True) -> None:
        """The server dealt with a sample: it answered, or (`answered` false) refused it for what was in it."""
        self.note_alive(answered)
        if answered:
            self._sample_at = self.answered_at
        server.num_failures = server.num_pauses = 0
        server.cool_down_s = 0.0
        if server.window < self._most:
            server.window += WINDOW_GROWTH

    def failed(self, server: Server, began_at: float, why: str) -> None:
        """The server did not answer a request that it got at `began_at`; a few in a row put it out."""
        server.failed_at, server.last_problem = self._loop.time(), why
        if server.out or began_at < server.back_at:  # it failed before it was put out: that is settled
            return
        server.num_failures += 1
        if server.num_failures >= NUM_FAILURES_OUT:
            self.put_out(server, why)

    def put_out(self, server: Server, why: str) -> None:
        """Leave a server alone until a probe finds it well."""
        server.out, server.last_problem = True, why
        task = self._loop.create_task(self._bring_back(server))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def throttled(self, server: Server, began_at: float, wait_s: float | None, why: str) -> None:
        """The server is asked too much: leave it alone for a while, then send it fewer at once.

        Args:
            server: which one.
            began_at: when it got the request.
            wait_s: how long it wants to be left alone; `None`: it did not say.
            why: what it said.
        """
        now = server.failed_at = self._loop.time()
        server.last_problem = why
        if began_at >= server.paused_at:  # one burst of refusals is one event, however many requests it hit
            server.num_pauses += 1
            server.paused_at = now
            server.window = max(1.0, WINDOW_CUT * min(server.window, server.num_in_flight))
            if wait_s is None:
                wait_s = random.uniform(0, min(MAX_COOL_DOWN_S, COOL_DOWN_S * 2**server.num_pauses))
        if wait_s is not None and now + wait_s > server.paused_until:
            server.paused_until = now + wait_s
            # The next tick of the clock is past the pause, whatever the clock's resolution.
            self._loop.call_later(wait_s + 1e-3, self._wake)

    def is_stuck(self, give_up_after_s: float) -> bool:
        """Whether no server has answered for so long."""
        return self._loop.time() - self.answered_at >= give_up_after_s

    def at_work(self) -> list[Server]:
        """The servers that seem to be at work on long requests: they have some, and nothing failed lately."""
        now = self._loop.time()
        return [s for s in self.servers if not s.out and s.num_in_flight and now - s.failed_at > QUIET_S]

    async def close(self) -> None:
        """End the probes."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pick(self, avoid: Server | None) -> Server | None:
        now = self._loop.time()
        free = [s for s in self.servers if not s.out and now >= s.paused_until and s.num_in_flight + 1 <= s.window]
        return min(free, key=lambda s: (s is avoid, s.num_in_flight), default=None)

    def _wake(self) -> None:
        """Let the first that wait look again, one for each place that is free."""
        if not self._waiting:
            return
        now = self._loop.time()
        fit = (s for s in self.servers if not s.out and now >= s.paused_until)
        num_free = sum(max(0.0, min(s.window, self._most) - s.num_in_flight) for s in fit)
        while self._waiting and num_free > 0:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                num_free -= 1

    async def _bring_back(self, server: Server) -> None:
        """Probe until the server answers. A probe is a request of its own: a sample would take minutes to tell."""
        while True:
            server.cool_down_s = min(MAX_COOL_DOWN_S, 2 * server.cool_down_s or COOL_DOWN_S)
            await asyncio.sleep(server.cool_down_s * random.uniform(0.5, 1.0))
            if await self._probe(server):
                break
        server.out, server.back_at = False, self._loop.time()
        # One more failure puts it out again, until it has answered a sample.
        server.num_failures = NUM_FAILURES_OUT - 1
        self._wake()
