-- Functions of dwctl/queue/functions.sql as they were when this migration was made.

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
