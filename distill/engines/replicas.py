"""Replicas of one engine on this machine behind one queue, each a process with its own GPUs or CPU cores.

A request goes to the replica with the most free slots, so that a slow replica never delays the others. A replica that
dies is restarted, and its requests are retried.

Messages are pickles through one pipe per replica: `Request` to it; `Ready`, `Failed`, `InFlight` and lists of
`Completion` from it.
"""

import contextlib
import itertools
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from distill import errors
from distill.core.records import SampleKey
from distill.core.terminal import printable
from distill.engines.base import STEP_S, Completion, Engine, EngineSpec, Request
from distill.engines.memory import visible_gpus
from distill.errors import DistillError, ModelError, StageError
from distill.execution.jobs import end_with_parent
from distill.execution.process_group import cause_of_death
from distill.recipe.sampling import SamplingCompute

MAX_RESTARTS = 2
"""How often a dead replica is restarted."""
MAX_DEATHS = 3
"""A request that was in flight when this many replicas died is given up: it may be the cause."""
TELL_EVERY_S = 1.0
"""Interval at which a replica reports its tokens in flight."""
CLOSE_WITHIN_S = 10.0
"""How long replicas have to exit before they are killed."""


@dataclass(frozen=True, slots=True)
class ReplicaDevices:
    """GPUs or CPU cores of one replica."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    """CPU cores to run on; empty: any."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Message that a replica's engine is up."""

    settings: dict[str, Any]
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Message that a replica's engine could not start: the name of a class in `distill.errors`, and its message."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class InFlight:
    """Message with a replica's completion tokens in flight; `None`: unknown to its engine."""

    num_tokens: int | None


@dataclass(slots=True)
class _Replica:
    """The parent's view of one replica."""

    place: ReplicaDevices
    process: SpawnProcess
    pipe: "Connection[Any, Any]"
    max_in_flight: int = 0
    """0 until its engine is up."""
    num_restarts: int = 0
    in_flight: dict[SampleKey, Request] = field(default_factory=dict)
    num_tokens: int | None = 0
    """As last reported, minus those of completions received since."""

    @property
    def num_free(self) -> int:
        return self.max_in_flight - len(self.in_flight)


