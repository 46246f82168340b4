"""Indexes of the request log: by arrival, by account and arrival, and a coarse one by the time of writing

Built without locking, a partition at a time; half a minute for ten million rows.

Revision ID: 0028
Revises: 0027
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

INDEXES = {
    # Lists and searches: newest first, or oldest.
    "timestamp": "(timestamp, request_id)",
    # One account's calls, however few of all they are.
    "user_id": "(user_id, timestamp, request_id) WHERE user_id IS NOT NULL",
    # What was written last, for who watches: rows are appended in this order, so that ranges of pages say enough and cost a call nothing.
    "created_at": "USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on)",
}
# Partitions made from now on bring the index with them; those that are there get it one by one.
WITHOUT = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'http_analytics'::regclass
   AND NOT EXISTS (SELECT FROM pg_inherits a JOIN pg_index x ON x.indexrelid = a.inhrelid
                    WHERE a.inhparent = to_regclass(:index) AND x.indrelid = c.oid)
 ORDER BY c.relname
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        for column, definition in INDEXES.items():
            build(column, definition)
        op.execute("SET lock_timeout = '5s'")


def build(column: str, definition: str) -> None:
    """Also where an attempt was broken off."""
    whole = f"http_analytics_{column}_idx"
    op.execute(f"CREATE INDEX IF NOT EXISTS {whole} ON ONLY http_analytics {definition}")
    for (partition,) in op.get_bind().execute(sa.text(WITHOUT), {"index": whole}).all():
        part = f"{partition}_{column}_idx"
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {part}")
        op.execute(f"CREATE INDEX CONCURRENTLY {part} ON {partition} {definition}")
        op.execute(f"ALTER INDEX {whole} ATTACH PARTITION {part}")


def downgrade() -> None:
    for column in INDEXES:
        op.execute(f"DROP INDEX http_analytics_{column}_idx")
