"""What an application sees and what a caller gets is the same under gunicorn's own gevent worker and under ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.attack import raw
from tests.processes import GUNICORN, Process, free_port

# SERVER_SOFTWARE names the server; the ports differ by necessity. X-Forwarded-Proto changes the scheme in gunicorn's only: ours tells the
# bare truth, and what a proxy says is judged where proxies are known.
DIFFERENT = {"SERVER_SOFTWARE", "SERVER_PORT", "REMOTE_PORT", "SERVER_NAME"}
OWN_HEADERS = {"server", "date", "x-content-type-options"}


@dataclass(frozen=True)
class Doors:
    gunicorns: Process
    ours: Process

    def both(self, data: bytes, *, to_head: bool = False) -> tuple[raw.Answer, raw.Answer]:
        """The first answer of each; the second is ours."""
        found = []
        for process in (self.gunicorns, self.ours):
            with raw.Connection(process.port) as connection:
                connection.send(data)
                found.append(connection.receive(to_head=to_head))
        return found[0], found[1]


def _serve(folder: Path, worker_class: str) -> Process:
    port = free_port()
    config = folder / f"{worker_class}.py"
    config.write_text("control_socket_disable = True\naccesslog = None\n")
    command = [
        GUNICORN, "-c", str(config), "-k", worker_class, "-w", "1", "-b", f"127.0.0.1:{port}", "--keep-alive", "30", "tests.attack.echo:app",
    ]  # fmt: skip
    process = Process(command, {}, port)
    process.wait_ready("/")
    return process


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("gunicorn")
    made = Doors(_serve(folder, "gevent"), _serve(folder, "dwctl.web.server.Server"))
    yield made
    made.gunicorns.stop()
    made.ours.stop()


def _head(
    target: bytes = b"/", *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1"
) -> bytes:
    fixed = (method + b" " + target + b" HTTP/" + version, *lines)
    if not any(line.lower().startswith(b"host:") for line in lines):
        fixed += (b"Host: x",)
    return b"\r\n".join(fixed) + b"\r\n\r\n"


def _post(body: bytes, *lines: bytes, target: bytes = b"/", version: bytes = b"1.1") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return _head(target, length, *lines, method=b"POST", version=version) + body


def _chunks(*pieces: bytes, target: bytes = b"/", end: bytes = b"0\r\n\r\n") -> bytes:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end
    return _head(target, b"Transfer-Encoding: chunked", method=b"POST") + framed


REQUESTS: dict[str, bytes] = {
    "get": _head(),
    **{
        f"method {method.decode()}": _head(method=method)
        for method in (b"DELETE", b"OPTIONS", b"PUT", b"PATCH", b"PROPFIND")
    },
    "query": _head(b"/a?b=c&d=e%20f"),
    "query empty": _head(b"/a?"),
    "query of a question mark": _head(b"/a?b?c"),
    "query escaped": _head(b"/a?b=%2f%3f%zz&c=+"),
    "path escaped": _head(b"/a%20b%2Fc%3f"),
    "path of escaped UTF-8": _head(b"/%c3%a4"),
    "path of escaped 8-bit bytes": _head(b"/%ff%fe"),
    "path with wrong escapes": _head(b"/%zz%a"),
    "path of two slashes": _head(b"//a//b/"),
    "path with dots": _head(b"/a/../b/./c"),
    "path with semicolon": _head(b"/a;b=c/d,e@f:g"),
    "absolute form": _head(b"http://x/a?b"),
    "absolute form with port": _head(b"http://x:80/a", b"Host: x:80"),
    "host with port": _head(b"/", b"Host: x:8080"),
    "host with empty port": _head(b"/", b"Host: x:"),
    "host of IPv6": _head(b"/", b"Host: [::1]:80"),
    "header repeated": _head(b"/", b"A: b", b"a: c", b"A: d"),
    "cookies repeated": _head(b"/", b"Cookie: a=b", b"Cookie: c=d"),
    "header empty": _head(b"/", b"A:", b"B:  "),
    "header between blanks": _head(b"/", b"A: \t b c \t "),
    "header of 8-bit bytes": _head(b"/", b"A: \xe4\xff \xc3\xa4"),
    "header long": _head(b"/", b"A: " + b"a" * 7_000),
    "headers many": _head(b"/", *[b"A%d: b" % n for n in range(80)]),
    "header with underscore": _head(b"/", b"A_B: c", b"D-E: f"),
    "header of token bytes": _head(b"/", b"A!#$%&'*+.^`|~9: b"),
    "header called proxy": _head(b"/", b"Proxy: http://evil/"),
    "forwarded": _head(b"/", b"X-Forwarded-For: 192.0.2.1", b"Forwarded: for=192.0.2.1", b"X-Real-IP: 192.0.2.1"),
    "connection close": _head(b"/", b"Connection: close"),
    "body": _post(b"hello", b"Content-Type: text/plain"),
    "body empty": _post(b""),
    "body of all bytes": _post(bytes(range(256)) * 16),
    "body of 300 kB": _post(b"0123456789" * 30_000),
    "body of one chunk": _chunks(b"hello"),
    "body of chunks": _chunks(b"he", b"l", b"lo", b"x" * 70_000),
    "body of no chunk": _chunks(),
    "body with an extension": _head(b"/", b"Transfer-Encoding: chunked", method=b"POST") + b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "body in HTTP/1.0": _post(b"hello", version=b"1.0"),
    "body with continue": _post(b"hello", b"Content-Type: text/plain"),
    "body on GET": _head(b"/", b"Content-Length: 5") + b"hello",
    "body by lines": _post(b"abcde\nfg\nhijkl\n\nmno\n", target=b"/parts"),
    "body by lines, chunked": _chunks(b"abc", b"de\nfg\nh", b"ijkl\n\nm", b"no\n", target=b"/parts"),
    "body iterated": _post(b"a\nb\n\nc", target=b"/iterated"),
    "body unread": _post(b"hello", target=b"/unread"),
    "HTTP/1.0": _head(version=b"1.0"),
    "HTTP/1.0 kept": _head(b"/", b"Connection: keep-alive", version=b"1.0"),
    "CRLF before": b"\r\n" + _head(),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_an_application_sees_the_same(doors: Doors, name: str) -> None:
    theirs, ours = doors.both(REQUESTS[name])
    assert ours.status == theirs.status
    assert _seen(ours) == _seen(theirs)
    assert _headers(ours) == _headers(theirs)


def _seen(answer: raw.Answer) -> Any:
    value = answer.json()
    if isinstance(value, dict):
        return {key: member for key, member in value.items() if key not in DIFFERENT}
    return value


def _headers(answer: raw.Answer) -> list[tuple[str, str]]:
    """Without what each server says in its own way, and without the environ's own length, which its ports change."""
    own = OWN_HEADERS | ({"content-length"} if answer.body.startswith(b"{") else set())
    kept = [(name, value) for name, value in answer.headers if name not in own]
    return sorted((name, value.lower() if name == "connection" else value) for name, value in kept)


