"""Requests that are not to be kept are found and deleted

Adds an index over all batches, of which it will hold next to none; writing waits while it is built (seconds for millions).

Revision ID: 0012
Revises: 0009
"""

from alembic import op

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None

INDEX = "CREATE INDEX batches_unkept_idx ON fusillade.batches (id) WHERE metadata ? 'unkept'"
# As in dwctl/queue/functions.sql when this migration was made.
FUNCTION = """
CREATE OR REPLACE FUNCTION fusillade.forget_unkept(most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    gone uuid[];
BEGIN
    gone := ARRAY(
        SELECT r.id FROM fusillade.batches b JOIN fusillade.requests r ON r.id = b.id AND r.batch_id = b.id
         WHERE b.metadata ? 'unkept' AND coalesce(r.completed_at, r.failed_at, r.canceled_at) < now() - interval '1 minute'
         ORDER BY r.id LIMIT most FOR UPDATE OF r SKIP LOCKED);
    DELETE FROM fusillade.requests WHERE id = ANY (gone);
    DELETE FROM fusillade.request_templates WHERE id = ANY (gone);
    DELETE FROM fusillade.batches WHERE id = ANY (gone);
    RETURN cardinality(gone);
END $$;
"""


def upgrade():
    op.execute(INDEX)
    op.execute(FUNCTION)


def downgrade():
    op.execute("DROP FUNCTION fusillade.forget_unkept(int)")
    op.execute("DROP INDEX fusillade.batches_unkept_idx")
