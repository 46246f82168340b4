"""Batches of many lines, put into the queue at once: what uploading and populating leave behind, for parts that begin after those."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psycopg

BYTES = 1000
"""About what a line's body has."""

_BATCH = """
INSERT INTO fusillade.batches (file_id, endpoint, created_by, api_key_id, completion_window, expires_at, total_requests, populated_lines,
                               requests_started_at)
SELECT gen_random_uuid(), '/v1/chat/completions', k.user_id::text, k.id, '24h', now() + interval '24 hours', %(count)s, %(count)s, now()
  FROM api_keys k LIMIT 1
RETURNING id, file_id
"""
_TEMPLATES = """
INSERT INTO fusillade.request_templates (id, file_id, custom_id, endpoint, method, path, body, model, line_number, body_byte_size)
SELECT fusillade.line_id(%(file_id)s, n), %(file_id)s, 'line-' || n, '', 'POST', '/v1/chat/completions', b.body, %(model)s, n, length(b.body)
  FROM generate_series(0, %(count)s - 1) n,
       LATERAL (SELECT json_build_object('model', %(model)s::text, 'messages', json_build_array(
                json_build_object('role', 'user', 'content', n || repeat(' x', %(words)s))))::text AS body) b
"""
_REQUESTS = """
INSERT INTO fusillade.requests (id, batch_id, template_id, model, custom_id, state)
SELECT fusillade.line_id(%(id)s, line_number), %(id)s, id, model, custom_id, 'pending'
  FROM fusillade.request_templates WHERE file_id = %(file_id)s ORDER BY line_number
"""
_MODELS = "INSERT INTO fusillade.batch_models (batch_id, model, requests) VALUES (%(id)s, %(model)s, %(count)s)"
_READY = (
    "SELECT fusillade.make_ready(ARRAY(SELECT id FROM fusillade.requests WHERE batch_id = %(id)s))"
)
_OVER = """
SELECT count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE state IN ('failed', 'canceled')),
       extract(epoch FROM max(coalesce(completed_at, failed_at)) - min(started_at)),
       extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY coalesce(completed_at, failed_at))
                        - percentile_disc(0.1) WITHIN GROUP (ORDER BY coalesce(completed_at, failed_at)))
  FROM fusillade.requests WHERE batch_id = %(id)s
"""


@dataclass(frozen=True)
class Result:
    """What came of a batch; `took_s` from its first line's start to its last one's end, `most_took_s` from a tenth of all ends to nine tenths."""

    completed: int
    failed: int
    took_s: float
    most_took_s: float


def put(database: psycopg.Connection[Any], model: str, count: int) -> Any:
    """A batch of so many lines of about BYTES, ready to be claimed; its id."""
    values: dict[str, Any] = {"model": model, "count": count, "words": BYTES // 2 - 40}
    row = database.execute(_BATCH, values).fetchone()
    assert row is not None
    values["id"], values["file_id"] = row
    for statement in (_TEMPLATES, _REQUESTS, _MODELS, _READY):
        database.execute(statement, values)
    for table in ("requests", "request_templates", "ready"):
        database.execute(f"VACUUM ANALYZE fusillade.{table}")  # type: ignore[arg-type]
    return values["id"]


def wait(database: psycopg.Connection[Any], batch: Any, count: int, within_s: float) -> Result:
    """Until all of its lines are over."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        row = database.execute(
            "SELECT EXISTS (SELECT FROM fusillade.ready), EXISTS (SELECT FROM fusillade.inflight), EXISTS (SELECT FROM fusillade.delayed)"
        ).fetchone()
        if row == (False, False, False):
            found = database.execute(_OVER, {"id": batch}).fetchone()
            assert found is not None
            result = Result(*found)
            if result.completed + result.failed == count:
                return result
        time.sleep(0.05)
    raise SystemExit("not all lines were run")
