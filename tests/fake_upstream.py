"""A small real inference server for the whole test-suite.

    python -m tests.fake_upstream --port 0      prints {"port": ..., "pid": ...} as one line, serves until it is ended

What it does with a call is chosen by the model name in the body: traits, joined by `+` in any order, such as
`ok`, `fail-500`, `chunks-20+gap-50ms+cut`. Words that are no trait mean nothing, so any name (`ok`, `chat-small`)
answers normally. Where there is no body (`GET /models`) or the name is taken, traits stand in the path:
`/as/fail-401/v1/models`. Paths work with and without `/v1`, also below another prefix (`/tenant/v1/...`).

    what it says
      usage-P-C           prompt and completion tokens (9 and 3); cached-N, thought-N: the details of each
      odd-usage           counts that are none: negative, in words
      no-usage            no usage at all; usage-always: in a stream though nobody asked; usage-each: in every chunk
      echo                the last user message as the answer; big-N: N KiB; chunks-N: N words, an event each
      utf8                an answer of many-byte characters
      tools, tools-N      N tool calls (1), of the tools in the body, or get_weather; a plain answer once a tool has spoken
      function            the same as one call of the older form, of the functions or tools in the body
      reasoning           reasoning_content before the content; refusal: a refusal instead of content
      length, filter      finish_reason length, content_filter
      rank                POST /rerank puts the last document first
      other-format        embeddings as numbers where base64 was asked for, and the other way round
      sse-anyway          a stream though none was asked for; json-anyway: JSON to a stream call
      tokenize            POST /tokenize (beside /v1, as vLLM) and /responses/input_tokens count words
      models-a,b          (path) what GET /models lists
    when and how
      slow-MS             waits before the head; first-MS: between head and first byte; gap-MS: between two pieces
      hang                never answers; hang-in-head: stops within the head; hang-stream: stops half-way
      hold                waits for POST /release before the head; hold-stream: the same half-way
      split-utf8          pieces end inside characters, each in a TCP segment of its own; bytewise: every byte a chunk
      crlf                events end in CR LF; comments: with comments between them; remarks: with one in each;
                          events: with event: lines; joined: all in one segment
      until-close         no length, ended by closing; close: says connection: close
      stale-N             closes the connection, saying nothing, after its N-th answer (1)
      vanish              reads the next call on the same connection and closes without a word
      interim             a 103 before the answer; noisy: headers that no caller should see
      gzip, deflate       compressed, though nobody asked; br: says br
    what it does wrong
      fail-STATUS         an error whose body holds SECRET and PRIVATE_HOST; 429 and 503 say retry-after: 7; fail-500+html
      wait-S, wait-S+date such an error says retry-after: S, or the date that is so many seconds away
      flaky-N[-STATUS]    fails (500) N times for each marker (body member `user`, else the whole body), then answers
      reset, drop         no answer: a reset, an orderly close
      cut                 closes half-way through what it announced; cut-reset: the same with a reset
      half                a stream that ends in good order half-way; no-done: complete, but for [DONE]
      error-in-stream     an error object half-way through a 200 stream; error-first: as its first event
      error-in-200        200 with an error object; error-in-200-N: whose code is N; wrong-json: half of one;
                          html, empty, not-http: what they say

Requests are recorded. GET /seen: those so far, with method, path, headers, body (parsed), raw, at (UNIX time),
connection (its number) and outcome: `open`, `answered`, `left` (the caller hung up before the end) or `broken`
(ended badly, as told). GET /active: {active, peak, total, connections}. POST /reset forgets all that, POST /release
lets go of those that have begun and are or would be held. These four count nowhere.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import gzip
import http.client
import itertools
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import gevent.event
import gevent.os
import gevent.server
import gevent.socket
import orjson

SECRET = "sk-upstream-secret-0123456789abcdef"
PRIVATE_HOST = "inference-7.internal.example"
MODELS = ("ok", "chat-small", "chat-large", "embed-small")
WORDS = ("Hello", " there", " friend")
UTF8_WORDS = ("Grüße,", " 世界", " 🌍🚀", " naïve", " Ω")
CREATED = 1_700_000_000
KEPT_REQUESTS = 20_000

Json = dict[str, Any]


# -- traits ----------------------------------------------------------------------------------------

_WORDS = """usage cached thought odd-usage no-usage usage-always usage-each echo big chunks utf8 tools function reasoning refusal length filter
    sse-anyway json-anyway models slow first gap hang hang-in-head hang-stream hold hold-stream split-utf8 bytewise crlf
    comments remarks events joined until-close close stale vanish interim noisy gzip deflate br fail flaky reset drop cut cut-reset
    tokenize rank other-format half no-done error-in-stream error-first error-in-200 wrong-json html empty not-http wait date"""
_NAMES = _WORDS.split()


class Traits(dict[str, list[str]]):
    """Trait -> its arguments."""

    def number(self, name: str, default: int = 0, position: int = 0) -> int:
        arguments = self.get(name, [])
        if len(arguments) <= position:
            return default
        return int(arguments[position].removesuffix("ms"))


@functools.lru_cache(4096)
def parse_traits(*names: str) -> Traits:
    traits = Traits()
    for token in "+".join(names).split("+"):
        known = [name for name in _NAMES if token == name or token.startswith(name + "-")]
        if known:
            name = max(known, key=len)
            rest = token[len(name) + 1 :]
            arguments = rest.split("-") if rest else []
            if name == "models" or all(a.removesuffix("ms").isdecimal() for a in arguments):
                traits[name] = [rest] if name == "models" else arguments
    return traits


# -- what was seen ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """One request, as it is shown by GET /seen."""

    number: int
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    raw: str
    at: float = field(default_factory=time.time)
    body: Any = None
    outcome: str = "open"


class Ledger:
    """Everything that the server remembers between two calls."""

    def __init__(self) -> None:
        self.connections = 0
        self.reset()
        self.gate = gevent.event.Event()

    def reset(self) -> None:
        self.requests: deque[Seen] = deque(maxlen=KEPT_REQUESTS)
        self.failures: dict[bytes, int] = {}
        self.open: set[int] = set()
        self.total = self.peak = 0

    def begin(self, seen: Seen) -> None:
        self.total += 1
        self.requests.append(seen)
        self.open.add(id(seen))
        self.peak = max(self.peak, len(self.open))

    def end(self, seen: Seen, outcome: str) -> None:
        self.open.discard(id(seen))
        seen.outcome = outcome

    def release(self) -> None:
        self.gate.set()
        self.gate = gevent.event.Event()

    def activity(self) -> Json:
        connections = self.connections
        return {
            "active": len(self.open),
            "peak": self.peak,
            "total": self.total,
            "connections": connections,
        }

    def still_fails(self, marker: bytes, times: int) -> bool:
        failed = self.failures.get(marker, 0)
        self.failures[marker] = failed + 1
        return failed < times


# -- the connection --------------------------------------------------------------------------------


class CallerLeft(Exception):
    """The other side closed its connection while we had more to say."""


class Broken(Exception):
    """We end this connection without a complete answer, as the model's name asked for."""

    def __init__(self, *, reset: bool = False) -> None:
        self.reset = reset


