CREATE OR REPLACE FUNCTION fusillade.ensure_files(given json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.files (id, name, purpose, uploaded_by, single)
    SELECT id, 'single_request', 'batch', owner, true FROM json_to_recordset(given) AS f(id uuid, owner text) ORDER BY id
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
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, single, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, true, at, at FROM c
        ON CONFLICT (id) DO NOTHING
    ), batches AS (
        INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, metadata, single)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at, coalesce(metadata::jsonb, '{}'), true FROM c
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

CREATE OR REPLACE FUNCTION fusillade.end_calls(given json, born_final boolean) RETURNS TABLE (id uuid, retaken boolean, line_of uuid, retried int)
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
           AND (r.state IN ('claimed', 'processing')
                OR (r.state = 'failed' AND r.batch_id = r.id AND starts_with(r.error, '{"type":"Interrupted"')))
        RETURNING r.id, nullif(r.batch_id, r.id) AS line_of, r.retried
    ), batches AS (
        INSERT INTO fusillade.batches AS b (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, completed_at, failed_at, metadata, single)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, coalesce(metadata::jsonb, '{}'), true
          FROM c JOIN tracked USING (id) WHERE batch_id IS NULL
        ON CONFLICT (id) DO UPDATE SET completed_at = EXCLUDED.completed_at, failed_at = EXCLUDED.failed_at
    )
    SELECT t.id, t.line_of IS NULL AND t.id IN (SELECT i.id FROM interrupted i), t.line_of, t.retried::int FROM tracked t
    UNION ALL SELECT c.id, false, NULL, 0 FROM c WHERE NOT track;
    IF born_final THEN
        RETURN;
    END IF;
    RETURN QUERY WITH c AS MATERIALIZED (
        SELECT * FROM json_to_recordset(given) AS c(
            id uuid, opened boolean, queued boolean, notify boolean, batch_id uuid, request_body text, daemon_id uuid, state text)
    ), landed AS (
        DELETE FROM fusillade.inflight i
         WHERE i.id = ANY (ARRAY(SELECT id FROM c WHERE queued)) AND i.daemon_id = (SELECT daemon_id FROM c WHERE c.id = i.id LIMIT 1)
    ), closed AS (
        DELETE FROM fusillade.open_calls o
         WHERE o.id = ANY (ARRAY(SELECT id FROM c WHERE opened)) AND o.daemon_id = (SELECT daemon_id FROM c WHERE c.id = o.id LIMIT 1)
    ), now_there AS MATERIALIZED (
        SELECT c.id, c.opened AND ((r.state = 'canceled' AND r.daemon_id = c.daemon_id) OR (r.id IS NULL AND c.request_body IS NULL)) AS dropped,
               c.notify AND c.batch_id IS NULL AND r.daemon_id = c.daemon_id AND r.state = c.state AS ended,
               coalesce(r.retried, 0)::int AS retried
          FROM c LEFT JOIN fusillade.requests r ON r.id = c.id
    ), woken AS MATERIALIZED (
        SELECT count(pg_notify('fusillade_done', ids)) AS pages
          FROM (SELECT string_agg(id::text, ',') AS ids
                  FROM (SELECT id, row_number() OVER () / 150 AS page FROM now_there WHERE ended) numbered
                 GROUP BY page) pages
    )
    -- Cancelled or deleted while it ran: its result is dropped, what it used is billed. (woken gives nothing here, but must be read to be run.)
    SELECT n.id, false, NULL::uuid, n.retried FROM now_there n, woken WHERE dropped AND pages >= 0;
END $$;

CREATE OR REPLACE FUNCTION fusillade.add_ended(given fusillade.born_final[]) RETURNS int LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    WITH c AS MATERIALIZED (
        SELECT * FROM unnest(given)
    ), templates AS (
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, single, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, true, at, at FROM c
        ON CONFLICT (id) DO NOTHING
    ), batches AS (
        INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, completed_at, failed_at, metadata, single)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, coalesce(metadata::jsonb, '{}'), true
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
DECLARE
    ended boolean;
