"""Forms as clients send them, and as nobody should; each cut into pieces of several sizes. Pure."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import chain

import pytest

from dwctl.errors import DwctlError
from dwctl.files.forms import Form

TYPE = "multipart/form-data; boundary=b"
END = b"--b--\r\n"
Read = tuple[bytes, dict[str, str], str | None, bool]


def part(head: bytes, content: bytes, disposition: bytes = b"form-data; ") -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition + head + b"\r\n\r\n" + content + b"\r\n"


FILE = b'name="file"; filename="a"'


def read(body: bytes, content_type: str = TYPE, piece: int = 0) -> Read | str:
    """Content, fields, filename and whether there was a file; or the refusal."""
    step = piece or len(body) or 1
    pieces = (body[at : at + step] for at in range(0, len(body), step))
    try:
        form = Form(content_type, pieces, lambda _name, _value: None)
        content = b"".join(form.file())
    except DwctlError as error:
        return error.message.removeprefix("Invalid multipart request: ")
    return content, form.fields, form.filename, form.has_file


CUT = "it ends before its last boundary, or a part has headers that cannot be read"
FORMS: dict[str, tuple[bytes, Read | str]] = {
    "plain": (part(FILE, b"x\n\r\ny\n") + END, (b"x\n\r\ny\n", {}, "a", True)),
    "fields around": (part(b'name="p"', b"1") + part(FILE, b"x") + part(b'name="p"', b"2") + END, (b"x", {"p": "2"}, "a", True)),
    "empty file": (part(b'name="file"; filename=""', b"") + END, (b"", {}, "", True)),
    "file as a field": (part(b'name="file"', b"x\r\n") + END, (b"x\r\n", {}, None, True)),
    "no name": (part(b'filename="a"', b"x") + END, (b"", {}, None, False)),
    "name in UTF-8": (part('name="file"; filename="é"'.encode(), b"x") + END, (b"x", {}, "é", True)),
    "name in Latin-1": (part(b'name="file"; filename="\xe9"', b"x") + END, CUT),
    "name in words of RFC 5987": (part(b"name=\"file\"; filename*=UTF-8''%e2%82%ac", b"x") + END, (b"x", {}, "€", True)),
    "two files": (part(FILE, b"x") + part(FILE, b"y") + END, "it has more than one part of the name `file`"),
    "another file": (part(b'name="z"; filename="z"', b"z" * 999) + part(FILE, b"x") + END, (b"x", {}, "a", True)),
    "padding behind boundaries": ((part(FILE, b"x") + END).replace(b"--b\r", b"--b  \t\r"), (b"x", {}, "a", True)),
    "what looks like a boundary": (part(FILE, b"x --b y\n--bb\n--bc\r\n--b-\r\n") + END, (b"x --b y\n--bb\n--bc\r\n--b-\r\n", {}, "a", True)),
    "preamble and epilogue": (b"hello\r\n" + part(FILE, b"x") + END + b"bye" * 99, (b"x", {}, "a", True)),
    "bare line feeds": ((part(FILE, b"x") + END).replace(b"\r\n", b"\n"), (b"x", {}, "a", True)),
    "no end": (part(FILE, b"x"), CUT),
    "nothing": (b"", CUT),
    "no parts": (END, (b"", {}, None, False)),
    "no disposition": (b"--b\r\nX: y\r\n\r\nx\r\n" + END, CUT),
    "many parts": (part(b'name="z"', b"x") * 200 + END, "it has more than 100 parts"),
    "long headers": (b"--b\r\nX: " + b"y" * 200_000, "what should be the headers of a part has no end"),
    "long field": (part(b'name="z"', b"x" * 70_000) + END, "the field 'z' has more than 65536 bytes"),
    "transfer encoding": (part(FILE + b"\r\nContent-Transfer-Encoding: base64", b"eA==") + END, "the transfer encoding 'base64' is not supported"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), FORMS.values(), ids=FORMS)
def test_a_form_is_read_alike_wherever_it_is_cut(body: bytes, expected: Read | str) -> None:
    for piece in (0, *range(1, 40), 997) if len(body) < 5000 else (0, 997):
        assert read(body, piece=piece) == expected, piece


NO_FORMS = ("", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=b", f"{TYPE}{'b' * 70}")  # fmt: skip


@pytest.mark.parametrize("content_type", NO_FORMS)
def test_what_is_no_form_is_refused(content_type: str) -> None:
    assert read(END, content_type) == "Invalid `boundary` for `multipart/form-data` request"


@pytest.mark.parametrize("content_type", ['multipart/form-data; boundary="b"', "Multipart/Form-Data; charset=utf-8; boundary=b"])  # fmt: skip
def test_a_boundary_may_be_written_in_several_ways(content_type: str) -> None:
    assert read(part(FILE, b"x") + END, content_type) == (b"x", {}, "a", True)


@pytest.mark.parametrize(
    "kept", [b"--b", b"--b-", b"--b  \t", b"--b--\r"], ids=["begun", "dash", "padded", "ended"]
)
def test_a_form_is_read_as_it_comes_wherever_its_pieces_end(kept: bytes) -> None:
    pieces, least = 50, 1000

    def sent() -> Iterator[bytes]:
        yield part(FILE, b"")[:-2]
        for number in range(pieces):
            # All but what may be a boundary has been given on, before more of it is read.
            assert seen[0] >= number * least
            yield b"x" * least + kept
        yield b"\r\n" + END

    seen = [0]
    form = Form(TYPE, sent(), lambda _name, _value: None)
    for piece in form.file():
        seen[0] += len(piece)
    assert seen[0] >= pieces * least


def test_nothing_is_kept_of_what_comes_behind_the_last_boundary() -> None:
    epilogue = 16 * 1024 * 1024
    tail = (b"x" * 65536 for _ in range(epilogue // 65536))
    form = Form(TYPE, chain([part(FILE, b"x") + END], tail), lambda _name, _value: None)
    tracemalloc.start()
    try:
        assert b"".join(form.file()) == b"x"
        assert tracemalloc.get_traced_memory()[1] < epilogue / 8
    finally:
        tracemalloc.stop()
