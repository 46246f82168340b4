"""Lines that are ended by the thousand are counted by what they share, and those that are run again are found by their places

Instant: functions. Processes of the release before call what they called.

Revision ID: 0035
Revises: 0034
"""

from pathlib import Path

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

HERE = Path(__file__)


def upgrade():
    run("0035_sweeps.sql")


def downgrade():
    run("0035_sweeps_before.sql")


def run(name):
    # None of our parameters is in it, though some of its characters are those that would begin one.
    op.get_bind().exec_driver_sql(
        HERE.with_name(name).read_text("utf-8"), execution_options={"no_parameters": True}
    )
