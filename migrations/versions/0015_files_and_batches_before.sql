CREATE OR REPLACE FUNCTION fusillade.ensure_files(given json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.files (id, name, purpose, uploaded_by)
    SELECT id, 'single_request', 'batch', owner FROM json_to_recordset(given) AS f(id uuid, owner text) ORDER BY id
    ON CONFLICT (id) DO NOTHING;
END $$;

CREATE OR REPLACE FUNCTION fusillade.open_calls(given json) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    due uuid[];
BEGIN
    WITH c AS MATERIALIZED (
        SELECT * FROM json_to_recordset(given) AS c(
            id uuid, at timestamptz, file_id uuid, owner text, api_key_id uuid, path text, model text, request_body text,
            request_size bigint, tier text, sla text, expires_at timestamptz, daemon_id uuid, state text, metadata text,
            repeatable boolean, last_words text)
    ), templates AS (
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, at, at FROM c
        ON CONFLICT (id) DO NOTHING
    ), batches AS (
        INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, metadata)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at, coalesce(metadata::jsonb, '{}') FROM c
        ON CONFLICT (id) DO NOTHING
    ), opened AS (
        INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, daemon_id, claimed_at, started_at,
                                        created_at, updated_at)
        SELECT id, id, id, model, state, tier,
               CASE state WHEN 'processing' THEN daemon_id END, CASE state WHEN 'processing' THEN at END,
               CASE state WHEN 'processing' THEN at END, at, at
          FROM c ORDER BY id
        ON CONFLICT (id) DO NOTHING
        RETURNING id, state
    ), lasting AS (
        INSERT INTO fusillade.open_calls (id, daemon_id, repeatable, last_words)
        SELECT id, daemon_id, coalesce(repeatable, false), last_words FROM c JOIN opened USING (id) WHERE opened.state = 'processing'
        ON CONFLICT (id) DO NOTHING
    )
    SELECT array_agg(id) INTO due FROM opened WHERE state = 'pending';
    IF due IS NOT NULL THEN
        PERFORM fusillade.make_ready(due);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION fusillade.end_calls(given json, born_final boolean) RETURNS TABLE (id uuid, retaken boolean)