class ReplicatedEngine:
    """Replicas of an engine behind one queue. Implements `distill.engines.base.Engine`.

    Create and use it in the main thread: replicas end with the thread that started them.

    Args:
        spec: the engine to replicate, `spec.compute.replicas` times.
        start: starts one engine; must be importable in a new process.

    Raises:
        ModelError: too few GPUs or cores.
        StageError: a replica died while starting.
        DistillError: raised by a replica's engine while starting.
    """

    def __init__(self, spec: EngineSpec, start: Callable[[EngineSpec], Engine]) -> None:
        num = spec.compute.replicas
        places = find_places(spec.compute)
        self._start_one = start
        self._spec_of_one = replace(
            spec, compute=spec.compute.model_copy(update={"replicas": 1}), memory_share=spec.memory_share / num
        )
        self._replicas: list[_Replica] = []
        """Replicas that are running or starting."""
        self._queue: deque[Request] = deque()
        self._num_deaths: Counter[SampleKey] = Counter()
        """Replicas that died with the request in flight."""
        self._last_cause = ""
        self.max_in_flight = 0
        self.settings: dict[str, Any] = {}
        try:
            for place in places:
                self._replicas.append(self._spawn(place))
            for one in self._replicas:
                self._await_start(one)
        except BaseException:
            self.close()
            raise
        self.settings |= {"replicas": num, "devices": [place.name for place in places]}

    @property
    def num_in_flight(self) -> int:
        return len(self._queue) + sum(len(one.in_flight) for one in self._replicas)

    @property
    def num_tokens_in_flight(self) -> int | None:
        told = [one.num_tokens for one in self._replicas if one.in_flight]
        return None if None in told else sum(filter(None, told))

    def submit(self, request: Request) -> Completion | None:
        self._queue.append(request)
        self._hand_out()
        return None

    def step(self) -> list[Completion]:
        if not self._replicas:
            raise StageError(
                f"every replica died (the last one: {self._last_cause}). Finished work is kept, and the same command "
                "resumes it. If memory ran out, lower compute.replicas or compute.max_num_seqs."
            )
        finished: list[Completion] = []
        ready = wait([one.pipe for one in self._replicas], STEP_S)
        for one in [one for one in self._replicas if one.pipe in ready]:
            finished += self._take(one)
        self._hand_out()
        return finished

    def close(self) -> None:
        for one in self._replicas:
            one.pipe.close()  # a replica exits when its pipe is closed
            if one.in_flight or not one.max_in_flight:  # it would not notice during a step or while loading
                _kill(one.process)
        deadline = time.monotonic() + CLOSE_WITHIN_S
        for one in self._replicas:
            one.process.join(max(0.0, deadline - time.monotonic()))
            _kill(one.process)
        self._replicas.clear()
        self._queue.clear()

    def _spawn(self, place: ReplicaDevices) -> _Replica:
        # Not daemonic: a daemon may have no children, and tensor parallelism's workers are children of a replica.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._start_one, self._spec_of_one, place))
        process.start()
        theirs.close()  # else our end would stay open after its death
        return _Replica(place, process, ours)

    def _await_start(self, one: _Replica) -> None:
        try:
            answer = one.pipe.recv()
        except (EOFError, OSError):
            cause = _end(one.process)
            raise StageError(
                f"a replica ({one.place.name}) died while starting ({cause}). Lower "
                "compute.replicas or compute.max_num_seqs if memory ran out; its log is in the run folder."
            ) from None
        if isinstance(answer, Failed):
            raise getattr(errors, answer.error, StageError)(answer.message)
        self._mark_ready(one, answer)

    def _mark_ready(self, one: _Replica, ready: Ready) -> None:
        one.max_in_flight = ready.max_in_flight
        self.settings = self.settings or dict(ready.settings)
        self._update_max_in_flight()

    def _update_max_in_flight(self) -> None:
        self.max_in_flight = sum(one.max_in_flight for one in self._replicas)

    def _hand_out(self) -> None:
        """Send waiting requests to the replicas with the most room."""
        waiting = [request for request in self._queue if not self._sent(request)]
        self._queue = deque(waiting)

    def _sent(self, request: Request) -> bool:
        suspect = self._is_suspect(request)
        # A replica gets only one request at a time that may kill replicas, so that no other suspect dies with it.
        takers = [
            one
            for one in self._replicas
            if one.num_free > 0 and not (suspect and any(map(self._is_suspect, one.in_flight.values())))
        ]
        if not takers:
            return False
        one = max(takers, key=lambda one: one.num_free)
        one.in_flight[request.key] = request
        with contextlib.suppress(OSError):  # it has just died, which `step` handles
            one.pipe.send(request)
        return True

    def _is_suspect(self, request: Request) -> bool:
        return self._num_deaths[request.key] >= MAX_DEATHS - 1

    def _take(self, one: _Replica) -> list[Completion]:
        """Handle the messages of a replica; return its completions."""
        finished: list[Completion] = []
        try:
            while one.pipe.poll():
                message: Ready | Failed | InFlight | list[Completion] = one.pipe.recv()
                if isinstance(message, Ready):
                    self._mark_ready(one, message)
                elif isinstance(message, Failed):
                    sys.stderr.write(
                        f"The replica on {one.place.name} failed to restart: {printable(message.message)}\n"
                    )
                elif isinstance(message, InFlight):
                    one.num_tokens = message.num_tokens
                else:
                    finished += message
                    for completion in message:
                        del one.in_flight[completion.key]
                        if one.num_tokens is not None:
                            one.num_tokens = max(0, one.num_tokens - completion.num_completion_tokens)
                        self._num_deaths.pop(completion.key, None)
        except (EOFError, OSError):
            finished += self._bury(one)
        return finished

    def _bury(self, dead: _Replica) -> list[Completion]:
        """Restart a dead replica and requeue its requests; return error completions for those that are given up."""
        dead.pipe.close()
        self._last_cause = _end(dead.process)
        self._num_deaths.update(dead.in_flight.keys())
        given_up = [key for key in dead.in_flight if self._num_deaths[key] >= MAX_DEATHS]
        again = [request for key, request in dead.in_flight.items() if key not in given_up]
        self._queue.extendleft(reversed(again))
        self._replicas.remove(dead)
        restarts = dead.num_restarts < MAX_RESTARTS
        sys.stderr.write(
            f"The replica on {dead.place.name} died ({self._last_cause}): {len(again)} samples are retried, "
            f"{len(given_up)} given up; it is {'restarted' if restarts else 'not restarted'}.\n"
        )
        if restarts:
            new = self._spawn(dead.place)
            new.num_restarts = dead.num_restarts + 1
            self._replicas.append(new)
        self._update_max_in_flight()
        why = f"in flight when {MAX_DEATHS} replicas died (the last one: {self._last_cause})"
        return [Completion(key, "", "error", 0, 0, error=why) for key in given_up]


