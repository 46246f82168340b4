import random

import pytest

from dwctl.upstream.sse import EventTooLarge, SseEvent, SseParser, is_event_stream


def parse(
    *chunks: bytes, limit: int = 1000
) -> list[tuple[bytes | None, bytes | None, bytes | None]]:
    parser = SseParser(limit)
    events = [event for chunk in chunks for event in parser.feed(chunk)] + parser.close()
    return [event[:3] for event in events if event[:3] != (None, None, None)]


READ = {
    "one event": (b"data: a\n\n", [(b"a", None, None)]),
    "two events": (b"data: a\n\ndata: b\n\n", [(b"a", None, None), (b"b", None, None)]),
    "no space": (b"data:a\n\n", [(b"a", None, None)]),
    "two spaces": (b"data:  a\n\n", [(b" a", None, None)]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"a", None, None), (b"b", None, None)]),
    "CR": (b"data: a\r\rdata: b\r\r", [(b"a", None, None), (b"b", None, None)]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\n", [(b"a", None, None), (b"b", None, None)]),
    "several data lines": (b"data: a\ndata\ndata: b\n\n", [(b"a\n\nb", None, None)]),
    "named": (b"event: ping\ndata: a\n\n", [(b"a", b"ping", None)]),
    "name after data": (b"data: a\nevent:ping\n\n", [(b"a", b"ping", None)]),
    "name alone": (b"event: ping\n\n", [(None, b"ping", None)]),
    "comment": (b": keep-alive\n\n", [(None, None, b": keep-alive")]),
    "comment with data": (b": x\n:y\ndata: a\n\n", [(b"a", None, b": x\n:y")]),
    "colons in data": (b'data: {"a": "b:c"}\n\n', [(b'{"a": "b:c"}', None, None)]),
    "other fields": (b"id: 5\nretry: 10\nnonsense\ndata: a\n\n", [(b"a", None, None)]),
    "too many blank lines": (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [(b"a", None, None), (b"b", None, None)]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [(b"a", None, None)]),
    "byte order mark later on": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"a", None, None)]),
    "not ended": (b"data: a\n\ndata: b", [(b"a", None, None), (b"b", None, None)]),
    "not ended, with a line end": (b"data: b\r\n", [(b"b", None, None)]),
    "multi-byte text": ("data: é😀\n\n".encode(), [("é😀".encode(), None, None)]),
    "empty data": (b"data:\n\n", [(b"", None, None)]),
    "an error field": (b"error: a\n\n", [(b"a", b"error", None)]),
    "events without blank lines": (b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n\n', [(b'{"a":1}', None, None), (b'{"b":2}', None, None), (b"[DONE]", None, None)]),
    "an object over several data lines": (b'data: {\ndata: "a":1}\n\n', [(b'{\n"a":1}', None, None)]),
    "JSON lines": (b'{"a":1}\n{"b":2}\n', [(b'{"a":1}', None, None), (b'{"b":2}', None, None)]),
    "JSON lines with CRLF": (b'{"a":1}\r\n\r\n{"b":2}', [(b'{"a":1}', None, None), (b'{"b":2}', None, None)]),
    "one object": (b'{"a":1}', [(b'{"a":1}', None, None)]),
    "one object over several lines": (b'{\n\n "a":1\n}\n', [(b'{\n\n "a":1\n}', None, None)]),
    "an object and an end marker": (b'\n{"a":1}\n\ndata: [DONE]\n\n', [(b'{"a":1}', None, None), (b"[DONE]", None, None)]),
    "an object without a field": (b'data: a\n\n{"error":5}\n\n', [(b"a", None, None), (b'{"error":5}', None, None)]),
    "blank lines first": (b"\n\r\n data: a\n\ndata: b\n\n", [(b"b", None, None)]),
    "nothing": (b"", []),
    "two bytes of a byte order mark": (b"\xef\xbb", []),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "expected"), READ.values(), ids=READ)
def test_a_stream_is_taken_apart(stream, expected):
    assert parse(stream) == expected


