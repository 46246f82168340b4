"""Pages of files: uploads with their wrong lines, what a file holds, and who may reach it."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dwctl.dashboard import csrf
from tests.batches.desk import CHAT, Desk
from tests.cast import Cast
from tests.dashboard.forms import get, submit, token

HOSTILE = '"><img src=x onerror=alert(1)>' + "w" * 300 + ".jsonl"


@pytest.fixture
def desk(app: Flask, cast: Cast, sql: psycopg.Connection[Any]) -> Desk:
    return Desk(app, sql, cast)


@pytest.fixture
def model(desk: Desk) -> str:
    """One that everybody may use."""
    alias = desk.model()
    desk.sql.execute(
        "INSERT INTO deployment_groups (deployment_id, group_id, granted_by) SELECT id, '00000000-0000-0000-0000-000000000000', %s"
        " FROM deployed_models WHERE alias = %s",
        (desk.cast["admin"], alias),
    )
    return alias


def _line(number: int, model: str, **changed: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    line = {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": body} | changed
    return json.dumps(line)


def _upload(
    client: FlaskClient,
    who: str,
    lines: list[str],
    *,
    name: str = "input.jsonl",
    bearing: bool = True,
) -> TestResponse:
    headers = Cast.headers(who)
    if bearing:
        headers |= {csrf.HEADER: token(get(client, who, "/batches").text)}
    data = {"purpose": "batch", "file": (io.BytesIO("\n".join(lines).encode()), name)}
    return client.post("/files/upload", data=data, headers=headers)


def test_a_right_file_leads_to_its_batch(client: FlaskClient, model: str) -> None:
    answer = _upload(client, "alice", [_line(n, model) for n in range(3)], name=HOSTILE)
    assert answer.status_code == 201, answer.text
    page = get(client, "alice", answer.location)
    assert page.status_code == 200
    assert "3 lines" in page.text
    assert "onerror=alert(1)>" not in page.text
    assert f'value="{CHAT}" selected' in page.text
    assert get(client, "bob", answer.location).status_code == 404


def test_wrong_lines_are_named_with_their_numbers_and_nothing_is_kept(
    client: FlaskClient, desk: Desk, model: str
) -> None:
    before = desk.one("SELECT count(*) FROM fusillade.files")
    lines = [_line(1, model), _line(2, model, method="GET"), "", "<script>nonsense", _line(5, "x<b>")]  # fmt: skip
    answer = _upload(client, "alice", lines)
    assert answer.status_code == 422
    assert re.findall(r'data-line="(\d+)"', answer.text) == ["2", "4", "5"]
    assert "3 lines are wrong" in answer.text
    assert "<b>" not in answer.text
    assert desk.one("SELECT count(*) FROM fusillade.files") == before


def test_of_many_wrong_lines_the_first_twenty_are_named(client: FlaskClient, model: str) -> None:
    answer = _upload(client, "alice", [_line(n, model, method="PUT") for n in range(500)])
    named = re.findall(r'data-line="(\d+)"', answer.text)
    assert named == [str(number) for number in range(1, 21)]
    assert "The first 20 lines that are wrong" in answer.text


class _Endless:
    """A form with a file whose lines are all wrong, as long as anybody reads; says how much was read."""

    def __init__(self) -> None:
        self.read_bytes = 0
        self._head = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="endless.jsonl"\r\n\r\n'
        )

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "all of it is wanted at once"
        piece = (self._head or b"wrong\n" * (size // 6 + 1))[:size]
        self._head = b""
        self.read_bytes += len(piece)
        return piece


def test_an_upload_is_read_as_it_comes_and_no_further_than_its_errors(
    client: FlaskClient, model: str
) -> None:
    endless = _Endless()
    headers = Cast.headers("alice") | {csrf.HEADER: token(get(client, "alice", "/batches").text)}
    answer = client.post(
        "/files/upload",
        headers=headers,
        environ_overrides={
            "wsgi.input": endless,
            "CONTENT_LENGTH": "90000000",
            "CONTENT_TYPE": "multipart/form-data; boundary=b",
        },
    )
    assert answer.status_code == 422
    assert endless.read_bytes < 1_000_000


def test_an_empty_file_is_refused_with_words(client: FlaskClient, model: str) -> None:
    answer = _upload(client, "alice", [])
    assert answer.status_code == 422
    assert "One line is wrong" in answer.text or "empty" in answer.text


def test_an_upload_bears_its_token_in_the_header_alone(client: FlaskClient, model: str) -> None:
    assert _upload(client, "alice", [_line(1, model)], bearing=False).status_code == 403
    bearing = token(get(client, "alice", "/batches").text)
    data = {"_token": bearing, "file": (io.BytesIO(_line(1, model).encode()), "x.jsonl")}
    in_form = client.post("/files/upload", data=data, headers=Cast.headers("alice"))
    assert in_form.status_code == 403


def test_a_file_shows_how_it_begins_as_text_and_cut(client: FlaskClient, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "<script>" + "x" * 9000}]}
    location = _upload(client, "alice", [_line(1, model, body=body)]).location
    file = location.partition("file=")[2]
    page = get(client, "alice", f"/files/{file}").text
    (shown,) = re.findall(r"<li><code>(.*?)</code></li>", page)
    assert "&lt;script&gt;xxx" in shown
    assert len(shown) < 2500
    assert "None yet." in page
    assert get(client, "bob", f"/files/{file}").status_code == 404
    assert get(client, "bob", f"/files/{file}/content").status_code == 404


def test_a_download_is_saved_and_never_shown(client: FlaskClient, model: str) -> None:
    lines = [_line(n, model) for n in range(3)]
    file = _upload(client, "alice", lines, name='a"b.html').location.partition("file=")[2]
    answer = get(client, "alice", f"/files/{file}/content")
    assert [json.loads(line) for line in answer.text.splitlines()] == [json.loads(line) for line in lines]  # fmt: skip
    assert answer.headers["Content-Disposition"].startswith("attachment;")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_files_are_listed_with_their_lines_and_found_by_name(
    client: FlaskClient, model: str
) -> None:
    _upload(client, "alice", [_line(n, model) for n in range(7)], name="seven-lines.jsonl")
    row = re.search(r"seven-lines\.jsonl.*?</tr>", get(client, "alice", "/files?q=seven-l").text, re.DOTALL)  # fmt: skip
    assert row
    assert '<td class="num" data-label="Lines">7</td>' in row[0]
    assert "seven-lines" not in get(client, "bob", "/files").text
    assert "No file matches" in get(client, "alice", "/files?q=eight-l").text


def test_a_deleted_file_is_gone(client: FlaskClient, model: str) -> None:
    file = _upload(client, "alice", [_line(1, model)]).location.partition("file=")[2]
    page = f"/files/{file}"
    assert submit(client, "alice", page, f"{page}/delete", {}).location == page
    assert submit(client, "alice", page, f"{page}/delete", {"confirm": "delete"}).location == "/files"  # fmt: skip
    assert get(client, "alice", page).status_code == 404


def test_outputs_name_their_owner(client: FlaskClient, desk: Desk) -> None:
    insert = "INSERT INTO fusillade.files (name, purpose, uploaded_by) VALUES ('o.jsonl', 'batch_output', %s) RETURNING id"
    row = desk.sql.execute(insert, (str(desk.cast["bob"]),)).fetchone()
    assert row
    assert "<td>bob@cast.example</td>" in get(client, "bob", "/files?purpose=batch_output").text
    assert "<dt>For</dt><dd>bob@cast.example</dd>" in get(client, "bob", f"/files/{row[0]}").text
