"""A gateway with something to call: an endpoint on the fake upstream, models, accounts with keys and credit.

Everything is made through the admin API, as an operator would, and asked for by the tests of the AI surface; what a call left behind is
read from the tables.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
import psycopg
import requests
from psycopg.rows import namedtuple_row

from dwctl.billing import verification
from tests.cast import Cast
from tests.fake_upstream import FakeUpstream
from tests.processes import Service, eventually, free_port

ADMIN = "/admin/api/v1"
EVERYONE = UUID(int=0)
HELLO = [{"role": "user", "content": "Hello"}]
PRICE = ("0.001", "0.002")
"""What priced models cost: input, output."""
UNKNOWN = "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47"
"""An id that no call has. Fixed: what parametrises a test must be the same in every test process."""
UPSTREAM_KEY = "sk-ours-at-the-upstream"
REALTIME, BATCH, FLEX = ("0.001", "0.002"), ("0.0005", "0.001"), ("0.0001", "0.0002")
"""Prices for one token (input, output) that every model of `Stage.flexible` has: BATCH in the window 24h, FLEX in 1h."""
TERMINAL = ("completed", "failed", "canceled")
_OPTIONS = frozenset({"by", "url", "headers", "timeout"})
_FIGURES = {
    "insufficient_credits": {"balance", "needed", "reserved"},
    "spend_cap_exceeded": {"spend_limit", "spent", "needed", "reserved", "resets_at"},
}
"""What some errors have beside the four members that all have."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """A standard user with one key."""

    id: UUID
    email: str
    key: str
    key_id: UUID

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def session(self) -> dict[str, str]:
        """The trusted header by which its user signs in."""
        return {"x-doubleword-user": self.email}


class Gateway:
    """The service under test, seen by an operator (`admin`, `model`, `account`), a caller (`post`, `get`) and an auditor (`left`).

    What waits for a worker is spoken of by response id: `respond`, `converse`, `shown`, `over`, `of`.
    """

    def __init__(
        self, service: Service, upstream: FakeUpstream, cast: Cast, database_url: str
    ) -> None:
        self.service = service
        self.upstream = upstream
        self.cast = cast
        self._database_url = database_url
        self._sql = self._connect()
        self._of_this_thread = threading.local()
        self._endpoints: dict[str, str] = {}
        # Modules whose settings have several values run on one database.
        known = self.all("SELECT alias, id::text FROM deployed_models WHERE NOT deleted")
        self._models: dict[str, str] = dict(known)
        self.alice = self.account()

    def reconnect(self, database_url: str | None = None) -> None:
        """Look at the database through a new connection, at that address if it has changed: for tests that stop it."""
        self._sql.close()
        self._database_url = database_url or self._database_url
        self._sql = self._connect()

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._database_url, autocommit=True, row_factory=namedtuple_row)

    def close(self) -> None:
        self._sql.close()
        self.session.close()

    @property
    def database_url(self) -> str:
        """Of the database that the service runs on."""
        return self._database_url

    @property
    def url(self) -> str:
        return self.service.url

    @property
    def session(self) -> requests.Session:
        """Kept connections, of each thread its own."""
        if not hasattr(self._of_this_thread, "session"):
            self._of_this_thread.session = requests.Session()
        found: requests.Session = self._of_this_thread.session
        return found

    # --- the operator

    def admin(
        self, method: str, path: str, json: Any = None, *, who: str = "admin"
    ) -> requests.Response:
        answer = self.session.request(
            method, self.url + ADMIN + path, json=json, headers=Cast.headers(who), timeout=20
        )
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def endpoint(self, url: str | None = None, **more: Any) -> str:
        """The id of an endpoint at that address, by default the fake upstream's."""
        url = url or self.upstream.url
        if url not in self._endpoints or more:
            body = {"name": unique("endpoint"), "url": url, "sync": False, "api_key": UPSTREAM_KEY}
            made = self.admin("POST", "/endpoints", body | more)
            self._endpoints[url] = made.json()["id"]
        return self._endpoints[url]

    def model(
        self,
        name: str,
        *,
        alias: str | None = None,
        price: tuple[str, str] | None = PRICE,
        endpoint: str | None = None,
        everyone: bool = True,
        wait: bool = True,
        **more: Any,
    ) -> str:
        """The alias of a model that the upstream calls `name`, open to everyone; free without a `price`."""
        alias = alias or (name if price == PRICE and not more else f"{name}+{unique('m')}")
        if alias in self._models:
            return alias
        body = {
            "type": "standard",
            "model_name": name,
            "alias": alias,
            "hosted_on": endpoint or self.endpoint(),
            "tariffs": [tariff(*price)] if price else [],
        }
        self._models[alias] = self.admin("POST", "/models", body | more).json()["id"]
        if everyone:
            self.grant_model(alias)
            if wait:
                self.wait_for_model(alias)
        return alias

    def composite(
        self,
        *components: str | tuple[str, Json],
        price: tuple[str, str] | None = PRICE,
        everyone: bool = True,
        **more: Any,
    ) -> str:
        """The alias of a model that these serve (aliases, with `weight` and so on where it matters), the first one first."""
        alias = unique("composite")
        tariffs = [tariff(*price)] if price else []
        body = {"type": "composite", "model_name": alias, "tariffs": tariffs} | more
        self._models[alias] = self.admin("POST", "/models", body).json()["id"]
        for place, component in enumerate(components):
            name, fields = (component, {}) if isinstance(component, str) else component
            path = f"/models/{self._models[alias]}/components/{self._models[name]}"
            self.admin("POST", path, {"sort_order": place} | fields)
        if everyone:
            self.grant_model(alias)
            self.wait_for_model(alias)
        return alias

    def pool(self, *names: str, weights: tuple[int, ...] = (), **more: Any) -> str:
        """The alias of a composite model, by priority unless said otherwise. Each component has an endpoint of its own, `nowhere` one that
        nobody listens on: what the gateway has learnt of another test's targets is not about them.
        """
        body = {
            "type": "composite",
            "model_name": (alias := unique("pool")),
            "alias": alias,
            "lb_strategy": "priority",
            "fallback_on_status": [429, 500, 502, 503, 504],
            "tariffs": [
                tariff(*REALTIME),
                tariff(*FLEX, api_key_purpose="batch", completion_window="1h"),
            ],
        }
        self._models[alias] = self.admin("POST", "/models", body | more).json()["id"]
        for number, name in enumerate(names):
            # Others may take their time where the machine is busy.
            impatience = {"first_byte_timeout_seconds": 0.4} if "hang" in name else {}
            url = f"http://127.0.0.1:{free_port()}/v1" if name == "nowhere" else self.upstream.url
            endpoint = self.admin(
                "POST",
                "/endpoints",
                {
                    "name": unique(f"server{number}"),
                    "url": url,
                    "sync": False,
                    "api_key": UPSTREAM_KEY,
                    **impatience,
                },
            ).json()["id"]
            part = {
                "type": "standard",
                "model_name": name,
                "alias": unique("part"),
                "hosted_on": endpoint,
            }
            id = self.admin("POST", "/models", part).json()["id"]
            weight = weights[number] if weights else 1
            self.admin(
                "POST",
                f"/models/{self._models[alias]}/components/{id}",
                {"weight": weight, "sort_order": number},
            )
        self.grant_model(alias)
        self.wait_for_model(alias)
        return alias

    def flexible(self, name: str, **more: Any) -> str:
        """The alias of a model with a price for each purpose."""
        alias = more.pop("alias", name)
        tariffs = [
            tariff(*REALTIME),
            tariff(*BATCH, api_key_purpose="batch", completion_window="24h"),
            tariff(*FLEX, api_key_purpose="batch", completion_window="1h"),
        ]
        return self.model(name, alias=alias, price=None, tariffs=tariffs, **more)

    def model_id(self, alias: str) -> str:
        return self._models[alias]

    def grant_model(self, alias: str, group: UUID = EVERYONE) -> None:
        self.admin("POST", f"/groups/{group}/models/{self._models[alias]}")

    def wait_for_model(self, alias: str) -> None:
        """Until every web process serves it."""
        for web in self.service.webs:
            eventually(lambda web=web: self.get(f"/models/{alias}", url=web.url).ok, 5)

    def account(self, credit: str | None = "1000", **key: Any) -> Account:
        """A new user with a key and, unless None, that much credit."""
        name = unique("user")
        email = f"{name}@people.example"
        body = {"username": name, "email": email, "roles": ["StandardUser", "BatchAPIUser"]}
        id = UUID(self.admin("POST", "/users", body).json()["id"])
        if credit is not None:
            self.credit(id, credit)
        made = self.admin("POST", f"/users/{id}/api-keys", {"name": "test", **key}).json()
        return Account(id, email, made["key"], UUID(made["id"]))

    def credit(self, user_id: UUID, amount: str) -> None:
        body = {
            "user_id": str(user_id),
            "transaction_type": "admin_grant",
            "amount": amount,
            "source_id": unique("grant"),
        }
        self.admin("POST", "/transactions", body)

    # --- the caller

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        by: Account | None = None,
        headers: dict[str, str] | None = None,
        url: str | None = None,
        **more: Any,
    ) -> requests.Response:
        """POST below /ai/v1, as alice unless somebody else is named; `body` as JSON unless it is bytes."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {"content-type": "application/json"} | (by or self.alice).authorization
        sent |= headers or {}
        more.setdefault("timeout", 30)
        return self.session.post(f"{url or self.url}/ai/v1{path}", content, headers=sent, **more)

    def get(
        self,
        path: str,
        *,
        by: Account | None = None,
        headers: dict[str, str] | None = None,
        url: str | None = None,
    ) -> requests.Response:
        """GET below /ai/v1, as alice unless somebody else is named or `headers` are given."""
        sent = (by or self.alice).authorization if headers is None else headers
        return self.session.get(f"{url or self.url}/ai/v1{path}", headers=sent, timeout=20)

    def chat(self, model: str, **more: Any) -> requests.Response:
        """A chat call; members of the body in `body`, `stream=True` for events."""
        body = {"model": model, "messages": HELLO} | more.pop("body", {})
        if more.get("stream"):
            body["stream"] = True
        return self.post("/chat/completions", body, **more)

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

    # --- the auditor

    def all(self, statement: str, *values: Any) -> list[Any]:
        return self._sql.execute(statement, values).fetchall()

    def one(self, statement: str, *values: Any) -> Any:
        rows = self.all(statement, *values)
        assert len(rows) == 1, rows
        return rows[0]

    def left(self, answer: requests.Response | str | UUID) -> SimpleNamespace:
        """What a call has left behind, now: request, batch, template (None where there is none), logs, charges."""
        id = answer.headers["x-request-id"] if isinstance(answer, requests.Response) else answer

        def found(table: str, column: str) -> list[Any]:
            return self.all(f"SELECT * FROM {table} WHERE {column} = %s", str(id))  # type: ignore[arg-type]

        # One look: what is written together is seen together.
        with self._sql.transaction():
            self._sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            request, batch, template = (
                next(iter(found(f"fusillade.{table}", "id::text")), None)
                for table in ("requests", "batches", "request_templates")
            )
            return SimpleNamespace(
                id=UUID(str(id)),
                request=request,
                batch=batch,
                template=template,
                logs=found("http_analytics", "request_id::text"),
                charges=found("credits_transactions", "source_id"),
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

    def execute(self, statement: str, *values: Any) -> None:
        """By hand, as an operator in a console."""
        self._sql.execute(statement, values)  # type: ignore[arg-type]

    @contextmanager
    def locked(self, statement: str, *values: Any) -> Iterator[None]:
        """While another transaction has locked what that statement selects."""
        with self._connect() as other, other.transaction():
            other.execute(statement, values)  # type: ignore[arg-type]
            yield

    def leases(self) -> list[Any]:
        """Requests and calls that somebody is said to be working on."""
        return self.all(
            "SELECT id FROM fusillade.inflight UNION ALL SELECT id FROM fusillade.open_calls"
        )

    def log_of(self, answer: requests.Response | str | UUID) -> Any:
        """Its one log row, some time soon: that of a refusal is written after the answer."""
        logs = eventually(lambda: self.left(answer).logs)
        assert len(logs) == 1
        return logs[0]

    def balance(self, user_id: UUID) -> Decimal:
        rows = self.all("SELECT balance FROM user_balance_checkpoints WHERE user_id = %s", user_id)
        return rows[0].balance if rows else Decimal(0)

    def charged(self, user_id: UUID) -> Decimal:
        """The sum of an account's usage entries."""
        row = self.one(
            "SELECT coalesce(sum(amount), 0) AS total FROM credits_transactions WHERE user_id = %s AND transaction_type = 'usage'",
            user_id,
        )
        total: Decimal = row.total
        return total

    def unbalanced(self) -> list[Any]:
        """What does not add up of money, as `dwctl credits verify` looks: there must be nothing."""
        return list(verification.findings(self._sql))


