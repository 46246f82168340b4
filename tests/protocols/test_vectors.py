"""Embeddings are in the format that was asked for, whatever the server thinks of it."""

from __future__ import annotations

import base64
import struct

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwctl.protocols import forms
from dwctl.protocols.answers import parse_answer
from dwctl.protocols.vectors import as_asked

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def listed(*vectors: object) -> bytes:
    return orjson.dumps([{"object": "embedding", "index": n, "embedding": v} for n, v in enumerate(vectors)])  # fmt: skip


@given(st.lists(FLOATS, min_size=1, max_size=4))
def test_numbers_and_base64_become_each_other(vectors: list[list[float]]) -> None:
    numbers, text = listed(*vectors), listed(*(packed(*v) for v in vectors))
    assert orjson.loads(as_asked(numbers, "base64") or b"") == orjson.loads(text)
    for asked in (None, "float"):
        assert orjson.loads(as_asked(text, asked) or b"") == orjson.loads(numbers)
        assert as_asked(numbers, asked) is None
    assert as_asked(text, "base64") is None


@pytest.mark.parametrize(
    ("came", "asked"),
    [
        (listed([0.25]), "int8"),
        (listed([0.25]), ["base64"]),
        (b"[]", "base64"),
        (b"null", "base64"),
        (b'[1,{"embedding":[1]}]', "base64"),
        (b'[{"embedding":[1]}', "base64"),
        (b'[{"vector":[1]}]', "base64"),
    ],
)
def test_what_is_no_list_of_vectors_stays(came: bytes, asked: object) -> None:
    assert as_asked(came, asked) is None


@pytest.mark.parametrize(
    ("vector", "asked"),
    [
        ([[0.25], [0.5]], "base64"),
        (["a"], "base64"),
        ([1e39], "base64"),
        ("no base64!", None),
        ("QUI=", None),
    ],
)
def test_what_is_no_vector_stays_among_the_others(vector: object, asked: str | None) -> None:
    usual = [0.25] if asked else packed(0.25)
    turned = packed(0.25) if asked else [0.25]
    changed = orjson.loads(as_asked(listed(usual, vector), asked) or b"")
    assert [one["embedding"] for one in changed] == [turned, vector]


def test_the_rest_of_an_answer_stays_as_it_is_spelled() -> None:
    raw = b'{"object":"list","data":%b,"usage":{"prompt_tokens":1.0e0},"model":"m"}' % listed(
        [0.25]
    )
    body, content = parse_answer(raw, forms.EMBEDDINGS, None, {"encoding_format": "base64"})
    assert body == raw.replace(b"[0.25]", b'"%b"' % packed(0.25).encode())
    assert content is not None
    assert bytes(content["data"]) == listed(packed(0.25))
