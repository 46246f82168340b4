"""The queue's page and the badges: the same numbers as the monitoring API, and for those who may see them."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.batches.desk import Desk
from tests.cast import Cast
from tests.dashboard.forms import get


@pytest.fixture
def desk(app: Flask, cast: Cast, sql: psycopg.Connection[Any]) -> Desk:
    return Desk(app, sql, cast)


@pytest.mark.parametrize("who", ["alice", "viewer", "biller"])
def test_the_queue_is_for_those_who_run_the_service(
    client: FlaskClient, cast: Cast, who: str
) -> None:
    assert get(client, who, "/queue").status_code == 403
    assert 'data-go="q"' not in get(client, who, "/").text


def test_the_page_shows_the_numbers_of_the_monitoring_api(client: FlaskClient, desk: Desk) -> None:
    first, second = desk.model(), desk.model()
    for model, lines in ((first, 3), (first, 2), (second, 4)):
        desk.create("alice", desk.file(desk.cast["alice"], *[model] * lines))
    counted = client.get("/admin/api/v1/monitoring/pending-request-counts", headers=Cast.headers("admin")).json  # fmt: skip
    page = get(client, "admin", "/queue").text
    for model in (first, second):
        row = re.search(rf">{model}</a></td><td>batch</td>(.*?)</tr>", page)
        assert row
        numbers = re.findall(r">([\d,]+)</td>", row[1])
        due_in_a_day = numbers[-2]
        assert (numbers[0], due_in_a_day) == (str(counted[model]["24h"]),) * 2
    assert [counted[first]["24h"], counted[second]["24h"]] == [5, 4]


def test_a_pause_says_whose_and_why(client: FlaskClient, desk: Desk) -> None:
    model = desk.model()
    desk.sql.execute(
        "INSERT INTO fusillade.queues (model, created_by, head_deadline, paused_until, pause_reason)"
        " VALUES (%s, %s, now() + interval '1 hour', now() + interval '1 hour', 'no_credit')",
        (model, str(desk.cast["bob"])),
    )
    page = get(client, "admin", "/queue").text
    assert re.search(
        rf"{model}</a></td><td>bob@cast\.example</td>.*its account has no credit", page
    )


def test_without_a_worker_the_page_says_that_everything_waits(
    client: FlaskClient, cast: Cast
) -> None:
    assert "No worker runs" in get(client, "admin", "/queue").text


def test_badges_count_what_the_caller_sees(client: FlaskClient, desk: Desk, app: Flask) -> None:
    desk.batch("alice", desk.model())
    app.extensions.pop("dwctl.outline", None)
    manager = get(client, "admin", "/badges").json
    member = get(client, "alice", "/badges").json
    open_ones = desk.one(
        "SELECT count(*) FROM fusillade.batches WHERE created_by = %s AND completed_at IS NULL AND cancelling_at IS NULL AND NOT single",
        str(desk.cast["alice"]),
    )
    assert member == {"batches": open_ones}
    assert manager["queue"] > 0
    assert manager["batches"] >= open_ones
    assert get(client, "biller", "/badges").json == {}
