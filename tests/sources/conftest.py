"""The stage of connections: a web process, a worker, a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import requests

from tests.gateway import ADMIN, Account, Gateway, Json, unique
from tests.processes import QUICK, eventually
from tests.sources.bucket import S3, SECRET, SECRET_ID, LyingS3, running

SYNC = "DWCTL_CONNECTIONS__SYNC__"
OVER = ("completed", "failed", "deleted")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingS3]:
    server = LyingS3(lines(20))
    yield server
    server.close()


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return (
        environ
        | QUICK
        | {
            "DWCTL_OUTBOUND__SOURCES": "private",
            "DWCTL_CONNECTIONS__CONNECT_TIMEOUT": "1s",
            "DWCTL_CONNECTIONS__READ_TIMEOUT": "1s",
            "DWCTL_CONNECTIONS__ANSWER_TIMEOUT": "5s",
            SYNC + "RETRY_WAIT": "0.1s",
            SYNC + "RETRY_WAIT_MAX": "0.3s",
            SYNC + "LOOK_INTERVAL": "0.5s",
            SYNC + "LEASE": "3s",
            SYNC + "MAX_OBJECT_SIZE": "3000000",
            SYNC + "MAX_OBJECTS": "1000",
        }
    )


class Owner:
    """A user who may have connections, and what they do there."""

    def __init__(self, stage: Gateway, account: Account) -> None:
        self.stage = stage
        self.account = account

    def call(self, method: str, path: str = "", **more: Any) -> requests.Response:
        headers = self.account.session | more.pop("headers", {})
        return requests.request(
            method,
            f"{self.stage.url}{ADMIN}/connections{path}",
            headers=headers,
            timeout=20,
            **more,
        )

    def connect(self, url: str, bucket: str, **config: Any) -> str:
        body = {
            "provider": "s3",
            "name": unique("source"),
            "config": {
                "bucket": bucket,
                "region": "us-east-1",
                "access_key_id": SECRET_ID,
                "secret_access_key": SECRET,
                "endpoint_url": url,
            }
            | config,
        }
        made = self.call("POST", json=body)
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def sync(self, connection: str, **wanted: Any) -> str:
        asked = self.call("POST", f"/{connection}/sync", json=wanted)
        assert asked.status_code == 202, asked.text
        return str(asked.json()["id"])

    def synced(self, connection: str, timeout_s: float = 20, **wanted: Any) -> Json:
        """A synchronisation that is over."""
        return self.over(connection, self.sync(connection, **wanted), timeout_s)

    def over(self, connection: str, sync: str, timeout_s: float = 20) -> Json:
        last: Json = {}

        def done() -> bool:
            last.update(self.call("GET", f"/{connection}/syncs/{sync}").json())
            return last["status"] in OVER

        eventually(done, timeout_s, 0.1)
        return last

    def entries(self, connection: str, sync: str) -> dict[str, Json]:
        answer = self.call("GET", f"/{connection}/syncs/{sync}/entries").json()
        assert answer["has_more"] is False
        return {entry["key"]: entry for entry in answer["data"]}


def user(stage: Gateway, *roles: str) -> Account:
    """A new user with these roles and credit."""
    account = stage.account()
    stage.admin("PATCH", f"/users/{account.id}", {"roles": ["StandardUser", *roles]})
    return account


def counted(sync: Json) -> tuple[int, ...]:
    """Found, skipped, ingested, failed, batches."""
    names = ("files_found", "files_skipped", "files_ingested", "files_failed", "batches_created")
    return tuple(sync[name] for name in names)


def line(custom_id: str, model: str = "fine", **more: Any) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    given = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return orjson.dumps(given | more) + b"\n"


def lines(count: int) -> bytes:
    return b"".join(line(f"line-{number}") for number in range(count))


@pytest.fixture(scope="module")
def owner(stage: Gateway, nothing_fell_over: None) -> Owner:
    stage.flexible("fine")
    stage.service.start_worker()
    return Owner(stage, user(stage, "ConnectionsUser"))
