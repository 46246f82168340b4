"""An upstream that says anything: right answers, odd ones, half ones and none. What it says is decided by the case whose mark it reads."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from tests.fuzz.asks import MARK, Raw, deep, write
from tests.gateway import UPSTREAM_KEY

HANGS_S = 8.0
"""Longer than any time-out of the gateway under test."""

Json = dict[str, Any]

USAGES: tuple[Any, ...] = (
    None, {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {"total_tokens": 5}, {"prompt_tokens": 10, "total_tokens": 15},
    {"prompt_tokens": -3, "completion_tokens": 5}, {"prompt_tokens": "9", "completion_tokens": 1.5}, {"prompt_tokens": 2**70}, "none", [1],
    {"prompt_tokens": Raw("1e30"), "completion_tokens": Raw("1e400")}, {"prompt_tokens": 2**31 - 1, "completion_tokens": 2**31 - 1},
    {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": 99}},
    {"prompt_tokens": True, "completion_tokens": None}, {"input_tokens": 4, "output_tokens": 2},
)  # fmt: skip
FINISHES: tuple[Any, ...] = (
    "stop",
    "length",
    "tool_calls",
    "content_filter",
    None,
    "",
    "unheard_of",
    5,
    [],
    {"a": 1},
)
CONTENTS: tuple[Any, ...] = (
    "Hello there friend", "", None, "a\x00b", Raw('"\\ud800"'), Raw('"\\udfff x"'), 5, True, [], {}, [{"type": "text", "text": "a"}], "é" * 5000,
    "x" * 200_000, Raw('"\\u0000"'),
)  # fmt: skip
TYPES = (
    "application/json",
    "text/event-stream",
    "text/html",
    "text/plain",
    "",
    "application/json; charset=utf-7",
    "image/png",
    "a" * 2000,
)
STATUSES = (
    200, 200, 200, 200, 201, 202, 204, 206, 226, 301, 302, 304, 307, 400, 401, 402, 403, 404, 405, 408, 409, 410, 411, 413, 415, 418, 422, 425,
    429, 431, 451, 499, 500, 501, 502, 503, 504, 507, 520, 524, 529, 598, 599, 600, 799, 999,
)  # fmt: skip


@dataclass
class Answer:
    """Bytes in pieces, and how they leave. `end`: orderly, `cut` (closed too early) or `reset`."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    chunked: bool = True
    gap_s: float = 0.0
    hang_after: int | None = None
    end: str = "orderly"
    raw: bytes | None = None


def answer_to(path: str, body: bytes) -> Answer:
    """What is said to a request: always the same to the same case on the same path."""
    marked = MARK.search(body)
    dice = random.Random(f"answer {marked[0]!r}" if marked else hashlib.sha256(body).hexdigest())
    surface = "/" + path.partition("/v1/")[2].partition("?")[0]
    streams = b'"stream":true' in body.replace(b" ", b"")
    if dice.random() < 0.05:
        streams = not streams
    kind = dice.random()
    if kind < 0.3:
        answer = _said(dice, surface, streams, odd=False)
    elif kind < 0.72:
        answer = _said(dice, surface, streams, odd=True)
    elif kind < 0.88:
        answer = _refused(dice)
    else:
        return _nothing(dice)
    return _delivered(dice, answer)


def _refused(dice: random.Random) -> Answer:
    status = dice.choice(STATUSES)
    quoted = f"Incorrect API key provided: {UPSTREAM_KEY}. See http://inference-7.internal.example"
    error: Any = {"message": quoted, "type": "invalid_request_error", "param": None, "code": "x"}
    said: Any = dice.choice(
        [
            {"error": error}, {"error": quoted}, {"error": None}, {"error": [error]}, {"error": {"message": 5, "code": 7}}, {}, [], None, quoted,
            {"detail": [{"msg": quoted}]}, {"error": {"message": deep(dice)}}, {"error": {**error, "code": dice.choice((None, 500, [], "c" * 900))}},
            {"message": quoted, "object": "error"}, Raw(""), Raw("<html>" + quoted), Raw('{"error":'), deep(dice),
        ]
    )  # fmt: skip
    headers = [("content-type", dice.choice(TYPES))]
    if dice.random() < 0.3:
        headers.append(
            (
                "retry-after",
                dice.choice(("7", "-1", "1e9", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "")),
            )
        )
    if status in (301, 302, 307):
        headers.append(("location", dice.choice(("http://127.0.0.1:9/elsewhere", "/loop", ""))))
    return Answer(status, headers, [write(said).encode("utf-8", "surrogatepass")])


