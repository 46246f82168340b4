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
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, single, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, true, at, at
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
                                       total_requests, requests_started_at, completed_at, failed_at, metadata, single)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, coalesce(metadata::jsonb, '{}'), true
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
