"""Lists of the admin API, and the routing value, with 100,000 keys, 20,000 users and 2,000 models in the database.

Lists are asked over HTTP, one at a time, in turns, with every include; the reload is forced while a stream runs whose upstream marks the time, and
what the loop stands still is noted from inside (a greenlet) and from outside (the marks). A page of one row is
what asking costs.
"""

# ruff: noqa: E402  # gevent patches before anything else is imported
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
import time
from collections.abc import Callable
from statistics import quantiles
from urllib.parse import urljoin

import gevent
import psycopg
import requests
from sqlalchemy import create_engine

from benchmarks import measure, report
from benchmarks.snapshot import Standstill
from benchmarks.stage import SECRET, Gunicorn, Stage
from benchmarks.upstream import Upstream
from dwctl import config
from dwctl.catalog.snapshot import Snapshot
from dwctl.db import Connections, engine_options, sqlalchemy_url
from dwctl.encryption import Sealer
from dwctl.wakeups import Wakeups

KEYS = 100_000
USERS = 20_000
MODELS = 2_000
GROUPS = 200
ROUNDS = 40
MOST_MS = 50.0
RELOAD_MS = 1000.0
GAP_MS = 5
MARKS = f"stream-1200-{GAP_MS}"
ADMIN = "/admin/api/v1"
NIL = "00000000-0000-0000-0000-000000000000"

