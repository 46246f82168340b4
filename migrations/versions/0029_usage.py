"""Sums of the log by minute, hour, day and of all time, and the deltas that they are made of

Instant but for the sums that were kept by ten minutes: they are carried over, some seconds for a million; recorders wait meanwhile, as for
any lock. Workers add them to the new sums in the minutes that follow; what is read is right throughout.

Revision ID: 0029
Revises: 0028
"""

from pathlib import Path

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

UP = Path(__file__).with_name("0029_usage.sql")

# The finest sums that there are of each time, and what no worker has added yet.
BACK = """
INSERT INTO usage_rollups (bucket, model, user_id, requests, succeeded, prompt_tokens, completion_tokens, duration_ms, cost, last_at)
SELECT date_bin('10 minutes', bucket, 'epoch'), model, user_id, sum(calls), coalesce(sum(calls) FILTER (WHERE status_code BETWEEN 200 AND 299), 0),
       sum(prompt_tokens), sum(completion_tokens), sum(duration_ms), sum(cost), max(last_at)
  FROM (SELECT r.bucket, model, user_id, status_code, calls, prompt_tokens, completion_tokens, duration_ms, cost, last_at
          FROM account_rollups r
         WHERE r.grain > 0 AND r.grain = (SELECT min(g.grain) FROM rollup_grains g WHERE g.grain > 0 AND g.since <= r.bucket)
        UNION ALL
        SELECT at, model, user_id, status_code, calls, prompt_tokens, completion_tokens, duration_ms, cost, at FROM usage_deltas) r
 GROUP BY 1, 2, 3
HAVING sum(calls) <> 0
ON CONFLICT (bucket, model, user_id) DO UPDATE SET
    requests = usage_rollups.requests + EXCLUDED.requests, succeeded = usage_rollups.succeeded + EXCLUDED.succeeded,
    prompt_tokens = usage_rollups.prompt_tokens + EXCLUDED.prompt_tokens,
    completion_tokens = usage_rollups.completion_tokens + EXCLUDED.completion_tokens,
    duration_ms = usage_rollups.duration_ms + EXCLUDED.duration_ms, cost = usage_rollups.cost + EXCLUDED.cost,
    last_at = greatest(usage_rollups.last_at, EXCLUDED.last_at)
"""

DOWN = """
DROP FUNCTION take_back_interruption(uuid, timestamptz);
CREATE FUNCTION take_back_interruption(call uuid, arrived timestamptz)
RETURNS TABLE (prompt_tokens bigint, completion_tokens bigint, duration_ms bigint) LANGUAGE sql VOLATILE AS $$
    DELETE FROM http_analytics h
     WHERE h.request_id = call AND h.timestamp = arrived AND h.error_code = 'interrupted' AND coalesce(h.total_cost, 0) = 0
    RETURNING h.prompt_tokens, h.completion_tokens, h.duration_ms
$$;
DROP FUNCTION latency_slot(bigint);
DROP TABLE latency_rollups, model_rollups, account_rollups, rollup_grains, usage_deltas;
"""


def upgrade() -> None:
    op.execute(UP.read_text("utf-8"))


def downgrade() -> None:
    op.execute(BACK)
    op.execute(DOWN)
