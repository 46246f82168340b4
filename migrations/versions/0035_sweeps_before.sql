DROP FUNCTION fusillade.claim(uuid, int, text[], int[], int, double precision, double precision, text[], text[], double precision[], uuid[], uuid[]);

DROP FUNCTION fusillade.claim_model(uuid, text, int, text, int, timestamptz, int, timestamptz, double precision, uuid[], uuid[], boolean);

DROP FUNCTION fusillade.places_taken(uuid, text, uuid[], uuid[]);

DROP FUNCTION fusillade.error_bytes(uuid[]);

DROP FUNCTION fusillade.retry_lines(uuid, uuid[], bigint[]);

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
