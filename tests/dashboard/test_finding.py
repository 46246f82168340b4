"""The search box: an id, a prefix, a name or an address leads to its page; what one may not see is not found."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask.testing import FlaskClient

from tests.cast import Cast
from tests.dashboard import forms
from tests.request_log.conftest import Log

Sql = psycopg.Connection[Any]


@pytest.fixture
def log(sql: Sql, cast: Cast) -> Log:
    sql.execute("TRUNCATE http_analytics")
    return Log(sql)


def go(client: FlaskClient, who: str, text: str) -> str:
    """Where the text leads; else the page that it gives."""
    answer = forms.get(client, who, "/go", query_string={"q": text})
    assert answer.status_code in (200, 303), answer.text
    return answer.headers.get("Location") or answer.text


def key_of(sql: Sql, user: UUID, **columns: Any) -> UUID:
    values = {"name": "laptop", "user_id": user, "created_by": user, "purpose": "realtime", "secret_hash": uuid4().bytes * 2, "secret_prefix": "sk-Abc1234", **columns}  # fmt: skip
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    row = sql.execute(f"INSERT INTO api_keys ({names}) VALUES ({marks}) RETURNING id", list(values.values())).fetchone()  # type: ignore[arg-type]  # fmt: skip
    assert row
    id: UUID = row[0]
    return id


@pytest.mark.parametrize("form", ["{}", "resp_{}", "batch_req_{}", " {} "])
def test_a_call_is_found_by_its_id_however_old_it_is(client: FlaskClient, log: Log, form: str) -> None:  # fmt: skip
    call = log.call(ago_s=86_400)
    assert go(client, "viewer", form.format(call)) == f"/requests/{call}"
    assert go(client, "viewer", form.format(str(call).upper())) == f"/requests/{call}"


def test_others_calls_are_not_found(client: FlaskClient, log: Log, cast: Cast) -> None:
    own, others = log.call(user_id=cast["alice"]), log.call(user_id=cast["bob"])
    assert go(client, "alice", f"resp_{own}") == f"/requests/{own}"
    assert "Nothing found" in go(client, "alice", f"resp_{others}")


def test_an_answers_own_id_is_found_in_the_last_hour(client: FlaskClient, log: Log) -> None:
    call = log.tracked("{}", '{"id":"chatcmpl-0123456789abcdef"}')
    assert go(client, "viewer", "chatcmpl-0123456789abcdef") == f"/requests/{call}"
    assert "Nothing found" in go(client, "viewer", "chatcmpl-0123456789abcdee")


def test_a_key_is_found_by_prefix_name_and_id_and_its_secret_goes_no_further(client: FlaskClient, cast: Cast, sql: Sql) -> None:  # fmt: skip
    key = key_of(sql, cast["alice"])
    for text in ("sk-Abc1234", "sk-Abc1234TheRestOfTheSecret", "laptop", str(key)):
        assert go(client, "alice", text) == f"/keys/{key}"
        assert go(client, "admin", text) == f"/keys/{key}"
        assert "Nothing found" in go(client, "bob", text)


def test_a_person_is_found_by_whoever_may_see_people(client: FlaskClient, cast: Cast) -> None:
    assert go(client, "admin", "bob@cast.example") == f"/people/{cast['bob']}"
    assert go(client, "admin", str(cast["bob"])) == f"/people/{cast['bob']}"
    assert "Nothing found" in go(client, "alice", "bob@cast.example")


def test_several_are_listed_by_kind(client: FlaskClient, cast: Cast) -> None:
    page = go(client, "admin", "cast.example")
    assert "Nothing found" in page or "Person" in page
    page = go(client, "admin", "@cast.example")
    assert "things may be meant" in page
    assert f"/people/{cast['alice']}" in page


@pytest.mark.parametrize(
    "text",
    ["", "x" * 5000, "%", "_", "\\", "<script>alert(1)</script>", "resp_", "batch_x", "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47", "batch_0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47", "file-0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47", "sk-", "@", "chatcmpl-' OR 1=1"],
)  # fmt: skip
@pytest.mark.parametrize("who", ["alice", "admin"])
def test_odd_texts_find_nothing_and_break_nothing(client: FlaskClient, log: Log, who: str, text: str) -> None:  # fmt: skip
    page = go(client, who, text)
    assert "<script>alert" not in page