@pytest.mark.parametrize(("stream", "expected"), READ.values(), ids=READ)
def test_single_bytes_give_the_same_events(stream, expected):
    assert parse(*(bytes([byte]) for byte in stream)) == expected


def test_any_portions_give_the_same_events():
    rng = random.Random(7)
    for _ in range(400):
        stream = b"".join(rng.choice([b"data: a", b"\n", b"\r", b"\r\n", b"\n\n", b": c", b"event: e"]) for _ in range(12))  # fmt: skip
        cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(6)))
        parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert parse(*parts) == parse(stream)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_the_raw_bytes_are_the_stream(size):
    stream = b": hi\r\n\r\ndata: a\n\n\n\nevent: e\rdata: b\r\rdata: c"
    parser = SseParser()
    events: list[SseEvent] = []
    for start in range(0, len(stream), size):
        events += parser.feed(stream[start : start + size])
    assert b"".join(event.raw for event in events + parser.close()) == stream


def test_an_error_field_is_passed_on_as_the_event_that_it_should_have_been():
    for stream in (b"error: a\n\n", b"id: 7\nerror: a\n\n", b"error: a\nretry: 5\n\n"):
        assert [event.raw for event in SseParser().feed(stream)] == [b"event: error\ndata: a\n\n"]


def test_an_event_of_the_largest_size_passes():
    assert parse(b"data: " + b"x" * 12 + b"\n\n", limit=20) == [(b"x" * 12, None, None)]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_larger_event_is_refused_after_all_that_came_before_it(size):
    stream = b"data: a\n\ndata: b\n\ndata: " + b"x" * 13 + b"\n\ndata: c\n\n"
    parser = SseParser(20)
    seen: list[bytes | None] = []

    def read_all():
        for start in range(0, len(stream), size):
            seen.extend(event.data for event in parser.feed(stream[start : start + size]))
        parser.close()

    with pytest.raises(EventTooLarge):
        read_all()
    assert seen == [b"a", b"b"]
    with pytest.raises(EventTooLarge):
        parser.feed(b"data: d\n\n")


def test_a_large_event_costs_time_in_proportion_to_its_size():
    parser = SseParser()
    piece = b"x" * 1024
    parser.feed(b"data: ")
    for _ in range(4096):
        assert parser.feed(piece) == []
    assert len(parser.feed(b"\n\n")[0].data or b"") == 4 * 1024 * 1024


KINDS = {
    "as it should be": ("text/event-stream", b"data: a\n\n", True),
    "in capitals, with a charset": ("Text/Event-Stream; Charset=UTF-8", b"", True),
    "nothing there yet": ("text/event-stream", b"", True),
    "a stream as JSON": ("application/json", b'data: {"a":1}\n\n', True),
    "a stream as text": ("text/plain; charset=utf-8", b": OPENROUTER PROCESSING\n\n", True),
    "a stream as nothing": (None, b"event: x\ndata: y", True),
    "a stream behind a byte order mark": ("application/json", b"\xef\xbb\xbf\ndata: a", True),
    "a stream that begins with an error": ("application/json", b"error: {}", True),
    "JSON as a stream": ("text/event-stream", b'{"a":1}', False),
    "JSON as text": ("text/plain", b'{"a":1}', False),
    "JSON as nothing": (None, b' \n{"a":1}', False),
    "pretty JSON": ("application/json", b'{\n  "a": {}\n}\n', False),
    "JSON lines": ("application/json", b'{"a":1}\n{"b":2}\n', True),
    "JSON lines by name": ("application/x-ndjson", b"", True),
    "a list": ("text/event-stream", b"[1]", True),
    "a page": ("text/html", b"<html>data: x", False),
    "nothing at all": (None, b"", False),
}


@pytest.mark.parametrize(("kind", "first", "expected"), KINDS.values(), ids=KINDS)
def test_what_is_a_stream(kind, first, expected):
    assert is_event_stream(kind, first) is expected