@dataclass(slots=True)
class Call:
    """One request and everything needed to answer it."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    number: int = 0
    body: Any = None
    traits: Traits = field(default_factory=Traits)
    gate: Any = field(default_factory=lambda: LEDGER.gate)

    @property
    def streams(self) -> bool:
        asked = bool(self.body.get("stream")) or "sse-anyway" in self.traits
        return asked and "json-anyway" not in self.traits


class Connection:
    """One caller's socket: requests in, bytes out."""

    def __init__(self, sock: Any, number: int) -> None:
        self.sock = sock
        self.number = number
        self.answers = 0
        self._buffer = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_call(self) -> Call | None:
        """The next request, or None where the caller has closed the connection."""
        try:
            head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        except (CallerLeft, OSError):
            return None
        method, path, _ = head[0].split(" ", 2)
        pairs = (line.partition(":") for line in head[1:])
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        if headers.get("expect") == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Call(method, path, headers, self._body(headers))

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self._exactly(int(headers.get("content-length", 0)))
        pieces = []
        while size := int(self._until(b"\r\n"), 16):
            pieces.append(self._exactly(size))
            self._exactly(2)
        self._until(b"\r\n")
        return b"".join(pieces)

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._receive()
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _receive(self) -> None:
        data = self.sock.recv(1 << 18)
        if not data:
            raise CallerLeft
        self._buffer += data

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            raise CallerLeft from None

    def pause(self, seconds: float | None) -> None:
        """Wait (None: for ever), but notice at once if the caller leaves."""
        until = None if seconds is None else time.monotonic() + seconds
        try:
            while True:
                left = None if until is None else max(0.0, until - time.monotonic())
                self.sock.settimeout(left)
                self._receive()
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            raise CallerLeft from None
        finally:
            self.sock.settimeout(None)

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


