"""The audit log of deletions that take many rows along, of resealing, and where one searches it for what is rare

Instant: functions and triggers are replaced; the log is looked at once. Two indexes are built without locking: seconds for a million keys or entries.

Revision ID: 0031
Revises: 0029
"""

from alembic import op

revision = "0031"
down_revision = "0029"
branch_labels = None
depends_on = None

# It was said to be immutable, and calls what is stable: so it was no part of the statement that calls it, but a statement of its own for each column.
SHOWN = "ALTER FUNCTION audit_shown(text, jsonb, boolean) STABLE"

# As in 0018, but for deletions (below), and for who reseals: that is no new credential.
CHANGE = """
CREATE OR REPLACE FUNCTION audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- What comes by itself with a change, or is nobody's decision.
    noise CONSTANT text[] := ARRAY['created_at', 'updated_at', 'joined_at', 'granted_at', 'last_login', 'last_used', 'last_sync',
        'position', 'seq', 'composite_is_composite', 'component_is_composite', 'first_batch_email_sent',
        'low_balance_notification_sent', 'auto_topup_limit_notification_sent'];
    actor jsonb := current_setting('dwctl.actor')::jsonb;
    was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - noise END;
    becomes jsonb := to_jsonb(NEW) - noise;
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
    IF (TG_TABLE_NAME = 'api_keys' AND subject -> 'hidden' = 'true') OR TG_ARGV[CASE TG_OP WHEN 'INSERT' THEN 1 ELSE 2 END] = '' THEN
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
    END IF;
    verb := CASE
        WHEN TG_OP = 'INSERT' THEN TG_ARGV[1]
        WHEN shown_after -> 'is_deleted' = 'true' OR shown_after -> 'deleted' = 'true' OR shown_before -> 'deleted_at' = 'null' THEN TG_ARGV[3]
        WHEN shown_after -> 'is_deleted' = 'false' OR shown_after -> 'deleted' = 'false' THEN 'restored'
        WHEN only_secrets AND current_setting('dwctl.resealing', true) = 'on' THEN 'resealed'
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
            WHEN becomes ->> 'status' = 'active' THEN 'member_added'
            ELSE 'invitation_changed'
        END;
    ELSIF TG_TABLE_NAME = 'credits_transactions' THEN
        verb := CASE subject ->> 'transaction_type'
            WHEN 'admin_grant' THEN 'granted' WHEN 'admin_removal' THEN 'removed' WHEN 'purchase' THEN 'purchased' ELSE 'used' END;
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

# One statement writes the entries of all rows that one statement has deleted: a group may have 20,000 members, which go with it.
DELETION = """
CREATE FUNCTION audit_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    noise CONSTANT text[] := ARRAY['created_at', 'updated_at', 'joined_at', 'granted_at', 'last_login', 'last_used', 'last_sync',
        'position', 'seq', 'composite_is_composite', 'component_is_composite', 'first_batch_email_sent',
        'low_balance_notification_sent', 'auto_topup_limit_notification_sent'];
    actor jsonb;
BEGIN
    -- What goes along with one row of many is a statement for each, most of which delete nothing.
    IF TG_ARGV[3] = '' OR NOT EXISTS (SELECT FROM audited) THEN
        RETURN NULL;
    END IF;
    actor := current_setting('dwctl.actor')::jsonb;
    INSERT INTO audit_log (action, actor_id, actor_name, through, api_key_id, address, request_id, method, route,
            resource_type, resource_id, resource_name, related_id, organization_id, before)
    WITH gone AS MATERIALIZED (SELECT to_jsonb(audited) - noise AS value FROM audited),
         belongs AS MATERIALIZED (
        SELECT value, value ->> TG_ARGV[4] AS id,
               CASE
                   WHEN TG_TABLE_NAME <> 'users' THEN (value ->> TG_ARGV[7])::uuid
                   WHEN value ->> 'user_type' = 'organization' THEN (value ->> TG_ARGV[4])::uuid
               END AS owner
          FROM gone
         WHERE (TG_TABLE_NAME <> 'api_keys' OR value -> 'hidden' <> 'true')
           AND (TG_TABLE_NAME <> 'login_sessions' OR (value ->> 'expires_at')::timestamptz > now())
    ), entry AS MATERIALIZED (
        SELECT value, id, organization,
               CASE WHEN TG_ARGV[0] = 'user' AND organization IS NOT NULL THEN 'organization' ELSE TG_ARGV[0] END AS resource,
               CASE WHEN TG_TABLE_NAME = 'user_organizations' AND value ->> 'status' = 'pending' THEN 'invitation_removed'
                    ELSE TG_ARGV[3] END AS verb,
               CASE WHEN TG_ARGV[5] = '' AND TG_ARGV[0] IN ('group', 'model', 'user', 'organization') THEN id::uuid END AS named
          FROM belongs
         CROSS JOIN LATERAL (SELECT CASE WHEN TG_TABLE_NAME = 'users' THEN owner ELSE
                   (SELECT u.id FROM users u WHERE u.id = owner AND u.user_type = 'organization') END AS organization) account
    )
    SELECT resource || '.' || verb, (actor ->> 'id')::uuid, actor ->> 'name', actor ->> 'through', (actor ->> 'api_key')::uuid,
           actor ->> 'address', (actor ->> 'request')::uuid, actor ->> 'method', actor ->> 'route', resource, id,
           left(CASE
               WHEN TG_ARGV[5] <> '' THEN value ->> TG_ARGV[5]
               WHEN resource = 'group' THEN (SELECT name FROM groups g WHERE g.id = named)
               WHEN resource = 'model' THEN (SELECT alias FROM deployed_models m WHERE m.id = named)
               ELSE (SELECT username FROM users u WHERE u.id = named)
           END, 500),
           value ->> TG_ARGV[6], organization,
           (SELECT jsonb_object_agg(each.key, audit_shown(each.key, each.value, false))
              FROM jsonb_each(entry.value - TG_ARGV[4]) each WHERE each.value <> 'null')
      FROM entry;
    RETURN NULL;