LANGUAGE plpgsql ROWS 16 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH c AS MATERIALIZED (
        SELECT * FROM json_to_recordset(given) AS c(
            id uuid, at timestamptz, ended_at timestamptz, track boolean,
            batch_id uuid, file_id uuid, owner text, api_key_id uuid, path text, model text,
            request_body text, request_size bigint, tier text, sla text, expires_at timestamptz, daemon_id uuid, metadata text,
            state text, response_status int, response_body text, response_size bigint, routed_model text, error text)
    ), interrupted AS MATERIALIZED (
        SELECT x.id FROM fusillade.requests x WHERE NOT born_final AND x.id = ANY (ARRAY(SELECT c.id FROM c)) AND x.state = 'failed'
    ), templates AS (
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, at, at
          FROM c WHERE track AND request_body IS NOT NULL AND batch_id IS NULL ORDER BY id
        ON CONFLICT (id) DO NOTHING
    ), tracked AS (
        -- A row that is there already was opened before: only its owner may finish it, and only while it runs. An owner that turns out to
        -- be alive may take back its own "interrupted".
        INSERT INTO fusillade.requests AS r (id, batch_id, template_id, model, state, service_tier, daemon_id, claimed_at, started_at,
            response_status, response_body, response_size, routed_model, error, completed_at, failed_at, created_at, updated_at)
        SELECT id, id, id, model, state, tier, daemon_id, at, at, response_status, response_body, response_size, routed_model, error,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, at, ended_at
          FROM c
         -- Without its body a record is of a row that was committed before; one that is gone was deleted, and stays deleted.
         -- (A scalar sub-query: the planner would answer EXISTS with a hash of the whole table.)
         WHERE track AND (request_body IS NOT NULL OR (SELECT true FROM fusillade.requests x WHERE x.id = c.id))
         ORDER BY id
        ON CONFLICT (id) DO UPDATE SET
            state = EXCLUDED.state, response_status = EXCLUDED.response_status, response_body = EXCLUDED.response_body,
            response_size = EXCLUDED.response_size, routed_model = EXCLUDED.routed_model, error = EXCLUDED.error,
            completed_at = EXCLUDED.completed_at, failed_at = EXCLUDED.failed_at, updated_at = EXCLUDED.updated_at
         WHERE r.daemon_id = EXCLUDED.daemon_id
           AND (r.state IN ('claimed', 'processing') OR (r.state = 'failed' AND starts_with(r.error, '{"type":"Interrupted"')))
        RETURNING r.id
    ), batches AS (
        INSERT INTO fusillade.batches AS b (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, completed_at, failed_at, metadata)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, coalesce(metadata::jsonb, '{}')
          FROM c JOIN tracked USING (id) WHERE batch_id IS NULL
        ON CONFLICT (id) DO UPDATE SET completed_at = EXCLUDED.completed_at, failed_at = EXCLUDED.failed_at
    )
    SELECT t.id, t.id IN (SELECT i.id FROM interrupted i) FROM tracked t UNION ALL SELECT c.id, false FROM c WHERE NOT track;
    IF born_final THEN
        RETURN;
    END IF;
    RETURN QUERY WITH c AS MATERIALIZED (
        SELECT * FROM json_to_recordset(given) AS c(
            id uuid, opened boolean, queued boolean, notify boolean, request_body text, daemon_id uuid, state text)
    ), landed AS (
        DELETE FROM fusillade.inflight i
         WHERE i.id = ANY (ARRAY(SELECT id FROM c WHERE queued)) AND i.daemon_id = (SELECT daemon_id FROM c WHERE c.id = i.id LIMIT 1)
    ), closed AS (
        DELETE FROM fusillade.open_calls o
         WHERE o.id = ANY (ARRAY(SELECT id FROM c WHERE opened)) AND o.daemon_id = (SELECT daemon_id FROM c WHERE c.id = o.id LIMIT 1)
    ), now_there AS MATERIALIZED (
        SELECT c.id, c.opened AND ((r.state = 'canceled' AND r.daemon_id = c.daemon_id) OR (r.id IS NULL AND c.request_body IS NULL)) AS dropped,
               c.notify AND r.daemon_id = c.daemon_id AND r.state = c.state AS ended
          FROM c LEFT JOIN fusillade.requests r ON r.id = c.id
    ), woken AS MATERIALIZED (
        SELECT count(pg_notify('fusillade_done', ids)) AS pages
          FROM (SELECT string_agg(id::text, ',') AS ids
                  FROM (SELECT id, row_number() OVER () / 150 AS page FROM now_there WHERE ended) numbered
                 GROUP BY page) pages
    )
    -- Cancelled or deleted while it ran: its result is dropped, what it used is billed. (woken gives nothing here, but must be read to be run.)
    SELECT n.id, false FROM now_there n, woken WHERE dropped AND pages >= 0;
END $$;

CREATE OR REPLACE FUNCTION fusillade.add_ended(given fusillade.born_final[]) RETURNS int LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    WITH c AS MATERIALIZED (
        SELECT * FROM unnest(given)
    ), templates AS (
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, at, at FROM c
        ON CONFLICT (id) DO NOTHING
    ), batches AS (
        INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, completed_at, failed_at, metadata)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, coalesce(metadata::jsonb, '{}')
          FROM c
        ON CONFLICT (id) DO NOTHING
    )
    INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, daemon_id, claimed_at, started_at,
        response_status, response_body, response_size, routed_model, error, completed_at, failed_at, created_at, updated_at)
    SELECT id, id, id, model, state, tier, daemon_id, at, at, response_status, response_body, response_size, routed_model, error,
           CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, at, ended_at
      FROM c
    ON CONFLICT (id) DO NOTHING;
    RETURN 1;
END $$;

