"""Files and batches written by SQL, as their routes write them, and what must be true of a batch at any time."""

from __future__ import annotations

import time
import uuid
from typing import Any
from uuid import UUID

import orjson
import psycopg


def file(sql: psycopg.Connection[Any], owner: object, bodies: list[dict[str, Any]], *, path: str = "/v1/chat/completions") -> UUID:  # fmt: skip
    """An uploaded file whose lines have these bodies; custom ids are `c0`, `c1` ..."""
    id = uuid.uuid4()
    sql.execute("INSERT INTO fusillade.files (id, name, purpose, uploaded_by) VALUES (%s, 'f.jsonl', 'batch', %s)", (id, str(owner)))  # fmt: skip
    sql.execute(
        "INSERT INTO fusillade.request_templates (id, file_id, custom_id, endpoint, method, path, body, model, line_number) "
        "SELECT gen_random_uuid(), %s, 'c' || (n - 1), '', 'POST', %s, body, body::json->>'model', n - 1 "
        "FROM unnest(%s::text[]) WITH ORDINALITY l(body, n)",
        (id, path, [orjson.dumps(body).decode() for body in bodies]),
    )
    return id


def same_file(sql: psycopg.Connection[Any], owner: object, lines: int, model: str) -> UUID:
    """A file of so many lines that say `n<line>`, made by the server."""
    id = uuid.uuid4()
    sql.execute("INSERT INTO fusillade.files (id, name, purpose, uploaded_by) VALUES (%s, 'f.jsonl', 'batch', %s)", (id, str(owner)))  # fmt: skip
    sql.execute(
        "INSERT INTO fusillade.request_templates (id, file_id, custom_id, endpoint, method, path, body, model, line_number) "
        "SELECT gen_random_uuid(), %(id)s, 'c' || n, '', 'POST', '/v1/chat/completions', "
        """format('{"model":%%s,"messages":[{"role":"user","content":"n%%s"}]}', to_json(%(model)s::text), n), %(model)s, n """
        "FROM generate_series(0, %(lines)s - 1) n",
        {"id": id, "model": model, "lines": lines},
    )
    return id


def batch(sql: psycopg.Connection[Any], owner: object, file_id: UUID, *, due_s: float = 86400.0, window: str = "24h") -> UUID:  # fmt: skip
    """A batch of a file, which its creation has told everybody of."""
    id = uuid.uuid4()
    with sql.transaction():
        sql.execute(
            "INSERT INTO fusillade.batches (id, file_id, created_by, expires_at, completion_window, total_requests) "
            "SELECT %s, %s, %s, now() + %s * interval '1 second', %s, count(*) FROM fusillade.request_templates WHERE file_id = %s",
            (id, file_id, str(owner), due_s, window, file_id),
        )
        sql.execute(
            "INSERT INTO fusillade.batch_models (batch_id, model, requests) "
            "SELECT %s, model, count(*) FROM fusillade.request_templates WHERE file_id = %s GROUP BY model",
            (id, file_id),
        )
        sql.execute("SELECT pg_notify('fusillade_batches', '')")
    return id


def somebody_waits(sql: psycopg.Connection[Any]) -> None:
    """Return once somebody waits for a lock that this connection's transaction holds."""
    while not sql.execute("SELECT true FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))").fetchone():  # fmt: skip
        time.sleep(0.01)
        sql.execute("SELECT pg_stat_clear_snapshot()")


def wrong(sql: psycopg.Connection[Any], id: UUID) -> list[str]:
    """What a batch says of itself that its rows do not; nothing, however busy it is."""
    found = []
    with sql.transaction():
        sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for name, statement in _CHECKS.items():
            row = sql.execute(statement, {"id": id}).fetchone()
            if row and any(row):
                found.append(f"{name}: {tuple(row)}")
    return found


_CHECKS = {
    "counters": """
        SELECT nullif(b.completed_requests, count(*) FILTER (WHERE r.state = 'completed')),
               nullif(b.failed_requests, count(*) FILTER (WHERE r.state = 'failed')),
               nullif(b.canceled_requests, count(*) FILTER (WHERE r.state = 'canceled'))
          FROM fusillade.batches b LEFT JOIN fusillade.requests r ON r.batch_id = b.id WHERE b.id = %(id)s GROUP BY b.id""",
    "bytes": """
        SELECT nullif(b.output_bytes, coalesce(sum(fusillade.line_bytes(r)) FILTER (WHERE r.state = 'completed'), 0)),
               nullif(b.error_bytes, coalesce(sum(fusillade.line_bytes(r)) FILTER (WHERE r.state IN ('failed', 'canceled')), 0))
          FROM fusillade.batches b LEFT JOIN fusillade.requests r ON r.batch_id = b.id WHERE b.id = %(id)s GROUP BY b.id""",
    "models": """
        SELECT count(*) FROM fusillade.batch_models m
         WHERE m.batch_id = %(id)s AND ROW(completed, failed, canceled) IS DISTINCT FROM (
            SELECT (count(*) FILTER (WHERE r.state = 'completed'), count(*) FILTER (WHERE r.state = 'failed'),
                    count(*) FILTER (WHERE r.state = 'canceled'))
              FROM fusillade.requests r WHERE r.batch_id = %(id)s AND r.model = m.model) HAVING count(*) > 0""",
    "lines of the files": """
        SELECT count(*) FROM fusillade.requests r FULL JOIN (SELECT * FROM fusillade.finished_lines WHERE batch_id = %(id)s) f
            ON f.request_id = r.id AND f.failed = (r.state <> 'completed') AND r.state IN ('completed', 'failed', 'canceled')
         WHERE (r.batch_id = %(id)s OR r.id IS NULL) AND (f.batch_id IS NULL OR r.id IS NULL)
           AND coalesce(r.state, 'completed') IN ('completed', 'failed', 'canceled')""",
    "places": """
        SELECT count(*) - count(DISTINCT request_id), count(*) FILTER (WHERE position >= CASE WHEN failed THEN b.error_lines ELSE b.output_lines END)
          FROM fusillade.finished_lines f JOIN fusillade.batches b ON b.id = f.batch_id WHERE f.batch_id = %(id)s""",
    "gaps": """
        SELECT count(*) FROM (SELECT position, row_number() OVER (ORDER BY position) - 1 AS place
                                FROM fusillade.finished_lines WHERE batch_id = %(id)s AND NOT failed) f WHERE position <> place""",
    "money": """
        SELECT nullif(coalesce((SELECT cost FROM batch_usage WHERE batch_id = %(id)s), 0), coalesce(sum(amount), 0)),
               nullif(coalesce((SELECT sum(total_cost) FROM http_analytics WHERE fusillade_batch_id = %(id)s), 0), coalesce(sum(amount), 0))
          FROM credits_transactions WHERE fusillade_batch_id = %(id)s""",
    "usage": """
        SELECT nullif(u.requests, l.requests), nullif(u.total_tokens, l.tokens)
          FROM batch_usage u, (SELECT count(*) AS requests, coalesce(sum(total_tokens), 0) AS tokens FROM http_analytics
                                WHERE fusillade_batch_id = %(id)s AND status_code BETWEEN 200 AND 299) l
         WHERE u.batch_id = %(id)s""",
}
