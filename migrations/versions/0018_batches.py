"""Batches are made by a function, and those that run are listed first

Instant, but for an index over batches of files.

Revision ID: 0018
Revises: 0016
"""

from pathlib import Path

from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None

HERE = Path(__file__)

UP = """
CREATE INDEX batches_active_idx ON fusillade.batches (created_at DESC, id DESC)
    WHERE NOT single AND deleted_at IS NULL AND completed_at IS NULL AND failed_at IS NULL AND cancelling_at IS NULL
      AND cancelled_at IS NULL AND expired_at IS NULL;
"""

DOWN = """
DROP FUNCTION fusillade.create_batch, fusillade.count_file;
DROP INDEX fusillade.batches_active_idx;
"""


def upgrade():
    op.execute(UP)
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))


def downgrade():
    op.execute(DOWN)