def _nothing(dice: random.Random) -> Answer:
    return dice.choice(
        [
            Answer(raw=b"", end="orderly"), Answer(raw=b"", end="reset"), Answer(hang_after=0, raw=b""), Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-"),
            Answer(raw=b"SSH-2.0-odd\r\n"), Answer(raw=b"HTTP/1.1 abc\r\n\r\n"), Answer(raw=b"HTTP/9.9 200 OK\r\n\r\nx"),
            Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nabc"), Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 1e3\r\n\r\nabc"),
            Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nabc"), Answer(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
            Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc"),
            Answer(raw=b"HTTP/1.1 200 OK\r\nx: " + b"h" * 300_000 + b"\r\n\r\n{}"), Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 5000 + b"\r\n{}"),
            Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"), Answer(raw=b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n{}"),
            Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"),
        ]
    )  # fmt: skip


def _said(dice: random.Random, surface: str, streams: bool, *, odd: bool) -> Answer:
    if surface == "/embeddings":
        streams = False
    if not streams:
        said = write(_document(dice, surface, odd)).encode("utf-8", "surrogatepass")
        if odd and dice.random() < 0.2:
            said = dice.choice(
                (
                    said[: dice.randrange(len(said))],
                    b"",
                    b"null",
                    b"[]",
                    b"{}",
                    b"<p>",
                    said + said,
                    b"\xef\xbb\xbf" + said,
                )
            )
        kind = "application/json" if not odd or dice.random() < 0.8 else dice.choice(TYPES)
        return Answer(200, [("content-type", kind)], [said], chunked=dice.random() < 0.5)
    events = list(_events(dice, surface, odd))
    if odd:
        _disorder(dice, events)
    kind = "text/event-stream" if not odd or dice.random() < 0.9 else dice.choice(TYPES)
    return Answer(
        200, [("content-type", kind)], [event.encode("utf-8", "surrogatepass") for event in events]
    )


def _disorder(dice: random.Random, events: list[str]) -> None:
    """Do something to a stream that no reader expects."""
    at = dice.randrange(len(events))
    match dice.randrange(9):
        case 0:
            del events[at:]
        case 1:
            error = {"error": {"message": f"key {UPSTREAM_KEY} is wrong", "type": "t", "code": 500}}
            events.insert(at, f"data: {write(error)}\n\n")
        case 2:
            odd = ["data: {\n\n", "data:\n\n", "data: null\n\n", "data: []\n\n", "data: 5\n\n", "\n\n\n", ": c\n\n", "id: 5\nretry: x\n\n",
                   "event: error\ndata: {}\n\n", "data: [DONE]\n\n", "data: {}\n\n", f"data: {deep(dice)}\n\n", "garbage\n\n"]  # fmt: skip
            events.insert(at, dice.choice(odd))
        case 3:
            events[at] = events[at].replace("\n", "\r\n")
        case 4:
            events[at] = events[at].removesuffix("\n\n")
        case 5:
            events.append(events[at])
        case 6:
            dice.shuffle(events)
        case 7:
            events[at:at] = [events[at]] * 300
        case _:
            pass


