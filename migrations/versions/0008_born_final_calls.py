"""A function of its own for calls that were never anything but over, which are nearly all

Instant: a type and a function.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TYPE = """
CREATE TYPE fusillade.born_final AS (
    id uuid, at timestamptz, ended_at timestamptz, file_id uuid, owner text, api_key_id uuid, path text, model text,
    request_body text, request_size bigint, tier text, sla text, expires_at timestamptz, daemon_id uuid, metadata text,
    state text, response_status int, response_body text, response_size bigint, routed_model text, error text
);
"""
# As in dwctl/queue/functions.sql when this migration was made.
FUNCTION = """
CREATE OR REPLACE FUNCTION fusillade.add_ended(given fusillade.born_final[]) RETURNS int LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    WITH c AS MATERIALIZED (
        SELECT * FROM unnest(given)
    ), templates AS (
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, at, at FROM c
        ON CONFLICT (id) DO NOTHING
    ), batches AS (
        INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, completed_at, failed_at, metadata)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, coalesce(metadata::jsonb, '{}')
          FROM c
        ON CONFLICT (id) DO NOTHING
    )
    INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, daemon_id, claimed_at, started_at,
        response_status, response_body, response_size, routed_model, error, completed_at, failed_at, created_at, updated_at)
    SELECT id, id, id, model, state, tier, daemon_id, at, at, response_status, response_body, response_size, routed_model, error,
           CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, at, ended_at
      FROM c
    ON CONFLICT (id) DO NOTHING;
    RETURN 1;
END $$;
"""


def upgrade():
    op.execute(TYPE)
    op.execute(FUNCTION)


def downgrade():
    op.execute("DROP FUNCTION fusillade.add_ended(fusillade.born_final[])")
    op.execute("DROP TYPE fusillade.born_final")
