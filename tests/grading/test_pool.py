"""Workers that hang, crash and lie cost one task, never the run."""

import contextlib
import functools
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distill.grading.pool import CRASHED, OUT_OF_MEMORY, TIMED_OUT, GradingPool, Settled
from distill.isolation.walls import WALLS, has_wall

WALLS_HERE = [wall for wall in WALLS if has_wall(wall)]

# `eval` and `exec` are functions that a worker finds by name, whatever file this is
FOREVER = "all(zero == 0 for zero in iter(int, 1))"
FOREVER_IN_C = "sum(iter(int, 1))"
BACKTRACKING = "__import__('re').match('(a+)+$', 'a' * 60 + 'b')"
SEGFAULT = "__import__('ctypes').string_at(0)"
PID = "__import__('os').getpid()"


@pytest.fixture(scope="module")
def pool():
    with GradingPool(2, timeout_s=1.0) as workers:
        yield workers


def pids(pool):
    """Process ids as this process sees them; the workers may see others."""
    return {worker.process.pid for worker in pool._workers}


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # dead, only not fetched by its parent yet


def test_answers_come_in_the_order_of_the_tasks(pool):
    # the first task ends last
    code = "(__import__('time').sleep({}), {})[1]"
    assert list(pool.map(eval, [code.format(0.4, 0), code.format(0.0, 1), code.format(0.1, 2)])) == [0, 1, 2]


def test_many_more_tasks_than_workers(pool):
    tasks = list(range(1_000))
    assert list(pool.map(functools.partial(operator.mul, 3), tasks)) == [3 * task for task in tasks]


def test_more_workers_than_tasks():
    with GradingPool(4) as pool:
        assert list(pool.map(operator.neg, [5])) == [-5]


def test_no_tasks(pool):
    assert list(pool.map(operator.neg, [])) == []


def test_tasks_may_come_from_a_generator(pool):
    assert list(pool.map(operator.neg, (n for n in range(3)))) == [0, -1, -2]


def test_answers_that_look_like_nothing_are_answers(pool):
    answers = [None, False, 0, "", "ready", "TIMED_OUT", (True, "x")]
    assert list(pool.map(eval, [repr(answer) for answer in answers])) == answers


@pytest.mark.parametrize("code", [FOREVER, FOREVER_IN_C, BACKTRACKING], ids=["python", "C", "regular expression"])
def test_a_task_that_never_ends_is_given_up(code, pool):
    started = time.monotonic()
    assert list(pool.map(eval, [code, "1 + 1"])) == [TIMED_OUT, 2]
    assert time.monotonic() - started < 10


def test_a_task_that_sleeps_too_long_is_given_up(pool):
    assert list(pool.map(time.sleep, [60.0, 0.0])) == [TIMED_OUT, None]


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("__import__('os')._exit(0)", id="exit"),
        pytest.param(SEGFAULT, id="segmentation fault"),
        pytest.param("__import__('sys').exit(3)", id="SystemExit"),
        pytest.param("1 / 0", id="exception"),
        pytest.param("(lambda f: f(f))(lambda f: f(f))", id="recursion"),
        pytest.param("lambda: 0", id="an answer that cannot be sent"),
    ],
)
def test_a_task_that_crashes_costs_only_itself(code, pool):
    good = ["1 + 1"] * 5
    assert list(pool.map(eval, [*good, code, *good])) == [*[2] * 5, CRASHED, *[2] * 5]


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("'x' * (1 << 60)", id="more than there is"),
        pytest.param("len(bytearray(3 << 30))", id="more than allowed"),
        pytest.param("[bytes(1 << 20) for _ in range(5_000)]", id="by and by"),
        pytest.param("__import__('os').kill(__import__('os').getpid(), 9)", id="killed, as the kernel would"),
        pytest.param("__import__('os').abort()", id="aborted, as a C library would"),
    ],
)
def test_a_task_that_takes_too_much_memory_costs_only_itself(code):
    with GradingPool(1, timeout_s=10.0, memory_gib=1.0) as pool:
        assert list(pool.map(eval, ["1 + 1", code, "1 + 1", PID]))[:3] == [2, OUT_OF_MEMORY, 2]


def test_a_task_within_the_memory_limit_is_answered():
    with GradingPool(1, memory_gib=1.0) as pool:
        assert list(pool.map(eval, ["len(bytearray(1 << 29))"])) == [1 << 29]


