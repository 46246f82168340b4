"""Mails that wait to be sent

Instant: a new table.

Revision ID: 0017
Revises: 0016
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE outgoing_mails (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    template text NOT NULL,
    recipient text NOT NULL,
    reply_to text,
    values_sealed text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    CONSTRAINT outgoing_mails_pkey PRIMARY KEY (id),
    CONSTRAINT outgoing_mails_attempts_check CHECK (attempts >= 0)
);
CREATE INDEX outgoing_mails_due_at_idx ON outgoing_mails (due_at);
"""


def upgrade() -> None:
    op.execute(TABLE)


def downgrade() -> None:
    op.execute("DROP TABLE outgoing_mails")