def test_the_scheme_is_never_what_a_caller_says(doors: Doors) -> None:
    _theirs, ours = doors.both(_head(b"/", b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: on", b"X-Forwarded-Protocol: ssl"))  # fmt: skip
    assert ours.json()["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize("name", [b"Script-Name", b"SCRIPT_NAME", b"Path-Info", b"Path_Info", b"Remote_Addr", b"Remote-Addr"])  # fmt: skip
def test_no_header_becomes_a_variable_of_the_server(doors: Doors, name: bytes) -> None:
    _theirs, ours = doors.both(_head(b"/a", name + b": /evil"))
    seen = ours.json()
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["REMOTE_ADDR"]) == ("", "/a", "127.0.0.1")


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    "path",
    [b"/generated", b"/generated-with-length", b"/empty", b"/written", b"/many-headers", b"/closable", b"/not-modified"],
    ids=bytes.decode,
)  # fmt: skip
def test_a_caller_gets_the_same(doors: Doors, path: bytes, method: bytes, version: bytes) -> None:
    theirs, ours = doors.both(_head(path, method=method, version=version), to_head=method == b"HEAD")  # fmt: skip
    assert (ours.status, ours.reason) == (theirs.status, theirs.reason)
    assert (ours.body, ours.whole) == (theirs.body, theirs.whole)
    if not (version == b"1.0" and ours.framing != theirs.framing):
        assert _headers(ours) == _headers(theirs)
    if version == b"1.0":
        assert ours.framing != "chunked"


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_application_may_end_the_connection(doors: Doors, method: bytes) -> None:
    """Gunicorn's own goes on saying that it is kept."""
    _theirs, ours = doors.both(_head(b"/closing", method=method), to_head=method == b"HEAD")
    assert ours.status == 200
    assert ours.closes


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_headers_that_were_not_sent_are_replaced(doors: Doors, method: bytes, version: bytes) -> None:  # fmt: skip
    """As PEP 3333 says; gunicorn's own sends both lists."""
    theirs, ours = doors.both(_head(b"/replaced", method=method, version=version), to_head=method == b"HEAD")  # fmt: skip
    assert (
        (ours.status, ours.body)
        == (theirs.status, theirs.body)
        == (503, b"" if method == b"HEAD" else b"later")
    )
    assert ours.header("content-length") == "5"
    assert ours.header("x-first") is None


def test_no_content_has_no_body_and_no_framing(doors: Doors) -> None:
    with raw.Connection(doors.ours.port) as connection:
        connection.send(_head(b"/no-content") * 2)
        assert [connection.receive().status for _ in range(2)] == [204, 204]


def test_an_error_in_the_middle_cuts_the_answer(doors: Doors) -> None:
    """Its last chunk never comes, so nobody takes it for whole."""
    for answer in doors.both(_head(b"/broken")):
        assert (answer.status, answer.framing) == (200, "chunked")
        assert answer.body == b"one"
        assert not answer.whole


@pytest.mark.parametrize("path", [b"/closable", b"/closable-error"])
def test_an_answer_is_closed_however_it_ends(doors: Doors, path: bytes) -> None:
    doors.both(_head(b"/closed"))
    doors.both(_head(path))
    for answer in doors.both(_head(b"/closed")):
        assert answer.json() == [path.decode()]


def test_an_application_that_raises_is_a_500_in_json(doors: Doors) -> None:
    _theirs, ours = doors.both(_head(b"/raises"))
    assert ours.status == 500
    assert {"code", "message"} <= set(ours.json())
    assert b"before the start" not in ours.body


@pytest.mark.parametrize("path", [b"/unread", b"/generated", b"/no-content", b"/closed"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_that_nobody_reads_is_no_request(doors: Doors, path: bytes, chunked: bool) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = _chunks(smuggled, target=path) if chunked else _post(smuggled, target=path)
    for process in (doors.gunicorns, doors.ours):
        found = raw.exchange(process.port, [sent + _head(b"/unread")], expected=2)
        assert len(found.answers) <= 2
        assert all(b"smuggled" not in answer.body for answer in found.answers)
        if len(found.answers) == 2:
            assert found.answers[1].json() == "unread"