CREATE OR REPLACE FUNCTION fusillade.give_up(one uuid, me uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.requests SET state = 'failed', failed_at = now(), updated_at = now(),
           error = '{"type":"NotRecorded","details":{"error":"The result could not be written down."}}'
     WHERE id = one AND daemon_id = me AND state IN ('claimed', 'processing');
    IF FOUND THEN
        UPDATE fusillade.batches SET failed_at = now() WHERE id = one;
        PERFORM pg_notify('fusillade_done', one::text);
    END IF;
    DELETE FROM fusillade.inflight WHERE id = one AND daemon_id = me;
    DELETE FROM fusillade.open_calls WHERE id = one AND daemon_id = me;
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

CREATE OR REPLACE FUNCTION fusillade.retry_later(me uuid, one uuid, delay_s double precision) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH mine AS (
        UPDATE fusillade.requests r SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL,
               retry_attempt = retry_attempt + 1, not_before = now() + delay_s * interval '1 second', updated_at = now()
         WHERE r.id = one AND r.daemon_id = me AND r.state IN ('claimed', 'processing')
        RETURNING r.id, r.batch_id, r.not_before
    )
    INSERT INTO fusillade.delayed (not_before, id)
    SELECT least(m.not_before, greatest(b.expires_at, now())), m.id FROM mine m LEFT JOIN fusillade.batches b ON b.id = m.batch_id
    ON CONFLICT DO NOTHING;
    DELETE FROM fusillade.inflight WHERE id = one AND daemon_id = me;
END $$;

CREATE OR REPLACE FUNCTION fusillade.give_back(me uuid, them uuid[], waits_s double precision[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    due uuid[];
    ended int;
BEGIN
    -- Before their leases: an owner that turns out to be alive, and ends them, takes the two in this order.
    PERFORM FROM fusillade.requests r WHERE r.id = ANY (them) ORDER BY r.id FOR UPDATE;
    WITH lost AS (
        DELETE FROM fusillade.inflight i WHERE i.id = ANY (them) AND i.daemon_id = me RETURNING i.id, i.last_words
    ), seen AS MATERIALIZED (
        SELECT l.id, EXISTS (SELECT FROM fusillade.response_chunks c WHERE c.request_id = l.id) AS was_shown FROM lost l
    ), judged AS MATERIALIZED (
        SELECT r.id, r.batch_id, s.was_shown, s.was_shown OR (waits_s IS NOT NULL
               AND r.times_lost + 1 > CASE r.service_tier WHEN 'priority' THEN 1 ELSE cardinality(waits_s) END) AS is_last
          FROM seen s JOIN fusillade.requests r ON r.id = s.id
         WHERE r.daemon_id = me AND r.state IN ('claimed', 'processing')
    ), over AS (
        UPDATE fusillade.requests r SET state = 'failed', failed_at = now(), updated_at = now(), times_lost = r.times_lost + 1,
               error = CASE WHEN j.was_shown
                    THEN '{"type":"Interrupted","details":{"error":"The process that ran this request ended before it was done."}}'
                    ELSE '{"type":"WorkerLost","details":{"error":"The workers that ran this request ended before it was done, each time."}}' END
          FROM judged j WHERE r.id = j.id AND j.is_last
        RETURNING r.id, j.was_shown
    ), batches AS (
        UPDATE fusillade.batches b SET failed_at = now() FROM over o WHERE b.id = o.id
    ), told AS MATERIALIZED (
        SELECT count(pg_notify('fusillade_done', id::text)) AS n FROM over
    ), unrecorded AS (
        -- Also what one has used that was cancelled meanwhile.
        INSERT INTO fusillade.unrecorded (id, error_code, last_words)
        SELECT l.id, CASE WHEN o.was_shown IS FALSE THEN 'worker_lost' ELSE 'interrupted' END, l.last_words
          FROM lost l LEFT JOIN over o ON o.id = l.id
         WHERE o.id IS NOT NULL OR (l.last_words IS NOT NULL AND l.id NOT IN (SELECT j.id FROM judged j))
        ON CONFLICT DO NOTHING
    ), freed AS (
        UPDATE fusillade.requests r SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL, updated_at = now(),
               times_lost = r.times_lost + CASE WHEN waits_s IS NULL THEN 0 ELSE 1 END,
               not_before = now() + waits_s[r.times_lost + 1] * interval '1 second'
          FROM judged j WHERE r.id = j.id AND NOT j.is_last
        RETURNING r.id, r.batch_id, r.not_before
    ), put_off AS (
        INSERT INTO fusillade.delayed (not_before, id)
        SELECT least(f.not_before, greatest(b.expires_at, now())), f.id
          FROM freed f LEFT JOIN fusillade.batches b ON b.id = f.batch_id WHERE f.not_before IS NOT NULL
        ON CONFLICT DO NOTHING
    )
    SELECT (SELECT array_agg(id) FROM freed WHERE not_before IS NULL), (SELECT n FROM told) INTO due, ended;
    IF due IS NOT NULL THEN
        PERFORM fusillade.make_ready(due);
    END IF;
    RETURN ended;
END $$;

CREATE OR REPLACE FUNCTION fusillade.cancel(one uuid, owners text[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    target record;
BEGIN
    SELECT r.id, r.state, r.model, b.created_by, b.expires_at INTO target
      FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.batch_id
     WHERE r.id = one AND b.created_by = ANY (owners) AND b.deleted_at IS NULL
       FOR UPDATE OF r;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN NEXT target.id;
    IF target.state NOT IN ('pending', 'claimed', 'processing') THEN
        RETURN;
    END IF;
    UPDATE fusillade.requests SET state = 'canceled', canceled_at = now(), updated_at = now() WHERE id = one;
    -- A claim takes the two rows the other way round: it is not waited for, and finds by the state that it comes too late.
    DELETE FROM fusillade.ready WHERE ctid = ANY (ARRAY(
        SELECT y.ctid FROM fusillade.ready y
         WHERE y.model = target.model AND y.created_by = target.created_by AND y.deadline = target.expires_at AND y.id = one
           FOR UPDATE OF y SKIP LOCKED));
    IF target.state = 'pending' THEN
        DELETE FROM fusillade.delayed WHERE id = one;
    END IF;
    UPDATE fusillade.batches SET cancelling_at = now(), cancelled_at = now() WHERE id = one;
    PERFORM pg_notify('fusillade_cancel', one::text), pg_notify('fusillade_done', one::text);
END $$;

CREATE OR REPLACE FUNCTION fusillade.purge_files(days int, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    purged int;
BEGIN
    DELETE FROM fusillade.files d WHERE d.ctid = ANY (ARRAY(
        SELECT f.ctid FROM fusillade.files f
         WHERE f.name = 'single_request' AND f.created_at < now() - days * interval '1 day'
           AND NOT EXISTS (SELECT FROM fusillade.batches b WHERE b.file_id = f.id)
         LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END $$;

CREATE OR REPLACE FUNCTION fusillade.feed_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
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
    -- Not past its deadline, when `expire` ends it.
    IF NEW.not_before > now() AND coalesce(due > now(), true) THEN
        INSERT INTO fusillade.delayed (not_before, id) VALUES (least(NEW.not_before, due), NEW.id) ON CONFLICT DO NOTHING;
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

CREATE OR REPLACE FUNCTION fusillade.purge_responses(days int, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    cutoff timestamptz := now() - days * interval '1 day';
    past uuid := rpad(lpad(to_hex((extract(epoch FROM cutoff) * 1000)::bigint), 12, '0'), 32, '0')::uuid;
    gone uuid[];
BEGIN
    gone := ARRAY(
        SELECT r.id FROM fusillade.requests r
         WHERE r.id < past AND r.batch_id = r.id AND r.state IN ('completed', 'failed', 'canceled') AND r.created_at < cutoff
         ORDER BY r.id LIMIT most FOR UPDATE SKIP LOCKED);
    DELETE FROM fusillade.requests WHERE id = ANY (gone);
    DELETE FROM fusillade.request_templates WHERE id = ANY (gone);
    DELETE FROM fusillade.batches WHERE id = ANY (gone);
    RETURN cardinality(gone);
END $$;
