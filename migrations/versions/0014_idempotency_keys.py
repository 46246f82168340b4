"""Idempotency keys: what a caller's key stands for

Instant: a new table.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE idempotency_keys (
    owner_id uuid NOT NULL,
    path text NOT NULL,
    key text NOT NULL CONSTRAINT ck_idempotency_keys_length CHECK (char_length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL CONSTRAINT ck_idempotency_keys_sha256 CHECK (octet_length(fingerprint) = 32),
    request_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (owner_id, path, key)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
"""


def upgrade():
    op.execute(TABLE)


def downgrade():
    op.execute("DROP TABLE idempotency_keys")
