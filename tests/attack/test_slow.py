"""Callers that take their time, on a real server: each wait has an end, what waits is bounded, and nobody else notices."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from tests.attack import raw
from tests.attack.test_raw import assert_error
from tests.gateway import HELLO, Gateway
from tests.processes import Process, Service, eventually

PATIENCE_S = 20.0
GAP_S = 0.1
SLOW, FAST = 1, 100
"""Bytes in each gap: a tenth of the lowest rate, and ten times as much."""
LIMITS = {
    "HEAD_TIMEOUT": "1s",
    "BODY_GRACE": "1s",
    "BODY_MIN_RATE": "100",
    "BODY_TIMEOUT": "4s",
    "STALLED_READER_TIMEOUT": "1s",
}
PATIENT = {
    f"DWCTL_LIMITS__REQUESTS__{name}": "60s" for name in ("HEAD_TIMEOUT", "BODY_GRACE", "BODY_TIMEOUT")
}  # fmt: skip
STRANGERS = {"DWCTL_TRUSTED_PROXIES": "10.0.0.0/8"}
"""Who calls from this machine is nobody's proxy: each of its addresses is a peer with bounds."""
ROOM = 20
CONNECTIONS, BODIES = 12, 5
MODEL = "ok"

pytestmark = pytest.mark.usefixtures("nothing_fell_over")


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    limits = {f"DWCTL_LIMITS__REQUESTS__{name}": value for name, value in LIMITS.items()}
    return environ | limits | {"GUNICORN_CMD_ARGS": "--keep-alive 2"}


@pytest.fixture(scope="module")
def web(stage: Gateway) -> Process:
    """Its time is short, its room is not."""
    stage.model(MODEL)
    return stage.service.webs[0]


@pytest.fixture(scope="module")
def start(stage: Gateway, environ: dict[str, str]) -> Iterator[Callable[..., Process]]:
    """One more process with other settings."""
    for model in (MODEL, "hold", "hold-stream"):
        stage.model(model)
    with Service(environ | PATIENT) as others:
        yield others.start_web
        for process in others.webs:
            assert "Traceback" not in process.output(), process.output()


@pytest.fixture(scope="module")
def narrow(start: Callable[..., Process]) -> Process:
    """It has room for few unfinished bodies, whoever sends them."""
    return start(DWCTL_LIMITS__CONNECTIONS__AWAITING_BODY=str(ROOM))


@pytest.fixture(scope="module")
def strict(start: Callable[..., Process]) -> Process:
    """It has little room for each peer."""
    return start(
        **STRANGERS,
        DWCTL_LIMITS__CONNECTIONS__PER_PEER=str(CONNECTIONS),
        DWCTL_LIMITS__CONNECTIONS__AWAITING_BODY_PER_PEER=str(BODIES),
    )


class Sender:
    """What Alice or a stranger sends to a route."""

    def __init__(self, name: str, path: bytes, *, is_known: bool, shape: str) -> None:
        self.name, self._path, self._is_known, self.shape = name, path, is_known, shape

    def head(self, stage: Gateway, framing: bytes) -> bytes:
        key = b"Authorization: Bearer " + stage.alice.key.encode() + b"\r\n"
        return (
            b"POST " + self._path + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + (key if self._is_known else b"") + framing + b"\r\n\r\n"
        )  # fmt: skip


HOT = Sender("hot", b"/ai/v1/chat/completions", is_known=True, shape="openai")
FLASK = Sender("flask", b"/authentication/login", is_known=False, shape="admin")
STRANGER = Sender("stranger", b"/ai/v1/chat/completions", is_known=False, shape="openai")
FILE = b"Content-Length: 10000"
CHUNKED = b"Transfer-Encoding: chunked"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def _body(model: str = MODEL, **more: object) -> bytes:
    return orjson.dumps({"model": model, "messages": HELLO} | more)


def _call(stage: Gateway, body: bytes) -> bytes:
    return HOT.head(stage, b"Content-Length: %d" % len(body)) + body


def _connect(process: Process, source: str = "127.0.0.1") -> raw.Connection:
    return raw.Connection(process.port, PATIENCE_S, source)


def _has_answer(connection: raw.Connection) -> bool:
    return bool(select.select([connection.socket], [], [], 0)[0])


def _trickle(connection: raw.Connection, piece: bytes, times: int = 1000) -> None:
    """A piece after the other, until there is an answer."""
    with contextlib.suppress(OSError):
        for _ in range(times):
            if select.select([connection.socket], [], [], GAP_S)[0]:
                return
            connection.send(piece)


def _assert_refused(connection: raw.Connection, status: int, shape: str) -> None:
    """In JSON, in the form of the route, and then the connection ends."""
    answer = connection.receive()
    assert answer.status == status, answer
    assert answer.whole
    assert answer.closes
    assert_error(answer, shape)
    assert connection.ends(PATIENCE_S) == "closed"


# --- what is waited for: all at once, as it is mostly waiting

Attempt = Callable[[Process, Gateway], None]


