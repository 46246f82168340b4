"""A histogram of latencies is one number, and who called a model is read from an index alone

Nobody waits: what is kept as a row for each slot is read as it is until workers have carried it over (some minutes for millions of rows), and
the index is built beside everything else (a minute for ten million sums). Web processes of the release before show percentiles without what
workers of this one have added.

Revision ID: 0033
Revises: 0032
"""

from pathlib import Path

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

UP = Path(__file__).with_name("0033_histograms.sql")

# The digits of each number, twelve by twelve from its end. Half of what fits is added to each and taken off again: a slot below zero (what is
# taken back can come before it) has borrowed from the next.
BACK = """
LOCK TABLE latency_histograms IN ACCESS EXCLUSIVE MODE;
INSERT INTO latency_rollups AS r (of_all, model, grain, bucket, measure, slot, calls)
SELECT h.of_all, h.model, h.grain, h.bucket, m.measure, n.slot, d.calls
  FROM latency_histograms h
 CROSS JOIN LATERAL (VALUES ('duration', h.durations), ('ttfb', h.ttfbs)) m(measure, histogram)
 CROSS JOIN LATERAL (SELECT length(abs(m.histogram)::text) / 12 + 1 AS slots) l
 CROSS JOIN LATERAL (SELECT m.histogram + repeat('500000000000', l.slots)::numeric AS raised) a
 CROSS JOIN LATERAL generate_series(0, l.slots - 1) n(slot)
 CROSS JOIN LATERAL (SELECT div(a.raised, slot_histogram(n.slot::smallint, 1)) % 1e12 - 500000000000 AS calls) d
 WHERE d.calls <> 0
ON CONFLICT (of_all, model, grain, bucket, measure, slot) DO UPDATE SET calls = r.calls + EXCLUDED.calls;
"""
DOWN = """
DROP VIEW latencies;
DROP FUNCTION histogram_calls(numeric);
DROP FUNCTION latency_histogram(bigint, bigint);
DROP FUNCTION slot_histogram(smallint, bigint);
DROP TABLE latency_histograms;
"""
BEFORE, NOW = "account_rollups_model_idx", "account_rollups_callers_idx"
COLUMNS = {
    BEFORE: "(model, grain, bucket)",
    NOW: "(model, grain, bucket, user_id) INCLUDE (calls, prompt_tokens, completion_tokens, total_tokens, cost, last_at)",
}
# Reading an index alone needs pages that a vacuum has seen; one that finds few dead rows leaves the indexes out.
VACUUM = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.01"
VACUUM_BEFORE = "autovacuum_vacuum_scale_factor, autovacuum_vacuum_insert_scale_factor"


def upgrade() -> None:
    _exchange(BEFORE, NOW)
    op.execute(f"ALTER TABLE account_rollups SET ({VACUUM})")
    op.execute(UP.read_text("utf-8"))


def downgrade() -> None:
    _exchange(NOW, BEFORE)
    op.execute(f"ALTER TABLE account_rollups RESET ({VACUUM_BEFORE})")
    op.execute(BACK)
    op.execute(DOWN)


def _exchange(old: str, new: str) -> None:
    with op.get_context().autocommit_block():
        # It waits for every transaction that is under way, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        # What an attempt that was broken off has left is there, and is not used.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {new}")
        op.execute(f"CREATE INDEX CONCURRENTLY {new} ON account_rollups {COLUMNS[new]}")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {old}")
        op.execute("SET lock_timeout = '5s'")
