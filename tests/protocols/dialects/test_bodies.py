"""Every recorded complete answer, on chat and on adapted /responses, in every mode, to callers with and without a stream."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.surfaces import EMBEDDINGS
from tests.protocols.dialects import client
from tests.protocols.dialects.bodies import BODIES, NO_ANSWERS
from tests.protocols.dialects.streams import SECRET, Oddity
from tests.protocols.dialects.test_streams import MODES, alike, on_chat, on_responses, treated

modes = pytest.mark.parametrize("disclosure", MODES.values(), ids=MODES)


@modes
@pytest.mark.parametrize("oddity", BODIES.values(), ids=BODIES)
def test_a_chat_client_reads_it(oddity: Oddity, disclosure: Disclosure) -> None:
    treatment = on_chat(disclosure)
    complete = treatment.complete(oddity.stream)
    if disclosure.hides_words:
        assert SECRET.encode() not in complete.body
    if oddity.says.error:
        assert complete.failure
        assert orjson.loads(complete.body)["error"]["message"]
        return
    said = client.chat_answer(complete.body, complete=disclosure.strict)
    alike(said, oddity, disclosure)
    assert complete.usage
    assert (complete.usage.prompt_tokens, complete.usage.completion_tokens) == (9, 3)
    again = client.chat_stream(treatment.replay(complete.body), complete=disclosure.strict)
    assert again == said


@modes
@pytest.mark.parametrize("oddity", BODIES.values(), ids=BODIES)
def test_a_responses_client_reads_it(oddity: Oddity, disclosure: Disclosure) -> None:
    treatment = on_responses(disclosure)
    complete = treatment.complete(oddity.stream)
    assert (complete.failure is None) == (oddity.says.error is None)
    if disclosure.hides_words:
        assert SECRET.encode() not in complete.body
    said = client.response(orjson.loads(complete.body))
    if oddity.says.error:
        assert said.error
        return
    alike(said, oddity, disclosure)
    assert client.response_stream(treatment.replay(complete.body)) == said


@modes
@pytest.mark.parametrize("surface", [on_chat, on_responses])
@pytest.mark.parametrize("raw", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_not_a_whole_answer_is_none(raw: bytes, surface: Any, disclosure: Disclosure) -> None:  # fmt: skip
    with pytest.raises(BadUpstreamBody):
        surface(disclosure).complete(raw)


def test_calls_without_identifiers_get_the_same_ones_wherever_they_are_shown() -> None:
    raw = BODIES["two without ids"].stream
    shown = orjson.loads(on_chat(Disclosure()).complete(raw).body)
    ids = [call["id"] for call in shown["choices"][0]["message"]["tool_calls"]]
    assert len(set(ids)) == 2
    items = orjson.loads(on_responses(Disclosure()).complete(raw).body)["output"]
    assert [item["call_id"] for item in items] == ids


VECTOR = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"model":"up"%b}'
)
EMBEDDED = {
    "as it should be": VECTOR % b',"usage":{"prompt_tokens":9,"total_tokens":9}',
    "a byte order mark": b"\xef\xbb\xbf" + VECTOR % b',"usage":{"prompt_tokens":9,"total_tokens":9}',
    "white space": b"\n " + VECTOR % b',"usage":{"prompt_tokens":9,"total_tokens":9}' + b"\n",
    "usage as texts": VECTOR % b',"usage":{"prompt_tokens":"9","total_tokens":"9"}',
    "only a total": VECTOR % b',"usage":{"total_tokens":9}',
    "an error null": VECTOR % b',"error":null,"usage":{"prompt_tokens":9}',
    "MiniMax is fine": VECTOR % b',"base_resp":{"status_code":0},"usage":{"prompt_tokens":9}',
}  # fmt: skip


@modes
@pytest.mark.parametrize("raw", EMBEDDED.values(), ids=EMBEDDED)
def test_embeddings_are_read(raw: bytes, disclosure: Disclosure) -> None:
    complete = treated(EMBEDDINGS, disclosure, input="Hi").complete(raw)
    assert complete.failure is None
    assert orjson.loads(complete.body)["data"][0]["embedding"] == [0.5]
    assert complete.usage
    assert (complete.usage.prompt_tokens, complete.usage.completion_tokens) == (9, 0)


@modes
@pytest.mark.parametrize(
    "raw",
    [b"{}", b'{"data":null}', b'{"data":{}}', b'{"data":[{"embedding":[0.5', b"<html>", b"[]"],
)
def test_embeddings_that_are_none_are_none(raw: bytes, disclosure: Disclosure) -> None:
    with pytest.raises(BadUpstreamBody):
        treated(EMBEDDINGS, disclosure, input="Hi").complete(raw)
