"""Every framing, on every surface that streams, whoever speaks to it, in both modes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai._streaming import SSEDecoder

from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.openresponses.stream import ResponsesStream
from dwctl.protocols.surfaces import COMPLETIONS, RESPONSES
from dwctl.protocols.treatments import Relayed, Treatment
from tests.protocols.dialects import client
from tests.protocols.dialects.client import Said
from tests.protocols.dialects.framings import FRAMINGS, Framing, usual
from tests.protocols.dialects.streams import TEXT, end, used, words
from tests.protocols.dialects.test_streams import MODES, on_chat, on_responses, streamed, treated
from tests.protocols.openresponses.samples import skeleton
from tests.protocols.streams import data_of, drive, sse

CHAT_EVENTS = [orjson.dumps(chunk) for chunk in (*words(), end(), used())]
TEXT_EVENTS = [
    b'{"id":"c","object":"text_completion","created":1,"model":"up","choices":[%b]%b}' % (choice, more)
    for choice, more in (
        (b'{"index":0,"text":"Hello","logprobs":null,"finish_reason":null}', b""),
        (b'{"index":0,"text":" there","logprobs":null,"finish_reason":"stop"}', b""),
        (b"", b',"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}'),
    )
]  # fmt: skip
OWN = drive(lambda: ResponsesStream(skeleton(), now=lambda: 1), usual(CHAT_EVENTS))[1]
RESPONSE_EVENTS = [orjson.dumps(event) for event in data_of(OWN)[:-1]]


def on_completions(disclosure: Disclosure) -> Treatment:
    return treated(COMPLETIONS, disclosure, prompt="Hi", stream_options={"include_usage": True})


def on_their_responses(disclosure: Disclosure) -> Treatment:
    asked = on_responses(disclosure)._asked  # type: ignore[attr-defined]
    relayed = RESPONSES.treat(asked, disclosure, adapted=False)
    assert isinstance(relayed, Relayed)
    return relayed


SURFACES: dict[str, Any] = {
    "chat": (on_chat, CHAT_EVENTS),
    "completions": (on_completions, TEXT_EVENTS),
    "responses over chat": (on_responses, CHAT_EVENTS),
    "responses passed on": (on_their_responses, RESPONSE_EVENTS),
}


@pytest.mark.parametrize("disclosure", MODES.values(), ids=MODES)
@pytest.mark.parametrize("framing", [f for _, f in FRAMINGS.values()], ids=FRAMINGS)
@pytest.mark.parametrize(("surface", "events"), SURFACES.values(), ids=SURFACES)
def test_a_stream_is_read_however_it_is_framed(
    surface: Any, events: list[bytes], framing: Framing, disclosure: Disclosure
) -> None:
    stream = framing(events)
    for pieces in ([stream], stream.splitlines(True), [stream[i : i + 7] for i in range(0, len(stream), 7)]):  # fmt: skip
        out, transformer = streamed(surface(disclosure), pieces)
        assert transformer.error is None
        assert_readable_by_openai(out)
        used = transformer.settle()
        assert (used.prompt_tokens, used.completion_tokens) == (9, 3)
        if surface in (on_chat, on_completions):
            read = client.chat_stream if surface is on_chat else client.text_stream
            assert read(_plain(out), complete=disclosure.strict) == Said(TEXT)
        else:
            whole = [event for event in data_of(_plain(out)) if event != "[DONE]"]
            assert client.response_stream(_named(whole)) == Said(TEXT)


def assert_readable_by_openai(out: bytes) -> None:
    """OpenAI's own clients read the JSON of whatever their decoder takes for an event."""
    for event in SSEDecoder().iter_bytes(iter([out])):
        assert event.data == "[DONE]" or isinstance(event.json(), dict)


def _plain(out: bytes) -> bytes:
    """With one kind of line end: what passes as it came keeps its own."""
    plain = out.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf")
    events = [e for e in plain.split(b"\n\n") if e.strip()]
    lines = [b"".join(_data_line(line) for line in event.split(b"\n")) for event in events]
    return b"".join(b"data: " + line + b"\n\n" for line in lines if line)


def _data_line(line: bytes) -> bytes:
    return line[5:].strip() if line.startswith(b"data:") else b""


def _named(events: list[Any]) -> bytes:
    frames = [b"event: " + e["type"].encode() + b"\n" + sse([e], done=False) for e in events]
    return b"".join(frames) + b"data: [DONE]\n\n"
