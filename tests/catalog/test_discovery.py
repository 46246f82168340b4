import contextlib
import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from requests_mock import Mocker

from dwctl.catalog import discovery
from dwctl.catalog.discovery import DiscoveryFailed, ListedModel, Server, guess_type, list_models
from dwctl.config import Outbound
from dwctl.errors import Invalid
from tests import certificates

URL = "http://models.example/v1"


def listing(*entries: object) -> dict[str, object]:
    return {"object": "list", "data": list(entries)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gpt-4o", "CHAT"),
        ("meta-llama/Llama-3.1-8B-Instruct", "CHAT"),
        ("adapter-7b", "CHAT"),
        ("Canada-chat", "CHAT"),
        ("embedded-coder", "CHAT"),
        ("bgemini", "CHAT"),
        ("text-embedding-ada-002", "EMBEDDINGS"),
        ("text-ada-001", "EMBEDDINGS"),
        ("nomic-embed-text", "EMBEDDINGS"),
        ("Qwen/Qwen3-Embedding-8B", "EMBEDDINGS"),
        ("embeddinggemma-300m", "EMBEDDINGS"),
        ("sentence-transformers/all-MiniLM-L6-v2", "EMBEDDINGS"),
        ("BAAI/bge-m3", "EMBEDDINGS"),
        ("intfloat/e5-large-v2", "EMBEDDINGS"),
        ("BAAI/bge-reranker-v2-m3", "RERANKER"),
        ("cross-encoder/ms-marco-MiniLM", "RERANKER"),
        ("rerank-english-v3.0", "RERANKER"),
    ],
)
def test_the_type_is_guessed_from_word_parts(name: str, kind: str) -> None:
    assert guess_type(name) == kind


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://host.example", "http://host.example/"),
        ("https://host.example/v1", "https://host.example/v1"),
        ("https://host.example/v1/", "https://host.example/v1/"),
        (" http://10.0.0.1:8000/v1 ", "http://10.0.0.1:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/"),
        ("https://host.example/v1?api-version=1#top", "https://host.example/v1?api-version=1"),
    ],
)
def test_a_url_is_kept_as_sent_but_for_a_bare_host(given: str, kept: str) -> None:
    assert discovery.normalise_url(given) == kept


@pytest.mark.parametrize(
    "text",
    ["nonsense", "", "not a url", "/v1", "ftp://host.example", "http://", "http://host:port/", "http://user:pw@host/", "http://host/a b"],
)  # fmt: skip
def test_what_is_no_absolute_http_url_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="Invalid URL format"):
        discovery.normalise_url(text)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        (URL, f"{URL}/models"),
        (URL + "/", f"{URL}/models"),
        ("http://models.example/", "http://models.example/models"),
        (URL + "?version=1", f"{URL}/models?version=1"),
    ],
)
def test_models_are_asked_for_below_the_base_url(
    requests_mock: Mocker, url: str, asked: str
) -> None:
    requests_mock.get(asked, json=listing({"id": "a"}))
    assert list_models(Server(url, None), timeout_s=5) == [ListedModel("a")]
    sent = requests_mock.last_request
    assert sent is not None
    assert sent.url == asked
    assert "Authorization" not in sent.headers


def test_our_credential_goes_where_the_endpoint_wants_it(requests_mock: Mocker) -> None:
    requests_mock.get(f"{URL}/models", json=listing())
    list_models(Server(URL, "secret"), timeout_s=5)
    list_models(Server(URL, "secret", "X-Key", ""), timeout_s=5)
    first, second = (request.headers for request in requests_mock.request_history)
    assert first["Authorization"] == "Bearer secret"
    assert second["X-Key"] == "secret"
    assert "Authorization" not in second


