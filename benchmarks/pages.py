"""What the dashboard's pages cost a web process: CPU and statements of every screen, with 50,000 calls of ten models in the log.

Asked in this process, one at a time, all in turns, by somebody who may see everything; the sign-in (by a trusted header here) is in the CPU, and its statements are
told apart, as are those that only prepare others (pings, settings of a transaction). The first round warms up and is left out. What a browser asks for after a page stands (charts, lists that filters change) is measured as the fragments that they are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import psycopg
from flask import Flask, g, has_request_context
from flask.testing import FlaskClient

from benchmarks import analytics, logged, report
from benchmarks.stage import Stage
from dwctl import config
from dwctl.app import create_app
from dwctl.db import db

CALLS = 50_000
MODELS = 10
ROUNDS = 15
PAGE_MS = 25.0
FRAGMENT_MS = 6.0
READER = {"x-doubleword-user": "benchmark"}
PART = {"HX-Request": "true", "HX-Request-Type": "partial"}
PAGES = {
    "overview": "/",
    "overview, 30 days": "/?range=30d",
    "requests": "/requests",
    "requests that failed": "/requests?status=error&range=7d",
    "a call": "/requests/{call}",
    "playground": "/playground",
    "usage": "/usage",
    "usage by key, 30 days": "/usage?by=key&range=30d",
    "usage by group": "/usage?by=group",
    "models": "/models",
    "a model": "/models/model-0",
    "its routing": "/models/model-0?tab=routing",
    "its prices": "/models/model-0?tab=prices",
    "its access": "/models/model-0?tab=access",
    "endpoints": "/endpoints",
    "an endpoint": "/endpoints/{endpoint}",
    "keys": "/keys",
    "a key": "/keys/{key}",
    "people": "/people",
    "a person": "/people/{user}",
    "groups": "/people/groups",
    "organisations": "/people/organizations",
    "batches": "/batches",
    "files": "/files",
    "queue": "/queue",
    "credits": "/credits",
    "settings": "/settings",
    "audit log": "/settings/audit",
    "account": "/account",
}
_PREPARING = (";", "SET ", "SELECT set_config(")
FRAGMENTS = {
    "list of requests, filtered": "/requests?model=model-0",
    "chart of requests": "/requests/chart",
    "figures of the overview": "/overview/now",
    "calls that failed": "/overview/failed",
    "queue": "/queue",
    "badges": "/badges",
    "chart of the overview": "/overview/calls.json",
}


@dataclass
class Sent:
    """The statements of one request: the sign-in's, those that only prepare others (pings of the pool, settings of a transaction), and the page's own."""

    sign_in: list[str] = field(default_factory=list)
    preparing: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)

    def note(self, statement: str) -> None:
        """Put it where it belongs."""
        if statement.startswith(_PREPARING):
            self.preparing.append(statement)
        elif has_request_context() and "caller" not in g:
            self.sign_in.append(statement)
        else:
            self.own.append(statement)

    def __str__(self) -> str:
        return f"{len(self.own)} statements (sign-in {len(self.sign_in)}, preparing {len(self.preparing)})"


@dataclass
class Cost:
    """What one address took, by round."""

    cpu_ms: list[float] = field(default_factory=list)
    sent: Sent = field(default_factory=Sent)
    size: int = 0


def main() -> int:
    """Print the figures."""
    report.begin(f"The dashboard's pages with {CALLS:,} calls of {MODELS} models")
    models = {f"model-{n}": "plain" for n in range(MODELS)}
    with Stage("http://127.0.0.1:9/v1", models, most_s=600) as stage:
        with stage.connect() as connection:
            logged.fill(connection, CALLS, with_bodies=1000, models=MODELS)
            analytics.make_sums(connection, CALLS)
            connection.execute("UPDATE users SET is_admin = true WHERE username = 'benchmark'")
            ids = _ids(connection)
        app = create_app(config.load(stage.environ(DWCTL_AUTH__PROXY_HEADER__ENABLED="true")))
        _report(app, PAGES, ids, {}, PAGE_MS)
        _report(app, FRAGMENTS, ids, PART, FRAGMENT_MS)
        with app.app_context():
            db.engine.dispose()
    return report.exit_code()


def _ids(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    row = connection.execute(
        "SELECT request_id, user_id, api_key_id, (SELECT id FROM inference_endpoints LIMIT 1) FROM http_analytics"
        " WHERE status_code = 200 AND fusillade_batch_id IS NULL ORDER BY timestamp DESC LIMIT 1"
    ).fetchone()
    assert row
    return dict(zip(("call", "user", "key", "endpoint"), row, strict=True))


def _report(app: Flask, addresses: Mapping[str, str], ids: Mapping[str, Any], headers: Mapping[str, str], most_ms: float) -> None:  # fmt: skip
    client = app.test_client(use_cookies=False)
    costs = {name: Cost() for name in addresses}
    for number in range(ROUNDS + 1):
        for name, address in addresses.items():
            _ask(client, address.format(**ids), {**READER, **headers}, costs[name])
            if not number:
                costs[name].cpu_ms.clear()
    for name, cost in costs.items():
        note = f"{name}: {cost.sent}, {cost.size / 1024:.0f} KB"
        report.at_most(note, median(cost.cpu_ms), "CPU ms", most_ms)


def _ask(client: FlaskClient, address: str, headers: Mapping[str, str], cost: Cost) -> None:  # fmt: skip
    with counted() as seen:
        began = time.process_time()
        answer = client.get(address, headers=headers)
        cost.cpu_ms.append((time.process_time() - began) * 1000)
    if answer.status_code != 200:
        raise SystemExit(f"{address}: {answer.status}\n{answer.text[:2000]}")
    cost.sent, cost.size = seen, len(answer.data)


@contextmanager
def counted() -> Iterator[Sent]:
    """The statements that are sent meanwhile, by SQLAlchemy and on connections of our own."""
    seen = Sent()
    execute = psycopg.Cursor.execute

    def note(self: Any, query: Any, *more: Any, **named: Any) -> Any:
        seen.note(query.decode() if isinstance(query, bytes) else str(query))
        return execute(self, query, *more, **named)

    psycopg.Cursor.execute = note  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
