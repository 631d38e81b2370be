"""A confined process can do no harm, whatever it is made to run, behind each wall that this machine has.

`exec` and `eval` are functions that it finds by name: what they are given here stands for what took a parser over.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.isolation import (
    CrashError,
    FunctionError,
    IsolationError,
    MemoryLimitError,
    TimeLimitError,
    call_isolated,
    processes,
    shared_server,
    walls,
    wire,
)
from distill.isolation.walls import MAY_EVALUATE, WALLS, has_wall

WALLS_HERE = [wall for wall in WALLS if has_wall(wall)]
STRONG = [wall for wall in WALLS_HERE if wall in MAY_EVALUATE]
FILTERED = [wall for wall in WALLS_HERE if wall != "rlimits"]
SECRET = "a-secret-of-this-test"


def run(code, wall, timeout_s=10.0, memory_gib=1.0, read_paths=()):
    """What a hostile expression gives in a confined process; an error where it is kept from it."""
    return call_isolated(eval, code, timeout_s=timeout_s, memory_gib=memory_gib, read_paths=read_paths, wall=wall)


@pytest.fixture(scope="module", autouse=True)
def secret():
    """A key in the environment, before the first server starts."""
    before = {name: os.environ.get(name) for name in ("HF_TOKEN", "OPENAI_API_KEY")}
    os.environ.update(dict.fromkeys(before, SECRET))
    yield
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


def test_this_machine_has_some_wall():
    assert walls.best_wall() == WALLS_HERE[0]


@pytest.mark.parametrize("wall", WALLS_HERE)
def test_values_come_back_as_they_are(wall):
    value = "[None, True, -1, 2.5, 'x\\ud800', (1, (b'\\x00',)), {'a': [1], (2,): {}}, 10**50]"
    assert run(value, wall) == eval(value)


@pytest.mark.parametrize("wall", WALLS_HERE)
def test_the_environment_has_no_secrets_and_no_home(wall):
    found = run("dict(__import__('os').environ)", wall)
    assert SECRET not in str(found)
    assert not {"HF_TOKEN", "OPENAI_API_KEY", "HF_HOME", "SSH_AUTH_SOCK"} & found.keys()
    assert found["HOME"] != os.environ.get("HOME")
    assert found["PYTHONHASHSEED"] == "0"


@pytest.mark.parametrize("wall", STRONG)
@pytest.mark.parametrize(
    "process",
    [
        pytest.param(os.getpid, id="of the caller"),
        pytest.param(os.getppid, id="of its parent"),
        pytest.param(lambda: "self/../1", id="of init"),
    ],
)
def test_no_other_processs_environment_can_be_read(wall, process):
    code = f"open('/proc/{process()}/environ', 'rb').read()"
    with contextlib.suppress(FunctionError):
        assert SECRET.encode() not in run(code, wall)
    numbers = "[n for n in __import__('os').listdir('/proc') if n.isdigit()]"
    read = f"[open(f'/proc/{{n}}/environ', 'rb').read() for n in {numbers}]"
    with contextlib.suppress(FunctionError):
        assert SECRET not in str(run(read, wall))


@pytest.mark.parametrize("wall", STRONG)
def test_no_file_of_the_user_can_be_read(wall, tmp_path):
    (tmp_path / "notes").write_text("private")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "rows").write_text("rows")
    for path in (tmp_path / "notes", Path.home() / ".cache", Path.home(), Path("/etc/passwd"), Path(__file__)):
        code = f"open({str(path)!r}).read() if {path.is_file()} else __import__('os').listdir({str(path)!r})"
        with pytest.raises(FunctionError, match=r"PermissionError|FileNotFoundError"):
            run(code, wall)
    given = f"open({str(tmp_path / 'given' / 'rows')!r}).read()"
    with pytest.raises(FunctionError, match=r"PermissionError|FileNotFoundError"):
        run(given, wall)
    assert run(given, wall, read_paths=[tmp_path / "given"]) == "rows"
    for escape in ("given/../notes", "given/link"):
        (tmp_path / "given" / "link").unlink(missing_ok=True)
        (tmp_path / "given" / "link").symlink_to("../notes")
        with pytest.raises(FunctionError):
            run(f"open({str(tmp_path / escape)!r}).read()", wall, read_paths=[tmp_path / "given"])


@pytest.mark.parametrize("wall", FILTERED)
def test_nothing_outside_can_be_written_or_removed(wall, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    before = kept.stat()
    kept, new = str(kept), str(tmp_path / "new")
    attempts = [
        f"open({kept!r}, 'w')",
        f"open({kept!r}, 'r+')",
        f"open({new!r}, 'x')",
        *(
            f"__import__('os').{call}({kept!r}{rest})"
            for call, rest in {
                "remove": "",
                "truncate": ", 0",
                "rename": f", {new!r}",
                "chmod": ", 0o777",
                "link": f", {new!r}",
                "symlink": f", {new!r}",
                "utime": "",
                "setxattr": ", 'user.x', b'1'",
                "chown": ", 1, 1",
            }.items()
        ),
        *(f"__import__('os').{call}({new!r})" for call in ("mkdir", "mkfifo", "mknod")),
        f"__import__('os').open({str(tmp_path)!r}, __import__('os').O_TMPFILE | 2)",
        "__import__('os').memfd_create('x')",
        f"open({str(Path.home() / 'distill-was-here')!r}, 'w')",
        f"open({walls.__file__!r}, 'a')",
    ]
    for attempt in attempts:
        with pytest.raises(FunctionError, match="Error"):
            run(attempt, wall, read_paths=[tmp_path])
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    after = (tmp_path / "kept").stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)
    assert (tmp_path / "kept").read_text() == "as it was"


@pytest.mark.parametrize("wall", FILTERED)
def test_nothing_can_be_reached(wall, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        for family, address in (
            ("AF_INET", tcp.getsockname()),
            ("AF_INET6", ("::1", tcp.getsockname()[1])),
            ("AF_UNIX", str(tmp_path / "socket")),
            ("AF_UNIX", "\0distill"),
        ):
            code = f"[s.connect({address!r}) for s in [__import__('socket').socket(__import__('socket').{family})]]"
            with pytest.raises(FunctionError, match="Error"):
                run(code, wall, read_paths=[tmp_path])
    for other in ("socketpair()", "socket(16, 3)", "socket(17, 3)"):
        with pytest.raises(FunctionError, match="Error"):
            run(f"__import__('socket').{other}", wall)


@pytest.mark.parametrize("wall", FILTERED)
@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').fork()",
        "__import__('os').execv('/bin/true', ['true'])",
        "__import__('subprocess').run(['true'])",
        "__import__('os').posix_spawn('/bin/true', ['true'], dict())",
        "__import__('multiprocessing').get_context('fork').Process(target=print).start()",
        "__import__('os').sched_setaffinity({parent}, [0])",
        "__import__('os').setpriority(0, {parent}, 5)",
        "__import__('os').kill({parent}, 9)",
        "__import__('os').kill(-1, 9)",
        "__import__('os').kill(0, 9)",
        "__import__('os').kill(__import__('os').getppid(), 9)",
        "__import__('os').killpg(__import__('os').getpgid(0), 9)",
        "__import__('os').pidfd_open(__import__('os').getppid())",
        "__import__('resource').prlimit({parent}, 0, (1, 1))",
        "__import__('fcntl').fcntl(3, 8, {parent})",
        "__import__('fcntl').fcntl(3, 10, 9)",
        "__import__('fcntl').ioctl(3, 0x8901, b'\\1\\0\\0\\0')",
        "__import__('socket').recv_fds(__import__('socket').socket(fileno=3), 1, 1)",
    ],
)
def test_no_other_process_can_be_started_or_touched(wall, code):
    with pytest.raises((FunctionError, CrashError)):
        run(code.format(parent=os.getpid()), wall)


@pytest.mark.parametrize("wall", FILTERED)
@pytest.mark.parametrize(
    "call",
    [
        pytest.param("101, 16, {parent}, 0, 0", id="ptrace attach"),
        pytest.param("310, {parent}, 0, 0, 0, 0, 0", id="process_vm_readv"),
        pytest.param("272, 0x10000000", id="unshare"),
        pytest.param("56, 0x10000011, 0, 0, 0, 0", id="clone into a namespace"),
        pytest.param("435, 0, 0", id="clone3"),
        pytest.param("425, 1, 0", id="io_uring"),
        pytest.param("321, 0, 0, 0", id="bpf"),
        pytest.param("250, 0, 0", id="keyctl"),
        pytest.param("0x40000029, 2, 1, 0", id="x32 socket"),
        pytest.param("29, 0, 4096, 0o1600", id="shared memory"),
    ],
)
def test_system_calls_beside_the_ways_of_python_are_refused(wall, call):
    if os.uname().machine != "x86_64":
        pytest.skip("these are the numbers of x86-64")
    code = f"[c.syscall({call}) for c in [__import__('ctypes').CDLL(None)]]"
    assert run(code.format(parent=os.getpid()), wall) == [-1]


def test_a_call_of_another_architecture_ends_the_process():
    if os.uname().machine != "x86_64" or not FILTERED:
        pytest.skip("int 0x80 is x86's")
    # mov eax, 20 (getpid); int 0x80; ret
    code = (
        "[c.CFUNCTYPE(c.c_int)(c.addressof(c.c_char.from_buffer(m)))() for c in [__import__('ctypes')] "
        "for m in [__import__('mmap').mmap(-1, 4096, prot=7)] for _ in [m.write(bytes.fromhex('b814000000cd80c3'))]]"
    )
    with pytest.raises(CrashError):
        run(code, FILTERED[0])


@pytest.mark.parametrize("wall", WALLS_HERE)
def test_memory_time_and_ends_are_told_apart(wall):
    with pytest.raises(MemoryLimitError):
        run("bytearray(3 << 30)", wall)
    with pytest.raises(MemoryLimitError):
        run("[bytes(1 << 20) for _ in range(5_000)]", wall)
    with pytest.raises(TimeLimitError):
        run("sum(iter(int, 1))", wall, timeout_s=0.3)
    with pytest.raises(CrashError):
        run("__import__('os')._exit(0)", wall)
    with pytest.raises(FunctionError) as raised:
        run("{}['boo']", wall)
    assert (raised.value.name, raised.value.said) == ("KeyError", "'boo'")


@pytest.mark.parametrize("wall", WALLS_HERE)
def test_the_disk_cannot_be_filled(wall, tmp_path):
    folder = walls.TEMPORARY if wall == "bubblewrap" else str(tmp_path)
    fill = f"[open(f'{folder}/{{n}}', 'wb').write(bytes(16 << 20)) for n in range(100)]"
    with pytest.raises((FunctionError, CrashError)):  # the limit of a file's size ends the process
        run(fill, wall, memory_gib=2.0)
    assert not (Path(walls.TEMPORARY) / "0").exists()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 0


@pytest.mark.parametrize("wall", WALLS_HERE)
def test_threads_are_bounded(wall):
    many = "[__import__('threading').Thread(target=__import__('time').sleep, args=(60,)).start() for _ in range(5_000)]"
    with pytest.raises(IsolationError):
        run(many, wall, timeout_s=20)


@pytest.mark.parametrize("wall", WALLS_HERE)
def test_only_its_own_descriptors_are_open(wall, tmp_path):
    with (tmp_path / "open").open("w+") as stream:
        os.set_inheritable(stream.fileno(), True)
        is_open = "for n in range(200) for c in [__import__('ctypes').CDLL(None)] if c.fcntl(n, 1) != -1]"
        assert len(run(f"[n {is_open}", wall)) <= 4  # nothing, nothing, nothing, its socket
        assert os.fstat(stream.fileno()).st_ino not in run(f"[__import__('os').fstat(n).st_ino {is_open}", wall)


def test_nothing_that_it_writes_reaches_the_terminal(capfd):
    for number in (1, 2):
        run(f"__import__('os').write({number}, b'\\x1b]0;owned\\x07')", WALLS_HERE[0])
    assert capfd.readouterr() == ("", "")


# --- what comes back is written by whoever took the process over


SOCKET = "[n for n in range(3, 200) for c in [__import__('ctypes').CDLL(None)] if c.fcntl(n, 1) != -1][0]"
LIES = {
    "a pickle": "__import__('pickle').dumps(open)",
    "no JSON": "b'{'",
    "a bare word": "b'1'",
    "too deep": "b'[' * 100_000 + b']' * 100_000",
    "a class that nobody named": 'b\'["answer",{"is":"os.system","has":["true"]}]\'',
    "another kind": 'b\'["answer",{"set":[1]}]\'',
    "a key that cannot be": 'b\'["answer",{"dict":[[[],1]]}]\'',
    "no such base64": 'b\'["answer",{"bytes":"%%"}]\'',
    "a number of a million digits": "b'[\"answer\",' + b'9' * 1_000_000 + b']'",
    "a kind that is none": "b'[[],1]'",
    "ready again": "b'[\"ready\",null]'",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_lies_are_crashes(lie):
    code = f"(lambda said: __import__('os').write({SOCKET}, len(said).to_bytes(8, 'big') + said))({lie})"
    with pytest.raises(CrashError):
        run(code, WALLS_HERE[0])


@pytest.mark.parametrize(
    "said",
    ["(1 << 62).to_bytes(8, 'big')", "(8).to_bytes(8, 'big') + b'null'"],
    ids=["a length without end", "half of an answer"],
)
def test_half_an_answer_costs_its_time(said):
    code = f"[__import__('os').write({SOCKET}, {said}), __import__('time').sleep(60)]"
    with pytest.raises((CrashError, TimeLimitError)):
        run(code, WALLS_HERE[0], timeout_s=0.5)


def test_who_closes_its_socket_and_stays_is_ended(monkeypatch):
    monkeypatch.setattr(processes, "CLOSED_S", 0.2)
    with pytest.raises(CrashError):
        run("[__import__('os').closerange(3, 200), __import__('time').sleep(60)]", WALLS_HERE[0])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_values_survive_the_wire(value):
    assert wire.decode(wire.encode(value)) == value


@given(st.binary())
def test_any_bytes_are_a_value_or_an_error(content):
    with contextlib.suppress(wire.WireError):
        wire.decode(content)


def test_results_are_checked_by_the_types_that_they_declare():
    from distill.grading import Grade

    grade = Grade(None, "x", "wrong_answer")
    assert wire.decode(wire.encode([grade])) == [grade]
    content = wire.encode(grade).decode()
    for wrong in ('["no","x",null]', "[true,1,null]", '[true,"x"]', '[true,"x",null,1]', "{}", '[1,"x",null]'):
        with pytest.raises(wire.WireError):
            wire.decode((content[: content.index('"has":') + 6] + wrong + "}").encode())


# --- how it is used


def test_a_confined_process_is_there_in_an_instant_the_second_time():
    started = [shared_server() is shared_server() for _ in range(3)]
    assert all(started)


def test_threads_share_a_server():
    found = []

    def work(number):
        found.extend(call_isolated(eval, f"{number} * 2", timeout_s=30, memory_gib=1) for _ in range(5))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(number * 2 for number in range(4) for _ in range(5))


def test_a_server_that_was_killed_is_replaced():
    assert run("1", None) == 1
    server = shared_server()
    server._process.kill()
    server._process.wait()
    assert run("2", None) == 2


@pytest.mark.parametrize("wall", WALLS_HERE)
def test_nothing_is_left_in_the_temporary_folder(wall, tmp_path):
    code = (
        "from distill.isolation import call_isolated\n"
        "from distill.grading.pool import GradingPool\n"
        f"print(call_isolated(abs, -1, timeout_s=30, memory_gib=1, wall={wall!r}))\n"
        f"with GradingPool(1, wall={wall!r}) as pool: print(*pool.map(abs, [-2]))\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("1\n2\n", "")
    assert not list(tmp_path.iterdir())


def test_nobody_is_as_confined_as_root(tmp_path):
    """Where namespaces are for root alone, another wall holds."""
    if os.getuid() != 0:
        pytest.skip("needs root, to be somebody else")
    code = (
        "from distill.isolation import call_isolated, FunctionError, walls\n"
        "import os; os.setgid(65534); os.setuid(65534)\n"
        "print(walls.best_wall(), call_isolated(abs, -1, timeout_s=30, memory_gib=1))\n"
        "try: call_isolated(eval, 'open(\"/etc/passwd\").read()', timeout_s=30, memory_gib=1)\n"
        "except FunctionError as error: print(error.name)"
    )
    ours = None
    with contextlib.suppress(PermissionError):
        ours = subprocess.run([sys.executable, "-c", "import distill"], cwd="/", user=65534, capture_output=True)
    if ours is None or ours.returncode:
        pytest.skip("nobody cannot read this installation")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    wall, one, *refused = done.stdout.split()
    assert one == "1"
    assert refused or wall not in MAY_EVALUATE


def test_without_bubblewrap_another_wall_is_taken(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    walls.bubblewrap_fails.cache_clear()
    try:
        assert walls.bubblewrap_fails() == "bwrap is not installed"
    finally:
        walls.bubblewrap_fails.cache_clear()


def test_a_server_that_cannot_start_says_why():
    server = processes.Server(WALLS_HERE[0], preload=["there.is.no.such.module"])
    worker = server.start_worker(1 << 30)
    worker.socket.setblocking(True)
    with pytest.raises(processes.WorkerEnded):
        worker.receive()
    assert "No module named 'there'" in server.last_words
    server.close()
