"""Liveness and readiness, asked of real processes."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from tests.cast import Cast
from tests.fake_upstream import FakeUpstream
from tests.gateway import Gateway
from tests.processes import QUICK, Service, eventually

SMALL = {"DWCTL_SNAPSHOT__FULL_RELOAD_INTERVAL": "1s", "DWCTL_RECORDER__QUEUE_SIZE": "4"}


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast, upstream: FakeUpstream) -> Iterator[Service]:
    """One web process that is soon late, and soon half full."""
    with Service(environ | SMALL) as running:
        running.start_web()
        yield running


def ask(service: Service) -> tuple[int, dict[str, dict[str, Any]]]:
    answer = requests.get(service.url + "/readyz", timeout=15)
    return answer.status_code, answer.json()["checks"]


def test_a_process_that_answers_is_healthy(service: Service):
    answer = requests.get(service.url + "/healthz", timeout=5)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_ready_process_says_what_it_looked_at(service: Service):
    answer = requests.get(service.url + "/readyz", timeout=5)
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    database = answer.json()["checks"]["database"]
    assert database["ready"]
    assert database["revision"] == database["wanted_revision"]
    assert answer.json()["checks"]["routing"]["age_s"] < 60


def test_no_living_worker_is_said_but_does_not_make_a_process_unready(service: Service):
    status, found = ask(service)
    assert status == 200
    assert found["workers"]["alive"] == 0
    assert "no worker process is alive" in found["workers"]["problem"]


def test_a_worker_that_beats_is_counted(service: Service, sql: psycopg.Connection):
    sql.execute(
        "INSERT INTO fusillade.daemons (status, hostname, pid, version, config_snapshot, started_at, last_heartbeat)"
        " VALUES ('running', 'here', 1, '0', '{\"type\": \"worker\"}', now(), now())"
    )
    assert ask(service)[1]["workers"] == {"ready": True, "alive": 1}


def test_notifications_that_arrive_are_seen(service: Service):
    eventually(lambda: ask(service)[1]["notifications"]["delivered"])


@pytest.mark.parametrize(
    ("revision", "status"), [("0001", 503), ("9999", 200)], ids=["older code", "newer release"]
)
def test_only_missing_migrations_make_a_process_unready(
    service: Service, sql: psycopg.Connection, revision: str, status: int
):
    (head,) = sql.execute("SELECT version_num FROM alembic_version").fetchone()
    sql.execute("UPDATE alembic_version SET version_num = %s", (revision,))
    found = ask(service)
    assert found[0] == status
    word = "missing" if status == 503 else "newer release"
    assert word in found[1]["database"]["problem"]
    sql.execute("UPDATE alembic_version SET version_num = %s", (head,))
    assert ask(service)[0] == 200


def test_without_its_database_a_process_is_alive_but_not_ready(
    service: Service, cluster: str, database_url: str
):
    name = urlsplit(database_url).path[1:]
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        try:
            status, found = ask(service)
            assert status == 503
            assert not found["database"]["ready"]
            assert found["workers"]["alive"] is None
            assert requests.get(service.url + "/healthz", timeout=5).status_code == 200
        finally:
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    eventually(lambda: ask(service)[0] == 200)


def test_a_day_without_a_partition_makes_a_process_unready(
    service: Service, sql: psycopg.Connection
) -> None:
    (today,) = sql.execute("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')").fetchone()
    sql.execute(f"DROP TABLE http_analytics_p{today}")
    status, found = ask(service)
    sql.execute("SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date, 1)")
    assert (status, found["partition"]["ready"], found["database"]["ready"]) == (503, False, True)
    assert "make_partitions" in found["partition"]["problem"]
    assert ask(service)[0] == 200


def test_what_cannot_be_reloaded_for_long_makes_a_process_unready(
    service: Service, sql: psycopg.Connection
) -> None:
    sql.execute("ALTER TABLE routing_changes RENAME COLUMN table_name TO away")
    try:
        eventually(lambda: ask(service)[0] == 503)
        status, found = ask(service)
        assert [name for name, check in found.items() if not check["ready"]] == ["routing"]
        assert found["routing"]["age_s"] >= 3
    finally:
        sql.execute("ALTER TABLE routing_changes RENAME COLUMN away TO table_name")
    eventually(lambda: ask(service)[0] == 200)


def test_a_backlog_of_the_recorder_is_said_first_in_the_queue_then_in_the_spool(
    stage: Gateway, service: Service, sql: psycopg.Connection
) -> None:
    with stage.locked("LOCK TABLE http_analytics IN EXCLUSIVE MODE"):
        for _ in range(5):
            assert stage.chat("no-such-model").status_code == 404

        def problem() -> str:
            check = ask(service)[1]["recorder"]
            assert check["ready"]
            return str(check.get("problem"))

        assert eventually(lambda: "half full" in problem() or "spool" in problem())
        assert eventually(lambda: "spool" in problem())
        assert ask(service)[1]["recorder"]["spooled_bytes"] > 0
    eventually(lambda: "problem" not in ask(service)[1]["recorder"])


def test_a_worker_that_cannot_claim_is_unready(service: Service, sql: psycopg.Connection) -> None:
    worker = service.start_worker(**QUICK)

    def asked() -> tuple[int, dict[str, Any]]:
        answer = requests.get(worker.url + "/readyz", timeout=15)
        return answer.status_code, answer.json()["checks"]

    eventually(lambda: asked()[0] == 200)
    (claim,) = sql.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'claim' AND pronamespace = 'fusillade'::regnamespace"
    ).fetchone()
    sql.execute(f"ALTER FUNCTION {claim} RENAME TO away")
    try:
        eventually(lambda: asked()[0] == 503)
        assert not asked()[1]["claims"]["ready"]
    finally:
        sql.execute(f"ALTER FUNCTION {claim.replace('claim(', 'away(')} RENAME TO claim")
    eventually(lambda: asked()[0] == 200)


def test_what_everybody_may_ask_names_nobody(stage: Gateway, service: Service) -> None:
    stage.model("usual", alias="unspoken-model")
    shown = requests.get(service.url + "/readyz", timeout=15).text
    for word in ("unspoken", "dwctl:", "postgres", "127.0.0.1", stage.alice.email, "sk-"):
        assert word not in shown
