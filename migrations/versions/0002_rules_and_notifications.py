"""What the database sees to by itself: log partitions, ledger rules, change notifications, rows written by hand

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PARTITIONS = """
CREATE FUNCTION make_log_partitions(first_day date, days int) RETURNS int
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    day date;
    made int := 0;
BEGIN
    FOR day IN SELECT first_day + n FROM generate_series(0, days - 1) n LOOP
        IF to_regclass('http_analytics_p' || to_char(day, 'YYYYMMDD')) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF http_analytics FOR VALUES FROM (%L) TO (%L)',
                'http_analytics_p' || to_char(day, 'YYYYMMDD'),
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
-- Yesterday too: a record that was spooled before midnight may arrive after it.
SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date - 2, 33);
"""

LEDGER = """
CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger only appends: write a correcting entry instead' USING ERRCODE = '23514';
END $$;
CREATE TRIGGER credits_transactions_no_delete BEFORE DELETE ON credits_transactions
    FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change();
CREATE TRIGGER credits_transactions_no_change BEFORE UPDATE ON credits_transactions
    FOR EACH ROW WHEN (
        (OLD.id, OLD.user_id, OLD.transaction_type, OLD.amount, OLD.source_id, OLD.description, OLD.created_at, OLD.seq)
        IS DISTINCT FROM
        (NEW.id, NEW.user_id, NEW.transaction_type, NEW.amount, NEW.source_id, NEW.description, NEW.created_at, NEW.seq))
    EXECUTE FUNCTION refuse_ledger_change();
"""

# Payload: table:id,id,...  or  table:*  where there are too many for one notification (8000 bytes).
NOTIFY = """
CREATE FUNCTION notify_config_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids text[];
BEGIN
    EXECUTE format('SELECT array_agg(id) FROM (SELECT DISTINCT %I::text AS id FROM changed LIMIT 151) s', TG_ARGV[0])
        INTO ids;
    IF ids IS NOT NULL THEN
        PERFORM pg_notify('auth_config_changed', TG_TABLE_NAME || ':' ||
            CASE WHEN cardinality(ids) > 150 THEN '*' ELSE array_to_string(ids, ',') END);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION notify_row_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT pg_notify(''auth_config_changed'', %L || ($1.%I)::text)', TG_TABLE_NAME || ':', TG_ARGV[0])
        USING NEW;
    RETURN NULL;
END $$;
"""

STATEMENT_TRIGGERS = {
    "api_keys": ("id", ("INSERT", "DELETE")),
    "user_groups": ("user_id", ("INSERT", "UPDATE", "DELETE")),
    "deployment_groups": ("deployment_id", ("INSERT", "UPDATE", "DELETE")),
    "deployed_models": ("id", ("INSERT", "UPDATE", "DELETE")),
    "model_tariffs": ("deployed_model_id", ("INSERT", "UPDATE", "DELETE")),
    "model_traffic_rules": ("deployed_model_id", ("INSERT", "UPDATE", "DELETE")),
    "inference_endpoints": ("id", ("INSERT", "UPDATE", "DELETE")),
    "users": ("id", ("DELETE",)),
}

# Row triggers with a condition, where most updates change nothing that routing knows.
ROW_TRIGGERS = """
CREATE TRIGGER api_keys_changed AFTER UPDATE ON api_keys FOR EACH ROW WHEN (
    (OLD.secret_hash, OLD.user_id, OLD.created_by, OLD.purpose, OLD.is_deleted, OLD.requests_per_second, OLD.burst_size)
    IS DISTINCT FROM
    (NEW.secret_hash, NEW.user_id, NEW.created_by, NEW.purpose, NEW.is_deleted, NEW.requests_per_second, NEW.burst_size))
    EXECUTE FUNCTION notify_row_change('id');
CREATE TRIGGER users_changed AFTER UPDATE ON users FOR EACH ROW
    WHEN (OLD.is_deleted IS DISTINCT FROM NEW.is_deleted) EXECUTE FUNCTION notify_row_change('id');
CREATE TRIGGER user_balance_appeared AFTER INSERT ON user_balance_checkpoints FOR EACH ROW
    WHEN (NEW.balance > 0) EXECUTE FUNCTION notify_row_change('user_id');
CREATE TRIGGER user_balance_crossed AFTER UPDATE ON user_balance_checkpoints FOR EACH ROW
    WHEN ((OLD.balance > 0) IS DISTINCT FROM (NEW.balance > 0)) EXECUTE FUNCTION notify_row_change('user_id');
"""

# Rows of the queue that come from our own statements carry their entries in ready and inflight with them (the session says
# dwctl.queue = own). These triggers do the same for rows inserted or changed by hand.
BY_HAND = """
CREATE FUNCTION fusillade.feed_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner text;
    due timestamptz;
