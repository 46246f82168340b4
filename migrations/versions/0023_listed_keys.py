"""An index over the keys of an account in the order of their list

Built without locking; seconds for a million keys.

Revision ID: 0023
Revises: 0022
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

INDEX = """
CREATE INDEX CONCURRENTLY api_keys_listed_idx
    ON api_keys (user_id, created_at DESC, id DESC) WHERE NOT is_deleted AND NOT hidden
"""
DROP = "DROP INDEX CONCURRENTLY IF EXISTS api_keys_listed_idx"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # One that was interrupted has left an index of this name that is invalid: written to and never read.
        op.execute(DROP)
        op.execute(INDEX)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(DROP)
