"""Files: which are days' containers of single requests, what a list walks along, and what is still to be purged

The files that there are belong to single requests, one a day and owner, so the new column's default says it of them without a rewrite. The
indexes are small.

Revision ID: 0017
Revises: 0022
"""

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0022"
branch_labels = None
depends_on = None

HERE = Path(__file__)

UP = """
ALTER TABLE fusillade.files
    ADD COLUMN single boolean NOT NULL DEFAULT true,
    ADD COLUMN purged_at timestamptz;
ALTER TABLE fusillade.files ALTER COLUMN single SET DEFAULT false;
-- Made before this version by nobody but an operator.
UPDATE fusillade.files SET single = false WHERE name <> 'single_request';
ALTER TABLE fusillade.batches ADD COLUMN purged_at timestamptz;

DROP INDEX fusillade.files_uploaded_by_idx;
CREATE INDEX files_uploaded_by_idx ON fusillade.files (uploaded_by, created_at DESC, id DESC) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX files_created_at_idx ON fusillade.files (created_at DESC, id DESC) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX files_expires_at_idx ON fusillade.files (expires_at) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX files_unpurged_idx ON fusillade.files (deleted_at) WHERE NOT single AND deleted_at IS NOT NULL AND purged_at IS NULL;
CREATE INDEX batches_unpurged_idx ON fusillade.batches (deleted_at) WHERE NOT single AND deleted_at IS NOT NULL AND purged_at IS NULL;

CREATE TABLE newcomers (
    user_id uuid NOT NULL,
    api_key_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT newcomers_pkey PRIMARY KEY (user_id)
);
"""

DOWN = """
DROP TABLE newcomers;
DROP FUNCTION fusillade.delete_file(uuid), fusillade.expire_file(uuid), fusillade.expire_files(double precision, int),
    fusillade.purge_templates(int), fusillade.purge_requests(double precision, int);
DROP INDEX fusillade.batches_unpurged_idx, fusillade.files_unpurged_idx, fusillade.files_expires_at_idx, fusillade.files_created_at_idx,
    fusillade.files_uploaded_by_idx;
CREATE INDEX files_uploaded_by_idx ON fusillade.files (uploaded_by);
ALTER TABLE fusillade.batches DROP COLUMN purged_at;
ALTER TABLE fusillade.files DROP COLUMN purged_at, DROP COLUMN single;
"""


def upgrade():
    op.execute(UP)
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))


def downgrade():
    op.execute(HERE.with_name("0017_files_before.sql").read_text("utf-8"))
    op.execute(DOWN)
