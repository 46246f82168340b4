"""The client against real servers: `tests.fake_upstream` in its own process, and scripted ones for odd bytes."""

import contextlib
import gc
import json
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import gevent.pool
import pytest
from gevent import socket
from gevent.server import StreamServer

from dwctl.upstream.client import UpstreamClient, UpstreamResponse
from dwctl.upstream.connections import Connection, default_tls_context
from dwctl.upstream.errors import (
    BadResponse,
    ConnectionFailed,
    Phase,
    ResponseTooLarge,
    Timeout,
    UpstreamError,
)
from dwctl.upstream.target import Target, Timeouts
from tests.certificates import for_localhost
from tests.fake_upstream import FakeUpstream

MEGABYTE = 1 << 20


@pytest.fixture
def client() -> Iterator[UpstreamClient]:
    client = UpstreamClient()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _forget(upstream: FakeUpstream) -> None:
    upstream.reset()


def make_target(base_url: str, **timeouts: float) -> Target:
    return Target(
        base_url=base_url,
        model_name="m",
        auth_header=("authorization", "Bearer sk-ours"),
        timeouts=Timeouts(**{"connect_s": 5, "first_byte_s": 5, "idle_s": 5, **timeouts}),
        endpoint_id=uuid.uuid4(),
        endpoint_name="server",
        trusted=False,
    )