_FILL = (
    # Every tenth key is one account's, which has a list of 10,000.
    """
    INSERT INTO users (username, email, display_name, external_user_id, created_at)
    SELECT 'user ' || n, 'user' || n || '@company' || n %% 300 || '.example', 'Person ' || md5(n::text), 'user' || n, now() - n * interval '1 minute'
      FROM generate_series(1, %(users)s) n
    """,
    "INSERT INTO user_roles (user_id, role) SELECT id, 'STANDARDUSER' FROM users WHERE username LIKE 'user %%'",
    "INSERT INTO user_roles (user_id, role) SELECT id, 'BATCHAPIUSER' FROM users WHERE username LIKE 'user %%5'",
    "UPDATE users SET is_admin = true WHERE username = 'benchmark'",
    """
    INSERT INTO groups (name, description, created_by, source)
    SELECT 'group ' || n, 'Who works on ' || md5(n::text), %(nil)s, 'native' FROM generate_series(1, %(groups)s) n
    """,
    """
    WITH u AS (SELECT id, row_number() OVER () AS n FROM users WHERE username LIKE 'user %%'), g AS (SELECT id, row_number() OVER () AS n FROM groups WHERE id <> %(nil)s)
    INSERT INTO user_groups (user_id, group_id) SELECT u.id, g.id FROM u JOIN g ON g.n IN (1 + u.n %% %(groups)s, 1 + u.n * 7 %% %(groups)s, 1 + u.n * 13 %% %(groups)s) ON CONFLICT DO NOTHING
    """,
    """
    WITH u AS (SELECT id, row_number() OVER () - 1 AS n FROM users WHERE username LIKE 'user %%')
    INSERT INTO api_keys (name, secret_hash, secret_prefix, user_id, created_by, purpose, created_at)
    SELECT 'key ' || k, sha256(('key ' || k)::bytea), 'sk-', u.id, u.id, CASE k %% 3 WHEN 0 THEN 'batch' ELSE 'realtime' END, now() - k * interval '1 second'
      FROM generate_series(1, %(keys)s) k JOIN u ON u.n = CASE WHEN k %% 10 = 0 THEN 0 ELSE k %% %(users)s END
    """,
    "INSERT INTO user_balance_checkpoints (user_id, balance) SELECT id, 12.5 FROM users WHERE username LIKE 'user %%'",
    """
    INSERT INTO inference_endpoints (name, url, created_by) SELECT 'endpoint ' || n, 'http://127.0.0.1:9/v1/' || n, %(nil)s FROM generate_series(1, 40) n
    """,
    """
    WITH e AS (SELECT id, row_number() OVER () - 1 AS n FROM inference_endpoints WHERE name LIKE 'endpoint %%')
    INSERT INTO deployed_models (model_name, alias, description, type, capabilities, created_by, hosted_on, is_composite, capacity, requests_per_second, metadata, created_at)
    SELECT 'vendor/model-' || k, 'model ' || k, 'A model that ' || md5(k::text), 'CHAT', '{vision,reasoning}', %(nil)s, CASE WHEN k %% 10 > 0 THEN e.id END, k %% 10 = 0,
           CASE WHEN k %% 4 = 0 THEN 100 END, CASE WHEN k %% 5 = 0 THEN 10 END,
           jsonb_build_object('provider', 'provider ' || k %% 20, 'intelligence_index', k %% 70, 'context_window', 1000 * (k %% 200), 'released_at', '2025-01-01'),
           now() - k * interval '1 minute'
      FROM generate_series(1, %(models)s) k JOIN e ON e.n = k %% 40
    """,
    """
    WITH c AS (SELECT id, row_number() OVER (ORDER BY alias) AS n FROM deployed_models WHERE is_composite),
         s AS (SELECT id, row_number() OVER (ORDER BY alias) AS n FROM deployed_models WHERE NOT is_composite)
    INSERT INTO deployed_model_components (composite_model_id, deployed_model_id, weight, sort_order)
    SELECT c.id, s.id, 1 + s.n %% 9, p FROM c CROSS JOIN generate_series(0, 4) p JOIN s ON s.n = 1 + (c.n * 5 + p) %% 1500
    """,
    """
    WITH g AS (SELECT id, row_number() OVER () - 1 AS n FROM groups WHERE id <> %(nil)s), m AS (SELECT id, row_number() OVER () AS n FROM deployed_models)
    INSERT INTO deployment_groups (deployment_id, group_id) SELECT m.id, g.id FROM m JOIN g ON g.n IN (m.n %% %(groups)s, m.n * 3 %% %(groups)s, m.n * 11 %% %(groups)s, m.n * 17 %% %(groups)s) ON CONFLICT DO NOTHING
    """,
    "INSERT INTO deployment_groups (deployment_id, group_id) SELECT id, %(nil)s FROM deployed_models WHERE alias LIKE 'model %%7' ON CONFLICT DO NOTHING",
    """
    INSERT INTO model_tariffs (deployed_model_id, name, input_price_per_token, output_price_per_token, api_key_purpose, completion_window)
    SELECT id, t.name, 0.000001, 0.000002, t.purpose, t.window FROM deployed_models
     CROSS JOIN (VALUES ('realtime', 'realtime', NULL), ('batch', 'batch', '24h'), ('flex', 'batch', '1h')) t(name, purpose, "window")
     WHERE alias LIKE 'model %%' ON CONFLICT DO NOTHING
    """,
    "INSERT INTO model_traffic_rules (deployed_model_id, api_key_purpose, action) SELECT id, 'playground', 'deny' FROM deployed_models WHERE alias LIKE 'model %%3'",
    # Some use: a month of days, and the last hours in steps of ten minutes.
    """
    INSERT INTO model_rollups (of_all, grain, bucket, model, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens,
                               total_tokens, cost, duration_ms, ttfb_ms, timed, last_at)
    SELECT false, g.grain, g.bucket, m.alias, 200, 10, 1000, 1000, 0, 0, 2000, 0.03, 5000, 500, 10, now()
      FROM deployed_models m CROSS JOIN (SELECT 86400, date_trunc('day', now(), 'UTC') - d * interval '1 day' FROM generate_series(1, 30) d
            UNION ALL SELECT 60, date_trunc('hour', now()) - d * interval '10 minutes' FROM generate_series(1, 6) d
            UNION ALL SELECT 0, 'epoch') g(grain, bucket)
    """,
)


