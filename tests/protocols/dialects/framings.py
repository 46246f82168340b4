"""How the same events are put on the wire: in ways that the standard of server-sent events allows, and in ways that it does not."""

from __future__ import annotations

from collections.abc import Callable

Framing = Callable[[list[bytes]], bytes]
DONE = b"data: [DONE]\n\n"


def each(before: bytes, behind: bytes, end: bytes = DONE) -> Framing:
    return lambda events: b"".join(before + event + behind for event in events) + end


def _between(more: bytes) -> Framing:
    return lambda events: more.join(b"data: " + event + b"\n\n" for event in events) + more + DONE


def _split(events: list[bytes]) -> bytes:
    """An event's data over several lines: they are cut where a blank may stand."""
    return b"".join(b"data: " + e.replace(b":{", b":\ndata: {") + b"\n\n" for e in events) + DONE


usual = each(b"data: ", b"\n\n")

FRAMINGS: dict[str, tuple[str, Framing]] = {
    "as it should be": ("OpenAI", usual),
    "no blank behind the colon": ("SamSaffron/term-llm#487", each(b"data:", b"\n\n", b"data:[DONE]\n\n")),
    "two blanks": ("home-made servers", each(b"data:  ", b"\n\n")),
    "CRLF": ("servers on Windows, sse-starlette", each(b"data: ", b"\r\n\r\n", b"data: [DONE]\r\n\r\n")),
    "CR": ("the standard allows it", each(b"data: ", b"\r\r", b"data: [DONE]\r\r")),
    "mixed line ends": ("proxies", each(b"data: ", b"\r\n\n")),
    "a byte order mark": ("servers on Windows", lambda events: b"\xef\xbb\xbf" + usual(events)),
    "data over several lines": ("the standard allows it", _split),
    "no blank lines": ("ggml-org/llama.cpp#14268, Kilo-Org/kilocode#3083", each(b"data: ", b"\n")),
    "many blank lines": ("proxies", each(b"\n\ndata: ", b"\n\n\n\n")),
    "blank lines first": ("keep-alive by white space", lambda events: b"\n\n \n" + usual(events)),
    "ids and retries": ("frameworks", each(b"id: 5\nretry: 10\ndata: ", b"\n\n")),
    "a retry first": ("Symfony, Spring, SignalR", lambda events: b"retry: 3000\n\n" + usual(events)),
    "ids, and comments in between": ("frameworks, behind a proxy that keeps alive", each(b"id: 5\ndata: ", b"\n\n: ping\n\n")),
    "unknown fields": ("frameworks", each(b"x-own: 5\ndata: ", b"\n\n")),
    "comments": ("OpenRouter (openai/openai-go#227)", _between(b": OPENROUTER PROCESSING\n\n")),
    "bare comments": ("llama.cpp (ollama/ollama#16443)", _between(b":\n\n")),
    "a comment within": ("proxies", each(b": ping\ndata: ", b"\n\n")),
    "empty data": ("coddy-project/coddy-agent#106", _between(b"data:\n\n")),
    "empty data with a blank": ("proxies", _between(b"data: \n\n")),
    "data null": ("Kilo-Org/kilocode#3083, microsoft/autogen#7355", _between(b"data: null\n\n")),
    "data an empty object": ("home-made servers", _between(b"data: {}\n\n")),
    "pings": ("Anthropic's form", _between(b'event: ping\ndata: {"type": "ping"}\n\n')),
    "pings without data": ("proxies", _between(b"event: ping\n\n")),
    "heartbeats": ("proxies", _between(b"event: heartbeat\ndata: 1700000000\n\n")),
    "no end marker": ("TGI and others", each(b"data: ", b"\n\n", b"")),
    "end marker without a blank line": ("darshi1337/apogee#139", each(b"data: ", b"\n\n", b"data: [DONE]")),
    "end marker twice": ("proxies behind proxies", each(b"data: ", b"\n\n", DONE + DONE)),
    "end marker in quotes": ("servers that dump it as JSON", each(b"data: ", b"\n\n", b'data: "[DONE]"\n\n')),
    "end marker without brackets": ("home-made servers", each(b"data: ", b"\n\n", b"data: DONE\n\n")),
    "end marker in small letters": ("home-made servers", each(b"data: ", b"\n\n", b"data: [done]\n\n")),
    "end marker with blanks": ("home-made servers", each(b"data: ", b"\n\n", b"data:  [DONE] \n\n")),
    "end marker with a name": ("home-made servers", each(b"data: ", b"\n\n", b"event: done\ndata: [DONE]\n\n")),
    "bytes behind the end marker": ("proxies", each(b"data: ", b"\n\n", DONE + b"\x00\x00garbage")),
    "last event without a blank line": ("a process that ends at once", lambda events: usual(events)[: -len(DONE) - 2]),
    "pretty JSON": ("debugging servers", lambda events: b"".join(b"data: " + e.replace(b",", b" ,\t") + b"\n\n" for e in events) + DONE),
}  # fmt: skip
