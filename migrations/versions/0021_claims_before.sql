-- Functions of the queue as of the revision before.

CREATE OR REPLACE FUNCTION fusillade.claim(me uuid, only_models text[], caps int[], default_cap int, most int)
RETURNS TABLE (id uuid, model text, created_by text, deadline timestamptz,
               batch_id uuid, retry_attempt int, service_tier text, custom_id text, created_at timestamptz,
               api_key_id uuid, completion_window text, batch_created_at timestamptz, path text, body text,
               owner_id uuid, owner_deleted boolean, times_lost smallint)
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
                RETURNING q.id, g.deadline, q.batch_id, q.retry_attempt, q.service_tier, q.custom_id, q.created_at, q.template_id, q.times_lost
            ), flying AS (
                INSERT INTO fusillade.inflight (id, model, created_by, daemon_id)
                SELECT m.id, slot.model, line.created_by, me FROM marked m
            )
            SELECT m.id, slot.model, line.created_by, m.deadline, m.batch_id, m.retry_attempt, m.service_tier, m.custom_id, m.created_at,
                   b.api_key_id, b.completion_window, b.created_at, t.path, t.body, u.id, u.is_deleted, m.times_lost
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

CREATE OR REPLACE FUNCTION fusillade.start(me uuid, them uuid[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    UPDATE fusillade.requests r SET state = 'processing', started_at = now(), updated_at = now()
     WHERE r.id = ANY (them) AND r.state = 'claimed' AND r.daemon_id = me
    RETURNING r.id;
    -- Claimed by us, and not ours any more: cancelled meanwhile.
    DELETE FROM fusillade.inflight i WHERE i.id = ANY (them) AND i.daemon_id = me
       AND NOT EXISTS (SELECT FROM fusillade.requests r WHERE r.id = i.id AND r.state = 'processing' AND r.daemon_id = me);
END $$;

CREATE OR REPLACE FUNCTION fusillade.make_ready(ids uuid[]) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
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
     ORDER BY r.model
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
