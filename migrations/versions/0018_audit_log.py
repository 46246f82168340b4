"""The audit log, and the triggers that write it

Instant: a new table, new functions; a trigger on each administrative table (its lock is held for a moment).

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_log_pkey PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    action text NOT NULL,
    actor_id uuid,
    actor_name text,
    through text NOT NULL,
    api_key_id uuid,
    address text,
    request_id uuid,
    method text,
    route text,
    resource_type text NOT NULL,
    resource_id text NOT NULL,
    resource_name text,
    related_id text,
    organization_id uuid,
    before jsonb,
    after jsonb,
    CONSTRAINT audit_log_through_check CHECK (through IN ('session', 'api_key', 'proxy_header', 'sign_in', 'command'))
);
CREATE INDEX audit_log_at_idx ON audit_log (at);
CREATE INDEX audit_log_actor_id_idx ON audit_log (actor_id, id) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_log_resource_id_idx ON audit_log (resource_id, id);
CREATE INDEX audit_log_related_id_idx ON audit_log (related_id, id) WHERE related_id IS NOT NULL;
CREATE INDEX audit_log_organization_id_idx ON audit_log (organization_id, id) WHERE organization_id IS NOT NULL;
CREATE INDEX audit_log_request_id_idx ON audit_log (request_id);
"""

# Rows leave by retention alone: a transaction that names its days may delete what is older, and never what is younger than a day.
APPEND_ONLY = """
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    days int := nullif(current_setting('dwctl.audit_retention_days', true), '')::int;
BEGIN
    IF TG_OP = 'DELETE' AND days IS NOT NULL THEN
        IF OLD.at < now() - greatest(days, 1) * interval '1 day' THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit log only appends' USING ERRCODE = '23514';
END $$;
CREATE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_log_no_truncation BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
"""

# What may be seen of a column. A secret is never there, only that it is set or has been replaced; long texts are cut, and what an address
# carries before its host is left out.
SHOWN = r"""
CREATE FUNCTION audit_is_secret(name text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT starts_with(name, 'secret') OR right(name, 5) = '_hash' OR right(name, 7) = '_sealed' OR name = 'payment_provider_id'
$$;
CREATE FUNCTION audit_shown(name text, value jsonb, replaces boolean) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN value = 'null' THEN value
        WHEN audit_is_secret(name) THEN CASE WHEN replaces THEN '"(changed)"'::jsonb ELSE '"(set)"'::jsonb END
        WHEN pg_column_size(value) > 4000 THEN to_jsonb(left(coalesce(value #>> '{}', ''), 2000) || '…')
        WHEN right(name, 3) = 'url' AND jsonb_typeof(value) = 'string'
            THEN to_jsonb(regexp_replace(value #>> '{}', '//[^/?#]*@', '//'))
        ELSE value
    END
$$;
"""

# One function for all tables; what is particular to one comes as arguments (audit_table below) or is one of the few cases in the middle.
CHANGE = """
CREATE FUNCTION audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- What comes by itself with a change, or is nobody's decision.
    noise CONSTANT text[] := ARRAY['created_at', 'updated_at', 'joined_at', 'granted_at', 'last_login', 'last_used', 'last_sync',
        'position', 'seq', 'composite_is_composite', 'component_is_composite', 'first_batch_email_sent',
        'low_balance_notification_sent', 'auto_topup_limit_notification_sent'];
    actor jsonb := current_setting('dwctl.actor')::jsonb;
    was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - noise END;
    becomes jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - noise END;
    subject jsonb := coalesce(was, becomes);
    resource text := TG_ARGV[0];
    verb text;
    identifier text := subject ->> TG_ARGV[4];
    named text := subject ->> TG_ARGV[5];
    owner uuid := (subject ->> TG_ARGV[7])::uuid;
    organization uuid;
    shown_before jsonb;
    shown_after jsonb;
    only_secrets boolean;
BEGIN
    IF (TG_TABLE_NAME = 'api_keys' AND subject -> 'hidden' = 'true') OR TG_ARGV[CASE TG_OP WHEN 'INSERT' THEN 1 WHEN 'UPDATE' THEN 2 ELSE 3 END] = '' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        SELECT jsonb_object_agg(key, audit_shown(key, o.value, false)),
               jsonb_object_agg(key, audit_shown(key, n.value, o.value <> 'null')),
               bool_and(audit_is_secret(key))
          INTO shown_before, shown_after, only_secrets
          FROM jsonb_each(was) o JOIN jsonb_each(becomes) n USING (key)
         WHERE o.value IS DISTINCT FROM n.value;
        IF shown_after IS NULL THEN
            RETURN NULL;
        END IF;
    ELSE
        SELECT jsonb_object_agg(key, audit_shown(key, value, false)) INTO shown_after
          FROM jsonb_each(subject - TG_ARGV[4]) WHERE value <> 'null';
        IF TG_OP = 'DELETE' THEN
            shown_before := shown_after;
            shown_after := NULL;
        END IF;
    END IF;
    verb := CASE
        WHEN TG_OP = 'INSERT' THEN TG_ARGV[1]
        WHEN TG_OP = 'DELETE' OR shown_after -> 'is_deleted' = 'true' OR shown_after -> 'deleted' = 'true'
            OR shown_before -> 'deleted_at' = 'null' THEN TG_ARGV[3]
        WHEN shown_after -> 'is_deleted' = 'false' OR shown_after -> 'deleted' = 'false' THEN 'restored'
        WHEN only_secrets THEN 'credential_changed'
        ELSE TG_ARGV[2]
    END;
    IF TG_TABLE_NAME = 'users' THEN
        organization := CASE WHEN subject ->> 'user_type' = 'organization' THEN owner END;
    ELSIF owner IS NOT NULL THEN
        SELECT id INTO organization FROM users WHERE id = owner AND user_type = 'organization';
    END IF;
    IF resource = 'user' AND organization IS NOT NULL THEN
        resource := 'organization';
    END IF;
    IF TG_TABLE_NAME = 'user_organizations' AND subject ->> 'status' = 'pending' THEN
        verb := CASE
            WHEN TG_OP = 'INSERT' THEN 'invited'
            WHEN TG_OP = 'DELETE' THEN 'invitation_removed'
            WHEN becomes ->> 'status' = 'active' THEN 'member_added'
            ELSE 'invitation_changed'
        END;
    ELSIF TG_TABLE_NAME = 'credits_transactions' THEN
        verb := CASE subject ->> 'transaction_type'
            WHEN 'admin_grant' THEN 'granted' WHEN 'admin_removal' THEN 'removed' WHEN 'purchase' THEN 'purchased' ELSE 'used' END;
    ELSIF TG_TABLE_NAME = 'login_sessions' AND TG_OP = 'DELETE' THEN
        IF (subject ->> 'expires_at')::timestamptz <= now() THEN
            RETURN NULL;
        END IF;
    END IF;
    IF TG_ARGV[5] = '' THEN
        named := CASE resource
            WHEN 'group' THEN (SELECT name FROM groups WHERE id = identifier::uuid)
            WHEN 'model' THEN (SELECT alias FROM deployed_models WHERE id = identifier::uuid)
            WHEN 'user' THEN (SELECT username FROM users WHERE id = identifier::uuid)
            WHEN 'organization' THEN (SELECT username FROM users WHERE id = identifier::uuid)
        END;
    END IF;
    INSERT INTO audit_log (action, actor_id, actor_name, through, api_key_id, address, request_id, method, route,
            resource_type, resource_id, resource_name, related_id, organization_id, before, after)
    VALUES (resource || '.' || verb, (actor ->> 'id')::uuid, actor ->> 'name', actor ->> 'through', (actor ->> 'api_key')::uuid,
            actor ->> 'address', (actor ->> 'request')::uuid, actor ->> 'method', actor ->> 'route',
            resource, identifier, left(named, 500), subject ->> TG_ARGV[6], organization, shown_before, shown_after);
    RETURN NULL;
END $$;
"""

