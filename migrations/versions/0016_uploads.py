"""Uploads that are not over yet, so that what a dead process has stored of one is found again

Instant: a new table and new functions.

Revision ID: 0016
Revises: 0015
"""

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

HERE = Path(__file__)

UP = """
CREATE TABLE fusillade.uploads (
    file_id uuid NOT NULL,
    touched_at timestamptz NOT NULL DEFAULT now(),
    abandoned boolean NOT NULL DEFAULT false,
    CONSTRAINT uploads_pkey PRIMARY KEY (file_id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
"""

DOWN = """
DROP FUNCTION fusillade.begin_upload(uuid), fusillade.continue_upload(uuid), fusillade.finish_upload(json, json),
    fusillade.abandon_upload(uuid), fusillade.purge_uploads(double precision, integer);
DELETE FROM fusillade.request_templates t USING fusillade.uploads u WHERE t.file_id = u.file_id AND NOT t.single;
DROP TABLE fusillade.uploads;
"""


def upgrade():
    op.execute(UP)
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))


def downgrade():
    op.execute(DOWN)
