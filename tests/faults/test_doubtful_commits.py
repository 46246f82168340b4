"""Requests for a worker whose commit was not heard of, so that their callers are told no: nothing that runs all the same is lost."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import requests

from tests.cast import Cast
from tests.faults.deaf import DeafProxy
from tests.gateway import Gateway, Held, Json, assert_openai_error, marker
from tests.processes import QUICK, Service, eventually


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK


@pytest.fixture(scope="module")
def deaf(database_url: str) -> Iterator[DeafProxy]:
    with DeafProxy(database_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast, deaf: DeafProxy) -> Iterator[Service]:
    with Service(environ) as running:
        with running.at_once():
            running.start_web(DATABASE_URL=deaf.url)
            running.start_worker()
        yield running


def nothing_is_spooled(stage: Gateway) -> bool:
    page = requests.get(f"{stage.url}/internal/metrics", timeout=5).text
    return re.findall(r"^dwctl_recorder_spool_bytes_max\S* (\S+)$", page, re.MULTILINE) == ["0"]


@pytest.mark.parametrize("more", [{}, {"background": True}], ids=["held", "background"])
def test_one_that_a_worker_has_begun_is_logged_and_charged_as_what_it_came_to(
    stage: Gateway, deaf: DeafProxy, more: Json
) -> None:
    model, account, said = stage.flexible("hold"), stage.account(), marker()
    deaf.lost, deaf.deaf_after, deaf.shuts = 0, said.encode(), True
    call = Held(lambda: stage.respond(model, said, by=account, service_tier="flex", **more))
    eventually(lambda: stage.sent(said))
    refused = call.answer()
    assert_openai_error(refused, 503)
    assert deaf.lost == 1
    deaf.deaf_after, deaf.shuts = None, False
    # Whatever this process has had to write is in the database before the worker's record.
    eventually(lambda: stage.left(stage.respond(stage.flexible("ok"), by=account)).logs)
    eventually(lambda: nothing_is_spooled(stage))
    stage.upstream.release()
    id = refused.headers["x-request-id"]
    eventually(lambda: stage.state(f"resp_{id}") == "completed")
    found = stage.left(id)
    assert [row.status_code for row in found.logs] == [200]
    assert len(found.charges) == 1


def test_one_that_lay_in_the_socket_of_a_server_that_stood_still_is_none(
    stage: Gateway, deaf: DeafProxy, sql: psycopg.Connection[Any]
) -> None:
    """Its caller was told no; so what the server takes up when it goes on must not commit, or a worker may begin it at once."""
    deaf.deaf_after = None
    model, account, said = stage.flexible("ok"), stage.account(), marker()
    assert stage.respond(model, by=account, service_tier="flex").status_code == 200
    writers = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'open_calls|record_|end_calls|COMMIT' AND application_name = 'dwctl'"
    servers = [pid for (pid,) in sql.execute(writers).fetchall()]
    for pid in servers:
        os.kill(pid, signal.SIGSTOP)
    try:
        refused = stage.respond(model, said, by=account, service_tier="flex")
    finally:
        for pid in servers:
            os.kill(pid, signal.SIGCONT)
    assert_openai_error(refused, 503)
    eventually(lambda: stage.respond(model, by=account, service_tier="flex").status_code == 200)
    eventually(lambda: nothing_is_spooled(stage))
    id = refused.headers["x-request-id"]
    assert not sql.execute("SELECT FROM fusillade.requests WHERE id = %s", (id,)).rowcount
    assert not stage.sent(said)
