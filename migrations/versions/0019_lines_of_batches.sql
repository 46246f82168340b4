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

CREATE OR REPLACE FUNCTION fusillade.feed_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner text;
    due timestamptz;
BEGIN
    SELECT b.created_by, b.expires_at INTO owner, due FROM fusillade.batches b WHERE b.id = NEW.batch_id;
    IF NEW.batch_id <> NEW.id THEN
        -- Its counters are behind until a duty, which hears of it, has counted.
        INSERT INTO fusillade.recounts (batch_id) VALUES (NEW.batch_id) ON CONFLICT DO NOTHING;
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
    stopped := ARRAY(SELECT l.id FROM (SELECT b.id, b.cancelling_at FROM fusillade.batches b
                                        WHERE b.id = ANY (touched) ORDER BY b.id FOR NO KEY UPDATE) l WHERE l.cancelling_at IS NOT NULL);
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
    SELECT populated_lines, total_requests, cancelling_at IS NULL AS expired,
           coalesce((SELECT w.position FROM fusillade.sweeps w WHERE w.batch_id = one AND NOT w.retries AND w.done_at IS NULL), 0) AS position
      INTO b FROM fusillade.batches WHERE id = one;
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
    PERFORM FROM fusillade.batches WHERE id = one FOR NO KEY UPDATE;
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
BEGIN
    IF them = '{}' THEN
        RETURN;
    END IF;
    bytes := (SELECT coalesce(sum(fusillade.line_bytes(r)), 0) FROM fusillade.requests r WHERE r.id = ANY (them));
    UPDATE http_analytics h SET timestamp = h.timestamp + (r.retried + 1) * interval '1 microsecond'
      FROM fusillade.requests r, fusillade.batches b
     WHERE b.id = one AND r.id = ANY (them) AND h.request_id = r.id AND h.timestamp = b.created_at;
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
    DELETE FROM fusillade.recounts WHERE batch_id = one;
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
           count(*) FILTER (WHERE state = 'canceled') AS canceled,
           coalesce(sum(fusillade.line_bytes(r)) FILTER (WHERE state = 'completed'), 0) AS output_bytes,
           coalesce(sum(fusillade.line_bytes(r)) FILTER (WHERE state IN ('failed', 'canceled')), 0) AS error_bytes INTO n
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
    END IF;
    UPDATE fusillade.batches
       SET completed_requests = n.completed, failed_requests = n.failed, canceled_requests = n.canceled,
           output_bytes = n.output_bytes, error_bytes = n.error_bytes, total_requests = greatest(total_requests, n.lines),
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

CREATE OR REPLACE FUNCTION fusillade.line_bytes(line fusillade.requests) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT octet_length(CASE line.state WHEN 'completed'
        THEN fusillade.output_line(line.id, line.custom_id, line.response_status, line.response_body)
        ELSE fusillade.error_line(line.id, line.custom_id, line.state, line.error) END)::bigint
$$;
