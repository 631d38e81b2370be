"""Load balancing over several servers: picks one for each request and takes failing ones out of use.

Independent of HTTP: the caller reports the outcome of each request.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

NUM_FAILURES_OUT = 5
"""Consecutive failures that take a server out of use."""
COOL_DOWN_S = 1.0
"""Time until a server that was taken out is probed, doubled after each failed probe, in seconds."""
MAX_COOL_DOWN_S = 60.0
"""Longest cool-down, and longest pause of an overloaded server that does not say how long to wait, in seconds."""
WINDOW_CUT, WINDOW_GROWTH = 0.8, 0.1
"""An overloaded server's limit of requests in flight is cut to this share, then grows by this much per answer."""
SILENT_S = 10.0
"""If all servers are failing, they count as silent this long after the last answered sample, in seconds."""
QUIET_S = 120.0
"""A server with requests in flight and no failure for this time is assumed to work on them, in seconds."""


@dataclass(eq=False, slots=True)
class Server:
    """One base URL and its state. Times are those of the event loop, in seconds."""

    url: str
    client: Any
    settings: dict[str, Any] = field(default_factory=dict)
    """What it reported about itself, for the manifest."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Additional fields for each of its requests."""
    max_tokens_key: str = "max_tokens"
    window: float = math.inf
    """Its limit of requests in flight."""
    num_in_flight: int = 0
    num_failures: int = 0
    """Consecutive ones since its last answer."""
    out: bool = False
    back_at: float = -math.inf
    cool_down_s: float = 0.0
    num_pauses: int = 0
    """Consecutive ones since its last answer."""
    paused_at: float = -math.inf
    paused_until: float = -math.inf
    failed_at: float = -math.inf
    last_problem: str = ""


class Pool:
    """Pool of servers. Belongs to one event loop; not thread-safe except for the counters.

    Args:
        servers: the servers to choose from.
        most: limit of requests in flight over all servers.
        probe: returns whether a server that was taken out answers again.
    """

    def __init__(self, servers: Sequence[Server], most: int, probe: Callable[[Server], Awaitable[bool]]) -> None:
        self.servers = list(servers)
        self.num_answered = 0
        """Answers to requests of any kind; refusals do not count."""
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
        """Return whether no sample is being answered: none has been yet, or no server seems able to."""
        if self._sample_at is None or self.num_out == len(self.servers):
            return True
        has_failed = all(server.num_failures or server.num_pauses for server in self.servers)
        return has_failed and self._loop.time() - self._sample_at >= SILENT_S

    @property
    def problems(self) -> str:
        """Return the last problem of each server."""
        return "; ".join(f"{server.url}: {server.last_problem or 'no answer'}" for server in self.servers)

    async def acquire(self, avoid: Server | None = None) -> Server:
        """Wait until a server has room; return the one with the fewest requests in flight.

        Args:
            avoid: the server that has just failed; chosen only if no other has room.
        """
        while (server := self._pick(avoid)) is None:
            place = self._loop.create_future()
            self._waiting.append(place)
            await place
        server.num_in_flight += 1
        return server

    def release(self, server: Server) -> None:
        """Record that a request to `server` has ended, successfully or not."""
        server.num_in_flight -= 1
        self._wake()

    def note_alive(self, answered: bool) -> None:
        """Record that some server works: it answered, or (`answered` false) showed a sign of life."""
        self.answered_at = self._loop.time()
        self.num_answered += answered

    def succeeded(self, server: Server, answered: bool = True) -> None:
        """Record that the server handled a sample: it answered, or (`answered` false) refused it for its content."""
        self.note_alive(answered)
        if answered:
            self._sample_at = self.answered_at
        server.num_failures = server.num_pauses = 0
        server.cool_down_s = 0.0
        if server.window < self._most:
            server.window += WINDOW_GROWTH

    def failed(self, server: Server, began_at: float, why: str) -> None:
        """Record that the server did not answer a request sent at `began_at`; several in a row take it out of use."""
        server.failed_at, server.last_problem = self._loop.time(), why
        if server.out or began_at < server.back_at:  # sent before it was taken out: already counted
            return
        server.num_failures += 1
        if server.num_failures >= NUM_FAILURES_OUT:
            self.put_out(server, why)

    def put_out(self, server: Server, why: str) -> None:
        """Take a server out of use until a probe succeeds."""
        server.out, server.last_problem = True, why
        task = self._loop.create_task(self._bring_back(server))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def throttled(self, server: Server, began_at: float, wait_s: float | None, why: str) -> None:
        """Record that the server is overloaded: pause it, then allow fewer requests in flight.

        Args:
            server: the server.
            began_at: when the request was sent.
            wait_s: the pause that it asks for; `None`: unspecified.
            why: its message.
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
            # The extra millisecond makes sure that the pause is over, whatever the clock's resolution.
            self._loop.call_later(wait_s + 1e-3, self._wake)

    def is_stuck(self, give_up_after_s: float) -> bool:
        """Return whether no server has answered for `give_up_after_s`."""
        return self._loop.time() - self.answered_at >= give_up_after_s

    def at_work(self) -> list[Server]:
        """Return the servers that seem to work on long requests: some in flight, and no recent failure."""
        now = self._loop.time()
        return [s for s in self.servers if not s.out and s.num_in_flight and now - s.failed_at > QUIET_S]

    async def close(self) -> None:
        """Cancel the probes."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pick(self, avoid: Server | None) -> Server | None:
        now = self._loop.time()
        free = [s for s in self.servers if not s.out and now >= s.paused_until and s.num_in_flight + 1 <= s.window]
        return min(free, key=lambda s: (s is avoid, s.num_in_flight), default=None)

    def _wake(self) -> None:
        """Wake the first waiting requests, one for each free slot."""
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
        """Probe until the server answers. Probes are short requests, because a sample may take minutes."""
        while True:
            server.cool_down_s = min(MAX_COOL_DOWN_S, 2 * server.cool_down_s or COOL_DOWN_S)
            await asyncio.sleep(server.cool_down_s * random.uniform(0.5, 1.0))
            if await self._probe(server):
                break
        server.out, server.back_at = False, self._loop.time()
        # One more failure takes it out again, unless it answers a sample first.
        server.num_failures = NUM_FAILURES_OUT - 1
        self._wake()