# -- what is said ----------------------------------------------------------------------------------


def words(call: Call) -> list[str]:
    """The answer's text, in the pieces in which a stream sends it."""
    traits = call.traits
    if "refusal" in traits:
        return []
    if "echo" in traits:
        return [last_text(call.body)]
    if "big" in traits:
        return ["x" * 1024] * traits.number("big", 1)
    if "chunks" in traits:
        return [f"w{i} " for i in range(traits.number("chunks", 3))]
    return list(UTF8_WORDS if "utf8" in traits or "split-utf8" in traits else WORDS)


def last_text(body: Json) -> str:
    messages = body.get("messages") or body.get("input") or body.get("prompt") or ""
    content = messages[-1] if isinstance(messages, list) and messages else messages
    if isinstance(content, dict):
        content = content.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    return str(content or "")


def usage(call: Call) -> Json | None:
    traits = call.traits
    if "no-usage" in traits:
        return None
    if "odd-usage" in traits:
        return {"prompt_tokens": -5, "completion_tokens": "many", "total_tokens": -5}
    prompt, completion = traits.number("usage", 9), traits.number("usage", 3, position=1)
    counts: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if "cached" in traits:
        counts["prompt_tokens_details"] = {"cached_tokens": traits.number("cached")}
    if "thought" in traits:
        counts["completion_tokens_details"] = {"reasoning_tokens": traits.number("thought")}
    return counts


def tool_calls(call: Call) -> list[Json]:
    messages = call.body.get("messages") or []
    spoken = (
        bool(messages)
        and isinstance(messages[-1], dict)
        and messages[-1].get("role") in ("tool", "function")
    )
    if not {"tools", "function"} & call.traits.keys() or spoken:
        return []
    given = call.body.get("tools") or call.body.get("functions")
    tools = given or [{"function": {"name": "get_weather"}}]
    names = [(tool.get("function") or tool).get("name") for tool in tools]
    return [
        {
            "id": f"call_{i + 1}",
            "type": "function",
            "function": {"name": names[i % len(names)], "arguments": '{"city":"Oslo"}'},
        }
        for i in range(call.traits.number("tools", 1))
    ]


def finish_reason(call: Call) -> str:
    if "length" in call.traits:
        return "length"
    if "filter" in call.traits:
        return "content_filter"
    if "function" in call.traits and tool_calls(call):
        return "function_call"
    return "tool_calls" if tool_calls(call) else "stop"


def message(call: Call) -> Json:
    said: Json = {"role": "assistant", "content": "".join(words(call))}
    if "reasoning" in call.traits:
        said["reasoning_content"] = "Let me think."
    if "refusal" in call.traits:
        said |= {"content": None, "refusal": "I cannot help with that."}
    if calls := tool_calls(call):
        said |= {"content": None, **called(call, calls)}
    return said


def deltas(call: Call) -> Iterator[Json]:
    yield {"role": "assistant", "content": ""}
    if "reasoning" in call.traits:
        yield {"reasoning_content": "Let me"}
        yield {"reasoning_content": " think."}
    if "refusal" in call.traits:
        yield {"refusal": "I cannot help with that."}
    calls = tool_calls(call)
    for index, tool in enumerate(calls):
        for part in tool_fragments(index, tool):
            yield called(call, [part])
    if not calls:
        yield from ({"content": word} for word in words(call))


