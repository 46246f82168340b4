"""The acceptance contract of the Open Responses lifecycle, test by test, under its own names.

Strict mode, one web process, no worker. Users are rows inserted by SQL with few columns; endpoint, model, grant and key come through the
admin API by the trusted header; what is asserted is read from the queue's tables by hand. Each test begins with an empty queue.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import requests

from tests.fake_upstream import FakeUpstream
from tests.processes import Service

EVERYONE = "00000000-0000-0000-0000-000000000000"
LATEST = "SELECT id, state, batch_id FROM fusillade.requests WHERE model = 'gpt-4o' ORDER BY created_at DESC LIMIT 1"
LATEST_OF_RESPONSES = (
    "SELECT r.id, r.state, r.batch_id FROM fusillade.requests r "
    "JOIN fusillade.request_templates t ON r.template_id = t.id "
    "WHERE t.path LIKE '%responses%' ORDER BY r.created_at DESC LIMIT 1"
)
LATEST_PENDING = (
    "SELECT id FROM fusillade.requests WHERE state = 'pending' AND batch_id IS NOT NULL "
    "ORDER BY created_at DESC LIMIT 1"
)
COMPLETE = """
    UPDATE fusillade.requests SET state = 'completed', response_status = 200,
        response_body = '{"output": [{"type": "message", "content": "flex result"}], "usage": {"input_tokens": 5, "output_tokens": 3}}',
        completed_at = NOW()
     WHERE id = %s"""


@dataclass(frozen=True)
class Contract:
    """What the contract's set-up gives to its tests: a server, a key, the database."""

    url: str
    key: str
    sql: psycopg.Connection
    service: Service

    def post(self, path: str, body: dict[str, Any], **headers: str) -> requests.Response:
        return requests.post(
            self.url + path, json=body, headers={**self._authorization, **headers}, timeout=20
        )

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, headers=self._authorization, timeout=20)

    def completed(self, statement: str) -> uuid.UUID:
        """The id of the row that `statement` finds, once it is completed; it has a batch whenever it is seen."""
        until = time.monotonic() + 5
        state = None
        while time.monotonic() < until:
            row = self.sql.execute(statement).fetchone()
            if row is not None:
                id, state, batch_id = row
                assert batch_id is not None
                if state == "completed":
                    assert isinstance(id, uuid.UUID)
                    return id
            time.sleep(0.01)
        raise AssertionError(f"the request is {state!r} after 5 s")

    def retrieved(self, response_id: str) -> dict[str, Any]:
        """The response, once GET shows it completed."""
        until = time.monotonic() + 5
        answer = self.get(f"/ai/v1/responses/{response_id}")
        while time.monotonic() < until:
            if answer.status_code == 200 and answer.json()["status"] == "completed":
                body: dict[str, Any] = answer.json()
                return body
            time.sleep(0.05)
            answer = self.get(f"/ai/v1/responses/{response_id}")
        raise AssertionError(answer.text)

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@pytest.fixture(scope="module")
def environ(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The contract's configuration; the last two mean nothing here, and are accepted."""
    return {
        "DATABASE_URL": database_url,
        "DWCTL_SECRET_KEY": "a-secret-key-for-tests-only",
        "DWCTL_AUTH__PROXY_HEADER__ENABLED": "true",
        "DWCTL_RECORDER__SPOOL_DIR": str(tmp_path_factory.mktemp("spool")),
        "DWCTL_ONWARDS__STRICT_MODE": "true",
        "DWCTL_BACKGROUND_SERVICES__ONWARDS_SYNC__ENABLED": "true",
        "DWCTL_BACKGROUND_SERVICES__TASK_WORKERS__RESPONSE_WORKERS": "1",
    }


@pytest.fixture(scope="module")
def stage(environ: dict[str, str], database_url: str, upstream: FakeUpstream) -> Iterator[Contract]:
    with (
        psycopg.connect(database_url, autocommit=True) as sql,
        Service(environ, is_warm=False) as service,
    ):
        service.start_web()
        key = set_up(service.url, sql, upstream.origin)
        yield Contract(service.url, key, sql, service)


@pytest.fixture
def contract(stage: Contract) -> Contract:
    stage.sql.execute(
        "TRUNCATE fusillade.requests, fusillade.batches, fusillade.request_templates, fusillade.ready, fusillade.queues"
    )
    return stage


def set_up(url: str, sql: psycopg.Connection, upstream_url: str) -> str:
    """Endpoint, model, grant, a user with credit, and that user's key."""
    admin_id = insert_user(sql, "admin", "PLATFORMMANAGER")
    as_admin = {"x-doubleword-user": "admin@example.test", "x-doubleword-email": "admin@example.test"}  # fmt: skip

    def made(path: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.post(f"{url}/admin/api/v1{path}", json=body, headers=as_admin, timeout=20)
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    endpoint = made(
        "/endpoints", {"name": "test-endpoint", "url": upstream_url, "auto_sync_models": False}
    )
    model = made(
        "/models",
        {
            "type": "standard",
            "model_name": "gpt-4o",
            "alias": "gpt-4o",
            "hosted_on": endpoint["id"],
            "open_responses_adapter": True,
        },
    )
    made(f"/groups/{EVERYONE}/models/{model['id']}")
    user_id = insert_user(sql, "user", "STANDARDUSER")
    made(
        "/transactions",
        {
            "user_id": str(user_id),
            "transaction_type": "admin_grant",
            "amount": 1000,
            "source_id": str(admin_id),
        },
    )
    key = made(f"/users/{user_id}/api-keys", {"purpose": "realtime", "name": "Responses test key"})[
        "key"
    ]
    wait_for_model(url, key)
    assert isinstance(key, str)
    return key


def insert_user(sql: psycopg.Connection, name: str, role: str) -> uuid.UUID:
    user_id = uuid.uuid4()
    email = f"{name}@example.test"
    sql.execute(
        "INSERT INTO users (id, username, email, is_admin, auth_source, external_user_id) VALUES (%s, %s, %s, %s, 'test', %s)",
        (user_id, name, email, False, email),
    )
    sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, %s)", (user_id, role))
    return user_id


def wait_for_model(url: str, key: str) -> None:
    until = time.monotonic() + 3
    while time.monotonic() < until:
        answer = requests.get(
            f"{url}/ai/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=5
        )
        if answer.ok and any(model["id"] == "gpt-4o" for model in answer.json()["data"]):
            return
        time.sleep(0.001)
    raise AssertionError("gpt-4o is not among the models")


def test_chat_completion_creates_retrievable_response(contract: Contract) -> None:
    response = contract.post(
        "/ai/v1/chat/completions",
        {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "Hello"}],
            "service_tier": "priority",
        },
    )
    assert response.status_code == 200

    id = contract.completed(LATEST)
    response_id = f"resp_{id}"
    retrieved = contract.get(f"/ai/v1/responses/{response_id}")
    assert retrieved.status_code == 200
    body = retrieved.json()
    assert body["id"] == response_id
    assert body["status"] == "completed"
    assert body["model"] == "gpt-4o"
    assert body["object"] == "response"

    row = contract.sql.execute(
        "SELECT length(response_body) AS body_len FROM fusillade.requests WHERE id = %s", (id,)
    ).fetchone()
    assert row is not None
    assert row[0] > 0


