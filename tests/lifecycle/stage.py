"""A gateway with a worker, seen by the tests of the lifecycle: priced models, marked requests, what each left behind."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import requests
from psycopg.rows import namedtuple_row

from tests.conftest import with_database
from tests.gateway import Account, Gateway, tariff
from tests.processes import eventually

Json = dict[str, Any]

REALTIME, BATCH, FLEX = ("0.001", "0.002"), ("0.0005", "0.001"), ("0.0001", "0.0002")
"""Prices for one token (input, output) that every model of `Stage.flexible` has: BATCH in the window 24h, FLEX in 1h."""
TERMINAL = ("completed", "failed", "canceled")


def cost(price: tuple[str, str], input: int = 9, output: int = 3) -> Decimal:
    """What the fake upstream's usual usage costs."""
    return Decimal(price[0]) * input + Decimal(price[1]) * output


class Stage(Gateway):
    """The gateway with the vocabulary of the lifecycle."""

    def flexible(self, name: str, **more: Any) -> str:
        """The alias of a model with a price for each purpose."""
        alias = more.pop("alias", name)
        tariffs = [
            tariff(*REALTIME),
            tariff(*BATCH, api_key_purpose="batch", completion_window="24h"),
            tariff(*FLEX, api_key_purpose="batch", completion_window="1h"),
        ]
        return self.model(name, alias=alias, price=None, tariffs=tariffs, **more)

    def respond(self, model: str, said: str = "Hello", **more: Any) -> requests.Response:
        """POST /responses; transport options (`by`, `url`, `headers`, `timeout`) beside members of the body."""
        options = {name: more.pop(name) for name in _OPTIONS & more.keys()}
        if more.get("stream"):
            options["stream"] = True
        return self.post("/responses", {"model": model, "input": said, **more}, **options)

    def converse(self, model: str, said: str = "Hello", **more: Any) -> requests.Response:
        """POST /chat/completions, in the same way."""
        options = {name: more.pop(name) for name in _OPTIONS & more.keys()}
        if more.get("stream"):
            options["stream"] = True
        messages = [{"role": "user", "content": said}]
        return self.post(
            "/chat/completions", {"model": model, "messages": messages, **more}, **options
        )

    def shown(self, response_id: str, **more: Any) -> Json:
        """GET /responses/{id}, which must be there."""
        answer = self.get(f"/responses/{response_id}", **more)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    def cancel(self, response_id: str, **more: Any) -> requests.Response:
        return self.post(f"/responses/{response_id}/cancel", b"", **more)

    def delete(
        self, response_id: str, *, by: Account | None = None, url: str | None = None
    ) -> requests.Response:
        return requests.delete(
            f"{url or self.url}/ai/v1/responses/{response_id}",
            headers=(by or self.alice).authorization,
            timeout=20,
        )

    def state(self, response_id: str) -> str | None:
        """Of its row; None where there is none."""
        rows = self.all(
            "SELECT state FROM fusillade.requests WHERE id = %s", request_id(response_id)
        )
        return rows[0].state if rows else None

    def over(self, response_id: str, timeout_s: float = 20) -> Json:
        """The response, once it is in none of the states of waiting and running."""
        eventually(lambda: self.state(response_id) in TERMINAL, timeout_s)
        return self.shown(response_id)

    def begun(self, response_id: str) -> None:
        """Wait until it is being worked on."""
        eventually(lambda: self.state(response_id) == "processing")

    def sent(self, said: str) -> list[Json]:
        """What the upstream has been asked with that text in it."""
        return [seen for seen in self.upstream.seen() if said in seen["raw"]]

    def charges(self, response_id: str) -> list[Decimal]:
        return [charge.amount for charge in self.left(request_id(response_id)).charges]

    def of(self, response_id: str) -> SimpleNamespace:
        """Rows of a response: see `left`."""
        return self.left(request_id(response_id))

    def reconnect(self, database_url: str) -> None:
        """After the database was away."""
        self._sql.close()
        self._sql = psycopg.connect(database_url, autocommit=True, row_factory=namedtuple_row)

    def execute(self, statement: str, *values: Any) -> None:
        """By hand, as an operator in a console."""
        self._sql.execute(statement, values)  # type: ignore[arg-type]

    def leases(self) -> list[Any]:
        """Requests and calls that somebody is said to be working on."""
        return self.all(
            "SELECT id FROM fusillade.inflight UNION ALL SELECT id FROM fusillade.open_calls"
        )


_OPTIONS = frozenset({"by", "url", "headers", "timeout"})


def request_id(response_id: str) -> UUID:
    return UUID(response_id.removeprefix("resp_"))


def clone_of(cluster: str, template: str) -> Iterator[str]:
    """A database of its own, already migrated, for as long as the caller iterates."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')  # type: ignore[arg-type]
    yield with_database(cluster, name)
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[arg-type]


def marker() -> str:
    """A text that is in no other request."""
    return f"mark-{uuid.uuid4().hex[:12]}"


class Held:
    """A call that waits for its answer in a thread of its own."""

    def __init__(self, call: Callable[[], requests.Response]) -> None:
        self._outcome: Any = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], requests.Response]) -> None:
        try:
            self._outcome = call()
        except requests.RequestException as error:
            self._outcome = error

    @property
    def waiting(self) -> bool:
        return self._thread.is_alive()

    def answer(self, timeout_s: float = 20) -> requests.Response:
        outcome = self.ended(timeout_s)
        assert isinstance(outcome, requests.Response), outcome
        return outcome

    def ended(self, timeout_s: float = 20) -> Any:
        """The answer, or what went wrong with the connection."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "still waiting for an answer"
        return self._outcome


def frames(stream: bytes) -> list[str]:
    """The kinds of a stream's frames in order: an event's type, `chunk`, `comment` or `[DONE]`."""
    found = []
    for frame in stream.decode().split("\n\n"):
        if frame.startswith(":"):
            found.append("comment")
        elif frame.startswith("event: "):
            found.append(frame.partition("\n")[0].removeprefix("event: "))
        elif frame == "data: [DONE]":
            found.append("[DONE]")
        elif frame:
            found.append("chunk")
    return found


def without_comments(stream: bytes) -> bytes:
    return b"".join(
        frame + b"\n\n" for frame in stream.split(b"\n\n") if frame and not frame.startswith(b":")
    )
