"""The lines of output and error files, made by functions, so that what is downloaded and what is counted are the same bytes

Instant: functions only.

Revision ID: 0020
Revises: 0018
"""

from pathlib import Path

from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None

HERE = Path(__file__)

DOWN = """
DROP FUNCTION fusillade.error_line(uuid, text, text, text);
DROP FUNCTION fusillade.read_failure(text);
DROP FUNCTION fusillade.message_in(json);
DROP FUNCTION fusillade.output_line(uuid, text, int, text);
DROP FUNCTION fusillade.one_line(text);
"""


def upgrade():
    # As it stands: what SQLAlchemy would read as its parameters are members of JSON texts.
    connection = op.get_bind().execution_options(no_parameters=True)
    connection.exec_driver_sql(HERE.with_suffix(".sql").read_text("utf-8"))


def downgrade():
    op.execute(DOWN)
