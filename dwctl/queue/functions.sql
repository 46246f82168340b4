-- All that writes requests and what belongs to them (batches, templates, files, ready, delayed, inflight, queues, open_calls), in its present
-- text: here what the recorder and others call, in claims.sql what waits and is claimed, in batches.sql files and batches. Migrations freeze
-- copies; a test compares these files with a migrated database. A change here needs a migration that carries it.
--
-- PL/pgSQL, so that each connection plans once. Whoever touches several rows of a kind locks them in the order of their keys; kinds are
-- locked in the order files, requests, inflight and open_calls, what the recorder adds (balances), batches (of files), sweeps, ready, queues,
-- roll-ups. (A claim comes from the other side, through queues and ready to requests: whoever has a request does not wait for these,
-- but skips what is locked. Who begins at a batch, to take its lines back, does not wait for requests either.)

-- ----- what the recorder calls inside its own statements: arrays of Opening and Record (analytics/records.py)

-- The containers that the single requests of an owner share for a day. Every recorder wants the same ones at midnight: in one order.
CREATE OR REPLACE FUNCTION fusillade.ensure_files(given json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.files (id, name, purpose, uploaded_by, single)
    SELECT id, 'single_request', 'batch', owner, true FROM json_to_recordset(given) AS f(id uuid, owner text) ORDER BY id
    ON CONFLICT (id) DO NOTHING;
END $$;

-- Calls that are not over: a realtime call that lasts (processing), a request for a worker (pending).
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

-- Calls that are over: their rows in these tables. Gives those that are to be logged and charged; a row that is another's, or over, is not.
-- born_final: none of them was opened before, or is waited for. Only processes of the release before say so; see add_ended.
-- retaken: it had ended "interrupted", and its owner turned out to be alive. line_of: the batch of a line that has ended with this, which
-- `count_ended` is still to be told; retried: how often it had ended before, and its owner had it run again.
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

-- Calls that are over and were never anything else (none was opened before, none is waited for): nearly every group. What `end_calls` does for
-- these, without a look at rows that cannot be there, and without reading the recorder's JSON again. A repeat changes nothing.
-- fusillade.born_final is a type (migration 0008): an array of it costs a sixth of the JSON.
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

-- What is to be recorded of calls if their process dies; only while they run, and for their owner.
CREATE OR REPLACE FUNCTION fusillade.keep_last_words(given json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM fusillade.open_calls o WHERE o.id = ANY (ARRAY(SELECT (w->>'id')::uuid FROM json_array_elements(given) w))
      ORDER BY o.id FOR UPDATE;
    UPDATE fusillade.open_calls o SET last_words = c.words
      FROM (SELECT (w->>'id')::uuid AS id, (w->>'daemon_id')::uuid AS daemon_id, w::text AS words
              FROM json_array_elements(given) w) c
     WHERE o.id = c.id AND o.daemon_id = c.daemon_id;
    PERFORM FROM fusillade.inflight i WHERE i.id = ANY (ARRAY(SELECT (w->>'id')::uuid FROM json_array_elements(given) w))
      ORDER BY i.id FOR UPDATE;
    UPDATE fusillade.inflight i SET last_words = c.words
      FROM (SELECT (w->>'id')::uuid AS id, (w->>'daemon_id')::uuid AS daemon_id, w::text AS words
              FROM json_array_elements(given) w) c
     WHERE i.id = c.id AND i.daemon_id = c.daemon_id;
END $$;

-- A request whose record the database does not take: nothing may stay in progress, and nobody wait, because of that.
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

-- Requests whose commit was not heard of, and whose callers were told that nothing was accepted.
CREATE OR REPLACE FUNCTION fusillade.withdraw(them uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM fusillade.requests r WHERE r.id = ANY (them) ORDER BY r.id FOR UPDATE;
    WITH withdrawn AS (
        UPDATE fusillade.requests r SET state = 'canceled', canceled_at = now(), updated_at = now()
         WHERE id = ANY (them)
           AND (state = 'pending' OR (state = 'processing' AND EXISTS (SELECT FROM fusillade.open_calls o WHERE o.id = r.id)))
        RETURNING id, model, batch_id
    ), closed AS (
        DELETE FROM fusillade.open_calls o USING withdrawn w WHERE o.id = w.id
    )
    DELETE FROM fusillade.ready WHERE ctid = ANY (ARRAY(
        SELECT y.ctid FROM withdrawn w JOIN fusillade.batches b ON b.id = w.batch_id
          JOIN fusillade.ready y ON y.model = w.model AND y.created_by = b.created_by AND y.deadline = b.expires_at AND y.id = w.id
           FOR UPDATE OF y SKIP LOCKED));
END $$;

-- ----- calls of a process that died, and what their owners do

-- Realtime calls whose process is gone: their caller is gone too, so they end, and are never run again; those in the background of which
-- nothing was shown get one more try by a worker. What they had said so far goes to `unrecorded`, also of those that were cancelled.
CREATE OR REPLACE FUNCTION fusillade.interrupt_calls(most int, wait_s double precision) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    ownerless uuid[];
    ended int;
BEGIN
    ownerless := ARRAY(
        SELECT f.id FROM fusillade.open_calls f
         WHERE NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = f.daemon_id AND d.status <> 'dead')
         ORDER BY f.id LIMIT most);
    -- Before the rows of open_calls, as everybody. One that somebody has is being ended, and there is another round; one that is not there was
    -- deleted while it ran.
    ownerless := ARRAY(SELECT r.id FROM fusillade.requests r WHERE r.id = ANY (ownerless) ORDER BY r.id FOR UPDATE SKIP LOCKED)
        || ARRAY(SELECT f.id FROM unnest(ownerless) f(id) WHERE NOT EXISTS (SELECT FROM fusillade.requests r WHERE r.id = f.id));
    PERFORM FROM fusillade.open_calls o WHERE o.id = ANY (ownerless) ORDER BY o.id FOR UPDATE;
    WITH lost AS (
        DELETE FROM fusillade.open_calls o
         WHERE o.id = ANY (ownerless)
           AND NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = o.daemon_id AND d.status <> 'dead')
        RETURNING o.id, o.daemon_id, o.last_words,
                  o.repeatable AND NOT EXISTS (SELECT FROM fusillade.response_chunks c WHERE c.request_id = o.id) AS repeatable
    ), again AS (
        UPDATE fusillade.requests r SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL,
               times_lost = r.times_lost + 1, not_before = now() + wait_s * interval '1 second', updated_at = now()
          FROM lost l
         WHERE r.id = l.id AND r.daemon_id = l.daemon_id AND r.state = 'processing' AND l.repeatable AND r.times_lost = 0
        RETURNING r.id, r.batch_id, r.not_before
    ), put_off AS (
        INSERT INTO fusillade.delayed (not_before, id)
        SELECT least(a.not_before, greatest(b.expires_at, now())), a.id
          FROM again a LEFT JOIN fusillade.batches b ON b.id = a.batch_id
        ON CONFLICT DO NOTHING
    ), over AS (
        UPDATE fusillade.requests r SET state = 'failed', failed_at = now(), updated_at = now(),
               error = '{"type":"Interrupted","details":{"error":"The process that ran this request ended before it was done."}}'
          FROM lost l
         WHERE r.id = l.id AND r.daemon_id = l.daemon_id AND r.state = 'processing' AND NOT (l.repeatable AND r.times_lost = 0)
        RETURNING r.id
    ), batches AS (
        UPDATE fusillade.batches b SET failed_at = now() FROM over o WHERE b.id = o.id
    ), unrecorded AS (
        INSERT INTO fusillade.unrecorded (id, error_code, last_words)
        SELECT l.id, 'interrupted', l.last_words FROM lost l WHERE NOT EXISTS (SELECT FROM again a WHERE a.id = l.id)
        ON CONFLICT DO NOTHING
    ), told AS MATERIALIZED (
        SELECT count(pg_notify('fusillade_done', id::text)) AS n FROM over
    )
    SELECT n INTO ended FROM told;
    RETURN ended;
END $$;

-- Another attempt is to take the place of this one (of the same call, by its Idempotency-Key): whether it still stands as that one has seen it
-- (null: it was not there). From then on nobody takes its "interrupted" back.
CREATE OR REPLACE FUNCTION fusillade.take_over(one uuid, seen text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    present text;
BEGIN
    SELECT r.state INTO present FROM fusillade.requests r WHERE r.id = one FOR UPDATE;
    IF present IS DISTINCT FROM seen THEN
        RETURN false;
    END IF;
    IF present = 'failed' THEN
        UPDATE fusillade.requests SET daemon_id = NULL, updated_at = now() WHERE id = one;
    END IF;
    RETURN true;
END $$;

-- Stop a request wherever it is; nothing happens to one that is over. Gives its id, if one of the owners owns it.
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

-- A single request with all its rows; what it cost stays in the log and the ledger. Gives its id, if there was one.
CREATE OR REPLACE FUNCTION fusillade.delete_response(one uuid, owners text[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    template uuid;
BEGIN
    DELETE FROM fusillade.requests r USING fusillade.batches b
     WHERE r.id = one AND r.batch_id = r.id AND b.id = r.batch_id AND b.created_by = ANY (owners) AND b.deleted_at IS NULL
    RETURNING r.template_id INTO template;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM fusillade.request_templates WHERE id = one AND id = template;
    DELETE FROM fusillade.batches WHERE id = one;
    DELETE FROM fusillade.response_chunks WHERE request_id = one;
    PERFORM pg_notify('fusillade_cancel', one::text), pg_notify('fusillade_done', one::text);
    RETURN NEXT one;
END $$;

-- ----- events of streams that others may read, or read again (docs/decisions/0022)

-- Chunks of events: of each request those that follow what is kept already. Only who runs a request (or has ended it) keeps its events: gives
-- those that were its own to keep. What has been shown must not be run again, and nothing is kept of what was deleted, so the request is locked
-- against `give_back` and `interrupt_calls`, which look whether there is a chunk, and against `delete_response`. A repeat changes nothing.
CREATE OR REPLACE FUNCTION fusillade.keep_events(me uuid, given_ids uuid[], firsts int[], lasts int[], texts bytea[])
RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    mine uuid[];
BEGIN
    PERFORM FROM fusillade.requests r
      WHERE r.id = ANY (given_ids) ORDER BY r.id FOR KEY SHARE;
    -- What follows a beginning that is not there (any more) helps nobody.
    mine := ARRAY(
        SELECT r.id FROM unnest(given_ids, firsts) g(id, first) JOIN fusillade.requests r ON r.id = g.id
         WHERE r.daemon_id = me AND (g.first = 0
            OR EXISTS (SELECT FROM fusillade.response_chunks c WHERE c.request_id = g.id AND c.first_sequence = 0)));
    INSERT INTO fusillade.response_chunks (request_id, first_sequence, last_sequence, events)
    SELECT g.id, g.first, g.last, g.text FROM unnest(given_ids, firsts, lasts, texts) g(id, first, last, text)
     WHERE g.id = ANY (mine) ORDER BY g.id, g.first
    ON CONFLICT DO NOTHING;
    PERFORM pg_notify('fusillade_events', p.ids)
       FROM (SELECT string_agg(n.id::text, ',') AS ids
               FROM (SELECT m.id, row_number() OVER () / 150 AS page FROM unnest(mine) m(id)) n GROUP BY n.page) p;
    RETURN QUERY SELECT unnest(mine);
END $$;

-- Events of requests that have been over for so long: all of a request's at once, oldest first. From then on its object is what is shown.
CREATE OR REPLACE FUNCTION fusillade.purge_events(age_s double precision, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    cutoff timestamptz := now() - age_s * interval '1 second';
    gone uuid[];
BEGIN
    gone := ARRAY(
        SELECT c.request_id FROM fusillade.response_chunks c
         WHERE c.first_sequence = 0 AND c.created_at < cutoff
           -- Asked for each by its key: as a join, the planner may read all requests.
           AND coalesce((SELECT r.state NOT IN ('pending', 'claimed', 'processing') AND r.updated_at < cutoff
                           FROM fusillade.requests r WHERE r.id = c.request_id), true)
         ORDER BY c.created_at LIMIT most FOR UPDATE SKIP LOCKED);
    DELETE FROM fusillade.response_chunks WHERE request_id = ANY (gone);
    RETURN cardinality(gone);
END $$;

-- ----- what is old, by the clock of the database

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

-- Single requests that were not to be kept, and that nobody came for: a minute after their end. Gives how many.
CREATE OR REPLACE FUNCTION fusillade.forget_unkept(most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    gone uuid[];
BEGIN
    gone := ARRAY(
        SELECT r.id FROM fusillade.batches b JOIN fusillade.requests r ON r.id = b.id AND r.batch_id = b.id
         WHERE b.metadata ? 'unkept' AND coalesce(r.completed_at, r.failed_at, r.canceled_at) < now() - interval '1 minute'
         ORDER BY r.id LIMIT most FOR UPDATE OF r SKIP LOCKED);
    DELETE FROM fusillade.requests WHERE id = ANY (gone);
    DELETE FROM fusillade.request_templates WHERE id = ANY (gone);
    DELETE FROM fusillade.batches WHERE id = ANY (gone);
    DELETE FROM fusillade.response_chunks WHERE request_id = ANY (gone);
    RETURN cardinality(gone);
END $$;

-- Days' containers of single requests that nothing refers to any more.
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

-- ----- rows that are written by hand

-- Rows of the queue that come from these functions carry their entries in ready and inflight with them (the session says dwctl.queue =
-- own). Triggers call this for rows inserted or changed by hand.
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

