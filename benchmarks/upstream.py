"""A fast upstream: raw asyncio, fixed answers. It must cost little, because it shares the machine with what is measured.

    python -m benchmarks.upstream       prints its port, serves until standard input ends

The model's name says what it answers: `stream-400-5` is 400 chunks, one each 5 ms; `after-100` one chat completion after
100 ms; anything else one at once.
`GET /calls` tells when calls came in (CLOCK_MONOTONIC, the same in all processes), `POST /forget` forgets them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from types import TracebackType
from typing import Any, Self

PROMPT_TOKENS = 180
COMPLETION_TOKENS = 90

_USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": COMPLETION_TOKENS,
    "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
}
_TEXT = "The quick brown fox jumps over the lazy dog, and then it does so once more. " * 4
_STREAMED = re.compile(rb'"model": ?"stream-(\d+)-(\d+)"')
_DELAYED = re.compile(rb'"model": ?"after-(\d+)"')
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_CREATED = 1_700_000_000

_calls: list[float] = []


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: benchmark\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


COMPLETION = _json(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": _CREATED,
        "model": "benchmark",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _TEXT},
                "finish_reason": "stop",
            }
        ],
        "usage": _USAGE,
    }
)
_ANSWER = _whole(COMPLETION)


def _chunk(delta: dict[str, str], **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    content = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": "benchmark",
    }
    return _event(_json({**content, "choices": [choice]}))


def _event(data: bytes) -> bytes:
    frame = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(frame), frame)


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_FIRST = _chunk({"role": "assistant", "content": ""})
_WORD = _chunk({"content": " word"})
_LAST = (
    _chunk({}, finish_reason="stop")
    + _event(_json({"object": "chat.completion.chunk", "choices": [], "usage": _USAGE}))
    + _event(b"[DONE]")
    + b"0\r\n\r\n"
)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            request, self._buffer = self._buffer[:whole], self._buffer[whole:]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET /calls"):
            self._transport.write(_whole(_json(_calls)))
            return
        if request.startswith(b"POST /forget"):
            _calls.clear()
            self._transport.write(_whole(b"{}"))
            return
        _calls.append(time.monotonic())
        if streamed := _STREAMED.search(request):
            self._transport.write(_STREAM_HEAD + _FIRST)
            self._stream(int(streamed[1]), int(streamed[2]) / 1000)
        elif delayed := _DELAYED.search(request):
            self._loop.call_later(int(delayed[1]) / 1000, self._say)
        else:
            self._transport.write(_ANSWER)

    def _say(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)

    def _stream(self, left: int, gap_s: float) -> None:
        if self._transport.is_closing():
            return
        if left:
            self._transport.write(_WORD)
            self._loop.call_later(gap_s, self._stream, left - 1, gap_s)
        else:
            self._transport.write(_LAST)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(
        _Connection, "127.0.0.1", 0, backlog=4096
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


class Upstream:
    """The server in a process of its own, for the length of a `with` block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.upstream"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.origin = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.url = f"{self.origin}/v1"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def calls(self) -> list[float]:
        """When each call since `forget` came in."""
        with urllib.request.urlopen(f"{self.origin}/calls", timeout=10) as answer:
            found: list[float] = json.load(answer)
        return found

    def forget(self) -> None:
        """Begin to count anew."""
        urllib.request.urlopen(f"{self.origin}/forget", b"", timeout=10).close()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_serve())
