"""Who is shown the metrics page, of web and worker processes: by default the machine itself, else whoever has the token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from flask import Flask

from dwctl import config
from dwctl.app import create_app
from dwctl.worker.app import create_worker_app
from tests.applications import application
from tests.processes import Service

PATH = "/internal/metrics"
TOKEN = "a-token-for-scrapers"


CREATE = {"web": create_app, "worker": create_worker_app}


@pytest.fixture(scope="module", params=["web", "worker"])
def open_here(request: pytest.FixtureRequest, environ: dict[str, str]) -> Iterator[Flask]:
    with application(environ, CREATE[request.param]) as made:
        yield made


@pytest.fixture(scope="module", params=["web", "worker"])
def with_token(request: pytest.FixtureRequest, environ: dict[str, str]) -> Iterator[Flask]:
    with application(environ | {"DWCTL_METRICS_TOKEN": TOKEN}, CREATE[request.param]) as made:
        yield made


def status(app: Flask, peer: str = "127.0.0.1", **headers: str) -> int:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return (
        app.test_client()
        .get(PATH, headers=sent, environ_overrides={"REMOTE_ADDR": peer})
        .status_code
    )


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", ""])
def test_without_a_token_the_machine_itself_is_shown_it(open_here: Flask, peer: str) -> None:
    assert status(open_here, peer) == 200


@pytest.mark.parametrize("peer", ["10.0.0.1", "192.168.0.1", "8.8.8.8", "2001:db8::1", "fe80::1", "nonsense"])  # fmt: skip
def test_without_a_token_nobody_else_is(open_here: Flask, peer: str) -> None:
    assert status(open_here, peer) == 403
    assert status(open_here, peer, X_Forwarded_For="127.0.0.1") == 403
    assert status(open_here, peer, Authorization=f"Bearer {TOKEN}") == 403


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", ""), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "x"), ("X-Real-IP", "127.0.0.1"),
     ("Forwarded", "for=127.0.0.1"), ("Via", "1.1 vegur")],
)  # fmt: skip
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", ""])
def test_nor_is_anybody_for_whom_a_router_on_this_machine_asks(open_here: Flask, peer: str, name: str, value: str) -> None:  # fmt: skip
    assert status(open_here, peer, **{name: value}) == 403


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.1", "8.8.8.8"])
def test_with_a_token_whoever_has_it_is_shown_it(with_token: Flask, peer: str) -> None:
    for sent in (f"Bearer {TOKEN}", f"bearer  {TOKEN} "):
        assert status(with_token, peer, Authorization=sent) == 200
        assert status(with_token, peer, Authorization=sent, X_Forwarded_For="1.2.3.4") == 200
    assert status(with_token, peer) == 401
    for sent in (TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xff\xfe"):  # fmt: skip
        assert status(with_token, peer, Authorization=sent) == 401, sent


def test_health_stays_open(with_token: Flask, open_here: Flask) -> None:
    for app in (with_token, open_here):
        answer = app.test_client().get("/healthz", environ_overrides={"REMOTE_ADDR": "8.8.8.8"})
        assert answer.status_code == 200


def test_a_short_token_stops_the_start() -> None:
    with pytest.raises(config.ConfigError, match="metrics_token"):
        config.load({"DWCTL_METRICS_TOKEN": "short"})


@pytest.fixture
def processes(environ: dict[str, str]) -> Iterator[Service]:
    with Service(environ | {"DWCTL_METRICS_TOKEN": TOKEN}) as running:
        with running.at_once():
            running.start_web()
            running.start_worker()
        yield running


def test_real_processes_ask_for_the_token(processes: Service) -> None:
    for process in (*processes.webs, *processes.workers):
        answer = requests.get(process.url + PATH, timeout=10)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"
        named = requests.get(process.url + PATH, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)  # fmt: skip
        assert named.status_code == 200
        assert TOKEN not in process.output()
