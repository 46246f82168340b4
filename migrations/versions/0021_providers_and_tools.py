"""Display of providers; tool sources, and where they are attached

Instant: new tables.

Revision ID: 0021
Revises: 0020
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE provider_display_configs (
    provider_key text NOT NULL,
    display_name text NOT NULL,
    icon text,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT provider_display_configs_pkey PRIMARY KEY (provider_key),
    CONSTRAINT provider_display_configs_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE SET NULL,
    CONSTRAINT provider_display_configs_provider_key_check CHECK (btrim(provider_key) <> ''),
    CONSTRAINT provider_display_configs_display_name_check CHECK (btrim(display_name) <> '')
);

CREATE TABLE tool_sources (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    kind text NOT NULL DEFAULT 'http',
    name text NOT NULL,
    description text,
    parameters jsonb,
    url text NOT NULL,
    api_key_sealed text,
    timeout_secs integer NOT NULL DEFAULT 30,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tool_sources_pkey PRIMARY KEY (id),
    CONSTRAINT tool_sources_name_unique UNIQUE (name),
    CONSTRAINT tool_sources_kind_check CHECK (kind = 'http'),
    CONSTRAINT tool_sources_name_check CHECK (btrim(name) <> ''),
    CONSTRAINT tool_sources_parameters_check CHECK (jsonb_typeof(parameters) = 'object'),
    CONSTRAINT tool_sources_timeout_secs_check CHECK (timeout_secs > 0)
);

CREATE TABLE deployment_tool_sources (
    deployment_id uuid NOT NULL,
    tool_source_id uuid NOT NULL,
    CONSTRAINT deployment_tool_sources_pkey PRIMARY KEY (deployment_id, tool_source_id),
    CONSTRAINT deployment_tool_sources_deployment_id_fkey
        FOREIGN KEY (deployment_id) REFERENCES deployed_models (id) ON DELETE CASCADE,
    CONSTRAINT deployment_tool_sources_tool_source_id_fkey
        FOREIGN KEY (tool_source_id) REFERENCES tool_sources (id) ON DELETE CASCADE
);
CREATE INDEX deployment_tool_sources_tool_source_id_idx ON deployment_tool_sources (tool_source_id);

CREATE TABLE group_tool_sources (
    group_id uuid NOT NULL,
    tool_source_id uuid NOT NULL,
    CONSTRAINT group_tool_sources_pkey PRIMARY KEY (group_id, tool_source_id),
    CONSTRAINT group_tool_sources_group_id_fkey FOREIGN KEY (group_id) REFERENCES groups (id) ON DELETE CASCADE,
    CONSTRAINT group_tool_sources_tool_source_id_fkey
        FOREIGN KEY (tool_source_id) REFERENCES tool_sources (id) ON DELETE CASCADE
);
CREATE INDEX group_tool_sources_tool_source_id_idx ON group_tool_sources (tool_source_id);
"""

AUDITED = """
SELECT audit_table('provider_display_configs', 'provider', id_column => 'provider_key', name_column => 'display_name');
SELECT audit_table('tool_sources', 'tool_source', name_column => 'name');
SELECT audit_table('deployment_tool_sources', 'model', 'tool_attached', '', 'tool_detached', id_column => 'deployment_id', related_column => 'tool_source_id');
SELECT audit_table('group_tool_sources', 'group', 'tool_attached', '', 'tool_detached', id_column => 'group_id', related_column => 'tool_source_id');
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(AUDITED)


def downgrade() -> None:
    op.execute(
        "DROP TABLE group_tool_sources, deployment_tool_sources, tool_sources, provider_display_configs"
    )
