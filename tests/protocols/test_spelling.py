"""Members that only some decoders take for ours never travel."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dwctl.protocols.asked import Asked, read, read_alias
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.members import OURS
from dwctl.protocols.surfaces import SURFACES
from tests.gateway import UNKNOWN, UUID

SPELLINGS = {
    "title": str.title,
    "upper": str.upper,
    "long s": lambda name: name.replace("s", "\u017f"),
    "kelvin": lambda name: name.replace("k", "\u212a"),
    "dotless i": lambda name: name.replace("i", "\u0131"),
    "dotted i": lambda name: name.replace("i", "\u0130"),
    "camel": lambda name: name[:1] + name.title().replace("_", "")[1:],
    "dashed": lambda name: name.replace("_", "-"),
    "doubled": lambda name: name.replace("_", "__"),
}
TYPICAL = ["model", "messages", "input", "stream", "stream_options", "service_tier", "background", "store", "metadata", "max_tokens",
           "max_completion_tokens", "max_output_tokens", "prompt", "tools", "tool_choice", "user", "seed", "n", "instructions",
           "previous_response_id", "conversation", "response_format", "temperature"]  # fmt: skip


def sent(path: str, body: bytes) -> Any:
    """What the upstream gets, as its pairs."""
    content = read(body)
    surface = SURFACES[path]
    asked = Asked(surface, body, content, read_alias(content), UUID(UNKNOWN), 1.0, surface.mode(content))  # fmt: skip
    return surface.treat(asked, Disclosure()).request_body("up")


@pytest.mark.parametrize("name", TYPICAL)
def test_what_is_read_is_on_the_list(name: str) -> None:
    assert name in OURS.names


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("path", SURFACES)
def test_no_other_spelling_of_ours_travels(path: str, spelling: str) -> None:
    others = {SPELLINGS[spelling](name) for name in OURS.names} - OURS.names
    assert others
    asked = {"model": "m", "top_k": 1} | dict.fromkeys(others, "evil")
    assert orjson.loads(sent(path, orjson.dumps(asked))) == {"model": "up", "top_k": 1}
    assert set(OURS.misspelt(asked)) == others


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize(
    "twice",
    [b'"store":true,"store":false', b'"store":true,"st\\u006fre":false', b'"store":[1],"store":{},"store":false'],
)  # fmt: skip
def test_of_a_member_that_is_there_twice_the_judged_one_travels(path: str, twice: bytes) -> None:
    body = b'{"model":"a",%b,"model":"m"}' % twice
    assert read(body)["store"] is False
    assert sent(path, body) == b'{"model":"up","store":false}'


@pytest.mark.parametrize(
    "options",
    [
        b'{"include_usage":false,"include_usage":true}',
        b'{"include_usage":true,"include_usage":false}',
        b'{"include_usage":true,"Include_Usage":false}',
        b'{"includeUsage":false}',
        b'{"include_u\\u017fage":false}',
        b"null",
        b"7",
    ],
)
def test_a_stream_is_told_once_to_report_its_usage(options: bytes) -> None:
    body = b'{"model":"m","stream":true,"stream_options":%b}' % options
    assert sent("chat/completions", body) == (
        b'{"model":"up","stream":true,"stream_options":{"include_usage":true}}'
    )


def test_all_else_passes_as_it_came() -> None:
    rest = b'"x":1.00e5,"messages":[{"Role":"user", "Model":"kept"}],"y":123456789012345678901234567890'
    assert sent("chat/completions", b'{"model":"m",%b}' % rest) == b'{"model":"up",%b}' % rest


def test_members_without_end_are_refused() -> None:
    with pytest.raises(Exception, match="more than 10000 members"):
        read(orjson.dumps({f"m{number}": 1 for number in range(10_001)}))
