"""Downloads of the request log: all of it, once, with nothing held while it is read."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from flask import Flask

from dwctl.request_log import routes
from dwctl.request_log.schemas import COLUMNS
from tests.cast import Cast
from tests.identity.doors import ADMIN, Doors
from tests.request_log.conftest import LOG, Ask, Log

EXPORT = LOG + "/export"


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_EXPORT_PAGE", 3)


def test_lines_are_what_the_list_shows(call: Doors, ask: Ask, log: Log) -> None:
    for n in range(7):
        log.call(ago_s=n, model="even" if n % 2 == 0 else "odd", total_cost="0.000001")
    answer = call("viewer", "GET", EXPORT, query_string={"model": "even"})
    assert answer.content_type == "application/x-ndjson"
    assert 'filename="requests.jsonl"' in answer.headers["Content-Disposition"]
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == ask(model="even")["entries"]
    oldest_first = call("viewer", "GET", EXPORT, query_string={"model": "even", "order_desc": "false"})  # fmt: skip
    assert [json.loads(line) for line in oldest_first.text.splitlines()] == lines[::-1]


def test_csv_has_every_column_and_no_formula(call: Doors, log: Log) -> None:
    log.call(model="=cmd()", total_cost="0.5")
    answer = call("viewer", "GET", EXPORT, query_string={"format": "csv"})
    assert answer.content_type == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert tuple(row) == COLUMNS
    assert (row["model"], row["total_cost"], row["custom_id"]) == ("'=cmd()", "0.500000000000000", "")  # fmt: skip


def test_an_accounts_own_without_who_served_them(call: Doors, log: Log, cast: Cast) -> None:
    log.call(user_id=cast["alice"], served_by="gpu")
    log.call(user_id=cast["bob"])
    lines = call("alice", "GET", f"/users/current{EXPORT}").text.splitlines()
    assert ["served_by" in json.loads(line) for line in lines] == [False]


@pytest.mark.parametrize("query", [{"format": "xml"}, {"min_cost": "NaN"}, {"timestamp_after": "x"}], ids=str)  # fmt: skip
def test_what_makes_no_sense_is_400(call: Doors, query: dict[str, str]) -> None:
    assert call("viewer", "GET", EXPORT, query_string=query).status_code == 400


def test_no_connection_is_held_between_pages(app: Flask, log: Log, cast: Cast) -> None:
    for n in range(7):
        log.call(ago_s=n)
    client = app.test_client()
    answer = client.get(f"{ADMIN}{EXPORT}", headers=Cast.headers("viewer"), buffered=False)
    pool: Any = app.extensions["sqlalchemy"]
    with app.app_context():
        held = []
        for page in answer.iter_encoded():
            held.append((page.count(b"\n"), pool.engine.pool.checkedout()))
    answer.close()
    assert held == [(3, 0), (3, 0), (1, 0)]
