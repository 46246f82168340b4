"""Claims from millions of waiting lines of 200 models and 1,000 accounts: how long one takes, for one worker and for four, how fair it is, and
whether caps hold.

Two in five lines are one account's, three in ten one model's. A claimer keeps some claims in hand before it completes the oldest, as a
worker does whose calls take a while.
"""

from __future__ import annotations

import multiprocessing
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import psycopg

from benchmarks import measure as measured
from benchmarks.stage import Stage
from dwctl.queue import leases
from dwctl.queue.leases import Policy

BATCHES, LINES = 20_000, 250
MODELS, ACCOUNTS = 200, 1000
BIG_ACCOUNT, BIG_MODEL = 0.4, 0.3
CLAIM, CAP = 100, 100
IN_HAND = 5
SECONDS, WARM_S = 6.0, 1.0
HOT_CAP = 50
POSTGRES = {"shared_buffers": "2GB", "max_wal_size": "8GB"}

_DATA = (
    "SELECT setseed(0.5)",
    "INSERT INTO users (id, username, email, external_user_id) "
    f"SELECT md5('u' || n)::uuid, 'u' || n, 'u' || n || '@example.com', 'u' || n FROM generate_series(0, {ACCOUNTS - 1}) n",
    "INSERT INTO fusillade.request_templates (id, file_id, custom_id, endpoint, method, path, body, model, line_number, body_byte_size) "
    "SELECT md5('t' || f || '.' || n)::uuid, md5('f' || f)::uuid, n, '', 'POST', '/v1/chat/completions', "
    '       \'{"messages":[{"role":"user","content":"\' || repeat(\'x\', 300) || \'"}]}\', \'model\', n, 350 '
    f"FROM generate_series(0, 999) f, generate_series(0, {LINES - 1}) n",
    "CREATE TEMPORARY TABLE plan AS SELECT n, md5('b' || n)::uuid AS id, "
    f"  md5('u' || CASE WHEN random() < {BIG_ACCOUNT} THEN 0 ELSE 1 + floor(random() * {ACCOUNTS - 1})::int END)::uuid::text AS owner, "
    f"  'model-' || CASE WHEN random() < {BIG_MODEL} THEN 0 ELSE 1 + floor(random() * {MODELS - 1})::int END AS model, "
    f"  now() + interval '2 hours' + random() * interval '22 hours' AS due FROM generate_series(0, {BATCHES - 1}) n",
    "INSERT INTO fusillade.batches (id, file_id, created_by, expires_at, total_requests, populated_lines, requests_started_at) "
    f"SELECT id, md5('f' || n % 1000)::uuid, owner, due, {LINES}, {LINES}, now() FROM plan ORDER BY n",
    "INSERT INTO fusillade.requests (id, batch_id, template_id, model, custom_id, state) "
    "SELECT fusillade.line_id(p.id, l), p.id, md5('t' || p.n % 1000 || '.' || l)::uuid, model, l, 'pending' "
    f"FROM plan p, generate_series(0, {LINES - 1}) l",
    "INSERT INTO fusillade.ready (model, created_by, deadline, id, batch_id) "
    f"SELECT model, owner, due, fusillade.line_id(p.id, l), p.id FROM plan p, generate_series(0, {LINES - 1}) l",
    "INSERT INTO fusillade.model_slots (model) SELECT DISTINCT model FROM plan",
    "INSERT INTO fusillade.queues (model, created_by, head_deadline) SELECT model, owner, min(due) FROM plan GROUP BY 1, 2",
)
_TABLES = ["requests", "ready", "queues", "batches", "request_templates", "model_slots", "inflight"]


@dataclass
class Claimed:
    """What one claimer saw. Times in seconds. used_s: CPU time of its database process while it claimed. first_s: the claim that made its plans."""

    first_s: float = 0.0
    times: list[float] = field(default_factory=list)
    used_s: float = 0.0
    accounts: Counter[Any] = field(default_factory=Counter)
    completed: int = 0
    most_in_flight: int = 0


def measure(report: ModuleType) -> None:
    """Print the times of claims, the shares of accounts, and what was in flight at most."""
    report.begin(
        f"claim: {BATCHES * LINES:,} waiting lines, {MODELS} models, {ACCOUNTS} accounts",
        f"{CLAIM} a claim, at most {CAP} of a model in flight, {IN_HAND} claims in hand",
    )
    with Stage("http://127.0.0.1:9", {}, most_s=420, postgres=POSTGRES) as stage:
        began = time.monotonic()
        _fill(stage)
        report.figure("building the data", time.monotonic() - began, "s")
        for workers, target in ((1, 30.0), (4, 60.0)):
            _print(report, stage, workers, target)
        _print_caps(report, stage)


