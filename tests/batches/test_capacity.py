"""Admission by capacity: the room of a model, and what is counted against it; exactly, over several processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import requests

from dwctl import config
from dwctl.batches.capacity import Demand, Headroom, headroom_of, refusal
from dwctl.batches.duties import forget_reservations
from dwctl.clock import uuid7
from dwctl.config import Batches
from tests.batches.desk import CHAT, Desk, Json
from tests.cast import Cast
from tests.identity.doors import unique
from tests.processes import Service

HOUR_S = 3600
RULES = Batches(window_relaxation_factors={"1h": 1.5, "2h": 0.0})


@pytest.mark.parametrize(
    ("throughput", "window", "limit"),
    [
        (None, "24h", 100 * 24 * HOUR_S),
        (2.0, "24h", 2 * 24 * HOUR_S),
        (2.0, "1h", 2 * HOUR_S * 1.5),
        (2.0, "2h", 0),
        (2.0, "1h 30m", 2 * 1.5 * HOUR_S),
        (0.001, "7d", 604.8),
        (0.0, "24h", 0),
        (-3.0, "24h", 0),
    ],
)
def test_room_is_throughput_times_window_times_relaxation(
    throughput: float | None, window: str, limit: float
) -> None:
    room = headroom_of(Demand(uuid7(), "m", throughput, 1), 0, RULES, window)
    assert room.limit == pytest.approx(limit)
    assert room.is_enough == (limit >= 1)


@pytest.mark.parametrize(
    ("rooms", "wait_s"),
    [
        ([Headroom("a", 2.0, 100, 90, 30)], 10),
        ([Headroom("a", 2.0, 100, 90, 30), Headroom("b", 1.0, 100, 100, 30)], 30),
        ([Headroom("a", 100.0, 100, 100, 1)], 1),
        ([Headroom("a", 1.0, 10**6, 10**6, 10**6)], HOUR_S),
    ],
)
def test_a_refusal_says_when_there_may_be_room(rooms: list[Headroom], wait_s: int) -> None:
    refused = refusal("1h", rooms)
    assert refused.retry_after_s == wait_s
    assert all(room.alias in refused.message for room in rooms)
    assert math.isfinite(refused.retry_after_s)


@pytest.mark.parametrize(
    ("full", "never"),
    [
        ([Headroom("a", 0.0, 0, 0, 1)], "a (0) requests"),
        ([Headroom("a", -1.0, -3600, 0, 1)], "a (0) requests"),
        ([Headroom("a", 1.0, 3600, 0, 10**12)], "a (3600) requests"),
        ([Headroom("a", 1.0, 3600, 3600, 1), Headroom("b", 0.5, 1800, 0, 1801)], ": b (1800) requests"),
    ],
)  # fmt: skip
def test_what_can_never_fit_is_not_to_be_tried_again(full: list[Headroom], never: str) -> None:
    refused = refusal("1h", full)
    assert never in refused.message
    assert (refused.status, refused.retryable, refused.retry_after_s) == (429, False, None)
    assert ("x-should-retry", "false") in refused.headers


def test_what_counts_against_a_window(desk: Desk) -> None:
    """A model that can do 1,000 requests in 24 hours, and about 41 in one."""
    model = desk.model(throughput=1000 / (24 * HOUR_S))
    bob = desk.cast["bob"]

    def fits(lines: int, window: str = "24h") -> bool:
        """Whether there is room; what was let in is taken away again."""
        answer = desk.create("bob", desk.counted(bob, model, lines), completion_window=window)
        if answer.status_code == 201:
            desk.sql.execute("DELETE FROM fusillade.batches WHERE id = %s", (answer.json["id"],))
        else:
            assert answer.status_code == 429, answer.text
        return answer.status_code == 201

    assert fits(1000)
    assert not fits(1001)
    assert fits(62, "1h")
    assert not fits(63, "1h")
    made = desk.create("bob", desk.counted(bob, model, 400)).json["id"]
    assert fits(600)
    assert not fits(601)
    # What is due later than the window takes nothing from it, what is due sooner does.
    assert fits(62, "1h")
    assert (
        desk.create("bob", desk.counted(bob, model, 50), completion_window="1h").status_code == 201
    )
    assert fits(550)
    assert not fits(551)
    # Lines that have ended make room, and batches that are being cancelled, are deleted or over.
    desk.sql.execute("UPDATE fusillade.batch_models SET completed = 100, failed = 20, canceled = 30 WHERE batch_id = %s", (made,))  # fmt: skip
    assert fits(700)
    assert not fits(701)
    for stamp in ("cancelling_at", "deleted_at", "completed_at", "failed_at", "expired_at"):
        desk.stamp(made, **{stamp: "now"})
        assert fits(950), stamp
        desk.stamp(made, **{stamp: None})
    assert not fits(701)
    # Overdue work is to be done as well. So are single requests, and what is reserved.
    desk.stamp(made, expires_at="2026-01-01")
    assert not fits(701)
    desk.sql.execute("INSERT INTO fusillade.ready (model, created_by, deadline, id, batch_id) SELECT %s, 'x', now(), id, id FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 7)) s", (model,))  # fmt: skip
    assert fits(693)
    assert not fits(694)
    reserve = "INSERT INTO batch_capacity_reservations (model_id, completion_window, reserved_requests, expires_at, released_at) SELECT id, %s, 100, now() + %s * interval '1 minute', %s FROM deployed_models WHERE alias = %s"
    for window, minutes, released in (("7d", 1, None), ("24h", -1, None), ("24h", 1, "now")):
        desk.sql.execute(reserve, (window, minutes, released, model))
        assert fits(693)
    desk.sql.execute(reserve, ("24h", 1, None, model))
    assert fits(593)
    assert not fits(594)


def test_all_models_fit_or_none_is_taken(desk: Desk) -> None:
    roomy, full = desk.model(), desk.model(throughput=0)
    bob = desk.cast["bob"]
    file = desk.file(bob, roomy, full)
    answer = desk.create("bob", file)
    assert answer.status_code == 429
    assert full in answer.json["error"]["message"]
    assert roomy not in answer.json["error"]["message"]
    assert "Retry-After" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"
    for table in ("fusillade.batches", "fusillade.files"):
        column = "file_id" if table.endswith("batches") else "name LIKE 'batch-%%' AND id"
        left = f"SELECT count(*) FROM {table} WHERE {column} = %s"
        assert desk.one(left, file) == 0


@pytest.fixture(scope="module")
def urls(environ: dict[str, str], cast: Cast) -> Iterator[list[str]]:
    """Two web processes on one database."""
    with Service(environ) as service:
        yield [service.start_web().url for _ in range(2)]


def burst(urls: list[str], body: Json, count: int, **headers: str) -> list[requests.Response]:
    """So many creates at once, the processes in turn."""

    def create(number: int) -> requests.Response:
        url = f"{urls[number % 2]}/ai/v1/batches"
        return requests.post(url, json=body, headers=Cast.headers("bob") | headers, timeout=60)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(create, range(count)))


def test_a_burst_over_two_processes_admits_exactly_what_fits(desk: Desk, urls: list[str]) -> None:
    """Fifty creates at once for models that have room for 17 of them, and for each only one more line than the others would fill."""
    first, second = desk.model(throughput=17_000 / (24 * HOUR_S)), desk.model()
    bob = desk.cast["bob"]
    file = desk.counted(bob, first, 1000)
    desk.sql.execute("INSERT INTO fusillade.file_models (file_id, model, path, requests, bytes) VALUES (%s, %s, %s, 5, 5)", (file, second, CHAT))  # fmt: skip
    body = {"input_file_id": str(file), "endpoint": CHAT, "completion_window": "24h"}
    answers = burst(urls, body, 50)
    assert Counter(answer.status_code for answer in answers) == {201: 17, 429: 33}
    assert desk.one("SELECT count(*) FROM fusillade.batches WHERE file_id = %s", file) == 17
    lines = "SELECT sum(requests) FROM fusillade.batch_models WHERE model = %s"
    assert desk.one(lines, first) == 17_000
    assert {int(answer.headers["Retry-After"]) for answer in answers if answer.status_code == 429} == {5083}  # fmt: skip


def test_an_order_that_is_sent_many_times_at_once_makes_one_batch(
    desk: Desk, urls: list[str]
) -> None:
    file = desk.file(desk.cast["bob"], desk.model())
    body = {"input_file_id": str(file), "endpoint": CHAT, "completion_window": "24h"}
    answers = burst(urls, body, 20, **{"Idempotency-Key": unique("key")})
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert desk.one("SELECT count(*) FROM fusillade.batches WHERE file_id = %s", file) == 1


def test_reservations_are_forgotten_an_hour_after_their_end(desk: Desk, database_url: str) -> None:
    model = desk.model()
    insert = "INSERT INTO batch_capacity_reservations (model_id, completion_window, reserved_requests, expires_at, released_at) SELECT id, '24h', %s, now() + %s * interval '1 minute', now() + %s * interval '1 minute' FROM deployed_models WHERE alias = %s"
    for number, (expires, released) in enumerate([(-61, None), (10, -61), (-59, None), (10, None)], 1):  # fmt: skip
        desk.sql.execute(insert, (number, expires, released, model))
    with psycopg.connect(database_url) as connection:
        assert forget_reservations(connection, config.Settings()) == 3600
    left = desk.sql.execute("SELECT reserved_requests FROM batch_capacity_reservations r JOIN deployed_models m ON m.id = model_id WHERE alias = %s ORDER BY 1", (model,))  # fmt: skip
    assert left.fetchall() == [(3,), (4,)]
