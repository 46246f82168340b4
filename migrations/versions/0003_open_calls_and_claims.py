"""Calls that last, and the claim: the queue's two moving parts

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A realtime call that lasts: who works on it, and whether another process may start it again when that one dies.
OPEN_CALLS = """
CREATE TABLE fusillade.open_calls (
    id uuid NOT NULL,
    daemon_id uuid NOT NULL,
    repeatable boolean DEFAULT false NOT NULL,
    CONSTRAINT open_calls_pkey PRIMARY KEY (id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE INDEX open_calls_daemon_id_idx ON fusillade.open_calls (daemon_id);
"""

# Volatile PL/pgSQL under READ COMMITTED: each statement inside has a snapshot of its own, so what is in flight is counted after the
# model's row is locked. That is what makes the cap exact. Steps:
#   1 lock the longest-unserved models that seem to have room, skipping those that another claim has
#   2 room of each: its cap less what is in flight
#   3 its lines: those whose deadline is near first, then the least served; no line gets more than its share of the room
#   4 take the heads of each line, move them from ready to inflight, mark them in requests, and return all that running them takes
# Plans are kept by each connection, and may have been made when the tables were empty: the settings keep them on keys, and what is
# taken from `ready` is deleted by row address, since any other join would walk the whole line for each of its heads.
CLAIM = """
CREATE FUNCTION fusillade.claim(me uuid, only_models text[], caps int[], default_cap int, most int)
RETURNS TABLE (id uuid, model text, created_by text, deadline timestamptz,
               batch_id uuid, retry_attempt int, service_tier text, custom_id text, created_at timestamptz,
               api_key_id uuid, completion_window text, batch_created_at timestamptz, path text, body text,
               owner_id uuid, owner_deleted boolean)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    slot record;
    line record;
    head timestamptz;
    room int;
    taken int;
    share int;
    lines int;
    left_over int := most;
BEGIN
    FOR slot IN
        SELECT m.model FROM fusillade.model_slots m
         WHERE EXISTS (SELECT FROM fusillade.queues q WHERE q.model = m.model)
           -- Not yet the count that decides, but models that are full must not stand in the way of others.
           AND (SELECT count(*) FROM fusillade.inflight f WHERE f.model = m.model)
               < coalesce(caps[array_position(only_models, m.model)], default_cap)
         ORDER BY m.served
         LIMIT 32
           FOR UPDATE OF m SKIP LOCKED
    LOOP
        EXIT WHEN left_over <= 0;
        room := least(left_over, coalesce(caps[array_position(only_models, slot.model)], default_cap)
                                 - (SELECT count(*) FROM fusillade.inflight f WHERE f.model = slot.model));
        CONTINUE WHEN room <= 0;
        lines := least(room, (SELECT count(*) FROM fusillade.queues q WHERE q.model = slot.model)::int);
        FOR line IN
            SELECT q.created_by, q.vtime FROM fusillade.queues q
             WHERE q.model = slot.model
             ORDER BY (q.head_deadline < now() + interval '5 minutes') DESC, q.vtime
             LIMIT greatest(lines, 1)
               FOR UPDATE SKIP LOCKED
        LOOP
            EXIT WHEN room <= 0;
            share := greatest(1, ceil(room::numeric / greatest(lines, 1))::int);
            lines := lines - 1;
            RETURN QUERY WITH gone AS (
                DELETE FROM fusillade.ready d
                 WHERE d.ctid = ANY (ARRAY(
                    SELECT r.ctid FROM fusillade.ready r
                     WHERE r.model = slot.model AND r.created_by = line.created_by
                     ORDER BY r.deadline, r.id LIMIT share FOR UPDATE SKIP LOCKED))
                RETURNING d.id, d.deadline
            ), marked AS (
                -- The state is checked again: a row changed by hand may have left its entry in ready behind.
                UPDATE fusillade.requests q SET state = 'claimed', daemon_id = me, claimed_at = now(), updated_at = now()
                  FROM gone g
                 WHERE q.id = g.id AND q.state = 'pending'
                   AND NOT EXISTS (SELECT FROM fusillade.batches b WHERE b.id = q.batch_id
                                      AND (b.cancelling_at IS NOT NULL OR b.deleted_at IS NOT NULL))
                RETURNING q.id, g.deadline, q.batch_id, q.retry_attempt, q.service_tier, q.custom_id, q.created_at, q.template_id
            ), flying AS (
                INSERT INTO fusillade.inflight (id, model, created_by, daemon_id)
                SELECT m.id, slot.model, line.created_by, me FROM marked m
            )
            SELECT m.id, slot.model, line.created_by, m.deadline, m.batch_id, m.retry_attempt, m.service_tier, m.custom_id, m.created_at,
                   b.api_key_id, b.completion_window, b.created_at, t.path, t.body, u.id, u.is_deleted
              FROM marked m
              LEFT JOIN fusillade.batches b ON b.id = m.batch_id
              LEFT JOIN fusillade.request_templates t ON t.id = m.template_id
              -- The account that it runs as: the owner of the key that the batch names, else who made the batch.
              LEFT JOIN users u ON u.id = coalesce(
                    (SELECT k.user_id FROM api_keys k WHERE k.id = b.api_key_id),
                    CASE WHEN b.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN b.created_by::uuid END);
            GET DIAGNOSTICS taken = ROW_COUNT;
            head := (SELECT r.deadline FROM fusillade.ready r WHERE r.model = slot.model AND r.created_by = line.created_by
                      ORDER BY r.deadline, r.id LIMIT 1);
            IF head IS NULL THEN
                -- At once: an empty line that stands first would cost the next claim its turn.
                DELETE FROM fusillade.queues q WHERE q.model = slot.model AND q.created_by = line.created_by;
            ELSE
                UPDATE fusillade.queues q SET vtime = q.vtime + taken, head_deadline = head
                 WHERE q.model = slot.model AND q.created_by = line.created_by;
            END IF;
            room := room - taken;
            left_over := left_over - taken;
            UPDATE fusillade.model_slots m SET served = m.served + taken WHERE m.model = slot.model AND taken > 0;
        END LOOP;
    END LOOP;
END $$;
"""

# Pending requests, back in line (also those of a batch that other ids name): one place for what `ready` and `queues` hold.
MAKE_READY = """
CREATE FUNCTION fusillade.make_ready(ids uuid[]) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    made int;
BEGIN
    INSERT INTO fusillade.ready (model, created_by, deadline, id, batch_id)
    SELECT r.model, coalesce(b.created_by, ''), coalesce(b.expires_at, now() + interval '24 hours'), r.id, r.batch_id
      FROM fusillade.requests r LEFT JOIN fusillade.batches b ON b.id = r.batch_id
     WHERE r.id = ANY (ids) AND r.state = 'pending'
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS made = ROW_COUNT;
    INSERT INTO fusillade.model_slots (model)
    SELECT DISTINCT r.model FROM fusillade.requests r WHERE r.id = ANY (ids)
       AND NOT EXISTS (SELECT FROM fusillade.model_slots s WHERE s.model = r.model)
    ON CONFLICT DO NOTHING;
    INSERT INTO fusillade.queues AS q (model, created_by, vtime, head_deadline)
    SELECT r.model, coalesce(b.created_by, ''),
           coalesce((SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = r.model), 0),
           min(coalesce(b.expires_at, now() + interval '24 hours'))
      FROM fusillade.requests r LEFT JOIN fusillade.batches b ON b.id = r.batch_id
     WHERE r.id = ANY (ids) AND r.state = 'pending'
     GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (model, created_by) DO UPDATE SET head_deadline = least(q.head_deadline, EXCLUDED.head_deadline);
    PERFORM pg_notify('fusillade_ready', '');
    RETURN made;
END $$;
"""


def upgrade():
    op.execute(OPEN_CALLS)
    op.execute(CLAIM)
    op.execute(MAKE_READY)


def downgrade():
    op.execute("DROP FUNCTION fusillade.make_ready(uuid[])")
    op.execute("DROP FUNCTION fusillade.claim(uuid, text[], int[], int, int)")
    op.execute("DROP TABLE fusillade.open_calls")
