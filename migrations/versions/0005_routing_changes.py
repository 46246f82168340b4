"""A log of the rows that routing snapshots must read again

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A reader knows what it has not seen by the snapshot of its last reading: an identity column would not do, since numbers are given
# before they are committed, in another order.
TABLE = """
CREATE TABLE routing_changes (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT routing_changes_pkey PRIMARY KEY,
    xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    at timestamptz NOT NULL DEFAULT now(),
    table_name text NOT NULL,
    row_id uuid
);
CREATE INDEX routing_changes_xid_idx ON routing_changes (xid);
CREATE INDEX routing_changes_at_idx ON routing_changes (at);
"""

# The notification names the table alone, so that one transaction sends one of them however many rows it changes. Processes of the
# release before read all of the table then.
FUNCTIONS = """
CREATE OR REPLACE FUNCTION notify_config_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids uuid[];
BEGIN
    EXECUTE format('SELECT array_agg(id) FROM (SELECT DISTINCT %I AS id FROM changed LIMIT 1001) s', TG_ARGV[0])
        INTO ids;
    IF ids IS NULL THEN
        RETURN NULL;
    END IF;
    IF cardinality(ids) > 1000 THEN
        ids := ARRAY[NULL::uuid];
    END IF;
    INSERT INTO routing_changes (table_name, row_id) SELECT TG_TABLE_NAME, unnest(ids);
    PERFORM pg_notify('auth_config_changed', TG_TABLE_NAME);
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION notify_row_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO routing_changes (table_name, row_id) VALUES (%L, ($1.%I))', TG_TABLE_NAME, TG_ARGV[0])
        USING NEW;
    PERFORM pg_notify('auth_config_changed', TG_TABLE_NAME);
    RETURN NULL;
END $$;
"""

# As migration 0002 made them.
FUNCTIONS_BEFORE = """
CREATE OR REPLACE FUNCTION notify_config_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids text[];
BEGIN
    EXECUTE format('SELECT array_agg(id) FROM (SELECT DISTINCT %I::text AS id FROM changed LIMIT 151) s', TG_ARGV[0])
        INTO ids;
    IF ids IS NOT NULL THEN
        PERFORM pg_notify('auth_config_changed', TG_TABLE_NAME || ':' ||
            CASE WHEN cardinality(ids) > 150 THEN '*' ELSE array_to_string(ids, ',') END);
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION notify_row_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT pg_notify(''auth_config_changed'', %L || ($1.%I)::text)', TG_TABLE_NAME || ':', TG_ARGV[0])
        USING NEW;
    RETURN NULL;
END $$;
"""


def upgrade():
    op.execute(TABLE)
    op.execute(FUNCTIONS)


def downgrade():
    op.execute(FUNCTIONS_BEFORE)
    op.execute("DROP TABLE routing_changes")
