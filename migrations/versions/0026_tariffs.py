"""Tariffs: prices of cached input and of reasoning, scheduled changes, no price that is not a number

A moment: the checks look at `model_tariffs` once, which has a row for each price that was ever set.

Revision ID: 0026
Revises: 0025
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

PRICES = (
    "input_price_per_token",
    "output_price_per_token",
    "cached_input_price_per_token",
    "reasoning_price_per_token",
)

UPGRADE = f"""
-- In force at no time, before and after.
UPDATE model_tariffs SET valid_until = valid_from WHERE valid_until < valid_from;
ALTER TABLE model_tariffs
    ADD COLUMN cached_input_price_per_token numeric(24, 15),
    ADD COLUMN reasoning_price_per_token numeric(24, 15),
    DROP CONSTRAINT model_tariffs_prices_check,
    ADD CONSTRAINT model_tariffs_prices_check CHECK ({
    " AND ".join(f"{price} >= 0 AND {price} < 'NaN'" for price in PRICES)
}),
    ADD CONSTRAINT model_tariffs_period_check CHECK (valid_until >= valid_from AND isfinite(valid_from) AND isfinite(valid_until));
"""

# A change that was scheduled would be in force at once in a version that knows no such thing. What precedes it goes on.
DOWNGRADE = """
DELETE FROM model_tariffs WHERE valid_from > now();
UPDATE model_tariffs SET valid_until = NULL WHERE valid_until > now();
ALTER TABLE model_tariffs
    DROP CONSTRAINT model_tariffs_period_check,
    DROP CONSTRAINT model_tariffs_prices_check,
    ADD CONSTRAINT model_tariffs_prices_check CHECK (input_price_per_token >= 0 AND output_price_per_token >= 0),
    DROP COLUMN cached_input_price_per_token,
    DROP COLUMN reasoning_price_per_token;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
