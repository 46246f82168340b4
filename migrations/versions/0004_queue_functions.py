"""What writes the queue, as functions; lost workers are counted, last words kept, and what ends by itself is recorded

On a large queue the index takes some seconds, without locking; the rest is instant.

Revision ID: 0004
Revises: 0003
"""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# times_lost: a column, because it is read and written only where the row is at hand anyway; a constant default rewrites nothing.
TABLES = """
ALTER TABLE fusillade.requests ADD COLUMN IF NOT EXISTS times_lost smallint DEFAULT 0 NOT NULL;
ALTER TABLE fusillade.open_calls ADD COLUMN last_words text;
CREATE TABLE fusillade.unrecorded (
    id uuid NOT NULL,
    error_code text NOT NULL,
    last_words text,
    ended_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT unrecorded_pkey PRIMARY KEY (id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
"""
# Of analytics: the log row of a call that ended "interrupted" goes, when its owner turns out to be alive and nothing was paid for it. A function,
# so that the statement that writes every call has nothing to do with the partitions of other days.
TAKE_BACK = """
CREATE FUNCTION take_back_interruption(call uuid, arrived timestamptz)
RETURNS TABLE (prompt_tokens bigint, completion_tokens bigint, duration_ms bigint) LANGUAGE sql VOLATILE AS $$
    DELETE FROM http_analytics h
     WHERE h.request_id = call AND h.timestamp = arrived AND h.error_code = 'interrupted' AND coalesce(h.total_cost, 0) = 0
    RETURNING h.prompt_tokens, h.completion_tokens, h.duration_ms
$$;
"""
OLD_FUNCTIONS = """
DROP FUNCTION fusillade.claim(uuid, text[], int[], int, int);
"""
# The text of dwctl/queue/functions.sql as it was when this migration was made.
FUNCTIONS = Path(__file__).with_name("0004_queue_functions.sql")
NEW = (
    "ensure_files(json)",
    "open_calls(json)",
    "end_calls(json, boolean)",
    "keep_last_words(json)",
    "give_up(uuid, uuid)",
    "withdraw(uuid[])",
    "wake_delayed(int)",
    "expire(int)",
    "start(uuid, uuid[])",
    "retry_later(uuid, uuid, double precision)",
    "give_back(uuid, uuid[], double precision[])",
    "interrupt_calls(int, double precision)",
    "cancel(uuid, text[])",
    "delete_response(uuid, text[])",
    "purge_responses(int, int)",
    "purge_files(int, int)",
)


def upgrade():
    with op.get_context().autocommit_block():
        # It waits for every transaction that is under way, and nobody waits for it. What an attempt that was broken off has left is not used.
        op.execute("SET lock_timeout = 0")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS fusillade.ready_created_by_idx")
        op.execute(
            "CREATE INDEX CONCURRENTLY ready_created_by_idx ON fusillade.ready (created_by) WHERE batch_id = id"
        )
        op.execute("SET lock_timeout = '5s'")
    op.execute(TABLES)
    op.execute(OLD_FUNCTIONS)
    op.execute(FUNCTIONS.read_text("utf-8"))
    op.execute(TAKE_BACK)


def downgrade():
    """The functions that were there before (claim, make_ready, feed_by_hand) keep their new text, which serves the older version too.

    So does the column `times_lost`, which that text reads: the way up again finds it.
    """
    for function in NEW:
        op.execute(f"DROP FUNCTION fusillade.{function}")
    op.execute("DROP FUNCTION take_back_interruption(uuid, timestamptz)")
    op.execute("DROP TABLE fusillade.unrecorded")
    op.execute("DROP INDEX fusillade.ready_created_by_idx")
    op.execute("ALTER TABLE fusillade.open_calls DROP COLUMN last_words")
