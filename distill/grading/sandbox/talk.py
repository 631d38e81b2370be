"""Requests to the process of a test, and its replies.

A frame is 8 bytes of length, 16 of a number drawn at random, one for its kind, and its content. A process can write
anything to its pipe, at any time: what does not carry the number of the last request ends the talk.
"""

import contextlib
import os
import select
import time

from distill.grading.sandbox.inside.candidate import LENGTH_BYTES, NUMBER_BYTES
from distill.grading.sandbox.inside.values import MAX_BYTES
from distill.grading.sandbox.process import Ended, Sandbox
from distill.grading.sandbox.records import Limits

CHUNK_BYTES = 1 << 20


class BrokenTalkError(Exception):
    """A process that wrote what nobody asked for."""


class Talk:
    """A test that is asked and answers.

    Args:
        sandbox: where it runs.
        mode: `calls` or `tests`.
        limits: of its process.

    Raises:
        SandboxError: the sandbox has ended.
    """

    def __init__(self, sandbox: Sandbox, mode: str, limits: Limits) -> None:
        requests, self._requests = os.pipe2(os.O_CLOEXEC)
        self._replies, replies = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._requests, False)
        os.set_blocking(self._replies, False)
        self._arrived = bytearray()
        try:
            stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._test = sandbox.start(mode, limits, stdin, requests, replies)
        except BaseException:
            os.close(self._requests)
            os.close(self._replies)
            raise
        self._test.poll.register(self._replies, select.POLLIN)

    def ask(self, number: bytes, kind: bytes, content: bytes, timeout_s: float) -> tuple[bytes, bytes] | Ended | None:
        """Return the reply's kind and content; how the process ended; `None` if neither comes in time.

        Args:
            number: what the reply has to carry.
            kind: of the request; empty to wait for what is sent unasked.
            content: of the request.
            timeout_s: seconds to wait.

        Raises:
            BrokenTalkError: something else came.
            SandboxError: the sandbox has ended.
        """
        if kind and self._arrived:
            raise BrokenTalkError
        body = number + kind + content
        left = memoryview(len(body).to_bytes(LENGTH_BYTES, "big") + body if kind else b"")
        deadline = time.monotonic() + timeout_s
        if left:
            self._test.poll.register(self._requests, select.POLLOUT)
        try:
            while True:
                ended = self._test.ended
                for descriptor, _ in [] if ended else self._test.step(deadline):
                    if descriptor == self._requests:
                        left = self._write(left)
                    else:
                        self._read()
                if ended is not None:  # it may have answered before
                    self._read()
                frame = self._next()
                if frame is not None:
                    if frame[0] != number or left:
                        raise BrokenTalkError
                    return frame[1], frame[2]
                if ended is not None:
                    return ended
                if time.monotonic() > deadline:
                    return None
        finally:
            self._forget(self._requests)

    def _write(self, left: memoryview) -> memoryview:
        try:
            left = left[os.write(self._requests, left) :]
        except BlockingIOError:
            return left
        except BrokenPipeError:  # its end tells more
            left = left[len(left) :]
        if not left:
            self._forget(self._requests)
        return left

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._replies, CHUNK_BYTES):
                self._arrived += part
                if len(self._arrived) > MAX_BYTES + CHUNK_BYTES:
                    return
            self._forget(self._replies)  # closed

    def _forget(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self._test.poll.unregister(descriptor)

    def _next(self) -> tuple[bytes, bytes, bytes] | None:
        """Return the next frame; `None` if it has not arrived whole."""
        if len(self._arrived) < LENGTH_BYTES:
            return None
        length = int.from_bytes(self._arrived[:LENGTH_BYTES], "big")
        if not NUMBER_BYTES < length <= NUMBER_BYTES + 1 + MAX_BYTES or len(self._arrived) > LENGTH_BYTES + length:
            raise BrokenTalkError
        if len(self._arrived) < LENGTH_BYTES + length:
            return None
        body = bytes(self._arrived[LENGTH_BYTES:])
        self._arrived.clear()
        return body[:NUMBER_BYTES], body[NUMBER_BYTES : NUMBER_BYTES + 1], body[NUMBER_BYTES + 1 :]

    def close(self) -> None:
        """End the process."""
        self._test.close()
        os.close(self._requests)
        os.close(self._replies)