def cost(price: tuple[str, str], input: int = 9, output: int = 3) -> Decimal:
    """What the fake upstream's usual usage costs."""
    return Decimal(price[0]) * input + Decimal(price[1]) * output


def cost_of(log: Any) -> Decimal:
    """What the tokens in a log row cost at PRICE."""
    return cost(PRICE, log.prompt_tokens, log.completion_tokens)


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def tariff(input: str, output: str, **more: Any) -> Json:
    return {
        "name": "price",
        "input_price_per_token": input,
        "output_price_per_token": output,
        "api_key_purpose": "realtime",
    } | more


def events(answer: requests.Response) -> Iterator[Any]:
    """The data of each event of a stream: parsed, or the text `[DONE]`."""
    for line in answer.iter_lines():
        if line.startswith(b"data: "):
            data = line.removeprefix(b"data: ")
            yield "[DONE]" if data == b"[DONE]" else orjson.loads(data)


def text_of(chunks: list[Any]) -> str:
    """What the chunks of a chat stream say."""
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks
        if chunk != "[DONE]"
        for choice in chunk.get("choices", ())
    )


def assert_openai_error(answer: requests.Response, status: int, code: str | None = None) -> Json:
    """The answer is OpenAI's envelope, whole, with that status; gives the error object."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json"), answer.text
    assert UUID(answer.headers["x-request-id"])
    body = answer.json()
    assert set(body) == {"error"}
    error: Json = body["error"]
    more = _FIGURES.get(error.get("code"), frozenset())
    assert {"message", "type", "param", "code"} <= set(error)
    assert set(error) <= {"message", "type", "param", "code"} | more
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    if code is not None:
        assert error["code"] == code, error
    return error


def request_id(response_id: str) -> UUID:
    return UUID(response_id.removeprefix("resp_"))


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
