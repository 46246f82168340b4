-- Files and batches of many requests: the functions of the queue that write them (functions.sql has the rules that hold here, too).

-- ----- lines of batches: from the file to their ends (docs/decisions/0026)
-- A line is a request whose batch has another id. Whoever ends one, or takes an end back, says so to its batch in the same transaction:
-- `count_ended`, `retry_lines`. Until then the batch's row is not locked, and afterwards nothing is waited for but `queues` and balances.

-- The request of a batch's line (from 0 on): as dwctl/queue/identifiers.py makes it.
CREATE OR REPLACE FUNCTION fusillade.line_id(batch uuid, line bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (left(batch::text, 27) || translate(substr(batch::text, 28, 1), '0123456789abcdef', '1032547698badcfe')
            || lpad(to_hex(line), 8, '0'))::uuid
$$;

-- The window of a batch in words (`24h`, `1h 30m`) as a span of time; a day where nobody can read it.
CREATE OR REPLACE FUNCTION fusillade.window_of(words text) RETURNS interval LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN greatest(words::interval, interval '0');
EXCEPTION WHEN data_exception THEN
    RETURN interval '24 hours';
END $$;

-- Lines that ended in this transaction: their places in the output and error files, their batches' counters, and what follows when these were
-- the last. What ends after its batch was cancelled is dropped, whatever it came to. One delta for each batch, its row locked from here on. Gives
-- how many batches there were.
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
        SELECT r.id, r.batch_id, r.model, r.state, r.state <> 'completed' AS is_error,
               CASE WHEN r.state = 'completed' THEN fusillade.line_bytes(r) ELSE 0 END AS bytes,
               row_number() OVER (PARTITION BY r.batch_id, r.state <> 'completed' ORDER BY r.updated_at, r.id) - 1 AS place
          FROM fusillade.requests r
         WHERE r.id = ANY (them) AND r.batch_id <> r.id AND r.state IN ('completed', 'failed', 'canceled')
    ), sums AS MATERIALIZED (
        SELECT batch_id, count(*) FILTER (WHERE state = 'completed') AS completed, count(*) FILTER (WHERE state = 'failed') AS failed,
               count(*) FILTER (WHERE state = 'canceled') AS canceled, count(*) FILTER (WHERE is_error) AS errors,
               sum(bytes) AS output_bytes
          FROM ended GROUP BY batch_id
    ), errors AS MATERIALIZED (
        SELECT e.batch_id, e.bytes FROM fusillade.error_bytes(them) e
    ), counted AS (
        UPDATE fusillade.batches b
           SET completed_requests = b.completed_requests + s.completed, failed_requests = b.failed_requests + s.failed,
               canceled_requests = b.canceled_requests + s.canceled, output_lines = b.output_lines + s.completed,
               error_lines = b.error_lines + s.errors, output_bytes = b.output_bytes + s.output_bytes,
               error_bytes = b.error_bytes + coalesce((SELECT e.bytes FROM errors e WHERE e.batch_id = b.id), 0)
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

-- Batches, locked by the caller, of which all has ended: how they ended, at once. One that was made by hand (nothing was populated) is over when
-- none of its requests is left to run; any other when it is populated and its counters say so. Its counters are counted anew afterwards.
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

-- Some more lines of a batch get their requests, in the order of the file; gives how many. Those of a batch that is cancelled, or past its
-- deadline, are born ended. Where the file has none any more, the batch has to do with those that are there; without any it fails.
-- All or nothing, so whoever comes after a crash goes on where `populated_lines` stands. grace_s: how long a deadline is not one.
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

-- What a claim looks at first, for lines that have just been made ready.
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

-- A batch whose file has no more lines, though it should have.
CREATE OR REPLACE FUNCTION fusillade.populate_no_more(one uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM fusillade.fail_batch(one, 'empty_file', 'The input file has no requests.');
    UPDATE fusillade.batches SET total_requests = populated_lines WHERE id = one AND populated_lines > 0 AND failed_at IS NULL;
    PERFORM fusillade.settle(ARRAY[one]);
    UPDATE batch_capacity_reservations SET released_at = now() WHERE batch_id = one AND released_at IS NULL;
END $$;

-- A batch that cannot begin; nothing happens to one that has begun, or that is cancelled.
CREATE OR REPLACE FUNCTION fusillade.fail_batch(one uuid, why text, said text) RETURNS void LANGUAGE sql AS $$
    UPDATE fusillade.batches
       SET failed_at = now(), errors = jsonb_build_object('object', 'list', 'data', jsonb_build_array(
               jsonb_build_object('code', why, 'line', NULL, 'message', said, 'param', NULL)))
     WHERE id = one AND NOT single AND populated_lines = 0 AND cancelling_at IS NULL AND failed_at IS NULL;
$$;

CREATE OR REPLACE FUNCTION fusillade.why_expired() RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '{"type":"BatchExpired","details":{"error":"The batch''s completion window ended before this request could be run."},"code":"batch_expired","message":"The batch''s completion window ended before this request could be run."}'
$$;

-- Pending lines end without being run, because their batch is cancelled or (expired) past its deadline. A claim that has one already finds
-- by the state that it comes too late.
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
        -- Each by its key, from its own sub-query: how many have ended is not known when this is planned, and a join that begins with what
        -- is ready compares all of it with each of them.
        DELETE FROM fusillade.ready WHERE ctid = ANY (ARRAY(
            SELECT k.ctid FROM fusillade.batches b CROSS JOIN ended e CROSS JOIN LATERAL (
                SELECT y.ctid FROM fusillade.ready y
                 WHERE y.model = e.model AND y.created_by = b.created_by AND y.deadline = b.expires_at AND y.id = e.id
                   FOR UPDATE SKIP LOCKED) k
             WHERE b.id = one))
    ), undelayed AS (
        DELETE FROM fusillade.delayed WHERE ctid = ANY (ARRAY(
            SELECT k.ctid FROM ended e CROSS JOIN LATERAL (
                SELECT d.ctid FROM fusillade.delayed d WHERE d.not_before = e.not_before AND d.id = e.id FOR UPDATE) k
             WHERE e.not_before IS NOT NULL))
    )
    SELECT array_agg(id ORDER BY id) INTO over FROM ended;
    IF over IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM fusillade.note_expired(one, CASE WHEN expired THEN cardinality(over) ELSE 0 END);
    PERFORM fusillade.count_ended(over);
    RETURN cardinality(over);
END $$;

-- So many lines of a batch are ended by its deadline in this transaction, so that is how it ends. Its row is locked from here on.
CREATE OR REPLACE FUNCTION fusillade.note_expired(one uuid, lines int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF lines > 0 THEN
        PERFORM FROM fusillade.batches WHERE id = one FOR NO KEY UPDATE;
        INSERT INTO fusillade.sweeps AS w (batch_id, ended) VALUES (one, lines)
        ON CONFLICT (batch_id) DO UPDATE SET ended = w.ended + EXCLUDED.ended;
    END IF;
END $$;

-- ----- the ends and new beginnings of whole batches: one row at once, its lines by `sweep` afterwards, some at a time

-- Stop a batch; nothing happens to one that is over. Its lines in flight are stopped by their workers, which hear of it. False: there is none.
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

-- A batch that nobody wants to see any more; if it is not over it is cancelled. False: there is none (any more).
CREATE OR REPLACE FUNCTION fusillade.delete_batch(one uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.batches SET deleted_at = now() WHERE id = one AND NOT single AND deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM fusillade.cancel_batch(one);
    RETURN true;
END $$;

-- Some of the lines of a batch that is cancelled or past its deadline: those that wait are ended. Gives whether it has been through all of them.
-- Lines that somebody has locked may be waiting or not: it stops before the first of them, and looks again.
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

-- The line of a populated request.
CREATE OR REPLACE FUNCTION fusillade.line_of(request uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || right(request::text, 8))::bit(32)::bigint
$$;

-- Failed lines of a batch (locked, and failed, by the caller) are to be run again: they leave the error file (`places`), whose other lines keep
-- theirs. What is in the log of their last run stays there, a moment later, so that the next has its own place.
CREATE OR REPLACE FUNCTION fusillade.retry_lines(one uuid, them uuid[], places bigint[]) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    bytes bigint;
    made_at timestamptz := (SELECT b.created_at FROM fusillade.batches b WHERE b.id = one);
BEGIN
    IF them = '{}' THEN
        RETURN;
    END IF;
    bytes := (SELECT coalesce(sum(e.bytes), 0) FROM fusillade.error_bytes(them) e);
    -- (The time as a parameter: it says in which partition to look, before all of them are.)
    UPDATE http_analytics h SET timestamp = h.timestamp + (r.retried + 1) * interval '1 microsecond'
      FROM fusillade.requests r
     WHERE h.request_id = ANY (them) AND h.timestamp = made_at AND r.id = h.request_id;
    UPDATE fusillade.requests r
       SET state = 'pending', retry_attempt = 0, times_lost = 0, retried = r.retried + 1, not_before = NULL, daemon_id = NULL,
           claimed_at = NULL, started_at = NULL, response_status = NULL, response_body = NULL, response_size = 0, routed_model = NULL,
           error = NULL, failed_at = NULL, updated_at = now()
     WHERE r.id = ANY (them);
    -- By their places, which are the key: looked for by their ids, all places of the batch would be compared with each of them.
    DELETE FROM fusillade.finished_lines f WHERE f.batch_id = one AND f.failed AND f.position = ANY (places);
    UPDATE fusillade.batches b SET failed_requests = b.failed_requests - cardinality(them), error_bytes = b.error_bytes - bytes WHERE b.id = one;
    UPDATE fusillade.batch_models m SET failed = m.failed - s.lines
      FROM (SELECT r.model, count(*) AS lines FROM fusillade.requests r WHERE r.id = ANY (them) GROUP BY r.model) s
     WHERE m.batch_id = one AND m.model = s.model;
    PERFORM fusillade.make_ready(them);
END $$;

-- A batch is to go on, with time for it: past its deadline it has one window from now. Its row is locked. False: it is cancelled or deleted.
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

-- All failed lines of a batch are to be run again: the first `most` at once, the others by `sweep_retries`. Gives how many there are; null for
-- a batch that is cancelled or not there.
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

-- Some of the failed lines of a batch that is being retried. Gives whether it has been through all of them.
CREATE OR REPLACE FUNCTION fusillade.sweep_retries(one uuid, most int) RETURNS boolean LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    w record;
    places record;
    again record;
BEGIN
    PERFORM FROM fusillade.batches WHERE id = one FOR NO KEY UPDATE;
    SELECT position, until INTO w FROM fusillade.sweeps WHERE batch_id = one AND retries;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    SELECT max(f.position) AS last INTO places FROM (
        SELECT l.position FROM fusillade.finished_lines l
         WHERE l.batch_id = one AND l.failed AND l.position >= w.position AND l.position < w.until ORDER BY l.position LIMIT most) f;
    IF places.last IS NULL THEN
        DELETE FROM fusillade.sweeps WHERE batch_id = one AND retries;
        PERFORM fusillade.settle(ARRAY[one]);
        RETURN true;
    END IF;
    -- Never waited for: one that somebody has now was lost by him, who only finds that it is over.
    SELECT coalesce(array_agg(a.id), '{}') AS them, coalesce(array_agg(a.position), '{}') AS places INTO again FROM (
        SELECT r.id, l.position FROM fusillade.finished_lines l JOIN fusillade.requests r ON r.id = l.request_id
         WHERE l.batch_id = one AND l.failed AND l.position BETWEEN w.position AND places.last AND r.state = 'failed'
         ORDER BY r.id FOR UPDATE OF r SKIP LOCKED) a;
    PERFORM fusillade.retry_lines(one, again.them, again.places);
    UPDATE fusillade.sweeps SET position = places.last + 1 WHERE batch_id = one AND retries;
    RETURN false;
END $$;

-- These lines of a batch are to be run again, those of them that are its own and have failed. Gives which.
CREATE OR REPLACE FUNCTION fusillade.retry_requests(one uuid, them uuid[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    again uuid[] := ARRAY(SELECT r.id FROM fusillade.requests r
                           WHERE r.id = ANY (them) AND r.batch_id = one AND r.id <> one AND r.state = 'failed' ORDER BY r.id FOR UPDATE SKIP LOCKED);
BEGIN
    IF again = '{}' OR NOT fusillade.reopen(one) THEN
        RETURN;
    END IF;
    PERFORM fusillade.retry_lines(one, again, ARRAY(
        SELECT f.position FROM unnest(again) a(id) JOIN fusillade.finished_lines f ON f.request_id = a.id
         WHERE f.batch_id = one AND f.failed));
    RETURN QUERY SELECT unnest(again);
END $$;

-- ----- counted anew: batches that were changed by hand, and once each that is over

-- What a batch's rows say, written into its counters; lines that are missing in its files are added, those that are no more taken out. Its
-- row is locked from the beginning, so what others end meanwhile is counted by them. Gives whether anything was different.
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

-- The lines of a batch's output and error files as its rows have it; those that are there rightly keep their places.
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
           AND NOT EXISTS (SELECT FROM fusillade.finished_lines f WHERE f.batch_id = one AND f.request_id = r.id)
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

-- ----- uploads: a file's lines are stored while they come, and nobody sees them before the file has its row

-- An upload begins. Its lines go to request_templates by COPY, some at a time, each time in a transaction of its own.
CREATE OR REPLACE FUNCTION fusillade.begin_upload(given uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.uploads (file_id) VALUES (given);
END $$;

-- Called first in each of those transactions. False: it was given up, by whoever took its process for dead; nothing may be added.
CREATE OR REPLACE FUNCTION fusillade.continue_upload(given uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.uploads SET touched_at = now() WHERE file_id = given AND NOT abandoned;
    RETURN FOUND;
END $$;

-- All lines are there: the file appears, with its counts by model. Gives when it was made and when it expires; null for one that was given up.
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

-- It is not to be: what it has stored is purged.
CREATE OR REPLACE FUNCTION fusillade.abandon_upload(given uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.uploads SET abandoned = true WHERE file_id = given;
END $$;

-- Purges up to `most` lines of uploads that were given up, or were not heard of for so long. Gives how many there were, forgotten uploads included.
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

-- ----- batches are made

-- A batch of a file's lines, with its output and error files and what of it goes to each model; how many lines it has. Again with the same id:
-- nothing, and null. The caller has the file locked, and counted.
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

-- What a file's upload has counted already, for one that was written by hand: its lines by model and path.
CREATE OR REPLACE FUNCTION fusillade.count_file(counted uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM fusillade.file_models m WHERE m.file_id = counted) THEN
        INSERT INTO fusillade.file_models (file_id, model, path, requests, bytes)
        SELECT counted, model, path, count(*), sum(body_byte_size)
          FROM fusillade.request_templates t WHERE t.file_id = counted AND NOT single GROUP BY model, path
        ON CONFLICT DO NOTHING;
    END IF;
END $$;

-- ----- lines: what is downloaded of a batch, and what the length of its files is counted by

-- A stored body as JSON in one line. Outside of its strings JSON has line ends only as white space, so a space takes their place and nothing
-- grows; what is no JSON becomes a JSON string. (PostgreSQL 15 has no IS JSON; asking in this way costs a nanosecond a byte. Catching an error is a
-- subtransaction, which PostgreSQL before 17 refuses in a parallel plan: neither this one nor what calls it is PARALLEL SAFE.)
CREATE OR REPLACE FUNCTION fusillade.one_line(given text) RETURNS text LANGUAGE plpgsql STABLE AS $$
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

-- A line of an output file.
CREATE OR REPLACE FUNCTION fusillade.output_line(id uuid, custom_id text, status int, body text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT '{"id":"batch_req_' || id || '","custom_id":' || coalesce(to_json(custom_id)::text, 'null') || ',"response":{"status_code":'
        || coalesce(status, 200) || ',"request_id":"' || id || '","body":' || fusillade.one_line(body) || E'},"error":null}\n'
$$;

-- The message in the shapes that inference servers use for errors.
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

-- What a stored failure says: as protocols/failures.py reads it (a test compares the two), with the body that came with a status.
CREATE OR REPLACE FUNCTION fusillade.read_failure(error text, OUT code text, OUT message text, OUT status int, OUT body text)
LANGUAGE plpgsql STABLE AS $$
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

-- A line of an error file. A line that was cancelled, or that nobody ran in time, says what OpenAI's files say.
CREATE OR REPLACE FUNCTION fusillade.error_line(id uuid, custom_id text, state text, error text) RETURNS text
LANGUAGE plpgsql STABLE AS $$
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

-- How many bytes a finished line has in its output or error file.
CREATE OR REPLACE FUNCTION fusillade.line_bytes(line fusillade.requests) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT octet_length(fusillade.escape_line_ends(CASE line.state WHEN 'completed'
        THEN fusillade.output_line(line.id, line.custom_id, line.response_status, line.response_body)
        ELSE fusillade.error_line(line.id, line.custom_id, line.state, line.error) END))::bigint
$$;

-- How many bytes these lines (those of them that failed or were cancelled) have in the error files of their batches. What many share is made
-- once: a million lines that are cancelled differ in their ids.
CREATE OR REPLACE FUNCTION fusillade.error_bytes(them uuid[]) RETURNS TABLE (batch_id uuid, bytes bigint) LANGUAGE sql STABLE AS $$
    SELECT g.batch_id, sum(g.names + g.lines * (octet_length(fusillade.escape_line_ends(fusillade.error_line(g.batch_id, NULL, g.state, g.error))) - 4))::bigint
      FROM (SELECT r.batch_id, r.state, CASE r.state WHEN 'failed' THEN r.error END AS error, count(*) AS lines,
                   sum(octet_length(fusillade.escape_line_ends(coalesce(to_json(r.custom_id)::text, 'null')))) AS names
              FROM fusillade.requests r
             WHERE r.id = ANY (them) AND r.batch_id <> r.id AND r.state IN ('failed', 'canceled')
             GROUP BY 1, 2, 3) g
     GROUP BY g.batch_id
$$;

-- ----- files: what is deleted, what expires, what is purged

-- A file that its owner wants no more. The batches that are running it are cancelled; those that are over keep their results and the file's id.
-- An output or error file is taken from its batch. False: there is no such file (any more).
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

-- Somebody has seen that it is past its time.
CREATE OR REPLACE FUNCTION fusillade.expire_file(one uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.files SET status = 'expired', updated_at = now()
     WHERE id = one AND NOT single AND status = 'processed' AND expires_at <= now();
END $$;

-- Files past their time expire; after a grace they are deleted, unless a batch that is not over still needs their lines. Gives how many changed.
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

-- Lines of one deleted file, some at a time. Gives how many went; null where no file has any left.
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

-- Requests of one deleted batch that is over, some at a time, once it has been deleted for so long; its output and error files go with the last.
-- What they cost stays in the log and the ledger. Gives how many went; null where no batch has any left.
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
