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

# What an attempt that was broken off has left is there, and is not used.
LEFT = "DROP INDEX CONCURRENTLY IF EXISTS api_keys_listed_idx"
INDEX = """
CREATE INDEX CONCURRENTLY api_keys_listed_idx
    ON api_keys (user_id, created_at DESC, id DESC) WHERE NOT is_deleted AND NOT hidden
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # It waits for every transaction that is under way, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        op.execute(LEFT)
        op.execute(INDEX)
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(LEFT)