def _head_that_does_not_end(begun: bytes, trickled: bytes, shape: str) -> Attempt:
    def attempt(web: Process, _stage: Gateway) -> None:
        with _connect(web) as connection:
            connection.send(begun)
            if begun.startswith(GET):
                assert connection.receive().status == 200
            if trickled:
                _trickle(connection, trickled)
            _assert_refused(connection, 408, shape)

    return attempt


def _nothing_asked(sent: bytes, trickled: bytes = b"") -> Attempt:
    """Hung up on without a word."""

    def attempt(web: Process, _stage: Gateway) -> None:
        with _connect(web) as connection:
            connection.send(sent)
            if sent.startswith(GET):
                assert connection.receive().status == 200
            if trickled:
                _trickle(connection, trickled)
            assert connection.ends(PATIENCE_S) in ("closed", "reset" if trickled else "")

    return attempt


def _body_refused(sender: Sender, framing: bytes, begun: bytes, trickled: bytes) -> Attempt:
    """The framing does not count: only what it carries does."""

    def attempt(web: Process, stage: Gateway) -> None:
        with _connect(web) as connection:
            connection.send(sender.head(stage, framing) + begun)
            if trickled:
                _trickle(connection, trickled)
            _assert_refused(connection, 408, sender.shape)

    return attempt


def _body_taken(*, chunked: bool) -> Attempt:
    """It comes faster than the lowest rate, for longer than the grace."""
    pieces = [*itertools.repeat(b" " * FAST, 20), _body()]
    framing = CHUNKED if chunked else b"Content-Length: %d" % sum(map(len, pieces))

    def attempt(web: Process, stage: Gateway) -> None:
        with _connect(web) as connection:
            connection.send(HOT.head(stage, framing))
            for piece in pieces:
                time.sleep(GAP_S)
                connection.send(_chunk(piece) if chunked else piece)
            connection.send(b"0\r\n\r\n" if chunked else b"", GET)
            assert connection.receive().status == 200
            assert connection.receive().status == 200

    return attempt


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


BODIES_TOO_SLOW = {
    "none": (FILE, b"", b""),
    "begun": (FILE, b"{", b""),
    "slow": (FILE, b"{", b" " * SLOW),
    "no chunk": (CHUNKED, b"", b""),
    "a chunk": (CHUNKED, _chunk(b"{"), b""),
    "slow chunks": (CHUNKED, _chunk(b"{"), _chunk(b" " * SLOW)),
    "slow extension": (CHUNKED, _chunk(b"{") + b"1;", b"extended" * 4),
    "slow trailers": (CHUNKED, _chunk(b"{}") + b"0\r\n", b"a: trailer\r\n"),
}
SLOWLY: dict[str, Attempt] = {
    "head: silent": _head_that_does_not_end(b"GET /heal", b"", "admin"),
    "head: a byte at a time": _head_that_does_not_end(GET[:-2] + b"A: ", b"b", "admin"),
    "head: a line at a time": _head_that_does_not_end(GET[:-2], b"a: b\r\n", "admin"),
    "head: hot": _head_that_does_not_end(b"POST /ai/v1/chat/completions HTTP/1.1\r\nHost: x\r\n", b"", "openai"),
    "head: the second of two": _head_that_does_not_end(GET + b"GET /ai/v1/models HTTP/1.1\r\n", b"", "openai"),
    "nothing: new": _nothing_asked(b""),
    "nothing: new, after an empty line": _nothing_asked(b"\r\n"),
    "nothing: kept": _nothing_asked(GET),
    "nothing: kept, after an empty line": _nothing_asked(GET + b"\r\n"),
    "nothing: empty lines without end": _nothing_asked(b"", b"\r\n"),
    **{
        f"body: {name}, {sender.name}": _body_refused(sender, *how)
        for name, how in BODIES_TOO_SLOW.items()
        for sender in (HOT, FLASK)
    },
    "body: in time, but without end": _body_refused(HOT, b"Content-Length: 1000000", b"", b" " * FAST),
    "body: in time, but chunks without end": _body_refused(HOT, CHUNKED, b"", _chunk(b" " * FAST)),
    "body: in time": _body_taken(chunked=False),
    "body: in time, in chunks": _body_taken(chunked=True),
}  # fmt: skip


@pytest.fixture(scope="module")
def under_way(web: Process, stage: Gateway) -> Iterator[dict[str, Future[None]]]:
    with ThreadPoolExecutor(len(SLOWLY)) as pool:
        yield {name: pool.submit(attempt, web, stage) for name, attempt in SLOWLY.items()}


@pytest.mark.parametrize("name", SLOWLY)
def test_who_is_slow_gets_what_it_must(under_way: dict[str, Future[None]], name: str) -> None:
    under_way[name].result()


