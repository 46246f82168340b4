"""Sums by account and key alone, and the callers of a model with all that is told of them in the index

The index is built without locking (half a minute to two for twelve million sums). Then folding waits while the new sums are made of those by model, half a
minute for as many; calls and readers do not wait.

Revision ID: 0038
Revises: 0037
"""

from pathlib import Path

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

UP = Path(__file__).with_name("0038_sums_of_callers.sql")
DOWN = """
DROP TRIGGER callers_added ON account_rollups;
DROP TRIGGER callers_changed ON account_rollups;
DROP FUNCTION add_to_callers();
DROP FUNCTION change_callers();
DROP TABLE caller_rollups;
"""
BEFORE, NOW = "account_rollups_callers_idx", "account_rollups_model_callers_idx"
_TOLD = "calls, prompt_tokens, completion_tokens, total_tokens, cost, last_at"
COLUMNS = {
    BEFORE: f"(model, grain, bucket, user_id) INCLUDE ({_TOLD})",
    NOW: f"(model, grain, bucket, user_id) INCLUDE (api_key_id, status_code, reasoning_tokens, cached_tokens, duration_ms, {_TOLD})",
}


def upgrade() -> None:
    _exchange(BEFORE, NOW)
    op.execute(UP.read_text("utf-8"))


def downgrade() -> None:
    _exchange(NOW, BEFORE)
    op.execute(DOWN)


def _exchange(old: str, new: str) -> None:
    with op.get_context().autocommit_block():
        # It waits for every transaction that is under way, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        # What an attempt that was broken off has left is there, and is not used.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {new}")
        op.execute(f"CREATE INDEX CONCURRENTLY {new} ON account_rollups {COLUMNS[new]}")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {old}")
        op.execute("SET lock_timeout = '5s'")
