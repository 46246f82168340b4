"""Streams whose bytes were spoilt at random: every transformer takes them, and ends its own stream properly."""

import random

import pytest

from dwctl.protocols.chat_stream import ChatStream
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.openresponses.passthrough import ResponsesRelay
from dwctl.protocols.openresponses.stream import ResponsesStream
from tests.protocols.openresponses.samples import CITATION, LOGPROB, skeleton
from tests.protocols.openresponses.schema import check_response
from tests.protocols.streams import chunk, drive, hello, sse, usage_chunk

CALL = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RICH = chunk(
    {
        "role": "assistant",
        "content": "a",
        "refusal": "b",
        "reasoning_content": "c",
        "reasoning_details": [{"text": "d"}],
        "annotations": [CITATION],
        "tool_calls": [CALL],
        "audio": {"id": "x", "data": "A"},
    }
)
RICH["choices"][0]["logprobs"] = {"content": [LOGPROB], "refusal": None}
CHAT = sse(
    [RICH, *hello(usage=False), RICH, chunk({}, "stop"), usage_chunk(), {"error": {"code": 1}}]
)
RESPONSES = drive(lambda: ResponsesStream(skeleton(), now=lambda: 1), CHAT)[1]


def spoilt(stream: bytes, rng: random.Random) -> bytes:
    """A few bytes replaced, a few values replaced by others of another type."""
    pieces = bytearray(stream)
    for _ in range(rng.randrange(3)):
        pieces[rng.randrange(len(pieces))] = rng.choice(b'{}[]",:0x\n\r \xff')
    text = bytes(pieces)
    for _ in range(rng.randrange(1, 4)):
        old = rng.choice(
            [b'"a"', b'"index":0', b'"delta":{', b"[{", b'"f"', b"null", b'"Hello"', b"1", b'"id"']
        )
        new = rng.choice(
            [
                b"5",
                b"null",
                b"[]",
                b"{}",
                b'"x"',
                b"true",
                b"[5]",
                b'"index":"x"',
                b"1e400",
                b"9" * 30,
            ]
        )
        text = text.replace(old, new, rng.randrange(1, 3))
    return text


def chat(strict, sanitise):
    disclosure = Disclosure(strict=strict, sanitise=sanitise)
    return lambda: ChatStream(response_id="resp_1", alias="m", disclosure=disclosure)


TRANSFORMERS = {
    "chat, strict": (chat(True, False), CHAT),
    "chat, plain": (chat(False, False), CHAT),
    "chat, sanitised": (chat(False, True), CHAT),
    "responses": (lambda: ResponsesStream(skeleton(), now=lambda: 1), CHAT),
    "relay": (
        lambda: ResponsesRelay(skeleton(), now=lambda: 1, disclosure=Disclosure(strict=True)),
        RESPONSES,
    ),
    "relay, plain": (lambda: ResponsesRelay(skeleton(), now=lambda: 1), RESPONSES),
}


@pytest.mark.parametrize(("make", "stream"), TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_nothing_that_an_upstream_sends_raises(make, stream):
    rng = random.Random(3)
    for _ in range(250):
        transformer, out = drive(make, spoilt(stream, rng))
        transformer.assembled()
        assert out.endswith(b"data: [DONE]\n\n")
        usage = transformer.settle()
        assert usage is None or usage.total_tokens >= 0
        if isinstance(transformer, ResponsesStream):
            check_response(transformer.final, sdk=False)