def _document(dice: random.Random, surface: str, odd: bool) -> Any:
    usage = (
        dice.choice(USAGES)
        if odd
        else {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    )
    if surface == "/embeddings":
        data: Any = [
            {"object": "embedding", "index": 0, "embedding": [0.1, Raw("1e-320") if odd else 0.2]}
        ]
        return {
            "object": "list",
            "data": dice.choice((data, None, [5])) if odd else data,
            "model": "m",
            "usage": usage,
        }
    if surface == "/responses":
        return _response(dice, odd)
    message: Json = {
        "role": "assistant",
        "content": dice.choice(CONTENTS) if odd else "Hello there friend",
    }
    if odd and dice.random() < 0.4:
        message["tool_calls"] = dice.choice((None, [], [5], [{"id": 5}], [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}], {}))  # fmt: skip
    choice: Json = {
        "index": 0,
        "message": message,
        "finish_reason": dice.choice(FINISHES) if odd else "stop",
    }
    if surface == "/completions":
        choice = {"index": 0, "text": message["content"], "finish_reason": choice["finish_reason"]}
    if odd and dice.random() < 0.2:
        choice["usage"] = usage
    choices: Any = (
        dice.choice(([choice], [choice], [choice, choice], [], None, [None], choice, deep(dice)))
        if odd
        else [choice]
    )
    kind = "text_completion" if surface == "/completions" else "chat.completion"
    return {
        "id": "up-1",
        "object": kind,
        "created": dice.choice((1, Raw("1e30"), "x")) if odd else 1,
        "model": "m",
        "choices": choices,
        "usage": usage,
    }


def _response(dice: random.Random, odd: bool) -> Json:
    usage: Any = {
        "input_tokens": 9,
        "output_tokens": 3,
        "total_tokens": 12,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    content = dice.choice(CONTENTS) if odd else "Hello there friend"
    text = {"type": "output_text", "text": content, "annotations": [], "logprobs": []}
    output: Any = [
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [text],
        }
    ]
    if odd:
        usage = dice.choice((usage, *USAGES))
        output = dice.choice((output, output, None, [], [None], {}, deep(dice)))
    status = (
        dice.choice(("completed", "failed", "incomplete", "in_progress", "queued", None, 5))
        if odd
        else "completed"
    )
    return {
        "id": "resp_up",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": output,
        "usage": usage,
        "error": None,
    }


