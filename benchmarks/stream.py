"""Streams through one web process: CPU an event when chunks pass through, and when they become Responses events; 500 streams at once."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys

from benchmarks import books, measure, report
from benchmarks.client import Answer, Connection, Lost, request
from benchmarks.stage import Gunicorn, Stage
from benchmarks.upstream import Upstream

EVENTS, GAP_MS, STREAMS, ROUNDS = 300, 10, 8, 3
MANY, LONG_EVENTS, LONG_GAP_MS = 500, 40, 250
MODELS = {"short": f"stream-{EVENTS}-{GAP_MS}", "long": f"stream-{LONG_EVENTS}-{LONG_GAP_MS}"}
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
CHAT = {"messages": MESSAGES, "stream": True}
RESPONSES = {"input": MESSAGES, "stream": True}


def main() -> int:
    """Measure and print."""
    report.begin(
        "stream: server-sent events through one web process",
        f"{STREAMS} streams of {EVENTS} chunks, one each {GAP_MS} ms; then {MANY} of {LONG_EVENTS}, one each {LONG_GAP_MS} ms",
    )
    with Upstream() as upstream, Stage(upstream.url, MODELS) as stage:
        web = stage.web()
        chat = request(f"{web.url}/ai/v1/chat/completions", _body("short", CHAT))
        responses = request(f"{web.url}/ai/v1/responses", _body("short", RESPONSES))
        asyncio.run(_streams(web, chat, 1))
        asyncio.run(_streams(web, responses, 1))
        chats, translations = [], []
        for _ in range(ROUNDS):
            chats.append(_us_an_event(web, chat))
            translations.append(_us_an_event(web, responses))
        passed, translated = statistics.median(chats), statistics.median(translations)
        report.figure("CPU an event, chat chunks passed through", passed, "us")
        report.figure("CPU an event, chat chunks to Responses events", translated, "us")
        report.at_most("translated / passed through", translated / passed, "x", 2, digits=2)
        _many(web)
        with stage.connect() as database:
            books.check(books.Books.read(database), len(upstream.calls()))
    return report.exit_code()


def _us_an_event(web: Gunicorn, message: bytes) -> float:
    used = measure.cpu_s(web.pid)
    answers = asyncio.run(_streams(web, message, STREAMS))
    complete = sum(map(_is_complete, answers))
    if complete < STREAMS:
        raise SystemExit(f"only {complete} of {STREAMS} streams were complete")
    return (measure.cpu_s(web.pid) - used) * 1e6 / (STREAMS * EVENTS)


def _many(web: Gunicorn) -> None:
    """Two waves: what the first needs is warm-up in part, what the second adds to it would be a leak."""
    message = request(f"{web.url}/ai/v1/chat/completions", _body("long", CHAT))
    before = measure.rss_bytes(web.pid)
    first, peak, _ = asyncio.run(_wave(web, message))
    second, peak_again, latest = asyncio.run(_wave(web, message))
    after = measure.rss_bytes(web.pid)
    complete = sum(map(_is_complete, first + second))
    report.proven(
        f"two waves of {MANY} streams at once, complete",
        holds=complete == 2 * MANY,
        what=f"{complete:,} of {2 * MANY:,}",
    )
    for name, size in (("before", before), ("with the first wave", peak), ("with the second", peak_again), ("after", after)):  # fmt: skip
        report.figure(f"memory {name}", size / 1024**2, "MiB")
    report.figure("memory a stream", (peak - before) / 1024 / MANY, "KiB")
    report.at_most(
        "growth from the first wave to the second", 100 * (peak_again / peak - 1), "%", 5
    )
    report.figure("first event at the latest, second wave", latest, "ms", digits=0)


async def _wave(web: Gunicorn, message: bytes) -> tuple[list[Answer | None], int, float]:
    """Answers, the highest memory while they came, and the slowest first byte in milliseconds."""
    streams = asyncio.gather(_streams(web, message, MANY))
    peak = 0
    while not streams.done():
        peak = max(peak, measure.rss_bytes(web.pid))
        await asyncio.sleep(0.2)
    answers = streams.result()[0]
    latest = max((a.first - a.began for a in answers if a is not None), default=0.0)
    return answers, peak, latest * 1000


async def _streams(web: Gunicorn, message: bytes, count: int) -> list[Answer | None]:
    connections = [await Connection.open(web.url) for _ in range(count)]
    answers = await asyncio.gather(*(_stream(connection, message) for connection in connections))
    for connection in connections:
        connection.close()
    return answers


async def _stream(connection: Connection, message: bytes) -> Answer | None:
    try:
        return await connection.call(message)
    except Lost:
        return None


def _is_complete(answer: Answer | None) -> bool:
    if answer is None or answer.status != 200 or b"data: [DONE]" not in answer.raw:
        return False
    text = answer.raw
    return b'"finish_reason":"stop"' in text or b"response.completed" in text


def _body(alias: str, members: dict[str, object]) -> bytes:
    return json.dumps({"model": alias, **members}).encode()


if __name__ == "__main__":
    sys.exit(main())
