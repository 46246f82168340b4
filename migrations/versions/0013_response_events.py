"""Events of streams are kept in chunks, so that any process can show them, and show them again

Instant: one new table, and one new column in another (small) one; functions are replaced.

Revision ID: 0013
Revises: 0012
"""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

HERE = Path(__file__)

TABLE = """
CREATE TABLE fusillade.response_chunks (
    request_id uuid NOT NULL,
    first_sequence integer NOT NULL,
    last_sequence integer NOT NULL,
    events bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT response_chunks_pkey PRIMARY KEY (request_id, first_sequence),
    CONSTRAINT response_chunks_sequence_check CHECK (first_sequence >= 0 AND last_sequence >= first_sequence)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX response_chunks_created_at_idx ON fusillade.response_chunks (created_at) WHERE first_sequence = 0;
ALTER TABLE fusillade.inflight ADD COLUMN last_words text;
"""


def upgrade():
    op.execute(TABLE)
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))


def downgrade():
    op.execute(HERE.with_name("0013_response_events_before.sql").read_text("utf-8"))
    op.execute(
        "DROP FUNCTION fusillade.keep_events(uuid, uuid[], int[], int[], bytea[]);"
        "DROP FUNCTION fusillade.purge_events(double precision, int);"
        "DROP TABLE fusillade.response_chunks;"
        "ALTER TABLE fusillade.inflight DROP COLUMN last_words;"
    )