BEGIN
    SELECT b.created_by, b.expires_at INTO owner, due FROM fusillade.batches b WHERE b.id = NEW.batch_id;
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM fusillade.inflight WHERE id = NEW.id;
        -- What waits no more stands in nobody's way. One that a claim has now is its business: it looks at the state.
        DELETE FROM fusillade.ready WHERE OLD.state = 'pending' AND ctid = ANY (ARRAY(
            SELECT r.ctid FROM fusillade.ready r
             WHERE r.model = OLD.model AND r.created_by = coalesce(owner, '') AND r.deadline = due AND r.id = OLD.id
               FOR UPDATE SKIP LOCKED));
    END IF;
    IF NEW.state <> 'pending' OR NEW.template_id IS NULL THEN
        RETURN NULL;
    END IF;
    IF NEW.not_before > now() THEN
        INSERT INTO fusillade.delayed (not_before, id) VALUES (NEW.not_before, NEW.id) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END IF;
    owner := coalesce(owner, '');
    due := coalesce(due, now() + interval '24 hours');
    INSERT INTO fusillade.ready (model, created_by, deadline, id, batch_id)
        VALUES (NEW.model, owner, due, NEW.id, NEW.batch_id) ON CONFLICT DO NOTHING;
    INSERT INTO fusillade.model_slots (model) VALUES (NEW.model) ON CONFLICT DO NOTHING;
    INSERT INTO fusillade.queues AS q (model, created_by, vtime, head_deadline)
        VALUES (NEW.model, owner,
                coalesce((SELECT min(vtime) FROM fusillade.queues WHERE model = NEW.model), 0), due)
        ON CONFLICT (model, created_by) DO UPDATE SET head_deadline = least(q.head_deadline, EXCLUDED.head_deadline);
    RETURN NULL;
END $$;
CREATE TRIGGER requests_inserted_by_hand AFTER INSERT ON fusillade.requests FOR EACH ROW
    WHEN (NEW.state = 'pending' AND current_setting('dwctl.queue', true) IS DISTINCT FROM 'own')
    EXECUTE FUNCTION fusillade.feed_by_hand();
CREATE TRIGGER requests_changed_by_hand AFTER UPDATE OF state ON fusillade.requests FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state
          AND NEW.state NOT IN ('claimed', 'processing')
          AND current_setting('dwctl.queue', true) IS DISTINCT FROM 'own')
    EXECUTE FUNCTION fusillade.feed_by_hand();
"""

# Bodies are larger than anything else that is stored: lz4 costs a fraction of pglz. Servers built without it keep pglz.
COMPRESSION = """
DO $$
BEGIN
    ALTER TABLE fusillade.request_templates ALTER COLUMN body SET COMPRESSION lz4;
    ALTER TABLE fusillade.requests ALTER COLUMN response_body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $$;
"""

SYSTEM_ROWS = """
INSERT INTO users (id, username, email, auth_source, is_admin, is_internal)
    VALUES ('00000000-0000-0000-0000-000000000000', 'system', 'system@internal', 'internal', true, true);
INSERT INTO user_roles (user_id, role) VALUES ('00000000-0000-0000-0000-000000000000', 'PLATFORMMANAGER');
INSERT INTO groups (id, name, description, created_by, source)
    VALUES ('00000000-0000-0000-0000-000000000000', 'Everyone',
            'Default group that automatically includes all users and organizations',
            '00000000-0000-0000-0000-000000000000', 'native');
"""


def upgrade():
    for statement in (PARTITIONS, LEDGER, NOTIFY):
        op.execute(statement)
    for table, (column, events) in STATEMENT_TRIGGERS.items():
        for event in events:
            op.execute(
                f"CREATE TRIGGER {table}_{event.lower()}d AFTER {event} ON {table} "
                f"REFERENCING {'OLD' if event == 'DELETE' else 'NEW'} TABLE AS changed "
                f"FOR EACH STATEMENT EXECUTE FUNCTION notify_config_change('{column}')"
            )
    for statement in (ROW_TRIGGERS, BY_HAND, COMPRESSION, SYSTEM_ROWS):
        op.execute(statement)


def downgrade():
    op.execute("DELETE FROM users WHERE id = '00000000-0000-0000-0000-000000000000'")
    op.execute("DROP FUNCTION fusillade.feed_by_hand() CASCADE")
    op.execute("DROP FUNCTION notify_row_change() CASCADE")
    op.execute("DROP FUNCTION notify_config_change() CASCADE")
    op.execute("DROP FUNCTION refuse_ledger_change() CASCADE")
    op.execute("DROP FUNCTION make_log_partitions(date, int)")
