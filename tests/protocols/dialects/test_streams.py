"""Every recorded stream, on every surface that speaks chat to its upstream, in every mode, in one piece and in single bytes, streamed and
put together for a caller that did not ask for a stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest

from dwctl.protocols.asked import Asked
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.surfaces import CHAT, RESPONSES, Surface
from dwctl.protocols.treatments import Treatment
from tests.protocols.dialects import client
from tests.protocols.dialects.client import Said
from tests.protocols.dialects.streams import ALL, SECRET, Oddity

ID = UUID(int=7)
MODES = {
    "strict": Disclosure(strict=True),
    "strict, trusted": Disclosure(strict=True, trusted=True),
    "open": Disclosure(),
    "open, trusted": Disclosure(trusted=True),
    "sanitised": Disclosure(sanitise=True),
}
ERRORS_OF_OURS = {"upstream_error", "internal_error"}


def treated(surface: Surface, disclosure: Disclosure, **content: Any) -> Treatment:
    given = {"model": "m", "stream": True, **content}
    asked = Asked(surface, orjson.dumps(given), given, "m", ID, 100.5, surface.mode(given))
    return surface.treat(asked, disclosure, adapted=True)


def on_chat(disclosure: Disclosure) -> Treatment:
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    return treated(CHAT, disclosure, **asked, stream_options={"include_usage": True})


def on_responses(disclosure: Disclosure) -> Treatment:
    return treated(RESPONSES, disclosure, input="Hi")


def streamed(treatment: Treatment, pieces: list[bytes]) -> tuple[bytes, Any]:
    stream = treatment.stream()
    out = []
    for piece in pieces:
        out.append(stream.feed(piece))
        if stream.done:
            break
    out.append(stream.finish())
    return b"".join(out), stream


def in_portions(stream: bytes, disclosure: Disclosure) -> list[list[bytes]]:
    """In one piece and in lines; in single bytes in one mode: taking a stream apart knows no modes."""
    single = [[stream[i : i + 1] for i in range(len(stream))]] if disclosure.trusted else []
    return [[stream], stream.splitlines(True), *single]


def alike(said: Said, oddity: Oddity, disclosure: Disclosure, **exceptions: Any) -> None:
    """The error's code is the upstream's own where its words are quoted; that there is one must be said in every mode."""
    expected = replace(oddity.says, **exceptions)
    if expected.error:
        assert said.error
        if disclosure.hides_words and not disclosure.sanitise and expected.error not in ERRORS_OF_OURS:  # fmt: skip
            assert said.error == expected.error
        said = replace(said, error=expected.error, reason=None, usage=None)
        expected = replace(expected, reason=None, usage=None)
    assert said == expected


@pytest.mark.parametrize("disclosure", MODES.values(), ids=MODES)
@pytest.mark.parametrize("oddity", ALL.values(), ids=ALL)
def test_a_chat_client_reads_it(oddity: Oddity, disclosure: Disclosure) -> None:
    late = oddity is ALL["usage: behind the end marker"]
    for pieces in in_portions(oddity.stream, disclosure):
        out, stream = streamed(on_chat(disclosure), pieces)
        said = client.chat_stream(out, complete=disclosure.strict)
        if late and len(pieces) > 1:
            said = replace(said, usage=(9, 3))
        alike(said, oddity, disclosure)
        if disclosure.hides_words:
            assert SECRET.encode() not in out
        assert (stream.error is None) == (oddity.says.error is None)
        if not oddity.says.error and not (late and len(pieces) > 1):
            used = stream.settle()
            assert (used.prompt_tokens, used.completion_tokens) == (9, 3)
        if not oddity.says.error:
            stored = client.chat_answer(orjson.dumps(stream.assembled()), complete=False)
            assert (stored.text, stored.calls) == (said.text, said.calls)


@pytest.mark.parametrize("disclosure", MODES.values(), ids=MODES)
@pytest.mark.parametrize("oddity", ALL.values(), ids=ALL)
def test_a_responses_client_reads_it(oddity: Oddity, disclosure: Disclosure) -> None:
    late = oddity is ALL["usage: behind the end marker"]
    for pieces in in_portions(oddity.stream, disclosure):
        out, stream = streamed(on_responses(disclosure), pieces)
        said = client.response_stream(out)
        if late and len(pieces) > 1:
            said = replace(said, usage=(9, 3))
        calls = "tool_calls" if oddity.says.calls else "stop"
        exceptions = {"usage": (9, 3)} if oddity.says.usage == (0, 0) else {}
        alike(said, oddity, disclosure, reason=oddity.says.reason or calls, **exceptions)
        if disclosure.hides_words:
            assert SECRET.encode() not in out
        assert (stream.error is None) == (oddity.says.error is None)


@pytest.mark.parametrize("disclosure", MODES.values(), ids=MODES)
@pytest.mark.parametrize("surface", [on_chat, on_responses])
@pytest.mark.parametrize("oddity", ALL.values(), ids=ALL)
def test_a_caller_who_wanted_no_stream_gets_the_answer(oddity: Oddity, surface: Any, disclosure: Disclosure) -> None:  # fmt: skip
    complete = surface(disclosure).from_stream(oddity.stream)
    assert (complete.failure is None) == (oddity.says.error is None)
    if complete.failure:
        return
    if surface is on_chat:
        said = client.chat_answer(complete.body, complete=disclosure.strict and bool(oddity.says.reason))  # fmt: skip
    else:
        said = client.response(orjson.loads(complete.body))
    calls = "tool_calls" if oddity.says.calls else "stop"
    alike(said, oddity, disclosure, usage=(9, 3), reason=oddity.says.reason or (calls if surface is on_responses else None))  # fmt: skip