def tool_fragments(index: int, tool: Json) -> Iterator[Json]:
    function = tool["function"]
    arguments = function["arguments"]
    opening = {**tool, "index": index, "function": {"name": function["name"], "arguments": ""}}
    yield opening
    for part in (arguments[:5], arguments[5:9], arguments[9:]):
        yield {"index": index, "function": {"arguments": part}}


def called(call: Call, calls: list[Json]) -> Json:
    """Calls, or parts of some, as members of a message or a delta."""
    if "function" in call.traits:
        return {"function_call": calls[0]["function"]}
    return {"tool_calls": calls}


def choice_count(call: Call) -> int:
    count = call.body.get("n")
    return count if isinstance(count, int) and count > 0 else 1


def chat(call: Call) -> Json:
    reason = finish_reason(call)
    said = message(call)
    return {
        "id": f"chatcmpl-{call.number}",
        "object": "chat.completion",
        "created": CREATED,
        "model": call.body.get("model"),
        "choices": [
            {"index": i, "message": said, "logprobs": None, "finish_reason": reason}
            for i in range(choice_count(call))
        ],
        "usage": usage(call),
        "system_fingerprint": "fp_fake",
    }


def completion(call: Call) -> Json:
    text, reason = "".join(words(call)), finish_reason(call)
    return {
        "id": f"cmpl-{call.number}",
        "object": "text_completion",
        "created": CREATED,
        "model": call.body.get("model"),
        "choices": [
            {"index": i, "text": text, "logprobs": None, "finish_reason": reason}
            for i in range(choice_count(call))
        ],
        "usage": usage(call),
    }


def embeddings(call: Call) -> Json:
    texts = call.body.get("input", "")
    many = isinstance(texts, list) and texts and not isinstance(texts[0], int)
    vector: Any = [0.25, -0.5]
    wants_base64 = call.body.get("encoding_format") == "base64"
    if wants_base64 != ("other-format" in call.traits):
        vector = base64.b64encode(struct.pack("<2f", *vector)).decode()
    counts = usage(call) or {}
    counts.pop("completion_tokens", None)
    return {
        "object": "list",
        "model": call.body.get("model"),
        "data": [
            {"object": "embedding", "index": i, "embedding": vector}
            for i in range(len(texts) if many else 1)
        ],
        "usage": {**counts, "total_tokens": counts["prompt_tokens"]} if counts else None,
    }


def ranking(call: Call) -> Json:
    places = range(len(call.body["documents"]))
    results = [{"index": i, "relevance_score": (i + 1) / len(places)} for i in reversed(places)]
    return {"model": call.body.get("model"), "results": results}


def response(call: Call, status: str = "completed") -> Json:
    """What a server says that speaks the Responses API itself."""
    counts = usage(call)
    part = {"type": "output_text", "text": "".join(words(call)), "annotations": []}
    item = {
        "id": f"msg_{call.number}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part],
    }
    return {
        "id": f"resp_upstream{call.number}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": call.body.get("model"),
        "output": [item] if status == "completed" else [],
        "usage": counts
        and {
            "input_tokens": counts["prompt_tokens"],
            "output_tokens": counts["completion_tokens"],
            "total_tokens": counts["total_tokens"],
        },
    }


def models(call: Call) -> Json:
    names = call.traits["models"][0].split(",") if "models" in call.traits else MODELS
    data = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "upstream"}
        for name in names
    ]
    return {"object": "list", "data": data}


def error_body(status: int) -> Json:
    text = f"upstream says {status}: key {SECRET} was refused by {PRIVATE_HOST}"
    return {
        "error": {
            "message": text,
            "type": "upstream_error",
            "param": None,
            "code": "upstream_code",
        }
    }


DOCUMENTS = {
    "/chat/completions": chat,
    "/completions": completion,
    "/embeddings": embeddings,
    "/responses": response,
}


# -- streams ---------------------------------------------------------------------------------------