def test_anthropic_is_asked_in_its_own_way(requests_mock: Mocker) -> None:
    requests_mock.get(
        "https://api.anthropic.com/v1/models",
        json={"data": [{"id": "claude", "type": "model", "created_at": "2025-02-19T00:00:00Z"}]},
    )
    found = list_models(Server("https://api.anthropic.com/v1", "secret"), timeout_s=5)
    assert found == [ListedModel("claude", 1739923200, "anthropic")]
    sent = requests_mock.last_request
    assert sent is not None
    assert sent.headers["X-API-Key"] == "secret"
    assert sent.headers["anthropic-version"] == "2023-06-01"
    assert "Authorization" not in sent.headers


def test_a_look_alike_host_is_not_anthropic() -> None:
    assert not Server("https://api.anthropic.com.evil.example/v1", "secret").speaks_anthropic


def test_only_the_id_of_an_entry_is_needed(requests_mock: Mocker) -> None:
    entries = [{"id": "a"}, {"id": "b", "created": 1.5, "owned_by": "me"}, {"id": "a"}, {"id": 7}, {"id": " "}, {"id": "n\x00"}, "c", {}]  # fmt: skip
    requests_mock.get(f"{URL}/models", json=listing(*entries))
    found = list_models(Server(URL, None), timeout_s=5)
    assert found == [ListedModel("a"), ListedModel("b", 1, "me")]


def test_a_bare_array_is_a_list_too(requests_mock: Mocker) -> None:
    requests_mock.get(f"{URL}/models", json=[{"id": "a"}])
    assert list_models(Server(URL, None), timeout_s=5) == [ListedModel("a")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status_code": 401, "text": "bad key"}, "answered 401"),
        ({"status_code": 500, "content": b"\xff"}, "answered 500"),
        ({"status_code": 301, "headers": {"Location": "http://elsewhere/"}}, "answered 301"),
        ({"text": "<html>"}, "did not answer JSON"),
        ({"json": {"models": []}}, "did not answer a list of models"),
        ({"json": {"data": {}}}, "did not answer a list of models"),
        ({"exc": requests.ConnectTimeout}, "did not answer within 5 s"),
        ({"exc": requests.ReadTimeout}, "did not answer within 5 s"),
    ],
)
def test_a_failure_says_why(requests_mock: Mocker, answer: dict[str, object], reason: str) -> None:
    requests_mock.get(f"{URL}/models", **answer)
    with pytest.raises(DiscoveryFailed) as failed:
        list_models(Server(URL + "?key=secret", "secret"), timeout_s=5)
    assert reason in failed.value.message
    for hidden in ("secret", "bad key", "<html>"):
        assert hidden not in failed.value.message
    assert failed.value.status == 502


def test_a_refused_connection_says_so() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(DiscoveryFailed, match="could not be reached: .*refused"):
        list_models(Server(f"http://127.0.0.1:{port}", None), timeout_s=5)