# The trigger asks who acts before it is even queued: what the system does by itself (no actor) pays one look at a setting a row.
ATTACH = """
CREATE FUNCTION audit_table(target regclass, resource text, added text DEFAULT 'created', changed text DEFAULT 'updated',
        removed text DEFAULT 'deleted', id_column text DEFAULT 'id', name_column text DEFAULT '', related_column text DEFAULT '',
        owner_column text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW'
        ' WHEN (current_setting(''dwctl.actor'', true) <> '''')'
        ' EXECUTE FUNCTION audit_change(%L, %L, %L, %L, %L, %L, %L, %L)',
        target, resource, added, changed, removed, id_column, name_column, related_column, owner_column);
END $$;
COMMENT ON FUNCTION audit_table IS 'Have changes of a table written to audit_log. The verbs make the action (group.member_added), an empty one none. id_column: which resource it is about. name_column: its name in the row, else it is looked up. related_column: the other side. owner_column: an account, by which an organisation sees the entry.';
"""

TABLES = """
SELECT audit_table('users', 'user', name_column => 'username', owner_column => 'id');
SELECT audit_table('user_roles', 'user', 'role_added', 'role_changed', 'role_removed', id_column => 'user_id', owner_column => 'user_id');
SELECT audit_table('login_sessions', 'user', 'signed_in', '', 'session_ended', id_column => 'user_id');
SELECT audit_table('api_keys', 'api_key', name_column => 'name', related_column => 'user_id', owner_column => 'user_id');
SELECT audit_table('groups', 'group', name_column => 'name');
SELECT audit_table('user_groups', 'group', 'member_added', 'member_changed', 'member_removed', id_column => 'group_id', related_column => 'user_id', owner_column => 'user_id');
SELECT audit_table('user_organizations', 'organization', 'member_added', 'member_changed', 'member_removed', id_column => 'organization_id', related_column => 'user_id', owner_column => 'organization_id');
SELECT audit_table('inference_endpoints', 'endpoint', name_column => 'name');
SELECT audit_table('deployed_models', 'model', name_column => 'alias', related_column => 'hosted_on');
SELECT audit_table('deployed_model_components', 'model', 'component_added', 'component_changed', 'component_removed', id_column => 'composite_model_id', related_column => 'deployed_model_id');
SELECT audit_table('deployment_groups', 'group', 'model_granted', 'grant_changed', 'model_revoked', id_column => 'group_id', related_column => 'deployment_id');
SELECT audit_table('model_tariffs', 'model', 'tariff_added', 'tariff_changed', 'tariff_removed', id_column => 'deployed_model_id');
SELECT audit_table('model_traffic_rules', 'model', 'rule_added', 'rule_changed', 'rule_removed', id_column => 'deployed_model_id', related_column => 'redirect_target_id');
SELECT audit_table('connections', 'connection', name_column => 'name', related_column => 'owner_id', owner_column => 'owner_id');
SELECT audit_table('credits_transactions', 'credit', related_column => 'user_id', owner_column => 'user_id');
"""


def upgrade() -> None:
    for statement in (TABLE, APPEND_ONLY, SHOWN, CHANGE, ATTACH, TABLES):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION audit_table")
    # With the triggers that call it.
    op.execute("DROP FUNCTION audit_change CASCADE")
    op.execute("DROP FUNCTION audit_shown")
    op.execute("DROP FUNCTION audit_is_secret")
    op.execute("DROP TABLE audit_log")
    op.execute("DROP FUNCTION refuse_audit_change")
