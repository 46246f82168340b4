"""What the dashboard's pages cost a web process: CPU and statements of every screen, with 50,000 calls of ten models in the log.

Asked in this process, one at a time, all in turns, by somebody who may see everything; the sign-in (by a trusted header here) is in the CPU, and its statements are
told apart, as are those that only prepare others (pings, settings of a transaction). The first round warms up and is left out. What a browser asks for after a page stands (charts, lists that filters change) is measured as the fragments that they are.

What is promised: the CPU below, and of statements three, or as many as `PAGES` and `FRAGMENTS` say with the reason. `tests/dashboard/test_page_budgets.py` counts them too.
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
from flask.testing import EnvironBuilder
from werkzeug.test import run_wsgi_app

from benchmarks import analytics, logged, report
from benchmarks.stage import Stage
from dwctl import config
from dwctl.ai.process import rarely_collect_garbage
from dwctl.app import create_app
from dwctl.db import db

CALLS = 50_000
MODELS = 10
ROUNDS = 15
PAGE_MS = 25.0
FRAGMENT_MS = 6.0
READER = {"x-doubleword-user": "benchmark"}
PART = {"HX-Request": "true", "HX-Request-Type": "partial"}
STATEMENTS = 3
"""Of a page or a part, beside its sign-in, where no more are promised with a reason."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An address, and how many statements it takes at most. why: what those above three are for."""

    address: str
    statements: int = STATEMENTS
    why: str = ""


_FIGURES = "sums and those of the time before, their times, since when sums are kept; what waits, processes, readiness"
_USABLE = "models that may be called, and the groups that are why"
PAGES = {
    "overview": Asked("/", 7, f"{_FIGURES}; who spends"),
    "overview, 30 days": Asked("/?range=30d", 7, f"{_FIGURES}; who spends"),
    "requests": Asked("/requests", 2),
    "requests that failed": Asked("/requests?status=error&range=7d", 5, "two for each stretch of the log that is looked through, as long as a page has time; and the rows"),
    "a call": Asked("/requests/{call}", 1),
    "playground": Asked("/playground", 2),
    "usage": Asked("/usage"),
    "usage by key, 30 days": Asked("/usage?by=key&range=30d", 2),
    "usage by group": Asked("/usage?by=group", 2),
    "models": Asked("/models", 10, "models, their groups, metrics, calls, since when those are kept, tariffs, endpoints; three lists to filter by"),
    "a model": Asked("/models/model-0", 7, "the model, its groups, calls, since when those are kept, tariffs, endpoint, author"),
    "its routing": Asked("/models/model-0?tab=routing"),
    "its prices": Asked("/models/model-0?tab=prices"),
    "its access": Asked("/models/model-0?tab=access", 5, "the model, its groups, all groups; its tools, all tools"),
    "endpoints": Asked("/endpoints", 4, "endpoints, their models, the calls of an hour, since when those are kept"),
    "an endpoint": Asked("/endpoints/{endpoint}", 6, "as endpoints; the first of its models, with tariffs"),
    "keys": Asked("/keys", 4, "keys, how many, secrets before the last rotation, owners and makers"),
    "a key": Asked("/keys/{key}", 6, f"the key, its owner, calls, since when those are kept; {_USABLE}"),
    "people": Asked("/people", 5, "people, how many, roles, groups, balances"),
    "a person": Asked("/people/{user}", 7, f"the person, groups, balance, sign-ins, all groups to join; {_USABLE}"),
    "groups": Asked("/people/groups", 1),
    "organisations": Asked("/people/organizations", 1),
    "batches": Asked("/batches", 2),
    "files": Asked("/files", 1),
    "queue": Asked("/queue", 2),
    "credits": Asked("/credits", 5, "entries, account, balance; what a day costs, since when that is kept"),
    "settings": Asked("/settings", 1),
    "audit log": Asked("/settings/audit", 1),
    "account": Asked("/account", 2),
}  # fmt: skip
FRAGMENTS = {
    "list of requests, filtered": Asked("/requests?model=model-0"),
    "chart of requests": Asked("/requests/chart", 2),
    "figures of the overview": Asked("/overview/now", 6, _FIGURES),
    "calls that failed": Asked("/overview/failed"),
    "queue": Asked("/queue", 2),
    "badges": Asked("/badges", 0),
    "chart of the overview": Asked("/overview/calls.json"),
}
_PREPARING = (";", "SET ", "SELECT set_config(")


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
            ids = ids_of(connection)
        app = create_app(config.load(stage.environ(DWCTL_AUTH__PROXY_HEADER__ENABLED="true")))
        # As in a web process.
        rarely_collect_garbage()
        _report(app, PAGES, ids, {}, PAGE_MS)
        _report(app, FRAGMENTS, ids, PART, FRAGMENT_MS)
        with app.app_context():
            db.engine.dispose()
    return report.exit_code()


def ids_of(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """One of each that pages are of: a call that succeeded, whose it is, its key, an endpoint."""
    row = connection.execute(
        "SELECT request_id, user_id, api_key_id, (SELECT id FROM inference_endpoints LIMIT 1) FROM http_analytics"
        " WHERE status_code = 200 AND fusillade_batch_id IS NULL ORDER BY timestamp DESC LIMIT 1"
    ).fetchone()
    assert row
    return dict(zip(("call", "user", "key", "endpoint"), row, strict=True))


def _report(app: Flask, pages: Mapping[str, Asked], ids: Mapping[str, Any], headers: Mapping[str, str], most_ms: float) -> None:  # fmt: skip
    costs = {name: Cost() for name in pages}
    for number in range(ROUNDS + 1):
        for name, page in pages.items():
            _ask(app, page.address.format(**ids), {**READER, **headers}, costs[name])
            if not number:
                costs[name].cpu_ms.clear()
    for name, cost in costs.items():
        page, own = pages[name], len(cost.sent.own)
        report.at_most(f"{name}: {cost.size / 1024:.0f} KB", median(cost.cpu_ms), "CPU ms", most_ms)
        why = f" ({page.why})" if page.why else ""
        report.proven(
            f"  {cost.sent}", holds=own <= page.statements, what=f"at most {page.statements}{why}"
        )


def _ask(app: Flask, address: str, headers: Mapping[str, str], cost: Cost) -> None:
    # (What a test client adds is no part of a web process.)
    environ = EnvironBuilder(app, address, headers=headers).get_environ()
    with counted() as seen:
        began = time.process_time()
        pieces, status, _headers = run_wsgi_app(app, environ)
        body = b"".join(pieces)
        cost.cpu_ms.append((time.process_time() - began) * 1000)
    if not status.startswith("200 "):
        raise SystemExit(f"{address}: {status}\n{body[:2000].decode()}")
    cost.sent, cost.size = seen, len(body)


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
