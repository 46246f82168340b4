"""The queue's functions lock the rows of a request before those of its lease, and each kind in the order of its keys

Instant: functions are replaced, no table is touched.

Revision ID: 0007
Revises: 0005
"""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

HERE = Path(__file__)


def upgrade():
    op.execute(HERE.with_name("0007_lock_order.sql").read_text("utf-8"))


def downgrade():
    """All of them as they were before: the file replaces what is there."""
    op.execute(HERE.with_name("0004_queue_functions.sql").read_text("utf-8"))
