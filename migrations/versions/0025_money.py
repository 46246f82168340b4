"""Parts of balances that are held for calls that run, caps on what a key spends, and the functions that settle both

Instant: columns with constant defaults, empty tables, and a small index over the API keys with a cap, of which there are none yet.
Processes of the release before charge as they did; what they do not know of holds nothing, and counts for no cap.

Revision ID: 0025
Revises: 0024
"""

from pathlib import Path

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

HERE = Path(__file__)

TABLES = """
ALTER TABLE user_balance_checkpoints
    ADD COLUMN reserved numeric(24, 15) NOT NULL DEFAULT 0,
    ADD COLUMN counts_spend boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT user_balance_checkpoints_reserved_check CHECK (reserved >= 0);

ALTER TABLE api_keys
    ADD COLUMN spend_limit numeric(24, 15),
    ADD COLUMN spend_limit_interval text,
    ADD CONSTRAINT api_keys_spend_limit_check CHECK (spend_limit > 0 AND spend_limit < 'NaN'),
    ADD CONSTRAINT api_keys_spend_limit_interval_check CHECK (
        spend_limit_interval IS NULL OR (spend_limit_interval IN ('daily', 'weekly', 'monthly') AND spend_limit IS NOT NULL));
CREATE INDEX api_keys_spend_limit_idx ON api_keys (id) WHERE spend_limit IS NOT NULL;

CREATE TABLE credit_reservations (
    request_id uuid NOT NULL,
    user_id uuid NOT NULL,
    amount numeric(24, 15) NOT NULL,
    of_balance boolean NOT NULL,
    api_key_id uuid,
    window_start timestamptz,
    process_id uuid NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT credit_reservations_pkey PRIMARY KEY (request_id),
    CONSTRAINT credit_reservations_amount_check CHECK (amount > 0),
    CONSTRAINT credit_reservations_of_what_check CHECK (of_balance OR api_key_id IS NOT NULL),
    CONSTRAINT credit_reservations_window_check CHECK ((api_key_id IS NULL) = (window_start IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE api_key_spend (
    api_key_id uuid NOT NULL,
    window_start timestamptz NOT NULL,
    spent numeric(24, 15) NOT NULL DEFAULT 0,
    reserved numeric(24, 15) NOT NULL DEFAULT 0,
    CONSTRAINT api_key_spend_pkey PRIMARY KEY (api_key_id, window_start),
    CONSTRAINT api_key_spend_api_key_id_fkey FOREIGN KEY (api_key_id) REFERENCES api_keys (id) ON DELETE CASCADE,
    CONSTRAINT api_key_spend_spent_check CHECK (spent >= 0),
    CONSTRAINT api_key_spend_reserved_check CHECK (reserved >= 0)
) WITH (fillfactor = 20);

ALTER TABLE fusillade.queues ADD COLUMN needs numeric(24, 15);

CREATE TYPE spend_change AS (api_key_id uuid, at timestamptz, window_start timestamptz, spent numeric, let_go numeric);
"""

# Routing is told of other levels of funds, where it was told of the way to nothing and back.
TRIGGERS = """
DROP TRIGGER user_balance_crossed ON user_balance_checkpoints;
CREATE TRIGGER user_balance_crossed AFTER UPDATE ON user_balance_checkpoints FOR EACH ROW
    WHEN (funds_level(OLD.balance) IS DISTINCT FROM funds_level(NEW.balance)) EXECUTE FUNCTION notify_row_change('user_id');
CREATE TRIGGER api_keys_made_capped AFTER INSERT ON api_keys FOR EACH ROW WHEN (NEW.spend_limit IS NOT NULL) EXECUTE FUNCTION count_spend();
CREATE TRIGGER api_keys_capped AFTER UPDATE ON api_keys FOR EACH ROW
    WHEN (NEW.spend_limit IS NOT NULL
          AND (OLD.spend_limit IS NULL OR OLD.spend_limit_interval IS DISTINCT FROM NEW.spend_limit_interval))
    EXECUTE FUNCTION count_spend();
"""
TRIGGERS_BEFORE = """
DROP TRIGGER api_keys_made_capped ON api_keys;
DROP TRIGGER api_keys_capped ON api_keys;
DROP TRIGGER user_balance_crossed ON user_balance_checkpoints;
CREATE TRIGGER user_balance_crossed AFTER UPDATE ON user_balance_checkpoints FOR EACH ROW
    WHEN ((OLD.balance > 0) IS DISTINCT FROM (NEW.balance > 0)) EXECUTE FUNCTION notify_row_change('user_id');
"""

KEYS = """
DROP TRIGGER api_keys_changed ON api_keys;
CREATE TRIGGER api_keys_changed AFTER UPDATE ON api_keys FOR EACH ROW WHEN (
    (OLD.secret_hash, OLD.user_id, OLD.created_by, OLD.purpose, OLD.is_deleted, {old})
    IS DISTINCT FROM
    (NEW.secret_hash, NEW.user_id, NEW.created_by, NEW.purpose, NEW.is_deleted, {new}))
    EXECUTE FUNCTION notify_row_change('id');
"""
WATCHED_BEFORE = (
    "requests_per_second",
    "burst_size",
    "capacity",
    "tokens_per_minute",
    "expires_at",
)
WATCHED_NOW = (*WATCHED_BEFORE, "spend_limit")

FUNCTIONS_GONE = """
DROP FUNCTION fusillade.pause_for_credit(text, text, double precision, numeric);
DROP FUNCTION count_spend();
DROP FUNCTION free_credit(integer);
DROP FUNCTION hold_credit(uuid, uuid[], json, double precision);
DROP FUNCTION count_spent(spend_change[]);
DROP FUNCTION let_go_credit(uuid[]);
DROP FUNCTION spend_window(text, timestamptz);
DROP FUNCTION funds_level(numeric);
"""

TABLES_GONE = """
DROP TYPE spend_change;
ALTER TABLE fusillade.queues DROP COLUMN needs;
DROP TABLE api_key_spend, credit_reservations;
ALTER TABLE api_keys DROP COLUMN spend_limit_interval, DROP COLUMN spend_limit;
ALTER TABLE user_balance_checkpoints DROP COLUMN counts_spend, DROP COLUMN reserved;
"""


def upgrade() -> None:
    op.execute(TABLES)
    # As in dwctl/billing/functions.sql and dwctl/queue/claims.sql when this migration was made.
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))
    op.execute(TRIGGERS)
    watch_keys(WATCHED_NOW)


def downgrade() -> None:
    watch_keys(WATCHED_BEFORE)
    op.execute(TRIGGERS_BEFORE)
    op.execute(HERE.with_name("0025_money_before.sql").read_text("utf-8"))
    op.execute(FUNCTIONS_GONE)
    op.execute(TABLES_GONE)


def watch_keys(columns: tuple[str, ...]) -> None:
    """Have routing told of changes of these columns, beside those that every version watches."""
    old, new = (", ".join(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
    op.execute(KEYS.format(old=old, new=new))