def _print(report: ModuleType, stage: Stage, workers: int, target: float) -> None:
    seen = _run(stage.url, workers, SECONDS, Policy({}, CAP))
    times = sorted(taken for one in seen for taken in one.times)
    who = "1 worker" if workers == 1 else f"{workers} workers"
    report.figure(f"claim, {who}, p50", _at(times, 0.5), "ms")
    report.below(f"claim, {who}, p99", _at(times, 0.99), "ms", target)
    report.figure(
        f"first claim of a connection, {who}", max(one.first_s for one in seen) * 1000, "ms"
    )
    used_s = sum(one.used_s for one in seen) / len(times)
    report.figure(f"PostgreSQL's CPU time a claim, {who}", used_s * 1000, "ms")
    completed = sum(one.completed for one in seen)
    report.figure(f"lines claimed and completed, {who}", completed / SECONDS, "/s", digits=0)
    accounts: Counter[Any] = sum((one.accounts for one in seen), Counter())
    lines = sum(accounts.values())
    largest = 100 * max(accounts.values()) / lines
    report.below(f"largest account's share, {who} (it has 40 %)", largest, "%", 5)
    report.figure(f"accounts that were served, {who}", len(accounts), "", digits=0)
    most = max(one.most_in_flight for one in seen)
    report.proven(f"never above the cap, {who}", holds=most <= CAP, what=f"{most} of {CAP}")


def _print_caps(report: ModuleType, stage: Stage) -> None:
    """All of them at one model, whose cap is less than they want."""
    others = {f"model-{n}": 0 for n in range(1, MODELS)}
    seen = _run(stage.url, 4, 3.0, Policy({**others, "model-0": HOT_CAP}, CAP))
    most = max(one.most_in_flight for one in seen)
    report.proven(
        "4 workers at one model: its cap", holds=most == HOT_CAP, what=f"{most} of {HOT_CAP}"
    )
    completed = sum(one.completed for one in seen)
    report.figure("4 workers at one model, completed", completed / 3.0, "/s", digits=0)


def _fill(stage: Stage) -> None:
    with stage.connect() as database:
        # Without triggers, as a server that restores a dump.
        database.execute("SET session_replication_role = replica")
        for statement in _DATA:
            database.execute(statement)  # type: ignore[call-overload]
        for table in _TABLES:
            database.execute(f"VACUUM ANALYZE fusillade.{table}")  # type: ignore[call-overload]
        # A server that has lived for a while writes its log into old segments. One that has not makes each new one within somebody's commit, which takes 60 ms.
        database.execute("CHECKPOINT")


def _run(url: str, workers: int, seconds: float, policy: Policy) -> list[Claimed]:
    context = multiprocessing.get_context("fork")
    results, gate = context.SimpleQueue(), context.Barrier(workers)
    processes = [
        context.Process(target=_claimer, args=(url, seconds, policy, gate, results))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    seen = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return seen


def _claimer(url: str, seconds: float, policy: Policy, gate: Any, results: Any) -> None:
    with psycopg.connect(url, autocommit=True, options="-c dwctl.queue=own -c jit=off") as own:
        # A worker's connection lives for hours: what its first claims cost, which make its plans, is shown by itself.
        first_s = _claim_for(own, WARM_S, policy).times[0]
        gate.wait()
        seen = _claim_for(own, seconds, policy)
    results.put(replace(seen, first_s=first_s))


def _claim_for(own: psycopg.Connection[Any], seconds: float, policy: Policy) -> Claimed:
    seen, me, in_hand = Claimed(), uuid.uuid4(), []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        used_s, began = measured.run_s(own.info.backend_pid), time.perf_counter()
        with own.transaction():
            jobs = leases.claim(own, me=me, most=CLAIM, policy=policy)
        seen.times.append(time.perf_counter() - began)
        seen.used_s += measured.run_s(own.info.backend_pid) - used_s
        seen.accounts.update(job.created_by for job in jobs)
        if len(seen.times) % 10 == 1:
            seen.most_in_flight = max(seen.most_in_flight, _most_in_flight(own))
        in_hand.append([job.id for job in jobs])
        if len(in_hand) > IN_HAND or len(jobs) < CLAIM:
            seen.completed += _complete(own, in_hand.pop(0))
    for ids in in_hand:
        seen.completed += _complete(own, ids)
    return seen


def _most_in_flight(own: psycopg.Connection[Any]) -> int:
    row = own.execute(
        "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM fusillade.inflight GROUP BY model) c"
    ).fetchone()
    return int(row[0]) if row else 0


def _complete(own: psycopg.Connection[Any], ids: list[uuid.UUID]) -> int:
    with own.transaction():
        own.execute(
            "UPDATE fusillade.requests SET state = 'completed', response_status = 200, response_body = '{}', completed_at = now() "
            "WHERE id = ANY (%s)",
            (ids,),
        )
        own.execute("DELETE FROM fusillade.inflight WHERE id = ANY (%s)", (ids,))
    return len(ids)


def _at(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))] * 1000