def test_a_worker_that_survived_a_recursion_goes_on():
    with GradingPool(1) as pool:
        first, crashed, second = pool.map(eval, [PID, "(lambda f: f(f))(lambda f: f(f))", PID])
        assert crashed is CRASHED
        assert first == second


def test_settled_tasks_take_their_place_without_a_worker():
    with GradingPool(1) as pool:
        assert list(pool.map(operator.neg, [Settled(n) for n in range(5)])) == list(range(5))
        assert pool._workers == []
        mixed = [Settled("a"), 1, Settled("b"), 2, 3, Settled(None)]
        assert list(pool.map(operator.neg, mixed)) == ["a", -1, "b", -2, -3, None]


def test_tasks_are_taken_as_workers_become_free():
    taken = []

    def tasks():
        for n in range(10_000):
            taken.append(n)
            yield n if n % 2 else Settled(n)

    with GradingPool(2) as pool, contextlib.closing(pool.map(operator.neg, tasks(), look_ahead=8)) as answers:
        for n in range(100):
            assert next(answers) == (-n if n % 2 else n)
            assert len(taken) <= n + 1 + 8


def test_the_others_go_on_while_one_hangs():
    taken = []

    def tasks():
        for n in range(50):
            taken.append(n)
            yield FOREVER if n == 0 else "1"

    with GradingPool(2, timeout_s=3.0) as pool:
        assert list(pool.map(eval, ["1", "1"])) == [1, 1]
        answers = pool.map(eval, tasks())
        assert next(answers) is TIMED_OUT
        assert len(taken) == 50
        assert list(answers) == [1] * 49


def test_a_task_that_others_keep_from_the_cpu_gets_its_time(pool):
    # stopped for a part of its limit of 1 s, it has used little of its time; a sleeping one is given up
    busy = "import time\nend = time.process_time() + 0.7\nwhile time.process_time() < end: pass"
    with GradingPool(1, timeout_s=1.0) as pool, contextlib.closing(pool.map(exec, ["pass", busy])) as answers:
        assert next(answers) is None
        (pid,) = pids(pool)
        stop = threading.Timer(0.2, os.kill, (pid, signal.SIGSTOP))
        go = threading.Timer(0.7, os.kill, (pid, signal.SIGCONT))
        stop.start()
        go.start()
        assert next(answers) is None
        stop.join()
        go.join()
        assert pids(pool) == {pid}
    assert list(pool.map(time.sleep, [60.0])) == [TIMED_OUT]


def test_look_ahead_holds_back_what_is_behind_a_hung_task():
    done = []

    def tasks():
        yield FOREVER
        for n in range(50):
            done.append(n)
            yield "1"

    with GradingPool(2, timeout_s=1.0) as pool:
        answers = pool.map(eval, tasks(), look_ahead=5)
        assert next(answers) is TIMED_OUT
        assert len(done) <= 5
        assert list(answers) == [1] * 50


def test_a_task_that_cannot_be_unpacked_is_a_crash(pool):
    assert list(pool.map(repr, [1, Unpackable(), 3])) == ["1", CRASHED, "3"]


class Unpackable:
    """Fails in the worker, when the task is read."""

    def __reduce__(self):
        return (operator.truediv, (1, 0))


def test_many_bad_tasks_among_good_ones(pool):
    codes = ["1 / 0" if n % 7 == 3 else "__import__('os')._exit(1)" if n % 7 == 5 else str(n) for n in range(35)]
    expected = [CRASHED if n % 7 in (3, 5) else n for n in range(35)]
    assert list(pool.map(eval, codes)) == expected


def test_a_dead_worker_is_replaced():
    with GradingPool(1, timeout_s=1.0) as pool:
        answers = pool.map(eval, ["1", SEGFAULT, "2", FOREVER, "3"])
        seen = [(next(answers), pids(pool)) for _ in range(5)]
        assert [answer for answer, _ in seen] == [1, CRASHED, 2, TIMED_OUT, 3]
        (first,), (second,), (third,) = (found for answer, found in seen if isinstance(answer, int))
        assert len({first, second, third}) == 3
        assert not is_running(first)
        assert not is_running(second)
        assert is_running(third)


def test_an_exception_leaves_the_worker_alive():
    with GradingPool(1) as pool:
        first, crashed, second = pool.map(eval, [PID, "1 / 0", PID])
        assert crashed is CRASHED
        assert first == second