END $$;
"""

# A table is attached by two triggers. What the system does by itself (no actor) pays one look at a setting a row or statement.
ATTACH = """
CREATE OR REPLACE FUNCTION audit_table(target regclass, resource text, added text DEFAULT 'created', changed text DEFAULT 'updated',
        removed text DEFAULT 'deleted', id_column text DEFAULT 'id', name_column text DEFAULT '', related_column text DEFAULT '',
        owner_column text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'CREATE TRIGGER audit AFTER INSERT OR UPDATE ON %s FOR EACH ROW'
        ' WHEN (current_setting(''dwctl.actor'', true) <> '''')'
        ' EXECUTE FUNCTION audit_change(%L, %L, %L, %L, %L, %L, %L, %L)',
        target, resource, added, changed, removed, id_column, name_column, related_column, owner_column);
    EXECUTE format(
        'CREATE TRIGGER audit_deletion AFTER DELETE ON %s REFERENCING OLD TABLE AS audited FOR EACH STATEMENT'
        ' WHEN (current_setting(''dwctl.actor'', true) <> '''')'
        ' EXECUTE FUNCTION audit_deletion(%L, %L, %L, %L, %L, %L, %L, %L)',
        target, resource, added, changed, removed, id_column, name_column, related_column, owner_column);
END $$;
"""

# What is attached already, as its trigger says it.
ATTACHED = """
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT tgrelid::regclass AS target, pg_get_triggerdef(oid) AS text FROM pg_trigger WHERE tgname = 'audit' LOOP
        EXECUTE format('DROP TRIGGER audit ON %s', found.target);
        EXECUTE replace(found.text, 'AFTER INSERT OR DELETE OR UPDATE', 'AFTER INSERT OR UPDATE');
        EXECUTE replace(replace(replace(replace(found.text,
            'TRIGGER audit ', 'TRIGGER audit_deletion '), 'AFTER INSERT OR DELETE OR UPDATE', 'AFTER DELETE'),
            'FOR EACH ROW', 'REFERENCING OLD TABLE AS audited FOR EACH STATEMENT'), 'audit_change(', 'audit_deletion(');
    END LOOP;
END $$;
"""

# A filter by action or kind of resource entered no index, and walked back through the whole log where it finds little.
# (An action begins with the kind of its resource, so one index serves both.)
CHECK = """
ALTER TABLE audit_log ADD CONSTRAINT audit_log_action_check CHECK (starts_with(action, resource_type || '.')) NOT VALID;
ALTER TABLE audit_log VALIDATE CONSTRAINT audit_log_action_check;
"""
INDEXES = {
    "audit_log_action_idx": "audit_log (action text_pattern_ops, id)",
    "api_keys_created_by_idx": "api_keys (created_by)",
}

# The way back: one trigger for all, and the functions of 0018.
DETACHED = """
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT tgrelid::regclass AS target, pg_get_triggerdef(oid) AS text FROM pg_trigger WHERE tgname = 'audit' LOOP
        EXECUTE format('DROP TRIGGER audit ON %s', found.target);
        EXECUTE format('DROP TRIGGER audit_deletion ON %s', found.target);
        EXECUTE replace(found.text, 'AFTER INSERT OR UPDATE', 'AFTER INSERT OR UPDATE OR DELETE');
    END LOOP;
END $$;
"""
CHANGE_BEFORE = """
CREATE OR REPLACE FUNCTION audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
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
ATTACH_BEFORE = """
CREATE OR REPLACE FUNCTION audit_table(target regclass, resource text, added text DEFAULT 'created', changed text DEFAULT 'updated',
        removed text DEFAULT 'deleted', id_column text DEFAULT 'id', name_column text DEFAULT '', related_column text DEFAULT '',
        owner_column text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW'
        ' WHEN (current_setting(''dwctl.actor'', true) <> '''')'
        ' EXECUTE FUNCTION audit_change(%L, %L, %L, %L, %L, %L, %L, %L)',
        target, resource, added, changed, removed, id_column, name_column, related_column, owner_column);
END $$;
"""


def upgrade() -> None:
    for statement in (SHOWN, CHANGE, DELETION, ATTACH, ATTACHED, CHECK):
        op.execute(statement)
    with op.get_context().autocommit_block():
        # It waits for every transaction that is under way, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        for name, columns in INDEXES.items():
            # What an attempt that was broken off has left is there, and is not used.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute("ALTER TABLE audit_log DROP CONSTRAINT audit_log_action_check")
    op.execute(DETACHED)
    op.execute("DROP FUNCTION audit_deletion")
    op.execute(ATTACH_BEFORE)
    op.execute(CHANGE_BEFORE)
    op.execute("ALTER FUNCTION audit_shown(text, jsonb, boolean) IMMUTABLE")
