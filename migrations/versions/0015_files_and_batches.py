"""What files and batches of many lines need beside the tables that single requests have

Instant but for one thing: existing rows of batches and request_templates are of single requests, and columns with a constant default say so
without a rewrite. The new indexes are over none of them, yet each is built by one look at its whole table, during which writing waits
(seconds for millions).

Revision ID: 0015
Revises: 0014
"""

from pathlib import Path

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

HERE = Path(__file__)

UP = """
ALTER TABLE fusillade.request_templates ADD COLUMN single boolean NOT NULL DEFAULT true;
ALTER TABLE fusillade.request_templates ALTER COLUMN single SET DEFAULT false;
CREATE INDEX request_templates_file_id_idx ON fusillade.request_templates (file_id, line_number) WHERE NOT single;

ALTER TABLE fusillade.batches
    ADD COLUMN single boolean NOT NULL DEFAULT true,
    ADD COLUMN expired_at timestamptz,
    ADD COLUMN populated_lines bigint NOT NULL DEFAULT 0,
    ADD COLUMN completed_requests bigint NOT NULL DEFAULT 0,
    ADD COLUMN failed_requests bigint NOT NULL DEFAULT 0,
    ADD COLUMN canceled_requests bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_lines bigint NOT NULL DEFAULT 0,
    ADD COLUMN error_lines bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN error_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN counts_frozen_at timestamptz;
ALTER TABLE fusillade.batches ALTER COLUMN single SET DEFAULT false;
CREATE INDEX batches_created_by_idx ON fusillade.batches (created_by, created_at DESC, id DESC) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX batches_created_at_idx ON fusillade.batches (created_at DESC, id DESC) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX batches_open_idx ON fusillade.batches (expires_at)
    WHERE NOT single AND completed_at IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL;
CREATE INDEX batches_file_id_idx ON fusillade.batches (file_id) WHERE NOT single;

CREATE TABLE fusillade.file_models (
    file_id uuid NOT NULL,
    model text NOT NULL,
    path text NOT NULL,
    requests bigint NOT NULL,
    bytes bigint NOT NULL,
    CONSTRAINT file_models_pkey PRIMARY KEY (file_id, model, path),
    CONSTRAINT file_models_counts_check CHECK (requests > 0 AND bytes >= 0)
);
CREATE TABLE fusillade.batch_models (
    batch_id uuid NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    completed bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    canceled bigint NOT NULL DEFAULT 0,
    CONSTRAINT batch_models_pkey PRIMARY KEY (batch_id, model)
) WITH (fillfactor = 50);
CREATE TABLE fusillade.finished_lines (
    batch_id uuid NOT NULL,
    failed boolean NOT NULL,
    position bigint NOT NULL,
    request_id uuid NOT NULL,
    CONSTRAINT finished_lines_pkey PRIMARY KEY (batch_id, failed, position)
);
ALTER TABLE fusillade.queues ADD COLUMN paused_until timestamptz, ADD COLUMN pause_reason text;
ALTER TABLE fusillade.model_slots ADD COLUMN paused_until timestamptz, ADD COLUMN pause_reason text;

CREATE TABLE batch_usage (
    batch_id uuid NOT NULL,
    requests bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    total_tokens bigint NOT NULL,
    duration_ms bigint NOT NULL,
    ttfb_ms bigint NOT NULL,
    timed bigint NOT NULL,
    cost numeric(24, 15) NOT NULL,
    CONSTRAINT batch_usage_pkey PRIMARY KEY (batch_id)
) WITH (fillfactor = 50);
CREATE TABLE batch_capacity_reservations (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    model_id uuid NOT NULL,
    completion_window text NOT NULL,
    reserved_requests bigint NOT NULL,
    batch_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    released_at timestamptz,
    CONSTRAINT batch_capacity_reservations_pkey PRIMARY KEY (id),
    CONSTRAINT batch_capacity_reservations_model_id_fkey FOREIGN KEY (model_id) REFERENCES deployed_models (id) ON DELETE CASCADE,
    CONSTRAINT batch_capacity_reservations_reserved_requests_check CHECK (reserved_requests > 0)
);
CREATE INDEX batch_capacity_reservations_held_idx ON batch_capacity_reservations (model_id, completion_window, expires_at)
    WHERE released_at IS NULL;
"""

DOWN = """
DROP TABLE batch_capacity_reservations;
DROP TABLE batch_usage;
ALTER TABLE fusillade.model_slots DROP COLUMN paused_until, DROP COLUMN pause_reason;
ALTER TABLE fusillade.queues DROP COLUMN paused_until, DROP COLUMN pause_reason;
DROP TABLE fusillade.finished_lines;
DROP TABLE fusillade.batch_models;
DROP TABLE fusillade.file_models;
DROP INDEX fusillade.batches_file_id_idx, fusillade.batches_open_idx, fusillade.batches_created_at_idx, fusillade.batches_created_by_idx;
ALTER TABLE fusillade.batches
    DROP COLUMN single, DROP COLUMN expired_at, DROP COLUMN populated_lines, DROP COLUMN completed_requests, DROP COLUMN failed_requests,
    DROP COLUMN canceled_requests, DROP COLUMN output_lines, DROP COLUMN error_lines, DROP COLUMN output_bytes, DROP COLUMN error_bytes,
    DROP COLUMN counts_frozen_at;
DROP INDEX fusillade.request_templates_file_id_idx;
ALTER TABLE fusillade.request_templates DROP COLUMN single;
"""


def upgrade():
    op.execute(UP)
    op.execute(HERE.with_suffix(".sql").read_text("utf-8"))


def downgrade():
    op.execute(HERE.with_name("0015_files_and_batches_before.sql").read_text("utf-8"))
    op.execute(DOWN)