def chunk_events(call: Call) -> Iterator[tuple[str, Json]]:
    """The chunks of a chat or legacy completion, in order."""
    legacy = not call.path.endswith("/chat/completions")
    base = {
        "id": f"{'cmpl' if legacy else 'chatcmpl'}-{call.number}",
        "object": "text_completion" if legacy else "chat.completion.chunk",
        "created": CREATED,
        "model": call.body.get("model"),
    }
    each = {"usage": usage(call)} if "usage-each" in call.traits else {}
    if asks_usage(call) and not each:
        each = {"usage": None}

    for choices in chunk_choices(call, legacy):
        yield "", {**base, "choices": choices, **each}
    if (asks_usage(call) or "usage-always" in call.traits) and usage(call):
        yield "", {**base, "choices": [], "usage": usage(call)}


def chunk_choices(call: Call, legacy: bool) -> Iterator[list[Json]]:
    indexes = range(choice_count(call))
    said = ({"text": w} for w in words(call)) if legacy else ({"delta": d} for d in deltas(call))
    for part in said:
        for index in indexes:
            yield [{"index": index, **part, "logprobs": None, "finish_reason": None}]
    end: Json = {"text": ""} if legacy else {"delta": {}}
    for index in indexes:
        yield [{"index": index, **end, "logprobs": None, "finish_reason": finish_reason(call)}]


def asks_usage(call: Call) -> bool:
    return bool((call.body.get("stream_options") or {}).get("include_usage"))


def response_events(call: Call) -> Iterator[tuple[str, Json]]:
    sequence = itertools.count()

    def event(kind: str, **members: Any) -> tuple[str, Json]:
        return kind, {"type": kind, "sequence_number": next(sequence), **members}

    yield event("response.created", response=response(call, "in_progress"))
    place = {"item_id": f"msg_{call.number}", "output_index": 0, "content_index": 0}
    for word in words(call):
        yield event("response.output_text.delta", **place, delta=word)
    yield event("response.completed", response=response(call))


