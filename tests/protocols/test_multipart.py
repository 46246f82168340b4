"""A form's field is found where it stands, whatever surrounds it, and what is no form is refused."""

from __future__ import annotations

import pytest

from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.forwarded import Forwarded, may_be_forwarded
from dwctl.protocols.multipart import find_field

TYPE = "multipart/form-data; boundary=XX"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"  # fmt: skip


END = b"--XX--\r\n"
AUDIO = bytes(range(256)) * 40 + b"\r\n--X\r\n--XY name=model\r\n\r\n"
MODEL = part("model", b"whisper")

FOUND = [
    (MODEL + END, b"whisper"),
    (part("file", AUDIO, '; filename="a.mp3"\r\nContent-Type: audio/mpeg') + MODEL + END, b"whisper"),
    (MODEL + part("file", AUDIO, '; filename="a.mp3"') + END, b"whisper"),
    (b"preamble\r\n" + MODEL + END + b"epilogue", b"whisper"),
    (b"\r\n" + MODEL + END, b"whisper"),
    (part("model", b"") + END, b""),
    (b"--XX \t\r\ncontent-disposition:form-data;name=model\r\n\r\nw\r\n--XX--", b"w"),
    (b'--XX\r\nX-A: b\r\nCONTENT-DISPOSITION: form-data; NAME="model"\r\n\r\nw\r\n--XX--', b"w"),
    (part("file", b"x", '; filename="model"') + END, None),
    (part("file", b"x", "; filename=caf\xe9\u0160\xe0.wav") + END, None),
    (part("file", b"x", '; filename="a\\"b.png"; filename*=UTF-8\'\'a%22b.png') + END, None),
    (part("a", b"\n--XX\nContent-Disposition: form-data; name=model\n\nx\n--XX") + END, None),
    (part("model2", b"x") + part("a-model", b"x") + END, None),
    (part("other", b'name="model"') + END, None),
    (END, None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "value"), FOUND, ids=range(len(FOUND)))
def test_a_field_is_found_by_its_name(body: bytes, value: bytes | None) -> None:
    span = find_field(body, TYPE, "model")
    assert (None if span is None else body[slice(*span)]) == value


def disposition(text: str) -> bytes:
    return f"--XX\r\n{text}\r\n\r\ndear\r\n".encode() + MODEL + END


WRONG = [
    *(
        (disposition(f"Content-Disposition: form-data; {text}"), TYPE)
        for text in (
            "name*=utf-8''model",
            "name=\"x\"; name*=utf-8''model",
            "name*0=mo; name*1=del",
            'name="x"; name="model"',
            'x="; name=other; "; name="model"',
            'name="mod\\el"',
            'name="x\\"; name="model"',
            'filename="x\\"; name=model; "',
            'name = "model"',
            "name='model'",
            "name=<model>",
            'name="model"; filename=""',
            'name="model"; filename="a"',
            'name="Model"',
            'name="model[]"',
            'name="model',
        )
    ),
    (disposition('Content-Disposition: form-data;\r\n name="model"'), TYPE),
    (disposition('A: b\nContent-Disposition: form-data; name="model"'), TYPE),
    (
        disposition(
            "Content-Disposition: form-data; name=x\r\nContent-Disposition: form-data; name=model"
        ),
        TYPE,
    ),
    (b"x\n--XX\n" + part("model", b"dear")[6:].replace(b"\r", b"") + b"\r\n" + MODEL + END, TYPE),
    *(
        (disposition(f"Content-Disposition: form-data{text * (7500 // len(text))}'"), TYPE)
        for text in (" ", "a", ";", " ;", "; a", '; a="', "; a=b", "\\", '"', "=", "\t")
    ),
    (MODEL + END, TYPE + "; boundary=YY"),
    (MODEL + END, "multipart/form-data; boundary*=utf-8''XX"),
    (MODEL + END, "multipart/form-data"),
    (b"", TYPE),
    (b"nothing of the kind", TYPE),
    (MODEL, TYPE),
    (MODEL[:-2], TYPE),
    (b"--XX\r\nContent-Disposition: form-data; name=model\r\n--XX--", TYPE),
    (b"--XXmodel\r\n\r\nw\r\n--XX--", TYPE),
    (MODEL + MODEL + END, TYPE),
    (part("a", b"") * 2000 + END, TYPE),
    (b"--XX" + b"\r\nA: " + b"b" * 10_000 + b"\r\n\r\nw\r\n--XX--", TYPE),
]


@pytest.mark.parametrize(("body", "content_type"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_form_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        find_field(body, content_type, "model")


@pytest.mark.parametrize("body", [body for body, value in FOUND if value is not None])
def test_only_the_models_name_changes(body: bytes) -> None:
    surface = Forwarded("POST", "audio/transcriptions", TYPE)
    named = surface.renamed(body, "theirs")
    assert surface.content_of(named) == {"model": "theirs"}
    assert surface.renamed(named, surface.content_of(body)["model"]) == body


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("images/generations", True),
        ("audio/speech", True),
        ("rerank", True),
        ("messages", True),
        ("moderations", True),
        ("filesystem", True),
        ("files", False),
        ("Files/x", False),
        ("responses/resp_1/anything", False),
        ("chat/completions", False),
        ("chat/completions/id", False),
        ("models/x", False),
        ("fine_tuning/jobs", False),
        ("threads", False),
        ("v1/files", False),
        ("v1/v1/Files/file-1", False),
        ("v1/responses/resp_1", False),
        ("v1/chat/completions", False),
        ("Chat/Completions", False),
        ("engines/dear/completions", False),
        ("openai/deployments/dear/chat/completions", False),
        ("a/b/embeddings/", False),
        ("a/%2e%2e/b", False),
        ("files%2f1", False),
        (" files", False),
        ("files /1", False),
        ("files\\1", False),
        ("files;x", False),
        ("files?x", False),
        ("files#x", False),
        ("things/7/caf\xe9", True),
        ("completionists/v1", True),
    ],
)
def test_what_a_provider_keeps_for_the_operator_is_not_reached(path: str, allowed: bool) -> None:
    assert may_be_forwarded(path) is allowed
