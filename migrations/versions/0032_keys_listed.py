"""The list of everybody's API keys, newest first, is read by an index

The dashboard shows it to managers. Built without locking: seconds for a million keys.

Revision ID: 0032
Revises: 0031
"""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

NAME = "api_keys_of_all_listed_idx"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # It waits for every transaction that is under way, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        # What an attempt that was broken off has left is there, and is not used.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {NAME} ON api_keys (created_at DESC, id DESC) WHERE NOT is_deleted AND NOT hidden"
        )
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
