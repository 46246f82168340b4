"""What is left of limits, and who holds what; the functions that write it

Instant: two empty tables.

Revision ID: 0011
Revises: 0010
"""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

HERE = Path(__file__)
TABLES = """
CREATE UNLOGGED TABLE limit_states (
    subject text COLLATE "C" NOT NULL,
    calls double precision,
    tokens double precision,
    held integer NOT NULL DEFAULT 0,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    full_at timestamptz NOT NULL DEFAULT now(),
    looked_at timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT limit_states_pkey PRIMARY KEY (subject),
    CONSTRAINT limit_states_held_check CHECK (held >= 0)
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE UNLOGGED TABLE limit_holds (
    subject text COLLATE "C" NOT NULL,
    owner uuid NOT NULL,
    number bigint NOT NULL,
    slots integer NOT NULL,
    tokens double precision NOT NULL,
    CONSTRAINT limit_holds_pkey PRIMARY KEY (subject, owner, number),
    CONSTRAINT limit_holds_slots_check CHECK (slots IN (0, 1)),
    CONSTRAINT limit_holds_tokens_check CHECK (tokens >= 0)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
"""


def upgrade():
    op.execute(TABLES)
    # As in dwctl/limits/functions.sql when this migration was made.
    op.execute(HERE.with_name("0011_limits.sql").read_text("utf-8"))


def downgrade():
    op.execute("DROP FUNCTION exchange_limits(uuid, json, json, json, double precision)")
    op.execute("DROP FUNCTION free_limits_of_the_dead(integer)")
    op.execute("DROP TABLE limit_holds, limit_states")
