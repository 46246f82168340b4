"""A request log of millions of calls, built by SQL: what reading it is measured on.

Thirty days, 200 models and 1,000 accounts of which some are busy and most are not, one call in ten a line of a batch, one in fifty failed. The newest
calls have tracking rows with bodies. Time-ordered, as recorders write: a day's partition is filled from its morning to its evening.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg

from benchmarks import report

DAYS = 30
MODELS = 200
USERS = 1_000
WITH_BODIES = 200_000
NEEDLE = "zebra crossing"
"""Words in the bodies of one call in 5,000 of those that have any."""

_ACCOUNTS = """
INSERT INTO users (id, username, email, external_user_id, created_at)
SELECT md5('account ' || n)::uuid, 'account ' || n, 'account' || n || '@example.com', 'account ' || n, now() - interval '60 days'
  FROM generate_series(0, %(users)s - 1) n
"""
_KEYS = """
INSERT INTO api_keys (id, name, secret_hash, secret_prefix, user_id, created_by, purpose)
SELECT md5('key ' || n)::uuid, 'key ' || n, sha256(('key ' || n)::bytea), 'sk-', md5('account ' || n)::uuid, md5('account ' || n)::uuid, 'realtime'
  FROM generate_series(0, %(users)s - 1) n
"""
# Powers of a uniform number make a few busy and many idle; a batch's lines arrived with it, at the full hour.
_DAY = """
INSERT INTO http_analytics (request_id, timestamp, created_at, method, uri, model, status_code, duration_ms, duration_to_first_byte_ms, prompt_tokens,
    completion_tokens, reasoning_tokens, total_tokens, usage_source, response_type, user_id, api_key_id, access_source, input_price_per_token,
    output_price_per_token, total_cost, fusillade_batch_id, fusillade_request_id, custom_id, request_origin, batch_sla, served_by, error_code)
SELECT id, at, at + took * interval '1 millisecond', 'POST', '/chat/completions', 'model-' || model, status, took,
       CASE WHEN status = 200 THEN took / 4 END, t.prompt, t.completion, 0, t.prompt + t.completion, CASE WHEN status = 200 THEN 'reported' ELSE 'none' END,
       CASE WHEN status = 200 THEN 'chat_completion' ELSE 'other' END, md5('account ' || account)::uuid, md5('key ' || account)::uuid, 'api_key',
       0.000001, 0.000002, t.prompt * 0.000001 + t.completion * 0.000002, CASE WHEN is_line THEN md5('batch ' || at)::uuid END, id,
       CASE WHEN is_line THEN 'line-' || n END, CASE WHEN is_line THEN 'fusillade' ELSE 'api' END, CASE WHEN is_line THEN '24h' ELSE '' END,
       'http://upstream-' || model %% 40 || '.example/v1', CASE status WHEN 429 THEN 'rate_limit' WHEN 502 THEN 'upstream_error' END
  FROM (
    SELECT n, is_line, at, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(n %% 4096), 3, '0') || '8'
            || substr(md5(at::text || n), 1, 15))::uuid AS id, floor(%(models)s * power(random(), 3))::int AS model,
           floor(%(users)s * power(random(), 4))::int AS account, (20 + 20000 * power(random(), 5))::int AS took,
           CASE WHEN n %% 100 = 0 THEN 502 WHEN n %% 101 = 0 THEN 429 ELSE 200 END AS status,
           (10 + 4000 * power(random(), 4))::int AS prompt, (1 + 1500 * power(random(), 3))::int AS completion
      FROM (
        SELECT n, n %% 10 = 0 AS is_line,
               CASE WHEN n %% 10 = 0 THEN date_trunc('hour', d.begins + n * d.step) ELSE d.begins + n * d.step END AS at
          FROM (SELECT %(begins)s::timestamptz AS begins, interval '1 day' / %(calls)s AS step) d, generate_series(0, %(calls)s - 1) n
      ) arrivals OFFSET 0
  ) c CROSS JOIN LATERAL (SELECT CASE WHEN status = 200 THEN prompt ELSE 0 END, CASE WHEN status = 200 THEN completion ELSE 0 END) t(prompt, completion)
 WHERE at < %(until)s
"""
_NEWEST = """
CREATE TEMPORARY TABLE newest ON COMMIT DROP AS
SELECT request_id AS id, timestamp AS at, model, user_id, status_code, row_number() OVER (ORDER BY request_id) AS n FROM http_analytics
 WHERE fusillade_batch_id IS NULL AND timestamp > %(since)s ORDER BY timestamp DESC LIMIT %(bodies)s
"""
_WORDS = "repeat(md5(n::text) || ' the quick brown fox jumps over the lazy dog ', {times}) || CASE WHEN n %% 5000 = 7 THEN %(needle)s ELSE '' END"
_TEMPLATES = f"""
INSERT INTO fusillade.request_templates (id, endpoint, method, path, body, model, body_byte_size, single, created_at)
SELECT id, '', 'POST', '/v1/chat/completions', body, model, octet_length(body), true, at FROM (
    SELECT *, json_build_object('model', model, 'messages', json_build_array(json_build_object('role', 'user', 'content', {_WORDS.format(times=8)})))::text AS body
      FROM newest) b
"""
_TRACKED = f"""
INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, response_status, response_body, response_size, claimed_at,
                                started_at, completed_at, created_at)
SELECT id, id, id, model, 'completed', 'priority', status_code, body, octet_length(body), at, at, at, at FROM (
    SELECT *, json_build_object('id', id, 'choices', json_build_array(json_build_object('message', json_build_object('role', 'assistant', 'content',
           {_WORDS.format(times=12)}))))::text AS body FROM newest) b
"""


def fill(
    connection: psycopg.Connection[Any],
    rows: int,
    *,
    with_bodies: int = WITH_BODIES,
    models: int = MODELS,
) -> float:
    """Accounts, keys and `rows` calls, the newest of them just now; gives the seconds that it took. A migrated database without a log is needed."""
    began = time.monotonic()
    sizes = {"users": USERS, "models": models}
    connection.execute(_ACCOUNTS, sizes)
    connection.execute(_KEYS, sizes)
    connection.execute(
        "SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date - %s, %s)", (DAYS, DAYS)
    )
    days = connection.execute(
        "SELECT now() - n * interval '1 day', now() FROM generate_series(%s, 1, -1) n", (DAYS,)
    ).fetchall()
    for begins, until in days:
        connection.execute(_DAY, sizes | {"begins": begins, "until": until, "calls": rows // DAYS})
    with connection.transaction():
        newest = {"since": days[-2][0], "bodies": with_bodies, "needle": NEEDLE}
        connection.execute(_NEWEST, newest)
        connection.execute(_TEMPLATES, newest)
        connection.execute(_TRACKED, newest)
    connection.execute("VACUUM (ANALYZE) http_analytics")
    connection.execute("ANALYZE")
    return time.monotonic() - began


def report_log(connection: psycopg.Connection[Any], seconds: float) -> None:
    """Print how large it has become, and how long it took."""
    rows, size = connection.execute(
        "SELECT (SELECT count(*) FROM http_analytics), sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits"
        " WHERE inhparent = 'http_analytics'::regclass"
    ).fetchone() or (0, 0)
    report.figure("rows in the log", rows, "rows", digits=0)
    report.figure("bytes of each with its indexes", size / max(rows, 1), "B", digits=0)
    report.figure("built in", seconds, "s")