def call(
    client: UpstreamClient, base_url: str, model: str, *, stream: bool = False, **timeouts: float
) -> UpstreamResponse:
    body = json.dumps(
        {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    )
    headers = [("content-type", "application/json")]
    target = make_target(base_url, **timeouts)
    return client.send(target, "/chat/completions", body.encode(), headers)


def away(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do something that blocks, while this thread's greenlets go on."""
    return gevent.get_hub().threadpool.apply(work, arguments)


@contextmanager
def scripted(*scripts: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers its first request with the first script, and so on, whatever is asked.

    None closes the connection instead; so does the end of the scripts. Gives its URL and the heads received.
    """
    left = list(scripts)
    heads: list[bytes] = []

    def serve(sock: socket.socket, _address: object) -> None:
        while head := sock.recv(MEGABYTE):
            heads.append(head)
            script = left.pop(0) if left else None
            if script is None:
                break
            sock.sendall(script)
            if not left:
                break

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heads
    finally:
        server.stop()


# -- what is sent, what comes back -----------------------------------------------------------------


def test_a_call_arrives_once_with_our_credential(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    answer = call(client, upstream.url, "ok")
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id") == "up-1"
    assert answer.header("missing") is None
    assert (
        json.loads(answer.read(MEGABYTE))["choices"][0]["message"]["content"]
        == "Hello there friend"
    )

    (seen,) = upstream.seen()
    assert (seen["method"], seen["path"]) == ("POST", "/v1/chat/completions")
    assert seen["body"]["model"] == "ok"
    assert seen["headers"] == {
        "host": f"127.0.0.1:{upstream.port}",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-ours",
        "content-type": "application/json",
        "content-length": str(len(seen["raw"])),
    }


def test_a_get_has_neither_body_nor_length(client: UpstreamClient, upstream: FakeUpstream) -> None:
    answer = client.send(make_target(upstream.url), "/models?limit=1", b"", [], method="GET")
    assert json.loads(answer.read(MEGABYTE))["object"] == "list"
    (seen,) = upstream.seen()
    assert (seen["method"], seen["path"]) == ("GET", "/v1/models?limit=1")
    assert "content-length" not in seen["headers"]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_error_status_is_an_answer(
    client: UpstreamClient, upstream: FakeUpstream, status: int
) -> None:
    answer = call(client, upstream.url, f"fail-{status}")
    assert answer.status == status
    assert b"upstream says" in answer.read(MEGABYTE)


def test_redirects_are_not_followed(client: UpstreamClient, upstream: FakeUpstream) -> None:
    moved = f"HTTP/1.1 302 Found\r\nlocation: {upstream.url}/models\r\ncontent-length: 0\r\n\r\n"
    with scripted(moved.encode()) as (url, _):
        assert call(client, url, "ok").status == 302
    assert upstream.seen() == []


def test_proxies_from_the_environment_are_not_used(
    client: UpstreamClient, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert call(client, upstream.url, "ok").status == 200


def test_large_bodies_pass_in_both_directions(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    text = "é" * 3_000_000
    body = json.dumps(
        {"model": "big-3000", "messages": [], "user": text}, ensure_ascii=False
    ).encode()
    answer = client.send(make_target(upstream.url), "/chat/completions", body, [])
    content = json.loads(answer.read(4 * MEGABYTE))["choices"][0]["message"]["content"]
    assert len(content) == 3000 * 1024
    assert upstream.seen()[0]["body"]["user"] == text


@pytest.mark.parametrize("header", [("a", "b\r\nc: d"), ("a\n", "b"), ("a", "b\n")])
def test_a_header_cannot_smuggle_another(client: UpstreamClient, header: tuple[str, str]) -> None:
    with pytest.raises(ValueError):
        client.send(make_target("http://127.0.0.1:1"), "/", b"", [header])


# -- kinds of bodies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["ok", "until-close", "close", "interim", "gzip", "deflate", "big-200"]
)
def test_every_kind_of_body_is_read_whole(
    client: UpstreamClient, upstream: FakeUpstream, kind: str
) -> None:
    answer = call(client, upstream.url, kind)
    assert answer.status == 200
    assert json.loads(answer.read(MEGABYTE))["usage"]["total_tokens"] == 12


@pytest.mark.parametrize(
    "kind", ["ok", "joined", "bytewise", "split-utf8", "until-close", "crlf", "gzip"]
)
def test_every_kind_of_stream_is_read_to_its_end(
    client: UpstreamClient, upstream: FakeUpstream, kind: str
) -> None:
    pieces = list(call(client, upstream.url, kind, stream=True))
    assert all(pieces)
    assert b"".join(pieces).strip().endswith(b"data: [DONE]")


@pytest.mark.parametrize(
    ("method", "status"),
    [("HEAD", "200 OK"), ("POST", "204 No Content"), ("GET", "304 Not Modified")],
)
def test_answers_without_a_body_end_with_their_head(
    client: UpstreamClient, method: str, status: str
) -> None:
    head = f"HTTP/1.1 {status}\r\ncontent-length: 10\r\n\r\n".encode()
    with scripted(head, head) as (url, _):
        for _ in range(2):
            answer = client.send(make_target(url), "/", b"", [], method=method)
            assert answer.read(MEGABYTE) == b""
    assert client.idle_connections <= 1


def test_pieces_come_out_as_they_arrive(client: UpstreamClient, upstream: FakeUpstream) -> None:
    pieces = call(client, upstream.url, "hold-stream", stream=True).chunks()
    first = next(pieces)
    assert first.startswith(b"data: ")
    assert upstream.active()["active"] == 1
    upstream.release()
    assert b"".join(pieces).endswith(b"[DONE]\n\n")


def test_many_calls_wait_at_the_same_time(client: UpstreamClient, upstream: FakeUpstream) -> None:
    calls = [gevent.spawn(call, client, upstream.url, "hold") for _ in range(20)]
    state = away(upstream.wait_active, 20)
    upstream.release()
    assert [done.get().status for done in calls] == [200] * 20
    assert state["active"] == 20


# -- connections -----------------------------------------------------------------------------------


def test_a_connection_is_used_again(client: UpstreamClient, upstream: FakeUpstream) -> None:
    for model in ("ok", "fail-500", "interim", "gzip"):
        call(client, upstream.url, model).read(MEGABYTE)
        list(call(client, upstream.url, model, stream=True))
        assert client.idle_connections == 1
    assert len({seen["connection"] for seen in upstream.seen()}) == 1


def test_a_connection_goes_back_when_the_body_is_complete(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    answer = call(client, upstream.url, "hold-stream")
    assert client.idle_connections == 0
    upstream.release()
    pieces = answer.chunks()
    while client.idle_connections == 0:
        assert next(pieces)
    assert list(pieces) == []
    answer.close()
    assert client.idle_connections == 1


@pytest.mark.parametrize("model", ["close", "until-close"])
def test_a_connection_that_the_upstream_ends_is_not_kept(
    client: UpstreamClient, upstream: FakeUpstream, model: str
) -> None:
    call(client, upstream.url, model).read(MEGABYTE)
    assert client.idle_connections == 0


def test_a_connection_with_bytes_nobody_asked_for_is_not_kept(client: UpstreamClient) -> None:
    with scripted(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", b"") as (url, _):
        assert call(client, url, "ok").read(10) == b"a"
    assert client.idle_connections == 0


def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(client: UpstreamClient) -> None:
    connections: list[socket.socket] = []

    def serve_once(sock: socket.socket, _address: object) -> None:
        connections.append(sock)
        sock.recv(MEGABYTE)
        sock.sendall(EMPTY)

    server = StreamServer(("127.0.0.1", 0), serve_once)
    server.start()
    try:
        for _ in range(3):
            assert call(client, f"http://127.0.0.1:{server.server_port}", "ok").status == 200
            assert client.idle_connections == 1
            while not connections[-1].closed:
                gevent.sleep(0.001)
        assert len(connections) == 3
    finally:
        server.stop()


@pytest.fixture
def closing_before_the_request(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is in it runs between the look at a kept connection and the sending: the moment in which nobody else can."""
    closings: list[Callable[[], None]] = []
    take_up = Connection.take_up

    def take_up_and_close(self: Connection) -> bool:
        usable = take_up(self)
        for close in closings:
            close()
        return usable

    monkeypatch.setattr(Connection, "take_up", take_up_and_close)
    return closings


EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("size", [10, 3 * MEGABYTE])
def test_a_request_that_the_other_side_had_closed_before_is_sent_once_more(
    client: UpstreamClient, closing_before_the_request: list[Callable[[], None]], size: int
) -> None:
    heads: list[bytes] = []
    open_now: list[socket.socket] = []

    def serve(sock: socket.socket, _address: object) -> None:
        open_now.append(sock)
        with contextlib.suppress(OSError):
            heads.append(sock.recv(MEGABYTE))
            sock.sendall(EMPTY)
            gevent.sleep(60)

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    try:
        target = make_target(f"http://127.0.0.1:{server.server_port}")
        assert client.send(target, "/x", b"x", []).status == 200
        assert client.idle_connections == 1
        closing_before_the_request.append(lambda: open_now[0].close())
        assert client.send(target, "/x", b"x" * size, []).status == 200
        assert len(heads) == 2
        assert len(open_now) == 2
    finally:
        server.stop()


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("end", [lambda _: None, _reset], ids=["closed", "reset"])
@pytest.mark.parametrize("after_s", [0, 0.1], ids=["at once", "after a while"])
def test_a_request_that_the_other_side_has_taken_is_not_sent_again(
    client: UpstreamClient, end: Callable[[socket.socket], None], after_s: float
) -> None:
    heads: list[bytes] = []

    def serve(sock: socket.socket, _address: object) -> None:
        heads.append(sock.recv(MEGABYTE))
        sock.sendall(EMPTY)
        heads.append(sock.recv(MEGABYTE))
        gevent.sleep(after_s)
        end(sock)

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        call(client, url, "ok")
        with pytest.raises(ConnectionFailed):
            call(client, url, "ok")
        assert len(heads) == 2
    finally:
        server.stop()


def test_a_request_that_was_being_answered_is_not_sent_again(client: UpstreamClient) -> None:
    answers = (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 2")
    with scripted(*answers) as (url, heads):
        call(client, url, "ok")
        with pytest.raises(BadResponse):
            call(client, url, "ok")
        assert len(heads) == 2


@pytest.mark.parametrize("model", ["drop", "reset"])
def test_a_new_connection_that_is_closed_is_not_tried_again(
    client: UpstreamClient, upstream: FakeUpstream, model: str
) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        call(client, upstream.url, model)
    assert caught.value.retryable
    assert caught.value.status == 502
    assert upstream.active()["total"] == 1


def test_idle_connections_have_a_limit(upstream: FakeUpstream) -> None:
    client = UpstreamClient(max_idle_per_origin=2)
    calls = [gevent.spawn(call, client, upstream.url, "slow-20") for _ in range(5)]
    for done in calls:
        done.get().read(MEGABYTE)
    assert client.idle_connections == 2
    client.close()
    assert client.idle_connections == 0


def test_idle_connections_are_closed_after_a_while(upstream: FakeUpstream) -> None:
    client = UpstreamClient(max_idle_s=0.02)
    for model in ("ok", "slow-50"):  # a call that outlasts the limit is not idle
        call(client, upstream.url, model).read(MEGABYTE)
        assert client.idle_connections == 1
    with gevent.Timeout(5):
        while client.idle_connections:
            gevent.sleep(0.005)


def test_what_comes_back_after_closing_is_closed(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    answer = call(client, upstream.url, "hold-stream", stream=True)
    client.close()
    upstream.release()
    assert b"".join(answer).endswith(b"[DONE]\n\n")
    assert client.idle_connections == 0


def test_origins_do_not_share_connections(client: UpstreamClient, upstream: FakeUpstream) -> None:
    call(client, upstream.url, "ok").read(MEGABYTE)
    with scripted(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as (url, _):
        assert call(client, url, "ok").read(10) == b"hi"


# -- a caller that leaves --------------------------------------------------------------------------


def outcome(upstream: FakeUpstream) -> str:
    away(upstream.wait_active, 0)
    found: str = upstream.seen()[0]["outcome"]
    return found


def test_closing_an_answer_half_way_hangs_up(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    answer = call(client, upstream.url, "hang-stream", stream=True)
    assert next(answer.chunks())
    answer.close()
    assert outcome(upstream) == "left"
    assert client.idle_connections == 0


def test_dropping_the_iterator_hangs_up(client: UpstreamClient, upstream: FakeUpstream) -> None:
    pieces = call(client, upstream.url, "hang-stream", stream=True).chunks()
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # what a WSGI server does
    assert outcome(upstream) == "left"


def test_an_answer_that_is_forgotten_hangs_up(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    answer = call(client, upstream.url, "hang-stream", stream=True)
    del answer
    gc.collect()
    assert outcome(upstream) == "left"


@pytest.mark.parametrize("model", ["hang", "hang-in-head", "hang-stream"])
def test_a_greenlet_killed_in_any_wait_hangs_up(
    client: UpstreamClient, upstream: FakeUpstream, model: str
) -> None:
    worker = gevent.spawn(lambda: list(call(client, upstream.url, model, stream=True)))
    away(upstream.wait_active, 1)
    gevent.sleep(0.02)
    worker.kill()
    assert outcome(upstream) == "left"
    assert client.idle_connections == 0


@pytest.mark.parametrize("model", ["hang", "hang-stream"])
def test_a_gevent_timeout_hangs_up(
    client: UpstreamClient, upstream: FakeUpstream, model: str
) -> None:
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        list(call(client, upstream.url, model, stream=True))
    assert outcome(upstream) == "left"
    assert client.idle_connections == 0


def test_closing_from_another_greenlet_wakes_the_reader(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    answer = call(client, upstream.url, "hang-stream", stream=True)
    reader = gevent.spawn(list, answer)
    gevent.sleep(0.02)
    answer.close()
    with pytest.raises(BadResponse):
        reader.get(timeout=5)
    assert outcome(upstream) == "left"


def test_an_answer_that_was_given_up_does_not_look_complete(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    answer = call(client, upstream.url, "hang-stream", stream=True)
    answer.close()
    with pytest.raises(BadResponse):
        answer.read(MEGABYTE)


# -- limits of time --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "timeouts", "phase"),
    [
        ("hang", {"first_byte_s": 0.05}, Phase.FIRST_BYTE),
        ("hang-in-head", {"first_byte_s": 0.05}, Phase.FIRST_BYTE),
        ("hang", {"total_s": 0.05}, Phase.TOTAL),
        ("hang-stream", {"idle_s": 0.05}, Phase.IDLE),
        ("hang-stream", {"total_s": 0.05}, Phase.TOTAL),
        ("chunks-500+gap-5", {"total_s": 0.1}, Phase.TOTAL),
    ],
)
@pytest.mark.parametrize("warm", [False, True], ids=["new", "kept"])
def test_each_wait_has_a_limit_and_a_name(
    client: UpstreamClient,
    upstream: FakeUpstream,
    model: str,
    timeouts: dict[str, float],
    phase: Phase,
    warm: bool,
) -> None:
    if warm:  # the connection's timer is then set for much later
        call(client, upstream.url, "ok").read(MEGABYTE)
        upstream.reset()
    with pytest.raises(Timeout) as caught:
        list(call(client, upstream.url, model, stream=True, **timeouts))
    assert caught.value.phase is phase
    assert caught.value.code == f"upstream_{phase}_timeout"
    assert caught.value.status == 504
    assert caught.value.retryable
    assert outcome(upstream) == "left"


def _drip(piece: bytes, pause_s: float) -> Callable[[socket.socket, object], None]:
    def serve(sock: socket.socket, _address: object) -> None:
        with contextlib.suppress(OSError):
            sock.recv(MEGABYTE)
            sock.sendall(b"HTTP/1.1 ")
            while True:
                sock.sendall(piece)
                gevent.sleep(pause_s)

    return serve


@pytest.mark.parametrize(
    ("piece", "pause_s"),
    [(b"2", 0.01), (b"103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 ", 0.01), (b"103 Early Hints\r\n\r\nHTTP/1.1 ", 0)],
    ids=["a head in drops", "interim answers", "interim answers without a pause"],
)  # fmt: skip
def test_a_head_that_goes_on_for_ever_is_a_first_byte_timeout(
    client: UpstreamClient, piece: bytes, pause_s: float
) -> None:
    server = StreamServer(("127.0.0.1", 0), _drip(piece, pause_s))
    server.start()
    try:
        with pytest.raises(Timeout) as caught:
            call(client, f"http://127.0.0.1:{server.server_port}", "ok", first_byte_s=0.3)
        assert caught.value.phase is Phase.FIRST_BYTE
    finally:
        server.stop()


def test_a_stream_may_last_longer_than_its_pauses(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    pieces = call(
        client, upstream.url, "chunks-10+gap-20", stream=True, idle_s=0.15, first_byte_s=0.15
    )
    assert b"".join(pieces).endswith(b"[DONE]\n\n")


def test_a_server_that_takes_no_tls_handshake_is_a_connect_timeout(client: UpstreamClient) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, pytest.raises(Timeout) as caught:
        call(client, f"https://127.0.0.1:{listener.getsockname()[1]}", "ok", connect_s=0.05)
    assert caught.value.phase is Phase.CONNECT


def test_a_server_that_accepts_nothing_is_a_connect_timeout(client: UpstreamClient) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = listener.getsockname()
    waiting = [socket.socket() for _ in range(3)]
    for sock in waiting:  # they fill the queue of those who wait to be accepted
        sock.setblocking(False)
        sock.connect_ex(address)
    with listener, pytest.raises(Timeout) as caught:
        call(client, f"http://127.0.0.1:{address[1]}", "ok", connect_s=0.05)
    assert caught.value.phase is Phase.CONNECT
    for sock in waiting:
        sock.close()


@pytest.mark.parametrize("limits", [{"total_s": 0.05}, {"due_s": 0.05}, {"due_s": -1.0}], ids=str)
def test_where_the_whole_time_is_over_while_it_connects_it_is_that_which_is_over(
    client: UpstreamClient, limits: dict[str, float]
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    target = Target(
        f"https://127.0.0.1:{listener.getsockname()[1]}", "ok", None,
        Timeouts(connect_s=5, total_s=limits.get("total_s")), uuid.uuid4(), "server", False,
    )  # fmt: skip
    due = time.monotonic() + limits.get("due_s", 60)
    with listener, pytest.raises(Timeout) as caught:
        client.send(target, "/x", b"{}", [], due=due)
    assert caught.value.phase is Phase.TOTAL


def test_a_server_that_reads_nothing_is_a_first_byte_timeout(client: UpstreamClient) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    target = make_target(f"http://127.0.0.1:{listener.getsockname()[1]}", first_byte_s=0.05)
    with listener, pytest.raises(Timeout) as caught:
        client.send(target, "/", bytes(20 * MEGABYTE), [])
    assert caught.value.phase is Phase.FIRST_BYTE


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid/v1"])
def test_a_server_that_is_not_there_is_a_failed_connection(
    client: UpstreamClient, url: str
) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        call(client, url, "ok")
    assert isinstance(caught.value.__cause__, OSError)
    assert "127.0.0.1" not in caught.value.message


@pytest.mark.parametrize("model", ["cut", "cut-reset"])
@pytest.mark.parametrize("stream", [False, True], ids=["body", "stream"])
def test_a_body_that_was_cut_is_never_taken_for_a_whole_one(
    client: UpstreamClient, upstream: FakeUpstream, model: str, stream: bool
) -> None:
    pieces: list[bytes] = []
    with pytest.raises(BadResponse) as caught:
        pieces.extend(call(client, upstream.url, model, stream=stream))
    assert caught.value.retryable
    if model == "cut":
        assert pieces
    with pytest.raises(BadResponse):
        call(client, upstream.url, model, stream=stream).read(MEGABYTE)


@pytest.mark.parametrize(
    "script",
    [
        b"220 mail.example ESMTP ready\r\n",
        b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
    ids=["smtp", "header", "upgrade", "endless", "chunk", "interim"],
)
def test_what_is_not_http_is_a_bad_response(client: UpstreamClient, script: bytes) -> None:
    with scripted(script) as (url, _), pytest.raises(BadResponse):
        call(client, url, "ok").read(MEGABYTE)
    assert client.idle_connections == 0


def test_a_coding_that_nobody_asked_for_is_a_bad_response(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    with pytest.raises(BadResponse):
        call(client, upstream.url, "br").read(MEGABYTE)


@pytest.mark.parametrize("model", ["big-100", "big-100+gzip", "big-100+until-close"])
def test_a_body_above_the_readers_limit_is_refused(
    client: UpstreamClient, upstream: FakeUpstream, model: str
) -> None:
    with pytest.raises(ResponseTooLarge) as caught:
        call(client, upstream.url, model).read(50 * 1024)
    assert not caught.value.retryable


def test_a_server_that_answers_before_it_has_read_everything_is_heard(
    client: UpstreamClient,
) -> None:
    with scripted(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno") as (url, _):
        answer = client.send(make_target(url), "/", bytes(8 * MEGABYTE), [])
        assert (answer.status, answer.read(10)) == (413, b"no")


def test_all_errors_have_one_base() -> None:
    for kind in (ConnectionFailed, BadResponse, ResponseTooLarge, Timeout):
        assert issubclass(kind, UpstreamError)
        assert not issubclass(kind, OSError)


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for the name localhost alone, in one file."""
    return for_localhost(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_upstream(certificate: Path) -> Iterator[FakeUpstream]:
    with FakeUpstream(certificate=certificate) as server:
        yield server


@pytest.fixture
def tls_client(certificate: Path) -> Iterator[UpstreamClient]:
    context = default_tls_context()
    context.load_verify_locations(certificate)
    client = UpstreamClient(tls=context)
    yield client
    client.close()


def localhost(server: FakeUpstream) -> str:
    return server.url.replace("127.0.0.1", "localhost")


def test_calls_over_tls_share_a_connection(
    tls_client: UpstreamClient, tls_upstream: FakeUpstream
) -> None:
    tls_upstream.reset()
    url = localhost(tls_upstream)
    assert len(call(tls_client, url, "big-900").read(MEGABYTE)) > 900 * 1024
    assert b"".join(call(tls_client, url, "chunks-30", stream=True)).endswith(b"[DONE]\n\n")
    answer = tls_client.send(make_target(url), "/embeddings", bytes(3 * MEGABYTE), [])
    assert answer.status == 200
    assert len({seen["connection"] for seen in tls_upstream.seen()}) == 1
    assert len(tls_upstream.seen()[2]["raw"]) == 3 * MEGABYTE


@pytest.mark.parametrize(
    ("model", "stream"), [("until-close", False), ("stale-1", False), ("ok", True)]
)
def test_ends_over_tls_are_ends(
    tls_client: UpstreamClient, tls_upstream: FakeUpstream, model: str, stream: bool
) -> None:
    for _ in range(2):
        assert call(tls_client, localhost(tls_upstream), model, stream=stream).read(MEGABYTE)
        # What is sent while the other side closes may have reached it, and is not sent again: that is another test's.
        gevent.sleep(0.1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_over_tls_is_a_cut(
    tls_client: UpstreamClient, tls_upstream: FakeUpstream, stream: bool
) -> None:
    with pytest.raises(BadResponse):
        call(tls_client, localhost(tls_upstream), "cut", stream=stream).read(MEGABYTE)


def test_a_wait_over_tls_has_a_limit(
    tls_client: UpstreamClient, tls_upstream: FakeUpstream
) -> None:
    with pytest.raises(Timeout) as caught:
        call(tls_client, localhost(tls_upstream), "hang", first_byte_s=0.05)
    assert caught.value.phase is Phase.FIRST_BYTE


def test_a_certificate_that_nobody_vouches_for_is_refused(
    client: UpstreamClient, tls_upstream: FakeUpstream
) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        call(client, localhost(tls_upstream), "ok")
    assert not caught.value.retryable


def test_a_certificate_for_another_name_is_refused(
    tls_client: UpstreamClient, tls_upstream: FakeUpstream
) -> None:
    with pytest.raises(ConnectionFailed):
        call(tls_client, tls_upstream.url, "ok")


def test_a_server_that_does_not_speak_tls_is_a_failed_connection(client: UpstreamClient) -> None:
    with scripted(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n") as (url, _):
        with pytest.raises(ConnectionFailed):
            call(client, url.replace("http:", "https:"), "ok")


# -- under monkey-patching -------------------------------------------------------------------------

PATCHED = """
from gevent import monkey; monkey.patch_all()
import gevent, ssl, sys, time, uuid
from dwctl.upstream.client import UpstreamClient
from dwctl.upstream.connections import Connection, default_tls_context
from dwctl.upstream.target import Target, Timeouts
context = default_tls_context()
context.load_verify_locations(sys.argv[1])
client = UpstreamClient(tls=context)
def call(url):
    target = Target(base_url=url, model_name="m", auth_header=None, timeouts=Timeouts(5, 5, 5),
                    endpoint_id=uuid.uuid4(), endpoint_name="e", trusted=False)
    return len(client.send(target, "/chat/completions", b'{"model": "slow-200"}', []).read(10**6))
began = time.monotonic()
calls = [gevent.spawn(call, url) for url in sys.argv[2:] for _ in range(5)]
assert all(done.get() > 100 for done in calls)
print(client.idle_connections)
"""


def test_it_works_the_same_in_a_patched_process(
    certificate: Path, tls_upstream: FakeUpstream, upstream: FakeUpstream
) -> None:
    command = [sys.executable, "-W", "error", "-c", PATCHED, str(certificate)]
    done = subprocess.run(
        [*command, upstream.url, localhost(tls_upstream)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout, done.stderr) == ("10\n", "")
    assert upstream.active()["peak"] == 5
