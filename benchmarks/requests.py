"""Reading a request log of ten million calls: lists, every filter, pages far from the first one, words in bodies, one call, a look of the live stream.

Asked over HTTP, one at a time, by somebody who may read everything. A filter that few calls fit is asked for a page, which may end early: what counts is that a
page comes in time, and how many it takes to read the whole log for nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import Any
from urllib.parse import urljoin

import psycopg
import requests

from benchmarks import logged, report
from benchmarks.stage import Stage
from dwctl.request_log.filters import QUERIES

ROWS = 10_000_000
ROUNDS = 20
DEEP = 200
LIST_MS = 300.0
SEARCH_MS = 1000.0
LOG = "/admin/api/v1/requests"
READER = {"x-doubleword-user": "benchmark"}


def main(rows: int = ROWS) -> int:
    """Print the figures."""
    report.begin(f"Reading a request log of {rows:,} calls")
    with Stage("http://127.0.0.1:9", {}, most_s=1500) as stage, stage.connect() as connection:
        logged.report_log(connection, logged.fill(connection, rows))
        connection.execute("UPDATE users SET is_admin = true WHERE username = 'benchmark'")
        web = stage.web(DWCTL_AUTH__PROXY_HEADER__ENABLED="true")
        reader = _Reader(web.url + LOG)
        for name, query in _queries(connection).items():
            report.below(name, reader.p95(query), "ms", LIST_MS)
        report.below(f"page {DEEP} of 100, by links", reader.deep(), "ms", LIST_MS)
        day = {"timestamp_after": _ago(days=1)}
        for name, words in (("words that are there", logged.NEEDLE), ("words that are not", "nowhere")):  # fmt: skip
            found = reader.p95({"body_contains": words, "limit": 5, **day})
            report.below(f"a page of a search: {name}", found, "ms", SEARCH_MS)
        pages, seconds = reader.whole({"body_contains": "nowhere", **day})
        report.figure("pages of a search through a day", pages, "pages", digits=0)
        report.figure("seconds that they take", seconds, "s")
        pages, seconds = reader.whole({"model": "nobody's", "timestamp_after": _ago(days=30)})
        report.figure("pages of a model that nobody asks for, 30 days", pages, "pages", digits=0)
        report.figure("seconds that they take", seconds, "s")
        _look(connection)
        web.stop()
    return report.exit_code()


def _queries(connection: psycopg.Connection[Any]) -> dict[str, dict[str, Any]]:
    busy, idle = (_account(connection, order) for order in ("DESC", "ASC"))
    key, id, batch, at = (
        connection.execute(
            "SELECT api_key_id, request_id, fusillade_batch_id, timestamp FROM http_analytics"
            " WHERE timestamp < now() - interval '9 days' AND fusillade_batch_id IS NOT NULL ORDER BY timestamp DESC LIMIT 1"
        ).fetchone()
        or (None,) * 4
    )
    lists = {
        "the newest 10": {"limit": 10},
        "the newest 100": {},
        "the oldest 100": {"order_desc": "false"},
        "of a day three weeks ago": {"timestamp_before": _ago(days=20), "timestamp_after": _ago(days=21)},
        "skip 5,000": {"skip": 5000},
        "a common model": {"model": "model-0"},
        "a rare model": {"model": "model-199"},
        "a model that nobody asks for": {"model": "nobody's"},
        "the busiest account": {"user_id": busy},
        "the idlest account": {"user_id": idle},
        "a key": {"api_key_id": key},
        "a status": {"status_code": 502},
        "all failures of the idlest account": {"user_id": idle, "status_code_min": 400},
        "an error": {"error_code": "rate_limit"},
        "slow ones": {"min_duration_ms": 19_000},
        "dear ones": {"min_cost": "1000"},
        "a pattern": {"uri_pattern": "%embed%"},
        "a request id": {"request_id": id},
        "a batch, with its hour": {"fusillade_batch_id": batch, "timestamp_after": at, "timestamp_before": at},
        "a custom id": {"custom_id": "line-10"},
        "what an endpoint served": {"served_by": "http://upstream-7.example/v1"},
    }  # fmt: skip
    return {name: {"limit": 100} | query for name, query in lists.items()}


def _account(connection: psycopg.Connection[Any], order: str) -> Any:
    row = connection.execute(
        "SELECT user_id FROM http_analytics WHERE timestamp > now() - interval '1 day'"
        f" GROUP BY user_id ORDER BY count(*) {order} LIMIT 1"  # type: ignore[arg-type]
    ).fetchone()
    return row and row[0]


class _Reader:
    """Asks one web process."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers.update(READER)

    def p95(self, query: dict[str, Any]) -> float:
        """Milliseconds of a page, once it was asked for."""
        self._get(self._url, query)
        times = [self._time(lambda: self._get(self._url, query))[1] for _ in range(ROUNDS)]
        return quantiles(times, n=20)[-1]

    def deep(self) -> float:
        """The slowest of the last pages of many."""
        times, answer = [], self._get(self._url, {"limit": 100})
        for _ in range(DEEP):
            following = urljoin(answer.url, answer.links["next"]["url"])
            answer, took = self._time(lambda url=following: self._get(url, {}))
            times.append(took)
        return max(times[-ROUNDS:])

    def whole(self, query: dict[str, Any]) -> tuple[int, float]:
        """All pages: how many, and in how many seconds."""
        began, pages, url = time.monotonic(), 0, self._url
        while url:
            answer = self._get(url, {} if pages else query)
            pages += 1
            following = answer.links.get("next")
            url = urljoin(answer.url, following["url"]) if following else ""
        return pages, time.monotonic() - began

    def _get(self, url: str, query: dict[str, Any]) -> requests.Response:
        answer = self._session.get(url, params=query, timeout=30)
        answer.raise_for_status()
        return answer

    def _time(self, ask: Callable[[], requests.Response]) -> tuple[requests.Response, float]:
        began = time.perf_counter()
        answer = ask()
        return answer, (time.perf_counter() - began) * 1000


def _look(connection: psycopg.Connection[Any]) -> None:
    """What one look of a live stream costs the database, once a second while anybody watches."""
    since = datetime.now(UTC) - timedelta(seconds=2)
    asked = {"since": since, "at": since, "id": -1, "first": _day(-8), "last": _day(2), "most": 5000, "owner": None}  # fmt: skip
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        connection.execute(QUERIES["written"], asked, prepare=False).fetchall()
        times.append((time.perf_counter() - began) * 1000)
    report.below("a look of the live stream", quantiles(times, n=20)[-1], "ms", 50)


def _day(days: int) -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0) + timedelta(days=days)


def _ago(**more: int) -> str:
    return (datetime.now(UTC) - timedelta(**more)).isoformat()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
