"""Liveness and readiness, asked of real processes."""

from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from tests.processes import Service, eventually


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
    assert ask(service)[0] == status
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
