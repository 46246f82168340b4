"""Workers hold some requests ahead, for the places that their calls are about to leave

Instant: two functions.

Revision ID: 0022
Revises: 0021
"""

from pathlib import Path

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

HERE = Path(__file__)

DOWN = """
DROP FUNCTION fusillade.claim_ahead(uuid, text[], int[], int[], double precision, double precision);
DROP FUNCTION fusillade.take_places(uuid, uuid[]);
"""


def upgrade():
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))


def downgrade():
    op.execute(DOWN)