@pytest.mark.parametrize("framing", [FILE, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("expect", [b"", b"\r\nExpect: 100-continue"], ids=["sent", "asked"])
def test_a_stranger_is_not_waited_for(web: Process, stage: Gateway, framing: bytes, expect: bytes) -> None:  # fmt: skip
    with _connect(web) as connection:
        connection.send(STRANGER.head(stage, framing + expect))
        _assert_refused(connection, 401, "openai")


# --- after the answer, and instead of it


@pytest.mark.parametrize("times", [1, 2000], ids=["slowly", "fast"])
def test_who_goes_on_sending_after_the_last_answer_is_cut_off(web: Process, stage: Gateway, times: int) -> None:  # fmt: skip
    with _connect(web) as connection:
        connection.send(STRANGER.head(stage, b"Content-Length: 1000000000"))
        assert connection.receive().status == 401

        def is_cut_off() -> bool:
            try:
                connection.send(b"x" * times)
            except ConnectionError:
                return True
            return False

        eventually(is_cut_off, PATIENCE_S, GAP_S if times == 1 else 0)


@pytest.mark.parametrize("most", [3000, 10**9], ids=["a little", "all that goes"])
def test_who_asks_and_never_reads_is_cut_off(web: Process, most: int) -> None:
    """By a reset: else the system would keep the answers for it, for minutes, though the process has forgotten it."""
    with _connect(web) as connection:
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.socket.settimeout(0.5)
            for _ in range(0, most, 100):
                connection.send(GET * 100)
        port = connection.socket.getsockname()[1]
        eventually(lambda: not _is_held(web.port, port), PATIENCE_S)
    with _connect(web) as connection:
        connection.send(GET)
        assert connection.receive().status == 200


def _is_held(server: int, client: int) -> bool:
    """Whether the system has anything of the server's end of the connection (proc(5), net/tcp)."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    ends = (f":{server:04X}", f":{client:04X}")
    return any(row[1].endswith(ends[0]) and row[2].endswith(ends[1]) for row in rows)


@pytest.mark.parametrize("orderly", [True, False], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /heal",
        HOT,
        FLASK,
        GET * 3 + b"GET",
    ],
    ids=["nothing", "head", "hot body", "flask body", "pipelined"],
)
def test_who_vanishes_leaves_nothing_behind(web: Process, stage: Gateway, sent: bytes | Sender, orderly: bool) -> None:  # fmt: skip
    """Ten bodies of 9 MB would be more than an account may have in memory at once."""
    data = sent.head(stage, b"Content-Length: 9000000") + b"{" if isinstance(sent, Sender) else sent
    for _ in range(10):
        connection = _connect(web)
        connection.send(data)
        connection.close() if orderly else connection.reset()
    with _connect(web) as connection:
        connection.send(_call(stage, _body()))
        assert connection.receive().status == 200


# --- bounds


def test_many_unfinished_bodies_leave_an_honest_caller_served(narrow: Process, stage: Gateway) -> None:  # fmt: skip
    """Whoever has waited longest makes room."""
    many = 300
    with ExitStack() as stack:
        waiting = [stack.enter_context(_connect(narrow)) for _ in range(many)]
        for number, connection in enumerate(waiting):
            connection.send(
                (HOT if number % 2 else FLASK).head(stage, b"Content-Length: 100") + b"{"
            )
        eventually(lambda: sum(map(_has_answer, waiting)) == many - ROOM)
        with _connect(narrow) as honest:
            call = _call(stage, _body())
            honest.send(call[:-10])
            eventually(lambda: sum(map(_has_answer, waiting)) == many - ROOM + 1)
            honest.send(call[-10:])
            assert honest.receive().status == 200
        for number, connection in enumerate(waiting):
            if _has_answer(connection):
                _assert_refused(connection, 503, "openai" if number % 2 else "admin")


def test_one_peer_has_so_many_unfinished_bodies(strict: Process, stage: Gateway) -> None:
    with ExitStack() as stack:
        waiting = [stack.enter_context(_connect(strict)) for _ in range(BODIES + 1)]
        call = _call(stage, _body())
        for connection in waiting:
            connection.send(call[:-10])
        eventually(lambda: any(map(_has_answer, waiting)))
        (refused,) = filter(_has_answer, waiting)
        _assert_refused(refused, 503, "openai")
        with _connect(strict, "127.0.0.2") as other:
            other.send(call[:-10])
            time.sleep(GAP_S)
            other.send(call[-10:])
            assert other.receive().status == 200
        waiting.remove(refused)
        for connection in waiting:
            connection.send(call[-10:])
            assert connection.receive().status == 200


def test_one_peer_has_so_many_connections(strict: Process) -> None:
    with ExitStack() as stack:
        kept = []
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(_connect(strict))
            connection.send(GET)
            assert connection.receive().status == 200
            kept.append(connection)
        for _ in range(3):
            with _connect(strict) as connection:
                _assert_refused(connection, 429, "admin")
        with _connect(strict, "127.0.0.2") as other:
            other.send(GET)
            assert other.receive().status == 200
        kept[0].close()

        def gets_in() -> bool:
            with _connect(strict) as connection:
                with contextlib.suppress(ConnectionError):
                    connection.send(GET)
                return connection.receive().status == 200

        eventually(gets_in)
