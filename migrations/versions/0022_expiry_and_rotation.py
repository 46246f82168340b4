"""Keys that expire, and secrets that live on for a while after a rotation; user names in any case; work of deleted accounts

Instant but for the index over users' names, during which users are not written (a second for a million).

Revision ID: 0022
Revises: 0021
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# No time is further away than any program can read.
KEYS = """
ALTER TABLE api_keys
    ADD COLUMN expires_at timestamptz,
    ADD CONSTRAINT api_keys_expires_at_check CHECK (expires_at > '2000-01-01Z' AND expires_at < '10000-01-01Z');
"""

SECRETS = """
CREATE TABLE retired_api_key_secrets (
    secret_hash bytea NOT NULL,
    secret_prefix text,
    api_key_id uuid NOT NULL,
    retired_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT retired_api_key_secrets_pkey PRIMARY KEY (secret_hash),
    CONSTRAINT retired_api_key_secrets_api_key_id_fkey FOREIGN KEY (api_key_id) REFERENCES api_keys (id) ON DELETE CASCADE,
    CONSTRAINT retired_api_key_secrets_expires_at_check CHECK (expires_at > '2000-01-01Z' AND expires_at < '10000-01-01Z')
);
CREATE INDEX retired_api_key_secrets_api_key_id_idx ON retired_api_key_secrets (api_key_id, retired_at);
CREATE INDEX retired_api_key_secrets_expires_at_idx ON retired_api_key_secrets (expires_at);
"""

LEAVERS = """
CREATE TABLE leavers (
    account_id uuid NOT NULL,
    left_at timestamptz NOT NULL DEFAULT now(),
    looked_at timestamptz,
    CONSTRAINT leavers_pkey PRIMARY KEY (account_id)
);
"""

USERS = "CREATE INDEX users_username_lower_idx ON users (lower(username));"

CHANGES = """
DROP TRIGGER api_keys_changed ON api_keys;
CREATE TRIGGER api_keys_changed AFTER UPDATE ON api_keys FOR EACH ROW WHEN (
    (OLD.secret_hash, OLD.user_id, OLD.created_by, OLD.purpose, OLD.is_deleted, {old})
    IS DISTINCT FROM
    (NEW.secret_hash, NEW.user_id, NEW.created_by, NEW.purpose, NEW.is_deleted, {new}))
    EXECUTE FUNCTION notify_row_change('id');
"""
WATCHED_BEFORE = ("requests_per_second", "burst_size", "capacity", "tokens_per_minute")
WATCHED_NOW = (*WATCHED_BEFORE, "expires_at")


def upgrade() -> None:
    op.execute(KEYS)
    op.execute(SECRETS)
    op.execute(LEAVERS)
    op.execute(USERS)
    for event in ("INSERT", "UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER retired_api_key_secrets_{event.lower()}d AFTER {event} ON retired_api_key_secrets "
            f"REFERENCING {'OLD' if event == 'DELETE' else 'NEW'} TABLE AS changed "
            "FOR EACH STATEMENT EXECUTE FUNCTION notify_config_change('api_key_id')"
        )
    watch_keys(WATCHED_NOW)


def downgrade() -> None:
    watch_keys(WATCHED_BEFORE)
    op.execute("DROP INDEX users_username_lower_idx")
    op.execute("DROP TABLE leavers")
    op.execute("DROP TABLE retired_api_key_secrets")
    # The version before knows no end of a key: what is over must not begin again.
    op.execute("UPDATE api_keys SET is_deleted = true WHERE expires_at <= now() AND NOT is_deleted")
    op.execute("ALTER TABLE api_keys DROP COLUMN expires_at")


def watch_keys(columns: tuple[str, ...]) -> None:
    """Have routing told of changes of these columns, beside those that every version watches."""
    old, new = (", ".join(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
    op.execute(CHANGES.format(old=old, new=new))