def _events(dice: random.Random, surface: str, odd: bool) -> Iterator[str]:
    if surface == "/responses":
        yield from _response_events(dice, odd)
        return
    usage = (
        dice.choice(USAGES)
        if odd
        else {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    )
    base: Json = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    words = [
        dice.choice(CONTENTS) if odd and dice.random() < 0.2 else f"w{n} "
        for n in range(dice.choice((1, 3, 20)))
    ]
    for word in words:
        choice: Json = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        if surface == "/completions":
            choice = {"index": 0, "text": word, "finish_reason": None}
        elif odd and dice.random() < 0.1:
            choice["delta"] = dice.choice((None, {}, 5, {"tool_calls": [{"index": dice.choice((0, -1, 2**40, None)), "function": {"arguments": "{"}}]}, {"reasoning_content": word}, {"refusal": word}))  # fmt: skip
        more: Json = {"usage": usage} if odd and dice.random() < 0.2 else {}
        yield f"data: {write({**base, 'choices': [choice], **more})}\n\n"
    last: Json = {
        "index": 0,
        "delta": {},
        "finish_reason": dice.choice(FINISHES) if odd else "stop",
    }
    if surface == "/completions":
        last = {"index": 0, "text": "", "finish_reason": last["finish_reason"]}
    yield f"data: {write({**base, 'choices': [last]})}\n\n"
    yield f"data: {write({**base, 'choices': dice.choice(([], None, [last])) if odd else [], 'usage': usage})}\n\n"
    if not odd or dice.random() < 0.8:
        yield "data: [DONE]\n\n"


def _response_events(dice: random.Random, odd: bool) -> Iterator[str]:
    whole = _response(dice, odd)
    begun = {**whole, "status": "in_progress", "output": []}
    said: list[Json] = [{"type": "response.created", "response": begun}]
    said += [
        {
            "type": "response.output_text.delta",
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": word,
        }
        for word in ("Hello", " there")
    ]
    said.append(
        {
            "type": dice.choice(
                ("response.completed", "response.failed", "response.incomplete", "error", "odd")
            )
            if odd
            else "response.completed",
            "response": whole,
        }
    )
    for number, event in enumerate(said):
        numbered = {**event, "sequence_number": number}
        yield f"event: {event['type']}\ndata: {write(numbered)}\n\n"


def _delivered(dice: random.Random, answer: Answer) -> Answer:
    """In which pieces, how slowly, how whole."""
    if dice.random() < 0.25:
        whole = b"".join(answer.pieces)
        cuts = sorted(dice.randrange(len(whole) + 1) for _ in range(dice.choice((1, 3, 10))))
        answer.pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    if dice.random() < 0.06:
        answer.headers.append(("content-encoding", dice.choice(("gzip", "br", "zstd", "x"))))
        if answer.headers[-1][1] == "gzip" and dice.random() < 0.8:
            answer.pieces = [gzip.compress(b"".join(answer.pieces), mtime=0)]
    if dice.random() < 0.1:
        answer.headers.append(
            (
                dice.choice(("x-long", "set-cookie", "x-request-id", "server")),
                "v" * dice.choice((1, 9000)),
            )
        )
    if dice.random() < 0.08:
        answer.gap_s = dice.choice((0.02, 0.1))
        answer.pieces = answer.pieces[:15]
    if dice.random() < 0.1:
        answer.end = dice.choice(("cut", "reset"))
        answer.pieces = answer.pieces[: dice.randrange(len(answer.pieces) + 1)]
    elif dice.random() < 0.03:
        answer.hang_after = dice.randrange(len(answer.pieces) + 1)
    return replace(answer, pieces=[piece for piece in answer.pieces if piece])


class OddUpstream:
    """Serves on loopback, a thread a connection. `calls`: how often each case (its mark) was asked about; `said`: what it was told."""

    def __init__(self) -> None:
        self.calls: Counter[bytes] = Counter()
        self.said: dict[bytes, Answer] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), peer:
            peer.settimeout(60)
            incoming = peer.makefile("rb")
            while line := incoming.readline():
                path = line.split()[1].decode("latin-1")
                length, program = 0, b""
                while (header := incoming.readline()) not in (b"\r\n", b""):
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                    elif name.lower() == b"user-agent":
                        program = value
                body = incoming.read(length)
                answer = answer_to(path, body)
                # A mutation may have taken the mark out of the body; a queued call has no header of its caller's.
                if marked := MARK.search(program) or MARK.search(body):
                    self.calls[marked[0]] += 1
                    self.said[marked[0]] = answer
                if not _send(peer, answer):
                    return


def _send(peer: socket.socket, answer: Answer) -> bool:
    """Whether the connection may be used again."""
    if answer.raw is not None:
        peer.sendall(answer.raw)
        if answer.hang_after is not None:
            time.sleep(HANGS_S)
        return _end(peer, answer.end)
    length = sum(map(len, answer.pieces)) + (5 if answer.end != "orderly" else 0)
    bodiless = answer.status in (204, 304)
    how = (
        ""
        if bodiless
        else (
            "transfer-encoding: chunked\r\n" if answer.chunked else f"content-length: {length}\r\n"
        )
    )
    head = f"HTTP/1.1 {answer.status} Odd\r\n" + "".join(f"{k}: {v}\r\n" for k, v in answer.headers)
    peer.sendall(f"{head}{how}\r\n".encode("latin-1"))
    for number, piece in enumerate([] if bodiless else answer.pieces):
        if number == answer.hang_after:
            time.sleep(HANGS_S)
        peer.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
        time.sleep(answer.gap_s)
    if answer.end != "orderly":
        return _end(peer, answer.end)
    if answer.chunked and not bodiless:
        peer.sendall(b"0\r\n\r\n")
    return True


def _end(peer: socket.socket, how: str) -> bool:
    if how == "reset":
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def as_text(answer: Answer) -> str:
    """For a report: the head and the beginning of the body."""
    if answer.raw is not None:
        return f"raw {answer.raw[:200]!r}, end {answer.end}, hang {answer.hang_after is not None}"
    body = b"".join(answer.pieces)
    more = {"gap_s": answer.gap_s, "hang_after": answer.hang_after, "end": answer.end}
    return f"{answer.status} {json.dumps(answer.headers)[:300]} {body[:600]!r} ({len(body)} bytes) {more}"
