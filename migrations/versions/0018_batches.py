"""What batches are made of: the function that makes one, and the paths of a file's lines

Instant. Files that were counted before have the path '', which says that nobody has written it down.

Revision ID: 0018
Revises: 0015
"""

from pathlib import Path

from alembic import op

revision = "0018"
down_revision = "0015"
branch_labels = None
depends_on = None

HERE = Path(__file__)

UP = """
ALTER TABLE fusillade.file_models ADD COLUMN path text NOT NULL DEFAULT '';
ALTER TABLE fusillade.file_models DROP CONSTRAINT file_models_pkey, ADD CONSTRAINT file_models_pkey PRIMARY KEY (file_id, model, path);
CREATE INDEX batches_active_idx ON fusillade.batches (created_at DESC, id DESC)
    WHERE NOT single AND deleted_at IS NULL AND completed_at IS NULL AND failed_at IS NULL AND cancelling_at IS NULL
      AND cancelled_at IS NULL AND expired_at IS NULL;
"""

DOWN = """
DROP FUNCTION fusillade.create_batch, fusillade.count_file;
DROP INDEX fusillade.batches_active_idx;
ALTER TABLE fusillade.file_models DROP CONSTRAINT file_models_pkey;
CREATE TEMPORARY TABLE counted ON COMMIT DROP AS
    SELECT file_id, model, sum(requests) AS requests, sum(bytes) AS bytes FROM fusillade.file_models GROUP BY file_id, model;
TRUNCATE fusillade.file_models;
ALTER TABLE fusillade.file_models DROP COLUMN path, ADD CONSTRAINT file_models_pkey PRIMARY KEY (file_id, model);
INSERT INTO fusillade.file_models (file_id, model, requests, bytes) SELECT file_id, model, requests, bytes FROM counted;
"""


def upgrade():
    op.execute(UP)
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))


def downgrade():
    op.execute(DOWN)
