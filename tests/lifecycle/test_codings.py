"""Compressed requests, through a real process."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import brotli
import orjson
import pytest
import requests
from backports import zstd

from tests.gateway import ADMIN, HELLO, Gateway
from tests.web.test_codings import raw_deflate, streamed_zstd

MEBIBYTE = 1024 * 1024
ENCODERS: dict[str, Any] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": streamed_zstd,
    "identity": bytes,
    "gzip, zstd": lambda body: zstd.compress(gzip.compress(body)),
}
PATHS = ["/chat/completions", "/completions", "/embeddings", "/responses"]


def send(stage: Gateway, path: str, body: bytes, coding: str | None, **headers: str) -> requests.Response:  # fmt: skip
    named = {} if coding is None else {"content-encoding": coding}
    return stage.session.post(
        f"{stage.url}/ai/v1{path}",
        data=body,
        headers=stage.alice.authorization | {"content-type": "application/json"} | named | headers,
        timeout=20,
    )


def asking(stage: Gateway, path: str, **more: Any) -> bytes:
    said = {"messages": HELLO} if path.startswith("/chat") else {"input": "Hi", "prompt": "Hi"}
    if path == "/responses":
        del said["prompt"]
    return orjson.dumps({"model": stage.model("ok"), **said, **more})


@pytest.mark.parametrize("coding", ENCODERS)
@pytest.mark.parametrize("path", PATHS)
def test_a_compressed_request_is_answered(stage: Gateway, path: str, coding: str) -> None:
    stage.upstream.reset()
    answer = send(stage, path, ENCODERS[coding](asking(stage, path)), coding)
    assert answer.status_code == 200, answer.text
    (seen,) = stage.upstream.seen()
    assert "content-encoding" not in seen["headers"]
    assert seen["body"]["model"] == "ok"


@pytest.mark.parametrize("coding", ["compress", "utf-8", "gzip, aws-chunked", "br;q=1"])
def test_another_coding_is_415_and_says_which_are_taken(stage: Gateway, coding: str) -> None:
    answer = send(stage, "/chat/completions", b"x", coding)
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate, br, zstd"
    assert answer.json()["error"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize("spoilt", [lambda body: body[:-3], lambda body: body + b"x", lambda body: b"{}"], ids=["cut", "followed", "not in it"])  # fmt: skip
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, zstd"])
def test_what_is_not_in_its_coding_is_400(stage: Gateway, coding: str, spoilt: Any) -> None:
    body = ENCODERS[coding](asking(stage, "/responses"))
    answer = send(stage, "/responses", spoilt(body), coding)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_encoding"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, zstd"])
@pytest.mark.parametrize("size", [9 * MEBIBYTE, 40 * MEBIBYTE], ids=["ratio", "size"])
def test_what_unfolds_without_end_is_413_and_nothing_stays_held(
    stage: Gateway, coding: str, size: int
) -> None:
    bomb = ENCODERS[coding](b" " * size)
    for _ in range(8):  # together far more than an account may hold
        answer = send(stage, "/chat/completions", bomb, coding)
        assert answer.status_code == 413, answer.text
        assert answer.json()["error"]["code"] == "payload_too_large"
    assert send(stage, "/chat/completions", asking(stage, "/chat/completions"), None).ok


ENCODED: dict[str, tuple[str, str, int]] = {
    "mark": ("utf-8-sig", "application/json", 200),
    "said": ("utf-8", "application/json; charset=UTF-8", 200),
    "ascii by another name": ("ascii", "application/json; charset=iso-8859-1", 200),
    "latin": ("latin-1", "application/json; charset=iso-8859-1", 415),
    "utf-16": ("utf-16", "application/json", 400),
    "utf-16 little": ("utf-16-le", "application/json; charset=utf-16le", 400),
    "utf-32": ("utf-32", "application/json", 400),
    "utf-32 big": ("utf-32-be", "application/json", 400),
}


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("case", ENCODED)
def test_text_is_utf_8(stage: Gateway, case: str, coding: str) -> None:
    charset, kind, status = ENCODED[case]
    text = asking(stage, "/responses", user="e" if charset == "ascii" else "é").decode()
    answer = send(stage, "/responses", ENCODERS[coding](text.encode(charset)), coding, **{"content-type": kind})  # fmt: skip
    assert answer.status_code == status, answer.text
    assert status == 200 or "UTF-8" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [f"{ADMIN}/groups", "/authentication/login"])
def test_other_routes_take_no_coding(stage: Gateway, path: str) -> None:
    answer = stage.session.post(
        stage.url + path,
        data=gzip.compress(b"{}"),
        headers=stage.cast.headers("admin")
        | {"content-type": "application/json", "content-encoding": "gzip"},
        timeout=20,
    )
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["message"]
