"""Connections to external sources, their synchronisations and what these found

Instant: new tables.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE connections (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    owner_id uuid NOT NULL,
    created_by uuid NOT NULL,
    kind text NOT NULL DEFAULT 'source',
    provider text NOT NULL,
    name text NOT NULL,
    config_sealed text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    CONSTRAINT connections_pkey PRIMARY KEY (id),
    CONSTRAINT connections_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT connections_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT connections_kind_check CHECK (kind = 'source'),
    CONSTRAINT connections_provider_check CHECK (provider = 's3'),
    CONSTRAINT connections_name_check CHECK (char_length(name) BETWEEN 1 AND 255),
    CONSTRAINT connections_config_check CHECK ((deleted_at IS NULL) = (config_sealed IS NOT NULL))
);
CREATE INDEX connections_owner_id_idx ON connections (owner_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;

CREATE TABLE sync_operations (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    connection_id uuid NOT NULL,
    created_by uuid NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    strategy text NOT NULL,
    file_keys text[],
    force boolean NOT NULL DEFAULT false,
    endpoint text NOT NULL,
    completion_window text NOT NULL,
    any_window boolean NOT NULL DEFAULT false,
    api_key_id uuid,
    files_found integer NOT NULL DEFAULT 0,
    files_skipped integer NOT NULL DEFAULT 0,
    files_ingested integer NOT NULL DEFAULT 0,
    files_failed integer NOT NULL DEFAULT 0,
    batches_created integer NOT NULL DEFAULT 0,
    error text,
    listed_to text,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    claim uuid,
    claimed_until timestamptz,
    served_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    completed_at timestamptz,
    CONSTRAINT sync_operations_pkey PRIMARY KEY (id),
    CONSTRAINT sync_operations_connection_id_fkey FOREIGN KEY (connection_id) REFERENCES connections (id) ON DELETE CASCADE,
    CONSTRAINT sync_operations_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT sync_operations_status_check CHECK (status IN ('pending', 'listing', 'ingesting', 'completed', 'failed', 'deleted')),
    CONSTRAINT sync_operations_strategy_check CHECK (strategy IN ('snapshot', 'select')),
    CONSTRAINT sync_operations_file_keys_check CHECK ((strategy = 'select') = (file_keys IS NOT NULL))
) WITH (fillfactor = 50);
CREATE INDEX sync_operations_connection_id_idx ON sync_operations (connection_id, created_at DESC, id DESC);
CREATE INDEX sync_operations_open_idx ON sync_operations (status, served_at) WHERE status IN ('pending', 'listing', 'ingesting');

CREATE TABLE sync_entries (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    sync_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    external_key text NOT NULL,
    external_last_modified timestamptz,
    external_size_bytes bigint,
    external_etag text,
    status text NOT NULL DEFAULT 'pending',
    file_id uuid,
    batch_id uuid,
    template_count bigint,
    invalid_lines bigint NOT NULL DEFAULT 0,
    line_errors jsonb,
    error text,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    claim uuid,
    claimed_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sync_entries_pkey PRIMARY KEY (id),
    CONSTRAINT sync_entries_sync_id_fkey FOREIGN KEY (sync_id) REFERENCES sync_operations (id) ON DELETE CASCADE,
    CONSTRAINT sync_entries_connection_id_fkey FOREIGN KEY (connection_id) REFERENCES connections (id) ON DELETE CASCADE,
    CONSTRAINT sync_entries_status_check
        CHECK (status IN ('pending', 'ingesting', 'ingested', 'activating', 'activated', 'failed', 'skipped', 'deleted')),
    CONSTRAINT sync_entries_sync_id_external_key_unique UNIQUE (sync_id, external_key)
);
CREATE INDEX sync_entries_taken_idx ON sync_entries (connection_id, external_key, external_last_modified)
    WHERE status NOT IN ('skipped', 'deleted');
CREATE INDEX sync_entries_open_idx ON sync_entries (sync_id, due_at) WHERE status IN ('pending', 'ingesting');
CREATE INDEX sync_entries_ingested_idx ON sync_entries (due_at) WHERE status IN ('ingested', 'activating');
CREATE INDEX sync_entries_claim_idx ON sync_entries (claim) WHERE claim IS NOT NULL;
"""


def upgrade():
    op.execute(TABLES)


def downgrade():
    op.execute("DROP TABLE sync_entries, sync_operations, connections")
