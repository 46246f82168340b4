"""Claims choose in sets instead of one by one, know pauses and escalations, and begin what they take

Instant: three indexes of a small table are made anew, and functions are replaced. Workers of the release before claim nothing from here
on until they are replaced; what they run, they end.

Revision ID: 0021
Revises: 0019
"""

from pathlib import Path

from alembic import op

revision = "0021"
down_revision = "0019"
branch_labels = None
depends_on = None

HERE = Path(__file__)

UP = """
DROP INDEX fusillade.queues_model_vtime_idx, fusillade.queues_model_head_deadline_idx;
CREATE INDEX queues_model_vtime_idx ON fusillade.queues (model, vtime) WHERE paused_until IS NULL;
CREATE INDEX queues_model_head_deadline_idx ON fusillade.queues (model, head_deadline) WHERE paused_until IS NULL;
CREATE INDEX queues_paused_until_idx ON fusillade.queues (paused_until) WHERE paused_until IS NOT NULL;
DROP FUNCTION fusillade.claim(uuid, text[], int[], int, int);
DROP FUNCTION fusillade.start(uuid, uuid[]);
"""

DOWN = """
DROP FUNCTION fusillade.claim(uuid, int, text[], int[], int, double precision, double precision, text[], text[], double precision[]);
DROP FUNCTION fusillade.claim_model(uuid, text, int, text, int, timestamptz, int, timestamptz, double precision);
DROP FUNCTION fusillade.take(uuid, text, text, int, timestamptz, boolean);
DROP FUNCTION fusillade.pause_queue(text, text, double precision, text);
DROP FUNCTION fusillade.pause_model(text, double precision, text);
DROP FUNCTION fusillade.end_pauses();
DROP FUNCTION fusillade.end_pauses_of_the_funded();
DROP INDEX fusillade.queues_model_vtime_idx, fusillade.queues_model_head_deadline_idx, fusillade.queues_paused_until_idx;
CREATE INDEX queues_model_vtime_idx ON fusillade.queues (model, vtime);
CREATE INDEX queues_model_head_deadline_idx ON fusillade.queues (model, head_deadline);
"""


def upgrade():
    op.execute(UP)
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))


def downgrade():
    op.execute(DOWN)
    op.execute(HERE.with_name("0021_claims_before.sql").read_text("utf-8"))
