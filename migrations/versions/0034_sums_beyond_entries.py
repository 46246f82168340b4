"""Balances, what capped keys have spent and what batches have cost may be larger than one entry of the ledger

They had its type, so that the second of two entries of the largest amount, or a charge to an account that owed as much, did not fit. A moment on each
table: only the type is changed, no row is written anew.

The way back ends with "numeric field overflow", and changes nothing, where an account has 10^9 USD or more by then: it would not fit.

Revision ID: 0034
Revises: 0033
"""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

SUMS = {
    "user_balance_checkpoints": ("balance", "reserved"),
    "api_key_spend": ("spent", "reserved"),
    "batch_usage": ("cost",),
}

# They look at the balance, and a column that a trigger looks at keeps its type: dropped and made again as they are.
TRIGGERS_OFF = """
DROP TRIGGER user_balance_appeared ON user_balance_checkpoints;
DROP TRIGGER user_balance_crossed ON user_balance_checkpoints;
"""
TRIGGERS_ON = """
CREATE TRIGGER user_balance_appeared AFTER INSERT ON user_balance_checkpoints FOR EACH ROW
    WHEN (NEW.balance > 0) EXECUTE FUNCTION notify_row_change('user_id');
CREATE TRIGGER user_balance_crossed AFTER UPDATE ON user_balance_checkpoints FOR EACH ROW
    WHEN (funds_level(OLD.balance) IS DISTINCT FROM funds_level(NEW.balance)) EXECUTE FUNCTION notify_row_change('user_id');
"""


def upgrade() -> None:
    _set_type("numeric(30, 15)")


def downgrade() -> None:
    _set_type("numeric(24, 15)")


def _set_type(name: str) -> None:
    op.execute(TRIGGERS_OFF)
    for table, columns in SUMS.items():
        changes = ", ".join(f"ALTER COLUMN {column} TYPE {name}" for column in columns)
        op.execute(f"ALTER TABLE {table} {changes}")
    op.execute(TRIGGERS_ON)