def stream(call: Call) -> list[bytes]:
    """The answer as server-sent events, one piece each."""
    traits = call.traits
    native = call.path.endswith("/responses")
    events = list(response_events(call) if native else chunk_events(call))
    error = ("", error_body(500))
    if "error-first" in traits:
        events = [error]
    elif "error-in-stream" in traits:
        events = [*events[: len(events) // 2], error]
    elif "half" in traits:
        events = events[: len(events) // 2]

    named = native or "events" in traits
    pieces = [frame(kind or "message" if named else "", orjson.dumps(d)) for kind, d in events]
    if not traits.keys() & {"half", "no-done", "error-in-stream", "error-first"} and not native:
        pieces.append(frame("", b"[DONE]"))
    return shape(pieces, traits)


def frame(kind: str, data: bytes) -> bytes:
    return (f"event: {kind}\n".encode() if kind else b"") + b"data: " + data + b"\n\n"


def shape(pieces: list[bytes], traits: Traits) -> list[bytes]:
    """The same events, in the line ends and segments that the traits ask for."""
    if "comments" in traits:
        pieces = [b": keep-alive\n\n" + piece for piece in pieces]
    if "remarks" in traits:
        pieces = [b": remark\n" + piece for piece in pieces]
    if "crlf" in traits:
        pieces = [piece.replace(b"\n", b"\r\n") for piece in pieces]
    if "joined" in traits:
        return [b"".join(pieces)]
    if "bytewise" in traits:
        return [bytes([byte]) for byte in b"".join(pieces)]
    if "split-utf8" in traits:
        return cut_inside_characters(b"".join(pieces))
    return pieces


def cut_inside_characters(text: bytes) -> list[bytes]:
    pieces, start = [], 0
    for at, byte in enumerate(text):
        if byte & 0xC0 == 0x80:
            pieces.append(text[start:at])
            start = at
    return [*pieces, text[start:]]


# -- answering -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """`pieces` are sent one after the other; framing is `length`, `chunked` or `close`."""

    pieces: list[bytes]
    status: int = 200
    content_type: str = "application/json"
    framing: str = "length"
    headers: list[tuple[str, str]] = field(default_factory=list)


NOISE = [
    ("set-cookie", "upstream=1"),
    ("alt-svc", 'h3=":443"'),
    ("x-ratelimit-limit-requests", "10000"),
    ("x-ratelimit-remaining-requests", "9999"),
    ("openai-processing-ms", "12"),
    ("openai-version", "2020-10-01"),
    ("openai-organization", "org-private"),
    ("cache-control", "no-store"),
    ("retry-after", "9"),
    ("x-powered-by", PRIVATE_HOST),
]


def compose(call: Call) -> Answer:
    """What to say to one call; how it then goes wrong is `deliver`'s business."""
    traits = call.traits
    if (status := failure(call)) is not None:
        return failed(status, traits)
    if "error-in-200" in traits:
        return Answer([orjson.dumps(error_in_200(call.traits))])
    if "empty" in traits:
        return Answer([b""])
    if "html" in traits:
        return Answer([html()], content_type="text/html")
    if call.method == "GET":
        return (
            Answer([orjson.dumps(models(call))]) if call.path.endswith("/models") else not_found()
        )
    if call.streams and not call.path.endswith("/embeddings"):
        return Answer(stream(call), content_type="text/event-stream", framing="chunked")
    raw = orjson.dumps(document(call))
    return Answer([raw[: len(raw) // 2] if "wrong-json" in traits else raw])


def document(call: Call) -> Json:
    if "tokenize" in call.traits and call.path == "/tokenize":
        return {"count": len(call.raw.split()), "max_model_len": 8192, "tokens": [1, 2, 3]}
    if "tokenize" in call.traits and call.path.endswith("/responses/input_tokens"):
        return {"object": "response.input_tokens", "input_tokens": len(call.raw.split())}
    if "rank" in call.traits and call.path.endswith("/rerank"):
        return ranking(call)
    for path, build in DOCUMENTS.items():
        if call.path.endswith(path):
            return build(call)
    return {"object": "echo", "path": call.path, "method": call.method, "body": call.body}


def failure(call: Call) -> int | None:
    traits = call.traits
    if "fail" in traits:
        return traits.number("fail", 500)
    if "flaky" in traits:
        marker = str(call.body.get("user") or "").encode() or call.raw
        if LEDGER.still_fails(marker, traits.number("flaky", 1)):
            return traits.number("flaky", 500, position=1)
    return None


def failed(status: int, traits: Traits) -> Answer:
    after = str(traits.number("wait", 7))
    if "date" in traits:
        after = formatdate(time.time() + int(after), usegmt=True)
    wait = [("retry-after", after)] if status in (429, 503) else []
    if "html" in traits:
        return Answer([html()], status, "text/html", headers=wait)
    return Answer([orjson.dumps(error_body(status))], status, headers=wait)


def not_found() -> Answer:
    return Answer([orjson.dumps(error_body(404))], 404)


def error_in_200(traits: Traits) -> Json:
    body = error_body(500)
    if traits["error-in-200"]:
        body["error"]["code"] = traits.number("error-in-200")
    return body


def html() -> bytes:
    return f"<html><body>Bad gateway at {PRIVATE_HOST}</body></html>".encode()


def compress(answer: Answer, traits: Traits) -> None:
    coding = next((name for name in ("gzip", "deflate", "br") if name in traits), None)
    if coding is None:
        return
    whole = b"".join(answer.pieces)
    if coding != "br":
        whole = gzip.compress(whole) if coding == "gzip" else zlib.compress(whole)
    middle = len(whole) // 2
    answer.pieces = [whole[:middle], whole[middle:]]
    answer.headers.append(("content-encoding", coding))


def head(call: Call, answer: Answer) -> bytes:
    headers = [
        ("content-type", answer.content_type),
        ("x-request-id", f"up-{call.number}"),
        ("server", "fake"),
        *answer.headers,
    ]
    if "noisy" in call.traits:
        headers += NOISE
    if answer.framing == "length":
        headers.append(("content-length", str(sum(map(len, answer.pieces)))))
    elif answer.framing == "chunked":
        headers.append(("transfer-encoding", "chunked"))
    if "close" in call.traits or answer.framing == "close":
        headers.append(("connection", "close"))
    lines = [f"HTTP/1.1 {answer.status} Status", *(f"{n}: {v}" for n, v in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def deliver(connection: Connection, call: Call) -> None:
    """Answer one call, with every delay and every fault that its traits ask for."""
    traits = call.traits
    if not traits:
        answer = compose(call)
        if answer.framing == "length":
            return connection.send(head(call, answer) + answer.pieces[0])
        return send_pieces(connection, call, answer)

    before_head(connection, call)
    answer = compose(call)
    compress(answer, traits)
    if "until-close" in traits:
        answer.framing = "close"
    if answer.framing == "length" and traits.keys() & HALF_WAY and len(answer.pieces) == 1:
        middle = len(answer.pieces[0]) // 2
        answer.pieces = [answer.pieces[0][:middle], answer.pieces[0][middle:]]
    return send_pieces(connection, call, answer)


HALF_WAY = {"cut", "cut-reset", "hang-stream", "hold-stream", "gap"}


def before_head(connection: Connection, call: Call) -> None:
    traits = call.traits
    if "slow" in traits:
        connection.pause(traits.number("slow") / 1000)
    if "hold" in traits:
        held(connection, call)
    if "hang" in traits:
        connection.pause(None)
    if "reset" in traits or "drop" in traits:
        raise Broken(reset="reset" in traits)
    if "not-http" in traits:
        connection.send(b"220 mail.example ESMTP ready\r\n\r\n")
        raise Broken
    if "hang-in-head" in traits:
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: appl")
        connection.pause(None)
    if "interim" in traits:
        connection.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")


def held(connection: Connection, call: Call) -> None:
    while not call.gate.is_set():
        connection.pause(0.005)


def send_pieces(connection: Connection, call: Call, answer: Answer) -> None:
    traits = call.traits
    chunked = answer.framing == "chunked"
    connection.send(head(call, answer))
    if "first" in traits:
        connection.pause(traits.number("first") / 1000)
    gap = traits.number("gap") / 1000 or (0.003 if "split-utf8" in traits else 0)
    middle = len(answer.pieces) // 2
    for at, piece in enumerate(answer.pieces):
        if at:
            connection.pause(gap)
        if at == middle:
            half_way(connection, call)
        connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        connection.send(b"0\r\n\r\n")


def half_way(connection: Connection, call: Call) -> None:
    traits = call.traits
    if "hold-stream" in traits:
        held(connection, call)
    if "hang-stream" in traits:
        connection.pause(None)
    if "cut" in traits or "cut-reset" in traits:
        raise Broken(reset="cut-reset" in traits)


# -- the server ------------------------------------------------------------------------------------

LEDGER: Ledger = Ledger()


def control(call: Call) -> Any:
    """What a test asks about the calls of others; None where this is an ordinary call."""
    if call.path == "/seen":
        return [asdict(seen) for seen in LEDGER.requests]
    if call.path == "/active":
        return LEDGER.activity()
    if call.path in ("/reset", "/release"):
        LEDGER.reset() if call.path == "/reset" else LEDGER.release()
        return LEDGER.activity()
    return None


def understand(call: Call) -> None:
    """Fill in body, traits and the path without its marks."""
    with contextlib.suppress(ValueError):
        call.body = orjson.loads(call.raw)
    if not isinstance(call.body, dict):
        call.body = {}
    path, marks = call.path.partition("?")[0], ""
    if path.startswith("/as/"):
        marks, _, path = path[len("/as/") :].partition("/")
        path = "/" + path
    call.path = path
    call.number = LEDGER.total + 1
    call.traits = parse_traits(str(call.body.get("model") or ""), marks)


def answer_call(connection: Connection, call: Call, api_key: str) -> None:
    asked = call.path
    understand(call)
    seen = Seen(
        number=call.number,
        connection=connection.number,
        method=call.method,
        path=asked,
        headers=call.headers,
        raw=call.raw.decode("utf-8", "replace"),
        body=call.body or None,
    )
    if api_key and call.headers.get("authorization") != f"Bearer {api_key}":
        call.traits = Traits(fail=["401"])
    LEDGER.begin(seen)
    outcome = "broken"
    try:
        deliver(connection, call)
        outcome = "answered"
    except CallerLeft:
        outcome = "left"
        raise
    finally:
        LEDGER.end(seen, outcome)


def serve(sock: Any, api_key: str) -> None:
    LEDGER.connections += 1
    connection = Connection(sock, LEDGER.connections)
    reset = False
    vanishes = False
    try:
        while (call := connection.read_call()) is not None:
            if (state := control(call)) is not None:
                body = orjson.dumps(state)
                connection.send(head(call, Answer([body])) + body)
                continue
            if vanishes:
                break
            answer_call(connection, call, api_key)
            connection.answers += 1
            vanishes = "vanish" in call.traits
            if ends_connection(call, connection.answers):
                break
    except Broken as broken:
        reset = broken.reset
    except (CallerLeft, OSError):
        pass
    finally:
        connection.close(reset=reset)


def ends_connection(call: Call, answers: int) -> bool:
    if "stale" in call.traits and answers >= call.traits.number("stale", 1):
        return True
    return bool(call.traits.keys() & {"close", "until-close"})


def end_with_parent() -> None:
    """Whoever started us holds the other end of standard input; when it dies, so do we."""
    while gevent.os.tp_read(0, 1):
        pass
    os._exit(0)


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description="A small inference server for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api-key", default="", help="refuse any other with 401")
    parser.add_argument("--certificate", help="PEM file with key and certificate: speak TLS")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
    options = parser.parse_args()
    tls = {"keyfile": options.certificate, "certfile": options.certificate}
    server = gevent.server.StreamServer(
        ("127.0.0.1", options.port),
        lambda sock, _address: serve(sock, options.api_key),
        backlog=1024,
        **(tls if options.certificate else {}),
    )
    server.start()
    sys.stdout.write(json.dumps({"port": server.server_port, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    if options.with_parent:
        gevent.spawn(end_with_parent)
    server.serve_forever()
    raise SystemExit(0)


# -- for tests -------------------------------------------------------------------------------------


class FakeUpstream:
    """The server in a process of its own.

        with FakeUpstream() as upstream:
            call(upstream.url + "/chat/completions", model="fail-500")
            assert upstream.seen()[0]["outcome"] == "answered"

    `url` ends in /v1. With `certificate` (a PEM file with key and certificate) it speaks TLS.
    """

    def __init__(
        self, *, port: int = 0, api_key: str = "", certificate: Path | None = None
    ) -> None:
        self.port = port
        self._options = ["--api-key", api_key] if api_key else []
        if certificate:
            self._options += ["--certificate", str(certificate)]
        self._tls = certificate is not None
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        command = [sys.executable, "-m", "tests.fake_upstream", "--with-parent"]
        process = subprocess.Popen(
            [*command, "--port", str(self.port), *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        self._process = process
        assert process.stdout is not None
        self.port = json.loads(process.stdout.readline())["port"]
        return self

    def stop(self) -> None:
        """End the server: from now on connections are refused."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()

    def restart(self) -> None:
        """A new server, with an empty memory, on the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"

    def url_as(self, traits: str) -> str:
        """A base URL below which every call has these traits, whatever its model is called."""
        return f"{self.origin}/as/{traits}/v1"

    def seen(self) -> list[Json]:
        found: list[Json] = self._ask("GET", "/seen")
        return found

    def active(self) -> Json:
        found: Json = self._ask("GET", "/active")
        return found

    def reset(self) -> None:
        self._ask("POST", "/reset")

    def release(self) -> None:
        """Let go of the calls (`hold`, `hold-stream`) that have begun by now, held yet or not."""
        self._ask("POST", "/release")

    def wait_active(self, count: int, *, timeout_s: float = 10) -> Json:
        """Wait until exactly `count` calls are in progress."""
        return self._wait(lambda state: state["active"] == count, timeout_s)

    def wait_total(self, count: int, *, timeout_s: float = 10) -> Json:
        """Wait until at least `count` calls have come in."""
        return self._wait(lambda state: state["total"] >= count, timeout_s)

    def _wait(self, reached: Any, timeout_s: float) -> Json:
        until = time.monotonic() + timeout_s
        while not reached(state := self.active()):
            assert time.monotonic() < until, state
            time.sleep(0.005)
        return state

    def _ask(self, method: str, path: str) -> Any:
        connection: http.client.HTTPConnection
        if self._tls:
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=10, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


if __name__ == "__main__":
    main()