def find_places(compute: SamplingCompute) -> list[ReplicaDevices]:
    """Return the GPUs of each replica, or without GPUs its share of the cores available to this process.

    Raises:
        ModelError: there are too few.
    """
    num, each = compute.replicas, (compute.tensor_parallel or 1) * compute.pipeline_parallel
    gpus = list(visible_gpus())
    if gpus:
        if num * each > len(gpus):
            shared = f" of {each} GPUs each (tensor_parallel x pipeline_parallel)" if each > 1 else ""
            raise ModelError(
                f"compute.replicas: {num} replicas{shared} need {num * each} GPUs; there are {len(gpus)} "
                f"({', '.join(gpus)}). Lower compute.replicas to {len(gpus) // each}."
            )
        groups = (",".join(gpus[i * each : (i + 1) * each]) for i in range(num))
        return [ReplicaDevices(f"GPU {group}", {"CUDA_VISIBLE_DEVICES": group}) for group in groups]
    cores = sorted(os.sched_getaffinity(0))
    wanted = num * (compute.cpu_threads or 1)
    if wanted > len(cores):
        threads = f" of {compute.cpu_threads} cores each (compute.cpu_threads)" if compute.cpu_threads else ""
        raise ModelError(
            f"compute.replicas: {num} replicas{threads} need {wanted} cores (there is no GPU); there are "
            f"{len(cores)}. Lower compute.replicas."
        )
    bounds = [i * len(cores) // num for i in range(num + 1)]
    shares = [tuple(cores[low:high])[: compute.cpu_threads] for low, high in itertools.pairwise(bounds)]
    return [ReplicaDevices(f"cores {_ranges(share)}", cores=share) for share in shares]


def _ranges(cores: Sequence[int]) -> str:
    """Return `0-3,8` for (0, 1, 2, 3, 8)."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in runs)


def _end(process: SpawnProcess) -> str:
    """Make sure that a process whose pipe has closed is gone, with its children; return the cause of its death."""
    process.join(2.0)
    _kill(process)
    return cause_of_death(process.exitcode)


def _kill(process: SpawnProcess) -> None:
    assert process.pid is not None
    if process.is_alive():
        process.kill()
        process.join()
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)  # its child processes


def _serve(
    pipe: "Connection[Any, Any]", start: Callable[[EngineSpec], Engine], spec: EngineSpec, place: ReplicaDevices
) -> None:
    """Run a replica in its own process."""
    end_with_parent()
    os.setsid()  # Ctrl-C is for the parent: a new session hides it from this process and its children
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _ignore)
    # Before the engine imports torch or vLLM, which read environment and cores only once.
    os.environ.update(place.environment)
    if place.cores:
        os.sched_setaffinity(0, place.cores)
    code = 0
    try:
        try:
            engine = start(spec)
        except DistillError as error:
            traceback.print_exc()
            code = 1
            _send(pipe, Failed(type(error).__name__, str(error)))
        else:
            _answer(pipe, engine)
            engine.close()
    except _ParentGoneError:
        pass
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # exit handlers of vLLM and torch may hang


class _ParentGoneError(Exception):
    """Nobody reads the pipe any more."""


def _send(pipe: "Connection[Any, Any]", message: Any) -> None:
    # Only here: a broken pipe inside an engine is an error of the engine.
    try:
        pipe.send(message)
    except (BrokenPipeError, ConnectionResetError):
        raise _ParentGoneError from None


def _ignore(*_: Any) -> None:
    """Ignore a signal. Unlike `SIG_IGN`, this is not inherited by the engine's own processes."""


def _answer(pipe: "Connection[Any, Any]", engine: Engine) -> None:
    """Feed the engine with requests from the pipe until the pipe closes."""
    inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    # Read in a thread: if both ends blocked on sending, they would deadlock.
    threading.Thread(target=_read_all, args=(pipe, inbox), daemon=True).start()
    _send(pipe, Ready(engine.settings, engine.max_in_flight))
    told_at = time.monotonic()
    while True:
        finished = []
        for request in _arrived(inbox, block=not engine.num_in_flight):
            if request is None:
                return
            refused = engine.submit(request)
            if refused is not None:
                finished.append(refused)
        if engine.num_in_flight:
            finished += engine.step()
        if finished:
            _send(pipe, finished)
        if time.monotonic() - told_at >= TELL_EVERY_S:
            told_at = time.monotonic()
            _send(pipe, InFlight(engine.num_tokens_in_flight))


def _read_all(pipe: "Connection[Any, Any]", inbox: "queue.SimpleQueue[Request | None]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(pipe.recv())
    inbox.put(None)


def _arrived(inbox: "queue.SimpleQueue[Request | None]", block: bool) -> Iterable[Request | None]:
    if block:
        yield inbox.get()
    with contextlib.suppress(queue.Empty):
        while True:
            yield inbox.get_nowait()
