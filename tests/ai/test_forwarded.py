"""Routes that the gateway knows nothing of, in open mode: handed on with model, key, limits and record, bytes untouched."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
import requests

from tests.cast import Cast
from tests.gateway import PRICE, UPSTREAM_KEY, Gateway, Json, assert_openai_error, cost
from tests.processes import Service, eventually

AUDIO = bytes(range(256)) * 64
go_on = threading.Event()


class Inference(BaseHTTPRequestHandler):
    """Says what it was asked, or what its path stands for."""

    protocol_version = "HTTP/1.1"
    asked: list[Json] = []

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        seen = {
            "method": self.command,
            "path": self.path,
            "headers": {k.lower(): v for k, v in self.headers.items()},
            "body": body,
        }
        self.asked.append(seen)
        name = self.path.partition("?")[0].rpartition("/")[2]
        getattr(self, f"say_{name}", self.say_json)()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET

    def answer(self, status: int, content_type: str | None, body: bytes, **headers: str) -> None:
        self.send_response(status)
        if content_type:
            self.send_header("content-type", content_type)
        for header, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def say_json(self) -> None:
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        self.answer(200, "application/json", orjson.dumps({"data": [1, 2.50], "usage": usage}))

    def say_score(self) -> None:
        self.answer(200, "application/json", b'{"results":[],"usage":{"total_tokens":12}}')

    def say_busy(self) -> None:
        said = b'{"error":{"message":"busy"},"usage":{"total_tokens":12}}'
        self.answer(200, "application/json", said)

    def say_created(self) -> None:
        self.answer(201, "application/json", b'{"id":1}')

    def say_ranks(self) -> None:
        self.answer(200, "application/json", b'[{"index":0,"score":0.5}]')

    def say_done(self) -> None:
        self.answer(200, "application/json", b"")

    def say_nothing(self) -> None:
        self.answer(204, None, b"")

    def say_speech(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "audio/mpeg")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("set-cookie", "upstream=1")
        self.end_headers()
        for piece in (AUDIO[:100], AUDIO[100:]):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
            go_on.wait(10)
        self.wfile.write(b"0\r\n\r\n")

    def say_cut(self) -> None:
        self.answer(200, "audio/mpeg", AUDIO, **{"content-length": str(2 * len(AUDIO))})
        self.close_connection = True

    def say_cutjson(self) -> None:
        self.answer(200, "application/json", b'{"a":', **{"content-length": "100"})
        self.close_connection = True

    def say_messages(self) -> None:
        events = [
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 9, "output_tokens": 1}},
            },
            {"type": "content_block_delta", "delta": {"text": "Hello"}},
            {"type": "message_delta", "usage": {"output_tokens": 3}},
        ]
        said = b"".join(
            f"event: {e['type']}\n".encode() + b"data: " + orjson.dumps(e) + b"\n\n" for e in events
        )
        self.answer(200, "text/event-stream", said)

    def say_silent(self) -> None:
        event = b'data: {"type":"content_block_delta","delta":{"text":"' + b"word " * 8 + b'"}}\n\n'
        self.answer(200, "text/event-stream", event)

    def say_long(self) -> None:
        begin = b'data: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n'
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(begin)
        self.wfile.write(b'data: {"delta":{"thinking":"' + b"word " * 8 + b'"}}\n\n')
        self.wfile.flush()
        go_on.wait(10)
        self.close_connection = True

    def say_page(self) -> None:
        self.answer(200, "text/html", b"<script>alert(1)</script>")

    def say_elsewhere(self) -> None:
        self.answer(307, None, b"", location="/v1/rerank")

    def say_wrong(self) -> None:
        self.answer(422, "application/json", b'{"error":{"message":"no such voice"}}')

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def inference() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Inference)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_LIMITS__REQUESTS__MAX_FILE_BODY_SIZE": str(12 * 1024 * 1024)}


@pytest.fixture(scope="module")
def model(stage: Gateway, inference: str, nothing_fell_over: None) -> str:
    return stage.model("theirs", alias="ours", endpoint=stage.endpoint(inference))


@pytest.fixture(autouse=True)
def fresh() -> None:
    Inference.asked.clear()
    go_on.set()


def call(
    stage: Gateway, method: str, path: str, body: Any = None, **more: Any
) -> requests.Response:
    headers = stage.alice.authorization | more.pop("headers", {})
    content = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
    if content is not None and not isinstance(body, bytes):
        headers["content-type"] = "application/json"
    url = f"{more.pop('url', stage.url)}/ai/v1/{path}"
    return stage.session.request(method, url, data=content, headers=headers, timeout=20, **more)


def test_json_is_handed_on_with_the_upstreams_name_and_charged_by_its_usage(
    stage: Gateway, model: str
) -> None:
    raw = b'{ "documents" : [1.50, 12345678901234567890123], "model":"ours", "x": "\xc3\xa9" }'
    answer = call(
        stage, "POST", "rerank?top=2&q=%20", raw, headers={"content-type": "application/json; charset=utf-8", "accept": "x/y", "cookie": "a=b"}
    )  # fmt: skip
    assert answer.status_code == 200
    assert answer.content == b'{"data":[1,2.5],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}'  # fmt: skip
    (seen,) = Inference.asked
    assert (seen["method"], seen["path"]) == ("POST", "/v1/rerank?top=2&q=%20")
    assert seen["body"] == raw.replace(b'"ours"', b'"theirs"').replace(b'{ "d', b'{"d').replace(
        b'" : [', b'":['
    ).replace(b'], "', b'],"').replace(b'"x": ', b'"x":').replace(b', "x"', b',"x"').replace(b" }", b"}")  # fmt: skip
    assert seen["headers"]["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert seen["headers"]["accept"] == "x/y"
    assert "cookie" not in seen["headers"]
    left = eventually(lambda: (found := stage.left(answer)).logs and found)
    (log,) = left.logs
    assert (log.method, log.uri, log.model, log.status_code) == ("POST", "/rerank?top=2&q=%20", "ours", 200)  # fmt: skip
    assert (log.prompt_tokens, log.completion_tokens) == (9, 3)
    assert [charge.amount for charge in left.charges] == [cost(PRICE)]
    assert left.request is None


@pytest.mark.parametrize("is_pool", [False, True], ids=["standard", "composite"])
@pytest.mark.parametrize(
    ("path", "body"), [("ranks", b'[{"index":0,"score":0.5}]'), ("done", b""), ("created", b'{"id":1}')]
)  # fmt: skip
def test_an_answer_need_not_be_an_object(
    stage: Gateway, model: str, path: str, body: bytes, is_pool: bool
) -> None:
    called = stage.composite(model) if is_pool else model
    answer = call(stage, "POST", f"things/{path}", {"model": called})
    assert (answer.ok, answer.content) == (True, body)
    assert answer.headers["content-type"] == "application/json"
    assert len(Inference.asked) == 1


def test_a_form_is_handed_on_with_its_file_untouched(stage: Gateway, model: str) -> None:
    files = {"file": ("a.mp3", AUDIO, "audio/mpeg"), "model": (None, "ours"), "language": (None, "nb")}  # fmt: skip
    answer = call(stage, "POST", "audio/transcriptions", files=files)
    assert answer.status_code == 200, answer.text
    (seen,) = Inference.asked
    assert AUDIO in seen["body"]
    assert b'name="model"\r\n\r\ntheirs\r\n' in seen["body"]
    assert b"ours" not in seen["body"]
    assert seen["headers"]["content-type"].startswith("multipart/form-data; boundary=")


def test_bytes_pass_piece_by_piece_under_their_own_name(stage: Gateway, model: str) -> None:
    go_on.clear()
    answer = call(stage, "POST", "audio/speech", {"model": model, "input": "hi"}, stream=True)
    assert answer.headers["content-type"] == "audio/mpeg"
    assert "set-cookie" not in answer.headers
    pieces = answer.iter_content(100)
    first = next(pieces)
    assert first == AUDIO[:100]
    go_on.set()
    assert first + b"".join(pieces) == AUDIO
    left = eventually(lambda: (found := stage.left(answer)).logs and found)
    assert (left.logs[0].status_code, left.charges) == (200, [])


def test_a_total_alone_is_charged_as_the_prompt(stage: Gateway, model: str) -> None:
    """What rerankers say, which write nothing."""
    answer = call(stage, "POST", "score", {"model": model, "query": "x"})
    left = eventually(lambda: (found := stage.left(answer)).charges and found)
    assert (left.logs[0].prompt_tokens, left.logs[0].completion_tokens) == (12, 0)
    assert left.charges[0].amount == cost(PRICE, 12, 0)


def test_an_error_is_charged_nothing_whatever_its_status(stage: Gateway, model: str) -> None:
    answer = call(stage, "POST", "busy", {"model": model, "query": "x"})
    assert (answer.status_code, answer.json()["error"]) == (200, {"message": "busy"})
    left = eventually(lambda: (found := stage.left(answer)).logs and found)
    assert (left.logs[0].usage_source, left.charges) == ("none", [])


def test_the_playground_hands_on_as_well(stage: Gateway, model: str) -> None:
    tunnel = f"{stage.url}/admin/api/v1/ai/v1"

    def ask(path: str) -> requests.Response:
        body = {"model": model, "query": "x"}
        return requests.post(f"{tunnel}/{path}", json=body, headers=stage.alice.session, timeout=20)

    answer = ask("score")
    assert answer.status_code == 200, answer.text
    left = eventually(lambda: (found := stage.left(answer)).charges and found)
    assert left.logs[0].access_source == "playground"
    assert left.charges[0].amount == cost(PRICE, 12, 0)
    Inference.asked.clear()
    assert_openai_error(ask("files"), 404, "not_found")
    assert not Inference.asked


def test_an_answer_that_is_cut_is_seen_to_be_cut(stage: Gateway, model: str) -> None:
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = call(stage, "POST", "audio/cut", {"model": model}).content
    assert_openai_error(call(stage, "POST", "audio/cutjson", {"model": model}), 502)


def test_events_pass_and_their_usage_is_charged(stage: Gateway, model: str) -> None:
    answer = call(stage, "POST", "messages", {"model": model, "stream": True, "max_tokens": 5})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.content.count(b"event: ") == 3
    left = eventually(lambda: (found := stage.left(answer)).charges and found)
    assert left.charges[0].amount == cost(PRICE)


def test_events_without_usage_are_charged_by_an_estimate(stage: Gateway, model: str) -> None:
    answer = call(stage, "POST", "things/silent", {"model": model, "messages": [{"content": "x" * 40}]})  # fmt: skip
    assert answer.status_code == 200
    left = eventually(lambda: (found := stage.left(answer)).charges and found)
    (log,) = left.logs
    assert (log.prompt_tokens, log.completion_tokens, log.usage_source) == (10, 10, "estimated")


def test_who_hangs_up_before_the_usage_pays_what_was_written(stage: Gateway, model: str) -> None:
    go_on.clear()
    answer = call(stage, "POST", "things/long", {"model": model}, stream=True)
    read = b""
    for piece in answer.iter_content(10):
        read += piece
        if b"thinking" in read:
            break
    answer.close()
    left = eventually(lambda: (found := stage.left(answer)).charges and found)
    go_on.set()
    (log,) = left.logs
    assert (log.prompt_tokens, log.completion_tokens, log.usage_source) == (9, 11, "estimated")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "voices?page=2", None, 200),
        ("HEAD", "voices", None, 200),
        ("PUT", "things/created", b"\x00\xff raw", 201),
        ("DELETE", "things/nothing", None, 204),
        ("PATCH", "things/7%2f8/caf%c3%a9", b"x=1", 200),
    ],
)
def test_any_method_goes_with_a_model_named_by_header(
    stage: Gateway, model: str, method: str, path: str, body: bytes | None, status: int
) -> None:
    answer = call(stage, method, path, body, headers={"Model-Override": "ours"})
    assert answer.status_code == status
    (seen,) = Inference.asked
    assert seen["method"] == method
    assert seen["body"] == (body or b"")
    assert "model-override" not in seen["headers"]
    if "%" not in path:
        assert seen["path"] == f"/v1/{path}"


REFUSED = [
    ({"no": "model"}, 400, "missing_required_parameter", "model"),
    ({"model": 7}, 400, "invalid_type", "model"),
    (b"[1]", 400, "invalid_json", None),
    (b"{", 400, "invalid_json", None),
    (b"", 400, "missing_required_parameter", "model"),
    ({"model": "nobody's"}, 404, "model_not_found", None),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), REFUSED)
def test_what_names_no_model_that_is_there_is_refused(
    stage: Gateway, model: str, body: Any, status: int, code: str, param: str | None
) -> None:
    headers = {"content-type": "application/json"}
    answer = call(stage, "POST", "rerank", body, headers=headers)
    assert assert_openai_error(answer, status, code)["param"] == param
    assert not Inference.asked


HIDDEN = [
    ("rerank?model=dear", b'{"model":"ours"}', "application/json"),
    ("rerank?a=b&m%6fdel=dear", b'{"model":"ours"}', "application/json"),
    ("listen?model=dear", b"RIFF", "audio/wav"),
    ("rerank", b"a=b&model=dear", "application/x-www-form-urlencoded"),
    ("rerank", b"\xef\xbb\xbf{\"model\":\"dear\"}", "text/plain"),
    ("rerank", b'{"model":"dear"} trailing', "application/octet-stream"),
    ("rerank", b'\xff\xfe{\0"\0m\0', "image/png"),
    ("audio/transcriptions", b"--X\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\ndear\r\n--X--", "multipart/form-data; boundary=X"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "kind"), HIDDEN, ids=range(len(HIDDEN)))
def test_no_model_hides_where_only_the_server_looks(
    stage: Gateway, model: str, path: str, body: bytes, kind: str
) -> None:
    headers = {"Model-Override": "ours", "content-type": kind}
    answer = call(stage, "POST", path, body, headers=headers)
    assert_openai_error(answer, 400)
    assert not Inference.asked


@pytest.mark.parametrize("kind", ["image/png", "text/json", "application/x-ndjson", "text/plain"])
def test_what_looks_like_json_is_read_as_json(stage: Gateway, model: str, kind: str) -> None:
    headers = {"Model-Override": "ours", "content-type": kind}
    answer = call(stage, "POST", "rerank", b' {"Model":"dear","MODEL":"dear","model":"dear"}', headers=headers)  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert Inference.asked[0]["body"] == b'{"model":"theirs"}'


def test_sound_that_begins_like_json_is_sound(stage: Gateway, model: str) -> None:
    headers = {"Model-Override": "ours", "content-type": "audio/l16"}
    answer = call(stage, "POST", "listen", b"{\x80" + AUDIO, headers=headers)
    assert answer.status_code == 200, answer.text
    assert Inference.asked[0]["body"] == b"{\x80" + AUDIO


def test_forms_and_bytes_without_a_model_are_refused(stage: Gateway, model: str) -> None:
    form = call(stage, "POST", "images/edits", files={"image": ("a.png", b"x")})
    assert_openai_error(form, 400, "missing_required_parameter")
    broken = call(stage, "POST", "images/edits", b"--X", headers={"content-type": "multipart/form-data; boundary=X"})  # fmt: skip
    assert_openai_error(broken, 400, "invalid_form")
    assert_openai_error(call(stage, "POST", "images/edits", b"\x00\x01"), 400)
    assert_openai_error(call(stage, "GET", "anything"), 400)
    assert not Inference.asked


def test_who_may_not_is_refused_before_anything_goes_on(stage: Gateway, model: str) -> None:
    nobody = call(stage, "POST", "rerank", {"model": model}, headers={"Authorization": "Bearer x"})
    assert_openai_error(nobody, 401)
    poor = stage.account(None)
    broke = call(stage, "POST", "rerank", {"model": model}, headers=poor.authorization)
    assert_openai_error(broke, 402)
    stranger = call(stage, "POST", "rerank", {"model": stage.model("hidden", everyone=False, alias="hidden")})  # fmt: skip
    assert stranger.status_code in (403, 404)
    kept = call(stage, "POST", "rerank", {"model": model}, headers={"Idempotency-Key": "k"})
    assert_openai_error(kept, 400, "idempotency_not_supported")
    assert not Inference.asked


@pytest.mark.parametrize("path", ["files", "batches/1", "models/x/y", "responses/a/b", "fine_tuning/jobs", "chat/completions/x", "v1/files", "V1/Files/1", "v1/chat/completions", "engines/x/completions"])  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_what_a_provider_keeps_for_its_account_is_not_reached(
    stage: Gateway, model: str, path: str, method: str
) -> None:
    answer = call(stage, method, path, {"model": model}, headers={"Model-Override": "ours"})
    # Files and batches have routes of their own, which refuse this.
    assert answer.status_code in (400, 404, 405)
    assert not Inference.asked


@pytest.mark.parametrize("path", ["a/../models", "a/%2e%2e/files", "./x", "a//b", "a/%2e/b"])
def test_no_path_leads_out(stage: Gateway, model: str, path: str) -> None:
    sent = requests.Request("POST", stage.url, json={"model": model}, headers=stage.alice.authorization).prepare()  # fmt: skip
    sent.url = f"{stage.url}/ai/v1/{path}"
    assert requests.Session().send(sent, timeout=10).status_code in (400, 404)
    assert not Inference.asked


def test_errors_redirects_and_pages(stage: Gateway, model: str) -> None:
    wrong = call(stage, "POST", "things/wrong", {"model": model})
    assert wrong.status_code == 422
    assert "no such voice" in wrong.text
    assert_openai_error(call(stage, "POST", "things/elsewhere", {"model": model}), 502)
    page = call(stage, "POST", "things/page", {"model": model})
    assert page.headers["content-type"].startswith("text/plain")
    assert [seen["path"] for seen in Inference.asked] == ["/v1/things/wrong", "/v1/things/elsewhere", "/v1/things/page"]  # fmt: skip


def test_bodies_are_bounded_and_may_come_packed(stage: Gateway, model: str) -> None:
    headers = {"Model-Override": "ours", "content-type": "audio/wav"}
    large = call(stage, "POST", "audio/raw", b"x" * (11 * 1024 * 1024), headers=headers)
    assert large.status_code == 200
    assert len(Inference.asked[0]["body"]) == 11 * 1024 * 1024
    assert_openai_error(call(stage, "POST", "audio/raw", b"x" * (13 * 1024 * 1024), headers=headers), 413)  # fmt: skip
    packed = gzip.compress(orjson.dumps({"model": "ours"}))
    answer = call(stage, "POST", "rerank", packed, headers={"content-type": "application/json", "content-encoding": "gzip"})  # fmt: skip
    assert answer.status_code == 200
    assert Inference.asked[1]["body"] == b'{"model":"theirs"}'


def test_strict_mode_knows_none_of_it(
    stage: Gateway, model: str, environ: dict[str, str], cast: Cast
) -> None:
    with Service(environ) as strict:
        web = strict.start_web(DWCTL_ONWARDS__STRICT_MODE="true")
        answer = call(stage, "POST", "rerank", {"model": model}, url=web.url)
        assert_openai_error(answer, 404, "not_found")
    assert not Inference.asked
