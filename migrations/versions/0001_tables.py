"""Tables of every room

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.execute("CREATE SCHEMA IF NOT EXISTS fusillade")
    op.create_table(
        "credits_transactions",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("transaction_type", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=24, scale=15), nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("fusillade_batch_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "transaction_type IN ('purchase', 'admin_grant', 'admin_removal', 'usage')",
            name=op.f("credits_transactions_transaction_type_check"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("credits_transactions_amount_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("credits_transactions_pkey")),
    )
    op.create_index(
        "credits_transactions_source_id_unique", "credits_transactions", ["source_id"], unique=True
    )
    op.create_index(
        "credits_transactions_user_id_seq_idx",
        "credits_transactions",
        ["user_id", "seq"],
        unique=False,
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=True),
        sa.Column("endpoint", sa.Text(), server_default="/v1/chat/completions", nullable=False),
        sa.Column("completion_window", sa.Text(), server_default="24h", nullable=False),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=True
        ),
        sa.Column("output_file_id", sa.Uuid(), nullable=True),
        sa.Column("error_file_id", sa.Uuid(), nullable=True),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("api_key", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("total_requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("requests_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelling_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finalizing_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("notification_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("errors", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("batches_pkey")),
        schema="fusillade",
    )
    op.create_index(
        "batches_error_file_id_unique",
        "batches",
        ["error_file_id"],
        unique=True,
        schema="fusillade",
        postgresql_where=sa.text("error_file_id IS NOT NULL"),
    )
    op.create_index(
        "batches_output_file_id_unique",
        "batches",
        ["output_file_id"],
        unique=True,
        schema="fusillade",
        postgresql_where=sa.text("output_file_id IS NOT NULL"),
    )
    op.create_table(
        "daemons",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("config_snapshot", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_heartbeat", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requests_processed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("requests_failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("requests_in_flight", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "status <> 'dead' OR stopped_at IS NOT NULL", name=op.f("daemons_dead_fields_check")
        ),
        sa.CheckConstraint(
            "status <> 'running' OR last_heartbeat IS NOT NULL",
            name=op.f("daemons_running_fields_check"),
        ),
        sa.CheckConstraint(
            "status IN ('initializing', 'running', 'dead')", name=op.f("daemons_status_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("daemons_pkey")),
        schema="fusillade",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "delayed",
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("not_before", "id", name=op.f("delayed_pkey")),
        schema="fusillade",
    )
    op.create_table(
        "duties",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "observed_since",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("last_ran_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("duties_pkey")),
        schema="fusillade",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "files",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("size_finalized", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("status", sa.Text(), server_default="processed", nullable=False),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("uploaded_by", sa.Text(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("source_connection_id", sa.Uuid(), nullable=True),
        sa.Column("source_external_key", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "purpose IN ('batch', 'batch_output', 'batch_error')", name=op.f("files_purpose_check")
        ),
        sa.CheckConstraint(
            "status IN ('processed', 'error', 'deleted', 'expired')",
            name=op.f("files_status_check"),
        ),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("files_size_bytes_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("files_pkey")),
        schema="fusillade",
    )
    op.create_index(
        "files_uploaded_by_idx", "files", ["uploaded_by"], unique=False, schema="fusillade"
    )
    op.create_table(
        "inflight",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("daemon_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("inflight_pkey")),
        schema="fusillade",
        postgresql_with={
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_scale_factor": "0",
        },
    )
    op.create_index(
        "inflight_daemon_id_idx", "inflight", ["daemon_id"], unique=False, schema="fusillade"
    )
    op.create_index("inflight_model_idx", "inflight", ["model"], unique=False, schema="fusillade")
    op.create_table(
        "model_slots",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("served", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("model_slots_pkey")),
        schema="fusillade",
        postgresql_with={
            "fillfactor": "20",
            "autovacuum_vacuum_threshold": "200",
            "autovacuum_vacuum_scale_factor": "0",
        },
    )
    op.create_table(
        "queues",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("vtime", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("head_deadline", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "created_by", name=op.f("queues_pkey")),
        schema="fusillade",
        postgresql_with={
            "autovacuum_vacuum_threshold": "500",
            "autovacuum_vacuum_scale_factor": "0",
        },
    )
    op.create_index(
        "queues_model_head_deadline_idx",
        "queues",
        ["model", "head_deadline"],
        unique=False,
        schema="fusillade",
    )
    op.create_index(
        "queues_model_vtime_idx", "queues", ["model", "vtime"], unique=False, schema="fusillade"
    )
    op.create_table(
        "ready",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("model", "created_by", "deadline", "id", name=op.f("ready_pkey")),
        schema="fusillade",
        postgresql_with={
            "autovacuum_vacuum_threshold": "5000",
            "autovacuum_vacuum_scale_factor": "0.01",
        },
    )
    op.create_table(
        "request_templates",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=True),
        sa.Column("custom_id", sa.Text(), nullable=True),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), server_default="", nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("api_key", sa.Text(), server_default="", nullable=False),
        sa.Column("line_number", sa.Integer(), server_default="0", nullable=False),
        sa.Column("body_byte_size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("request_templates_pkey")),
        schema="fusillade",
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("template_id", sa.Uuid(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("custom_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("service_tier", sa.Text(), nullable=True),
        sa.Column("retry_attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("daemon_id", sa.Uuid(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("response_status", sa.SmallInteger(), nullable=True),
        sa.Column("response_body", sa.Text(), nullable=True),
        sa.Column("response_size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("routed_model", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("canceled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "service_tier IN ('auto', 'default', 'flex', 'priority')",
            name=op.f("requests_service_tier_check"),
        ),
        sa.CheckConstraint(
            "state <> 'canceled' OR canceled_at IS NOT NULL",
            name=op.f("requests_canceled_fields_check"),
        ),
        sa.CheckConstraint(
            "state <> 'claimed' OR (daemon_id IS NOT NULL AND claimed_at IS NOT NULL AND started_at IS NULL)",
            name=op.f("requests_claimed_fields_check"),
        ),
        sa.CheckConstraint(
            "state <> 'completed' OR (response_status IS NOT NULL AND response_body IS NOT NULL AND completed_at IS NOT NULL)",
            name=op.f("requests_completed_fields_check"),
        ),
        sa.CheckConstraint(
            "state <> 'failed' OR (error IS NOT NULL AND failed_at IS NOT NULL)",
            name=op.f("requests_failed_fields_check"),
        ),
        sa.CheckConstraint(
            "state <> 'pending' OR (daemon_id IS NULL AND claimed_at IS NULL AND started_at IS NULL)",
            name=op.f("requests_pending_fields_check"),
        ),
        sa.CheckConstraint(
            "state <> 'processing' OR (daemon_id IS NOT NULL AND claimed_at IS NOT NULL AND started_at IS NOT NULL)",
            name=op.f("requests_processing_fields_check"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'claimed', 'processing', 'completed', 'failed', 'canceled')",
            name=op.f("requests_state_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("requests_pkey")),
        schema="fusillade",
        postgresql_with={"fillfactor": "90"},
    )
    op.create_index(
        "requests_batch_id_idx", "requests", ["batch_id"], unique=False, schema="fusillade"
    )
    op.create_table(
        "http_analytics",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_to_first_byte_ms", sa.BigInteger(), nullable=True),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("total_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("usage_source", sa.Text(), server_default="none", nullable=False),
        sa.Column("response_type", sa.Text(), server_default="other", nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("access_source", sa.Text(), server_default="unauthenticated", nullable=False),
        sa.Column("input_price_per_token", sa.Numeric(precision=24, scale=15), nullable=True),
        sa.Column("output_price_per_token", sa.Numeric(precision=24, scale=15), nullable=True),
        sa.Column("total_cost", sa.Numeric(precision=24, scale=15), nullable=True),
        sa.Column("fusillade_batch_id", sa.Uuid(), nullable=True),
        sa.Column("fusillade_request_id", sa.Uuid(), nullable=True),
        sa.Column("custom_id", sa.Text(), nullable=True),
        sa.Column("request_origin", sa.Text(), server_default="api", nullable=False),
        sa.Column("batch_sla", sa.Text(), server_default="", nullable=False),
        sa.Column("batch_request_source", sa.Text(), server_default="", nullable=False),
        sa.Column("served_by", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("trace_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("request_id", "timestamp", name=op.f("http_analytics_pkey")),
        postgresql_partition_by="RANGE (timestamp)",
    )
    op.create_table(
        "usage_rollups",
        sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("succeeded", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Numeric(precision=24, scale=15), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("bucket", "model", "user_id", name=op.f("usage_rollups_pkey")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index(
        "usage_rollups_model_bucket_idx", "usage_rollups", ["model", "bucket"], unique=False
    )
    op.create_table(
        "user_balance_checkpoints",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("checkpoint_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "balance", sa.Numeric(precision=24, scale=15), server_default="0", nullable=False
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("user_balance_checkpoints_pkey")),
        postgresql_with={"fillfactor": "20"},
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=True),
        sa.Column("avatar_url", sa.Text(), nullable=True),
        sa.Column("auth_source", sa.Text(), server_default="vouch", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("last_login", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_admin", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("external_user_id", sa.Text(), nullable=True),
        sa.Column("payment_provider_id", sa.Text(), nullable=True),
        sa.Column("is_deleted", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("is_internal", sa.Boolean(), server_default="false", nullable=False),
        sa.Column(
            "batch_notifications_enabled", sa.Boolean(), server_default="false", nullable=False
        ),
        sa.Column("first_batch_email_sent", sa.Boolean(), server_default="false", nullable=False),
        sa.Column(
            "low_balance_notification_sent", sa.Boolean(), server_default="false", nullable=False
        ),
        sa.Column("low_balance_threshold", sa.Double(), nullable=True),
        sa.Column("user_type", sa.Text(), server_default="individual", nullable=False),
        sa.Column("auto_topup_amount", sa.Double(), nullable=True),
        sa.Column("auto_topup_threshold", sa.Double(), nullable=True),
        sa.Column("auto_topup_monthly_limit", sa.Double(), nullable=True),
        sa.Column(
            "auto_topup_limit_notification_sent",
            sa.Boolean(),
            server_default="false",
            nullable=False,
        ),
        sa.CheckConstraint(
            "user_type IN ('individual', 'organization')", name=op.f("users_user_type_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("users_pkey")),
    )
    op.create_index(
        "users_created_at_id_idx",
        "users",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "users_email_lower_idx", "users", [sa.literal_column("lower(email)")], unique=False
    )
    op.create_index(
        "users_email_unique",
        "users",
        ["email", "auth_source", "external_user_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("user_type = 'individual'"),
    )
    op.create_index(
        "users_external_user_id_unique",
        "users",
        ["external_user_id"],
        unique=True,
        postgresql_where=sa.text("external_user_id IS NOT NULL"),
    )
    op.create_index("users_username_unique", "users", ["username"], unique=True)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=True),
        sa.Column("secret_prefix", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("last_used", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requests_per_second", sa.Double(), nullable=True),
        sa.Column("burst_size", sa.Integer(), nullable=True),
        sa.Column("purpose", sa.Text(), server_default="realtime", nullable=False),
        sa.Column("hidden", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("is_deleted", sa.Boolean(), server_default="false", nullable=False),
        sa.CheckConstraint(
            "purpose IN ('platform', 'realtime', 'batch', 'playground')",
            name=op.f("api_keys_purpose_check"),
        ),
        sa.CheckConstraint("hidden OR secret_hash IS NOT NULL", name=op.f("api_keys_secret_check")),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name=op.f("api_keys_created_by_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("api_keys_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        sa.UniqueConstraint("secret_hash", name=op.f("api_keys_secret_hash_unique")),
    )
    op.create_index(
        "api_keys_hidden_unique",
        "api_keys",
        ["user_id", "created_by", "purpose"],
        unique=True,
        postgresql_where=sa.text("hidden AND NOT is_deleted"),
    )
    op.create_index(
        "api_keys_name_unique",
        "api_keys",
        ["user_id", "created_by", "name"],
        unique=True,
        postgresql_where=sa.text("NOT is_deleted"),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("source", sa.Text(), server_default="native", nullable=False),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name=op.f("groups_created_by_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("groups_pkey")),
        sa.UniqueConstraint("name", name=op.f("groups_name_unique")),
    )
    op.create_table(
        "inference_endpoints",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("api_key_sealed", sa.Text(), nullable=True),
        sa.Column("model_filter", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("auth_header_name", sa.Text(), server_default="Authorization", nullable=False),
        sa.Column("auth_header_prefix", sa.Text(), server_default="Bearer ", nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["created_by"],
            ["users.id"],
            name=op.f("inference_endpoints_created_by_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("inference_endpoints_pkey")),
        sa.UniqueConstraint("name", name=op.f("inference_endpoints_name_unique")),
    )
    op.create_table(
        "login_sessions",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("login_sessions_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("login_sessions_pkey")),
        sa.UniqueConstraint("token_hash", name=op.f("login_sessions_token_hash_unique")),
    )
    op.create_index("login_sessions_expires_at_idx", "login_sessions", ["expires_at"], unique=False)
    op.create_index("login_sessions_user_id_idx", "login_sessions", ["user_id"], unique=False)
    op.create_table(
        "sign_in_attempts",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column(
            "began_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("sign_in_attempts_pkey")),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "user_organizations",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.Text(), server_default="member", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("invite_token_hash", sa.Text(), nullable=True),
        sa.Column("invite_email", sa.Text(), nullable=True),
        sa.Column("invited_by", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "role IN ('owner', 'admin', 'member')", name=op.f("user_organizations_role_check")
        ),
        sa.CheckConstraint(
            "status IN ('active', 'pending')", name=op.f("user_organizations_status_check")
        ),
        sa.ForeignKeyConstraint(
            ["invited_by"], ["users.id"], name=op.f("user_organizations_invited_by_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["users.id"],
            name=op.f("user_organizations_organization_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("user_organizations_user_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("user_organizations_pkey")),
        sa.UniqueConstraint(
            "user_id",
            "organization_id",
            name=op.f("user_organizations_user_id_organization_id_unique"),
        ),
    )
    op.create_index(
        "user_organizations_invite_unique",
        "user_organizations",
        ["invite_email", "organization_id"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "user_organizations_organization_id_idx",
        "user_organizations",
        ["organization_id"],
        unique=False,
    )
    op.create_table(
        "user_roles",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "role",
            sa.Enum(
                "PLATFORMMANAGER",
                "STANDARDUSER",
                "REQUESTVIEWER",
                "BILLINGMANAGER",
                "BATCHAPIUSER",
                "CONNECTIONSUSER",
                name="user_role",
            ),
            nullable=False,
        ),
        sa.Column("position", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("user_roles_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("user_roles_pkey")),
        sa.UniqueConstraint("user_id", "role", name=op.f("user_roles_user_id_role_unique")),
    )
    op.create_table(
        "deployed_models",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("capabilities", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("hosted_on", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("last_sync", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted", sa.Boolean(), server_default="false", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("requests_per_second", sa.Double(), nullable=True),
        sa.Column("burst_size", sa.Integer(), nullable=True),
        sa.Column("capacity", sa.Integer(), nullable=True),
        sa.Column("batch_capacity", sa.Integer(), nullable=True),
        sa.Column("throughput", sa.Double(), nullable=True),
        sa.Column("downstream_pricing_mode", sa.Text(), nullable=True),
        sa.Column(
            "downstream_input_price_per_token", sa.Numeric(precision=24, scale=15), nullable=True
        ),
        sa.Column(
            "downstream_output_price_per_token", sa.Numeric(precision=24, scale=15), nullable=True
        ),
        sa.Column("downstream_hourly_rate", sa.Numeric(precision=10, scale=2), nullable=True),
        sa.Column(
            "downstream_input_token_cost_ratio", sa.Numeric(precision=3, scale=2), nullable=True
        ),
        sa.Column("is_composite", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("lb_strategy", sa.Text(), server_default="weighted_random", nullable=False),
        sa.Column("fallback_enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("fallback_on_rate_limit", sa.Boolean(), server_default="true", nullable=False),
        sa.Column(
            "fallback_on_status",
            postgresql.ARRAY(sa.Integer()),
            server_default="{429,500,502,503,504}",
            nullable=False,
        ),
        sa.Column(
            "fallback_with_replacement", sa.Boolean(), server_default="false", nullable=False
        ),
        sa.Column("fallback_max_attempts", sa.Integer(), nullable=True),
        sa.Column("sanitize_responses", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("trusted", sa.Boolean(), server_default="false", nullable=False),
        sa.Column(
            "open_responses_adapter", sa.Boolean(), server_default=sa.text("true"), nullable=True
        ),
        sa.Column("forward_service_tier", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("allowed_batch_completion_windows", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.CheckConstraint(
            "status IN ('active', 'inactive')", name=op.f("deployed_models_status_check")
        ),
        sa.CheckConstraint(
            "type IN ('CHAT', 'EMBEDDINGS', 'RERANKER')", name=op.f("deployed_models_type_check")
        ),
        sa.CheckConstraint(
            "(hosted_on IS NULL) = is_composite", name=op.f("deployed_models_hosted_on_check")
        ),
        sa.CheckConstraint(
            "downstream_input_token_cost_ratio BETWEEN 0 AND 1",
            name=op.f("deployed_models_input_token_cost_ratio_check"),
        ),
        sa.ForeignKeyConstraint(
            ["created_by"],
            ["users.id"],
            name=op.f("deployed_models_created_by_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["hosted_on"],
            ["inference_endpoints.id"],
            name=op.f("deployed_models_hosted_on_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("deployed_models_pkey")),
    )
    op.create_index(
        "deployed_models_alias_unique",
        "deployed_models",
        ["alias"],
        unique=True,
        postgresql_where=sa.text("NOT deleted"),
    )
    op.create_index("deployed_models_hosted_on_idx", "deployed_models", ["hosted_on"], unique=False)
    op.create_table(
        "user_groups",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column(
            "joined_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("user_groups_group_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("user_groups_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("user_groups_pkey")),
        sa.UniqueConstraint(
            "user_id", "group_id", name=op.f("user_groups_user_id_group_id_unique")
        ),
    )
    op.create_index("user_groups_group_id_idx", "user_groups", ["group_id"], unique=False)
    op.create_table(
        "deployment_groups",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("granted_by", sa.Uuid(), nullable=True),
        sa.Column(
            "granted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["deployment_id"],
            ["deployed_models.id"],
            name=op.f("deployment_groups_deployment_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["granted_by"], ["users.id"], name=op.f("deployment_groups_granted_by_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["groups.id"],
            name=op.f("deployment_groups_group_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("deployment_groups_pkey")),
        sa.UniqueConstraint(
            "deployment_id",
            "group_id",
            name=op.f("deployment_groups_deployment_id_group_id_unique"),
        ),
    )
    op.create_index(
        "deployment_groups_group_id_idx", "deployment_groups", ["group_id"], unique=False
    )
    op.create_table(
        "model_tariffs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("deployed_model_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "input_price_per_token",
            sa.Numeric(precision=24, scale=15),
            server_default="0",
            nullable=False,
        ),
        sa.Column(
            "output_price_per_token",
            sa.Numeric(precision=24, scale=15),
            server_default="0",
            nullable=False,
        ),
        sa.Column(
            "valid_from",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("api_key_purpose", sa.Text(), nullable=True),
        sa.Column("completion_window", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "api_key_purpose <> 'batch' OR completion_window IS NOT NULL",
            name=op.f("model_tariffs_window_check"),
        ),
        sa.CheckConstraint(
            "api_key_purpose IN ('platform', 'realtime', 'batch', 'playground')",
            name=op.f("model_tariffs_purpose_check"),
        ),
        sa.CheckConstraint(
            "input_price_per_token >= 0 AND output_price_per_token >= 0",
            name=op.f("model_tariffs_prices_check"),
        ),
        sa.ForeignKeyConstraint(
            ["deployed_model_id"],
            ["deployed_models.id"],
            name=op.f("model_tariffs_deployed_model_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("model_tariffs_pkey")),
    )
    op.create_index(
        "model_tariffs_current_batch_unique",
        "model_tariffs",
        ["deployed_model_id", "completion_window"],
        unique=True,
        postgresql_where=sa.text("valid_until IS NULL AND api_key_purpose = 'batch'"),
    )
    op.create_index(
        "model_tariffs_current_unique",
        "model_tariffs",
        ["deployed_model_id", "api_key_purpose"],
        unique=True,
        postgresql_where=sa.text(
            "valid_until IS NULL AND api_key_purpose IN ('realtime', 'playground', 'platform')"
        ),
    )
    op.create_index(
        "model_tariffs_deployed_model_id_idx", "model_tariffs", ["deployed_model_id"], unique=False
    )
    op.create_table(
        "model_traffic_rules",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("deployed_model_id", sa.Uuid(), nullable=False),
        sa.Column("redirect_target_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_purpose", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(action = 'redirect') = (redirect_target_id IS NOT NULL)",
            name=op.f("model_traffic_rules_target_check"),
        ),
        sa.CheckConstraint(
            "action IN ('deny', 'redirect')", name=op.f("model_traffic_rules_action_check")
        ),
        sa.ForeignKeyConstraint(
            ["deployed_model_id"],
            ["deployed_models.id"],
            name=op.f("model_traffic_rules_deployed_model_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["redirect_target_id"],
            ["deployed_models.id"],
            name=op.f("model_traffic_rules_redirect_target_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("model_traffic_rules_pkey")),
        sa.UniqueConstraint(
            "deployed_model_id",
            "api_key_purpose",
            name=op.f("model_traffic_rules_deployed_model_id_api_key_purpose_unique"),
        ),
    )


def downgrade():
    op.drop_table("model_traffic_rules")
    op.drop_index("model_tariffs_deployed_model_id_idx", table_name="model_tariffs")
    op.drop_index(
        "model_tariffs_current_unique",
        table_name="model_tariffs",
        postgresql_where=sa.text(
            "valid_until IS NULL AND api_key_purpose IN ('realtime', 'playground', 'platform')"
        ),
    )
    op.drop_index(
        "model_tariffs_current_batch_unique",
        table_name="model_tariffs",
        postgresql_where=sa.text("valid_until IS NULL AND api_key_purpose = 'batch'"),
    )
    op.drop_table("model_tariffs")
    op.drop_index("deployment_groups_group_id_idx", table_name="deployment_groups")
    op.drop_table("deployment_groups")
    op.drop_index("user_groups_group_id_idx", table_name="user_groups")
    op.drop_table("user_groups")
    op.drop_index("deployed_models_hosted_on_idx", table_name="deployed_models")
    op.drop_index(
        "deployed_models_alias_unique",
        table_name="deployed_models",
        postgresql_where=sa.text("NOT deleted"),
    )
    op.drop_table("deployed_models")
    op.drop_table("user_roles")
    op.drop_index("user_organizations_organization_id_idx", table_name="user_organizations")
    op.drop_index(
        "user_organizations_invite_unique",
        table_name="user_organizations",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_table("user_organizations")
    op.drop_table("sign_in_attempts")
    op.drop_index("login_sessions_user_id_idx", table_name="login_sessions")
    op.drop_index("login_sessions_expires_at_idx", table_name="login_sessions")
    op.drop_table("login_sessions")
    op.drop_table("inference_endpoints")
    op.drop_table("groups")
    op.drop_index(
        "api_keys_name_unique", table_name="api_keys", postgresql_where=sa.text("NOT is_deleted")
    )
    op.drop_index(
        "api_keys_hidden_unique",
        table_name="api_keys",
        postgresql_where=sa.text("hidden AND NOT is_deleted"),
    )
    op.drop_table("api_keys")
    op.drop_index("users_username_unique", table_name="users")
    op.drop_index(
        "users_external_user_id_unique",
        table_name="users",
        postgresql_where=sa.text("external_user_id IS NOT NULL"),
    )
    op.drop_index(
        "users_email_unique",
        table_name="users",
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("user_type = 'individual'"),
    )
    op.drop_index("users_email_lower_idx", table_name="users")
    op.drop_index("users_created_at_id_idx", table_name="users")
    op.drop_table("users")
    op.drop_table("user_balance_checkpoints")
    op.drop_index("usage_rollups_model_bucket_idx", table_name="usage_rollups")
    op.drop_table("usage_rollups")
    op.drop_table("http_analytics")
    op.drop_index("requests_batch_id_idx", table_name="requests", schema="fusillade")
    op.drop_table("requests", schema="fusillade")
    op.drop_table("request_templates", schema="fusillade")
    op.drop_table("ready", schema="fusillade")
    op.drop_index("queues_model_vtime_idx", table_name="queues", schema="fusillade")
    op.drop_index("queues_model_head_deadline_idx", table_name="queues", schema="fusillade")
    op.drop_table("queues", schema="fusillade")
    op.drop_table("model_slots", schema="fusillade")
    op.drop_index("inflight_model_idx", table_name="inflight", schema="fusillade")
    op.drop_index("inflight_daemon_id_idx", table_name="inflight", schema="fusillade")
    op.drop_table("inflight", schema="fusillade")
    op.drop_index("files_uploaded_by_idx", table_name="files", schema="fusillade")
    op.drop_table("files", schema="fusillade")
    op.drop_table("duties", schema="fusillade")
    op.drop_table("delayed", schema="fusillade")
    op.drop_table("daemons", schema="fusillade")
    op.drop_index(
        "batches_output_file_id_unique",
        table_name="batches",
        schema="fusillade",
        postgresql_where=sa.text("output_file_id IS NOT NULL"),
    )
    op.drop_index(
        "batches_error_file_id_unique",
        table_name="batches",
        schema="fusillade",
        postgresql_where=sa.text("error_file_id IS NOT NULL"),
    )
    op.drop_table("batches", schema="fusillade")
    op.drop_index("credits_transactions_user_id_seq_idx", table_name="credits_transactions")
    op.drop_index("credits_transactions_source_id_unique", table_name="credits_transactions")
    op.drop_table("credits_transactions")
    op.execute("DROP SCHEMA fusillade")
    op.execute("DROP TYPE user_role")
