"""`distill generate` with a server that answers nothing but errors, from the command line to the exit code."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TEXT = "<think>\n3 and 4\n</think>\n\nThe answer is \\boxed{7}."


class Served:
    """A server whose answers are `answer`, with `status` and `headers`, all changed at will."""

    def __init__(self) -> None:
        self.answer: Any = {}
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answered_at: float | None = None
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._send(served.answer, served.status, served.headers)
                served.answered_at = served.answered_at or time.monotonic()

            def do_GET(self) -> None:
                self._send({"data": [{"id": "far/away"}]})

            def _send(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
                body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(status)
                for name, text in (headers or {}).items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("NO_PROXY", "*")
    server = Served()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def served_recipe(here: Path, recipe: Path, served: Served) -> Path:
    """The small recipe with a teacher behind the server."""
    text = recipe.read_text()
    start, end = text.index("generate:"), text.index("filter:")
    teacher = (
        "generate:\n  teacher: far/away\n  samples_per_problem: 2\n  sampling: {max_tokens: 16}\n"
        f"  compute: {{base_urls: ['{served.url}'], max_attempts: 1, max_in_flight: 2, drain_s: 0}}\n"
    )
    recipe.write_text(text[:start] + teacher + text[end:])
    return recipe


def reply(content: Any, finish: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, "finish_reason": finish}], "usage": {"completion_tokens": 5}}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply("", "content_filter"), "finish_reason is content_filter (4 times)"),
        (reply([{"type": "image_url"}], "stop"), "a part of type 'image_url'"),
        ({"error": {"message": "the model is sleeping"}}, "the model is sleeping"),
        ("<html><title>Down for maintenance</title></html>", "Down for maintenance"),
    ],
    ids=["filtered", "no text", "error in a 200", "page"],
)
def test_nothing_but_errors_ends_in_one_with_the_servers_words_and_is_asked_for_again(
    distill: Any, served: Served, served_recipe: Path, answer: Any, words: str
) -> None:
    served.answer = answer
    code, _, err = distill("generate", served_recipe)
    assert code == 1, err
    assert "4 of 4 samples ended in errors" in err
    assert words in err
    assert "samples of" not in err.replace("of 4 samples", "")
    assert not (served_recipe.parent / "runs" / "small" / "generate" / "manifest.json").exists()
    code, _, err = distill("filter", served_recipe)
    assert code == 2
    assert "Run `distill generate" in err
    served.answer = reply(TEXT, "end_turn")
    code, _, err = distill("generate", served_recipe)
    assert code == 0, err
    assert "4 samples of 2 problems by far/away" in err


def test_errors_that_are_accepted_are_told_apart_from_answers(
    distill: Any, served: Served, served_recipe: Path
) -> None:
    served.answer = reply("", "SAFETY")
    option = ("--set", "generate.compute.max_error_share=1.0")
    code, _, err = distill("generate", served_recipe, *option)
    assert code == 0, err
    assert "0 samples of 2 problems by far/away; 4 more ended in errors" in err
    distill("filter", served_recipe, *option)
    code, _, err = distill("sft", served_recipe, *option)
    assert code == 2
    assert "loosen" not in err


def read(descriptor: int) -> bytes:
    """What a pipe or a terminal has to say; nothing once the other side is gone."""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize(
    ("status", "headers"),
    [(500, {}), (503, {}), (429, {}), (429, {"Retry-After": "3600"})],
    ids=["500", "503", "429", "429 for an hour"],
)
def test_a_server_that_is_retried_is_quoted_at_once_on_the_terminal_and_in_the_status(
    distill: Any, served: Served, served_recipe: Path, status: int, headers: dict[str, str], is_terminal: bool
) -> None:
    words = f"{served.url}: HTTP {status}: the model is sleeping"
    served.answer, served.status, served.headers = {"error": {"message": "the model is sleeping"}}, status, headers
    ours, theirs = os.openpty() if is_terminal else os.pipe()
    command = [sys.executable, "-m", "distill", "generate", str(served_recipe)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        while words.encode() not in shown:
            piece = read(ours)
            assert piece, shown.decode()
            shown += piece
        shown_at = time.monotonic()
        assert served.answered_at is not None
        assert shown_at - served.answered_at < 2.0
        assert f"Nothing has been answered yet: {words}" in shown.decode()
        while not (live := json.loads(distill("generate", served_recipe, "--status", "--json")[1])["live"]):
            assert time.monotonic() - shown_at < 2.0
        while live["trouble"] != words:
            live = json.loads(distill("generate", served_recipe, "--status", "--json")[1])["live"]
            assert time.monotonic() - shown_at < 2.0
        assert f"trouble   {words}" in distill("generate", served_recipe, "--status")[1]
        process.send_signal(signal.SIGTERM)
        asked_at = time.monotonic()
        while read(ours):
            pass
        assert process.wait() == 143
        assert time.monotonic() - asked_at < 3.0
    os.close(ours)
