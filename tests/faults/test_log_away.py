"""PostgreSQL stops, or stands still, while somebody watches the request log or downloads it: who reads is told, and who comes back misses nothing."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from dwctl.local.postgres import EmbeddedPostgres
from tests.applications import migrate
from tests.cast import Cast
from tests.gateway import ADMIN, Gateway
from tests.processes import eventually
from tests.request_log.conftest import LOG
from tests.request_log.test_watching import LIVE, Stream

ROWS = 15_000
"""More than what sockets take on while nobody reads."""
_EXPORT = "{}" + ADMIN + LOG + "/export"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that can be stopped without hurting other tests."""
    folder = Path(tempfile.mkdtemp(prefix="dwctl-log-away-"))
    folder.chmod(0o755)
    made = EmbeddedPostgres(folder / "pg")
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def database_url(server: EmbeddedPostgres) -> str:
    url = server.start()
    migrate(url)
    return url


@contextmanager
def stopped(server: EmbeddedPostgres) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """All its processes stand still, and its sockets take what comes."""
    assert server.pid is not None
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    family = [server.pid, *map(int, children)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            os.kill(pid, signal.SIGCONT)


AWAY = pytest.mark.parametrize("away", [stopped, frozen])


@AWAY
def test_who_watches_gets_what_was_written_when_the_database_is_back(
    stage: Gateway, server: EmbeddedPostgres, away: Any
) -> None:
    alias = stage.model("ok")
    stream = Stream(f"{stage.url}{ADMIN}{LIVE}")
    before = stage.chat(alias).headers["x-request-id"]
    eventually(lambda: before in stream.ids())
    with away(server):
        meanwhile = stage.chat(alias, timeout=30).headers["x-request-id"]
        time.sleep(3)
        assert not stream.ended.is_set()
    eventually(lambda: meanwhile in stream.ids(), timeout_s=30)
    stage.reconnect()
    after = stage.chat(alias).headers["x-request-id"]
    eventually(lambda: after in stream.ids())
    assert len(stream.ids()) == len(set(stream.ids()))
    stream.close()


@AWAY
def test_a_download_is_whole_or_broken_off_and_the_next_one_is_whole(
    stage: Gateway, server: EmbeddedPostgres, away: Any
) -> None:
    stage.reconnect()
    fill = "INSERT INTO http_analytics (request_id, timestamp, method, uri, status_code, duration_ms) SELECT gen_random_uuid(), now(), 'POST', repeat('x', 1000), 200, 1 FROM generate_series(1, %s) RETURNING 1"
    stage.all(fill, ROWS)
    (count,) = stage.one("SELECT count(*) AS rows FROM http_analytics")
    with requests.get(_EXPORT.format(stage.url), headers=Cast.headers("viewer"), stream=True, timeout=60) as answer:  # fmt: skip
        assert answer.status_code == 200
        lines = answer.iter_lines()
        next(lines)
        with ThreadPoolExecutor(1) as pool:
            with away(server):
                read = pool.submit(lambda: 1 + sum(1 for _ in lines))
                time.sleep(3)
            # One that comes to its end has everything; a server that stood still may be taken for one that is away.
            error = read.exception(60)
            assert isinstance(error, requests.RequestException) or (error is None and read.result() == count)  # fmt: skip
            assert away is frozen or error is not None
    eventually(lambda: requests.get(stage.url + "/readyz", timeout=5).ok, timeout_s=30)
    whole = requests.get(_EXPORT.format(stage.url), headers=Cast.headers("viewer"), timeout=120)
    assert len(whole.content.splitlines()) == count
