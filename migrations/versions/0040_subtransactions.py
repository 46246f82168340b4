"""Functions that catch errors run in no parallel plan

Instant: only what the planner may do with them changes.

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
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION fusillade.{function} PARALLEL UNSAFE")


def downgrade() -> None:
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION fusillade.{function} PARALLEL SAFE")
