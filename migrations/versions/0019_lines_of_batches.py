"""Lines of batches: populated, counted, cancelled, expired and retried

Instant: two small tables, and a column with a constant default; functions are replaced, and the triggers for rows that are written by hand.

Revision ID: 0019
Revises: 0023
"""

from pathlib import Path

from alembic import op

revision = "0019"
down_revision = "0023"
branch_labels = None
depends_on = None

HERE = Path(__file__)

TABLES = """
ALTER TABLE fusillade.requests ADD COLUMN retried smallint NOT NULL DEFAULT 0;
CREATE TABLE fusillade.sweeps (
    batch_id uuid NOT NULL,
    retries boolean NOT NULL DEFAULT false,
    position bigint NOT NULL DEFAULT 0,
    until bigint,
    ended bigint NOT NULL DEFAULT 0,
    done_at timestamptz,
    CONSTRAINT sweeps_pkey PRIMARY KEY (batch_id)
);
CREATE TABLE fusillade.recounts (
    batch_id uuid NOT NULL,
    CONSTRAINT recounts_pkey PRIMARY KEY (batch_id)
);
DROP FUNCTION fusillade.end_calls(json, boolean);
"""

# Whatever is inserted by hand is counted, not only what waits.
TRIGGER = """
DROP TRIGGER requests_inserted_by_hand ON fusillade.requests;
CREATE TRIGGER requests_inserted_by_hand AFTER INSERT ON fusillade.requests FOR EACH ROW
    WHEN (current_setting('dwctl.queue', true) IS DISTINCT FROM 'own') EXECUTE FUNCTION fusillade.feed_by_hand();
"""

OLD = """
DROP TRIGGER requests_inserted_by_hand ON fusillade.requests;
CREATE TRIGGER requests_inserted_by_hand AFTER INSERT ON fusillade.requests FOR EACH ROW
    WHEN (NEW.state = 'pending' AND current_setting('dwctl.queue', true) IS DISTINCT FROM 'own')
    EXECUTE FUNCTION fusillade.feed_by_hand();
DROP FUNCTION fusillade.end_calls(json, boolean);
DROP FUNCTION fusillade.retry_batch(uuid, int), fusillade.sweep_retries(uuid, int), fusillade.retry_requests(uuid, uuid[]),
    fusillade.retry_lines(uuid, uuid[]), fusillade.reopen(uuid), fusillade.recount(uuid), fusillade.refill_lines(uuid),
    fusillade.sweep(uuid, int), fusillade.cancel_batch(uuid), fusillade.delete_batch(uuid), fusillade.populate(uuid, int, double precision),
    fusillade.open_queues(uuid, bigint, int), fusillade.populate_no_more(uuid), fusillade.fail_batch(uuid, text, text),
    fusillade.why_expired(), fusillade.note_expired(uuid, int), fusillade.end_lines(uuid, uuid[], boolean), fusillade.end_returned(uuid[]),
    fusillade.settle(uuid[]), fusillade.count_ended(uuid[]), fusillade.window_of(text), fusillade.line_bytes(fusillade.requests),
    fusillade.line_of(uuid), fusillade.line_id(uuid, bigint);
"""
OLD_TABLES = """
DROP TABLE fusillade.sweeps;
DROP TABLE fusillade.recounts;
ALTER TABLE fusillade.requests DROP COLUMN retried;
"""


def upgrade():
    op.execute(TABLES)
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))
    op.execute(TRIGGER)


def downgrade():
    op.execute(OLD)
    op.execute(HERE.with_name("0019_lines_of_batches_before.sql").read_text("utf-8"))
    op.execute(OLD_TABLES)
