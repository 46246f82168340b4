"""What is kept of the calls of an account or of a key: zero data retention, and the share whose bodies the request log shows

Instant: columns whose default is a constant, checks that every row passes unseen, triggers.

Revision ID: 0027
Revises: 0026
"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE {table}
    ADD COLUMN zero_data_retention boolean NOT NULL DEFAULT false,
    ADD COLUMN log_sample double precision,
    ADD CONSTRAINT {table}_log_sample_check CHECK (log_sample BETWEEN 0 AND 1) NOT VALID;
ALTER TABLE {table} VALIDATE CONSTRAINT {table}_log_sample_check;
"""

# Of its own, beside `users_changed` and `api_keys_changed`: what those watch grows with other migrations.
TRIGGER = """
CREATE TRIGGER {table}_keeping_changed AFTER UPDATE ON {table} FOR EACH ROW WHEN (
    (OLD.zero_data_retention, OLD.log_sample) IS DISTINCT FROM (NEW.zero_data_retention, NEW.log_sample))
    EXECUTE FUNCTION notify_row_change('id');
"""
# Keys that are made or deleted are told of already.
MADE = """
CREATE TRIGGER users_keeping_made AFTER INSERT ON users FOR EACH ROW
    WHEN (NEW.zero_data_retention OR NEW.log_sample IS NOT NULL) EXECUTE FUNCTION notify_row_change('id');
"""
TABLES = ("users", "api_keys")

# The few that are not as all others are, which is what snapshots read.
INDEX = """
CREATE INDEX {table}_keeping_idx ON {table} (id) WHERE zero_data_retention OR log_sample IS NOT NULL;
"""


def upgrade() -> None:
    for table in TABLES:
        op.execute(COLUMNS.format(table=table))
        op.execute(TRIGGER.format(table=table))
        op.execute(INDEX.format(table=table))
    op.execute(MADE)


def downgrade() -> None:
    op.execute("DROP TRIGGER users_keeping_made ON users")
    for table in TABLES:
        op.execute(f"DROP INDEX {table}_keeping_idx")
        op.execute(f"DROP TRIGGER {table}_keeping_changed ON {table}")
        op.execute(f"ALTER TABLE {table} DROP COLUMN log_sample, DROP COLUMN zero_data_retention")
