"""Sign-in: sessions that can be told apart, password resets, codes for the command line, what the release command has done once

Instant: new tables, and columns of a small table whose default is the same for every row.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE login_sessions
    ADD COLUMN last_used_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN address text,
    ADD COLUMN user_agent text;

CREATE TABLE password_reset_tokens (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    token_hash text NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz,
    CONSTRAINT password_reset_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT password_reset_tokens_token_hash_unique UNIQUE (token_hash),
    CONSTRAINT password_reset_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX password_reset_tokens_user_id_idx ON password_reset_tokens (user_id);
CREATE INDEX password_reset_tokens_expires_at_idx ON password_reset_tokens (expires_at);

CREATE TABLE command_line_codes (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    code_hash text NOT NULL,
    challenge text NOT NULL,
    user_id uuid NOT NULL,
    organization_id uuid,
    login_session_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT command_line_codes_pkey PRIMARY KEY (id),
    CONSTRAINT command_line_codes_code_hash_unique UNIQUE (code_hash),
    CONSTRAINT command_line_codes_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT command_line_codes_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT command_line_codes_login_session_id_fkey FOREIGN KEY (login_session_id) REFERENCES login_sessions (id) ON DELETE CASCADE
);
CREATE INDEX command_line_codes_user_id_idx ON command_line_codes (user_id);
CREATE INDEX command_line_codes_organization_id_idx ON command_line_codes (organization_id);
CREATE INDEX command_line_codes_login_session_id_idx ON command_line_codes (login_session_id);
CREATE INDEX command_line_codes_expires_at_idx ON command_line_codes (expires_at);

CREATE TABLE system_config (
    key text NOT NULL,
    value boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT system_config_pkey PRIMARY KEY (key)
);

CREATE FUNCTION notify_outgoing_mails() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('outgoing_mails', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER notify_outgoing_mails AFTER INSERT ON outgoing_mails
    FOR EACH STATEMENT EXECUTE FUNCTION notify_outgoing_mails();
"""

DOWN = """
DROP TRIGGER notify_outgoing_mails ON outgoing_mails;
DROP FUNCTION notify_outgoing_mails();
DROP TABLE system_config;
DROP TABLE command_line_codes;
DROP TABLE password_reset_tokens;
ALTER TABLE login_sessions DROP COLUMN user_agent, DROP COLUMN address, DROP COLUMN last_used_at;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
