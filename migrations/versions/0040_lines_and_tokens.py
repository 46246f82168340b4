"""Functions that catch errors run in no parallel plan; batches count the tokens that a provider had cached

Instant: what the planner may do with functions, and a column with a default.

Revision ID: 0040
Revises: 0038
"""

from alembic import op

revision = "0040"
down_revision = "0038"
branch_labels = None
depends_on = None

FUNCTIONS = (
    "one_line(text)",
    "output_line(uuid, text, int, text)",
    "read_failure(text)",
    "error_line(uuid, text, text, text)",
)


def upgrade() -> None:
    op.execute("ALTER TABLE batch_usage ADD COLUMN cached_tokens bigint NOT NULL DEFAULT 0")
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION fusillade.{function} PARALLEL UNSAFE")


def downgrade() -> None:
    op.execute("ALTER TABLE batch_usage DROP COLUMN cached_tokens")
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION fusillade.{function} PARALLEL SAFE")