def main() -> int:
    """Print the figures."""
    report.begin(f"The admin API with {KEYS:,} keys, {USERS:,} users, {MODELS:,} models")
    with Upstream() as upstream, Stage(upstream.url, {"marks": MARKS}, most_s=600) as stage:
        _fill(stage.url)
        web = stage.web(DWCTL_AUTH__PROXY_HEADER__ENABLED="true")
        _lists(web, _busiest(stage.url))
        _streams(web.url, stage.url)
        web.stop()
        _reloads(stage.url)
    return report.exit_code()


def _fill(url: str) -> None:
    began = time.monotonic()
    values = {"users": USERS, "keys": KEYS, "models": MODELS, "groups": GROUPS, "nil": NIL}
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _FILL:
            connection.execute(statement, values)
        connection.execute("VACUUM ANALYZE")
    report.figure("filling the database", time.monotonic() - began, "s")


def _busiest(url: str) -> str:
    """The account with the longest list of keys."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT user_id FROM api_keys GROUP BY 1 ORDER BY count(*) DESC LIMIT 1").fetchone()  # fmt: skip
    assert row
    return str(row[0])


def _lists(web: Gunicorn, busiest: str) -> None:
    """All lists in turns, so that what else the machine does meets all of them; the page of one row is what asking costs."""
    url = web.url
    every_model = "groups,metrics,status,pricing,endpoints,components,facets"
    lists = {
        "one user": "/users?limit=1",
        "users, all includes": "/users?limit=100&include=groups,billing,organizations",
        "users, 19,000 skipped": "/users?limit=100&skip=19000&include=groups,billing",
        "users, searched": "/users?limit=100&search=Person%20ff&include=groups,billing",
        "keys, of 10,000": f"/users/{busiest}/api-keys?limit=100",
        "keys, 9,800 skipped": f"/users/{busiest}/api-keys?limit=100&skip=9800",
        "models, all includes": f"/models?limit=100&include={every_model}",
        "models, 1,900 skipped": f"/models?limit=100&skip=1900&include={every_model}",
        "models by price": f"/models?limit=100&sort=price_from&include={every_model}",
        "models, searched": f"/models?limit=100&search=model%2019&include={every_model}",
        "groups with users and models": "/groups?limit=10&include=users,models",
    }
    session = requests.Session()
    session.headers.update(
        {"x-doubleword-user": "benchmark", "x-doubleword-email": "benchmark@example.com"}
    )
    lists |= {f"{name}, from a cursor": _further(session, url + ADMIN + lists[name]) for name in ("users, all includes", "models by price")}  # fmt: skip
    seen: dict[str, list[float]] = {name: [] for name in lists}
    used: dict[str, float] = dict.fromkeys(lists, 0.0)
    for _ in range(ROUNDS):
        for name, path in lists.items():
            before = measure.cpu_s(web.pid)
            full = path if "://" in path else url + ADMIN + path
            seen[name].append(_ms(session, full))
            used[name] += (measure.cpu_s(web.pid) - before) * 1000 / ROUNDS
    for name, times in seen.items():
        report.figure(f"{name}: CPU of the web process", used[name], "ms")
        report.figure(f"{name}: p50", quantiles(times, n=100)[49], "ms")
        if "groups with" in name:
            continue  # whole users and models: nobody's list (decision 35)
        report.below(f"{name}: p95", quantiles(times, n=100)[94], "ms", MOST_MS)


def _further(session: requests.Session, url: str) -> str:
    """The URL of a page in the middle: ten pages on."""
    for _ in range(10):
        answer = session.get(url)
        answer.raise_for_status()
        url = urljoin(answer.url, answer.links["next"]["url"])
    return url


def _ms(session: requests.Session, url: str) -> float:
    began = time.perf_counter()
    answer = session.get(url)
    took_ms = (time.perf_counter() - began) * 1000
    if answer.status_code != 200:
        raise SystemExit(f"{url}: {answer.status_code} {answer.text[:500]}")
    return took_ms


def _reloads(url: str) -> None:
    """From inside: how long a full reload takes, and what the loop stands still."""
    settings = config.load({"DATABASE_URL": url, "DWCTL_SECRET_KEY": "a-secret-key-for-benchmarks"})
    engine = create_engine(sqlalchemy_url(url), **engine_options(settings))
    snapshot = Snapshot(settings, Connections(engine), Sealer([settings.secret_key or ""]))
    wakeups, standstill = Wakeups(settings), Standstill()

    idle_ms, _ = standstill.during(lambda: gevent.sleep(1))
    report.figure("longest standstill: nothing to do", idle_ms, "ms")

    def start() -> None:
        snapshot.start(wakeups)
        wakeups.start()
        assert snapshot.wait_loaded(60)

    def anew() -> None:
        snapshot._mark = None
        assert snapshot.wait_fresher_than(time.monotonic(), 60)

    _reload("first load", standstill.during(start))
    gevent.sleep(1)
    for _ in range(3):
        _reload("all read anew", standstill.during(anew))
        gevent.sleep(1)
    counts = {name: len(getattr(snapshot.routing, name)) for name in ("keys", "groups", "funded", "models")}  # fmt: skip
    full = counts["keys"] == KEYS + 1 and counts["models"] == MODELS + 1
    report.proven("what the value holds", holds=full, what=str(counts))
    snapshot.stop()
    wakeups.stop()
    engine.dispose()


def _reload(name: str, seen: tuple[float, float]) -> None:
    longest_ms, took_ms = seen
    report.below(f"{name}: took", took_ms, "ms", RELOAD_MS)
    report.below(f"{name}: longest standstill", longest_ms, "ms", MOST_MS)


# More rows than are named: each of these tables is read whole.
_EVERYTHING = (
    "UPDATE api_keys SET description = 'x' WHERE id IN (SELECT id FROM api_keys LIMIT 5000)",
    "UPDATE user_groups SET joined_at = now() WHERE id IN (SELECT id FROM user_groups LIMIT 5000)",
    "UPDATE user_balance_checkpoints SET balance = balance + 1",
    "UPDATE deployed_models SET description = 'x'",
)
_LITTLE = (
    "UPDATE api_keys SET capacity = 5 WHERE id = (SELECT id FROM api_keys ORDER BY random() LIMIT 1)",
    "UPDATE deployed_models SET capacity = 50 WHERE id = (SELECT id FROM deployed_models ORDER BY random() LIMIT 1)",
)


def _streams(url: str, database_url: str) -> None:
    """From outside: what a caller of a stream notices."""

    def nothing() -> None:
        return

    def little() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            for _ in range(20):
                for statement in _LITTLE:
                    connection.execute(statement)
                gevent.sleep(0.15)

    def everything() -> None:
        with psycopg.connect(database_url) as connection:
            for statement in _EVERYTHING:
                connection.execute(statement)

    # What stalls a stream while nothing changes is the machine's, not the reload's: each is measured right beside the other.
    for name, change in (("40 changes", little), ("all read anew", everything)):
        still_ms, stall_ms = _stream(url, nothing), _stream(url, change)
        report.figure(f"a stream, nothing changes, before {name}: longest stall", still_ms, "ms")
        report.below(f"a stream, {name}: longest stall", stall_ms, "ms", MOST_MS)


def _stream(url: str, change: Callable[[], object]) -> float:
    """The longest time between two marks of a stream, beyond the gap at which its upstream sends them, while `change` works; ms."""
    asked = {"model": "marks", "messages": [{"role": "user", "content": "x"}], "stream": True}
    headers = {"Authorization": f"Bearer {SECRET}"}
    longest_s, last, changing = 0.0, 0.0, None
    with requests.post(f"{url}/ai/v1/chat/completions", json=asked, headers=headers, stream=True) as answer:  # fmt: skip
        for count, _ in enumerate(answer.iter_lines()):
            now = time.perf_counter()
            if count == 20:
                changing = gevent.spawn(change)
            if count > 20:
                longest_s = max(longest_s, now - last)
            last = now
    assert changing is not None
    changing.get()
    return longest_s * 1000 - GAP_MS


if __name__ == "__main__":
    sys.exit(main())
