"""A runner of programs on another machine, with the interface of piston: for clusters that forbid user namespaces.

    POST {url}/execute  {"language", "version", "files": [{"content"}], "stdin", "run_timeout", "run_memory_limit", …}
    answer              {"compile": {"code", "stderr"}, "run": {"stdout", "stderr", "code", "signal", "status", …}}

Expected outputs stay here as with the other sandbox. How programs are confined there is up to the runner.
"""

import functools
import json
import time
import urllib.request
from typing import IO, Any, NoReturn, Self

from distill.grading.sandbox.locks import EXECUTIONS
from distill.grading.sandbox.records import End, Execution, Language, Limits, SandboxError, cleaned

NAMES: dict[Language, str] = {"python": "python", "cpp": "c++"}
GRACE_S, TOLD_S = 60.0, 10.0
MAX_ANSWER_BYTES = 64 << 20
MAX_STDIN_BYTES = 128 << 20
STATUS: dict[str, End] = {"TO": "time_limit", "OL": "output_limit", "EL": "output_limit", "XX": "sandbox_error"}
"""Piston's words for ends that are not the program's."""


@functools.cache
def remote_fails(url: str) -> str | None:
    """Return why a remote runner cannot be used; `None` if it runs a program. Tried only once."""
    if not url.startswith(("http://", "https://")):
        return f"the remote runner's address {url!r} is no URL: name one such as http://runner:2000/api/v2"
    done = RemoteSubmission("python", "print(6 * 7)", url).run(b"")
    if done.end == "finished" and done.stdout == b"42\n":
        return None
    return (
        f"the remote runner does not run a program: {done.detail or done.end} (`curl {url}/runtimes` shows what it has)"
    )


@functools.cache
def runtimes(url: str) -> str:
    """Return the versions of what runs programs there; empty if the runner does not tell. Asked only once."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/runtimes", timeout=TOLD_S) as answer:  # noqa: S310 - as above
            told = json.loads(answer.read(MAX_ANSWER_BYTES))
        names = NAMES.values()
        return ", ".join(sorted(f"{one['language']} {one['version']}" for one in told if one["language"] in names))
    except (OSError, ValueError, TypeError, KeyError):
        return ""


class RemoteSubmission:
    """A program that a remote runner runs. Its functions cannot be called.

    Args:
        language: of the program.
        source: its text.
        url: of the runner, up to the part before `/execute`.
    """

    def __init__(self, language: Language, source: str, url: str) -> None:
        self._language, self._source, self._url = language, source, url.rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: the runner ends what it started."""

    def test(self, limits: Limits | None = None) -> NoReturn:
        """Refuse: a remote runner has no descriptor for calls.

        Raises:
            SandboxError: always.
        """
        raise SandboxError("a remote runner runs whole programs only; tests that call functions need bubblewrap")

    def run(self, stdin: bytes | IO[bytes], limits: Limits | None = None) -> Execution:
        """Run the program on an input. A time limit is confirmed by one more run, alone.

        Args:
            stdin: the input.
            limits: default: `Limits()`.
        """
        limits = limits or Limits()
        content = stdin if isinstance(stdin, bytes) else stdin.read(MAX_STDIN_BYTES + 1)
        if len(content) > MAX_STDIN_BYTES:
            return Execution("sandbox_error", b"", "the input is too long for a remote runner", 0.0, 0.0)
        with EXECUTIONS.together():
            done = self._run_once(content, limits)
        if done.end != "time_limit":
            return done
        with EXECUTIONS.alone():
            return self._run_once(content, limits)

    def _run_once(self, stdin: bytes, limits: Limits) -> Execution:
        started = time.monotonic()
        try:
            answer = self._post(stdin, limits)
            return _as_execution(answer, limits, time.monotonic() - started)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            return Execution("sandbox_error", b"", f"{self._url}: {error}"[:2_000], 0.0, time.monotonic() - started)

    def _post(self, stdin: bytes, limits: Limits) -> Any:
        name = "main.py" if self._language == "python" else "main.cpp"
        asked = {
            "language": NAMES[self._language],
            "version": "*",
            "files": [{"name": name, "content": self._source}],
            "stdin": stdin.decode("utf-8", "surrogateescape"),
            "run_timeout": int(1_000 * limits.wall),
            "run_cpu_time": int(1_000 * limits.cpu_s),
            "run_memory_limit": limits.memory_mib << 20,
        }
        content = json.dumps(asked).encode()
        request = urllib.request.Request(  # noqa: S310 - checked by `remote_fails`
            f"{self._url}/execute", content, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=limits.wall + GRACE_S) as answer:  # noqa: S310
            read = answer.read(MAX_ANSWER_BYTES + 1)
        if len(read) > MAX_ANSWER_BYTES:
            raise ValueError("its answer is too long")
        return json.loads(read)


def _as_execution(answer: Any, limits: Limits, wall_s: float) -> Execution:
    """Return what an answer says. It is not trusted: of another shape it is a `ValueError` or `TypeError`."""
    compiled, ran = answer.get("compile"), answer.get("run")
    if compiled and compiled.get("code"):
        said = cleaned(_text(compiled.get("stderr") or compiled.get("output")), from_end=False)
        return Execution("compile_error", b"", said, 0.0, wall_s)
    if ran is None:
        raise ValueError(f"an answer without `run`: {str(answer)[:300]}")
    stdout, code, killed = _text(ran.get("stdout")), ran.get("code"), ran.get("signal")
    end: End = "finished" if code == 0 and not killed else "runtime_error"
    if len(stdout) > limits.output_bytes:
        end = "output_limit"
    elif ran.get("status") in STATUS:
        end = STATUS[ran["status"]]
    elif killed == "SIGKILL":
        memory = ran.get("memory")
        end = "memory_limit" if isinstance(memory, int) and memory >= limits.memory_mib << 20 else "time_limit"
    cpu_ms = ran.get("cpu_time")
    cpu_s = cpu_ms / 1_000 if isinstance(cpu_ms, int | float) else 0.0
    return Execution(end, stdout[: limits.output_bytes], cleaned(_text(ran.get("stderr"))), cpu_s, wall_s)


def _text(value: Any) -> bytes:
    if value is not None and not isinstance(value, str):
        raise TypeError("its answer has no text where one is needed")
    return (value or "").encode("utf-8", "surrogateescape")