BEGIN
    UPDATE fusillade.requests SET state = 'failed', failed_at = now(), updated_at = now(),
           error = '{"type":"NotRecorded","details":{"error":"The result could not be written down."}}'
     WHERE id = one AND daemon_id = me AND state IN ('claimed', 'processing');
    ended := FOUND;
    DELETE FROM fusillade.inflight WHERE id = one AND daemon_id = me;
    DELETE FROM fusillade.open_calls WHERE id = one AND daemon_id = me;
    IF ended THEN
        UPDATE fusillade.batches SET failed_at = now() WHERE id = one;
        PERFORM pg_notify('fusillade_done', one::text);
        PERFORM fusillade.count_ended(ARRAY[one]);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION fusillade.cancel(one uuid, owners text[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    target record;
BEGIN
    SELECT r.id, r.state, r.model, b.id AS batch_id, b.created_by, b.expires_at INTO target
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
    IF target.batch_id <> one THEN
        PERFORM fusillade.count_ended(ARRAY[one]);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION fusillade.purge_files(days int, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    purged int;
BEGIN
    DELETE FROM fusillade.files d WHERE d.ctid = ANY (ARRAY(
        SELECT f.ctid FROM fusillade.files f
         WHERE f.single AND f.created_at < now() - days * interval '1 day'
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
    IF NEW.batch_id <> NEW.id THEN
        -- Its counters are behind until a duty, which hears of it, has counted.
        LOOP
            INSERT INTO fusillade.recounts (batch_id) VALUES (NEW.batch_id) ON CONFLICT DO NOTHING;
            -- Who counts at this moment does not see this change: waited for, and told anew.
            PERFORM FROM fusillade.recounts n WHERE n.batch_id = NEW.batch_id FOR KEY SHARE;
            EXIT WHEN FOUND;
        END LOOP;
        PERFORM pg_notify('fusillade_batches', 'by hand');
    END IF;
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
                coalesce((SELECT min(vtime) FROM fusillade.queues WHERE model = NEW.model AND paused_until IS NULL),
                         (SELECT min(vtime) FROM fusillade.queues WHERE model = NEW.model), 0), due)
        ON CONFLICT (model, created_by) DO UPDATE SET head_deadline = least(q.head_deadline, EXCLUDED.head_deadline);
    RETURN NULL;
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
           coalesce((SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = r.model AND o.paused_until IS NULL),
                    (SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = r.model), 0),
           min(coalesce(b.expires_at, now() + interval '24 hours'))
      FROM fusillade.requests r LEFT JOIN fusillade.batches b ON b.id = r.batch_id
     WHERE r.id = ANY (ids) AND r.state = 'pending'
     GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (model, created_by) DO UPDATE SET head_deadline = least(q.head_deadline, EXCLUDED.head_deadline);
    PERFORM pg_notify('fusillade_ready', '');
    RETURN made;
END $$;

CREATE OR REPLACE FUNCTION fusillade.take(me uuid, of_model text, counted_as text, most int, horizon timestamptz, by_deadline boolean,
                                          OUT taken uuid[], OUT deadlines timestamptz[], OUT swept int)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    owners text[];
    heads timestamptz[];
    share int;
    larger int;
    chosen tid[];
    counts jsonb;
    gone uuid[];
    dead record;
    more int;
BEGIN
    swept := 0;
    IF by_deadline THEN
        SELECT array_agg(c.created_by), array_agg(c.head_deadline) INTO owners, heads
          FROM (SELECT q.created_by, q.head_deadline FROM fusillade.queues q
                 WHERE q.model = of_model AND q.paused_until IS NULL AND q.head_deadline <= horizon
                 ORDER BY q.head_deadline LIMIT least(most, 8) FOR UPDATE SKIP LOCKED) c;
    ELSE
        SELECT array_agg(c.created_by), array_agg(c.head_deadline) INTO owners, heads
          FROM (SELECT q.created_by, q.head_deadline FROM fusillade.queues q
                 WHERE q.model = of_model AND q.paused_until IS NULL AND q.head_deadline <= horizon
                 ORDER BY q.vtime LIMIT most FOR UPDATE SKIP LOCKED) c;
    END IF;
    IF owners IS NULL THEN
        RETURN;
    END IF;
    share := most / cardinality(owners);
    larger := mod(most, cardinality(owners));
    -- No head is before what its queue says, so what was deleted there, and not yet vacuumed, is not walked again.
    IF by_deadline THEN
        chosen := ARRAY(
            SELECT d.ctid FROM fusillade.ready d WHERE d.ctid = ANY (ARRAY(
                SELECT h.ctid FROM unnest(owners, heads) c(owner, head), LATERAL (
                    SELECT r.ctid, r.deadline, r.id FROM fusillade.ready r
                     WHERE r.model = of_model AND r.created_by = c.owner AND r.deadline >= c.head AND r.deadline <= horizon
                     ORDER BY r.deadline, r.id LIMIT most) h
                 ORDER BY h.deadline, h.id LIMIT most)) FOR UPDATE SKIP LOCKED);
    ELSE
        chosen := ARRAY(
            SELECT h.ctid FROM unnest(owners, heads) WITH ORDINALITY c(owner, head, place), LATERAL (
                SELECT r.ctid FROM fusillade.ready r
                 WHERE r.model = of_model AND r.created_by = c.owner AND r.deadline >= c.head AND r.deadline <= horizon
                 ORDER BY r.deadline, r.id LIMIT share + (c.place <= larger)::int FOR UPDATE SKIP LOCKED) h);
    END IF;
    WITH gone AS (
        DELETE FROM fusillade.ready d WHERE d.ctid = ANY (chosen) RETURNING d.id, d.created_by, d.deadline
    ), marked AS (
        -- The state is checked again: a row changed by hand may have left its entry in ready behind.
        UPDATE fusillade.requests r SET state = 'processing', daemon_id = me, claimed_at = now(), started_at = now(), updated_at = now()
          FROM gone g
         WHERE r.id = g.id AND r.state = 'pending'
           AND NOT EXISTS (SELECT FROM fusillade.batches b WHERE b.id = r.batch_id
                              AND (b.cancelling_at IS NOT NULL OR b.deleted_at IS NOT NULL))
        RETURNING r.id, g.created_by, g.deadline
    ), flying AS (
        INSERT INTO fusillade.inflight (id, model, created_by, daemon_id)
        SELECT m.id, counted_as, m.created_by, me FROM marked m
    )
    SELECT (SELECT array_agg(m.id) FROM marked m), (SELECT array_agg(m.deadline) FROM marked m),
           (SELECT jsonb_object_agg(n.created_by, n.n) FROM (SELECT m.created_by, count(*) AS n FROM marked m GROUP BY m.created_by) n),
           (SELECT array_agg(g.id) FROM gone g)
      INTO taken, deadlines, counts, gone;
    IF cardinality(gone) > coalesce(cardinality(taken), 0) THEN
        swept := cardinality(gone) - coalesce(cardinality(taken), 0);
        -- Of a batch that is not to be run there may be any number behind: its requests stand together. Some are taken out of the way.
        FOR dead IN
            SELECT r.batch_id, b.created_by, b.expires_at, max(r.id::text)::uuid AS last
              FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.batch_id
             WHERE r.id = ANY (gone) AND r.id <> ALL (coalesce(taken, '{}')) AND r.id <> r.batch_id
               AND (b.cancelling_at IS NOT NULL OR b.deleted_at IS NOT NULL)
             GROUP BY r.batch_id, b.created_by, b.expires_at
        LOOP
            EXIT WHEN swept >= 500;
            DELETE FROM fusillade.ready d WHERE d.ctid = ANY (ARRAY(
                SELECT r.ctid FROM fusillade.ready r
                 WHERE r.model = of_model AND r.created_by = dead.created_by AND r.deadline = dead.expires_at AND r.id > dead.last
                   AND r.id <= overlay(dead.last::text PLACING 'ffffffff' FROM 29)::uuid AND r.batch_id = dead.batch_id
                 ORDER BY r.id LIMIT 500 FOR UPDATE SKIP LOCKED));
            GET DIAGNOSTICS more = ROW_COUNT;
            swept := swept + more;
        END LOOP;
    END IF;
    WITH rest AS MATERIALIZED (
        SELECT c.owner, coalesce((counts->>c.owner)::int, 0) AS n, coalesce(
                   (SELECT r.deadline FROM fusillade.ready r WHERE r.model = of_model AND r.created_by = c.owner AND r.deadline >= c.head
                     ORDER BY r.deadline, r.id LIMIT 1),
                   (SELECT r.deadline FROM fusillade.ready r WHERE r.model = of_model AND r.created_by = c.owner
                     ORDER BY r.deadline, r.id LIMIT 1)) AS head
          FROM unnest(owners, heads) c(owner, head)
    ), emptied AS (
        -- At once: an empty queue that stands first would cost the next claim its turn.
        DELETE FROM fusillade.queues q USING rest WHERE q.model = of_model AND q.created_by = rest.owner AND rest.head IS NULL
    )
    UPDATE fusillade.queues q SET vtime = q.vtime + rest.n, head_deadline = rest.head
      FROM rest WHERE q.model = of_model AND q.created_by = rest.owner AND rest.head IS NOT NULL;
END $$;

CREATE OR REPLACE FUNCTION fusillade.claim_model(me uuid, of_model text, cap int, escalation text, escalation_cap int, escalates timestamptz,
                                                 most int, urgent timestamptz, urgency_weight double precision,
                                                 OUT taken uuid[], OUT deadlines timestamptz[], OUT counted_as text[], OUT swept int)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    step int := CASE WHEN escalation IS NOT NULL THEN 1 WHEN urgent IS NOT NULL THEN 2 WHEN urgency_weight > 0 THEN 3 ELSE 4 END;
    tries int := 0;
    useful boolean;
    room int;
    got record;
BEGIN
    swept := 0;
    taken := '{}';
    deadlines := '{}';
    counted_as := '{}';
    -- 1 what escalates, 2 what is urgent, 3 by deadline, 4 by fairness; each again while it yields, for what some queues lack others may have.
    WHILE step <= 4 AND cardinality(taken) < most LOOP
        IF tries = 0 THEN
            room := least(most - cardinality(taken),
                          CASE step WHEN 1 THEN escalation_cap - (SELECT count(*) FROM fusillade.inflight f WHERE f.model = escalation)
                                    ELSE cap - (SELECT count(*) FROM fusillade.inflight f WHERE f.model = of_model) END);
            IF step = 3 THEN
                room := floor(room * urgency_weight);
            END IF;
        END IF;
        IF room > 0 AND (step <> 2 OR urgent IS NOT NULL) THEN
            got := fusillade.take(me, of_model, CASE step WHEN 1 THEN escalation ELSE of_model END, room,
                                  CASE step WHEN 1 THEN escalates WHEN 2 THEN urgent ELSE 'infinity' END, step = 3);
            IF got.taken IS NOT NULL THEN
                taken := taken || got.taken;
                deadlines := deadlines || got.deadlines;
                counted_as := counted_as || array_fill(CASE step WHEN 1 THEN escalation END, ARRAY[cardinality(got.taken)]);
                room := room - cardinality(got.taken);
            END IF;
            swept := swept + got.swept;
            useful := got.taken IS NOT NULL OR got.swept > 0;
            tries := tries + 1;
        END IF;
        IF room <= 0 OR tries = 0 OR tries >= 4 OR NOT useful THEN
            step := step + 1;
            tries := 0;
        END IF;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION fusillade.claim(me uuid, most int, capped text[], caps int[], default_cap int,
                                           urgent_s double precision, urgency_weight double precision,
                                           escalating text[], escalations text[], thresholds_s double precision[])
RETURNS TABLE (id uuid, model text, escalation text, created_by text, deadline timestamptz,
               batch_id uuid, retry_attempt int, service_tier text, custom_id text, created_at timestamptz,
               api_key_id uuid, completion_window text, batch_created_at timestamptz, path text, body text, body_size int,
               owner_id uuid, owner_deleted boolean, times_lost smallint)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    urgent timestamptz := now() + urgent_s * interval '1 second';
    candidate record;
    place int;
    cap int;
    escalation text;
    escalation_cap int;
    mine text[];
    busy text;
    got record;
    locked int := 0;
    swept int := 0;
    lock_timeout text := current_setting('lock_timeout');
    all_ids uuid[] := '{}';
    all_deadlines timestamptz[] := '{}';
    all_escalations text[] := '{}';
BEGIN
    PERFORM fusillade.end_pauses();
    FOR attempt IN 1..2 LOOP
        -- The second only where there was work, all of it another claim's for this moment: then that one is waited for, shortly and with no
        -- lock of a model of ours.
        EXIT WHEN attempt = 2 AND (locked > 0 OR busy IS NULL);
        FOR candidate IN
            SELECT m.model, h.head, coalesce(m.paused_until > now(), false) AS paused FROM fusillade.model_slots m
             CROSS JOIN LATERAL (SELECT q.head_deadline AS head FROM fusillade.queues q
                                  WHERE q.model = m.model AND q.paused_until IS NULL ORDER BY q.head_deadline LIMIT 1) h
             WHERE attempt = 1 OR m.model = busy
             ORDER BY (h.head < urgent) DESC, m.served
        LOOP
            EXIT WHEN cardinality(all_ids) >= most OR locked >= 32;
            cap := CASE WHEN candidate.paused THEN 0 ELSE coalesce(caps[array_position(capped, candidate.model)], default_cap) END;
            escalation := NULL;
            escalation_cap := 0;
            place := array_position(escalating, candidate.model);
            IF place IS NOT NULL AND candidate.head < now() + thresholds_s[place] * interval '1 second' THEN
                escalation := escalations[place];
                escalation_cap := coalesce(caps[array_position(capped, escalation)], default_cap);
                INSERT INTO fusillade.model_slots (model) SELECT escalation
                 WHERE NOT EXISTS (SELECT FROM fusillade.model_slots m WHERE m.model = escalation)
                ON CONFLICT DO NOTHING;
            END IF;
            -- Not yet the counts that decide, but models that are full must not stand in the way of others.
            IF cap <= 0 OR (SELECT count(*) FROM fusillade.inflight f WHERE f.model = candidate.model) >= cap THEN
                CONTINUE WHEN escalation IS NULL OR (SELECT count(*) FROM fusillade.inflight f WHERE f.model = escalation) >= escalation_cap;
            END IF;
            IF attempt = 1 THEN
                mine := ARRAY(SELECT m.model FROM fusillade.model_slots m WHERE m.model IN (candidate.model, escalation)
                                 FOR UPDATE SKIP LOCKED);
            ELSE
                BEGIN
                    PERFORM set_config('lock_timeout', '100ms', true);
                    mine := ARRAY(SELECT m.model FROM fusillade.model_slots m WHERE m.model IN (candidate.model, escalation)
                                   ORDER BY m.model FOR UPDATE);
                    PERFORM set_config('lock_timeout', lock_timeout, true);
                EXCEPTION WHEN lock_not_available THEN
                    EXIT;
                END;
            END IF;
            IF cardinality(mine) < (CASE WHEN escalation IS NULL THEN 1 ELSE 2 END) THEN
                busy := coalesce(busy, candidate.model);
                CONTINUE;
            END IF;
            locked := locked + 1;
            IF escalation IS NOT NULL THEN
                escalation_cap := CASE WHEN EXISTS (SELECT FROM fusillade.model_slots m WHERE m.model = escalation AND m.paused_until > now())
                                       THEN 0 ELSE escalation_cap END;
            END IF;
            got := fusillade.claim_model(me, candidate.model, cap, escalation, escalation_cap, now() + thresholds_s[place] * interval '1 second',
                                         most - cardinality(all_ids), CASE WHEN candidate.head < urgent THEN urgent END, urgency_weight);
            swept := swept + got.swept;
            IF got.taken <> '{}' THEN
                all_ids := all_ids || got.taken;
                all_deadlines := all_deadlines || got.deadlines;
                all_escalations := all_escalations || got.counted_as;
                UPDATE fusillade.model_slots m SET served = extract(epoch FROM clock_timestamp()) * 1000000 WHERE m.model = candidate.model;
            END IF;
        END LOOP;
    END LOOP;
    IF swept > 0 THEN
        PERFORM pg_notify('fusillade_ready', '');
    END IF;
    RETURN QUERY
    -- (A deadline that somebody wrote as "never" is one that every client library can read.)
    SELECT r.id, r.model, c.escalation, coalesce(b.created_by, ''), greatest('1970-01-01', least('9999-01-01', c.deadline)), r.batch_id, r.retry_attempt, r.service_tier, r.custom_id, r.created_at,
           b.api_key_id, b.completion_window, b.created_at, t.path,
           CASE WHEN octet_length(t.body) <= 262144 THEN t.body END, octet_length(t.body), u.id, u.is_deleted, r.times_lost
      FROM unnest(all_ids, all_deadlines, all_escalations) c(id, deadline, escalation)
      JOIN fusillade.requests r ON r.id = c.id
      LEFT JOIN fusillade.batches b ON b.id = r.batch_id
      LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
      -- The account that it runs as: the owner of the key that the batch names, else who made the batch.
      LEFT JOIN users u ON u.id = coalesce(
            (SELECT k.user_id FROM api_keys k WHERE k.id = b.api_key_id),
            CASE WHEN b.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN b.created_by::uuid END);
END $$;

CREATE OR REPLACE FUNCTION fusillade.claim_ahead(me uuid, of_models text[], wanted int[], caps int[], urgent_s double precision,
                                                 urgency_weight double precision)
RETURNS TABLE (id uuid, model text, escalation text, created_by text, deadline timestamptz,
               batch_id uuid, retry_attempt int, service_tier text, custom_id text, created_at timestamptz,
               api_key_id uuid, completion_window text, batch_created_at timestamptz, path text, body text, body_size int,
               owner_id uuid, owner_deleted boolean, times_lost smallint)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    place record;
    step int;
    room int;
    got record;
    all_ids uuid[] := '{}';
    all_deadlines timestamptz[] := '{}';
BEGIN
    FOR place IN SELECT w.model, w.wanted, w.cap FROM unnest(of_models, wanted, caps) w(model, wanted, cap) ORDER BY w.model LOOP
        -- Another claim's at this moment: then that one serves it.
        PERFORM FROM fusillade.model_slots m
          WHERE m.model = place.model AND coalesce(m.paused_until <= now(), true) FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND OR (SELECT count(*) FROM fusillade.inflight f WHERE f.model = place.model) > place.cap * 1.25;
        room := place.wanted;
        FOR step IN 1..3 LOOP
            got := fusillade.take(me, place.model, '', CASE step WHEN 2 THEN floor(room * urgency_weight)::int ELSE room END,
                                  CASE step WHEN 1 THEN now() + urgent_s * interval '1 second' ELSE 'infinity' END, step = 2);
            IF got.taken IS NOT NULL THEN
                all_ids := all_ids || got.taken;
                all_deadlines := all_deadlines || got.deadlines;
                room := room - cardinality(got.taken);
            END IF;
            EXIT WHEN room <= 0;
        END LOOP;
    END LOOP;
    RETURN QUERY
    SELECT r.id, r.model, NULL::text, coalesce(b.created_by, ''), greatest('1970-01-01', least('9999-01-01', c.deadline)), r.batch_id, r.retry_attempt, r.service_tier, r.custom_id, r.created_at,
           b.api_key_id, b.completion_window, b.created_at, t.path,
           CASE WHEN octet_length(t.body) <= 262144 THEN t.body END, octet_length(t.body), u.id, u.is_deleted, r.times_lost
      FROM unnest(all_ids, all_deadlines) c(id, deadline)
      JOIN fusillade.requests r ON r.id = c.id
      LEFT JOIN fusillade.batches b ON b.id = r.batch_id
      LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
      LEFT JOIN users u ON u.id = coalesce(
            (SELECT k.user_id FROM api_keys k WHERE k.id = b.api_key_id),
            CASE WHEN b.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN b.created_by::uuid END);
END $$;

CREATE OR REPLACE FUNCTION fusillade.take_places(me uuid, them uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.inflight i SET model = r.model FROM fusillade.requests r
     WHERE i.id = ANY (them) AND i.daemon_id = me AND r.id = i.id;
END $$;

CREATE OR REPLACE FUNCTION fusillade.pause_queue(of_model text, owner text, wait_s double precision, reason text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.queues AS q (model, created_by, vtime, head_deadline, paused_until, pause_reason)
    VALUES (of_model, owner, coalesce((SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = of_model), 0), now() + interval '24 hours',
            now() + wait_s * interval '1 second', reason)
    ON CONFLICT (model, created_by) DO UPDATE SET paused_until = EXCLUDED.paused_until, pause_reason = EXCLUDED.pause_reason
     WHERE q.paused_until IS NULL OR q.paused_until < EXCLUDED.paused_until;
END $$;

CREATE OR REPLACE FUNCTION fusillade.pause_model(of_model text, wait_s double precision, reason text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.model_slots AS m (model, paused_until, pause_reason)
    VALUES (of_model, now() + wait_s * interval '1 second', reason)
    ON CONFLICT (model) DO UPDATE SET paused_until = EXCLUDED.paused_until, pause_reason = EXCLUDED.pause_reason
     WHERE m.paused_until IS NULL OR m.paused_until < EXCLUDED.paused_until;
END $$;

CREATE OR REPLACE FUNCTION fusillade.end_pauses() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    ended int;
BEGIN
    UPDATE fusillade.queues q SET paused_until = NULL, pause_reason = NULL,
           vtime = greatest(q.vtime, (SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = q.model AND o.paused_until IS NULL))
     WHERE q.ctid = ANY (ARRAY(
        SELECT p.ctid FROM fusillade.queues p WHERE p.paused_until <= now() ORDER BY p.paused_until LIMIT 1000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

CREATE OR REPLACE FUNCTION fusillade.end_pauses_of_the_funded() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    ended int;
BEGIN
    UPDATE fusillade.queues q SET paused_until = now()
     WHERE q.ctid = ANY (ARRAY(
        SELECT p.ctid FROM fusillade.queues p JOIN user_balance_checkpoints b ON b.user_id::text = p.created_by AND b.balance > 0
         WHERE p.paused_until > now() AND p.pause_reason = 'no_credit'
           FOR UPDATE OF p SKIP LOCKED));
    GET DIAGNOSTICS ended = ROW_COUNT;
    IF ended > 0 THEN
        PERFORM pg_notify('fusillade_ready', '');
    END IF;
    RETURN ended;
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
    PERFORM fusillade.end_returned(ARRAY[one]);
END $$;

CREATE OR REPLACE FUNCTION fusillade.end_returned(them uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lines uuid[] := ARRAY(SELECT r.id FROM fusillade.requests r WHERE r.id = ANY (them) AND r.batch_id <> r.id);
    one record;
BEGIN
    IF lines = '{}' THEN
        RETURN;
    END IF;
    PERFORM FROM fusillade.batches b
      WHERE b.id IN (SELECT r.batch_id FROM fusillade.requests r WHERE r.id = ANY (lines)) ORDER BY b.id FOR NO KEY UPDATE;
    PERFORM fusillade.count_ended(ARRAY(
        SELECT r.id FROM fusillade.requests r WHERE r.id = ANY (lines) AND r.state = 'failed' AND r.failed_at = now()));
    FOR one IN
        SELECT b.id, b.cancelling_at IS NULL AS expired, array_agg(r.id) AS them
          FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.batch_id
         WHERE r.id = ANY (lines) AND r.state = 'pending'
           AND (b.cancelling_at IS NOT NULL OR EXISTS (SELECT FROM fusillade.sweeps w WHERE w.batch_id = b.id AND NOT w.retries))
         GROUP BY b.id ORDER BY b.id
    LOOP
        PERFORM fusillade.end_lines(one.id, one.them, one.expired);
    END LOOP;
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
    PERFORM fusillade.end_returned(them);
    IF due IS NOT NULL THEN
        PERFORM fusillade.make_ready(due);
    END IF;
    RETURN ended;
END $$;

CREATE OR REPLACE FUNCTION fusillade.line_id(batch uuid, line bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (left(batch::text, 27) || translate(substr(batch::text, 28, 1), '0123456789abcdef', '1032547698badcfe')
            || lpad(to_hex(line), 8, '0'))::uuid
$$;

CREATE OR REPLACE FUNCTION fusillade.window_of(words text) RETURNS interval LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN greatest(words::interval, interval '0');
EXCEPTION WHEN data_exception THEN
    RETURN interval '24 hours';
END $$;

CREATE OR REPLACE FUNCTION fusillade.count_ended(them uuid[]) RETURNS int LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    touched uuid[] := ARRAY(SELECT DISTINCT r.batch_id FROM fusillade.requests r WHERE r.id = ANY (them) AND r.batch_id <> r.id);
    stopped uuid[];
BEGIN
    IF touched = '{}' THEN
        RETURN 0;
    END IF;
    -- A statement of its own: a condition around it would be pushed into it, and keep some from being locked.
    PERFORM FROM fusillade.batches b WHERE b.id = ANY (touched) ORDER BY b.id FOR NO KEY UPDATE;
    stopped := ARRAY(SELECT b.id FROM fusillade.batches b WHERE b.id = ANY (touched) AND b.cancelling_at IS NOT NULL);
    IF stopped <> '{}' THEN
        UPDATE fusillade.requests r
           SET state = 'canceled', canceled_at = now(), updated_at = now(), completed_at = NULL, failed_at = NULL,
               response_status = NULL, response_body = NULL, response_size = 0, error = NULL
         WHERE r.id = ANY (them) AND r.batch_id = ANY (stopped) AND r.state IN ('completed', 'failed');
    END IF;
    WITH ended AS MATERIALIZED (
        SELECT r.id, r.batch_id, r.model, r.state, r.state <> 'completed' AS is_error, fusillade.line_bytes(r) AS bytes,
               row_number() OVER (PARTITION BY r.batch_id, r.state <> 'completed' ORDER BY r.updated_at, r.id) - 1 AS place
          FROM fusillade.requests r
         WHERE r.id = ANY (them) AND r.batch_id <> r.id AND r.state IN ('completed', 'failed', 'canceled')
    ), sums AS MATERIALIZED (
        SELECT batch_id, count(*) FILTER (WHERE state = 'completed') AS completed, count(*) FILTER (WHERE state = 'failed') AS failed,
               count(*) FILTER (WHERE state = 'canceled') AS canceled, count(*) FILTER (WHERE is_error) AS errors,
               coalesce(sum(bytes) FILTER (WHERE NOT is_error), 0) AS output_bytes, coalesce(sum(bytes) FILTER (WHERE is_error), 0) AS error_bytes
          FROM ended GROUP BY batch_id
    ), counted AS (
        UPDATE fusillade.batches b
           SET completed_requests = b.completed_requests + s.completed, failed_requests = b.failed_requests + s.failed,
               canceled_requests = b.canceled_requests + s.canceled, output_lines = b.output_lines + s.completed,
               error_lines = b.error_lines + s.errors, output_bytes = b.output_bytes + s.output_bytes,
               error_bytes = b.error_bytes + s.error_bytes
          FROM sums s WHERE b.id = s.batch_id
        RETURNING b.id, b.output_lines - s.completed AS outputs, b.error_lines - s.errors AS errors
    ), placed AS (
        INSERT INTO fusillade.finished_lines (batch_id, failed, position, request_id)
        SELECT e.batch_id, e.is_error, e.place + CASE WHEN e.is_error THEN c.errors ELSE c.outputs END, e.id
          FROM ended e JOIN counted c ON c.id = e.batch_id
    )
    UPDATE fusillade.batch_models m
       SET completed = m.completed + s.completed, failed = m.failed + s.failed, canceled = m.canceled + s.canceled
      FROM (SELECT batch_id, model, count(*) FILTER (WHERE state = 'completed') AS completed,
                   count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'canceled') AS canceled
              FROM ended GROUP BY batch_id, model) s
     WHERE m.batch_id = s.batch_id AND m.model = s.model;
    PERFORM fusillade.settle(touched);
    RETURN cardinality(touched);
END $$;

CREATE OR REPLACE FUNCTION fusillade.settle(them uuid[]) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT b.id, b.cancelling_at IS NOT NULL AS cancelled, b.completed_requests + b.failed_requests + b.canceled_requests AS ended,
               b.completed_requests > 0 AS some_completed, b.populated_lines = 0 AS by_hand,
               coalesce((SELECT w.ended > 0 FROM fusillade.sweeps w WHERE w.batch_id = b.id AND NOT w.retries), false) AS expired
          FROM fusillade.batches b
         WHERE b.id = ANY (them) AND NOT b.single
           AND b.completed_at IS NULL AND b.failed_at IS NULL AND b.cancelled_at IS NULL AND b.expired_at IS NULL
           AND (b.populated_lines = 0 OR (b.populated_lines >= b.total_requests
                AND b.completed_requests + b.failed_requests + b.canceled_requests >= b.total_requests))
    LOOP
        CONTINUE WHEN one.by_hand AND ((one.ended = 0 AND NOT one.cancelled)
            OR EXISTS (SELECT FROM fusillade.requests r WHERE r.batch_id = one.id AND r.state IN ('pending', 'claimed', 'processing')));
        -- What is still to be taken back from the error file has ended only for the moment.
        CONTINUE WHEN EXISTS (SELECT FROM fusillade.sweeps w WHERE w.batch_id = one.id AND w.retries);
        UPDATE fusillade.batches b
           SET requests_started_at = CASE WHEN one.ended > 0 THEN coalesce(requests_started_at, now()) END,
               total_requests = greatest(total_requests, one.ended),
               cancelled_at = CASE WHEN one.cancelled THEN now() END,
               expired_at = CASE WHEN NOT one.cancelled AND one.expired THEN now() END,
               finalizing_at = CASE WHEN NOT (one.cancelled OR one.expired) THEN now() END,
               completed_at = CASE WHEN NOT (one.cancelled OR one.expired) AND one.some_completed THEN now() END,
               failed_at = CASE WHEN NOT (one.cancelled OR one.expired OR one.some_completed) THEN now() END
         WHERE b.id = one.id;
        DELETE FROM fusillade.sweeps WHERE batch_id = one.id;
        INSERT INTO fusillade.recounts (batch_id) VALUES (one.id) ON CONFLICT DO NOTHING;
        PERFORM pg_notify('fusillade_batches', 'over');
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION fusillade.populate(one uuid, most int, grace_s double precision) RETURNS int LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    b record;
    prefix text := left(fusillade.line_id(one, 0)::text, 28);
    behind int;
    born text;
    made int := 0;
BEGIN
    -- Past its deadline it may be reopened at this moment.
    PERFORM FROM fusillade.batches WHERE id = one AND expires_at < now() - grace_s * interval '1 second' FOR NO KEY UPDATE;
    SELECT id, file_id, created_by, expires_at, completion_window, populated_lines, total_requests,
           cancelling_at IS NOT NULL AS cancelled, deleted_at IS NOT NULL AS deleted INTO b
      FROM fusillade.batches
     WHERE id = one AND NOT single AND completed_at IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL;
    IF NOT FOUND OR b.populated_lines >= b.total_requests THEN
        RETURN 0;
    END IF;
    born := CASE WHEN b.cancelled THEN 'canceled' WHEN b.expires_at < now() - grace_s * interval '1 second' THEN 'failed' ELSE 'pending' END;
    behind := CASE WHEN b.populated_lines = 0 THEN -2147483648
                   ELSE (SELECT t.line_number FROM fusillade.requests r JOIN fusillade.request_templates t ON t.id = r.template_id
                          WHERE r.id = fusillade.line_id(one, b.populated_lines - 1)) END;
    IF NOT b.deleted THEN
        WITH lines AS MATERIALIZED (
            -- Lines that were written by hand may share a number: they come together.
            SELECT t.id, t.model, t.custom_id, b.populated_lines + row_number() OVER (ORDER BY t.line_number, t.id) - 1 AS line
              FROM (SELECT t.id, t.model, t.custom_id, t.line_number FROM fusillade.request_templates t
                     WHERE t.file_id = b.file_id AND NOT t.single AND t.line_number > behind
                     ORDER BY t.line_number FETCH FIRST most ROWS WITH TIES) t
        ), rows AS (
            INSERT INTO fusillade.requests (id, batch_id, template_id, model, custom_id, state, service_tier, canceled_at, failed_at, error)
            SELECT (prefix || lpad(to_hex(line), 8, '0'))::uuid, one, id, model, custom_id, born,
                   CASE b.completion_window WHEN '1h' THEN 'flex' WHEN '0s' THEN 'priority' END,
                   CASE born WHEN 'canceled' THEN now() END, CASE born WHEN 'failed' THEN now() END,
                   CASE born WHEN 'failed' THEN fusillade.why_expired() END
              FROM lines
            ON CONFLICT (id) DO NOTHING
            RETURNING id, model
        ), due AS (
            INSERT INTO fusillade.ready (model, created_by, deadline, id, batch_id)
            SELECT model, b.created_by, b.expires_at, id, one FROM rows WHERE born = 'pending'
        )
        SELECT count(*) INTO made FROM lines;
    END IF;
    IF made = 0 THEN
        PERFORM fusillade.populate_no_more(one);
        RETURN 0;
    END IF;
    UPDATE fusillade.batches SET populated_lines = populated_lines + made, requests_started_at = coalesce(requests_started_at, now())
     WHERE id = one AND populated_lines = b.populated_lines;
    IF NOT FOUND THEN
        RAISE 'the batch was populated by somebody else';
    END IF;
    IF born <> 'pending' THEN
        PERFORM fusillade.note_expired(one, CASE born WHEN 'failed' THEN made ELSE 0 END);
        PERFORM fusillade.count_ended(ARRAY(SELECT fusillade.line_id(one, n) FROM generate_series(b.populated_lines, b.populated_lines + made - 1) n));
    END IF;
    IF born = 'pending' AND EXISTS (SELECT FROM fusillade.batches n WHERE n.id = one AND n.cancelling_at IS NOT NULL) THEN
        -- Meanwhile: who looks for its pending lines cannot have seen these.
        PERFORM fusillade.end_lines(one, ARRAY(
            SELECT fusillade.line_id(one, n) FROM generate_series(b.populated_lines, b.populated_lines + made - 1) n), false);
    END IF;
    IF b.populated_lines + made >= b.total_requests THEN
        UPDATE batch_capacity_reservations SET released_at = now() WHERE batch_id = one AND released_at IS NULL;
        PERFORM fusillade.settle(ARRAY[one]);
    END IF;
    IF born = 'pending' THEN
        -- At the very end: a claim passes over a line of `queues` that somebody has.
        PERFORM fusillade.open_queues(one, b.populated_lines, made);
    END IF;
    RETURN made;
END $$;

CREATE OR REPLACE FUNCTION fusillade.open_queues(one uuid, first_line bigint, lines int) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    models text[] := ARRAY(SELECT DISTINCT r.model FROM fusillade.requests r
                            WHERE r.id BETWEEN fusillade.line_id(one, first_line) AND fusillade.line_id(one, first_line + lines - 1));
BEGIN
    INSERT INTO fusillade.model_slots (model)
    SELECT m FROM unnest(models) m WHERE NOT EXISTS (SELECT FROM fusillade.model_slots s WHERE s.model = m) ORDER BY m
    ON CONFLICT DO NOTHING;
    INSERT INTO fusillade.queues AS q (model, created_by, vtime, head_deadline)
    SELECT m, b.created_by, coalesce((SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = m AND o.paused_until IS NULL),
                                     (SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = m), 0), b.expires_at
      FROM unnest(models) m, fusillade.batches b WHERE b.id = one ORDER BY m
    ON CONFLICT (model, created_by) DO UPDATE SET head_deadline = least(q.head_deadline, EXCLUDED.head_deadline);
    PERFORM pg_notify('fusillade_ready', '');
END $$;

CREATE OR REPLACE FUNCTION fusillade.populate_no_more(one uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM fusillade.fail_batch(one, 'empty_file', 'The input file has no requests.');
    UPDATE fusillade.batches SET total_requests = populated_lines WHERE id = one AND populated_lines > 0 AND failed_at IS NULL;
    PERFORM fusillade.settle(ARRAY[one]);
    UPDATE batch_capacity_reservations SET released_at = now() WHERE batch_id = one AND released_at IS NULL;
END $$;

CREATE OR REPLACE FUNCTION fusillade.fail_batch(one uuid, why text, said text) RETURNS void LANGUAGE sql AS $$
    UPDATE fusillade.batches
       SET failed_at = now(), errors = jsonb_build_object('object', 'list', 'data', jsonb_build_array(
               jsonb_build_object('code', why, 'line', NULL, 'message', said, 'param', NULL)))
     WHERE id = one AND NOT single AND populated_lines = 0 AND cancelling_at IS NULL AND failed_at IS NULL;
$$;

CREATE OR REPLACE FUNCTION fusillade.why_expired() RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '{"type":"BatchExpired","details":{"error":"The batch''s completion window ended before this request could be run."},"code":"batch_expired","message":"The batch''s completion window ended before this request could be run."}'
$$;

CREATE OR REPLACE FUNCTION fusillade.end_lines(one uuid, them uuid[], expired boolean) RETURNS int LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    over uuid[];
BEGIN
    WITH ended AS (
        UPDATE fusillade.requests r
           SET state = CASE WHEN expired THEN 'failed' ELSE 'canceled' END, updated_at = now(), daemon_id = NULL, claimed_at = NULL,
               started_at = NULL, canceled_at = CASE WHEN NOT expired THEN now() END, failed_at = CASE WHEN expired THEN now() END,
               error = CASE WHEN expired THEN fusillade.why_expired() END
         WHERE r.id = ANY (them) AND r.batch_id = one AND r.state IN ('pending', 'claimed', 'processing')
        RETURNING r.id, r.model, r.not_before
    ), unready AS (
        DELETE FROM fusillade.ready WHERE ctid = ANY (ARRAY(
            SELECT y.ctid FROM ended e CROSS JOIN fusillade.batches b
              JOIN fusillade.ready y ON y.model = e.model AND y.created_by = b.created_by AND y.deadline = b.expires_at AND y.id = e.id
             WHERE b.id = one FOR UPDATE OF y SKIP LOCKED))
    ), undelayed AS (
        DELETE FROM fusillade.delayed d USING ended e WHERE d.not_before = e.not_before AND d.id = e.id
    )
    SELECT array_agg(id ORDER BY id) INTO over FROM ended;
    IF over IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM fusillade.note_expired(one, CASE WHEN expired THEN cardinality(over) ELSE 0 END);
    PERFORM fusillade.count_ended(over);
    RETURN cardinality(over);
END $$;

CREATE OR REPLACE FUNCTION fusillade.note_expired(one uuid, lines int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF lines > 0 THEN
        PERFORM FROM fusillade.batches WHERE id = one FOR NO KEY UPDATE;
        INSERT INTO fusillade.sweeps AS w (batch_id, ended) VALUES (one, lines)
        ON CONFLICT (batch_id) DO UPDATE SET ended = w.ended + EXCLUDED.ended;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION fusillade.cancel_batch(one uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.batches SET cancelling_at = now()
     WHERE id = one AND NOT single AND cancelling_at IS NULL
       AND completed_at IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL;
    IF FOUND THEN
        PERFORM pg_notify('fusillade_cancel', one::text), pg_notify('fusillade_batches', 'cancel');
        RETURN true;
    END IF;
    RETURN EXISTS (SELECT FROM fusillade.batches WHERE id = one AND NOT single AND deleted_at IS NULL);
END $$;

CREATE OR REPLACE FUNCTION fusillade.delete_batch(one uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.batches SET deleted_at = now() WHERE id = one AND NOT single AND deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM fusillade.cancel_batch(one);
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION fusillade.sweep(one uuid, most int) RETURNS boolean LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    b record;
    first_line bigint;
    them uuid[];
    left_over uuid;
    finished boolean;
BEGIN
    -- From the beginning against `reopen`: what has a new deadline by now is not to be ended.
    PERFORM FROM fusillade.batches WHERE id = one FOR NO KEY UPDATE;
    SELECT populated_lines, total_requests, cancelling_at IS NULL AS expired,
           coalesce((SELECT w.position FROM fusillade.sweeps w WHERE w.batch_id = one AND NOT w.retries AND w.done_at IS NULL), 0) AS position
      INTO b FROM fusillade.batches WHERE id = one AND (cancelling_at IS NOT NULL OR expires_at < now());
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    first_line := b.position;
    IF b.populated_lines = 0 THEN
        them := ARRAY(
            SELECT r.id FROM fusillade.requests r
             WHERE r.batch_id = one AND (r.state = 'pending' OR (r.state IN ('claimed', 'processing')
                   AND NOT EXISTS (SELECT FROM fusillade.inflight i WHERE i.id = r.id)))
             ORDER BY r.id LIMIT most FOR UPDATE SKIP LOCKED);
        finished := cardinality(them) < most;
    ELSE
        them := ARRAY(
            SELECT r.id FROM fusillade.requests r
             WHERE r.id BETWEEN fusillade.line_id(one, first_line) AND fusillade.line_id(one, first_line + most - 1)
               AND r.batch_id = one AND r.state = 'pending'
             ORDER BY r.id FOR UPDATE SKIP LOCKED);
        first_line := first_line + most;
        finished := first_line >= b.populated_lines;
    END IF;
    PERFORM fusillade.end_lines(one, them, b.expired);
    SELECT r.id INTO left_over FROM fusillade.requests r
     WHERE b.populated_lines > 0 AND r.state = 'pending' AND r.batch_id = one
       AND r.id BETWEEN fusillade.line_id(one, b.position) AND fusillade.line_id(one, first_line - 1)
     ORDER BY r.id LIMIT 1;
    IF FOUND THEN
        first_line := fusillade.line_of(left_over);
        finished := false;
    END IF;
    IF finished THEN
        PERFORM fusillade.settle(ARRAY[one]);
    END IF;
    IF EXISTS (SELECT FROM fusillade.batches WHERE id = one AND cancelled_at IS NULL AND expired_at IS NULL AND completed_at IS NULL AND failed_at IS NULL) THEN
        INSERT INTO fusillade.sweeps AS w (batch_id, position, done_at) VALUES (one, first_line, CASE WHEN finished THEN now() END)
        ON CONFLICT (batch_id) DO UPDATE SET retries = false, position = EXCLUDED.position, done_at = EXCLUDED.done_at;
    END IF;
    RETURN finished;
END $$;

CREATE OR REPLACE FUNCTION fusillade.line_of(request uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || right(request::text, 8))::bit(32)::bigint
$$;

CREATE OR REPLACE FUNCTION fusillade.retry_lines(one uuid, them uuid[]) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    bytes bigint;
    made_at timestamptz := (SELECT b.created_at FROM fusillade.batches b WHERE b.id = one);
BEGIN
    IF them = '{}' THEN
        RETURN;
    END IF;
    bytes := (SELECT coalesce(sum(fusillade.line_bytes(r)), 0) FROM fusillade.requests r WHERE r.id = ANY (them));
    -- (The time as a parameter: it says in which partition to look, before all of them are.)
    UPDATE http_analytics h SET timestamp = h.timestamp + (r.retried + 1) * interval '1 microsecond'
      FROM fusillade.requests r
     WHERE h.request_id = ANY (them) AND h.timestamp = made_at AND r.id = h.request_id;
    UPDATE fusillade.requests r
       SET state = 'pending', retry_attempt = 0, times_lost = 0, retried = r.retried + 1, not_before = NULL, daemon_id = NULL,
           claimed_at = NULL, started_at = NULL, response_status = NULL, response_body = NULL, response_size = 0, routed_model = NULL,
           error = NULL, failed_at = NULL, updated_at = now()
     WHERE r.id = ANY (them);
    DELETE FROM fusillade.finished_lines f WHERE f.batch_id = one AND f.failed AND f.request_id = ANY (them);
    UPDATE fusillade.batches b SET failed_requests = b.failed_requests - cardinality(them), error_bytes = b.error_bytes - bytes WHERE b.id = one;
    UPDATE fusillade.batch_models m SET failed = m.failed - s.lines
      FROM (SELECT r.model, count(*) AS lines FROM fusillade.requests r WHERE r.id = ANY (them) GROUP BY r.model) s
     WHERE m.batch_id = one AND m.model = s.model;
    PERFORM fusillade.make_ready(them);
END $$;

CREATE OR REPLACE FUNCTION fusillade.reopen(one uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.batches b
       SET finalizing_at = NULL, completed_at = NULL, failed_at = NULL, expired_at = NULL, notification_sent_at = NULL, counts_frozen_at = NULL,
           expires_at = CASE WHEN b.expires_at > now() THEN b.expires_at ELSE now() + fusillade.window_of(b.completion_window) END
     WHERE id = one AND NOT single AND cancelling_at IS NULL AND cancelled_at IS NULL AND deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Who is about to count has this row first, and then waits for the batch.
    DELETE FROM fusillade.recounts WHERE ctid = ANY (ARRAY(
        SELECT n.ctid FROM fusillade.recounts n WHERE n.batch_id = one FOR UPDATE SKIP LOCKED));
    DELETE FROM fusillade.sweeps WHERE batch_id = one AND NOT retries;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION fusillade.retry_batch(one uuid, most int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    b record;
BEGIN
    SELECT failed_requests, error_lines INTO b FROM fusillade.batches
     WHERE id = one AND NOT single AND cancelling_at IS NULL AND cancelled_at IS NULL AND deleted_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND OR b.failed_requests = 0 THEN
        RETURN CASE WHEN FOUND THEN 0 END;
    END IF;
    PERFORM fusillade.reopen(one);
    INSERT INTO fusillade.sweeps (batch_id, retries, position, until) VALUES (one, true, 0, b.error_lines)
    ON CONFLICT (batch_id) DO UPDATE SET retries = true, position = 0, until = EXCLUDED.until, ended = 0, done_at = NULL;
    PERFORM fusillade.sweep_retries(one, most);
    RETURN b.failed_requests;
END $$;

CREATE OR REPLACE FUNCTION fusillade.sweep_retries(one uuid, most int) RETURNS boolean LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    w record;
    places record;
BEGIN
    PERFORM FROM fusillade.batches WHERE id = one FOR NO KEY UPDATE;
    SELECT position, until INTO w FROM fusillade.sweeps WHERE batch_id = one AND retries;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    SELECT array_agg(f.request_id) AS them, max(f.position) AS last INTO places FROM (
        SELECT l.request_id, l.position FROM fusillade.finished_lines l
         WHERE l.batch_id = one AND l.failed AND l.position >= w.position AND l.position < w.until ORDER BY l.position LIMIT most) f;
    IF places.them IS NULL THEN
        DELETE FROM fusillade.sweeps WHERE batch_id = one AND retries;
        PERFORM fusillade.settle(ARRAY[one]);
        RETURN true;
    END IF;
    -- Never waited for: one that somebody has now was lost by him, who only finds that it is over.
    PERFORM fusillade.retry_lines(one, ARRAY(
        SELECT r.id FROM fusillade.requests r WHERE r.id = ANY (places.them) AND r.state = 'failed' ORDER BY r.id FOR UPDATE SKIP LOCKED));
    UPDATE fusillade.sweeps SET position = places.last + 1 WHERE batch_id = one AND retries;
    RETURN false;
END $$;

CREATE OR REPLACE FUNCTION fusillade.retry_requests(one uuid, them uuid[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    again uuid[] := ARRAY(SELECT r.id FROM fusillade.requests r
                           WHERE r.id = ANY (them) AND r.batch_id = one AND r.id <> one AND r.state = 'failed' ORDER BY r.id FOR UPDATE SKIP LOCKED);
BEGIN
    IF again = '{}' OR NOT fusillade.reopen(one) THEN
        RETURN;
    END IF;
    PERFORM fusillade.retry_lines(one, again);
    RETURN QUERY SELECT unnest(again);
END $$;

CREATE OR REPLACE FUNCTION fusillade.recount(one uuid) RETURNS boolean LANGUAGE plpgsql
SET enable_mergejoin = off AS $$
DECLARE
    b fusillade.batches;
    n record;
    differs boolean;
BEGIN
    SELECT * INTO b FROM fusillade.batches WHERE id = one AND NOT single FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        DELETE FROM fusillade.recounts WHERE batch_id = one;
        RETURN false;
    END IF;
    SELECT count(*) AS lines, count(*) FILTER (WHERE state = 'completed') AS completed, count(*) FILTER (WHERE state = 'failed') AS failed,
           count(*) FILTER (WHERE state = 'canceled') AS canceled INTO n
      FROM fusillade.requests r WHERE r.batch_id = one AND r.id <> one;
    differs := (n.completed, n.failed, n.canceled) IS DISTINCT FROM (b.completed_requests, b.failed_requests, b.canceled_requests);
    IF differs THEN
        PERFORM fusillade.refill_lines(one);
        INSERT INTO fusillade.batch_models AS m (batch_id, model, requests, completed, failed, canceled)
        SELECT one, model, count(*), count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE state = 'failed'),
               count(*) FILTER (WHERE state = 'canceled')
          FROM fusillade.requests r WHERE r.batch_id = one AND r.id <> one GROUP BY model
        ON CONFLICT (batch_id, model) DO UPDATE SET requests = greatest(m.requests, EXCLUDED.requests), completed = EXCLUDED.completed,
            failed = EXCLUDED.failed, canceled = EXCLUDED.canceled;
        -- Not each time: reading the answers of a million lines takes longer than a statement may.
        UPDATE fusillade.batches SET output_bytes = s.output, error_bytes = s.errors
          FROM (SELECT coalesce(sum(fusillade.line_bytes(r)) FILTER (WHERE state = 'completed'), 0) AS output,
                       coalesce(sum(fusillade.line_bytes(r)) FILTER (WHERE state IN ('failed', 'canceled')), 0) AS errors
                  FROM fusillade.requests r WHERE r.batch_id = one AND r.id <> one) s
         WHERE id = one;
    END IF;
    UPDATE fusillade.batches
       SET completed_requests = n.completed, failed_requests = n.failed, canceled_requests = n.canceled,
           total_requests = greatest(total_requests, n.lines),
           requests_started_at = CASE WHEN n.lines > 0 THEN coalesce(requests_started_at, now()) END
     WHERE id = one;
    IF n.completed + n.failed + n.canceled < n.lines THEN
        -- By hand there is something to run again.
        UPDATE fusillade.batches SET finalizing_at = NULL, completed_at = NULL, failed_at = NULL, expired_at = NULL, counts_frozen_at = NULL
         WHERE id = one AND differs AND cancelling_at IS NULL;
    ELSE
        PERFORM fusillade.settle(ARRAY[one]);
    END IF;
    UPDATE fusillade.batches SET counts_frozen_at = now()
     WHERE id = one AND (completed_at IS NOT NULL OR failed_at IS NOT NULL OR cancelled_at IS NOT NULL OR expired_at IS NOT NULL);
    DELETE FROM fusillade.recounts WHERE batch_id = one;
    RETURN differs;
END $$;

CREATE OR REPLACE FUNCTION fusillade.refill_lines(one uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM fusillade.finished_lines f
     WHERE f.batch_id = one AND NOT EXISTS (
        SELECT FROM fusillade.requests r WHERE r.id = f.request_id AND r.state = ANY (CASE WHEN f.failed THEN '{failed,canceled}'::text[] ELSE '{completed}' END));
    WITH missing AS MATERIALIZED (
        SELECT r.id, r.state <> 'completed' AS is_error,
               row_number() OVER (PARTITION BY r.state <> 'completed' ORDER BY coalesce(r.completed_at, r.failed_at, r.canceled_at), r.id) - 1 AS place
          FROM fusillade.requests r
         WHERE r.batch_id = one AND r.id <> one AND r.state IN ('completed', 'failed', 'canceled')
           AND r.id NOT IN (SELECT f.request_id FROM fusillade.finished_lines f WHERE f.batch_id = one)
    ), raised AS (
        UPDATE fusillade.batches b
           SET output_lines = b.output_lines + (SELECT count(*) FROM missing WHERE NOT is_error),
               error_lines = b.error_lines + (SELECT count(*) FROM missing WHERE is_error)
         WHERE b.id = one RETURNING b.output_lines, b.error_lines
    )
    INSERT INTO fusillade.finished_lines (batch_id, failed, position, request_id)
    SELECT one, m.is_error, m.place + CASE WHEN m.is_error THEN b.error_lines ELSE b.output_lines END, m.id
      FROM missing m, fusillade.batches b WHERE b.id = one;
END $$;

CREATE OR REPLACE FUNCTION fusillade.begin_upload(given uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.uploads (file_id) VALUES (given);
END $$;

CREATE OR REPLACE FUNCTION fusillade.continue_upload(given uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.uploads SET touched_at = now() WHERE file_id = given AND NOT abandoned;
    RETURN FOUND;
END $$;

CREATE OR REPLACE FUNCTION fusillade.finish_upload(given json, models json, OUT made_at timestamptz, OUT ends_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM fusillade.uploads WHERE file_id = (given ->> 'id')::uuid AND NOT abandoned;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO fusillade.files (id, name, purpose, size_bytes, size_finalized, uploaded_by, api_key_id, source_connection_id,
                                 source_external_key, expires_at)
    SELECT id, name, 'batch', size_bytes, true, owner, api_key_id, source_connection_id, source_external_key,
           now() + expires_after_s * interval '1 second'
      FROM json_to_record(given) AS f(id uuid, name text, size_bytes bigint, owner text, api_key_id uuid, source_connection_id uuid,
                                      source_external_key text, expires_after_s bigint)
    RETURNING created_at, expires_at INTO made_at, ends_at;
    INSERT INTO fusillade.file_models (file_id, model, path, requests, bytes)
    SELECT (given ->> 'id')::uuid, model, path, requests, bytes
      FROM json_to_recordset(models) AS m(model text, path text, requests bigint, bytes bigint);
END $$;

CREATE OR REPLACE FUNCTION fusillade.abandon_upload(given uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.uploads SET abandoned = true WHERE file_id = given;
END $$;

CREATE OR REPLACE FUNCTION fusillade.purge_uploads(silent_s double precision, most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    given_up uuid;
    purged integer;
BEGIN
    UPDATE fusillade.uploads SET abandoned = true
     WHERE NOT abandoned AND touched_at < now() - silent_s * interval '1 second';
    SELECT file_id INTO given_up FROM fusillade.uploads WHERE abandoned ORDER BY touched_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM fusillade.request_templates
     WHERE id IN (SELECT id FROM fusillade.request_templates WHERE file_id = given_up AND NOT single ORDER BY line_number LIMIT most);
    GET DIAGNOSTICS purged = ROW_COUNT;
    IF purged < most THEN
        DELETE FROM fusillade.uploads WHERE file_id = given_up;
        RETURN purged + 1;
    END IF;
    RETURN purged;
END $$;

CREATE OR REPLACE FUNCTION fusillade.create_batch(
    batch_id uuid, input_file uuid, batch_endpoint text, batch_window text, window_s double precision, owner text, key_id uuid,
    pairs jsonb, output_file uuid, error_file uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
    lines bigint;
BEGIN
    SELECT coalesce(sum(requests), 0) INTO lines FROM fusillade.file_models m WHERE m.file_id = input_file;
    INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, metadata, created_at, expires_at,
                                   total_requests, output_file_id, error_file_id)
    VALUES (batch_id, input_file, batch_endpoint, batch_window, owner, key_id, pairs, at, at + window_s * interval '1 second',
            lines, output_file, error_file)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO fusillade.files (id, name, purpose, uploaded_by, api_key_id, created_at, updated_at)
    VALUES (output_file, 'batch-' || batch_id || '-output.jsonl', 'batch_output', owner, key_id, at, at),
           (error_file, 'batch-' || batch_id || '-error.jsonl', 'batch_error', owner, key_id, at, at);
    INSERT INTO fusillade.batch_models (batch_id, model, requests)
    SELECT create_batch.batch_id, model, sum(requests) FROM fusillade.file_models m WHERE m.file_id = input_file GROUP BY model;
    PERFORM pg_notify('fusillade_batches', batch_id::text);
    RETURN lines;
END $$;

CREATE OR REPLACE FUNCTION fusillade.count_file(counted uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM fusillade.file_models m WHERE m.file_id = counted) THEN
        INSERT INTO fusillade.file_models (file_id, model, path, requests, bytes)
        SELECT counted, model, path, count(*), sum(body_byte_size)
          FROM fusillade.request_templates t WHERE t.file_id = counted AND NOT single GROUP BY model, path
        ON CONFLICT DO NOTHING;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION fusillade.one_line(given text) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    parsed json;
BEGIN
    parsed := given::json;
    IF strpos(given, E'\n') > 0 OR strpos(given, E'\r') > 0 THEN
        RETURN translate(given, E'\n\r', '  ');
    END IF;
    RETURN coalesce(given, 'null');
EXCEPTION WHEN data_exception OR statement_too_complex THEN
    RETURN to_json(given)::text;
END $$;

-- A line as it is downloaded: without the line ends that JSON allows inside its strings and Unicode counts as such (U+0085, U+2028, U+2029),
-- which are spelled as escapes, since Python's splitlines, and clients that read lines by it, would take a line for two. (A download does the
-- same with whole pages, in downloads/pages.py: looking at each line alone costs more than making it.)
CREATE OR REPLACE FUNCTION fusillade.escape_line_ends(line text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF octet_length(line) = char_length(line) THEN
        RETURN line;
    END IF;
    RETURN replace(replace(replace(line, U&'\0085', '\u0085'), U&'\2028', '\u2028'), U&'\2029', '\u2029');
END $$;

CREATE OR REPLACE FUNCTION fusillade.output_line(id uuid, custom_id text, status int, body text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"batch_req_' || id || '","custom_id":' || coalesce(to_json(custom_id)::text, 'null') || ',"response":{"status_code":'
        || coalesce(status, 200) || ',"request_id":"' || id || '","body":' || fusillade.one_line(body) || E'},"error":null}\n'
$$;

CREATE OR REPLACE FUNCTION fusillade.message_in(given json) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    name text;
    said json;
BEGIN
    IF json_typeof(given) IS DISTINCT FROM 'object' THEN
        RETURN NULL;
    END IF;
    FOREACH name IN ARRAY ARRAY['error', 'message', 'detail'] LOOP
        said := given->name;
        IF json_typeof(said) = 'object' THEN
            said := said->'message';
        END IF;
        IF json_typeof(said) = 'string' AND (said #>> '{}') ~ '\S' THEN
            RETURN said #>> '{}';
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION fusillade.read_failure(error text, OUT code text, OUT message text, OUT status int, OUT body text)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    given json;
    member record;
    details json;
    kind text;
    said text[];
    stored_code text;
    stored_message text;
BEGIN
    code := 'server_error';
    message := 'The request failed.';
    IF error IS NULL OR error !~ '\S' THEN
        RETURN;
    END IF;
    BEGIN
        given := error::json;
        IF json_typeof(given) = 'object' THEN
            -- All at once: each look at a member reads the whole text.
            SELECT * INTO member FROM json_to_record(given) AS t(type json, details json, code json, message json);
            IF json_typeof(member.type) = 'string' THEN
                kind := member.type #>> '{}';
                details := CASE WHEN json_typeof(member.details) = 'object' THEN member.details ELSE '{}' END;
                stored_code := CASE WHEN json_typeof(member.code) = 'string' THEN member.code #>> '{}' END;
                stored_message := CASE WHEN json_typeof(member.message) = 'string' THEN member.message #>> '{}' END;
            END IF;
        END IF;
    EXCEPTION WHEN data_exception OR statement_too_complex THEN
        given := NULL;
    END;
    IF kind IN ('RetriableHttpStatus', 'NonRetriableHttpStatus') THEN
        status := CASE WHEN details->>'status' ~ '^\d{3}$' THEN (details->>'status')::int ELSE 500 END;
        BEGIN
            body := details->>'body';
        EXCEPTION WHEN data_exception THEN
            -- A character that no text can hold (\u0000): as it is spelled.
            body := (details->'body')::text;
        END;
    ELSIF kind IS NOT NULL THEN
        SELECT t.code, t.message INTO code, message FROM (VALUES
            ('NetworkError', 'network_error', 'The upstream provider could not be reached.'),
            ('Timeout', 'timeout', 'The upstream provider took too long to answer.'),
            ('StreamBroken', 'stream_broken', coalesce(fusillade.message_in(details), 'The upstream provider broke off its answer.')),
            ('RequestBuilderError', 'request_error', 'The request could not be sent to the upstream provider.'),
            ('InternalError', 'internal_error', 'The gateway failed while it ran the request.'),
            ('Cancelled', 'cancelled', 'The request was cancelled.'),
            ('ClientDisconnected', 'client_disconnected', 'The client left before the answer was complete.'),
            ('TaskTerminated', 'interrupted', 'The request was interrupted before it was done.'),
            ('Interrupted', 'interrupted', 'The process that ran the request ended before it was done.'),
            ('WorkerLost', 'worker_lost', 'The processes that ran the request died, more often than is tried again.'),
            ('DeadlinePassed', 'deadline_passed', 'The request''s completion window ended before it was run.'),
            ('NotRecorded', 'not_recorded', 'The answer could not be recorded.'),
            ('BatchTerminated', 'batch_terminated', 'The batch ended before the request was run.')
        ) AS t(tag, code, message) WHERE t.tag = kind;
        IF NOT FOUND THEN
            code := lower(regexp_replace(kind, '([a-z0-9])([A-Z])', '\1_\2', 'g'));
            message := coalesce(fusillade.message_in(details), 'The request failed.');
        END IF;
        -- Whoever ended the request knew more than its tag says.
        IF stored_code <> '' AND stored_message <> '' THEN
            code := stored_code;
            message := stored_message;
        END IF;
        RETURN;
    ELSIF starts_with(error, 'Upstream returned ') AND error ~ '^Upstream returned \d{3}(: .*)?$' THEN
        said := regexp_match(error, '^Upstream returned (\d{3})(?:: (.*))?$');
        status := said[1]::int;
        body := said[2];
    ELSE
        message := coalesce(fusillade.message_in(given), error);
        RETURN;
    END IF;
    code := 'http_' || status;
    BEGIN
        message := coalesce(fusillade.message_in(body::json), btrim(body, E' \t\n\r\f\v'));
    EXCEPTION WHEN data_exception OR statement_too_complex THEN
        message := btrim(body, E' \t\n\r\f\v');
    END;
    IF coalesce(message, '') = '' OR left(message, 1) IN ('{', '[', '<') THEN
        message := 'The upstream provider answered with status ' || status || '.';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION fusillade.error_line(id uuid, custom_id text, state text, error text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    failure record;
BEGIN
    IF state = 'canceled' THEN
        error := '{"type":"Cancelled"}';
    END IF;
    failure := fusillade.read_failure(error);
    IF failure.code = 'cancelled' THEN
        failure.code := 'batch_cancelled';
        failure.message := 'The batch was cancelled before the request was completed.';
    ELSIF failure.code = 'deadline_passed' THEN
        failure.code := 'batch_expired';
        failure.message := 'The batch''s completion window ended before the request was run.';
    END IF;
    RETURN '{"id":"batch_req_' || id || '","custom_id":' || coalesce(to_json(custom_id)::text, 'null') || ',"response":'
        || CASE WHEN failure.status IS NULL THEN 'null' ELSE
            '{"status_code":' || failure.status || ',"request_id":"' || id || '","body":' || fusillade.one_line(failure.body) || '}' END
        || ',"error":{"code":' || to_json(failure.code) || ',"message":' || to_json(failure.message) || E'}}\n';
END $$;

CREATE OR REPLACE FUNCTION fusillade.line_bytes(line fusillade.requests) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT octet_length(fusillade.escape_line_ends(CASE line.state WHEN 'completed'
        THEN fusillade.output_line(line.id, line.custom_id, line.response_status, line.response_body)
        ELSE fusillade.error_line(line.id, line.custom_id, line.state, line.error) END))::bigint
$$;

CREATE OR REPLACE FUNCTION fusillade.delete_file(one uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    running uuid;
BEGIN
    UPDATE fusillade.files SET status = 'deleted', deleted_at = now(), updated_at = now() WHERE id = one AND NOT single AND deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR running IN SELECT b.id FROM fusillade.batches b WHERE b.file_id = one AND NOT b.single AND b.deleted_at IS NULL ORDER BY b.id LOOP
        PERFORM fusillade.cancel_batch(running);
    END LOOP;
    UPDATE fusillade.batches SET output_file_id = NULL WHERE output_file_id = one;
    UPDATE fusillade.batches SET error_file_id = NULL WHERE error_file_id = one;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION fusillade.expire_file(one uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.files SET status = 'expired', updated_at = now()
     WHERE id = one AND NOT single AND status = 'processed' AND expires_at <= now();
END $$;

CREATE OR REPLACE FUNCTION fusillade.expire_files(grace_s double precision, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    late uuid[];
    gone uuid[];
BEGIN
    late := ARRAY(
        SELECT f.id FROM fusillade.files f
         WHERE NOT f.single AND f.deleted_at IS NULL AND f.expires_at <= now() AND f.status = 'processed'
         ORDER BY f.expires_at LIMIT most FOR UPDATE SKIP LOCKED);
    UPDATE fusillade.files SET status = 'expired', updated_at = now() WHERE id = ANY (late);
    gone := ARRAY(
        SELECT f.id FROM fusillade.files f
         WHERE NOT f.single AND f.deleted_at IS NULL AND f.expires_at <= now() - grace_s * interval '1 second'
           AND NOT EXISTS (SELECT FROM fusillade.batches b
                            WHERE b.file_id = f.id AND NOT b.single AND b.completed_at IS NULL AND b.failed_at IS NULL
                              AND b.cancelled_at IS NULL AND b.expired_at IS NULL)
         ORDER BY f.expires_at LIMIT most FOR UPDATE OF f SKIP LOCKED);
    UPDATE fusillade.files SET status = 'deleted', deleted_at = now(), updated_at = now() WHERE id = ANY (gone);
    RETURN cardinality(late) + cardinality(gone);
END $$;

CREATE OR REPLACE FUNCTION fusillade.purge_templates(most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    target uuid;
    purged int;
BEGIN
    SELECT f.id INTO target FROM fusillade.files f
     WHERE NOT f.single AND f.deleted_at IS NOT NULL AND f.purged_at IS NULL ORDER BY f.deleted_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- By row address: told the file as well, the planner may walk all its lines for each of them.
    DELETE FROM fusillade.request_templates WHERE ctid = ANY (ARRAY(
        SELECT t.ctid FROM fusillade.request_templates t WHERE t.file_id = target AND NOT t.single
         ORDER BY t.line_number LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS purged = ROW_COUNT;
    IF purged = 0 AND NOT EXISTS (SELECT FROM fusillade.request_templates t WHERE t.file_id = target AND NOT t.single) THEN
        DELETE FROM fusillade.file_models WHERE file_id = target;
        UPDATE fusillade.files SET purged_at = now() WHERE id = target;
    END IF;
    RETURN purged;
END $$;

CREATE OR REPLACE FUNCTION fusillade.purge_requests(wait_s double precision, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    target record;
    purged int;
BEGIN
    SELECT b.id, b.output_file_id, b.error_file_id INTO target FROM fusillade.batches b
     WHERE NOT b.single AND b.deleted_at <= now() - wait_s * interval '1 second' AND b.purged_at IS NULL
       AND (b.completed_at IS NOT NULL OR b.failed_at IS NOT NULL OR b.cancelled_at IS NOT NULL OR b.expired_at IS NOT NULL)
     ORDER BY b.deleted_at LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM fusillade.requests WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM fusillade.requests r
         -- What still runs is ended by its owner first.
         WHERE r.batch_id = target.id AND r.state NOT IN ('claimed', 'processing')
         LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS purged = ROW_COUNT;
    DELETE FROM fusillade.finished_lines WHERE ctid = ANY (ARRAY(
        SELECT l.ctid FROM fusillade.finished_lines l WHERE l.batch_id = target.id ORDER BY l.failed, l.position LIMIT most));
    IF purged = 0 AND NOT FOUND AND NOT EXISTS (SELECT FROM fusillade.requests r WHERE r.batch_id = target.id) THEN
        PERFORM FROM fusillade.files f WHERE f.id IN (target.output_file_id, target.error_file_id) ORDER BY f.id FOR UPDATE;
        UPDATE fusillade.files SET status = 'deleted', deleted_at = now(), purged_at = now(), updated_at = now()
         WHERE id IN (target.output_file_id, target.error_file_id) AND deleted_at IS NULL;
        DELETE FROM fusillade.batch_models WHERE batch_id = target.id;
        UPDATE fusillade.batches SET purged_at = now(), output_file_id = NULL, error_file_id = NULL WHERE id = target.id;
    END IF;
    RETURN purged;
END $$;

-- Single requests that are over and older than the retention; time-ordered ids make it a walk along the key. (That of batches: along the one of
-- requests there are millions of lines, which stay.)
CREATE OR REPLACE FUNCTION fusillade.purge_responses(days int, most int) RETURNS int LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    cutoff timestamptz := now() - days * interval '1 day';
    past uuid := rpad(lpad(to_hex((extract(epoch FROM cutoff) * 1000)::bigint), 12, '0'), 32, '0')::uuid;
    gone uuid[];
BEGIN
    gone := ARRAY(
        SELECT r.id FROM fusillade.batches b CROSS JOIN LATERAL (
            SELECT r.id FROM fusillade.requests r
             WHERE r.id = b.id AND r.batch_id = b.id AND r.state IN ('completed', 'failed', 'canceled') AND r.created_at < cutoff
             LIMIT 1 FOR UPDATE SKIP LOCKED) r
         WHERE b.id < past ORDER BY b.id LIMIT most);
    DELETE FROM fusillade.requests WHERE id = ANY (gone);
    DELETE FROM fusillade.request_templates WHERE id = ANY (gone);
    DELETE FROM fusillade.batches WHERE id = ANY (gone);
    RETURN cardinality(gone);
END $$;
