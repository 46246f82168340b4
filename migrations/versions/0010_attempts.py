"""The story of a call that had a choice of targets, kept with its log row

Instant: a column without a default.

Revision ID: 0010
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("http_analytics", sa.Column("attempts", postgresql.JSONB(), nullable=True))


def downgrade():
    op.drop_column("http_analytics", "attempts")
