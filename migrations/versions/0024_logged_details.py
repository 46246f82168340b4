"""Columns of the request log: prices of cached and reasoned tokens, what the provider takes, headers, bodies of calls without a row

Instant: columns without defaults.

Revision ID: 0024
Revises: 0023
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

COLUMNS = {
    "cached_input_price_per_token": "numeric(24, 15)",
    "reasoning_price_per_token": "numeric(24, 15)",
    "tariff_id": "uuid",
    "provider_cost": "numeric(24, 15)",
    "finish_reason": "text",
    "user_agent": "text",
    "bodies": "text",
    "request_headers": "text",
    "response_headers": "text",
    "request_body": "text",
    "response_body": "text",
}


def upgrade() -> None:
    added = ", ".join(f"ADD COLUMN {name} {kind}" for name, kind in COLUMNS.items())
    op.execute(f"ALTER TABLE http_analytics {added}")


def downgrade() -> None:
    dropped = ", ".join(f"DROP COLUMN {name}" for name in COLUMNS)
    op.execute(f"ALTER TABLE http_analytics {dropped}")