def test_blocking_response_id_matches_fusillade_id(contract: Contract) -> None:
    response = contract.post(
        "/ai/v1/chat/completions",
        {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "Hi"}],
            "service_tier": "priority",
        },
    )
    assert response.status_code == 200
    client_id = response.json()["id"]
    assert client_id.startswith("resp_")
    assert contract.retrieved(client_id)


def test_responses_api_creates_retrievable_response(contract: Contract) -> None:
    response = contract.post(
        "/ai/v1/responses",
        {"model": "gpt-4o", "input": "Hello from responses API", "service_tier": "priority"},
    )
    assert response.status_code == 200

    id = contract.completed(LATEST_OF_RESPONSES)
    retrieved = contract.get(f"/ai/v1/responses/resp_{id}")
    assert retrieved.status_code == 200
    assert retrieved.json()["status"] == "completed"


def test_get_response_returns_404_for_unknown_id(contract: Contract) -> None:
    answer = contract.get(f"/ai/v1/responses/resp_{uuid.uuid4()}")
    assert answer.status_code == 404


def test_fusillade_header_skips_row_creation(contract: Contract) -> None:
    count = "SELECT COUNT(*) FROM fusillade.requests"
    before = contract.sql.execute(count).fetchone()
    answer = contract.post(
        "/ai/v1/chat/completions",
        {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello from batch"}]},
        **{"X-Fusillade-Request-Id": str(uuid.uuid4())},
    )
    assert answer.status_code == 200
    assert contract.sql.execute(count).fetchone() == before
    # Nor does one come later.
    time.sleep(0.5)
    assert contract.sql.execute(count).fetchone() == before


def test_flex_background_returns_202_with_queued_status(contract: Contract) -> None:
    response = contract.post(
        "/ai/v1/responses",
        {
            "model": "gpt-4o",
            "input": "Process this asynchronously",
            "service_tier": "flex",
            "background": True,
        },
    )
    assert response.status_code == 202
    body = response.json()
    assert body["status"] == "queued"
    assert body["object"] == "response"
    assert body["id"].startswith("resp_")
    assert body["background"] is True

    request_id = uuid.UUID(body["id"].removeprefix("resp_"))
    row = contract.sql.execute(
        "SELECT state, batch_id FROM fusillade.requests WHERE id = %s", (request_id,)
    ).fetchone()
    assert row is not None
    state, batch_id = row
    assert state == "pending"
    assert batch_id is not None
    batch = contract.sql.execute(
        "SELECT created_by FROM fusillade.batches WHERE id = %s", (batch_id,)
    ).fetchone()
    assert batch is not None
    assert batch[0]


def test_flex_blocking_waits_for_completion(contract: Contract, database_url: str) -> None:
    def simulate_daemon() -> None:
        """On a connection of its own: find the pending request, mark it as completed."""
        with psycopg.connect(database_url, autocommit=True) as sql:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                if row := sql.execute(LATEST_PENDING).fetchone():
                    sql.execute(COMPLETE, (row[0],))
                    return
                time.sleep(0.05)

    daemon = threading.Thread(target=simulate_daemon)
    daemon.start()
    response = contract.post("/ai/v1/responses", FLEX)
    daemon.join()
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "completed"
    assert body["object"] == "response"


@pytest.fixture
def worker(stage: Contract) -> Iterator[None]:
    process = stage.service.start_worker()
    yield
    process.stop()


@pytest.mark.usefixtures("worker")
def test_flex_blocking_waits_for_completion_by_a_real_worker(contract: Contract) -> None:
    response = contract.post("/ai/v1/responses", FLEX)
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "completed"
    assert body["object"] == "response"
    assert body["output"][0]["content"][0]["text"] == "Hello there friend"
    assert contract.completed(LATEST_OF_RESPONSES) == uuid.UUID(body["id"].removeprefix("resp_"))


def test_priority_background_completes_and_is_retrievable(contract: Contract) -> None:
    response = contract.post(
        "/ai/v1/responses",
        {
            "model": "gpt-4o",
            "input": "Process in background but at realtime priority",
            "service_tier": "priority",
            "background": True,
        },
    )
    assert response.status_code == 202
    body = response.json()
    assert body["status"] == "in_progress"
    assert body["background"] is True
    assert body["id"].startswith("resp_")
    assert contract.retrieved(body["id"])


FLEX = {
    "model": "gpt-4o",
    "input": "Process this synchronously at flex pricing",
    "service_tier": "flex",
}
