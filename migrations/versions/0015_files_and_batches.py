"""Files and batches of many lines, beside the single requests that the tables have held so far

Columns are added without a rewrite: constant defaults say that existing rows are of single requests. The new indexes are over none of them,
yet each is built by one look at its whole table (request_templates, batches, files), during which writing waits: seconds for millions. One
index over `files` and the triggers of `requests` are made anew. Workers of the release before claim nothing from here on until they are
replaced; what they run, they end.

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

TABLES = """
ALTER TABLE fusillade.files
    ADD COLUMN single boolean NOT NULL DEFAULT true,
    ADD COLUMN purged_at timestamptz;
ALTER TABLE fusillade.files ALTER COLUMN single SET DEFAULT false;
-- Made before this version by nobody but an operator.
UPDATE fusillade.files SET single = false WHERE name <> 'single_request';

DROP INDEX fusillade.files_uploaded_by_idx;
CREATE INDEX files_uploaded_by_idx ON fusillade.files (uploaded_by, created_at DESC, id DESC) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX files_created_at_idx ON fusillade.files (created_at DESC, id DESC) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX files_expires_at_idx ON fusillade.files (expires_at) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX files_unpurged_idx ON fusillade.files (deleted_at) WHERE NOT single AND deleted_at IS NOT NULL AND purged_at IS NULL;

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
    ADD COLUMN counts_frozen_at timestamptz,
    ADD COLUMN purged_at timestamptz;
ALTER TABLE fusillade.batches ALTER COLUMN single SET DEFAULT false;
CREATE INDEX batches_created_by_idx ON fusillade.batches (created_by, created_at DESC, id DESC) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX batches_created_at_idx ON fusillade.batches (created_at DESC, id DESC) WHERE NOT single AND deleted_at IS NULL;
CREATE INDEX batches_open_idx ON fusillade.batches (expires_at)
    WHERE NOT single AND completed_at IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL;
CREATE INDEX batches_active_idx ON fusillade.batches (created_at DESC, id DESC)
    WHERE NOT single AND deleted_at IS NULL AND completed_at IS NULL AND failed_at IS NULL AND cancelling_at IS NULL
      AND cancelled_at IS NULL AND expired_at IS NULL;
CREATE INDEX batches_unpurged_idx ON fusillade.batches (deleted_at) WHERE NOT single AND deleted_at IS NOT NULL AND purged_at IS NULL;
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