def serve_once(answer: Callable[[socket.socket], None], asked: list[bytes] | None = None) -> str:
    """The URL of a real server that treats one connection so."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            request = connection.recv(65536)
            if asked is not None:
                asked.append(request)
            answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_an_answer_without_an_end_is_cut_off_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_BYTES", 1 << 20)

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                connection.sendall(b" " * 65536)
        except OSError:
            pass

    with pytest.raises(DiscoveryFailed, match="larger than 1 MiB"):
        list_models(Server(serve_once(flood), None), timeout_s=5)


def test_an_answer_that_trickles_is_cut_off_by_time() -> None:
    done = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not done.wait(0.02):
            connection.sendall(b" ")

    try:
        with pytest.raises(DiscoveryFailed, match=r"within 0\.2 s"):
            list_models(Server(serve_once(trickle), None), timeout_s=0.2)
    finally:
        done.set()


@pytest.mark.parametrize(
    ("begin", "forever"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="interim answers"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n", b"x: y\r\n", id="trailers"
        ),
    ],
)  # fmt: skip
def test_a_server_that_never_comes_to_the_point_is_cut_off_by_time(begin: bytes, forever: bytes) -> None:  # fmt: skip
    def flood(connection: socket.socket) -> None:
        connection.sendall(begin)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(forever * 4000)

    with pytest.raises(DiscoveryFailed, match=r"within 0\.2 s"):
        list_models(Server(serve_once(flood), None), timeout_s=0.2)


BODY = json.dumps(listing({"id": "real"})).encode()
ZIPPED = gzip.compress(BODY)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY), id="plain"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:]), id="chunked"),
        pytest.param(b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(ZIPPED), ZIPPED), id="gzip"),
        pytest.param(b"\r\n" + BODY, id="until it closes"),
    ],
)  # fmt: skip
def test_a_real_answer_is_read_in_every_framing(answer: bytes) -> None:
    url = serve_once(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n" + answer))
    assert list_models(Server(url, None), timeout_s=5) == [ListedModel("real")]


def test_neither_proxies_nor_netrc_of_the_environment_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))

    url = serve_once(answer, asked)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password from-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert list_models(Server(url, None), timeout_s=5) == [ListedModel("real")]
    assert b"authorization" not in asked[0].lower()


SAYS_SO = "could not be reached: it closed the connection or does not speak HTTP"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", SAYS_SO, id="breaks off"),
        pytest.param(b"", SAYS_SO, id="closes"),
        pytest.param(b"220 db7.internal ESMTP ready\r\n", SAYS_SO, id="mail"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6 db7.internal\r\n", SAYS_SO, id="ssh"),
        pytest.param(b"HTTP/1.1 db7.internal OK\r\n\r\n", SAYS_SO, id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ndb7.internal\r\n", SAYS_SO, id="no chunk"),
        pytest.param(b"HTTP/1.1 418 db7.internal\r\nContent-Length: 0\r\n\r\n", "answered 418", id="status"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_answer_well_is_not_quoted(said: bytes, reason: str) -> None:
    with pytest.raises(DiscoveryFailed) as failed:
        list_models(Server(serve_once(lambda c: c.sendall(said)), None), timeout_s=5)
    assert failed.value.message.endswith(reason)
    assert "db7" not in failed.value.message


def test_a_plain_server_asked_by_tls_says_so() -> None:
    url = serve_once(lambda c: c.sendall(b"HTTP/1.1 400 db7.internal\r\n\r\n"))
    with pytest.raises(DiscoveryFailed, match="could not be reached: TLS failed") as failed:
        list_models(Server(url.replace("http:", "https:"), None), timeout_s=5)
    assert "db7" not in failed.value.message


def test_a_certificate_that_nobody_vouches_for_says_so(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.for_localhost(tmp_path))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, contextlib.suppress(OSError):
            context.wrap_socket(listener.accept()[0], server_side=True).close()

    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises(DiscoveryFailed, match="its certificate is not valid"):
        list_models(Server(f"https://localhost:{listener.getsockname()[1]}", None), timeout_s=5)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".example", "bad..name.example"])
def test_a_name_that_is_not_there_says_so(host: str) -> None:
    with pytest.raises(DiscoveryFailed, match="could not be reached: its name cannot be resolved"):
        list_models(Server(f"http://{host}/v1", None), timeout_s=5)


@pytest.mark.parametrize(
    ("reach", "host"),
    [("public", "127.0.0.1"), ("public", "localhost"), ("public", "10.0.0.1"), ("private", "169.254.169.254"), ("private", "[fd00:ec2::254]"), ("public", "0.0.0.0"), ("private", "224.0.0.1")],
)  # fmt: skip
def test_an_address_that_may_not_be_called_says_so(reach: str, host: str) -> None:
    with pytest.raises(DiscoveryFailed, match=f"may not be called: outbound.endpoints is '{reach}'") as failed:  # fmt: skip
        list_models(Server(f"http://{host}/v1", None), timeout_s=5, outbound=Outbound(reach))
    assert not failed.value.retryable
