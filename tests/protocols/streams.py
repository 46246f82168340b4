"""Streams as upstream servers send them, for the tests of everything that reads streams."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def chunk(
    delta: dict[str, Any], finish_reason: str | None = None, **members: Any
) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "up",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        **members,
    }


def text_chunks(*texts: str) -> list[dict[str, Any]]:
    return [chunk({"role": "assistant", "content": ""}), *[chunk({"content": t}) for t in texts]]


def usage_chunk(usage: dict[str, Any] = USAGE) -> dict[str, Any]:
    return chunk({}) | {"choices": [], "usage": usage}


def hello(usage: bool = True) -> list[dict[str, Any]]:
    chunks = [*text_chunks("Hello", " there", " friend"), chunk({}, "stop")]
    return [*chunks, usage_chunk()] if usage else chunks


def frame(data: Any) -> bytes:
    return (
        b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    )


def sse(chunks: Iterable[Any], done: bool = True) -> bytes:
    return b"".join(map(frame, chunks)) + (b"data: [DONE]\n\n" if done else b"")


def data_of(stream: bytes) -> list[Any]:
    """The data of a stream of ours, which is known to have one data line in each event."""
    assert stream == b"" or stream.endswith(b"\n\n")
    lines = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: ")]
    return ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]


def portions(stream: bytes, count: int = 25) -> Iterator[list[bytes]]:
    """The stream at once, in single bytes, and in random portions (the same ones in each run)."""
    yield [stream]
    yield [stream[i : i + 1] for i in range(len(stream))]
    rng = random.Random(len(stream))
    for _ in range(count):
        cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(1, 30)))
        yield [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def drive(make: Callable[[], Any], stream: bytes | list[bytes]) -> tuple[Any, bytes]:
    """A transformer fed with a stream as the relay does it, and all its bytes."""
    transformer = make()
    out = []
    for part in [stream] if isinstance(stream, bytes) else stream:
        out.append(transformer.feed(part))
        if transformer.done:
            break
    out.append(transformer.finish())
    return transformer, b"".join(out)
