"""Components of composite models, time-outs of endpoints, limits that mean something

A moment: one table is made, columns without a rewrite are added, and a few constraints are checked on small tables. Limits that meant
nothing (zero, below, not finite) become null, which is what they were taken for.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# The two generated columns let foreign keys say which kind of model stands on which side, whoever writes the row and whenever.
COMPONENTS = """
ALTER TABLE deployed_models ADD CONSTRAINT deployed_models_id_is_composite_unique UNIQUE (id, is_composite);
CREATE TABLE deployed_model_components (
    id uuid NOT NULL DEFAULT gen_random_uuid() CONSTRAINT deployed_model_components_pkey PRIMARY KEY,
    composite_model_id uuid NOT NULL,
    deployed_model_id uuid NOT NULL,
    weight integer NOT NULL DEFAULT 1,
    enabled boolean NOT NULL DEFAULT true,
    sort_order integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    composite_is_composite boolean NOT NULL GENERATED ALWAYS AS (true) STORED,
    component_is_composite boolean NOT NULL GENERATED ALWAYS AS (false) STORED,
    CONSTRAINT deployed_model_components_composite_fkey FOREIGN KEY (composite_model_id, composite_is_composite)
        REFERENCES deployed_models (id, is_composite) ON DELETE CASCADE,
    CONSTRAINT deployed_model_components_component_fkey FOREIGN KEY (deployed_model_id, component_is_composite)
        REFERENCES deployed_models (id, is_composite) ON DELETE CASCADE,
    CONSTRAINT deployed_model_components_pair_unique UNIQUE (composite_model_id, deployed_model_id),
    CONSTRAINT deployed_model_components_weight_check CHECK (weight BETWEEN 1 AND 100)
);
CREATE INDEX deployed_model_components_deployed_model_id_idx ON deployed_model_components (deployed_model_id);
"""

COLUMNS = """
ALTER TABLE deployed_models
    ADD COLUMN tokens_per_minute bigint,
    ADD COLUMN refuse_unrunnable_tools boolean NOT NULL DEFAULT false;
ALTER TABLE inference_endpoints
    ADD COLUMN connect_timeout_seconds double precision,
    ADD COLUMN first_byte_timeout_seconds double precision,
    ADD COLUMN idle_timeout_seconds double precision,
    ADD COLUMN total_timeout_seconds double precision;
ALTER TABLE api_keys
    ADD COLUMN capacity integer,
    ADD COLUMN tokens_per_minute bigint;
"""

# NaN counts as larger than infinity.
MEANINGLESS = """
UPDATE deployed_models SET requests_per_second = NULL WHERE NOT (requests_per_second > 0 AND requests_per_second < 'Infinity');
UPDATE deployed_models SET burst_size = NULL WHERE burst_size < 1;
UPDATE deployed_models SET capacity = NULL WHERE capacity < 1;
UPDATE deployed_models SET batch_capacity = NULL WHERE batch_capacity < 1;
UPDATE deployed_models SET lb_strategy = DEFAULT WHERE lb_strategy NOT IN ('weighted_random', 'priority');
UPDATE deployed_models SET fallback_max_attempts = NULL WHERE fallback_max_attempts < 1;
UPDATE deployed_models SET fallback_on_status = DEFAULT
 WHERE array_position(fallback_on_status, NULL) IS NOT NULL OR NOT (1 <= ALL (fallback_on_status) AND 599 >= ALL (fallback_on_status));
UPDATE api_keys SET requests_per_second = NULL WHERE NOT (requests_per_second > 0 AND requests_per_second < 'Infinity');
UPDATE api_keys SET burst_size = NULL WHERE burst_size < 1;
"""

CHECKS = {
    "deployed_models": {
        "requests_per_second": "requests_per_second > 0 AND requests_per_second < 'Infinity'",
        "burst_size": "burst_size >= 1",
        "capacity": "capacity >= 1",
        "batch_capacity": "batch_capacity >= 1",
        "tokens_per_minute": "tokens_per_minute >= 1",
        "lb_strategy": "lb_strategy IN ('weighted_random', 'priority')",
        "fallback_max_attempts": "fallback_max_attempts >= 1",
        "fallback_on_status": "array_position(fallback_on_status, NULL) IS NULL"
        " AND 1 <= ALL (fallback_on_status) AND 599 >= ALL (fallback_on_status)",
    },
    "inference_endpoints": {
        name: f"{name} > 0 AND {name} <= 86400"
        for name in (
            "connect_timeout_seconds",
            "first_byte_timeout_seconds",
            "idle_timeout_seconds",
            "total_timeout_seconds",
        )
    },
    "api_keys": {
        "requests_per_second": "requests_per_second > 0 AND requests_per_second < 'Infinity'",
        "burst_size": "burst_size >= 1",
        "capacity": "capacity >= 1",
        "tokens_per_minute": "tokens_per_minute >= 1",
    },
}

CHANGES_OF_KEYS = """
DROP TRIGGER api_keys_changed ON api_keys;
CREATE TRIGGER api_keys_changed AFTER UPDATE ON api_keys FOR EACH ROW WHEN (
    (OLD.secret_hash, OLD.user_id, OLD.created_by, OLD.purpose, OLD.is_deleted, {old})
    IS DISTINCT FROM
    (NEW.secret_hash, NEW.user_id, NEW.created_by, NEW.purpose, NEW.is_deleted, {new}))
    EXECUTE FUNCTION notify_row_change('id');
"""
LIMITS_BEFORE = ("requests_per_second", "burst_size")
LIMITS_NOW = (*LIMITS_BEFORE, "capacity", "tokens_per_minute")


def upgrade():
    op.execute(COMPONENTS)
    op.execute(COLUMNS)
    op.execute(MEANINGLESS)
    for table, checks in CHECKS.items():
        for name, condition in checks.items():
            op.execute(
                f"ALTER TABLE {table} ADD CONSTRAINT {table}_{name}_check CHECK ({condition})"
            )
    for event in ("INSERT", "UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER deployed_model_components_{event.lower()}d AFTER {event} ON deployed_model_components "
            f"REFERENCING {'OLD' if event == 'DELETE' else 'NEW'} TABLE AS changed "
            "FOR EACH STATEMENT EXECUTE FUNCTION notify_config_change('composite_model_id')"
        )
    watch_keys(LIMITS_NOW)


def downgrade():
    watch_keys(LIMITS_BEFORE)
    op.execute("DROP TABLE deployed_model_components")
    for table, checks in CHECKS.items():
        for name in checks:
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{name}_check")
    op.execute("ALTER TABLE api_keys DROP COLUMN capacity, DROP COLUMN tokens_per_minute")
    op.execute(
        "ALTER TABLE inference_endpoints DROP COLUMN connect_timeout_seconds, DROP COLUMN first_byte_timeout_seconds,"
        " DROP COLUMN idle_timeout_seconds, DROP COLUMN total_timeout_seconds"
    )
    op.execute(
        "ALTER TABLE deployed_models DROP COLUMN tokens_per_minute, DROP COLUMN refuse_unrunnable_tools,"
        " DROP CONSTRAINT deployed_models_id_is_composite_unique"
    )


def watch_keys(limits):
    """Let changes of these limits be told."""
    old, new = (", ".join(f"{row}.{name}" for name in limits) for row in ("OLD", "NEW"))
    op.execute(CHANGES_OF_KEYS.format(old=old, new=new))