def test_a_pool_maps_twice_with_the_same_workers(pool):
    first = set(pool.map(eval, [PID] * 20))
    assert list(pool.map(operator.neg, [1, 2, 3])) == [-1, -2, -3]
    assert set(pool.map(eval, [PID] * 20)) <= first


def test_answers_nobody_waited_for_do_not_turn_up_in_the_next_map():
    slowly = "(__import__('time').sleep(0.4), {!r})[1]"
    with GradingPool(2, timeout_s=5.0) as pool:
        assert list(pool.map(eval, [slowly.format("warm")] * 2)) == ["warm"] * 2
        answers = pool.map(eval, ["'old'", slowly.format("old"), "'old'"])
        assert next(answers) == "old"
        answers.close()  # the other worker is still busy with the second task
        assert list(pool.map(eval, [slowly.format(n) for n in range(4)])) == [0, 1, 2, 3]


def test_an_idle_worker_that_was_killed_is_replaced_or_costs_one_task():
    with GradingPool(1) as pool:
        assert list(pool.map(eval, ["1"])) == [1]
        (pid,) = pids(pool)
        os.kill(pid, 9)
        while is_running(pid):
            time.sleep(0.01)
        first, *rest = pool.map(operator.neg, [1, 2, 3])
        assert first in (-1, OUT_OF_MEMORY)
        assert rest == [-2, -3]


def test_large_tasks_and_answers(pool):
    text = "x" * 5_000_000
    assert list(pool.map(str.upper, [text] * 3)) == [text.upper()] * 3


def test_importing_the_graders_does_not_count_as_grading():
    with GradingPool(1, timeout_s=0.3) as pool:
        assert list(pool.map(operator.neg, [1])) == [-1]


def test_a_slow_task_gets_its_whole_limit_after_the_others_and_its_place_among_the_answers():
    slow = "(__import__('time').sleep(1.5), __import__('time').monotonic())[1]"
    quick = "__import__('time').monotonic()"
    with GradingPool(1, timeout_s=20.0) as pool:
        first, *others = pool.map(eval, [slow, quick, quick])
    assert isinstance(first, float)
    assert first > max(others)


def test_a_task_that_never_ends_is_given_up_after_its_whole_limit():
    with GradingPool(1, timeout_s=1.5) as pool:
        assert list(pool.map(eval, ["1", FOREVER, "2"])) == [1, TIMED_OUT, 2]


def test_closing_leaves_no_process():
    with GradingPool(2) as pool:
        list(pool.map(eval, [PID] * 10))
        found = pids(pool)
        assert all(map(is_running, found))
    assert found
    assert not any(map(is_running, found))


def test_closing_ends_a_worker_that_hangs():
    pool = GradingPool(2, timeout_s=60.0)
    slow = ["__import__('time').sleep(0.3)"] * 4  # so that both workers are there
    with pool, contextlib.closing(pool.map(eval, [*slow, "0", FOREVER])) as answers:
        assert [next(answers) for _ in slow] == [None] * 4
        assert next(answers) == 0
        found = pids(pool)
        assert all(map(is_running, found))
    assert len(found) == 2
    assert not any(map(is_running, found))


def test_an_error_in_the_caller_ends_the_workers_too():
    found = set()

    def use():
        with GradingPool(1) as pool:
            list(pool.map(eval, [PID]))
            found.update(pids(pool))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert found
    assert not any(map(is_running, found))


@pytest.mark.parametrize("wall", WALLS_HERE)
def test_a_caller_that_is_killed_leaves_no_worker_behind(wall):
    code = (
        "from distill.grading.pool import GradingPool\n"
        f"with GradingPool(1, 1.0, wall={wall!r}) as p:\n"
        "    list(p.map(eval, ['1']))\n"
        "    print(p._workers[0].process.pid, flush=True)\n"
        f"    list(p.map(eval, [{FOREVER!r}]))"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(caller.stdout.readline())
    assert is_running(pid)
    caller.kill()
    caller.wait()
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    was_left_behind = is_running(pid)
    if was_left_behind:
        os.kill(pid, 9)
    assert not was_left_behind


def test_a_caller_with_threads():
    """A forked child of a process with threads may wait for a lock that nobody holds; workers must not."""
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with GradingPool(2) as pool:
            assert list(pool.map(operator.neg, range(20))) == [-n for n in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