CREATE TABLE fusillade.uploads (
    file_id uuid NOT NULL,
    touched_at timestamptz NOT NULL DEFAULT now(),
    abandoned boolean NOT NULL DEFAULT false,
    CONSTRAINT uploads_pkey PRIMARY KEY (file_id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
ALTER TABLE fusillade.requests ADD COLUMN retried smallint NOT NULL DEFAULT 0;
CREATE TABLE fusillade.sweeps (
    batch_id uuid NOT NULL,
    retries boolean NOT NULL DEFAULT false,
    position bigint NOT NULL DEFAULT 0,
    until bigint,
    ended bigint NOT NULL DEFAULT 0,
    done_at timestamptz,
    CONSTRAINT sweeps_pkey PRIMARY KEY (batch_id)
);
CREATE TABLE fusillade.recounts (
    batch_id uuid NOT NULL,
    CONSTRAINT recounts_pkey PRIMARY KEY (batch_id)
);
DROP FUNCTION fusillade.end_calls(json, boolean);

DROP INDEX fusillade.queues_model_vtime_idx, fusillade.queues_model_head_deadline_idx;
CREATE INDEX queues_model_vtime_idx ON fusillade.queues (model, vtime) WHERE paused_until IS NULL;
CREATE INDEX queues_model_head_deadline_idx ON fusillade.queues (model, head_deadline) WHERE paused_until IS NULL;
CREATE INDEX queues_paused_until_idx ON fusillade.queues (paused_until) WHERE paused_until IS NOT NULL;
DROP FUNCTION fusillade.claim(uuid, text[], int[], int, int);
DROP FUNCTION fusillade.start(uuid, uuid[]);

CREATE TABLE newcomers (
    user_id uuid NOT NULL,
    api_key_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT newcomers_pkey PRIMARY KEY (user_id)
);
"""

# Whatever is inserted by hand is counted, not only what waits.
TRIGGER = """
DROP TRIGGER requests_inserted_by_hand ON fusillade.requests;
CREATE TRIGGER requests_inserted_by_hand AFTER INSERT ON fusillade.requests FOR EACH ROW
    WHEN (current_setting('dwctl.queue', true) IS DISTINCT FROM 'own') EXECUTE FUNCTION fusillade.feed_by_hand();
"""

OLD_TRIGGER = """
DROP TRIGGER requests_inserted_by_hand ON fusillade.requests;
CREATE TRIGGER requests_inserted_by_hand AFTER INSERT ON fusillade.requests FOR EACH ROW
    WHEN (NEW.state = 'pending' AND current_setting('dwctl.queue', true) IS DISTINCT FROM 'own')
    EXECUTE FUNCTION fusillade.feed_by_hand();
"""
FUNCTIONS_THAT_GO = """
DROP FUNCTION fusillade.take, fusillade.claim_model, fusillade.claim_ahead, fusillade.take_places, fusillade.pause_queue,
    fusillade.pause_model, fusillade.end_pauses, fusillade.end_pauses_of_the_funded, fusillade.end_returned, fusillade.line_id,
    fusillade.window_of, fusillade.count_ended, fusillade.settle, fusillade.populate, fusillade.open_queues, fusillade.populate_no_more,
    fusillade.fail_batch, fusillade.why_expired, fusillade.end_lines, fusillade.note_expired, fusillade.cancel_batch,
    fusillade.delete_batch, fusillade.sweep, fusillade.line_of, fusillade.retry_lines, fusillade.reopen, fusillade.retry_batch,
    fusillade.sweep_retries, fusillade.retry_requests, fusillade.recount, fusillade.refill_lines, fusillade.begin_upload,
    fusillade.continue_upload, fusillade.finish_upload, fusillade.abandon_upload, fusillade.purge_uploads, fusillade.create_batch,
    fusillade.count_file, fusillade.one_line, fusillade.escape_line_ends, fusillade.output_line, fusillade.message_in,
    fusillade.read_failure, fusillade.error_line, fusillade.line_bytes, fusillade.delete_file, fusillade.expire_file,
    fusillade.expire_files, fusillade.purge_templates, fusillade.purge_requests, fusillade.claim, fusillade.end_calls;
"""
TABLES_THAT_GO = """
DELETE FROM fusillade.request_templates t USING fusillade.uploads u WHERE t.file_id = u.file_id AND NOT t.single;
DROP TABLE newcomers, batch_capacity_reservations, batch_usage;
DROP TABLE fusillade.recounts, fusillade.sweeps, fusillade.uploads, fusillade.finished_lines, fusillade.batch_models, fusillade.file_models;
DROP INDEX fusillade.queues_model_vtime_idx, fusillade.queues_model_head_deadline_idx, fusillade.queues_paused_until_idx;
ALTER TABLE fusillade.model_slots DROP COLUMN paused_until, DROP COLUMN pause_reason;
ALTER TABLE fusillade.queues DROP COLUMN paused_until, DROP COLUMN pause_reason;
CREATE INDEX queues_model_vtime_idx ON fusillade.queues (model, vtime);
CREATE INDEX queues_model_head_deadline_idx ON fusillade.queues (model, head_deadline);
ALTER TABLE fusillade.requests DROP COLUMN retried;
-- Indexes go with the columns that they mention.
ALTER TABLE fusillade.batches
    DROP COLUMN single, DROP COLUMN expired_at, DROP COLUMN populated_lines, DROP COLUMN completed_requests, DROP COLUMN failed_requests,
    DROP COLUMN canceled_requests, DROP COLUMN output_lines, DROP COLUMN error_lines, DROP COLUMN output_bytes, DROP COLUMN error_bytes,
    DROP COLUMN counts_frozen_at, DROP COLUMN purged_at;
ALTER TABLE fusillade.request_templates DROP COLUMN single;
ALTER TABLE fusillade.files DROP COLUMN single, DROP COLUMN purged_at;
CREATE INDEX files_uploaded_by_idx ON fusillade.files (uploaded_by);
"""


def upgrade():
    op.execute(TABLES)
    run("0015_files_and_batches.sql")
    op.execute(TRIGGER)


def downgrade():
    op.execute(OLD_TRIGGER)
    op.execute(FUNCTIONS_THAT_GO)
    run("0015_files_and_batches_before.sql")
    op.execute(TABLES_THAT_GO)


def run(name):
    # As it stands: what SQLAlchemy would read as its parameters are members of JSON texts.
    # For this statement only: an option of the connection would stay for the migrations after it, whose `%` it doubles.
    op.get_bind().exec_driver_sql(
        HERE.with_name(name).read_text("utf-8"), execution_options={"no_parameters": True}
    )
